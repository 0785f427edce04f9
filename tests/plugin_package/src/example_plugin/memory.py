# SPDX-License-Identifier: MIT
"""A memory model: two ranks share a bank, which takes its latency and 7 ps per byte."""

from typing import Any

import numpy as np

from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.memory import MemoryModel


def duration_ps(memory: RemoteMemoryConfig, size_bytes: Any) -> Any:
    return 1000 * memory.latency_ns + 7 * size_bytes


def servers(_memory: RemoteMemoryConfig, ranks: int) -> Any:
    return np.arange(ranks, dtype=np.int32) // 2


MODEL = MemoryModel("BANKS", "Two ranks share a bank of 7 ps per byte.", duration_ps, servers)
