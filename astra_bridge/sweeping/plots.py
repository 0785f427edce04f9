# SPDX-License-Identifier: MIT
"""The plot of a sweep; it needs matplotlib (``pip install 'astra-bridge[plot]'``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astra_bridge.errors import MissingDependency
from astra_bridge.files import NewFiles
from astra_bridge.plotting import new_figure, save_figure
from astra_bridge.signals import deferred
from astra_bridge.text import one_line

__all__ = ["save_plot"]

_WIDE = 16
"""An axis whose values span more than this factor is logarithmic."""


@deferred()  # matplotlib's C++ code does not bear an exception out of nowhere
def save_plot(
    files: NewFiles,
    rows: Sequence[Mapping[str, Any]],
    varied: Sequence[str],
    objectives: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Draw the front of two objectives, or one objective by each path that is varied.

    Nothing is drawn where matplotlib is not installed, or nothing has run.
    """
    rows = [row for row in rows if not row["error"]]
    if not rows:
        return []
    first = next(iter(objectives), "finish_ns")
    pairs = [(first, objectives[1])] if len(objectives) > 1 else [(path, first) for path in varied]
    try:
        figure = new_figure(5.0 * len(pairs), 4.0)
    except MissingDependency:
        return []
    for at, (across, up) in enumerate(pairs):
        axes = figure.add_subplot(1, len(pairs), at + 1)
        for backend in dict.fromkeys(row["backend"] for row in rows):
            own = [row for row in rows if row["backend"] == backend]
            axes.plot(*_of(own, across, up), "o", ms=4, alpha=0.6, label=one_line(backend, 30))
            best = sorted((row for row in own if row["front"]), key=lambda row: row[first])
            style = "s-" if len(objectives) > 1 else "s"
            axes.plot(*_of(best, across, up), style, ms=6, mfc="none", color="black")
        axes.set_xlabel(one_line(across, 60))
        axes.set_ylabel(one_line(up, 60))
        for name, set_scale in ((across, axes.set_xscale), (up, axes.set_yscale)):
            values = [row[name] for row in rows]
            if all(_number(one) and one > 0 for one in values) and max(values) > _WIDE * min(
                values
            ):
                set_scale("log")
    axes.legend(fontsize="small")
    path = folder / ("front.svg" if len(objectives) > 1 else "objective.svg")
    save_figure(files, figure, path)
    return [path]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _of(rows: Sequence[Mapping[str, Any]], *names: str) -> list[list[Any]]:
    return [
        [row[name] if _number(row[name]) else one_line(str(row[name]), 20) for row in rows]
        for name in names
    ]
