# SPDX-License-Identifier: MIT
"""Immutable records: dataclasses to whoever looks at them, but quick to import.

The methods of a dataclass are written as text and compiled while its module is imported: 0.5 ms for
each class, of which a run needs fifty.  A ``msgspec.Struct`` takes a tenth of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec
from msgspec import field
from msgspec.structs import _Factory  # type: ignore[attr-defined]
from msgspec.structs import force_setattr as put

if TYPE_CHECKING:
    import dataclasses

__all__ = ["REQUIRED", "Record", "Sourced", "defaults", "field", "put", "replace", "values"]

REQUIRED: Any = msgspec.NODEFAULT
"""In the place of the default of a field that has none, or makes one each time."""


class _Fields:
    """Those of a dataclass, for whoever asks: ``dataclasses.replace``, ``fields``, ..."""

    def __get__(self, _record: object, kind: type[Record]) -> dict[str, Any]:
        import dataclasses

        types: dict[str, object] = {}
        for base in reversed(kind.__mro__):
            types |= vars(base).get("__annotations__", {})
        found: dict[str, Any] = {}
        for name, default in _defaults(kind).items():
            given: dict[str, Any] = {}
            if isinstance(default, _Factory):
                given = {"default_factory": default.factory}
            elif default is not REQUIRED:
                given = {"default": default}
            made: Any = dataclasses.field(
                **given,
                kw_only=name not in kind.__match_args__,
                compare=name not in kind.beside,
            )
            made.name, made.type = name, types[name]
            made._field_type = dataclasses._FIELD  # type: ignore[attr-defined]
            found[name] = made
        return found


class Record(msgspec.Struct, frozen=True):
    """An immutable record.

    When two are equal (not if ``eq=False``), what they say of themselves, that they can be hashed
    where their fields can, and what `dataclasses` does with them, is as with
    ``dataclass(frozen=True)``.

    Examples
    --------
    >>> import dataclasses
    >>> class Point(Record, frozen=True):
    ...     x: int
    ...     y: int = 0
    >>> dataclasses.replace(Point(1), y=2), [one.name for one in dataclasses.fields(Point)]
    (Point(x=1, y=2), ['x', 'y'])
    """

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    else:
        __dataclass_fields__ = _Fields()

    beside: ClassVar[tuple[str, ...]] = ()


class Sourced(Record, frozen=True, eq=False):
    """A record that also keeps where its content is from, which makes no difference between two.

    Examples
    --------
    >>> class Text(Sourced, frozen=True, eq=False):
    ...     words: str
    ...     source: str = ""
    >>> Text("a", "a.txt") == Text("a", "b.txt"), Text("a") == Text("b")
    (True, False)
    """

    beside: ClassVar[tuple[str, ...]] = ("source", "warnings")

    def _content(self) -> tuple[Any, ...]:
        return tuple(getattr(self, one) for one in self.__struct_fields__ if one not in self.beside)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sourced) or type(other) is not type(self):
            return NotImplemented
        return self._content() == other._content()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._content())


R = TypeVar("R", bound=Record)


def replace(record: R, **changes: Any) -> R:
    """The record with other values, checked as when it was made."""
    return type(record)(**values(record) | changes)


def values(record: Record) -> dict[str, Any]:
    """What is in its fields, by name."""
    return {name: getattr(record, name) for name in record.__struct_fields__}


def defaults(kind: type[Record]) -> Mapping[str, Any]:
    """The fields of a record by name, with their defaults, or `REQUIRED`."""
    return {
        name: REQUIRED if isinstance(default, _Factory) else default
        for name, default in _defaults(kind).items()
    }


def _defaults(kind: type[Record]) -> dict[str, Any]:
    """As msgspec keeps them; its own `fields` has to find all types by their names."""
    names, last = kind.__struct_fields__, kind.__struct_defaults__
    return dict(zip(names, (*[REQUIRED] * (len(names) - len(last)), *last), strict=True))
