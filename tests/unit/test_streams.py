# SPDX-License-Identifier: MIT
"""The attributes ``stream`` and ``tid``: nodes of one run in its order, and beside those of others.

But for the quirk ``streams-do-not-order``, with which neither counts.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
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


def run(*traces: TraceBuilder, semantics: str = "corrected", **more: Any) -> Any:
    both = traces if len(traces) == 2 else traces * 2
    how = {"system": SYSTEM, "network": NETWORK} | more
    return astra_bridge.simulate(
        workload=GeneratedWorkload(both).workload(), semantics=semantics, **how
    )


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


def test_a_pause_of_a_stream_takes_its_time_and_nothing_else() -> None:
    trace = TraceBuilder()
    node(trace, 7, 5)
    trace.add(NodeType.METADATA, "pause", (0,), duration_us=30, stream=7)
    node(trace, 7, 5)
    node(trace, 20, 11)
    result = run(trace)
    assert result.finish_ns[0] == 40_000
    assert result.statistics.columns()["gpu_ns"][0] == 16_000, "0 to 11, and 35 to 40"


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


def overlapping() -> TraceBuilder:
    """Kernels of two streams, of 10 and of 4 + 4 us; behind the shorter ones an all-reduce."""
    trace = TraceBuilder()
    host = node(trace, 0, 1, cpu=True)
    node(trace, 7, 10, host)
    first = node(trace, 20, 4, host)
    last = node(trace, 20, 4, first)
    trace.coll(CommType.ALL_REDUCE, 1 << 20, deps=[last])
    return trace


@pytest.mark.parametrize("engine", ["python", "native"])
def test_kernels_of_several_streams_run_at_once(engine: str) -> None:
    together = run(overlapping(), engine=engine)
    assert together.nodes_of(0).start_ps.tolist() == [
        0, 1_000_000, 1_000_000, 5_000_000, 9_000_000
    ]  # fmt: skip
    turns = run(overlapping(), engine=engine, semantics="corrected,+streams-do-not-order")
    assert turns.nodes_of(0).start_ps.tolist() == [
        0, 1_000_000, 11_000_000, 15_000_000, 19_000_000
    ]  # fmt: skip
    (said,) = [one for one in turns.warnings if "streams-do-not-order" in one]
    assert "what 2 streams of a rank do runs one at a time" in said
    # Time counts once in which both compute: 10 us of the GPU, 1 us before it.
    finish_ps = int(together.finish_ps[0])
    assert together.exposed_comm_ps[0] == finish_ps - 10_000_000
    assert turns.exposed_comm_ps[0] == int(turns.finish_ps[0]) - 18_000_000
    spent = together.breakdown
    mine = spent["rank"] == 0
    assert spent["time_ps"][mine].sum() == finish_ps
    of = dict(zip(spent["activity"][mine].tolist(), spent["time_ps"][mine].tolist(), strict=True))
    assert (of["compute"], of["host"]) == (10_000_000, 1_000_000)


def test_folded_ranks_run_kernels_at_once_too() -> None:
    traces = [overlapping()] * 16
    results = [
        astra_bridge.simulate(
            workload=GeneratedWorkload(traces).workload(), system=SYSTEM,
            network=NETWORK | {"npus_count": [16]}, semantics="corrected", fold=fold,
        )
        for fold in ("auto", "off")
    ]  # fmt: skip
    folded, each = results
    assert folded.folding.copies > 1
    assert np.array_equal(folded.finish_ps, each.finish_ps)
    assert np.array_equal(folded.exposed_comm_ps, each.exposed_comm_ps)


def test_a_timeline_draws_what_overlaps_on_tracks_of_its_own(tmp_path: Path) -> None:
    run(overlapping()).save(tmp_path)
    drawn = (tmp_path / "timeline.pftrace").read_bytes()
    assert b"Compute, stream 7" in drawn
    assert b"Compute, stream 20" in drawn


def test_a_run_that_is_cut_is_the_same() -> None:
    experiment = astra_bridge.Experiment(
        workload=GeneratedWorkload([overlapping()] * 2).workload(), system=SYSTEM,
        network=NETWORK, semantics="corrected",
    )  # fmt: skip
    whole = experiment.run()
    with experiment.open() as session:
        session.advance(7_000_000)
        with session.snapshot() as other:
            for one in (session, other):
                one.advance()
                assert np.array_equal(one.outcome().node_start_ps, whole.node_start_ps)


def test_what_a_model_has_timed_has_the_whole_gpu() -> None:
    trace = TraceBuilder()
    for stream in (7, 20):
        trace.comp("k", num_ops=10**9, tensor_size_bytes=10**3)
        trace.nodes[-1].attributes["stream"] = stream
    node(trace, 33, 5)
    system = SYSTEM | {"roofline-enabled": 1, "peak-perf": 100, "local-mem-bw": 1000}
    starts = run(trace, system=system).nodes_of(0).start_ps.tolist()
    assert starts == [0, 10_000_000, 0]


def test_threads_of_the_host_run_at_once() -> None:
    trace = TraceBuilder()
    for tid in (1, 2, 1):
        at = node(trace, 0, 5, cpu=True)
        trace.nodes[at].attributes["tid"] = tid
    assert children(trace) == {(0, 2)}
    assert run(trace).nodes_of(0).start_ps.tolist() == [0, 0, 5_000_000]
    turns = run(trace, semantics="astra-sim")
    assert turns.nodes_of(0).start_ps.tolist() == [0, 5_000_000, 10_000_000]
    (said,) = [one for one in turns.warnings if "streams-do-not-order" in one]
    assert "what 2 threads of a rank do runs one at a time" in said
    spent = run(trace).breakdown
    assert set(spent["activity"][spent["rank"] == 0].tolist()) == {"host"}


def test_threads_that_dependencies_forbid_leave_streams_alone() -> None:
    trace = TraceBuilder()
    first = node(trace, 0, 5, 1, cpu=True)
    second = node(trace, 0, 5, cpu=True)
    for at in (first, second):
        trace.nodes[at].attributes["tid"] = 1
    node(trace, 7, 5)
    node(trace, 8, 5)
    result = run(trace)
    assert result.nodes_of(0).start_ps.tolist() == [5_000_000, 0, 0, 0]
    (said,) = [one for one in result.warnings if "thread" in one]
    assert "do not run in the order of their thread" in said


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
