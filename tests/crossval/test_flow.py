# SPDX-License-Identifier: MIT
"""The flow network against the definition of max-min fairness, in exact fractions."""

from __future__ import annotations

import math
import re
import shlex
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge.cli import main
from astra_bridge.network.analytical.topologies import LinkList
from astra_bridge.network.api import LINK, TIME_NEVER, TRANSFER, NetworkConfig, Stop
from astra_bridge.network.native import library_path
from astra_bridge.network.registry import backend

pytestmark = pytest.mark.skipif(
    not library_path("flow").exists(), reason="the flow network is not built"
)
GBPS = 1e9 / 8
Message = tuple[int, int, int, int]  # start [ps], bytes, source, destination


def arrivals(config: NetworkConfig, messages: list[Message]) -> list[int]:
    """When each is there [ps]."""
    items = np.zeros(len(messages), TRANSFER)
    for index, (start_ps, size, src, dst) in enumerate(messages):
        items[index] = (4 * index, start_ps, size, src, dst, 0, 0, 0)
    times = [0] * len(messages)
    with backend("flow").open(config) as network:
        network.submit(items)
        left = len(messages)
        while left:
            network.advance(TIME_NEVER, 0)
            for record in network.poll():
                times[int(record["id"]) // 4] = int(record["time_ps"])
                left -= 1
    return times


def fair_rates(ways: dict[int, list[int]], rates: list[Fraction]) -> dict[int, Fraction]:
    """Progressive filling: all rates rise together, until a link of theirs is full."""
    found: dict[int, Fraction] = {}
    while len(found) < len(ways):
        shares = {}
        for link, rate in enumerate(rates):
            open_ones = [f for f, way in ways.items() if link in way and f not in found]
            taken = sum(
                (found[f] for f, way in ways.items() if link in way and f in found), Fraction()
            )
            if open_ones:
                shares[link] = ((rate - taken) / len(open_ones), open_ones)
        share, flows = min(shares.values(), key=lambda one: one[0])
        found |= dict.fromkeys(flows, share)
    return found


def arrivals_by_definition(
    config: NetworkConfig, messages: list[Message], mtu: int, header: int
) -> list[float]:
    routes = LinkList(config)
    rates = [Fraction(float(rate)) / 10**12 for rate in config.links["bytes_per_second"]]
    ways = [routes.route(src, dst) for _, _, src, dst in messages]
    wire = [Fraction(size + -(-size // mtu) * header) for _, size, _, _ in messages]
    arrived = [0.0] * len(messages)
    left: dict[int, Fraction] = {}
    waiting: list[int] = []  # for the message before it, of the same pair
    comes = sorted(range(len(messages)), key=lambda i: (messages[i][0], i))
    now = Fraction()
    while comes or left:
        rate = fair_rates({i: ways[i] for i in left}, rates)
        ends = {i: now + left[i] / rate[i] for i in left}
        next_start = Fraction(messages[comes[0]][0]) if comes else None
        then = min(list(ends.values()) + ([next_start] if next_start is not None else []))
        left = {i: left[i] - rate[i] * (then - now) for i in left}
        now = then
        for i in sorted(i for i in left if ends[i] == now):
            del left[i]
            size = messages[i][1]
            packet = [(min(size, mtu) + header) / rates[link] for link in ways[i]]
            latency = sum(int(config.links["latency_ps"][link]) for link in ways[i])
            arrived[i] = float(now + latency + sum(packet) - max(packet))
        while comes and messages[comes[0]][0] == now:
            waiting.append(comes.pop(0))
        for i in list(waiting):
            if not any(messages[i][2:] == messages[j][2:] for j in left):
                waiting.remove(i)
                left[i] = wire[i]
    return arrived


@st.composite
def experiments(draw: st.DrawFn) -> tuple[NetworkConfig, list[Message]]:
    hosts, switches = draw(st.integers(2, 6)), draw(st.integers(1, 3))
    rate, latency = st.sampled_from([25, 40, 100, 100, 400]), st.sampled_from([0, 1000, 500_000])
    rows = []
    cables = [(host, hosts + draw(st.integers(0, switches - 1))) for host in range(hosts)]
    cables += [(hosts + a, hosts + b) for a, b in pairwise(range(switches))]
    switch = st.integers(hosts, hosts + switches - 1)
    cables += [(a, b) for a, b in draw(st.lists(st.tuples(switch, switch), max_size=3)) if a != b]
    for a, b in cables:
        one = (draw(rate) * GBPS, draw(latency), 0.0)
        rows += [(a, b, *one), (b, a, *one)]
    options = {"mtu_bytes": "4096", "header_bytes": str(draw(st.sampled_from([0, 82])))}
    config = NetworkConfig(hosts, hosts + switches, np.array(rows, LINK), options)
    ends = st.tuples(st.integers(0, hosts - 1), st.integers(0, hosts - 1))
    messages = [
        (
            draw(st.sampled_from([0, 0, 0, 1_000_000, 7_654_321])),
            draw(st.integers(1, 300_000)),
            *pair,
        )
        for pair in draw(st.lists(ends, min_size=1, max_size=8))
        if pair[0] != pair[1]
    ]
    return config, messages


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(experiments())
def test_max_min_by_definition(experiment: tuple[NetworkConfig, list[Message]]) -> None:
    config, messages = experiment
    if not messages:
        return
    header = int(config.options["header_bytes"])
    expected = arrivals_by_definition(config, messages, 4096, header)
    found = arrivals(config, messages)
    # Events are at whole ps: each may put the next ones off by one more.
    assert found == pytest.approx(expected, abs=2 + 4 * len(messages))


def leaves(routing: str) -> NetworkConfig:
    """32 hosts under 8 leaves, whose two uplinks bear half of what the hosts may send; one slow."""
    rows = [(host, 32 + host // 4, 25 if host % 7 == 3 else 100) for host in range(32)]
    rows += [(32 + leaf, 40 + spine, 100) for leaf in range(8) for spine in range(2)]
    both = [(*ends, rate * GBPS, 10**5, 0.0) for a, b, rate in rows for ends in ((a, b), (b, a))]
    return NetworkConfig(32, 42, np.array(both, LINK), {"routing": routing, "header_bytes": "0"})


def filled(ways: list[list[int]], rates: list[float]) -> list[float]:
    """Progressive filling, in floating point: the rates of flows that take these ways."""
    found = [0.0] * len(ways)
    left = dict(enumerate(rates))
    open_ones = set(range(len(ways)))
    while open_ones:
        crossing: dict[int, list[int]] = {}
        for flow in open_ones:
            for link in ways[flow]:
                crossing.setdefault(link, []).append(flow)
        share, full = min((left[link] / len(flows), link) for link, flows in crossing.items())
        for flow in crossing[full]:
            found[flow] = share
            open_ones.remove(flow)
            for link in ways[flow]:
                left[link] = max(0.0, left[link] - share)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_a_change_does_not_touch_stays_right(seed: int) -> None:
    """Hundreds of flows that begin and end one by one, in groups whose shares are found at every
    change; by the definition all of them are found again each time."""
    random = np.random.default_rng(seed)
    config = leaves("ecmp")
    routes = LinkList(config)
    rates = [float(rate) / 1e12 for rate in config.links["bytes_per_second"]]
    pairs = [(a, b) for a in range(32) for b in range(32) if a != b]
    chosen = [pairs[i] for i in random.choice(len(pairs), 240, replace=False)]
    messages = [
        (int(random.integers(0, 40)) * 1_234_567, int(random.integers(1, 100_000)), *pair)
        for pair in chosen
    ]
    ways = [routes.route(src, dst) for _, _, src, dst in messages]
    arrived = [0.0] * len(messages)
    left: dict[int, float] = {}
    comes = sorted(range(len(messages)), key=lambda i: messages[i][0])
    now, most = 0.0, 0
    while comes or left:
        flowing = sorted(left)
        most = max(most, len(flowing))
        found = dict(zip(flowing, filled([ways[i] for i in flowing], rates), strict=True))
        ends = {i: now + left[i] / found[i] for i in flowing}
        then = min([*ends.values(), *(messages[i][0] for i in comes[:1])])
        for i in flowing:
            left[i] -= found[i] * (then - now)
            if ends[i] <= then:
                del left[i]
                size = messages[i][1]
                packet = [min(size, 4096) / rates[link] for link in ways[i]]
                latency = sum(int(config.links["latency_ps"][link]) for link in ways[i])
                arrived[i] = then + latency + sum(packet) - max(packet)
        now = then
        while comes and messages[comes[0]][0] <= now:
            left[comes[0]] = float(messages[comes[0]][1])
            comes.pop(0)
    assert most > 20
    # Events are at whole ps: each may put the next ones off by one more.
    assert arrivals(config, messages) == pytest.approx(arrived, abs=2 * len(messages))


def test_many_flows_that_come_and_go_fill_their_link() -> None:
    """What comes in between takes what is free, and no more: the link is never too full."""
    random = np.random.default_rng(3)
    hosts = 900
    config = star(hosts + 1, header_bytes=0)
    messages = [
        (
            int(random.integers(0, 2_000)) * 100_000,
            int(random.integers(20_000, 400_000)),
            rank,
            hosts,
        )
        for rank in range(hosts)
    ]
    arrived = arrivals(config, messages)
    tail = 2 * 10**6 + 4096 * 80
    order = sorted(range(hosts), key=lambda rank: arrived[rank])
    sent = 0
    for rank in order:
        sent += messages[rank][1]
        assert arrived[rank] - tail >= sent * 80 + min(start for start, *_ in messages) - 2
    assert arrived[order[-1]] < 1.05 * (sent * 80 + tail)


def star(hosts: int, **options: object) -> NetworkConfig:
    """100 Gbit/s to one switch, 1 us a link."""
    rows = []
    for host in range(hosts):
        rows += [(host, hosts, 100 * GBPS, 10**6, 0.0), (hosts, host, 100 * GBPS, 10**6, 0.0)]
    given: dict[str, str] = {key: str(value) for key, value in options.items()}
    return NetworkConfig(hosts, hosts + 1, np.array(rows, LINK), given)


MiB = 1 << 20
WIRE_PS = (MiB + 256 * 82) * 80  # 80 ps a byte
TAIL_PS = 2 * 10**6 + 4178 * 80  # two links, and a packet at the second


def test_alone_shared_and_in_order() -> None:
    assert arrivals(star(3), [(0, MiB, 0, 1)]) == [WIRE_PS + TAIL_PS]
    # Two into one link: each at half the rate.
    assert arrivals(star(3), [(0, MiB, 0, 2), (0, MiB, 1, 2)]) == [2 * WIRE_PS + TAIL_PS] * 2
    # One after the other on a queue pair; two queue pairs share.
    messages = [(0, MiB, 0, 1), (0, MiB, 0, 1)]
    assert arrivals(star(3), messages) == [WIRE_PS + TAIL_PS, 2 * WIRE_PS + TAIL_PS]
    assert arrivals(star(3, queue_pairs=2), messages) == [2 * WIRE_PS + TAIL_PS] * 2
    # Round trips before the first byte.
    assert arrivals(star(3, start_up_round_trips=1.5), [(0, MiB, 0, 1)]) == [
        WIRE_PS + TAIL_PS + 6 * 10**6
    ]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_unequal_messages_of_one_pair_at_once(order: tuple[int, int]) -> None:
    """The second one shares what the first one had alone: each sends as much as it has."""
    times = [2 * WIRE_PS + TAIL_PS, 3 * WIRE_PS + TAIL_PS]
    messages = [(0, (which + 1) * MiB, 0, 1) for which in order]
    assert arrivals(star(3, queue_pairs=2), messages) == [times[which] for which in order]


def test_what_is_left_goes_to_the_others() -> None:
    """0 -> 2 and 1 -> 2 share the link to 2; 1 -> 3 gets the other half of the link from 1.  When
    the short one ends, both others double."""
    short = MiB // 4
    wire_short = (short + 64 * 82) * 80
    found = arrivals(star(4), [(0, short, 0, 2), (0, MiB, 1, 2), (0, MiB, 1, 3)])
    assert found[0] == 2 * wire_short + TAIL_PS
    assert found[1] == found[2] == 2 * WIRE_PS + TAIL_PS  # the link from 1 was full all the time


def test_a_slow_link() -> None:
    config = star(2, header_bytes=0)
    items = np.zeros(1, TRANSFER)
    items[0] = (0, 0, MiB, 0, 1, 0, 0, 0)
    with backend("flow").open(config) as network:
        network.set_link(0, 10**6, 0.5)  # after 12,500 bytes
        network.submit(items)
        network.advance(TIME_NEVER, 0)
        (record,) = network.poll()
    rest_ps = (MiB - 12_500) * 160
    assert record["time_ps"] == 10**6 + rest_ps + 2 * 10**6 + 4096 * 80


def test_spray_uses_all_ways_at_once() -> None:
    """Two leaves joined by two spines: one flow fills both uplinks where hosts are fast enough."""
    rows: list[Any] = []
    for a, b, rate in [
        (0, 2, 400),
        (1, 3, 400),
        (2, 4, 100),
        (2, 5, 100),
        (3, 4, 100),
        (3, 5, 100),
    ]:
        rows += [(a, b, rate * GBPS, 0, 0.0), (b, a, rate * GBPS, 0, 0.0)]
    for routing, rate in (("ecmp", 100), ("spray", 200), ("adaptive", 200)):
        options = {"routing": routing, "header_bytes": "0"}
        config = NetworkConfig(2, 6, np.array(rows, LINK), options)
        (found,) = arrivals(config, [(0, MiB, 0, 1)])
        ways = 20 + 80 + 80 + 20 - 80  # a packet at every link but one of the narrowest [ps/B]
        assert found == math.ceil(MiB * 8000 / rate + 4096 * ways)


SENDERS = 600  # more than a group whose shares are found at every change


def many(**options: object) -> tuple[NetworkConfig, list[Message], list[float]]:
    """Senders to one receiver, each with more to send, and when each is there by definition."""
    config = star(SENDERS + 1, header_bytes=0, **options)
    sizes = [4096 * (10 + rank) for rank in range(SENDERS)]
    expected, now, before = [], 0.0, 0
    for rank, size in enumerate(sizes):
        now += (size - before) * 80 * (SENDERS - rank)
        before = size
        expected.append(now + 2 * 10**6 + 4096 * 80)
    return config, [(0, size, rank, SENDERS) for rank, size in enumerate(sizes)], expected


def test_many_flows() -> None:
    config, messages, expected = many(tolerance=0)
    assert arrivals(config, messages) == pytest.approx(expected, abs=2 * SENDERS)
    config, messages, expected = many()
    found = np.array(arrivals(config, messages))
    assert (found >= np.floor(expected)).all()  # none is too fast
    assert found == pytest.approx(expected, rel=0.1)
    assert (found > np.ceil(expected) + 2 * SENDERS).any()  # shares were not found at every change


def test_a_slow_link_of_many_flows_counts_at_once() -> None:
    config, messages, expected = many(tolerance=1)
    with backend("flow").open(config) as network:
        items = np.zeros(len(messages), TRANSFER)
        for index, (start_ps, size, src, dst) in enumerate(messages):
            items[index] = (4 * index, start_ps, size, src, dst, 0, 0, 0)
        network.submit(items)
        network.set_link(2 * SENDERS + 1, 10**6, 0.5)
        network.advance(TIME_NEVER, 0)
        first = int(network.poll()[0]["time_ps"])
    begun, tail = 10**6, 2 * 10**6 + 4096 * 80  # half as fast from then on
    assert first == begun + 2 * (expected[0] - tail - begun) + tail


def test_a_run_that_is_cut_and_copied_is_the_same() -> None:
    """Advanced to anywhere, saved and loaded, with groups of few and of many flows."""
    random = np.random.default_rng(1)
    config = star(24)
    items = np.zeros(400, TRANSFER)
    for index in range(len(items)):
        src, dst = random.choice(24, 2, replace=False)
        start_ps = int(random.integers(0, 5)) * 7_777_777
        size = int(random.integers(1, 400_000))
        items[index] = (4 * index, start_ps, size, src, dst, 0, 0, 0)

    def times(cuts: list[int]) -> list[tuple[int, int]]:
        network = backend("flow").open(config)
        network.submit(items)
        found: list[tuple[int, int]] = []
        for until_ps in [*cuts, TIME_NEVER]:
            while network.advance(until_ps, 0).stop == Stop.COMPLETION:
                found += [(int(one["id"]), int(one["time_ps"])) for one in network.poll()]
            saved = network.save()
            other = backend("flow").open(config)
            other.restore(saved)
            network.close()
            network = other
            assert network.save() == saved
        network.close()
        return found

    whole = times([])
    assert len(whole) == len(items)
    assert times(sorted(int(t) for t in random.integers(0, whole[-1][1], 40))) == whole


def test_the_command_of_the_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs/flow.md").read_text()
    found = re.search(r"```sh\nastra-bridge (.*?)```", page, re.DOTALL)
    assert found
    monkeypatch.chdir(root)
    assert main(shlex.split(found[1].replace("\\\n", " "))) == 0
    said = capsys.readouterr().out
    (finish_ns,) = {int(one) for one in re.findall(r"finished, (\d+) cycles", said)}
    assert f"ends at {finish_ns:,} ns; on `analytical-aware`" in page
