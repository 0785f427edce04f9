# SPDX-License-Identifier: MIT
"""What a page is made of: sections, tables, and figures for Plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from astra_bridge.text import one_line
from astra_bridge.units import size_text, time_text

__all__ = [
    "Cell", "Figure", "Scale", "Section", "Sheet", "bandwidth", "count", "drawn", "palette",
    "share", "size", "speed", "text", "time",
]  # fmt: skip


class Cell(NamedTuple):
    """A cell: what people read, and the number that it stands for."""

    shown: str
    exact: float | int | None = None


class Sheet(NamedTuple):
    """A table: a caption, names of columns, and rows; the first column names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Figure(NamedTuple):
    """A figure: what it shows, in words, and what Plotly draws."""

    label: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    height_px: int = 320


class Section(NamedTuple):
    """A part of the page under a heading."""

    anchor: str
    title: str
    text: Sequence[str]
    figures: Sequence[Figure]
    sheets: Sequence[Sheet]


_LONGEST = 120
"""Characters of a name of somebody's."""


def text(value: object) -> Cell:
    """Words, which may be a name of somebody's: in one line, in its own direction, not endless."""
    return Cell(one_line(str(value), _LONGEST))


def drawn(name: object) -> str:
    """A name in a figure, where Plotly would take some of HTML as such."""
    return one_line(str(name), _LONGEST // 2).replace("&", "&amp;").replace("<", "&lt;")


class Scale(NamedTuple):
    """The unit of an axis of time."""

    unit: str
    unit_ps: float

    @classmethod
    def up_to(cls, time_ps: float) -> Scale:
        """The largest unit of which there is at least one.

        Examples
        --------
        >>> Scale.up_to(2_500_000)
        Scale(unit='us', unit_ps=1000000.0)
        """
        units = [cls("s", 1e12), cls("ms", 1e9), cls("us", 1e6), cls("ns", 1e3)]
        return next((one for one in units if time_ps >= one.unit_ps), units[-1])

    def axis(self, what: str = "time") -> dict[str, Any]:
        """The title of the axis."""
        return {"title": {"text": f"{what} [{self.unit}]"}}


def time(time_ps: float) -> Cell:
    """A time [ps]."""
    return Cell(time_text(time_ps), time_ps)


def size(size_bytes: float) -> Cell:
    """A size in bytes."""
    return Cell(size_text(size_bytes), size_bytes)


def count(number: float) -> Cell:
    """A number of something."""
    return Cell(f"{number:,}", number)


def share(part: float, digits: int = 1) -> Cell:
    """A share of a whole."""
    return Cell(f"{part:.{digits}%}", part)


def speed(per_s: float) -> Cell:
    """How many of something in a second."""
    return Cell(f"{per_s:,.4g}" if per_s < 1000 else f"{per_s:,.0f}", per_s)


def bandwidth(rate_GBps: float) -> Cell:
    """A bandwidth [10**9 bytes per second]."""
    return Cell(f"{rate_GBps:,.4g} GB/s", rate_GBps)


_COLORS = {
    "compute": "#2f7d4f",
    "memory": "#7a5cc2",
    "exposed collective": "#c4481d",
    "exposed message": "#d98a1f",
    "host": "#4b7fb5",
    "waiting for a straggler": "#a83279",
    "waiting for a sender": "#8a6d3b",
    "send": "#b59a2c",
    "idle": "#8c8c8c",
    "not started": "#bdbdbd",
}


def palette(activity: str) -> str:
    """The colour of an activity, the same in all figures."""
    return _COLORS.get(activity, "#555555")
