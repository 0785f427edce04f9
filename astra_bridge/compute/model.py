# SPDX-License-Identifier: MIT
"""What a compute model is: from the attributes of compute nodes to how long each takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.inputs.system import SystemConfig
from astra_bridge.registry import Registry, Spec
from astra_bridge.trace import TraceColumns

__all__ = ["COMPUTE_MODELS", "ComputeModel", "ComputeNodes"]


class ComputeNodes(msgspec.Struct, frozen=True, eq=False):
    """Compute nodes of one trace that a model is to time.

    Attributes
    ----------
    trace : TraceColumns
        The whole trace; ``trace.read_details`` gives names and all attributes.
    position : ndarray of int64, shape (n,)
        The nodes: indices into the trace's columns.
    recorded_ps : ndarray of int64, shape (n,)
        The durations that the trace has; 1 ns where it has none.
    """

    trace: TraceColumns
    position: NDArray[np.int64]
    recorded_ps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.position)

    @property
    def num_ops(self) -> NDArray[np.int64]:
        """Operations of each node, shape (n,)."""
        return self.trace.num_ops[self.position]

    @property
    def tensor_bytes(self) -> NDArray[np.int64]:
        """Bytes that each node reads and writes (attribute ``tensor_size``), shape (n,)."""
        return self.trace.tensor_size[self.position]


class ComputeModel(Spec, frozen=True, eq=False):
    """How compute nodes of an accelerator are timed.

    Attributes
    ----------
    duration_ps
        Of nodes and the system configuration: ndarray of int64 or float64, shape (n,), each at
        least 0; fractions of a ps are rounded.
    needs
        Columns of ``TraceColumns`` that each node must have, with a value of 0 to 2^62.
    roofline
        Whether statistics show how near nodes come to the roofline.
    recorded
        Whether it takes the durations of the trace: without one, a node takes 1 ns.
    """

    duration_ps: Callable[[ComputeNodes, SystemConfig], NDArray[Any]]
    needs: tuple[str, ...] = ("num_ops", "tensor_size")
    roofline: bool = False
    recorded: bool = False


COMPUTE_MODELS = Registry(
    "compute model",
    "astra_bridge.compute",
    ComputeModel,
    {
        "trace": "astra_bridge.compute.recorded:MODEL",
        "roofline": "astra_bridge.compute.roofline:MODEL",
        "systolic": "astra_bridge.compute.systolic:MODEL",
        "scalesim": "astra_bridge.compute.scalesim:MODEL",
        "gpu": "astra_bridge.compute.gpu.model:MODEL",
        "measured": "astra_bridge.compute.measured:MODEL",
    },
)
