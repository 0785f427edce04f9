# SPDX-License-Identifier: MIT
"""The network backends by name; the path of a shared library is a backend too."""

from __future__ import annotations

from pathlib import Path

from astra_bridge import arguments
from astra_bridge.network.spec import BackendSpec
from astra_bridge.registry import Registry

__all__ = ["BACKENDS", "backend"]

BACKENDS = Registry(
    "backend",
    "astra_bridge.backends",
    BackendSpec,
    {
        "analytical-aware": "astra_bridge.network.analytical:BACKENDS",
        "analytical-unaware": "astra_bridge.network.analytical:BACKENDS",
        "analytical-aware-python": "astra_bridge.network.analytical:BACKENDS",
        "analytical-unaware-python": "astra_bridge.network.analytical:BACKENDS",
        "ns3": "astra_bridge.network.ns3:BACKENDS",
        "garnet": "astra_bridge.network.garnet:BACKENDS",
    },
)


def backend(name: str) -> BackendSpec:
    """The backend of this name, or behind this path of a shared library.

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
    if "/" in name or name.endswith((".so", ".dylib", ".dll")):
        from astra_bridge.network.native import library_backend

        return library_backend(Path(name))
    raise BACKENDS.refusal(name, key="--backend", more=", or the path of a shared library")
