# SPDX-License-Identifier: MIT
"""Recursive halving and doubling.

Partners at distance 1, 2, 4, ... exchange half of what is left, then the way back (Thakur,
Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", IJHPCA
2005, section 4.5).  ASTRA-sim knows powers of two only; other group sizes follow the same paper:
the members beyond the largest power of two hand their data to a partner before, and get the
result after.
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
    exact_flags,
    final_bytes,
    packet_flags,
)
from astra_bridge.program import PacketFlag

KINDS = frozenset({Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.REDUCE_SCATTER})


def _exchanges(kind: Kind, log2_n: int, data_bytes: int) -> list[tuple[int, int]]:
    """(distance, bytes) of each packet: one per exchange, and the one that follows the last.

    The size of a packet is that of the message it makes way for; after the last exchange the
    pattern simply goes on, as in ASTRA-sim, which decides what the last packet pays.
    """
    if kind == Kind.ALL_GATHER:
        offset = 2**log2_n // 2
        pairs = []
        size = data_bytes
        for _ in range(log2_n + 1):
            pairs.append((offset, size))
            offset, size = offset // 2, size * 2
        return pairs
    count = 2 * log2_n if kind == Kind.ALL_REDUCE else log2_n
    offset, size, growing = 1, data_bytes // 2, True
    pairs = []
    for _ in range(count + 1):
        pairs.append((offset, size))
        if growing:
            offset, size = offset * 2, size // 2
            if offset == 2**log2_n and kind == Kind.ALL_REDUCE:
                growing = False
                offset, size = offset // 2, size * 2
        else:
            offset, size = offset // 2, size * 2
    return pairs


def _core(request: Request, position: int, log2_n: int, data_bytes: int) -> Schedule:
    """The exchange among the first 2**log2_n positions."""
    pairs = _exchanges(request.kind, log2_n, data_bytes)
    steps = []
    for k, (offset, size) in enumerate(pairs[:-1]):
        partner = position ^ offset
        size = at_least_one(size)
        steps.append(Step(k + 1, partner - position, size, partner - position, size))
    if request.exact and request.kind != Kind.ALL_GATHER:
        flags = exact_flags(1, log2_n, len(pairs))
    else:
        flags = packet_flags(request.kind, 1, log2_n - 1, len(pairs))
    return Schedule(
        steps=steps,
        packets=[Packet(size, flag) for (_, size), flag in zip(pairs, flags, strict=True)],
        window=1,
        end=len(pairs),
    )


def _with_extras(request: Request, position: int, core_log2: int) -> Schedule:
    """A position's part in a group that is not a power of two."""
    n, kind, data = request.size, request.kind, at_least_one(request.bytes)
    core_size = 2**core_log2
    extras = n - core_size
    result = at_least_one(final_bytes(kind, n, data))
    if position >= core_size:
        partner = position - core_size - position
        steps = [
            Step(1, partner, data, partner, result),
        ]
        packets = [Packet(data, PacketFlag.TO_MEMORY), Packet(result, PacketFlag(0))]
        return Schedule(steps=steps, packets=packets, window=1, end=2)
    # In the all-gather a core member may speak for two shards; all exchanges carry the larger.
    core_data = 2 * data if kind == Kind.ALL_GATHER else data
    core = _core(request, position, core_log2, core_data)
    if position >= extras:
        return core
    reduced = PacketFlag(0) if kind == Kind.ALL_GATHER else PacketFlag.REDUCED
    steps = [Step(0, 0, 0, core_size, data)]
    steps += [step._replace(need=step.need) for step in core.steps]
    steps.append(Step(core.end, core_size, result))
    packets = [Packet(data, reduced), *core.packets[1:]]
    return Schedule(steps=steps, packets=packets, window=0, end=core.end, burst=2)


def build(request: Request) -> Built:
    """One schedule per position."""
    n = request.size
    log2_n = n.bit_length() - 1
    final = final_bytes(request.kind, n, request.bytes)
    if n == 2**log2_n:
        schedules = [_core(request, p, log2_n, request.bytes) for p in range(n)]
    else:
        schedules = [_with_extras(request, p, log2_n) for p in range(n)]
    return Built(final, tuple(schedules))


ALGORITHM = Algorithm("halvingDoubling", KINDS, build)
