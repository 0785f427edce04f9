# SPDX-License-Identifier: MIT
"""The native engine: the same events as :mod:`astra_bridge.engine.python`, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from astra_bridge.engine.outcome import (
    Doubt,
    Outcome,
    Progress,
    ProgressCallback,
    Stop,
    Watch,
    Waved,
    Waves,
)
from astra_bridge.engine.ticker import PERIOD_S
from astra_bridge.errors import SimulationError
from astra_bridge.network.boundary import LIES, broken
from astra_bridge.network.native import NativeNetwork, check, ffi
from astra_bridge.program import DELIVERY, DONE, STAY, WAIT, Inside, Program
from astra_bridge.program.compiled import arrays, module, stale, unavailable

__all__ = ["NativeEngine", "stale", "unavailable"]

_UNSIGNED = ("accepted", "count", "capacity", "completions")
"""Fields that are no int64 in C."""


class NativeEngine:
    """Runs a Program on a native network, whose C functions it calls directly.

    Parameters
    ----------
    program : Program
    network : NativeNetwork
    record_nodes : bool
        Whether to keep start and end of every node.
    inside : Inside
        What to keep of what goes on inside collectives.
    folded : sequence of (stride, size)
        Digits in which the ranks are alike: see `astra_bridge.engine.folding`.
    waves : Waves, optional
        Which phases may be wavefronts, in a run to the end.
    by_number : bool
        Whether messages of collectives may meet by number, which is faster.
    """

    name = "native"

    def __init__(
        self,
        program: Program,
        network: NativeNetwork,
        *,
        record_nodes: bool = True,
        inside: Inside = Inside.NOTHING,
        folded: Sequence[tuple[int, int]] = (),
        waves: Waves | None = None,
        by_number: bool = True,
    ) -> None:
        self._network = network
        table, sim = network.handle
        info = network.info
        self._session = module().Session(
            arrays=arrays(program),
            table=table,
            sim=sim,
            capabilities=int(info.capabilities),
            resolution_ps=info.resolution_ps,
            max_in_flight=info.max_in_flight,
            levels=info.levels,
            record_nodes=record_nodes,
            inside=int(inside),
            folded=list(folded),
            waves=waves,
            by_number=by_number,
        )

    def missed(self) -> bool:
        """Whether messages that meet by number still wait."""
        return bool(self._session.missed())

    def advance(self, until_ps: int, progress: ProgressCallback | None) -> Stop:
        def tick(*reached: int) -> bool:
            return progress is not None and progress(Progress(*reached)) is True

        # A session may be stepped thousands of times, and each network call is one of a handle.
        self._network.handle  # noqa: B018 raises where the network is closed
        stop, failure, lie = self._session.advance(
            until_ps, None if progress is None else tick, PERIOD_S
        )
        if lie is not None:
            self._raise_lie(*lie)
        if failure is not None:
            self._raise(*failure)
        return Stop(stop)

    def append(self, fragment: Program, program: Program) -> None:  # noqa: ARG002
        self._session.append(arrays(fragment))

    def watch(self, what: Watch) -> None:
        self._session.watch(int(what))

    def poll(self) -> Any:
        return np.frombuffer(self._session.poll(), DONE)

    def progress(self) -> Progress:
        return Progress(*self._session.progress())

    def outcome(self, *, last: bool = False) -> Outcome:
        raw = self._session.outcome(last)
        for name, dtype in (("waits", WAIT), ("stays", STAY), ("deliveries", DELIVERY)):
            raw[name] = np.frombuffer(raw[name], dtype)
        if "waved" in raw:
            (doubt, rank, now_ps), phases, by_events, flows = raw["waved"]
            raw["waved"] = Waved(Doubt(doubt), rank, now_ps, phases, by_events, flows)
        return Outcome(**raw)

    def save(self) -> bytes:
        data: bytes = self._session.save()
        return data

    def load(self, data: bytes) -> None:
        self._session.load(data)

    def copy(self, network: NativeNetwork) -> NativeEngine:
        other = object.__new__(NativeEngine)
        other._network = network
        other._session = self._session.copy(network.handle[1])
        return other

    def _raise_lie(self, call: str, name: str, value: int, bound: int, item: int) -> NoReturn:
        if LIES[name].field in _UNSIGNED:
            value %= 2**64
        raise broken(self._network.info.name, call, name, value, bound, item)

    def _raise(self, call: str, status: int, native_code: int, item: int, message: bytes) -> None:
        err = ffi().new("astra_net_error *")
        err.native_code, err.item = native_code, item
        err.message = message[:239]
        try:
            check(self._network.info.name, call, status, err)
        except SimulationError as error:
            error.outcome = self.outcome(last=True)
            raise
