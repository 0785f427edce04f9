# SPDX-License-Identifier: MIT
"""The roofline model (Williams, Waterman and Patterson, CACM 2009).

Attainable performance is ``min(memory bandwidth * operational intensity, peak)``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from astra_bridge.compute.model import ComputeModel, ComputeNodes
from astra_bridge.errors import InputError
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.units import PS_PER_NS

__all__ = ["MODEL", "roofline_ns"]


def roofline_ns(
    num_ops: NDArray[np.int64],
    tensor_bytes: NDArray[np.int64],
    memory_Bps: float,
    peak_ops_per_s: float,
) -> NDArray[np.float64]:
    """Run time of each operator in ns, cut off to whole ones, in ASTRA-sim's order of evaluation.

    Operators without operations or without data take no time: ASTRA-sim would wait 2**63 ns for
    the former and never go on after the latter.
    """
    ops = num_ops.astype(np.float64)
    data = tensor_bytes.astype(np.float64)
    work = (ops > 0) & (data > 0)
    result = np.zeros(len(ops), np.float64)
    intensity = ops[work] / data[work]
    performance = np.minimum(memory_Bps * intensity, peak_ops_per_s)
    result[work] = np.floor(ops[work] / performance * 1e9)
    return result


def _duration_ps(nodes: ComputeNodes, system: SystemConfig) -> NDArray[np.float64]:
    for key, value in (
        ("local-mem-bw", system.local_mem_bw_GBps),
        ("peak-perf", system.peak_perf_TFLOPS),
    ):
        if value <= 0:
            raise InputError("must be above 0 for the roofline", file=system.source, key=key)
    memory_Bps, peak_ops_per_s = system.local_mem_bw_GBps * 1e9, system.peak_perf_TFLOPS * 1e12
    return roofline_ns(nodes.num_ops, nodes.tensor_bytes, memory_Bps, peak_ops_per_s) * PS_PER_NS


MODEL = ComputeModel(
    "roofline", "local-mem-bw or peak-perf, whichever limits.", _duration_ps, roofline=True
)
