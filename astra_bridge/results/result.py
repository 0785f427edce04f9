# SPDX-License-Identifier: MIT
"""The answer of one simulation, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from astra_bridge.arguments import integer, path
from astra_bridge.errors import InputError
from astra_bridge.inputs.system import SystemConfig

if TYPE_CHECKING:
    from astra_bridge.results.statistics import RankStatistics
    from astra_bridge.trace import TraceColumns, Workload

__all__ = ["NodeTimes", "Result"]

Table = Mapping[str, npt.NDArray[Any]]
"""Columns of equal length by name."""


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
class Result:
    """The answer of one simulation.

    Attributes
    ----------
    backend, engine, semantics : str
        What ran, as on the command line ("analytical-aware", "native", "astra-sim").
    finish_ns : ndarray of int64, shape (ranks,)
        When each rank ended; ASTRA-sim prints it as "cycles".
    exposed_comm_ns : ndarray of int64, shape (ranks,)
        ``finish_ns`` less the time of the rank's GPU compute nodes.
    wall_s : float
        Real time that the simulation took [s].
    events : int
        Events that were simulated.
    workload : Workload
        The traces; ranks with identical files share one.
    system : SystemConfig
        The system configuration.
    node_offset : ndarray of int64, shape (ranks + 1,)
        The nodes of rank r are entries ``node_offset[r]:node_offset[r + 1]`` of the next two.
    node_start_ps, node_end_ps : ndarray of int64, shape (all nodes,)
        When each node ran, in the order of the rank's trace file; -1 where it did not.  Empty
        where the simulation did not record nodes (:attr:`has_nodes`).
    tables : mapping of str to Table
        Tables of the network backend: "links" (link, src, dst, bytes, busy_ps), "flows", ...
    network : mapping of str to object
        Scalar statistics of the network backend.
    warnings : tuple of str
        Sentences for the user.
    """

    backend: str
    engine: str
    semantics: str
    finish_ns: npt.NDArray[np.int64]
    exposed_comm_ns: npt.NDArray[np.int64]
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

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return len(self.finish_ns)

    @property
    def has_nodes(self) -> bool:
        """Whether start and end of every node were recorded."""
        return len(self.node_start_ps) == int(self.node_offset[-1])

    def nodes(self, rank: int) -> NodeTimes:
        """When the nodes of one rank ran.

        Raises
        ------
        InputError
            There is no such rank, or the nodes were not recorded.
        """
        rank = integer(0, self.ranks - 1)(rank, "rank")
        if not self.has_nodes:
            raise InputError("start and end of nodes were not recorded", key="record_nodes")
        part = slice(int(self.node_offset[rank]), int(self.node_offset[rank + 1]))
        return NodeTimes(
            self.workload.of_rank(rank), self.node_start_ps[part], self.node_end_ps[part]
        )

    @property
    def link_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes per link, shape (links,); the links themselves are ``tables["links"]``."""
        return self._links("bytes")

    @property
    def link_busy_ps(self) -> npt.NDArray[np.int64]:
        """Time that each link was busy [ps], shape (links,)."""
        return self._links("busy_ps")

    def _links(self, column: str) -> npt.NDArray[np.int64]:
        try:
            return np.asarray(self.tables["links"][column], np.int64)
        except KeyError:
            raise InputError(f"backend {self.backend} reports no links") from None

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

    def to_dict(self) -> dict[str, Any]:
        """The content of ``--json``: plain numbers, strings and lists."""
        statistics = self.statistics
        return {
            "backend": self.backend,
            "engine": self.engine,
            "semantics": self.semantics,
            "finish_ns": self.finish_ns.tolist(),
            "exposed_comm_ns": self.printed_exposed_comm(),
            "wall_s": self.wall_s,
            "events": self.events,
            "statistics": {name: column.tolist() for name, column in statistics.columns().items()},
            "network": dict(self.network),
            "warnings": list(self.warnings),
        }

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
