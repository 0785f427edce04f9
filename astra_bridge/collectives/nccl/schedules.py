# SPDX-License-Identifier: MIT
"""What NCCL runs, as schedules: rounds that send bytes on the wire, and wait in between.

A round's bytes are those that the protocol puts on the link, so that a network without other
traffic takes as long as :class:`~astra_bridge.collectives.nccl.timing.Cost` says, and one with
other traffic what it makes of them.
"""

from __future__ import annotations

from astra_bridge.collectives.nccl.timing import Cost, nccl_cost
from astra_bridge.collectives.nccl.tuning import NcclChoice, Where, nccl_choice
from astra_bridge.collectives.schedule import (
    Algorithm,
    Built,
    Kind,
    Packet,
    Request,
    Schedule,
    Step,
    final_bytes,
)
from astra_bridge.errors import InputError
from astra_bridge.hardware import Hardware, hardware
from astra_bridge.inputs.nccl import NcclSettings
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.program import PacketFlag, Peers
from astra_bridge.records import replace

__all__ = ["ALGORITHM"]

_COLLECTIVES = {
    Kind.ALL_REDUCE: "all_reduce",
    Kind.ALL_GATHER: "all_gather",
    Kind.REDUCE_SCATTER: "reduce_scatter",
    Kind.ALL_TO_ALL: "alltoall",
}
_PS_PER_US = 1e6
_GB = 1e9
_NIC_GBPS = 50.0
"""An adapter of 400 Gb/s."""


def _configured(system: SystemConfig) -> Algorithm:
    """The algorithm for an accelerator, and with what a user forces."""
    settings = system.nccl
    name = settings.hardware or system.hardware
    if name is None:
        raise InputError(
            "missing, but the collectives of 'nccl' need it: the accelerator whose NCCL it is, "
            "such as h100-sxm",
            file=system.source,
            key="hardware",
        )
    machine = hardware(name, file=system.source)

    def build(request: Request) -> Built:
        return _build(machine, settings, request)

    return replace(ALGORITHM, build=build, configured=None)


def _unconfigured(request: Request) -> Built:
    """Of an H100, until a system says what else it is."""
    return _build(hardware("h100-sxm"), NcclSettings(), request)


def _build(machine: Hardware, settings: NcclSettings, request: Request) -> Built:
    kind, ranks = request.kind, request.size
    collective = _COLLECTIVES[kind]
    size = max(1, request.bytes * (ranks if kind == Kind.ALL_GATHER else 1))
    inside = request.level < settings.node_dimensions
    nic = settings.nic_GBps or request.link_Bps / _GB or _NIC_GBPS
    where = Where(1 if inside else ranks, nic, request.reduces)
    choice = nccl_choice(machine, collective, ranks, size, settings=settings, where=where)
    cost = nccl_cost(machine, collective, ranks, size, choice, where=where)
    remark = ""
    if inside and not request.reduces:
        other = nccl_choice(
            machine, collective, ranks, size, settings=settings, where=where._replace(reduces=True)
        )
        if other.algorithm == "nvls":
            remark = "NVLS needs a network that reduces, which this one does not"
    hop_us = machine.nccl.hop_us if inside else 0.0
    delay_ps = _ps(cost.round_us - hop_us)
    schedules: tuple[Schedule, ...]
    if choice.algorithm in ("ring", "pairs", "nvls"):
        schedules = (_in_turn(choice, cost, delay_ps),)
    elif inside:
        schedules = _chain(ranks, cost, delay_ps, machine.datasheet.link_GBps)
    else:
        schedules = (_doubling(kind, cost, delay_ps),)
    return Built(
        final_bytes(kind, ranks, request.bytes), schedules, said=choice.words, remark=remark
    )


def _ps(us: float) -> int:
    return max(0, round(us * _PS_PER_US))


def _bytes(wire: float) -> int:
    return max(1, round(wire))


def _in_turn(choice: NcclChoice, cost: Cost, delay_ps: int) -> Schedule:
    """One message in each round: to the next one, to each in turn, or to the switches."""
    size, peers = _bytes(cost.wire_bytes), Peers.RELATIVE
    if choice.algorithm == "nvls":
        peers = Peers.REDUCED
    steps = []
    for k in range(cost.rounds):
        hop = 1 + k if choice.algorithm == "pairs" else 1
        steps.append(Step(k + 1, hop, size, -hop, size, peers))
    first = Packet(size, PacketFlag.TO_MEMORY, _ps(cost.start_us))
    later = [Packet(size, PacketFlag(0), delay_ps)] * cost.rounds
    return Schedule(steps, [first, *later], window=1, end=1 + cost.rounds)


def _doubling(kind: Kind, cost: Cost, delay_ps: int) -> Schedule:
    """Peers at distances 1, 2, 4, ...: PAT one way, and the two trees of an all-reduce both ways.

    All members play the same part: they do as much in NCCL.
    """
    size = _bytes(cost.wire_bytes)
    up = [2**k for k in range(cost.rounds // (2 if kind == Kind.ALL_REDUCE else 1))]
    hops = {Kind.ALL_REDUCE: up + up[::-1], Kind.ALL_GATHER: up[::-1]}.get(kind, up)
    steps = [Step(k + 1, hop, size, -hop, size) for k, hop in enumerate(hops)]
    first = Packet(size, PacketFlag.TO_MEMORY, _ps(cost.start_us))
    later = [Packet(size, PacketFlag(0), delay_ps)] * cost.rounds
    return Schedule(steps, [first, *later], window=1, end=1 + cost.rounds)


def _chain(ranks: int, cost: Cost, delay_ps: int, link_GBps: float) -> tuple[Schedule, ...]:
    """Pieces go up NCCL's tree inside a node, a chain, one after the other, then down again.

    The leaf sends as fast as its link takes pieces; the root waits as long before it sends down, as
    NCCL's estimate does, because a link carries what goes up and what comes down.
    """
    size = _bytes(cost.wire_bytes / cost.pieces)
    piece_ps = round(size / (link_GBps * _GB) * 1e12)

    def part(*, up: int, down: int) -> Schedule:
        return _part(up, down, cost.pieces, size, _ps(cost.start_us), delay_ps, piece_ps)

    inner = [part(up=-1, down=1)] * (ranks - 2)
    return (part(up=0, down=1), *inner, part(up=-1, down=0))


def _part(
    up: int, down: int, pieces: int, size: int, start_ps: int, delay_ps: int, piece_ps: int
) -> Schedule:
    """The part of a position with a neighbour above and one below; 0 for none."""
    plain = Packet(size, PacketFlag(0), delay_ps)
    each = range(pieces)
    if not down:
        own = [Packet(size, PacketFlag.TO_MEMORY, start_ps + piece * piece_ps) for piece in each]
        steps = [Step(piece + 1, up, size, up, size) for piece in each]
        return Schedule(steps, own + [plain] * pieces, window=pieces, end=2 * pieces)
    steps = [Step(0, recv_from=down, recv_bytes=size) for _ in each]
    if not up:
        last = Packet(size, PacketFlag(0), delay_ps + pieces * piece_ps)
        steps += [Step(piece + 1, down, size) for piece in each]
        return Schedule(steps, [last] * pieces, window=0, end=pieces)
    steps += [Step(piece + 1, up, size, up, size) for piece in each]
    steps += [Step(pieces + piece + 1, down, size) for piece in each]
    return Schedule(steps, [plain] * (2 * pieces), window=0, end=2 * pieces, burst=2)


ALGORITHM = Algorithm(
    "nccl",
    "What NCCL chooses on an accelerator: ring, tree, NVLS or PAT, protocol and channels.",
    frozenset(_COLLECTIVES),
    _unconfigured,
    directed=False,
    own_delays=True,
    # Between nodes NCCL has rings and trees through the adapter of each GPU of a node.
    shares_links=True,
    configured=_configured,
)
