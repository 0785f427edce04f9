# SPDX-License-Identifier: MIT
"""A run as ``--output`` wrote it: numbers of the whole, and tables."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.results import Table
from astra_bridge.results.table import unit_of
from astra_bridge.text import one_line

__all__ = ["Run", "read_run"]

_NEEDED = ("backend", "engine", "semantics", "finish_ps", "exposed_comm_ns", "statistics")


class Run:
    """What is known of a run.

    Parameters
    ----------
    name : str
        What to call it.
    content : mapping
        As ``result.json``.
    folder : Path
        Where its tables are.
    """

    def __init__(self, name: str, content: Mapping[str, Any], folder: Path) -> None:
        self.name, self.content, self._folder = name, content, folder
        self._tables: dict[str, Table | None] = {}
        self.finish_ps: NDArray[np.int64] = np.array(content["finish_ps"], np.int64)

    @property
    def end_ps(self) -> int:
        """When the last rank finished."""
        return int(self.finish_ps.max(initial=0))

    def table(self, name: str) -> Table | None:
        """A table of the run; None where there is none."""
        if name not in self._tables:
            file = self._folder / f"{name}.csv"
            self._tables[name] = _read_table(name, file) if file.is_file() else None
        return self._tables[name]


def read_run(folder: Path) -> Run:
    """Read the folder that ``astra-bridge run --output`` wrote.

    Raises
    ------
    InputError
        It is no such folder.
    """
    file = folder / "result.json"
    if not file.is_file():
        raise InputError(
            "is no folder that `astra-bridge run --output` wrote: it has no result.json",
            file=folder,
        )
    try:
        content = msgspec.json.decode(file.read_bytes())
    except msgspec.DecodeError as error:
        raise InputError(f"is no JSON: {error}", file=file) from None
    missing = [key for key in _NEEDED if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(f"is missing: {', '.join(missing)}", file=file)
    return Run(one_line(folder.name, 60), content, folder)


def _read_table(name: str, file: Path) -> Table:
    with file.open(encoding="utf-8", newline="") as lines:
        try:
            header, *rows = csv.reader(lines)
            columns = list(zip(*rows, strict=True)) or [()] * len(header)
            return Table(
                name, {one: _column(one, cells) for one, cells in zip(header, columns, strict=True)}
            )
        except (ValueError, csv.Error) as error:
            raise InputError(f"is no table: {error}", file=file) from None


def _column(name: str, cells: tuple[str, ...]) -> NDArray[Any]:
    """Whole numbers, else numbers, else text; an empty one of a column with a unit is NaN."""
    words = np.array(cells, np.str_)
    if unit_of(name):
        words = np.where(words == "", "nan", words)
    with contextlib.suppress(ValueError, OverflowError):
        return words.astype(np.int64)
    with contextlib.suppress(ValueError):
        return words.astype(np.float64)
    return words
