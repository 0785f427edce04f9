# SPDX-License-Identifier: MIT
"""The native engine: the same events as :mod:`astra_bridge.engine.python`, compiled."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any, NoReturn

import numpy as np

from astra_bridge.engine.outcome import WAIT, Outcome, Progress, ProgressCallback
from astra_bridge.engine.ticker import PERIOD_S
from astra_bridge.errors import SimulationError
from astra_bridge.network.boundary import LIES, broken
from astra_bridge.network.native import NativeNetwork, check, ffi
from astra_bridge.program import Program

__all__ = ["NativeEngine", "unavailable"]

_MODULE = "astra_bridge._native._engine"

_UNSIGNED = ("accepted", "count", "capacity", "completions")
"""Fields that are no int64 in C."""


def unavailable() -> str | None:
    """None where the native engine is built, else why not."""
    try:
        import_module(_MODULE)
    except ImportError as error:
        return (
            f"the native engine is not built ({error}); install again where a C++17 compiler "
            "is found"
        )
    return None


class NativeEngine:
    """Runs one Program on one native network, whose C functions it calls directly.

    Parameters
    ----------
    program : Program
    network : NativeNetwork
    record_nodes : bool
        Whether to keep start and end of every node.
    progress : callable, optional
        Called now and then with a `Progress`.
    """

    def __init__(
        self,
        program: Program,
        network: NativeNetwork,
        *,
        record_nodes: bool = True,
        progress: ProgressCallback | None = None,
    ) -> None:
        self._engine: Any = import_module(_MODULE)
        self.program, self.network = program, network
        self.record_nodes, self.progress = record_nodes, progress
        for name, size in self._engine.RECORD_BYTES.items():
            if getattr(program, name).dtype.itemsize != size:
                raise RuntimeError(
                    f"the native engine was built for other records of {name}; build it again"
                )

    def run(self) -> Outcome:
        """Run until nothing more can happen."""
        report = self.progress

        def tick(now_ps: int, events: int, done: int, total: int) -> None:
            if report is not None:
                report(Progress(now_ps, events, done, total))

        arrays = {
            field.name: _contiguous(getattr(self.program, field.name))
            for field in dataclasses.fields(self.program)
        }
        table, sim = self.network.handle
        info = self.network.info
        raw = self._engine.run(
            arrays=arrays,
            table=table,
            sim=sim,
            capabilities=int(info.capabilities),
            resolution_ps=info.resolution_ps,
            max_in_flight=info.max_in_flight,
            record_nodes=self.record_nodes,
            progress=None if report is None else tick,
            period_s=PERIOD_S,
        )
        if raw["lie"] is not None:
            self._raise_lie(*raw["lie"])
        outcome = Outcome(
            finish_ps=raw["finish_ps"],
            node_start_ps=raw["node_start_ps"],
            node_end_ps=raw["node_end_ps"],
            rank_node_start=raw["rank_node_start"],
            events=raw["events"],
            transfers=raw["transfers"],
            relieved=raw["relieved"],
            waits=np.frombuffer(raw["waits"], WAIT),
        )
        if raw["failure"] is not None:
            try:
                self._raise(*raw["failure"])
            except SimulationError as error:
                error.outcome = outcome  # type: ignore[attr-defined]
                raise
        return outcome

    def _raise_lie(self, call: str, name: str, value: int, bound: int, item: int) -> NoReturn:
        if LIES[name].field in _UNSIGNED:
            value %= 2**64
        raise broken(self.network.info.name, call, name, value, bound, item)

    def _raise(self, call: str, status: int, native_code: int, item: int, message: bytes) -> None:
        err = ffi().new("astra_net_error *")
        err.native_code, err.item = native_code, item
        err.message = message[:239]
        check(self.network.info.name, call, status, err)


def _contiguous(value: Any) -> Any:
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
