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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import ContractError, SimulationError
from astra_bridge.inputs.network import ROUTINGS
from astra_bridge.network.api import NetworkConfig, Status
from astra_bridge.topology import links_per_endpoint
from astra_bridge.units import PS_PER_NS, gibps_to_bytes_per_ns

__all__ = [
    "Dimension",
    "Dimensions",
    "LinkList",
    "LinkProperties",
    "Routes",
    "has_quirk",
    "routes_of",
]

KINDS = ("Ring", "FullyConnected", "Switch")
FLAGS = ("false", "true")


class LinkProperties(NamedTuple):
    src: int
    dst: int
    bytes_per_ns: float
    latency_ns: float


class Routes(ABC):
    """What a model needs to know about a topology."""

    endpoints: int
    link_count: int
    by_message: bool = False
    """Whether messages of one pair may take different ways, by a label of theirs."""

    @abstractmethod
    def route(self, src: int, dst: int, label: int = 0) -> list[int]:
        """Links from endpoint ``src`` to another endpoint ``dst``, in order."""

    @abstractmethod
    def link(self, index: int) -> LinkProperties: ...

    def folded(self, index: int) -> int:
        """The link that stands for a link: itself, unless ranks are folded."""
        return index

    @abstractmethod
    def cost(self, src: int, dst: int, label: int = 0) -> tuple[float, float]:
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
        fold = options.get("fold", "")
        self.fold = [
            (int(a), int(b)) for a, _, b in (one.partition(":") for one in fold.split(",") if one)
        ]
        self._switches = switches
        self.link_count = first_link

    def route(self, src: int, dst: int, label: int = 0) -> list[int]:  # noqa: ARG002
        links: list[int] = []
        node = src
        for one in self.dimensions:
            here, there = src // one.stride % one.size, dst // one.stride % one.size
            if here != there:
                links += one.route(node, here, there)
                node += (there - here) * one.stride
        return links

    def folded(self, index: int) -> int:
        """Turned until the endpoint that the link belongs to is one that runs."""
        if not self.fold:
            return index
        one = self.dimensions[self._position(index)]
        node, which = divmod(index - one.first_link, one.links_per_endpoint)
        owner = peer = node
        if one.kind == "FullyConnected":
            digit = node // one.stride % one.size
            peer += ((which if which < digit else which + 1) - digit) * one.stride
        for stride, size in self.fold:
            by, digit = owner // stride % size, peer // stride % size
            owner -= by * stride
            peer += ((digit - by) % size - digit) * stride
        if one.kind == "FullyConnected":
            here, there = owner // one.stride % one.size, peer // one.stride % one.size
            which = there if there < here else there - 1
        return one.first_link + owner * one.links_per_endpoint + which

    def turned(
        self, position: int, links: NDArray[Any], by: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Links of a dimension, their numbers and ends, where all ranks are moved by distances.

        The rank that a link belongs to has zeros for all digits of the distances.
        """
        one = self.dimensions[position]
        node, which = np.divmod(links - one.first_link, one.links_per_endpoint)
        own = node // one.stride % one.size
        ahead = {  # to the other end
            "Ring": np.where(which == 0, 1, one.size - 1),
            "FullyConnected": np.where(which < own, which, which + 1) - own,
            "Switch": np.zeros_like(own),
        }[one.kind]
        owner = node[:, None] + by[None, :]
        digit = owner // one.stride % one.size
        peer = self._beside(one, node, own, ahead, by)
        there = peer // one.stride % one.size
        way = np.broadcast_to(which[:, None], owner.shape)
        if one.kind == "FullyConnected":
            way = np.where(there < digit, there, there - 1)
        number = one.first_link + owner * one.links_per_endpoint + way
        if one.kind != "Switch":
            return number, owner, peer
        group = owner % one.stride + owner // (one.stride * one.size) * one.stride
        hub = self.endpoints + sum(self._switches[:position]) + group
        return number, np.where(way == 0, owner, hub), np.where(way == 0, hub, owner)

    def _beside(
        self,
        one: Dimension,
        node: NDArray[Any],
        own: NDArray[Any],
        ahead: NDArray[Any],
        by: NDArray[Any],
    ) -> NDArray[Any]:
        """The other ends of links of nodes that are moved."""
        peer = node + ((own + ahead) % one.size - own) * one.stride
        moved: NDArray[Any] = np.broadcast_to(peer[:, None], (len(peer), len(by))).copy()
        for stride, size in self.fold:
            digit = moved // stride % size
            moved += ((digit + by // stride % size) % size - digit) * stride
        return moved

    def _position(self, index: int) -> int:
        """The dimension that a link is of."""
        return max(
            d
            for d, one in enumerate(self.dimensions)
            if one.first_link <= index and one.links_per_endpoint
        )

    def cost(self, src: int, dst: int, label: int = 0) -> tuple[float, float]:  # noqa: ARG002
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

    def ends(self, links: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Both ends of each of the links."""
        src, dst = np.zeros(len(links), np.int64), np.zeros(len(links), np.int64)
        firsts = [one.first_link for one in self.dimensions]
        position = np.searchsorted(firsts, links, "right") - 1
        for d in range(len(self.dimensions)):
            rows = np.flatnonzero(position == d)
            if len(rows):
                _, out, to = self.turned(d, links[rows], np.zeros(1, np.int64))
                src[rows], dst[rows] = out[:, 0], to[:, 0]
        return src, dst

    def link(self, index: int) -> LinkProperties:
        position = self._position(index)
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
    """Any directed graph: fewest hops, and equal-cost multi-path; the twin of
    ``csrc/include/astra_routes.hpp``.

    At each node, the links that bring the transfer one hop closer are equally good (parallel
    links too), and a rule picks one: ``routing=ecmp`` by a hash of (source, destination, node), so
    that a pair of endpoints always uses the same way; ``static`` by the destination alone;
    ``spray`` and ``adaptive`` by a hash of the message too.  An endpoint passes nothing on for
    others, unless ``endpoints_forward=true``, and begins ways with the fastest of such links.

    Ways pass *inner* nodes only, and those to any other node are ways to the inner nodes before
    it, its *entries*: what is kept is the number of hops to each entry.

    Parameters
    ----------
    most_room
        Bound of all that is kept: any of it can be found again.
    """

    def __init__(self, config: NetworkConfig, most_room: int = 1 << 22) -> None:
        self.endpoints = config.endpoints
        self.link_count = len(config.links)
        self.routing = choice_of(config, "routing", ROUTINGS)
        self.by_message = self.routing in ("spray", "adaptive")
        forward = self._forward = choice_of(config, "endpoints_forward", FLAGS) == "true"
        self._links: list[LinkProperties] = []
        # As they were given: per ns, those of two very slow links may become the same.
        self._rates: list[float] = config.links["bytes_per_second"].tolist()
        nodes = config.nodes
        neighbours: list[set[int]] = [set() for _ in range(nodes)]
        for index, (src, dst, rate, latency_ps, _) in enumerate(config.links.tolist()):
            if not (0 <= src < nodes and 0 <= dst < nodes):
                raise refuse(f"link {index}: {src} -> {dst}, but there are {nodes} nodes")
            if src == dst:
                raise refuse(f"link {index}: {src} -> {dst}, the same node")
            # The rate as it was given: per ns it may vanish, and is then too slow for any time.
            if not (0 < rate < math.inf) or latency_ps < 0:
                raise refuse(f"link {index}: bandwidth must be positive, latency not negative")
            # Rounded twice, as in C++: an integer would be divided exactly.
            latency_ns = float(latency_ps) / PS_PER_NS
            self._links.append(LinkProperties(src, dst, rate / 1e9, latency_ns))
            neighbours[src].add(dst)
            neighbours[dst].add(src)
        self._inner = [
            (forward or node >= config.endpoints) and len(others) > 1
            for node, others in enumerate(neighbours)
        ]
        # Links into a node by where they come from; out of it those that lead to inner nodes, and
        # to which.
        self._in: list[dict[int, list[int]]] = [{} for _ in range(config.nodes)]
        self._out: list[list[tuple[int, int]]] = [[] for _ in range(config.nodes)]
        for index, (src, dst, _, _) in enumerate(self._links):
            self._in[dst].setdefault(src, []).append(index)
            if self._inner[dst]:
                self._out[src].append((index, dst))
        self._hops: dict[int, dict[int, int]] = {}  # the least recently used one first
        self._most = max(1, most_room // max(1, sum(self._inner)))
        self._height = self._heights() if self.routing == "static" else []

    def _hops_to(self, entry: int) -> dict[int, int]:
        """Hops from each inner node to this one."""
        hops = self._hops.pop(entry, None)
        if hops is None:
            hops = {entry: 0}
            ahead = deque(hops)
            while ahead:
                here = ahead.popleft()
                for before in self._in[here]:
                    if self._inner[before] and before not in hops:
                        hops[before] = hops[here] + 1
                        ahead.append(before)
            if len(self._hops) >= self._most:
                del self._hops[next(iter(self._hops))]
        self._hops[entry] = hops
        return hops

    def _choices(self, dst: int, node: int) -> list[int]:
        """The links at ``node`` that a way to ``dst`` may take, in ascending order."""
        ways = self._shortest(dst, node)
        if node >= self.endpoints or self._forward:
            return ways
        most = max((self._rates[index] for index in ways), default=0.0)
        return [index for index in ways if self._rates[index] == most]

    def _shortest(self, dst: int, node: int) -> list[int]:
        """The links at ``node`` that lead one hop closer to ``dst``, in ascending order."""
        direct = self._in[dst].get(node)
        if direct:
            return direct
        entries = [dst] if self._inner[dst] else [one for one in self._in[dst] if self._inner[one]]
        least: float = math.inf
        good: set[int] = set()
        for entry in entries:
            hops = self._hops_to(entry)
            for index, after in self._out[node]:
                far = hops.get(after, math.inf)
                if far < least:
                    least, good = far, {index}
                elif far == least < math.inf:
                    good.add(index)
        return sorted(good)

    def route(self, src: int, dst: int, label: int = 0) -> list[int]:
        links: list[int] = []
        node = src
        while node != dst:
            ways = self._choices(dst, node)
            if not ways:
                remedy = (
                    ""
                    if self._forward
                    else " over switches alone; endpoints_forward: true lets endpoints pass on "
                    "what is for others"
                )
                raise SimulationError(f"no way from endpoint {src} to endpoint {dst}{remedy}")
            if len(ways) == 1:
                key = 0
            elif self.routing == "static":
                key = dst // len(ways) ** max(0, self._height[node] - 1)
            else:
                key = _hash(src, dst, node, label)
            links.append(ways[key % len(ways)])
            node = self._links[links[-1]].dst
        return links

    def _heights(self) -> list[int]:
        """Hops of each node from the nearest endpoint."""
        height = [0] * self.endpoints + [-1] * (len(self._in) - self.endpoints)
        ahead = deque(range(self.endpoints))
        while ahead:
            here = ahead.popleft()
            for _, after in self._out[here]:
                if height[after] < 0:
                    height[after] = height[here] + 1
                    ahead.append(after)
        return height

    def cost(self, src: int, dst: int, label: int = 0) -> tuple[float, float]:
        latency_ns, bytes_per_ns = 0.0, math.inf
        for index in self.route(src, dst, label):
            latency_ns += self._links[index].latency_ns
            bytes_per_ns = min(bytes_per_ns, self._links[index].bytes_per_ns)
        return latency_ns, bytes_per_ns

    def link(self, index: int) -> LinkProperties:
        return self._links[index]


def _hash(src: int, dst: int, node: int, label: int = 0) -> int:
    """A well-mixed 64-bit number (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    mask = (1 << 64) - 1
    x = ((src << 42) ^ (dst << 21) ^ node ^ (label * 0xD1342543DE82EF95)) & mask
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


def choice_of(config: NetworkConfig, key: str, allowed: tuple[str, ...]) -> str:
    """The option ``key``, the first of what is allowed where it is not given."""
    value = config.options.get(key, allowed[0])
    if value not in allowed:
        raise refuse(f"option '{key}' is '{value}'; allowed: {', '.join(allowed)}")
    return value


def has_quirk(config: NetworkConfig, quirk: str) -> bool:
    """The option of this name; the option ``semantics`` says what it is otherwise."""
    semantics = choice_of(config, "semantics", ("astra-sim", "corrected"))
    flags = ("true", "false") if semantics == "astra-sim" else ("false", "true")
    return choice_of(config, quirk, flags) == "true"
