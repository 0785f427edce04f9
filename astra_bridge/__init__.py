# SPDX-License-Identifier: MIT
"""Simulate distributed machine-learning training over any network simulator.

``astra_bridge.simulate(...)`` runs a simulation; ``astra-bridge run`` is the same on the command
line.  Importing this package is quick: everything else is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AstraBridgeError",
    "Experiment",
    "InputError",
    "Result",
    "StalledError",
    "__version__",
    "simulate",
]

if TYPE_CHECKING:
    from astra_bridge.errors import AstraBridgeError, InputError, StalledError
    from astra_bridge.results import Result
    from astra_bridge.simulation import Experiment, simulate

_HOMES = {
    "AstraBridgeError": "astra_bridge.errors",
    "InputError": "astra_bridge.errors",
    "StalledError": "astra_bridge.errors",
    "Result": "astra_bridge.results",
    "Experiment": "astra_bridge.simulation",
    "simulate": "astra_bridge.simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
