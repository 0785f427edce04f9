# SPDX-License-Identifier: MIT
"""Queue policies: which of the waiting collectives is next.

Engines know three (:class:`astra_bridge.program.Policy`).  A policy is one of these, or a function
that gives each collective a priority when it is lowered.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from astra_bridge.collectives import Kind
from astra_bridge.program import Policy
from astra_bridge.registry import Registry, Spec

__all__ = ["QUEUE_POLICIES", "Queued", "QueuePolicy"]


class Queued(msgspec.Struct, frozen=True):
    """A collective that will wait in queues.

    Attributes
    ----------
    kind : Kind
    size_bytes : int
        The node's ``comm_size``.
    ranks : tuple of int
        Who takes part, in order of position.
    priority : int
        The node's ``comm_priority``; 0 where it has none.
    """

    kind: Kind
    size_bytes: int
    ranks: tuple[int, ...]
    priority: int


class QueuePolicy(Spec, frozen=True, eq=False):
    """Order of waiting collectives.

    Attributes
    ----------
    policy : Policy
        What the engines do.
    priority
        With ``Policy.EXPLICIT``: any number for each collective, the greatest goes first; None
        takes the priorities that the trace gives.
    """

    policy: Policy = Policy.EXPLICIT
    priority: Callable[[Queued], float] | None = None


QUEUE_POLICIES = Registry(
    "queue policy",
    "astra_bridge.queue_policies",
    QueuePolicy,
    dict.fromkeys(("LIFO", "FIFO", "EXPLICIT"), "astra_bridge.lowering.policies:BUILT_IN"),
)

BUILT_IN = (
    QueuePolicy("LIFO", "The collective that was issued last goes first.", Policy.LIFO),
    QueuePolicy("FIFO", "The collective that was issued first goes first.", Policy.FIFO),
    QueuePolicy("EXPLICIT", "By the comm_priority of nodes, the greatest first.", Policy.EXPLICIT),
)
