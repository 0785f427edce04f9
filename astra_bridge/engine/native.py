# SPDX-License-Identifier: MIT
"""The native engine: the same events as :mod:`astra_bridge.engine.python`, compiled."""

from __future__ import annotations

import dataclasses
import functools
from importlib import import_module
from typing import Any, NoReturn

import numpy as np

from astra_bridge import program as schema
from astra_bridge.engine.outcome import Outcome, Progress, ProgressCallback, Stop, Watch
from astra_bridge.engine.ticker import PERIOD_S
from astra_bridge.errors import SimulationError
from astra_bridge.network.boundary import LIES, broken
from astra_bridge.network.native import NativeNetwork, check, ffi
from astra_bridge.program import DONE, WAIT, Program

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


def layout(record: np.dtype[Any]) -> dict[str, tuple[int, int]]:
    """Offset and bytes of each field, as the native engine tells its own."""
    assert record.fields is not None
    return {name: (int(field[1]), field[0].itemsize) for name, field in record.fields.items()}


@functools.cache
def _module() -> Any:
    """The native engine, if it was built for the records of this package."""
    engine = import_module(_MODULE)
    for name, fields in engine.LAYOUT.items():
        record = getattr(schema, name, None)
        if record is None or layout(record) != fields:
            raise RuntimeError(
                f"the native engine was built for other records of {name}; build it again"
            )
    return engine


class NativeEngine:
    """Runs a Program on a native network, whose C functions it calls directly.

    Parameters
    ----------
    program : Program
    network : NativeNetwork
    record_nodes : bool
        Whether to keep start and end of every node.
    """

    name = "native"

    def __init__(
        self, program: Program, network: NativeNetwork, *, record_nodes: bool = True
    ) -> None:
        engine = _module()
        self._network = network
        table, sim = network.handle
        info = network.info
        self._session = engine.Session(
            arrays=_arrays(program),
            table=table,
            sim=sim,
            capabilities=int(info.capabilities),
            resolution_ps=info.resolution_ps,
            max_in_flight=info.max_in_flight,
            levels=info.levels,
            record_nodes=record_nodes,
        )

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
        self._session.append(_arrays(fragment))

    def watch(self, what: Watch) -> None:
        self._session.watch(int(what))

    def poll(self) -> Any:
        return np.frombuffer(self._session.poll(), DONE)

    def progress(self) -> Progress:
        return Progress(*self._session.progress())

    def outcome(self, *, last: bool = False) -> Outcome:
        raw = self._session.outcome(last)
        raw["waits"] = np.frombuffer(raw["waits"], WAIT)
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


def _arrays(program: Program) -> dict[str, Any]:
    values = {field.name: getattr(program, field.name) for field in dataclasses.fields(program)}
    return {
        name: np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
