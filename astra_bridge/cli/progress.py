# SPDX-License-Identifier: MIT
"""Progress of long runs, on stderr."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from astra_bridge.cli.terminal import columns, say
from astra_bridge.process import Aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from astra_bridge.engine.outcome import Progress
    from astra_bridge.program import Program

__all__ = ["ProgressReport", "StillWorking"]

_CLEAR = "\r\x1b[K"  # the rest of the line
_FIRST_S, _TERMINAL_S, _PLAIN_S = 1.0, 0.2, 10.0


class StillWorking:
    """Says every ten seconds that work goes on which has no measure, until `done` or the end.

    Parameters
    ----------
    work : str
        As people say it: ``"generating traces"``.
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._begin_s = time.monotonic()
        self._aside = Aside(self._say, _PLAIN_S)

    def __enter__(self) -> StillWorking:
        self._aside.begin()
        return self

    def _say(self) -> None:
        say("note", f"{time.monotonic() - self._begin_s:.0f} s: still {self._work}")

    def done(self) -> None:
        """Say no more."""
        self._aside.end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.done()


class ProgressReport:
    """Callback of ``simulate``: one live line on a terminal, else a line every ten seconds.

    Says nothing in the first second, so that short runs do not flicker.  What
    comes before the simulation has no measure: a line every ten seconds says that it goes on.

    Parameters
    ----------
    program : callable, optional
        What gives the Program that runs: how many events it needs says how much is left, also
        inside one large collective.
    """

    def __init__(self, program: Callable[[], Program] | None = None) -> None:
        self._program = program
        self._expected: tuple[int, int] | None = None  # events and nodes of the Program
        self._first: tuple[float, int] | None = None  # time and events of the first report
        self._live = False  # whether a line stands there
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._begin_s = self._last_s = time.monotonic()
        self._last_events = 0
        self._preparation = StillWorking("preparing (traces, plans, compiling)")

    def __enter__(self) -> ProgressReport:
        self._preparation.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._preparation.done()
        if self._live:
            _write(_CLEAR)

    def __call__(self, progress: Progress) -> None:
        self._preparation.done()
        now_s = time.monotonic()
        if self._first is None:
            self._first = now_s, progress.events
        wait_s = _TERMINAL_S if self._terminal else _PLAIN_S
        if now_s - self._begin_s < _FIRST_S or now_s - self._last_s < wait_s:
            return
        rate = (progress.events - self._last_events) / (now_s - self._last_s)
        self._last_s, self._last_events = now_s, progress.events
        line = f"simulated {progress.now_ps / 1e9:,.3f} ms, {rate:,.0f} events/s, "
        line += self._left(progress, now_s)
        if self._terminal:
            # The cursor stays at its beginning, where a message would then be written.
            _write(f"{_CLEAR}{line[: columns(sys.stderr) - 1]}\r")
            self._live = True
        else:
            _write(f"{line}\n")

    def _left(self, progress: Progress, now_s: float) -> str:
        """How much is done, and how long the rest will take."""
        if self._program is None:
            share = progress.nodes_done / max(progress.nodes_total, 1)
            return f"{share:.1%} of {progress.nodes_total:,} nodes done"
        if self._expected is None:
            program = self._program()
            self._expected = program.events, int(program.task_nodes.sum())
        events, nodes = self._expected
        # Where one rank runs for many, so many times fewer.
        total = max(events * progress.nodes_total // max(nodes, 1), progress.events, 1)
        done = progress.events / total
        assert self._first is not None
        began_s, before = self._first
        if progress.events == before or done >= 1:
            return f"{min(done, 0.999):.1%} done"
        left_s = (now_s - began_s) * (total - progress.events) / (progress.events - before)
        return f"{done:.1%} done, about {_duration(left_s)} left"


def _duration(seconds: float) -> str:
    """As people say it.

    Examples
    --------
    >>> _duration(7.4), _duration(200), _duration(9000)
    ('7 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _write(text: str) -> None:
    with suppress(OSError):  # nobody listens: no reason to end the simulation
        sys.stderr.write(text)
        sys.stderr.flush()
