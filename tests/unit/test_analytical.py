# SPDX-License-Identifier: MIT
"""The analytical networks: closed formulas, ASTRA-sim's event order, links that fail, errors.

Every test runs on the pure-Python networks and, where they are built, on the native ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from astra_bridge.errors import ContractError, InputError, SimulationError, Unsupported
from astra_bridge.network.api import (
    LINK,
    TIME_NEVER,
    TRANSFER,
    Advance,
    Network,
    NetworkConfig,
    Stop,
)
from astra_bridge.network.native import library_path
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from tests.one_queue import LAST_PLACE, Chatter, Exchanging, OneQueue

MiB = 1 << 20

Open = Callable[..., Network]


@pytest.fixture(params=["python", "native"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "native" and not library_path("analytical_aware").exists():
        pytest.skip("the native analytical networks are not built")
    return str(request.param)


@pytest.fixture
def open_network(engine: str) -> Iterator[Open]:
    """``open_network(model, network, **options)``; everything opened is closed again."""
    opened: list[Network] = []

    def open_(model: str, network: object, **options: str) -> Network:
        suffix = "-python" if engine == "python" else ""
        spec = backend(f"analytical-{model}{suffix}")
        opened.append(spec.open(spec.prepare(NetworkRequest(network, options=options)).config))
        return opened[-1]

    yield open_
    for network in opened:
        network.close()


def dims(*columns: tuple[str, int, float, float]) -> dict[str, list[Any]]:
    """The network YAML with one (topology, npus_count, bandwidth, latency) per dimension."""
    keys = ("topology", "npus_count", "bandwidth", "latency")
    return {key: list(column) for key, column in zip(keys, zip(*columns, strict=True), strict=True)}


def transfers(*rows: tuple[int, int, int], start_ps: int = 0, first_id: int = 0) -> np.ndarray:
    """TRANSFER records from (src, dst, bytes); ids count in fours."""
    return np.array(
        [
            (first_id + 4 * i, start_ps, size, src, dst, 0, 0, 0)
            for i, (src, dst, size) in enumerate(rows)
        ],
        TRANSFER,
    )


def finish_ns(network: Network, items: np.ndarray) -> list[int]:
    """When each transfer arrives, in the order of ``items``."""
    network.submit(items)
    done: dict[int, int] = {}
    while network.advance(TIME_NEVER).stop != Stop.IDLE:
        for record in network.poll():
            done[int(record["id"])] = int(record["time_ps"])
    assert all(time_ps % 1000 == 0 for time_ps in done.values())
    return [done[int(item["id"])] // 1000 for item in items]


# -- closed formulas ------------------------------------------------------------------------

# 50 GiB/s is 50 * 2**30 / 1e9 = 53.687 B/ns, so 1 MiB takes 19531.25 ns.
SERIAL_NS = MiB / (50 * 2**30 / 1e9)


@pytest.mark.parametrize(
    ("kind", "src", "dst", "hops"),
    [
        ("Ring", 0, 1, 1),
        ("Ring", 0, 4, 4),
        ("Ring", 1, 7, 2),
        ("FullyConnected", 2, 7, 1),
        ("Switch", 0, 1, 2),
    ],
)
def test_one_transfer_takes_the_formula(
    open_network: Open, kind: str, src: int, dst: int, hops: int
) -> None:
    network = dims((kind, 8, 50.0, 500.25))
    item = transfers((src, dst, MiB))
    # Unaware: serialised once.  Aware: stored and forwarded, floor() at every hop.
    assert finish_ns(open_network("unaware", network), item) == [int(hops * 500.25 + SERIAL_NS)]
    assert finish_ns(open_network("aware", network), item) == [hops * int(500.25 + SERIAL_NS)]
    # Corrected, an aware message cuts through like an unaware one.
    cut = open_network("aware", network, semantics="corrected")
    assert finish_ns(cut, item) == [int(hops * 500.25 + SERIAL_NS)]


def test_numbers_measured_with_astra_sim(open_network: Open) -> None:
    # One message of 1 MiB over Switch 8 (50, 500): shared/upstream, faults b4 and b5.
    item = transfers((0, 1, MiB))
    switch = dims(("Switch", 8, 50, 500))
    assert finish_ns(open_network("unaware", switch), item) == [20531]
    assert finish_ns(open_network("aware", switch), item) == [40062]
    # Several dimensions, unaware: only the first differing one counts.
    network = dims(("Ring", 2, 50, 500), ("Switch", 4, 25, 700))
    items = transfers((0, 1, MiB), (0, 2, MiB), (0, 3, MiB))
    assert finish_ns(open_network("unaware", network), items) == [20031, 40462, 20031]
    # Corrected: 500 + 2 * 700 ns of latency, and the narrower 25 GiB/s.
    corrected = open_network("unaware", network, semantics="corrected")
    assert finish_ns(corrected, items) == [20031, 40462, int(500 + 1400 + 2 * SERIAL_NS)]


def test_messages_queue_for_a_link_first_come_first_served(open_network: Open) -> None:
    network = dims(("Ring", 8, 50, 500))
    items = transfers((0, 2, MiB), (0, 1, MiB), (1, 2, MiB))
    # Link 0->1: id 0, then id 4 when it is free at 19531.  Link 1->2: id 8 is there first; id 0
    # comes at 20031 and finds it free again (since 19531).
    assert finish_ns(open_network("aware", network), items) == [40062, 19531 + 20031, 20031]
    assert finish_ns(open_network("unaware", network), items) == [20531, 20031, 20031]


def test_aware_crosses_dimensions_in_ascending_order(open_network: Open) -> None:
    network = dims(("Ring", 4, 50, 500), ("Switch", 2, 10, 70), ("FullyConnected", 3, 25, 9))
    sim = open_network("aware", network)
    ring, up_down, direct = SERIAL_NS + 500, 5 * SERIAL_NS + 70, 2 * SERIAL_NS + 9
    # 1 -> 20: digits (1,0,0) -> (0,1,2): one hop back, two through the hub, one direct.
    assert finish_ns(sim, transfers((1, 20, MiB))) == [int(ring) + 2 * int(up_down) + int(direct)]
    links = sim.stats()["tables"]["links"]
    # Links: 24 * 2 of the ring, then 24 * 2 of the switch, then 24 * 2; hubs are nodes 24..35.
    assert links["link"] == [3, 48, 57, 105]
    assert list(zip(links["src"], links["dst"], strict=True)) == [(1, 0), (0, 24), (24, 4), (4, 20)]
    assert links["bytes"] == [MiB] * 4
    assert links["busy_ps"] == [1000 * int(k * SERIAL_NS) for k in (1, 5, 5, 2)]


def test_ring_of_two_has_one_link_per_direction(open_network: Open) -> None:
    network = dims(("Ring", 2, 50, 500))
    items = transfers((0, 1, MiB), (1, 0, MiB), (0, 1, MiB))
    assert finish_ns(open_network("aware", network), items) == [20031, 20031, 39562]
    assert finish_ns(open_network("unaware", network), items) == [20031, 20031, 20031]


def test_zero_latency_and_delays_below_one_ns(open_network: Open) -> None:
    network = dims(("Ring", 5, 50, 0), ("Switch", 3, 50, 0))
    items = transfers((0, 14, 1), (3, 2, 53), (4, 0, 54))
    assert finish_ns(open_network("aware", network), items) == [0, 0, 1]
    assert finish_ns(open_network("unaware", network), items) == [0, 0, 1]


def test_huge_sizes_are_exact_and_absurd_times_an_error(open_network: Open) -> None:
    # 1 B/ns.
    network = dims(("FullyConnected", 3, 1e9 / 2**30, 0))
    for model in ("aware", "unaware"):
        sim = open_network(model, network)
        assert finish_ns(sim, transfers((0, 1, 2**40 + 1))) == [2**40 + 1]
        sim = open_network(model, network)
        sim.submit(transfers((0, 1, 2**62)))
        with pytest.raises(SimulationError, match="range of time"):
            sim.advance(TIME_NEVER)
        with pytest.raises(ContractError):
            sim.poll()


# -- arbitrary links ------------------------------------------------------------------------


def links(endpoints: int, switches: int, *rows: tuple[int, int, float, float]) -> dict[str, Any]:
    keys = ("src", "dst", "bandwidth", "latency")
    return {
        "endpoints": endpoints,
        "switches": switches,
        "links": [dict(zip(keys, row, strict=True)) for row in rows],
    }


def test_links_of_different_speed(open_network: Open) -> None:
    network = links(3, 1, (0, 3, 50, 500), (1, 3, 25, 100), (2, 3, 10, 40))
    items = transfers((0, 1, MiB), (2, 1, MiB))
    # Unaware: latencies of the way + bytes / its narrowest link.
    assert finish_ns(open_network("unaware", network), items) == [
        int(600 + 2 * SERIAL_NS),
        int(140 + 5 * SERIAL_NS),
    ]
    # Aware: 0 is at the hub after 20031 and done 39162 later; 2 comes after it.
    at_hub = (int(500 + SERIAL_NS), int(40 + 5 * SERIAL_NS))
    assert finish_ns(open_network("aware", network), items) == [
        at_hub[0] + int(100 + 2 * SERIAL_NS),
        at_hub[1] + int(100 + 2 * SERIAL_NS),
    ]
    # Cut-through: 0 holds hub->1 from 500 on; 2's head is there at 40, its tail much later.
    assert finish_ns(open_network("aware", network, semantics="corrected"), items) == [
        int(140 + 5 * SERIAL_NS) - 100 + int(100 + 2 * SERIAL_NS),
        int(140 + 5 * SERIAL_NS),
    ]


def test_fewest_hops_win_and_equal_ones_share_the_load(open_network: Open) -> None:
    spines = 4
    leaves = (8, 9)
    rows = [(rank, leaves[rank // 4], 50.0, 0.0) for rank in range(8)]
    rows += [(leaf, 10 + spine, 50.0, 0.0) for leaf in leaves for spine in range(spines)]
    sim = open_network("aware", links(8, 2 + spines, *rows))
    pairs = [(src, dst, 1000) for src in range(4) for dst in range(4, 8)]
    finish_ns(sim, transfers(*pairs, (0, 1, 7)))
    table = sim.stats()["tables"]["links"]
    up = {
        dst: size
        for src, dst, size in zip(table["src"], table["dst"], table["bytes"], strict=True)
        if src == 8 and dst >= 10
    }
    assert sum(up.values()) == 16_000
    assert len(up) == spines  # every spine got something
    # The neighbour under the same leaf is reached without a spine.
    down = dict(zip(zip(table["src"], table["dst"], strict=True), table["bytes"], strict=True))
    assert down[8, 1] == 7


def test_no_way_is_an_error_of_the_model(engine: str) -> None:
    name = "analytical-aware-python" if engine == "python" else "analytical-aware"
    config = NetworkConfig(2, 2)  # read_network() refuses this, a plain config may come anyway
    with backend(name).open(config) as sim:
        sim.submit(transfers((0, 1, 1)))
        with pytest.raises(SimulationError, match="no way from endpoint 0 to endpoint 1"):
            sim.advance(TIME_NEVER)


# -- links that fail ------------------------------------------------------------------------


def test_link_down_holds_messages_until_it_is_up(open_network: Open) -> None:
    network = links(2, 0, (0, 1, 1e9 / 2**30, 10.0))  # 1 B/ns
    sim = open_network("aware", network)
    sim.set_link(0, 50_000, 0.0)
    sim.set_link(0, 1_000_000, 0.5)
    # At 0 and 100 ns for 100 ns: the first keeps what it has begun, the second waits, and then
    # takes twice as long.
    assert finish_ns(sim, transfers((0, 1, 100), (0, 1, 100))) == [110, 1000 + 200 + 10]


def test_link_down_for_good_is_an_error_that_names_it(open_network: Open) -> None:
    sim = open_network("aware", links(2, 0, (0, 1, 50, 10.0)))
    sim.set_link(0, 0, 0.0)
    sim.submit(transfers((0, 1, 100), first_id=77))
    with pytest.raises(SimulationError, match=r"77.*link 0 \(0 -> 1\)"):
        sim.advance(TIME_NEVER)


def test_unaware_links_cannot_fail(open_network: Open) -> None:
    with pytest.raises(Unsupported):
        open_network("unaware", dims(("Ring", 4, 50, 500))).set_link(0, 0, 0.0)


# -- order inside one instant: a host on the same event queue -----------------------------------


def ring_route(count: int) -> Callable[[int, int], list[int]]:
    def route(src: int, dst: int) -> list[int]:
        step = 1 if 2 * ((dst - src) % count) <= count else -1
        way = []
        while src != dst:
            way.append(2 * src + (step < 0))
            src = (src + step) % count
        return way

    return route


ROUTES: Mapping[str, Callable[[int], Callable[[int, int], list[int]]]] = {
    "Ring": ring_route,
    "Switch": lambda count: lambda src, dst: [src, count + dst],
    "FullyConnected": lambda count: lambda src, dst: [src * count + dst],
}


@pytest.mark.parametrize("kind", sorted(ROUTES))
@pytest.mark.parametrize("latency", [0, 1, 2.5])
def test_exchange_keeps_the_order_of_one_queue(
    open_network: Open, kind: str, latency: float
) -> None:
    # 1 B/ns and sizes of a few bytes: nearly every event shares its time with others.
    for seed in range(12):
        count = random.Random(seed).choice([3, 4, 7])
        one = OneQueue(ROUTES[kind](count), 1.0, latency)
        expected = Chatter(one, seed, count, lambda one=one: one.now)
        one.run()
        two = Exchanging(open_network("aware", dims((kind, count, 1e9 / 2**30, latency))))
        got = Chatter(two, seed, count, lambda two=two: two.now // 1000)
        two.run()
        assert len(expected.log) > 20
        assert got.log == expected.log, (kind, latency, seed)


def test_a_delivery_is_answered_before_its_link_is_free(open_network: Open) -> None:
    # Latency 0: the arrival (place 0) and the release (place 1) come at the same time, 100 ns.
    sim = open_network("aware", dims(("Ring", 3, 1e9 / 2**30, 0.0)))
    out = sim.exchange(transfers((0, 1, 100)), 0, TIME_NEVER, LAST_PLACE, 4)
    assert (out.now_ps, out.stop, out.next_ps, out.next_place) == (100_000, 1 + 1, 100_000, 1)
    answer = transfers((0, 1, 100), start_ps=100_000, first_id=4)
    out = sim.exchange(answer, 100_000, TIME_NEVER, LAST_PLACE, 8)
    # It queued, and the release gave it two fresh places.
    assert (out.now_ps, out.place) == (200_000, 10)
    out = sim.exchange(answer[:0], 200_000, TIME_NEVER, LAST_PLACE, 10)
    assert (out.stop, out.now_ps, out.next_ps) == (Stop.IDLE, 200_000, TIME_NEVER)


def test_until_place_stops_inside_an_instant(open_network: Open) -> None:
    sim = open_network("unaware", dims(("Ring", 8, 1e9 / 2**30, 0.0)))
    batch = transfers((0, 1, 9), (2, 3, 9), (4, 5, 9))
    out = sim.exchange(batch, 0, 9000, 4, 12)
    assert (out.completions["id"].tolist(), out.stop) == ([0], Stop.COMPLETION)
    assert (out.next_ps, out.next_place) == (9000, 4)
    out = sim.exchange(batch[:0], 9000, 9000, 4, 12)
    assert (len(out.completions), out.stop, out.now_ps) == (0, Stop.REACHED, 9000)
    out = sim.exchange(batch[:0], 9000, TIME_NEVER, LAST_PLACE, 12)
    assert out.completions["id"].tolist() == [4, 8]


# -- errors, snapshots, statistics ----------------------------------------------------------


def test_refusals_name_item_and_value(open_network: Open) -> None:
    sim = open_network("aware", dims(("Ring", 4, 50, 500)))
    for rows, message in [
        (transfers((0, 1, 1), (0, 4, 1)), "item 1: dst=4"),
        (transfers((0, 1, 1), (-1, 2, 1)), "item 1: src=-1"),
        (transfers((2, 2, 1)), "item 0: src and dst are both 2"),
        (transfers((0, 1, 0)), "item 0: bytes=0"),
        (np.concatenate([transfers((0, 1, 1))] * 2), "item 1: id=0"),
    ]:
        with pytest.raises(ContractError, match=message):
            sim.submit(rows)
    assert sim.advance(TIME_NEVER) == Advance(0, Stop.IDLE)
    with pytest.raises(ContractError, match="either exchange"):
        sim.exchange(transfers((0, 1, 1)), 0, TIME_NEVER, LAST_PLACE, 4)


@pytest.mark.parametrize("place", [3, 2**62, 2**63 - 1])
def test_exchange_refuses_a_counter_that_would_collide(open_network: Open, place: int) -> None:
    sim = open_network("aware", dims(("Ring", 4, 50, 500)))
    with pytest.raises(ContractError, match=f"place={place}"):
        sim.exchange(transfers((0, 1, 1)), 0, TIME_NEVER, LAST_PLACE, place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topology": "Torus"}, "Torus"),
        ({"npus_count": "5"}, "5"),
        ({"npus_count": "2,2"}, "differ in length"),
        ({"npus_count": "x"}, "npus_count|number"),
        ({"bandwidth": "0.0"}, "bandwidth"),
        ({"bandwidth": "nan"}, "bandwidth"),
        ({"latency": "-1.0"}, "latency"),
        ({"semantics": "none"}, "semantics"),
    ],
)
def test_bad_options_are_refused(engine: str, change: dict[str, str], message: str) -> None:
    good = {"topology": "Ring", "npus_count": "4", "bandwidth": "50.0", "latency": "500.0"}
    for model in ("aware", "unaware"):
        suffix = "-python" if engine == "python" else ""
        with pytest.raises(ContractError, match=message):
            backend(f"analytical-{model}{suffix}").open(NetworkConfig(4, 4, options=good | change))


def test_prepare_refuses_options_that_it_does_not_know() -> None:
    network = dims(("Ring", 4, 50, 500))
    with pytest.raises(InputError, match="sematics"):
        backend("analytical-aware").prepare(NetworkRequest(network, options={"sematics": "x"}))
    with pytest.raises(InputError, match="exact"):
        backend("analytical-aware").prepare(NetworkRequest(network, options={"semantics": "exact"}))


def test_prepare_keeps_every_bit_of_a_double(open_network: Open) -> None:
    config = (
        backend("analytical-aware")
        .prepare(NetworkRequest(dims(("Switch", 4, 0.1 + 0.2, 1 / 3))))
        .config
    )
    assert float(config.options["bandwidth"]) == 0.1 + 0.2
    assert float(config.options["latency"]) == 1 / 3
    assert (config.endpoints, config.nodes, len(config.links)) == (4, 5, 0)


def test_snapshot_goes_its_own_way(open_network: Open) -> None:
    sim = open_network("aware", dims(("Ring", 6, 50, 500)))
    sim.submit(transfers((0, 3, MiB), (0, 2, MiB), (5, 1, MiB)))
    sim.advance(25_000_000)
    sim.poll()
    with sim.snapshot() as copy:
        late = transfers((0, 3, 100), start_ps=30_000_000, first_id=400)
        alone, also = finish_ns(sim, late), finish_ns(copy, late)
        assert alone == also
        assert sim.stats() == copy.stats()
        before = sim.stats()["bytes"]
        finish_ns(copy, transfers((1, 2, 5), start_ps=10**12, first_id=800))
        assert sim.stats()["bytes"] == before


def test_statistics_count_every_byte_on_every_link(open_network: Open) -> None:
    sim = open_network("aware", dims(("Ring", 4, 50, 500), ("FullyConnected", 3, 20, 10)))
    rows = [(s, d, 1000 + s) for s in range(12) for d in range(12) if s != d]
    finish_ns(sim, transfers(*rows))
    stats = sim.stats()
    assert stats["transfers"] == len(rows)
    assert stats["bytes"] == sum(size for _, _, size in rows)
    hops = {0: 0, 1: 1, 2: 2, 3: 1}
    crossed = sum(size * (hops[(d - s) % 4] + (s // 4 != d // 4)) for s, d, size in rows)
    assert sum(stats["tables"]["links"]["bytes"]) == crossed


@pytest.mark.parametrize("backend_name", ["analytical-aware", "analytical-aware-python"])
def test_a_change_of_a_link_comes_before_a_later_first_start(backend_name: str) -> None:
    """The host has not been told of the change, and its first call is long after it."""
    rows = np.array([(0, 1, 1e9, 0, 0.0), (1, 0, 1e9, 0, 0.0)], LINK)
    starts = np.array([(0, 5000, 100, 0, 1, 0, 0, 0)], TRANSFER)
    with backend(backend_name).open(NetworkConfig(2, 2, rows, {})) as network:
        network.set_link(0, 3000, 0.5)
        out = network.exchange(starts, 5000, TIME_NEVER, 2**62, 4)
        assert out.completions["time_ps"].tolist() == [205_000]
        assert out.now_ps == 205_000
