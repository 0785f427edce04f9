# SPDX-License-Identifier: MIT
"""Generated workloads, simulated: the numbers that ASTRA-sim gives, and no deadlock."""

from __future__ import annotations

from typing import Any

import pytest

from astra_bridge import simulate
from astra_bridge.results import Result
from astra_bridge.workload import GeneratedWorkload, collective
from benchmarks.transformer import Transformer, transformer

SYSTEM: dict[str, Any] = {
    "scheduling-policy": "LIFO",
    "endpoint-delay": 10,
    "active-chunks-per-dimension": 1,
    "preferred-dataset-splits": 4,
    "local-mem-bw": 50,
    "collective-optimization": "localBWAware",
} | {
    f"{kind}-implementation": ["ring"]
    for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
}


def run(generated: GeneratedWorkload, **arguments: Any) -> Result:
    ranks = len(generated.traces)
    network = {"topology": ["Ring"], "npus_count": [ranks], "bandwidth": [50], "latency": [500]}
    return simulate(
        generated.workload(),
        SYSTEM,
        network,
        comm_groups=generated.comm_groups,
        **({"backend": "analytical-unaware"} | arguments),
    )


@pytest.mark.parametrize(
    ("kind", "finish_ns"),
    # Measured with ASTRA-sim itself: 1 MiB, 8 NPUs, Ring.
    [
        ("all-reduce", 117780),
        ("all-gather", 151016),
        ("reduce-scatter", 86420),
        ("all-to-all", 125480),
    ],
)
def test_collectives_take_as_long_as_in_astra_sim(kind: str, finish_ns: int) -> None:
    assert run(collective(kind, 2**20, 8)).finish_ns.tolist() == [finish_ns] * 8


def test_a_message_takes_as_long_as_its_link() -> None:
    # 500 ns + 2^20 B / (50 * 2^30 / 1e9 B/ns) = 500 + 19531.25 = 20031 ns, whole ns.
    assert run(collective("send-recv", 2**20, 4)).finish_ns.tolist() == [20031] * 4


def test_groups_run_on_their_own() -> None:
    result = run(collective("all-reduce", 2**20, 8, groups=[[0, 1, 2, 3], [5, 4]]))
    finish = result.finish_ns.tolist()
    assert finish[0] == finish[1] == finish[2] == finish[3] > finish[4] == finish[5]
    assert finish[6] == finish[7] == 1  # idle: a compute node without duration


def test_overlap_hides_communication() -> None:
    times = {}
    for overlap in (False, True):
        generated = collective("all-reduce", 2**20, 4, repeat=4, compute_us=100, overlap=overlap)
        times[overlap] = int(run(generated).finish_ns[0])
    one_ns = int(run(collective("all-reduce", 2**20, 4)).finish_ns[0])
    assert one_ns < 100_000
    assert times == {False: 4 * (100_000 + one_ns), True: 400_000 + one_ns}


@pytest.mark.parametrize("backend", ["analytical-aware", "analytical-unaware"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"semantics": "corrected"}, {"rendezvous_protocol": True}],
    ids=["default", "corrected", "rendezvous"],
)
def test_transformers_run_to_their_end(backend: str, arguments: dict[str, Any]) -> None:
    model = Transformer(
        layers=4,
        hidden=64,
        sequence=32,
        vocabulary=64,
        experts=4,
        micro_batches=5,
        data=2,
        tensor=2,
        pipeline=2,
        expert=2,
        sharded_optimizer=True,
        steps=2,
    )
    generated = transformer(model)
    result = run(generated, backend=backend, **arguments)
    for rank in range(model.ranks):
        compute_us = sum(node.duration_micros for node in generated.traces[rank].nodes)
        assert result.finish_ns[rank] > 1000 * compute_us
