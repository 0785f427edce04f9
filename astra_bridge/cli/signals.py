# SPDX-License-Identifier: MIT
"""Signals that ask the command to end: they unwind it, so that it leaves nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Ended", "unwinding"]

_ENDING = ("SIGTERM", "SIGHUP", "SIGXCPU")


class Ended(KeyboardInterrupt):
    """A signal asked for the end; whoever cleans up after Ctrl-C cleans up after this.

    Attributes
    ----------
    number : int
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def unwinding() -> Iterator[None]:
    """Make them raise `Ended` here.

    What is ignored (as ``nohup`` has it) stays so.
    """
    before: dict[int, Any] = {}

    def end(number: int, _frame: FrameType | None) -> None:
        for other in before:  # no second one into the cleaning up
            signal.signal(other, signal.SIG_IGN)
        raise Ended(number)

    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            try:
                before[number] = signal.signal(number, end)
            except ValueError:  # not the main thread
                break
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
