# SPDX-License-Identifier: MIT
"""Fabrics: what they promise holds for every one that can be asked for."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge import fabrics
from astra_bridge.errors import InputError
from astra_bridge.fabrics import build
from astra_bridge.inputs.network import LinkColumns, NetworkLinks, network_text, read_network
from tests.effort import examples

GBPS = 1e9 / 8 / 2**30


def tier_of(network: NetworkLinks) -> list[str]:
    tiers = [""] * network.nodes
    for one in network.names:
        tiers[one.first : one.first + one.count] = [one.tier] * one.count
    return tiers


def cables(network: NetworkLinks) -> list[tuple[int, int, float, float]]:
    """One way of each: nodes, Gbit/s, ns."""
    links = LinkColumns.of(network.links)
    rows = zip(
        links.src.tolist(),
        links.dst.tolist(),
        (links.bandwidth_GiBps / GBPS).tolist(),
        links.latency_ns.tolist(),
        strict=True,
    )
    return list(rows)[::2]


def reached(network: NetworkLinks, start: int, *, endpoints_forward: bool) -> int:
    """Endpoints that a message of ``start`` can come to."""
    out: dict[int, set[int]] = {}
    for link in network.links:
        out.setdefault(link.src, set()).add(link.dst)
    seen, stack = {start}, [start]
    while stack:
        node = stack.pop()
        if node >= network.endpoints or node == start or endpoints_forward:
            new = out.get(node, set()) - seen
            seen |= new
            stack += new
    return sum(node < network.endpoints for node in seen)


def between(network: NetworkLinks, lower: set[str], upper: set[str]) -> Counter[int]:
    """Gbit/s of each node of one tier towards another."""
    tiers, sums = tier_of(network), Counter[int]()
    for a, b, gbps, _ in cables(network):
        for node, other in ((a, b), (b, a)):
            if tiers[node] in lower and tiers[other] in upper:
                sums[node] += gbps  # type: ignore[assignment]
    return sums


def ports(network: NetworkLinks, tiers: set[str]) -> int:
    """The most that a switch of these tiers has."""
    names, count = tier_of(network), Counter[int]()
    for a, b, _, _ in cables(network):
        count[a] += 1
        count[b] += 1
    return max(count[node] for node in count if names[node] in tiers)


def of(kind: Callable[..., NetworkLinks], **given: Any) -> NetworkLinks | None:
    """The fabric; None where it cannot be, which an error says."""
    with suppress(InputError):
        return kind(**given)
    return None


HOSTS = st.integers(1, 12)
PER_HOST = st.sampled_from([1, 2, 4, 6, 8])
RATIO = st.sampled_from([1, 1.5, 2, 3, 4, 0.5])
SHARED = {
    "gpus_per_host": PER_HOST,
    "planes": st.integers(1, 2),
    "nic_gbps": st.sampled_from([100.0, 400.0]),
    "nvlink_gbps": st.sampled_from([0.0, 3600.0]),
}
CLOS = {
    **SHARED,
    "oversubscription": RATIO,
    "radix": st.sampled_from([None, 16, 64]),
    "hosts_per_leaf": st.sampled_from([None, 1, 2, 3, 4]),
    "spines": st.sampled_from([None, 1, 2, 3, 4]),
    "uplink_gbps": st.sampled_from([None, 400.0, 800.0]),
}
FUZZ = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=examples(60)
)


def sound(network: NetworkLinks, gpus: int, per_host: int, *, forward: bool = False) -> None:
    """What holds for every fabric."""
    assert network.endpoints == gpus == math.prod(network.dims)
    assert sum(one.count for one in network.names) == network.nodes
    assert read_network_text(network) == network
    for start in {0, gpus // 2, gpus - 1}:
        assert reached(network, start, endpoints_forward=forward) == gpus
    tiers = tier_of(network)
    inside = [(a, b) for a, b, _, _ in cables(network) if tiers[b] == "nvlink"]
    hosts = {}
    for gpu, switch in inside:
        assert hosts.setdefault(switch, gpu // per_host) == gpu // per_host


def read_network_text(network: NetworkLinks) -> object:
    import yaml

    return read_network(yaml.safe_load(network_text(network)))


@FUZZ
@given(st.sampled_from([fabrics.rail, fabrics.leaf_spine]), HOSTS, st.fixed_dictionaries(CLOS))
def test_leaves_and_spines(
    kind: Callable[..., NetworkLinks], hosts: int, given_: dict[str, Any]
) -> None:
    per_host, planes = given_["gpus_per_host"], given_["planes"]
    network = of(kind, gpus=hosts * per_host, **given_)
    if network is None:
        return
    sound(network, hosts * per_host, per_host)
    down = between(network, {"leaf"}, {"gpu"})
    up = between(network, {"leaf"}, {"spine"})
    assert math.isclose(sum(down.values()), hosts * per_host * given_["nic_gbps"])
    if up:  # every leaf has what a full one needs
        full = max(down.values())
        if given_["hosts_per_leaf"]:
            unit = 1 if kind is fabrics.rail else per_host
            full = given_["hosts_per_leaf"] * unit * given_["nic_gbps"] / planes
        assert len(set(map(round, up.values()))) == 1
        assert math.isclose(full / max(up.values()), given_["oversubscription"])
        assert given_["spines"] in (None, tier_of(network).count("spine") // planes)
        leaves = down.keys()
        assert up.keys() == leaves
    assert ports(network, {"leaf", "spine"}) <= (given_["radix"] or 1 << 16)


@FUZZ
@given(HOSTS, PER_HOST, st.integers(1, 2))
def test_rails(hosts: int, per_host: int, planes: int) -> None:
    network = fabrics.rail(hosts * per_host, gpus_per_host=per_host, planes=planes)
    tiers = tier_of(network)
    for gpu, leaf, gbps, ns in cables(network):
        if tiers[leaf] == "leaf":
            name = network.name_of(leaf)
            assert per_host == 1 or f"rail{gpu % per_host}.leaf" in name
            assert planes == 1 or name.startswith("plane")
            assert (round(gbps * planes), ns) == (400, 500.0)


@FUZZ
@given(HOSTS, st.fixed_dictionaries({**SHARED, "oversubscription": RATIO,
                                     "radix": st.sampled_from([None, 8, 16, 24])}))  # fmt: skip
def test_fat_trees(hosts: int, given_: dict[str, Any]) -> None:
    per_host = given_["gpus_per_host"]
    network = of(fabrics.fat_tree, gpus=hosts * per_host, **given_)
    if network is None:
        return
    sound(network, hosts * per_host, per_host)
    down, up = (between(network, {"edge"}, {one}) for one in ("gpu", "aggregation"))
    if up:
        assert math.isclose(max(down.values()) / max(up.values()), given_["oversubscription"])
        assert ports(network, {"edge", "aggregation", "core"}) <= (given_["radix"] or 1 << 16)


@pytest.mark.parametrize("hosts_per_leaf", [8, 2])
def test_rails_alone(hosts_per_leaf: int) -> None:
    """Four leaves of two hosts in each rail need spines; one leaf of eight does not."""
    network = fabrics.rail(64, rail_only=True, hosts_per_leaf=hosts_per_leaf, nvlink_gbps=0)
    assert tier_of(network).count("spine") == (8 * 2 if hosts_per_leaf == 2 else 0)
    assert reached(network, 0, endpoints_forward=False) == 8  # those of rail 0
    switches = network.name_of(network.nodes - 1)
    assert switches == ("rail7.spine1" if hosts_per_leaf == 2 else "rail7.leaf0")
    joined = fabrics.rail(64, hosts_per_leaf=hosts_per_leaf)
    assert reached(joined, 0, endpoints_forward=False) == 64


@pytest.mark.parametrize("k", [4, 6, 8])
def test_a_full_fat_tree_is_that_of_the_paper(k: int) -> None:
    network = fabrics.fat_tree(k**3 // 4, gpus_per_host=1)
    tiers = Counter(tier_of(network))
    assert tiers == {"gpu": k**3 // 4, "edge": k * k // 2, "aggregation": k * k // 2,
                     "core": k * k // 4}  # fmt: skip
    assert len(cables(network)) == 3 * k**3 // 4
    assert ports(network, {"core"}) == ports(network, {"edge"}) == k
    # Every GPU of a half could send to the other half at full speed.
    assert sum(between(network, {"core"}, {"aggregation"}).values()) == pytest.approx(
        400 * k**3 // 4
    )


@FUZZ
@given(
    HOSTS,
    st.fixed_dictionaries(
        {
            **SHARED,
            "global_links": st.sampled_from([None, 1, 2, 3]),
            "routers_per_group": st.sampled_from([None, 2, 3]),
        }
    ),
)
def test_dragonflies(hosts: int, given_: dict[str, Any]) -> None:
    per_host = given_["gpus_per_host"]
    network = of(fabrics.dragonfly, gpus=hosts * per_host, **given_)
    if network is None:
        return
    sound(network, hosts * per_host, per_host)


def test_a_balanced_dragonfly_is_that_of_the_paper() -> None:
    """h = 2: 9 groups of 4 routers with 2 GPUs, and one cable between any two groups."""
    network = fabrics.dragonfly(72, gpus_per_host=1, global_latency_ns=1000)
    first = network.endpoints
    assert Counter(tier_of(network)) == {"gpu": 72, "router": 36}
    far = Counter(
        tuple(sorted(((a - first) // 4, (b - first) // 4)))
        for a, b, _, ns in cables(network)
        if ns == 1000
    )
    assert far == {(a, b): 1 for a in range(9) for b in range(a + 1, 9)}
    degrees = Counter(node for a, b, _, _ in cables(network) for node in (a, b))
    assert {degrees[router] for router in range(first, network.nodes)} == {2 + 3 + 2}


@FUZZ
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_tori(dims: list[int]) -> None:
    network = fabrics.torus(dims=dims)
    assert network.endpoints_forward
    sound(network, math.prod(dims), 1, forward=True)
    each = [0 if size == 1 else size - 1 if size == 2 else size for size in dims]
    expected = sum(math.prod(dims) // size * n for size, n in zip(dims, each, strict=True))
    assert len(cables(network)) == expected
    strides = [math.prod(dims[:at]) for at in range(len(dims))]
    for a, b, _, _ in cables(network):
        steps = [
            (a // stride % size, b // stride % size)
            for stride, size in zip(strides, dims, strict=True)
        ]
        assert sum(own != other for own, other in steps) == 1


@pytest.mark.parametrize(
    ("gpus", "sizes"), [(64, (4, 4, 4)), (12, (3, 2, 2)), (7, (7,)), (1, (1,))]
)
def test_a_torus_is_near_a_cube(gpus: int, sizes: tuple[int, ...]) -> None:
    assert fabrics.torus(gpus).dims == sizes


def test_boards_of_hgx() -> None:
    rack = fabrics.hgx(144, gpus_per_host=72, nvswitches=18, nvlink_gbps=7200)
    assert Counter(tier_of(rack)) == {"gpu": 144, "nvlink": 36, "leaf": 1}
    sound(rack, 144, 72)
    assert {round(gbps) for _, _, gbps, _ in cables(rack)} == {7200 // 18, 400}
    sound(fabrics.hgx(), 8, 8)


@pytest.mark.parametrize(
    ("kind", "given_", "message"),
    [
        ("rail", {"gpus": 30}, "gpus: 30 is not allowed; allowed: multiples of gpus_per_host, whi"),
        ("rail", {"gpus": 0}, "gpus: 0 is not allowed; allowed: whole numbers from 1 to 1048576"),
        ("rail", {"gpus": 64, "rails": 3}, "rails: 3 is not allowed; allowed: divisors of gpus_"),
        ("rail", {"gpus": 64, "planes": "two"}, "planes: 'two' is not allowed"),
        ("rail", {"gpus": 64, "nic_gbps": math.nan}, "nic_gbps: nan is not allowed"),
        ("rail", {"gpus": 4096, "radix": 64}, "radix: 64 is not allowed; allowed: 94 or more"),
        ("rail", {"gpus": 64, "spines": 7}, "spines: 7 is not allowed; allowed: what gives 8"),
        ("rail", {"gpus": 64, "oversubscription": 2, "hosts_per_leaf": 3},
         "hosts_per_leaf: 3 is not allowed; allowed: multiples of 2, for whole uplinks"),
        ("leaf_spine", {"gpus": 16, "oversubscription": 3}, "oversubscription: 3"),
        ("fat_tree", {"gpus": 9000, "radix": 32}, "gpus: 9000 is not allowed; allowed: up to 8192"),
        ("fat_tree", {"gpus": 64, "radix": 15}, "radix: 15 is not allowed; allowed: even numbers"),
        ("fat_tree", {"gpus": 64, "radix": 8}, "radix: 8 is not allowed; allowed: ports for 8 GP"),
        ("dragonfly", {"gpus": 64, "gpus_per_router": 3}, "gpus_per_router: 3 is not allowed"),
        ("dragonfly", {"gpus": 9000, "gpus_per_router": 8, "routers_per_group": 4,
                       "global_links": 2}, "gpus: 9000 is not allowed; allowed: up to 288"),
        ("torus", {}, "gpus: missing"),
        ("torus", {"gpus": 8, "dims": [2, 2]}, "dims: 2 x 2 is 4, but gpus is 8"),
        ("hgx", {"gpus": 8, "nvlink_gbps": 0}, "nvlink_gbps: 0 is not allowed"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(kind: str, given_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        getattr(fabrics, kind)(**given_)
    assert message in str(caught.value)


def test_the_least_radix_that_is_named_suffices() -> None:
    assert ports(fabrics.rail(4096, radix=94), {"leaf", "spine"}) <= 94


def test_numbers_of_numpy_are_numbers() -> None:
    assert fabrics.rail(np.int64(64)) == fabrics.rail(64)  # type: ignore[arg-type]


ANY = st.one_of(st.none(), st.integers(-1, 9), st.integers(0, 1 << 20), st.floats(0, 1e6))
NUMBERS = sorted(
    {name for kind in (fabrics.rail, fabrics.dragonfly, fabrics.hgx)
     for name in inspect.signature(kind).parameters} - {"gpus"}
)  # fmt: skip
ODD = st.dictionaries(st.sampled_from(NUMBERS), ANY, max_size=4)


@FUZZ
@given(
    st.sampled_from([getattr(fabrics, name) for name in ("rail", "leaf_spine", "fat_tree")]
                    + [fabrics.dragonfly, fabrics.hgx]),
    st.sampled_from([1, 8, 64, 960, 4096, 1 << 20]),
    ODD,
)  # fmt: skip
def test_odd_numbers_make_a_network_or_an_error(
    kind: Callable[..., NetworkLinks], gpus: int, odd: dict[str, Any]
) -> None:
    known = inspect.signature(kind).parameters
    most = 1 << 17  # what is drawn may have any number of cables
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "MAX_CABLES", most)
            network = kind(gpus, **{name: value for name, value in odd.items() if name in known})
    except InputError as error:
        assert error.key in known  # noqa: PT017 - most are refused
    else:
        assert network.endpoints == gpus
        assert len(network.links) <= 2 * most


def test_what_takes_all_memory_is_refused() -> None:
    for message, make in [
        ("routers_per_group: makes", lambda: fabrics.dragonfly(8, gpus_per_router=1 << 15)),
        ("gpus: makes", lambda: fabrics.leaf_spine(1 << 20, oversubscription=0.01)),
        # 4,096 cables in hosts, and 8,192 in each plane.
        (
            "planes: makes 67112960 cables or nodes; allowed: up to 33554432",
            lambda: fabrics.rail(4096, planes=8192),
        ),
    ]:
        with pytest.raises(InputError, match=message):
            make()
