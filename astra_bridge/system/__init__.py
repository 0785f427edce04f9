# SPDX-License-Identifier: MIT
"""The system layer: inputs and traces in, a Program out."""

from astra_bridge.system.choices import Choices, choices
from astra_bridge.system.lower import Lowered, lower

__all__ = ["Choices", "Lowered", "choices", "lower"]
