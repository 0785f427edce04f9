# SPDX-License-Identifier: MIT
"""Lowering: inputs and traces in, a Program out."""

from astra_bridge.lowering.choices import Choices, choices
from astra_bridge.lowering.lower import Lowered, lower

__all__ = ["Choices", "Lowered", "choices", "lower"]
