# SPDX-License-Identifier: MIT
"""Values of a file, read so that every error names file and key.

What is allowed is a check of :mod:`astra_bridge.arguments`, the same as for arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astra_bridge import arguments
from astra_bridge.arguments import Check
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import check_keys
from astra_bridge.text import nearest, show

__all__ = ["Reader", "in_file"]


def in_file(check: Check, value: object, *, file: Path | None, key: str) -> Any:
    """The value as a check gives it, or an error that names file and key.

    Examples
    --------
    >>> in_file(arguments.integer(1, 8), 9, file=Path("a.yml"), key="ranks")
    Traceback (most recent call last):
        ...
    astra_bridge.errors.InputError: a.yml: ranks: 9 is not allowed; allowed: whole numbers \
from 1 to 8
    """
    try:
        return check(value, key)
    except InputError as error:
        raise InputError(error.reason, file=file, key=error.key) from None


class Reader:
    """The values of one mapping in a file.

    Parameters
    ----------
    raw
        What should be a mapping.
    file
        Where it stands; None for content that was passed in memory.
    where
        Path of the mapping in the file, "" at its top.

    Raises
    ------
    InputError
        It is no mapping.  So do all methods, where a value is not what they say.
    """

    def __init__(self, raw: object, file: Path | None, where: str = "") -> None:
        self.file, self.where = file, where
        if not isinstance(raw, Mapping):
            raise InputError(
                f"expected keys and values, found {show(raw)}", file=file, key=where or None
            )
        self.raw: Mapping[str, Any] = raw

    def key(self, name: str) -> str:
        """Path of a key of this mapping."""
        return f"{self.where}.{name}" if self.where else name

    def fail(self, name: str, message: str) -> InputError:
        """The error for a key of this mapping."""
        return InputError(message, file=self.file, key=self.key(name))

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        """A whole number; None has no default."""
        if name not in self.raw:
            if default is None:
                raise self.fail(name, f"missing; a whole number from {low} to {high}")
            return default
        check = arguments.integer(low, high)
        return int(in_file(check, self.raw[name], file=self.file, key=self.key(name)))

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number."""
        value, check = self.raw.get(name, default), arguments.number(low, high)
        return float(in_file(check, value, file=self.file, key=self.key(name)))

    def text(self, name: str, default: str, allowed: tuple[str, ...] = ()) -> str:
        """A text, one of those that are allowed if there are any."""
        value = self.raw.get(name, default)
        if isinstance(value, str) and (not allowed or value in allowed):
            return value
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        said = ", ".join(allowed) if allowed else "a text"
        raise self.fail(name, f"{show(value)} is not allowed; allowed: {said}{hint}")

    def flag(self, name: str) -> bool:
        """True or false; false where the key is missing."""
        value = self.raw.get(name, False)
        if not isinstance(value, bool):
            raise self.fail(name, f"{show(value)} is not allowed; allowed: true, false")
        return value

    def entries(self, name: str) -> list[Reader]:
        """A list of mappings; empty where the key is missing."""
        value = self.raw.get(name, [])
        if not isinstance(value, list):
            raise self.fail(name, f"expected a list, found {show(value)}")
        return [
            Reader(entry, self.file, self.key(f"{name}[{index}]"))
            for index, entry in enumerate(value)
        ]

    def by_id(self, name: str) -> list[Reader]:
        """Entries with ids 0 .. n-1, or in order where none has an id; sorted by id."""
        entries = self.entries(name)
        if not any("id" in entry.raw for entry in entries):
            return entries
        by_id: dict[int, Reader] = {}
        for entry in entries:
            own = entry.integer("id", None, 0, len(entries) - 1)
            if own in by_id:
                raise entry.fail("id", f"{own} stands there twice")
            by_id[own] = entry
        return [by_id[own] for own in range(len(entries))]

    def keys(self, known: tuple[str, ...]) -> None:
        """Refuse keys that are not known."""
        check_keys(self.raw, known, file=self.file, where=self.where)
