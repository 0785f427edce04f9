# SPDX-License-Identifier: MIT
"""Which links a transfer crosses: networks of dimensions, and arbitrary lists of links.

Both answer the same questions (:class:`Routes`) and number nodes and links as
``astra_bridge.topology`` does.  Neither holds anything per pair of endpoints.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from astra_bridge.errors import ContractError, SimulationError
from astra_bridge.network.api import NetworkConfig, Status
from astra_bridge.topology import links_per_endpoint
from astra_bridge.units import PS_PER_NS, gibps_to_bytes_per_ns

__all__ = ["Dimension", "Dimensions", "LinkList", "LinkProperties", "Routes", "routes_of"]

KINDS = ("Ring", "FullyConnected", "Switch")


class LinkProperties(NamedTuple):
    src: int
    dst: int
    bytes_per_ns: float
    latency_ns: float


class Routes(ABC):
    """What a model needs to know about a topology."""

    endpoints: int
    link_count: int

    @abstractmethod
    def route(self, src: int, dst: int) -> list[int]:
        """Links from endpoint ``src`` to another endpoint ``dst``, in order."""

    @abstractmethod
    def link(self, index: int) -> LinkProperties: ...

    @abstractmethod
    def cost(self, src: int, dst: int) -> tuple[float, float]:
        """Latency in ns and bandwidth in bytes per ns of the whole way, if nobody else used it."""

    def shortened(self, src: int, dst: int) -> bool:  # noqa: ARG002
        """Whether the cost is that of a part of the way."""
        return False


def refuse(message: str) -> ContractError:
    return ContractError(f"create: {message}", call="create", status=Status.INVALID)


@dataclass(frozen=True)
class Dimension:
    """One building block: ``size`` nodes that differ in one digit of their mixed-radix id."""

    kind: str
    size: int
    bytes_per_ns: float
    latency_ns: float
    stride: int
    first_link: int

    @property
    def links_per_endpoint(self) -> int:
        return links_per_endpoint(self.kind, self.size)

    def hops(self, src: int, dst: int) -> int:
        """Links between two digits."""
        if self.kind == "Ring":
            clockwise = (dst - src) % self.size
            return min(clockwise, self.size - clockwise)
        return 2 if self.kind == "Switch" else 1

    def route(self, node: int, src: int, dst: int) -> list[int]:
        """Links that take ``node`` from digit ``src`` to digit ``dst``."""
        width = self.links_per_endpoint
        if self.kind == "Switch":
            there = node + (dst - src) * self.stride
            return [self.first_link + node * 2, self.first_link + there * 2 + 1]
        if self.kind == "FullyConnected":
            return [self.first_link + node * width + (dst if dst < src else dst - 1)]
        # The shorter way round; clockwise if both are equally long.
        step = 1 if 2 * ((dst - src) % self.size) <= self.size else -1
        links = []
        while src != dst:
            links.append(self.first_link + node * width + (step < 0))
            after = (src + step) % self.size
            node += (after - src) * self.stride
            src = after
        return links


class Dimensions(Routes):
    """A network of dimensions; transfers cross them in ascending order.

    Parameters
    ----------
    first_only
        ``cost`` is that of the first dimension in which the two ids differ, as in ASTRA-sim's
        congestion-unaware model.  Otherwise it is that of the whole way.
    """

    def __init__(self, options: Mapping[str, str], endpoints: int, first_only: bool) -> None:
        columns = {
            key: options.get(key, "").split(",")
            for key in ("topology", "npus_count", "bandwidth", "latency")
        }
        if len({len(column) for column in columns.values()}) != 1:
            raise refuse(f"options {', '.join(columns)} differ in length: {dict(options)}")
        dimensions = []
        stride, first_link, switches = 1, 0, []
        self._first_only = first_only
        self.endpoints = endpoints
        for kind, size_text, rate_text, latency_text in zip(*columns.values(), strict=True):
            try:
                size, rate, latency = int(size_text), float(rate_text), float(latency_text)
            except ValueError as error:
                raise refuse(f"option is not a number: {error}") from None
            if kind not in KINDS:
                raise refuse(f"option 'topology' has '{kind}'; allowed: {', '.join(KINDS)}")
            if not (1 <= size <= endpoints):
                raise refuse(f"option 'npus_count' has {size}, not 1..{endpoints}")
            if not (0 < rate < math.inf and 0 <= latency < math.inf):
                raise refuse(
                    f"bandwidth {rate} must be positive and latency {latency} not negative"
                )
            one = Dimension(kind, size, gibps_to_bytes_per_ns(rate), latency, stride, first_link)
            dimensions.append(one)
            stride *= size
            first_link += one.links_per_endpoint * endpoints
            switches.append(endpoints // size if kind == "Switch" and size > 1 else 0)
        if stride != endpoints:
            raise refuse(f"npus_count multiplies to {stride}, but there are {endpoints} endpoints")
        self.dimensions = tuple(dimensions)
        self._switches = switches
        self.link_count = first_link

    def route(self, src: int, dst: int) -> list[int]:
        links: list[int] = []
        node = src
        for one in self.dimensions:
            here, there = src // one.stride % one.size, dst // one.stride % one.size
            if here != there:
                links += one.route(node, here, there)
                node += (there - here) * one.stride
        return links

    def cost(self, src: int, dst: int) -> tuple[float, float]:
        return self._cost(src, dst, self._first_only)

    def shortened(self, src: int, dst: int) -> bool:
        return self._first_only and self.cost(src, dst) != self._cost(src, dst, False)

    def _cost(self, src: int, dst: int, first_only: bool) -> tuple[float, float]:
        latency_ns, bytes_per_ns = 0.0, math.inf
        for one in self.dimensions:
            here, there = src // one.stride % one.size, dst // one.stride % one.size
            if here != there:
                latency_ns += one.hops(here, there) * one.latency_ns
                bytes_per_ns = min(bytes_per_ns, one.bytes_per_ns)
                if first_only:
                    break
        return latency_ns, bytes_per_ns

    def link(self, index: int) -> LinkProperties:
        position = max(
            d
            for d, one in enumerate(self.dimensions)
            if one.first_link <= index and one.links_per_endpoint
        )
        one = self.dimensions[position]
        node, which = divmod(index - one.first_link, one.links_per_endpoint)
        digit = node // one.stride % one.size
        if one.kind == "Switch":
            group = node % one.stride + node // (one.stride * one.size) * one.stride
            hub = self.endpoints + sum(self._switches[:position]) + group
            ends = (hub, node) if which else (node, hub)
        else:
            if one.kind == "Ring":
                peer = (digit + (-1 if which else 1)) % one.size
            else:
                peer = which if which < digit else which + 1
            ends = (node, node + (peer - digit) * one.stride)
        return LinkProperties(*ends, one.bytes_per_ns, one.latency_ns)


class LinkList(Routes):
    """Any directed graph: fewest hops, and equal-cost multi-path by a hash of the flow.

    At each node, the links that bring the transfer one hop closer are equally good (parallel
    links too); a hash of (source, destination, node) picks one, so that a pair of endpoints
    always uses the same way.

    Ways lead to a destination alike from and to many nodes, so that little is held.  A *stub* is
    a node whose links lead to one other node and come from it, its gate, as nearly every host's
    do: no way passes through it, and ways to it are ways to its gate.  Other nodes that are entered
    from the same nodes, and lead to the same nodes in the same order, are of one *kind*: ways lead
    to all of them alike, and away from them alike.

    Parameters
    ----------
    most_room
        Bound of the entries of all tables: any of them can be made again.
    """

    def __init__(self, config: NetworkConfig, most_room: int = 1 << 22) -> None:
        self.endpoints = config.endpoints
        self.link_count = len(config.links)
        self._links = [
            LinkProperties(src, dst, rate / 1e9, float(latency_ps) / PS_PER_NS)
            for src, dst, rate, latency_ps, _ in config.links.tolist()
        ]
        leads_to: list[set[int]] = [set() for _ in range(config.nodes)]
        comes_from: list[set[int]] = [set() for _ in range(config.nodes)]
        for index, link in enumerate(self._links):
            nodes = f"but there are {config.nodes} nodes"
            if not (0 <= link.src < config.nodes and 0 <= link.dst < config.nodes):
                raise refuse(f"link {index}: {link.src} -> {link.dst}, {nodes}")
            if link.src == link.dst:
                raise refuse(f"link {index}: {link.src} -> {link.dst}, the same node")
            # The rate as it was given: per ns it may vanish, and is then too slow for any time.
            rate = float(config.links["bytes_per_second"][index])
            if not (0 < rate < math.inf) or link.latency_ns < 0:
                raise refuse(f"link {index}: bandwidth must be positive, latency not negative")
            leads_to[link.src].add(link.dst)
            comes_from[link.dst].add(link.src)
        self._gate = gate = list(range(config.nodes))  # of a stub, else the node itself
        for node, after in enumerate(leads_to):
            if len(after) == 1 and after == comes_from[node]:
                (only,) = after
                if gate[only] == only:
                    gate[node] = only
        # Links into a node by where they come from; out of it those that do not lead to stubs.
        self._in: list[dict[int, list[int]]] = [{} for _ in range(config.nodes)]
        self._out: list[list[int]] = [[] for _ in range(config.nodes)]
        for index, link in enumerate(self._links):
            self._in[link.dst].setdefault(link.src, []).append(index)
            if gate[link.dst] == link.dst:
                self._out[link.src].append(index)
        kinds: dict[tuple[frozenset[int], tuple[int, ...]], int] = {}
        self._kind = [-1] * config.nodes
        self._example: list[int] = []  # a node of each kind
        for node in range(config.nodes):
            if gate[node] == node:
                before = frozenset(one for one in self._in[node] if gate[one] == one)
                ahead = tuple(self._links[index].dst for index in self._out[node])
                self._kind[node] = kinds.setdefault((before, ahead), len(kinds))
                if len(self._example) < len(kinds):
                    self._example.append(node)
        self._before = [{self._kind[node] for node in before} for before, _ in kinds]
        self._after = [[self._kind[node] for node in after] for _, after in kinds]
        self._tables: dict[int, list[list[int] | None]] = {}  # the least recently used one first
        self._most_tables = max(1, most_room // max(1, len(kinds)))

    def _toward(self, kind: int) -> list[list[int] | None]:
        """Toward a kind of node: which links of each kind of node lead one hop closer.

        Their positions in ``_out``; an empty list where links lead to the destination itself, None
        where there is no way.
        """
        table = self._tables.pop(kind, None)
        if table is None:
            # Hops to the nodes that lead to the destination: the last hop is another choice.
            hops = dict.fromkeys(self._before[kind], 0)
            ahead = deque(hops)
            while ahead:
                here = ahead.popleft()
                for before in self._before[here]:
                    if before not in hops:
                        hops[before] = hops[here] + 1
                        ahead.append(before)
            table = [None] * len(self._example)
            for row, distance in hops.items():
                after = self._after[row]
                table[row] = [i for i, one in enumerate(after) if hops.get(one) == distance - 1]
            if len(self._tables) >= self._most_tables:
                del self._tables[next(iter(self._tables))]
        self._tables[kind] = table
        return table

    def _closer(self, node: int, target: int) -> list[int]:
        """The links from a node to another, neither of them a stub, or one hop closer to it."""
        row = self._toward(self._kind[target])[self._kind[node]]
        if row is None:
            return []
        return [self._out[node][i] for i in row] if row else self._in[target][node]

    def route(self, src: int, dst: int) -> list[int]:
        links: list[int] = []
        node, target = src, self._gate[dst]
        while node != dst:
            gate = self._gate[node]
            if node == target:
                ways = [index for same in self._in[dst].values() for index in same]
            elif node == gate:
                ways = self._closer(node, target)
            else:
                reached = gate == target or self._closer(gate, target)
                ways = self._out[node] if reached else []
            if not ways:
                raise SimulationError(f"no way from endpoint {src} to endpoint {dst}")
            links.append(ways[_hash(src, dst, node) % len(ways)])
            node = self._links[links[-1]].dst
        return links

    def cost(self, src: int, dst: int) -> tuple[float, float]:
        latency_ns, bytes_per_ns = 0.0, math.inf
        for index in self.route(src, dst):
            latency_ns += self._links[index].latency_ns
            bytes_per_ns = min(bytes_per_ns, self._links[index].bytes_per_ns)
        return latency_ns, bytes_per_ns

    def link(self, index: int) -> LinkProperties:
        return self._links[index]


def _hash(src: int, dst: int, node: int) -> int:
    """A well-mixed 64-bit number (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    mask = (1 << 64) - 1
    x = ((src << 42) ^ (dst << 21) ^ node) & mask
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def routes_of(config: NetworkConfig) -> Routes:
    """The topology of a configuration: dimensions if the options name them, else its links."""
    if "topology" in config.options:
        return Dimensions(
            config.options, config.endpoints, has_quirk(config, "first-dimension-only")
        )
    return LinkList(config)


def has_quirk(config: NetworkConfig, quirk: str) -> bool:
    """The option of this name; the option ``semantics`` says what it is otherwise."""
    semantics = config.options.get("semantics", "astra-sim")
    if semantics not in ("astra-sim", "corrected"):
        raise refuse(f"option 'semantics' is '{semantics}'; allowed: astra-sim, corrected")
    value = config.options.get(quirk, "true" if semantics == "astra-sim" else "false")
    if value not in ("true", "false"):
        raise refuse(f"option '{quirk}' is '{value}'; allowed: true, false")
    return value == "true"
