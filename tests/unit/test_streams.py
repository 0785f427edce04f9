# SPDX-License-Identifier: MIT
"""The attribute ``stream``: nodes of a stream run in its order, but for the quirk."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import astra_bridge
from astra_bridge.trace import CommType, NodeType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

NETWORK = {"topology": ["Ring"], "npus_count": [2], "bandwidth": [50], "latency": [500]}
SYSTEM = {"all-reduce-implementation": ["ring"]}


def node(trace: TraceBuilder, stream: int, us: int, *deps: int, cpu: bool = False) -> int:
    return trace.add(
        NodeType.COMP, "k", deps, duration_us=us, is_cpu_op=cpu, stream=stream,
    )  # fmt: skip


def run(*traces: TraceBuilder, semantics: str = "corrected") -> Any:
    both = traces if len(traces) == 2 else traces * 2
    return astra_bridge.simulate(
        workload=GeneratedWorkload(both).workload(), system=SYSTEM, network=NETWORK,
        semantics=semantics,
    )  # fmt: skip


def children(*traces: TraceBuilder, semantics: str = "corrected") -> set[tuple[int, int]]:
    """(parent, child) of all nodes, as they are lowered."""
    experiment = astra_bridge.Experiment(
        workload=GeneratedWorkload(traces * (3 - len(traces))).workload(), system=SYSTEM,
        network=NETWORK, semantics=semantics,
    )  # fmt: skip
    program = experiment.lower().program
    nodes, kids = program.nodes, program.children
    return {
        (at, int(kids[k]))
        for at in range(len(traces[0].nodes))
        for k in range(
            nodes["child_start"][at], nodes["child_start"][at] + nodes["child_count"][at]
        )
    }


def test_a_kernel_waits_for_the_one_before_it() -> None:
    trace = TraceBuilder()
    host = node(trace, 0, 10, cpu=True)
    node(trace, 7, 5, host)
    node(trace, 7, 5)
    node(trace, 20, 5)
    assert children(trace) == {(0, 1), (1, 2)}
    # The second kernel of stream 7 could start at once.
    assert run(trace).finish_ns[0] == 20_000
    late = run(trace, semantics="astra-sim")
    assert late.finish_ns[0] == 15_000
    (said,) = [one for one in late.warnings if "streams-do-not-order" in one]
    assert "their stream" in said
    assert children(trace, semantics="astra-sim") == {(0, 1)}


def test_an_exchange_does_not_stand_still() -> None:
    """Both receive, then send: a group of NCCL's, one kernel."""
    traces = []
    for rank in range(2):
        trace = TraceBuilder()
        node(trace, 7, 5)
        trace.recv(1 - rank, 1000, rank)
        trace.send(1 - rank, 1000, 1 - rank)
        for one in trace.nodes[1:]:
            one.attributes["stream"] = 7
        node(trace, 7, 5)
        traces.append(trace)
    assert children(*traces) == {(0, 1), (0, 2), (1, 3), (2, 3)}
    alone_ns = 500 + 20
    assert run(*traces).finish_ns.tolist() == pytest.approx([10_000 + alone_ns] * 2, abs=20)


def test_an_order_that_dependencies_forbid_is_left_out() -> None:
    trace = TraceBuilder()
    node(trace, 7, 5, 1)
    node(trace, 7, 5)
    assert children(trace) == {(1, 0)}
    (said,) = [one for one in run(trace).warnings if "stream" in one]
    assert "do not run in the order of their stream" in said


def test_callers_in_a_circle_leave_streams_in_order() -> None:
    trace = TraceBuilder()
    caller = node(trace, 7, 5)
    called = node(trace, 7, 5, caller)
    trace.nodes[caller].ctrl_deps.append(called)
    node(trace, 7, 5)
    assert children(trace) == {(0, 1), (1, 2)}
    assert not [one for one in run(trace).warnings if "of their stream" in one]


@pytest.mark.parametrize("seed", range(20))
def test_random_streams(seed: int) -> None:
    random = np.random.default_rng(seed)
    trace = TraceBuilder()
    count = int(random.integers(2, 40))
    for i in range(count):
        stream = int(random.integers(0, 3))
        deps = [int(random.integers(0, i))] if i and random.random() < 0.5 else []
        if random.random() < 0.4:
            trace.send(1, 8, i, deps=deps)
            trace.nodes[i].attributes["stream"] = stream
        elif random.random() < 0.2:
            trace.coll(CommType.ALL_REDUCE, 64, deps=deps)
        else:
            node(trace, stream, 1, *deps, cpu=bool(random.random() < 0.2))
    wanted = {(dep, one.id) for one in trace.nodes for dep in one.data_deps}
    for stream in range(3):
        groups: list[list[int]] = []
        message = False
        for one in trace.nodes:
            if one.attributes.get("stream") != stream or one.attributes["is_cpu_op"]:
                continue
            sends = one.type == NodeType.COMM_SEND
            if groups and sends and message:
                groups[-1].append(one.id)
            else:
                groups.append([one.id])
            message = sends
        for before, after in pairwise(groups):
            wanted |= {(a, b) for a in before for b in after}
    idle = TraceBuilder()
    assert children(trace, idle) == wanted
