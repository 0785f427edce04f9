# SPDX-License-Identifier: MIT
"""ns-3 that moves on by whole periods: the same numbers, in less time; and trains of packets."""

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


def steady(config: NetworkConfig, flows: Any, faults: Any = ()) -> tuple[Any, dict[str, Any], Any]:
    """Relative error of each flow's duration; the statistics with trains, and without."""
    times, plain = net.run(config, flows, faults)
    options = {**config.options, "fast_forward": "steady"}
    with_trains, statistics = net.run(
        NetworkConfig(config.endpoints, config.nodes, config.links, options), flows, faults
    )
    starts = np.array([flow[3] for flow in flows])
    durations = np.array(times) - starts
    return np.abs(np.array(with_trains) - times) / durations, statistics, plain


TRAINS = {"window": "pair", "congestion_control": "dcqcn-sigcomm15"}


def same_bytes(statistics: dict[str, Any], plain: dict[str, Any]) -> bool:
    """But for the acknowledgements that were under way at the end."""
    some, all_of_it = (sum(one["tables"]["links"]["bytes"]) for one in (statistics, plain))
    return bool(abs(some / all_of_it - 1) < 0.005)


def test_trains_carry_the_messages_of_pairs_that_share_no_link() -> None:
    """Each pair at its own time, so that nothing repeats itself as a whole."""
    flows = [
        (host, (host + 1) % 8, 4 * MIB, round(begin * 1.37e6) + host * 137_137)
        for begin in range(0, 2000, 200)
        for host in range(8)
    ]
    error, statistics, plain = steady(star(8, **TRAINS), flows)
    assert error.mean() < 0.01
    assert np.quantile(error, 0.99) < 0.03
    assert statistics["fast_forward_trains"] > 40
    assert statistics["fast_forward_train_packets"] > 0.5 * plain["data_packets"]
    assert statistics["events"] < 0.5 * plain["events"]
    assert 0 < statistics["fast_forward_bound_ppm"] < 30_000
    assert statistics["data_packets"] == plain["data_packets"]
    assert same_bytes(statistics, plain)


def test_a_train_ends_where_another_pair_comes_to_its_link() -> None:
    first = [(0, 1, 4 * MIB, 0), (0, 1, 8 * MIB, 150 * US)]
    joins = [(2, 1, 2 * MIB, 250 * US + 12_345), (0, 3, MIB, 280 * US)]
    error, statistics, plain = steady(star(4, **TRAINS, ecn="false"), first + joins)
    assert error.max() < 0.03
    assert same_bytes(statistics, plain)


def test_a_train_outlives_a_link_that_fails() -> None:
    flows = [(0, 1, 4 * MIB, 150 * US * k) for k in range(4)]
    faults = [(0, 340 * US, 0.0), (0, 360 * US, 1.0)]
    error, statistics, _ = steady(star(2, **TRAINS, rto_us=50), flows, faults)
    assert error[:2].max() < 0.01
    assert statistics["timeouts"] > 0  # and all of it has arrived


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_trains_of_disjoint_pairs_are_in_time(data: st.DataObject) -> None:
    """Whatever the sizes and starts: one partner for each host, both ways."""
    hosts = data.draw(st.sampled_from([2, 4, 6]))
    options = TRAINS | {
        "congestion_control": data.draw(st.sampled_from(["none", "dcqcn", "dcqcn-sigcomm15"])),
        "queue_pairs": data.draw(st.sampled_from([1, 0])),
        "completion": data.draw(st.sampled_from(["data", "ack"])),
    }
    flows = [
        (
            host,
            host ^ 1,
            data.draw(st.integers(1, 2000)) * 2000,
            data.draw(st.integers(0, 900)) * US,
        )
        for host in range(hosts)
        for _ in range(3)
    ]
    error, statistics, plain = steady(star(hosts, **options), flows)
    assert error.mean() < 0.01
    assert statistics["data_packets"] == plain["data_packets"]


def test_a_run_says_what_went_in_trains() -> None:
    result = all_reduce(fast_forward="steady")
    assert re.search(r"packets in .* trains, .* within \d+\.\d\d % on average", summary(result))


def test_the_benchmark_prints_what_a_mode_takes() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "fast_forward.py"
    arguments = ["--layers", "2", "--micro-batches", "1", "--sequence", "128", "--modes", "steady"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, check=True, text=True
    )
    assert re.match(r"steady: \d+\.\d\d CPU s, [\d,]+ packet-hops, .* ns\n", done.stdout)
