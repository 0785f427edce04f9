# SPDX-License-Identifier: MIT
"""A compute model: 3 ps per operation and 5 ps per byte."""

from typing import Any

from astra_bridge.compute import ComputeModel, ComputeNodes
from astra_bridge.inputs.system import SystemConfig


def duration_ps(nodes: ComputeNodes, _system: SystemConfig) -> Any:
    return 3 * nodes.num_ops + 5 * nodes.tensor_bytes


MODEL = ComputeModel("linear", "3 ps per operation and 5 ps per byte.", duration_ps)
