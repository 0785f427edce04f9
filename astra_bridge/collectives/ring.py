# SPDX-License-Identifier: MIT
"""Ring: every member talks to its next neighbour only.

All-reduce is a reduce-scatter of n-1 steps followed by an all-gather of n-1 steps (Patarasuk and
Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 2009).
All-to-all passes everything along the ring: n(n-1)/2 steps.
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
    final_bytes,
    packet_flags,
)

KINDS = frozenset({Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.REDUCE_SCATTER, Kind.ALL_TO_ALL})


def build(request: Request) -> Built:
    """One schedule for all positions."""
    n, kind = request.size, request.kind
    count = {Kind.ALL_REDUCE: 2 * (n - 1), Kind.ALL_TO_ALL: n * (n - 1) // 2}.get(kind, n - 1)
    size = at_least_one(request.bytes if kind == Kind.ALL_GATHER else request.bytes // n)
    direction = -1 if request.variant else 1
    # ASTRA-sim's pattern charges the ring for its n-1 reductions, so there is nothing to correct.
    flags = packet_flags(kind, 1, n - 1, count + 1)
    schedule = Schedule(
        steps=[Step(k + 1, direction, size, -direction, size) for k in range(count)],
        packets=[Packet(size, flag) for flag in flags],
        window=1,
        end=count + 1,
    )
    return Built(final_bytes(kind, n, request.bytes), (schedule,), same_way=n > 2)


ALGORITHM = Algorithm(
    "ring", "Each member passes data on to the next one.", KINDS, build, spanning="oneRing"
)
