# SPDX-License-Identifier: MIT
"""ASTRA-sim's own result lines, so that scripts that read its output keep working.

A line is ``[2026-01-01 12:00:00.123] [logger] [level] message``; "cycles" are nanoseconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from astra_bridge.results.statistics import CATEGORIES, RankStatistics, Roofline
from astra_bridge.semantics import Semantics
from astra_bridge.text import one_line

if TYPE_CHECKING:
    from astra_bridge.results.times import RankTimes

__all__ = ["frame", "rank_lines", "trace_lines"]

_GPU, _COMM = CATEGORIES.index("GPU"), CATEGORIES.index("Comm")


def frame(logger: str, level: str, message: str, now: datetime) -> str:
    """One line as ASTRA-sim's logging frames it."""
    stamp = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d}"
    return f"[{stamp}] [{logger}] [{level}] {message}"


def rank_lines(result: RankTimes, statistics: RankStatistics, now: datetime) -> Iterator[str]:
    """The lines that ASTRA-sim prints when a rank ends; ranks in the order in which they ended.

    Where ranks were folded, all lines of a rank come as one text.
    """
    kinds = result.recorded.kind_of_row
    if kinds is not None:
        yield from _folded_lines(result, statistics, now, kinds)
        return
    finish = result.finish_ns.tolist()
    exposed = result.printed_exposed_comm()
    semantics = Semantics.of(result.semantics)
    head = frame("workload", "info", "", now)
    statistic_head = frame("statistics", "info", "", now)
    for rank in np.argsort(result.finish_ns, kind="stable").tolist():
        yield f"{head}sys[{rank}]{_finished(finish[rank], exposed[rank])}"
        for message in _statistics(statistics, rank, semantics):
            yield f"{statistic_head}sys[{rank}]{message}"


def _finished(finish_ns: int, exposed_ns: int) -> str:
    return f" finished, {finish_ns} cycles, exposed communication {exposed_ns} cycles."


def _folded_lines(
    result: RankTimes,
    statistics: RankStatistics,
    now: datetime,
    kind_of_row: npt.NDArray[np.int32],
) -> Iterator[str]:
    """As `rank_lines`, where few kinds of ranks say the same but for the number of the rank."""
    exposed = result.printed_exposed_comm()
    semantics = Semantics.of(result.semantics)
    head = f"{frame('workload', 'info', '', now)}sys["
    statistic_head = f"{frame('statistics', 'info', '', now)}sys["
    texts = []
    for row in result.recorded.row_of_kind.tolist():
        said = [head, f"]{_finished(int(result.finish_ns[row]), exposed[row])}"]
        for message in _statistics(statistics, row, semantics):
            said[-1] += f"\n{statistic_head}"
            said.append(f"]{message}")
        texts.append(said)
    ranks = np.argsort(result.finish_ns, kind="stable")
    for rank, kind in zip(ranks.tolist(), kind_of_row[ranks].tolist(), strict=True):
        yield str(rank).join(texts[kind])


def _statistics(statistics: RankStatistics, rank: int, semantics: Semantics) -> Iterator[str]:
    yield ". Post statistics processing start."
    yield ". Post statistics processing end."
    yield f", Wall time: {statistics.wall_ns[rank]}"
    for index, name in enumerate(CATEGORIES):
        if statistics.has[rank, index]:
            yield f", {name} time: {statistics.time_ns[rank, index]}"
    overlap_ns = int(statistics.overlap_ns[rank])
    if (
        "overlap-is-busy-less-wall" in semantics
        and "printed-times-wrap-around" in semantics
        and statistics.has[rank].nonzero()[0].tolist() == [_GPU, _COMM]
    ):
        # ASTRA-sim's own difference: where the rank was idle, it wraps around 2**64.
        busy_ns = int(statistics.time_ns[rank].sum())
        overlap_ns = (busy_ns - int(statistics.wall_ns[rank])) % 2**64
    if overlap_ns > 0:
        yield f", Total compute-communication overlap: {overlap_ns}"
    if statistics.roofline is not None:
        yield from _roofline(statistics.roofline, rank)


def _roofline(roofline: Roofline, rank: int) -> Iterator[str]:
    yield f", Compute bound percentage: {roofline.compute_bound[rank] * 100:.3f}%"
    yield f", Average compute utilization: {roofline.compute_utilization[rank] * 100:.3f}%"
    yield f", Average memory utilization: {roofline.memory_utilization[rank] * 100:.3f}%"
    yield f", Average operation intensity: {roofline.operation_intensity[rank]:.3f}"


def trace_lines(result: RankTimes, now: datetime) -> Iterator[str]:
    """The debug lines of ``trace-enabled``: issue and callback of every node, by time."""

    def of_rank(rank: int) -> Iterator[tuple[int, int, int, str]]:
        nodes = result.nodes_of(rank)
        columns = nodes.columns
        events = []
        for index in np.flatnonzero(nodes.end_ps >= 0).tolist():
            node = (
                f"node->id={columns.node_id[index]}, node->name={one_line(columns.name(index))}, "
                f"node->type={columns.type[index]}"
            )
            # At one instant, ASTRA-sim reports what has ended before it issues what follows.
            for order, what, time_ps in (
                (1, "issue", int(nodes.start_ps[index])),
                (0, "callback", int(nodes.end_ps[index])),
            ):
                tick = time_ps // 1000
                text = f"{what},sys->id={rank}, tick={tick}, {node}"
                events.append((tick, rank, order, text))
        events.sort(key=lambda event: event[:3])
        return iter(events)

    head = frame("workload", "debug", "", now)
    for event in heapq.merge(*map(of_rank, range(result.rank_count)), key=lambda event: event[:3]):
        yield f"{head}{event[3]}"
