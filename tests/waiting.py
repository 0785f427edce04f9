# SPDX-License-Identifier: MIT
"""Waiting for what must happen, however slow or busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["HANGS_S", "until"]

HANGS_S = 300.0
"""What has not happened after so long never does [s]; no test takes so long where all is well."""

T = TypeVar("T")


def until(happens: Callable[[], T]) -> T:
    """What ``happens`` returns, as soon as that is true; the last that it returned if it never is.

    An assertion about it then shows what is there instead.
    """
    end_s = time.monotonic() + HANGS_S
    while not (found := happens()) and time.monotonic() < end_s:
        time.sleep(0.01)
    return found
