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
import operator
import re
from fractions import Fraction
from typing import Any, Literal, SupportsIndex

from astra_bridge.errors import InputError
from astra_bridge.text import show

PS_PER_NS = 1_000
PS_PER_US = 1_000_000
PS_PER_MS = 1_000_000_000
PS_PER_S = 1_000_000_000_000

TIME_NEVER = 2**63 - 1
"""Later than every time, in ps (``ASTRA_NET_TIME_NEVER``)."""

INT64_MAX = 2**63 - 1

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

_NUMBER = re.compile(
    r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+))?)\s*([A-Za-z/]*)\s*\Z", re.ASCII
)
_MOST_CHARACTERS = 400
_MOST_EXPONENT = 400
"""Beyond the range of every float; exact arithmetic with more takes for ever."""


def checked_int64(
    value: SupportsIndex | float | Fraction,
    quantity: str,
    *,
    low: int = 0,
    high: int = INT64_MAX,
    round_mode: RoundMode = "error",
    file: Any = None,
    key: str | None = None,
) -> int:
    """Make a number an int that fits in an int64: the one conversion to ps, bytes and counts.

    Parameters
    ----------
    value
        An int (NumPy's too), a float or a fraction.
    quantity
        What the number is, with its unit ("latency [ps]"); the error starts with it.
    low, high
        What is allowed, both included.
    round_mode
        What becomes of a fraction: "error", "floor", "ceil" or "nearest" (halves to even).
    file, key
        Where the number stands, for the error.

    Raises
    ------
    InputError
        No number, not finite, not whole with ``round_mode="error"``, or outside low .. high.

    Examples
    --------
    >>> checked_int64(2.5e3, "latency [ps]")
    2500
    >>> checked_int64(2**70, "message [bytes]")
    Traceback (most recent call last):
        ...
    astra_bridge.errors.InputError: message [bytes]: 1180591620717411303424 is out of range; \
allowed: 0 to 9223372036854775807
    """

    def refuse(problem: str) -> InputError:
        shown = show(value.__trunc__() if isinstance(value, Fraction) else value)
        return InputError(f"{quantity}: {shown} {problem}", file=file, key=key)

    if isinstance(value, bool):
        raise refuse("is not a number")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        if not isinstance(value, (float, Fraction)):
            raise refuse("is not a number") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse("is not finite") from None
        if round_mode == "floor":
            number = math.floor(value)
        elif round_mode == "ceil":
            number = math.ceil(value)
        elif round_mode == "nearest":
            number = round(value)
        elif value == math.floor(value):
            number = math.floor(value)
        else:
            raise refuse("is not a whole number; give a rounding mode") from None
    if not low <= number <= high:
        raise refuse(f"is out of range; allowed: {low} to {high}")
    return number


def time_ps(
    value: SupportsIndex | float | Fraction, unit: str, round_mode: RoundMode = "error"
) -> int:
    """Convert ``value`` in ``unit`` ("ps", "ns", "us", "ms", "s") to int picoseconds.

    Raises
    ------
    InputError
        Unknown unit, value negative or not finite, beyond an int64, or inexact with
        ``round_mode="error"``.

    Examples
    --------
    >>> time_ps(1.5, "ns")
    1500
    """
    if not isinstance(unit, str) or unit not in _TIME_UNITS_PS:
        raise InputError(f"unknown time unit {show(unit)}; allowed: {', '.join(_TIME_UNITS_PS)}")
    what = f"time of {show(value)} {unit} in ps"
    return checked_int64(_fraction(value, what) * _TIME_UNITS_PS[unit], what, round_mode=round_mode)


def _fraction(value: Any, what: str) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return Fraction(value)
    low = -INT64_MAX
    return Fraction(checked_int64(value, what, low=low))  # what is neither is refused there


def _split(text: str, what: str) -> tuple[Fraction, str]:
    match = _NUMBER.match(text) if isinstance(text, str) and len(text) < _MOST_CHARACTERS else None
    if not match:
        raise InputError(f"{what} {show(text)} is not a number followed by a unit")
    exponent = match.group(2) or "0"
    if len(exponent) > 5 or abs(int(exponent)) > _MOST_EXPONENT:
        raise InputError(f"{what} {show(text)} is out of range")
    return Fraction(match.group(1)), match.group(3)


def _unit(units: dict[str, int], unit: str, what: str, text: str) -> int:
    if unit not in units:
        raise InputError(
            f"unknown {what} unit {show(unit)} in {show(text)}; allowed: {', '.join(units)}"
        )
    return units[unit]


def parse_time_ps(text: str, round_mode: RoundMode = "nearest") -> int:
    """Parse "0.0005ms", "500ns", "1us" to int picoseconds.

    Raises
    ------
    InputError
        As :func:`time_ps`, or the text is not a number followed by a unit.

    Examples
    --------
    >>> parse_time_ps("0.5us")
    500000
    """
    value, unit = _split(text, "time")
    scale = _unit(_TIME_UNITS_PS, unit, "time", text)
    return checked_int64(value * scale, f"time {show(text)} in ps", round_mode=round_mode)


def parse_size_bytes(text: str | int) -> int:
    """Parse "1MiB", "64 KB", "4096" (bytes) to int bytes.

    Raises
    ------
    InputError
        Not a size, not a whole number of bytes, negative, or beyond an int64.

    Examples
    --------
    >>> parse_size_bytes("64KiB")
    65536
    """
    if not isinstance(text, str):
        return checked_int64(text, "size [bytes]")
    value, unit = _split(text, "size")
    scale = _unit(_SIZE_UNITS_B, unit or "B", "size", text)
    return checked_int64(value * scale, f"size {show(text)} in bytes")


def parse_rate_Bps(text: str) -> float:
    """Parse "400Gbps" or "50GB/s" (decimal) to bytes per second.

    Raises
    ------
    InputError
        Not a rate, or beyond the largest float.

    Examples
    --------
    >>> parse_rate_Bps("400Gbps")
    50000000000.0
    """
    value, unit = _split(text, "rate")
    scale = _unit(_RATE_UNITS_BITS, unit, "rate", text)
    try:
        return float(value * scale / 8)
    except OverflowError:
        raise InputError(f"rate {show(text)} is out of range") from None


def gibps_to_bytes_per_ns(bandwidth_GiBps: float) -> float:
    """Bandwidth of the network YAML in bytes per ns, in ASTRA-sim's order of evaluation."""
    return bandwidth_GiBps * (1 << 30) / 1e9


def time_text(time_ps: float) -> str:
    """A time as people read it: four digits, and the unit that suits it.

    Examples
    --------
    >>> time_text(27_061_287_373_000), time_text(1_500), time_text(0), time_text(999_999)
    ('27.06 s', '1.5 ns', '0 s', '1 us')
    """
    return _scaled(time_ps, ((PS_PER_S, "s"), (PS_PER_MS, "ms"), (PS_PER_US, "us"),
                             (PS_PER_NS, "ns"), (1, "ps")))  # fmt: skip


def size_text(size_bytes: float) -> str:
    """A size as people read it, in powers of 1024.

    Examples
    --------
    >>> size_text(1 << 30), size_text(1000), size_text(5_000_000)
    ('1 GiB', '1000 B', '4.768 MiB')
    """
    return _scaled(size_bytes, ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"),
                                (1, "B")))  # fmt: skip


def _scaled(value: float, units: tuple[tuple[int, str], ...]) -> str:
    if not value:
        return f"0 {units[0][1] if units[0][1] == 's' else units[-1][1]}"
    for size, unit in units:
        text = f"{value / size:.4g}"
        if abs(float(text)) >= 1 or size == 1:
            return f"{text} {unit}"
    raise AssertionError
