# SPDX-License-Identifier: MIT
"""The host's memory, which a rank copies from and to: what is offloaded."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from astra_bridge.compute.gpu import Kernels
from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.memory.model import MemoryModel
from astra_bridge.units import PS_PER_US

__all__ = ["MODEL"]


def _copy_ps(
    direction: str, memory: RemoteMemoryConfig, size_bytes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """A load is a copy from the host to the accelerator, a store one from it."""
    if memory.hardware is None:
        raise InputError(
            "missing: the name of an accelerator, or the path of its profile, whose copies count",
            file=memory.source,
            key="hardware",
        )
    kernels = Kernels(hardware(memory.hardware, key="hardware", file=memory.source))
    return kernels.copy(memory.host_memory, direction, size_bytes) * PS_PER_US


MODEL = MemoryModel(
    "HOST_MEMORY",
    "The host's memory, pinned or pageable, by the copies of an accelerator's profile.",
    partial(_copy_ps, "h2d"),
    # A rank's copies go over its own link, one at a time.
    lambda _memory, ranks: np.arange(ranks, dtype=np.int32),
    store_duration_ps=partial(_copy_ps, "d2h"),
)
