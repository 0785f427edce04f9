# SPDX-License-Identifier: MIT
"""The analytical remote memory: latency plus size over bandwidth, one access per server."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.memory.model import MemoryModel
from astra_bridge.units import PS_PER_NS

__all__ = ["MODELS", "access_ns"]


def access_ns(memory: RemoteMemoryConfig, tensor_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Duration of each access in ns; loads and stores cost the same."""
    # Fits: 2^62 bytes at 1 GB/s and the longest latency are within an int64 of ns.
    transfer_ns = tensor_bytes.astype(np.float64) / float(memory.bandwidth_GBps)
    return memory.latency_ns + transfer_ns.astype(np.int64)


def _duration_ps(
    memory: RemoteMemoryConfig, tensor_bytes: NDArray[np.int64]
) -> NDArray[np.float64]:
    # Not yet known to fit an int64 of ps.
    return access_ns(memory, tensor_bytes).astype(np.float64) * PS_PER_NS


def _never_waits(_memory: RemoteMemoryConfig, ranks: int) -> NDArray[np.int32]:
    return np.full(ranks, -1, np.int32)


def _nodes(memory: RemoteMemoryConfig, ranks: int) -> NDArray[np.int32]:
    nodes = np.arange(ranks, dtype=np.int32) // memory.num_npus_per_node
    if nodes[-1] >= memory.num_nodes:
        raise InputError(
            f"{memory.num_nodes} nodes of {memory.num_npus_per_node} NPUs hold "
            f"{memory.num_nodes * memory.num_npus_per_node} ranks, but there are {ranks}",
            file=memory.source,
            key="num-nodes",
        )
    return nodes.astype(np.int32)


_BANDWIDTH = "remote-mem-bw"

MODELS = (
    MemoryModel("NO_MEMORY_EXPANSION", "No rank has remote memory.", None, _never_waits),
    MemoryModel(
        "PER_NPU_MEMORY_EXPANSION",
        "Each rank has a memory of its own.",
        _duration_ps,
        _never_waits,
        needs=(_BANDWIDTH,),
    ),
    MemoryModel(
        "PER_NODE_MEMORY_EXPANSION",
        "The ranks of a node share a memory.",
        _duration_ps,
        _nodes,
        needs=(_BANDWIDTH, "num-nodes", "num-npus-per-node"),
    ),
    MemoryModel(
        "MEMORY_POOL",
        "All ranks share a memory.",
        _duration_ps,
        lambda _memory, ranks: np.zeros(ranks, np.int32),
        needs=(_BANDWIDTH,),
    ),
)
