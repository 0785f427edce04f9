# SPDX-License-Identifier: MIT
"""Generators of workloads: builders, micro-benchmarks, models, importers."""

from astra_bridge.workload.astra1 import import_text
from astra_bridge.workload.builder import GeneratedWorkload, Kinds, TraceBuilder
from astra_bridge.workload.micro import collective

__all__ = [
    "GeneratedWorkload",
    "Kinds",
    "TraceBuilder",
    "collective",
    "import_text",
]
