# SPDX-License-Identifier: MIT
"""A page about one run or several, to look at and to send to somebody."""

from __future__ import annotations

from astra_bridge.report.page import page
from astra_bridge.report.reading import Run, read_run

__all__ = ["Run", "page", "read_run"]
