# SPDX-License-Identifier: MIT
"""Where the time went: closed forms, and sums that hold for whatever ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.errors import InputError
from astra_bridge.explanation.breakdown import first_of_those_that_run
from astra_bridge.results import Result
from astra_bridge.trace import CommType, Workload
from astra_bridge.validation.cases import write_golden_case
from astra_bridge.workload import TraceBuilder
from tests.golden_run import GOLDEN, run, why_not
from tests.small import network, per_rank, same_on_all, system
from tests.small import run as run_small

CASES = sorted((GOLDEN / "analytical").glob("*.json"))
CASES += sorted((GOLDEN / "analytical_upstream_fails").glob("*.json"))
OWN = sorted((Path(__file__).parents[1] / "golden" / "analytical").glob("*.json"))


def parts(result: Result, rank: int) -> dict[tuple[str, str], int]:
    """What a rank did, and how long [ns]."""
    table = result.breakdown
    mine = table["rank"] == rank
    columns = (table[name][mine].tolist() for name in ("activity", "what", "time_ps"))
    return {(activity, what): time // 1000 for activity, what, time in zip(*columns, strict=True)}


def holds(result: Result) -> None:
    """Of each rank all parts add up to its finish; the path covers the last one without gaps."""
    table = result.breakdown
    total = np.zeros(result.rank_count, np.int64)
    np.add.at(total, table["rank"], table["time_ps"])
    assert total.tolist() == result.finish_ps.tolist()
    assert (table["time_ps"] > 0).all()
    path = result.critical_path
    edges = [0, *path["end_ps"].tolist()]
    assert path["start_ps"].tolist() == edges[:-1]
    assert edges[-1] == result.finish_ps.max(initial=0)
    assert (path["end_ps"] > path["start_ps"]).all()
    spans = result.collective_spans
    assert (spans["first_start_ps"] <= spans["last_start_ps"]).all()
    assert (spans["last_start_ps"] <= spans["end_ps"]).all()
    assert int(spans["ranks"].sum()) == len(result.collectives)


@pytest.mark.parametrize("path", [*OWN, *CASES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_parts_and_path_add_up_to_the_finish(path: Path, tmp_path: Path) -> None:
    kind = "python" if why_not("native") else "native"
    holds(run(write_golden_case(path, tmp_path), kind))  # type: ignore[arg-type]


def two(*, late_us: int) -> Workload:
    """Two ranks compute, the second longer, and reduce 1 MB."""

    def fill(trace: TraceBuilder, rank: int) -> None:
        compute = trace.comp("forward", duration_us=10 + late_us * rank)
        trace.coll(CommType.ALL_REDUCE, 10**6, name="gradients", deps=[compute])

    return per_rank(2, fill)


def on_two(workload: Workload, **arguments: Any) -> Result:
    return run_small(workload, system(), network(npus=2), **arguments)


def test_waiting_for_a_straggler_is_no_communication() -> None:
    late = on_two(two(late_us=7))
    for rank, compute in ((0, 10_000), (1, 17_000)):
        found = parts(late, rank)
        assert found.pop(("compute", "")) == compute
        assert found.pop(("exposed collective", "all-reduce")) == late.finish_ns[rank] - 17_000
        waits = {("waiting for a straggler", "all-reduce"): 7_000} if rank == 0 else {}
        assert found == waits
    path = late.critical_path
    assert path["rank"].tolist() == [1, 1]
    assert path["name"].tolist() == ["forward", "gradients"]
    assert path["activity"].tolist() == ["compute", "exposed collective"]
    spans = late.collective_spans
    assert [int(spans[name][0]) for name in ("ranks", "first_start_ps", "last_start_ps")] == [
        2, 10**7, 17 * 10**6,
    ]  # fmt: skip


def test_a_pipeline_bubble_is_waiting_for_a_sender() -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            compute = trace.comp("stage 0", duration_us=30)
            trace.send(1, 10**6, 1, name="activations", deps=[compute])
        else:
            received = trace.recv(0, 10**6, 1, name="activations")
            trace.comp("stage 1", duration_us=5, deps=[received])

    result = on_two(per_rank(2, fill))
    flight_ns = int(result.finish_ns[1]) - 35_000
    assert parts(result, 1) == {
        ("compute", ""): 5_000,
        ("exposed message", "receive"): flight_ns,
        ("waiting for a sender", "receive"): 30_000,
    }
    assert result.critical_path["rank"].tolist() == [0, 1, 1]
    assert result.critical_path["name"].tolist() == ["stage 0", "activations", "stage 1"]


def test_what_is_hidden_behind_compute_is_not_exposed() -> None:
    def fill(trace: TraceBuilder) -> None:
        trace.coll(CommType.ALL_REDUCE, 10**6, name="gradients")
        trace.comp("backward", duration_us=1000)

    result = on_two(same_on_all(2, fill))
    assert parts(result, 0) == {("compute", ""): 1_000_000}


@pytest.mark.parametrize("seed", range(20))
def test_priorities_against_a_count_of_every_instant(seed: int) -> None:
    random = np.random.default_rng(seed)
    count, rows, kinds = 40, 3, 4
    row = np.sort(random.integers(0, rows, count))
    kind = random.integers(0, kinds, count)
    start = random.integers(0, 50, count)
    end = start + random.integers(0, 20, count)
    expected = np.zeros((rows, kinds), np.int64)
    for at in range(80):
        for one in range(rows):
            running = kind[(row == one) & (start <= at) & (end > at)]
            if len(running):
                expected[one, running.min()] += 1
    found = first_of_those_that_run(row, kind, start, end, rows, kinds)
    assert found.tolist() == expected.tolist()


def test_without_nodes_there_is_nothing_to_explain() -> None:
    result = on_two(two(late_us=0), record_nodes=False)
    for name in ("breakdown", "critical_path", "collective_spans"):
        with pytest.raises(InputError, match="not recorded"):
            getattr(result, name)
