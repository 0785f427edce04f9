# SPDX-License-Identifier: MIT
"""``sweep.yaml``: what is varied, how points are chosen, and what makes one better."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from astra_bridge.arguments import path as check_path
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import check_keys, convert, load_yaml
from astra_bridge.simulation import Experiment
from astra_bridge.simulation.file import arguments_of
from astra_bridge.text import nearest, show

__all__ = ["NUMBERS", "Constraint", "Ladder", "Range", "Specification", "read_specification"]

NUMBERS = (
    "finish_ns", "exposed_comm_ns", "memory_gb", "events", "cpu_s", "run_cpu_s", "wall_s",
)  # fmt: skip
"""What a run gives; objectives and constraints are of these, or of paths that are varied."""

_DEFAULT_POINTS = 100
_MOST_POINTS = 10_000_000
_MOST_STEPS = 1_000_000


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers from ``low`` to ``high``, both included.

    Attributes
    ----------
    low, high : int or float
        Whole numbers where both are, and ``step`` too.
    log : bool
        Whether each factor is as likely as any other.
    step : int or float or None
        Only ``low``, ``low + step``, ...
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return all(isinstance(one, int) for one in (self.low, self.high, self.step or 1))

    @property
    def steps(self) -> int:
        """How many numbers it has, where it has a step."""
        assert self.step is not None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1


class Constraint(NamedTuple):
    """A number that may not be larger, or smaller, than a limit."""

    number: str
    sign: str
    limit: float

    def excess(self, row: Mapping[str, Any]) -> float:
        """By how much a row breaks it; not above 0 where it does not."""
        apart = float(row[self.number]) - self.limit
        return apart if self.sign in ("<", "<=") else -apart

    def met(self, row: Mapping[str, Any]) -> bool:
        """Whether a row keeps to it."""
        return bool(_SIGNS[self.sign](float(row[self.number]), self.limit))


_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


class Ladder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The backend on which the best points run again, and how many."""

    backend: str
    best: Annotated[int, msgspec.Meta(ge=1)]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    experiment: str | dict[str, Any]
    vary: dict[str, Any]  # checked below: errors of msgspec do not name the key
    search: Literal["grid", "random", "list", "optuna"] = "grid"
    points: Annotated[int, msgspec.Meta(ge=1, le=_MOST_POINTS)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    batch: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    objectives: dict[str, Any] = {}
    constraints: list[str] = []
    ladder: Ladder | None = None


class Specification(NamedTuple):
    """What a sweep is to do.

    Attributes
    ----------
    experiment : Experiment
        What all points have in common.
    vary : dict
        Dotted path -> list of values, or `Range`.
    search : str
        "grid", "random", "list" or "optuna".
    points : int
        How many, of a random or an optimised search.
    seed : int
    batch : int
        How many points Optuna proposes before it is told what came of them.
    objectives : dict
        Number -> "min" or "max".
    constraints : tuple of Constraint
    ladder : Ladder or None
    """

    experiment: Experiment
    vary: dict[str, list[Any] | Range]
    search: str
    points: int
    seed: int
    batch: int
    objectives: dict[str, str]
    constraints: tuple[Constraint, ...]
    ladder: Ladder | None


def read_specification(given: str | Path | Mapping[str, Any]) -> Specification:
    """Read and check a specification, a file or its content; docs/sweeps.md has the keys.

    Raises
    ------
    InputError
        Says file, key, value and what is allowed.
    """
    file = None if isinstance(given, Mapping) else check_path(given, "specification")
    raw: Any = given if file is None else load_yaml(file)
    names = [field.name for field in msgspec.structs.fields(_File)]
    check_keys(raw, names, file=file)
    read = convert({key: raw[key] for key in names if key in raw}, _File, file=file)
    if not read.vary:
        raise InputError("nothing is varied", file=file, key="vary")
    vary = {path: _values(value, read.search, path, file) for path, value in read.vary.items()}
    if read.search == "list":
        lengths = {path: len(values) for path, values in vary.items() if isinstance(values, list)}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{path} has {length}" for path, length in lengths.items())
            raise InputError(f"lists of different lengths: {said}", file=file, key="vary")
    if read.points is not None and read.search in ("grid", "list"):
        raise InputError(
            f"search {read.search} says itself how many; allowed with: random, optuna",
            file=file, key="points",
        )  # fmt: skip
    if read.search == "optuna" and not read.objectives:
        raise InputError(
            f"search optuna needs one; allowed: {', '.join(NUMBERS)}, or a path of vary",
            file=file, key="objectives",
        )  # fmt: skip
    for number, way in read.objectives.items():
        _known(number, vary, "objectives", file)
        if way not in ("min", "max"):
            raise InputError(f"{show(way)} is not allowed; allowed: min, max",
                             file=file, key=f"objectives.{number}")  # fmt: skip
    constraints = tuple(
        _constraint(text, vary, f"constraints[{at}]", file)
        for at, text in enumerate(read.constraints)
    )
    if read.ladder is not None and not read.objectives:
        raise InputError("needs objectives, which say what is best", file=file, key="ladder")
    return Specification(
        _experiment(read.experiment, file), vary, read.search,
        _DEFAULT_POINTS if read.points is None else read.points,
        read.seed, read.batch, dict(read.objectives), constraints, read.ladder,
    )  # fmt: skip


def _experiment(given: str | dict[str, Any], file: Path | None) -> Experiment:
    if isinstance(given, str):
        return Experiment.from_file(given if file is None else file.parent / given)
    return Experiment(**arguments_of(given, file))


def _values(given: Any, search: str, path: str, file: Path | None) -> list[Any] | Range:
    key = f"vary.{path}"
    if isinstance(given, list):
        if not given:
            raise InputError("has no values", file=file, key=key)
        return given
    if not isinstance(given, dict):
        raise InputError(
            f"{show(given)} is not allowed; allowed: a list of values, or {{low, high}} with "
            "log or step",
            file=file, key=key,
        )  # fmt: skip
    one = convert(given, Range, file=file, where=key)
    numbers = [one.low, one.high] + ([] if one.step is None else [one.step])
    if not all(math.isfinite(number) for number in numbers):
        raise InputError("needs finite numbers", file=file, key=key)
    if one.low > one.high:
        raise InputError(f"low {one.low} is larger than high {one.high}", file=file, key=key)
    if one.log and (one.low <= 0 or one.step is not None):
        raise InputError("log is for low above 0, and without step", file=file, key=key)
    if one.step is not None and (one.step <= 0 or one.steps > _MOST_STEPS):
        raise InputError(
            f"step {one.step} is not allowed; allowed: above 0, for up to {_MOST_STEPS:,} values",
            file=file, key=key,
        )  # fmt: skip
    if search == "list" or (search == "grid" and one.step is None):
        allowed = "a list" if search == "list" else "a list, or low, high and step"
        raise InputError(f"is no list of values; search {search} allows {allowed}",
                         file=file, key=key)  # fmt: skip
    return one


def _known(number: str, vary: Mapping[str, Any], key: str, file: Path | None) -> None:
    if number not in NUMBERS and number not in vary:
        allowed = [*NUMBERS, *vary]
        raise InputError(
            f"a result has no {show(number)}{nearest(number, allowed)}; "
            f"allowed: {', '.join(allowed)}", file=file, key=key,
        )  # fmt: skip
    values = vary.get(number)
    if isinstance(values, list) and not all(
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in values
    ):
        raise InputError(f"values of {show(number)} are no numbers", file=file, key=key)


def _constraint(text: str, vary: Mapping[str, Any], key: str, file: Path | None) -> Constraint:
    found = re.fullmatch(r"\s*(\S+?)\s*(<=|>=|<|>)\s*(\S+)\s*", text)
    try:
        limit = float(found[3]) if found else math.nan
    except ValueError:
        limit = math.nan
    if found is None or not math.isfinite(limit):
        raise InputError(
            f"{show(text)} is not allowed; allowed: such as finish_ns <= 1e6", file=file, key=key
        )
    _known(found[1], vary, key, file)
    return Constraint(found[1], found[2], limit)
