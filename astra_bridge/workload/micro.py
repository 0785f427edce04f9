# SPDX-License-Identifier: MIT
"""Micro-benchmarks: one kind of communication, repeated, with or without compute between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from astra_bridge.arguments import flag, integer, list_of, optional
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.text import show
from astra_bridge.trace.columns import CommType
from astra_bridge.workload.builder import GeneratedWorkload, Kinds, TraceBuilder

SEND_RECV = "send-recv"
KINDS: dict[str, CommType | None] = {
    kind.name.lower().replace("_", "-"): kind
    for kind in CommType
    if kind is not CommType.REDUCE_SCATTER_BLOCK
} | {SEND_RECV: None}
"""Names of what can be generated; ``send-recv`` passes a message on around each group."""

_ROOTED = (CommType.BROADCAST, CommType.REDUCE, CommType.GATHER, CommType.SCATTER)


def collective(
    kind: str | CommType,
    size_bytes: int,
    ranks: int,
    *,
    groups: Sequence[Sequence[int]] | None = None,
    root: int | None = None,
    repeat: int = 1,
    compute_us: int = 0,
    overlap: bool = False,
) -> GeneratedWorkload:
    """Generate a workload of collectives, or of messages around a ring.

    Parameters
    ----------
    kind
        A key of `KINDS`, or a CommType.
    size_bytes
        Chakra's ``comm_size``: the whole buffer of one rank, or for all-gather what one rank
        contributes; for send-recv the size of each message.
    ranks
        Number of ranks, >= 1.
    groups
        Disjoint lists of ranks; each runs the collective on its own, and ranks in none of them
        stay idle.  None: all ranks together.
    root
        Position of the root within each group, for rooted collectives; 0 where None.
    repeat
        How many times, one after the other.
    compute_us
        Duration of a compute node before each one; 0 for none.
    overlap
        A compute node waits for the compute node before it only, so that it overlaps with
        communication; otherwise it waits for the communication before it.

    Raises
    ------
    InputError
        An argument is out of range, or groups overlap.
    """
    comm_type = _comm_type(kind)
    smallest = 0 if comm_type is CommType.BARRIER else 1
    size_bytes = integer(smallest, 2**63 - 1)(size_bytes, "size_bytes")
    ranks = integer(1, MAX_RANKS)(ranks, "ranks")
    repeat = integer(1, 2**31 - 1)(repeat, "repeat")
    compute_us = integer(0, 2**53)(compute_us, "compute_us")
    root = optional(integer(0, ranks - 1))(root, "root")
    overlap = flag(overlap, "overlap")
    rank_lists = list_of(list_of(integer(0, ranks - 1)))
    everyone = range(ranks)
    members: list[Sequence[int]] = [everyone]
    if groups is not None:
        # All ranks in their order are no group.
        listed = rank_lists(groups, "groups")
        members = [everyone if one == tuple(everyone) else one for one in listed]
        _check_groups(members)
    if root is not None and comm_type not in _ROOTED:
        raise InputError(f"{kind} has no root", key="root")

    idle = TraceBuilder()
    idle.comp("idle")  # ASTRA-sim aborts on a trace without nodes
    kinds = [idle]
    kind_of_rank = np.zeros(ranks, np.int32)
    for index, group in enumerate(members):
        group_id = None if group is everyone else index + 1
        root_rank = None
        if comm_type in _ROOTED:
            position = root or 0
            if not 0 <= position < len(group):
                raise InputError(
                    f"{position} is not a position in a group of {len(group)}", key="root"
                )
            root_rank = group[position]
        # Of a collective, all members do the same.
        for position, rank in enumerate(group if comm_type is None else group[:1]):
            kind_of_rank[rank if comm_type is None else np.asarray(group)] = len(kinds)
            trace = TraceBuilder()
            kinds.append(trace)
            compute: list[int] = []
            communication: list[int] = []
            for step in range(repeat):
                if compute_us:
                    before = compute if overlap else communication
                    compute = [trace.comp(f"comp{step}", duration_us=compute_us, deps=before)]
                # Without overlap, compute waits for communication already.
                deps = compute if compute and not overlap else [*communication, *compute]
                if comm_type is not None:
                    node = trace.coll(
                        comm_type, size_bytes, group=group_id, root=root_rank, deps=deps
                    )
                    communication = [node]
                elif len(group) > 1:
                    after = group[(position + 1) % len(group)]
                    send = trace.send(after, size_bytes, step, deps=deps)
                    recv = trace.recv(group[position - 1], size_bytes, step, deps=deps)
                    communication = [send, recv]
            if not trace.nodes:
                trace.comp("idle")
    used = {i + 1: tuple(group) for i, group in enumerate(members) if group is not everyone}
    return GeneratedWorkload(_in_order(kinds, kind_of_rank), {} if comm_type is None else used)


def _in_order(kinds: Sequence[TraceBuilder], kind_of_rank: NDArray[np.int32]) -> Kinds:
    """The kinds that ranks have, in the order of the first rank of each."""
    used, first = np.unique(kind_of_rank, return_index=True)
    order = used[np.argsort(first)]
    place = np.zeros(len(kinds), np.int32)
    place[order] = np.arange(len(order))
    return Kinds([kinds[kind] for kind in order.tolist()], place[kind_of_rank])


def _comm_type(kind: str | CommType) -> CommType | None:
    if isinstance(kind, CommType):
        return kind
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise InputError(f"unknown collective {show(kind)}; allowed: {known}", key="kind")
    return KINDS[kind]


def _check_groups(groups: Sequence[Sequence[int]]) -> None:
    seen: set[int] = set()
    for index, group in enumerate(groups):
        if not group:
            raise InputError("a group has at least one rank", key=f"groups[{index}]")
        for rank in group:
            if rank in seen:
                raise InputError(f"rank {rank} is in two groups", key=f"groups[{index}]")
            seen.add(rank)
