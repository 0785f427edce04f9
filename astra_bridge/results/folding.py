# SPDX-License-Identifier: MIT
"""What a result says of folded ranks, and links of which one stands for many."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from astra_bridge.results.table import Table

__all__ = ["FoldedLinks", "Folding", "NamesOfEnds", "scaled"]

Digit = tuple[int, int]
Turned = Callable[
    [npt.NDArray[Any], npt.NDArray[Any]],
    tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
]
NamesOfEnds = Callable[[npt.NDArray[Any], npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]


class Folding:
    """Which ranks ran for which, or why all did.

    Attributes
    ----------
    digits : tuple of (stride, size)
        Ranks that differ in these digits of their numbers alone, ``rank // stride % size``, are
        alike; () where all ran.
    copies : int
        How many ranks one that ran stands for.
    reason : str
        Why no rank stands for another; "" where some do.
    asked : bool
        Whether it was tried: neither ``fold="off"`` nor a few ranks.

    Examples
    --------
    >>> folding = Folding(((1, 8),), 2)
    >>> folding.copies, folding.sentence()
    (8, '2 of 16 ranks ran, each for 8 that are alike')
    """

    def __init__(
        self, digits: tuple[Digit, ...] = (), ran: int = 0, reason: str = "", *, asked: bool = True
    ) -> None:
        self.digits, self.ran, self.reason, self.asked = digits, ran, reason, asked
        self.copies = math.prod(size for _, size in digits)

    def sentence(self) -> str:
        """What to say of it."""
        if self.reason:
            return f"no rank ran for others: {self.reason}"
        ranks = self.ran * self.copies
        return f"{self.ran:,} of {ranks:,} ranks ran, each for {self.copies:,} that are alike"

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        digits = [{"stride": stride, "size": size} for stride, size in self.digits]
        ran = {"ranks_run": self.ran} if self.digits else {}
        return {"folded": bool(self.digits), "digits": digits, **ran, "reason": self.reason}

    @cached_property
    def distances(self) -> npt.NDArray[np.int64]:
        """From a rank that ran to all that it stands for, ascending, shape (copies,)."""
        found = np.zeros(1, np.int64)
        for stride, size in self.digits:
            found = (np.arange(size) * stride)[:, None] + found[None, :]
            found = found.reshape(-1)
        return found


class FoldedLinks:
    """A table of links of which each stands for one per copy.

    Parameters
    ----------
    table : Table
        The links that stand for others, in ascending order; each is the first of those that it
        stands for.
    folding : Folding
    turned : callable
        As `Symmetry.turned`.
    names_of_ends : callable, optional
        Gives the columns ``src_name`` and ``dst_name`` of such links.
    ascending : bool
        Whether the numbers of links ascend with the distance that they are turned by.
    """

    def __init__(
        self,
        table: Table,
        folding: Folding,
        turned: Turned,
        names_of_ends: NamesOfEnds | None = None,
        *,
        ascending: bool = True,
    ) -> None:
        self._folding, self._turned = folding, turned
        self._names_of_ends, self._ascending = names_of_ends, ascending
        names = {} if names_of_ends is None else names_of_ends(table["src"], table["dst"])
        columns = {name: partial(table.__getitem__, name) for name in [*table.keys()]}
        self.table = Table("links", {**columns, **names}, len(table))

    def unfolded(self) -> Table:
        """All links, made column by column when they are asked for."""
        columns: dict[str, Any] = {
            "link": lambda: self._ends[0],
            "src": lambda: self._ends[1],
            "dst": lambda: self._ends[2],
        }
        for name in [*self.table.keys()]:
            columns.setdefault(name, self._column(name))
        if self._names_of_ends is not None:
            columns["src_name"] = lambda: self._names["src_name"]
            columns["dst_name"] = lambda: self._names["dst_name"]
        return Table("links", columns, len(self.table) * self._folding.copies)

    def _column(self, name: str) -> Callable[[], npt.NDArray[Any]]:
        return lambda: self.table[name][self._order // self._folding.copies]

    @cached_property
    def _all(self) -> tuple[npt.NDArray[Any], ...]:
        every = self._turned(self.table["link"], self._folding.distances)
        return tuple(one.reshape(-1) for one in every)

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return np.argsort(self._all[0], kind="stable")

    @cached_property
    def _ends(self) -> tuple[npt.NDArray[Any], ...]:
        return tuple(one[self._order] for one in self._all)

    @cached_property
    def _names(self) -> dict[str, npt.NDArray[Any]]:
        assert self._names_of_ends is not None
        return self._names_of_ends(self._ends[1], self._ends[2])

    def busiest(self, count: int) -> Table:
        """The links that were busy longest, those with the least number first among equals."""
        first = self._folding.distances
        if self._ascending:
            first = first[:count]
        numbers, src, dst = (one.reshape(-1) for one in self._turned(self.table["link"], first))
        of_link = np.repeat(np.arange(len(self.table)), len(first))
        best = np.lexsort((numbers, -self.table["busy_ps"][of_link]))[:count]
        columns: dict[str, Any] = {"link": numbers[best], "src": src[best], "dst": dst[best]}
        for name, values in self.table.items():
            columns.setdefault(name, values[of_link[best]])
        if self._names_of_ends is not None:
            columns |= self._names_of_ends(src[best], dst[best])
        return Table("links", columns)


def scaled(statistics: Mapping[str, Any], copies: int) -> dict[str, Any]:
    """What a network counts, of all ranks."""
    result = dict(statistics)
    for name in ("transfers", "bytes"):
        if name in result:
            result[name] *= copies
    if "quirks" in result:
        result["quirks"] = {name: count * copies for name, count in result["quirks"].items()}
    if "parts" in result:
        result["parts"] = [
            part | {"hops": part["hops"] * copies, "statistics": scaled(part["statistics"], copies)}
            for part in result["parts"]
        ]
    return result
