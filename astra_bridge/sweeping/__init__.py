# SPDX-License-Identifier: MIT
"""Many experiments that differ in some values: run once each, stored, ranked."""

from astra_bridge.sweeping.driver import Reached, Sweep, sweep
from astra_bridge.sweeping.specification import Specification, read_specification

__all__ = ["Reached", "Specification", "Sweep", "read_specification", "sweep"]
