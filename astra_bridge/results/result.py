# SPDX-License-Identifier: MIT
"""The answer of one simulation, as arrays and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from astra_bridge.arguments import integer, list_of, path
from astra_bridge.errors import InputError
from astra_bridge.notebook import bar, card, escaped, table
from astra_bridge.records import field, replace
from astra_bridge.results.chunks import Chunks
from astra_bridge.results.folding import FoldedLinks, Folding
from astra_bridge.results.rates import rates
from astra_bridge.results.statistics import RankStatistics, rank_statistics
from astra_bridge.results.table import Table
from astra_bridge.results.tiers import link_name, tier_load, tiers_of
from astra_bridge.results.timeline import (
    MOST_CHUNKS,
    MOST_NODES,
    drawn_ranks,
    write_timeline,
)
from astra_bridge.results.times import JobRows, NodeRecord, RankTimes
from astra_bridge.results.wavefront import Wavefront
from astra_bridge.text import nearest, one_line, show
from astra_bridge.trace.columns import NodeType
from astra_bridge.units import size_text, time_text

if TYPE_CHECKING:
    from astra_bridge.files import NewFiles
    from astra_bridge.topology import LinkTiers

__all__ = ["Result"]

_MOST_SHOWN_NODES = 1_000_000
"""Nodes up to which a notebook shows where the time went, which takes a second or two then."""

_MOST_WRITTEN_NODES = 50_000_000
"""Nodes of all ranks that tables in files have; those of folded ranks may be more."""


class Result(RankTimes, frozen=True, eq=False, dict=True):
    """The answer of one simulation; besides what `RankTimes` has:

    Attributes
    ----------
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
    folding : Folding
        Which ranks ran for which others, or why none did.
    wavefront : Wavefront
        Which phases of collectives were evaluated without events, or why none was.
    folded_links : FoldedLinks or None
        What the table "links" is made of, where some ranks ran for others.
    algorithms : tuple of mapping
        What algorithms that choose by themselves, such as nccl, took for each kind of collective:
        ``collective``, ``ranks``, ``bytes``, ``dimension`` and ``chosen``.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    jobs: tuple[JobRows, ...] = ()
    experiment: Any = None
    versions: Mapping[str, str] = field(default_factory=dict)
    folding: Folding = field(default_factory=lambda: Folding(reason="off", asked=False))
    wavefront: Wavefront = field(default_factory=lambda: Wavefront(reason="off", asked=False))
    folded_links: FoldedLinks | None = None
    algorithms: tuple[Mapping[str, Any], ...] = ()

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

    @cached_property
    def breakdown(self) -> Table:
        """Where the time of each rank went: rank, activity, what, time_ps.

        At each instant one activity counts: GPU compute before all else, then what is exposed
        beside it.  The times of a rank add up to its finish.

        Raises
        ------
        InputError
            The nodes were not recorded.
        """
        return Table("breakdown", self._explanation.breakdown)

    @cached_property
    def critical_path(self) -> Table:
        """What decided the finish: start_ps, end_ps, rank, node_id, activity, what, name.

        Each segment begins where the one before ends, the first at 0, and the last ends at the
        finish.

        Raises
        ------
        InputError
            The nodes were not recorded.
        """
        return Table("critical_path", self._explanation.critical_path)

    @cached_property
    def collective_spans(self) -> Table:
        """Each collective as a whole, whatever ranks it has: when its first and last member began.

        Raises
        ------
        InputError
            The nodes were not recorded.
        """
        return Table("collective_spans", self._explanation.collectives)

    @cached_property
    def sensitivities(self) -> Table:
        """How much sooner the run would end if something were 10 % better, the best first.

        Columns what (``bandwidth of dim0``, ``latency of dim0``, ``compute: layer*.mlp.fwd``, ...),
        factor, finish_ps, change_ps, change (of the finish), path_ps (if no other path became the
        longer one), other_path (whether one does: "yes", "no", "unknown").

        Raises
        ------
        InputError
            The run kept no messages (``Experiment.run(inside="messages")``), or they are not known
            for what ran (``Experiment.unexplained``).
        """
        self._need_nodes()
        with self.experiment.sensitivities(self) as known:
            return Table("sensitivities", known.table())

    @property
    def rates(self) -> dict[str, Any]:
        """Step time, tokens per second, MFU and memory, where the workload knows its model."""
        return rates(self)

    @property
    def kind_of_rank(self) -> npt.NDArray[np.int64]:
        """Which ranks do the same: equal numbers, shape (rows,)."""
        if self.experiment is not None:
            return np.asarray(self.experiment.kind_of_rank, np.int64)
        return np.asarray(self.workload.rank_to_columns, np.int64)

    @property
    def waits(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """Of each node, when what it needs of another rank was there [ps], and which node that was.

        -1 where it needs nothing; None where this result does not know what ran.
        """
        if self.experiment is None:
            return None
        since_ps, cause = self._explanation.waits
        return since_ps, cause

    @cached_property
    def _explanation(self) -> Any:
        self._need_nodes()
        if self.experiment is None:
            raise InputError("this result does not know what ran", key="experiment")
        return self.experiment.explanation(self)

    def _column(self, name: str) -> Any:
        parts = [getattr(columns, name) for columns in self.workload.columns]
        return np.concatenate([parts[index] for index in self.workload.rank_to_columns])

    @cached_property
    def links(self) -> Table:
        """Per link of the network: bytes, time that it was busy, ..., and its tier.

        Raises
        ------
        InputError
            The backend reports no links.
        """
        return self._with_tiers(self._table("links"))

    def _with_tiers(self, table: Table) -> Table:
        columns: dict[str, Any] = {
            name: partial(table.__getitem__, name) for name in [*table.keys()]
        }
        if self.folded_links is None and "link" in table and table["link"].dtype.kind != "i":
            return Table("links", columns, len(table))
        tiers = self._link_tiers
        if tiers is not None and tiers.names:
            columns["tier"] = lambda: tiers.of(
                table["link"] if "link" in table else np.arange(len(table))
            )
        return Table("links", columns, len(table))

    def busiest_links(self, count: int) -> Table:
        """The links that were busy longest, at most so many.

        Raises
        ------
        InputError
            The backend reports no links.
        """
        if self.folded_links is not None:
            return self._with_tiers(self.folded_links.busiest(count))
        links = self.links
        at = np.argsort(-links["busy_ps"], kind="stable")[:count]
        return Table("links", {name: values[at] for name, values in links.items()})

    @cached_property
    def _link_tiers(self) -> LinkTiers | None:
        """The tiers of the network; that takes its time, and not everybody asks."""
        return None if self.experiment is None else self.experiment.prepared.link_tiers()

    @cached_property
    def _tier_sizes(self) -> dict[str, int]:
        """How many links each tier has, used or not."""
        tiers = self._link_tiers
        return {} if tiers is None else dict(zip(tiers.names, tiers.links, strict=True))

    @property
    def flows(self) -> Table:
        """Per transfer of the network.

        Raises
        ------
        InputError
            The backend reports no flows.
        """
        return self._table("flows")

    @cached_property
    def tiers(self) -> Table:
        """What each tier of links (``gpu-leaf up``, or ``dim0``) carried.

        How many links there are, bytes, shares of the time in which they were busy (on average, and
        of the busiest one), and what else the network counts per link.

        Raises
        ------
        InputError
            The backend reports no links.
        """
        end_ps, sizes = int(self.finish_ps.max(initial=0)), self._tier_sizes
        if self.folded_links is None:
            return tiers_of(self.links, sizes, end_ps)
        few = self._with_tiers(self.folded_links.table)
        return tiers_of(few, sizes, end_ps, self.folding.copies)

    @cached_property
    def tier_load(self) -> Table:
        """Per tier and interval of time: bytes, busy shares, and queues where there are any.

        Queues are those at the end of the interval.

        Raises
        ------
        InputError
            The backend reports no loads over time; ``sample_interval_us`` asks for them.
        """
        return tier_load(
            self.links,
            self._table("link_load"),
            self.tables.get("queues"),
            self._tier_sizes,
            int(self.network["sample_interval_ps"]),
        )

    @property
    def link_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes per link, shape (links,)."""
        return np.asarray(self._table("links")["bytes"], np.int64)

    @property
    def link_busy_ps(self) -> npt.NDArray[np.int64]:
        """Time that each link was busy [ps], shape (links,)."""
        return np.asarray(self._table("links")["busy_ps"], np.int64)

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
                    recorded=NodeRecord(
                        self.node_offset[first : last + 1] - part.start,
                        self.node_start_ps[recorded],
                        self.node_end_ps[recorded],
                    ),
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
            *(
                f"  {one['collective']} of {one['ranks']} ranks, {one['bytes']:,} B: "
                f"{one['chosen']}"
                for one in self.algorithms
            ),
            *([f"  folding: {self.folding.sentence()}"] if self.folding.asked else []),
            *([f"  wavefronts: {self.wavefront.sentence()}"] if self.wavefront.asked else []),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        title = (
            f"{self.rank_count} ranks on {self.backend}: {time_text(int(self.finish_ps.max()))}, "
            f"{self.events:,} events in {self.wall_s:.3f} s, semantics {self.semantics}"
        )
        times = {"finish": self.finish_ps, "exposed communication": self.exposed_comm_ps}
        rows = [
            (name, *(time_text(int(one)) for one in (ps.min(), round(ps.mean()), ps.max())),
             int(ps.argmax()))
            for name, ps in times.items()
        ]  # fmt: skip
        return card(
            title,
            table(("time", "least", "mean", "most", "most at rank"), rows),
            self._breakdown_html(),
            self._links_html(),
            f"<details><summary>all ranks, tables</summary>{self.ranks._repr_html_()}"
            f"<pre>{escaped(repr(self))}</pre></details>",
        )

    def _breakdown_html(self) -> str:
        """Where the time went, over all ranks."""
        try:
            if len(self.nodes) > _MOST_SHOWN_NODES:
                return ""
            breakdown = self.breakdown
        except InputError:
            return ""  # nodes were not recorded
        names, which = np.unique(breakdown["activity"], return_inverse=True)
        sums = np.bincount(which.ravel(), breakdown["time_ps"].astype(np.float64))
        whole = float(sums.sum())
        order = np.argsort(-sums, kind="stable")
        return "" if whole == 0 else bar([
            (str(names[at]), sums[at] / whole, f"{sums[at] / whole:.1%}")
            for at in order.tolist() if sums[at] > 0
        ])  # fmt: skip

    def _links_html(self) -> str:
        """The busiest links, where the backend tells of links."""
        if "links" not in self.tables:
            return ""
        links = self.busiest_links(3)
        end_ps = max(int(self.finish_ps.max()), 1)
        rows = [
            (link_name(links, at), size_text(int(links["bytes"][at])),
             f"{links['busy_ps'][at] / end_ps:.1%}")
            for at in range(len(links)) if links["busy_ps"].any()
        ]  # fmt: skip
        count = len(self.tables["links"])
        return table((f"busiest of {count} links", "bytes", "busy"), rows) if rows else ""

    @cached_property
    def statistics(self) -> RankStatistics:
        """Per-rank statistics, as ASTRA-sim prints them."""
        return rank_statistics(self)

    def provenance(self) -> dict[str, Any]:
        """What ran, for a file: the experiment's token, its inputs by content, and versions."""
        known: dict[str, Any] = {} if self.experiment is None else self.experiment.provenance()
        return known | {"versions": dict(self.versions)}

    def to_dict(self) -> dict[str, Any]:
        """The content of ``--json``: plain numbers, strings and lists."""
        statistics = self.statistics
        known = rates(self) if len(self.jobs) < 2 else {}
        several = {} if len(self.jobs) < 2 else {"jobs": self._jobs()}
        return {
            "backend": self.backend,
            "engine": self.engine,
            "semantics": self.semantics,
            "finish_ns": self.listed(self.finish_ns),
            "finish_ps": self.listed(self.finish_ps),
            "exposed_comm_ns": self.printed_exposed_comm(),
            "wall_s": self.wall_s,
            "events": self.events,
            **several,
            **({"model": known} if known else {}),
            "statistics": {
                name: self.listed(column) for name, column in statistics.columns().items()
            },
            "network": dict(self.network),
            "warnings": list(self.warnings),
            **({"algorithms": list(self.algorithms)} if self.algorithms else {}),
            "folding": self.folding.to_dict(),
            "wavefront": self.wavefront.to_dict(),
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
        from astra_bridge.results.files import save_json

        save_json(file, self.to_dict())

    def save(
        self, folder: str | Path, *, timeline_ranks: Sequence[int] | None = None
    ) -> list[Path]:
        """Write everything (tables, timeline, plot) into a folder; return what was written.

        The files appear together at the end.

        Parameters
        ----------
        folder
            Where to.
        timeline_ranks
            Who stands in the timeline; by default all, or where they have too many nodes one of
            each kind.

        Raises
        ------
        InputError
            A file cannot be written; what stood there before is untouched.
        """
        from astra_bridge.files import NewFiles

        with NewFiles() as files:
            return self.write(files, path(folder, "folder"), timeline_ranks)

    def write(
        self, files: NewFiles, folder: Path, timeline_ranks: Sequence[int] | None = None
    ) -> list[Path]:
        """As `save`, among other files that appear together."""
        from astra_bridge.results.files import save
        from astra_bridge.results.plots import save_tiers_plot

        drawn: list[Path] = []
        tables = {"ranks": self.ranks}
        if self.has_nodes and int(self.node_offset[-1]) <= _MOST_WRITTEN_NODES:
            tables |= {"nodes": self.nodes, "collectives": self.collectives}
            if self.experiment is not None:
                tables["breakdown"] = self.breakdown
                tables["critical_path"] = self.critical_path
                tables["collective_spans"] = self.collective_spans
                if len(self.recorded.deliveries) and self.experiment.unexplained() is None:
                    tables["sensitivities"] = self.sensitivities
        every = dict(self.tables)
        if "links" in every:
            every["links"] = self.links
            tables["tiers"] = self.tiers
            if "link_load" in self.tables:
                tables["tier_load"] = load = self.tier_load
                drawn = save_tiers_plot(
                    files,
                    load,
                    int(self.network["sample_interval_ps"]),
                    f"{self.backend}, links by tier",
                    folder / "tiers.svg",
                )
        written = save(files, self, self.to_dict(), [*tables.items(), *every.items()], folder)
        if self.has_nodes:
            written.append(folder / "timeline.pftrace")
            with files.open(written[-1]) as out:
                over_time = self.tier_load if "link_load" in self.tables else None
                ranks = self._drawn(timeline_ranks)
                chunks = self.chunks if self.draws_chunks(ranks.tolist()) else None
                write_timeline(out, self, ranks, self.waits, over_time, chunks)
        return written + drawn

    @cached_property
    def chunks(self) -> Chunks | None:
        """When the chunks of collectives were in their phases; None where that was not kept."""
        if self.experiment is None or not len(self.recorded.stays):
            return None
        return Chunks(self.recorded, self.experiment.lower())

    def draws_chunks(self, ranks: Sequence[int]) -> bool:
        """Whether a timeline of these ranks has the chunks of its collectives.

        It has none where there are too many, of these ranks or altogether.
        """
        if self.chunks is None:
            return not (self.collectives["start_ps"] >= 0).any()
        return self.chunks.count(ranks) <= MOST_CHUNKS

    def timeline_ranks(self, *, most_nodes: int = MOST_NODES) -> npt.NDArray[np.int64]:
        """Who stands in the timeline, unless others are chosen.

        All, or, where they have more nodes together, of each kind the rank that finishes last.
        """
        return drawn_ranks(self, self.kind_of_rank, most_nodes)

    def _drawn(self, ranks: Sequence[int] | None) -> npt.NDArray[np.int64]:
        if ranks is None:
            return self.timeline_ranks()
        check = list_of(integer(0, self.rank_count - 1))
        return np.array(sorted(set(check(list(ranks), "timeline_ranks"))), np.int64)
