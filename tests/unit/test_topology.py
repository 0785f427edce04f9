# SPDX-License-Identifier: MIT
"""Graphs built from network inputs, and that the analytical networks number links alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_bridge.inputs.network import NetworkDims, NetworkLink, NetworkLinks
from astra_bridge.network.analytical.topologies import Dimensions, LinkList
from astra_bridge.network.api import LINK, NetworkConfig
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.topology import topology_of


def pairs(network: NetworkDims | NetworkLinks) -> list[tuple[int, int]]:
    topology = topology_of(network)
    return list(zip(topology.src.tolist(), topology.dst.tolist(), strict=True))


def test_ring_clockwise_first() -> None:
    ring = NetworkDims(("Ring",), (3,), (50.0,), (500.0,))
    assert pairs(ring) == [(0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)]
    two = NetworkDims(("Ring",), (2,), (50.0,), (500.0,))
    assert pairs(two) == [(0, 1), (1, 0)]


def test_switches_follow_the_endpoints() -> None:
    network = NetworkDims(("Switch", "Switch"), (2, 3), (50.0, 25.0), (500.0, 0.25))
    topology = topology_of(network)
    # Hubs 6, 7, 8 of the pairs (0,1), (2,3), (4,5); hubs 9, 10 of (0,2,4), (1,3,5).
    assert (topology.endpoints, topology.nodes, topology.dims) == (6, 11, (2, 3))
    assert pairs(network)[:6] == [(0, 6), (6, 0), (1, 6), (6, 1), (2, 7), (7, 2)]
    assert pairs(network)[12:16] == [(0, 9), (9, 0), (1, 10), (10, 1)]
    assert topology.bytes_per_second[[0, -1]].tolist() == [50.0 * 2**30, 25.0 * 2**30]
    assert topology.latency_ps[[0, -1]].tolist() == [500_000, 250]


def test_links_keep_their_order_and_become_records() -> None:
    links = (NetworkLink(1, 0, 2.0, 1.5, 0.125), NetworkLink(0, 1, 1.0, 0.0))
    rows = topology_of(NetworkLinks(2, 2, links, (2,))).records(LINK)
    assert rows.dtype == LINK
    assert rows[0].tolist() == (1, 0, 2.0 * 2**30, 1500, 0.125)
    assert rows[1].tolist() == (0, 1, 1.0 * 2**30, 0, 0.0)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["Ring", "Switch", "FullyConnected"])
def test_every_size_has_the_links_it_should(kind: str, size: int) -> None:
    network = NetworkDims((kind, "Ring"), (size, 3), (50.0, 50.0), (500.0, 500.0))
    first = {"Ring": min(2, size - 1), "Switch": 2 if size > 1 else 0, "FullyConnected": size - 1}
    assert len(pairs(network)) == size * 3 * (first[kind] + 2)
    assert len(set(pairs(network))) == len(pairs(network))


kinds = st.sampled_from(["Ring", "Switch", "FullyConnected"])
shapes = st.lists(st.tuples(kinds, st.integers(2, 5)), min_size=1, max_size=3)


@settings(max_examples=80, deadline=None)
@given(shapes)
def test_the_analytical_networks_number_links_alike(shape: list[tuple[str, int]]) -> None:
    """They never build the graph, but their links and routes must be those of the graph."""
    names, sizes = zip(*shape, strict=True)
    rates = tuple(10.0 + i for i in range(len(shape)))
    network = NetworkDims(names, sizes, rates, tuple(float(i) for i in range(len(shape))))
    config = backend("analytical-aware").prepare(NetworkRequest(network)).config
    routes, graph = Dimensions(config.options, config.endpoints, False), topology_of(network)
    assert routes.link_count == len(graph.src)
    assert config.nodes == graph.nodes
    for index in range(routes.link_count):
        link = routes.link(index)
        assert (link.src, link.dst) == (graph.src[index], graph.dst[index])
        assert link.bytes_per_ns == graph.bytes_per_second[index] / 1e9
        assert link.latency_ns == graph.latency_ps[index] / 1000
    endpoints = math.prod(sizes)
    forward = {"endpoints_forward": "true"}
    explicit = LinkList(NetworkConfig(graph.endpoints, graph.nodes, graph.records(LINK), forward))
    rng = np.random.default_rng(0)
    for src, dst in rng.integers(0, endpoints, (20, 2)).tolist():
        if src == dst:
            continue
        way, node = routes.route(src, dst), src
        for index in way:
            assert graph.src[index] == node
            node = int(graph.dst[index])
        assert node == dst
        # Dimension-ordered routes are shortest routes.
        assert len(way) == len(explicit.route(src, dst))


def test_large_topologies_are_quick_to_build() -> None:
    topology = topology_of(NetworkDims(("FullyConnected",), (1024,), (50.0,), (500.0,)))
    assert len(topology.src) == 1024 * 1023
    assert (topology.src != topology.dst).all()
    assert topology.dst[:3].tolist() == [1, 2, 3]
    assert topology.dst[1023:1026].tolist() == [0, 2, 3]
