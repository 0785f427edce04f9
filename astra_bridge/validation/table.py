# SPDX-License-Identifier: MIT
"""Rows of measurements with their predictions, and what is said of a class of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import read_text
from astra_bridge.text import show

__all__ = ["SHIPPED", "Row", "Summary", "geomean", "identity", "read_rows", "summarize"]

SHIPPED = Path(__file__).with_name("data")
"""Measurements that the package has."""


class Row(NamedTuple):
    """A measurement and what is predicted.

    Attributes
    ----------
    set, kind
        Such as "gpu" and "h100_gemm_bf16".
    what
        Columns of the file that are no measurement, as written.
    measured_us, predicted_us, baseline_us
        The baseline is the naive model.
    fitted
        Whether the parameters were fitted to it.
    also
        Further classes of it, which gather several kinds.
    """

    set: str
    kind: str
    what: dict[str, str]
    measured_us: float
    predicted_us: float
    baseline_us: float
    fitted: bool
    also: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes that it counts in."""
        return (self.kind, *self.also)

    @property
    def error(self) -> float:
        """Predicted over measured, minus 1."""
        return self.predicted_us / self.measured_us - 1


class Summary(NamedTuple):
    """What is said of a class.

    Attributes
    ----------
    error_geomean, baseline_geomean
        ``exp(mean |ln(predicted / measured)|) - 1``, of the product and of the baseline.
    error_worst
        ``exp(max |ln(predicted / measured)|) - 1``.
    fitted
        Rows that parameters were fitted to.
    """

    set: str
    kind: str
    rows: int
    fitted: int
    error_geomean: float
    error_worst: float
    baseline_geomean: float


def geomean(ratios: Iterable[float]) -> float:
    """The mean error of predicted over measured: ``exp(mean |ln ratio|) - 1``.

    Examples
    --------
    >>> round(geomean([1.1, 1 / 1.1]), 6)
    0.1
    """
    logs = [abs(math.log(one)) for one in ratios]
    return math.exp(sum(logs) / len(logs)) - 1


def summarize(rows: list[Row], kind: str) -> Summary:
    """The summary of rows of one set, of which there must be some."""
    ratios = [row.predicted_us / row.measured_us for row in rows]
    return Summary(
        rows[0].set,
        kind,
        len(rows),
        sum(row.fitted for row in rows),
        geomean(ratios),
        math.exp(max(abs(math.log(one)) for one in ratios)) - 1,
        geomean(row.baseline_us / row.measured_us for row in rows),
    )


def read_rows(file: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV file that has these columns.

    Raises
    ------
    InputError
        The file cannot be read, or lacks a column or a value.
    """
    text = read_text(file)
    columns = list(columns)
    if not text.strip():
        raise InputError(
            f"is empty; allowed: a first line of column names: {', '.join(columns)}", file=file
        )
    rows = list(csv.DictReader(text.splitlines()))
    for at, row in enumerate(rows, 2):
        for column in columns:
            if row.get(column) is None:
                raise InputError("missing", file=file, key=f"line {at}: {column}")
    return rows


def value(row: dict[str, str], column: str, file: Path) -> float:
    """A number above 0 of a row."""
    try:
        found = float(row[column])
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise InputError(
            f"{show(row[column])} is not allowed; allowed: a number above 0", file=file, key=column
        )
    return found


def identity(row: dict[str, Any], measured: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """What a row is about, without what was measured."""
    return tuple(sorted((key, str(item)) for key, item in row.items() if key not in measured))
