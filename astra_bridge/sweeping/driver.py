# SPDX-License-Identifier: MIT
"""The sweep itself: points from a search, to whoever runs them, into files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astra_bridge.arguments import function, integer, optional, text
from astra_bridge.arguments import path as check_path
from astra_bridge.errors import BackendError
from astra_bridge.files import NewFiles
from astra_bridge.notebook import card, table
from astra_bridge.results.files import save_table
from astra_bridge.results.table import Table
from astra_bridge.sweeping.plots import save_plot
from astra_bridge.sweeping.points import Point, Store, failure, run_point
from astra_bridge.sweeping.ranking import feasible, fronts
from astra_bridge.sweeping.search import Values, search_of, size_of
from astra_bridge.sweeping.specification import NUMBERS, Specification, read_specification
from astra_bridge.sweeping.workers import workers
from astra_bridge.text import one_line

__all__ = ["Reached", "Sweep", "sweep"]

_LEAD = 2
"""Points that are with an executor, for each that it can run at a time."""


class Reached(NamedTuple):
    """How far a sweep has come.

    Attributes
    ----------
    done, total : int
        Points that have ended, and all.
    stored : int
        Those of ``done`` that had been stored, by a sweep before or by an equal point.
    failed : int
    left_s : float or None
        Estimate of the real time that is left; None before the first run has ended.
    """

    done: int
    total: int
    stored: int
    failed: int
    left_s: float | None


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep.

    Attributes
    ----------
    rows : list of dict
        A row per point: varied values by their paths, ``backend``, `NUMBERS`, ``feasible``,
        ``front`` (whether it is the best of its backend, or on the Pareto front), ``error``.
    varied : tuple of str
    objectives : dict
    reached : Reached
    files : tuple of Path
    exit_code : int
        0, or that of the first error where all points have failed.
    """

    rows: list[dict[str, Any]]
    varied: tuple[str, ...]
    objectives: Mapping[str, str]
    reached: Reached
    files: tuple[Path, ...] = field(default=())
    exit_code: int = 0

    @property
    def front(self) -> list[dict[str, Any]]:
        """The rows on the front, in the order of the first objective."""
        first = next(iter(self.objectives), "finish_ns")
        return sorted((row for row in self.rows if row["front"]), key=lambda row: row[first])

    @property
    def table(self) -> Table:
        """The rows as columns."""
        names = (*self.varied, *(one for one in _COLUMNS if one not in self.varied))
        return Table("sweep", {name: _column([row[name] for row in self.rows]) for name in names})

    def __repr__(self) -> str:
        failed = sum(bool(row["error"]) for row in self.rows)
        return (
            f"Sweep of {len(self.rows)} points over {', '.join(map(one_line, self.varied))}: "
            f"{len(self.front)} on the front, {failed} failed"
        )

    def _repr_html_(self) -> str:
        goals = list(self.objectives) or ["finish_ns"]
        header = (*self.varied, "backend", *goals)
        rows = [
            (*(row[name] for name in self.varied), row["backend"], *(row[one] for one in goals))
            for row in self.front[:_SHOWN]
        ]
        ways = ", ".join(f"{name} {way}" for name, way in self.objectives.items())
        return card(repr(self), table(header, rows, f"the front, by {ways}" if ways else ""))


_SHOWN = 10
"""Rows of the front that a notebook shows."""

_COLUMNS = ("backend", *NUMBERS, "feasible", "front", "error")


def sweep(
    specification: str | Path | Mapping[str, Any],
    output: str | Path,
    *,
    workers: int = 1,
    dask: str | None = None,
    retry_failed: bool = False,
    progress: Callable[[Reached], object] | None = None,
) -> Sweep:
    """Run many experiments that differ in some values, each once, and rank them.

    What has run is stored in ``output`` at once, and does not run again when the sweep does, be it
    that it was killed or that its points have changed.  Points run in processes of their own, so a
    script that calls this needs the usual ``if __name__ == "__main__":``.

    Parameters
    ----------
    specification
        The path of a ``sweep.yaml``, or its content; docs/sweeps.md has the keys.
    output
        A folder, for ``sweep.parquet``, ``sweep.csv``, the plot, and ``points/``.
    workers
        How many processes run points on this machine.
    dask
        Address of the scheduler of a Dask cluster, whose workers run them instead.  Input files
        must have the same paths there.
    retry_failed
        Whether points that have failed run again.
    progress
        Called with a `Reached` at the start and for each point that ends.

    Raises
    ------
    InputError
        The specification is bad: says file, key, value and what is allowed.
    MissingDependency
        Optuna or Dask is needed and not installed.
    BackendError
        A process that runs points has died.

    Examples
    --------
    >>> import tempfile
    >>> import astra_bridge as ab
    >>> if __name__ == "__main__":
    ...     done = ab.sweep(
    ...         {
    ...             "experiment": {
    ...                 "workload": {"generator": "collective", "size": "1MiB"},
    ...                 "system": {"all-reduce-implementation": ["ring"]},
    ...                 "network": {"topology": ["Ring"], "npus_count": [4], "bandwidth": [50.0],
    ...                             "latency": [500.0]},
    ...             },
    ...             "vary": {"network.bandwidth[0]": [50, 100]},
    ...             "objectives": {"finish_ns": "min"},
    ...         },
    ...         tempfile.mkdtemp(),
    ...     )
    ...     assert done.front[0]["network.bandwidth[0]"] == 100
    """
    folder = check_path(output, "output")
    count = integer(1, 10_000)(workers, "workers")
    dask = optional(text)(dask, "dask")
    report = optional(function)(progress, "progress") or (lambda _: None)
    return _Driver(read_specification(specification), folder, retry_failed, report).run(count, dask)


class _Driver:
    """One sweep while it goes on."""

    def __init__(
        self,
        spec: Specification,
        folder: Path,
        retry_failed: bool,
        report: Callable[[Reached], object],
    ) -> None:
        self._spec, self._folder, self._report = spec, folder, report
        self._total = size_of(spec) + (0 if spec.ladder is None else spec.ladder.best)
        self._store = Store(folder, retry_failed)
        self._points: list[Point] = []
        self._rows: list[dict[str, Any]] = []
        self._stored = self._failed = 0
        self._began_s = time.monotonic()

    def run(self, count: int, dask: str | None) -> Sweep:
        self._merge_stored()
        search = search_of(self._spec)
        batch: Sequence[Values] | None = next(search)
        if self._spec.search != "optuna":  # of the others, all is known
            self._total += len(batch or ()) - size_of(self._spec)
        self._tell()
        with workers(count, dask) as (executor, at_a_time):
            while batch is not None:
                rows = self._all(self._spec.experiment, batch, executor, at_a_time)
                try:
                    batch = search.send(rows)
                except StopIteration:
                    batch = None
                self._write()
            ladder = self._spec.ladder
            if ladder is not None:
                dear = self._spec.experiment.replace(backend=ladder.backend)
                best = self._best(ladder.best)
                self._total += len(best) - ladder.best
                self._all(dear, best, executor, at_a_time)
        return self._write()

    def _merge_stored(self) -> None:
        """The table of what sweeps over these paths have left, before anything is read or run."""
        for kept in self._store.kept():
            if kept["values"].keys() == self._spec.vary.keys():
                self._rows.append(self._row(kept["values"], kept["backend"], kept))
        if self._rows:
            self._write()
            self._rows = []

    def _all(
        self,
        base: Any,
        batch: Sequence[Values],
        executor: Executor,
        at_a_time: Callable[[], int],
    ) -> list[dict[str, Any]]:
        """Rows of some points, each of which runs unless an equal one has."""
        points: list[Point] = []
        running: dict[Future[dict[str, Any]], Point] = {}
        under_way: set[str] = set()
        for values in batch:
            point = Point.of(base, values)
            points.append(point)
            if self._store.get(point.key) is not None or point.key in under_way:
                self._stored += 1
                self._ended(point)
            elif point.experiment is None:
                assert point.error is not None
                self._keep(point, failure(point.error))
            else:
                while len(running) >= _LEAD * max(at_a_time(), 1):
                    self._collect(running)
                running[executor.submit(run_point, point.experiment)] = point
                under_way.add(point.key)
        while running:
            self._collect(running)
        rows = []
        for point in points:
            found = self._store.get(point.key)
            assert found is not None
            rows.append(self._row(point.values, point.backend, found))
        self._rows += rows
        return rows

    def _collect(self, running: dict[Future[dict[str, Any]], Point]) -> None:
        """Wait until a run ends, and keep what came of all that have."""
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            point = running.pop(future)
            try:
                found = future.result()
            except BrokenProcessPool:
                raise BackendError(
                    "a process that ran points has died, perhaps for want of memory; the same "
                    "command goes on from the points that are stored"
                ) from None
            except Exception as error:  # such as Dask's of a worker that died several times
                found = failure(error)
            self._keep(point, found)

    def _keep(self, point: Point, found: dict[str, Any]) -> None:
        self._store.put(point, found)
        self._ended(point)

    def _ended(self, point: Point) -> None:
        self._points.append(point)
        found = self._store.get(point.key)
        self._failed += bool(found and found["error"])
        self._tell()

    def _reached(self) -> Reached:
        done = len(self._points)
        ran = done - self._stored
        each_s = (time.monotonic() - self._began_s) / max(ran, 1)
        left_s = each_s * (self._total - done) if ran else None
        return Reached(done, self._total, self._stored, self._failed, left_s)

    def _tell(self) -> None:
        self._report(self._reached())

    def _row(self, values: Values, backend: str, found: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the table; a number that the result lacks is an error where it is asked for."""
        numbers = {name: found.get(name) for name in NUMBERS}
        row = {**values, "backend": backend, **numbers, "error": found["error"]}
        asked = [*self._spec.objectives, *(one.number for one in self._spec.constraints)]
        lacking = [name for name in asked if row[name] is None]
        if lacking and not row["error"]:
            row["error"] = (
                f"InputError: the result has no {lacking[0]}; memory_gb needs track-local-mem in "
                "the system file"
            )
        row["exit_code"] = found.get("exit_code", 2) if row["error"] else 0
        return row

    def _best(self, count: int) -> list[Values]:
        rows = [row for row in self._rows if feasible(row, self._spec.constraints)]
        order = [index for front in fronts(rows, self._spec.objectives) for index in front]
        best: dict[str, Values] = {}
        for index in order:  # different ones
            values = {path: rows[index][path] for path in self._spec.vary if path != "backend"}
            best.setdefault(repr(values), values)
        return list(best.values())[:count]

    def _write(self) -> Sweep:
        """Rank the rows; write table and plot."""
        spec = self._spec
        for row in self._rows:
            row["feasible"] = feasible(row, spec.constraints)
            row["front"] = False
        objectives = spec.objectives or {"finish_ns": "min"}
        for backend in {row["backend"] for row in self._rows}:
            own = [row for row in self._rows if row["feasible"] and row["backend"] == backend]
            for index in next(iter(fronts(own, objectives)), []):
                own[index]["front"] = True
        code = 0 if any(not row["error"] for row in self._rows) else next(
            (row["exit_code"] for row in self._rows), 0
        )  # fmt: skip
        done = Sweep(self._rows, tuple(spec.vary), objectives, self._reached(), (), code)
        with NewFiles() as files:
            paths = save_table(files, self._folder / "sweep", done.table)
            paths += save_plot(files, self._rows, done.varied, list(objectives), self._folder)
        return Sweep(self._rows, done.varied, objectives, done.reached, tuple(paths), code)


def _column(values: list[Any]) -> Any:
    """Numbers where all are, else text; None where a row has none."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds == {bool} or kinds == {str}:
        if not kinds:
            return np.full(len(values), np.nan)
        column = np.empty(len(values), object)
        column[:] = values
        return column if None in values or kinds == {str} else np.array(values)
    column = np.empty(len(values), object)
    column[:] = [None if value is None else str(value) for value in values]
    return column
