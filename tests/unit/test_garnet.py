# SPDX-License-Identifier: MIT
"""Garnet: published behaviour, time, splitting, topologies, deadlock, statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.errors import InputError, SimulationError
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.network.api import TIME_NEVER, TRANSFER, NetworkConfig
from astra_bridge.network.garnet.backend import BACKENDS, prepare
from astra_bridge.network.garnet.model import GarnetLink, GarnetNetwork, GarnetNode
from astra_bridge.network.garnet.options import options_of
from astra_bridge.network.garnet.reader import read_garnet
from astra_bridge.network.garnet.replay import MESSAGE, MessageList, replay
from astra_bridge.network.garnet.traffic import PATTERNS, destinations, make_traffic, run_traffic
from astra_bridge.network.spec import NetworkRequest

pytestmark = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)


def transfers(*rows: tuple[int, int, int, int]) -> np.ndarray:
    """TRANSFER records of (start_ps, bytes, src, dst), ids in order."""
    made = np.zeros(len(rows), TRANSFER)
    for index, (start_ps, size, src, dst) in enumerate(rows):
        made[index] = (index, start_ps, size, src, dst, 0, 0, 0)
    return made


def finish(config: NetworkConfig, items: np.ndarray) -> tuple[dict[int, int], dict[str, Any]]:
    """Delivery in ps by id, and the statistics."""
    times: dict[int, int] = {}
    with BACKENDS[0].open(config) as net:
        net.submit(items)
        while len(times) < len(items):
            net.advance(TIME_NEVER, 10**6)
            done = net.poll()
            times.update(zip(done["id"].tolist(), done["time_ps"].tolist(), strict=True))
        return times, net.stats()


def one_message(network: GarnetNetwork, src: int, dst: int, flits: int) -> int:
    """Cycles from the enqueueing of a lone message to its delivery."""
    row = np.array([(0, 7, src, dst, flits * network.flit_bytes, 0, -1, 0)], MESSAGE)
    return int(replay(MessageList(network, row)).rows["deliver"][0]) - 7


@pytest.mark.parametrize("hops", range(8))
@pytest.mark.parametrize("flits", [1, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_zero_load_latency_per_hop(hops: int, flits: int, depth: int) -> None:
    # Enqueue 1 + interface link 2 + per router (depth - 1) + per hop 2 + last link 2 + the other
    # flits: H t_r + D t_w + L / b of Dally and Towles, "Principles and Practices of
    # Interconnection Networks" (2004), section 3.3.2, with gem5's router and link of one cycle
    # each.  The credits of 8 buffers never run out on this way.
    network = read_garnet(
        {"topology": "Mesh_XY 1x8", "router_latency": depth, "buffers_per_data_vc": 8}
    )
    expected = 1 + 2 + (hops + 1) * (depth - 1) + 2 * hops + 2 + flits - 1
    assert one_message(network, 0, hops, flits) == expected


@pytest.mark.parametrize(
    ("pattern", "below", "above"),
    [
        # Dally and Towles, section 3.3.1: half of the uniform traffic crosses the bisection of
        # 2 k channels, so a k x k mesh cannot accept more than 4 / k flits per node and cycle, 0.5
        # for k = 8.  A router with 4 VCs of 4 flits and one round of allocation per cycle stays
        # below that bound: this one takes 0.36.
        # Dimension order sends k - 1 of the nodes of a row over one link: 1 / (k - 1) = 0.143.
        ("transpose", 0.12, 0.16),
        # Every node sends to its right neighbour, and the last one across the whole row: each link
        # carries one flow to the right and one to the left, so nothing saturates before the
        # interface's own 4 flits per 5 cycles at 4 buffers, or 1 with several VCs.
        ("neighbor", 0.70, None),
    ],
)
def test_saturation_on_an_8x8_mesh(pattern: str, below: float, above: float | None) -> None:
    network = read_garnet({"topology": "Mesh_XY 8x8", "routing": "xy"})
    short = {"cycles": 3_000, "warmup": 500}
    assert not run_traffic(network, pattern, below, **short).saturated
    if above is not None:
        point = run_traffic(network, pattern, above, **short)
        assert point.saturated
        assert point.latency > 3 * point.zero_load_latency


def test_latency_grows_with_load() -> None:
    network = read_garnet({"topology": "Mesh_XY 4x4"})
    curve = [
        run_traffic(network, "uniform", rate, cycles=3_000, warmup=500).latency
        for rate in (0.05, 0.2, 0.4)
    ]
    assert curve[0] < curve[1] < curve[2]


def test_throughput_is_the_offered_load_before_saturation() -> None:
    network = read_garnet({"topology": "Torus 4x4"})
    point = run_traffic(network, "uniform", 0.2, cycles=10_000, warmup=1_000)
    assert point.throughput == pytest.approx(0.2, rel=0.05)
    # Mean distance of a ring of 4 is 1, of the torus 2.
    assert point.hops == pytest.approx(2.0, rel=0.05)


def test_patterns_are_those_of_gem5() -> None:
    rng = np.random.default_rng(1)
    src = np.arange(16)
    expected = {
        "tornado": [1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12],
        "bit_complement": list(range(15, -1, -1)),
        "bit_reverse": [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15],
        "bit_rotation": [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15],
        "neighbor": [1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12],
        "shuffle": [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15],
        "transpose": [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15],
    }
    assert {"uniform", *expected} == set(PATTERNS)
    for name, answer in expected.items():
        assert destinations(name, src, 16, rng).tolist() == answer, name
    with pytest.raises(InputError, match="square"):
        destinations("transpose", src, 12, rng)
    with pytest.raises(InputError, match="power of two"):
        destinations("shuffle", src, 12, rng)
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        destinations("unifrom", src, 16, rng)


def test_offered_load_is_the_rate() -> None:
    network = read_garnet({"topology": "Mesh_XY 4x4", "clock_hz": 3_000_000_000})
    rows = make_traffic(network, "uniform", 0.1, 50_000, 5, seed=3)
    assert len(rows) * 5 / (50_000 * 16) == pytest.approx(0.1, rel=0.02)
    assert np.all(np.diff(rows["start_ps"]) >= 0)


@pytest.mark.parametrize("clock_hz", [10**9, 2 * 10**9, 3 * 10**9, 1_234_567_891])
def test_cycles_become_picoseconds(clock_hz: int) -> None:
    network = read_garnet({"topology": "Mesh_XY 1x2", "clock_hz": clock_hz})
    config = NetworkConfig(2, 2, options=options_of(network))
    times, _ = finish(config, transfers((0, 16, 0, 1)))
    # One hop: cycle 7, at its first picosecond.
    assert times[0] == math.ceil(7 * 10**12 / clock_hz)
    # A start inside a cycle waits for the next one.
    start = math.ceil(100 * 10**12 / clock_hz) + 1
    times, _ = finish(config, transfers((start, 16, 0, 1)))
    assert times[0] == math.ceil(108 * 10**12 / clock_hz)


@pytest.mark.parametrize(
    ("link", "per_flit", "latency"),
    [
        ({"link_width_bytes": 4}, 4, 1),  # a flit of 16 bytes takes four cycles
        ({"link_clock_hz": 500_000_000}, 2, 2),  # half the clock: twice the latency too
        ({"link_width_bytes": 8, "link_clock_hz": 500_000_000, "link_latency": 3}, 4, 6),
        ({"link_width_bytes": 64}, 1, 1),  # a flit per cycle is the most
    ],
)
def test_narrow_and_slow_links(link: dict[str, int], per_flit: int, latency: int) -> None:
    network = read_garnet({"topology": "Mesh_XY 1x2", "buffers_per_data_vc": 64, **link})
    # Enqueue 1, interface link 2, router 1 + (per_flit - 1) + latency, last link 2.
    assert one_message(network, 0, 1, 1) == 1 + 2 + 1 + (per_flit - 1) + latency + 2
    assert one_message(network, 0, 1, 10) - one_message(network, 0, 1, 1) == 9 * per_flit


def test_long_transfers_are_packets_and_arrive_at_link_speed() -> None:
    network = read_garnet({"topology": "Mesh_XY 1x2", "packet_bytes": 64})
    config = NetworkConfig(2, 2, options=options_of(network))
    times, stats = finish(config, transfers((0, 1_000_001, 0, 1)))
    flits = math.ceil(1_000_001 / 16)
    assert stats["packets"] == math.ceil(1_000_001 / 64)
    assert stats["flits_received"] == flits
    # One flit per cycle, less what four VCs with the credit round trip of five cycles miss.
    assert flits * 1000 < times[0] < flits * 1000 * 1.1
    assert stats["tables"]["links"]["bytes"][0] == flits * 16


def test_packet_size_per_dimension() -> None:
    network = read_garnet({"topology": "Mesh_XY 2x2", "packet_bytes": [64, 32]})
    config = NetworkConfig(4, 4, options=options_of(network))
    # Along x, along y, and along x first.
    _, stats = finish(config, transfers((0, 640, 0, 1), (0, 640, 0, 2), (0, 640, 0, 3)))
    flows = stats["tables"]["flows"]
    packets = dict(zip(flows["id"], flows["packets"], strict=True))
    assert packets == {0: 10, 1: 20, 2: 10}


def test_transfers_of_one_source_share_its_interface() -> None:
    network = read_garnet({"topology": "FullyConnected 3", "packet_bytes": 64})
    config = NetworkConfig(3, 3, options=options_of(network))
    alone, _ = finish(config, transfers((0, 64_000, 0, 1)))
    both, _ = finish(config, transfers((0, 64_000, 0, 1), (0, 64_000, 0, 2)))
    assert both[1] == pytest.approx(2 * alone[0], rel=0.02)


def request(kinds: list[str], sizes: list[int], **options: str) -> NetworkConfig:
    dims = NetworkDims(tuple(kinds), tuple(sizes), (50.0,) * len(sizes), (500.0,) * len(sizes))
    return prepare(NetworkRequest(dims, options=options)).config


@pytest.mark.parametrize("kind", ["Ring", "FullyConnected", "Switch"])
def test_dimensions_have_their_bandwidth_and_latency(kind: str) -> None:
    size = 4 << 20
    times, _ = finish(request([kind], [8]), transfers((0, size, 0, 1), (0, size, 2, 3)))
    hops = 2 if kind == "Switch" else 1
    least = size / (50 * 2**30) * 1e12 + hops * 500_000
    # Routers, interfaces and the last packet: below two percent of 78 us.
    for time_ps in times.values():
        assert least <= time_ps < 1.02 * least + 20_000


@pytest.mark.parametrize(
    ("kinds", "sizes"),
    [
        (["Ring"], [8]),
        (["Ring", "Ring"], [5, 4]),
        (["Ring", "FullyConnected", "Switch"], [4, 3, 2]),
    ],
)
def test_all_to_all_never_deadlocks(kinds: list[str], sizes: list[int]) -> None:
    config = request(kinds, sizes, buffers_per_data_vc="2", vcs_per_vnet="2", packet_bytes="4000")
    ranks = range(config.endpoints)
    rows = [(0, 20_000, a, b) for a in ranks for b in ranks if a != b]
    times, stats = finish(config, transfers(*rows))
    assert len(times) == len(rows)
    # Every packet takes a shortest way.
    hops = sum(stats["tables"]["flows"]["hops"]) / sum(stats["tables"]["flows"]["packets"])
    mean = {"Ring": lambda n: sum(min(i, n - i) for i in range(n)) / n}
    mean["FullyConnected"] = lambda n: (n - 1) / n
    mean["Switch"] = lambda n: 2 * (n - 1) / n
    total = sum(mean[kind](size) for kind, size in zip(kinds, sizes, strict=True))
    nodes = math.prod(sizes)
    assert hops == pytest.approx(total * nodes / (nodes - 1))


def ring_without_datelines() -> GarnetNetwork:
    links = tuple(GarnetLink(r, (r + 1) % 4) for r in range(4))
    return GarnetNetwork(
        routers=(1,) * 4,
        nodes=tuple(GarnetNode(r) for r in range(4)),
        links=links,
        vcs_per_vnet=1,
        buffers_per_data_vc=2,
    )


def halfway(network: GarnetNetwork, extra: list[tuple[int, ...]] | None = None) -> MessageList:
    """Every node sends ten flits to the opposite one, all at once."""
    rows = [(r, 10, r, (r + 2) % 4, 160, 0, -1, 0) for r in range(4)]
    return MessageList(network, np.array(rows + (extra or []), MESSAGE))


def test_deadlock_names_the_circle() -> None:
    with pytest.raises(SimulationError, match="deadlock") as caught:
        replay(halfway(ring_without_datelines()))
    text = str(caught.value)
    assert "router 1 from 0 VC 0 (0: 0 to 2) waits for router 2 from 1 VC 0" in text
    assert caught.value.exit_code == 3


def test_deadlock_beside_living_traffic_is_found_after_the_threshold() -> None:
    network = replace(ring_without_datelines(), deadlock_threshold=1_000)
    network = replace(network, nodes=(*network.nodes, GarnetNode(0), GarnetNode(0)))
    # Two more nodes at router 0 talk for ever without using the ring.
    extra = [(10 + i, 3 * i, 4, 5, 16, 0, -1, 0) for i in range(2_000)]
    with pytest.raises(SimulationError, match=r"deadlock in cycle (1|2|3)[0-9]{3},"):
        replay(halfway(network, extra))


def test_datelines_prevent_the_deadlock() -> None:
    rows = halfway(ring_without_datelines()).messages
    network = read_garnet({"topology": "Ring 4", "vcs_per_vnet": 2, "buffers_per_data_vc": 2})
    assert network.deadlock_avoidance == "dateline"
    assert np.all(replay(MessageList(network, rows)).rows["deliver"] > 0)


def test_no_route_is_an_error() -> None:
    network = replace(ring_without_datelines(), links=(GarnetLink(0, 1),))
    with pytest.raises(SimulationError, match="no route from node 1 to node 0"):
        replay(MessageList(network, np.array([(0, 1, 1, 0, 16, 0, -1, 0)], MESSAGE)))


def test_custom_routes_are_taken() -> None:
    base = read_garnet({"topology": "Ring 4", "vcs_per_vnet": 2})
    routes = ((0, 1, 3), (3, 1, 2), (2, 1, 1))  # to the neighbour, the long way
    network = replace(base, routing="custom", routes=routes, deadlock_avoidance="none")
    rows = replay(MessageList(network, np.array([(0, 1, 0, 1, 16, 0, -1, 0)], MESSAGE))).rows
    assert rows["hops"].tolist() == [3]


def test_statistics_add_up() -> None:
    network = replace(
        read_garnet({"topology": "Mesh_XY 3x3", "packet_bytes": 32}), series_cycles=100
    )
    config = NetworkConfig(9, 9, options={**options_of(network), "record_packets": "true"})
    rows = [(1000 * i, 100, i % 9, (i * 4 + 1) % 9) for i in range(90) if i % 9 != (i * 4 + 1) % 9]
    times, stats = finish(config, transfers(*rows))
    tables = stats["tables"]
    flits = 7 * len(rows)
    assert stats["flits_injected"] == stats["flits_received"] == flits
    assert stats["packets"] == 4 * len(rows)
    assert stats["transfers"] == len(rows)
    assert sum(tables["link_series"]["flits"]) == sum(tables["links"]["flits"])
    assert sum(tables["router_series"]["flits"]) == stats["flit_hops"]
    assert set(np.array(tables["router_series"]["start_ps"]) % 100_000) == {0}
    # Every flit crosses one router more than links between routers.
    assert stats["flit_hops"] == sum(tables["links"]["flits"]) + flits
    assert sum(tables["routers"]["flits"]) == stats["flit_hops"]
    flows = tables["flows"]
    for index, time_ps in times.items():
        at = flows["id"].index(index)
        assert flows["start_ps"][at] + flows["fct_ps"][at] == time_ps
        assert flows["fct_ps"][at] >= flows["ideal_fct_ps"][at]
    assert len(tables["packets"]["deliver"]) == stats["packets"]


def test_average_latencies_are_those_of_gem5() -> None:
    golden = Path(__file__).parents[2].parent / "shared" / "golden" / "garnet"
    path = golden / "d03_ur_8x8_30.json"
    if not path.exists():
        pytest.skip(f"no golden data at {golden}")
    import json

    from astra_bridge.network.garnet.replay import read_messages

    rows = replay(read_messages(path)).rows
    stats = json.loads(path.read_text())["stats"]
    assert rows["queueing_latency"].mean() == pytest.approx(stats["avg_packet_queueing_latency"])
    assert rows["network_latency"].mean() == pytest.approx(stats["avg_packet_network_latency"])


def test_idle_time_costs_nothing() -> None:
    # 32 x 32 routers, 10**12 cycles without traffic: each cycle looked at would take hours.
    network = read_garnet({"topology": "Mesh_XY 32x32"})
    config = NetworkConfig(1024, 1024, options=options_of(network))
    rows = transfers((0, 80, 0, 1023), (10**15, 80, 1023, 0))
    times, _ = finish(config, rows)
    assert times[1] - 10**15 == times[0]
