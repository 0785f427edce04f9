# SPDX-License-Identifier: MIT
"""How long compute nodes take: recorded durations, roofline, systolic arrays, GPU kernels."""

from astra_bridge.compute.model import COMPUTE_MODELS, ComputeModel, ComputeNodes

__all__ = ["COMPUTE_MODELS", "ComputeModel", "ComputeNodes"]
