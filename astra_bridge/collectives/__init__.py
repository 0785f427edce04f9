# SPDX-License-Identifier: MIT
"""Collective algorithms as data: one file per algorithm, schedules on group positions."""

from astra_bridge.collectives.catalogue import (
    ALGORITHMS,
    IMPLEMENTED,
    Chosen,
    algorithm,
    default,
)
from astra_bridge.collectives.schedule import Algorithm, Built, Kind, Request, Schedule

__all__ = [
    "ALGORITHMS",
    "IMPLEMENTED",
    "Algorithm",
    "Built",
    "Chosen",
    "Kind",
    "Request",
    "Schedule",
    "algorithm",
    "default",
]
