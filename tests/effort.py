# SPDX-License-Identifier: MIT
"""How much is tried: all with ``ASTRA_BRIDGE_ALL=1``, as in CI; else a sample of the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

EVERYTHING = os.environ.get("ASTRA_BRIDGE_ALL") == "1"
"""Whether what takes long is wanted, too."""

FACTOR = int(os.environ.get("ASTRA_BRIDGE_FUZZ", "1"))
"""How many times as long random tests run."""

T = TypeVar("T")


def examples(most: int) -> int:
    """How many random examples a test tries: ``most``, or a third of them."""
    return FACTOR * (most if EVERYTHING else -(-most // 3))


def spread(items: Sequence[T], step: int) -> Sequence[T]:
    """All items, or every ``step``-th."""
    return items if EVERYTHING else items[::step]
