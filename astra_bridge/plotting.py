# SPDX-License-Identifier: MIT
"""Drawing with matplotlib: without touching its global state, and the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.files import NewFiles
from astra_bridge.text import one_line

__all__ = ["new_figure", "save_figure"]

_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Kind of file -> metadata without the time at which it was written."""


def new_figure(width_in: float, height_in: float) -> Any:
    """Make an empty figure of a size in inches.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(
            f"plots need matplotlib ({one_line(str(error))}): pip install 'astra-bridge[plot]'"
        ) from None
    return Figure(figsize=(width_in, height_in), layout="constrained")


def save_figure(files: NewFiles, figure: Any, path: Path) -> None:
    """Write a figure; the ending of the name says as what (.svg, .png, .pdf, ...).

    Raises
    ------
    InputError
        The file cannot be written, or matplotlib does not know the ending.
    """
    import matplotlib as mpl

    kind = path.suffix.lower().removeprefix(".") or "png"
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise InputError(
            f"cannot draw a {one_line(kind, 20)!r}; allowed: {', '.join(sorted(known))}", file=path
        )
    with mpl.rc_context({"svg.hashsalt": "astra-bridge"}), files.open(path) as out:
        figure.savefig(out, format=kind, dpi=150, metadata=_UNDATED.get(kind))
