# SPDX-License-Identifier: MIT
"""This process, and copies of it, which need neither a second start of Python nor its imports.

A copy (`fork`) has all that its original has.  So only a command of ours is copied, and only while
it has run no code of others and has a single thread, which leaves no lock behind that nobody frees.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

__all__ = ["Aside", "claim", "copy", "is_ours", "share"]

_JOIN_S, _GONE_S = 0.05, 0.02

_ours = False
_asides: set[Aside] = set()


def claim() -> None:
    """Say that this process runs a command of ours, and nothing else."""
    global _ours
    _ours = True


def share() -> None:
    """Say that code of others runs here from now on: a copy would have what it left."""
    global _ours
    _ours = False


def is_ours() -> bool:
    """Whether nothing but a command of ours has run here."""
    return _ours


class Aside:
    """A thread that calls a function now and then, and is away while this process is copied.

    Parameters
    ----------
    function : callable
        What it calls, without arguments.
    period_s : float
        How often [s]; the first time after so long.
    """

    def __init__(self, function: Callable[[], None], period_s: float) -> None:
        self._function, self._period_s = function, period_s
        self._due_s = 0.0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Call it from now on."""
        self._due_s = time.monotonic() + self._period_s
        self.resume()

    def end(self) -> None:
        """Call it no more."""
        _asides.discard(self)
        self._end.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)  # or it is about to write to somebody who does not read

    def resume(self) -> None:
        """Go on after `end`, as if there had been none."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._end,), daemon=True)
        self._thread.start()
        _asides.add(self)

    def _run(self, end: threading.Event) -> None:
        while not end.wait(max(self._due_s - time.monotonic(), 0.0)):
            self._function()
            self._due_s += self._period_s


def copy(run: Callable[[], None]) -> int | None:
    """Start a copy of this process that runs a function in a session of its own, and ends.

    The copy has default handlers of signals, and never comes back from ``run``.

    Returns
    -------
    int or None
        Its number; None where there is no copy: this process is not ours alone, it has threads,
        or the system refuses.
    """
    if not _ours or sys.platform != "linux":
        return None
    asides = list(_asides)
    for aside in asides:
        aside.end()
    # No signal meets the copy while it still has our handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        if not _has_one_thread():
            return None
        number = os.fork()
        if number == 0:
            _live(run, before)
        return number
    except OSError:
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for aside in asides:
            aside.resume()


def _has_one_thread() -> bool:
    """Threads of libraries count; one that was joined may take a moment to be gone."""
    end_s = time.monotonic() + _GONE_S
    while len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - no time for paths
        if threading.active_count() > 1 or time.monotonic() >= end_s:
            return False
        time.sleep(0.0002)
    return True


def _live(run: Callable[[], None], mask: set[int]) -> NoReturn:
    """The copy: from here to its end."""
    try:
        os.setsid()
        # Files and the like of the original are not to be closed here.
        gc.freeze()
        if "faulthandler" in sys.modules:
            sys.modules["faulthandler"].disable()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            if signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN, None):
                usual = signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler
                signal.signal(number, usual)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        run()
    finally:
        os._exit(1)
