# SPDX-License-Identifier: MIT
"""What a memory model is: how long an access takes, and who waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.registry import Registry, Spec

__all__ = ["MEMORY_MODELS", "MemoryModel"]


class MemoryModel(Spec, frozen=True, eq=True):
    """A remote memory, which loads and stores of traces go to.

    Attributes
    ----------
    duration_ps
        Of the configuration and the bytes of each access (ndarray of int64, shape (n,)): ndarray of
        int64 or float64, shape (n,), each at least 0; fractions of a ps are rounded.  None where
        there is no memory to access.
    servers
        Of the configuration and the number of ranks: ndarray of int32, shape (ranks,), the memory
        server of each rank.  Accesses of ranks with the same server wait for one another; -1 never
        waits.
    needs
        Keys of the file that must be there and above 0.
    store_duration_ps
        The same of stores, where they take another time than loads.
    """

    duration_ps: Callable[[RemoteMemoryConfig, NDArray[np.int64]], NDArray[Any]] | None
    servers: Callable[[RemoteMemoryConfig, int], NDArray[np.int32]]
    needs: tuple[str, ...] = ()
    store_duration_ps: Callable[[RemoteMemoryConfig, NDArray[np.int64]], NDArray[Any]] | None = None


MEMORY_MODELS = Registry(
    "memory model",
    "astra_bridge.memory",
    MemoryModel,
    {
        "NO_MEMORY_EXPANSION": "astra_bridge.memory.remote:MODELS",
        "PER_NPU_MEMORY_EXPANSION": "astra_bridge.memory.remote:MODELS",
        "PER_NODE_MEMORY_EXPANSION": "astra_bridge.memory.remote:MODELS",
        "MEMORY_POOL": "astra_bridge.memory.remote:MODELS",
        "HOST_MEMORY": "astra_bridge.memory.host:MODEL",
    },
)
