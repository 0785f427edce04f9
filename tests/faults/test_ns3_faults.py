# SPDX-License-Identifier: MIT
"""Links of the ns-3 backend that lose packets, slow down, fail and recover."""

from __future__ import annotations

import numpy as np
import pytest

from astra_bridge.errors import SimulationError
from astra_bridge.network.api import LINK, NetworkConfig
from tests import ns3_fuzz
from tests import ns3_networks as net
from tests.ns3_networks import needs_our_devices

GBPS, MTU = net.GBPS, net.MTU
US = 10**6  # ps
RATE, LATENCY, BYTES = 100 * GBPS, 1 * US, 1000 * MTU

pytestmark = needs_our_devices


def two_paths(**options: object) -> NetworkConfig:
    """0 and 1 joined by two spines; links 2 and 3 belong to spine 4, 4 and 5 to spine 5."""
    cables = [(0, 2, RATE, LATENCY), (2, 4, RATE, LATENCY), (2, 5, RATE, LATENCY)]
    cables += [(3, 4, RATE, LATENCY), (3, 5, RATE, LATENCY), (3, 1, RATE, LATENCY)]
    return net.config(2, cables, rto_us=200, **options)


def lossy(loss: float, seed: int = 1, **options: object) -> NetworkConfig:
    rows = [(0, 2, loss), (2, 0, loss), (2, 1, 0.0), (1, 2, 0.0)]
    links = np.array([(a, b, RATE, LATENCY, rate) for a, b, rate in rows], LINK)
    named = {"congestion_control": "none", "window": "pair", "rto_us": 100, "seed": seed}
    return NetworkConfig(2, 3, links, {k: str(v) for k, v in (named | options).items()})


@pytest.mark.parametrize("loss", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("back_to_zero", ["false", "true"])
def test_lost_packets_are_sent_again(loss: float, back_to_zero: str) -> None:
    options = {"nack_interval_us": 5, "back_to_zero": back_to_zero, "retry_limit": 30}
    if back_to_zero == "true":
        options |= {"queue_pairs": 0, "loss_recovery": "go-back-n", "mtu_bytes": 1000}
    [time], stats = net.run(lossy(loss, **options), [(0, 1, BYTES, 0)])
    [clean], none = net.run(lossy(0.0, **options), [(0, 1, BYTES, 0)])
    assert none["retransmissions"] == 0
    assert stats["retransmissions"] > 0
    assert stats["lost"] > 0
    assert clean < time
    assert sum(stats["tables"]["flows"]["retransmitted_bytes"]) > 0


def test_losses_depend_on_the_seed_alone() -> None:
    flows = [(0, 1, BYTES, 0), (1, 0, BYTES, 0)]
    first = net.run(lossy(0.01), flows)
    assert net.run(lossy(0.01), flows) == first
    assert net.run(lossy(0.01, seed=2), flows)[0] != first[0]


@pytest.mark.parametrize("victim", ["data", "acknowledgement"])
def test_a_lost_end_does_not_hang(victim: str) -> None:
    # Everything is lost in one direction for a while, then the link works again.
    link = 0 if victim == "data" else 1
    config = net.config(2, [(0, 1, RATE, LATENCY)], rto_us=100, completion="ack")
    [time], stats = net.run(
        config, [(0, 1, MTU, 0)], faults=[(link, 500_000, 0.0), (link, 50 * US, 1.0)]
    )
    assert stats["timeouts"] >= 1
    assert time > 100 * US


def test_traffic_moves_to_the_other_path() -> None:
    [clean], before = net.run(two_paths(), [(0, 1, BYTES, 0)])
    links = before["tables"]["links"]
    used = next(link for link in (2, 4) if links["packets"][link] > 0)
    [time], stats = net.run(two_paths(), [(0, 1, BYTES, 0)], faults=[(used, clean // 2, 0.0)])
    other = 6 - used
    assert stats["tables"]["links"]["packets"][other] > 0
    assert stats["lost"] > 0
    # What was on the dead link is lost and sent again.
    assert clean < time < 3 * clean


def test_a_connection_that_rests_while_its_link_fails_goes_on_by_the_other_path() -> None:
    flows = [(0, 1, BYTES, 0), (0, 1, BYTES, 4000 * US)]
    [clean, _], before = net.run(two_paths(), flows)
    links = before["tables"]["links"]
    used = next(link for link in (2, 4) if links["packets"][link] > 0)
    down, up = 2000 * US, 9000 * US
    faults = [(used, down, 0.0), (used, up, 1.0)]
    assert clean < down
    times, stats = net.run(two_paths(), [*flows, (0, 1, BYTES, 12000 * US)], faults)
    # Each as long as the first: nothing is lost, and by the other path it is as far.
    assert [
        time - start
        for time, (_, _, _, start) in zip(times[1:], (flows[1], (0, 1, 0, 12000 * US)), strict=True)
    ] == [clean, clean]
    assert stats["retransmissions"] == stats["lost"] == 0
    sent = stats["tables"]["links"]["packets"]
    assert sent[6 - used] == sent[used] // 2 > 0


def test_a_failed_link_that_recovers_only_delays() -> None:
    config = net.dumbbell(1, RATE, LATENCY, rto_us=200)
    [clean], _ = net.run(config, [(0, 1, BYTES, 0)])
    down, up = clean // 2, clean // 2 + 1000 * US
    [time], _ = net.run(config, [(0, 1, BYTES, 0)], faults=[(4, down, 0.0), (4, up, 1.0)])
    assert time > up


def test_a_cut_network_names_the_transfer() -> None:
    config = net.dumbbell(2, RATE, LATENCY, rto_us=200)
    with pytest.raises(SimulationError, match=rf"transfer 1 \(1 -> 3, \d+ of {BYTES} bytes"):
        net.run(config, [(0, 2, MTU, 0), (1, 3, BYTES, 0)], faults=[(8, 20 * US, 0.0)])


@pytest.mark.parametrize("window", ["none", "pair"])
@pytest.mark.parametrize("control", net.CONTROLS)
def test_answers_and_timers_of_a_sender_that_is_cut_off(control: str, window: str) -> None:
    """Its own cable fails in one direction, while acknowledgements and marks still come back."""
    senders = 4
    cables = [(i, senders + 1, RATE, LATENCY) for i in range(senders + 1)]
    config = net.config(senders + 1, cables, rto_us=200, congestion_control=control, window=window)
    flows = [(i, senders, BYTES, 0) for i in range(senders)]
    faults = [(0, at * US, up) for at in (30, 400, 700) for at, up in ((at, 0.0), (at + 60, 1.0))]
    times, stats = net.run(config, flows, faults)
    whole, _ = net.run(config, flows)
    assert min(times) > 0
    assert times[0] != whole[0]
    assert stats["retransmissions"] > 0


@pytest.mark.parametrize("scale", [0.25, 0.5])
def test_a_slow_link(scale: float) -> None:
    config = net.dumbbell(1, RATE, LATENCY)
    [time], _ = net.run(config, [(0, 1, BYTES, 0)], faults=[(4, 0, scale)])
    packet_ps = (MTU + net.HEADER) / RATE * 1e12
    # All packets at the slow link, the first and last hop of one packet, three delays.
    assert time == pytest.approx(BYTES / MTU * packet_ps / scale + 2 * packet_ps + 3 * LATENCY)


def test_faults_can_stand_in_the_options() -> None:
    [clean], _ = net.run(net.dumbbell(1, RATE, LATENCY), [(0, 1, BYTES, 0)])
    slow = net.dumbbell(1, RATE, LATENCY, faults="0:4:0.5")
    assert net.run(slow, [(0, 1, BYTES, 0)])[0] == [
        net.run(net.dumbbell(1, RATE, LATENCY), [(0, 1, BYTES, 0)], faults=[(4, 0, 0.5)])[0][0]
    ]
    assert net.run(slow, [(0, 1, BYTES, 0)])[0][0] > 1.9 * clean


def test_a_cycle_of_pauses_is_a_deadlock() -> None:
    # Five switches in a ring; every flow takes two of its links, and waits for the next one's.
    ring = 5
    cables = [(i, ring + i, RATE, LATENCY) for i in range(ring)]
    cables += [(ring + i, ring + (i + 1) % ring, RATE / 2, LATENCY) for i in range(ring)]
    config = net.config(ring, cables, buffer_bytes=400_000, ecn="false", rto_us=500)
    with pytest.raises(SimulationError, match=r"deadlock: nothing has moved .* transfer 0 \("):
        net.run(config, [(i, (i + 2) % ring, 3 * BYTES, 0) for i in range(ring)])


def test_a_transfer_that_starts_without_a_route_waits_for_one() -> None:
    config = net.dumbbell(1, RATE, LATENCY, rto_us=200)
    up = 300 * US
    faults = [(4, 10 * US, 0.0), (4, up, 1.0)]
    # The first transfer's record is free again when the second one starts on the cut network.
    [early, late], _ = net.run(config, [(0, 1, MTU, 0), (0, 1, BYTES, 100 * US)], faults)
    assert early < 10 * US
    packet_ps = (MTU + net.HEADER) / RATE * 1e12
    assert late >= up + BYTES / MTU * packet_ps
    assert late < up + 200 * US + BYTES / MTU * packet_ps + 10 * US


@pytest.mark.parametrize("direction", [0, 1])
def test_tcp_over_a_dead_cable_ends(direction: int) -> None:
    """One flow is done, and would say goodbye over the dead cable for ever; the other gives up."""
    cables = [(0, 2, RATE, LATENCY), (1, 2, RATE, LATENCY)]
    named = net.config(2, cables)
    config = NetworkConfig(2, named.nodes, named.links, {"transport": "tcp", "rto_us": "100"})
    flows = [(0, 1, MTU, 0), (0, 1, 10 * BYTES, 0)]
    with pytest.raises(SimulationError, match=r"TCP gives transfer 1 up .*; waiting: transfer 1 "):
        net.run(config, flows, [(direction, 100 * US, 0.0)])


def test_any_network_whose_links_fail_ends() -> None:
    said = [ns3_fuzz.attack(seed) for seed in range(100)]
    assert [wrong for _, wrong in said if wrong] == []
    assert {what for what, _ in said} == {"ran", "failed"}
