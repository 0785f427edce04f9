# SPDX-License-Identifier: MIT
"""Plots of a comparison; they need matplotlib (``pip install 'astra-bridge[plot]'``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.files import NewFiles
from astra_bridge.plotting import new_figure, save_figure
from astra_bridge.signals import deferred
from astra_bridge.text import one_line
from astra_bridge.units import parse_size_bytes

__all__ = ["Row", "save_plots"]

Row = dict[str, Any]
"""A row of a table of a comparison, by its columns."""

_MARKERS = "osD^vP*X"
_WIDE = 16
"""An axis whose values span more than this factor is logarithmic."""
_MOST_LABELS = 8


def size_of(value: Any) -> float | None:
    """A value of what is varied as a number: itself, or the bytes of "64KiB"; None: neither."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    try:
        return float(parse_size_bytes(value)) if isinstance(value, str) else None
    except InputError:
        return None


def _value(path: str, row: Row) -> float | None:
    """The number that a row has at a path."""
    return size_of(row[path])


@deferred()  # matplotlib's C++ code does not bear an exception out of nowhere
def save_plots(
    files: NewFiles, rows: Sequence[Row], varied: Sequence[str], reference: str | None, folder: Path
) -> list[Path]:
    """Draw error against cost and against what is varied, and bus bandwidth against size.

    Nothing is drawn where matplotlib is not installed.

    Parameters
    ----------
    rows
        Of the runs.
    varied
        The paths of what is varied.
    reference
        The backend that errors are relative to.
    """
    try:
        new_figure(1, 1)
    except MissingDependency:
        return []
    written = []
    ran = [row for row in rows if row["finish_ns"] is not None]
    judged = [row for row in ran if row["error"] is not None]
    if judged:
        written.append(folder / "frontier.svg")
        _frontier(files, judged, reference, written[-1])
    for path in varied:
        name = re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_")
        place = partial(_value, path)
        if judged and _spread(judged, place):
            written.append(folder / f"error_{name}.svg")
            _lines(
                files, judged, place, lambda row: 100 * row["error"], written[-1],
                label=partial(_label, path), xlabel=one_line(path),
                ylabel=f"error against {_name(reference)} [%]",
            )  # fmt: skip
    rated = [row for row in ran if row["busbw_GBps"] is not None]
    if _spread(rated, lambda row: row["size_bytes"]):
        written.append(folder / "bus_bandwidth.svg")
        _lines(
            files, rated, lambda row: row["size_bytes"], lambda row: row["busbw_GBps"], written[-1],
            label=lambda row: _binary(row["size_bytes"]), xlabel="size",
            ylabel="bus bandwidth [GB/s]",
        )  # fmt: skip
    return written


def _label(path: str, row: Row) -> str:
    return one_line(str(row[path]), 20)


def _binary(size_bytes: int) -> str:
    """A size in the largest unit that fits."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    at = min(max(size_bytes.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{size_bytes / 2 ** (10 * at):.3g} {units[at]}"


def _name(backend: str | None) -> str:
    return one_line(Path(backend or "").name, 40)


def _spread(rows: Sequence[Row], value: Callable[[Row], float | None]) -> bool:
    """Whether all rows have a value, and not all the same."""
    values = {value(row) for row in rows}
    return None not in values and len(values) > 1


def _by_backend(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["backend"], []).append(row)
    return found


def _lines(
    files: NewFiles,
    rows: Sequence[Row],
    x: Callable[[Row], Any],
    y: Callable[[Row], Any],
    path: Path,
    *,
    label: Callable[[Row], str],
    xlabel: str,
    ylabel: str,
) -> None:
    """A point for each run, and a line through the means of each backend."""
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    for at, (backend, some) in enumerate(_by_backend(rows).items()):
        values: dict[float, list[float]] = {}
        for row in some:
            values.setdefault(x(row), []).append(y(row))
        places = sorted(values)
        means = [sum(values[place]) / len(values[place]) for place in places]
        (line,) = axes.plot(
            places, means, marker=_MARKERS[at % len(_MARKERS)], label=_name(backend)
        )
        if len(places) < len(some):
            axes.scatter([x(r) for r in some], [y(r) for r in some], s=8, color=line.get_color())
    low, high = min(map(x, rows)), max(map(x, rows))
    if low > 0 and high / low >= _WIDE:
        axes.set_xscale("log")
    labels = {x(row): label(row) for row in rows}
    if len(labels) <= _MOST_LABELS:
        axes.set_xticks(list(labels), list(labels.values()))
        axes.set_xticks([], minor=True)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend()
    save_figure(files, figure, path)


def _frontier(files: NewFiles, rows: Sequence[Row], reference: str | None, path: Path) -> None:
    """What each run cost and how far off it was; per backend also the means."""
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    for at, (backend, some) in enumerate(_by_backend(rows).items()):
        cost = [max(row["cpu_s"], 1e-6) for row in some]
        error = [100 * abs(row["error"]) for row in some]
        marker = _MARKERS[at % len(_MARKERS)]
        dots = axes.scatter(cost, error, s=12, marker=marker, alpha=0.4 if len(some) > 1 else 1)
        axes.scatter(
            [sum(cost) / len(cost)], [sum(error) / len(error)], s=60, marker=marker,
            color=dots.get_facecolor()[0][:3], label=_name(backend),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set(
        xlabel="CPU time of a run [s]",
        ylabel=f"distance from {_name(reference)} [%]",
    )
    axes.legend()
    save_figure(files, figure, path)
