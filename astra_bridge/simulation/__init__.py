# SPDX-License-Identifier: MIT
"""Experiments: everything that decides the numbers of a simulation, as one object."""

from astra_bridge.simulation.experiment import Experiment, simulate
from astra_bridge.simulation.jobs import Fault, Job, LinkFault, Slowdown

__all__ = ["Experiment", "Fault", "Job", "LinkFault", "Slowdown", "simulate"]
