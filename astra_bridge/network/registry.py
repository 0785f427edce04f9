# SPDX-License-Identifier: MIT
"""Name -> backend.  The one place that knows which network simulators exist.

A backend is data, a :class:`BackendSpec`.  Built-in ones are listed in ``_BUILT_IN``; a plug-in
package names its own under the entry-point group ``astra_bridge.backends``; a path to a shared
library is a backend too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_bridge import arguments
from astra_bridge.errors import AstraBridgeError, BackendUnavailable, InputError
from astra_bridge.network.api import Network, NetworkConfig
from astra_bridge.text import one_line, show

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["BackendSpec", "NetworkRequest", "Prepared", "backend", "names"]


@dataclass(frozen=True)
class NetworkRequest:
    """What the user said about the network; each backend reads what it understands.

    Attributes
    ----------
    network
        Path of the network configuration, or an already parsed object of ``astra_bridge.inputs``.
    logical_topology, physical_topology
        Optional further files (used by packet-level backends).
    options
        ``--network-option KEY=VALUE``: the backend's own options, after everything in files.
    semantics
        "astra-sim" or "corrected", for backends that have quirks to keep or to fix.
    """

    network: object
    logical_topology: Path | None = None
    physical_topology: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    semantics: str = "astra-sim"


@dataclass(frozen=True)
class Prepared:
    """A request that a backend has understood.

    Attributes
    ----------
    config
        What ``create`` takes.
    dims
        Logical dimensions (ranks per dimension, dimension 0 fastest) for hierarchical
        collectives; their product is the number of ranks.
    warnings
        Sentences for the user (keys that are accepted and ignored, ...).
    receives_at_once
        Whether a collective's receive whose data is there is complete inside its post
        (``Program.receives_at_once``): ASTRA-sim's programs differ in it.
    """

    config: NetworkConfig
    dims: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    receives_at_once: bool = False


@dataclass(frozen=True)
class BackendSpec:
    """One network simulator.

    Attributes
    ----------
    name, summary
        As on the command line; one sentence for people.
    prepare
        Reads the request; raises ``InputError``.
    open
        Makes a simulation.  A native one is a ``astra_bridge.network.native.NativeNetwork``, which
        the native engine drives without Python in between.
    unavailable
        None where it can run here, else why not and what to do about it.
    isolate
        The whole simulation runs in a supervised child process, where a crash or a hang becomes an
        error.  False only for simulators that are known to do neither.
    note
        What else ``doctor`` says of it where it is available.
    make_ready
        What must happen once on this machine before ``open``, such as compiling; says so where
        it takes long.
    """

    name: str
    summary: str
    prepare: Callable[[NetworkRequest], Prepared]
    open: Callable[[NetworkConfig], Network]
    unavailable: Callable[[], str | None] = lambda: None
    isolate: bool = True
    note: Callable[[], str] = lambda: ""
    make_ready: Callable[[], object] = lambda: None


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
