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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.network import NetworkDims, NetworkLinks

__all__ = ["Topology", "links_per_endpoint", "topology_of"]


@dataclass(frozen=True)
class Topology:
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
        return _build(
            network.endpoints,
            network.nodes,
            [(link.src, link.dst) for link in network.links],
            [link.bandwidth_GiBps for link in network.links],
            [link.latency_ns for link in network.links],
            [link.loss for link in network.links],
            network.dims,
            network.source,
        )
    endpoints = math.prod(network.npus_count)
    pairs: list[tuple[int, int]] = []
    bandwidth: list[float] = []
    latency: list[float] = []
    switch, stride = endpoints, 1
    for kind, size, rate, delay in zip(
        network.topology,
        network.npus_count,
        network.bandwidth_GiBps,
        network.latency_ns,
        strict=True,
    ):
        before = len(pairs)
        for node in range(endpoints if size > 1 else 0):
            own = node // stride % size
            if kind == "Ring":
                pairs.append((node, node + ((own + 1) % size - own) * stride))
                if size > 2:
                    pairs.append((node, node + ((own - 1) % size - own) * stride))
            elif kind == "Switch":
                hub = switch + node % stride + node // (stride * size) * stride
                pairs += [(node, hub), (hub, node)]
            else:
                pairs += [(node, node + (p - own) * stride) for p in range(size) if p != own]
        bandwidth += [rate] * (len(pairs) - before)
        latency += [delay] * (len(pairs) - before)
        switch += endpoints // size if kind == "Switch" and size > 1 else 0
        stride *= size
    loss = [0.0] * len(pairs)
    return _build(
        endpoints, switch, pairs, bandwidth, latency, loss, network.npus_count, network.source
    )


def _build(
    endpoints: int,
    nodes: int,
    pairs: list[tuple[int, int]],
    bandwidth_GiBps: list[float],
    latency_ns: list[float],
    loss: list[float],
    dims: tuple[int, ...],
    source: object,
) -> Topology:
    ends = np.array(pairs, np.int32).reshape(-1, 2)
    latency = np.rint(np.array(latency_ns, np.float64) * 1000)
    if latency.size and not (latency.min() >= 0 and latency.max() < 2**63):
        bad = int(np.flatnonzero(~((latency >= 0) & (latency < 2**63)))[0])
        raise InputError(
            f"latency {latency_ns[bad]!r} ns is outside 0 .. 2**63 ps",
            file=None if source is None else str(source),
            key="latency",
        )
    return Topology(
        endpoints,
        nodes,
        ends[:, 0].copy(),
        ends[:, 1].copy(),
        np.array(bandwidth_GiBps, np.float64) * (1 << 30),
        latency.astype(np.int64),
        np.array(loss, np.float64),
        tuple(dims),
    )
