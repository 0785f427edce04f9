# SPDX-License-Identifier: MIT
"""The analytical remote memory: latency plus size over bandwidth, one access per server."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.memory import RemoteMemoryConfig


def access_ns(memory: RemoteMemoryConfig, tensor_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Duration of each access in ns; loads and stores cost the same."""
    # Fits: 2^62 bytes at 1 GB/s and the longest latency are within an int64 of ns.
    transfer_ns = tensor_bytes.astype(np.float64) / float(memory.bandwidth_GBps)
    return memory.latency_ns + transfer_ns.astype(np.int64)


def servers(memory: RemoteMemoryConfig, ranks: int) -> NDArray[np.int32]:
    """The memory server of each rank; -1 where accesses never wait.

    Raises
    ------
    InputError
        The nodes of a per-node memory do not hold all ranks.
    """
    if memory.kind == "MEMORY_POOL":
        return np.zeros(ranks, np.int32)
    if memory.kind != "PER_NODE_MEMORY_EXPANSION":
        return np.full(ranks, -1, np.int32)
    nodes = np.arange(ranks, dtype=np.int32) // memory.num_npus_per_node
    if nodes[-1] >= memory.num_nodes:
        raise InputError(
            f"{memory.num_nodes} nodes of {memory.num_npus_per_node} NPUs hold "
            f"{memory.num_nodes * memory.num_npus_per_node} ranks, but there are {ranks}",
            file=memory.source,
            key="num-nodes",
        )
    return nodes.astype(np.int32)
