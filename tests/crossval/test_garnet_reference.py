# SPDX-License-Identifier: MIT
"""The event-driven Garnet against the one that evaluates everything in every cycle."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astra_bridge.errors import SimulationError
from astra_bridge.network.garnet import BACKENDS
from astra_bridge.network.garnet.model import GarnetLink, GarnetNetwork, GarnetNode, GarnetVnet
from astra_bridge.network.garnet.replay import MESSAGE, MessageList, read_messages, replay
from tests.effort import spread
from tests.garnet_reference import Reference

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT.parent / "shared" / "golden" / "garnet"

pytestmark = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)


def random_case(seed: int) -> MessageList:
    """A tree of routers with extra links, odd latencies, some ordered vnets, and heavy traffic."""
    rng = random.Random(seed)
    routers = rng.randint(1, 7)
    pairs = {(rng.randrange(r), r) for r in range(1, routers)}
    for _ in range(rng.randint(0, 4) if routers > 1 else 0):
        a, b = sorted(rng.sample(range(routers), 2))
        pairs.add((a, b))
    links = []
    for a, b in sorted(pairs, key=lambda _: rng.random()):
        for src, dst in ((a, b), (b, a)):
            weight = rng.randint(1, 3)
            links.append(GarnetLink(src, dst, rng.choice([1, 1, 2, 5, 70]), weight))
    nodes = [GarnetNode(rng.randrange(routers), rng.choice([1, 1, 1, 3])) for _ in range(routers)]
    nodes += [GarnetNode(rng.randrange(routers)) for _ in range(rng.randint(0, 3))]
    vnets = [
        GarnetVnet(rng.choice(["data", "ctrl"]), rng.random() < 0.4)
        for _ in range(rng.choice([1, 2, 3, 5]))
    ]
    network = GarnetNetwork(
        routers=tuple(rng.choice([1, 1, 2, 4]) for _ in range(routers)),
        nodes=tuple(nodes),
        links=tuple(links),
        clock_hz=rng.choice([10**9, 3 * 10**9, 1_700_000_001]),
        flit_bytes=rng.choice([1, 16, 33]),
        vnets=tuple(vnets),
        # 17 VCs in 5 vnets need two machine words per port, 60 need five.
        vcs_per_vnet=rng.choice([1, 2, 4, 17, 60]),
        buffers_per_ctrl_vc=rng.randint(1, 3),
        buffers_per_data_vc=rng.randint(1, 6),
    )
    count = rng.randint(1, 60)
    messages = np.zeros(count, MESSAGE)
    messages["id"] = rng.sample(range(1000), count)
    messages["after"] = -1
    for row in messages:
        row["cycle"] = rng.randint(0, rng.choice([5, 60, 400]))
        row["src"], row["dst"] = rng.randrange(len(nodes)), rng.randrange(len(nodes))
        row["bytes"] = rng.randint(1, 7 * network.flit_bytes)
        row["vnet"] = rng.randrange(len(vnets))
    return MessageList(network, messages)


def expected(case: MessageList) -> list[int]:
    flit = case.network.flit_bytes
    return Reference(case.network).run(
        [
            (
                int(m["cycle"]),
                int(m["src"]),
                int(m["dst"]),
                -(-int(m["bytes"]) // flit),
                int(m["vnet"]),
            )
            for m in case.messages
        ],
        limit=20_000,
    )


@pytest.mark.parametrize("first", range(0, 72, 24))
def test_random_networks(first: int) -> None:
    same = 0
    seeds = spread(range(first, first + 24), 3)
    for seed in seeds:
        case = random_case(seed)
        try:
            answer = replay(case).rows["deliver"].tolist()
        except SimulationError:
            # Routes over weights may close a circle; then the reference does not end either.
            with pytest.raises(AssertionError, match="no end"):
                expected(case)
            continue
        assert answer == expected(case), f"seed {seed}"
        same += 1
    assert same >= 0.75 * len(seeds)


@pytest.mark.parametrize("name", ["a19_ordered", "b01_parking_lot", "k11_ring4_ties_ordered"])
def test_the_reference_is_gem5(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    if not path.exists():
        pytest.skip(f"no golden data at {GOLDEN}")
    case = read_messages(path)
    assert case.results is not None
    column = list(case.results["columns"]).index("deliver")
    assert expected(case) == [row[column] for row in case.results["rows"]]


def test_order_of_the_list_of_links_does_not_matter() -> None:
    case = random_case(7)
    shuffled = replace(case.network, links=tuple(reversed(case.network.links)))
    again = replay(MessageList(shuffled, case.messages)).rows["deliver"]
    assert replay(case).rows["deliver"].tolist() == again.tolist()
