# SPDX-License-Identifier: MIT
"""Compute cycles of a matrix product on a systolic array, in closed form.

``cycles = ceil(Sr/R) * ceil(Sc/C) * F - 1`` with fold time ``F = R + C + T - 2`` (output
stationary) or ``2R + C + T - 2`` (weight and input stationary), which is what SCALE-sim computes
(Samajdar et al., "A systematic methodology for characterizing scalability of DNN accelerators
using SCALE-Sim", ISPASS 2020, equations 3 to 6) and equals its version 3.0.0 to the cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from astra_bridge.compute.model import ComputeModel, ComputeNodes
from astra_bridge.inputs.system import SystemConfig, SystolicArray
from astra_bridge.units import PS_PER_NS

__all__ = ["MODEL", "array_ps", "gemm_of", "systolic_cycles"]

Dataflow = Literal["os", "ws", "is"]


def systolic_cycles(
    m: int, n: int, k: int, *, rows: int, columns: int, dataflow: Dataflow = "ws"
) -> int:
    """Cycles of the product of an (m, k) by a (k, n) matrix on a rows x columns array."""
    spatial_rows, spatial_columns, temporal = {
        "os": (m, n, k),
        "ws": (k, n, m),
        "is": (k, m, n),
    }[dataflow]
    fold = (rows if dataflow == "os" else 2 * rows) + columns + temporal - 2
    return -(-spatial_rows // rows) * -(-spatial_columns // columns) * fold - 1


def gemm_of(num_ops: int, tensor_bytes: int, element_bytes: int = 2) -> tuple[int, int, int]:
    """The square-ish matrix product that an operator with these totals stands for.

    Chakra nodes carry ``num_ops`` (2mnk for a product) and ``tensor_size`` (bytes of all three
    matrices) but no shape.  With m = n, the two equations ``2 m^2 k = num_ops`` and
    ``(2mk + m^2) * element_bytes = tensor_bytes`` give a cubic in m that has one root where the
    data is as small as it can be; without a root the product is taken to be a cube.
    """
    macs = max(1, num_ops // 2)
    elements = tensor_bytes / element_bytes
    cube = round(macs ** (1 / 3)) or 1
    # m^2 + 2 macs / m = elements, on the branch m >= cube where the left side grows.
    low, high = float(cube), max(float(cube), elements**0.5)
    if low * low + 2 * macs / low > elements:
        return cube, cube, max(1, round(macs / (cube * cube)))
    for _ in range(100):
        middle = (low + high) / 2
        if middle * middle + 2 * macs / middle < elements:
            low = middle
        else:
            high = middle
    m = max(1, round(low))
    return m, m, max(1, round(macs / (m * m)))


def array_ps(
    nodes: ComputeNodes,
    system: SystemConfig,
    cycles_of: Callable[[int, int, int, SystolicArray], int],
) -> NDArray[np.float64]:
    """Durations of the matrix products that nodes stand for, each shape asked for once.

    Parameters
    ----------
    cycles_of
        Of m, n, k and the array: cycles.
    """
    array = system.systolic_array
    sizes = np.stack([nodes.num_ops, nodes.tensor_bytes], axis=1)
    pairs, inverse = np.unique(sizes, axis=0, return_inverse=True)
    cycles = np.zeros(len(pairs), np.float64)
    for at, (ops, data) in enumerate(pairs.tolist()):
        if ops and data:
            cycles[at] = cycles_of(*gemm_of(ops, data), array)
    duration_ns: NDArray[np.float64] = (cycles / array.frequency_GHz)[inverse.reshape(-1)]
    return duration_ns * PS_PER_NS


def _cycles(m: int, n: int, k: int, array: SystolicArray) -> int:
    return systolic_cycles(m, n, k, rows=array.rows, columns=array.columns, dataflow=array.dataflow)


MODEL = ComputeModel(
    "systolic",
    "Matrix products on a systolic array, in closed form.",
    lambda nodes, system: array_ps(nodes, system, _cycles),
)
