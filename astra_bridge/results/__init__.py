# SPDX-License-Identifier: MIT
"""Results: what a simulation answers, statistics of it, and files made from it."""

from astra_bridge.results.result import Result

__all__ = ["Result"]
