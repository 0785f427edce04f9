# SPDX-License-Identifier: MIT
"""The physical topology of ASTRA-sim's ns-3 program, and the logical one (JSON)."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping
from itertools import combinations_with_replacement
from pathlib import Path
from typing import ClassVar

from astra_bridge import arguments
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import load_json, read_text
from astra_bridge.network.ns3.words import number_word, rate_word, whole_word
from astra_bridge.records import Record, Sourced
from astra_bridge.text import show
from astra_bridge.units import parse_time_ps

__all__ = [
    "PhysicalLink",
    "PhysicalTopology",
    "check_ways",
    "read_logical_topology",
    "read_physical_topology",
]

MAX_NODES = 65535


class PhysicalLink(Record, frozen=True):
    """A cable (both directions): rate [bit/s], delay [ps], loss probability."""

    a: int
    b: int
    bps: int
    delay_ps: int
    loss: float


class PhysicalTopology(Sourced, frozen=True, eq=False):
    """A physical topology file; ids as in the file, the ids that are no switches are endpoints.

    `nvswitches` are those of the switches that join the GPUs of a server, as far as it says so.
    """

    beside: ClassVar[tuple[str, ...]] = ("source", "nvswitches")

    nodes: int
    switches: tuple[int, ...]
    links: tuple[PhysicalLink, ...]
    source: Path | None = None
    nvswitches: tuple[int, ...] = ()

    @property
    def endpoints(self) -> tuple[int, ...]:
        """Ids of the endpoints, ascending: rank r is the r-th."""
        switches = set(self.switches)
        return tuple(node for node in range(self.nodes) if node not in switches)


_SIMAI_WORDS = 6


def read_physical_topology(path: str | Path) -> PhysicalTopology:
    """Read a topology file: ``nodes switches links``, switch ids, then one line per cable.

    Raises
    ------
    InputError
        A count is wrong, an id out of range, or a rate or delay is malformed.
    """
    file = arguments.path(path, "path")
    lines = [line.split() for line in read_text(file).splitlines()]
    rows = [(number, words) for number, words in enumerate(lines, 1) if words]
    if not rows:
        raise InputError("the file is empty", file=file)
    number, head = rows[0]
    at = f"line {number}"
    nvswitches = 0
    if len(head) == _SIMAI_WORDS:
        # SimAI's: nodes, GPUs per server, NVSwitches, other switches, links, type of GPU.  The ids
        # of NVSwitches come first.
        kinds = [whole_word(word, at, file, 0, MAX_NODES) for word in head[2:4]]
        nvswitches = kinds[0]
        head = [head[0], str(sum(kinds)), head[4]]
    if len(head) != 3:
        raise InputError(
            f"expected 'nodes switches links', found {len(head)} words", file=file, key=at
        )
    nodes = whole_word(head[0], at, file, 1, MAX_NODES)
    switch_count = whole_word(head[1], at, file, 0, nodes)
    link_count = whole_word(head[2], at, file, 0, 10**7)
    # The ids may stand on several lines or none, as for the fork, which reads words.
    words = [(number, word) for number, row in rows[1:] for word in row]
    if len(words) < switch_count:
        raise InputError(f"{switch_count} switch ids expected", file=file, key=at)
    switches: list[int] = []
    for number, word in words[:switch_count]:
        node = whole_word(word, f"line {number}", file, 0, nodes - 1)
        if node in switches:
            raise InputError(f"switch {node} is listed twice", file=file, key=f"line {number}")
        switches.append(node)
    words = words[switch_count:]
    if len(words) != 5 * link_count:
        last = words[-1][0] if words else number
        raise InputError(
            f"line 1 announces {link_count} links of 5 words (src dst rate delay error_rate), but "
            f"{len(words)} words follow the switches",
            file=file,
            key=f"line {last}",
        )
    links = []
    for index in range(link_count):
        number = words[5 * index][0]
        row = [word for _, word in words[5 * index : 5 * index + 5]]
        at = f"line {number}"
        a, b = (whole_word(word, at, file, 0, nodes - 1) for word in row[:2])
        if a == b:
            raise InputError(f"node {a} is linked to itself", file=file, key=at)
        try:
            delay_ps = parse_time_ps(row[3])
        except (ValueError, OverflowError) as error:
            raise InputError(str(error), file=file, key=at) from None
        if not 0 <= delay_ps <= 10**15:
            raise InputError(f"delay {row[3]} is not in 0 .. 1000 s", file=file, key=at)
        links.append(
            PhysicalLink(
                a, b, rate_word(row[2], at, file), delay_ps, number_word(row[4], at, file, 0, 1)
            )
        )
    topology = PhysicalTopology(
        nodes, tuple(switches), tuple(links), file, tuple(switches[:nvswitches])
    )
    if not topology.endpoints:
        raise InputError("every node is a switch; there is no endpoint", file=file)
    _check_connected(topology, file)
    return topology


def _neighbours(topology: PhysicalTopology) -> dict[int, set[int]]:
    neighbours: dict[int, set[int]] = defaultdict(set)
    for link in topology.links:
        neighbours[link.a].add(link.b)
        neighbours[link.b].add(link.a)
    return neighbours


def _check_connected(topology: PhysicalTopology, file: Path) -> None:
    linked = {link.a for link in topology.links} | {link.b for link in topology.links}
    endpoints = topology.endpoints
    for node in endpoints:
        if node not in linked and len(endpoints) > 1:
            raise InputError(f"endpoint {node} has no link", file=file)
    neighbours = _neighbours(topology)
    reached, queue = {endpoints[0]}, [endpoints[0]]
    while queue:
        ahead = neighbours[queue.pop()] - reached
        reached |= ahead
        queue += ahead
    for node in endpoints:
        if node not in reached:
            raise InputError(
                f"endpoint {node} cannot be reached from endpoint {endpoints[0]}", file=file
            )


def check_ways(topology: PhysicalTopology, ranks: int) -> None:
    """Refuse a topology in which a rank would have to pass on what is for others.

    Parameters
    ----------
    topology : PhysicalTopology
    ranks : int
        So many of its endpoints are used.

    Raises
    ------
    InputError
        Two of them are joined by way of another one only; names the first such pair.
    """
    used = topology.endpoints[:ranks]
    fabrics, joined = _fabrics(topology)
    alike: dict[frozenset[int], list[int]] = defaultdict(list)
    for node in used:
        alike[frozenset(fabrics[node])].append(node)
    # Ranks of one fabric, or of a link, reach one another; few classes, or few such links, remain.
    apart = (
        tuple(sorted((a, b)))
        for one, other in combinations_with_replacement(alike, 2)
        if not one & other
        for a in alike[one]
        for b in alike[other]
        if a != b and b not in joined[a]
    )
    if (pair := next(apart, None)) is None:
        return
    rank = {node: index for index, node in enumerate(topology.endpoints)}
    between = [rank[node] for node in _shortest(topology, *pair)[1:-1] if node in rank]
    raise InputError(
        f"ranks {rank[pair[0]]} and {rank[pair[1]]} are joined only by way of "
        f"rank{'s' * (len(between) > 1)} {', '.join(map(str, between))}, and ranks pass nothing on "
        "for others: join them by a switch, or let ranks pass on with --network-option "
        "endpoints_forward=true (false: run it nevertheless, as where only neighbours exchange "
        "messages)",
        file=topology.source,
    )


def _fabrics(topology: PhysicalTopology) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """Per endpoint, the sets of joined switches that it is at, and the endpoints beside it."""
    switches = set(topology.switches)
    neighbours = _neighbours(topology)
    fabric_of: dict[int, int] = {}
    for first in topology.switches:
        if first in fabric_of:
            continue
        fabric_of[first], ahead = first, [first]
        while ahead:
            for node in neighbours[ahead.pop()] & switches - fabric_of.keys():
                fabric_of[node] = first
                ahead.append(node)
    fabrics, joined = {}, {}
    for node in topology.endpoints:
        beside = neighbours[node] & switches
        fabrics[node] = {fabric_of[switch] for switch in beside}
        joined[node] = neighbours[node] - beside
    return fabrics, joined


def _shortest(topology: PhysicalTopology, start: int, end: int) -> list[int]:
    """The nodes of a way of the fewest hops, whoever passes on."""
    neighbours = _neighbours(topology)
    before, ahead = {start: start}, deque([start])
    while end not in before:
        here = ahead.popleft()
        for node in sorted(neighbours[here] - before.keys()):
            before[node] = here
            ahead.append(node)
    way = [end]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def read_logical_topology(path: str | Path, endpoints: int) -> tuple[int, ...]:
    """Read ``{"logical-dims": ["8", "2"]}``; dimension 0 varies fastest in rank ids.

    Parameters
    ----------
    endpoints
        Of the physical topology.

    Raises
    ------
    InputError
        The key is missing, an entry is no positive whole number, or the product exceeds
        ``endpoints``.
    """
    raw = load_json(path)
    key = "logical-dims"
    if not isinstance(raw, Mapping) or key not in raw:
        raise InputError(f'expected {{"{key}": ["8", "2"]}}', file=path, key=key)
    values = raw[key]
    if not isinstance(values, list) or not values:
        raise InputError(f"expected a list of sizes, found {show(values)}", file=path, key=key)
    dims = []
    for index, value in enumerate(values):
        try:
            size = int(value) if isinstance(value, (str, int)) else 0
        except ValueError:
            size = 0
        if isinstance(value, bool) or not 1 <= size <= MAX_NODES:
            raise InputError(
                f"expected a whole number of at least 1, found {show(value)}",
                file=path,
                key=f"{key}[{index}]",
            )
        dims.append(size)
    ranks = math.prod(dims)
    if ranks > endpoints:
        raise InputError(
            f"{' x '.join(map(str, dims))} = {ranks} ranks, but the physical topology has "
            f"{endpoints} endpoints",
            file=path,
            key=key,
        )
    return tuple(dims)
