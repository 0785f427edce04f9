# SPDX-License-Identifier: MIT
"""Broadcast, reduce, scatter, gather and barrier, which ASTRA-sim does not have.

Broadcast and reduce follow a binomial tree, scatter and gather likewise with the data of a whole
subtree per message, the barrier is the dissemination barrier (Hensgen, Finkel and Manber, "Two
algorithms for barrier synchronization", IJPP 1988): ceil(log2 n) rounds of one byte.
"""

from __future__ import annotations

from astra_bridge.collectives.schedule import (
    Algorithm,
    Built,
    Kind,
    Packet,
    Request,
    Schedule,
    Step,
    at_least_one,
)
from astra_bridge.program import PacketFlag

DOWN = frozenset({Kind.BROADCAST, Kind.SCATTER})
UP = frozenset({Kind.REDUCE, Kind.GATHER})


def _children(position: int, size: int) -> list[tuple[int, int]]:
    """(child, members of its subtree) in the binomial tree that is rooted at 0, largest first."""
    lowest = position & -position if position else 1 << (size - 1).bit_length()
    children = []
    bit = lowest >> 1
    while bit:
        if position + bit < size:
            children.append((position + bit, min(bit, size - position - bit)))
        bit >>= 1
    return children


def _subtree(position: int, size: int) -> int:
    return 1 + sum(members for _, members in _children(position, size))


def _message_bytes(kind: Kind, members: int, request: Request) -> int:
    if kind in (Kind.SCATTER, Kind.GATHER):
        return at_least_one(members * (request.bytes // request.size))
    return at_least_one(request.bytes)


def _tree_part(request: Request, virtual: int) -> Schedule:
    """The part of a position of the tree that is rooted at 0."""
    n, kind = request.size, request.kind
    children = [(child - virtual, members) for child, members in _children(virtual, n)]
    parent = (virtual & (virtual - 1)) - virtual
    own = _message_bytes(kind, _subtree(virtual, n), request)
    steps: list[Step] = []
    packets: list[Packet] = []
    if kind in DOWN:
        if virtual == 0:
            packets = [Packet(own, PacketFlag.TO_MEMORY)]
        else:
            steps = [Step(0, recv_from=parent, recv_bytes=own)]
            packets = [Packet(own, PacketFlag(0))]
        steps += [Step(1, child, _message_bytes(kind, m, request)) for child, m in children]
        return Schedule(steps, packets, window=int(virtual == 0), end=1, burst=max(1, len(steps)))
    # Towards the root: the own data counts as one packet, then one per child.
    paid = PacketFlag.REDUCED if kind == Kind.REDUCE else PacketFlag(0)
    packets = [Packet(own, PacketFlag.TO_MEMORY)]
    for child, members in reversed(children):
        size = _message_bytes(kind, members, request)
        steps.append(Step(0, recv_from=child, recv_bytes=size))
        packets.append(Packet(size, paid))
    end = 1 + len(children)
    if virtual:
        steps.append(Step(end, parent, own))
    return Schedule(steps, packets, window=1, end=end, burst=max(1, len(steps)))


def _barrier(size: int) -> Schedule:
    rounds = (size - 1).bit_length()
    return Schedule(
        steps=[Step(k + 1, 1 << k, 1, -(1 << k), 1) for k in range(rounds)],
        packets=[Packet(1, PacketFlag.TO_MEMORY)] + [Packet(1, PacketFlag(0))] * rounds,
        window=1,
        end=rounds + 1,
    )


def build(request: Request) -> Built:
    """One schedule for each size of a subtree, or one for all members of a barrier."""
    if request.kind == Kind.BARRIER:
        return Built(request.bytes, (_barrier(request.size),))
    n, parts = request.size, {}
    virtual_parts = []
    for virtual in range(n):
        # Whole subtrees are alike where they are of one size; at most log2 n are cut off.
        lowest = virtual & -virtual
        alike = lowest if virtual + lowest <= n else -virtual
        if alike not in parts:
            parts[alike] = _tree_part(request, virtual)
        virtual_parts.append(parts[alike])
    root = request.root % n
    return Built(request.bytes, (*virtual_parts[n - root :], *virtual_parts[: n - root]))


ALGORITHM = Algorithm(
    "binomialTree",
    "Broadcast, reduce, scatter, gather and barrier; no system file names it.",
    DOWN | UP | {Kind.BARRIER},
    build,
    directed=False,
)
