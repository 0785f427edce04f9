# SPDX-License-Identifier: MIT
"""Training steps of real models, recorded by torch itself and converted; needs torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import astra_bridge
from astra_bridge.sources.export import RecordedWorkload
from astra_bridge.sources.pytorch import files_of, recorded_job
from astra_bridge.trace import CommType, NodeType
from astra_bridge.trace.checking import check_workload
from astra_bridge.trace.inferences import Inferences

RANKS = 4
SCRIPT = Path(__file__).parents[1] / "torch_step.py"
PYTHON = os.environ.get("ASTRA_BRIDGE_TORCH", sys.executable)
"""A Python that has torch; this one, if nothing is said."""

# What one rank runs in a step; None where PyTorch decides.
EXPECTED = {
    "ddp": {CommType.ALL_REDUCE: None},
    # A layer is gathered forward and, but for the last one, again backward.
    "fsdp2": {CommType.ALL_GATHER: None, CommType.REDUCE_SCATTER: 4},
    "tensor": {CommType.ALL_REDUCE: 5},
    "pipeline": {},
    "ring": {CommType.BARRIER: 1},
}

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("ASTRA_BRIDGE_ALL") != "1",
        reason="long; set ASTRA_BRIDGE_ALL=1 to run it",
    ),
    pytest.mark.skipif(
        sys.executable == PYTHON and importlib.util.find_spec("torch") is None,
        reason="needs torch, here or in the Python that ASTRA_BRIDGE_TORCH names",
    ),
]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("torch")
    subprocess.run(
        [PYTHON, str(SCRIPT), str(RANKS), str(out), *EXPECTED],
        check=True, capture_output=True,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("with_execution_trace", [True, False])
def test_a_recorded_step_is_replayed(
    kind: str, with_execution_trace: bool, recordings: Path
) -> None:
    folder = recordings / kind
    kineto = files_of(folder / "kineto.{rank}.json.gz", "--kineto")
    execution = files_of(folder / "et.{rank}.json", "--et") if with_execution_trace else {}
    job = recorded_job(kineto, execution, None, Inferences())
    workload = RecordedWorkload(job).workload()
    assert [one for one in check_workload(workload) if one.stops] == []
    for rank in range(RANKS):
        trace = workload.of_rank(rank)
        kinds = Counter(CommType(k) for k in trace.comm_type[trace.type == NodeType.COMM_COLL])
        assert kinds.keys() == EXPECTED[kind].keys()
        assert all(count in (None, kinds[k]) for k, count in EXPECTED[kind].items())
    result = astra_bridge.simulate(
        workload=workload,
        system={
            "preferred-dataset-splits": 1, "replay-only": 1, "all-reduce-implementation": ["ring"]
        },
        network={
            "topology": ["Switch"], "npus_count": [RANKS], "bandwidth": [10], "latency": [5000]
        },
    )  # fmt: skip
    spans = [one.span_ns for one in job.ranks]
    # Threads of Gloo beside those of the step: a rank has one processor.
    assert np.array(result.finish_ns) == pytest.approx(spans, rel=0.1)
    steps_us = [float((folder / f"step_us.{rank}.txt").read_text()) for rank in range(RANKS)]
    # What is recorded ends with the last operator, before the process goes on.
    assert (np.array(spans) / 1000 <= np.array(steps_us) * 1.05).all()
