# SPDX-License-Identifier: MIT
"""ns-3 that leaves out what is known: the same numbers, in less time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_bridge import simulate
from astra_bridge.cli.summary import summary
from astra_bridge.conformance import run as conformance
from astra_bridge.errors import ContractError
from astra_bridge.network.api import NetworkConfig
from astra_bridge.workload import collective
from tests import ns3_networks as net
from tests.ns3_networks import needs_our_devices
from tests.small import MIB, network, system

GBPS, US = net.GBPS, 10**6

pytestmark = needs_our_devices


def star(hosts: int, rate: float = 400 * GBPS, **options: object) -> NetworkConfig:
    return net.config(hosts, [(host, hosts, rate, US // 2) for host in range(hosts)], **options)


def ring(hosts: int, size: int) -> list[tuple[int, int, int, int]]:
    return [(host, (host + 1) % hosts, size, 0) for host in range(hosts)]


def both(config: NetworkConfig, flows: Any, faults: Any = ()) -> tuple[int, int]:
    """Jumps and nanoseconds that were jumped; all else is the same without."""
    plain = net.run(config, flows, faults)
    options = {**config.options, "fast_forward": "exact"}
    times, statistics = net.run(
        NetworkConfig(config.endpoints, config.nodes, config.links, options), flows, faults
    )
    jumps, jumped_ns = statistics.pop("fast_forward_jumps"), statistics.pop("fast_forward_ns")
    assert (times, statistics) == plain
    return jumps, jumped_ns


@pytest.mark.parametrize("control", ["none", "dcqcn", "dcqcn-sigcomm15"])
def test_a_ring_over_a_switch_is_jumped_nearly_as_a_whole(control: str) -> None:
    config = star(8, congestion_control=control, window="pair")
    jumps, jumped_ns = both(config, ring(8, 32 * MIB))
    packets = 32 * MIB // net.MTU
    assert jumps == 1
    assert jumped_ns > 0.9 * packets * (net.MTU + net.HEADER) / (400 * GBPS) * 1e9


def test_flows_that_share_a_link_in_turn_are_jumped() -> None:
    """Without a mark, four senders to one receiver take turns."""
    jumps, jumped_ns = both(
        star(5, ecn="false", window="pair"), [(i, 4, 4 * MIB, 0) for i in range(4)]
    )
    assert jumps > 0
    assert jumped_ns > 0.5 * 4 * 4 * MIB / (400 * GBPS) * 1e9


def test_nothing_is_jumped_where_random_numbers_decide() -> None:
    config = star(5, congestion_control="dcqcn", ecn_map="400000000000:5000:2000000:0.01")
    jumps, _ = both(config, [(i, 4, MIB, 0) for i in range(4)])
    assert jumps == 0


def test_a_message_that_begins_meanwhile_is_not_jumped_over() -> None:
    flows = [*ring(4, 16 * MIB), (0, 2, MIB, 100 * US + 1), (3, 1, 4 * net.MTU, 150 * US)]
    jumps, _ = both(star(4, congestion_control="dcqcn-sigcomm15", window="pair"), flows)
    assert jumps >= 2


def test_a_fault_is_not_jumped_over() -> None:
    faults = [(0, 50 * US, 0.5), (1, 120 * US, 0.0), (1, 130 * US, 1.0)]
    jumps, _ = both(star(4, window="pair"), ring(4, 16 * MIB), faults)
    assert jumps >= 2


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_number_is_the_same(data: st.DataObject) -> None:
    def draw(*values: Any) -> Any:
        return data.draw(st.sampled_from(values))

    options = {
        "congestion_control": draw("none", "dcqcn", "dcqcn-sigcomm15"),
        "window": draw("none", "pair", "global"),
        "mtu_bytes": draw(1000, 4096),
        "queue_pairs": draw(0, 1, 3),
        "ack_interval_bytes": draw(0, 5000, 16384),
        "ack_high_priority": draw("true", "false"),
        "completion": draw("data", "ack"),
        "tick_ps": draw(1, 1000),
        "ecn": draw("true", "false"),
        "order": draw("plain", "plain", "astra-sim"),
    }
    if options["order"] == "astra-sim":
        options["queue_pairs"] = draw(0, 1)
    hosts = draw(2, 4, 6)
    config = (
        star(hosts, draw(100, 400) * GBPS, **options)
        if draw(True, False)
        else net.leaf_spine(2, hosts // 2, 2, 100 * GBPS, draw(50, 100) * GBPS, US, **options)
    )
    size = st.integers(1, 400) if draw(True, False) else st.just(300)
    flows = [
        (src, dst, data.draw(size) * 4096 - draw(0, 1), draw(0, 0, 7 * US))
        for src, dst in (data.draw(st.permutations(range(hosts)))[:2] for _ in range(draw(1, 2, 5)))
    ]
    if draw(True, False):
        flows = [(host, (host + 1) % hosts, 300 * 4096, 0) for host in range(hosts)] + flows[:1]
    faults = [(draw(0, 1, 2), draw(5, 60) * US, draw(0.5, 0.0, 2.0))] if draw(0, 0, 1) else []
    faults += [(link, at + 30 * US, 1.0) for link, at, _ in faults]
    both(config, flows, faults)


def all_reduce(**options: Any) -> Any:
    work = collective("all-reduce", 32 * MIB, 8)
    return simulate(work, system(), network("Switch", 8), backend="ns3", network_options=options)


def test_a_run_says_what_it_jumped() -> None:
    plain, jumped = all_reduce(), all_reduce(fast_forward="exact")
    assert jumped.finish_ps.tolist() == plain.finish_ps.tolist()
    for name, table in plain.tables.items():
        for column, values in table.items():
            assert np.array_equal(jumped.tables[name][column], values), (name, column)
    assert jumped.network["fast_forward_jumps"] > 0
    assert jumped.network["fast_forward_ns"] > 0.2 * int(plain.finish_ns.max())
    assert "fast_forward_ns" not in plain.network
    assert re.search(r"fast-forward: .* of .* jumped, .* exact", summary(jumped))
    assert "fast-forward" not in summary(plain)


def test_nothing_is_jumped_where_times_in_between_are_wanted() -> None:
    sampled = all_reduce(fast_forward="exact", sample_interval_us="10")
    assert sampled.network["fast_forward_jumps"] == 0
    assert len(sampled.tables["link_load"]) > 0
    assert "none of" in summary(sampled)


def test_an_unknown_value_says_what_is_allowed() -> None:
    with pytest.raises(ContractError, match=r"fast_forward.*'quick'.*off, exact, steady"):
        all_reduce(fast_forward="quick")


@pytest.mark.parametrize("mode", ["exact", "steady"])
def test_conformance_holds(mode: str) -> None:
    verdicts = conformance("ns3", options={"fast_forward": mode})
    assert not [v for v in verdicts if v.outcome == "fail"]


def steady(config: NetworkConfig, flows: Any, faults: Any = (), ties: bool = False) -> float:
    """The share of packet-hops that were left out; all else is the same without.

    With ``ties`` groups of pairs that did the same at the same picosecond meet: which packet is
    then first may be decided otherwise, so that a message may end a little earlier or later.

    Two things are not compared: the count of events, which is of those that were simulated; and in
    which order messages stand in the table that end at the same picosecond in different places.
    """
    plain, there = net.run(config, flows, faults)
    options = {**config.options, "fast_forward": "steady"}
    times, statistics = net.run(
        NetworkConfig(config.endpoints, config.nodes, config.links, options), flows, faults
    )
    left_out = {k: statistics.pop(k) for k in [*statistics] if k.startswith("fast_forward")}
    assert statistics.pop("events") <= there.pop("events") * 1.01 + 100
    for numbers in (there, statistics):
        table = numbers["tables"]["flows"]
        numbers["tables"]["flows"] = sorted(zip(*table.values(), strict=True))
    if ties:
        error = np.abs(np.array(times) - plain) / (np.array(plain) - [flow[3] for flow in flows])
        assert error.mean() < 0.01
        assert np.quantile(error, 0.99) < 0.03
    else:
        assert (times, statistics) == (plain, there)
    return float(left_out["fast_forward_left_out_hops"] / max(1, statistics["packet_hops"]))


STEADY = {"window": "pair", "congestion_control": "dcqcn-sigcomm15"}


def rounds(hosts: int, size: int, period: int, skew: int = 0, shift: int = 1) -> Any:
    """Ten rounds of a ring in which each host begins a little later than the one before it."""
    return [
        (host, (host + shift) % hosts, size, begin * period + host * skew)
        for begin in range(10)
        for host in range(hosts)
    ]


@pytest.mark.parametrize("skew", [0, 137_137])
def test_what_a_component_did_before_is_left_out(skew: int) -> None:
    """Each round begins at a time of its own, so that nothing repeats itself as a whole."""
    assert steady(star(8, **STEADY), rounds(8, 4 * MIB, 274 * US, skew)) > 0.75


def test_components_that_are_alike_learn_from_one_another() -> None:
    """Four pairs of hosts, one after the other: the first one shows the others."""
    flows = [(2 * pair, 2 * pair + 1, 4 * MIB, pair * 500 * US) for pair in range(4)]
    assert steady(star(8, **STEADY), flows) > 0.9


def test_components_that_begin_together_are_simulated_once() -> None:
    sizes = [300 * net.MTU + 1, 700 * net.MTU]
    flows = [(2 * pair, 2 * pair + 1, size, 0) for size in sizes for pair in range(4)]
    assert steady(star(8, **STEADY), flows) > 0.7


def test_messages_that_meet_on_a_link_end_when_they_would() -> None:
    """What was left out is made up for when another pair comes to the link."""
    first = [(0, 1, 4 * MIB, 0), (0, 1, 8 * MIB, 150 * US)]
    joins = [(2, 1, 2 * MIB, 250 * US + 12_345), (0, 3, MIB, 280 * US)]
    assert steady(star(4, **STEADY, ecn="false"), first + joins) > 0.2


@pytest.mark.parametrize(("hosts_per_leaf", "least"), [(2, 0.5), (4, 0.001)])
def test_messages_that_meet_at_spines_end_when_they_would(
    hosts_per_leaf: int, least: float
) -> None:
    """Oversubscribed up to twice, and by chance of ECMP more; every round begins out of step."""
    fabric = net.leaf_spine(4, hosts_per_leaf, 2, 100 * GBPS, 100 * GBPS, US, **STEADY, ecn="false")
    flows = rounds(4 * hosts_per_leaf, 4 * MIB, 1000 * US, 137_137, shift=hosts_per_leaf)
    assert steady(fabric, flows) > least


def test_marks_and_pauses_happen_as_without() -> None:
    options = STEADY | {"window": "none", "buffer_bytes": "600000"}
    marks = "100000000000:20000:80000:0.2"
    fabric = net.leaf_spine(2, 4, 2, 100 * GBPS, 100 * GBPS, US, **options, ecn_map=marks)
    steady(fabric, rounds(8, MIB, 250 * US, shift=4) + rounds(8, MIB, 250 * US, 7, shift=1))


def test_a_link_that_fails_is_not_left_out() -> None:
    flows = [(0, 1, 4 * MIB, 150 * US * k) for k in range(4)]
    faults = [(0, 340 * US, 0.0), (0, 360 * US, 1.0)]
    assert steady(star(2, **STEADY, rto_us=50), flows, faults) > 0.1


# Not at random: a tie may come about by chance as well.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_meets_steady_changes_no_time(data: st.DataObject) -> None:
    def draw(*values: Any) -> Any:
        return data.draw(st.sampled_from(values))

    options = {
        "congestion_control": draw("none", "dcqcn", "dcqcn-sigcomm15"),
        "window": draw("none", "pair", "global"),
        "mtu_bytes": draw(1000, 4096),
        "queue_pairs": draw(1, 1, 2, 0),
        "ack_interval_bytes": draw(0, 5000, 16384),
        "ack_high_priority": draw("true", "false"),
        "completion": draw("data", "ack"),
        "tick_ps": draw(1, 1, 1000),
        "ecn": draw("true", "false"),
        "buffer_bytes": draw(32 << 20, 600_000),
    }
    hosts = draw(4, 8)
    config = (
        star(hosts, draw(100, 400) * GBPS, **options)
        if draw(True, False)
        else net.leaf_spine(2, hosts // 2, 2, 100 * GBPS, draw(50, 100) * GBPS, US, **options)
    )
    size, skew = draw(50, 200, 400) * 4096, draw(0, 0, 137_137)
    flows = [
        (host, (host + shift) % hosts, size, begin * 200 * US + host * skew)
        for begin, shift in enumerate(draw(1, 2, 3) for _ in range(draw(2, 5)))
        for host in range(hosts)
    ]
    flows += [
        (src, dst, draw(1, 77, 200) * 4096 - draw(0, 1), draw(0, 7, 190, 210) * US + 10_007 * src)
        for src, dst in (data.draw(st.permutations(range(hosts)))[:2] for _ in range(draw(0, 1, 3)))
    ]
    faults = [(draw(0, 1, 2), draw(50, 300) * US, draw(0.5, 0.0, 2.0))] if draw(0, 0, 1) else []
    faults += [(link, at + 30 * US, 1.0) for link, at, _ in faults]
    ties = skew == 0 or options["tick_ps"] == 1000
    steady(config, sorted(flows, key=lambda flow: flow[3]), faults, ties)


def test_a_run_says_what_was_left_out() -> None:
    plain, result = all_reduce(), all_reduce(fast_forward="steady")
    assert result.finish_ps.tolist() == plain.finish_ps.tolist()
    assert result.network["fast_forward_replays"] + result.network["fast_forward_repeats"] > 0
    assert re.search(r"\d+\.\d% of the packet-hops left out", summary(result))


def test_the_benchmark_prints_what_a_mode_takes() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "fast_forward.py"
    arguments = ["--layers", "2", "--micro-batches", "1", "--sequence", "128", "--modes", "steady"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, check=True, text=True
    )
    assert re.match(r"steady: \d+\.\d\d CPU s, [\d,]+ packet-hops, .* ns\n", done.stdout)
