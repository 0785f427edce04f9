# SPDX-License-Identifier: MIT
"""A timeline in Chrome's trace format, which ui.perfetto.dev and chrome://tracing open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from astra_bridge.results.statistics import CATEGORIES, categories

if TYPE_CHECKING:
    from astra_bridge.results.times import RankTimes
    from astra_bridge.trace import TraceColumns

__all__ = ["timeline"]


def timeline(result: RankTimes, max_nodes: int = 1_000_000) -> dict[str, Any]:
    """Make the timeline: one process per rank, one thread per category of nodes; ``ts`` in us.

    Nodes of one category that overlap go to further threads ("Comm 2"), because slices of one
    thread must nest.

    Parameters
    ----------
    result
        The result.
    max_nodes
        Ranks are left out, from the last on, so that not more nodes than this are drawn; the
        viewers take no more.
    """
    ranks = int(np.searchsorted(result.node_offset[1:], max_nodes, side="right"))
    events: list[dict[str, Any]] = []
    names: dict[int, list[str]] = {}
    for rank in range(min(max(ranks, 1), result.rank_count)):
        events += _rank(result, rank, names)
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _rank(result: RankTimes, rank: int, names: dict[int, list[str]]) -> Iterator[dict[str, Any]]:
    nodes = result.nodes_of(rank)
    columns: TraceColumns = nodes.columns
    which = int(result.workload.rank_to_columns[rank])
    if which not in names:
        names[which] = [columns.name(index) for index in range(len(columns))]
    kinds = categories(columns.type, columns.is_cpu_op).tolist()
    threads: dict[tuple[int, int], int] = {}
    lanes: list[list[int]] = [[] for _ in CATEGORIES]
    yield {"name": "process_name", "ph": "M", "pid": rank, "args": {"name": f"rank {rank}"}}
    ran = np.flatnonzero(nodes.end_ps >= 0)
    starts, ends = nodes.start_ps.tolist(), nodes.end_ps.tolist()
    for index in ran[np.argsort(nodes.start_ps[ran], kind="stable")].tolist():
        start, end, kind = starts[index], ends[index], kinds[index]
        lane = next((at for at, free in enumerate(lanes[kind]) if free <= start), len(lanes[kind]))
        if lane == len(lanes[kind]):
            lanes[kind].append(0)
            threads[kind, lane] = kind + lane * len(CATEGORIES)
            label = CATEGORIES[kind] + (f" {lane + 1}" if lane else "")
            yield {
                "name": "thread_name",
                "ph": "M",
                "pid": rank,
                "tid": threads[kind, lane],
                "args": {"name": label},
            }
        lanes[kind][lane] = end
        node_id = int(columns.node_id[index])
        yield {
            "name": names[which][index] or f"node {node_id}",
            "cat": CATEGORIES[kind],
            "ph": "X",
            "ts": start / 1e6,
            "dur": (end - start) / 1e6,
            "pid": rank,
            "tid": threads[kind, lane],
            "args": {"node_id": node_id},
        }
