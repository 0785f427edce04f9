# SPDX-License-Identifier: MIT
"""Where the parts of a network of links meet, and the network as each of them sees it.

A part has its own links only.  At a switch that has links of other parts, too, it gets endpoints:
one for each of the ranks that are nearest to the switch, joined to it by a link that is as fast as
the way from there to the rank, and takes no time.  What comes from another part begins at the one
that stands in for its sender, and what leaves for another ends at the one of its receiver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from astra_bridge.inputs.network import LinkColumns, NetworkDims, NetworkLinks

__all__ = ["Border"]

_COLUMNS = ("src", "dst", "bandwidth_GiBps", "latency_ns", "loss")


@dataclass(frozen=True)
class Border:
    """The endpoints that stand in for ranks at switches.

    Attributes
    ----------
    network : NetworkDims or NetworkLinks
        The whole.
    switch, rank : ndarray of int32, shape (endpoints,)
        Where each of them is and for which rank, by switch, then rank.
    bandwidth_GiBps : ndarray of float64, shape (endpoints,)
    """

    network: NetworkDims | NetworkLinks
    switch: NDArray[np.int32]
    rank: NDArray[np.int32]
    bandwidth_GiBps: NDArray[np.float64]

    @classmethod
    def of(cls, network: NetworkDims | NetworkLinks, part_of_link: NDArray[np.int64]) -> Border:
        """Of a network and the part of each of its links; dimensions meet at ranks."""
        rows: list[tuple[int, int, float]] = []
        if isinstance(network, NetworkLinks):
            near = _Nearest(network)
            for switch in _shared(network, part_of_link):
                rows += [(switch, *one) for one in sorted(near(switch))]
        columns = np.array(rows, np.float64).reshape(-1, 3).T
        return cls(network, columns[0].astype(np.int32), columns[1].astype(np.int32), columns[2])

    def part(self, own: NDArray[np.bool_]) -> NetworkDims | NetworkLinks:
        """The network as the part sees it that has the links for which ``own`` is true.

        Returns
        -------
        NetworkDims or NetworkLinks
            Dimensions as they are.  Of links: ranks, then the endpoints of the border, then
            switches; its own links in their order, then those of the border.
        """
        network = self.network
        if isinstance(network, NetworkDims):
            return replace(network, backends=())
        more = len(self.switch)
        links = LinkColumns.of(network.links)
        shift = np.where(np.arange(network.nodes) < network.endpoints, 0, more)
        renumbered = np.arange(network.nodes) + shift
        columns = {name: getattr(links, name)[own] for name in _COLUMNS}
        for name in ("src", "dst"):
            columns[name] = renumbered[columns[name]]
        there = np.isin(renumbered[self.switch], [columns["src"], columns["dst"]])
        inner = (network.endpoints + np.arange(more))[there]
        outer = renumbered[self.switch][there]
        zero = np.zeros(2 * len(inner))
        added = (
            np.stack([inner, outer], 1).ravel(),
            np.stack([outer, inner], 1).ravel(),
            np.repeat(self.bandwidth_GiBps[there], 2),
            zero,
            zero,
        )
        kept = [np.concatenate(both) for both in zip(columns.values(), added, strict=True)]
        endpoints = network.endpoints + more
        return replace(
            network,
            endpoints=endpoints,
            nodes=network.nodes + more,
            links=LinkColumns(*kept),
            dims=network.dims if not more else (endpoints,),
            names=tuple(
                replace(one, first=one.first + more) if one.first >= network.endpoints else one
                for one in network.names
            ),
            backends=(),
        )

    def text(self) -> str:
        """Of a network of links, a line for each switch: it, its first endpoint, their ranks."""
        if isinstance(self.network, NetworkDims):
            return ""
        lines = []
        switches, starts, counts = np.unique(self.switch, return_index=True, return_counts=True)
        for switch, first, count in zip(switches, starts, counts, strict=True):
            ranks = " ".join(map(str, self.rank[first : first + count].tolist()))
            lines.append(f"{switch} {self.network.endpoints + first} {ranks}")
        return "\n".join(lines)


def _shared(network: NetworkLinks, part_of_link: NDArray[np.int64]) -> list[int]:
    """Switches that have links of several parts."""
    links = LinkColumns.of(network.links)
    least, most = np.full(network.nodes, 2**31), np.full(network.nodes, -1)
    for end in (links.src, links.dst):
        np.minimum.at(least, end, part_of_link)
        np.maximum.at(most, end, part_of_link)
    several = np.flatnonzero(least < most)
    return [int(node) for node in several if node >= network.endpoints]


class _Nearest:
    """The ranks that are the fewest links away from a switch."""

    def __init__(self, network: NetworkLinks) -> None:
        self.endpoints = network.endpoints
        links = LinkColumns.of(network.links)
        order = np.argsort(links.src, kind="stable")
        self.first = np.searchsorted(links.src[order], np.arange(network.nodes + 1)).tolist()
        self.dst = links.dst[order].tolist()
        self.bandwidth = links.bandwidth_GiBps[order].tolist()

    def __call__(self, switch: int) -> Iterator[tuple[int, float]]:
        """(rank, bandwidth of the narrowest link on the way)."""
        width = {switch: float("inf")}
        level = [switch]
        while level:
            further: list[int] = []
            for node in level:
                for link in range(self.first[node], self.first[node + 1]):
                    other = self.dst[link]
                    if other not in width:
                        width[other] = min(width[node], self.bandwidth[link])
                        further.append(other)
            ranks = [node for node in further if node < self.endpoints]
            if ranks:
                return iter([(rank, width[rank]) for rank in ranks])
            level = further
        return iter(())
