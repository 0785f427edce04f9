# SPDX-License-Identifier: MIT
"""A timeline in Perfetto's format, which ui.perfetto.dev opens."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from astra_bridge.results.local_memory import local_memory
from astra_bridge.results.perfetto import BEGIN, COUNTER, END, NO_NODE, TraceWriter
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
    names = _Names(writer, result)
    drawn = np.zeros(result.rank_count, np.bool_)
    drawn[ranks] = True
    for rank in ranks.tolist():
        _rank(writer, result, rank, names, waits, drawn, chunks)
    if load is not None:
        _load(writer, load)
    writer.flush()


class _Names:
    """The numbers of the names of nodes, as the writer knows them; of a trace, once."""

    def __init__(self, writer: TraceWriter, result: RankTimes) -> None:
        self._writer, self._workload = writer, result.workload
        self._of_text: dict[str, int] = {}
        self._of_trace: dict[int, Ints] = {}

    def of(self, rank: int) -> Ints:
        """Of each node of a rank."""
        which = int(self._workload.rank_to_columns[rank])
        if which not in self._of_trace:
            self._of_trace[which] = self._read(self._workload.columns[which])
        return self._of_trace[which]

    def _read(self, columns: TraceColumns) -> Ints:
        index, texts = columns.names()
        known = self._of_text
        for text in texts:
            if text not in known:
                known[text] = self._writer.name(one_line(text)) if text else 0
        names = np.array([known[text] for text in texts], np.int64)[index]
        for at in np.flatnonzero(names == 0).tolist():
            names[at] = self._writer.name(f"node {columns.node_id[at]}")
        return names


def _rank(
    writer: TraceWriter,
    result: RankTimes,
    rank: int,
    names: _Names,
    waits: tuple[Ints, Ints] | None,
    drawn: NDArray[np.bool_],
    chunks: Chunks | None,
) -> None:
    nodes = result.nodes_of(rank)
    columns: TraceColumns = nodes.columns
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
    sends = np.where(columns.type == NodeType.COMM_SEND, first + 1 + np.arange(last - first), 0)
    kinds = categories(columns.type, columns.is_cpu_op)
    pid = writer.process(f"rank {rank}", rank + 1)
    ran = np.flatnonzero(nodes.end_ps >= 0)
    order = ran[np.lexsort((-end[ran], start[ran]))]
    track = _tracks(writer, pid, columns, kinds, order, start[order], end[order])
    begin_ns, end_ns, late_ns = (one[order] // PS_PER_NS for one in (start, end, since))
    late = ~receives[order] & (begin_ns < late_ns) & (late_ns < end_ns)
    # Of each node: it begins, and ends; between these, a collective waits for its last member.
    every, some = np.arange(len(order)), np.flatnonzero(late)
    events = np.sort(np.concatenate([4 * every, 4 * some + 1, 4 * some + 2, 4 * every + 3]))
    who, part = events >> 2, events & 3
    node, itself = order[who], part == 0
    straggler = writer.name("waiting for a straggler") if len(some) else 0
    category = np.array([writer.category(one) for one in CATEGORIES])
    writer.events(
        np.array([BEGIN, BEGIN, END, END])[part],
        track[who],
        np.choose(part, [begin_ns[who], begin_ns[who], late_ns[who], end_ns[who]]),
        name=np.where(itself, names.of(rank)[node], straggler * (part == 1)),
        category=category[kinds[node]] * (part < 2),
        node_id=np.where(itself, columns.node_id[node], NO_NODE),
        flow=sends[node] * itself,
        ends_flow=sent[node] * itself,
    )
    track_of = np.zeros(last - first, np.int64)
    track_of[order] = track
    if chunks is not None:
        _chunks(writer, chunks.of_row(rank), track_of)
    if result.system.enabled("track-local-mem", result.semantics):
        used = writer.track("memory in use", pid, order=1 << 20, counter="bytes")
        steps = np.array(local_memory(result, rank).usage(), np.int64).reshape(-1, 2)
        writer.events(COUNTER, used, steps[:, 0], value=steps[:, 1])


def _lanes(begin: Ints, stop: Ints) -> Ints:
    """The lane of each interval, in order of their begin: the first one that is free then."""
    lane = np.zeros(len(begin), np.int64)
    if (begin[1:] >= np.maximum.accumulate(stop)[:-1]).all():
        return lane
    free: list[int] = []
    taken: list[tuple[int, int]] = []  # until when, lane
    for at, (since, until) in enumerate(zip(begin.tolist(), stop.tolist(), strict=True)):
        while taken and taken[0][0] <= since:
            heapq.heappush(free, heapq.heappop(taken)[1])
        lane[at] = heapq.heappop(free) if free else len(taken)
        heapq.heappush(taken, (until, int(lane[at])))
    return lane


def _lane_tracks(
    writer: TraceWriter, name: str, parent: int, begin: Ints, stop: Ints, order: int = 0
) -> Ints:
    """The track of each interval below a track; what overlaps goes to further tracks."""
    lane = _lanes(begin, stop)
    tracks = [
        writer.track(name + (f" {at + 1}" if at else ""), parent, order=order + at)
        for at in range(int(lane.max()) + 1)
    ]
    return np.array(tracks, np.int64)[lane]


def _tracks(
    writer: TraceWriter,
    pid: int,
    columns: TraceColumns,
    kinds: NDArray[np.int8],
    order: Ints,
    begin: Ints,
    stop: Ints,
) -> Ints:
    """The tracks of a rank's nodes, in ``order``: by category, stream and group."""
    kind, stream = kinds[order], columns.stream[order]
    group = np.where(stream == MISSING, columns.pg_name[order], -1)
    key = np.zeros(len(order), np.int64)
    for part in (kind, stream, group):
        values, which = np.unique(part, return_inverse=True)
        key = key * len(values) + which
    _, firsts, which = np.unique(key, return_index=True, return_inverse=True)
    tracks = np.zeros(len(order), np.int64)
    for number, one in enumerate(np.argsort(firsts).tolist()):
        at = int(firsts[one])
        label = _NAMES[kind[at]]
        if stream[at] != MISSING:
            label += f", stream {stream[at]}"
        elif group[at] >= 0 and columns.strings[group[at]]:
            label += f", group {one_line(columns.strings[group[at]])}"
        mine = np.flatnonzero(which == one)
        tracks[mine] = _lane_tracks(
            writer, label, pid, begin[mine], stop[mine], (int(kind[at]) << 16) + (number << 8)
        )
    return tracks


def _chunks(writer: TraceWriter, chunks: Iterable[Chunk], track_of: Ints) -> None:
    """Chunks below the track of their collective, and in each one its phases."""
    below: dict[int, list[tuple[int, Chunk]]] = {}
    for chunk in chunks:
        if track_of[chunk.node]:
            begin = chunk.phases[0].entered_ps
            below.setdefault(int(track_of[chunk.node]), []).append((begin, chunk))
    category = {name: writer.category(name) for name in ("chunk", "phase")}
    for parent, spans in below.items():
        spans.sort(key=lambda one: (one[0], one[1].node, one[1].number))
        begins = np.array([begin for begin, _ in spans])
        ends = np.array([chunk.phases[-1].end_ps for _, chunk in spans])
        events = []
        for track, (begin, chunk) in zip(
            _lane_tracks(writer, "chunks", parent, begins, ends).tolist(), spans, strict=True
        ):
            name = writer.name(f"chunk {chunk.number}")
            events.append((BEGIN, track, begin, name, category["chunk"]))
            for phase in chunk.phases:
                name = writer.name(phase.name)
                events.append((BEGIN, track, phase.start_ps, name, category["phase"]))
                events.append((END, track, phase.end_ps, 0, 0))
            events.append((END, track, chunk.phases[-1].end_ps, 0, 0))
        kind, track, time_ps, name, of = np.array(events, np.int64).T
        writer.events(kind, track, time_ps // PS_PER_NS, name=name, category=of)


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
            times_ns = load["time_ps"][mine] // PS_PER_NS
            writer.events(COUNTER, track, times_ns, value=factor * load[column][mine])
