# SPDX-License-Identifier: MIT
"""Files of other simulators: GOAL (LogGOPSim, ATLAHS), MSCCL's algorithms, SimAI."""

from __future__ import annotations

import gzip
import re
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astra_bridge
from astra_bridge.cli import main
from astra_bridge.errors import InputError
from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.sources import goal
from astra_bridge.sources.goal import read_goal
from astra_bridge.sources.msccl import read_msccl
from astra_bridge.sources.simai import read_simai
from astra_bridge.trace import NodeType, read_workload
from astra_bridge.trace.checking import check_workload
from astra_bridge.trace.formats import count_ranks
from astra_bridge.trace.inferences import Inferences
from astra_bridge.trace.overview import overview
from tests.recordings import Recording

NETWORK = {"topology": ["Ring"], "npus_count": [2], "bandwidth": [50], "latency": [500]}
SYSTEM = {"preferred-dataset-splits": 1, "all-reduce-implementation": ["ring"]}

GOAL = """
// A ping and a pong.
num_ranks 2

rank 0 {
l1: calc 100 cpu 0
l2: send 1024b to 1 tag 0   # a comment
l3: recv 8b from 1 tag 7 cpu 1 nic 0
l4: calc 50
l2 requires l1
l4 irequires l3
l3 requires l2
}
rank 1 { /* the
other end */
l1: recv 1024b from 0
l2: send 8b to 0 tag 7
l2 requires l1
}
"""


def test_a_goal_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.goal").write_bytes(gzip.compress(GOAL.encode()))
    assert main(["trace", "convert", str(tmp_path / "s.goal"), str(tmp_path / "w")]) == 0
    assert "1 x irequires: after what the other one waits for (first: l4 on rank 0)" in (
        capsys.readouterr().out
    )
    for name in ("w", "s.goal"):
        workload = read_workload(tmp_path / name, 2)
        first, second = workload.of_rank(0), workload.of_rank(1)
        assert first.type.tolist() == [NodeType.COMP, NodeType.COMM_SEND, NodeType.COMM_RECV, 4]
        assert first.dep.tolist() == [0, 1, 1]
        assert first.duration_ns.tolist()[0] == 100
        assert first.comm_tag.tolist()[1:3] == [0, 7]
        assert second.comm_size.tolist() == [1024, 8]
        said = check_workload(workload)
        assert [one.stops for one in said] == [False] * (name == "s.goal")
    result = astra_bridge.simulate(workload=tmp_path / "s.goal", system=SYSTEM, network=NETWORK)
    # 100 + (500 + 1024 B / 50 GiB/s = 19) + (500 + 8 B: 0); the last calc runs meanwhile.
    assert result.finish_ns.tolist() == [100 + 519 + 500] * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_ranks 2\nrank 2 {\n}", "line 2: rank 2: there are ranks 0 to 1"),
        ("num_ranks 2\nrank 0 {\nl1: calc\n}", r"line 3: expected LABEL: calc NS, .*'l1: calc'"),
        ("num_ranks 2\nrank 0 {\nl1: send 4b to 0\n}", "rank 0 cannot send to rank 0"),
        ("num_ranks 2\nrank 0 {\nl1: calc 4\nl1: calc 5\n}", "line 4: label l1 is given twice"),
        ("num_ranks 2\nrank 0 {\nl1: calc 4\nl1 requires l9\n}", "line 4: there is no label l9"),
        ("num_ranks 2\nrank 0 {\n", "rank 0: the brace is never closed"),
        ("num_ranks 1\nrank 0 {}\nrank 0 {}", "line 3: rank 0: is given twice"),
        ("num_ranks 0\n", "num_ranks"),
        ("num_ranks 1 x", "expected rank NUMBER"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_goal_schedule_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.goal").write_text(text)
    with pytest.raises(InputError, match=said.replace(": rank", ".*rank", 1)):
        read_goal(tmp_path / "s.goal", Inferences())


def test_a_long_schedule_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs grows with its length: no line is counted from the start of the file."""
    rank = "\n".join(f"l{i}: calc 5\nl{i} requires l{max(0, i - 1)}" for i in range(1, 400))
    text = "num_ranks 3\n" + "".join(f"rank {r} {{\nl0: calc 5\n{rank}\n}}\n" for r in range(3))
    counted: list[int] = []

    class Lines(goal._Lines):
        def of(self, at: int) -> int:
            counted.append(abs(at - self._at))
            return super().of(at)

    monkeypatch.setattr(goal, "_Lines", Lines)
    monkeypatch.setattr(goal, "_line", None)
    path = tmp_path / "s.goal"
    path.write_text(text)
    made = read_goal(path, Inferences()).workload()
    assert [len(made.of_rank(r)) for r in range(3)] == [400] * 3
    assert len(counted) == 3 * 400
    assert sum(counted) < len(text)
    monkeypatch.undo()
    path.write_text(text.replace("}\n", "x: calc 1\nx: calc 2\n}\n"))
    with pytest.raises(InputError, match="label x is given twice") as failed:
        read_goal(path, Inferences())
    assert failed.value.key == "line 803"


def ring_all_reduce(ranks: int) -> str:
    """A ring: reduce-scatter, then all-gather; a chunk per rank."""
    gpus = []
    for rank in range(ranks):
        steps = ['<step s="0" type="s" srcbuf="i" srcoff="0" cnt="1" depid="-1" deps="-1"/>']
        kinds = ["rrs"] * (ranks - 2) + ["rrcs"] + ["rcs"] * (ranks - 2)
        steps += [
            f'<step s="{at}" type="{kind}" cnt="1" depid="-1" deps="-1"/>'
            for at, kind in enumerate(kinds, 1)
        ]
        steps.append(f'<step s="{2 * ranks - 2}" type="r" cnt="1" depid="-1" deps="-1"/>')
        to, source = (rank + 1) % ranks, (rank - 1) % ranks
        block = f'<tb id="0" send="{to}" recv="{source}" chan="0">{"".join(steps)}</tb>'
        gpus.append(f'<gpu id="{rank}" i_chunks="{ranks}" o_chunks="0" s_chunks="0">{block}</gpu>')
    return (
        f'<algo name="ring" nchunksperloop="{ranks}" nchannels="1" ngpus="{ranks}" '
        f'coll="allreduce" proto="Simple">{"".join(gpus)}</algo>'
    )


@pytest.mark.parametrize("ranks", [2, 4])
def test_an_msccl_ring_is_a_ring(
    ranks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ring.xml").write_text(ring_all_reduce(ranks))
    words = ["trace", "convert", str(tmp_path / "ring.xml"), str(tmp_path / "ring")]
    assert main(words) == 2
    assert "--size: an MSCCL algorithm has chunks, not bytes" in capsys.readouterr().err
    assert main([*words, "--size", "1MiB"]) == 0
    used = f'"all-reduce-implementation-custom": ["{tmp_path / "ring"}"]'
    assert used in capsys.readouterr().out
    workload = read_workload(tmp_path / "ring", ranks)
    assert check_workload(workload) == []
    sent = workload.of_rank(0).type == NodeType.COMM_SEND
    assert sent.sum() == 2 * (ranks - 1)
    assert workload.of_rank(0).comm_size[sent].sum() == 2 * (ranks - 1) * 2**20 // ranks
    system: dict[str, Any] = SYSTEM | {"all-reduce-implementation-custom": [str(tmp_path / "ring")]}
    network = NETWORK | {"npus_count": [ranks]}
    ours, theirs = (
        astra_bridge.simulate(
            workload={"generator": "collective", "kind": "all-reduce", "size": "1MiB"},
            system=used_system, network=network,
        ).finish_ns.max()
        for used_system in (system, SYSTEM | {"endpoint-delay": 0, "local-mem-bw": 10**9})
    )  # fmt: skip
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<algo", "not valid XML"),
        ("<algorithm/>", "expected an element algo, found 'algorithm'"),
        ('<algo ngpus="2"/>', "algo: nchunksperloop: is missing"),
        ('<algo ngpus="2" nchunksperloop="2"><gpu id="2"/></algo>', "gpu: id"),
        ('<algo ngpus="2" nchunksperloop="2"><gpu id="0"/><gpu id="0"/></algo>', "given twice"),
        ('<algo ngpus="2" nchunksperloop="2"><gpu id="0"><tb id="0" send="1" recv="-1" chan="0">'
         '<step s="0" type="x"/></tb></gpu></algo>', "gpu 0, tb 0, step 0: unknown type 'x'"),
        ('<algo ngpus="2" nchunksperloop="2"><gpu id="0"><tb id="0" send="1" recv="-1" chan="0">'
         '<step s="0" type="r"/></tb></gpu></algo>', "the block's recv is -1"),
        ('<algo ngpus="2" nchunksperloop="2"><gpu id="0"><tb id="0" send="1" recv="-1" chan="0">'
         '<step s="0" type="s" depid="3" deps="0"/></tb></gpu></algo>', "step 0 of block 3, which"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_algorithm_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_msccl(tmp_path / "a.xml", 1024)


def test_an_algorithm_that_does_not_say_how_many_gpus_it_has(tmp_path: Path) -> None:
    text = ring_all_reduce(4)
    path = tmp_path / "ring.xml"
    path.write_text(text)
    expected = read_msccl(path, 4096).workload()
    path.write_text(re.sub(r' ngpus="4"', "", text))
    found = read_msccl(path, 4096).workload()
    assert found.ranks == expected.ranks == 4
    assert found.of_rank(3).comm_size.tolist() == expected.of_rank(3).comm_size.tolist()


def test_steps_wait_for_steps_of_other_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<algo ngpus="2" nchunksperloop="1" coll="allgather"><gpu id="0">'
        '<tb id="0" send="-1" recv="1" chan="0"><step s="0" type="r" cnt="1"/></tb>'
        '<tb id="1" send="1" recv="-1" chan="1"><step s="0" type="nop" depid="0" deps="0"/>'
        '<step s="1" type="s" cnt="2"/></tb></gpu></algo>'
    )
    trace = read_msccl(tmp_path / "a.xml", 100).workload().of_rank(0)
    assert trace.type.tolist() == [NodeType.COMM_RECV, NodeType.COMP, NodeType.COMM_SEND]
    assert trace.dep.tolist() == [0, 1]
    assert trace.comm_size.tolist()[2] == 200


# SimAI

LAYERS = """grad\t-1\t0\tNONE\t0\t1\tNONE\t0\t1\tREDUCESCATTER\t6400\t100
attention -1 752000 ALLREDUCE 4096 752000 ALLREDUCE 4096 752000 NONE 0 100
moe -1 500 ALLTOALL_EP 2048 1500 ALLTOALL_EP 2048 2500 ALLGATHER_DP_EP 1600 100
"""


def simai(head: str, tmp_path: Path, layers: str = LAYERS, count: int = 3) -> Path:
    path = tmp_path / "g.txt"
    path.write_text(f"HYBRID_TRANSFORMER_FWD_IN_BCKWD {head}\n{count}\n{layers}")
    return path


def test_a_workload_of_simai(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "model_parallel_NPU_group: 2 ep: 2 pp: 1 vpp: 8 ga: 1 all_gpus: 8 checkpoints: 0"
    path = simai(head, tmp_path)
    assert main(["trace", "convert", str(path), str(tmp_path / "w")]) == 0
    assert f"--comm-group-configuration={tmp_path / 'w.comm_group.json'}" in capsys.readouterr().out
    groups = read_comm_groups(tmp_path / "w.comm_group.json", 8)
    workload = read_workload(tmp_path / "w", 8)
    assert check_workload(workload, groups) == []
    trace = workload.of_rank(5)
    comm = np.flatnonzero(trace.type == NodeType.COMM_COLL)
    members = [groups[int(trace.strings[trace.pg_name[at]])] for at in comm]
    found = list(zip(trace.comm_size[comm].tolist(), members, strict=True))
    tensor, data, expert, replicas = (4, 5), (1, 3, 5, 7), (5, 7), (1, 5)
    assert found == [
        (4096, tensor), (2048, expert),  # forward
        (2048, expert), (800, replicas),  # backward: 1600 bytes are gathered of two parts
        (4096, tensor), (6400, data),
    ]  # fmt: skip
    compute = trace.type == NodeType.COMP
    assert trace.duration_ns[compute].sum() == 0 + 1 + 1 + 3 * 752_000 + 500 + 1500 + 2500
    result = astra_bridge.simulate(
        workload=path, system=SYSTEM | {
            "all-gather-implementation": ["ring"], "reduce-scatter-implementation": ["ring"],
            "all-to-all-implementation": ["ring"],
        },
        network=NETWORK | {"npus_count": [8]}, comm_groups=tmp_path / "w.comm_group.json",
    )  # fmt: skip
    assert result.finish_ns.min() > trace.duration_ns[compute].sum()


def test_what_a_workload_of_simai_leaves_open_is_said(tmp_path: Path) -> None:
    made = Inferences()
    with pytest.raises(InputError, match="line 1 does not say all_gpus"):
        read_simai(simai("model_parallel_NPU_group: 2", tmp_path), None, made)
    path = simai("model_parallel_NPU_group: 2 pp: 2", tmp_path, count=839)
    assert len(read_simai(path, 8, made).traces) == 8
    assert [line.split(" (")[0] for line in made.lines()] == [
        "2 x communication in a group of one rank is left out",
        "1 x the layers that are there count",
        "1 x all stages of the pipeline run the layers of the file, without messages between them",
    ]
    with pytest.raises(InputError, match="6 ranks cannot be shared by tensor 4"):
        read_simai(simai("model_parallel_NPU_group: 4", tmp_path), 6, made)
    path = simai("ep: 1", tmp_path, LAYERS.splitlines()[0].replace("REDUCESCATTER", "SEND"), 1)
    with pytest.raises(InputError, match="line 3: unknown communication 'SEND'"):
        read_simai(path, 8, made)
    with pytest.raises(InputError, match="line 3: 3 columns; a layer has 12"):
        read_simai(simai("ep: 1", tmp_path, "a b c\n", 1), 8, made)


def test_layers_are_computed_again_from_a_checkpoint_on(tmp_path: Path) -> None:
    """As ASTRA-sim 1.0 runs its Transformer_HybridParallel_Fwd_In_Bckwd."""
    layers = "".join(f"l{i} -1 10 NONE 0 20 NONE 0 30 NONE 0 1\n" for i in range(5))
    head = "model_parallel_NPU_group: 2 checkpoints: 2 0 3 checkpoint_initiates: 2 4 2"
    path = simai(head, tmp_path, layers, 5)
    trace = read_simai(path, 4, Inferences()).workload().of_rank(0)
    order = [trace.name(i).replace("_gradient", "") for i in range(len(trace))]
    forward = [f"l{i}.forward" for i in range(5)]
    backward = [[f"l{i}.input", f"l{i}.weight"] for i in range(5)]
    assert order == [
        *forward, "l3.forward", *backward[4], *backward[3], "l0.forward", "l1.forward",
        *backward[2], *backward[1], *backward[0],
    ]  # fmt: skip
    assert trace.duration_ns.sum() == 8 * 10 + 5 * 50
    for bad, said in (
        ("checkpoints: 2 1", "checkpoints: expected 2 layers, 0 to 4, found"),
        ("checkpoints: 1 5", "checkpoints: expected 1 layers"),
        ("checkpoints: 1 3 checkpoint_initiates: 1 2", "no checkpoint at or before layer 2"),
    ):
        with pytest.raises(InputError, match=said):
            read_simai(simai(bad, tmp_path, layers, 5), 4, Inferences())


def bytes_by_kind(workload: Any, groups: Any) -> Counter[str]:
    """The sums of bytes that ``trace show`` prints, by the names of text workloads."""
    sums: Counter[str] = Counter()
    for one in overview(workload, groups).communication:
        sums[one.kind.replace("-", "").upper()] += one.bytes
    return sums


@pytest.mark.parametrize("name", ["HYBRID_TRANSFORMER", "HYBRID_TRANSFORMER_FWD_IN_BCKWD"])
def test_the_bytes_of_a_workload_of_simai_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    kinds = ["NONE", "ALLREDUCE", "ALLGATHER", "REDUCESCATTER", "ALLTOALL", "BROADCAST"]
    suffixes = ["", "_TP", "_DP", "_EP", "_DP_EP"]
    rows, expected = [], Counter[str]()
    for i in range(40):
        row = [f"layer{i}", "-1"]
        for _ in range(3):
            kind, size = str(random.choice(kinds)), 16 * int(random.integers(0, 10**6))
            suffix = "" if kind == "NONE" else str(random.choice(suffixes))
            row += [str(random.integers(0, 999)), kind + suffix, str(size)]
            if kind != "NONE":
                expected[kind] += 16 * size
        rows.append("\t".join([*row, "100"]))
    path = tmp_path / "w.txt"
    head = "model_parallel_NPU_group: 4 ep: 2 pp: 1 all_gpus: 16"
    path.write_text("\n".join([f"{name} {head}", "40", *rows, ""]))
    assert count_ranks(path) == 16
    assert bytes_by_kind(read_workload(path, 16), {}) == expected
    assert main(["trace", "convert", str(path), str(tmp_path / "w")]) == 0
    groups = read_comm_groups(tmp_path / "w.comm_group.json", 16)
    assert bytes_by_kind(read_workload(tmp_path / "w", 16), groups) == expected
    assert main(["trace", "convert", str(path), str(tmp_path / "m"), "--manifest"]) == 0
    assert len(list(tmp_path.glob("m.*"))) == 2
    assert bytes_by_kind(read_workload(tmp_path / "m", 16), {}) == expected


def test_a_size_that_ranks_cannot_share_is_rounded_up(tmp_path: Path) -> None:
    """SimAI divides and drops the rest, so that its all-gather of 1 byte moves nothing."""
    rows = "".join(f"l{size} -1 1 ALLGATHER {size} 1 NONE 0 1 NONE 0 1\n" for size in (1, 100, 64))
    path = simai("model_parallel_NPU_group: 8 all_gpus: 8", tmp_path, rows)
    read = read_workload(path, 8)
    trace = read.of_rank(0)
    assert trace.comm_size[trace.type == NodeType.COMM_COLL].tolist() == [1, 13, 8]
    assert bytes_by_kind(read, None)["ALLGATHER"] == 8 * (8 + 104 + 64)


def test_what_is_computed_again_communicates_again(tmp_path: Path) -> None:
    """As SimAI and ASTRA-sim 1.0 do it; the sum of bytes is more than that of the lines."""
    rows = "".join(f"l{i} -1 1 ALLREDUCE {100 + i} 1 NONE 0 1 NONE 0 1\n" for i in range(3))
    head = "model_parallel_NPU_group: 8 all_gpus: 8 checkpoints: 1 0 checkpoint_initiates: 1 2"
    read = read_workload(simai(head, tmp_path, rows), 8)
    assert bytes_by_kind(read, None)["ALLREDUCE"] == 8 * (100 + 101 + 102 + 100 + 101)


def test_ranks_that_the_file_is_not_for_are_said(tmp_path: Path) -> None:
    path = simai("model_parallel_NPU_group: 2 ep: 2 all_gpus: 64", tmp_path)
    (said,) = read_workload(path, 8).warnings
    assert "another number of ranks than the file is for (first: 8, all_gpus: 64)" in said
    assert read_workload(path, 64).warnings == ()


def test_ranks_that_share_parameters_gather_them_from_one_another(tmp_path: Path) -> None:
    """ZeRO-3 as AICB writes it: there is no tensor parallelism."""
    made = Inferences()
    layer = "a -1 1 NONE 0 1 ALLGATHER 4096 1 REDUCESCATTER 8192 1\n"
    trace = read_simai(simai("model_parallel_NPU_group: 1", tmp_path, layer, 1), 8, made)
    columns = trace.workload().columns[0]
    sizes = columns.comm_size[columns.type == NodeType.COMM_COLL].tolist()
    assert sizes == [4096 // 8, 8192]
    (said,) = made.lines()
    assert "those of data-parallel ranks that share parameters (ZeRO)" in said


def test_the_table_of_public_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """benchmarks/public_files.py, on files of our own where others' would be."""
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone/a.txt").write_text("DATA\n1\na -1 1 NONE 0 1 NONE 0 1 ALLREDUCE 64 1\n")
    (tmp_path / "clone/b.txt").write_text("DATA\n2\na -1 1 NONE 0 1 NONE 0 1 SUM 64 1\n")
    (tmp_path / "own/step_2").mkdir(parents=True)
    for rank in range(2):
        recording = Recording(rank, 2)
        recording.op(0, 20)
        recording.kernel(10, 15, 30)
        recording.write(tmp_path / f"own/step_2/kineto.{rank}.json.gz")
        recording.execution_trace(tmp_path / f"own/step_2/et.{rank}.json.gz", {})
    command = ["x", "--simai", str(tmp_path / "clone"), "--recordings", str(tmp_path / "own")]
    monkeypatch.setattr("sys.argv", command)
    runpy.run_path(
        str(Path(__file__).parents[2] / "benchmarks/public_files.py"), run_name="__main__"
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(
        "| recordings: step_2 | 2 | 2 | 0 collectives; 2 streams in order; compute +0.00%; replay"
    )
    assert lines[3] == "| simai: a.txt | 16 | 3 | ALLREDUCE 64 B |"
    assert lines[4].startswith("| simai: b.txt |  |  | refused: unknown communication 'SUM'")
