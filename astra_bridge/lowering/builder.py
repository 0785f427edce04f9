# SPDX-License-Identifier: MIT
"""The tables of a Program while they grow: nobody else knows where a row will stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.program import (
    COLLECTIVE,
    GRAPH,
    GRAPH_NODE,
    GROUP,
    MESSAGE,
    NODE,
    PHASE,
    PLAN,
    TEMPLATE,
    Op,
)

__all__ = ["ProgramBuilder"]


class ProgramBuilder:
    """Takes rows whose references count from 0 in what is added, and says where they are.

    Attributes
    ----------
    collectives : list of tuple
        Rows of COLLECTIVE; the priorities may still be any numbers.
    plans : list of tuple
        Rows of PLAN.

    Examples
    --------
    >>> builder = ProgramBuilder()
    >>> nodes = np.zeros(3, NODE)
    >>> first = builder.template(nodes, np.zeros(0, np.int32), np.zeros(0, MESSAGE), 0, True)
    >>> first == builder.template(nodes, np.zeros(0, np.int32), np.zeros(0, MESSAGE), 0, True)
    True
    """

    def __init__(self) -> None:
        self.collectives: list[tuple[Any, ...]] = []
        self.plans: list[tuple[int, int]] = []
        self._groups: list[tuple[int, int, int, int]] = []
        self._members: list[int] = []
        self._phases: list[tuple[int, ...]] = []
        self._templates: list[tuple[Any, Any, Any, int, bool]] = []
        self._alike: dict[int, list[int]] = {}  # hash -> templates
        self._graphs: list[tuple[int, ...]] = []
        self._graph_nodes = _Rows(GRAPH_NODE)
        self._graph_children = _Rows(np.dtype(np.int32))
        self._graph_roots: list[int] = []
        self._graph_of_position: list[int] = []

    def template(
        self, nodes: Any, children: Any, messages: Any, compute_ps: int, relative: bool
    ) -> int:
        """Index of the template of these nodes.

        Ranks that do the same have one, whatever their files say: peers are distances, and groups
        are those of the own rank.

        Parameters
        ----------
        nodes, children, messages : ndarray of NODE, int32, MESSAGE
        compute_ps : int
        relative : bool
            Whether peers of the messages are distances from the own rank.
        """
        template = nodes, children, messages, compute_ps, relative
        content = _content(*template)
        alike = self._alike.setdefault(hash(content), [])
        for index in alike:
            if _content(*self._templates[index]) == content:
                return index
        alike.append(len(self._templates))
        self._templates.append(template)
        return len(self._templates) - 1

    def group(self, size: int, stride: int, tag: int, members: Sequence[int] = ()) -> int:
        """Append a group; a stride of 0 is a list of members."""
        self._groups.append((size, stride, len(self._members) if members else 0, tag))
        self._members += members
        return len(self._groups) - 1

    def group_size(self, group: int) -> int:
        """Number of members."""
        return self._groups[group][0]

    def group_stride(self, group: int) -> int:
        """Distance of its members; 0 of a list."""
        return self._groups[group][1]

    def group_span(self, group: int) -> tuple[int, int]:
        """Least and greatest rank of a group, of the first one where it stands for many."""
        size, stride, start, _ = self._groups[group]
        if stride:
            return 0, stride * (size - 1)
        members = self._members[start : start + size]
        return min(members), max(members)

    def plan(self, phases: Sequence[tuple[int, ...]]) -> int:
        """Append a plan of these rows of PHASE."""
        self.plans.append((len(self._phases), len(phases)))
        self._phases += phases
        return len(self.plans) - 1

    def side_by_side(self, plans: Sequence[int]) -> tuple[int, int]:
        """First and number of plans that stand side by side and are these."""
        if len(set(plans)) == 1:
            return plans[0], 1
        self.plans += [self.plans[plan] for plan in plans]
        return len(self.plans) - len(plans), len(plans)

    def collective(self, *row: Any) -> int:
        """Append a row of COLLECTIVE."""
        self.collectives.append(row)
        return len(self.collectives) - 1

    def graph(self, nodes: Any, children: Any, roots: Sequence[int], buckets: int) -> int:
        """Append a graph; the nodes are changed."""
        nodes["child_start"] += self._graph_children.count
        self._graph_children.add(children)
        first_root = len(self._graph_roots)
        self._graph_roots += roots
        first = self._graph_nodes.add(nodes)
        self._graphs.append((first, len(nodes), first_root, len(roots), buckets))
        return len(self._graphs) - 1

    def graph_of_position(self, graphs: Sequence[int]) -> int:
        """Where these graphs stand, one for each position of a group."""
        self._graph_of_position += graphs
        return len(self._graph_of_position) - len(graphs)

    def arrays(self) -> dict[str, Any]:
        """The tables that were collected here, by their names in a Program."""

        def table(rows: Sequence[Any], dtype: Any) -> Any:
            return np.array([tuple(row) for row in rows], dtype)

        return {
            **self._template_arrays(),
            "groups": table(self._groups, GROUP),
            "members": np.array(self._members, np.int32),
            "collectives": table(self.collectives, COLLECTIVE),
            "plans": table(self.plans, PLAN),
            "phases": table(self._phases, PHASE),
            "graphs": table(self._graphs, GRAPH),
            "graph_nodes": self._graph_nodes.array(),
            "graph_children": self._graph_children.array(),
            "graph_roots": np.array(self._graph_roots, np.int32),
            "graph_of_position": np.array(self._graph_of_position, np.int32),
        }

    def _template_arrays(self) -> dict[str, Any]:
        nodes, children, messages = _Rows(NODE), _Rows(np.dtype(np.int32)), _Rows(MESSAGE)
        rows = []
        for own, kids, sent, compute_ps, relative in self._templates:
            moved = own.copy()
            moved["child_start"] += children.add(kids)
            sends = (own["op"] == int(Op.SEND)) | (own["op"] == int(Op.RECV))
            moved["arg"][sends] += messages.add(sent)
            rows.append((nodes.add(moved), len(own), compute_ps, relative))
        return {
            "templates": np.array(rows, TEMPLATE),
            "nodes": nodes.array(),
            "children": children.array(),
            "messages": messages.array(),
        }


def _content(
    nodes: Any, children: Any, messages: Any, compute_ps: int, relative: bool
) -> tuple[Any, ...]:
    """What is equal where templates do the same."""
    return nodes.tobytes(), children.tobytes(), messages.tobytes(), compute_ps, relative


class _Rows:
    """A table that grows by arrays."""

    def __init__(self, dtype: Any) -> None:
        self.count = 0
        self._parts: list[NDArray[Any]] = [np.zeros(0, dtype)]

    def add(self, rows: NDArray[Any]) -> int:
        self._parts.append(rows)
        self.count += len(rows)
        return self.count - len(rows)

    def array(self) -> NDArray[Any]:
        return np.concatenate(self._parts)
