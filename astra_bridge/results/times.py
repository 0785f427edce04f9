# SPDX-License-Identifier: MIT
"""When everything ran: what reports are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from astra_bridge.arguments import integer
from astra_bridge.errors import InputError
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.semantics import Semantics
from astra_bridge.units import PS_PER_NS

if TYPE_CHECKING:
    from astra_bridge.trace import TraceColumns, Workload

__all__ = ["JobRows", "NodeTimes", "RankTimes"]


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


@dataclass(frozen=True, eq=False, init=False, repr=False)
class RankTimes:
    """When ranks and nodes ran, and what was simulated.

    A row is a rank; with several jobs, a rank of a job, one job after the other.

    Attributes
    ----------
    backend, engine, semantics : str
        What ran, as on the command line ("analytical-aware", "native", "astra-sim").
    finish_ps : ndarray of int64, shape (rows,)
        When each rank ended.
    exposed_comm_ps : ndarray of int64, shape (rows,)
        ``finish_ps`` less the start of its job and the time of the rank's GPU compute nodes.
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
    node_offset : ndarray of int64, shape (rows + 1,)
        The nodes of row r are entries ``node_offset[r]:node_offset[r + 1]`` of the next two.
    node_start_ps, node_end_ps : ndarray of int64, shape (all nodes,)
        When each node ran, in the order of the rank's trace file; -1 where it did not.  Empty
        where the simulation did not record nodes (:attr:`has_nodes`).
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
    node_offset: npt.NDArray[np.int64]
    node_start_ps: npt.NDArray[np.int64]
    node_end_ps: npt.NDArray[np.int64]

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
        return len(self.node_start_ps) == int(self.node_offset[-1])

    def nodes_of(self, rank: int) -> NodeTimes:
        """When the nodes of one rank (one row) ran.

        Raises
        ------
        InputError
            There is no such rank, or the nodes were not recorded.
        """
        rank = integer(0, self.rank_count - 1)(rank, "rank")
        self._need_nodes()
        part = slice(int(self.node_offset[rank]), int(self.node_offset[rank + 1]))
        return NodeTimes(
            self.workload.of_rank(rank), self.node_start_ps[part], self.node_end_ps[part]
        )

    def _need_nodes(self) -> None:
        if not self.has_nodes:
            raise InputError("start and end of nodes were not recorded", key="record_nodes")

    def printed_exposed_comm(self) -> list[int]:
        """Exposed communication as printed, in ns.

        ASTRA-sim prints an unsigned number, so where compute nodes overlap (``replay-only``) and
        take longer than the run, it wraps around 2**64; so it does here with that quirk.
        """
        values: list[int] = self.exposed_comm_ns.tolist()
        wraps = "printed-times-wrap-around" in Semantics.of(self.semantics)
        return [value % 2**64 for value in values] if wraps else values
