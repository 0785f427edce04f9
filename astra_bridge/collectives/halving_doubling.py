# SPDX-License-Identifier: MIT
"""Recursive halving and doubling.

Partners at distance 1, 2, 4, ... exchange half of what is left, then the way back (Thakur,
Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", IJHPCA
2005, section 4.5).  ASTRA-sim knows powers of two only; other group sizes follow the same paper:
the members beyond the largest power of two hand their data to a partner before, and get the
result after.
"""

from __future__ import annotations

import math

from astra_bridge.collectives.schedule import (
    Algorithm,
    Built,
    Kind,
    Packet,
    Request,
    Schedule,
    Step,
    at_least_one,
    exact_flags,
    final_bytes,
    packet_flags,
)
from astra_bridge.program import PacketFlag, Peers

KINDS = frozenset({Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.REDUCE_SCATTER})


def _exchanges(kind: Kind, n: int, data_bytes: int) -> list[tuple[int, int]]:
    """(distance, bytes) of each packet: one per exchange, and the one that follows the last.

    The size of a packet is that of the message it makes way for; after the last exchange the
    pattern simply goes on, as in ASTRA-sim, which decides what the last packet pays.
    """
    pairs = []
    if kind == Kind.ALL_GATHER:
        offset, size = n // 2, data_bytes
        for _ in range(int(math.log2(n)) + 1):
            pairs.append((offset, size))
            offset, size = offset // 2, size * 2
        return pairs
    count = int(2 * math.log2(n)) if kind == Kind.ALL_REDUCE else int(math.log2(n))
    offset, size, growing = 1, data_bytes // 2, True
    for _ in range(count + 1):
        pairs.append((offset, size))
        if growing:
            offset, size = offset * 2, size // 2
            if offset == n and kind == Kind.ALL_REDUCE:
                growing = False
                offset, size = offset // 2, size * 2
        else:
            offset, size = offset // 2, size * 2
    return pairs


def _partner(position: int, offset: int, n: int) -> int:
    return (position + offset if position // offset % 2 == 0 else position - offset) % n


def _pairs_up(kind: Kind, n: int) -> bool:
    """Whether in every exchange everybody's partner agrees.

    True for powers of two, and for the all-gather of some other sizes (6, 12, 20, 24, ...), where
    ASTRA-sim therefore has an answer.
    """
    return all(
        _partner(_partner(position, offset, n), offset, n) == position
        for offset, _ in _exchanges(kind, n, n)[:-1]
        for position in range(n)
    )


def _core(request: Request, n: int, data_bytes: int, position: int | None = None) -> Schedule:
    """The exchange among the first n positions: one for all, or (no power of two) of one."""
    pairs = _exchanges(request.kind, n, data_bytes)
    steps = []
    for k, (offset, size) in enumerate(pairs[:-1]):
        size = at_least_one(size)
        if position is None:
            steps.append(Step(k + 1, offset, size, offset, size, Peers.XOR))
        else:
            to_partner = _partner(position, offset, n) - position
            steps.append(Step(k + 1, to_partner, size, to_partner, size))
    log2_n = int(math.log2(n))
    reduces = request.kind != Kind.ALL_GATHER
    if reduces and "halving-doubling-skips-a-reduction" not in request.quirks:
        flags = exact_flags(1, log2_n, len(pairs), forwarded=log2_n - 1)
    else:
        flags = packet_flags(request.kind, 1, log2_n - 1, len(pairs))
    return Schedule(
        steps=steps,
        packets=[Packet(size, flag) for (_, size), flag in zip(pairs, flags, strict=True)],
        window=1,
        end=len(pairs),
    )


def _with_extras(request: Request, core_size: int) -> list[Schedule]:
    """The parts in a group that is not a power of two: one for each position."""
    n, kind, data = request.size, request.kind, at_least_one(request.bytes)
    extras = n - core_size
    result = at_least_one(final_bytes(kind, n, data))
    # In the all-gather a core member may speak for two shards; all exchanges carry the larger.
    core = _core(request, core_size, 2 * data if kind == Kind.ALL_GATHER else data)
    reduced = PacketFlag(0) if kind == Kind.ALL_GATHER else PacketFlag.REDUCED
    doubled = Schedule(
        steps=[
            Step(0, 0, 0, core_size, data),
            *core.steps,
            Step(core.end, core_size, result),
        ],
        packets=[Packet(data, reduced), *core.packets[1:]],
        window=0,
        end=core.end,
        burst=2,
    )
    extra = Schedule(
        steps=[Step(1, -core_size, data, -core_size, result)],
        packets=[Packet(data, PacketFlag.TO_MEMORY), Packet(result, PacketFlag(0))],
        window=1,
        end=2,
    )
    return [doubled] * extras + [core] * (core_size - extras) + [extra] * extras


def build(request: Request) -> Built:
    """One schedule for all positions, or three parts where they are no power of two."""
    n = request.size
    power = 2 ** (n.bit_length() - 1)
    if n == power:
        schedules = [_core(request, n, request.bytes)]
    elif "halving-doubling-wraps-around" in request.quirks and _pairs_up(request.kind, n):
        schedules = [_core(request, n, request.bytes, position) for position in range(n)]
    else:
        schedules = _with_extras(request, power)
    return Built(final_bytes(request.kind, n, request.bytes), tuple(schedules))


ALGORITHM = Algorithm(
    "halvingDoubling",
    "Partners at distances 1, 2, 4, ... exchange half of what is left, then the way back.",
    KINDS,
    build,
    directed=False,
    spanning="oneHalvingDoubling",
    quirks=frozenset({"halving-doubling-skips-a-reduction", "halving-doubling-wraps-around"}),
)
