# SPDX-License-Identifier: MIT
"""The network configuration (YAML) of the analytical backends, in two forms.

* *Dimensions* (ASTRA-sim's): ``topology``, ``npus_count``, ``bandwidth``, ``latency``, one entry
  per dimension.
* *Links* (ours): ``endpoints``, ``switches`` and a list of ``links``, for any topology;
  ``network_text`` writes it.

Bandwidths without a unit are GiB/s, as ASTRA-sim takes them although it writes GB/s; latencies
without a unit are ns.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astra_bridge.arguments import (
    check_fields,
    choice,
    flag,
    instance,
    integer,
    list_of,
    number,
    optional,
    path,
    positive,
    refusal,
    source_file,
    text,
)
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import MAX_TIME_NS, check_keys, load_yaml, nearest, show
from astra_bridge.inputs.reading import in_file
from astra_bridge.records import Record, Sourced, put
from astra_bridge.units import PS_PER_NS, parse_rate_Bps, parse_time_ps

__all__ = [
    "TOPOLOGIES",
    "LinkColumns",
    "NetworkDims",
    "NetworkLink",
    "NetworkLinks",
    "NodeRange",
    "dim_bandwidth",
    "network_text",
    "node_labels",
    "node_tiers",
    "read_network",
]

TOPOLOGIES = ("Ring", "FullyConnected", "Switch")
"""Building blocks of one dimension."""

ROUTINGS = ("ecmp", "static", "spray", "adaptive")
"""How one of several equally short ways is chosen; docs/networks.md."""

MAX_RANKS = 1 << 24
"""Largest number of endpoints that is accepted: beyond it, memory ends before any answer."""


class NetworkDims(Sourced, frozen=True, eq=False):
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
    backends
        The backend that simulates each dimension, for the backend ``composite``; or none.
    """

    topology: tuple[str, ...]
    npus_count: tuple[int, ...]
    bandwidth_GiBps: tuple[float, ...]
    latency_ns: tuple[float, ...]
    source: Path | None = None
    backends: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, _DIMS_FIELDS)
        columns = [name for name in _DIMS_FIELDS if name not in ("source", "backends")]
        columns += ["backends"] if self.backends else []
        if not self.topology or len({len(getattr(self, name)) for name in columns}) > 1:
            raise InputError(
                f"{', '.join(columns)} need one entry per dimension each", key="NetworkDims"
            )

    @property
    def names(self) -> tuple[NodeRange, ...]:
        """Nodes of dimensions have none."""
        return ()


class NetworkLink(Record, frozen=True):
    """One directed link; ``loss`` is the probability that a packet is corrupted on it."""

    src: int
    dst: int
    bandwidth_GiBps: float
    latency_ns: float
    loss: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, _LINK_FIELDS)


class LinkColumns(Sequence[NetworkLink]):
    """Directed links as columns: a sequence of :class:`NetworkLink`, but for 10^6 of them, too.

    Attributes
    ----------
    src, dst : ndarray of int32, shape (links,)
    bandwidth_GiBps, latency_ns, loss : ndarray of float64, shape (links,)

    Raises
    ------
    InputError
        A value is out of range, or the columns differ in length.

    Examples
    --------
    >>> LinkColumns([0, 1], [1, 0], [50.0, 50.0], [500.0, 500.0], [0.0, 0.0])[1]
    NetworkLink(src=1, dst=0, bandwidth_GiBps=50.0, latency_ns=500.0, loss=0.0)
    """

    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    bandwidth_GiBps: NDArray[np.float64]
    latency_ns: NDArray[np.float64]
    loss: NDArray[np.float64]

    def __init__(
        self, src: ArrayLike, dst: ArrayLike, bandwidth_GiBps: ArrayLike, latency_ns: ArrayLike,
        loss: ArrayLike,
    ) -> None:  # fmt: skip
        given = (src, dst, bandwidth_GiBps, latency_ns, loss)
        for (name, (kind, check)), values in zip(_LINK_COLUMNS.items(), given, strict=True):
            try:
                column = np.asarray(values)
                ordinary = column.ndim == 1 and column.dtype.kind in "iuf"
            except ValueError:  # lists in a list, of several lengths
                ordinary = False
            if not ordinary or (kind is np.int32 and column.size and column.dtype.kind == "f"):
                raise InputError("expected a column of numbers", key=f"LinkColumns.{name}")
            # The extremes speak for all; NaN is both of them.
            for extreme in (column.min(), column.max()) if column.size else ():
                check(extreme, f"LinkColumns.{name}")
            column = column.astype(kind)
            column.flags.writeable = False
            vars(self)[name] = column
        if len({getattr(self, name).shape for name in _LINK_COLUMNS} | {(len(self),)}) > 1:
            raise InputError(
                f"{', '.join(_LINK_COLUMNS)} need one entry per link each", key="LinkColumns"
            )

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"{name!r} of links cannot be changed")

    @classmethod
    def of(cls, links: Sequence[NetworkLink]) -> LinkColumns:
        """Links as columns; what has columns already comes back as it is."""
        if isinstance(links, cls):
            return links
        rows = [[getattr(link, name) for link in links] for name in _LINK_COLUMNS]
        return cls(*map(np.array, rows))

    def __len__(self) -> int:
        return len(self.src)

    def __iter__(self) -> Iterator[NetworkLink]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> NetworkLink: ...
    @overload
    def __getitem__(self, index: slice) -> LinkColumns: ...
    def __getitem__(self, index: int | slice) -> NetworkLink | LinkColumns:
        columns = [getattr(self, name)[index] for name in _LINK_COLUMNS]
        if isinstance(index, slice):
            return LinkColumns(*columns)
        return NetworkLink(*(value.item() for value in columns))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LinkColumns):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in _LINK_COLUMNS
        )

    def __hash__(self) -> int:
        return hash(self.src.tobytes() + self.dst.tobytes())

    def __repr__(self) -> str:
        return f"<{len(self)} links>"


class NodeRange(Record, frozen=True):
    """Name and tier of nodes that follow one another.

    Attributes
    ----------
    tier
        What they are: gpu, nvlink, leaf, spine, or any other word.
    first, count
        Their ids are first .. first + count - 1.
    name
        Node ``first + n`` is called ``name`` and n; "" stands for the tier.
    """

    tier: str
    first: int
    count: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        check_fields(self, _RANGE_FIELDS)
        if not self.name:
            put(self, "name", self.tier)


class NetworkLinks(Sourced, frozen=True, eq=False):
    """A network of links between any nodes.

    Attributes
    ----------
    endpoints, nodes
        Nodes 0 .. endpoints-1 are ranks, endpoints .. nodes-1 switches.
    links
        Directed links, in the order of the file; a bidirectional one is there as two, forward
        first.  Several between the same nodes are parallel links.  Kept as :class:`LinkColumns`.
    dims
        Logical dimensions for hierarchical collectives; their product is ``endpoints``.
    source
        The file.
    names
        Names and tiers of nodes; a node may have none.
    routing
        How one of several equally short ways is chosen: "ecmp", "static", "spray", "adaptive".
    endpoints_forward
        Whether endpoints pass on what is for others.
    backends
        Two tiers, and the backend that simulates the links between them, for the backend
        ``composite``; ``("", "", backend)`` stands for all other links.
    """

    endpoints: int
    nodes: int
    links: Sequence[NetworkLink]
    dims: tuple[int, ...]
    source: Path | None = None
    names: tuple[NodeRange, ...] = ()
    routing: str = "ecmp"
    endpoints_forward: bool = False
    backends: tuple[tuple[str, str, str], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, _LINKS_FIELDS)
        links = LinkColumns.of(self.links)
        put(self, "links", links)
        stray = np.flatnonzero(np.maximum(links.src, links.dst) >= self.nodes)
        if stray.size:
            link = links[int(stray[0])]
            raise InputError(
                f"joins nodes {link.src} and {link.dst}; there are {self.nodes}",
                key=f"NetworkLinks.links[{stray[0]}]",
            )
        _check_names(self.names, self.endpoints, self.nodes, None, "NetworkLinks.names")
        if self.nodes < self.endpoints or math.prod(self.dims) != self.endpoints:
            raise InputError(
                f"{self.nodes} nodes and dims {show(self.dims)} do not go with {self.endpoints} "
                "endpoints",
                key="NetworkLinks",
            )

    def name_of(self, node: int) -> str:
        """What to call a node: its name, else ``gpu`` or ``switch`` and its id.

        Examples
        --------
        >>> names = (NodeRange("leaf", 2, 1),)
        >>> network = NetworkLinks(2, 4, (NetworkLink(0, 2, 50.0, 500.0),), (2,), names=names)
        >>> [network.name_of(node) for node in range(4)]
        ['gpu0', 'gpu1', 'leaf0', 'switch3']
        """
        return str(node_labels(self.names, self.endpoints, node + 1)[node])


def node_labels(names: Sequence[NodeRange], endpoints: int, nodes: int) -> NDArray[np.object_]:
    """What to call nodes 0 .. nodes-1, as text; see `NetworkLinks.name_of`."""
    labels = np.empty(nodes, object)
    labels[:] = [f"{'gpu' if node < endpoints else 'switch'}{node}" for node in range(nodes)]
    for one in names:
        count = min(one.count, max(nodes - one.first, 0))
        labels[one.first : one.first + count] = [f"{one.name}{n}" for n in range(count)]
    return labels


def node_tiers(
    names: Sequence[NodeRange], endpoints: int, nodes: int
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Tiers in the order of their first node, and the tier of each node, as an index of these.

    Nodes without a name are of the tier ``gpu`` or ``switch``.

    Returns
    -------
    tiers : tuple of str
    tier : ndarray of int64, shape (nodes,)

    Examples
    --------
    >>> tiers, tier = node_tiers((NodeRange("leaf", 2, 1),), 2, 4)
    >>> tiers, tier.tolist()
    (('gpu', 'leaf', 'switch'), [0, 0, 1, 2])
    """
    words = list(dict.fromkeys(["gpu", "switch", *(one.tier for one in names)]))
    tier = np.ones(nodes, np.int64)
    tier[:endpoints] = 0
    for one in names:
        tier[one.first : one.first + one.count] = words.index(one.tier)
    found, first, index = np.unique(tier, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return tuple(words[at] for at in found[order].tolist()), place[index]


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
    "backends": list_of(text),
}
_LINK_FIELDS = {
    "src": _NODE,
    "dst": _NODE,
    "bandwidth_GiBps": _BANDWIDTH,
    "latency_ns": _LATENCY,
    "loss": number(0, 1),
}
_LINK_COLUMNS = {
    name: (np.int32 if name in ("src", "dst") else np.float64, check)
    for name, check in _LINK_FIELDS.items()
}


def _label(value: Any, name: str) -> str:
    """A word for people, that also fits in a table."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w.:/-]{1,80}", value):
        raise refusal(value, name, "up to 80 letters, digits and . _ : / -")
    return value


_RANGE_FIELDS = {
    "tier": _label,
    "first": _NODE,
    "count": integer(1, 2 * MAX_RANKS),
    "name": lambda value, name: value if value == "" else _label(value, name),
}


def _links(value: Any, name: str) -> Any:
    """Columns as they are; of anything else, each item is looked at."""
    return value if isinstance(value, LinkColumns) else list_of(instance(NetworkLink))(value, name)


def _tiers_and_backend(value: Any, name: str) -> tuple[str, ...]:
    row = list_of(text)(value, name)
    if len(row) != 3:
        raise refusal(value, name, "two tiers and a backend")
    return tuple(row)


_LINKS_FIELDS = {
    "endpoints": integer(1, MAX_RANKS),
    "nodes": integer(1, 2 * MAX_RANKS),
    "links": _links,
    "dims": list_of(integer(1, MAX_RANKS)),
    "source": optional(path),
    "names": list_of(instance(NodeRange)),
    "routing": choice(*ROUTINGS),
    "endpoints_forward": flag,
    "backends": list_of(_tiers_and_backend),
}

_DIMS_KEYS = ("topology", "npus_count", "bandwidth", "latency")
_LINKS_KEYS = (
    *("endpoints", "switches", "dims", "routing", "endpoints_forward", "nodes", "links"),
    "backends",
)
_LINK_KEYS = ("src", "dst", "pairs", "bandwidth", "latency", "bidirectional", "loss")
_NAME_KEYS = ("tier", "first", "count", "name")


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


def network_text(network: NetworkLinks, comment: str = "") -> str:
    """The YAML of a network of links; :func:`read_network` gives the same network back.

    Parameters
    ----------
    network
        What to write.
    comment
        Lines to begin with.

    Returns
    -------
    str
        Links that follow one another and differ in their ends only are one entry.

    Examples
    --------
    >>> links = [NetworkLink(0, 2, 50.0, 500.0), NetworkLink(2, 0, 50.0, 500.0)]
    >>> links += [NetworkLink(1, 2, 50.0, 500.0), NetworkLink(2, 1, 50.0, 500.0)]
    >>> print(network_text(NetworkLinks(2, 3, links, (2,), names=(NodeRange("leaf", 2),))))
    endpoints: 2
    switches: 1
    dims: [2]
    nodes:
      - { tier: leaf, first: 2, count: 1, name: leaf }
    links:
      - bandwidth: 50.0
        latency: 500ns
        pairs: |
          0 2
          1 2
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [f"endpoints: {network.endpoints}", f"switches: {network.nodes - network.endpoints}"]
    lines.append(f"dims: [{', '.join(map(str, network.dims))}]")
    lines += [f"routing: {network.routing}"] if network.routing != "ecmp" else []
    lines += ["endpoints_forward: true"] if network.endpoints_forward else []
    if network.backends:
        lines.append("backends:")
        lines += [
            f"  {f'{one}-{other}' if one else 'default'}: {json.dumps(backend)}"
            for one, other, backend in network.backends
        ]
    if network.names:
        lines.append("nodes:")
        lines += [
            f"  - {{ tier: {_word(one.tier)}, first: {one.first}, count: {one.count}, "
            f"name: {_word(one.name)} }}"
            for one in network.names
        ]
    lines.append("links:" if network.links else "links: []")
    for shared, cables in groupby(_cables(LinkColumns.of(network.links)), key=itemgetter(0)):
        both, bandwidth, latency, loss = shared
        pairs = [f"{src} {dst}" for _, src, dst in cables]
        keys = [f"bandwidth: {_rate_text(bandwidth)}", f"latency: {_time_text(latency)}"]
        keys += [f"loss: {loss!r}"] if loss else []
        keys += [] if both else ["bidirectional: false"]
        if len(pairs) == 1:
            src, dst = pairs[0].split()
            lines.append(f"  - {{ src: {src}, dst: {dst}, {', '.join(keys)} }}")
        else:
            lines.append(f"  - {keys[0]}")
            lines += [f"    {key}" for key in [*keys[1:], "pairs: |"]]
            lines += [f"      {pair}" for pair in pairs]
    return "\n".join(lines) + "\n"


def _cables(
    links: LinkColumns,
) -> Iterator[tuple[tuple[bool, float, float, float], int, int]]:
    """Whether it goes both ways, bandwidth, latency, loss; and its ends."""
    columns = [getattr(links, name).tolist() for name in _LINK_COLUMNS]
    rows = list(zip(*columns, strict=True))
    index = 0
    while index < len(rows):
        src, dst, *rest = rows[index]
        both = index + 1 < len(rows) and rows[index + 1] == (dst, src, *rest)
        bandwidth, latency, loss = rest
        yield (both, bandwidth, latency, loss), src, dst
        index += 1 + both


def _word(label: str) -> str:
    """A label as YAML; some words mean something else there."""
    plain = label[0].isalpha() and ":" not in label and label.lower() not in _YAML_WORDS
    return label if plain else json.dumps(label, ensure_ascii=False)


_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def _rate_text(bandwidth_GiBps: float) -> str:
    """With a unit where that says just the same."""
    gbps = bandwidth_GiBps * (1 << 30) * 8 / 1e9
    text = f"{round(gbps, 6):.15g}Gbps"
    same = gbps >= 1e-3 and parse_rate_Bps(text) / 2**30 == bandwidth_GiBps
    return text if same and len(text) < 16 else repr(bandwidth_GiBps)


def _time_text(latency_ns: float) -> str:
    whole = latency_ns.is_integer() and latency_ns < 1e15
    return f"{latency_ns:.0f}ns" if whole else repr(latency_ns)


def _read_dims(raw: Mapping[str, Any], file: Path | None) -> NetworkDims:
    check_keys(raw, (*_DIMS_KEYS, "backends"), file=file)
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
    backends = raw.get("backends", [])
    if not isinstance(backends, list) or not all(isinstance(name, str) for name in backends):
        raise InputError(
            f"expected a list with one backend per dimension, found {show(backends)}",
            file=file,
            key="backends",
        )
    lengths = {key: len(value) for key, value in columns.items()}
    lengths |= {"backends": len(backends)} if backends else {}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise InputError(f"the lists differ in length: {said} entries", file=file)
    topology = tuple(
        _topology(value, file, f"topology[{index}]")
        for index, value in enumerate(columns["topology"])
    )
    npus_count = tuple(
        _integer(value, file, f"npus_count[{index}]", 1, MAX_RANKS)
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
        tuple(backends),
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
    columns: list[list[Any]] = [[] for _ in _LINK_COLUMNS]
    for index, entry in enumerate(entries):
        _add_links(columns, entry, nodes, file, f"links[{index}]")
    links = LinkColumns(*map(np.array, columns))
    _check_connected(endpoints, nodes, links, file)
    names = _names(raw, endpoints, nodes, file)
    routing = in_file(choice(*ROUTINGS), raw.get("routing", "ecmp"), file=file, key="routing")
    forward = in_file(flag, raw.get("endpoints_forward", False), file=file, key="endpoints_forward")
    backends = _tier_backends(raw.get("backends", {}), names, file)
    return NetworkLinks(endpoints, nodes, links, dims, file, names, routing, forward, backends)


def _tier_backends(
    value: object, names: Sequence[NodeRange], file: Path | None
) -> tuple[tuple[str, str, str], ...]:
    """The key ``backends``: the two tiers that links join, and the backend for these links."""
    if not isinstance(value, Mapping) or not all(
        isinstance(one, str) for item in value.items() for one in item
    ):
        raise InputError(
            f"expected two tiers and a backend, such as 'leaf-spine: ns3', found {show(value)}",
            file=file,
            key="backends",
        )
    tiers = sorted({one.tier for one in names} | {"gpu", "switch"})
    known = {f"{one}-{other}": (one, other) for one in tiers for other in tiers}
    known["default"] = ("", "")
    for key in value:
        if key not in known:
            raise InputError(
                f"{show(key)} is not allowed; allowed: default, or two of {', '.join(tiers)} with "
                f"a - between them{nearest(key, known)}",
                file=file,
                key="backends",
            )
    return tuple((*known[key], backend) for key, backend in value.items())


def _names(
    raw: Mapping[str, Any], endpoints: int, nodes: int, file: Path | None
) -> tuple[NodeRange, ...]:
    """The key ``nodes``."""
    entries = raw.get("nodes", [])
    if not isinstance(entries, list):
        raise InputError(
            f"expected a list of ranges of nodes, found {show(entries)}", file=file, key="nodes"
        )
    ranges = []
    for index, entry in enumerate(entries):
        where = f"nodes[{index}]"
        check_keys(entry, _NAME_KEYS, file=file, where=where)
        for key in ("tier", "first"):
            if key not in entry:
                raise InputError("missing", file=file, key=f"{where}.{key}")
        for key in ("tier", "name"):
            if key in entry:
                in_file(_label, entry[key], file=file, key=f"{where}.{key}")
        first = _integer(entry["first"], file, f"{where}.first", 0, nodes - 1)
        count = _integer(entry.get("count", 1), file, f"{where}.count", 1, nodes - first)
        ranges.append(NodeRange(entry["tier"], first, count, entry.get("name", "")))
    _check_names(ranges, endpoints, nodes, file, "nodes")
    return tuple(ranges)


def _check_names(
    ranges: Sequence[NodeRange], endpoints: int, nodes: int, file: Path | None, key: str
) -> None:
    """They lie among the ranks or among the switches, and no node is in two."""
    end = 0
    for one in sorted(ranges, key=lambda one: one.first):
        if one.first < end or one.first + one.count > nodes:
            problem = "is named twice" if one.first < end else f"is not one of {nodes} nodes"
            node = one.first if one.first < end else max(one.first, nodes)
            raise InputError(f"node {node} {problem}", file=file, key=key)
        end = one.first + one.count
        if one.first < endpoints < end:
            raise InputError(f"{one.name} has both ranks and switches", file=file, key=key)


def _add_links(
    columns: list[list[Any]], entry: object, nodes: int, file: Path | None, where: str
) -> None:
    """Append what an entry of ``links`` stands for: one link, or those of ``pairs``."""
    check_keys(entry, _LINK_KEYS, file=file, where=where)
    assert isinstance(entry, Mapping)
    several = "pairs" in entry
    for key in ("bandwidth", "latency") if several else ("src", "dst", "bandwidth", "latency"):
        if key not in entry:
            raise InputError("missing", file=file, key=f"{where}.{key}")
    if several:
        for key in ("src", "dst"):
            if key in entry:
                raise InputError("pairs says it already", file=file, key=f"{where}.{key}")
        ends = _pairs(entry["pairs"], nodes, file, f"{where}.pairs")
    else:
        src = _integer(entry["src"], file, f"{where}.src", 0, nodes - 1)
        dst = _integer(entry["dst"], file, f"{where}.dst", 0, nodes - 1)
        if src == dst:
            raise InputError(f"joins node {src} with itself", file=file, key=where)
        ends = [src, dst]
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
    forward, backward = ends[0::2], ends[1::2]
    count = len(forward)
    if both:  # forward, backward, forward, ...
        backward = ends.copy()
        backward[0::2], backward[1::2] = ends[1::2], forward
        forward = ends
        count *= 2
    added: tuple[list[Any], ...] = (forward, backward)
    added += ([bandwidth] * count, [latency] * count, [loss] * count)
    for column, more in zip(columns, added, strict=True):
        column += more


def _pairs(value: object, nodes: int, file: Path | None, where: str) -> list[int]:
    """Ends of cables one after the other: of text with a pair a line, or of a list of pairs."""
    if isinstance(value, str):
        lines = [line.split() for line in value.splitlines()]
        rows: list[Any] = [line for line in lines if line]
        parse: Callable[[str], int] = int
    elif isinstance(value, list):
        rows, parse = value, partial(_integer, file=file, key=where, low=0, high=nodes - 1)
    else:
        raise InputError(
            f"expected text with two nodes a line, or a list of pairs, found {show(value)}",
            file=file,
            key=where,
        )
    ends: list[int] = []
    for row in rows:
        try:
            src, dst = row
            ends += parse(src), parse(dst)
        except (TypeError, ValueError):
            shown = " ".join(row) if isinstance(value, str) else row
            raise InputError(
                f"expected two nodes, found {show(shown)}", file=file, key=where
            ) from None
        if src == dst:
            raise InputError(f"joins node {src} with itself", file=file, key=where)
    if ends and not 0 <= min(ends) <= max(ends) < nodes:
        stray = next(node for node in ends if not 0 <= node < nodes)
        raise InputError(
            f"{stray} is not allowed; allowed: whole numbers from 0 to {nodes - 1}",
            file=file,
            key=where,
        )
    return ends


def _check_connected(endpoints: int, nodes: int, links: LinkColumns, file: Path | None) -> None:
    """Every endpoint must reach endpoint 0 and be reached from it."""
    for way, src, dst in (
        ("from endpoint 0 to endpoint", links.src, links.dst),
        ("to endpoint 0 from endpoint", links.dst, links.src),
    ):
        first = np.searchsorted(src, np.arange(nodes + 1), sorter=(order := np.argsort(src)))
        begin, neighbours = first.tolist(), dst[order].tolist()
        seen = bytearray(nodes)
        seen[0] = True
        stack = [0]
        while stack:
            node = stack.pop()
            for other in neighbours[begin[node] : begin[node + 1]]:
                if not seen[other]:
                    seen[other] = True
                    stack.append(other)
        cut = [rank for rank in range(endpoints) if not seen[rank]]
        if cut:
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
