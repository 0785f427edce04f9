# SPDX-License-Identifier: MIT
"""``astra-bridge doctor``: what works on this machine, and why the rest does not."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import partial
from importlib import import_module, metadata
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from astra_bridge import __version__
from astra_bridge.engine import native
from astra_bridge.errors import AstraBridgeError
from astra_bridge.registries import REGISTRIES
from astra_bridge.registry import Registry
from astra_bridge.text import one_line

__all__ = ["app"]

app = typer.Typer()

_EXTRAS = {
    "pyarrow": "Parquet files with --output: pip install 'astra-bridge[data]'",
    "matplotlib": "plots with --output: pip install 'astra-bridge[plot]'",
    "scalesim": "compute model scalesim: pip install 'astra-bridge[scalesim]'",
}


Row = tuple[str, str | None, str]
"""Name, why it is unavailable or None, what it is."""


def _engines() -> Iterator[Row]:
    yield "python", None, "the readable reference; needs no compiler"
    yield "native", native.unavailable(), "C++, no Python per message"


def _registered(registry: Registry[Any], name: str) -> Row:
    try:
        spec = registry.find(name, key=registry.kind)
        why = spec.unavailable()
        more = "" if why else spec.note()
        return name, why, f"{spec.summary.rstrip('.')}; {more}" if more else spec.summary
    except AstraBridgeError as error:
        return name, str(error), ""


def _extra(name: str) -> Row:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, f"not installed; {_EXTRAS[name]}", ""
    try:
        import_module(name)
    except Exception as error:  # whatever a package does when its own parts do not fit
        return name, f"version {version} cannot be imported: {one_line(str(error))}", ""
    return name, None, version


@app.command()
def doctor() -> None:
    """Say what can be chosen by name here, and why the rest cannot."""
    console = Console()
    console.print(
        f"astra-bridge {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}"
    )
    for title, rows in (
        ("Engines", _engines()),
        *(
            (title, map(partial(_registered, registry), registry.names()))
            for title, registry in REGISTRIES.items()
        ),
        ("Optional packages", map(_extra, _EXTRAS)),
    ):
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("name", "available", "notes"):
            table.add_column(column, overflow="fold")
        for name, why, what in rows:
            table.add_row(
                escape(name), "yes" if why is None else "no", escape(one_line(why or what))
            )
        console.print(table)
