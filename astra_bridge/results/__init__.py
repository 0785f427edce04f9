# SPDX-License-Identifier: MIT
"""Results: what a simulation answers, statistics of it, and files made from it."""

from astra_bridge.results.result import JobRows, NodeTimes, Result
from astra_bridge.results.table import Table

__all__ = ["JobRows", "NodeTimes", "Result", "Table"]
