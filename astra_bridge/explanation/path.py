# SPDX-License-Identifier: MIT
"""The critical path: what each moment until the finish was spent on, by whom.

From the last node of the last rank backwards: a collective goes on with the member that began it
last, a message with its send, and all else with what ended when it began: a node that it depends
on, or one that held what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.explanation.kinds import Activity, Kinds
from astra_bridge.explanation.matching import Matches, Times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astra_bridge.lowering import Lowered
    from astra_bridge.program import Program

__all__ = ["Parents", "Row", "Segment", "critical_path"]

Ints = NDArray[np.int64]


class Segment(NamedTuple):
    """A part of the critical path.

    Attributes
    ----------
    start_ps, end_ps : int
        Each segment begins where the one before ends.
    row : int
        Rank, or row of the result.
    node_id : int
        In the trace; -1 where nothing ran.
    activity : Activity
    what : str
        Label of the node: "all-reduce", "send", ...
    name : str
        Of the node, as the trace has it.
    """

    start_ps: int
    end_ps: int
    row: int
    node_id: int
    activity: Activity
    what: str
    name: str


class Row:
    """The nodes of a row that ran, and what each depends on."""

    def __init__(self, lowered: Lowered, times: Times, row: int, parents: Parents) -> None:
        program = lowered.program
        first, last = (int(one) for one in times.offset[row : row + 2])
        self.first, self.trace = first, int(lowered.trace_of_task[row])
        self.start, self.end = times.start_ps[first:last], times.end_ps[first:last]
        took_time = np.flatnonzero((self.start >= 0) & (self.end > self.start))
        # Of those that end together the one that began last: it had the least to do with it.
        order = np.lexsort((self.start[took_time], self.end[took_time]))
        self._by_end = took_time[order]
        self._ends = self.end[self._by_end]
        self._parents = parents.of(int(program.tasks["template_index"][row]))
        self.start_ps = int(program.tasks["start_ps"][row])

    def last_to_end(self, until_ps: int) -> int:
        """The node that took time and ended last, not after ``until_ps``; -1 if there is none."""
        at = int(np.searchsorted(self._ends, until_ps, "right")) - 1
        return int(self._by_end[at]) if at >= 0 else -1

    def enabler(self, node: int, time_ps: int) -> int:
        """What let a node begin then; -1 where nothing of the row did.

        That is the last of those that it depends on.  If none ended just then, the node waited for
        what another one held: it is one that did.
        """
        offset, parents = self._parents
        mine = parents[offset[node] : offset[node + 1]]
        mine = mine[(self.end[mine] >= 0) & (self.end[mine] <= time_ps)]
        best = int(mine[np.argmax(self.end[mine])]) if len(mine) else -1
        other = self.last_to_end(time_ps)
        if best < 0 or (other >= 0 and self.end[other] > self.end[best]):
            return other
        return best


class Parents:
    """What the nodes of each template depend on."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: dict[int, tuple[Ints, Ints]] = {}

    def of(self, template: int) -> tuple[Ints, Ints]:
        """Those of node i are entries ``offset[i]:offset[i + 1]`` of the second array."""
        if template not in self._known:
            nodes = self._program.nodes_of(template)
            counts = nodes["child_count"].astype(np.int64)
            parent = np.repeat(np.arange(len(nodes)), counts)
            inner = np.arange(len(parent)) - np.repeat(np.cumsum(counts) - counts, counts)
            child = self._program.children[np.repeat(nodes["child_start"], counts) + inner]
            order = np.argsort(child, kind="stable")
            offset = np.searchsorted(child[order], np.arange(len(nodes) + 1))
            self._known[template] = (offset, parent[order])
        return self._known[template]


def critical_path(
    lowered: Lowered,
    times: Times,
    matches: Matches,
    kinds: Sequence[Kinds],
    finish_ps: Ints,
) -> list[Segment]:
    """Follow what decided the finish back to time 0; the segments cover it without gaps."""
    segments: list[Segment] = []
    rows: dict[int, Row] = {}
    parents = Parents(lowered.program)
    row = int(np.argmax(finish_ps)) if len(finish_ps) else 0
    now = int(finish_ps.max(initial=0))
    node = -1  # which ended last, or has begun just now
    ended = True
    seen: set[tuple[int, int]] = set()  # at this time

    while now > 0:
        if row not in rows:
            rows[row] = Row(lowered, times, row, parents)
        here = rows[row]
        if node < 0:
            node, ended = here.last_to_end(now), True
        elif not ended:
            node, ended = here.enabler(node, now), True
        if (row, node) in seen:  # what began at once in a circle is for nobody to say
            node = here.last_to_end(now - 1)
        begin = int(here.end[node]) if node >= 0 else here.start_ps
        segments.append(_segment(lowered, kinds, here, row, -1, begin, now))
        if begin < now:
            seen.clear()
        seen.add((row, node))
        now = min(begin, now)
        if node < 0:
            break
        start, cause = int(here.start[node]), int(matches.cause[here.first + node])
        took_time = int(here.end[node]) > start
        begin = int(matches.since_ps[here.first + node]) if took_time and cause >= 0 else start
        segments.append(_segment(lowered, kinds, here, row, node, begin, now))
        if begin < now:
            seen.clear()
        now = min(begin, now)
        if took_time and cause >= 0:  # the last that was missing may be another's
            row = int(np.searchsorted(times.offset, cause, "right")) - 1
            node = cause - int(times.offset[row])
        ended = False
    if now > 0:
        segments.append(Segment(0, now, row, -1, Activity.NOT_STARTED, "", ""))
    return [one for one in reversed(segments) if one.end_ps > one.start_ps]


def _segment(
    lowered: Lowered,
    kinds: Sequence[Kinds],
    here: Row,
    row: int,
    node: int,
    begin_ps: int,
    end_ps: int,
) -> Segment:
    if node < 0:
        return Segment(begin_ps, end_ps, row, -1, Activity.IDLE, "", "")
    trace, kind = lowered.traces[here.trace], kinds[here.trace]
    position = int(lowered.order[here.trace][node])
    activity = int(kind.activity[node])
    return Segment(
        begin_ps,
        end_ps,
        row,
        int(trace.node_id[position]),
        Activity.IDLE if activity < 0 else Activity(activity),
        kind.labels[int(kind.label[node])],
        trace.name(position),
    )
