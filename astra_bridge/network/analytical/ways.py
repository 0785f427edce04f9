# SPDX-License-Identifier: MIT
"""What transfers take that meet nobody, in a network of dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.network.analytical.topologies import Dimensions, has_quirk
from astra_bridge.network.api import NetworkConfig
from astra_bridge.network.spec import Hops
from astra_bridge.units import PS_PER_NS

__all__ = ["AwareWays", "UnawareWays"]

_MOST_NS = 9.2e15
"""As in the models: no time is longer."""
_MOST_HOPS = 64
"""Beyond that the arrays are large, and a way round a ring meets others anyway."""

Array = NDArray[Any]


class _Ways:
    """Of both models.

    Parameters
    ----------
    config : NetworkConfig
        Its options name dimensions.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self._first_only = has_quirk(config, "first-dimension-only")
        self._network = Dimensions(config.options, config.endpoints, self._first_only)

    def _digits(self, src: Array, dst: Array) -> list[tuple[Array, Array]]:
        """Per dimension, the digits of both."""
        return [
            (src // one.stride % one.size, dst // one.stride % one.size)
            for one in self._network.dimensions
        ]


class UnawareWays(_Ways):
    """No transfer meets another: all is one hop.

    Examples
    --------
    >>> ring = {"topology": "Ring", "npus_count": "4", "bandwidth": "1", "latency": "5"}
    >>> ways = UnawareWays(NetworkConfig(4, 4, options=ring))
    >>> ways.hops(np.array([0, 1]), np.array([2, 2]), 1000).takes_ps.tolist()
    [[941000, 936000]]
    """

    meets = False

    def _costs(self, src: Array, dst: Array, first_only: bool) -> tuple[Array, Array]:
        """Latency [ns] and bandwidth [bytes per ns], in the order in which the model adds up."""
        latency_ns, bytes_per_ns = np.zeros(len(src)), np.full(len(src), np.inf)
        pays = np.ones(len(src), bool)
        for one, (here, there) in zip(
            self._network.dimensions, self._digits(src, dst), strict=True
        ):
            counts = pays & (here != there)
            ahead = (there - here) % one.size
            hops = np.minimum(ahead, one.size - ahead) if one.kind == "Ring" else one.hops(0, 1)
            latency_ns += np.where(counts, hops * one.latency_ns, 0.0)
            rate = np.minimum(bytes_per_ns, one.bytes_per_ns)
            bytes_per_ns = np.where(counts, rate, bytes_per_ns)
            if first_only:
                pays &= ~counts
        return latency_ns, bytes_per_ns

    def hops(self, src: Array, dst: Array, size_bytes: int) -> Hops | None:
        """As `astra_bridge.network.spec.Ways`."""
        latency_ns, bytes_per_ns = self._costs(src, dst, self._first_only)
        takes_ns = latency_ns + size_bytes / bytes_per_ns
        if not (takes_ns < _MOST_NS).all():
            return None
        takes_ps = takes_ns.astype(np.int64)[None, :] * PS_PER_NS
        return Hops(np.full_like(takes_ps, -1), np.zeros_like(takes_ps), takes_ps)

    def stats(self, src: Array, dst: Array, size_bytes: Array, count: Array) -> dict[str, Any]:
        """As `astra_bridge.network.spec.Ways`."""
        stats = _counted(size_bytes, count)
        part, whole = (self._costs(src, dst, first) for first in (self._first_only, False))
        shortened = int(count[(part[0] != whole[0]) | (part[1] != whole[1])].sum())
        if shortened:
            stats["quirks"] = {"first-dimension-only": shortened}
        return stats


class AwareWays(_Ways):
    """A hop is a link.

    Examples
    --------
    >>> switch = {"topology": "Switch", "npus_count": "4", "bandwidth": "1", "latency": "5"}
    >>> ways = AwareWays(NetworkConfig(4, 5, options=switch))
    >>> link, hold_ps, takes_ps = ways.hops(np.array([0, 3]), np.array([2, 0]), 1000)
    >>> link.tolist(), hold_ps.tolist(), takes_ps.tolist()
    ([[0, 6], [5, 1]], [[931000, 931000], [931000, 931000]], [[936000, 936000], [936000, 936000]])
    """

    meets = True

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self._cut_through = not has_quirk(config, "store-and-forward")

    def _links(self, src: Array, dst: Array) -> tuple[Array, Array] | None:
        """Hop by hop, shape (hops, transfers): links, or -1 behind the last, and dimensions."""
        rows: list[tuple[Array, Array]] = []
        crossed = np.zeros(len(src), np.int64)

        def cross(which: Array, link: Array, dimension: int) -> None:
            """Some transfers cross a link each, their next."""
            while len(rows) <= crossed[which].max(initial=-1):
                rows.append((np.full(len(src), -1), np.zeros(len(src), np.int64)))
            for at in np.unique(crossed[which]).tolist():
                now = crossed[which] == at
                rows[at][0][which[now]], rows[at][1][which[now]] = link[now], dimension
            crossed[which] += 1

        at = src.astype(np.int64)
        for d, one in enumerate(self._network.dimensions):
            width = one.links_per_endpoint
            here, there = at // one.stride % one.size, dst // one.stride % one.size
            which = np.flatnonzero(here != there)
            if one.kind == "Ring":
                forward = 2 * ((there - here) % one.size) <= one.size
                while len(which):
                    if len(rows) >= _MOST_HOPS:
                        return None
                    cross(which, one.first_link + at[which] * width + ~forward[which], d)
                    after = (here + np.where(forward, 1, -1)) % one.size
                    at[which] += ((after - here) * one.stride)[which]
                    here = at // one.stride % one.size
                    which = np.flatnonzero(here != there)
                continue
            node, mine, its = at[which], here[which], there[which]
            at[which] += (its - mine) * one.stride
            if one.kind == "FullyConnected":
                cross(which, one.first_link + node * width + np.where(its < mine, its, its - 1), d)
                continue
            cross(which, one.first_link + 2 * node, d)
            cross(which, one.first_link + 2 * at[which] + 1, d)
        return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])

    def _times(self, size_bytes: int | Array, dimension: Array) -> tuple[Array, Array]:
        """How long links of dimensions are held, and take [ns]."""
        dimensions = self._network.dimensions
        rate = np.array([one.bytes_per_ns for one in dimensions])[dimension]
        hold_ns = size_bytes / rate
        return hold_ns, np.array([one.latency_ns for one in dimensions])[dimension] + hold_ns

    def hops(self, src: Array, dst: Array, size_bytes: int) -> Hops | None:
        """As `astra_bridge.network.spec.Ways`."""
        found = self._links(src, dst)
        # What is cut off to whole ns is carried from link to link, where a link is cut through.
        if found is None or (self._cut_through and len(found[0]) > 1):
            return None
        link, dimension = found
        hold_ns, takes_ns = self._times(size_bytes, dimension)
        if not (takes_ns < _MOST_NS).all():
            return None
        hold_ps, takes_ps = (
            np.where(link < 0, 0, ns.astype(np.int64) * PS_PER_NS) for ns in (hold_ns, takes_ns)
        )
        return Hops(link, hold_ps, takes_ps)

    def stats(self, src: Array, dst: Array, size_bytes: Array, count: Array) -> dict[str, Any]:
        """As `astra_bridge.network.spec.Ways`."""
        found = self._links(src, dst)
        assert found is not None
        link, dimension = found
        stats = _counted(size_bytes, count)
        several = int(count[(link >= 0).sum(axis=0) > 1].sum())
        if several and not self._cut_through:
            stats["quirks"] = {"store-and-forward": several}
        used = link >= 0
        numbers, row = np.unique(link[used], return_inverse=True)
        hold_ns, _ = self._times(size_bytes[None, :], dimension)
        table: dict[str, Array] = {"link": numbers.astype(np.int64)}
        table["src"], table["dst"] = self._network.ends(numbers)
        for name, each in (
            ("bytes", np.broadcast_to(size_bytes * count, link.shape)),
            ("busy_ps", hold_ns.astype(np.int64) * PS_PER_NS * count),
        ):
            table[name] = np.zeros(len(numbers), np.int64)
            np.add.at(table[name], row.reshape(-1), each[used])
        return {**stats, "tables": {"links": table}}


def _counted(size_bytes: Array, count: Array) -> dict[str, Any]:
    return {"transfers": int(count.sum()), "bytes": int((size_bytes * count).sum())}
