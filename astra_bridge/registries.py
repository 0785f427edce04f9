# SPDX-License-Identifier: MIT
"""All registries: everything that is chosen by name, and that a package can add to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astra_bridge.collectives import ALGORITHMS
from astra_bridge.compute import COMPUTE_MODELS
from astra_bridge.hardware import HARDWARE
from astra_bridge.lowering.orders import DIMENSION_ORDERS
from astra_bridge.lowering.policies import QUEUE_POLICIES
from astra_bridge.memory import MEMORY_MODELS
from astra_bridge.network.registry import BACKENDS
from astra_bridge.registry import Registry
from astra_bridge.trace import TRACE_FORMATS
from astra_bridge.workload.generators import GENERATORS

__all__ = ["REGISTRIES"]

REGISTRIES: Mapping[str, Registry[Any]] = {
    "Network backends": BACKENDS,
    "Collective algorithms": ALGORITHMS,
    "Compute models": COMPUTE_MODELS,
    "Accelerators": HARDWARE,
    "Memory models": MEMORY_MODELS,
    "Queue policies": QUEUE_POLICIES,
    "Orders of dimensions": DIMENSION_ORDERS,
    "Trace formats": TRACE_FORMATS,
    "Generators": GENERATORS,
}
"""Title -> registry."""
