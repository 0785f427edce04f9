# SPDX-License-Identifier: MIT
"""When everything ran: what reports are made of."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from astra_bridge.arguments import integer
from astra_bridge.errors import InputError
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.program import DELIVERY, STAY
from astra_bridge.records import Record, field
from astra_bridge.semantics import Semantics
from astra_bridge.units import PS_PER_NS

if TYPE_CHECKING:
    from astra_bridge.trace import TraceColumns, Workload

__all__ = ["JobRows", "NodeRecord", "NodeTimes", "RankTimes"]


class NodeTimes(msgspec.Struct, frozen=True, eq=False):
    """When the nodes of one rank ran; ``n`` nodes, in the order of the trace file.

    Attributes
    ----------
    columns : TraceColumns
        The rank's trace (``node_id``, ``type``, ``name(i)``, ...).
    start_ps, end_ps : ndarray of int64, shape (n,)
        -1 for a node that did not run.
    """

    columns: TraceColumns
    start_ps: npt.NDArray[np.int64]
    end_ps: npt.NDArray[np.int64]


class NodeRecord(Record, frozen=True, eq=False, dict=True):
    """When the nodes of all rows ran, once for each kind of row.

    Attributes
    ----------
    offset : ndarray of int64, shape (kinds + 1,)
        The nodes of kind k are entries ``offset[k]:offset[k + 1]`` of the next two.
    start_ps, end_ps : ndarray of int64
        Empty where they were not recorded.
    kind_of_row : ndarray of int32, shape (rows,), or None
        The kind of each row, where ranks were folded; else each row is a kind.
    stays, deliveries : ndarray of STAY and DELIVERY
        What went on inside collectives, where that was kept; their tasks are the kinds, and their
        nodes stand in the order of the templates.
    """

    offset: npt.NDArray[np.int64]
    start_ps: npt.NDArray[np.int64]
    end_ps: npt.NDArray[np.int64]
    kind_of_row: npt.NDArray[np.int32] | None = None
    stays: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, STAY))
    deliveries: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, DELIVERY))

    def of_row(self, row: int) -> slice:
        """Where the nodes of a row are."""
        kind = row if self.kind_of_row is None else int(self.kind_of_row[row])
        return slice(int(self.offset[kind]), int(self.offset[kind + 1]))

    @cached_property
    def row_of_kind(self) -> npt.NDArray[np.int64]:
        """The first row of each kind."""
        if self.kind_of_row is None:
            return np.arange(len(self.offset) - 1)
        rows = np.empty(len(self.offset) - 1, np.int64)
        # Of several the last one stays: the first row.
        rows[self.kind_of_row[::-1]] = np.arange(len(self.kind_of_row) - 1, -1, -1)
        return rows

    @property
    def kinds(self) -> NodeRecord:
        """The kinds alone."""
        return NodeRecord(self.offset, self.start_ps, self.end_ps)

    @cached_property
    def offset_of_rows(self) -> npt.NDArray[np.int64]:
        """Where the nodes of each row begin in `unfolded`, and their end; shape (rows + 1,)."""
        if self.kind_of_row is None:
            return self.offset
        return np.concatenate([[0], np.cumsum(np.diff(self.offset)[self.kind_of_row])])

    @cached_property
    def unfolded(self) -> NodeRecord:
        """All rows, one after the other."""
        if self.kind_of_row is None:
            return self
        offset = self.offset_of_rows
        if not len(self.start_ps):
            return NodeRecord(offset, self.start_ps, self.end_ps)
        at = np.arange(int(offset[-1])) + np.repeat(
            self.offset[self.kind_of_row] - offset[:-1], np.diff(offset)
        )
        return NodeRecord(offset, self.start_ps[at], self.end_ps[at])


class JobRows(msgspec.Struct, frozen=True, eq=False):
    """A job, and where it was.

    Attributes
    ----------
    name : str
    start_ps : int
    ranks : ndarray of int64, shape (ranks of the job,)
        The rank of the network that each of its ranks was on.
    workload : Workload
    system : SystemConfig
    """

    name: str
    start_ps: int
    ranks: npt.NDArray[np.int64]
    workload: Workload
    system: SystemConfig


class RankTimes(Record, frozen=True, eq=False):
    """When ranks and nodes ran, and what was simulated.

    A row is a rank; with several jobs, a rank of a job, one job after the other.

    Attributes
    ----------
    backend, engine, semantics : str
        What ran, as on the command line ("analytical-aware", "native", "astra-sim").
    finish_ps : ndarray of int64, shape (rows,)
        When each rank ended.
    exposed_comm_ps : ndarray of int64, shape (rows,)
        ``finish_ps`` less the start of its job and the time of the rank's GPU compute nodes: the
        sum of their durations or, where several may run at once, the time in which one ran.
    wall_s : float
        Real time that the simulation took [s].
    run_cpu_s : float
        CPU time of all threads while simulated time advanced, of engine and network: without
        opening the network, its statistics, and all that is before and after [s].
    events : int
        Events that were simulated.
    workload : Workload
        The traces; ranks with identical files share one.
    system : SystemConfig
        The system configuration; with several jobs, of the first one.
    recorded : NodeRecord
        When each node ran, in the order of the rank's trace file; -1 where it did not.  What is
        made of it for all rows (`node_offset`, `node_start_ps`, `node_end_ps`) is made when it is
        first asked for.
    """

    backend: str
    engine: str
    semantics: str
    finish_ps: npt.NDArray[np.int64]
    exposed_comm_ps: npt.NDArray[np.int64]
    wall_s: float
    run_cpu_s: float
    events: int
    workload: Workload
    system: SystemConfig
    recorded: NodeRecord

    @property
    def node_offset(self) -> npt.NDArray[np.int64]:
        """The nodes of row r are entries ``node_offset[r]:node_offset[r + 1]`` of the next two."""
        return self.recorded.offset_of_rows

    @property
    def node_start_ps(self) -> npt.NDArray[np.int64]:
        """When each node began [ps], row by row; empty without :attr:`has_nodes`."""
        return self.recorded.unfolded.start_ps

    @property
    def node_end_ps(self) -> npt.NDArray[np.int64]:
        """When each node ended [ps], row by row; empty without :attr:`has_nodes`."""
        return self.recorded.unfolded.end_ps

    @property
    def rank_count(self) -> int:
        """Number of rows: of ranks, or of ranks of all jobs."""
        return len(self.finish_ps)

    @property
    def finish_ns(self) -> npt.NDArray[np.int64]:
        """When each rank ended [ns], shape (rows,); ASTRA-sim prints it as "cycles"."""
        return self.finish_ps // PS_PER_NS

    @property
    def exposed_comm_ns(self) -> npt.NDArray[np.int64]:
        """``exposed_comm_ps`` in whole ns, shape (rows,)."""
        return self.exposed_comm_ps // PS_PER_NS

    @property
    def has_nodes(self) -> bool:
        """Whether start and end of every node were recorded."""
        return len(self.recorded.start_ps) == int(self.recorded.offset[-1])

    def nodes_of(self, rank: int) -> NodeTimes:
        """When the nodes of one rank (one row) ran.

        Raises
        ------
        InputError
            There is no such rank, or the nodes were not recorded.
        """
        rank = integer(0, self.rank_count - 1)(rank, "rank")
        self._need_nodes()
        part = self.recorded.of_row(rank)
        return NodeTimes(
            self.workload.of_rank(rank), self.recorded.start_ps[part], self.recorded.end_ps[part]
        )

    def _need_nodes(self) -> None:
        if not self.has_nodes:
            raise InputError("start and end of nodes were not recorded", key="record_nodes")

    def listed(self, values: npt.NDArray[Any]) -> list[Any]:
        """A value of each row as a list; rows of one kind share it."""
        kinds = self.recorded.kind_of_row
        if kinds is None:
            shared: list[Any] = values.tolist()
            return shared
        few = np.empty(len(self.recorded.row_of_kind), object)
        few[:] = values[self.recorded.row_of_kind].tolist()
        return list(few[kinds])

    def printed_exposed_comm(self) -> list[int]:
        """Exposed communication as printed, in ns.

        ASTRA-sim prints an unsigned number, so where compute nodes overlap (``replay-only``) and
        take longer than the run, it wraps around 2**64; so it does here with that quirk.
        """
        values = self.exposed_comm_ns
        if "printed-times-wrap-around" in Semantics.of(self.semantics):
            values = values.view(np.uint64)
        return self.listed(values)
