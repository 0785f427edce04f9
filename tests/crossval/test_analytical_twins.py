# SPDX-License-Identifier: MIT
"""The native analytical networks against the pure-Python ones: the same bytes out, always."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge.network.api import LINK, TIME_NEVER, TRANSFER, Network, NetworkConfig, Stop
from astra_bridge.network.native import library_path
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from tests.one_queue import Chatter, Exchanging

pytestmark = pytest.mark.skipif(
    not library_path("analytical_aware").exists(),
    reason="the native analytical networks are not built",
)
examples = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

# 1 B/ns makes ties; the others make fractions.
bandwidths = st.sampled_from([1e9 / 2**30, 0.7, 50.0, 12.345])
latencies = st.sampled_from([0.0, 1.0, 2.5, 500.0, 936.25])


@st.composite
def dimensions(draw: st.DrawFn) -> NetworkConfig:
    count = draw(st.integers(1, 3))
    columns = {
        "topology": draw(
            st.lists(
                st.sampled_from(["Ring", "Switch", "FullyConnected"]),
                min_size=count,
                max_size=count,
            )
        ),
        "npus_count": draw(st.lists(st.integers(2, 5), min_size=count, max_size=count)),
        "bandwidth": draw(st.lists(bandwidths, min_size=count, max_size=count)),
        "latency": draw(st.lists(latencies, min_size=count, max_size=count)),
    }
    semantics = draw(st.sampled_from(["astra-sim", "corrected"]))
    request = NetworkRequest(columns, options={"semantics": semantics})
    return backend("analytical-aware").prepare(request).config


@st.composite
def graphs(draw: st.DrawFn) -> NetworkConfig:
    """A tree through all nodes, so that all are connected, and some more links."""
    endpoints = draw(st.integers(2, 7))
    nodes = endpoints + draw(st.integers(0, 3))
    pairs = [(node, draw(st.integers(0, node - 1))) for node in range(1, nodes)]
    extra = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    pairs += [pair for pair in draw(st.lists(extra, max_size=8)) if pair[0] != pair[1]]
    rows = []
    for a, b in pairs:
        rate = draw(bandwidths) * 2**30
        latency_ps = round(draw(latencies) * 1000)
        rows += [(a, b, rate, latency_ps, 0.0), (b, a, rate, latency_ps, 0.0)]
    options = {
        "semantics": draw(st.sampled_from(["astra-sim", "corrected"])),
        "routing": draw(st.sampled_from(["ecmp", "static", "spray", "adaptive"])),
        "endpoints_forward": "true",
    }
    return NetworkConfig(endpoints, nodes, np.array(rows, LINK), options)


configs = st.one_of(dimensions(), graphs())
models = st.sampled_from(["aware", "unaware"])


def twins(model: str, config: NetworkConfig) -> tuple[Network, Network]:
    return (
        backend(f"analytical-{model}").open(config),
        backend(f"analytical-{model}-python").open(config),
    )


def random_transfers(config: NetworkConfig, seed: int, count: int) -> np.ndarray:
    rng = random.Random(seed)
    rows = []
    for number in rng.sample(range(10 * count), count):
        src, dst = rng.sample(range(config.endpoints), 2)
        start_ps = rng.choice([0, 0, 1000, 3000, 12_345, rng.randrange(10**6)])
        size = rng.choice([1, 1, 2, 3, 100, 65536, rng.randrange(1, 10**7)])
        rows.append((number, start_ps, size, src, dst, 0, 0, 0))
    return np.array(rows, TRANSFER)


def timed(network: Network, items: np.ndarray, steps: list[int], lookahead_ps: int = 0) -> bytes:
    """Records of submit, advance and poll, with stops at ``steps`` on the way."""
    network.submit(items)
    records = []
    for until_ps in [*steps, TIME_NEVER]:
        while True:
            stop = network.advance(until_ps, lookahead_ps).stop
            records.append(network.poll().tobytes())
            if stop != Stop.COMPLETION:
                break
    return b"".join(records)


@examples
@given(models, configs, st.integers(0, 2**32))
def test_submit_and_advance_give_the_same_bytes(
    model: str, config: NetworkConfig, seed: int
) -> None:
    native, python = twins(model, config)
    items = random_transfers(config, seed, 40)
    with native, python:
        got, expected = timed(native, items, []), timed(python, items, [])
        assert len(expected) == 40 * 32
        assert got == expected
        assert native.stats() == python.stats()


@pytest.mark.parametrize("model", ["aware", "unaware"])
@pytest.mark.parametrize("kind", ["Ring", "Switch", "FullyConnected"])
def test_thousands_of_distinct_times(model: str, kind: str) -> None:
    """Enough to grow the native queue's hash, to move entries in it, and to deepen its heap."""
    columns = {"topology": [kind], "npus_count": [60], "bandwidth": [3.1], "latency": [77.7]}
    config = backend(f"analytical-{model}").prepare(NetworkRequest(columns)).config
    items = random_transfers(config, 1, 4000)
    items["start_ps"] = np.random.default_rng(2).integers(0, 10**8, len(items))
    native, python = twins(model, config)
    with native, python:
        assert timed(native, items, []) == timed(python, items, [])


@examples
@given(models, configs, st.integers(0, 2**32), st.lists(st.integers(0, 10**7), max_size=12))
def test_splitting_changes_nothing(
    model: str, config: NetworkConfig, seed: int, steps: list[int]
) -> None:
    items = random_transfers(config, seed, 30)
    for network, again in zip(twins(model, config), twins(model, config), strict=True):
        with network, again:
            whole = timed(network, items, [])
            assert timed(again, items, sorted(steps), lookahead_ps=0) == whole


@examples
@given(models, configs, st.integers(0, 2**32))
def test_exchange_with_a_reacting_host_gives_the_same_log(
    model: str, config: NetworkConfig, seed: int
) -> None:
    logs: list[Any] = []
    for network in twins(model, config):
        with network:
            world = Exchanging(network)
            chatter = Chatter(world, seed, config.endpoints, lambda world=world: world.now)
            world.run()
            logs.append((chatter.log, world.now, world.place, network.stats()))
    assert logs[0] == logs[1]


@examples
@given(graphs(), st.integers(0, 2**32), st.sampled_from(["0", "7.5", "64"]))
def test_links_that_change_give_the_same_bytes(
    config: NetworkConfig, seed: int, sample_interval_us: str
) -> None:
    items = random_transfers(config, seed, 30)
    options = {**config.options, "sample_interval_us": sample_interval_us}
    config = replace(config, options=options)
    results: list[Any] = []
    for network in twins("aware", config):
        with network:
            rng = random.Random(seed)
            for _ in range(6):
                link = rng.randrange(len(config.links))
                scale = rng.choice([0.0, 0.25, 1.0, 3.0])
                network.set_link(link, rng.choice([0, 5000, 10**6]), scale)
                network.set_link(link, 10**9, 1.0)
            results.append((timed(network, items, []), network.stats()))
    assert results[0] == results[1]


@examples
@given(models, configs, st.integers(0, 2**32))
def test_exchange_equals_advance_without_ties(model: str, config: NetworkConfig, seed: int) -> None:
    # Far apart in time: nothing meets, so both ways of driving must agree.
    rng = random.Random(seed)
    rows = []
    for number in range(12):
        src, dst = rng.sample(range(config.endpoints), 2)
        rows.append((4 * number, number * 10**12, rng.randrange(1, 10**6), src, dst, 0, 0, 0))
    items = np.array(rows, TRANSFER)
    for one, other in zip(twins(model, config), twins(model, config), strict=True):
        with one, other:
            by_advance = timed(one, items, [])
            place, records = 4 * len(items), b""
            for index in range(len(items)):
                batch, now = items[index : index + 1], int(items[index]["start_ps"])
                last = index + 1 == len(items)
                until = TIME_NEVER if last else int(items[index + 1]["start_ps"])
                while True:
                    out = other.exchange(batch, now, until, 0, place)
                    records += out.completions.tobytes()
                    batch, now, place = items[:0], out.now_ps, out.place
                    if out.stop != Stop.COMPLETION:
                        break
            assert records == by_advance


@examples
@given(models, configs, st.integers(0, 2**32))
def test_no_transfer_beats_its_way(model: str, config: NetworkConfig, seed: int) -> None:
    """Latency of the way + bytes / its narrowest link, less what is cut off to whole ns."""
    network = backend(f"analytical-{model}-python").open(config)
    routes = network._routes  # type: ignore[attr-defined]
    items = random_transfers(config, seed, 30)
    with network:
        records = np.frombuffer(timed(network, items, []), network.poll().dtype)
    times = dict(zip(records["id"].tolist(), records["time_ps"].tolist(), strict=True))
    for transfer_id, start_ps, size, src, dst, *_ in items.tolist():
        label = transfer_id if routes.by_message else 0
        way = [routes.link(index) for index in routes.route(src, dst, label)]
        if model == "unaware":
            latency_ns, bytes_per_ns = routes.cost(src, dst, label)
            cut_ns = 1
        else:
            latency_ns = sum(link.latency_ns for link in way)
            bytes_per_ns = min(link.bytes_per_ns for link in way)
            cut_ns = len(way) if config.options["semantics"] == "astra-sim" else 1
        least_ps = start_ps + 1000 * (latency_ns + size / bytes_per_ns - cut_ns)
        assert times[transfer_id] >= math.floor(least_ps)
