# SPDX-License-Identifier: MIT
"""What algorithms build: families of schedules, each once, checked together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from astra_bridge.collectives import Algorithm, Built, Request
from astra_bridge.collectives.check import Joined, Tables, check_peers, joined, tables
from astra_bridge.errors import InputError
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.program import PacketFlag
from astra_bridge.program.rules import check_schedules
from astra_bridge.records import replace
from astra_bridge.units import PS_PER_NS

__all__ = ["Schedules"]

_MOST_REDUCE_NS = 2.0**50
_SEND_BYTES = 2
"""The column of Step."""


class Schedules:
    """The families of a Program."""

    def __init__(self, system: SystemConfig) -> None:
        self._system = system
        self._built: list[tuple[str, Request, Tables]] = []
        self._index: dict[Any, tuple[int, Built]] = {}
        self._known: dict[Any, tuple[Tables, Built]] = {}

    def families(self, found: Algorithm, request: Request) -> tuple[int, int, Built]:
        """Families of both variants, and what is true of both but for the schedules."""
        first, _ = self._family(found, request)
        if not found.directed:
            return first, first, self._family(found, request)[1]
        second, built = self._family(found, replace(request, variant=1))
        return first, second, built

    def sent(self, found: Algorithm, request: Request) -> tuple[int, int]:
        """Most messages, and most bytes, that a member sends."""
        made, _ = self._made(found, request)
        ends = np.cumsum(made.step_count)
        sizes = made.steps[:, _SEND_BYTES]
        parts = np.split(sizes, ends[:-1])
        return max(int((part > 0).sum()) for part in parts), max(int(p.sum()) for p in parts)

    def difference(self, found: Algorithm, one: Request, other: Request) -> str:
        """What the first of two requests costs more or less than the second; "" for nothing."""
        (ours, _), (theirs, _) = self._made(found, one), self._made(found, other)
        if not np.array_equal(ours.steps, theirs.steps):
            (count, size), (usual, usual_size) = self.sent(found, one), self.sent(found, other)
            return f"sends {count:,} messages, {size:,} B, in place of {usual:,}, {usual_size:,} B"
        system = self._system
        if system.local_mem_bw_GBps == 0 and not system.model_shared_bus:
            return ""
        # Where a packet goes only matters to the shared bus.
        mask = [-1, -1 if system.model_shared_bus else PacketFlag.REDUCED, -1]
        if np.array_equal(ours.packets & mask, theirs.packets & mask):
            return ""
        paid, due = _reductions(ours), _reductions(theirs)
        return f"pays for {paid} reduction(s) per chunk, due are {due}"

    def _family(self, found: Algorithm, request: Request) -> tuple[int, Built]:
        key = (found.name, request)
        if key not in self._index:
            made, built = self._made(found, request)
            self._index[key] = (len(self._built), built)
            self._built.append((found.name, request, made))
        return self._index[key]

    def _made(self, found: Algorithm, request: Request) -> tuple[Tables, Built]:
        """The schedules, and what is true of them all."""
        key = (found.name, request)
        if key not in self._known:
            built = found.build(request)
            with _blaming(found.name, request):
                made = tables(request, built)
            self._known[key] = made, replace(built, schedules=())
        return self._known[key]

    def arrays(self) -> dict[str, Any]:
        """The tables of a Program.

        Raises
        ------
        InputError
            What an algorithm has built cannot work: names it, and what it was asked for.
        """
        try:
            # Together, which is faster.
            families = _checked(self._built)
        except InputError:
            for built in self._built:  # whose is it?
                with _blaming(*built[:2]):
                    _checked([built])
            raise
        packets = families.packets
        reduced = (packets["flags"] & int(PacketFlag.REDUCED)) != 0
        packets["reduce_ps"][reduced] += self._reduce_ps(packets["bytes"][reduced])
        # To the engines a delay is a delay.
        packets["flags"][packets["reduce_ps"] > 0] |= int(PacketFlag.REDUCED)
        return families._asdict()

    def _reduce_ps(self, size_bytes: Any) -> Any:
        """One write and two reads of local memory; free where its bandwidth is not given."""
        bandwidth_Bps = self._system.local_mem_bw_GBps * 1e9
        if bandwidth_Bps == 0:
            return 0
        once_ns = np.floor(size_bytes.astype(np.float64) / bandwidth_Bps * 1e9)
        if (once_ns >= _MOST_REDUCE_NS).any():
            raise InputError(
                f"reducing {size_bytes.max()} bytes takes {3 * once_ns.max():.3g} ns at "
                f"{self._system.local_mem_bw_GBps} GB/s; allowed: less than "
                f"{3 * _MOST_REDUCE_NS:.3g}",
                file=self._system.source,
                key="local-mem-bw",
            )
        return 3 * once_ns.astype(np.int64) * PS_PER_NS


def _reductions(made: Tables) -> int:
    """Most reductions that a member pays for."""
    reduced = (made.packets[:, 1] & PacketFlag.REDUCED) != 0
    parts = np.split(reduced, np.cumsum(made.packet_count)[:-1])
    return max(int(part.sum()) for part in parts)


def _checked(built: Sequence[tuple[str, Request, Tables]]) -> Joined:
    made = joined([found for _, _, found in built])
    sizes = np.array([request.size for _, request, _ in built], np.int64)
    check_schedules(
        made.schedules, made.steps, made.packets, np.repeat(sizes, made.families["count"])
    )
    check_peers(sizes, made)
    return made


@contextlib.contextmanager
def _blaming(name: str, request: Request) -> Iterator[None]:
    """Errors name the algorithm and what it was asked for."""
    try:
        yield
    except InputError as error:
        key = (error.key or "").removeprefix("program: ")
        what = f"algorithm {name!r}, {request.kind.name} of {request.size} members"
        raise InputError(error.reason, key=f"{what}: {key}" if key else what) from None
