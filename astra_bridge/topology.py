# SPDX-License-Identifier: MIT
"""Endpoints, switches and directed links, built from any network input.

A network of dimensions (``topology: [Ring, Switch]``) becomes an explicit graph here, so that a
simulator which only knows nodes and links can run it.  The numbering is part of the interface:
the analytical backends number their links the same way (``set_link``, table "links") without ever
building the graph.

* Endpoints come first: mixed radix over the dimensions, dimension 0 fastest.
* Then the switches: dimensions ascending, one switch per group of endpoints that differ in that
  dimension only.
* Links: dimensions ascending, then endpoints ascending.  Per endpoint a Ring has the clockwise
  (index + 1), then the anticlockwise link (a ring of two has the clockwise one only: both
  directions lead to the same neighbour); a Switch the link to and the link from the switch; a
  FullyConnected dimension the links to its peers in ascending order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.network import (
    LinkColumns,
    NetworkDims,
    NetworkLinks,
    NodeRange,
    node_tiers,
)

__all__ = [
    "Ends",
    "LinkTiers",
    "Topology",
    "injection_of_dims",
    "injection_of_links",
    "links_of_dims",
    "links_per_endpoint",
    "topology_of",
]

Ends = tuple[NDArray[np.int32], NDArray[np.int32]]
"""The nodes that links come from and lead to."""

OWN_SWITCH = "own switch"


class Topology(msgspec.Struct, frozen=True):
    """A directed graph of endpoints and switches.

    Attributes
    ----------
    endpoints, nodes : int
        Nodes 0 .. endpoints-1 are endpoints, the rest (up to nodes-1) switches.
    src, dst : ndarray of int32, shape (links,)
        Directed; a cable is two links.
    bytes_per_second : ndarray of float64, shape (links,)
    latency_ps : ndarray of int64, shape (links,)
    loss : ndarray of float64, shape (links,)
        Probability that a packet is corrupted, 0..1.
    dims : tuple of int
        Logical dimensions of the endpoints, dimension 0 fastest.
    """

    endpoints: int
    nodes: int
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    bytes_per_second: NDArray[np.float64]
    latency_ps: NDArray[np.int64]
    loss: NDArray[np.float64]
    dims: tuple[int, ...]

    def records(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The links as records of ``dtype``, whose fields carry the names of the columns above."""
        rows = np.zeros(len(self.src), dtype)
        for name in dtype.names or ():
            rows[name] = getattr(self, name)
        return rows


def links_per_endpoint(kind: str, size: int) -> int:
    """Directed links that a dimension of this kind and size has per endpoint."""
    if size < 2:
        return 0
    if kind == "Ring":
        return 2 if size > 2 else 1
    return 2 if kind == "Switch" else size - 1


class LinkTiers(NamedTuple):
    """Which tier each link of a network belongs to.

    Tiers of a network of dimensions are these, ``dim0``, ``dim1``, ...; those of any other are the
    tiers of nodes that its links join, and the way that they lead: ``gpu-leaf up``, the same
    ``down``, and without a way ``router-router``.  A lower tier is one whose first node has a
    smaller id.

    Attributes
    ----------
    names : tuple of str
    links : tuple of int
        How many links each tier has.
    by_number : ndarray of int64
        The tier of each link; of a network of dimensions the first link of each, and their end.
    by_dims : bool
        Which of the two.
    """

    names: tuple[str, ...]
    links: tuple[int, ...]
    by_number: NDArray[np.int64]
    by_dims: bool

    @classmethod
    def of_dims(cls, links: Sequence[int]) -> LinkTiers:
        """Of dimensions with so many links each, which follow one another.

        Examples
        --------
        >>> LinkTiers.of_dims([16, 8]).of(np.array([0, 15, 16, 23, 24])).tolist()
        ['dim0', 'dim0', 'dim1', 'dim1', 'own switch']
        """
        names = tuple(f"dim{at}" for at in range(len(links)))
        return cls(names, tuple(links), np.cumsum([0, *links]), True)

    @classmethod
    def of_nodes(
        cls, names: Sequence[NodeRange], endpoints: int, nodes: int, ends: Ends
    ) -> LinkTiers:
        """Of links between nodes that have tiers.

        Examples
        --------
        >>> ends = np.array([0, 1, 2, 2]), np.array([2, 2, 0, 1])
        >>> tiers = LinkTiers.of_nodes((), 2, 3, ends)
        >>> tiers.names, tiers.links, tiers.by_number.tolist()
        (('gpu-switch up', 'gpu-switch down'), (2, 2), [0, 0, 1, 1])
        """
        # Routers of a network of a simulator's own may be more than its nodes.
        nodes = max([nodes, *(int(end.max(initial=-1)) + 1 for end in ends)])
        tiers, tier = node_tiers(names, endpoints, nodes)
        src, dst = (tier[end] for end in ends)
        low, high = np.minimum(src, dst), np.maximum(src, dst)
        keys = (low * len(tiers) + high) * 2 + (src > dst)
        found, index, counts = np.unique(keys, return_inverse=True, return_counts=True)
        words = []
        for key in found.tolist():
            lower, upper = divmod(key // 2, len(tiers))
            way = "" if lower == upper else " down" if key % 2 else " up"
            words.append(f"{tiers[lower]}-{tiers[upper]}{way}")
        return cls(tuple(words), tuple(counts.tolist()), index, False)

    def of(self, link: NDArray[Any]) -> NDArray[np.str_]:
        """The tier of links by their numbers.

        Links beyond those of the network are ``own switch``: between a rank that passes on what is
        for others, and the switch that does it for it.
        """
        return np.asarray(np.array([*self.names, OWN_SWITCH])[self.index_of(link)])

    def index_of(self, link: NDArray[Any]) -> NDArray[np.int64]:
        """The tier of links as an index into `names`, or beyond these.

        Examples
        --------
        >>> LinkTiers.of_dims([16, 8]).index_of(np.array([0, 15, 16, 23, 24])).tolist()
        [0, 0, 1, 1, 2]
        """
        if self.by_dims:
            return np.searchsorted(self.by_number, link, "right").astype(np.int64) - 1
        own = (link >= 0) & (link < len(self.by_number))
        at = np.full(len(link), len(self.names))
        at[own] = self.by_number[link[own]]
        return at


def links_of_dims(network: NetworkDims | NetworkLinks) -> tuple[int, ...]:
    """How many links each dimension has, in the order of their numbers; () for a list of links.

    Examples
    --------
    >>> links_of_dims(NetworkDims(("Ring", "Switch"), (4, 2), (50.0, 25.0), (500.0, 500.0)))
    (16, 16)
    """
    if isinstance(network, NetworkLinks):
        return ()
    endpoints = math.prod(network.npus_count)
    return tuple(
        endpoints * links_per_endpoint(kind, size)
        for kind, size in zip(network.topology, network.npus_count, strict=True)
    )


def topology_of(network: NetworkDims | NetworkLinks) -> Topology:
    """Build the graph of a parsed network input.

    Raises
    ------
    InputError
        A latency is not a whole number of ps, after rounding, within int64.
    """
    if isinstance(network, NetworkLinks):
        links = LinkColumns.of(network.links)
        return _build(
            network.endpoints,
            network.nodes,
            np.stack([links.src, links.dst], axis=1),
            links.bandwidth_GiBps,
            links.latency_ns,
            links.loss,
            network,
        )
    endpoints = math.prod(network.npus_count)
    node = np.arange(endpoints)
    parts = []
    next_hub, stride = endpoints, 1
    for kind, size in zip(network.topology, network.npus_count, strict=True):
        own = node // stride % size
        if size < 2:
            columns = []
        elif kind == "Ring":
            columns = [(node, node + ((own + 1) % size - own) * stride)]
            if size > 2:
                columns.append((node, node + ((own - 1) % size - own) * stride))
        elif kind == "Switch":
            hub = next_hub + node % stride + node // (stride * size) * stride
            next_hub += endpoints // size
            columns = [(node, hub), (hub, node)]
        else:
            peers = (peer + (peer >= own) for peer in range(size - 1))
            columns = [(node, node + (peer - own) * stride) for peer in peers]
        # From one column per kind of link to all links of node 0, then of node 1, ...
        parts.append(np.array(columns, np.int64).reshape(-1, 2, endpoints).transpose(2, 0, 1))
        stride *= size
    counts = [part.shape[0] * part.shape[1] for part in parts]
    return _build(
        endpoints,
        next_hub,
        np.concatenate([part.reshape(-1, 2) for part in parts]),
        np.repeat(np.array(network.bandwidth_GiBps, np.float64), counts),
        np.repeat(np.array(network.latency_ns, np.float64), counts),
        np.zeros(sum(counts)),
        network,
    )


def _build(
    endpoints: int,
    nodes: int,
    ends: NDArray[Any],
    bandwidth_GiBps: NDArray[np.float64],
    latency_ns: NDArray[np.float64],
    loss: NDArray[np.float64],
    network: NetworkDims | NetworkLinks,
) -> Topology:
    latency_ps = np.rint(latency_ns * 1000)
    bad = np.flatnonzero(~((latency_ps >= 0) & (latency_ps < 2**63)))
    if bad.size:
        raise InputError(
            f"latency {latency_ns[bad[0]]!r} ns is outside 0 .. 2**63 ps",
            file=network.source,
            key="latency",
        )
    return Topology(
        endpoints,
        nodes,
        ends[:, 0].astype(np.int32),
        ends[:, 1].astype(np.int32),
        bandwidth_GiBps * (1 << 30),
        latency_ps.astype(np.int64),
        loss,
        network.dims if isinstance(network, NetworkLinks) else network.npus_count,
    )


def injection_of_dims(
    kinds: Sequence[str], sizes: Sequence[int], rates_Bps: Sequence[float], ranks: NDArray[Any]
) -> float:
    """The links of a rank in all dimensions in which ranks differ [B/s].

    Examples
    --------
    >>> injection_of_dims(["Ring", "Switch"], [4, 2], [50.0, 20.0], np.array([0, 1, 2, 3]))
    100.0
    >>> injection_of_dims(["Ring", "Switch"], [4, 2], [50.0, 20.0], np.array([0, 4]))
    20.0
    """
    total, stride = 0.0, 1
    for kind, size, rate in zip(kinds, sizes, rates_Bps, strict=True):
        if len(np.unique(ranks // stride % size)) > 1:
            # Of a switch, one link comes from it.
            total += rate * (1 if kind == "Switch" else links_per_endpoint(kind, size))
        stride *= size
    return total


def ways_of_dims(npus_count: Sequence[int], src: NDArray[Any], dst: NDArray[Any]) -> NDArray[Any]:
    """Which messages may share a link: those of different numbers cannot, as they cross other dims.

    Examples
    --------
    >>> ways_of_dims([2, 2], np.array([0, 1, 2, 3]), np.array([1, 0, 0, 1])).tolist()
    [0, 0, 1, 1]
    >>> ways_of_dims([2, 2], np.array([0, 2, 0]), np.array([1, 0, 3])).tolist()  # one has both
    [0, 0, 0]
    """
    crossed = np.zeros((len(src), len(npus_count)), np.bool_)
    stride = 1
    for dim, size in enumerate(npus_count):
        crossed[:, dim] = src // stride % size != dst // stride % size
        stride *= size
    part = np.arange(len(npus_count))
    bits = crossed @ (1 << part)
    for one in np.unique(bits).tolist():
        mine = np.flatnonzero(one >> part & 1)
        if len(mine):
            joined = np.isin(part, part[mine])
            part[joined] = part[mine].min()
    ways: NDArray[Any] = part[np.argmax(crossed, axis=1)]
    return ways


def injection_of_links(
    links: NDArray[Any], tier: NDArray[Any], endpoints: int, ranks: NDArray[Any]
) -> float:
    """The links of a rank of the kind that joins all of these ranks, and has most [B/s].

    Examples
    --------
    >>> from astra_bridge.network.api import LINK
    >>> ways = [(0, 2, 50e9), (1, 2, 50e9), (2, 0, 50e9), (2, 1, 50e9)]
    >>> links = np.array([(*way, 0, 0.0) for way in ways], LINK)
    >>> injection_of_links(links, np.array([0, 0, 1, 1]), 2, np.array([0, 1]))
    50000000000.0
    """
    src, dst = links["src"].astype(np.int64), links["dst"].astype(np.int64)
    nodes = int(max(src.max(), dst.max(), endpoints - 1)) + 1
    # Switches that are joined without a rank between them.
    inner = np.flatnonzero((src >= endpoints) & (dst >= endpoints))
    part = np.arange(nodes)
    while True:
        low = np.minimum(part[src[inner]], part[dst[inner]])
        new = part.copy()
        np.minimum.at(new, src[inner], low)
        np.minimum.at(new, dst[inner], low)
        if (new == part).all():
            break
        part = new
    best = 0.0
    for one in np.unique(tier[src < endpoints]).tolist():
        out = np.flatnonzero((tier == one) & np.isin(src, ranks))
        own = out[src[out] == ranks[0]]
        pairs = np.unique(np.stack([part[dst[out]], src[out]]), axis=1)
        _, members = np.unique(pairs[0][pairs[0] >= endpoints], return_counts=True)
        direct = np.isin(ranks[1:], dst[own]).all()
        if direct or (members == len(ranks)).any():
            best = max(best, float(links["bytes_per_second"][own].sum()))
    return best
