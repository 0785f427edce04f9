# SPDX-License-Identifier: MIT
"""What a comparison says: tables of runs, groups of ranks, collectives and parting places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from astra_bridge.arguments import path
from astra_bridge.comparison.differences import (
    Parting,
    Span,
    Work,
    finish_ns,
    relative,
)
from astra_bridge.comparison.measured import Measured
from astra_bridge.comparison.phases import Phase, Phases
from astra_bridge.comparison.plots import Row, save_plots
from astra_bridge.errors import AstraBridgeError
from astra_bridge.notebook import card, table
from astra_bridge.results import Table
from astra_bridge.simulation import Experiment
from astra_bridge.text import one_line
from astra_bridge.units import PS_PER_NS, time_text

if TYPE_CHECKING:
    from astra_bridge.files import NewFiles

__all__ = ["Comparison", "Point", "Run", "comparison_of"]


class Point(NamedTuple):
    """An experiment with certain values of what is varied.

    Attributes
    ----------
    values : dict
        Path -> value.
    experiment : Experiment
    """

    values: dict[str, Any]
    experiment: Experiment


class Run(NamedTuple):
    """A point on a backend.

    Attributes
    ----------
    backend : str
    experiment : Experiment
    result : Measured or None
        None where it failed.
    failure : AstraBridgeError or None
        Why.
    """

    backend: str
    experiment: Experiment
    result: Measured | None
    failure: AstraBridgeError | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs of the same experiments on several backends; tables are lists of rows.

    Every row has the values of what is varied by their paths, and ``backend``.  Errors are
    (value - reference) / reference, and None where there is no reference.

    Attributes
    ----------
    rows : list of dict
        A run: ``finish_ns`` (of the last rank), ``error``, ``exposed_comm_ns`` (of the rank where
        it is longest), ``cpu_s``, ``run_cpu_s``, ``wall_s``, ``prepare_s``, ``peak_mb``,
        ``events``, ``engine``; where the experiment is one collective ``size_bytes``,
        ``algbw_GBps`` and ``busbw_GBps``, as nccl-tests print them; ``failure``, which is None or
        says why there is nothing else.
    groups : list of dict
        Ranks that belong together (a job; ranks that finish together in the reference, but for
        the tolerance):
        ``group``, ``ranks``, ``first_ns``, ``finish_ns``, ``error``.
    collectives : list of dict
        ``job``, ``node_id``, ``name``, ``kind``, ``group``, ``dims``, ``size_bytes``, ``ranks``,
        ``start_ns``, ``duration_ns``, ``reference_ns``, ``error`` of the duration.
    kinds : list of dict
        The collectives of a kind and size in sum: ``job``, ``kind``, ``size_bytes``, ``count``,
        ``total_ns``, ``error``.
    phases : list of dict
        What each step does, and for how long: ``job``, ``step``, ``phase`` (``step``, ``compute``,
        a kind of collective, ``exposed communication``, ...), ``time_ns``, ``reference_ns``,
        ``error``.
    partings : list of dict
        Where a run parts from the reference: ``job``, ``rank``, ``node_id``, ``name``, ``type``,
        ``end_ns``, ``reference_end_ns``, ``error``; no row where it does not.
    varied : tuple of str
        The paths of what is varied.
    reference : str or None
        None where nothing has run.
    rule : str
        Why it is this one.
    tolerance : float
        By how much ends must differ for a parting place.
    failures : tuple of AstraBridgeError
        Why runs failed.
    """

    rows: list[Row]
    groups: list[Row]
    collectives: list[Row]
    kinds: list[Row]
    phases: list[Row]
    partings: list[Row]
    varied: tuple[str, ...]
    reference: str | None
    rule: str
    tolerance: float
    failures: tuple[AstraBridgeError, ...] = ()

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The tables by name, for pandas and arrow; what has no value is NaN or ""."""
        named = {"runs": self.rows, "groups": self.groups, "collectives": self.collectives,
                 "kinds": self.kinds, "phases": self.phases, "partings": self.partings}  # fmt: skip
        return {name: _table(name, rows) for name, rows in named.items()}

    def to_dict(self) -> dict[str, Any]:
        """The content of ``--json``: plain numbers, strings and lists."""
        names = ("reference", "rule", "tolerance", "varied", "rows", "groups", "collectives",
                 "kinds", "phases", "partings")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def save_json(self, file: str | Path) -> None:
        """Write :meth:`to_dict` as a JSON file.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        from astra_bridge.results.files import save_json

        save_json(file, self.to_dict())

    def save(self, folder: str | Path) -> list[Path]:
        """Write JSON, tables and plots into a folder; return what was written.

        Raises
        ------
        InputError
            A file cannot be written; what stood there before is untouched.
        """
        from astra_bridge.files import NewFiles

        with NewFiles() as files:
            return self.write(files, path(folder, "folder"))

    def write(self, files: NewFiles, folder: Path) -> list[Path]:
        """As `save`, among other files that appear together."""
        from astra_bridge.results.files import save_table, write_json

        written = [folder / "comparison.json"]
        write_json(files, written[0], self.to_dict())
        for name, one in self.tables.items():
            written += save_table(files, folder / name, one)
        return written + save_plots(files, self.rows, self.varied, self.reference, folder)

    def __repr__(self) -> str:
        return (
            f"Comparison of {len(self.rows)} runs, reference {one_line(str(self.reference))}, "
            f"{len(self.failures)} failed"
        )

    def _repr_html_(self) -> str:
        header = (*self.varied, "backend", "finish", "error", "CPU time [s]")
        rows = [
            (*(row[name] for name in self.varied), row["backend"], *(
                (row["failure"], "", "") if row["failure"] else (
                    time_text(row["finish_ns"] * PS_PER_NS),
                    "reference" if row["backend"] == self.reference
                    else "" if row["error"] is None else f"{row['error']:+.1%}",
                    f"{row['cpu_s']:.3f}",
                )
            ))
            for row in self.rows
        ]  # fmt: skip
        parted = [
            (*(row[name] for name in self.varied), row["backend"], row["rank"], row["name"],
             f"{row['error']:+.1%}")
            for row in self.partings
        ]  # fmt: skip
        header_parted = (*self.varied, "backend", "parts at rank", "node", "by")
        return card(repr(self), table(header, rows), table(header_parted, parted) if parted else "")


def _table(name: str, rows: Sequence[Row]) -> Table:
    keys = dict.fromkeys(key for row in rows for key in row)
    return Table(name, {key: _column([row[key] for row in rows]) for key in keys})


def _column(values: list[Any]) -> Any:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} and None not in values:
        return np.array(values, np.int64)
    if kinds and kinds <= {int, float}:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return np.array(["" if value is None else str(value) for value in values], np.str_)


def comparison_of(
    points: Sequence[Point],
    runs: Sequence[Sequence[Run]],
    reference: str | None,
    tolerance: float,
) -> Comparison:
    """Make the tables of runs: for each point, those of the same backends in the same order."""
    at, rule = _reference(runs, reference)
    rows: list[Row] = []
    groups: list[Row] = []
    collectives: list[Row] = []
    kinds: list[Row] = []
    phases: list[Row] = []
    partings: list[Row] = []
    for point, some in zip(points, runs, strict=True):
        done = [run for run in some if run.result is not None]
        base = None if at is None else some[at].result
        work = Work(done[0].experiment) if done else None
        base_spans = list(work.spans(base)) if work is not None and base is not None else []
        durations_ps = {one.key: one.end_ps - one.start_ps for one in base_spans}
        timed = None if work is None else Phases(work)
        base_phases = [] if timed is None or base is None else timed.of(base)
        phases_ps = {one.key: one.time_ps for one in base_phases}
        if work is not None:
            groups += [point.values | row for row in _groups(work, done, base, tolerance)]
        for run in some:
            start = {**point.values, "backend": run.backend}
            if run.result is None or work is None or timed is None:
                rows.append(start | _FAILED | {"failure": _said(run.failure)})
                continue
            spans = list(work.spans(run.result))
            rows.append(start | _row(work, run.result, base, spans))
            collectives += [start | row for row in _collectives(spans, durations_ps)]
            kinds += [start | row for row in _kinds(spans, base_spans)]
            phases += [start | row for row in _phases(timed.of(run.result), phases_ps)]
            parting = None if base is None else work.parting(run.result, base, tolerance)
            if parting is not None:
                partings.append(start | _parting(parting))
    failures = tuple(run.failure for some in runs for run in some if run.failure is not None)
    name = None if at is None else runs[0][at].backend
    varied = tuple(points[0].values) if points else ()
    return Comparison(
        rows, groups, collectives, kinds, phases, partings, varied, name, rule, tolerance, failures
    )


def _reference(runs: Sequence[Sequence[Run]], given: str | None) -> tuple[int | None, str]:
    """Which backend errors are relative to, and why."""
    if given is not None:
        return next(at for at, run in enumerate(runs[0]) if run.backend == given), "as given"
    # Of each backend how many points it completed, and CPU time in sum.
    done = [
        [run.result for run in column if run.result is not None]
        for column in zip(*runs, strict=True)
    ]
    most = max((len(some) for some in done), default=0)
    if not most:
        return None, "no run has ended"
    cpu_s = [sum(one.cpu_s for one in some) if len(some) == most else -1.0 for some in done]
    return cpu_s.index(max(cpu_s)), "the one that took most CPU time"


_FAILED: Row = dict.fromkeys(
    ("finish_ns", "error", "exposed_comm_ns", "cpu_s", "run_cpu_s", "wall_s", "prepare_s",
     "peak_mb", "events", "engine", "size_bytes", "algbw_GBps", "busbw_GBps")
)  # fmt: skip


def _said(failure: AstraBridgeError | None) -> str:
    return f"{type(failure).__name__}: {one_line(str(failure), 1000)}"


def _row(work: Work, run: Measured, base: Measured | None, spans: Sequence[Span]) -> Row:
    finish = finish_ns(run.finish_ps)
    bandwidth = work.bandwidth_GBps(spans)
    collective = work.collective
    return {
        "finish_ns": finish,
        "error": relative(finish, None if base is None else finish_ns(base.finish_ps)),
        "exposed_comm_ns": run.exposed_comm_ps // PS_PER_NS,
        "cpu_s": run.cpu_s,
        "run_cpu_s": run.run_cpu_s,
        "wall_s": run.wall_s,
        "prepare_s": run.prepare_s,
        "peak_mb": run.peak_mb,
        "events": run.events,
        "engine": run.engine,
        "size_bytes": None if collective is None else collective.size_bytes,
        "algbw_GBps": None if bandwidth is None else bandwidth[0],
        "busbw_GBps": None if bandwidth is None else bandwidth[1],
        "failure": None,
    }


def _groups(
    work: Work, done: Sequence[Run], base: Measured | None, tolerance: float
) -> Iterator[Row]:
    first = base or done[0].result
    assert first is not None
    for one in work.groups(first.finish_ps, tolerance):
        expected = None if base is None else finish_ns(base.finish_ps[one.rows])
        for run in done:
            assert run.result is not None
            finish_ps = run.result.finish_ps[one.rows]
            yield {
                "backend": run.backend,
                "group": one.name,
                "ranks": len(one.rows),
                "first_ns": int(finish_ps.min()) // PS_PER_NS,
                "finish_ns": finish_ns(finish_ps),
                "error": relative(finish_ns(finish_ps), expected),
            }


def _collectives(
    spans: Sequence[Span], durations_ps: Mapping[tuple[str, int, str, str, int], int]
) -> Iterator[Row]:
    for one in spans:
        duration_ps = one.end_ps - one.start_ps
        yield {
            "job": one.job,
            "node_id": one.node_id,
            "name": one.name,
            "kind": one.kind,
            "group": one.group,
            "dims": one.dims,
            "size_bytes": one.size_bytes,
            "ranks": one.ranks,
            "start_ns": one.start_ps // PS_PER_NS,
            "duration_ns": duration_ps // PS_PER_NS,
            "reference_ns": _ns(durations_ps.get(one.key)),
            "error": relative(duration_ps, durations_ps.get(one.key)),
        }


def _ns(time_ps: int | None) -> int | None:
    return None if time_ps is None else time_ps // PS_PER_NS


def _phases(
    phases: Sequence[Phase], reference_ps: Mapping[tuple[str, int, str], int]
) -> Iterator[Row]:
    for one in phases:
        yield {
            "job": one.job,
            "step": one.step,
            "phase": one.phase,
            "time_ns": one.time_ps // PS_PER_NS,
            "reference_ns": _ns(reference_ps.get(one.key)),
            "error": relative(one.time_ps, reference_ps.get(one.key)),
        }


def _kinds(spans: Sequence[Span], base: Sequence[Span]) -> Iterator[Row]:
    """In the order in which they first start."""
    sums: dict[tuple[str, str, int], list[int]] = {}
    expected_ps: dict[tuple[str, str, int], int] = {}
    for one in spans:
        found = sums.setdefault((one.job, one.kind, one.size_bytes), [0, 0])
        found[0] += 1
        found[1] += one.end_ps - one.start_ps
    for one in base:
        key = (one.job, one.kind, one.size_bytes)
        expected_ps[key] = expected_ps.get(key, 0) + one.end_ps - one.start_ps
    for (job, kind, size_bytes), (count, total_ps) in sums.items():
        yield {
            "job": job,
            "kind": kind,
            "size_bytes": size_bytes,
            "count": count,
            "total_ns": total_ps // PS_PER_NS,
            "error": relative(total_ps, expected_ps.get((job, kind, size_bytes))),
        }


def _parting(parting: Parting) -> Row:
    return {
        "job": parting.job,
        "rank": parting.rank,
        "node_id": parting.node_id,
        "name": parting.name,
        "type": parting.type,
        "end_ns": parting.end_ps // PS_PER_NS,
        "reference_end_ns": parting.reference_end_ps // PS_PER_NS,
        "error": relative(parting.end_ps, parting.reference_end_ps),
    }
