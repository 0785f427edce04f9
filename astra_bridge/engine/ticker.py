# SPDX-License-Identifier: MIT
"""A clock beside a running engine: when to report progress, and when to interrupt a long call."""

from __future__ import annotations

import threading
from types import TracebackType

from astra_bridge.network.api import Capability, Network

__all__ = ["PERIOD_S", "Ticker"]

PERIOD_S = 0.2
"""Wall time between two ticks."""


class Ticker:
    """Ticks five times a second, and interrupts a call of ``advance`` that has lasted a tick.

    The engine then looks at signals, reports how far it is, and goes on with the same call, which
    changes nothing (R9, R10).  Only backends with the capability INTERRUPT are interrupted.

    Attributes
    ----------
    due : bool
        Set at every tick; whoever reports clears it.
    """

    def __init__(self, network: Network, period_s: float = PERIOD_S) -> None:
        self.due = False
        self._network, self._period_s = network, period_s
        self._interrupts = Capability.INTERRUPT in network.info.capabilities
        self._calls = 0
        self._inside = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="astra_bridge ticker")

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The network may be closed after this, so no interrupt may be under way.
        self._end.set()
        self._thread.join()

    def enter(self) -> None:
        """A call that may last long begins."""
        self._calls += 1
        self._inside = True

    def leave(self) -> None:
        """It has ended."""
        self._inside = False

    def _run(self) -> None:
        before = -1
        while not self._end.wait(self._period_s):
            self.due = True
            if self._inside and self._interrupts and self._calls == before:
                self._network.interrupt()
            before = self._calls
