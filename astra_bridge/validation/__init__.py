# SPDX-License-Identifier: MIT
"""The product beside measurements: errors by row and class, and those of naive models."""

from astra_bridge.validation.report import SETS, Report, validate
from astra_bridge.validation.table import Row, Summary, geomean

__all__ = ["SETS", "Report", "Row", "Summary", "geomean", "validate"]
