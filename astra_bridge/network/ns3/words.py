# SPDX-License-Identifier: MIT
"""Values in files that are words separated by white space."""

from __future__ import annotations

from pathlib import Path

from astra_bridge.arguments import number_text, whole_text
from astra_bridge.errors import InputError
from astra_bridge.inputs.reading import in_file
from astra_bridge.units import parse_rate_Bps

__all__ = ["number_word", "rate_word", "whole_word"]


def whole_word(word: str, key: str, file: Path, low: int, high: int) -> int:
    """A whole number low .. high."""
    return int(in_file(whole_text(low, high), word, file=file, key=key))


def number_word(word: str, key: str, file: Path, low: float, high: float) -> float:
    """A number low .. high."""
    return float(in_file(number_text(low, high), word, file=file, key=key))


def rate_word(word: str, key: str, file: Path) -> int:
    """A rate [bit/s]."""
    try:
        bps = round(parse_rate_Bps(word) * 8)
    except (ValueError, OverflowError) as error:
        raise InputError(str(error), file=file, key=key) from None
    if not 1 <= bps <= 10**17:
        raise InputError(f"rate {word} is out of range", file=file, key=key)
    return bps
