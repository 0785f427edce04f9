# SPDX-License-Identifier: MIT
"""Generated workloads: what they contain, and that they can run to their end."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.cli.command import dispatch
from astra_bridge.cli.commands import ROOT
from astra_bridge.errors import InputError
from astra_bridge.simulation import Experiment
from astra_bridge.trace import (
    MISSING,
    CommType,
    NodeType,
    ProcessGroup,
    TraceColumns,
    read_trace,
    read_workload,
)
from astra_bridge.workload import (
    GeneratedWorkload,
    TraceBuilder,
    collective,
    import_text,
)
from benchmarks.transformer import Transformer, transformer
from tests.trace_twins import differences, parents


def names(trace: TraceColumns) -> list[str]:
    return [trace.name(i) for i in range(len(trace))]


def run_to_end(generated: GeneratedWorkload) -> int:
    """Execute a workload under ASTRA-sim's rule of one communication slot per rank.

    A collective or a send takes the slot of its rank; a collective ends when all members have
    issued theirs, a send at once (it needs no receiver), a receive when its message was sent.
    Ready nodes are issued in ascending order of id.  Returns the number of nodes run; asserts
    that nothing is left and that every message was received.
    """
    workload = generated.workload()
    ranks = workload.ranks
    traces = [workload.of_rank(rank) for rank in range(ranks)]
    children: list[dict[int, list[int]]] = []
    waiting: list[list[int]] = []
    ready: list[set[int]] = []
    for trace in traces:
        below = defaultdict(list)
        counts = (trace.dep_start[1:] - trace.dep_start[:-1]).tolist()
        for i in range(len(trace)):
            for parent in trace.dep[trace.dep_start[i] : trace.dep_start[i + 1]].tolist():
                below[parent].append(i)
        children.append(below)
        waiting.append(counts)
        ready.append({i for i, count in enumerate(counts) if count == 0})
    slot: list[int | None] = [None] * ranks
    arrived: Counter[tuple[int, int, int, int]] = Counter()
    joined: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    done = 0

    def finish(rank: int, node: int) -> None:
        nonlocal done
        done += 1
        if slot[rank] == node:
            slot[rank] = None
        for child in children[rank][node]:
            waiting[rank][child] -= 1
            if waiting[rank][child] == 0:
                ready[rank].add(child)

    progress = True
    while progress:
        progress = False
        for rank, trace in enumerate(traces):
            for node in sorted(ready[rank]):
                kind = NodeType(int(trace.type[node]))
                if kind in (NodeType.COMM_COLL, NodeType.COMM_SEND):
                    if slot[rank] is not None:
                        continue
                    slot[rank] = node
                message = (int(trace.comm_tag[node]), int(trace.comm_size[node]))
                if kind is NodeType.COMM_RECV:
                    key = (int(trace.comm_src[node]), rank, *message)
                    if not arrived[key]:
                        continue
                    arrived[key] -= 1
                ready[rank].discard(node)
                progress = True
                if kind is NodeType.COMM_COLL:
                    index = int(trace.pg_name[node])
                    group = int(trace.strings[index]) if index >= 0 else 0
                    members = generated.comm_groups[group] if group else tuple(range(ranks))
                    assert rank in members
                    joined[group].append((rank, node))
                    if len(joined[group]) == len(members):
                        calls = joined.pop(group)
                        assert {r for r, _ in calls} == set(members)
                        what = {
                            (
                                int(traces[r].comm_type[k]),
                                int(traces[r].comm_size[k]),
                                traces[r].name(k),
                            )
                            for r, k in calls
                        }
                        assert len(what) == 1, what
                        for r, k in calls:
                            finish(r, k)
                    continue
                if kind is NodeType.COMM_SEND:
                    destination = int(trace.comm_dst[node])
                    assert 0 <= destination < ranks
                    assert destination != rank
                    key = (rank, destination, *message)
                    assert not arrived[key], "two messages in flight that cannot be told apart"
                    arrived[key] += 1
                finish(rank, node)
    stuck = {
        rank: [traces[rank].name(i) for i in sorted(ready[rank])]
        for rank in range(ranks)
        if ready[rank] or slot[rank] is not None
    }
    assert done == sum(len(trace) for trace in traces), f"stuck: {stuck}"
    assert not +arrived, "messages that nobody received"
    return done


# The builder


def test_builder_writes_every_kind_of_node(tmp_path: Path) -> None:
    builder = TraceBuilder()
    a = builder.comp("a", duration_us=3, num_ops=100, tensor_size_bytes=10)
    b = builder.coll(
        CommType.BROADCAST,
        64,
        group=2,
        root=1,
        priority=5,
        involved_dim=[True, False],
        deps=[a],
    )
    c = builder.send(1, 8, 7, deps=[b])
    d = builder.recv(1, 8, 9, deps=[b])
    e = builder.load(100, deps=[c, d])
    builder.store(200, deps=[e])
    builder.comp("host", cpu=True)
    builder.process_groups({"1": [0, 1], "2": []})
    paths = GeneratedWorkload((builder,), {2: (0, 1)}).write(tmp_path / "new" / "w")
    assert [path.name for path in paths] == ["w.0.et", "w.comm_group.json"]
    assert json.loads(paths[1].read_text()) == {"2": [0, 1]}
    trace = read_trace(paths[0])
    assert [NodeType(int(t)).name for t in trace.type] == [
        "COMP", "COMM_COLL", "COMM_SEND", "COMM_RECV", "MEM_LOAD", "MEM_STORE", "COMP", "METADATA",
    ]  # fmt: skip
    assert [parents(trace, i) for i in range(8)] == [[], [0], [1], [1], [2, 3], [4], [], []]
    assert trace.duration_micros[a] == 3
    assert (trace.num_ops[a], trace.tensor_size[a]) == (100, 10)
    assert (trace.comm_type[b], trace.comm_size[b]) == (CommType.BROADCAST, 64)
    assert (trace.root[b], trace.comm_priority[b]) == (1, 5)
    assert trace.strings[trace.pg_name[b]] == "2"
    assert trace.involved_dims[trace.involved_dim[b]] == (True, False)
    assert (trace.comm_dst[c], trace.comm_tag[c], trace.comm_src[c]) == (1, 7, MISSING)
    assert (trace.comm_src[d], trace.comm_tag[d], trace.comm_dst[d]) == (1, 9, MISSING)
    assert trace.tensor_size.tolist()[e : e + 2] == [100, 200]
    assert trace.is_cpu_op.tolist() == [False] * 6 + [True, False]
    assert trace.process_groups == (ProcessGroup("1", (0, 1)), ProcessGroup("2", ()))


def test_workload_in_memory_equals_the_written_one(tmp_path: Path) -> None:
    generated = collective("all-reduce", 1024, 4, groups=[[0, 1], [2, 3]], repeat=2)
    generated.write_kinds(tmp_path / "w")
    on_disk, in_memory = read_workload(tmp_path / "w", 4), generated.workload()
    assert on_disk.rank_to_columns.tolist() == in_memory.rank_to_columns.tolist() == [0, 0, 1, 1]
    for a, b in zip(on_disk.columns, in_memory.columns, strict=True):
        assert differences(a, b) == []
        assert names(a) == names(b)


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        collective("barrier", 0, 2).write(tmp_path / "file" / "w")


# Micro-benchmarks


@pytest.mark.parametrize("kind", [kind for kind in CommType if kind.name != "REDUCE_SCATTER_BLOCK"])
def test_every_collective(kind: CommType) -> None:
    generated = collective(kind, 3000, 5)
    workload = generated.workload()
    assert len(workload.columns) == 1
    trace = workload.columns[0]
    assert (trace.comm_type[0], trace.comm_size[0], trace.pg_name[0]) == (kind, 3000, -1)
    rooted = kind.name in ("BROADCAST", "REDUCE", "GATHER", "SCATTER")
    assert trace.root[0] == (0 if rooted else MISSING)
    assert run_to_end(generated) == 5


def test_groups_have_their_own_ids_and_roots() -> None:
    generated = collective("broadcast", 10, 6, groups=[[4, 1], [0, 2, 5]], root=1)
    assert generated.comm_groups == {1: (4, 1), 2: (0, 2, 5)}
    workload = generated.workload()
    roots = [int(workload.of_rank(rank).root[0]) for rank in range(6)]
    assert roots == [2, 1, 2, MISSING, 1, 2]
    assert names(workload.of_rank(3)) == ["idle"]
    run_to_end(generated)


def test_a_group_of_all_ranks_in_another_order_stays_a_group() -> None:
    assert collective("all-gather", 10, 3, groups=[[2, 0, 1]]).comm_groups == {1: (2, 0, 1)}
    assert collective("all-gather", 10, 3, groups=[[0, 1, 2]]).comm_groups == {}


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [(False, [[], [0], [1], [2]]), (True, [[], [0], [0], [1, 2]])],
)
def test_repetition_with_compute(overlap: bool, expected: list[list[int]]) -> None:
    generated = collective("all-reduce", 64, 2, repeat=2, compute_us=9, overlap=overlap)
    trace = generated.workload().columns[0]
    assert [parents(trace, i) for i in range(4)] == expected
    assert trace.duration_micros.tolist() == [9, 0, 9, 0]
    run_to_end(generated)


def test_messages_around_a_ring() -> None:
    generated = collective("send-recv", 100, 5, groups=[[0, 3, 1], [4]], repeat=3)
    assert generated.comm_groups == {}
    trace = generated.workload().of_rank(3)
    assert trace.comm_dst.tolist()[0] == 1
    assert trace.comm_src.tolist()[1] == 0
    assert run_to_end(generated) == 3 * 6 + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "allreduce"}, "kind: unknown collective 'allreduce'; allowed: all-reduce, "),
        ({"size_bytes": 0}, "size_bytes: 0 is not allowed"),
        ({"ranks": 0}, "ranks: 0 is not allowed"),
        ({"repeat": 0}, "repeat: 0 is not allowed"),
        ({"compute_us": -1}, "compute_us: -1 is not allowed"),
        ({"root": 1}, "root: all-reduce has no root"),
        ({"kind": "reduce", "root": 4}, "root: 4 is not"),
        ({"groups": [[0], []]}, r"groups\[1\]: a group has at least one rank"),
        ({"groups": [[0, 4]]}, r"groups\[0\]\[1\]: 4"),
        ({"groups": [[0, 1], [1]]}, r"groups\[1\]: rank 1 is in two groups"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = {"kind": "all-reduce", "size_bytes": 1, "ranks": 4}
    with pytest.raises(InputError, match=message):
        collective(**(valid | arguments))


def test_steps_of_benchmarks_stay_what_was_measured() -> None:
    """What docs/fidelity.md and docs/performance.md have numbers of: the bytes of its traces."""
    found = hashlib.sha256()
    for more in ({}, {"experts": 16, "expert": 8}):
        model = Transformer(
            layers=2, hidden=448, sequence=512, vocabulary=1024, data=32, micro_batches=1, **more
        )
        for kind in transformer(model).kinds()[0]:
            found.update(kind.encode())
    assert found.hexdigest() == ("fa1baabcd800848f765703b35c8345b07091fdf9ab4b17e982f4e29048422bab")


# ASTRA-sim 1.0 text

LAYERS = """2
a -1 10 ALLREDUCE 100 20 ALLTOALL 200 30 ALLGATHER 300 5
b -1 11 REDUCESCATTER 101 21 ALLREDUCE 201 31 NONE 0 5
"""


def imported(tmp_path: Path, text: str, **arguments: Any) -> dict[str, list[str]]:
    path = tmp_path / "w.txt"
    path.write_text(text)
    trace = import_text(path, 2, **arguments).workload().columns[0]
    known = names(trace)
    return {
        known[i]: sorted(known[p] for p in trace.dep[trace.dep_start[i] : trace.dep_start[i + 1]])
        for i in range(len(trace))
    }


def test_text_data_parallel(tmp_path: Path) -> None:
    assert imported(tmp_path, "DATA\n" + LAYERS) == {
        "a.forward": [],
        "b.forward": ["a.forward"],
        "b.weight_gradient": ["b.forward"],
        "b.input_gradient": ["b.weight_gradient"],
        "a.weight_gradient": ["b.input_gradient"],
        "a.weight_gradient.comm": ["a.weight_gradient"],
    }


def test_text_data_parallel_with_input_gradients_first(tmp_path: Path) -> None:
    assert imported(tmp_path, "DATA_REORDER\n" + LAYERS) == {
        "a.forward": [],
        "b.forward": ["a.forward"],
        "b.input_gradient": ["b.forward"],
        "b.weight_gradient": ["b.input_gradient"],
        "a.weight_gradient": ["b.weight_gradient"],
        "a.weight_gradient.comm": ["a.weight_gradient"],
    }


@pytest.mark.parametrize("parallelism", ["MODEL", "HYBRID_DATA_MODEL", "HYBRID_MODEL_DATA"])
def test_text_model_parallel(tmp_path: Path, parallelism: str) -> None:
    expected = {
        "a.forward": [],
        "a.forward.comm": ["a.forward"],
        "b.forward": ["a.forward.comm"],
        "b.forward.comm": ["b.forward"],
        "b.input_gradient": ["b.forward.comm"],
        "b.input_gradient.comm": ["b.input_gradient"],
        "b.weight_gradient": ["b.input_gradient"],
        "a.input_gradient": ["b.input_gradient.comm", "b.weight_gradient"],
        "a.weight_gradient": ["a.input_gradient"],
    }
    if parallelism != "MODEL":
        expected["a.weight_gradient.comm"] = ["a.weight_gradient"]
    assert imported(tmp_path, f"{parallelism}\n{LAYERS}") == expected


def test_text_with_a_parallelism_for_each_layer(tmp_path: Path) -> None:
    text = """HYBRID_CUSTOMIZED
3
both -1 1 ALLGATHER 8 1 REDUCESCATTER 8 1 ALLREDUCE 8 1 HYBRID_DATA_MODEL
data -1 1 ALLGATHER 8 1 REDUCESCATTER 8 1 ALLREDUCE 8 1\tDATA
model -1 1 ALLGATHER 8 1 REDUCESCATTER 8 1 ALLREDUCE 8 1 MODEL
"""
    found = imported(tmp_path, text)
    assert [name for name in found if name.endswith("comm")] == [
        "both.forward.comm", "model.forward.comm", "model.input_gradient.comm",
        "data.weight_gradient.comm", "both.weight_gradient.comm",
    ]  # fmt: skip
    assert found["data.input_gradient"] == ["model.input_gradient.comm", "model.weight_gradient"]
    assert found["both.input_gradient"] == ["data.input_gradient", "data.weight_gradient"]
    path = tmp_path / "w.txt"
    path.write_text(text.replace(" HYBRID_DATA_MODEL", " MICRO"))
    with pytest.raises(InputError, match="line 3: unknown parallelism 'MICRO' of a layer"):
        import_text(path, 2)
    path.write_text(text.replace(" HYBRID_DATA_MODEL", ""))
    with pytest.raises(InputError, match="line 3: 12 columns; a layer has 13"):
        import_text(path, 2)


def test_text_inference(tmp_path: Path) -> None:
    path = tmp_path / "w.txt"
    path.write_text("DISTRIBUTED_INFERENCE\n" + LAYERS)
    trace = import_text(path, 2, passes=2).workload().columns[0]
    assert [trace.name(i) for i in range(4)] == [
        "a.forward", "a.forward.comm", "b.forward", "b.forward.comm",
    ]  # fmt: skip
    # One pass behind another.
    assert trace.dep.tolist() == list(range(7))


def test_text_dlrm(tmp_path: Path) -> None:
    text = """HYBRID_DLRM 1
3
emb -1 1 ALLTOALL 64 1 ALLTOALL 64 1 NONE 0 1
bot -1 1 NONE 0 1 NONE 0 1 ALLREDUCE 64 1
top -1 1 NONE 0 1 NONE 0 1 ALLREDUCE 64 1
"""
    assert imported(tmp_path, text) == {
        "emb.forward": [],
        "emb.forward.comm": ["emb.forward"],
        "bot.forward": ["emb.forward", "emb.forward.comm"],
        "top.forward": ["bot.forward"],
        "top.weight_gradient": ["top.forward"],
        "top.weight_gradient.comm": ["top.weight_gradient"],
        "top.input_gradient": ["top.weight_gradient"],
        "emb.input_gradient.comm": ["top.input_gradient"],
        "bot.weight_gradient": ["top.input_gradient"],
        "bot.weight_gradient.comm": ["bot.weight_gradient"],
        "bot.input_gradient": ["bot.weight_gradient"],
        "emb.weight_gradient": ["bot.input_gradient", "emb.input_gradient.comm"],
    }


def test_text_passes_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "w.txt"
    path.write_text("DATA\n" + LAYERS)
    trace = import_text(path, 1, passes=2).workload().columns[0]
    assert len(trace) == 12
    # The second forward pass of a layer waits for the gradients of the first.
    assert trace.name(6) == "a.forward"
    assert [trace.name(p) for p in parents(trace, 6)] == ["a.weight_gradient.comm"]
    assert trace.duration_micros[6] == 10


def test_text_micro(tmp_path: Path) -> None:
    path = tmp_path / "w.txt"
    path.write_text("MICRO\n1\nallreduce -1 5 NONE 0 5 NONE 0 5 ALLREDUCE 1048576 5\n")
    generated = import_text(path, 4, passes=2)
    trace = generated.workload().columns[0]
    assert trace.comm_size.tolist() == [1048576] * 2
    assert len(trace.dep) == 0
    assert run_to_end(generated) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: unknown parallelism ''"),
        ("TENSOR\n", "line 1: unknown parallelism 'TENSOR'; allowed: MICRO, DATA"),
        ("DATA\n", "line 2: the number of layers is missing"),
        ("DATA\nx\n", "line 2: 'x' is not allowed; allowed: whole numbers from 0"),
        ("DATA\n2\na -1 1 NONE 0 1 NONE 0 1 NONE 0 1\n", "line 2: says 2 layers, but has 1"),
        ("DATA\n1\na -1 1 NONE 0\n", "line 3: 5 columns; a layer has 12"),
        ("DATA\n1\na -1 1 SUM 0 1 NONE 0 1 NONE 0 1\n", "line 3: unknown communication 'SUM'"),
        (
            "DATA\n1\na -1 -1 NONE 0 1 NONE 0 1 NONE 0 1\n",
            "line 3: '-1' is not allowed",
        ),
        ("HYBRID_DLRM\n1\na -1 1 NONE 0 1 NONE 0 1 NONE 0 1\n", "line 1: needs the index"),
        ("HYBRID_DLRM 1\n1\na -1 1 NONE 0 1 NONE 0 1 NONE 0 1\n", "line 1: the last bottom"),
        ("MICRO\n1\na -1 1 NONE 0 1 NONE 0 1 NONE 0 1\n", "describes no communication"),
    ],
)
def test_text_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "w.txt"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        import_text(path, 2)
    assert str(caught.value).startswith(f"{path}: {message}")


# Commands


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in this process; return what it prints."""

    def run(*words: object) -> str:
        assert dispatch(ROOT, [str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


def test_command_collective(command: Callable[..., str], tmp_path: Path) -> None:
    prefix = tmp_path / "w"
    output = command(
        "workload", "collective", prefix, "--kind", "all-gather", "--size", "64KiB",
        "--ranks", 6, "--group", "0-2", "--group", "4,3",
    )  # fmt: skip
    assert f"--workload-configuration={prefix}" in output
    assert "traces of 3 kinds of ranks, for 6 ranks" in output
    workload = read_workload(prefix, 6)
    assert workload.columns[0].comm_size[0] == 65536
    groups = [group for columns in workload.columns for group in columns.process_groups]
    assert groups == [ProcessGroup("1", (0, 1, 2)), ProcessGroup("2", (4, 3))]


def test_one_trace_per_rank_for_other_simulators(
    command: Callable[..., str], tmp_path: Path
) -> None:
    prefix = tmp_path / "w"
    words = ["--ranks", 6, "--group", "0-2", "--group", "4,3"]
    command("workload", "collective", prefix, *words)
    output = command("workload", "collective", prefix, *words, "--per-rank")
    groups = tmp_path / "w.comm_group.json"
    assert f"--workload-configuration={prefix}" in output
    assert f"--comm-group-configuration={groups}" in output
    assert json.loads(groups.read_text()) == {"1": [0, 1, 2], "2": [4, 3]}
    assert read_workload(prefix, 6).rank_to_columns.tolist() == [0, 0, 0, 1, 1, 2]
    assert not (tmp_path / "w.manifest.json").exists()


@pytest.mark.parametrize("group", ["x", "1-", "3-99999999999999999999", "0-9999999", "1,,2", "5"])
def test_command_refuses_bad_groups(
    command: Callable[..., str], tmp_path: Path, group: str
) -> None:
    with pytest.raises(InputError):
        command("workload", "collective", tmp_path / "w", "--ranks", 4, "--group", group)


@pytest.mark.parametrize("size", ["x", "1.5", "-3", "0", "1QB"])
def test_command_refuses_bad_sizes(command: Callable[..., str], tmp_path: Path, size: str) -> None:
    with pytest.raises(InputError):
        command("workload", "collective", tmp_path / "w", "--ranks", 4, "--size", size)


def test_the_name_of_a_former_generator_says_what_to_type(
    command: Callable[..., str], tmp_path: Path
) -> None:
    said = "workload: 'transformer' is no more; `astra-bridge workload model config.json` makes"
    with pytest.raises(InputError, match=re.escape(said)):
        command("workload", "transformer", tmp_path / "w", "--layers", 2)


def test_relative_traces_are_those_of_global_ranks(tmp_path: Path) -> None:
    """Kinds of ranks lower to the very Program that one trace for each rank does."""
    model = Transformer(layers=4, hidden=64, data=2, tensor=2, pipeline=4, micro_batches=3)
    generated = transformer(model)
    generated.write_kinds(tmp_path / "kinds")
    generated.write(tmp_path / "ranks")
    assert len(list(tmp_path.glob("ranks.*.et"))) == 16
    network = {"topology": ["Ring"], "npus_count": [16], "bandwidth": [50.0], "latency": [500.0]}
    programs = []
    for name, groups in (("kinds", None), ("ranks", tmp_path / "ranks.comm_group.json")):
        system = {"all-reduce-implementation": ["ring"]}
        one = Experiment(tmp_path / name, system, network, comm_groups=groups)
        programs.append(one.work[0].lowered.program)
    one, same = programs
    assert len(one.templates) == 4
    for field in fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(same, field.name)), field.name


def test_command_dump(command: Callable[..., str], tmp_path: Path) -> None:
    collective("all-reduce", 8, 1, repeat=30, compute_us=1).write(tmp_path / "w")
    path = tmp_path / "w.0.et"
    lines = command("trace", "dump", path, "--first", 2).splitlines()
    assert lines[0] == f"{path}: schema 0.0.4, 60 nodes, 59 dependencies"
    assert lines[1:3] == ["  COMP      30", "  COMM_COLL 30"]
    assert lines[3].split() == ["0", "COMP", "comp0", "duration_micros=1", "is_cpu_op=False"]
    assert lines[4].endswith("comm_type=0  comm_size=8  after 0")
    assert lines[5] == "... 58 more (--first 0 prints all)"
    assert len(command("trace", "dump", path, "--first", 0).splitlines()) == 3 + 60
    assert json.loads(command("trace", "dump", path, "--json").split("}\n")[0] + "}") == {
        "version": "0.0.4"
    }


def test_command_convert_goes_round(command: Callable[..., str], tmp_path: Path) -> None:
    generated = collective("broadcast", 8, 2, repeat=2)
    source = generated.write(tmp_path / "w")[0]
    for target in ("a.json", "b.et", "c.et.gz", "d.et"):
        command("trace", "convert", source, tmp_path / target)
        source = tmp_path / target
    assert source.read_bytes() == (tmp_path / "w.0.et").read_bytes()
    with pytest.raises(InputError, match=r"cannot write '\.xml'"):
        command("trace", "convert", source, tmp_path / "x.xml")
    with pytest.raises(InputError, match="cannot write: "):
        command("trace", "convert", source, tmp_path / "b.et" / "x.et")


def test_command_convert_text(command: Callable[..., str], tmp_path: Path) -> None:
    text = tmp_path / "model.txt"
    text.write_text("DATA\n" + LAYERS)
    command("trace", "convert", text, tmp_path / "m", "--ranks", 3)
    assert read_workload(tmp_path / "m", 3).rank_to_columns.tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="--ranks"):
        command("trace", "convert", text, tmp_path / "m")


# Formats of traces


def test_a_text_workload_needs_no_conversion(tmp_path: Path) -> None:
    path = tmp_path / "w.txt"
    path.write_text(f"HYBRID_DATA_MODEL\n{LAYERS}")
    expected = import_text(path, 4).workload()
    for read in (read_workload(path, 4), read_workload(path, 4, trace_format="astra-sim-1")):
        assert read.ranks == 4
        assert names(read.columns[0]) == names(expected.columns[0])
        assert read.columns[0].comm_size.tolist() == expected.columns[0].comm_size.tolist()


def test_a_format_that_does_not_fit_says_so(tmp_path: Path) -> None:
    path = tmp_path / "w.txt"
    path.write_text(f"HYBRID_DATA_MODEL\n{LAYERS}")
    with pytest.raises(InputError, match=r"this is a text workload .*takes it"):
        read_workload(path, 4, trace_format="chakra")
    with pytest.raises(InputError, match=r"trace_format: 'chakre' .*did you mean 'chakra'"):
        read_workload(path, 4, trace_format="chakre")
    path.write_text("no parallelism")  # no format can open it: Chakra says what is missing
    for nothing in (path, tmp_path, tmp_path / "none", tmp_path / ("long" * 100)):
        with pytest.raises(InputError, match="no trace for rank 0"):
            read_workload(nothing, 4)
    with pytest.raises(InputError, match="unknown parallelism 'no'"):
        read_workload(path, 4, trace_format="astra-sim-1")
