# SPDX-License-Identifier: MIT
"""Messages between two ranks: send and receive nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.lowering.groups import Groups
from astra_bridge.lowering.view import TraceView, shorten
from astra_bridge.program import MESSAGE, Op
from astra_bridge.trace import MISSING, NodeType

__all__ = ["folded_tags", "messages"]

_TAGS = 500_000_000
"""ASTRA-sim folds the tags of send and receive nodes into this range."""


def _tags(view: TraceView, which: NDArray[np.bool_]) -> NDArray[np.int64]:
    tags = view.trace.comm_tag[view.order]
    nameless = which & (tags == MISSING) & (view.trace.pg_name[view.order] >= 0)
    found = np.zeros(len(which), np.int64)
    found[which & ~nameless] = folded_tags(view, which & ~nameless)
    return found[which]


def _peers(
    view: TraceView, which: NDArray[np.bool_], column: str, ranks: int, groups: Groups
) -> NDArray[np.int64]:
    """The other end of each message, or its distance from the own rank."""
    if view.trace.relative:
        return _distances(view, which, column, ranks)
    peers = getattr(view.trace, column)[view.order].copy()
    pg_name = view.trace.pg_name[view.order]
    nameless = which & (peers == MISSING) & (pg_name >= 0)
    for at in np.flatnonzero(nameless).tolist():
        _, members = groups.members(view, int(view.order[at]), int(pg_name[at]))
        own = int(view.ranks[0])
        others = [rank for rank in members if rank != own]
        if len(others) != 1 or len(view.ranks) > 1:
            view.refuse(
                f"is missing, and its group has {len(members)} members: only in a group of two the "
                "other end is known; PyTorch writes it from version 2.4 on",
                int(view.order[at]),
                column,
            )
        peers[at] = others[0]
    if nameless.any():
        view.remark(
            "messages name no other end: each goes to the other member of its group",
            int(nameless.sum()),
        )
    view.required(which & ~nameless, column, 0, ranks - 1)
    result: NDArray[np.int64] = peers[which]
    return result


def _distances(
    view: TraceView, which: NDArray[np.bool_], column: str, ranks: int
) -> NDArray[np.int64]:
    ahead = view.required(which, column, 1, ranks - 1)
    lowest, highest = int(view.ranks[0]), int(view.ranks[-1])
    distances = np.where(highest + ahead < ranks, ahead, ahead - ranks)
    over = (distances < 0) & (lowest + distances < 0)
    if over.any():
        at = int(np.argmax(over))
        view.refuse(
            f"is {ahead[at]} from the own rank on: ranks {lowest} to {highest}, which run this "
            f"trace, would go in different directions around the {ranks} ranks",
            int(view.order[which][at]),
            column,
        )
    result: NDArray[np.int64] = distances
    return result


def folded_tags(view: TraceView, which: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Tags of messages as ASTRA-sim takes them."""
    return (view.required(which, "comm_tag", -(2**31), 2**32 - 1) % 2**32) % _TAGS


def messages(view: TraceView, nodes: Any, ranks: int, groups: Groups) -> tuple[Any, bool]:
    """Fill in send and receive nodes.

    A message that names no other end, as PyTorch's do, goes to the other member of a group of two;
    without a tag, the n-th that is sent is the n-th that is received.

    Returns
    -------
    messages : ndarray of MESSAGE
    relative : bool
        Whether their peers are distances: where one rank runs the trace, or it gives distances.

    Raises
    ------
    InputError
        A rank would send to itself, or in the name of another.
    """
    trace, own_ranks = view.trace, view.ranks
    parts = [np.zeros(0, MESSAGE)]
    for node_type, op, peer, own in (
        (NodeType.COMM_SEND, Op.SEND, "comm_dst", "comm_src"),
        (NodeType.COMM_RECV, Op.RECV, "comm_src", "comm_dst"),
    ):
        which = view.types == int(node_type)
        if not which.any():
            continue
        rows = np.zeros(int(which.sum()), MESSAGE)
        rows["peer"] = _peers(view, which, peer, ranks, groups)
        rows["bytes"] = view.required(which, "comm_size", 1, 2**62)
        rows["tag"] = _tags(view, which)
        owners = getattr(trace, own)[view.order[which]]
        alone = len(own_ranks) == 1
        # A trace of several ranks cannot name its owner.
        wrong_owner = (owners != MISSING) & ((owners != own_ranks[0]) | (not alone))
        if trace.relative:
            to_itself = np.zeros(len(rows), np.bool_)  # a distance is never 0
        else:
            to_itself = rows["peer"] == own_ranks[0] if alone else np.isin(rows["peer"], own_ranks)
        for bad, what, rule in (
            (wrong_owner, own, "a rank sends and receives in its own name"),
            (to_itself, peer, "a rank cannot send to itself"),
        ):
            if bad.any():
                position = int(view.order[which][int(np.argmax(bad))])
                view.refuse(
                    f"is {getattr(trace, what)[position]}, but this is the trace of rank "
                    f"{shorten(own_ranks.tolist())}: {rule}",
                    position,
                    what,
                )
        nodes["op"][which] = op
        nodes["arg"][which] = sum(map(len, parts)) + np.arange(len(rows))
        parts.append(rows)
    made = np.concatenate(parts)
    relative = trace.relative or len(made) == 0 or len(own_ranks) == 1
    if relative and len(made) and not trace.relative:
        made["peer"] -= own_ranks[0]
    return made, relative
