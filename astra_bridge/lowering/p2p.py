# SPDX-License-Identifier: MIT
"""Messages between two ranks: send and receive nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.lowering.view import TraceView, shorten
from astra_bridge.program import MESSAGE, Op
from astra_bridge.trace import MISSING, NodeType

__all__ = ["folded_tags", "messages"]

_TAGS = 500_000_000
"""ASTRA-sim folds the tags of send and receive nodes into this range."""


def folded_tags(view: TraceView, which: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Tags of messages as ASTRA-sim takes them."""
    return (view.required(which, "comm_tag", -(2**31), 2**32 - 1) % 2**32) % _TAGS


def messages(view: TraceView, nodes: Any, ranks: int) -> tuple[Any, bool]:
    """Fill in send and receive nodes.

    Returns
    -------
    messages : ndarray of MESSAGE
    relative : bool
        Whether their peers are distances: where one rank runs the trace.

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
        rows["peer"] = view.required(which, peer, 0, ranks - 1)
        rows["bytes"] = view.required(which, "comm_size", 1, 2**62)
        rows["tag"] = folded_tags(view, which)
        owners = getattr(trace, own)[view.order[which]]
        alone = len(own_ranks) == 1
        # A trace of several ranks cannot name its owner.
        wrong_owner = (owners != MISSING) & ((owners != own_ranks[0]) | (not alone))
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
    relative = len(made) == 0 or len(own_ranks) == 1
    if relative and len(made):
        made["peer"] -= own_ranks[0]
    return made, relative
