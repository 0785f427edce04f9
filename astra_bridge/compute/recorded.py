# SPDX-License-Identifier: MIT
"""The durations that the trace has."""

from __future__ import annotations

from astra_bridge.compute.model import ComputeModel

__all__ = ["MODEL"]

MODEL = ComputeModel(
    "trace",
    "The durations recorded in the trace.",
    lambda nodes, _: nodes.recorded_ps,
    needs=(),
    recorded=True,
)
