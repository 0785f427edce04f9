# SPDX-License-Identifier: MIT
"""Statistics of a backend, believed only as far as they were checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import ContractError
from astra_bridge.network.api import Status
from astra_bridge.text import show

__all__ = ["MOST_BYTES", "Statistics", "checked"]

MOST_BYTES = 1 << 30
"""Longest text of statistics that is taken."""

_MOST_DEPTH = 32
_MOST_CHARACTERS = 1000
_WHOLE_COLUMNS = {
    "links": ("src", "dst", "bytes", "busy_ps"),
    "link_load": ("link", "time_ps", "bytes", "busy_ps"),
}
"""Table that this package reads -> columns of whole numbers that it has at least."""

Statistics = tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]]]
"""Everything but the tables, as plain JSON; and the tables: columns of equal length by name."""


def checked(backend: str, stats: object) -> Statistics:
    """Check what a backend reported; a table that this package reads has the columns that it needs.

    Raises
    ------
    ContractError
        It is not what docs/contract.md says; names where and what.

    Examples
    --------
    >>> values, tables = checked("mine", {"lost": 0, "tables": {"flows": {"bytes": [1, 2]}}})
    >>> values, tables["flows"]["bytes"].tolist()
    ({'lost': 0}, [1, 2])
    """

    try:
        return _checked(stats)
    except _Wrong as wrong:
        raise ContractError(
            f"{backend}: stats: the backend broke the contract: {wrong}",
            backend=backend,
            call="stats",
            status=int(Status.INTERNAL),
        ) from None


class _Wrong(Exception):
    """Where, and what is wrong."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} {what}")


def _checked(stats: object) -> Statistics:
    if not isinstance(stats, Mapping):
        raise _Wrong("the statistics", f"are {show(stats)}, not an object")
    tables = stats.get("tables", {})
    if not isinstance(tables, Mapping):
        raise _Wrong("tables", f"is {show(tables)}, not an object of tables")
    values = {key: value for key, value in stats.items() if key != "tables"}
    plain = _plain(values, "the statistics")
    made = {
        _key(name, "tables"): _table(columns, f"table {show(name)}")
        for name, columns in tables.items()
    }
    for name, columns in _WHOLE_COLUMNS.items():
        if name in made:
            _check_whole(name, columns, made[name])
    if "link_load" in made:
        interval_ps = plain.get("sample_interval_ps")
        if type(interval_ps) is not int or interval_ps < 1:
            raise _Wrong("table 'link_load'", "needs the whole number sample_interval_ps beside it")
    return plain, made


def _table(columns: Any, where: str) -> dict[str, NDArray[Any]]:
    if not isinstance(columns, Mapping):
        raise _Wrong(where, f"is {show(columns)}, not an object of columns")
    made = {
        _key(name, where): _column(cells, f"{where}, column {show(name)}")
        for name, cells in columns.items()
    }
    lengths = {len(cells) for cells in made.values()}
    if len(lengths) > 1:
        raise _Wrong(where, f"has columns of different lengths: {sorted(lengths)}")
    return made


def _check_whole(table: str, names: tuple[str, ...], columns: dict[str, NDArray[Any]]) -> None:
    for name in names:
        cells = columns.get(name)
        if cells is None:
            raise _Wrong(f"table {table!r}", f"lacks the column {name!r}")
        if len(cells) and cells.dtype != np.int64:
            raise _Wrong(f"table {table!r}, column {name!r}", "does not hold whole numbers")
        columns[name] = cells.astype(np.int64)


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A value that JSON can hold, of bounded depth, and that UTF-8 and int64 can."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _Wrong(where, f"holds {show(value)}, which is outside int64")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Wrong(where, f"holds {value}, which is no number")
        return value
    if isinstance(value, str):
        if not _is_text(value):
            raise _Wrong(where, f"holds {show(value)}, which is no Unicode text")
        return value
    if depth == _MOST_DEPTH:
        raise _Wrong(where, f"is nested deeper than {_MOST_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(part, where, depth + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(part, where, depth + 1) for part in value]
    raise _Wrong(where, f"holds {show(value)}, which has no place in JSON")


def _key(key: object, where: str) -> str:
    if not isinstance(key, str) or not _is_text(key):
        raise _Wrong(where, f"has the key {show(key)}, which is no Unicode text")
    return str(key)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _column(cells: Any, where: str) -> NDArray[Any]:
    """Whole numbers (int64), finite numbers (float64), booleans or texts."""
    if not isinstance(cells, (list, tuple, np.ndarray)):
        raise _Wrong(where, f"is {show(cells)}, not a list")
    if isinstance(cells, np.ndarray):
        if cells.ndim != 1:
            raise _Wrong(where, f"has {cells.ndim} dimensions")
        cells = cells.tolist()
    kinds = set(map(type, cells))
    if kinds <= {bool}:
        return np.array(cells, bool if cells else float)
    if kinds == {str}:
        for cell in cells:
            _plain(cell, where)
            if len(cell) > _MOST_CHARACTERS:
                raise _Wrong(where, f"holds a text of {len(cell)} characters, {show(cell)}")
        return np.array(cells)
    if kinds == {int}:
        try:
            return np.array(cells, np.int64)
        except OverflowError:
            raise _Wrong(where, "holds whole numbers outside int64") from None
    if kinds <= {int, float}:
        try:
            column = np.array(cells, float)
        except OverflowError:
            raise _Wrong(where, "holds a number that is too large") from None
        if not np.isfinite(column).all():
            raise _Wrong(where, "holds something that is no finite number")
        return column
    names = sorted(kind.__name__ for kind in kinds)
    raise _Wrong(where, f"mixes or nests what it holds ({', '.join(names)})")
