# SPDX-License-Identifier: MIT
"""Ways through lists of links: both implementations against the definition, by brute force."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from astra_bridge.errors import SimulationError
from astra_bridge.network.analytical.topologies import LinkList
from astra_bridge.network.api import LINK, NetworkConfig

ROOT = Path(__file__).parents[2]
Graph = tuple[int, int, list[tuple[int, int]], list[int], str, bool]
"""Endpoints, nodes, directed links, their rates, routing, and whether endpoints forward."""


def random_graph(rng: random.Random) -> Graph:
    """Hosts that hang on a switch or two, switches in groups that are wired alike, and then noise:
    parallel links, one-way links, links between hosts, nodes without any."""
    switches = rng.randint(1, 7)
    endpoints = rng.randint(2, 9)
    nodes = endpoints + switches
    cables = []
    for host in range(endpoints):
        ports = rng.choice([0, 1, 1, 1, 1, 2])
        cables += [(host, rng.randrange(endpoints, nodes)) for _ in range(ports)]
    spines = rng.randint(0, switches - 1)
    cables += [
        (a, b) for a in range(endpoints, nodes - spines) for b in range(nodes - spines, nodes)
    ]
    for _ in range(rng.choice([0, 0, 1, 3])):
        cables.append((rng.randrange(nodes), rng.randrange(nodes)))
    if rng.random() < 0.3:
        cables += rng.choices(cables, k=2) if cables else []
    if rng.random() < 0.5:
        rng.shuffle(cables)
    links = []
    for a, b in cables:
        if a != b:
            links += [(a, b)] if rng.random() < 0.1 else [(a, b), (b, a)]
    rates = rng.choices(rng.choice([[1], [1, 1, 1, 2]]), k=len(links))
    return endpoints, nodes, links, rates, rng.choice(["ecmp", "static"]), rng.random() < 0.5


def mixed(src: int, dst: int, node: int) -> int:
    """The finaliser of SplitMix64."""
    x = ((src << 42) ^ (dst << 21) ^ node) + 0x9E3779B97F4A7C15 & 2**64 - 1
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & 2**64 - 1
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & 2**64 - 1
    return x ^ (x >> 31)


def shortest(graph: Graph, ends: set[int], backwards: bool) -> dict[int, int]:
    """Hops to (or from) the nearest of some nodes, by relaxation until nothing changes.  Of a way
    no node between its ends may be an endpoint, unless endpoints forward."""
    endpoints, _, links, _, _, forward = graph
    hops, changed = dict.fromkeys(ends, 0), True
    while changed:
        changed = False
        for link in links:
            b, a = link if backwards else link[::-1]
            if b not in hops or hops[b] + 1 >= hops.get(a, 10**9):
                continue
            if b not in ends and b < endpoints and not forward:
                continue
            hops[a] = hops[b] + 1
            changed = True
    return hops


def way_by_definition(graph: Graph, src: int, dst: int) -> list[int] | None:
    endpoints, _, links, rates, routing, forward = graph
    hops = shortest(graph, {dst}, False)
    if src not in hops:
        return None
    height = shortest(graph, set(range(endpoints)), True)
    way, node = [], src
    while node != dst:
        good = [
            i
            for i, (a, b) in enumerate(links)
            if a == node
            and hops.get(b, -1) == hops[node] - 1
            and (b == dst or b >= endpoints or forward)
        ]
        if node < endpoints and not forward:
            good = [i for i in good if rates[i] == max(rates[i] for i in good)]
        key = mixed(src, dst, node)
        if routing == "static":
            key = dst // len(good) ** max(0, height[node] - 1)
        way.append(good[key % len(good)])
        node = links[way[-1]][1]
    return way


def python_way(routes: LinkList, src: int, dst: int) -> list[int] | None:
    try:
        return routes.route(src, dst)
    except SimulationError:
        return None


def pairs(endpoints: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(endpoints) for b in range(endpoints) if a != b]


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    rng = random.Random(7)
    return [random_graph(rng) for _ in range(400)]


@pytest.fixture(scope="module")
def ways(graphs: list[Graph]) -> list[list[int] | None]:
    """Of every pair of endpoints of every graph."""
    return [way_by_definition(graph, *pair) for graph in graphs for pair in pairs(graph[0])]


@pytest.mark.parametrize("most_room", [1, 1 << 22])
def test_python(graphs: list[Graph], ways: list[list[int] | None], most_room: int) -> None:
    found = []
    for endpoints, nodes, links, rates, routing, forward in graphs:
        rows = np.array(
            [(*ends, 1e9 * rate, 0, 0.0) for ends, rate in zip(links, rates, strict=True)], LINK
        )
        options = {"routing": routing, "endpoints_forward": str(forward).lower()}
        routes = LinkList(NetworkConfig(endpoints, nodes, rows, options), most_room)
        found += [python_way(routes, *pair) for pair in pairs(endpoints)]
    assert found == ways
    assert None in ways
    assert max(len(way) for way in ways if way) >= 4


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]) -> Path:
    """Reads graphs, and says the native network's ways."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        missing("compiler", "no C++ compiler")
    made = tmp_path_factory.mktemp("routes") / "routes"
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{ROOT / 'csrc' / 'include'}", f"-I{ROOT / 'backends' / 'analytical'}"]
    command += [str(Path(__file__).with_name("routes.cpp")), "-o", str(made)]
    subprocess.run(command, check=True)
    return made


@pytest.mark.parametrize("most_room", [1, 40, 1 << 25])
def test_native(
    graphs: list[Graph], ways: list[list[int] | None], most_room: int, program: Path
) -> None:
    text = [str(most_room)]
    for endpoints, nodes, links, rates, routing, forward in graphs:
        text.append(f"{endpoints} {nodes} {len(links)} {routing} {str(forward).lower()}")
        text += [f"{a} {b} {rate}e9" for (a, b), rate in zip(links, rates, strict=True)]
    said = subprocess.run(
        [program], input="\n".join(text), capture_output=True, text=True, check=True
    )
    expected = ["- " if way is None else "".join(f"{one} " for one in way) for way in ways]
    assert said.stdout.splitlines() == expected
