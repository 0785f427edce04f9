# SPDX-License-Identifier: MIT
"""Several jobs as one workload: each does in the whole what it does alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astra_bridge
from astra_bridge.cli import main
from astra_bridge.errors import InputError
from astra_bridge.trace import CommType, Workload, read_workload
from astra_bridge.trace.checking import check_workload
from astra_bridge.trace.formats import count_ranks
from astra_bridge.trace.overview import overview
from astra_bridge.workload import GeneratedWorkload, TraceBuilder, collective
from astra_bridge.workload.merging import Part, merge
from benchmarks.transformer import Transformer, transformer

SYSTEM = {
    "all-reduce-implementation": ["ring"], "all-gather-implementation": ["ring"],
    "reduce-scatter-implementation": ["ring"], "all-to-all-implementation": ["direct"],
    "preferred-dataset-splits": 2, "active-chunks-per-dimension": 2, "endpoint-delay": 10,
}  # fmt: skip
SMALL = Transformer(layers=2, hidden=64, sequence=32, data=2, tensor=2, pipeline=2, micro_batches=3)


def finish_ns(workload: Workload, ranks: int, groups: Any = None) -> list[int]:
    network = {"topology": ["Switch"], "npus_count": [ranks], "bandwidth": [50], "latency": [500]}
    result = astra_bridge.simulate(
        workload=workload, system=SYSTEM, network=network, comm_groups=groups,
        semantics="corrected", backend="analytical-unaware",
    )  # fmt: skip
    return list(result.finish_ns)


def named() -> tuple[Workload, dict[int | str, tuple[int, ...]]]:
    """Groups by hashes, one of them declared in the trace; messages without a peer; a root."""
    traces = []
    for rank in range(4):
        trace = TraceBuilder()
        trace.process_groups({"a1f": [0, 1] if rank < 2 else [2, 3]})
        first = trace.comp(f"work of {rank}", duration_us=rank + 1)
        one = trace.coll(CommType.ALL_REDUCE, 4096, deps=[first])
        trace.nodes[one].attributes["pg_name"] = "a1f"
        trace.coll(CommType.BROADCAST, 999, group=7, root=2, deps=[one]) if rank > 0 else None
        trace.coll(CommType.ALL_GATHER, 64, deps=[one])
        pair = trace.send if rank % 2 == 0 else trace.recv
        message = trace.nodes[pair(0, 512, 3)]
        del message.attributes["comm_dst" if rank % 2 == 0 else "comm_src"]
        message.attributes["pg_name"] = "a1f"
        traces.append(trace)
    return GeneratedWorkload(traces).workload(), {7: (1, 2, 3)}


@pytest.mark.parametrize(
    "places",
    [None, [range(8), range(12, 16), range(8, 12)], [[15, 1, 3, 5, 7, 9, 11, 13], range(0, 8, 2),
                                                     [14, 12, 10, 8]]],
)  # fmt: skip
def test_each_job_ends_as_it_does_alone(places: Any) -> None:
    steps = transformer(SMALL).workload()
    assert steps.columns[0].relative
    some, groups = named()
    jobs = [(steps, {}), (collective("all-gather", 4096, 4).workload(), {}), (some, groups)]
    alone = [finish_ns(workload, workload.ranks, groups) for workload, groups in jobs]
    parts = [
        Part(workload, groups, None if places is None else tuple(places[i]))
        for i, (workload, groups) in enumerate(jobs)
    ]
    whole = merge(parts)
    assert whole.ranks == 16
    together = finish_ns(whole.workload(), 16, whole.comm_groups)
    behind = 0
    for i, (workload, _) in enumerate(jobs):
        place = list(range(behind, behind + workload.ranks) if places is None else places[i])
        behind += workload.ranks
        assert [together[rank] for rank in place] == alone[i]
    assert [f for f in check_workload(whole.workload(), whole.comm_groups) if f.stops] == []


def test_what_is_kept() -> None:
    some, groups = named()
    whole = merge([Part(some, groups), Part(some, groups)])
    # World, declared and given groups of each job, each with a number of its own.
    members = sorted(whole.comm_groups.values())
    assert members == sorted([
        (0, 1, 2, 3), (4, 5, 6, 7), (0, 1), (2, 3), (4, 5), (6, 7), (1, 2, 3), (5, 6, 7),
    ])  # fmt: skip
    theirs, ours = some.of_rank(3), whole.workload().of_rank(7)
    assert [ours.name(i) for i in range(len(ours))] == [theirs.name(i) for i in range(len(theirs))]
    assert np.array_equal(ours.node_id, theirs.node_id)
    assert np.array_equal(ours.dep, theirs.dep)
    assert np.array_equal(ours.comm_size, theirs.comm_size)
    assert ours.root[ours.root >= 0].tolist() == [6]
    alone, both = overview(some, groups), overview(whole.workload(), whole.comm_groups)
    assert both.nodes == 2 * alone.nodes
    assert sum(c.bytes for c in both.communication) == 2 * sum(c.bytes for c in alone.communication)


def test_one_job_alone_stays_on_all_ranks() -> None:
    whole = merge([Part(collective("all-reduce", 1024, 4).workload())])
    assert whole.comm_groups == {}
    assert whole.workload().columns[0].strings == ()


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        ([(0, 1), (1, 2)], "job 1: rank 1 has a job already: job 0"),
        ([(0, 1), (2,)], "job 1: has 2 ranks, and 1 places are given"),
    ],
)
def test_places_that_do_not_fit(places: list[tuple[int, ...]], problem: str) -> None:
    pair = collective("all-reduce", 1024, 2).workload()
    with pytest.raises(InputError, match=problem):
        merge([Part(pair, {}, place) for place in places])


def test_a_group_that_nothing_defines() -> None:
    trace = TraceBuilder()
    trace.coll(CommType.ALL_REDUCE, 64, group=5)
    with pytest.raises(InputError, match="nothing defines group 5, which rank 0 uses"):
        merge([Part(GeneratedWorkload([trace] * 2).workload())])


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    transformer(SMALL).write_kinds("steps")
    collective("all-to-all", 4096, 4, groups=[[0, 1], [2, 3]]).write("pairs")
    (tmp_path / "s.goal").write_text(
        "num_ranks 2\nrank 0 {\nl1: send 64b to 1 tag 1\n}\nrank 1 {\nl1: recv 64b from 0 tag 1\n}"
    )
    for inputs, ranks in ((["steps"], 8), (["pairs"], 4), (["s.goal"], 2)):
        assert count_ranks(*inputs) == ranks
    assert main(["trace", "merge", "steps", "pairs", "s.goal", "all"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  --workload-configuration=all"
    assert read_workload("all", 14).ranks == 14
    assert main(["trace", "check", "all"]) == 0
    assert main(["trace", "check", "steps"]) == 0
    assert main(["trace", "show", "steps"]) == 0
    shown = capsys.readouterr().out
    assert "14 ranks" in shown
    assert "all-reduce           2" in shown
    places = ["--place", "6-13", "--place=0-2,15", "--place=4,5", "--per-rank"]
    assert main(["trace", "merge", "steps", "pairs", "s.goal", "all", *places]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  --workload-configuration=all", "  --comm-group-configuration=all.comm_group.json",
    ]  # fmt: skip
    assert count_ranks("all") == 16
    assert main(["trace", "check", "all"]) == 0
    assert main(["trace", "merge", "steps", "pairs", "all", "--place=0-7"]) == 2
    assert "give one for each" in capsys.readouterr().err
    assert main(["trace", "merge", "nowhere", "all"]) == 2
    assert "no trace for rank 0" in capsys.readouterr().err
