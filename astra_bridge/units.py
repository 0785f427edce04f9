# SPDX-License-Identifier: MIT
"""The only conversions of time and size in the project.

Above the contract, time is int64 picoseconds and size is int64 bytes.  Three bandwidth
conventions meet here, because ASTRA-sim's inputs mix them:

* network YAML ``bandwidth``: called GB/s there, but is GiB/s (``bw * 2**30 / 1e9`` bytes per ns);
* ``local-mem-bw``, ``remote-mem-bw``: decimal GB/s (bytes per ns);
* ns-3 link rates: decimal bits per second (``400Gbps``).
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Literal

PS_PER_NS = 1_000
PS_PER_US = 1_000_000
PS_PER_MS = 1_000_000_000
PS_PER_S = 1_000_000_000_000

TIME_NEVER = 2**63 - 1
"""Later than every time, in ps (``ASTRA_NET_TIME_NEVER``)."""

_TIME_UNITS_PS = {"ps": 1, "ns": PS_PER_NS, "us": PS_PER_US, "ms": PS_PER_MS, "s": PS_PER_S}
_SIZE_UNITS_B = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_RATE_UNITS_BITS = {"bps": 1, "Kbps": 10**3, "Mbps": 10**6, "Gbps": 10**9, "Tbps": 10**12}
_RATE_UNITS_BITS |= {"b/s": 1, "kb/s": 10**3, "Kb/s": 10**3, "Mb/s": 10**6, "Gb/s": 10**9}
_RATE_UNITS_BITS |= {"B/s": 8, "KB/s": 8 * 10**3, "MB/s": 8 * 10**6, "GB/s": 8 * 10**9}

RoundMode = Literal["error", "floor", "ceil", "nearest"]

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z/]*)\s*\Z")


def _round(value: Fraction, round_mode: RoundMode, what: str) -> int:
    if value.denominator == 1:
        return value.numerator
    if round_mode == "floor":
        return math.floor(value)
    if round_mode == "ceil":
        return math.ceil(value)
    if round_mode == "nearest":
        return round(value)
    raise ValueError(f"{what} is not a whole number of the target unit; give a rounding mode")


def time_ps(value: float | int | Fraction, unit: str, round_mode: RoundMode = "error") -> int:
    """Convert ``value`` in ``unit`` ("ps", "ns", "us", "ms", "s") to int picoseconds.

    Raises
    ------
    ValueError
        Unknown unit, value not finite, or inexact with ``round_mode="error"``.
    """
    if unit not in _TIME_UNITS_PS:
        raise ValueError(f"unknown time unit {unit!r}; allowed: {', '.join(_TIME_UNITS_PS)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"time {value!r} {unit} is not finite")
    return _round(Fraction(value) * _TIME_UNITS_PS[unit], round_mode, f"{value} {unit}")


def _split(text: str, what: str) -> tuple[Fraction, str]:
    match = _NUMBER.match(text)
    if not match:
        raise ValueError(f"{what} {text!r} is not a number followed by a unit")
    return Fraction(match.group(1)), match.group(2)


def parse_time_ps(text: str, round_mode: RoundMode = "nearest") -> int:
    """Parse "0.0005ms", "500ns", "1us" to int picoseconds."""
    value, unit = _split(text, "time")
    return time_ps(value, unit, round_mode)


def parse_size_bytes(text: str | int) -> int:
    """Parse "1MiB", "64 KB", "4096" (bytes) to int bytes."""
    if isinstance(text, int):
        return text
    value, unit = _split(text, "size")
    if (unit or "B") not in _SIZE_UNITS_B:
        raise ValueError(
            f"unknown size unit {unit!r} in {text!r}; allowed: {', '.join(_SIZE_UNITS_B)}"
        )
    return _round(value * _SIZE_UNITS_B[unit or "B"], "error", f"size {text!r}")


def parse_rate_Bps(text: str) -> float:
    """Parse "400Gbps" or "50GB/s" (decimal) to bytes per second."""
    value, unit = _split(text, "rate")
    if unit not in _RATE_UNITS_BITS:
        raise ValueError(
            f"unknown rate unit {unit!r} in {text!r}; allowed: {', '.join(_RATE_UNITS_BITS)}"
        )
    return float(value * _RATE_UNITS_BITS[unit] / 8)


def gibps_to_bytes_per_ns(bandwidth_GiBps: float) -> float:
    """Bandwidth of the network YAML in bytes per ns, in ASTRA-sim's order of evaluation."""
    return bandwidth_GiBps * (1 << 30) / 1e9
