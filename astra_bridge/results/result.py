# SPDX-License-Identifier: MIT
"""The answer of one simulation, as arrays and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from astra_bridge.arguments import integer, path
from astra_bridge.errors import InputError
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.results.table import Table
from astra_bridge.text import nearest, one_line, show
from astra_bridge.trace.columns import NodeType
from astra_bridge.units import PS_PER_NS

if TYPE_CHECKING:
    from astra_bridge.results.statistics import RankStatistics
    from astra_bridge.trace import TraceColumns, Workload

__all__ = ["JobRows", "NodeTimes", "Result"]


@dataclass(frozen=True, eq=False)
class NodeTimes:
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


@dataclass(frozen=True, eq=False)
class JobRows:
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


@dataclass(frozen=True, eq=False)
class Result:
    """The answer of one simulation.

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
    tables : mapping of str to Table
        What the network backend reports: "links" (link, src, dst, bytes, busy_ps), "flows", ...
    network : mapping of str to object
        Scalar statistics of the network backend.
    warnings : tuple of str
        Sentences for the user.
    jobs : tuple of JobRows
        Which rows are whose.
    experiment : Experiment or None
        What ran; its ``token`` names all that decides the numbers.
    versions : mapping of str to str
        Of this package, Python, NumPy and the backend, and the machine.
    """

    backend: str
    engine: str
    semantics: str
    finish_ps: npt.NDArray[np.int64]
    exposed_comm_ps: npt.NDArray[np.int64]
    wall_s: float
    events: int
    workload: Workload
    system: SystemConfig
    node_offset: npt.NDArray[np.int64]
    node_start_ps: npt.NDArray[np.int64]
    node_end_ps: npt.NDArray[np.int64]
    tables: Mapping[str, Table] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    jobs: tuple[JobRows, ...] = ()
    experiment: Any = None
    versions: Mapping[str, str] = field(default_factory=dict)

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

    @cached_property
    def ranks(self) -> Table:
        """Per rank: job, times, and statistics as ASTRA-sim prints them."""
        columns: dict[str, Any] = {"rank": np.arange(self.rank_count)}
        if len(self.jobs) > 1:
            sizes = [len(job.ranks) for job in self.jobs]
            columns = {
                "job": np.repeat([job.name for job in self.jobs], sizes),
                "job_rank": np.concatenate([np.arange(size) for size in sizes]),
                "rank": np.concatenate([job.ranks for job in self.jobs]),
            }
        columns |= {
            "finish_ns": self.finish_ns,
            "exposed_comm_ns": self.exposed_comm_ns,
            "finish_ps": self.finish_ps,
        }
        return Table("ranks", columns | self.statistics.columns())

    @cached_property
    def nodes(self) -> Table:
        """Per node of all rows: row, node id, type (`NodeType`), start and end.

        Raises
        ------
        InputError
            The nodes were not recorded.
        """
        self._need_nodes()
        return Table(
            "nodes",
            {
                "rank": np.repeat(np.arange(self.rank_count), np.diff(self.node_offset)),
                "node_id": self._column("node_id"),
                "type": self._column("type"),
                "start_ps": self.node_start_ps,
                "end_ps": self.node_end_ps,
            },
        )

    @cached_property
    def collectives(self) -> Table:
        """Per collective node of all rows: its type (`CommType`), bytes, start and end.

        Raises
        ------
        InputError
            The nodes were not recorded.
        """
        nodes = self.nodes
        which = np.flatnonzero(nodes["type"] == NodeType.COMM_COLL)
        columns = {name: nodes[name][which] for name in ("rank", "node_id")}
        columns["comm_type"] = self._column("comm_type")[which]
        columns["comm_bytes"] = self._column("comm_size")[which]
        columns |= {name: nodes[name][which] for name in ("start_ps", "end_ps")}
        return Table("collectives", columns)

    def _column(self, name: str) -> Any:
        parts = [getattr(columns, name) for columns in self.workload.columns]
        return np.concatenate([parts[index] for index in self.workload.rank_to_columns])

    @property
    def links(self) -> Table:
        """Per link of the network: bytes, time that it was busy, ...

        Raises
        ------
        InputError
            The backend reports no links.
        """
        return self._table("links")

    @property
    def flows(self) -> Table:
        """Per transfer of the network.

        Raises
        ------
        InputError
            The backend reports no flows.
        """
        return self._table("flows")

    @property
    def link_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes per link, shape (links,)."""
        return np.asarray(self.links["bytes"], np.int64)

    @property
    def link_busy_ps(self) -> npt.NDArray[np.int64]:
        """Time that each link was busy [ps], shape (links,)."""
        return np.asarray(self.links["busy_ps"], np.int64)

    def _table(self, name: str) -> Table:
        if name not in self.tables:
            raise InputError(f"backend {self.backend} reports no {name}")
        return self.tables[name]

    def of_job(self, name: str) -> Result:
        """The rows of one job, as a result of its own.

        Raises
        ------
        InputError
            There is no such job.
        """
        first = 0
        for job in self.jobs:
            last = first + len(job.ranks)
            if job.name == name:
                part = slice(int(self.node_offset[first]), int(self.node_offset[last]))
                recorded = part if self.has_nodes else slice(0, 0)
                return replace(
                    self,
                    finish_ps=self.finish_ps[first:last],
                    exposed_comm_ps=self.exposed_comm_ps[first:last],
                    workload=job.workload,
                    system=job.system,
                    node_offset=self.node_offset[first : last + 1] - part.start,
                    node_start_ps=self.node_start_ps[recorded],
                    node_end_ps=self.node_end_ps[recorded],
                    jobs=(job,),
                )
            first = last
        names = [job.name for job in self.jobs]
        raise InputError(
            f"{show(name)} is no job; jobs: {', '.join(names)}{nearest(name, names)}", key="job"
        )

    def __repr__(self) -> str:
        finish_ns = self.finish_ns
        names = ["ranks", "nodes", "collectives", *map(one_line, self.tables)]
        lines = [
            f"Result of {self.rank_count} ranks on {one_line(self.backend)}",
            f"  finish [ns]: {finish_ns.min(initial=2**63 - 1):,} to {finish_ns.max(initial=0):,}",
            f"  exposed communication [ns]: at most {self.exposed_comm_ns.max(initial=0):,}",
            f"  {self.events:,} events in {self.wall_s:.3f} s, engine {self.engine}, semantics "
            f"{self.semantics}",
            f"  tables: {', '.join(names)}",
            f"  {len(self.warnings)} warnings",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>{self.ranks._repr_html_()}"

    @cached_property
    def statistics(self) -> RankStatistics:
        """Per-rank statistics, as ASTRA-sim prints them."""
        from astra_bridge.results.statistics import rank_statistics

        return rank_statistics(self)

    def printed_exposed_comm(self) -> list[int]:
        """Exposed communication as printed, in ns.

        ASTRA-sim prints an unsigned number, so where compute nodes overlap (``replay-only``) and
        take longer than the run, it wraps around 2**64; so it does here under its semantics.
        """
        values: list[int] = self.exposed_comm_ns.tolist()
        return [value % 2**64 for value in values] if self.semantics == "astra-sim" else values

    def provenance(self) -> dict[str, Any]:
        """What ran, for a file: the experiment's token, its inputs by content, and versions."""
        known: dict[str, Any] = {} if self.experiment is None else self.experiment.provenance()
        return known | {"versions": dict(self.versions)}

    def to_dict(self) -> dict[str, Any]:
        """The content of ``--json``: plain numbers, strings and lists."""
        statistics = self.statistics
        several = {} if len(self.jobs) < 2 else {"jobs": self._jobs()}
        return {
            "backend": self.backend,
            "engine": self.engine,
            "semantics": self.semantics,
            "finish_ns": self.finish_ns.tolist(),
            "finish_ps": self.finish_ps.tolist(),
            "exposed_comm_ns": self.printed_exposed_comm(),
            "wall_s": self.wall_s,
            "events": self.events,
            **several,
            "statistics": {name: column.tolist() for name, column in statistics.columns().items()},
            "network": dict(self.network),
            "warnings": list(self.warnings),
            "provenance": self.provenance(),
        }

    def _jobs(self) -> list[dict[str, Any]]:
        return [
            {
                "name": job.name,
                "start_ps": job.start_ps,
                "ranks": job.ranks.tolist(),
                "finish_ps": self.of_job(job.name).finish_ps.tolist(),
            }
            for job in self.jobs
        ]

    def save_json(self, file: str | Path) -> None:
        """Write :meth:`to_dict` as a JSON file.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        from astra_bridge.files import NewFiles
        from astra_bridge.results.files import write_json

        with NewFiles() as files:
            write_json(files, path(file, "file"), self.to_dict())

    def save(self, folder: str | Path) -> list[Path]:
        """Write everything (tables, timeline, plot) into a folder; return what was written.

        The files appear together at the end.

        Raises
        ------
        InputError
            A file cannot be written; what stood there before is untouched.
        """
        from astra_bridge.files import NewFiles
        from astra_bridge.results.files import save

        with NewFiles() as files:
            return save(files, self, path(folder, "folder"))
