# SPDX-License-Identifier: MIT
"""What a user scales costs no more than it grows: ratios of CPU seconds, least of a few tries.

Each limit lies far above what is measured (docs/performance.md) and far below the cliff that was
once there; ``benchmarks/scaling.py`` prints the numbers themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from astra_bridge.engine import native
from astra_bridge.network.api import LINK, TRANSFER, NetworkConfig
from astra_bridge.network.native import NativeNetwork, library_path
from astra_bridge.network.ns3.build import NS3
from benchmarks import scaling

pytestmark = pytest.mark.skipif(bool(native.unavailable()), reason="the cliffs were native code's")
needs_ns3 = pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable()))


def growth(cost: Callable[[int], float], small: int, large: int, allowed: float) -> float:
    """How many times as much the large case costs, per unit of work."""
    least = float("inf")
    for _ in range(5):
        least = min(least, cost(large) / cost(small))
        if least < allowed:
            break
    return least


def fat_tree_us(ports: int) -> float:
    """CPU time per transfer: 60,000 between random hosts of a three-level fat-tree."""
    half = ports // 2
    hosts, edges = ports * half * half, ports * half
    aggregation, core = hosts + edges, hosts + 2 * edges
    pairs = [(host, hosts + host // half) for host in range(hosts)]
    for pod in range(ports):
        for a in range(half):
            upper = aggregation + pod * half + a
            pairs += [(hosts + pod * half + edge, upper) for edge in range(half)]
            pairs += [(upper, core + a * half + c) for c in range(half)]
    ends = [end for a, b in pairs for end in ((a, b), (b, a))]
    links = np.array([(a, b, 5e10, 500_000, 0.0) for a, b in ends], LINK)
    rng = np.random.default_rng(1)
    items = np.zeros(60_000, TRANSFER)
    items["id"], items["bytes"] = np.arange(len(items)), 1000
    items["src"] = rng.integers(0, hosts, len(items))
    items["dst"] = (items["src"] + rng.integers(1, hosts, len(items))) % hosts
    config = NetworkConfig(hosts, core + half * half, links, {})
    with NativeNetwork.open(library_path("analytical_aware"), config, trusted=True) as network:
        return scaling.emptied_s(network, items) / len(items) * 1e6


@pytest.mark.slow
def test_routes_of_thousands_of_hosts() -> None:
    """128 and 3456 hosts: once 160 times as much for each transfer, now 2 times."""
    assert growth(fat_tree_us, 8, 24, 8) < 8


@pytest.mark.slow
def test_tens_of_thousands_of_chunks() -> None:
    """Once 16 times as much for each chunk, now the same."""
    assert growth(lambda n: scaling.chunks(n)["cpu_s"] / n, 2000, 32_000, 4) < 4


@pytest.mark.slow
def test_back_pressure() -> None:
    """9 times the messages, five at a time: once 9 times as much for each, now the same."""
    messages = {64: 64 * 63, 192: 192 * 191}
    cost = lambda n: scaling.back_pressure(n)["cpu_s"] / messages[n]  # noqa: E731
    assert growth(cost, 64, 192, 4) < 4


@needs_ns3
def test_queue_pairs_of_a_host() -> None:
    """Four with 64 and with 1,024 others: as much for each packet-hop, 1.0 to 1.3 times.

    Where a NIC asked each in turn, 64 and 512 hosts that all send to all took 6 times as much.
    Now they take 1.4 to 5 times, by what else is in the caches: few hosts have little state.
    """

    def cost(others: int) -> float:
        pairs = [(one, other) for one in range(4) for other in range(4, 4 + others)]
        flows = [(*ends, 160_000) for pair in pairs for ends in (pair, pair[::-1])]
        found = scaling.star(4 + others, flows)
        return float(found["cpu_s"] / found["hops"])

    assert growth(cost, 64, 1024, 3) < 3


@needs_ns3
def test_memory_of_routes() -> None:
    """One message among 2048 hosts: once 385 MB, now 60 MB."""
    command = [sys.executable, scaling.__file__, "route-memory"]  # a child begins with our size
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"2,048 hosts \| (\d+) MB", done.stdout)
    assert found, done.stdout
    assert int(found[1]) < 150
