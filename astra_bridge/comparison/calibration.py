# SPDX-License-Identifier: MIT
"""Parameters of a cheap model, fitted to runs of a dear one or to measurements."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.arguments import function, mapping_of, optional, refusal, text
from astra_bridge.arguments import path as check_path
from astra_bridge.comparison.comparison import Point
from astra_bridge.comparison.differences import finish_ns
from astra_bridge.comparison.runs import Step, compare, points_of
from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.inputs.common import read_text
from astra_bridge.records import defaults
from astra_bridge.simulation import Experiment
from astra_bridge.text import one_line, show

__all__ = ["Calibration", "Parameter", "calibrate"]

_SCANNED = 24
"""Combinations of values, for each parameter, among which the fit looks for where to start."""
_STEP = 0.01
"""Step of the derivative, as a share of the range: times are whole ns, so it cannot be tiny."""
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z/]*)\s*")


class Parameter(NamedTuple):
    """What is fitted: the value at a path, within bounds.

    Attributes
    ----------
    path : str
    low, high : float
    unit : str
        Behind the number, where the file wants one ("400Gbps"); "" is a plain number.
    whole : bool
        Whether it must be a whole number.
    """

    path: str
    low: float
    high: float
    unit: str = ""
    whole: bool = False

    @property
    def step(self) -> float:
        """Step of the derivative: where values are whole, to the next one or further."""
        if not self.whole:
            return _STEP
        if self.low > 0:
            return min(max(_STEP, math.log1p(1 / self.low) / math.log(self.high / self.low)), 0.5)
        return min(max(_STEP, 1 / (self.high - self.low)), 0.5)

    def value(self, place: float) -> Any:
        """The value at a place from 0 to 1 of the range: by ratio where the bounds allow it."""
        if self.low > 0:
            number = self.low * (self.high / self.low) ** place
        else:
            number = self.low + (self.high - self.low) * place
        number = float(round(number)) if self.whole else float(f"{number:.6g}")
        number = min(max(number, self.low), self.high)
        plain = int(number) if self.whole or number.is_integer() else number
        return f"{plain}{self.unit}" if self.unit else plain


class Quality(NamedTuple):
    """How far a model is off on some points.

    Attributes
    ----------
    mean, worst : float
        Of max(model, target) / min(model, target) - 1: the geometric mean, and the largest.
    """

    mean: float
    worst: float

    def __str__(self) -> str:
        return f"{self.mean:.1%} (worst {self.worst:.1%})"


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a fit gave.

    Attributes
    ----------
    values : dict
        Path -> fitted value.
    experiment : Experiment
        With these values.
    target : str
        What it was fitted to.
    rows : list of dict
        A point: the values of what is varied, ``used`` (False: held out), ``target_ns``,
        ``before_ns`` and ``after_ns``.
    before, after : Quality
        Errors on the points that were not used.
    fit_before, fit_after : Quality
        Errors on those that were.
    """

    values: dict[str, Any]
    experiment: Experiment
    target: str
    rows: list[dict[str, Any]]
    before: Quality
    after: Quality
    fit_before: Quality
    fit_after: Quality

    @property
    def varied(self) -> tuple[str, ...]:
        """The paths of what is varied."""
        return tuple(name for name in self.rows[0] if name not in _OWN)

    def save(self, file: str | Path) -> None:
        """Write the experiment as an ``experiment.yaml`` that says what it was fitted to.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        from astra_bridge.files import write_file

        place = check_path(file, "file")
        write_file(place, self.text(place.parent).encode())

    def text(self, folder: Path) -> str:
        """The content of that file, were it in a folder."""
        import yaml

        class Dumper(yaml.SafeDumper):
            """Text of several lines as such."""

        def several(dumper: Any, value: str) -> Any:
            style = "|" if "\n" in value else None
            return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

        Dumper.add_representer(str, several)
        used = sum(row["used"] for row in self.rows)
        comments = [
            f"{self.experiment.backend} fitted to {self.target}:",
            *(f"  {path} = {value}" for path, value in self.values.items()),
            f"on {used} of {len(self.rows)} points of {', '.join(self.varied)}.",
            f"Error of the finish on the other {len(self.rows) - used}, which were not used: "
            f"{self.before} before, {self.after} after.",
        ]
        said = "".join(f"# {one_line(line, 200)}\n" for line in comments)
        content = yaml.dump(
            _content(self.experiment, folder), Dumper=Dumper, sort_keys=False, allow_unicode=True
        )
        return said + str(content)


_OWN = ("used", "target_ns", "before_ns", "after_ns")


def _content(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """An experiment with the keys of its file."""
    found: dict[str, Any] = {}
    for name, default in defaults(type(experiment)).items():
        value = getattr(experiment, name)
        if name in ("workload", "system", "network", "backend") or (value and value != default):
            found[name] = _plain(name, value, folder)
    return found


def _plain(name: str, value: Any, folder: Path) -> Any:
    named = name in ("workload", "system", "network", "remote_memory", "comm_groups")
    if isinstance(value, Path) or (named and isinstance(value, str)):
        import os

        return os.path.relpath(value, folder)
    if isinstance(value, Mapping):
        return {str(key): _plain("", one, folder) for key, one in value.items()}
    if isinstance(value, (list, tuple)) and name not in ("jobs", "faults"):
        return [_plain("", one, folder) for one in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    raise InputError(f"{type(value).__name__} cannot stand in a file", key=name)


def calibrate(
    experiment: Experiment | str | Path,
    fit: Mapping[str, tuple[Any, Any]],
    to: str | Path,
    vary: Mapping[str, Sequence[Any]] | None = None,
    *,
    options: Mapping[str, Mapping[str, str]] | None = None,
    progress: Callable[[Step], object] | None = None,
) -> Calibration:
    """Fit parameters of an experiment's backend to another backend, or to measurements.

    Least squares of the logarithm of finish over target, within the bounds; every second point is
    not used but held out, to tell how good the fit is.

    Parameters
    ----------
    experiment
        An experiment, or the path of an ``experiment.yaml``; its backend is the one that is fitted.
    fit
        Dotted path -> lowest and highest value: numbers, or texts with the same unit
        ("100Gbps", "400Gbps").
    to
        Another backend; or the path of a CSV file whose columns are dotted paths and ``finish_ns``.
    vary
        Dotted path -> values, for a backend; all combinations are points.
    options
        ``{to: {...}}``: options of the other backend's network.
    progress
        Called with a `Step` before, during and after each run of the other backend.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        A path leads nowhere, bounds are none, there are fewer than two points, or the table is
        none.
    MissingDependency
        SciPy is not installed.
    NetworkError, StalledError
        A run failed.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise MissingDependency(
            "calibration needs SciPy: pip install 'astra-bridge[calibrate]'"
        ) from None
    if isinstance(experiment, (str, Path)):
        experiment = Experiment.from_file(experiment)
    progress = optional(function)(progress, "progress")
    bounds = mapping_of(text, _bounds)(fit, "fit")
    if not bounds:
        raise InputError("names nothing; give a path and its bounds: PATH=LOW:HIGH", key="fit")
    _content(experiment, Path())  # whether it can be written, before what takes long
    is_table = str(to).endswith(".csv")
    if is_table:
        if vary:
            raise InputError("is not needed: the table has the points", key="vary")
        points, target = _measured(experiment, check_path(to, "to"))
    else:
        points = points_of(experiment, vary)
        _enough(points, "vary")
    wanted = [_parameter(points[0].experiment, *one) for one in bounds.items()]
    if not is_table:
        target = _simulated(experiment, str(to), vary, options, progress)

    def model(places: Sequence[float], some: Sequence[int]) -> NDArray[np.float64]:
        values = {one.path: one.value(at) for one, at in zip(wanted, places, strict=True)}
        return _finish([points[at].experiment.replace(values) for at in some])

    used, held = range(0, len(points), 2), range(1, len(points), 2)

    def off(places: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(model(places.tolist(), used) / target[used])

    def slope(places: NDArray[np.float64]) -> NDArray[np.float64]:
        here = off(places)
        columns = []
        for at, one in enumerate(wanted):
            step = one.step if places[at] + one.step <= 1 else -one.step
            there = places.copy()
            there[at] += step
            columns.append((off(there) - here) / step)
        return np.stack(columns, axis=1)

    start = _start(len(wanted), lambda places: float((off(places) ** 2).sum()))
    best = least_squares(off, start, jac=slope, bounds=(0, 1), x_scale=1.0, xtol=1e-4)
    found = best.x if (best.fun**2).sum() <= (off(start) ** 2).sum() else start
    values = {one.path: one.value(at) for one, at in zip(wanted, found.tolist(), strict=True)}
    before = _finish([point.experiment for point in points])
    after = _finish([point.experiment.replace(values) for point in points])
    rows = [
        {**point.values, "used": at % 2 == 0, "target_ns": int(target[at]),
         "before_ns": int(before[at]), "after_ns": int(after[at])}
        for at, point in enumerate(points)
    ]  # fmt: skip
    return Calibration(
        values,
        experiment.replace(values),
        str(to),
        rows,
        *(_quality(run[some], target[some]) for some in (held, used) for run in (before, after)),
    )


def _finish(experiments: Sequence[Experiment]) -> NDArray[np.float64]:
    """When each ends [ns]."""
    ends = [finish_ns(one.run(record_nodes=False).finish_ps) for one in experiments]
    return np.maximum(np.array(ends, np.float64), 1)


def _quality(model: NDArray[np.float64], target: NDArray[np.float64]) -> Quality:
    apart = np.abs(np.log(model / target))
    return Quality(math.expm1(float(apart.mean())), math.expm1(float(apart.max())))


def _start(count: int, cost: Callable[[NDArray[np.float64]], float]) -> NDArray[np.float64]:
    """The best of some places that fill the ranges evenly (a Halton sequence)."""
    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    places = np.array([
        [_halton(at + 1, primes[axis % len(primes)]) for axis in range(count)]
        for at in range(_SCANNED * count)
    ])  # fmt: skip
    costs = [cost(place) for place in places]
    best: NDArray[np.float64] = places[int(np.argmin(costs))]
    return best


def _halton(index: int, base: int) -> float:
    """The digits of a number behind the point, in reverse."""
    value, share = 0.0, 1.0
    while index:
        share /= base
        index, digit = divmod(index, base)
        value += digit * share
    return value


def _simulated(
    experiment: Experiment,
    name: str,
    vary: Mapping[str, Sequence[Any]] | None,
    options: Mapping[str, Mapping[str, str]] | None,
    progress: Callable[[Step], object] | None,
) -> NDArray[np.float64]:
    found = compare(
        experiment, [name], reference=name, vary=vary, options=options, progress=progress
    )
    if found.failures:
        raise found.failures[0]
    return np.maximum(np.array([row["finish_ns"] for row in found.rows], np.float64), 1)


def _measured(experiment: Experiment, file: Path) -> tuple[list[Point], NDArray[np.float64]]:
    """The points of a table, and when each ended."""
    import yaml

    rows = list(csv.reader(io.StringIO(read_text(file))))
    names = [name.strip() for name in rows[0]] if rows else []
    if "finish_ns" not in names or len(set(names)) < len(names) or len(names) < 2:
        raise InputError(
            "is no table of measurements: its first line has the paths of what is varied, and "
            "finish_ns", file=file,
        )  # fmt: skip
    points, target = [], []
    for number, cells in enumerate(rows[1:], 2):
        if not any(cells):
            continue
        if len(cells) != len(names):
            raise InputError(f"has {len(cells)} cells, not {len(names)}", file=file,
                             key=f"line {number}")  # fmt: skip
        try:
            values = {n: yaml.safe_load(cell) for n, cell in zip(names, cells, strict=True)}
        except yaml.YAMLError as error:
            raise InputError(one_line(str(error)), file=file, key=f"line {number}") from None
        finish = values.pop("finish_ns")
        if not isinstance(finish, (int, float)) or not 0 < finish < math.inf:
            raise InputError(f"{show(finish)} is not allowed; allowed: numbers above 0", file=file,
                             key=f"line {number}: finish_ns")  # fmt: skip
        points.append(Point(values, experiment.replace(values)))
        target.append(finish)
    _enough(points, str(file))
    return points, np.array(target, np.float64)


def _enough(points: Sequence[Point], where: str) -> None:
    if len(points) < 2:
        raise InputError(
            "gives fewer than two points; every second one is held out, to tell how good the fit "
            "is", key=where,
        )  # fmt: skip


def _bounds(value: Any, name: str) -> tuple[float, float, str]:
    """Two bounds, and their unit."""
    found = [_NUMBER.fullmatch(str(one)) for one in value] if _is_pair(value) else [None]
    matches = [one for one in found if one is not None]
    if len(matches) == 2 and matches[0][2] == matches[1][2]:
        low, high = (float(one[1]) for one in matches)
        if -math.inf < low < high < math.inf:
            return low, high, matches[0][2]
    raise refusal(value, name, "two numbers of the same unit, the lower one first")


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def _parameter(experiment: Experiment, path: str, bounds: tuple[float, float, str]) -> Parameter:
    """What is fitted; whole where its reader takes whole numbers only."""
    one = Parameter(path, *bounds)
    try:
        _try(experiment, one)
    except InputError:
        if one.unit:
            raise
        one = one._replace(whole=True)
        _try(experiment, one)
    return one


def _try(experiment: Experiment, one: Parameter) -> None:
    """Run with a value that has a fraction, if it may have one."""
    experiment.replace({one.path: one.value(0.4871)}).run(record_nodes=False)
