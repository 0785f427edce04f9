# SPDX-License-Identifier: MIT
"""Signals that ask the command to end: they unwind it, so that it leaves nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Ended", "deferred", "unwinding"]

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")


class Ended(KeyboardInterrupt):
    """A signal asked for the end; whoever cleans up after Ctrl-C cleans up after this.

    Attributes
    ----------
    number : int
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_arrived = 0  # the signal that asked for the end
_depth = 0  # of deferred()


@contextmanager
def unwinding() -> Iterator[None]:
    """Make them raise `Ended` here, whatever becomes of the exception on its way.

    Code of others may turn it into one of its own.  What is ignored (as ``nohup`` has it) stays so.
    """
    global _arrived
    before: dict[int, Any] = {}

    def end(number: int, _frame: FrameType | None) -> None:
        global _arrived
        _arrived = number
        # No second one into the cleaning up, but a person may insist.
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        if signal.SIGINT in before:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if not _depth:
            raise Ended(number)

    _arrived = 0
    usual = (signal.SIG_DFL, signal.default_int_handler)
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in usual:
            try:
                before[number] = signal.signal(number, end)
            except ValueError:  # not the main thread
                break
    try:
        yield
    except Exception as error:
        if _arrived:
            raise Ended(_arrived) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _arrived = 0


@contextmanager
def deferred() -> Iterator[None]:
    """Let them wait for the end of this block: for code that an exception at any line breaks."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if _arrived and not _depth:
        raise Ended(_arrived)
