# SPDX-License-Identifier: MIT
"""What links carry over time, interval by interval: the twin of ``csrc/include/astra_load.hpp``."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

from astra_bridge.network.analytical.topologies import refuse
from astra_bridge.units import PS_PER_US

__all__ = ["LinkLoad", "sample_interval_ps"]

_MOST_US = 1e9
_MOST_ROWS = 1 << 20


def sample_interval_ps(options: Mapping[str, str]) -> int:
    """The option ``sample_interval_us`` in ps; 0 is off."""
    given = options.get("sample_interval_us", "0")
    try:
        interval_us = float(given)
    except ValueError:
        interval_us = -1.0
    if not 0 <= interval_us <= _MOST_US:
        raise refuse(
            f"option 'sample_interval_us' is '{given}', but must be a number from 0 to {_MOST_US:f}"
        )
    return math.ceil(interval_us * PS_PER_US)


class LinkLoad:
    """Bytes and busy time of links per interval; intervals begin at multiples of their length.

    Parameters
    ----------
    interval_ps
        0: nothing is recorded.
    most_rows
        So many are kept at most: beyond, intervals become twice as long.

    Examples
    --------
    >>> load = LinkLoad(1000)
    >>> load.add(7, 500, 1500, 100, 1000)
    >>> load.statistics([7])["tables"]["link_load"]["bytes"]
    [50, 50]
    """

    __slots__ = ("_bins", "_most_rows", "_rows", "interval_ps")

    def __init__(self, interval_ps: int, most_rows: int = _MOST_ROWS) -> None:
        self.interval_ps = interval_ps
        self._most_rows, self._rows = most_rows, 0
        # Per link: number of the interval, bytes, busy time [ps], ascending.
        self._bins: dict[int, list[tuple[int, float, float]]] = {}

    def add(self, link: int, begin_ps: int, end_ps: int, size: int, busy_ps: int) -> None:
        """Count what a link does in some time, in each interval by the share of that time."""
        bins = self._bins.setdefault(link, [])
        until_ps = end_ps - 1 if end_ps > begin_ps else begin_ps
        while (
            self._rows + (until_ps - begin_ps) // self.interval_ps > self._most_rows
            and self.interval_ps < 1 << 60
        ):
            self._lengthen()
            bins = self._bins[link]
        before = len(bins)
        first, last = begin_ps // self.interval_ps, until_ps // self.interval_ps
        at = bisect_left(bins, (first,))
        later = bins[at:]
        del bins[at:]
        for number in range(first, last + 1):
            size_before, busy_before = 0.0, 0.0
            if later and later[0][0] == number:
                _, size_before, busy_before = later.pop(0)
            share = 1.0
            if first != last:
                begin = max(begin_ps, number * self.interval_ps)
                end = (number + 1) * self.interval_ps if number < last else end_ps
                share = (end - begin) / (end_ps - begin_ps)
            bins.append((number, size_before + size * share, busy_before + busy_ps * share))
        bins += later
        self._rows += len(bins) - before

    def _lengthen(self) -> None:
        self.interval_ps *= 2
        self._rows = 0
        for link, bins in self._bins.items():
            merged: list[tuple[int, float, float]] = []
            for number, size, busy_ps in bins:
                if merged and merged[-1][0] == number // 2:
                    _, size_before, busy_before = merged.pop()
                    size, busy_ps = size_before + size, busy_before + busy_ps
                merged.append((number // 2, size, busy_ps))
            self._bins[link] = merged
            self._rows += len(merged)

    def statistics(self, links: Iterable[int]) -> dict[str, Any]:
        """What it adds to statistics: the interval, and the table of these links."""
        if not self.interval_ps:
            return {}
        table: dict[str, list[int]] = {"link": [], "time_ps": [], "bytes": [], "busy_ps": []}
        for link in links:
            size_sum = busy_sum = 0.0
            for number, size, busy_ps in self._bins.get(link, []):
                table["link"].append(link)
                table["time_ps"].append(number * self.interval_ps)
                table["bytes"].append(_whole(size_sum + size) - _whole(size_sum))
                table["busy_ps"].append(_whole(busy_sum + busy_ps) - _whole(busy_sum))
                size_sum, busy_sum = size_sum + size, busy_sum + busy_ps
        return {"sample_interval_ps": self.interval_ps, "tables": {"link_load": table}}


def _whole(value: float) -> int:
    return math.floor(value + 0.5)
