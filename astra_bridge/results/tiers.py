# SPDX-License-Identifier: MIT
"""Links by tier: what each tier of a fabric carried, in sum and over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from astra_bridge.results.table import Table

__all__ = ["link_name", "tier_load", "tiers_of"]

_SUMS = ("packets", "drops", "lost", "ecn_marks", "pauses_sent")
_OTHER = "other"


def link_name(links: Table, row: int) -> str:
    """What to call a link: the names of its ends, or their numbers.

    Examples
    --------
    >>> link_name(Table("links", {"src": [0], "dst": [8]}), 0)
    '0 -> 8'
    """
    ends = [links[f"{end}_name" if f"{end}_name" in links else end][row] for end in ("src", "dst")]
    return " -> ".join(map(str, ends))


def tiers_of(links: Table, counts: Mapping[str, int], end_ps: int, copies: int = 1) -> Table:
    """The table of tiers.

    Parameters
    ----------
    links
        The table "links"; its column ``tier`` says whose a link is.
    counts
        How many links each tier has; those that the table leaves out were idle.
    end_ps
        Shares are of the time until then [ps].
    copies
        How many links each row stands for, of which it is the first.

    Examples
    --------
    >>> columns = {"src": [0, 1], "dst": [2, 2], "bytes": [10, 30], "busy_ps": [1, 3]}
    >>> links = Table("links", columns | {"tier": ["gpu-leaf up"] * 2})
    >>> table = tiers_of(links, {"gpu-leaf up": 4}, 4)
    >>> [(name, values.tolist()[0]) for name, values in table.items()][:5]
    [('tier', 'gpu-leaf up'), ('links', 4), ('bytes', 40), ('busy_share', 0.25), ('max_busy_share', 0.75)]
    """  # noqa: E501
    tier = _Tiers(links, counts, copies)
    end = max(end_ps, 1)
    columns: dict[str, Any] = {
        "tier": tier.names,
        "links": tier.links,
        "bytes": tier.sums(links["bytes"]),
        "busy_share": tier.means(links["busy_ps"] / end),
    }
    busiest = tier.first_largest(links["busy_ps"])
    used = busiest >= 0
    columns["max_busy_share"] = np.where(
        used, links["busy_ps"][busiest] / end if len(links) else 0, 0.0
    )
    columns["busiest_link"] = [link_name(links, at) if at >= 0 else "" for at in busiest.tolist()]
    for name in _SUMS:
        if _has_whole(links, name):
            columns[name] = tier.sums(links[name])
    if _has_whole(links, "max_queue_bytes"):
        columns["max_queue_bytes"] = tier.largest(links["max_queue_bytes"])
    if _has_whole(links, "mean_queue_bytes"):
        columns["mean_queue_bytes"] = tier.means(links["mean_queue_bytes"])
    return Table("tiers", columns)


def tier_load(
    links: Table, load: Table, queues: Table | None, counts: Mapping[str, int], interval_ps: int
) -> Table:
    """The table of tiers over time; an interval in which a tier did nothing has no row.

    Parameters
    ----------
    links, counts
        As for `tiers_of`.
    load
        The table "link_load": per link and interval.
    queues
        The table "queues", whose samples are counted to the interval that they end.
    interval_ps
        The length of an interval.

    Examples
    --------
    >>> columns = {"link": [3, 4], "src": [0, 1], "dst": [2, 2], "bytes": [10, 30]}
    >>> links = Table("links", columns | {"busy_ps": [1, 3], "tier": ["up"] * 2})
    >>> rows = {"link": [3, 4], "time_ps": [100, 100], "bytes": [10, 30], "busy_ps": [50, 100]}
    >>> table = tier_load(links, Table("link_load", rows), None, {"up": 4}, 100)
    >>> [values.tolist()[0] for _, values in table.items()]
    ['up', 100, 40, 0.375, 1.0]
    """
    tier = _Tiers(links, counts)
    rows = [_Rows(tier.of(load["link"]), load["time_ps"] // interval_ps)]
    with_queues = queues is not None and all(
        _has_whole(queues, name) for name in ("link", "time_ps", "queue_bytes")
    )
    if with_queues:
        assert queues is not None
        ended = np.maximum(queues["time_ps"] - 1, 0) // interval_ps
        waiting = queues["queue_bytes"] > 0
        rows.append(_Rows(tier.of(queues["link"])[waiting], ended[waiting]))
    keys = np.unique(np.concatenate([one.keys for one in rows]))
    of_tier, interval = keys >> _SHIFT, keys & _MASK
    number = np.maximum(tier.links[of_tier], 1)
    at = np.searchsorted(keys, rows[0].keys)
    share = load["busy_ps"] / interval_ps
    columns: dict[str, Any] = {
        "tier": tier.names[of_tier],
        "time_ps": interval * interval_ps,
        "bytes": _sums(at, load["bytes"], len(keys)),
        "busy_share": _sums(at, share, len(keys)) / number,
        "max_busy_share": _largest(at, share, len(keys)),
    }
    if with_queues:
        assert queues is not None
        at = np.searchsorted(keys, rows[1].keys)
        size = queues["queue_bytes"][queues["queue_bytes"] > 0]
        columns["max_queue_bytes"] = _largest(at, size, len(keys))
        # Several samples may end in one interval, where intervals became longer.
        samples = _samples(queues, interval_ps, interval)
        columns["mean_queue_bytes"] = _sums(at, size, len(keys)) / number / samples
    return Table("tier_load", columns)


_SHIFT, _MASK = 48, (1 << 48) - 1


class _Rows:
    """Rows by tier and interval."""

    def __init__(self, tier: npt.NDArray[np.int64], interval: npt.NDArray[np.int64]) -> None:
        self.keys = (tier << _SHIFT) + np.clip(interval, 0, _MASK)


def _samples(
    queues: Table, interval_ps: int, interval: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """How many samples ended in each of some intervals; 1 where none did."""
    times = np.unique(queues["time_ps"])
    ended, counts = np.unique(np.maximum(times - 1, 0) // interval_ps, return_counts=True)
    if not len(ended):
        return np.ones(len(interval), np.int64)
    at = np.minimum(np.searchsorted(ended, interval), len(ended) - 1)
    return np.where(ended[at] == interval, counts[at], 1)


def _sums(at: npt.NDArray[Any], values: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    sums = np.zeros(rows, values.dtype)
    np.add.at(sums, at, values)
    return sums


def _largest(at: npt.NDArray[Any], values: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    largest = np.zeros(rows, values.dtype)
    np.maximum.at(largest, at, values)
    return largest


def _has_whole(table: Table, column: str) -> bool:
    """Whether a table, which may be of anybody's backend, has a column of whole numbers."""
    return column in table and table[column].dtype.kind in "iu"


class _Tiers:
    """The tiers of links, those first that the network has."""

    def __init__(self, links: Table, counts: Mapping[str, int], copies: int = 1) -> None:
        self._links, self._copies = links, copies
        tier = links["tier"] if "tier" in links else np.full(len(links), _OTHER)
        names = list(counts) or [_OTHER]
        self.row = np.full(len(links), -1, np.int64)
        for at, name in enumerate(names):
            self.row[tier == name] = at
        while (left := self.row < 0).any():
            name = str(tier[left][0])
            self.row[tier == name] = len(names)
            names.append(name)
        self.names = np.array(names, np.str_)
        listed = np.bincount(self.row, minlength=len(names)) * copies
        self.links = np.maximum(listed, [counts.get(name, 0) for name in names])

    def of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The tiers of links by their numbers; all are in the table."""
        count = max(len(self.row), 1)
        known = self._links["link"] if _has_whole(self._links, "link") else np.arange(count)
        order = np.argsort(known, kind="stable")
        at = np.minimum(np.searchsorted(known[order], numbers), len(known) - 1)
        return self.row[order[at]] if len(self.row) else np.zeros(len(numbers), np.int64)

    def sums(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return _sums(self.row, values, len(self.names)) * self._copies

    def means(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Over all links of a tier; those that the table leaves out count as 0."""
        return np.asarray(self.sums(values.astype(np.float64)) / np.maximum(self.links, 1))

    def largest(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return _largest(self.row, values, len(self.names))

    def first_largest(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Of each tier the first row with the largest value above 0; -1 where there is none."""
        first = np.full(len(self.names), -1, np.int64)
        order = np.lexsort((-np.arange(len(values)), values))
        first[self.row[order]] = order
        first[self.largest(values) <= 0] = -1
        return first
