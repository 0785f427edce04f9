# SPDX-License-Identifier: MIT
"""Where two runs of the same work differ: groups of ranks, collectives, the first node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.comparison.bandwidth import OneCollective, one_collective
from astra_bridge.trace import CommType, NodeType, TraceColumns
from astra_bridge.units import PS_PER_NS

if TYPE_CHECKING:
    from astra_bridge.comparison.measured import Measured
    from astra_bridge.simulation import Experiment

__all__ = ["Group", "Parting", "Span", "Work", "finish_ns", "relative"]

_MOST_GROUPS = 8
_NEVER = 2**63 - 1


def relative(value: float, reference: float | None) -> float | None:
    """(value - reference) / reference; None where there is no reference, or it is 0.

    Examples
    --------
    >>> relative(90, 100), relative(1, None)
    (-0.1, None)
    """
    return (value - reference) / reference if reference else None


class Group(NamedTuple):
    """Rows of a result that belong together.

    Attributes
    ----------
    name : str
        "job NAME", or "ranks 0-7".
    rows : ndarray of int64
    """

    name: str
    rows: NDArray[np.int64]


class Span(NamedTuple):
    """A collective: all nodes of the same id, kind, size and communicator group in a job.

    Attributes
    ----------
    job, name, kind : str
    group : str
        The communicator group; "" is all ranks of the job.
    dims : str
        The dimensions that the trace says, "0,1"; "" where it says none: those of the group.
    node_id, size_bytes, ranks : int
    start_ps, end_ps : int
        From its first rank's start to its last rank's end.
    """

    job: str
    name: str
    kind: str
    group: str
    dims: str
    node_id: int
    size_bytes: int
    ranks: int
    start_ps: int
    end_ps: int

    @property
    def key(self) -> tuple[str, int, str, str, int]:
        """What it is, whenever it was."""
        return self.job, self.node_id, self.kind, self.group, self.size_bytes


class Parting(NamedTuple):
    """The first node, in the order of the reference, that ends at quite another time.

    Attributes
    ----------
    job : str
    rank : int
        Rank of the job.
    node_id : int
    name, type : str
    end_ps, reference_end_ps : int
    """

    job: str
    rank: int
    node_id: int
    name: str
    type: str
    end_ps: int
    reference_end_ps: int


class Work:
    """What all runs of an experiment do, by whatever backend."""

    def __init__(self, experiment: Experiment) -> None:
        self.traces = experiment.traces
        self.works = experiment.work
        sizes = np.array([len(columns) for columns in self.traces.columns], np.int64)
        self.offset = np.concatenate([[0], np.cumsum(sizes[self.traces.rank_to_columns])])
        self.job_names = [work.job.name for work in self.works]
        self._job_rows = np.concatenate([[0], np.cumsum([work.ranks for work in self.works])])

    @cached_property
    def collective(self) -> OneCollective | None:
        """The one collective that it is, or None."""
        if len(self.works) > 1:
            return None
        return one_collective(self.works[0].traces, self.works[0].groups)

    def job_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which job some rows of a result belong to."""
        return np.searchsorted(self._job_rows, rows, "right") - 1

    def _of_row(self, row: int) -> tuple[str, int]:
        """Job and rank of the job."""
        job = int(self.job_of(np.array([row]))[0])
        return self.job_names[job], row - int(self._job_rows[job])

    def groups(self, finish_ps: NDArray[np.int64], tolerance: float) -> list[Group]:
        """Jobs; of one job alone the ranks that finish together, unless these are too many.

        Ranks finish together where the last one's time is that of the first but for the tolerance.
        """
        if len(self.works) > 1:
            bounds = self._job_rows.tolist()
            return [
                Group(f"job {name}", np.arange(first, last))
                for name, first, last in zip(self.job_names, bounds, bounds[1:], strict=False)
            ]
        order = np.argsort(finish_ps, kind="stable")
        times, starts = finish_ps[order], [0]
        while (at := int(np.searchsorted(times, times[starts[-1]] * (1 + tolerance), "right"))) < (
            len(times)
        ):
            starts.append(at)
        if len(starts) > _MOST_GROUPS:
            starts = [0]
        groups = [np.sort(rows) for rows in np.split(order, starts[1:])]
        groups.sort(key=lambda rows: int(rows[0]))
        return [Group(f"ranks {_ranges(rows)}", rows) for rows in groups]

    def spans(self, run: Measured) -> Iterator[Span]:
        """Each collective, in the order of start."""
        if not len(run.node_end_ps):
            return
        found: dict[tuple[str, int, str, str, int], Span] = {}
        for index, columns in enumerate(self.traces.columns):
            all_rows = np.flatnonzero(self.traces.rank_to_columns == index)
            all_nodes = np.flatnonzero(columns.type == NodeType.COMM_COLL)
            for group, label, rows in self._groups_of(columns, all_rows, all_nodes):
                nodes = all_nodes[columns.pg_name[all_nodes] == group]
                self._add_spans(found, run, columns, rows, nodes, label)
        yield from sorted(found.values(), key=lambda one: (one.start_ps, one.end_ps, one.key))

    def _groups_of(
        self, columns: TraceColumns, rows: NDArray[np.int64], nodes: NDArray[np.int64]
    ) -> Iterator[tuple[int, str, NDArray[np.int64]]]:
        """The groups that these nodes name, and the rows of each: (pg_name, label, rows)."""
        declared = {group.name: group for group in columns.process_groups if group.stride}
        for group in np.unique(columns.pg_name[nodes]).tolist():
            name = columns.strings[group] if group >= 0 else ""
            if name not in declared or not len(rows):
                yield group, name, rows
                continue
            # "The group of the own rank" is another one for other ranks.
            stride, size = declared[name].stride, declared[name].size
            rank = rows - rows[0] + self._of_row(int(rows[0]))[1]
            first = rank - rank // stride % size * stride
            for one in np.unique(first).tolist():
                yield group, f"{name} of {one}", rows[first == one]

    def _add_spans(
        self,
        found: dict[tuple[str, int, str, str, int], Span],
        run: Measured,
        columns: TraceColumns,
        rows: NDArray[np.int64],
        nodes: NDArray[np.int64],
        label: str,
    ) -> None:
        where = self.offset[rows][:, None] + nodes
        ends = run.node_end_ps[where]
        starts = np.where(ends < 0, _NEVER, run.node_start_ps[where])
        ran = (ends >= 0).sum(axis=0)
        counts = (nodes, ran, starts.min(axis=0), ends.max(axis=0))
        for at, ranks, start_ps, end_ps in zip(*(c.tolist() for c in counts), strict=True):
            kind = CommType(int(columns.comm_type[at])).name.lower().replace("_", "-")
            one = Span(
                self._of_row(int(rows[0]))[0],
                columns.name(at),
                kind,
                label,
                _dims(columns, at),
                int(columns.node_id[at]),
                int(columns.comm_size[at]),
                ranks,
                start_ps,
                end_ps,
            )
            other = found.get(one.key)
            if other is not None:
                one = other._replace(
                    ranks=other.ranks + ranks,
                    start_ps=min(other.start_ps, start_ps),
                    end_ps=max(other.end_ps, end_ps),
                )
            if ranks:
                found[one.key] = one

    def parting(self, run: Measured, reference: Measured, tolerance: float) -> Parting | None:
        """The first node in the reference's order that ends earlier or later by more than that."""
        ends, own = reference.node_end_ps, run.node_end_ps
        if not len(ends) or len(ends) != len(own):
            return None
        apart = (np.abs(own - ends) > tolerance * ends) & (ends >= 0) & (own >= 0)
        where = np.flatnonzero(apart)
        if not len(where):
            return None
        at = int(where[np.argmin(ends[where])])
        row = int(np.searchsorted(self.offset, at, "right")) - 1
        columns = self.traces.of_rank(row)
        inner = at - int(self.offset[row])
        job, rank = self._of_row(row)
        return Parting(
            job,
            rank,
            int(columns.node_id[inner]),
            columns.name(inner),
            NodeType(int(columns.type[inner])).name,
            int(own[at]),
            int(ends[at]),
        )

    def bandwidth_GBps(self, spans: Sequence[Span]) -> tuple[float, float] | None:
        """Algorithm and bus bandwidth of the one collective, averaged over its repetitions."""
        if self.collective is None or not spans:
            return None
        duration_ps = sum(one.end_ps - one.start_ps for one in spans) / len(spans)
        return self.collective.bandwidth_GBps(duration_ps) if duration_ps else None


def _dims(columns: TraceColumns, at: int) -> str:
    index = int(columns.involved_dim[at])
    involved = columns.involved_dims[index] if index >= 0 else ()
    return ",".join(str(dim) for dim, one in enumerate(involved) if one)


def _ranges(rows: NDArray[np.int64]) -> str:
    """0-3,8."""
    breaks = np.flatnonzero(np.diff(rows) != 1)
    firsts, lasts = [0, *(breaks + 1)], [*breaks, len(rows) - 1]
    parts = [
        f"{rows[first]}" if first == last else f"{rows[first]}-{rows[last]}"
        for first, last in zip(firsts, lasts, strict=True)
    ]
    return ",".join(parts) if len(parts) <= 4 else f"{','.join(parts[:3])},..."


def finish_ns(finish_ps: NDArray[np.int64]) -> int:
    """The last rank's end in whole ns."""
    return int(finish_ps.max(initial=0)) // PS_PER_NS
