# SPDX-License-Identifier: MIT
"""Which points are best: by one objective, or those that no other one beats in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astra_bridge.sweeping.specification import Constraint

__all__ = ["fronts", "feasible"]

Row = Mapping[str, Any]


def feasible(row: Row, constraints: Sequence[Constraint]) -> bool:
    """Whether a row has run and keeps to all constraints."""
    return not row["error"] and all(one.met(row) for one in constraints)


def fronts(rows: Sequence[Row], objectives: Mapping[str, str]) -> list[list[int]]:
    """Pareto fronts, the best first: indices of rows in the order of their first objective.

    A row of a front is beaten (nowhere worse, somewhere better) only by rows of earlier fronts.

    Examples
    --------
    >>> rows = [{"a": 1, "b": 9}, {"a": 2, "b": 3}, {"a": 3, "b": 3}]
    >>> fronts(rows, {"a": "min", "b": "min"}), fronts(rows, {"a": "max"})
    ([[0, 1], [2]], [[2], [1], [0]])
    """
    signs = {name: 1.0 if way == "min" else -1.0 for name, way in objectives.items()}
    scores = [tuple(sign * float(row[name]) for name, sign in signs.items()) for row in rows]
    # Who beats another one stands before it.
    order = sorted(range(len(rows)), key=scores.__getitem__)
    found: list[list[int]] = []
    for index in order:
        for front in found:
            if not any(_beats(scores[other], scores[index]) for other in front):
                front.append(index)
                break
        else:
            found.append([index])
    return found


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
