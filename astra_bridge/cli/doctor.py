# SPDX-License-Identifier: MIT
"""``astra-bridge doctor``: what works on this machine, and why the rest does not."""

from __future__ import annotations

import platform
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from importlib import import_module, metadata
from typing import Any

from astra_bridge import __version__
from astra_bridge.cli.command import Command
from astra_bridge.cli.terminal import columns
from astra_bridge.engine import native
from astra_bridge.errors import AstraBridgeError
from astra_bridge.registries import REGISTRIES
from astra_bridge.registry import Registry
from astra_bridge.text import one_line

__all__ = ["COMMAND"]

_EXTRAS = {
    "pyarrow": "Parquet files with --output: pip install 'astra-bridge[data]'",
    "matplotlib": "plots with --output: pip install 'astra-bridge[plot]'",
    "scipy": "astra-bridge calibrate: pip install 'astra-bridge[calibrate]'",
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


def _doctor() -> None:
    print(
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
        _print(title, list(rows))


def _print(title: str, rows: list[Row]) -> None:
    """A table whose last column goes on below itself."""
    width = max(len(name) for name, _, _ in [("name", None, ""), *rows])
    print(f"\n{title}\n{'name':<{width}}  available  notes")
    for name, why, what in rows:
        row = f"{name:<{width}}  {'yes' if why is None else 'no':<9}  {one_line(why or what)}"
        indent = " " * (width + 13)
        print(textwrap.fill(row, columns(sys.stdout), subsequent_indent=indent,
                            break_on_hyphens=False).rstrip())  # fmt: skip


COMMAND = Command(
    "Say what can be chosen by name here, and why the rest cannot.",
    {"options": ()},
    _doctor,
    "doctor",
)
