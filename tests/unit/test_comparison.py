# SPDX-License-Identifier: MIT
"""`compare`: its numbers are those of separate runs, and what fails is a row that says why."""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import astra_bridge as ab
from astra_bridge.cli import main
from astra_bridge.collectives.bus_bandwidth import bus_factor
from astra_bridge.comparison.bandwidth import OneCollective, one_collective
from astra_bridge.comparison.differences import relative
from astra_bridge.comparison.phases import covered
from astra_bridge.errors import InputError
from astra_bridge.network.ns3.build import NS3
from astra_bridge.trace import CommType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder, collective
from tests.foreign import foreign_library, no_time_before_the_fault
from tests.small import MIB, network, per_rank, system

SMALL_MODEL = str(Path(__file__).parents[1] / "small_model.json")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "compare" / "experiment.yaml"
AWARE, UNAWARE = "analytical-aware", "analytical-unaware"


def ring(workload: Any = None, **changes: Any) -> ab.Experiment:
    """Eight ranks on a ring."""
    workload = workload or {"generator": "collective", "size": "1MiB"}
    return ab.Experiment(workload, system(), network(), **changes)


def example(size: str = "1MiB") -> ab.Experiment:
    return ab.Experiment.from_file(EXAMPLE).replace({"workload.size": size})


# Numbers


def test_the_numbers_are_those_of_separate_runs() -> None:
    sizes, steps = ["64KiB", 2**20], []
    found = ab.compare(
        example(), [AWARE, UNAWARE], reference=UNAWARE, vary={"workload.size": sizes},
        progress=steps.append,
    )  # fmt: skip
    assert [(row["workload.size"], row["backend"]) for row in found.rows] == list(
        itertools.product(sizes, [AWARE, UNAWARE])
    )
    for size, row in zip(np.repeat(sizes, 2), found.rows, strict=True):
        alone = example(str(size)).replace(backend=row["backend"]).run()
        assert row["finish_ns"] == int(alone.finish_ns.max())
        reference = example(str(size)).replace(backend=UNAWARE).run().finish_ns.max()
        assert row["error"] == (row["finish_ns"] - reference) / reference
        assert row["failure"] is None
        assert row["events"] == alone.events
        assert row["exposed_comm_ns"] == alone.exposed_comm_ns.max()
        # Of itself: neither the 100 MB of the tests nor nothing.
        assert all(0 < row[name] < 300 for name in ("cpu_s", "run_cpu_s", "wall_s", "prepare_s"))
        assert row["run_cpu_s"] <= row["cpu_s"]
        assert 10 < row["peak_mb"] < 1000
    assert found.reference == UNAWARE
    assert [(step.number, step.backend) for step in steps if step.run is not None] == [
        (1, AWARE), (2, UNAWARE), (3, AWARE), (4, UNAWARE),
    ]  # fmt: skip
    # The two differ on this network, and say where.
    part = next(row for row in found.partings if row["workload.size"] == 2**20)
    assert (part["backend"], part["node_id"], part["type"]) == (AWARE, 0, "COMM_COLL")
    assert part["error"] == pytest.approx(found.rows[2]["error"], rel=1e-3)


@pytest.mark.parametrize(
    ("value", "reference", "error"),
    [(90, 100, -0.1), (110, 100, 0.1), (100, 100, 0.0), (5, 0, None), (5, None, None)],
)
def test_the_error_is_relative_to_the_reference_and_signed(
    value: int, reference: int | None, error: float | None
) -> None:
    assert relative(value, reference) == error


kinds = st.sampled_from(["all-reduce", "all-gather", "reduce-scatter", "all-to-all"])


@settings(max_examples=6, deadline=None)
@given(kinds, st.integers(1, 2**21), st.integers(0, 3), st.sampled_from([AWARE, UNAWARE]))
def test_a_backend_is_equal_to_itself(kind: str, size: int, compute_us: int, name: str) -> None:
    workload = {
        "generator": "collective", "kind": kind, "size": size, "compute_us": compute_us,
        "repeat": 2,
    }  # fmt: skip
    found = ab.compare(ring(workload), [name, name, f"{name}-python"], tolerance=0)
    assert [row["error"] for row in found.rows] == [0.0, 0.0, 0.0]
    assert found.partings == []
    assert {row["error"] for row in found.groups} == {0.0}
    assert {row["error"] for row in found.collectives} == {0.0}
    assert {(row["count"], row["error"]) for row in found.kinds} == {(2, 0.0)}


def test_the_reference_is_the_dearest_unless_one_is_given() -> None:
    python = f"{AWARE}-python"
    assert ab.compare(ring(), [AWARE, python, UNAWARE]).reference == python
    found = ab.compare(ring(), [AWARE], reference=UNAWARE)
    assert [row["backend"] for row in found.rows] == [AWARE, UNAWARE]
    # One that failed at a point is none, whatever it took before.
    found = ab.compare(ring(), [AWARE, "nix"])
    assert found.reference == AWARE


# Where


def test_the_first_place_where_two_part_is_the_first_in_time() -> None:
    """Rank 5 sends what queues behind rank 6's message; all of before is the same."""

    def fill(trace: TraceBuilder, rank: int) -> None:
        before = trace.comp("before", duration_us=3)
        if rank in (4, 5):
            trace.send(7, 8 * MIB, rank, name=f"send{rank}", deps=[before])
        if rank == 7:
            for source in (4, 5):
                trace.recv(source, 8 * MIB, source, name=f"recv{source}", deps=[before])

    experiment = ring(per_rank(8, fill))
    found = ab.compare(experiment, [UNAWARE, AWARE], reference=UNAWARE)
    (part,) = found.partings
    assert part["backend"] == AWARE
    assert part["type"] in ("COMM_SEND", "COMM_RECV")
    one, two = (experiment.replace(backend=name).run().nodes for name in (UNAWARE, AWARE))
    late = np.abs(two["end_ps"] - one["end_ps"]) > 0.05 * one["end_ps"]
    assert part["reference_end_ns"] == one["end_ps"][late].min() // 1000
    assert ab.compare(experiment, [UNAWARE, AWARE], reference=UNAWARE, tolerance=9).partings == []


def test_ranks_are_grouped_by_job_or_by_their_end() -> None:
    one = ring(per_rank(8, lambda trace, rank: trace.comp(duration_us=10 * (1 + rank // 4))))
    found = ab.compare(one, [AWARE])
    assert [(row["group"], row["ranks"], row["finish_ns"]) for row in found.groups] == [
        ("ranks 0-3", 4, 10_000), ("ranks 4-7", 4, 20_000),
    ]  # fmt: skip
    different = ring(per_rank(8, lambda trace, rank: trace.comp(duration_us=10 * 2**rank)))
    (group,) = ab.compare(different, [AWARE]).groups[:1]
    assert group["ranks"] in (1, 8)
    work = collective("all-reduce", MIB, 4)
    jobs = ab.Experiment(
        None, system(), network(),
        jobs=(ab.Job(work, "0-3", name="a"), ab.Job(work, "4-7", name="b", start_ps=10**7)),
    )  # fmt: skip
    found = ab.compare(jobs, [AWARE, UNAWARE])
    assert [(row["group"], row["backend"]) for row in found.groups] == [
        ("job a", AWARE), ("job a", UNAWARE), ("job b", AWARE), ("job b", UNAWARE),
    ]  # fmt: skip
    assert [(row["job"], row["kind"], row["ranks"]) for row in found.collectives[:2]] == [
        ("a", "all-reduce", 4), ("b", "all-reduce", 4),
    ]  # fmt: skip
    assert found.rows[0]["busbw_GBps"] is None


def test_collectives_are_those_of_a_result() -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        first = trace.coll(CommType.ALL_REDUCE, MIB, name="gradients")
        trace.coll(CommType.ALL_TO_ALL, 2 * MIB, name="tokens", deps=[first])

    experiment = ring(per_rank(8, fill))
    found = ab.compare(experiment, [AWARE])
    table = experiment.run().collectives
    for row in found.collectives:
        same = table["node_id"] == row["node_id"]
        took_ps = table["end_ps"][same].max() - table["start_ps"][same].min()
        assert row["duration_ns"] == took_ps // 1000
    assert [row["name"] for row in found.collectives] == ["gradients", "tokens"]
    assert [row["size_bytes"] for row in found.collectives] == [MIB, 2 * MIB]
    assert [(row["kind"], row["count"]) for row in found.kinds] == [
        ("all-reduce", 1), ("all-to-all", 1),
    ]  # fmt: skip
    for kind, row in zip(found.kinds, found.collectives, strict=True):
        assert kind["total_ns"] == row["duration_ns"]
    assert found.rows[0]["busbw_GBps"] is None  # two kinds


def test_dimensions_of_collectives() -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        trace.coll(CommType.ALL_REDUCE, MIB, involved_dim=[False, True])
        trace.coll(CommType.ALL_REDUCE, MIB)

    experiment = ab.Experiment(
        per_rank(8, fill), system(["ring", "ring"]), network("Ring Ring", [4, 2], [50, 50], [5, 5])
    )
    found = ab.compare(experiment, [AWARE])
    assert {row["node_id"]: row["dims"] for row in found.collectives} == {0: "1", 1: ""}


# Phases


def steps(trace: TraceBuilder, rank: int) -> None:
    """Twice: 10 us, an all-reduce beside 100 us and one after it, 5 us that end the step."""
    last: list[int] = []
    for step in range(2):
        first = trace.comp("forward", duration_us=10, deps=last)
        beside = trace.coll(CommType.ALL_REDUCE, 1024, name="hidden", deps=[first])
        backward = trace.comp("backward", duration_us=100, deps=[first])
        after = trace.coll(CommType.ALL_REDUCE, 8 * MIB, deps=[beside, backward])
        last = [trace.comp(f"optimizer.step{step}", duration_us=5, deps=[after])]


def test_phases_of_steps() -> None:
    found = ab.compare(ring(per_rank(8, steps)), [UNAWARE, AWARE], reference=UNAWARE)
    phases = {(row["step"], row["phase"]): row for row in found.phases if row["backend"] == UNAWARE}
    took = {row["node_id"]: row["duration_ns"] for row in found.collectives[:4]}
    hidden, after = took[1], took[3]
    assert hidden < 100_000 < after
    for step in range(2):
        of_step = {phase: row["time_ns"] for (at, phase), row in phases.items() if at == step}
        assert of_step == {
            "step": 115_000 + after,  # 10 + 100 + 5 us, and what nothing hides
            "compute": 115_000,
            "all-reduce": hidden + after,
            "exposed communication": after,
        }
    finish_ns = sum(row["time_ns"] for (_, phase), row in phases.items() if phase == "step")
    assert finish_ns == found.rows[0]["finish_ns"]
    for row in found.phases:
        assert row["reference_ns"] == phases[row["step"], row["phase"]]["time_ns"]
        assert row["error"] == pytest.approx(
            (row["time_ns"] - row["reference_ns"]) / row["reference_ns"], abs=1e-6
        )
    for row in found.collectives:
        assert row["reference_ns"] == took[row["node_id"]]


def test_phases_are_those_of_the_rank_where_they_are_longest() -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        trace.comp("work", duration_us=10 * (rank + 1))
        if rank == 0:
            trace.send(1, MIB, 7)
        elif rank == 1:
            trace.recv(0, MIB, 7)

    (run,) = [ab.compare(ring(per_rank(8, fill)), [UNAWARE])]
    times = {row["phase"]: row["time_ns"] for row in run.phases}
    # The message leaves at 0 beside all computing, which takes rank 7 longest.
    sent = ring(per_rank(8, fill)).run().nodes
    message = sent["end_ps"][sent["type"] == 6].max() // 1000
    assert times["step"] == times["compute"] == 80_000
    assert times["receive"] == message
    assert times["exposed communication"] == max(message - 10_000, message - 20_000, 0)
    assert {row["step"] for row in run.phases} == {0}


def test_phases_of_jobs_begin_with_the_job() -> None:
    work = collective("all-reduce", MIB, 4)
    jobs = ab.Experiment(
        None, system(), network(),
        jobs=(ab.Job(work, "0-3", name="a"), ab.Job(work, "4-7", name="b", start_ps=10**7)),
    )  # fmt: skip
    found = ab.compare(jobs, [UNAWARE])
    phases = {(row["job"], row["phase"]): row["time_ns"] for row in found.phases}
    assert phases["a", "step"] == phases["b", "step"] == phases["b", "all-reduce"]


def test_steps_of_generated_training() -> None:
    workload = {
        "generator": "model",
        "model": SMALL_MODEL,
        "gpu": "h100-sxm",
        "dp": 2,
        "tp": 4,
        "steps": 3,
    }
    found = ab.compare(ring(workload), [AWARE])
    whole = [row["time_ns"] for row in found.phases if row["phase"] == "step"]
    assert len(whole) == 3
    assert abs(sum(whole) - found.rows[0]["finish_ns"]) <= 3  # each in whole ns
    compute = [row["time_ns"] for row in found.phases if row["phase"] == "compute"]
    assert len(set(compute)) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 9)), max_size=20))
def test_covered_time(intervals: list[tuple[int, int, int]]) -> None:
    """Against counting the units of time one by one."""
    units: dict[int, set[int]] = {}
    for group, start, length in intervals:
        units.setdefault(group, set()).update(range(start, start + length))
    group, start, length = np.array(intervals, np.int64).reshape(-1, 3).T
    found = covered(start, start + length, group, 4)
    assert found.tolist() == [len(units.get(group, ())) for group in range(4)]


def test_the_furthest_are_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of what groups of ranks do alike the furthest one only, those that differ most first."""
    (tmp_path / "experiment.yaml").write_text(
        f"workload: {{generator: model, model: {SMALL_MODEL}, gpu: h100-sxm, dp: 2, tp: 4, "
        "steps: 2}\n"
        "system: {all-reduce-implementation: [ring], all-gather-implementation: [ring],\n"
        "  reduce-scatter-implementation: [ring]}\n"
        "network: {topology: [Switch], npus_count: [8], bandwidth: [50], latency: [500]}\n"
    )
    arguments = [f"--backends={AWARE},{UNAWARE}", f"--reference={UNAWARE}"]
    file = tmp_path / "c.json"
    assert main(["compare", str(tmp_path / "experiment.yaml"), *arguments, f"--json={file}"]) == 0
    parts = [part.splitlines() for part in capsys.readouterr().out.split("\n\n")]
    content = json.loads(file.read_text())
    for title, table, name in (
        ("furthest collectives", "collectives", "duration_ns"),
        ("furthest phases", "phases", "time_ns"),
    ):
        (lines,) = [part[1:] for part in parts if title in part[0]]
        shown = [re.findall(r"[\d,]+(?= )", line.rpartition("%")[0])[-2:] for line in lines]
        apart = [abs(int(a.replace(",", "")) - int(b.replace(",", ""))) for a, b in shown]
        assert apart == sorted(apart, reverse=True)
        assert len(set(lines)) == len(lines) <= 8
        assert apart[0] == max(abs(row[name] - row["reference_ns"]) for row in content[table])


# Bandwidth


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("all-reduce", 14 / 8), ("all-gather", 7 / 8), ("reduce-scatter", 7 / 8),
     ("all-to-all", 7 / 8), ("broadcast", 1), ("reduce", 1)],
)  # fmt: skip
def test_bandwidth_is_that_of_nccl_tests(kind: str, factor: float) -> None:
    """https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md"""
    workload = {"generator": "collective", "kind": kind, "size": MIB}
    (row,) = ab.compare(ring(workload), [AWARE]).rows
    result = ring(workload).run()
    size = MIB * (8 if kind == "all-gather" else 1)
    assert row["size_bytes"] == size
    assert row["algbw_GBps"] == pytest.approx(size / (result.finish_ps.max() / 1000))
    assert row["busbw_GBps"] == pytest.approx(factor * row["algbw_GBps"])
    assert bus_factor(CommType[kind.upper().replace("-", "_")], 8) == factor


def test_bandwidth_of_repetitions_and_of_groups() -> None:
    once = ab.compare(ring(), [AWARE]).rows[0]
    thrice = {"generator": "collective", "size": "1MiB", "repeat": 3, "compute-us": 50}
    assert ab.compare(ring(thrice), [AWARE]).rows[0]["busbw_GBps"] == pytest.approx(
        once["busbw_GBps"], rel=1e-3
    )
    halves = collective("all-reduce", MIB, 8, groups=[[0, 1, 2, 3], [4, 5, 6, 7]])
    found = one_collective(halves.workload(), dict(halves.comm_groups))
    assert found == OneCollective(CommType.ALL_REDUCE, 4, MIB)
    uneven = collective("all-reduce", MIB, 8, groups=[[0, 1, 2], [4, 5, 6, 7]])
    assert one_collective(uneven.workload(), dict(uneven.comm_groups)) is None
    for kind in ("barrier", "send-recv", "gather"):
        made = collective(kind, 8, 8)
        assert one_collective(made.workload(), {}) is None
    idle = TraceBuilder()
    idle.comp()
    assert one_collective(GeneratedWorkload([idle] * 2).workload(), {}) is None


# What is varied


def test_several_paths_are_combined() -> None:
    found = ab.compare(
        ring(), [UNAWARE],
        vary={"workload.size": ["1KiB", "1MiB"], "network.bandwidth[0]": [25, 50, 100],
              "injection_scale": [1]},
    )  # fmt: skip
    seen = [(row["workload.size"], row["network.bandwidth[0]"]) for row in found.rows]
    assert seen == list(itertools.product(["1KiB", "1MiB"], [25, 50, 100]))
    assert found.varied == ("workload.size", "network.bandwidth[0]", "injection_scale")
    ends = [row["finish_ns"] for row in found.rows]
    assert ends[3] > ends[4] > ends[5] > ends[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"backends": []}, "backends: none is given"),
        ({"backends": "abc"}, "backends: .*a list or tuple"),
        ({"vary": {"netwrok.bandwidth": [1]}}, "did you mean 'network'"),
        ({"vary": {"network.bandwidth[9]": [1]}}, "1 entries"),
        ({"vary": {"network.bandwidth[0]": []}}, "at least one value"),
        ({"vary": {"network.bandwidth[0]": 3}}, "a list of values"),
        ({"vary": {"backend": ["a"]}}, "--backends"),
        ({"options": {"nix": {}}}, "nix"),
        ({"tolerance": -1}, "tolerance"),
        ({"engine": "x"}, "engine"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ab.compare(ring(), **{"backends": [AWARE], **arguments})


# What fails


def test_a_missing_backend_is_a_row_with_its_error() -> None:
    found = ab.compare(ring(), ["nix", AWARE, "/nowhere/lib.so"])
    first, second, third = found.rows
    assert re.match("InputError: .*'nix' is not allowed", first["failure"])
    assert "/nowhere/lib.so" in third["failure"]
    assert first["finish_ns"] is first["error"] is first["cpu_s"] is None
    assert (second["error"], second["failure"], found.reference) == (0.0, None, AWARE)
    assert len(found.failures) == 2
    assert ab.compare(ring(), ["nix"]).reference is None
    found = ab.compare(ring(), [AWARE], reference="nix")
    assert [row["error"] for row in found.rows] == [None, None]


@pytest.mark.parametrize(
    ("fault", "said"),
    [("abort", "SIGABRT"), ("segv", "SIGSEGV"), ("exit", "exit code"),
     ("lie:time_ps-1", "(R6)")],
)  # fmt: skip
def test_a_backend_that_crashes_or_lies_is_a_row(fault: str, said: str, mock_library: Path) -> None:
    mock = str(mock_library)
    options = {"fault": fault, "fault.call": "exchange"}
    found = ab.compare(ring(), [mock, AWARE], reference=AWARE, options={mock: options})
    broken, good = found.rows
    assert broken["finish_ns"] is None
    assert said in broken["failure"]
    assert good["error"] == 0.0
    assert found.failures[0].exit_code == 4
    well = ab.compare(ring(), [mock, AWARE], reference=AWARE)
    assert well.rows[0]["failure"] is None


def test_a_backend_that_hangs_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_time_before_the_fault(tmp_path, monkeypatch)
    hangs = str(foreign_library(tmp_path))
    options = {hangs: {"fault": "hang_advance"}}
    found = ab.compare(
        ring(), [AWARE, hangs], reference=AWARE, options=options, no_progress_timeout_s=1
    )
    good, broken = found.rows
    assert good["error"] == 0.0
    assert broken["finish_ns"] is None
    assert "no progress for 1 s" in broken["failure"]
    assert found.failures[0].exit_code == 4


# On the command line


SCHEMA = {
    "backend": str, "finish_ns": int, "error": float, "exposed_comm_ns": int, "cpu_s": float,
    "run_cpu_s": float, "wall_s": float,
    "prepare_s": float, "peak_mb": float, "events": int, "engine": str, "size_bytes": int,
    "algbw_GBps": float, "busbw_GBps": float,
}  # fmt: skip


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = tmp_path / "c.json", tmp_path / "out"
    code = main([
        "compare", str(EXAMPLE), f"--backends={AWARE},{UNAWARE},nix", f"--json={file}",
        "--vary", "workload.size=64KiB,1048576", "--vary=injection_scale=1,2",
        f"--output={folder}", f"--reference={UNAWARE}",
    ])  # fmt: skip
    said = capsys.readouterr()
    assert code == 2
    assert "error: 4 of 12 runs failed; the first: --backend: 'nix'" in said.err
    assert f"\n2/12 {UNAWARE}, workload.size=64KiB, injection_scale=1: " in said.err
    assert f"Error: relative to {UNAWARE}, as given." in said.out
    content = json.loads(file.read_text())
    assert content == json.loads((folder / "comparison.json").read_text())
    rows = content["rows"]
    assert [row["injection_scale"] for row in rows[::3]] == [1, 2, 1, 2]
    for row in rows:
        assert set(row) == {"workload.size", "injection_scale", *SCHEMA, "failure"}
        failed = row["backend"] == "nix"
        assert isinstance(row["failure"], str) == failed
        for name, kind in list(SCHEMA.items())[1:]:
            assert row[name] is None if failed else isinstance(row[name], (kind, int)), name
    with (folder / "runs.csv").open() as lines:
        table = list(csv.DictReader(lines))
    assert [row["finish_ns"] for row in table if row["backend"] == AWARE] == [
        f"{row['finish_ns']}" for row in rows if row["backend"] == AWARE
    ]
    for name in ("groups.csv", "collectives.csv", "kinds.csv", "phases.csv", "partings.csv"):
        assert (folder / name).stat().st_size > 0
    pytest.importorskip("matplotlib")
    drawn = {plot.name for plot in folder.glob("*.svg")}
    assert drawn == {
        "frontier.svg", "error_workload_size.svg", "error_injection_scale.svg",
        "bus_bandwidth.svg",
    }  # fmt: skip


def test_flags_and_options_of_one_backend(
    tmp_path: Path, mock_library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        f"--workload-configuration={ROOT}/examples/analytical/all_reduce/trace",
        f"--system-configuration={ROOT}/examples/analytical/system.json",
        f"--network-configuration={ROOT}/examples/analytical/ring.yml",
        f"--remote-memory-configuration={ROOT}/examples/analytical/no_memory.json",
    ]
    file = tmp_path / "c.json"
    mock = str(mock_library)
    assert main(["compare", *flags, f"--backends={mock},{AWARE}", f"--json={file}",
                 f"--network-option={mock}:latency_ps=7"]) == 0  # fmt: skip
    rows = json.loads(file.read_text())["rows"]
    run = tmp_path / "r.json"
    assert main(["run", *flags, f"--backend={mock}", "--network-option=latency_ps=7",
                 f"--json={run}"]) == 0  # fmt: skip
    assert rows[0]["finish_ns"] == max(json.loads(run.read_text())["finish_ns"])
    capsys.readouterr()
    assert main(["compare", *flags, f"--backends={AWARE}", "--network-option=nix:a=1"]) == 2
    assert "--network-option: 'nix' is not allowed" in capsys.readouterr().err
    assert main(["compare", *flags, f"--backends={AWARE}", "--vary", "injection_scale=[1"]) == 2
    assert "--vary injection_scale" in capsys.readouterr().err


# The page


def test_the_page_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its command and its Python run, and its numbers are those of the analytical networks."""
    page = (ROOT / "docs/compare.md").read_text()
    command = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0].replace("\\\n", " ").split()
    assert command[0] == "astra-bridge"
    quick = {AWARE: AWARE, UNAWARE: UNAWARE}
    words = [",".join(quick) if quick.keys() <= set(word.split(",")) else word for word in command]
    words = [UNAWARE if word == "ns3" else word for word in words]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert main(words[1:]) == 0
    printed = {tuple(line.split()[:3]) for line in capsys.readouterr().out.splitlines()}
    shown = [tuple(line.split()[:3]) for line in page.splitlines() if "MiB  " in line]
    shown = [line for line in shown if line[1] in quick]
    assert len(shown) >= 2
    assert set(shown) <= printed
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    code = code.replace('"flow"', f'"{AWARE}"').replace("found.tables", "0 and found.tables")
    exec(code, {})
    assert (tmp_path / "out" / "comparison.json").exists()


@pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable()))
def test_collectives_and_phases_of_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints what stands below it."""
    page = (ROOT / "docs/compare.md").read_text()
    section = page.partition("## Collectives and phases")[2].partition("\n## ")[0]
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert main(command.split()[1:]) == 0
    printed = capsys.readouterr().out.splitlines()
    shown = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    assert len(shown) == 9
    assert {line for line in shown if line != "..."} <= set(printed)


def test_groups_that_run_at_different_times_are_collectives_of_their_own() -> None:
    """Two stages of a pipeline, whose nodes have the same ids."""
    workload = {"generator": "model", "model": SMALL_MODEL, "gpu": "h100-sxm", "pp": 2, "tp": 4}
    experiment = ring(workload)
    found = ab.compare(experiment, [AWARE])
    assert {row["ranks"] for row in found.collectives} == {4}
    assert len({row["group"] for row in found.collectives}) == 2
    table = experiment.run().collectives
    whole_ns = sum(row["total_ns"] for row in found.kinds)
    assert sum(row["count"] for row in found.kinds) == len(table) // 4
    # No longer than what the ranks of a group took together.
    assert whole_ns <= (table["end_ps"] - table["start_ps"]).sum() / 1000
