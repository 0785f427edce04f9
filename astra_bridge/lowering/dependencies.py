# SPDX-License-Identifier: MIT
"""Which node waits for which."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import StalledError
from astra_bridge.lowering.view import Setting, TraceView
from astra_bridge.program import Unit
from astra_bridge.trace import MISSING, NodeType

__all__ = ["dependencies"]

_CALLERS = (
    "ctrl_deps do not order, because they form a circle with data_deps: control "
    "parents are callers here"
)
_TAKE_TURNS = (int(NodeType.COMM_COLL), int(NodeType.COMM_SEND))
_STREAMS = "nodes do not run in the order of their stream, because their dependencies forbid it"
_THREADS = "nodes do not run in the order of their thread, because their dependencies forbid it"


_Waits = NDArray[np.int64]
"""Who waits for whom, each once: positions in the template, child << 32 | parent."""


def dependencies(
    view: TraceView, nodes: Any, setting: Setting | None = None, *, in_turn: bool = False,
    modelled: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:  # fmt: skip
    """Fill in parents and children of nodes.

    Nodes of one stream of the GPU, and of one thread of the host, run in the order of their ids,
    and beside those of others, but for `streams-do-not-order`: they wait for the one before them
    in place of the unit.

    Control parents that form a circle with data parents are callers, as PyTorch writes them, and
    order nothing: then none in the trace does.

    Parameters
    ----------
    view : TraceView
    nodes : ndarray of NODE or GRAPH_NODE
    setting : Setting, optional
        Without one, streams do not order.
    in_turn : bool
        Whether each collective and send waits for the one before it.
    modelled : ndarray of bool, shape (nodes,), optional
        Those that a model has timed as if they had the whole GPU: they keep its unit.

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
    said = _said(view)
    turns = np.flatnonzero(np.isin(view.types, _TAKE_TURNS)) if in_turn else said[:0]
    always = turns[1:] << 32 | turns[:-1]
    lanes = [] if setting is None else _lanes(view, nodes, said, setting)
    is_control = trace.dep_is_control
    first_stuck: list[int] = []
    # In a circle, first threads, then streams too are left out.
    for kept in range(len(lanes), -1, -1):
        more = np.concatenate([always, *(one.waits for one in lanes[:kept])])
        for callers in (False, True) if is_control.any() else (False,):
            waits = said[~is_control] if callers else said
            if len(more):
                waits = np.unique(np.concatenate([waits, more]))
            children, stuck = _fill_in(view, nodes, waits)
            if not stuck:
                if callers:
                    view.remark(_CALLERS, int(is_control.sum()))
                for one in lanes[:kept]:
                    free = one.placed if modelled is None else one.placed[~modelled[one.placed]]
                    nodes["unit"][free] = Unit.NONE
                for one in lanes[kept:]:
                    view.remark(one.forbidden, one.unsaid)
                return children
            first_stuck = first_stuck or stuck
    raise StalledError(
        f"{trace.file or 'trace'}: nodes wait for one another in a circle: "
        f"{', '.join(map(str, first_stuck[:10]))}{' ...' if len(first_stuck) > 10 else ''}"
    )


def _said(view: TraceView) -> _Waits:
    """What the dependencies of the trace say."""
    trace, order = view.trace, view.order
    count = len(order)
    rank_of = np.empty(count, np.int64)
    rank_of[order] = np.arange(count)
    child = rank_of[np.repeat(np.arange(count), np.diff(trace.dep_start))]
    return child << 32 | rank_of[trace.dep]


class _Lanes(NamedTuple):
    """The streams of the GPU, or the threads of the host.

    Attributes
    ----------
    waits
        Each node waits for the one before it in its lane.
    placed : ndarray of int64
        Nodes in a lane that occupy a unit which has room for one: GPU compute, and the host.
    unsaid : int
        How many of `waits` no dependency says.
    forbidden : str
        What to say where dependencies forbid that order.
    """

    waits: _Waits
    placed: NDArray[np.int64]
    unsaid: int
    forbidden: str


def _lanes(view: TraceView, nodes: Any, said: _Waits, setting: Setting) -> list[_Lanes]:
    """Streams and threads, where there are some and they count."""
    found = []
    trace, order = view.trace, view.order
    for lane, here, unit, forbidden in (
        (trace.stream, ~view.cpu, Unit.COMPUTE, _STREAMS),
        (trace.tid, view.cpu, Unit.CPU, _THREADS),
    ):
        of = lane[order]
        here = here & (of != MISSING)
        if not here.any():
            continue
        placed = np.flatnonzero(here)
        waits = _in_lanes(view, placed, of)
        unsaid = len(np.setdiff1d(waits, said))
        placed = placed[nodes["unit"][placed] == unit]
        if "streams-do-not-order" not in setting.semantics:
            found.append(_Lanes(waits, placed, unsaid, forbidden))
            continue
        what = "stream" if unit == Unit.COMPUTE else "thread"
        if unsaid:
            setting.effects.note(
                "streams-do-not-order", "nodes may start before one that stands before them in "
                f"their {what}", unsaid,
            )  # fmt: skip
        several = len(np.unique(of[placed]))
        if several > 1:
            setting.effects.note(
                "streams-do-not-order", f"what {several} {what}s of a rank do runs one at a time"
            )
    return found


def _in_lanes(view: TraceView, placed: NDArray[np.int64], lane: NDArray[np.int64]) -> _Waits:
    """Who waits for whom, where the nodes of a lane run one after the other."""
    if len(placed) < 2:
        return placed[:0]
    placed = placed[np.argsort(lane[placed], kind="stable")]
    message = np.isin(view.types[placed], (int(NodeType.COMM_SEND), int(NodeType.COMM_RECV)))
    same = lane[placed[1:]] == lane[placed[:-1]]
    # Messages that follow one another are a group that NCCL runs in one kernel: both directions of
    # an exchange, one behind the other, would wait for ever.
    joined = same & message[1:] & message[:-1]
    number = np.concatenate([[0], np.cumsum(~joined)])
    first = np.searchsorted(number, np.arange(number[-1] + 2))
    # Of two groups that follow one another, at most one has several nodes.
    before, after = np.maximum(number - 1, 0), np.minimum(number + 1, number[-1])
    has_before = (number > 0) & (lane[placed] == lane[placed[first[before]]])
    has_after = (number < number[-1]) & (lane[placed] == lane[placed[first[after]]])
    has_before &= first[before + 1] - first[before] == 1
    has_after &= first[after + 1] - first[after] == 1
    child = np.concatenate([placed[has_before], placed[first[after[has_after]]]])
    parent = np.concatenate([placed[first[before[has_before]]], placed[has_after]])
    waits: _Waits = np.unique(child << 32 | parent)
    return waits


def _fill_in(view: TraceView, nodes: Any, waits: _Waits) -> tuple[NDArray[np.int32], list[int]]:
    """Fill in who waits; return children, and the ids of nodes in a circle."""
    child, parent = waits >> 32, waits & 0xFFFFFFFF
    count = len(view.order)
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
