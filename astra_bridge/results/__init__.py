# SPDX-License-Identifier: MIT
"""Results: what a simulation answers, statistics of it, and files made from it."""

from astra_bridge.results.result import Result
from astra_bridge.results.table import Table
from astra_bridge.results.times import JobRows, NodeTimes, RankTimes

__all__ = ["JobRows", "NodeTimes", "RankTimes", "Result", "Table"]
