# SPDX-License-Identifier: MIT
"""How long compute nodes take: recorded durations, roofline, systolic arrays."""

from astra_bridge.compute.model import COMPUTE_MODELS, ComputeModel, ComputeNodes

__all__ = ["COMPUTE_MODELS", "ComputeModel", "ComputeNodes"]
