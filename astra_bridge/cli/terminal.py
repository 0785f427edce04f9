# SPDX-License-Identifier: MIT
"""Standard output and standard error: whatever they are, and whatever becomes of them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from astra_bridge.text import printable

__all__ = ["columns", "drop_stdout", "prepare", "say"]


def prepare() -> None:
    """Make the three standard streams safe to use.

    One that is closed becomes the null device: otherwise, the next file that is opened would be in
    its place.  Characters that an encoding lacks are escaped.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) < 3:  # the smallest that is free
        pass
    os.close(null)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            null_stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - kept open
            setattr(sys, name, null_stream)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(kind: str, message: str) -> None:
    """Write ``kind: message`` to stderr, if anybody listens; foreign text in it does no harm."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{kind}: {printable(message)}\n")
        sys.stderr.flush()


def drop_stdout() -> None:
    """Throw away what could not be written, so that Python does not try again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def columns(stream: TextIO) -> int:
    """How many characters fit in a line of the terminal that a stream is, else 80."""
    with suppress(OSError, ValueError):
        return max(os.get_terminal_size(stream.fileno()).columns, 40)
    return 80
