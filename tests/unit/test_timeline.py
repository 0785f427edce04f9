# SPDX-License-Identifier: MIT
"""The timeline, read back with Perfetto's own schema (the package ``perfetto``)."""

from __future__ import annotations

import io
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge import Experiment
from astra_bridge.cli import main
from astra_bridge.errors import InputError
from astra_bridge.results import Result
from astra_bridge.results.timeline import write_timeline
from astra_bridge.trace import CommType, NodeType
from astra_bridge.trace.writer import TraceNode
from astra_bridge.workload import GeneratedWorkload, TraceBuilder
from tests.small import network, per_rank, same_on_all, system
from tests.small import run as run_small

schema = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
BEGIN, END, COUNTER = 1, 2, 4


class Timeline:
    """What stands in a file: slices as (process, track, name, start_ns, end_ns), and flows."""

    def __init__(self, file: Path) -> None:
        trace = schema.Trace.FromString(file.read_bytes())
        names: dict[int, str] = {}
        self.tracks: dict[int, tuple[str, str]] = {}
        self.slices: list[tuple[str, str, str, int, int]] = []
        self.depths: list[int] = []  # of each slice, within its track
        self.node_ids: list[int] = []
        self.counters: dict[str, list[float]] = {}
        self.flows: dict[int, list[tuple[str, int]]] = {}
        processes: dict[int, str] = {}
        events: dict[int, list[Any]] = {}
        for packet in trace.packet:
            assert packet.trusted_packet_sequence_id == 1
            for entry in packet.interned_data.event_names:
                names[entry.iid] = entry.name
            descriptor = packet.track_descriptor
            if packet.HasField("track_descriptor"):
                if descriptor.HasField("process"):
                    processes[descriptor.uuid] = descriptor.process.process_name
                else:
                    parent = descriptor.parent_uuid
                    if parent in processes:
                        self.tracks[descriptor.uuid] = (processes[parent], descriptor.name)
                    else:  # below another track
                        process, above = self.tracks[parent]
                        self.tracks[descriptor.uuid] = (process, f"{above}/{descriptor.name}")
            if packet.HasField("track_event"):
                events.setdefault(packet.track_event.track_uuid, []).append(packet)
        for uuid, packets in events.items():
            assert uuid in self.tracks
            self._slices(self.tracks[uuid], packets, names)

    def _slices(self, track: tuple[str, str], packets: list[Any], names: dict[int, str]) -> None:
        packets.sort(key=lambda packet: packet.timestamp)  # as Perfetto does; stable
        open_slices: list[tuple[str, int]] = []
        for packet in packets:
            event, now = packet.track_event, packet.timestamp
            if event.type == COUNTER:
                self.counters.setdefault(track[1], []).append(event.double_counter_value)
            elif event.type == BEGIN:
                open_slices.append((names[event.name_iid], now))
                self.node_ids += [note.uint_value for note in event.debug_annotations]
                for flow in [*event.flow_ids, *event.terminating_flow_ids]:
                    self.flows.setdefault(flow, []).append((track[0], now))
            else:
                name, begin = open_slices.pop()
                self.depths.append(len(open_slices))
                self.slices.append((*track, name, begin, now))
        assert not open_slices

    def total_ns(self, process: str, *tracks: str) -> int:
        """The time of all slices of nodes on some tracks."""
        return sum(
            end - begin
            for one, track, name, begin, end in self.slices
            if one == process
            and track.startswith(tracks)
            and "/" not in track
            and not name.startswith("waiting")
        )


def saved(result: Result, folder: Path, **arguments: Any) -> Timeline:
    result.save(folder, **arguments)
    return Timeline(folder / "timeline.pftrace")


def pipeline() -> Result:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            compute = trace.comp("stage 0", duration_us=30)
            trace.send(1, 10**6, 1, name="activations", deps=[compute])
        else:
            received = trace.recv(0, 10**6, 1, name="activations")
            trace.comp("stage 1", duration_us=5, deps=[received])
        trace.coll(CommType.ALL_REDUCE, 10**5, name="gradients", deps=[1])

    return run_small(per_rank(2, fill), system(), network(npus=2))


def test_a_receive_is_drawn_from_its_send_on_and_a_flow_leads_there(tmp_path: Path) -> None:
    timeline = saved(pipeline(), tmp_path)
    slices = {(process, name): (start, end) for process, _, name, start, end in timeline.slices}
    assert slices["rank 1", "activations"][0] == slices["rank 0", "activations"][0] == 30_000
    ((first, second),) = timeline.flows.values()
    assert [first[0], second[0]] in (["rank 0", "rank 1"], ["rank 1", "rank 0"])
    late = [one for one in timeline.slices if one[2] == "waiting for a straggler"]
    assert [(process, end - start) for process, _, _, start, end in late] == [("rank 0", 5_000)]


def test_totals_are_the_results(tmp_path: Path) -> None:
    inputs = "examples/analytical"
    result = Experiment(
        workload=f"{inputs}/training/trace",
        system=f"{inputs}/system.json",
        network=f"{inputs}/ring.yml",
        remote_memory=f"{inputs}/no_memory.json",
        comm_groups=f"{inputs}/training/trace.comm_group.json",
    ).run()
    timeline = saved(result, tmp_path)
    assert sorted({one[0] for one in timeline.slices}) == [f"rank {rank}" for rank in range(8)]
    for rank in range(8):
        assert timeline.total_ns(f"rank {rank}", "Compute") == result.statistics.time_ns[rank, 1]
    nodes = sum(len(result.nodes_of(rank).end_ps) for rank in range(8))
    assert len(timeline.node_ids) == nodes
    ends = [end for *_, end in timeline.slices]
    assert max(ends) == result.finish_ns.max()


def test_the_time_on_every_kind_of_track_is_the_results(tmp_path: Path) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        for at in range(4):
            node = trace.comp(f"kernel {at}", duration_us=5 + at)
            trace.comp(f"host {at}", duration_us=3, cpu=True)
            trace.coll(CommType.ALL_REDUCE, 10**5, deps=[node])
            trace.load(10**6, deps=[node])
            if rank == 0:
                trace.send(1, 10**5, at, deps=[node])
            elif rank == 1:
                trace.recv(0, 10**5, at)

    memory = {"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 100,
              "remote-mem-bw": 50}  # fmt: skip
    result = run_small(
        per_rank(4, fill), system(), network(npus=4), remote_memory=memory,
        backend="analytical-aware",
    )  # fmt: skip
    timeline = saved(result, tmp_path)
    since_ps, _ = result.waits  # type: ignore[misc]
    nodes = result.nodes
    for rank in range(4):
        mine = nodes["rank"] == rank
        cpu = result.nodes_of(rank).columns.is_cpu_op
        begin = nodes["start_ps"][mine] // 1000
        receives = nodes["type"][mine] == NodeType.COMM_RECV
        begin[receives] = np.maximum(begin, since_ps[mine] // 1000)[receives]
        took = nodes["end_ps"][mine] // 1000 - begin
        of = nodes["type"][mine]
        expected = {
            "Compute": took[(of == NodeType.COMP) & ~cpu].sum(),
            "Host": took[cpu].sum(),
            "Memory": took[of == NodeType.MEM_LOAD].sum(),
            "Communication": took[of >= NodeType.COMM_SEND].sum(),
        }
        found = {name: timeline.total_ns(f"rank {rank}", name) for name in expected}
        assert found == expected
        assert min(expected.values()) > 0


def test_chunks_and_their_phases_stand_below_their_collective(tmp_path: Path) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        compute = trace.comp("backward", duration_us=5)
        trace.coll(CommType.ALL_REDUCE, 10**6, name="gradients", deps=[compute])

    experiment = Experiment(
        per_rank(8, fill), system(["ring", "ring"]), network("Ring Ring", [2, 4], [50, 25], [1, 1]),
        backend="analytical-aware",
    )  # fmt: skip
    result = experiment.run(inside="chunks")
    timeline = saved(result, tmp_path)
    stays = result.recorded.stays
    assert len(stays) == 8 * 4 * 3  # ranks, chunks, phases
    for rank in range(8):
        mine = stays[stays["task"] == rank]
        phases = [
            (start, end, name)
            for (process, track, name, start, end), depth in zip(
                timeline.slices, timeline.depths, strict=True
            )
            if process == f"rank {rank}" and "/chunks" in track and depth == 1
        ]
        dims = experiment.lower().program.phases["level"][mine["phase"]].tolist()
        names = [f"dim{dim}, {(2, 4)[dim]} ranks" for dim in dims]
        times = [(mine[name] // 1000).tolist() for name in ("start_ps", "end_ps")]
        assert sorted(phases) == sorted(zip(*times, names, strict=True))
        whole = [
            (name, end - start)
            for (process, track, name, start, end), depth in zip(
                timeline.slices, timeline.depths, strict=True
            )
            if process == f"rank {rank}" and "/chunks" in track and depth == 0
        ]
        assert sorted(name for name, _ in whole) == [f"chunk {at}" for at in range(4)]
        collective = timeline.total_ns(f"rank {rank}", "Communication")
        assert max(took for _, took in whole) == collective


def test_folded_ranks_have_the_chunks_of_their_kind(tmp_path: Path) -> None:
    def fill(trace: TraceBuilder) -> None:
        trace.coll(CommType.ALL_REDUCE, 10**6)

    experiment = Experiment(same_on_all(32, fill), system(), network(npus=32))
    folded = experiment.run(inside="chunks")
    assert folded.recorded.kind_of_row is not None
    assert len(folded.recorded.stays) == 4
    whole = experiment.replace(fold="off").run(inside="chunks")
    for result, name in ((folded, "folded"), (whole, "whole")):
        result.save(tmp_path / name)
    folded_slices, slices = (
        Timeline(tmp_path / name / "timeline.pftrace").slices for name in ("folded", "whole")
    )
    assert len(slices) == 32 * (1 + 4 + 4)
    assert folded_slices == slices


def test_too_many_chunks_are_left_out_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astra_bridge.results.result.MOST_CHUNKS", 1)
    inputs = "examples/analytical"
    command = ["run", f"{inputs}/experiment.yaml", f"--output={tmp_path}"]
    assert main(command) == 0
    assert "chunks of its collectives are too many" in capsys.readouterr().out
    tracks = Timeline(tmp_path / "timeline.pftrace").tracks.values()
    assert not [name for _, name in tracks if "chunks" in name]
    monkeypatch.undo()
    assert main(command) == 0
    assert "too many" not in capsys.readouterr().out
    tracks = Timeline(tmp_path / "timeline.pftrace").tracks.values()
    assert [name for _, name in tracks if "chunks" in name]


def test_streams_and_groups_have_tracks_of_their_own(tmp_path: Path) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        first = trace.comp("matmul", duration_us=5)
        second = trace.comp("copy", duration_us=4)
        for node, stream in ((first, 7), (second, 9)):
            trace.nodes[node].attributes["stream"] = stream
        trace.coll(CommType.ALL_REDUCE, 10**5, deps=[first], group=1)
        trace.coll(CommType.ALL_REDUCE, 10**5, deps=[first], group=2)

    groups = {"1": [0, 1], "2": [0, 1]}
    result = run_small(per_rank(2, fill), system(), network(npus=2), comm_groups=groups)
    tracks = {name for process, name in saved(result, tmp_path).tracks.values() if process}
    assert tracks == {
        "Compute, stream 7", "Compute, stream 9", "Communication, group 1",
        "Communication, group 2",
    }  # fmt: skip


def test_a_tier_has_a_counter(tmp_path: Path) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        trace.coll(CommType.ALL_REDUCE, 10**6)

    result = run_small(
        per_rank(4, fill), system(), network(npus=4), backend="analytical-aware",
        network_options={"sample_interval_us": "5"},
    )  # fmt: skip
    timeline = saved(result, tmp_path)
    load = result.tier_load
    assert timeline.counters["dim0 busy"] == pytest.approx((100 * load["busy_share"]).tolist())


def many(ranks: int, nodes: int) -> Result:
    """Two kinds of ranks, alternating."""
    kinds = []
    for kind in range(2):
        trace = TraceBuilder()
        last: list[int] = []
        for at in range(nodes):
            last = [trace.comp(f"layer{at % 100}", duration_us=1 + kind, deps=last)]
        kinds.append(trace)
    traces = [kinds[rank % 2] for rank in range(ranks)]
    return run_small(GeneratedWorkload(traces).workload(), system(), network(npus=ranks))


class Counted(io.RawIOBase):
    """A file that keeps only its size."""

    size = 0

    def write(self, part: Any) -> int:
        self.size += len(part)
        return len(part)


def test_of_many_ranks_one_of_each_kind(tmp_path: Path) -> None:
    result = many(512, 10_610)
    with Counted() as out:
        began = time.process_time()
        write_timeline(out, result, np.arange(512), result.waits)  # type: ignore[arg-type]
        assert time.process_time() - began < 30  # 4 on the machine of docs/report.md
        assert out.size > 200e6
    began = time.process_time()
    timeline = saved(result, tmp_path)
    assert time.process_time() - began < 60  # with all tables, of 5.4 million nodes
    assert {one[0] for one in timeline.slices} == {"rank 0", "rank 1"}
    assert timeline.total_ns("rank 1", "Compute") == 2 * 10_610 * 1000


def test_times_of_many_nodes_are_the_results(tmp_path: Path) -> None:
    result = many(16, 10_610)
    timeline = saved(result, tmp_path, timeline_ranks=range(16))
    assert len(timeline.slices) == len(timeline.node_ids) == 16 * 10_610
    for rank in range(16):
        assert timeline.total_ns(f"rank {rank}", "Compute") == result.statistics.time_ns[rank, 1]


def test_packets_in_many_parts_are_those_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = pipeline()
    whole = saved(result, tmp_path / "whole")
    monkeypatch.setattr("astra_bridge.results.perfetto._MOST_EVENTS", 1)
    parts = saved(result, tmp_path / "parts")
    for name in ("tracks", "slices", "node_ids", "flows"):
        assert getattr(parts, name) == getattr(whole, name)


def test_numbers_and_names_of_any_size(tmp_path: Path) -> None:
    def fill(trace: TraceBuilder) -> None:
        for node_id, name, us in (
            (0, "", 1), (127, "a", 2**40), (128, "\u4f60\u202e\n" * 99, 1), (2**64 - 2, "a", 1)
        ):  # fmt: skip
            trace.nodes.append(TraceNode(node_id, NodeType.COMP, name, us))

    result = run_small(same_on_all(2, fill), system(), network(npus=2))
    timeline = saved(result, tmp_path)
    assert sorted(timeline.node_ids) == [0, 0, 127, 127, 128, 128, 2**64 - 2, 2**64 - 2]
    assert {name for _, _, name, *_ in timeline.slices} == {
        "node 0", "a", "\u4f60\\u202e\\n" * 99
    }  # fmt: skip
    assert max(end for *_, end in timeline.slices) == result.finish_ns.max() > 2**49


def test_who_is_chosen(tmp_path: Path) -> None:
    result = many(6, 3)
    assert result.timeline_ranks().tolist() == list(range(6))
    assert result.timeline_ranks(most_nodes=5).tolist() == [0, 1]
    timeline = saved(result, tmp_path, timeline_ranks=[4, 2, 2])
    assert {one[0] for one in timeline.slices} == {"rank 2", "rank 4"}
    with pytest.raises(InputError, match="timeline_ranks"):
        result.save(tmp_path, timeline_ranks=[6])


@pytest.mark.parametrize(
    ("given", "ranks"), [("all", 8), ("kinds", 1), ("0-2,7", 4), ("3", 1), (None, 8)]
)
def test_the_flag(
    given: str | None, ranks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = "examples/analytical"
    command = [
        "run", f"--workload-configuration={inputs}/all_reduce/trace",
        f"--system-configuration={inputs}/system.json",
        f"--network-configuration={inputs}/ring.yml",
        f"--remote-memory-configuration={inputs}/no_memory.json", f"--output={tmp_path}",
        *([f"--timeline-ranks={given}"] if given else []),
    ]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr().out
    assert (f"It has {ranks} of 8 ranks" in said) == (ranks < 8)
    assert len({one[0] for one in Timeline(tmp_path / "timeline.pftrace").slices}) == ranks


@pytest.mark.parametrize("given", ["", "a", "1-", "-1", "0-999999", "1;2"])
def test_what_are_no_ranks(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", f"--timeline-ranks={given}"]) == 2
    assert "--timeline-ranks" in capsys.readouterr().err


def test_slices_of_a_track_do_not_overlap(tmp_path: Path) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        for at in range(6):
            trace.comp(f"host {at}", duration_us=at + 1, cpu=True)
            trace.recv(1 - rank, 1000 * (at + 1), at)
            trace.send(1 - rank, 1000 * (at + 1), at)

    result = run_small(per_rank(2, fill), system(), network(npus=2))
    timeline = saved(result, tmp_path)
    tracks: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for process, track, _, start, end in timeline.slices:
        tracks.setdefault((process, track), []).append((start, end))
    assert ("rank 0", "Communication 2") in tracks
    for spans in tracks.values():
        spans.sort()
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    assert np.all([start <= end for spans in tracks.values() for start, end in spans])
