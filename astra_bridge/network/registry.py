# SPDX-License-Identifier: MIT
"""Name -> backend.  The one place that knows which network simulators exist.

A backend is data, a :class:`~astra_bridge.network.spec.BackendSpec`.  Built-in ones are listed in
``_BUILT_IN``; a plug-in package names its own under the entry-point group
``astra_bridge.backends``; a path to a shared library is a backend too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_bridge import arguments
from astra_bridge.errors import AstraBridgeError, BackendUnavailable, InputError
from astra_bridge.network.spec import BackendSpec
from astra_bridge.text import one_line, show

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["backend", "names"]


# Module path of each built-in: it has ``BACKENDS``, a tuple of specs.  Imported on first use, so
# that importing astra_bridge stays quick.
_BUILT_IN = {
    "analytical-aware": "astra_bridge.network.analytical",
    "analytical-unaware": "astra_bridge.network.analytical",
    "analytical-aware-python": "astra_bridge.network.analytical",
    "analytical-unaware-python": "astra_bridge.network.analytical",
    "ns3": "astra_bridge.network.ns3",
    "garnet": "astra_bridge.network.garnet",
}


def _plugged_in() -> list[EntryPoint]:
    # Imported here: looking into installed packages is slow, and built-in backends need it not.
    from importlib.metadata import entry_points

    return list(entry_points(group="astra_bridge.backends"))


def names() -> list[str]:
    """Names of all known backends, built in and plugged in."""
    return [*_BUILT_IN, *(entry.name for entry in _plugged_in())]


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Whatever the code of a plug-in raises is the plug-in's fault, and says so."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except AstraBridgeError:
            raise
        except Exception as error:
            what = one_line(f"{type(error).__name__}: {error}")
            raise BackendUnavailable(f"plug-in backend {name!r}: {what}") from error

    return call


def backend(name: str) -> BackendSpec:
    """The backend of this name, or behind this path of a shared library.

    Raises
    ------
    InputError
        No backend has this name.
    BackendUnavailable
        Its module cannot be imported here.
    """
    arguments.text(name, "--backend")
    if name in _BUILT_IN:
        try:
            module = importlib.import_module(_BUILT_IN[name])
        except ModuleNotFoundError as error:
            raise BackendUnavailable(
                f"backend {name!r} is not part of this installation: {error}"
            ) from error
        specs: tuple[BackendSpec, ...] = module.BACKENDS
        return next(spec for spec in specs if spec.name == name)
    if "/" in name or name.endswith((".so", ".dylib", ".dll")):
        from astra_bridge.network.native import library_backend

        return library_backend(Path(name))
    for entry in _plugged_in():
        if entry.name == name:
            spec = _guarded(name, entry.load)()
            if not isinstance(spec, BackendSpec):
                raise BackendUnavailable(
                    f"plug-in backend {name!r}: {entry.value} is not a BackendSpec"
                )
            guarded = {
                part: _guarded(name, getattr(spec, part))
                for part in ("prepare", "unavailable", "note", "make_ready")
            }
            return replace(spec, **guarded)  # type: ignore[arg-type]
    known = ", ".join(names())
    raise InputError(
        f"unknown backend {show(name)}; known: {known}, or the path of a shared library",
        key="--backend",
    )
