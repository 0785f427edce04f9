# SPDX-License-Identifier: MIT
"""Remote memory: how long an access takes, and who waits for whom."""

from astra_bridge.memory.model import MEMORY_MODELS, MemoryModel

__all__ = ["MEMORY_MODELS", "MemoryModel"]
