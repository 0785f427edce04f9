# SPDX-License-Identifier: MIT
"""Which node waits for which."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import StalledError
from astra_bridge.lowering.view import TraceView
from astra_bridge.trace import NodeType

__all__ = ["dependencies"]

_TAKE_TURNS = (int(NodeType.COMM_COLL), int(NodeType.COMM_SEND))


def dependencies(view: TraceView, nodes: Any, *, in_turn: bool = False) -> NDArray[np.int32]:
    """Fill in parents and children of nodes.

    Control parents that form a circle with data parents are callers, as PyTorch writes them, and
    order nothing: then none in the trace does.

    Parameters
    ----------
    view : TraceView
    nodes : ndarray of NODE or GRAPH_NODE
    in_turn : bool
        Whether each collective and send waits for the one before it.

    Returns
    -------
    ndarray of int32
        Children of all nodes; ``child_start`` counts from the first.

    Raises
    ------
    StalledError
        Nodes wait for one another in a circle.
    """
    trace = view.trace
    if trace.unknown_callers:
        view.remark(
            "ctrl_deps name nodes that the trace does not have; nothing waits for them",
            trace.unknown_callers,
        )
    children, stuck = _fill_in(view, nodes, np.ones(len(trace.dep), np.bool_), in_turn)
    if stuck and trace.dep_is_control.any():
        children, still = _fill_in(view, nodes, ~trace.dep_is_control, in_turn)
        if not still:
            view.remark(
                "ctrl_deps do not order, because they form a circle with data_deps: control "
                "parents are callers here",
                int(trace.dep_is_control.sum()),
            )
            return children
    if stuck:
        raise StalledError(
            f"{trace.file or 'trace'}: nodes wait for one another in a circle: "
            f"{', '.join(map(str, stuck[:10]))}{' ...' if len(stuck) > 10 else ''}"
        )
    return children


def _fill_in(
    view: TraceView, nodes: Any, counts: NDArray[np.bool_], in_turn: bool
) -> tuple[NDArray[np.int32], list[int]]:
    """Fill in the dependencies that count; return children, and the ids of nodes in a circle."""
    trace, order = view.trace, view.order
    count = len(order)
    rank_of = np.empty(count, np.int64)
    rank_of[order] = np.arange(count)
    child = rank_of[np.repeat(np.arange(count), np.diff(trace.dep_start))]
    parent = rank_of[trace.dep]
    if not counts.all():
        child, parent = child[counts], parent[counts]
    if in_turn:
        turns = np.flatnonzero(np.isin(view.types, _TAKE_TURNS))
        edges = np.unique(np.concatenate([child * count + parent, turns[1:] * count + turns[:-1]]))
        child, parent = edges // count, edges % count
    nodes["parents"] = np.bincount(child, minlength=count)
    by_parent = np.lexsort((child, parent))
    children: NDArray[np.int32] = child[by_parent].astype(np.int32)
    per_parent = np.bincount(parent, minlength=count)
    nodes["child_count"] = per_parent
    nodes["child_start"] = np.cumsum(per_parent) - per_parent
    # Parents usually come first, in which case there can be no circle.
    return children, _circle(view, nodes, children) if (parent >= child).any() else []


def _circle(view: TraceView, nodes: Any, children: NDArray[np.int32]) -> list[int]:
    waiting = nodes["parents"].tolist()
    start, count = nodes["child_start"].tolist(), nodes["child_count"].tolist()
    kids = children.tolist()
    free = [i for i, parents in enumerate(waiting) if parents == 0]
    done = 0
    while free:
        node = free.pop()
        done += 1
        for child in kids[start[node] : start[node] + count[node]]:
            waiting[child] -= 1
            if waiting[child] == 0:
                free.append(child)
    if done == len(waiting):
        return []
    return [int(view.trace.node_id[view.order[i]]) for i, left in enumerate(waiting) if left > 0]
