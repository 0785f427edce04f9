# SPDX-License-Identifier: MIT
"""Chakra traces as PyTorch's linker and other tools write them: what ASTRA-sim cannot read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import astra_bridge
from astra_bridge.cli import main
from astra_bridge.errors import InputError, StalledError
from astra_bridge.trace import CommType, NodeType, read_trace, read_workload
from astra_bridge.trace.checking import check_workload
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

SYSTEM = {
    "scheduling-policy": "FIFO", "endpoint-delay": 10, "preferred-dataset-splits": 1,
    "active-chunks-per-dimension": 1, "all-reduce-implementation": ["ring"],
    "collective-optimization": "localBWAware", "local-mem-bw": 1600,
}  # fmt: skip
ALL_REDUCE_NS = 21_541
"""1 MiB in a ring of two: 10 + 2 x (10 + 500 + 9765) and the reduction's 3 x 327 of 524,288 B."""


def run(traces: Sequence[TraceBuilder], **more: Any) -> astra_bridge.Result:
    ranks = len(traces)
    groups = more.pop("comm_groups", {})
    return astra_bridge.simulate(
        workload=GeneratedWorkload(traces, groups).workload(),
        comm_groups=groups,
        system=SYSTEM | more,
        network={
            "topology": ["Ring"], "npus_count": [ranks], "bandwidth": [50], "latency": [500]
        },
    )  # fmt: skip


def all_reduce(trace: TraceBuilder, deps: Sequence[int] = (), **more: Any) -> int:
    return trace.add(
        NodeType.COMM_COLL, "ncclDevKernel_AllReduce", deps,
        comm_type=int(CommType.ALL_REDUCE), comm_size=2**20, **more,
    )  # fmt: skip


def test_a_caller_that_is_not_in_the_trace_is_not_waited_for() -> None:
    trace = TraceBuilder()
    first = trace.add(
        NodeType.COMP, "aten::op", ctrl_deps=[900, 901], duration_us=5, is_cpu_op=True
    )
    all_reduce(trace, [first], ctrl_deps=[first])
    result = run([trace] * 2)
    assert result.finish_ns.tolist() == [5_000 + ALL_REDUCE_NS] * 2
    (said,) = [w for w in result.warnings if "ctrl_deps" in w]
    assert "2 ctrl_deps name nodes that the trace does not have; nothing waits for them" in said
    trace.nodes[1].data_deps = [900]
    with pytest.raises(
        InputError, match="node 1: data_deps: depends on node 900, which this trace"
    ):
        run([trace] * 2)


def test_callers_that_form_a_circle_do_not_order() -> None:
    trace = TraceBuilder()
    host = trace.add(NodeType.COMP, "aten::mul", ctrl_deps=[1], duration_us=10, is_cpu_op=True)
    kernel = trace.add(NodeType.COMP, "kernel", [host], ctrl_deps=[1], duration_us=20)
    all_reduce(trace, [kernel])
    result = run([trace] * 2)
    assert result.finish_ns.tolist() == [30_000 + ALL_REDUCE_NS] * 2
    (said,) = [w for w in result.warnings if "ctrl_deps" in w]
    assert "2 ctrl_deps do not order" in said
    # Data dependencies order in any case.
    trace.nodes[0].data_deps = [1]
    with pytest.raises(StalledError, match="wait for one another in a circle: 0, 1"):
        run([trace] * 2)


def test_control_dependencies_without_a_circle_order() -> None:
    trace = TraceBuilder()
    first = trace.comp("a", duration_us=10)
    all_reduce(trace, ctrl_deps=[first])
    result = run([trace] * 2)
    assert result.finish_ns.tolist() == [10_000 + ALL_REDUCE_NS] * 2
    assert not [w for w in result.warnings if "ctrl_deps" in w]


def test_a_call_of_the_host_is_compute() -> None:
    trace = TraceBuilder()
    call = trace.add(NodeType.COMM_COLL, "c10d::allreduce_", duration_us=85, is_cpu_op=True)
    all_reduce(trace, [call])
    assert run([trace] * 2).finish_ns.tolist() == [85_000 + ALL_REDUCE_NS] * 2


@pytest.mark.parametrize("name", ["1.0", "9f2c0e77aa", "default_pg", "99999999999999999999"])
@pytest.mark.parametrize("declared", [True, False])
def test_any_text_names_a_group(name: str, declared: bool) -> None:
    def rank(members: list[int]) -> TraceBuilder:
        trace = TraceBuilder()
        if declared:
            trace.process_groups({name: members})
        all_reduce(trace, pg_name=name)
        return trace

    idle = TraceBuilder()
    idle.comp(duration_us=1)
    traces = [rank([0, 1]), rank([0, 1]), idle, idle]
    groups: Any = {} if declared else {name: [0, 1]}
    assert run(traces, comm_groups=groups).finish_ns.tolist()[:2] == [ALL_REDUCE_NS] * 2
    traces[0].nodes[-1].attributes["pg_name"] = "another"
    with pytest.raises(InputError, match="group another is not defined"):
        run(traces, comm_groups=groups)


def test_a_file_may_say_that_group_0_is_a_part() -> None:
    traces = []
    for name in ("0", "0", "1", "1"):
        traces.append(TraceBuilder())
        all_reduce(traces[-1], pg_name=name)
    groups: Any = {"0": [0, 1], "1": [2, 3]}
    assert run(traces, comm_groups=groups).finish_ns.tolist() == [ALL_REDUCE_NS] * 4


def message(node_type: NodeType, size: int, group: str = "7", **more: Any) -> TraceBuilder:
    trace = TraceBuilder()
    trace.process_groups({"7": [0, 1], "8": [0, 1, 2]})
    trace.add(node_type, "ncclDevKernel_SendRecv", comm_size=size, pg_name=group, **more)
    return trace


def test_a_message_in_a_group_of_two_needs_no_other_end() -> None:
    idle = TraceBuilder()
    ends = message(NodeType.COMM_SEND, 4096), message(NodeType.COMM_RECV, 4096)
    result = run([*ends, idle])
    assert min(result.finish_ns[:2]) > 500
    (said,) = [w for w in result.warnings if "other end" in w]
    assert "2 messages name no other end: each goes to the other member of its group" in said
    with pytest.raises(InputError, match="comm_dst: is missing, and its group has 3 members"):
        run([message(NodeType.COMM_SEND, 9, "8"), message(NodeType.COMM_RECV, 9, "8"), idle])


def test_compute_without_a_duration_is_said() -> None:
    trace = TraceBuilder()
    trace.comp("matmul", num_ops=3 * 10**12, tensor_size_bytes=10**6)
    result = run([trace] * 2)
    assert result.finish_ns.tolist() == [1, 1]
    (said,) = [w for w in result.warnings if "duration" in w]
    assert "1 compute nodes have no duration and take 1 ns each; they have num_ops, from" in said


def test_no_kind_of_run_takes_1_ns_silently() -> None:
    """A check, a run and a replay say so, but not of what stands for a thread as a whole."""
    trace = TraceBuilder()
    trace.comp("[pytorch|profiler|execution_trace|thread]", cpu=True)
    trace.comp("host", cpu=True)
    assert checked([trace] * 2) == [
        "W 1 x operators of the host without a duration, which take 1 ns (first: trace) | "
    ]
    (said,) = [w for w in run([trace] * 2).warnings if "duration" in w]
    assert "1 operators of the host have no duration and take 1 ns each; a trace recorded" in said
    trace.comp("timed", duration_us=1)
    trace.coll(CommType.ALL_REDUCE, 1024)
    replay: Any = {"replay-only": 1}
    (said,) = [w for w in run([trace] * 2, **replay).warnings if "duration" in w]
    assert "2 nodes have no duration and take 1 ns each under replay-only" in said


def test_under_the_roofline_a_recorded_duration_counts_where_there_are_no_operations() -> None:
    trace = TraceBuilder()
    first = trace.comp("measured", duration_us=7)
    trace.comp("modelled", num_ops=10**9, tensor_size_bytes=1000, deps=[first])
    roofline = {"roofline-enabled": 1, "peak-perf": 1}
    assert run([trace] * 2, **roofline).finish_ns.tolist() == [7_000 + 1_000_000] * 2
    trace.comp("neither")
    with pytest.raises(InputError, match="node 2 COMP num_ops: is missing"):
        run([trace] * 2, **roofline)


def test_durations_may_be_in_nanoseconds() -> None:
    trace = TraceBuilder()
    trace.nodes[trace.comp("short", duration_us=2)].attributes["duration_ns"] = 1_499
    assert run([trace] * 2).finish_ns.tolist() == [1_499] * 2
    trace.nodes[0].attributes["duration_ns"] = -1
    with pytest.raises(InputError, match="node 0: duration_ns: -1 is negative"):
        run([trace] * 2)


@pytest.mark.parametrize("keys", [("data_deps", "ctrl_deps"), ("dataDeps", "ctrlDeps")])
def test_both_spellings_of_dependencies_count(keys: tuple[str, str], tmp_path: Path) -> None:
    graph = [
        {"Id": 1, "Name": "a", "NodeType": 4, "runtime": 10},
        {"Id": 2, "Name": "b", "NodeType": 4, "runtime": 10, keys[0]: [1], keys[1]: [1]},
        {"Id": 3, "Name": "c", "NodeType": 4, "runtime": 10, keys[1]: [1]},
    ]
    (tmp_path / "t.json").write_text(json.dumps({"workload_graph": graph}))
    trace = read_trace(tmp_path / "t.json")
    assert trace.dep.tolist() == [0, 0]
    assert trace.dep_is_control.tolist() == [False, True]
    graph[1]["data_deps"], graph[1]["dataDeps"] = [1], [1]
    (tmp_path / "t.json").write_text(json.dumps({"workload_graph": graph}))
    with pytest.raises(InputError, match="given in two spellings"):
        read_trace(tmp_path / "t.json")


def test_files_of_more_ranks_than_the_network_has_are_said(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.comp(duration_us=1)
    GeneratedWorkload([trace] * 5).write(tmp_path / "w")
    workload = read_workload(tmp_path / "w", 3)
    assert workload.warnings == (
        f"{tmp_path / 'w'}: there are traces of 5 ranks, and the network has 3: only those of "
        "ranks 0 to 2 run",
    )
    assert read_workload(tmp_path / "w", 5).warnings == ()


# trace check, trace show


def checked(traces: Sequence[TraceBuilder], groups: Any = None) -> list[str]:
    workload = GeneratedWorkload(traces).workload()
    return [
        f"{'E' if f.stops else 'W'} {f.what} | {f.repair}" for f in check_workload(workload, groups)
    ]


def rank_of(*build: Callable[[TraceBuilder], Any]) -> TraceBuilder:
    trace = TraceBuilder()
    for one in build:
        one(trace)
    return trace


def coll(kind: CommType, size: int, group: int | None = None) -> Callable[[TraceBuilder], Any]:
    return lambda trace: trace.coll(kind, size, group=group)


AR, AG = CommType.ALL_REDUCE, CommType.ALL_GATHER


@pytest.mark.parametrize(
    ("traces", "groups", "said"),
    [
        ([rank_of(coll(AR, 8)), rank_of(coll(AR, 8))], None, []),
        ([rank_of(coll(AR, 8)), rank_of(coll(AR, 9))], None,
         ["E 1 x groups whose members do not run the same collectives (first: group 0, collective "
          "0: all-reduce of 8 B on rank 0, all-reduce of 9 B on rank 1 (1 and 1 in all)) | rec"]),
        ([rank_of(coll(AR, 8), coll(AG, 8)), rank_of(coll(AR, 8))], None,
         ["collective 1: all-gather of 8 B on rank 0, nothing on rank 1 (2 and 1 in all)"]),
        ([rank_of(coll(AR, 8, 5))] * 2, None,
         ["E 2 x collectives of groups that nothing defines (first: rank 0, node 0 ALL_REDUCE: 5"]),
        ([rank_of(coll(AR, 8, 5))] * 2, {5: (0,)},
         ["E 1 x collectives of groups that the rank is not in (first: rank 1"]),
        ([rank_of(lambda t: t.send(1, 64, 3)), rank_of(lambda t: t.recv(0, 64, 3))], None, []),
        ([rank_of(lambda t: t.send(1, 64, 3)), rank_of(lambda t: t.recv(0, 32, 3))], None,
         ["E 1 x messages that nobody receives (first: rank 0, node 0 send: 64 B from 0 to 1 with "
          "tag 3) | the other end has 32 B with tag 3", "E 1 x receives of what nobody sends"]),
        ([rank_of(lambda t: t.send(7, 64, 3)), rank_of()], None,
         ["E 1 x messages to ranks that do not exist (first: rank 0, node 0 send: comm_dst is 7) | "
          "a network of at least 8 ranks"]),
        ([rank_of(lambda t: t.comp("x", num_ops=3, tensor_size_bytes=4))] * 2, None,
         ['W 1 x compute nodes with operations in place of a duration (first: trace) | "roofline']),
        # Two ranks take the same two groups in different orders.
        ([rank_of(coll(AR, 8, 1), coll(AR, 8, 2)), rank_of(coll(AR, 8, 2), coll(AR, 8, 1))],
         {1: (0, 1), 2: (0, 1)},
         ["W 1 x collectives of several groups in different orders on different ranks (first: "]),
        ([rank_of(lambda t: t.add(NodeType.COMP, "a", [1], duration_us=1),
                  lambda t: t.add(NodeType.COMP, "b", [0], duration_us=1))] * 2, None,
         ["E 1 x nodes wait for one another in a circle: [0, 1]"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(traces: list[TraceBuilder], groups: Any, said: list[str]) -> None:
    found = checked(traces, groups)
    assert len(found) == len(said)
    for line in said:
        assert any(line in one for one in found), found


def test_the_commands_check_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = TraceBuilder()
    trace.comp("gemm", duration_us=7)
    trace.coll(CommType.ALL_GATHER, 100, group=1)
    GeneratedWorkload([trace] * 2, {1: (0, 1)}).write(tmp_path / "w")
    assert main(["trace", "check", str(tmp_path / "w")]) == 0
    assert "2 ranks, 4 nodes: 0 kinds of errors, 0 of warnings" in capsys.readouterr().out
    assert main(["trace", "show", str(tmp_path / "w")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gemm", "2", "14", "100.0%"] in rows
    assert ["all-gather", "2", "2", "400", "0"] in rows
    (tmp_path / "w.1.et").write_bytes(rank_of(coll(AR, 3)).encode())
    assert main(["trace", "check", str(tmp_path / "w")]) == 2
