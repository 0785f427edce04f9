# SPDX-License-Identifier: MIT
"""Slow and long links are healthy; only a network in which nothing can move is a deadlock."""

from __future__ import annotations

import itertools

import pytest

from astra_bridge.errors import SimulationError
from tests import ns3_networks as net
from tests.ns3_networks import needs_our_devices

GBPS, MTU = net.GBPS, net.MTU
MS = 10**9  # ps

pytestmark = needs_our_devices


@pytest.mark.parametrize("latency_ps", [5 * MS, 1000 * MS, 100_000 * MS])
@pytest.mark.parametrize("window", ["none", "pair"])
@pytest.mark.parametrize("order", ["plain", "astra-sim"])
def test_a_long_link(latency_ps: int, window: str, order: str) -> None:
    rate = 400 * GBPS
    config = net.config(2, [(0, 1, rate, latency_ps)], window=window, order=order)
    [time], stats = net.run(config, [(0, 1, 10 * MTU, 0)])
    assert time == pytest.approx(10 * (MTU + net.HEADER) / rate * 1e12 + latency_ps, rel=1e-9)
    assert stats["timeouts"] == stats["retransmissions"] == 0


@pytest.mark.parametrize("bytes_per_s", [1.0, 1000.0, 100_000.0])
def test_a_slow_link_that_many_share(bytes_per_s: float) -> None:
    # Each of the pairs waits for its turn longer than any timeout.
    hosts, size = 6, 3 * MTU
    cables = [(host, hosts, bytes_per_s, MS) for host in range(hosts)]
    flows = [(a, b, size, 0) for a, b in itertools.permutations(range(hosts), 2)]
    times, stats = net.run(net.config(hosts, cables, window="pair"), flows)
    assert stats["timeouts"] == stats["retransmissions"] == 0
    # What one host sends and receives crosses its link once each way, beside acknowledgements.
    alone = (hosts - 1) * 3 * (MTU + net.HEADER) / bytes_per_s * 1e12
    assert alone < max(times) < 3 * alone


@pytest.mark.parametrize("control", ["dcqcn", "dcqcn-sigcomm15"])
def test_marks_on_a_slow_link_cost_no_timers(control: str) -> None:
    # Twenty minutes of simulated time have hundreds of millions of DCQCN's intervals.
    rate, packets = 1000.0, 600
    cables = [(0, 3, rate, 1000 * MS), (1, 3, rate, 1000 * MS), (2, 3, rate, 1000 * MS)]
    flows = [(0, 2, packets * MTU, 0), (1, 2, packets * MTU, 0)]
    times, stats = net.run(net.config(3, cables, congestion_control=control), flows)
    assert stats["ecn_marks"] > 0
    assert max(times) >= 2 * packets * (MTU + net.HEADER) / rate * 1e12
    assert stats["events"] < 100 * packets


@pytest.mark.parametrize("latency_ps", [MS // 1000, 5 * MS])
@pytest.mark.parametrize("rate", [GBPS / 10, 100 * GBPS])
def test_a_cycle_of_pauses_is_found(latency_ps: int, rate: float) -> None:
    ring = 5
    cables = [(i, ring + i, rate, latency_ps) for i in range(ring)]
    cables += [(ring + i, ring + (i + 1) % ring, rate / 2, latency_ps) for i in range(ring)]
    wire = int(rate * latency_ps * 1e-12)
    config = net.config(ring, cables, buffer_bytes=400_000 + 12 * wire, ecn="false", rto_us=500)
    flows = [(i, (i + 2) % ring, 3_000_000 + 100 * wire, 0) for i in range(ring)]
    with pytest.raises(SimulationError, match="deadlock"):
        net.run(config, flows)
