# SPDX-License-Identifier: MIT
"""The same experiments on several backends, and how far these are apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from astra_bridge.arguments import (
    choice,
    function,
    list_of,
    mapping_of,
    number,
    optional,
    refusal,
    text,
)
from astra_bridge.comparison.comparison import Comparison, Point, Run, comparison_of
from astra_bridge.comparison.measured import Shape, measure, shape_of
from astra_bridge.engine import ENGINES, EngineName, Progress
from astra_bridge.errors import AstraBridgeError, InputError
from astra_bridge.simulation import Experiment
from astra_bridge.supervision import NO_PROGRESS_TIMEOUT_S

__all__ = ["TOLERANCE", "Step", "compare", "on_backend", "points_of"]

TOLERANCE = 0.05
"""Ends of a node that differ by more, relative to the reference's, are a parting place."""


class Step(NamedTuple):
    """How far a comparison has come.

    Attributes
    ----------
    number, total : int
        The run, counted from 1, and how many there are.
    backend : str
    values : dict
        Of what is varied.
    reached : Progress or None
        Of the run that goes on.
    run : Run or None
        Once it has ended.
    """

    number: int
    total: int
    backend: str
    values: dict[str, Any]
    reached: Progress | None = None
    run: Run | None = None

    def __str__(self) -> str:
        where = "".join(f", {path}={value}" for path, value in self.values.items())
        return f"{self.number}/{self.total} {self.backend}{where}"


def points_of(experiment: Experiment, vary: Mapping[str, Sequence[Any]] | None) -> list[Point]:
    """The product of all values, the last path fastest.

    Raises
    ------
    InputError
        A path leads nowhere, has no values, or is the backend.
    """
    vary = mapping_of(text, _values)(vary or {}, "vary")
    if "backend" in vary:
        raise InputError("name backends with --backends", key="vary: backend")
    combined = [
        dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())
    ]
    return [Point(values, experiment.replace(values)) for values in combined]


def _values(value: Any, name: str) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
        raise refusal(value, name, "a list of values")
    values = tuple(value)
    if not values:
        raise refusal(values, name, "at least one value")
    return values


def compare(
    experiment: Experiment | str | Path,
    backends: Sequence[str],
    *,
    reference: str | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    options: Mapping[str, Mapping[str, str]] | None = None,
    tolerance: float = TOLERANCE,
    engine: EngineName = "auto",
    progress: Callable[[Step], object] | None = None,
    no_progress_timeout_s: float = NO_PROGRESS_TIMEOUT_S,
) -> Comparison:
    """Run the same experiments on several backends, and say how far these are apart.

    Each run is a process of its own, one after the other, so that CPU time and memory are its own.
    A backend that fails or is missing is a row that says why.

    Parameters
    ----------
    experiment
        An experiment, or the path of an ``experiment.yaml``.
    backends
        Names, or paths of libraries.
    reference
        The backend that errors are relative to; it runs too where ``backends`` does not name it.
        None: the one that took most CPU time in sum.
    vary
        Dotted path -> values; all combinations run.
    options
        Backend -> options of its network, besides those of the experiment.
    tolerance
        By how much the end of a node must differ, relative to the reference's, for two runs to
        part there.
    engine, no_progress_timeout_s
        As in `Experiment.run`.
    progress
        Called with a `Step` before, during and after each run.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        A path leads nowhere, or an argument is of a wrong kind.

    Examples
    --------
    >>> import astra_bridge as ab
    >>> experiment = ab.Experiment(
    ...     {"generator": "collective", "size": "1MiB"},
    ...     {"all-reduce-implementation": ["ring"]},
    ...     {"topology": ["Ring"], "npus_count": [4], "bandwidth": [50.0], "latency": [500.0]},
    ... )
    >>> found = ab.compare(
    ...     experiment, ["analytical-unaware", "analytical-aware"], reference="analytical-aware",
    ...     vary={"workload.size": ["64KiB", "1MiB"]},
    ... )
    >>> len(found.rows), [row["error"] for row in found.rows]
    (4, [0.0, 0.0, 0.0, 0.0])
    """
    if isinstance(experiment, (str, Path)):
        experiment = Experiment.from_file(experiment)
    names = list(list_of(text)(backends, "backends"))
    reference = optional(text)(reference, "reference")
    options = mapping_of(text, mapping_of(text, text))(options or {}, "options")
    tolerance = number(0, 1e9)(tolerance, "tolerance")
    timeout_s = number(0, 1e9)(no_progress_timeout_s, "no_progress_timeout_s")
    report = optional(function)(progress, "progress") or (lambda _: None)
    choice(*ENGINES)(engine, "engine")
    if not names:
        raise InputError("none is given", key="backends")
    if reference is not None and reference not in names:
        names.append(reference)
    for name in options:
        if name not in names:
            raise InputError(f"is none of {', '.join(names)}", key=f"options: {name}")
    points = points_of(experiment, vary)

    shapes: dict[int, Shape] = {}  # of each point: its traces are read for one backend, not for all

    def run(number: int, at: int, name: str) -> Run:
        step = Step(number, len(points) * len(names), name, points[at].values)
        report(step)
        one = on_backend(points[at].experiment, name, options.get(name, {}))
        kept = one.replace()  # without what it has read
        try:
            if at not in shapes:
                shapes[at] = shape_of(one)
            done = Run(name, kept, measure(
                one, shapes[at], engine=engine, no_progress_timeout_s=timeout_s,
                progress=lambda reached: report(step._replace(reached=reached)),
            ))  # fmt: skip
        except AstraBridgeError as error:
            done = Run(name, kept, None, error)
        except MemoryError:
            done = Run(name, kept, None, AstraBridgeError("no memory"))
        report(step._replace(run=done))
        return done

    counter = itertools.count(1)
    runs = [[run(next(counter), at, name) for name in names] for at in range(len(points))]
    return comparison_of(points, runs, reference, tolerance)


def on_backend(experiment: Experiment, name: str, options: Mapping[str, str]) -> Experiment:
    """The experiment on another backend."""
    return experiment.replace(
        backend=name, network_options={**experiment.network_options, **options}
    )
