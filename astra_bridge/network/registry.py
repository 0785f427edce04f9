# SPDX-License-Identifier: MIT
"""The network backends by name; a path of a shared library and an address are backends, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from astra_bridge import arguments
from astra_bridge.errors import InputError
from astra_bridge.network.api import Network, NetworkConfig
from astra_bridge.network.spec import BackendSpec
from astra_bridge.registry import Registry

__all__ = ["BACKENDS", "backend", "backend_spec"]

BACKENDS = Registry(
    "backend",
    "astra_bridge.backends",
    BackendSpec,
    {
        "analytical-aware": "astra_bridge.network.analytical:BACKENDS",
        "analytical-unaware": "astra_bridge.network.analytical:BACKENDS",
        "analytical-aware-python": "astra_bridge.network.analytical:BACKENDS",
        "analytical-unaware-python": "astra_bridge.network.analytical:BACKENDS",
        "flow": "astra_bridge.network.flow:BACKENDS",
        "composite": "astra_bridge.network.composite:BACKENDS",
        "ns3": "astra_bridge.network.ns3:BACKENDS",
        "garnet": "astra_bridge.network.garnet:BACKENDS",
        "htsim": "astra_bridge.network.htsim:BACKENDS",
        "gem5": "astra_bridge.network.gem5:BACKENDS",
    },
)


def backend(name: str) -> BackendSpec:
    """The backend of this name, behind this path of a shared library, or at this address.

    Raises
    ------
    InputError
        No backend has this name.
    MissingDependency, PluginError
        As :meth:`astra_bridge.registry.Registry.get`.
    """
    arguments.text(name, "--backend")
    found = BACKENDS.get(name)
    if found is not None:
        return found
    if "://" in name:
        from astra_bridge.network.remote import remote_backend

        return remote_backend(name, BACKENDS.get)
    if "/" in name or name.endswith((".so", ".dylib", ".dll")):
        from astra_bridge.network.native import library_backend

        return library_backend(Path(name))
    raise BACKENDS.refusal(
        name, key="--backend", more=", the path of a shared library, or the address of a server"
    )


def backend_spec(given: Any) -> BackendSpec:
    """The backend that somebody names, or brings along.

    Parameters
    ----------
    given : str or BackendSpec or class
        A class has the methods of `Network`, and is made of a `NetworkConfig`.

    Raises
    ------
    InputError
        It is none of these.
    """
    if isinstance(given, str):
        return backend(given)
    if isinstance(given, BackendSpec):
        return given
    if is_network_class(given):
        return _brought(given)
    raise InputError(
        f"{type(given).__name__} is no backend; allowed: a name, a path, an address, a "
        "BackendSpec, or a class that makes a Network of a NetworkConfig",
        key="backend",
    )


def is_network_class(given: Any) -> bool:
    """Whether this is a class with the methods of `Network`."""
    calls = ("advance", "close", "poll", "submit")
    return isinstance(given, type) and all(hasattr(given, call) for call in calls)


def _brought(make: Callable[[NetworkConfig], Network]) -> BackendSpec:
    """A class as a backend: it gets the network as links."""
    from astra_bridge.network.native import prepare_links

    name = getattr(make, "__qualname__", type(make).__name__)
    return BackendSpec(
        name=name,
        summary=f"{getattr(make, '__module__', '')}.{name}",
        prepare=prepare_links,
        open=make,
        isolate=False,
        version=lambda: str(getattr(make, "__version__", "")),
    )
