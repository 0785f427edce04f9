# SPDX-License-Identifier: MIT
"""Custom collectives: a small dependency graph for each position of a group, from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.collectives.issue_order import HashOrder, hash_order
from astra_bridge.lowering.builder import ProgramBuilder
from astra_bridge.lowering.dependencies import dependencies
from astra_bridge.lowering.durations import recorded_ps
from astra_bridge.lowering.p2p import folded_tags
from astra_bridge.lowering.view import Setting, TraceView, shorten
from astra_bridge.program import GRAPH_NODE, GraphOp
from astra_bridge.trace import NodeType, TraceColumns, read_trace

__all__ = ["CustomCollectives"]


class CustomCollectives:
    """The graphs of a Program."""

    def __init__(self, setting: Setting, builder: ProgramBuilder, warnings: list[str]) -> None:
        self._setting, self._builder = setting, builder
        self._warnings = warnings
        self._index: dict[Any, int] = {}

    def graphs(self, prefix: str, ranks: Sequence[int]) -> int:
        """One graph per position of the group; returns the first in graph_of_position.

        Raises
        ------
        InputError
            A file cannot be read, or has what no custom collective has.
        """
        key = (prefix, tuple(ranks))
        if key in self._index:
            return self._index[key]
        ordered = sorted(ranks)
        # ASTRA-sim finds the own file by the position among the sorted ranks, but takes peers
        # from the list as given.
        place = {rank: position for position, rank in enumerate(ordered)}
        traces = [read_trace(Path(f"{prefix}.{place[rank]}.et")) for rank in ranks]
        listed = "custom-peers-as-listed" in self._setting.semantics
        peers = ranks if listed else ordered
        if any(
            _names_itself(trace, rank, peers) for trace, rank in zip(traces, ranks, strict=True)
        ):
            self._warnings.append(
                f"communicator group {shorten(ranks)} is not in ascending order; taking it as "
                "given, ranks would send to themselves in the custom collective "
                f"{prefix}, so it is taken in ascending order"
            )
            peers = ordered
        elif list(peers) != ordered:
            self._setting.effects.note(
                "custom-peers-as-listed", f"{prefix} in the communicator group {shorten(ranks)}"
            )
        made = [
            self._graph(TraceView(trace, np.array([rank])), peers)
            for trace, rank in zip(traces, ranks, strict=True)
        ]
        self._index[key] = self._builder.graph_of_position(made)
        return self._index[key]

    def _graph(self, view: TraceView, peers: Sequence[int]) -> int:
        nodes = np.zeros(len(view.order), GRAPH_NODE)
        known = np.isin(view.types, [NodeType.COMP, NodeType.COMM_SEND, NodeType.COMM_RECV])
        if not known.all():
            view.refuse(
                "a custom collective consists of COMP, COMM_SEND and COMM_RECV nodes",
                int(view.order[int(np.argmin(known))]),
            )
        nodes["op"] = GraphOp.DELAY
        nodes["duration_ps"] = recorded_ps(view)
        members = np.array(peers, np.int32)
        for node_type, op, column in (
            (NodeType.COMM_SEND, GraphOp.SEND, "comm_dst"),
            (NodeType.COMM_RECV, GraphOp.RECV, "comm_src"),
        ):
            which = view.types == node_type
            if not which.any():
                continue
            peer = view.required(which, column, 0, len(peers) - 1)
            nodes["op"][which] = op
            nodes["peer"][which] = members[peer]
            nodes["bytes"][which] = view.required(which, "comm_size", 1, 2**62)
            nodes["tag"][which] = folded_tags(view, which)
        children = dependencies(view, nodes)
        nodes["id"] = view.trace.node_id[view.order].astype(np.int64)
        roots, buckets = _hash_orders(view.trace, nodes, children)
        return self._builder.graph(nodes, children, roots, buckets)


def _names_itself(trace: TraceColumns, rank: int, peers: Sequence[int]) -> bool:
    """Whether a node of a custom collective sends to or receives from its own rank."""
    for node_type, column in (
        (NodeType.COMM_SEND, trace.comm_dst),
        (NodeType.COMM_RECV, trace.comm_src),
    ):
        named = column[trace.type == node_type]
        named = named[(named >= 0) & (named < len(peers))]
        if (np.array(peers)[named] == rank).any():
            return True
    return False


def _hash_orders(
    trace: TraceColumns, nodes: Any, children: NDArray[np.int32]
) -> tuple[list[int], int]:
    """Put the children of each node, and the roots, into the order in which they are issued.

    Returns
    -------
    roots : list of int
        Nodes without parents.
    buckets : int
        Buckets of the set of free nodes after the roots.
    """
    ids = nodes["id"].tolist()
    index = {one: i for i, one in enumerate(ids)}
    file_order = trace.node_id.astype(np.int64).tolist()
    at_file = {one: i for i, one in enumerate(file_order)}
    for node in np.flatnonzero(nodes["child_count"] > 1).tolist():
        first = int(nodes["child_start"][node])
        part = slice(first, first + int(nodes["child_count"][node]))
        own = sorted((ids[child] for child in children[part].tolist()), key=at_file.__getitem__)
        children[part] = [index[one] for one in hash_order(own)[0]]
    known = HashOrder()
    for position, one in enumerate(file_order):
        known.insert(one)
        parents = trace.dep[trace.dep_start[position] : trace.dep_start[position + 1]].tolist()
        for parent in hash_order([file_order[parent] for parent in parents])[0]:
            known.insert(parent)
    roots = [one for one in known if nodes["parents"][index[one]] == 0]
    ordered, buckets = hash_order(roots)
    return [index[one] for one in ordered], buckets
