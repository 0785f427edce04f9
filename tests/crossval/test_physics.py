# SPDX-License-Identifier: MIT
"""No backend is faster than physics, on random fabrics and transfers.

Two bounds, from the ways that all backends share: a transfer takes at least the latencies of its
way and its bytes over the narrowest link; and all that crosses a link takes at least its bytes over
the bandwidth, between the first start and the last arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge import fabrics
from astra_bridge.errors import AstraBridgeError
from astra_bridge.inputs.network import NetworkLinks
from astra_bridge.network.analytical.topologies import LinkList
from astra_bridge.network.api import LINK, TIME_NEVER, TRANSFER, NetworkConfig
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.topology import topology_of

# What each cuts off [ps]: the analytical networks whole ns, a link at a time.
CUT_PS = {"analytical-unaware": 1000, "analytical-aware": 1000, "flow": 0, "garnet": 0, "ns3": 0}
SHARES = {"analytical-aware", "flow", "garnet", "ns3"}  # links: not analytical-unaware


@st.composite
def networks(draw: st.DrawFn) -> NetworkLinks:
    kind = draw(st.sampled_from(["rail", "leaf_spine", "fat_tree", "torus", "hgx"]))
    nic_gbps = draw(st.sampled_from([25.0, 100.0, 400.0]))
    latency_ns = draw(st.sampled_from([0.0, 100.0, 500.0]))
    if kind == "torus":
        dims = draw(st.sampled_from([(3,), (2, 3), (4, 4), (3, 3, 2)]))
        return fabrics.torus(dims=dims, nic_gbps=nic_gbps, latency_ns=latency_ns)
    if kind == "hgx":
        return fabrics.hgx(draw(st.sampled_from([4, 8])), nic_gbps=nic_gbps)
    per_host = draw(st.sampled_from([1, 2, 4]))
    hosts = draw(st.sampled_from([4, 8]))
    more: dict[str, Any] = {} if kind == "fat_tree" else {"hosts_per_leaf": 2}
    return getattr(fabrics, kind)(  # type: ignore[no-any-return]
        hosts * per_host,
        gpus_per_host=per_host,
        oversubscription=draw(st.sampled_from([1.0, 2.0])),
        nic_gbps=nic_gbps,
        latency_ns=latency_ns,
        **more,
    )


@st.composite
def experiments(draw: st.DrawFn) -> tuple[NetworkLinks, list[tuple[int, int, int, int]]]:
    network = draw(networks())
    rank = st.integers(0, network.endpoints - 1)
    size = st.sampled_from([1, 100, 4096, 5000, 100_000])
    start_ps = st.sampled_from([0, 0, 1000, 777_000])
    rows = draw(st.lists(st.tuples(start_ps, size, rank, rank), min_size=1, max_size=20))
    return network, [row for row in rows if row[2] != row[3]]


@pytest.mark.parametrize("name", CUT_PS)
def test_no_backend_is_faster_than_physics(name: str, missing: Callable[[str, str], None]) -> None:
    try:
        reason = backend(name).unavailable()
    except AstraBridgeError as error:
        reason = str(error)
    if reason is not None:
        missing(name, reason)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(experiments())
    def check(experiment: tuple[NetworkLinks, list[tuple[int, int, int, int]]]) -> None:
        network, rows = experiment
        if rows:
            check_one(name, network, rows)

    check()


def check_one(name: str, network: NetworkLinks, rows: list[tuple[int, int, int, int]]) -> None:
    request = NetworkRequest(network, semantics="corrected")
    items = np.zeros(len(rows), TRANSFER)
    for index, (start_ps, size, src, dst) in enumerate(rows):
        items[index] = (4 * index, start_ps, size, src, dst, 0, 0, 0)
    arrived = {}
    with backend(name).open(backend(name).prepare(request).config) as simulation:
        simulation.submit(items)
        while len(arrived) < len(rows):
            simulation.advance(TIME_NEVER, 10**12)
            for record in simulation.poll():
                arrived[int(record["id"]) // 4] = int(record["time_ps"])
    graph = topology_of(network)
    forward = {"endpoints_forward": str(network.endpoints_forward).lower()}
    config = NetworkConfig(graph.endpoints, graph.nodes, graph.records(LINK), forward)
    routes = LinkList(config)
    crossed: dict[int, list[int]] = {}
    for index, (start_ps, size, src, dst) in enumerate(rows):
        way = routes.route(src, dst)
        latency_ps = sum(int(graph.latency_ps[link]) for link in way)
        rate_Bps = min(float(graph.bytes_per_second[link]) for link in way)
        least_ps = start_ps + latency_ps + size / rate_Bps * 1e12
        assert arrived[index] >= least_ps - CUT_PS[name] - 1
        for link in way:
            crossed.setdefault(link, []).append(index)
    if name not in SHARES:
        return
    for link, users in crossed.items():
        needs_ps = sum(rows[i][1] for i in users) / float(graph.bytes_per_second[link]) * 1e12
        first_ps, last_ps = min(rows[i][0] for i in users), max(arrived[i] for i in users)
        assert last_ps - first_ps >= needs_ps - CUT_PS[name] * len(users) - 1
