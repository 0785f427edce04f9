# SPDX-License-Identifier: MIT
"""One trace for each kind of rank, and which ranks are alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge import simulate
from astra_bridge.errors import InputError
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.inputs.system import read_system
from astra_bridge.lowering import lower
from astra_bridge.trace import ProcessGroup, Workload, read_workload
from astra_bridge.trace.manifest import manifest_path
from astra_bridge.trace.per_rank import write_per_rank
from astra_bridge.workload import GeneratedWorkload, Kinds, TraceBuilder, collective

RANKS = 6


def ring(distance: int = 1) -> GeneratedWorkload:
    """Rank r sends to r + distance; the last ones go around."""
    ahead, around = TraceBuilder(), TraceBuilder()
    for trace, to, source in ((ahead, distance, -distance), (around, distance - RANKS, -distance)):
        trace.send(to, 8, 0)
        trace.coll(0, 64, group=1)  # type: ignore[arg-type]
        if trace is around:
            trace.recv(source, 8, 0)
    kinds = np.array([0] * (RANKS - 1) + [1], np.int32)
    return GeneratedWorkload(Kinds([ahead, around], kinds), own_groups={1: (2, 3)})


def lowered(workload: Workload) -> Any:
    system = read_system({"all-reduce-implementation": ["ring"]})
    return lower(workload, system, RemoteMemoryConfig(), (workload.ranks,), {})


def test_a_million_ranks_are_two_files(tmp_path: Path) -> None:
    generated = collective("all-reduce", 2**30, 1 << 20)
    files = generated.write_kinds(tmp_path / "w")
    assert [file.name for file in files] == ["w.kind0.et", "w.manifest.json"]
    assert sum(file.stat().st_size for file in files) < 1000
    read = read_workload(tmp_path / "w", 1 << 20)
    assert len(read.columns) == 1
    assert not read.rank_to_columns.any()


def test_peers_and_groups_are_those_of_the_own_rank(tmp_path: Path) -> None:
    generated = ring()
    generated.write_kinds(tmp_path / "w")
    expanded = generated.expanded()
    assert [trace.nodes[0].attributes["comm_dst"] for trace in expanded.traces] == [
        1, 2, 3, 4, 5, 0,
    ]  # fmt: skip
    assert set(expanded.comm_groups.values()) == {(0, 2, 4), (1, 3, 5)}
    for rank, trace in enumerate(expanded.traces):
        number = int(trace.nodes[1].attributes["pg_name"])  # type: ignore[arg-type]
        assert rank in expanded.comm_groups[number]
    for workload in (generated.workload(), read_workload(tmp_path / "w", RANKS)):
        assert workload.columns[0].process_groups == (ProcessGroup("1", (), 2, 3),)
        program = lowered(workload).program
        # The first five send one ahead, and the last one five back.
        assert program.messages["peer"].tolist() == [1, -5, -1]
        assert [(g["stride"], g["size"]) for g in program.groups] == [(1, 6), (2, 3)]


def test_members_of_a_group_of_the_own_rank() -> None:
    group = ProcessGroup("g", (), 2, 3)
    assert [group.members(rank) for rank in (0, 3, 7)] == [(0, 2, 4), (1, 3, 5), (7, 9, 11)]


def test_a_distance_that_is_not_one_is_refused() -> None:
    trace = TraceBuilder()
    trace.send(3, 8, 0)
    generated = GeneratedWorkload(Kinds([trace], np.zeros(RANKS, np.int32)), own_groups={})
    with pytest.raises(InputError, match="different directions around the 6 ranks"):
        lowered(generated.workload())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ranks": 0}, "ranks: 0 is not allowed"),
        ({"ranks": 7}, "kinds: are of 6 ranks in sum, not 7"),
        ({"peers": "near"}, "peers: 'near' is not allowed; allowed: absolute, relative"),
        ({"traces": []}, "traces: expected names of files beside the manifest"),
        ({"traces": ["../w.kind0.et", "w.kind1.et"]}, "traces: expected names of files"),
        ({"traces": ["w.kind0.et"]}, "kinds: allowed: kinds 0 to 0"),
        ({"traces": ["w.kind0.et", "none.et"]}, "none.et: cannot read"),
        ({"kinds": [[0, 5], [1]]}, "kinds: expected a list of"),
        ({"kinds": [[0, 9223372036854775807], [1, 1]]}, "kinds: allowed: kinds 0 to 1"),
        ({"groups": {"1": {"stride": 4, "size": 2}}}, "groups.1.size: groups of 2 ranks with a"),
        ({"groups": {"1": {"stride": 1}}}, "groups.1.size: missing"),
        ({"groups": {"1": {"ranks": [0, 6]}}}, "groups.1.ranks: expected a list of ranks"),
        ({"astra_bridge_manifest": 2}, "astra_bridge_manifest: 2 is not allowed"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    *_, file = ring().write_kinds(tmp_path / "w")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError) as refused:
        read_workload(tmp_path / "w", RANKS)
    assert said in str(refused.value)


def test_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    ring().write_kinds(tmp_path / "w")
    with pytest.raises(InputError, match="is a workload of 6 ranks, and there are 8"):
        read_workload(tmp_path / "w", 8)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"comm_size": "8"}, "node 0: comm_size: does not fit its field"),
        ({"comm_size": 2**63}, "node 0: comm_size: does not fit its field"),
        ({"comm_size": 1.5}, "node 0: comm_size: does not fit its field"),
        ({"comm_size": -1}, "node 0: comm_size: -1 is negative"),
        ({"pg_name": 3}, "node 0: pg_name: does not fit its field"),
    ],
)
def test_values_in_memory_are_checked(attributes: dict[str, Any], said: str) -> None:
    trace = TraceBuilder()
    trace.coll(0, 64)  # type: ignore[arg-type]
    trace.nodes[0].attributes.update(attributes)
    with pytest.raises(InputError) as refused:
        GeneratedWorkload([trace]).workload()
    assert said in str(refused.value)


def test_files_of_ranks_take_the_place_of_a_manifest(tmp_path: Path) -> None:
    prefix = tmp_path / "w"
    collective("all-reduce", 1 << 20, 4).write_kinds(prefix)
    assert manifest_path(prefix).exists()
    write_per_rank(prefix, [TraceBuilder().encode()] * 2, {1: (0, 1)})
    assert not manifest_path(prefix).exists()
    assert len(read_workload(prefix, 2).columns) == 1


def test_communication_in_turn_counts_where_there_is_one_slot(tmp_path: Path) -> None:
    """Each collective and send waits for the one before it; files for each rank say so too."""
    trace = TraceBuilder()
    trace.coll(0, 64, group=1)  # type: ignore[arg-type]
    compute = trace.comp("c", duration_us=5)
    trace.send(1, 8, 0, deps=[compute])
    trace.coll(0, 128, group=1)  # type: ignore[arg-type]
    other = TraceBuilder()
    other.recv(-1, 8, 0)
    for size in (64, 128):
        other.coll(0, size, group=1)  # type: ignore[arg-type]
    made = GeneratedWorkload(
        Kinds([trace, other], np.array([0, 1] * 3, np.int32)), own_groups={1: (1, 2)}, in_turn=True
    )
    made.write_kinds(tmp_path / "w")
    read = read_workload(tmp_path / "w", RANKS)
    assert all(columns.in_turn for columns in (*read.columns, *made.workload().columns))
    system = read_system({"all-reduce-implementation": ["ring"]})
    for semantics, parents in (("astra-sim", [0, 0, 2, 1]), ("corrected", [0, 0, 1, 0])):
        for workload in (read, made.workload()):
            program = lower(
                workload, system, RemoteMemoryConfig(), (RANKS,), {}, semantics=semantics
            ).program
            assert program.nodes["parents"][:4].tolist() == parents
    each = made.expanded()
    assert [node.data_deps for node in each.traces[0].nodes] == [[], [], [1, 0], [2]]
    assert not each.in_turn
    network = NetworkDims(("Ring",), (RANKS,), (50.0,), (500.0,))
    for semantics in ("astra-sim", "corrected"):
        given = {"system": system, "network": network, "semantics": semantics}
        assert (simulate(workload=made.workload(), **given).finish_ns > 0).all()
