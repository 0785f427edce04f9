# SPDX-License-Identifier: MIT
"""NCCL: what it chooses (``tuning``), how long that takes (``timing``), and that as schedules."""

from astra_bridge.collectives.nccl.schedules import ALGORITHM
from astra_bridge.collectives.nccl.timing import Cost, nccl_cost, nccl_us
from astra_bridge.collectives.nccl.tuning import (
    ALGORITHMS,
    COLLECTIVES,
    PROTOCOLS,
    NcclChoice,
    Where,
    nccl_choice,
)

__all__ = [
    "ALGORITHM",
    "ALGORITHMS",
    "COLLECTIVES",
    "PROTOCOLS",
    "Cost",
    "NcclChoice",
    "Where",
    "nccl_choice",
    "nccl_cost",
    "nccl_us",
]
