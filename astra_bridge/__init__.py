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
    "BackendError",
    "BackendSpec",
    "BackendUnavailable",
    "Calibration",
    "Comparison",
    "ContractError",
    "Experiment",
    "GeneratedWorkload",
    "InputError",
    "Job",
    "LinkFault",
    "MissingDependency",
    "NetworkConfig",
    "NetworkError",
    "Outcome",
    "Program",
    "Progress",
    "Result",
    "Session",
    "SimulationError",
    "Slowdown",
    "StalledError",
    "Stop",
    "Sweep",
    "Table",
    "TraceBuilder",
    "Unsupported",
    "Watch",
    "Workload",
    "__version__",
    "calibrate",
    "collective",
    "compare",
    "fabrics",
    "read_workload",
    "simulate",
    "sweep",
]

if TYPE_CHECKING:
    from astra_bridge import fabrics
    from astra_bridge.comparison import Calibration, Comparison, calibrate, compare
    from astra_bridge.engine import Outcome, Progress, Session, Stop, Watch
    from astra_bridge.errors import (
        AstraBridgeError,
        BackendError,
        BackendUnavailable,
        ContractError,
        InputError,
        MissingDependency,
        NetworkError,
        SimulationError,
        StalledError,
        Unsupported,
    )
    from astra_bridge.network.api import NetworkConfig
    from astra_bridge.network.spec import BackendSpec
    from astra_bridge.program import Program
    from astra_bridge.results import Result, Table
    from astra_bridge.simulation import Experiment, Job, LinkFault, Slowdown, simulate
    from astra_bridge.sweeping import Sweep, sweep
    from astra_bridge.trace import Workload, read_workload
    from astra_bridge.workload import GeneratedWorkload, TraceBuilder, collective

_HOMES = {
    "AstraBridgeError": "astra_bridge.errors",
    "BackendError": "astra_bridge.errors",
    "BackendSpec": "astra_bridge.network.spec",
    "BackendUnavailable": "astra_bridge.errors",
    "Calibration": "astra_bridge.comparison",
    "Comparison": "astra_bridge.comparison",
    "ContractError": "astra_bridge.errors",
    "Experiment": "astra_bridge.simulation",
    "GeneratedWorkload": "astra_bridge.workload",
    "InputError": "astra_bridge.errors",
    "Job": "astra_bridge.simulation",
    "LinkFault": "astra_bridge.simulation",
    "MissingDependency": "astra_bridge.errors",
    "NetworkConfig": "astra_bridge.network.api",
    "NetworkError": "astra_bridge.errors",
    "Outcome": "astra_bridge.engine",
    "Program": "astra_bridge.program",
    "Progress": "astra_bridge.engine",
    "Result": "astra_bridge.results",
    "Session": "astra_bridge.engine",
    "SimulationError": "astra_bridge.errors",
    "Slowdown": "astra_bridge.simulation",
    "StalledError": "astra_bridge.errors",
    "Stop": "astra_bridge.engine",
    "Sweep": "astra_bridge.sweeping",
    "Table": "astra_bridge.results",
    "TraceBuilder": "astra_bridge.workload",
    "Unsupported": "astra_bridge.errors",
    "Watch": "astra_bridge.engine",
    "Workload": "astra_bridge.trace",
    "calibrate": "astra_bridge.comparison",
    "collective": "astra_bridge.workload",
    "compare": "astra_bridge.comparison",
    "read_workload": "astra_bridge.trace",
    "simulate": "astra_bridge.simulation",
    "sweep": "astra_bridge.sweeping",
}
_MODULES = ("fabrics",)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"astra_bridge.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
