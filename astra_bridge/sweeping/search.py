# SPDX-License-Identifier: MIT
"""Which points run: all combinations, a list, some at random, or those that Optuna proposes.

A search is a generator of batches: it yields lists of points and is sent, for each batch, the rows
that came of it.  It depends on nothing else, so that a sweep that is started again asks for the
same points.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Generator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.sweeping.specification import Range, Specification

__all__ = ["Search", "Values", "search_of", "size_of"]

Values = dict[str, Any]
"""Dotted path -> value."""

Search = Generator[Sequence[Values], Sequence[Mapping[str, Any]], None]

_MOST_GRID = 10_000_000
_TRIES = 100


def size_of(spec: Specification) -> int:
    """How many points a search has at most."""
    if spec.search == "list":
        return len(next(iter(spec.vary.values())))  # type: ignore[arg-type]
    if spec.search != "grid":
        return spec.points
    size = 1
    for values in spec.vary.values():
        size *= values.steps if isinstance(values, Range) else len(values)
    if size > _MOST_GRID:
        raise InputError(f"{size:,} points; allowed: up to {_MOST_GRID:,}", key="vary")
    return size


def search_of(spec: Specification) -> Search:
    """The search that a specification names."""
    return {"grid": _grid, "list": _list, "random": _random, "optuna": _optuna}[spec.search](spec)


def _all(values: list[Any] | Range) -> list[Any]:
    if isinstance(values, list):
        return values
    return [_at(values, index) for index in range(values.steps)]


def _at(values: Range, index: int) -> int | float:
    assert values.step is not None
    return values.low + index * values.step


def _grid(spec: Specification) -> Search:
    lists = [_all(values) for values in spec.vary.values()]
    yield [dict(zip(spec.vary, one, strict=True)) for one in itertools.product(*lists)]


def _list(spec: Specification) -> Search:
    lists = [_all(values) for values in spec.vary.values()]
    yield [dict(zip(spec.vary, one, strict=True)) for one in zip(*lists, strict=True)]


def _random(spec: Specification) -> Search:
    """Different ones, as many as there are."""
    random = np.random.default_rng(spec.seed)
    found: dict[str, Values] = {}
    for _ in range(spec.points * _TRIES):
        one = {path: _drawn(values, random) for path, values in spec.vary.items()}
        found.setdefault(json.dumps(one, default=str), one)
        if len(found) == spec.points:
            break
    yield list(found.values())


def _drawn(values: list[Any] | Range, random: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[int(random.integers(len(values)))]
    if values.step is not None:
        return _at(values, int(random.integers(values.steps)))
    if values.log:
        low, high = np.log(float(values.low)), np.log(float(values.high))
        drawn = float(np.exp(random.uniform(low, high)))
        drawn = min(max(drawn, values.low), values.high)
        return round(drawn) if values.whole else drawn
    if values.whole:
        return int(random.integers(int(values.low), int(values.high), endpoint=True))
    return float(random.uniform(values.low, values.high))


def _optuna(spec: Specification) -> Search:
    """Batches of a fixed size, so that the same ones are proposed for any number of workers."""
    try:
        optuna: Any = import_module("optuna")
    except ImportError:
        raise MissingDependency(
            "search optuna needs optuna: pip install 'astra-bridge[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def excess(trial: Any) -> Sequence[float]:
        return trial.user_attrs.get("excess") or [0.0] * len(spec.constraints)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental in Optuna
        sampler = optuna.samplers.TPESampler(
            seed=spec.seed, constraints_func=excess if spec.constraints else None
        )
        directions = [f"{one}imize" for one in spec.objectives.values()]
        study = optuna.create_study(sampler=sampler, directions=directions)
        left = spec.points
        while left:
            trials = [study.ask() for _ in range(min(spec.batch, left))]
            left -= len(trials)
            rows = yield [
                {path: _suggested(trial, path, one) for path, one in spec.vary.items()}
                for trial in trials
            ]
            for trial, row in zip(trials, rows, strict=True):
                if row["error"]:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    continue
                if spec.constraints:
                    trial.set_user_attr("excess", [one.excess(row) for one in spec.constraints])
                study.tell(trial, [float(row[name]) for name in spec.objectives])


def _suggested(trial: Any, path: str, values: list[Any] | Range) -> Any:
    if isinstance(values, list):  # by number: Optuna allows no lists or mappings as values
        return values[trial.suggest_categorical(path, list(range(len(values))))]
    if values.whole:
        return trial.suggest_int(
            path, values.low, values.high, step=values.step or 1, log=values.log
        )
    return trial.suggest_float(
        path, float(values.low), float(values.high), step=values.step, log=values.log
    )
