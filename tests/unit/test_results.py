# SPDX-License-Identifier: MIT
"""The Result: statistics, ASTRA-sim's lines, and the files made from it."""

from __future__ import annotations

import csv
import json
import sys
import types
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import astra_bridge
from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.files import NewFiles
from astra_bridge.results.files import save_local_memory, save_log
from astra_bridge.results.lines import rank_lines
from astra_bridge.results.local_memory import local_memory
from astra_bridge.results.statistics import CATEGORIES, _union_length
from astra_bridge.results.times import NodeRecord
from astra_bridge.trace import NodeType
from tests.made_result import COLL, COMP, PAIR, make, node

NOW = datetime(2026, 1, 2, 3, 4, 5, 67_000)


def test_lines_are_framed_as_astra_sim_frames_them(tmp_path: Path) -> None:
    times = [[(0, 100), (50, 200)], [(0, 100), (50, 150)]]
    result = make(tmp_path, times, [PAIR, PAIR])
    head = "[2026-01-02 03:04:05.067]"
    # Rank 1 ends first.  Overlap: 100 + 100 - 150 = 50 and 100 + 150 - 200 = 50.
    assert list(rank_lines(result, result.statistics, NOW)) == [
        f"{head} [workload] [info] sys[1] finished, 150 cycles, exposed communication 75 cycles.",
        f"{head} [statistics] [info] sys[1]. Post statistics processing start.",
        f"{head} [statistics] [info] sys[1]. Post statistics processing end.",
        f"{head} [statistics] [info] sys[1], Wall time: 150",
        f"{head} [statistics] [info] sys[1], GPU time: 100",
        f"{head} [statistics] [info] sys[1], Comm time: 100",
        f"{head} [statistics] [info] sys[1], Total compute-communication overlap: 50",
        f"{head} [workload] [info] sys[0] finished, 200 cycles, exposed communication 100 cycles.",
        f"{head} [statistics] [info] sys[0]. Post statistics processing start.",
        f"{head} [statistics] [info] sys[0]. Post statistics processing end.",
        f"{head} [statistics] [info] sys[0], Wall time: 200",
        f"{head} [statistics] [info] sys[0], GPU time: 100",
        f"{head} [statistics] [info] sys[0], Comm time: 150",
        f"{head} [statistics] [info] sys[0], Total compute-communication overlap: 50",
    ]


def test_every_category_is_a_union_of_intervals(tmp_path: Path) -> None:
    nodes = [
        node(0, COMP),
        node(1, COMP),
        node(2, COMP, is_cpu_op=True),
        node(3, NodeType.MEM_LOAD, tensor_size=1),
        node(4, NodeType.METADATA),
        node(5, NodeType.COMM_SEND, comm_dst=0, comm_size=1, comm_tag=0),
        node(6, NodeType.COMM_RECV, comm_src=0, comm_size=1, comm_tag=0),
    ]
    times = [(0, 10), (5, 20), (0, 7), (30, 40), (40, 40), (35, 50), (-1, -1)]
    statistics = make(tmp_path, [times], [nodes]).statistics
    assert dict(zip(CATEGORIES, statistics.time_ns[0].tolist(), strict=True)) == {
        "CPU": 7,
        "GPU": 20,
        "Comm": 15,
        "Remote mem": 10,
        "Invalid": 0,
    }
    assert statistics.has[0].all()
    assert statistics.wall_ns.tolist() == [50]
    assert statistics.overlap_ns.tolist() == [0]


def test_idle_gaps_count_against_the_overlap_in_astra_sim_only(tmp_path: Path) -> None:
    # GPU 0..10, Comm 6..10 and 100..110: overlap 4, but 10 + 14 - 110 < 0.
    nodes = [*PAIR, node(2, COLL, comm_type=0, comm_size=8)]
    times = [[(0, 10), (6, 10), (100, 110)]]
    assert make(tmp_path, times, [nodes]).statistics.overlap_ns.tolist() == [0]
    corrected = make(tmp_path, times, [nodes], semantics="corrected")
    assert corrected.statistics.overlap_ns.tolist() == [4]


def test_roofline_averages(tmp_path: Path) -> None:
    nodes = [
        node(0, COMP, num_ops=1000, tensor_size=10),  # intensity 100: bound by compute
        node(1, COMP, num_ops=10, tensor_size=10),  # intensity 1: bound by memory
        node(2, COMP, is_cpu_op=True),
    ]
    system = {"roofline-enabled": 1, "peak-perf": 1, "local-mem-bw": 100}
    roofline = make(tmp_path, [[(0, 10), (10, 40), (0, 59)]], [nodes], system).statistics.roofline
    assert roofline is not None
    # Weights 10, 30 and 59 ns, and ASTRA-sim's 1 more.
    assert roofline.compute_bound.tolist() == [10 / 100]
    assert roofline.compute_utilization.tolist() == pytest.approx([(10 + 30 * 0.1) / 100])
    assert roofline.memory_utilization.tolist() == pytest.approx([(10 * 0.1 + 30) / 100])
    assert roofline.operation_intensity.tolist() == pytest.approx([(10 * 100 + 30 * 1) / 100])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2**62), st.integers(0, 2**62)), max_size=12
    ),
    st.booleans(),
)
def test_union_length_against_a_plain_loop(rows: list[tuple[int, int, int]], small: bool) -> None:
    rows = [(group, *sorted((a % 20, b % 20) if small else (a, b))) for group, a, b in rows]
    expected = []
    for group in range(4):
        total, reached = 0, 0
        for start, end in sorted((row[1], row[2]) for row in rows if row[0] == group):
            total += max(0, end - max(start, reached))
            reached = max(reached, end)
        expected.append(total)
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    assert _union_length(columns[0], columns[1], columns[2], 4).tolist() == expected


def test_json_has_the_documented_keys(tmp_path: Path) -> None:
    result = make(
        tmp_path, [[(0, 100), (50, 200)]] * 2, [PAIR, PAIR], network={"messages": np.int64(3)}
    )
    result.save_json(tmp_path / "out" / "result.json")
    content = json.loads((tmp_path / "out" / "result.json").read_text())
    assert content["finish_ns"] == [200, 200]
    assert content["exposed_comm_ns"] == [100, 100]
    assert content["wall_s"] == 0.25
    assert (content["backend"], content["engine"]) == ("analytical-aware", "python")
    assert content["semantics"] == "astra-sim"
    assert content["statistics"]["comm_ns"] == [150, 150]
    assert content["network"] == {"messages": 3}


def test_nodes_of_a_rank(tmp_path: Path) -> None:
    result = make(tmp_path, [[(0, 1), (1, 2)], [(5, 6), (-1, -1)]], [PAIR, PAIR])
    nodes = result.nodes_of(1)
    assert nodes.start_ps.tolist() == [5000, -1]
    assert nodes.end_ps.tolist() == [6000, -1]
    assert nodes.columns.node_id.tolist() == [0, 1]


def test_without_recorded_nodes(tmp_path: Path) -> None:
    nothing = np.zeros(0, np.int64)
    times = [[(0, 1), (1, 2)]]
    recorded = NodeRecord(np.array([0, 2]), nothing, nothing)
    result = make(tmp_path, times, [PAIR], recorded=recorded)
    assert result.statistics.wall_ns.tolist() == [2]
    with pytest.raises(InputError, match="not recorded"):
        result.nodes_of(0)
    assert {path.stem for path in result.save(tmp_path / "out")} == {"result", "ranks"}


LINKS = {
    "link": np.array([0, 1]),
    "src": np.array([0, 1]),
    "dst": np.array([1, 0]),
    "bytes": np.array([10, 20]),
    "busy_ps": np.array([5, 6]),
}


def test_links(tmp_path: Path) -> None:
    result = make(tmp_path, [[(0, 1), (1, 2)]], [PAIR], tables={"links": LINKS})
    assert result.link_bytes.tolist() == [10, 20]
    assert result.link_busy_ps.tolist() == [5, 6]
    with pytest.raises(InputError, match="reports no links"):
        _ = make(tmp_path, [[(0, 1), (1, 2)]], [PAIR]).link_bytes


@pytest.mark.parametrize("arrow", [True, False])
def test_save(tmp_path: Path, arrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if arrow:
        pytest.importorskip("pyarrow")
    else:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    times = [[(0, 100), (50, 200)], [(0, 100), (-1, -1)]]
    tables = {"links": LINKS, "../odd name": {"text": np.array(["a,b", 'c"d'])}}
    result = make(tmp_path, times, [PAIR, PAIR], tables=tables)
    written = result.save(tmp_path / "out")
    assert all(path.is_file() and path.parent == tmp_path / "out" for path in written)

    def rows(name: str) -> list[list[str]]:
        with (tmp_path / "out" / f"{name}.csv").open(newline="") as file:
            return list(csv.reader(file))

    assert rows("ranks")[0][:3] == ["rank", "finish_ns", "exposed_comm_ns"]
    assert rows("ranks")[1][:3] == ["0", "200", "100"]
    assert rows("nodes") == [
        ["rank", "node_id", "type", "start_ps", "end_ps"],
        ["0", "0", "4", "0", "100000"],
        ["0", "1", "7", "50000", "200000"],
        ["1", "0", "4", "0", "100000"],
        ["1", "1", "7", "-1", "-1"],
    ]
    assert rows("links")[2] == ["1", "1", "0", "20", "6"]
    assert rows("___odd_name") == [["text"], ["a,b"], ['c"d']]
    assert (tmp_path / "out" / "nodes.parquet").exists() is arrow


def test_save_into_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = make(tmp_path, [[(0, 1), (1, 2)]], [PAIR])
    with pytest.raises(InputError, match="cannot write"):
        result.save(tmp_path / "out")


def test_log_files_and_trace_lines(tmp_path: Path) -> None:
    result = make(tmp_path, [[(0, 100), (100, 200)]], [PAIR], {"trace-enabled": 1})
    with NewFiles() as files:
        save_log(files, result, result.statistics, tmp_path / "log", NOW, ["careful"])
    lines = (tmp_path / "log" / "log.log").read_text().splitlines()
    head = "[2026-01-02 03:04:05.067] [workload] [debug]"
    assert lines[:5] == [
        "[2026-01-02 03:04:05.067] [system] [warning] careful",
        f"{head} issue,sys->id=0, tick=0, node->id=0, node->name=n0, node->type=4",
        f"{head} callback,sys->id=0, tick=100, node->id=0, node->name=n0, node->type=4",
        f"{head} issue,sys->id=0, tick=100, node->id=1, node->name=n1, node->type=7",
        f"{head} callback,sys->id=0, tick=200, node->id=1, node->name=n1, node->type=7",
    ]
    assert "finished, 200 cycles" in lines[5]
    assert (tmp_path / "log" / "err.log").read_text() == ""


def test_local_memory(tmp_path: Path) -> None:
    nodes = [
        node(0, COMP, inputs=["weights", "1048576"], outputs=["a", "2097152", "none", "0"]),
        node(1, COMP, inputs=["a", "2097152"], outputs=[]),
        node(2, COMP),
    ]
    result = make(tmp_path, [[(5, 10), (10, 30), (30, 31)]], [nodes])
    memory = local_memory(result, 0)
    # weights live from 0 to the end of node 0, a from the start of node 0 to the end of node 1.
    assert memory.usage() == [(0, 2**20), (5, 3 * 2**20), (10, 2**21), (30, 0)]
    assert memory.peak() == "3.00 MB"
    with NewFiles() as files:
        assert list(save_local_memory(files, result, tmp_path)) == [(0, "3.00 MB")]
    events = json.loads((tmp_path / "local_mem_trace.0.json").read_text())["traceEvents"]
    assert [event["cat"] for event in events if event["ph"] == "B"].count("tensorRead") == 2
    usage = [event["args"]["Memory_MB"] for event in events if event["ph"] == "C"]
    assert usage == [1.0, 3.0, 2.0, 0.0]


@pytest.mark.parametrize("outputs", [["a", "1", "a", "1"], ["a"], ["a", "x"], "a", [1, 2]])
def test_local_memory_errors(outputs: Any, tmp_path: Path) -> None:
    result = make(tmp_path, [[(0, 1)]], [[node(7, COMP, outputs=outputs)]])
    with pytest.raises(InputError, match="node 7 outputs"):
        local_memory(result, 0)


def test_tables_have_units_and_go_elsewhere(tmp_path: Path) -> None:
    result = make(tmp_path, [[(0, 100), (50, 200)], [(0, 100), (-1, -1)]], [PAIR, PAIR])
    assert len(result.ranks) == result.rank_count == 2
    assert len(result.nodes) == 4
    assert result.nodes.units["start_ps"] == "ps"
    assert result.collectives["end_ps"].tolist() == [200_000, -1]
    arrow = pytest.importorskip("pyarrow") and result.ranks.to_arrow()
    assert arrow.num_rows == 2
    assert arrow.schema.field("finish_ps").metadata == {b"unit": b"ps"}
    assert arrow.column("finish_ns").to_pylist() == result.finish_ns.tolist()


def test_pandas_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make(tmp_path, [[(0, 100)]], [PAIR[:1]])
    made: list[Any] = []

    class Frame:
        def __init__(self, columns: Any) -> None:
            self.attrs: dict[str, Any] = {}
            made.append(columns)

    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=Frame))
    assert result.nodes.to_pandas().attrs["units"]["end_ps"] == "ps"
    assert made[0]["end_ps"].tolist() == [100_000]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match="pip install pandas"):
        result.nodes.to_pandas()


def test_a_result_prints_in_six_lines(tmp_path: Path) -> None:
    result = make(tmp_path, [[(0, 100)]], [PAIR[:1]])
    assert len(repr(result).splitlines()) == 6
    assert "<table>" in result._repr_html_()
    assert "100" in repr(result)


@pytest.mark.parametrize("backend", ["analytical-aware", "analytical-unaware", "flow", "garnet"])
def test_every_backend_saves_a_run_on_dimensions(backend: str, tmp_path: Path) -> None:
    inputs = Path(__file__).parents[2] / "examples" / "analytical"
    result = astra_bridge.simulate(
        inputs / "all_reduce" / "trace", inputs / "system.json", inputs / "ring.yml",
        backend=backend,
    )  # fmt: skip
    result.save(tmp_path / "out")
    text = (tmp_path / "out" / "collective_spans.csv").read_text(encoding="utf-8")
    (spans,) = csv.DictReader(text.splitlines())
    assert (spans["what"], int(spans["ranks"])) == ("all-reduce", 8)
    # Both links of a rank in a ring; Garnet's are between routers, which says nothing of ranks.
    if backend == "garnet":
        assert spans["ideal_GBps"] == ""
        return
    assert float(spans["ideal_GBps"]) == 200 * 2**30 / 1e9
