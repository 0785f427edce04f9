# SPDX-License-Identifier: MIT
"""Queue pairs of the ns-3 backend that live as long as the run, and what repairs their losses."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_bridge import fabrics, simulate
from astra_bridge.cli.summary import summary
from astra_bridge.fabrics import rail
from astra_bridge.inputs.network import NetworkLinks
from astra_bridge.network.api import LINK, NetworkConfig
from astra_bridge.topology import topology_of
from astra_bridge.trace import CommType
from astra_bridge.workload import TraceBuilder
from tests import ns3_networks as net
from tests.ns3_networks import needs_our_devices
from tests.small import MIB, per_rank, same_on_all, system

GBPS, MTU, HEADER = net.GBPS, net.MTU, net.HEADER
US = 10**6  # ps
RATE, LATENCY = 100 * GBPS, 1 * US

pytestmark = needs_our_devices


def packet_ps(payload: int = MTU, rate: float = RATE) -> int:
    return math.floor((payload + HEADER) / rate * 1e12 + 0.5)


def test_messages_of_a_pair_come_one_after_the_other() -> None:
    packets, messages = 5, 7
    config = net.config(2, [(0, 1, RATE, LATENCY)])
    times, _ = net.run(config, [(0, 1, packets * MTU, 0)] * messages)
    assert times == [(i + 1) * packets * packet_ps() + LATENCY for i in range(messages)]


@pytest.mark.parametrize("queue_pairs", [2, 3])
def test_messages_take_several_queue_pairs_in_turn(queue_pairs: int) -> None:
    packets = 10
    config = net.config(2, [(0, 1, RATE, LATENCY)], queue_pairs=queue_pairs)
    times, _ = net.run(config, [(0, 1, packets * MTU, 0)] * (2 * queue_pairs))
    # Those that are served together end one packet apart, in the order in which they came.
    first = ((packets - 1) * queue_pairs + 1) * packet_ps() + LATENCY
    assert times[:queue_pairs] == [first + i * packet_ps() for i in range(queue_pairs)]
    assert times[-1] == 2 * queue_pairs * packets * packet_ps() + LATENCY


def test_classes_have_queue_pairs_of_their_own() -> None:
    config = net.config(2, [(0, 1, RATE, LATENCY)])
    transfers = np.zeros(2, net.TRANSFER)
    for number in range(2):
        transfers[number] = (number, 0, 10 * MTU, 0, 1, number, 0, 0)
    with net.NS3.open(config) as network:
        network.submit(transfers)
        times: list[int] = []
        while len(times) < 2:
            network.advance(net.TIME_NEVER, 10**12)
            times += [int(record["time_ps"]) for record in network.poll()]
    assert times == [19 * packet_ps() + LATENCY, 20 * packet_ps() + LATENCY]


@pytest.mark.parametrize(
    "control", ["dcqcn", "dcqcn-sigcomm15", "hpcc", "dctcp", "timely", "swift"]
)
def test_a_rate_is_kept_from_one_message_to_the_next(control: str) -> None:
    """Two senders share a link; one goes on alone, at the rate that it had."""
    size, marks = 2_000_000, f"{RATE * 8:.0f}:10000:40000:1"
    flows = [(0, 2, size, 0), (1, 3, size, 0), (0, 2, size, 0)]
    options = {"congestion_control": control, "window": "pair", "ecn_map": marks}
    times, _ = net.run(net.dumbbell(2, RATE, LATENCY, **options), flows)
    alone, _ = net.run(net.dumbbell(2, RATE, LATENCY, **options), [(0, 2, size, 0)])
    assert times[2] - times[0] > alone[0] - 10 * LATENCY
    assert times == sorted(times, key=lambda time: times.index(time))


@pytest.mark.parametrize("interval", [1, 16384, 65536])
def test_acknowledgements_are_asked_for(interval: int) -> None:
    packets = 64
    config = net.config(2, [(0, 1, RATE, LATENCY)], ack_interval_bytes=interval, completion="ack")
    _, stats = net.run(config, [(0, 1, packets * MTU, 0), (0, 1, 1, 0)])
    # One per interval, and one for the last packet of each message.
    answers = stats["tables"]["links"]["packets"][1]
    assert answers == packets // max(1, interval // MTU) + 1


def test_a_closed_window_asks_at_once() -> None:
    # The window holds less than the interval between acknowledgements.
    packets = 200
    options = {"window": "pair", "ack_interval_bytes": 1 << 20, "congestion_control": "swift"}
    [time], stats = net.run(net.dumbbell(1, RATE, LATENCY, **options), [(0, 1, packets * MTU, 0)])
    assert stats["timeouts"] == 0
    assert time < 2 * (packets + 2) * packet_ps() + 3 * LATENCY


def lossy(loss: float, **options: object) -> NetworkConfig:
    rows = [(0, 2, loss), (2, 0, loss), (2, 1, 0.0), (1, 2, 0.0)]
    links = np.array([(a, b, RATE, LATENCY, rate) for a, b, rate in rows], LINK)
    named = {"congestion_control": "none", "window": "none", "rto_us": 100, "retry_limit": 30}
    return NetworkConfig(2, 3, links, {k: str(v) for k, v in (named | options).items()})


@pytest.mark.parametrize("window", ["none", "pair"])
@pytest.mark.parametrize("loss", [0.001, 0.01, 0.1])
def test_selective_repeat_sends_only_what_is_lost(loss: float, window: str) -> None:
    packets, messages = 500, 4
    flows = [(0, 1, packets * MTU - 17, 0)] * messages
    times, stats = net.run(lossy(loss, window=window), flows)
    assert times == sorted(times)
    links = stats["tables"]["links"]
    again = stats["data_packets"] - packets * messages
    assert links["lost"][0] > 0
    # Beside lost data, one packet asks anew when the last acknowledgement is lost.
    assert links["lost"][0] <= again <= links["lost"][0] + stats["timeouts"] + links["lost"][1]
    repeated, late = net.run(lossy(loss, window=window, loss_recovery="go-back-n"), flows)
    assert late["data_packets"] > stats["data_packets"]
    assert max(repeated) > max(times)


@pytest.mark.parametrize("routing", ["spray", "adaptive"])
@pytest.mark.parametrize("control", ["none", "dcqcn", "hpcc"])
def test_packets_out_of_order_are_not_lost(routing: str, control: str) -> None:
    spines, hosts, packets = 4, 4, 400
    config = net.leaf_spine(
        2, hosts, spines, RATE, RATE, LATENCY, routing=routing, congestion_control=control
    )
    flows = [(i, hosts + i, packets * MTU, 0) for i in range(hosts) for _ in range(2)]
    times, stats = net.run(config, flows)
    assert stats["retransmissions"] == stats["timeouts"] == stats["drops"] == 0
    assert stats["data_packets"] == len(flows) * packets
    links = stats["tables"]["links"]
    up = [
        int(sent)
        for src, dst, sent in zip(links["src"], links["dst"], links["bytes"], strict=True)
        if src == 2 * hosts and dst >= 2 * hosts + 2
    ]
    assert max(up) < 1.2 * min(up)  # by flow some would be empty
    whole = 2 * packets * packet_ps()
    assert whole < max(times) < 1.35 * whole
    assert times[::2] < times[1::2]


def test_packets_out_of_order_and_lost() -> None:
    base = net.leaf_spine(2, 2, 4, RATE, RATE, LATENCY, routing="spray", rto_us=200)
    base.links["loss"][8:] = 0.01
    flows = [(i, 2 + i, 100 * MTU, 0) for i in range(2) for _ in range(5)]
    times, stats = net.run(base, flows)
    assert stats["lost"] > 0
    assert stats["timeouts"] > 0
    for pair in (times[:5], times[5:]):
        assert pair == sorted(pair)


@st.composite
def networks(draw: st.DrawFn) -> tuple[NetworkConfig, list[tuple[int, int, int, int]]]:
    rates = st.sampled_from([10, 25, 100, 400])
    leaves, hosts, spines = (
        draw(st.integers(1, 3)),
        draw(st.integers(2, 3)),
        draw(st.integers(1, 3)),
    )
    config = net.leaf_spine(leaves, hosts, spines, RATE, RATE, LATENCY)
    for cable in range(len(config.links) // 2):
        both = slice(2 * cable, 2 * cable + 2)
        config.links["bytes_per_second"][both] = draw(rates) * GBPS
        config.links["latency_ps"][both] = draw(st.sampled_from([0, 1000, US]))
    options = {
        "congestion_control": draw(st.sampled_from(["none", "dcqcn", "hpcc"])),
        "window": draw(st.sampled_from(["none", "pair"])),
        "mtu_bytes": str(draw(st.sampled_from([500, 4096]))),
        "queue_pairs": str(draw(st.integers(0, 2))),
        "completion": draw(st.sampled_from(["data", "ack"])),
        "routing": draw(st.sampled_from(["ecmp", "static", "spray", "adaptive"])),
        "tick_ps": draw(st.sampled_from(["1", "1000"])),
    }
    count = leaves * hosts
    flow = st.tuples(st.integers(0, count - 1), st.integers(1, count - 1))
    sizes = st.sampled_from([1, 499, 501, 4096, 4097, 40_000, 300_000])
    flows = [
        (src, (src + step) % count, draw(sizes), draw(st.integers(0, 10**6)))
        for src, step in draw(st.lists(flow, min_size=1, max_size=12))
    ]
    return NetworkConfig(config.endpoints, config.nodes, config.links, options), flows


@settings(max_examples=80, deadline=None)
@given(networks())
def test_no_flow_is_faster_than_alone(drawn: tuple[NetworkConfig, list[Any]]) -> None:
    config, flows = drawn
    _, stats = net.run(config, flows)
    table = stats["tables"]["flows"]
    assert len(table["fct_ps"]) == len(flows)
    assert all(np.array(table["fct_ps"]) >= np.array(table["ideal_fct_ps"]))


@pytest.mark.parametrize("completion", ["data", "ack"])
@pytest.mark.parametrize("size", [1, MTU, 10 * MTU + 1, 999_999])
@pytest.mark.parametrize("slow", [0, 1, 2, 3])
def test_a_flow_that_is_alone_takes_its_ideal_time(size: int, slow: int, completion: str) -> None:
    cables = [(0, 2, RATE, LATENCY), (2, 3, RATE, 0), (3, 4, RATE, US), (4, 1, RATE, LATENCY)]
    config = net.config(2, cables, completion=completion)
    config.links["bytes_per_second"][2 * slow : 2 * slow + 2] /= 3
    [time], stats = net.run(config, [(0, 1, size, 0)])
    assert stats["tables"]["flows"]["ideal_fct_ps"] == [time]


@pytest.mark.parametrize("routing", ["ecmp", "static"])
@pytest.mark.parametrize("spines", [3, 8])
def test_a_file_of_links_loads_the_same_links_as_in_the_quick_model(
    routing: str, spines: int
) -> None:
    hosts, leaves, size = 8, 3, 1 << 16
    endpoints = hosts * leaves
    topology = net.leaf_spine(leaves, hosts, spines, RATE, RATE, LATENCY)
    network = {
        "endpoints": endpoints,
        "switches": leaves + spines,
        "routing": routing,
        "links": [
            {"src": int(link["src"]), "dst": int(link["dst"]), "bandwidth": 12.5, "latency": 500}
            for link in topology.links[::2]
        ],
    }
    trace = same_on_all(endpoints, lambda one: one.coll(CommType.ALL_TO_ALL, endpoints * size))
    used = {}
    for backend in ("ns3", "analytical-aware"):
        result = simulate(trace, system("direct"), network, backend=backend)
        table = result.tables["links"]
        used[backend] = {
            (int(src), int(dst)): int(sent)
            for src, dst, sent in zip(table["src"], table["dst"], table["bytes"], strict=True)
            if sent > 0 and src < dst  # to spines, and none the other way
        }
    quick, packets = used["analytical-aware"], used["ns3"]
    share = math.ceil(size / MTU) * HEADER / size
    assert max(quick.values()) > min(quick.values())
    for ends, sent in quick.items():
        # Headers, and acknowledgements that come the other way.
        assert sent * (1 + share) <= packets[ends] < sent * (1 + 1.5 * share) + 10_000


@pytest.mark.parametrize("name", ["fat_tree", "dragonfly", "torus", "hgx", "rail"])
def test_flows_share_fabrics_as_max_min_fairness_has_it(name: str) -> None:
    network = {
        "fat_tree": lambda: fabrics.fat_tree(64),
        "dragonfly": lambda: fabrics.dragonfly(64),
        "torus": lambda: fabrics.torus(dims=(4, 4)),
        "hgx": lambda: fabrics.hgx(8),
        "rail": lambda: fabrics.rail(64, hosts_per_leaf=4, planes=2),
    }[name]()
    trace = same_on_all(network.endpoints, lambda one: one.coll(CommType.ALL_REDUCE, 8 * MIB))
    fast = system(["ring"] * len(network.dims), local_mem_bw=1600, active_chunks_per_dimension=4)
    fair, packets = (
        max(simulate(trace, fast, network, backend=backend).finish_ns)
        for backend in ("flow", "ns3")
    )
    # Headers take 2 %, and packets are stored and forwarded.  Where rings meet on uplinks of a fat
    # tree, a queue that is first come, first served lets a message pass that came just before, and
    # its ring runs ahead of those that it met: 8 %, with any congestion control or none.
    assert fair < packets < (1.12 if name == "fat_tree" else 1.04) * fair


def two_leaves(hosts: int) -> NetworkLinks:
    """Hosts of 8 GPUs; each rail has two leaves."""
    return rail(8 * hosts, hosts_per_leaf=hosts // 2)


def test_a_ring_over_two_leaves_forms_no_convoys() -> None:
    network = two_leaves(32)
    ranks = topology_of(network).endpoints
    trace = same_on_all(ranks, lambda one: one.coll(CommType.ALL_REDUCE, 16 * MIB))
    fast = system(["ring", "ring"], local_mem_bw=1600, active_chunks_per_dimension=4)

    def finish_ns(backend: str, **options: str) -> int:
        result = simulate(trace, fast, network, backend=backend, network_options=options)
        return int(max(result.finish_ns))

    fair = finish_ns("flow")
    assert fair < finish_ns("ns3") < 1.1 * fair
    assert finish_ns("ns3", queue_pairs="0") > 1.2 * fair  # where messages share their pair's link


def test_the_terminal_names_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = 17
    network = {
        "endpoints": hosts,
        "switches": 1,
        "links": [
            {"src": host, "dst": hosts, "bandwidth": 10, "latency": 500} for host in range(hosts)
        ],
    }

    def fill(trace: TraceBuilder, rank: int) -> None:
        for src in range(1, hosts):
            if rank == 0:
                trace.recv(src, 2 * MIB, src)
            elif rank == src:
                trace.send(0, 2 * MIB, src)

    def told(**options: object) -> str:
        named = {key: str(value) for key, value in options.items()}
        result = simulate(
            per_rank(hosts, fill), system(), network, backend="ns3", network_options=named
        )
        return summary(result).rpartition("in the network: ")[2]

    small = {"buffer_bytes": MIB, "window": "none", "congestion_control": "none"}
    assert re.fullmatch(
        rf"[\d,]+ PFC pauses \([\d,]+ on gpu-switch down, [\d,]+ at {hosts} -> \d+\), "
        rf"([\d,]+) ECN marks \(\1 on gpu-switch down, \1 at {hosts} -> 0\)",
        told(**small),
    )
    lossy = told(**small, pfc="false")
    dropped = r"[\d,]+ packets dropped \([\d,]+ on gpu-switch up, [\d,]+ at \d+ -> 17\), "
    assert re.match(dropped + r"[\d,]+ retransm", lossy)
    assert told(ecn="false").startswith(f"{hosts} ranks")  # nothing went wrong
