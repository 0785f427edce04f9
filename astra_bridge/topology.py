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
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.network import LinkColumns, NetworkDims, NetworkLinks

__all__ = ["Topology", "links_per_endpoint", "topology_of"]


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
