# SPDX-License-Identifier: MIT
"""Whatever the inputs hold, ``run`` ends with a documented exit code and one message.

Both engines, where the native one is built, with the same answer.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge.cli import main
from astra_bridge.engine import native
from astra_bridge.trace import NodeType
from astra_bridge.trace.writer import write_trace
from tests.effort import examples
from tests.made_result import node

RANKS = 4
ENGINES = ("python",) if native.unavailable() else ("python", "native")

FILES: dict[str, Any] = {
    "system.json": {
        "scheduling-policy": "LIFO",
        "endpoint-delay": 10,
        "preferred-dataset-splits": 2,
        "active-chunks-per-dimension": 1,
        "local-mem-bw": 50,
        "peak-perf": 10,
        "all-reduce-implementation": ["ring"],
        "all-gather-implementation": ["direct"],
        "roofline-enabled": 0,
    },
    "network.yml": {
        "topology": ["Ring"],
        "npus_count": [RANKS],
        "bandwidth": [50],
        "latency": [500],
    },
    "memory.json": {"memory-type": "MEMORY_POOL", "remote-mem-latency": 10, "remote-mem-bw": 5},
    "groups.json": {"1": [0, 1], "2": [2, 3]},
}
CHANGES = {
    "system.json": st.fixed_dictionaries(
        {},
        optional={
            "preferred-dataset-splits": st.integers(1, 64),
            "active-chunks-per-dimension": st.integers(1, 9),
            "endpoint-delay": st.sampled_from([0, 1, 10**6]),
            "local-mem-bw": st.sampled_from([0, 0.001, 1e9]),
            "roofline-enabled": st.sampled_from([0, 1, False]),
            "model-shared-bus": st.integers(0, 1),
            "replay-only": st.integers(0, 1),
            "all-reduce-implementation": st.lists(
                st.sampled_from(["ring", "direct1", "halvingDoubling", "doubleBinaryTree",
                                 "oneRing", "oneDirect"]), min_size=1, max_size=3),
            "all-gather-implementation-custom": st.just(["nowhere"]),
            "compute-model": st.sampled_from(["trace", "roofline", "systolic"]),
            "inter-dimension-scheduling": st.sampled_from(["themis", "baseline"]),
        },
    ),
    "network.yml": st.sampled_from([
        {"topology": ["Switch"]},
        {"topology": ["FullyConnected"]},
        {"topology": ["Ring", "Switch"], "npus_count": [2, 2], "bandwidth": [5, 5],
         "latency": [0, 1]},
        {"npus_count": [5]},
        {"bandwidth": [1e-9]},
        {"bandwidth": [1e11]},
        {"latency": [1e15]},
    ]),
    "memory.json": st.sampled_from([
        {"memory-type": "NO_MEMORY_EXPANSION"},
        {"memory-type": "PER_NODE_MEMORY_EXPANSION", "num-nodes": 4, "num-npus-per-node": 1},
    ]),
    "groups.json": st.sampled_from([{"1": [0]}, {"1": [3, 2, 1, 0]}, {"2": [0, 1]}, {"7": [9]}]),
}  # fmt: skip
FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "num-queues-per-dim": st.integers(1, 5),
        "injection-scale": st.sampled_from([0, 0.3, 100]),
        "rendezvous-protocol": st.sampled_from(["true", "false"]),
        "semantics": st.sampled_from(["astra-sim", "corrected"]),
        "backend": st.sampled_from(["analytical-unaware", "analytical-aware"]),
        "comm-scale": st.sampled_from([0, 0.5, 3]),
        "compute-scale": st.sampled_from([0, 0.5, 3]),
    },
)

SIZE = st.sampled_from([1000, 65536, 2**20, 3, 1, 0, 2**40, 2**62])


@st.composite
def traces(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Nodes of each rank, by rank or for all; they may well not fit together."""

    def rarely(odd: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> Any:
        return draw(odd if draw(st.integers(0, 19)) == 7 else usual)

    def one(node_id: int, count: int, rank: int) -> Any:
        earlier = st.lists(st.integers(0, max(node_id - 1, 0)), max_size=min(node_id, 2))
        deps = set(rarely(st.lists(st.integers(0, count), max_size=2), earlier))
        kind = draw(st.sampled_from(list(NodeType)))
        attributes: dict[str, Any] = {"is_cpu_op": rarely(st.just(True), st.just(False))}
        if kind in (NodeType.COMM_SEND, NodeType.COMM_RECV):
            other = "comm_dst" if kind is NodeType.COMM_SEND else "comm_src"
            near = st.sampled_from([(rank + 1) % RANKS, (rank - 1) % RANKS])
            attributes[other] = rarely(st.integers(-1, RANKS), near)
            attributes["comm_tag"] = rarely(st.integers(0, 2**31 - 1), st.just(0))
        if kind is NodeType.COMM_COLL:
            attributes["comm_type"] = rarely(st.integers(-1, 11), st.sampled_from([0, 2, 5, 7]))
            group = str(rank // 2 + 1)
            attributes["pg_name"] = rarely(
                st.sampled_from(["1", "2", "3", "x"]), st.sampled_from(["", "0", group])
            )
        attributes["comm_size"] = draw(SIZE)
        attributes["num_ops"] = draw(SIZE)
        attributes["tensor_size"] = draw(SIZE)
        if draw(st.integers(0, 29)) == 7:
            del attributes[draw(st.sampled_from(sorted(attributes)))]
        result = node(node_id, kind, **attributes)
        result.data_deps.extend(sorted(deps))
        result.duration_micros = draw(st.sampled_from([0, 5, 2**30]))
        return result

    def trace(rank: int) -> list[Any]:
        count = draw(st.integers(0, 4))
        return [one(i, count, rank) for i in range(count)]

    if draw(st.booleans()):
        return dict.fromkeys(map(str, range(RANKS)), trace(0))
    return {str(rank): trace(rank) for rank in range(RANKS)}


@settings(
    max_examples=examples(120),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_run_ends_with_a_documented_code(
    data: st.DataObject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in FILES.items():
        change = data.draw(st.just({}) | CHANGES[name])
        content = change if name == "groups.json" and change else content | change
        (tmp_path / name).write_text(json.dumps(content))
    for rank, nodes in data.draw(traces()).items():
        write_trace(tmp_path / f"trace.{rank}.et", nodes)
    names = {"workload": "trace", "system": "system.json", "network": "network.yml",
             "remote-memory": "memory.json", "comm-group": "groups.json"}  # fmt: skip
    arguments = [f"--{key}-configuration={tmp_path / name}" for key, name in names.items()]
    arguments += [f"--{key}={value}" for key, value in data.draw(FLAGS).items()]
    answers = set()
    for engine in ENGINES:
        code = main(["run", f"--engine={engine}", *arguments])
        captured = capsys.readouterr()
        assert code in (0, 2, 3), captured.err
        finished = re.findall(r"sys\[.*finished.*", captured.out)
        if code == 0:
            assert len(finished) == captured.out.count(", Wall time: ") > 0
        else:
            assert not finished
            errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1
        answers.add((code, *finished))
    assert len(answers) == 1
