# SPDX-License-Identifier: MIT
"""How long compute nodes take: recorded durations, roofline, systolic arrays."""

from astra_bridge.compute.roofline import roofline_ns
from astra_bridge.compute.systolic import gemm_of, systolic_cycles

__all__ = ["gemm_of", "roofline_ns", "systolic_cycles"]
