# SPDX-License-Identifier: MIT
"""Two network backends: one in Python, one in a shared library."""

from __future__ import annotations

import heapq
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from astra_bridge.errors import ContractError, Unsupported
from astra_bridge.network import native
from astra_bridge.network.api import (
    COMPLETION,
    DELIVERED,
    TIME_NEVER,
    Advance,
    Capability,
    NetworkConfig,
    NetworkInfo,
    Status,
    Stop,
)
from astra_bridge.network.spec import BackendSpec

library = native.library_backend(next(Path(__file__).parent.glob("wires.*so")))
PRIVATE_WIRES = replace(
    library, name="private-wires", summary="Each pair of ranks has a wire of 2 us and 1 GB/s."
)


class Steady:
    """A network without contention: option ``latency_ps``, and 3000 ps per byte."""

    def __init__(self, config: NetworkConfig) -> None:
        self._endpoints = config.endpoints
        self._latency_ps = int(config.options.get("latency_ps", "7000000"))
        self._now_ps = 0
        self._arrivals: list[tuple[int, int]] = []  # time, id
        self._arrived: list[tuple[int, int]] = []

    @property
    def info(self) -> NetworkInfo:
        return NetworkInfo("steady", "1.0", Capability.MULTI_INSTANCE)

    def submit(self, items: Any) -> int:
        known = {number for _, number in (*self._arrivals, *self._arrived)}
        for at, row in enumerate(items.tolist()):
            self._check(at, row, known)
            known.add(row[0])
        for row in items.tolist():
            end_ps = row[1] + self._latency_ps + 3000 * row[2]
            heapq.heappush(self._arrivals, (end_ps, row[0]))
        return len(items)

    def _check(self, at: int, row: Any, known: set[int]) -> None:
        number, start_ps, size, src, dst, traffic_class, flags, reserved = row
        wrong = (
            "start_ps" if start_ps < self._now_ps
            else "bytes" if size <= 0
            else "src" if not 0 <= src < self._endpoints
            else "dst" if not 0 <= dst < self._endpoints or dst == src
            else "traffic_class" if traffic_class
            else "flags" if flags or reserved
            else "id" if number in known
            else ""
        )  # fmt: skip
        if wrong:
            raise ContractError(
                f"steady: submit: item {at}: {wrong} is not allowed",
                backend="steady",
                call="submit",
                status=Status.INVALID,
                item=at,
            )

    def advance(self, until_ps: int, _lookahead_ps: int = 0) -> Advance:
        if until_ps < self._now_ps or self._arrived:
            raise ContractError(
                "steady: advance: back in time, or before all completions are polled",
                backend="steady",
                call="advance",
                status=Status.BAD_STATE if self._arrived else Status.INVALID,
            )
        if not self._arrivals and until_ps == TIME_NEVER:
            return Advance(self._now_ps, Stop.IDLE)
        first_ps = self._arrivals[0][0] if self._arrivals else TIME_NEVER
        self._now_ps = min(until_ps, first_ps)
        while self._arrivals and self._arrivals[0][0] <= self._now_ps:
            self._arrived.append(heapq.heappop(self._arrivals))
        return Advance(self._now_ps, Stop.COMPLETION if self._arrived else Stop.REACHED)

    def poll(self) -> Any:
        completions = np.zeros(len(self._arrived), COMPLETION)
        for record, (time_ps, number) in zip(completions, self._arrived, strict=True):
            record["id"], record["time_ps"], record["kind"] = number, time_ps, DELIVERED
        self._arrived.clear()
        return completions

    def stats(self) -> dict[str, Any]:
        return {"latency_ps": self._latency_ps}

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self._arrivals.clear()

    def __enter__(self) -> Steady:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _unsupported(self, call: str) -> Any:
        raise Unsupported(
            f"steady: {call}: not supported",
            backend="steady",
            call=call,
            status=Status.UNSUPPORTED,
        )

    def exchange(self, *_arguments: Any) -> Any:
        return self._unsupported("exchange")

    def set_link(self, *_arguments: Any) -> None:
        self._unsupported("set_link")

    def snapshot(self) -> Any:
        return self._unsupported("snapshot")


STEADY = BackendSpec("steady", "Latency and 3 ns per byte.", library.prepare, Steady)
