# SPDX-License-Identifier: MIT
"""Small networks for the tests of the ns-3 backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from astra_bridge.network.api import LINK, TRANSFER, NetworkConfig
from astra_bridge.network.ns3 import BACKENDS
from astra_bridge.network.ns3.build import is_rdma_fork
from astra_bridge.units import TIME_NEVER

NS3 = BACKENDS[0]
needs_our_devices = pytest.mark.skipif(
    is_rdma_fork() or NS3.unavailable() is not None,
    reason=NS3.unavailable() or "NS3_ROOT is an RDMA fork, whose devices are used instead of ours",
)
GBPS = 1e9 / 8
HEADER = 82  # bytes per data packet on the wire
MTU = 4096

Cable = tuple[int, int, float, int]  # a, b, bytes per second, latency [ps]

CONTROLS = (
    *("none", "dcqcn", "dcqcn-sigcomm15", "hpcc", "hpcc-pint"),
    *("timely", "dctcp", "swift"),
)
"""Every congestion control."""


def config(endpoints: int, cables: Iterable[Cable], **options: object) -> NetworkConfig:
    """Links of the k-th cable: 2k from a to b, 2k + 1 back."""
    rows = [
        (src, dst, rate, latency, 0.0)
        for a, b, rate, latency in cables
        for src, dst in ((a, b), (b, a))
    ]
    links = np.array(rows, LINK)
    nodes = int(max(links["src"].max(), links["dst"].max())) + 1
    defaults: dict[str, object] = {"congestion_control": "none", "window": "none"}
    named = {key.replace("cc_", "cc."): value for key, value in (defaults | options).items()}
    return NetworkConfig(endpoints, nodes, links, {key: str(value) for key, value in named.items()})


def run(
    network_config: NetworkConfig,
    flows: Sequence[tuple[int, int, int, int]],
    faults: Sequence[tuple[int, int, float]] = (),
) -> tuple[list[int], dict[str, Any]]:
    """Completion time [ps] of each flow (src, dst, bytes, start_ps), and the statistics."""
    transfers = np.zeros(len(flows), TRANSFER)
    for number, (src, dst, size, start_ps) in enumerate(flows):
        transfers[number] = (number, start_ps, size, src, dst, 0, 0, 0)
    times = [0] * len(flows)
    with NS3.open(network_config) as network:
        for link, at_ps, scale in faults:
            network.set_link(link, at_ps, scale)
        network.submit(transfers)
        left = len(flows)
        while left:
            network.advance(TIME_NEVER, 10**12)
            for record in network.poll():
                times[int(record["id"])] = int(record["time_ps"])
                left -= 1
        return times, network.stats()


def dumbbell(pairs: int, rate: float, latency: int, **options: object) -> NetworkConfig:
    """Endpoints 0 .. pairs-1 on the left, as many on the right; the middle link has no. 2 pairs."""
    left, right = 2 * pairs, 2 * pairs + 1
    cables = [(i, left, rate, latency) for i in range(pairs)]
    cables += [(pairs + i, right, rate, latency) for i in range(pairs)]
    cables.append((left, right, rate, latency))
    return config(2 * pairs, cables, **options)


def leaf_spine(
    leaves: int, hosts: int, spines: int, rate: float, up: float, latency: int, **options: object
) -> NetworkConfig:
    """``hosts`` endpoints per leaf."""
    endpoints = leaves * hosts
    cables = [(i, endpoints + i // hosts, rate, latency) for i in range(endpoints)]
    cables += [
        (endpoints + leaf, endpoints + leaves + spine, up, latency)
        for leaf in range(leaves)
        for spine in range(spines)
    ]
    return config(endpoints, cables, **options)
