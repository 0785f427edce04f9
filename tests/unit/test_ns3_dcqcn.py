# SPDX-License-Identifier: MIT
"""DCQCN as published (Zhu et al., SIGCOMM 2015), rule by rule, against formulas."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from astra_bridge.network.api import NetworkConfig
from tests import ns3_networks as net
from tests.ns3_networks import needs_our_devices

GBPS, MTU, HEADER = net.GBPS, net.MTU, net.HEADER
US = 10**6  # ps
RATE, LATENCY_US = 100 * GBPS, 1.0
PACKET_US = (MTU + HEADER) / RATE * 1e6
CNP_US = (HEADER + 16) / RATE * 1e6
# The first packet and its CNP cross two links each; then the rate is halved.
FIRST_CUT_US = 2 * PACKET_US + 2 * CNP_US + 4 * LATENCY_US

pytestmark = needs_our_devices


def one_flow(thresholds: str, **options: object) -> NetworkConfig:
    """0 -> switch 2 -> 1; switches mark what leaves more than ``thresholds`` bytes behind."""
    defaults: dict[str, object] = {
        "congestion_control": "dcqcn-sigcomm15",
        "ecn_map": f"{RATE * 8:.0f}:{thresholds}:1",
        "cc_MinRate": 10**6,
    }
    cables = [(0, 2, RATE, int(LATENCY_US * US)), (2, 1, RATE, int(LATENCY_US * US))]
    return net.config(2, cables, **(defaults | options))


ALWAYS, QUEUED = "-1:-1", "0:0"


def time_us(config: NetworkConfig, packets: int) -> tuple[float, dict[str, Any]]:
    [time], stats = net.run(config, [(0, 1, packets * MTU, 0)])
    return time / US, stats


def finish_us(packets: float, segments: list[tuple[float, float]]) -> float:
    """When all packets have arrived, where from so many us on they leave at a share of the rate."""
    for (start, share), (end, _) in pairwise([*segments, (math.inf, 0.0)]):
        sent = (end - start) * share / PACKET_US
        if sent >= packets:
            return start + packets * PACKET_US / share + PACKET_US + 2 * LATENCY_US
        packets -= sent
    raise AssertionError


@pytest.mark.parametrize("interval_us", [20.0, 50.0])
@pytest.mark.parametrize("cuts", [1, 2, 4])
def test_a_receiver_paces_its_cnps_and_each_halves_the_rate(interval_us: float, cuts: int) -> None:
    # With alpha 1, which a CNP leaves at 1, and an increase timer that a CNP starts anew.
    segments = [(0.0, 1.0)]
    segments += [(FIRST_CUT_US + k * interval_us, 0.5 ** (k + 1)) for k in range(cuts)]
    end_us = FIRST_CUT_US + (cuts - 0.3) * interval_us
    packets = round(
        sum(
            (min(end, end_us) - start) * share / PACKET_US
            for (start, share), (end, _) in pairwise([*segments, (math.inf, 0.0)])
        )
    )
    time, stats = time_us(one_flow(ALWAYS, cc_CnpInterval=interval_us), packets)
    assert stats["ecn_marks"] == packets
    assert stats["cnps"] == cuts
    # Every CNP waits for a marked packet, which come one packet's time apart.
    assert time == pytest.approx(finish_us(packets, segments), abs=2 * PACKET_US * 2**cuts)


@pytest.mark.parametrize("interval_us", [30.0, 55.0])
def test_fast_recovery_by_the_timer(interval_us: float) -> None:
    # After one CNP the rate goes half way back to the target, the line rate, at every expiry.
    config = one_flow(ALWAYS, cc_CnpInterval=1e6, cc_IncreaseInterval=interval_us)
    packets = 10_000
    time, stats = time_us(config, packets)
    assert stats["cnps"] == 1
    segments = [(0.0, 1.0)]
    segments += [(FIRST_CUT_US + k * interval_us, 1 - 0.5 ** (k + 1)) for k in range(40)]
    assert time == pytest.approx(finish_us(packets, segments), abs=2 * PACKET_US)


@pytest.mark.parametrize("byte_counter", [100_000, 1_000_000])
def test_fast_recovery_by_the_byte_counter(byte_counter: int) -> None:
    config = one_flow(
        ALWAYS, cc_CnpInterval=1e6, cc_IncreaseInterval=1e6, cc_ByteCounter=byte_counter
    )
    packets = 10_000
    time, stats = time_us(config, packets)
    assert stats["cnps"] == 1
    segments, at = [(0.0, 1.0)], FIRST_CUT_US
    for k in range(40):
        segments.append((at, 1 - 0.5 ** (k + 1)))
        at += byte_counter / MTU * PACKET_US / segments[-1][1]
    assert time == pytest.approx(finish_us(packets, segments), abs=20 * PACKET_US)


@pytest.mark.parametrize("gain", [1 / 16, 1 / 256])
def test_alpha_falls_without_cnps(gain: float) -> None:
    # The second CNP comes when alpha has been multiplied by 1 - g at every alpha interval.
    second_us, alpha_us, increase_us = 1000.0, 55.0, 40.0
    config = one_flow(
        ALWAYS,
        cc_CnpInterval=second_us,
        cc_AlphaInterval=alpha_us,
        cc_IncreaseInterval=increase_us,
        cc_Gain=gain,
    )
    packets = 5_000
    time, stats = time_us(config, packets)
    assert stats["cnps"] == 2
    alpha = (1 - gain) ** math.floor(second_us / alpha_us)
    segments = [(0.0, 1.0)]
    for start, cut in ((FIRST_CUT_US, 0.5), (FIRST_CUT_US + second_us, alpha / 2)):
        segments += [(start + k * increase_us, 1 - cut * 0.5**k) for k in range(24)]
    assert time == pytest.approx(finish_us(packets, segments), abs=3 * PACKET_US)


def growth(**options: object) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Times [s] and rates [bit/s] of a flow whose way was narrow for 300 us."""
    config = one_flow(QUEUED, sample_interval_us=5, **options)
    faults = [(2, 0, 0.1), (2, 300 * US, 1.0)]
    _, stats = net.run(config, [(0, 1, 20_000 * MTU, 0)], faults)
    assert stats["cnps"] >= 6  # one per 50 us, and none since
    samples = stats["tables"]["queues"]
    mine = np.asarray(samples["link"]) == 0
    time_s = np.asarray(samples["time_ps"])[mine] * 1e-12
    sent = np.asarray(samples["tx_bytes"])[mine] * 8.0
    window = 22  # samples: two increase intervals
    rate = (sent[window:] - sent[:-window]) / (time_s[window:] - time_s[:-window])
    middle = (time_s[window:] + time_s[:-window]) / 2
    late = middle > 600e-6
    return middle[late], rate[late]


def crossing_s(growing: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], gbps: float) -> float:
    time_s, rate = growing
    assert rate[0] < gbps * 1e9 < rate[-1]
    return float(time_s[np.argmax(rate >= gbps * 1e9)])


def test_additive_increase() -> None:
    # With the timer alone the target grows by R_AI per interval, and the rate behind it.
    additive, interval_us = 500_000_000, 55.0
    growing = growth(cc_AdditiveRate=additive, cc_ByteCounter=10**9)
    took = crossing_s(growing, 35) - crossing_s(growing, 10)
    assert took == pytest.approx(25e9 / additive * interval_us * 1e-6, rel=0.03)


def test_hyper_increase() -> None:
    # Both counters are past F: R_HAI per interval T and per B bytes, dR/dt = R_HAI (1/T + R/8B).
    hyper, byte_counter, interval_us = 600_000_000, 100_000, 55.0
    growing = growth(cc_AdditiveRate=hyper, cc_HyperRate=hyper, cc_ByteCounter=byte_counter)
    slower = growth(cc_AdditiveRate=hyper, cc_HyperRate=hyper // 2, cc_ByteCounter=byte_counter)
    wire = byte_counter / MTU * (MTU + HEADER) * 8  # bits that cross the link per expiry
    base = wire / (interval_us * 1e-6)
    for step, curve in ((hyper, growing), (hyper // 2, slower)):
        took = crossing_s(curve, 60) - crossing_s(curve, 42)
        expected = math.log((60e9 + base) / (42e9 + base)) * wire / step
        assert took == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("senders", [2, 4])
def test_senders_share_a_link_without_loss(senders: int) -> None:
    config = net.dumbbell(
        senders,
        40 * GBPS,
        US,
        congestion_control="dcqcn-sigcomm15",
        cc_ByteCounter=10_000_000,
        mtu_bytes=1000,
    )
    flows = [(i, senders + i, 10_000_000, 0) for i in range(senders)]
    times, stats = net.run(config, flows)
    ideal = senders * 10_000 * (1000 + HEADER) / (40 * GBPS) * 1e12
    assert stats["drops"] == 0
    assert 0 < stats["cnps"] <= senders * (max(times) / (50 * US) + 1)
    assert ideal <= max(times) < 1.5 * ideal


def test_the_hpcc_simulators_sends_no_cnps() -> None:
    config = one_flow(ALWAYS, congestion_control="dcqcn")
    _, stats = time_us(config, 1000)
    assert "cnps" not in stats
