# SPDX-License-Identifier: MIT
"""Experiments: everything that decides the numbers of a simulation, as one object."""

from astra_bridge.simulation.experiment import Experiment, simulate

__all__ = ["Experiment", "simulate"]
