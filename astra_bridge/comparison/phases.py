# SPDX-License-Identifier: MIT
"""How long each training step computes, communicates, and waits for communication."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.trace import CommType, NodeType, TraceColumns

if TYPE_CHECKING:
    from astra_bridge.comparison.differences import Work
    from astra_bridge.comparison.measured import Measured

__all__ = ["EXPOSED", "STEP", "Phase", "Phases", "covered"]

STEP, EXPOSED = "step", "exposed communication"
"""What is no kind of nodes: all of a step, and what its rank does not compute meanwhile."""

_END_OF_STEP = re.compile(r"\bstep[ ._#-]?(\d{1,9})$", re.IGNORECASE)
_MOST_NAMES = 100_000
"""A name is read again from the file, in about 15 us."""
_AT_ONCE = 1 << 21
"""Nodes of several ranks that are counted together."""

_KINDS = (
    "compute", "memory", *(kind.name.lower().replace("_", "-") for kind in CommType), "send",
    "receive",
)  # fmt: skip
_COMPUTE, _MEMORY, _COLLECTIVE, _SEND, _RECEIVE = 0, 1, 2, len(_KINDS) - 2, len(_KINDS) - 1


class Phase(NamedTuple):
    """What a job does in a step.

    Attributes
    ----------
    job : str
    step : int
    phase : str
        A kind of nodes (``compute``, ``all-reduce``, ``send``, ...), ``step`` or
        ``exposed communication``.
    time_ps : int
        Of a step from the end of the one before to its own end, of the last rank; of all others the
        time in which at least one such node runs, of the rank where that is longest.
    """

    job: str
    step: int
    phase: str
    time_ps: int

    @property
    def key(self) -> tuple[str, int, str]:
        """What it is, however long it takes."""
        return self.job, self.step, self.phase


class _Trace(NamedTuple):
    """Of each node of a trace its step and its kind; -1 is no kind that takes time."""

    step: NDArray[np.int64]
    kind: NDArray[np.int64]


class Phases:
    """The phases of all that an experiment does, whatever the backend."""

    def __init__(self, work: Work) -> None:
        self._work = work
        traces = work.traces.columns
        compute = sum(int((one.type == NodeType.COMP).sum()) for one in traces)
        self._traces = [_Trace(_steps(one, compute <= _MOST_NAMES), _kinds(one)) for one in traces]
        self._steps = 1 + max((int(one.step.max(initial=0)) for one in self._traces), default=0)

    def of(self, run: Measured) -> list[Phase]:
        """The phases of a run, job by job and step by step; none where nodes were not recorded."""
        if not len(run.node_end_ps):
            return []
        jobs = self._work.job_names
        shape = (len(jobs), self._steps)
        longest = np.zeros((*shape, len(_KINDS)), np.int64)
        exposed, ends = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for job, trace, where in self._rows():
            start, end = run.node_start_ps[where], run.node_end_ps[where]
            ran = (end >= 0) & (start >= 0) & (trace.kind >= 0)
            row, node = np.nonzero(ran)
            row_step = row * self._steps + trace.step[node]
            groups = len(where) * self._steps
            times = start[ran], end[ran]
            by_kind = covered(
                *times, row_step * len(_KINDS) + trace.kind[node], groups * len(_KINDS)
            ).reshape(-1, self._steps, len(_KINDS))
            busy = covered(*times, row_step, groups).reshape(-1, self._steps)
            longest[job] = np.maximum(longest[job], by_kind.max(axis=0))
            waits = (busy - by_kind[:, :, _COMPUTE]).max(axis=0)
            exposed[job] = np.maximum(exposed[job], waits)
            np.maximum.at(ends[job], trace.step[node], times[1])
        return list(self._listed(longest, exposed, ends))

    def _rows(self) -> Iterator[tuple[int, _Trace, NDArray[np.int64]]]:
        """Job, trace, and where the nodes of some of its ranks are, shape (ranks, nodes)."""
        for index, trace in enumerate(self._traces):
            rows = np.flatnonzero(self._work.traces.rank_to_columns == index)
            count = len(trace.kind)
            for job in np.unique(self._work.job_of(rows)).tolist():
                mine = rows[self._work.job_of(rows) == job]
                at_once = max(1, _AT_ONCE // max(count, 1))
                for first in range(0, len(mine), at_once):
                    some = self._work.offset[mine[first : first + at_once]]
                    yield job, trace, some[:, None] + np.arange(count)

    def _listed(
        self, longest: NDArray[np.int64], exposed: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Iterator[Phase]:
        for job, name in enumerate(self._work.job_names):
            before_ps = self._work.works[job].job.start_ps
            for step in range(self._steps):
                end_ps = int(ends[job, step])
                if not end_ps:
                    continue
                yield Phase(name, step, STEP, max(end_ps - before_ps, 0))
                before_ps = max(end_ps, before_ps)
                for kind, phase in enumerate(_KINDS):
                    if longest[job, step, kind]:
                        yield Phase(name, step, phase, int(longest[job, step, kind]))
                if longest[job, step, _COMPUTE] and longest[job, step, _COLLECTIVE:].any():
                    yield Phase(name, step, EXPOSED, int(exposed[job, step]))


def covered(
    start: NDArray[np.int64], end: NDArray[np.int64], group: NDArray[np.int64], groups: int
) -> NDArray[np.int64]:
    """How much time the intervals of each group cover; what several cover counts once.

    Examples
    --------
    >>> start, end = np.array([0, 5, 20, 0]), np.array([10, 15, 30, 7])
    >>> covered(start, end, np.array([0, 0, 0, 1]), 3).tolist()
    [25, 7, 0]
    """
    lengths = np.zeros(groups, np.int64)
    if not len(start):
        return lengths
    order = np.lexsort((start, group))
    times, place = np.unique(np.concatenate([start, end]), return_inverse=True)
    # By their places among all times a group's intervals lie behind those of the one before.
    base = group[order] * len(times)
    begin, stop = base + place[: len(start)][order], base + place[len(start) :][order]
    reach = np.maximum.accumulate(stop)
    begin[1:] = np.maximum(begin[1:], reach[:-1])
    more = stop > begin
    gained = times[(stop - base)[more]] - times[(begin - base)[more]]
    np.add.at(lengths, group[order][more], gained)
    return lengths


def _kinds(columns: TraceColumns) -> NDArray[np.int64]:
    kinds = np.full(len(columns), -1, np.int64)
    of_type = {
        NodeType.COMP: _COMPUTE, NodeType.MEM_LOAD: _MEMORY, NodeType.MEM_STORE: _MEMORY,
        NodeType.COMM_SEND: _SEND, NodeType.COMM_RECV: _RECEIVE,
    }  # fmt: skip
    for number, kind in of_type.items():
        kinds[columns.type == number] = kind
    collective = columns.type == NodeType.COMM_COLL
    kinds[collective] = _COLLECTIVE + columns.comm_type[collective]
    return kinds


def _steps(columns: TraceColumns, named: bool) -> NDArray[np.int64]:
    """The step of each node: a step ends with a compute node whose name says so.

    What follows the last of them belongs to its step.
    """
    compute = np.flatnonzero(columns.type == NodeType.COMP) if named else np.zeros(0, np.int64)
    ends = [at for at in compute.tolist() if _END_OF_STEP.search(columns.name(at))]
    step = np.searchsorted(np.array(ends, np.int64), np.arange(len(columns)))
    return np.minimum(step, max(len(ends) - 1, 0))
