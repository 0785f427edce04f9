# SPDX-License-Identifier: MIT
"""Direct: every member exchanges with every other, at most ``window`` sends at a time.

The all-reduce is a direct reduce-scatter followed by a direct all-gather; the second half waits
until all contributions of the first have arrived.
"""

from __future__ import annotations

from astra_bridge.collectives.ring import KINDS
from astra_bridge.collectives.schedule import (
    NO_GATE,
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


def build(request: Request) -> Built:
    """One schedule for all positions."""
    n, kind = request.size, request.kind
    window = n - 1 if request.window < 0 else min(request.window, n - 1)
    count = 2 * (n - 1) if kind == Kind.ALL_REDUCE else n - 1
    size = at_least_one(request.bytes if kind == Kind.ALL_GATHER else request.bytes // n)
    direction = -1 if request.variant else 1
    # In ASTRA-sim the run of paying packets is as long as the window in a plain dimension, and
    # (n-1) windows in a communicator group; neither is the n-1 that a reduce-scatter receives.
    charged = (n - 1) * window if request.subgroup else window
    reduces = kind in (Kind.ALL_REDUCE, Kind.REDUCE_SCATTER)
    if reduces and "direct-charges-by-window" not in request.quirks:
        flags = exact_flags(window, n - 1, count + window)
    else:
        flags = packet_flags(kind, window, charged, count + window)
    hops = [direction * (1 + k % (n - 1)) for k in range(count)]
    schedule = Schedule(
        steps=[Step(k + 1, hop, size, -hop, size) for k, hop in enumerate(hops)],
        packets=[Packet(size, flag) for flag in flags],
        window=window,
        end=count + window,
        burst=window,
        gate_step=n - 1 if kind == Kind.ALL_REDUCE else NO_GATE,
        gate_received=n - 1,
    )
    # A member waits for what others send late; up to three windows, somebody can always go on
    # (tests/unit/test_directions.py tries it).
    same_way = n > (3 * window if window > 1 else 2)
    return Built(final_bytes(kind, n, request.bytes), (schedule,), same_way)


ALGORITHM = Algorithm(
    "direct",
    "Each member sends to each other one; a number is how many sends run at a time.",
    KINDS,
    build,
    windowed=True,
    spanning="oneDirect",
    quirks=frozenset({"direct-charges-by-window"}),
)
