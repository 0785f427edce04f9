# SPDX-License-Identifier: MIT
"""A collective algorithm: everybody sends all it has to the next member, once."""

from astra_bridge.collectives.schedule import (
    Algorithm,
    Built,
    Kind,
    Packet,
    Request,
    Schedule,
    Step,
)
from astra_bridge.program import PacketFlag


def build(request: Request) -> Built:
    size = request.bytes
    step = Step(need=1, send_to=+1, send_bytes=size, recv_from=-1, recv_bytes=size)
    packets = [Packet(size, PacketFlag.TO_MEMORY), Packet(size, PacketFlag(0))]
    return Built(size, (Schedule([step], packets, window=1, end=2),))


ALGORITHM = Algorithm(
    "exchange",
    "Each member sends all it has to the next one, once.",
    frozenset({Kind.ALL_REDUCE}),
    build,
    directed=False,
    spanning="oneExchange",
)
