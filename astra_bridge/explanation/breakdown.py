# SPDX-License-Identifier: MIT
"""Where the time of each rank went: what it did at every instant until it finished."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_of_those_that_run"]

Ints = NDArray[np.int64]

_AT_ONCE = 1 << 21
"""Intervals that are looked at together."""


def first_of_those_that_run(
    row: Ints, kind: Ints, start_ps: Ints, end_ps: Ints, rows: int, kinds: int
) -> Ints:
    """How long each kind is the first one of those that run, shape (rows, kinds).

    What nothing covers is counted nowhere.

    Parameters
    ----------
    row, kind, start_ps, end_ps : ndarray of int64, shape (intervals,)
        ``row`` ascends; of two kinds that run at once the smaller one counts.

    Examples
    --------
    >>> a = np.array
    >>> first_of_those_that_run(a([0, 0]), a([1, 0]), a([0, 5]), a([10, 20]), 1, 2).tolist()
    [[15, 5]]
    """
    total = np.zeros((rows, kinds), np.int64)
    for part in _parts(row):
        where, many = row[part], len(row[part])
        times = np.concatenate([start_ps[part], end_ps[part]])
        order = np.lexsort((times, np.concatenate([where, where])))
        at, here = times[order], np.concatenate([where, where])[order]
        change = np.where(order < many, 1, -1)
        of = np.concatenate([kind[part], kind[part]])[order]
        length = np.diff(at, append=at[-1:])
        length[np.append(np.diff(here) != 0, True)] = 0  # from one row to the next
        owner = np.full(len(at), -1, np.int64)
        for one in np.unique(of)[::-1].tolist():
            owner[np.cumsum(np.where(of == one, change, 0)) > 0] = one
        owned = (owner >= 0) & (length > 0)
        np.add.at(total, (here[owned], owner[owned]), length[owned])
    return total


def _parts(row: Ints) -> Iterator[slice]:
    """Slices of whole rows, not too long."""
    if not len(row):
        return
    bounds = np.append(np.flatnonzero(np.diff(row)) + 1, len(row))
    first = 0
    for last, after in zip(bounds.tolist(), [*bounds[1:].tolist(), None], strict=True):
        if after is None or after - first > _AT_ONCE:
            yield slice(first, last)
            first = last
