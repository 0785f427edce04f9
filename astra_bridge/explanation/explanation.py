# SPDX-License-Identifier: MIT
"""Why a run took as long as it did."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.explanation.breakdown import first_of_those_that_run
from astra_bridge.explanation.causes import Causes
from astra_bridge.explanation.kinds import Activity, Kinds, kinds
from astra_bridge.explanation.matching import Matches, Times, match
from astra_bridge.explanation.path import Segment, critical_path
from astra_bridge.explanation.sensitivity import Sensitivities

if TYPE_CHECKING:
    from astra_bridge.lowering import Lowered
    from astra_bridge.network.idle import IdleNetworks

__all__ = ["Explanation"]

Ints = NDArray[np.int64]


class Explanation:
    """Where the time of a run went.

    Parameters
    ----------
    lowered : Lowered
        The work.
    offset, start_ps, end_ps : ndarray of int64
        When its nodes ran, in the order of the trace files (``Result.node_offset``, ...).
    finish_ps : ndarray of int64, shape (rows,)
    injection_Bps : callable, optional
        What the links out of a rank could carry towards others, of the ranks that are members.
    """

    def __init__(
        self,
        lowered: Lowered,
        offset: Ints,
        start_ps: Ints,
        end_ps: Ints,
        finish_ps: Ints,
        injection_Bps: Callable[[Ints], float] | None = None,
    ) -> None:
        self._lowered, self._finish_ps = lowered, finish_ps
        self._injection_Bps = injection_Bps
        self._times = _in_template_order(lowered, Times(offset, start_ps, end_ps))

    @cached_property
    def _matches(self) -> Matches:
        return match(self._lowered.program, self._times)

    @property
    def waits(self) -> tuple[Ints, Ints]:
        """Of all nodes, in the order of the trace files: `Matches.since_ps`, `Matches.cause`.

        Causes are nodes in that order as well.
        """
        lowered, offset = self._lowered, self._times.offset
        since, cause = self._matches.since_ps, self._matches.cause
        if _in_one_order(lowered):
            return since, cause
        place = np.empty(len(since), np.int64)  # of each node of a template, in its file
        for task, trace in enumerate(lowered.trace_of_task.tolist()):
            first, last = offset[task : task + 2]
            place[first:last] = first + lowered.order[trace]
        there, known = np.empty_like(since), np.full(len(cause), -1, np.int64)
        there[place] = since
        known[place] = np.where(cause >= 0, place[np.clip(cause, 0, None)], -1)
        return there, known

    @cached_property
    def _kinds(self) -> list[Kinds]:
        """Per trace."""
        lowered = self._lowered
        program = lowered.program
        template_of = np.zeros(len(lowered.traces), np.int64)
        template_of[lowered.trace_of_task] = program.tasks["template_index"]
        return [
            kinds(program.nodes_of(template), trace, order)
            for template, trace, order in zip(
                template_of.tolist(), lowered.traces, lowered.order, strict=True
            )
        ]

    @cached_property
    def breakdown(self) -> dict[str, NDArray[Any]]:
        """Per row what it did, how long: columns rank, activity, what, time_ps.

        At each instant one thing counts, that which stands first in `Activity`; so the
        times of a rank add up to its finish.
        """
        names: dict[tuple[Activity, str], None] = {(Activity.COMPUTE, ""): None}
        for one in self._kinds:
            for activity in np.unique(one.activity[one.activity >= 0]).tolist():
                for label in np.unique(one.label[one.activity == activity]).tolist():
                    names[Activity(activity), one.labels[label]] = None
                    waits = _WAITS.get(Activity(activity))
                    if waits is not None:
                        names[waits, one.labels[label]] = None
        what = sorted(names)
        number = {name: at for at, name in enumerate(what)}
        rows = len(self._finish_ps)
        time_ps = first_of_those_that_run(*self._intervals(number), rows, len(what))
        started = self._lowered.program.tasks["start_ps"]
        idle = self._finish_ps - started - time_ps.sum(axis=1)
        what += [(Activity.IDLE, ""), (Activity.NOT_STARTED, "")]
        time_ps = np.concatenate([time_ps, idle[:, None], started[:, None]], axis=1)
        row, kind = np.nonzero(time_ps)
        return {
            "rank": row,
            "activity": np.array([one.text for one, _ in what])[kind],
            "what": np.array([label for _, label in what])[kind],
            "time_ps": time_ps[row, kind],
        }

    def _intervals(self, number: dict[tuple[Activity, str], int]) -> tuple[Ints, Ints, Ints, Ints]:
        """All that takes time: row, kind, start and end; what waits is two."""
        times, since = self._times, self._matches.since_ps
        parts: list[list[Ints]] = []
        for trace, one in enumerate(self._kinds):
            tasks = np.flatnonzero(self._lowered.trace_of_task == trace)
            inner = np.flatnonzero(one.activity >= 0)
            pairs = list(zip(one.activity[inner].tolist(), one.label[inner].tolist(), strict=True))
            own = np.array([number[Activity(a), one.labels[b]] for a, b in pairs], np.int64)
            waiting = np.array(
                [number.get((_WAITS.get(Activity(a), Activity.IDLE), one.labels[b]), -1)
                 for a, b in pairs], np.int64,
            )  # fmt: skip
            where = times.offset[tasks][:, None] + inner
            row = np.broadcast_to(tasks[:, None], where.shape)
            start, end = times.start_ps[where], times.end_ps[where]
            # Until then others had not begun.
            from_ps = np.clip(since[where], start, end)
            for kind, begin, stop in ((own, from_ps, end), (waiting, start, from_ps)):
                kind_of = np.broadcast_to(kind, where.shape)
                there = (stop > begin) & (kind_of >= 0) & (begin >= 0)
                parts.append([row[there], kind_of[there], begin[there], stop[there]])
        if not parts:
            empty = np.zeros(0, np.int64)
            return empty, empty, empty, empty
        row, kind, begin, stop = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(row, kind="stable")
        return row[order], kind[order], begin[order], stop[order]

    @cached_property
    def collectives(self) -> dict[str, NDArray[Any]]:
        """Each collective, in the order of start.

        Columns what, name, bytes, ranks (members), first_start_ps and last_start_ps (of the first
        and of the last member to begin), end_ps (of the last to end), ideal_GBps (what
        the links out of a member could carry towards the others; NaN is not known).
        """
        number, times = self._matches.collective, self._times
        members = np.flatnonzero(number >= 0)
        of = number[members]
        first = np.zeros(self._matches.collectives, np.int64)
        first[of[::-1]] = members[::-1]
        never = np.iinfo(np.int64).max
        begin, end = np.full(len(first), never), np.zeros(len(first), np.int64)
        np.minimum.at(begin, of, times.start_ps[members])
        np.maximum.at(end, of, times.end_ps[members])
        row = np.searchsorted(times.offset, first, "right") - 1
        trace = self._lowered.trace_of_task[row]
        inner = first - times.offset[row]
        said = [self._said(*one) for one in zip(trace.tolist(), inner.tolist(), strict=True)]
        order = np.lexsort((end, begin))
        columns: dict[str, NDArray[Any]] = {
            "what": np.array([one[0] for one in said], np.str_),
            "name": np.array([one[1] for one in said], np.str_),
            "kind": np.array([one[2] for one in said], np.int64),
            "bytes": np.array([one[3] for one in said], np.int64),
            "ranks": np.bincount(of, minlength=len(first)),
            "first_start_ps": begin,
            "last_start_ps": self._matches.since_ps[first],
            "end_ps": end,
            "ideal_GBps": self._ideal_GBps(members, of),
        }
        return {name: values[order] for name, values in columns.items()}

    def _ideal_GBps(self, members: Ints, of: Ints) -> NDArray[np.float64]:
        """Of each collective, what the links out of a member could carry."""
        ideal = np.full(self._matches.collectives, np.nan)
        if self._injection_Bps is None or not len(members):
            return ideal
        rows = np.searchsorted(self._times.offset, members, "right") - 1
        ranks = self._lowered.program.rank_of_task[rows]
        order = np.lexsort((ranks, of))
        bounds = np.flatnonzero(np.diff(of[order])) + 1
        known: dict[bytes, float] = {}
        for number, mine in enumerate(np.split(ranks[order], bounds)):
            key = mine.tobytes()
            if key not in known:
                known[key] = self._injection_Bps(mine) / 1e9 or np.nan
            ideal[number] = known[key]
        return ideal

    @functools.cache  # noqa: B019 - lives as long as this does
    def _said(self, trace: int, node: int) -> tuple[str, str, int, int]:
        """Label, name, Chakra's kind and bytes of a collective."""
        kind, columns = self._kinds[trace], self._lowered.traces[trace]
        position = int(self._lowered.order[trace][node])
        return (
            kind.labels[int(kind.label[node])],
            columns.name(position),
            int(columns.comm_type[position]),
            int(columns.comm_size[position]),
        )

    def sensitivities(
        self, stays: NDArray[np.void], deliveries: NDArray[np.void], networks: IdleNetworks
    ) -> Sensitivities:
        """How much sooner the run would end if something were faster.

        Parameters
        ----------
        stays, deliveries
            What was kept of the inside of collectives: chunks and messages.
        networks
            How long messages take by themselves.
        """

        def idle_ps(src: int, dst: int, size: int) -> int:
            return networks.time_ps(src, dst, size, {}, {})

        lowered = self._lowered
        ways = networks.ways(*(deliveries[end].astype(np.int64) for end in ("src", "dst")))
        causes = Causes(lowered, self._times, stays, deliveries, idle_ps, ways)
        return Sensitivities(causes, self._finish_ps, lowered, self._kinds, networks)

    @cached_property
    def path(self) -> list[Segment]:
        """The chain of nodes that decided the finish, from the first to the last."""
        return critical_path(
            self._lowered, self._times, self._matches, self._kinds, self._finish_ps
        )

    @cached_property
    def critical_path(self) -> dict[str, NDArray[Any]]:
        """`path` as columns: start_ps, end_ps, rank, node_id, activity, what, name."""
        path = self.path
        ids = [one.node_id for one in path]
        # Ids of traces are unsigned, of 64 bits; where one needs the last, nothing is 2**64 - 1.
        large = max(ids, default=0) >= 2**63
        return {
            "start_ps": np.array([one.start_ps for one in path], np.int64),
            "end_ps": np.array([one.end_ps for one in path], np.int64),
            "rank": np.array([one.row for one in path], np.int64),
            "node_id": np.array(ids, object).astype(np.uint64 if large else np.int64),
            "activity": np.array([one.activity.text for one in path], np.str_),
            "what": np.array([one.what for one in path], np.str_),
            "name": np.array([one.name for one in path], np.str_),
        }


_WAITS = {Activity.COLLECTIVE: Activity.STRAGGLER, Activity.RECEIVE: Activity.SENDER}


def _in_one_order(lowered: Lowered) -> bool:
    """Whether the nodes of every trace file stand as those of its template."""
    return all((np.diff(order) == 1).all() for order in lowered.order)


def _in_template_order(lowered: Lowered, times: Times) -> Times:
    """From the order of the trace file to that of the template."""
    if _in_one_order(lowered):
        return times
    start, end = times.start_ps.copy(), times.end_ps.copy()
    for task, trace in enumerate(lowered.trace_of_task.tolist()):
        first, last = times.offset[task : task + 2]
        start[first:last] = times.start_ps[first + lowered.order[trace]]
        end[first:last] = times.end_ps[first + lowered.order[trace]]
    return Times(times.offset, start, end)
