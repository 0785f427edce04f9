# SPDX-License-Identifier: MIT
"""In which order nodes of a custom collective are issued that become free at the same time.

ASTRA-sim keeps free nodes in a ``std::unordered_set`` and issues them as they come out of it.
Under contention that order decides the numbers, so it is followed here, as libstdc++ has it: the
hash of an id is the id, elements of a bucket stand together, and a new element goes to the front
of its bucket, or, where the bucket is empty, to the front of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["HashOrder", "hash_order"]

_BUCKETS = (
    0, 13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229, 172933, 351061,
    712697, 1447153, 2938679, 5967347, 12117689, 24607243, 49969847, 101473717, 206062531,
)  # fmt: skip
"""How the number of buckets grows: from each to the next, when the elements would exceed it."""

_FRONT = -1


class HashOrder:
    """A hash set that knows in which order it is walked.

    Parameters
    ----------
    buckets : int
        Buckets that an earlier use has left it with.
    """

    def __init__(self, buckets: int = 0) -> None:
        self.buckets = buckets
        self._next: dict[int, int | None] = {_FRONT: None}
        self._before: dict[int, int] = {}  # bucket -> element (or front) that stands before it

    def __iter__(self) -> Iterator[int]:
        at = self._next[_FRONT]
        while at is not None:
            yield at
            at = self._next[at]

    def insert(self, element: int) -> None:
        """Insert an element (not negative), unless it is there."""
        if element in self._next:
            return
        if len(self._next) > self.buckets:
            old = list(self)
            self.buckets = _BUCKETS[_BUCKETS.index(self.buckets) + 1]
            self._next, self._before = {_FRONT: None}, {}
            for moved in old:
                self._link(moved)
        self._link(element)

    def _link(self, element: int) -> None:
        bucket = element % self.buckets
        before = self._before.get(bucket)
        if before is None:
            following = self._next[_FRONT]
            if following is not None:
                self._before[following % self.buckets] = element
            self._before[bucket] = before = _FRONT
        self._next[element] = self._next[before]
        self._next[before] = element


def hash_order(ids: Sequence[int], buckets: int = 0) -> tuple[list[int], int]:
    """Order in which a hash set gives back these ids, inserted in this order.

    Returns
    -------
    order : list of int
        The ids.
    buckets : int
        Buckets of the set afterwards; they stay when it is emptied.
    """
    held = HashOrder(buckets)
    for one in ids:
        held.insert(one)
    return list(held), held.buckets
