# SPDX-License-Identifier: MIT
"""A timeline in Perfetto's format, which ui.perfetto.dev opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from astra_bridge.results.local_memory import local_memory
from astra_bridge.results.perfetto import TraceWriter
from astra_bridge.results.statistics import CATEGORIES, categories
from astra_bridge.text import one_line
from astra_bridge.trace import MISSING, NodeType
from astra_bridge.units import PS_PER_NS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from astra_bridge.results.chunks import Chunk, Chunks
    from astra_bridge.results.table import Table
    from astra_bridge.results.times import RankTimes
    from astra_bridge.trace import TraceColumns

__all__ = ["MOST_CHUNKS", "MOST_NODES", "drawn_ranks", "write_timeline"]

Ints = NDArray[np.int64]

MOST_NODES = 1_000_000
"""Of all ranks together, where all are drawn; with more, viewers become slow."""

MOST_CHUNKS = 500_000
"""Phases of chunks that are drawn; with more, none are."""

_NAMES = ("Host", "Compute", "Communication", "Memory", "Other")
"""Tracks of a rank, by category of nodes."""


def drawn_ranks(result: RankTimes, kind_of_rank: Ints, most_nodes: int = MOST_NODES) -> Ints:
    """The ranks that a timeline has unless somebody chooses others.

    All, or, where they have too many nodes together, one of each kind: of the ranks that do the
    same the one that finishes last.
    """
    ranks = np.arange(result.rank_count)
    if int(result.node_offset[-1]) <= most_nodes:
        return ranks
    order = np.lexsort((ranks, -result.finish_ps, kind_of_rank))
    first = np.append(True, np.diff(kind_of_rank[order]) != 0)
    chosen: Ints = np.sort(order[first])
    return chosen


def write_timeline(
    out: BinaryIO,
    result: RankTimes,
    ranks: Ints,
    waits: tuple[Ints, Ints] | None = None,
    load: Table | None = None,
    chunks: Chunks | None = None,
) -> None:
    """Write the timeline of some ranks.

    A process per rank, with a track per category of nodes, and per stream of the GPU or group of
    communication where the trace names them; nodes that overlap all the same go to further tracks
    ("Communication 2").  A receive is drawn from the time at which its message was sent; in a
    collective, what its first members wait for the last one is a slice of its own.  Below a track
    of communication stand the chunks of its collectives, and in each chunk its phases.  Flows lead
    from sends to receives.  Where tensors are followed, a counter has the memory that is in use.
    Where the network told its load over time, each tier of links has counters.

    Parameters
    ----------
    out : binary file
    result : RankTimes
        Its nodes are recorded.
    ranks : ndarray of int64
    waits : two arrays of int64, shape (nodes,), optional
        ``Result.waits``.
    load : Table, optional
        ``Result.tier_load``.
    chunks : Chunks, optional
        ``Result.chunks``.
    """
    writer = TraceWriter(out)
    names: dict[int, list[str]] = {}
    drawn = np.zeros(result.rank_count, np.bool_)
    drawn[ranks] = True
    for rank in ranks.tolist():
        _rank(writer, result, rank, names, waits, drawn, chunks)
    if load is not None:
        _load(writer, load)
    writer.flush()


def _rank(
    writer: TraceWriter,
    result: RankTimes,
    rank: int,
    names: dict[int, list[str]],
    waits: tuple[Ints, Ints] | None,
    drawn: NDArray[np.bool_],
    chunks: Chunks | None,
) -> None:
    nodes = result.nodes_of(rank)
    columns: TraceColumns = nodes.columns
    which = int(result.workload.rank_to_columns[rank])
    if which not in names:
        names[which] = [
            one_line(columns.name(at)) or f"node {columns.node_id[at]}"
            for at in range(len(columns))
        ]
    first, last = (int(one) for one in result.node_offset[rank : rank + 2])
    start, end = nodes.start_ps, nodes.end_ps
    since, cause = (
        (np.full(last - first, -1), np.full(last - first, -1))
        if waits is None
        else (part[first:last] for part in waits)
    )
    receives = columns.type == NodeType.COMM_RECV
    start = np.where(receives & (since >= 0), np.clip(since, start, end), start)
    sent = np.zeros(last - first, np.int64)
    # A flow is named after its send.
    if waits is not None:
        sent[receives & (cause >= 0)] = cause[receives & (cause >= 0)] + 1
        senders = np.searchsorted(result.node_offset, sent - 1, "right") - 1
        sent[~drawn[np.clip(senders, 0, None)]] = 0
    is_send = columns.type == NodeType.COMM_SEND
    kinds = categories(columns.type, columns.is_cpu_op).tolist()
    pid = writer.process(f"rank {rank}", rank + 1)
    tracks = _Tracks(writer, pid, columns, kinds)
    track_of: dict[int, int] = {}
    ran = np.flatnonzero(nodes.end_ps >= 0)
    order = ran[np.lexsort((-end[ran], start[ran]))]
    starts, ends = start.tolist(), end.tolist()
    ids = columns.node_id.tolist()
    for at in order.tolist():
        begin, stop, kind = starts[at], ends[at], kinds[at]
        track = track_of[at] = tracks.take(at, begin, stop)
        begin_ns, stop_ns = begin // PS_PER_NS, stop // PS_PER_NS
        writer.begin(
            track, begin_ns, names[which][at], CATEGORIES[kind], {"node_id": ids[at]},
            flow=first + at + 1 if is_send[at] else 0, ends_flow=int(sent[at]),
        )  # fmt: skip
        late = int(since[at]) // PS_PER_NS
        if not receives[at] and begin_ns < late < stop_ns:
            writer.begin(track, begin_ns, "waiting for a straggler", CATEGORIES[kind])
            writer.end(track, late)
        writer.end(track, stop_ns)
    if chunks is not None:
        _chunks(writer, chunks.of_row(rank), track_of)
    if result.system.enabled("track-local-mem", result.semantics):
        used = writer.track("memory in use", pid, order=1 << 20, counter="bytes")
        for time_ns, size in local_memory(result, rank).usage():
            writer.value(used, time_ns, size)


class _Lanes:
    """Tracks of one name; what overlaps goes to further ones."""

    def __init__(self, writer: TraceWriter, name: str, parent: int, order: int) -> None:
        self._writer, self._name, self._parent, self._order = writer, name, parent, order
        self._lanes: list[tuple[int, int]] = []  # track, free from

    def take(self, begin: int, stop: int) -> int:
        """The first track that is free then."""
        lane = next((at for at, (_, free) in enumerate(self._lanes) if free <= begin), -1)
        if lane < 0:
            lane = len(self._lanes)
            label = self._name + (f" {lane + 1}" if lane else "")
            track = self._writer.track(label, self._parent, order=self._order + lane)
            self._lanes.append((track, 0))
        track = self._lanes[lane][0]
        self._lanes[lane] = (track, stop)
        return track


class _Tracks:
    """The tracks of a rank: by category, stream and group of its nodes."""

    def __init__(
        self, writer: TraceWriter, pid: int, columns: TraceColumns, kinds: list[int]
    ) -> None:
        self._writer, self._pid, self._columns, self._kinds = writer, pid, columns, kinds
        self._streams, self._groups = columns.stream.tolist(), columns.pg_name.tolist()
        self._lanes: dict[tuple[int, int, int], _Lanes] = {}

    def take(self, node: int, begin: int, stop: int) -> int:
        """The track of a node."""
        kind = self._kinds[node]
        stream = self._streams[node]
        group = self._groups[node] if stream == MISSING else -1
        key = kind, stream, group
        if key not in self._lanes:
            label = _NAMES[kind]
            if stream != MISSING:
                label += f", stream {stream}"
            elif group >= 0 and self._columns.strings[group]:
                label += f", group {one_line(self._columns.strings[group])}"
            order = (kind << 16) + (len(self._lanes) << 8)
            self._lanes[key] = _Lanes(self._writer, label, self._pid, order)
        return self._lanes[key].take(begin, stop)


def _chunks(writer: TraceWriter, chunks: Iterable[Chunk], track_of: dict[int, int]) -> None:
    """Chunks below the track of their collective, and in each one its phases."""
    lanes: dict[int, _Lanes] = {}
    spans = [(one.phases[0].entered_ps, one) for one in chunks if one.node in track_of]
    for begin, chunk in sorted(spans, key=lambda one: (one[0], one[1].node, one[1].number)):
        parent = track_of[chunk.node]
        if parent not in lanes:
            lanes[parent] = _Lanes(writer, "chunks", parent, 0)
        track = lanes[parent].take(begin, chunk.phases[-1].end_ps)
        writer.begin(track, begin // PS_PER_NS, f"chunk {chunk.number}", "chunk")
        for phase in chunk.phases:
            writer.begin(track, phase.start_ps // PS_PER_NS, phase.name, "phase")
            writer.end(track, phase.end_ps // PS_PER_NS)
        writer.end(track, chunk.phases[-1].end_ps // PS_PER_NS)


def _load(writer: TraceWriter, load: Table) -> None:
    """A counter per tier: how busy its links were, and its longest queue."""
    network = writer.process("network", 1 << 30)
    shown = [("busy_share", "busy", "%", 100.0), ("max_queue_bytes", "longest queue", "bytes", 1.0)]
    for tier in dict.fromkeys(load["tier"].tolist()):
        mine = load["tier"] == tier
        for column, label, unit, factor in shown:
            if column not in load or not load[column][mine].any():
                continue
            track = writer.track(one_line(f"{tier} {label}"), network, counter=unit)
            times = (load["time_ps"][mine] // PS_PER_NS).tolist()
            for time_ns, value in zip(times, load[column][mine].tolist(), strict=True):
                writer.value(track, time_ns, factor * value)
