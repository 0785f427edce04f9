# SPDX-License-Identifier: MIT
"""The network configuration (YAML) of the analytical backends, in two forms.

* *Dimensions* (ASTRA-sim's): ``topology``, ``npus_count``, ``bandwidth``, ``latency``, one entry
  per dimension.
* *Links* (ours): ``endpoints``, ``switches`` and a list of ``links``, for any topology.

Bandwidths without a unit are GiB/s, as ASTRA-sim takes them although it writes GB/s; latencies
without a unit are ns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astra_bridge.arguments import (
    check_fields,
    choice,
    instance,
    integer,
    list_of,
    number,
    optional,
    path,
    positive,
    source_file,
)
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import MAX_TIME_NS, check_keys, load_yaml, nearest, show
from astra_bridge.inputs.reading import in_file
from astra_bridge.units import PS_PER_NS, parse_rate_Bps, parse_time_ps

__all__ = [
    "TOPOLOGIES",
    "NetworkDims",
    "NetworkLink",
    "NetworkLinks",
    "dim_bandwidth",
    "read_network",
]

TOPOLOGIES = ("Ring", "FullyConnected", "Switch")
"""Building blocks of one dimension."""

MAX_RANKS = 1 << 24
"""Largest number of endpoints that is accepted: beyond it, memory ends before any answer."""


@dataclass(frozen=True)
class NetworkDims:
    """A network of one building block per dimension; dimension 0 varies fastest in rank ids.

    Attributes
    ----------
    topology
        "Ring", "FullyConnected" or "Switch" per dimension.
    npus_count
        Ranks per dimension, each at least 2.
    bandwidth_GiBps, latency_ns
        Bandwidth of a link and time to cross it, per dimension.
    source
        The file.
    """

    topology: tuple[str, ...]
    npus_count: tuple[int, ...]
    bandwidth_GiBps: tuple[float, ...]
    latency_ns: tuple[float, ...]
    source: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_fields(self, _DIMS_FIELDS)
        columns = [name for name in _DIMS_FIELDS if name != "source"]
        if not self.topology or len({len(getattr(self, name)) for name in columns}) > 1:
            raise InputError(
                f"{', '.join(columns)} need one entry per dimension each", key="NetworkDims"
            )


@dataclass(frozen=True)
class NetworkLink:
    """One directed link; ``loss`` is the probability that a packet is corrupted on it."""

    src: int
    dst: int
    bandwidth_GiBps: float
    latency_ns: float
    loss: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, _LINK_FIELDS)


@dataclass(frozen=True)
class NetworkLinks:
    """A network of links between any nodes.

    Attributes
    ----------
    endpoints, nodes
        Nodes 0 .. endpoints-1 are ranks, endpoints .. nodes-1 switches.
    links
        Directed links, in the order of the file; a bidirectional one is there as two, forward
        first.  Several between the same nodes are parallel links.
    dims
        Logical dimensions for hierarchical collectives; their product is ``endpoints``.
    source
        The file.
    """

    endpoints: int
    nodes: int
    links: tuple[NetworkLink, ...]
    dims: tuple[int, ...]
    source: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_fields(self, _LINKS_FIELDS)
        for index, link in enumerate(self.links):
            if not (0 <= link.src < self.nodes and 0 <= link.dst < self.nodes):
                raise InputError(
                    f"joins nodes {link.src} and {link.dst}; there are {self.nodes}",
                    key=f"NetworkLinks.links[{index}]",
                )
        if self.nodes < self.endpoints or math.prod(self.dims) != self.endpoints:
            raise InputError(
                f"{self.nodes} nodes and dims {show(self.dims)} do not go with {self.endpoints} "
                "endpoints",
                key="NetworkLinks",
            )


def dim_bandwidth(
    network: NetworkDims | NetworkLinks, dims: tuple[int, ...]
) -> tuple[float, ...] | None:
    """Bandwidth per logical dimension, where the network says it of just these [GiB/s]."""
    if isinstance(network, NetworkDims) and network.npus_count == dims:
        return network.bandwidth_GiBps
    return None


_BANDWIDTH, _LATENCY, _NODE = (
    positive(1e12),
    number(0, MAX_TIME_NS),
    integer(0, 2 * MAX_RANKS),
)
_DIMS_FIELDS = {
    "topology": list_of(choice(*TOPOLOGIES)),
    "npus_count": list_of(integer(1, MAX_RANKS)),
    "bandwidth_GiBps": list_of(_BANDWIDTH),
    "latency_ns": list_of(_LATENCY),
    "source": optional(path),
}
_LINK_FIELDS = {
    "src": _NODE,
    "dst": _NODE,
    "bandwidth_GiBps": _BANDWIDTH,
    "latency_ns": _LATENCY,
    "loss": number(0, 1),
}
_LINKS_FIELDS = {
    "endpoints": integer(1, MAX_RANKS),
    "nodes": integer(1, 2 * MAX_RANKS),
    "links": list_of(instance(NetworkLink)),
    "dims": list_of(integer(1, MAX_RANKS)),
    "source": optional(path),
}

_DIMS_KEYS = ("topology", "npus_count", "bandwidth", "latency")
_LINKS_KEYS = ("endpoints", "switches", "dims", "links")
_LINK_KEYS = ("src", "dst", "bandwidth", "latency", "bidirectional", "loss")


def read_network(
    source: str | Path | Mapping[str, Any] | NetworkDims | NetworkLinks,
) -> NetworkDims | NetworkLinks:
    """Read a network configuration of either form.

    Raises
    ------
    InputError
        The file cannot be read, a key or value is not understood, or ranks are cut off from
        each other.
    """
    if isinstance(source, (NetworkDims, NetworkLinks)):
        return source
    file = source_file(source, "network")
    raw = load_yaml(file) if file is not None else source
    if not isinstance(raw, Mapping):
        raise InputError(
            f"expected YAML with the keys {', '.join(_DIMS_KEYS)} (dimensions) or "
            f"{', '.join(_LINKS_KEYS)} (links), found {show(raw)}",
            file=file,
        )
    if "links" in raw or "endpoints" in raw:
        return _read_links(raw, file)
    return _read_dims(raw, file)


def _read_dims(raw: Mapping[str, Any], file: Path | None) -> NetworkDims:
    check_keys(raw, _DIMS_KEYS, file=file)
    columns = {}
    for key in _DIMS_KEYS:
        if key not in raw:
            raise InputError("missing; a list with one entry per dimension", file=file, key=key)
        value = raw[key]
        if not isinstance(value, list) or not value:
            raise InputError(
                f"expected a list with one entry per dimension, found {show(value)}",
                file=file,
                key=key,
            )
        columns[key] = value
    lengths = {key: len(value) for key, value in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise InputError(f"the lists differ in length: {said} entries", file=file)
    topology = tuple(
        _topology(value, file, f"topology[{index}]")
        for index, value in enumerate(columns["topology"])
    )
    npus_count = tuple(
        _integer(value, file, f"npus_count[{index}]", 2, MAX_RANKS)
        for index, value in enumerate(columns["npus_count"])
    )
    if math.prod(npus_count) > MAX_RANKS:
        raise InputError(
            f"{math.prod(npus_count)} ranks; at most {MAX_RANKS} are possible",
            file=file,
            key="npus_count",
        )
    return NetworkDims(
        topology,
        npus_count,
        _numbers(columns["bandwidth"], file, "bandwidth", _bandwidth),
        _numbers(columns["latency"], file, "latency", _latency),
        file,
    )


def _read_links(raw: Mapping[str, Any], file: Path | None) -> NetworkLinks:
    check_keys(raw, _LINKS_KEYS, file=file)
    for key in ("endpoints", "links"):
        if key not in raw:
            raise InputError("missing", file=file, key=key)
    endpoints = _integer(raw["endpoints"], file, "endpoints", 1, MAX_RANKS)
    nodes = endpoints + _integer(raw.get("switches", 0), file, "switches", 0, MAX_RANKS)
    dims = raw.get("dims", [endpoints])
    if not isinstance(dims, list) or not dims:
        raise InputError(
            f"expected a list of ranks per dimension, found {show(dims)}", file=file, key="dims"
        )
    dims = tuple(
        _integer(value, file, f"dims[{index}]", 1, MAX_RANKS) for index, value in enumerate(dims)
    )
    if math.prod(dims) != endpoints:
        raise InputError(
            f"{' x '.join(map(str, dims))} is {math.prod(dims)}, but endpoints is {endpoints}",
            file=file,
            key="dims",
        )
    entries = raw["links"]
    if not isinstance(entries, list):
        raise InputError(f"expected a list of links, found {show(entries)}", file=file, key="links")
    links: list[NetworkLink] = []
    for index, entry in enumerate(entries):
        links += _link(entry, nodes, file, f"links[{index}]")
    _check_connected(endpoints, nodes, links, file)
    return NetworkLinks(endpoints, nodes, tuple(links), dims, file)


def _link(entry: object, nodes: int, file: Path | None, where: str) -> list[NetworkLink]:
    check_keys(entry, _LINK_KEYS, file=file, where=where)
    assert isinstance(entry, Mapping)
    for key in ("src", "dst", "bandwidth", "latency"):
        if key not in entry:
            raise InputError("missing", file=file, key=f"{where}.{key}")
    src = _integer(entry["src"], file, f"{where}.src", 0, nodes - 1)
    dst = _integer(entry["dst"], file, f"{where}.dst", 0, nodes - 1)
    if src == dst:
        raise InputError(f"joins node {src} with itself", file=file, key=where)
    both = entry.get("bidirectional", True)
    if not isinstance(both, bool):
        raise InputError(
            f"{show(both)} is not allowed; allowed: true, false",
            file=file,
            key=f"{where}.bidirectional",
        )
    loss = _number(entry.get("loss", 0.0))
    if loss is None or not 0 <= loss <= 1:
        raise InputError(
            f"{show(entry['loss'])} is not a probability from 0 to 1",
            file=file,
            key=f"{where}.loss",
        )
    bandwidth = _bandwidth(entry["bandwidth"], file, f"{where}.bandwidth")
    latency = _latency(entry["latency"], file, f"{where}.latency")
    forward = NetworkLink(src, dst, bandwidth, latency, loss)
    return [forward, NetworkLink(dst, src, bandwidth, latency, loss)] if both else [forward]


def _check_connected(
    endpoints: int, nodes: int, links: list[NetworkLink], file: Path | None
) -> None:
    """Every endpoint must reach endpoint 0 and be reached from it."""
    for forward in (True, False):
        neighbours: list[list[int]] = [[] for _ in range(nodes)]
        for link in links:
            a, b = (link.src, link.dst) if forward else (link.dst, link.src)
            neighbours[a].append(b)
        seen = {0}
        stack = [0]
        while stack:
            for node in neighbours[stack.pop()]:
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
        cut = [rank for rank in range(endpoints) if rank not in seen]
        if cut:
            way = "from endpoint 0 to endpoint" if forward else "to endpoint 0 from endpoint"
            more = f" (and {len(cut) - 1} more)" if len(cut) > 1 else ""
            raise InputError(f"no way {way} {cut[0]}{more}", file=file, key="links")


def _topology(value: object, file: Path | None, key: str) -> str:
    if isinstance(value, str) and value in TOPOLOGIES:
        return str(value)
    hint = nearest(value, TOPOLOGIES) if isinstance(value, str) else ""
    raise InputError(
        f"{show(value)} is not allowed; allowed: {', '.join(TOPOLOGIES)}{hint}",
        file=file,
        key=key,
    )


def _integer(value: object, file: Path | None, key: str, low: int, high: int) -> int:
    return int(in_file(integer(low, high), value, file=file, key=key))


def _number(value: object) -> float | None:
    """A finite number, also written as text: YAML 1.1 takes ``1e3`` for a string."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bandwidth(value: object, file: Path | None, key: str) -> float:
    number = _number(value)
    if number is None and isinstance(value, str):
        try:
            number = parse_rate_Bps(value) / 2**30
        except (ValueError, OverflowError):
            number = None
    if number is None or not 0 < number <= 1e12:
        raise InputError(
            f"{show(value)} is not allowed; allowed: a positive number (GiB/s), or a rate with its "
            "unit, such as 400Gbps",
            file=file,
            key=key,
        )
    return number


def _latency(value: object, file: Path | None, key: str) -> float:
    number = _number(value)
    if number is None and isinstance(value, str):
        try:
            number = parse_time_ps(value) / PS_PER_NS
        except (ValueError, OverflowError):
            number = None
    if number is None or not 0 <= number <= MAX_TIME_NS:
        raise InputError(
            f"{show(value)} is not allowed; allowed: a number from 0 on (ns), or a time with its "
            "unit, such as 0.5us",
            file=file,
            key=key,
        )
    return number


def _numbers(
    values: list[Any],
    file: Path | None,
    key: str,
    parse: Callable[[object, Path | None, str], float],
) -> tuple[float, ...]:
    return tuple(parse(value, file, f"{key}[{index}]") for index, value in enumerate(values))
