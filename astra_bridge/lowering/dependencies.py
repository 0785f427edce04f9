# SPDX-License-Identifier: MIT
"""Which node waits for which."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import StalledError
from astra_bridge.lowering.view import TraceView

__all__ = ["dependencies"]


def dependencies(view: TraceView, nodes: Any) -> NDArray[np.int32]:
    """Fill in parents and children of nodes.

    Parameters
    ----------
    view : TraceView
    nodes : ndarray of NODE or GRAPH_NODE

    Returns
    -------
    ndarray of int32
        Children of all nodes; ``child_start`` counts from the first.

    Raises
    ------
    StalledError
        Nodes wait for one another in a circle.
    """
    trace, order = view.trace, view.order
    count = len(order)
    rank_of = np.empty(count, np.int64)
    rank_of[order] = np.arange(count)
    parents_per_node = np.diff(trace.dep_start)
    child = rank_of[np.repeat(np.arange(count), parents_per_node)]
    parent = rank_of[trace.dep]
    nodes["parents"] = parents_per_node[order]
    by_parent = np.lexsort((child, parent))
    children: NDArray[np.int32] = child[by_parent].astype(np.int32)
    per_parent = np.bincount(parent, minlength=count)
    nodes["child_count"] = per_parent
    nodes["child_start"] = np.cumsum(per_parent) - per_parent
    if (parent >= child).any():
        # Parents usually come first, in which case there can be no circle.
        _check_acyclic(view, nodes, children)
    return children


def _check_acyclic(view: TraceView, nodes: Any, children: NDArray[np.int32]) -> None:
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
    if done < len(waiting):
        stuck = [int(view.trace.node_id[view.order[i]]) for i, w in enumerate(waiting) if w > 0]
        raise StalledError(
            f"{view.trace.file or 'trace'}: nodes wait for one another in a circle: "
            f"{', '.join(map(str, stuck[:10]))}{' ...' if len(stuck) > 10 else ''}"
        )
