# SPDX-License-Identifier: MIT
"""Statistics are computed for some ranks at a time; how many makes no difference."""

from __future__ import annotations

import numpy as np
import pytest

from astra_bridge import simulate
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.results import statistics
from benchmarks.transformer import Transformer, transformer


@pytest.mark.parametrize("roofline", [0, 1])
def test_parts_make_no_difference(roofline: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transformer(layers=2, hidden=64, sequence=32, data=2, tensor=2, pipeline=2)
    workload = transformer(model)
    result = simulate(
        workload=workload.workload(),
        comm_groups=workload.comm_groups,
        system={
            "all-reduce-implementation": ["ring"],
            "local-mem-bw": 100,
            "peak-perf": 1,
            "roofline-enabled": roofline,
        },
        network=NetworkDims(("Switch",), (8,), (50.0,), (500.0,)),
    )
    whole = statistics.rank_statistics(result).columns()
    assert len(whole) == (11 if roofline else 7)
    assert whole["gpu_ns"].min() > 0
    for most in (1, 100, int(result.node_offset[3])):
        monkeypatch.setattr(statistics, "_MOST_NODES_AT_ONCE", most)
        parts = statistics.rank_statistics(result).columns()
        assert list(parts) == list(whole)
        for name, column in whole.items():
            np.testing.assert_array_equal(parts[name], column)
