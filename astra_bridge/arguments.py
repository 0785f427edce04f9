# SPDX-License-Identifier: MIT
"""Checks of what a caller passes from Python: the value in its plain type, or ``InputError``.

A check is a function of a value and the name of its argument.  The functions below make checks.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from astra_bridge.errors import InputError
from astra_bridge.text import show

__all__ = [
    "Check",
    "check_fields",
    "choice",
    "flag",
    "function",
    "instance",
    "integer",
    "list_of",
    "mapping_of",
    "number",
    "number_text",
    "optional",
    "path",
    "positive",
    "source_file",
    "text",
    "whole_text",
]

Check = Callable[[Any, str], Any]


def refusal(value: object, name: str, allowed: str) -> InputError:
    """The error of all checks."""
    found = show(value)
    if type(value).__module__ != "builtins":
        found += f" ({type(value).__name__})"
    return InputError(f"{found} is not allowed; allowed: {allowed}", key=name)


def integer(low: int, high: int) -> Check:
    """Whole numbers low .. high, NumPy's too; no bool.

    Examples
    --------
    >>> integer(1, 8)(3, "ranks")
    3
    >>> integer(1, 8)(1.5, "ranks")
    Traceback (most recent call last):
        ...
    astra_bridge.errors.InputError: ranks: 1.5 is not allowed; allowed: whole numbers \
from 1 to 8
    """

    def check(value: Any, name: str) -> int:
        try:
            plain = type(value) is int
            whole = value if plain else None if _is_bool(value) else operator.index(value)
        except TypeError:
            whole = None
        if whole is None or not low <= whole <= high:
            raise refusal(value, name, f"whole numbers from {low} to {high}")
        return whole

    return check


def number(low: float, high: float) -> Check:
    """Finite numbers low .. high as a float, NumPy's too; no bool."""

    def check(value: Any, name: str) -> float:
        if type(value) is float and low <= value <= high < math.inf:
            return value
        try:
            ordinary = not (_is_bool(value) or isinstance(value, (str, bytes, bytearray)))
            real = float(value) if ordinary and not hasattr(value, "__len__") else math.nan
        except (TypeError, ValueError, OverflowError):
            real = math.nan
        if not low <= real <= high or math.isinf(real):
            raise refusal(value, name, allowed)
        return real

    least = "above 0" if low == _LEAST else f"from {low:g}"
    allowed = f"numbers {least} up to {high:g}"
    return check


def whole_text(low: int, high: int) -> Check:
    """Whole numbers low .. high that stand in text, as words of a file do.

    Examples
    --------
    >>> whole_text(0, 9)("7", "count")
    7
    """
    allowed = integer(low, high)

    def check(value: Any, name: str) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,40}", value):
            with suppress(InputError):
                return int(allowed(int(value), name))
        raise refusal(value, name, f"whole numbers from {low} to {high}")

    return check


def number_text(low: float, high: float) -> Check:
    """As :func:`number`, for numbers that stand in text."""
    allowed = number(low, high)

    def check(value: Any, name: str) -> float:
        try:
            return float(allowed(float(value), name))
        except ValueError:  # of float(), or the error of the check
            raise refusal(value, name, f"numbers from {low:g} up to {high:g}") from None

    return check


def positive(high: float) -> Check:
    """As :func:`number`, above 0."""
    return number(_LEAST, high)


_LEAST = 5e-324  # the smallest positive float


def _is_bool(value: object) -> bool:
    return value is True or value is False or type(value).__name__ in ("bool_", "bool")  # NumPy's


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not _is_bool(value):
        raise refusal(value, name, "True, False")
    return bool(value)


def choice(*names: str) -> Check:
    """One of some words."""

    def check(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in names:
            raise refusal(value, name, ", ".join(names))
        return value

    return check


def text(value: Any, name: str) -> str:
    """Text that fits in a file and in C: UTF-8, no NUL."""
    if isinstance(value, str) and "\0" not in value:
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
    raise refusal(value, name, "text without NUL characters and lone surrogates")


_PATH = type(Path())  # of this system


def path(value: Any, name: str) -> Path:
    """A path, as text or path object."""
    if isinstance(value, (str, _PATH, os.PathLike)):
        plain = os.fspath(value)
        if isinstance(plain, str) and plain and "\0" not in plain:
            try:
                os.fsencode(plain)
            except UnicodeEncodeError:
                pass
            else:
                return value if type(value) is _PATH else Path(plain)
    raise refusal(value, name, "a path")


def source_file(source: Any, name: str) -> Path | None:
    """The file of an input that may be a path or its content: None for a mapping."""
    if isinstance(source, Mapping):
        return None
    try:
        return path(source, name)
    except InputError:
        raise refusal(source, name, "a path, or the content as a mapping") from None


def instance(*types: type) -> Check:
    """Objects of some types, as they are."""

    def check(value: Any, name: str) -> Any:
        if not isinstance(value, types):
            raise refusal(value, name, " or ".join(kind.__name__ for kind in types))
        return value

    return check


def function(value: Any, name: str) -> Any:
    """Whatever can be called."""
    if not callable(value):
        raise refusal(value, name, "a function")
    return value


def optional(check: Check) -> Check:
    """None, or what another check allows."""
    return lambda value, name: None if value is None else check(value, name)


def list_of(check: Check) -> Check:
    """Lists and tuples as a tuple; the check is that of an item."""

    def check_all(value: Any, name: str) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise refusal(value, name, "a list or tuple")
        return tuple(check(item, f"{name}[{at}]") for at, item in enumerate(value))

    return check_all


def mapping_of(key: Check, content: Check) -> Check:
    """Mappings, as a dict."""

    def check_all(value: Any, name: str) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise refusal(value, name, "a mapping")
        return {
            key(one, f"{name}: key"): content(item, f"{name}[{show(one)}]")
            for one, item in value.items()
        }

    return check_all


def check_fields(record: Any, checks: Mapping[str, Check]) -> None:
    """Check fields of an immutable record from its ``__post_init__``, and keep them in plain types.

    Raises
    ------
    InputError
        Names the class and the field.
    """
    from astra_bridge.records import Record, put  # what has records has imported it

    keep = put if isinstance(record, Record) else object.__setattr__
    kind = type(record).__name__
    for name, check in checks.items():
        given = getattr(record, name)
        value = check(given, f"{kind}.{name}")
        if value is not given:
            keep(record, name, value)
