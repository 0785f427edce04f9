# SPDX-License-Identifier: MIT
"""PyTorch's recordings as workloads: made ones, event by event, and real ones where they are."""

from __future__ import annotations

import gc
import gzip
import json
import re
import shlex
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astra_bridge
from astra_bridge.cli import main
from astra_bridge.errors import InputError
from astra_bridge.sources import json_list, kineto
from astra_bridge.sources.communication import facts, kind_of
from astra_bridge.sources.execution_trace import Operator
from astra_bridge.sources.export import RecordedWorkload
from astra_bridge.sources.kineto import read_kineto
from astra_bridge.sources.linking import link
from astra_bridge.sources.pytorch import files_of, recorded_job, unmeasured_job
from astra_bridge.sources.rank import Rank, Step
from astra_bridge.sources.unmeasured import operations
from astra_bridge.trace import CommType, NodeType, read_trace, read_workload
from astra_bridge.trace.checking import check_workload
from astra_bridge.trace.inferences import Inferences
from astra_bridge.workload import GeneratedWorkload, TraceBuilder
from tests.recordings import Recording

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "pytorch"
WORLDS = {"ddp_nccl_1gpu": 1, "ddp_gloo_4": 4, "fsdp2_fake_8": 8, "tp4_dp2_fake_8": 8}
real = pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference/pytorch")


def linked(recording: Recording, tmp_path: Path, made: Inferences | None = None) -> Rank:
    path = recording.write(tmp_path / "k.json")
    return link(read_kineto(path), None, made or Inferences())


def named(rank: Rank, name: str) -> list[int]:
    return [i for i, step in enumerate(rank.steps) if step.name == name]


def ends_ns(steps: list[Step]) -> list[int]:
    """When steps end if nothing is in their way but what they wait for."""
    ends: list[int] = []
    for step in steps:
        ends.append(max((ends[dep] for dep in step.deps), default=0) + step.duration_ns)
    return ends


def before(rank: Rank, later: int) -> set[int]:
    """All that a step waits for, also by way of others."""
    found: set[int] = set()
    todo = [later]
    while todo:
        for dep in rank.steps[todo.pop()].deps:
            if dep not in found:
                found.add(dep)
                todo.append(dep)
    return found


def convert(*words: object) -> int:
    return main(["trace", "convert", *map(str, words)])


# One rank: the host, launches and streams


def test_a_kernel_starts_when_the_host_has_launched_it(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 40)
    recording.kernel(10, 15, 100)
    recording.op(50, 30)
    recording.kernel(60, 115, 7, "relu")
    rank = linked(recording, tmp_path)
    gemm, relu = named(rank, "gemm") + named(rank, "relu")
    assert [rank.steps[i].duration_ns for i in (gemm, relu)] == [100_000, 7_000]
    assert gemm in rank.steps[relu].deps, "a stream runs in order"
    # 12 us to the first launch's end and 50 more to the second's; the second kernel waits.
    assert sorted(step.duration_ns for step in rank.steps if step.cpu) == [12_000, 50_000]
    assert max(ends_ns(rank.steps)) == 12_000 + 100_000 + 7_000


def test_a_kernel_that_starts_late_for_no_known_reason_pauses(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 40)
    recording.kernel(10, 15, 100)
    recording.kernel(20, 400, 7, "relu")  # the GPU is free from 115 on: another process has it
    made = Inferences()
    rank = linked(recording, tmp_path, made)
    (pause,) = named(rank, "pause")
    (relu,) = named(rank, "relu")
    assert rank.steps[relu].deps == [pause]
    step = rank.steps[pause]
    assert (step.type, step.cpu, step.stream) == (NodeType.METADATA, False, 7)
    # The first kernel starts with its launch, 3 us too early: the pause makes up for that, too.
    assert (step.start_ns, step.duration_ns) == (115_000, 288_000)
    assert max(ends_ns(rank.steps)) == 12_000 + 100_000 + 288_000 + 7_000 == 407_000
    assert any("starts as late as recorded" in line for line in made.lines())


def test_gaps_of_a_busy_stream_add_up_to_pauses(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 1000)
    for i in range(200):
        # Launched long before; 2 us pass between one kernel and the next one.
        recording.kernel(1 + 4 * i, 10 + 12 * i, 10)
    made = Inferences()
    rank = linked(recording, tmp_path, made)
    kernels = named(rank, "gemm")
    early = [
        rank.steps[i].start_ns + 10_000 - end
        for i, end in enumerate(ends_ns(rank.steps)) if i in set(kernels)
    ]  # fmt: skip
    assert min(early) >= 0
    assert max(early) < 20_000, "no kernel is 20 us earlier than recorded"
    assert len(named(rank, "pause")) == 200 * 2 // 20
    assert sum(rank.steps[i].duration_ns for i in kernels) == 200 * 10_000
    assert not any("kernel" in line for line in made.lines()), "the gaps are in the recording"


def test_a_lone_trace_that_communicates_among_nobody_knows_how_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of CPU-only recordings, whose distributedInfo has the backend's name and no more."""
    recording = Recording()
    recording.head["distributedInfo"] = {"backend": "nccl"}
    recording.op(0, 50)
    shapes = {"Input Dims": [[64], [64]], "Input type": ["float", "float"]}
    recording.op(10, 20, "c10d::alltoall_base_", **shapes)
    path = recording.write(tmp_path / "k.json")
    assert convert(path, tmp_path / "w") == 2
    said = capsys.readouterr().err
    assert "(c10d::alltoall_base_), and does not say how many ranks the job has" in said
    assert convert(path, tmp_path / "w", "--ranks", 4) == 0
    trace = read_workload(tmp_path / "w", 4).of_rank(3)
    assert trace.comm_size[trace.type == NodeType.COMM_COLL].tolist() == [256]
    assert convert(path, tmp_path / "one", "--ranks", 1) == 0


@pytest.mark.parametrize(
    "name",
    ["void deep_ep::internode::dispatch<false, 8>(int4*)", "nvshmem_put_kernel(char*)",
     "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>(vllm::RankData*)",
     "void (anonymous namespace)::multimem_all_reduce_kernel<c10::BFloat16, 16>(char*)"],
)  # fmt: skip
def test_kernels_that_communicate_without_nccl_are_said(name: str, tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 40)
    recording.kernel(10, 15, 100, name)
    recording.kernel(20, 115, 30, "void at::native::step::mul_kernel(float*)")
    made = Inferences()
    rank = linked(recording, tmp_path, made)
    assert sum(step.duration_ns for step in rank.steps if step.stream == 7) == 130_000
    (line,) = [line for line in made.lines() if "NCCL" in line]
    assert line.startswith("1 x a kernel that communicates without NCCL is compute")
    assert name[:20] in line


def stray(recording: Recording, start: float, dur: float, name: str, stream: int = 7) -> None:
    """A kernel that was launched before the recording began."""
    recording.kernel(0, start, dur, name, stream)
    launch = recording.events[-2]
    assert launch["name"] == "cudaLaunchKernel"
    recording.events.remove(launch)


def test_communication_from_before_the_recording_is_no_compute(tmp_path: Path) -> None:
    recording = Recording(world=8)
    stray(recording, 0, 300, "ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)", 20)
    stray(recording, 400, 200, "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgs)", 20)
    stray(recording, 50, 500, "gemm")
    recording.op(0, 700)
    recording.kernel(60, 560, 40, "relu")
    made = Inferences()
    rank = linked(recording, tmp_path, made)
    gpu = [step for step in rank.steps if step.stream >= 0]
    assert sum(one.duration_ns for one in gpu if one.type == NodeType.COMP) == 540_000
    paused = [one for one in gpu if one.type == NodeType.METADATA and "nccl" in one.name]
    assert [one.duration_ns for one in paused] == [300_000, 200_000]
    assert not any(one.type == NodeType.COMM_COLL for one in gpu)
    (line,) = [line for line in made.lines() if "without a call" in line]
    assert "2 x a communication kernel without a call is a pause" in line
    assert max(ends_ns(rank.steps)) == 700_000


def test_what_was_launched_before_the_recording_takes_no_waits_of_the_host(tmp_path: Path) -> None:
    """It is still running when the host, which is ahead, has waited for a collective."""
    recording = Recording(world=2)
    recording.op(0, 300)
    for i in range(5):
        stray(recording, 100 * i, 90, "old")
    recording.kernel(10, 500, 50, "first")
    recording.collective(40, 700, stream=20)
    recording.op(80, 1, "record_param_comms", **recording.described("wait", 0, "0"))
    recording.kernel(100, 760, 50, "second")
    rank = linked(recording, tmp_path)
    (reduced,) = [i for i, one in enumerate(rank.steps) if one.type == NodeType.COMM_COLL]
    for i in (*named(rank, "old"), *named(rank, "first")):
        assert reduced not in before(rank, i)
    (second,) = named(rank, "second")
    assert reduced in before(rank, second)
    assert {*named(rank, "old")} < before(rank, *named(rank, "first"))


def test_a_synchronisation_is_no_work_of_the_host(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 20)
    recording.kernel(10, 15, 1000)
    recording.call("cudaDeviceSynchronize", 25, 1000)  # until 1025; the kernel ends at 1015
    recording.op(1030, 20)
    recording.kernel(1035, 1040, 5, "relu")
    rank = linked(recording, tmp_path)
    relu = rank.steps[named(rank, "relu")[0]]
    assert named(rank, "gemm")[0] in before(rank, named(rank, "relu")[0])
    host = sum(step.duration_ns for step in rank.steps if step.cpu)
    assert host == 25_000 + (1050 - 1015) * 1000, "up to the call, and from the kernel's end on"
    assert relu.start_ns == 1_040_000


def test_a_stream_that_waits_for_an_event_waits_for_the_collective(tmp_path: Path) -> None:
    recording = Recording(world=1)
    recording.op(0, 20)
    recording.kernel(10, 15, 50)
    recording.collective(60, 200)
    recording.op(85, 10, "aten::add")
    recording.kernel(86, 90, 30, "overlapped")
    recording.call("cudaStreamWaitEvent", 100)
    recording.op(110, 10, "aten::add")
    recording.kernel(111, 275, 9, "after")
    rank = linked(recording, tmp_path)
    (coll,) = (i for i, step in enumerate(rank.steps) if step.facts)
    assert named(rank, "gemm")[0] in before(rank, coll), "its stream waits for the caller's"
    assert coll in before(rank, named(rank, "after")[0])
    assert coll not in before(rank, named(rank, "overlapped")[0])


def test_recorded_events_say_exactly_what_a_stream_waits_for(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 100)
    recording.kernel(10, 15, 50, "a", stream=7)
    recording.kernel(14, 17, 10, "b", stream=8)
    record = recording.call("cudaEventRecord", 18)
    recording.kernel(22, 30, 50, "later", stream=8)
    wait = recording.call("cudaStreamWaitEvent", 26)
    recording.add("cuda_sync", "Stream Wait Event", 26, 0, stream=9, device=0, correlation=wait,
                  wait_on_stream=8, wait_on_cuda_event_record_corr_id=record)  # fmt: skip
    recording.kernel(30, 35, 5, "c", stream=9)
    made = Inferences()
    rank = linked(recording, tmp_path, made)
    waited = before(rank, named(rank, "c")[0])
    assert named(rank, "b")[0] in waited
    assert not {named(rank, "a")[0], named(rank, "later")[0]} & waited
    assert made.lines() == []


def test_a_thread_that_is_woken_waits_for_the_one_that_works(tmp_path: Path) -> None:
    """The forward pass on one thread, the backward pass on another, the optimizer on the first."""
    recording = Recording()
    recording.op(0, 100, tid=1)
    recording.kernel(10, 15, 20, "forward", tid=1)
    recording.op(150, 400, tid=2)
    recording.kernel(160, 165, 20, "backward", tid=2)
    recording.op(600, 50, tid=1)
    recording.kernel(610, 615, 20, "optimizer", tid=1)
    made = Inferences()
    rank = linked(recording, tmp_path, made)
    first, second, third = (named(rank, n)[0] for n in ("forward", "backward", "optimizer"))
    assert first in before(rank, second)
    assert second in before(rank, third)
    ends = ends_ns(rank.steps)
    assert ends[third] == 612_000 + 20_000, "host work: as recorded, no time counted twice"
    assert made.lines() == ["2 x a thread waits for another thread (first: k.json, 150 us)"]


def test_a_thread_that_nothing_waits_for_holds_no_processor(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 1000, tid=1)
    recording.kernel(10, 15, 20, tid=1)
    recording.call("cudaStreamSynchronize", 30, 100, tid=3)
    recording.call("cudaEventRecord", 300, 500, tid=3)
    rank = linked(recording, tmp_path)
    assert sum(step.duration_ns for step in rank.steps if step.cpu) == 1_000_000


def test_kernels_of_a_graph_share_one_launch(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 30)
    link_ = recording.call("cudaGraphLaunch", 10)
    for i in range(3):
        recording.add("kernel", f"k{i}", 20 + 10 * i, 5, 7, correlation=link_, device=0, stream=7)
    rank = linked(recording, tmp_path)
    k = [named(rank, f"k{i}")[0] for i in range(3)]
    assert k[0] in rank.steps[k[1]].deps
    assert k[1] in rank.steps[k[2]].deps


# A backend that communicates on the host


def test_a_thread_of_gloo_carries_out_what_a_call_gives_it(tmp_path: Path) -> None:
    recording = Recording(0, 1)
    recording.op(0, 100)
    recording.op(100, 20, "c10d::allreduce_", **{"Input Dims": [[[64]]], "Input type": ["float"]})
    recording.op(130, 300, "aten::overlapped")
    recording.add("user_annotation", "gloo:all_reduce", 110, 890, 5, **{
        "Input Dims": [[64]], "Input type": ["float"]})  # fmt: skip
    recording.op(1010, 50, "aten::after")  # 580 us after the last one, 10 after the all-reduce
    made = Inferences()
    rank = linked(recording, tmp_path, made)
    (coll,) = (i for i, step in enumerate(rank.steps) if step.facts)
    step = rank.steps[coll]
    assert (step.start_ns, step.duration_ns) == (110_000, 890_000)
    assert step.facts is not None
    assert step.facts.size_bytes(1) == 256
    host = [one for one in rank.steps if one.cpu]
    assert [one.duration_ns for one in host] == [110_000, 320_000, 60_000]
    assert coll in host[2].deps
    assert coll not in host[1].deps
    assert max(ends_ns(rank.steps)) == 1_060_000
    assert "1 x a thread waits for communication of the host" in made.lines()[0]


def test_messages_of_the_host_overlap_and_are_waited_for(tmp_path: Path) -> None:
    """isend and irecv, each annotation from its call to its end, on the calling thread."""
    recording = Recording(0, 2)
    ends = {"Input Dims": [[[8]]], "Input type": ["float"], "Concrete Inputs": ["", "", "1", "0"]}
    shape = {"Input Dims": [[8]], "Input type": ["float"]}
    recording.op(0, 20, "c10d::send", **ends)
    recording.add("user_annotation", "gloo:send", 10, 400, **shape)
    recording.op(30, 20, "c10d::recv_", **ends)
    recording.add("user_annotation", "gloo:recv", 40, 700, **shape)
    recording.op(60, 100, "aten::mm")
    recording.op(760, 40, "aten::add")
    rank = linked(recording, tmp_path)
    send, recv = (i for i, step in enumerate(rank.steps) if step.facts)
    assert [rank.steps[i].type for i in (send, recv)] == [NodeType.COMM_SEND, NodeType.COMM_RECV]
    assert send not in before(rank, recv)
    last = max(i for i, step in enumerate(rank.steps) if step.cpu)
    assert {send, recv} <= before(rank, last)
    assert max(ends_ns(rank.steps)) == 800_000


def test_a_synchronous_collective_of_the_host_is_waited_for(tmp_path: Path) -> None:
    recording = Recording(0, 1)
    recording.op(0, 20)
    more = {"Concrete Inputs": ["", "", "", "False", "-1"], "Input Dims": [[64], [64]],
            "Input type": ["float", "float"]}  # fmt: skip
    recording.op(20, 10, "c10d::_allgather_base_", **more)
    recording.add("user_annotation", "gloo:all_gather", 25, 20, 5, **more)
    recording.op(50, 30, "aten::next")
    made = Inferences()
    rank = linked(recording, tmp_path, made)
    (coll,) = (i for i, step in enumerate(rank.steps) if step.facts)
    assert coll in before(rank, len(rank.steps) - 1)
    assert made.lines() == []


# What a call does


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("c10d::_allgather_base_", CommType.ALL_GATHER),
        ("c10d::allreduce_coalesced_", CommType.ALL_REDUCE),
        ("_c10d_functional::reduce_scatter_tensor", CommType.REDUCE_SCATTER),
        ("_c10d_functional_autograd::all_to_all_single", CommType.ALL_TO_ALL),
        ("c10d_functional::wait_tensor", "wait"),
        ("nccl:send 0->1", "send"),
        ("gloo:all_reduce", CommType.ALL_REDUCE),
        ("all_to_allv", CommType.ALL_TO_ALL),
        ("_reduce_oop", CommType.REDUCE),
        ("startCoalescing", None),
        ("aten::add", None),
    ],
)
def test_names(name: str, kind: object) -> None:
    assert kind_of(name) == kind


def operator(name: str, inputs: list[Any], outputs: list[Any] | None = None) -> Operator:
    return Operator(1, 0, name, 1, 1, inputs, outputs or [], [], {})


def tensor(elements: int, number: int = 5) -> list[Any]:
    return [number, number + 1, 0, elements, 2, "cuda:0"]


@pytest.mark.parametrize(
    ("name", "inputs", "members", "size"),
    [
        # What is written comes first: an all-gather of 10 elements among 8.
        ("c10d::_allgather_base_", [tensor(80), tensor(10), "<Object>", False, -1], 8, 20),
        ("c10d::_reduce_scatter_base_", [tensor(10), tensor(80), "<O>", "<O>", False, -1], 8, 160),
        ("c10d::allreduce_", [[tensor(10), tensor(6)], "<O>", "<O>", "<None>", True, -1], 4, 32),
        ("c10d::alltoall_base_", [tensor(40), tensor(40), "<O>", [], [], True, -1], 4, 80),
        ("_c10d_functional::all_gather_into_tensor", [tensor(10), 8, "3"], 8, 20),
        ("c10d::gather_", [[[tensor(10)] * 4], [tensor(10)], "<O>", 2, -1], 4, 80),
        ("c10d::barrier", ["<O>", [], -1], 4, None),
    ],
)
def test_sizes_are_those_of_chakra(
    name: str, inputs: list[Any], members: int, size: int | None
) -> None:
    known = facts(name, {}, operator(name, inputs))
    assert known.size_bytes(members) == (size if size is not None else 1)


def test_the_values_of_old_records_are_understood() -> None:
    """PyTorch 2.1 wrote no attributes: tensors, number, group, rank, kind, splits."""
    old = operator(
        "record_param_comms",
        [tensor(6144), 147, 94002303359824, 3, "all_to_allv", [768] * 8, [768] * 8],
        [tensor(6144)],
    )
    known = facts("record_param_comms", {}, old)
    assert known.kind == CommType.ALL_TO_ALL
    assert (known.in_bytes, known.sequence) == (12288, 147)
    new = operator(
        "record_param_comms",
        [[tensor(64)], [13, False], ["4", "mesh_tp"], 1, "broadcast", [], [], 8, 1, 4],
        [[tensor(64)]],
    )
    known = facts("record_param_comms", {}, new)
    assert (known.group, known.members, known.root) == ("4", (8, 9, 10, 11), 1)


# Several ranks


def two_ranks(tmp_path: Path, change: Callable[[Recording, int], None]) -> list[Path]:
    paths = []
    for rank in range(2):
        recording = Recording(rank, 2)
        recording.op(0, 20)
        recording.kernel(10, 15, 50)
        change(recording, rank)
        paths.append(recording.write(tmp_path / f"k.{rank}.json"))
    return paths


def test_collectives_of_two_ranks(tmp_path: Path) -> None:
    def change(recording: Recording, rank: int) -> None:
        recording.collective(30, 100, "allreduce", 512)
        recording.collective(160, 100, "_allgather_base", 64)
        recording.collective(300, 100, "broadcast", 64, Rank=1)

    two_ranks(tmp_path, change)
    assert convert(tmp_path / "k.{rank}.json", tmp_path / "w") == 0
    trace = read_workload(tmp_path / "w", 2).of_rank(0)
    comm = trace.type == NodeType.COMM_COLL
    assert trace.comm_type[comm].tolist() == [0, 2, 5]
    assert trace.comm_size[comm].tolist() == [1024, 128, 128]
    assert trace.root[comm].tolist()[2] == 1


def test_messages_know_their_peers(tmp_path: Path) -> None:
    def change(recording: Recording, rank: int) -> None:
        kind, end = (("send", "Dst Rank"), ("recv", "Src Rank"))[rank]
        recording.collective(30, 100, kind, 512, **{end: 1 - rank})
        recording.collective(200, 100, ("recv", "send")[rank], 256)  # a group of two: no end needed

    two_ranks(tmp_path, change)
    assert convert(tmp_path / "k.{rank}.json", tmp_path / "w") == 0
    workload = read_workload(tmp_path / "w", 2)
    assert workload.of_rank(0).comm_dst.max() == 1
    assert workload.of_rank(1).comm_src.max() == 0
    assert sorted(workload.of_rank(0).comm_size[workload.of_rank(0).comm_size > 0]) == [512, 1024]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r, k: r.collective(30, 9, ("allreduce", "broadcast")[k], 8),
         r"'0': collective 0 is broadcast of 16 B on rank 1, and all-reduce of 16 B on rank 0"),
        (lambda r, k: [r.collective(30 + 30 * i, 9) for i in range(2 - k)],
         r"collective 1 is missing on rank 1, and all-reduce of 1,024 B on rank 0 \(1 and 2 in"),
        (lambda r, k: r.collective(30, 9, ("send", "recv")[k], (8, 9)[k]),
         r"rank 0 sends 1 messages to rank 1, .*from message 0 on: 16 B sent, 18 B received"),
        (lambda r, k: k or r.collective(30, 9, "send"), r"16|nothing received"),
    ],
)  # fmt: skip
def test_both_ends_must_fit(
    change: Callable[[Recording, int], Any], said: str, tmp_path: Path
) -> None:
    paths = two_ranks(tmp_path, change)
    with pytest.raises(InputError, match=said):
        recorded_job(paths, {}, None, Inferences())


def test_ranks_that_are_missing_are_said(tmp_path: Path) -> None:
    paths = two_ranks(tmp_path, lambda r, _: r.collective(30, 9))
    with pytest.raises(InputError, match=r"2 ranks, and there are traces of 1: .*--ranks 2"):
        recorded_job(paths[:1], {}, None, Inferences())
    with pytest.raises(InputError, match=r"are all of rank 0"):
        recorded_job([paths[0], paths[0]], {}, None, Inferences())
    (tmp_path / "k.1.json").rename(tmp_path / "k.2.json")
    with pytest.raises(InputError, match=r"files of ranks \[1\] are missing"):
        files_of(tmp_path / "k.{rank}.json", "--kineto")


# One rank for all


def grid(kind: str, groups: dict[str, list[int]], world: int = 8, **more: Any) -> Recording:
    recording = Recording(0, world, groups)
    recording.op(0, 20)
    recording.kernel(10, 15, 50)
    for i, group in enumerate(groups):
        recording.collective(30 + 100 * i, 50, kind, 512, group, **more)
    return recording


def test_one_rank_stands_for_a_grid(tmp_path: Path) -> None:
    grid("allreduce", {"tp": [0, 1, 2, 3], "dp": [0, 4]}).write(tmp_path / "k.json")
    assert convert(tmp_path / "k.json", tmp_path / "w", "--ranks", 8) == 0
    groups = json.loads((tmp_path / "w.comm_group.json").read_text())
    assert sorted(groups.values()) == [[0, 1, 2, 3], [0, 4], [1, 5], [2, 6], [3, 7], [4, 5, 6, 7]]
    workload = read_workload(tmp_path / "w", 8)
    for rank in range(8):
        trace = workload.of_rank(rank)
        used = [trace.strings[i] for i in trace.pg_name[trace.type == NodeType.COMM_COLL]]
        assert [rank in groups[name] for name in used] == [True, True]
        assert [len(groups[name]) for name in used] == [4, 2]


@pytest.mark.parametrize("ranks", [4, 16])
def test_a_group_of_all_grows(ranks: int, tmp_path: Path) -> None:
    grid("allreduce", {"0": list(range(8))}).write(tmp_path / "k.json")
    assert convert(tmp_path / "k.json", tmp_path / "w", "--ranks", ranks) == 0
    assert not (tmp_path / "w.comm_group.json").exists()
    assert read_workload(tmp_path / "w", ranks).ranks == ranks


def test_what_is_not_symmetric_is_refused(tmp_path: Path) -> None:
    path = grid("allreduce", {"odd": [0, 1, 3]}).write(tmp_path / "k.json")
    with pytest.raises(InputError, match=r"'odd'.*none of a grid of 8 ranks"):
        recorded_job([path], {}, 8, Inferences())
    path = grid("send", {"pp": [0, 4]}, **{"Dst Rank": 4}).write(tmp_path / "k.json")
    with pytest.raises(InputError, match="what no rank that does the same would receive"):
        recorded_job([path], {}, 8, Inferences())


def test_messages_around_a_ring_are_symmetric(tmp_path: Path) -> None:
    recording = Recording(0, 4)
    recording.op(0, 20)
    recording.kernel(10, 15, 50)
    recording.collective(30, 50, "send", 512, **{"Dst Rank": 1})
    recording.collective(130, 50, "recv", 512, **{"Src Rank": 3})
    path = recording.write(tmp_path / "k.json")
    job = recorded_job([path], {}, 4, Inferences())
    assert [sorted(peers.values()) for peers in job.peer_of] == [[1, 3], [0, 2], [1, 3], [0, 2]]


# The command


def test_every_inference_is_printed_and_can_be_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid("allreduce", {"0": list(range(8))}).write(tmp_path / "k.json")
    assert convert(tmp_path / "k.json", tmp_path / "w", "--ranks", 8) == 0
    printed = capsys.readouterr().out
    assert f"--workload-configuration={tmp_path / 'w'}\n" in printed
    assert "  1 x one rank's trace stands for all 8 ranks (first: k.json)\n" in printed
    assert convert(tmp_path / "k.json", tmp_path / "x", "--ranks", 8, "--strict") == 2
    assert "--strict allows no inference, and these were made: " in capsys.readouterr().err
    assert not (tmp_path / "x.0.et").exists()


def test_a_recording_runs_as_it_is(tmp_path: Path) -> None:
    two_ranks(tmp_path, lambda r, _: r.collective(30, 100))
    workload = read_workload(tmp_path / "k.{rank}.json", 2)
    assert (workload.of_rank(0).type == NodeType.COMM_COLL).sum() == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"traceEvents": []}', "holds no operator of the host and no kernel"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel"', "not valid JSON, or cut off"),
        (b'{"traceEvents": 3}', "has no list \"?'?traceEvents"),
        (b'{"deviceProperties": [', "has no list \"?'?traceEvents"),
        (b"SQLite format 3\0", "this is a database"),
        (b"\x1f\x8b\x08\0damaged", "the gzip-compressed file is damaged"),
    ],
)
def test_what_is_no_recording_is_said(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "k.json").write_bytes(content)
    assert convert(tmp_path / "k.json", tmp_path / "w") == 2
    assert re.search(said, capsys.readouterr().err)


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake process group: sizes and groups are in the execution trace alone."""
    monkeypatch.chdir(tmp_path)
    for rank in range(2):
        recording = Recording(rank, 2)
        recording.op(0, 20)
        recording.kernel(10, 15, 50)
        recording.op(40, 10, "c10d::_allgather_base_")
        recording.write(tmp_path / f"kineto.{rank}.json.gz")
        recording.execution_trace(
            tmp_path / f"et.{rank}.json.gz",
            {"c10d::_allgather_base_": [tensor(80), tensor(40), "<Object>", False, -1]},
        )
    page = (Path(__file__).parents[2] / "docs/recordings.md").read_text(encoding="utf-8")
    commands = re.findall(r"^astra-bridge (.*)", page, re.MULTILINE)
    assert len(commands) == 1
    for command in commands:
        assert main(shlex.split(command)) == 0
    trace = read_workload("out/step", 2).of_rank(1)
    assert trace.comm_size[trace.type == NodeType.COMM_COLL].tolist() == [80]
    assert main(["trace", "convert", "--kineto", "kineto.{rank}.json.gz", "out/x"]) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"traceEvents": []}', "this is a Kineto trace .*`astra-bridge trace convert w.0.et OUT`"),
        ('<algo name="a" ngpus="2">', "this is an MSCCL algorithm"),
        ("num_ranks 2\nrank 0 {\n}", "this is a GOAL schedule"),
        ('{"schema": "1.1", "nodes": []}', "this is a PyTorch execution trace"),
        ("HYBRID_TRANSFORMER x: 1\n1\n", "this is a text workload of SimAI or AICB"),
        ("DATA\n1\nx", "this is a text workload of ASTRA-sim 1.0"),
        ('{"scheduling-policy": "LIFO"}', "a system configuration.*`--system-configuration=w"),
        ("# x\ntopology: [ Ring ]\n", "a network configuration.*`--network-configuration=w"),
        ("SQLite format 3\0", "this is a database"),
        ('{"architectures": ["A"]}', "a model's configuration .*`astra-bridge workload model w"),
        ("name: x\ncomponents:\n- name: y\nlinks:\n- name: z\nedges:\n", "an InfraGraph"),
        ('{"name": "x", "collective": "allreduce", "gpus": []}', "an execution plan of MSCCL"),
        ('<?xml version="1.0"?>\n<system version="1">', "a topology or graph of NCCL"),
        ('{"rocprofiler-sdk-tool": []}', "a profile of rocprofv3"),
        ("\n\x08\x12\x0e/host:metadata", "a profile of JAX"),
        ("<tests><test/></tests>", "XML, but no algorithm of MSCCL"),
    ],
)
def test_a_wrong_kind_of_file_is_named(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.0.et").write_text(content)
    with pytest.raises(InputError, match=said):
        read_workload("w", 1)
    Path("w.json").write_text(content)
    with pytest.raises(InputError, match=said.partition(" .*")[0]):
        read_workload("w.json", 1, trace_format="chakra")
    with pytest.raises(InputError, match=said.partition(" .*")[0]):
        read_trace("w.json")


def test_json_of_another_kind_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "ops.json"
    path.write_text('{"torch.mm": {"build": []}, "torch.add": {}}')
    with pytest.raises(
        InputError, match=r"holds no trace: its keys are 'torch\.mm', 'torch\.add'; "
    ):
        read_trace(path)


@pytest.mark.parametrize("flag", ["--from=pytorch", "--kineto", "--from=goal", "--from=msccl"])
def test_a_forced_format_does_not_hide_what_a_file_is(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.txt"
    path.write_text("DATA\n1\na -1 1 NONE 0 1 NONE 0 1 ALLREDUCE 8 1\n")
    given = [flag, str(path)] if flag.startswith("--k") else [str(path), flag]
    out = str(tmp_path / "out")
    words = [*given, out] if flag.startswith("--k") else [given[0], out, given[1]]
    assert main(["trace", "convert", "--size", "1KiB", *words]) == 2
    said = capsys.readouterr().err
    assert f"this is a text workload of ASTRA-sim 1.0; `astra-bridge trace convert {path}" in said


def test_one_rank_in_place_of_a_prefix(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.comp(duration_us=1)
    GeneratedWorkload([trace] * 2).write(tmp_path / "w")
    with pytest.raises(InputError, match=r"the trace of rank 1 alone: .* `.*w`"):
        read_workload(tmp_path / "w.1.et", 2)


# An execution trace alone


@pytest.mark.parametrize(
    ("name", "shapes", "flops"),
    [
        ("aten::mm", [[4, 8], [8, 16]], 2 * 4 * 8 * 16),
        ("aten::addmm", [[16], [4, 8], [8, 16], [], []], 2 * 4 * 8 * 16),
        ("aten::bmm", [[3, 4, 8], [3, 8, 16]], 2 * 3 * 4 * 8 * 16),
        # 2 sequences, 4 heads, 128 queries, 256 keys of 64: two products of 2 each.
        ("aten::_scaled_dot_product_flash_attention", [[2, 4, 128, 64]] + 2 * [[2, 4, 256, 64]],
         2 * 2 * 2 * 4 * 128 * 256 * 64),
        ("aten::convolution", [[1, 3, 8, 8], [16, 3, 3, 3], [16]], 2 * 100 * 27),
        ("aten::add", [[4, 8], [4, 8], []], 100),
    ],
)  # fmt: skip
def test_operations_are_those_of_the_textbook(name: str, shapes: list[Any], flops: int) -> None:
    given = Operator(1, 0, name, 1, 1, [], [tensor(100)], shapes, {})
    assert operations(given) == flops


@real
@pytest.mark.parametrize("name", WORLDS)
def test_an_execution_trace_alone_has_the_same_collectives(name: str) -> None:
    """And its time by the roofline is of the recorded one's order."""
    folder, world = REFERENCE / name, WORLDS[name]
    execution = files_of(folder / "et.{rank}.json.gz", "--et")
    kineto = files_of(folder / "kineto.{rank}.json.gz", "--kineto")
    ranks = None if len(kineto) == world else world
    alone = RecordedWorkload(unmeasured_job(execution, ranks, Inferences())).workload()
    both = RecordedWorkload(recorded_job(kineto, execution, ranks, Inferences())).workload()
    ours, theirs = alone.of_rank(0), both.of_rank(0)
    for column in ("comm_type", "comm_size"):
        found = [
            getattr(one, column)[one.type == NodeType.COMM_COLL].tolist() for one in (ours, theirs)
        ]
        assert found[0] == found[1]
    compute = (ours.type == NodeType.COMP) & ~ours.is_cpu_op
    least_us = np.maximum(ours.num_ops / 989e6, ours.tensor_size / 3.35e6)[compute].sum()
    measured = (theirs.type == NodeType.COMP) & ~theirs.is_cpu_op
    assert 0.05 < least_us / theirs.duration_micros[measured].sum() < 1.1


# The reader


def test_blocks_are_cut_between_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording()
    for i in range(300):
        # Text that looks like a cut, and entries inside of entries.
        recording.op(10 * i, 5, 'odd }, {"ph": [', nested=[{"name": "a"}, {"name": "b"}] * 3)
        recording.kernel(10 * i + 1, 10 * i + 2, 3)
    path = recording.write(tmp_path / "k.json.gz")
    whole = read_kineto(path)
    for size in (700, 1500, 9000):
        monkeypatch.setattr(json_list.blocks, "__defaults__", (size,))
        parts = read_kineto(path)
        assert parts.gpu == whole.gpu
        assert np.array_equal(parts.op_start_ns, whole.op_start_ns)
    assert len(whole.gpu) == 300
    assert whole.distributed["world_size"] == 1


def test_numbers_that_json_lacks_are_borne_with(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 20)
    recording.kernel(10, 15, 0, occupancy="INF")
    path = recording.write(tmp_path / "k.json")
    path.write_text(path.read_text().replace('"INF"', "inf").replace("distrib", "distrib"))
    assert len(read_kineto(path).gpu) == 1


def test_a_stream_keeps_its_order_where_launches_were_lost(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 100)
    recording.kernel(10, 60, 5, "last")
    recording.add("kernel", "first", 40, 9, 7, correlation=99999, device=0, stream=7)
    rank = linked(recording, tmp_path)
    first, last = named(rank, "first")[0], named(rank, "last")[0]
    assert first in rank.steps[last].deps
    assert ends_ns(rank.steps)[first] == 49_000


def test_what_was_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[weakref.ref[Any]] = []

    class Reader(kineto._Reader):
        def __init__(self, file: Path) -> None:
            super().__init__(file)
            readers.append(weakref.ref(self))

    monkeypatch.setattr(kineto, "_Reader", Reader)
    recording = Recording()
    recording.op(0, 20)
    read_kineto(recording.write(tmp_path / "k.json"))
    gc.collect()
    assert [one() for one in readers] == [None]


# Real recordings


GROUPS = {"ddp_nccl_1gpu": 1, "ddp_gloo_4": 4, "fsdp2_fake_8": 8, "tp4_dp2_fake_8": 4}
"""Ranks of each collective, as the program that was recorded made them."""


def contributed_bytes(node: dict[str, Any]) -> int:
    """What a rank puts into a collective, by the tensors of its call in an execution trace."""
    values = node["inputs"]["values"]
    tensor = values[0][0] if node["name"].endswith("allreduce_") else values[1]
    return int(tensor[3]) * int(tensor[4])


def in_order_of_streams(steps: list[Step], events: list[dict[str, Any]]) -> None:
    """On every stream, steps are what was recorded, by name and duration, in that order."""
    recorded: dict[int, list[tuple[float, str, int]]] = defaultdict(list)
    for event in events:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            took_ns = round(event["dur"] * 1000)
            recorded[event["args"]["stream"]].append((event["ts"], event["name"], took_ns))
    made: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for step in steps:
        if step.stream >= 0 and step.facts is None and step.type == NodeType.COMP:
            made[step.stream].append((step.name, step.duration_ns))
    found = {
        stream: [(name, took) for _, name, took in sorted(those) if "nccl" not in name.lower()]
        for stream, those in recorded.items()
    }
    assert made == {stream: those for stream, those in found.items() if those}
    last: dict[int, int] = {}
    for at, step in enumerate(steps):
        if step.stream >= 0:
            before = last.get(step.stream)
            assert before is None or before in step.deps or step.deps == steps[before].deps
            last[step.stream] = at


@real
@pytest.mark.parametrize("name", WORLDS)
def test_real_recordings_agree(name: str, tmp_path: Path) -> None:
    folder, world = REFERENCE / name, WORLDS[name]
    kineto = files_of(folder / "kineto.{rank}.json.gz", "--kineto")
    execution = files_of(folder / "et.{rank}.json.gz", "--et")
    job = recorded_job(kineto, execution, None if len(kineto) == world else world, Inferences())
    workload = RecordedWorkload(job).workload()
    for rank, path in kineto.items():
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        recorded_us = sum(
            e["dur"] for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
        )
        trace = workload.of_rank(rank)
        compute = (trace.type == NodeType.COMP) & ~trace.is_cpu_op
        assert trace.duration_micros[compute].sum() == pytest.approx(recorded_us, rel=1e-3)
        assert trace.duration_ns[compute].sum() == pytest.approx(recorded_us * 1000, rel=1e-6)
        in_order_of_streams(job.ranks[rank].steps, events)
        nodes = json.loads(gzip.decompress(execution[rank].read_bytes()))["nodes"]
        calls = Counter(
            n["name"] for n in nodes if n["name"].startswith("c10d::") and "wait" not in n["name"]
        )
        kinds = Counter(CommType(k) for k in trace.comm_type[trace.type == NodeType.COMM_COLL])
        assert kinds == sum((Counter({kind_of(k): n}) for k, n in calls.items()), Counter())
        sizes = trace.comm_size[trace.type == NodeType.COMM_COLL].tolist()
        assert sorted(sizes) == sorted(contributed_bytes(n) for n in nodes if n["name"] in calls)
        members = {g.name: len(g.ranks) for g in trace.process_groups}
        groups = trace.pg_name[trace.type == NodeType.COMM_COLL].tolist()  # -1: all ranks
        assert {members[trace.strings[g]] if g >= 0 else world for g in groups} == {GROUPS[name]}
    system = {
        "scheduling-policy": "LIFO", "preferred-dataset-splits": 1, "replay-only": 1,
        "all-reduce-implementation": ["ring"],
    }  # fmt: skip
    network = {
        "topology": ["Switch"], "npus_count": [world], "bandwidth": [400], "latency": [500]
    }  # fmt: skip
    for semantics, off in (("astra-sim", 0.02), ("corrected", 0.001)):
        result = astra_bridge.simulate(
            workload=workload, system=system, network=network, semantics=semantics
        )
        spans = [one.span_ns for one in job.ranks]
        assert np.array(result.finish_ns) == pytest.approx(spans, rel=off)


# NCCL in batches, and compiled kernels


def test_a_batch_of_messages_is_one_kernel(tmp_path: Path) -> None:
    """batch_isend_irecv: calls without kernels, then one kernel at the end of the group."""

    def change(recording: Recording, rank: int) -> None:
        for i, (kind, key) in enumerate((("send", "Dst Rank"), ("recv", "Src Rank"))):
            args = recording.described(kind, 512, "0", **{key: 1 - rank})
            recording.op(30 + 10 * i, 9, "c10d::send" if kind == "send" else "c10d::recv_")
            recording.op(31 + 10 * i, 7, "record_param_comms", **args)
        recording.call("cudaStreamWaitEvent", 52)
        recording.kernel(55, 70, 40, "ncclDevKernel_SendRecv(ncclComm*)", 20)

    paths = two_ranks(tmp_path, change)
    job = recorded_job(paths, {}, None, Inferences())
    steps = [step for step in job.ranks[0].steps if step.facts]
    assert [step.type for step in steps] == [NodeType.COMM_SEND, NodeType.COMM_RECV]
    assert [step.duration_ns for step in steps] == [40_000, 40_000]
    assert steps[0].deps == steps[1].deps
    assert [sorted(peers.values()) for peers in job.peer_of] == [[1, 1], [0, 0]]
    workload = RecordedWorkload(job).workload()
    assert check_workload(workload) == []


def test_kernels_that_a_compiler_made_are_compute(tmp_path: Path) -> None:
    recording = Recording()
    recording.op(0, 30, "Torch-Compiled Region: 0/0")
    link_ = recording.correlation = 500
    recording.add("cuda_driver", "cuLaunchKernel", 10, 3, 1, correlation=link_)
    recording.add(
        "kernel", "triton_poi_fused_add_0", 20, 7, 7, correlation=link_, device=0, stream=7
    )
    rank = linked(recording, tmp_path)
    kernel = rank.steps[named(rank, "triton_poi_fused_add_0")[0]]
    assert (kernel.duration_ns, kernel.cpu) == (7_000, False)
    assert rank.steps[kernel.deps[0]].name == "cuLaunchKernel"
