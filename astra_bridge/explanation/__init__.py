# SPDX-License-Identifier: MIT
"""Where the time of a run went: per rank, and along the path that decided the finish."""

from __future__ import annotations

from astra_bridge.explanation.explanation import Explanation
from astra_bridge.explanation.sensitivity import (
    Sensitivities,
    link_factors,
    link_names,
    sensitivity_table,
)

__all__ = ["Explanation", "Sensitivities", "link_factors", "link_names", "sensitivity_table"]
