# SPDX-License-Identifier: MIT
"""Whole runs against ASTRA-sim with its RDMA fork of ns-3: finish time of every rank."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astra_bridge.network.ns3.build import NS3, is_rdma_fork
from astra_bridge.simulation import simulate
from astra_bridge.validation.cases import write_golden_case, write_ns3_network
from tests.golden.test_ns3 import GOLDEN

CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))

pytestmark = pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable()))


@pytest.mark.skipif(not CASES, reason=f"{GOLDEN} is not there")
@pytest.mark.parametrize("name", CASES or ["none"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"fast_forward": "exact"},
            marks=pytest.mark.skipif(is_rdma_fork(), reason="the fork's devices do not jump"),
        ),
    ],
    ids=["as it is", "fast-forward"],
)
def test_every_rank_finishes_at_the_same_nanosecond(
    name: str, options: dict[str, str], tmp_path: Path
) -> None:
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    files = write_golden_case(case, tmp_path)
    logical = tmp_path / "logical.json"
    logical.write_text(json.dumps({"logical-dims": list(map(str, case["logical_dims"]))}))
    result = simulate(
        str(files.workload),
        files.system,
        write_ns3_network(case, tmp_path),
        files.remote_memory,
        backend="ns3",
        logical_topology=logical,
        num_queues_per_dim=int(case.get("queues", 1)),
        network_options=options,
    )
    assert result.finish_ns.tolist() == case["expect"]["finish_ns"]
    # Flow by flow: who sent what to whom, when, and how long it took.
    table = result.tables["flows"]
    columns = {
        "src": 1,
        "dst": 1,
        "bytes": 1,
        "start_ps": 1000,
        "fct_ps": 1000,
        "ideal_fct_ps": 1000,
    }
    rows = sorted(
        tuple(
            int(table[column][i]) // (1000 if column.endswith("_ps") else 1) for column in columns
        )
        for i in range(len(table["src"]))
    )
    assert rows == sorted(tuple(flow) for flow in case["expect"]["flows"])
