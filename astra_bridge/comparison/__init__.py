# SPDX-License-Identifier: MIT
"""The same experiments on several backends: errors, cost, and where they part."""

from astra_bridge.comparison.calibration import Calibration, calibrate
from astra_bridge.comparison.comparison import Comparison
from astra_bridge.comparison.runs import Step, compare

__all__ = ["Calibration", "Comparison", "Step", "calibrate", "compare"]
