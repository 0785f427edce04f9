# SPDX-License-Identifier: MIT
"""Garnet networks: our own YAML (and its JSON form), and the keys of ASTRA-sim 1.0.

docs/garnet.md describes both.  All latencies are in cycles and all widths in bytes, as in gem5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astra_bridge.arguments import source_file
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import check_keys, load_yaml, nearest, show

__all__ = [
    "KINDS",
    "Dimension",
    "GarnetLink",
    "GarnetNetwork",
    "GarnetNode",
    "GarnetVnet",
    "build_links",
    "is_garnet",
    "read_garnet",
]

KINDS = ("mesh", "ring", "fully_connected", "crossbar")
"""How the routers along one dimension are joined."""

_NAMED = {
    "mesh_xy": "mesh",
    "mesh": "mesh",
    "torus": "ring",
    "ring": "ring",
    "fullyconnected": "fully_connected",
    "pt2pt": "fully_connected",
    "crossbar": "crossbar",
    "star": "star",
}
_NAMED_SHOWN = ("Mesh_XY", "Torus", "Ring", "FullyConnected", "Crossbar", "Star")
MAX_ROUTERS = 16_384
MAX_LINKS = 1 << 22


@dataclass(frozen=True)
class GarnetVnet:
    """A virtual network: ``type`` "data" or "ctrl" chooses the buffers per VC."""

    type: str = "data"
    ordered: bool = False


@dataclass(frozen=True)
class GarnetNode:
    """A network interface at a router; the latency holds for both directions of its link."""

    router: int
    link_latency: int = 1
    weight: int = 1
    cycles_per_flit: float = 1.0


@dataclass(frozen=True)
class GarnetLink:
    """A directed link between two routers.

    Attributes
    ----------
    src, dst
        Routers.
    latency
        Cycles of the router clock.
    weight
        Routing table: paths of least total weight are taken.
    cycles_per_flit
        More than 1 where the link is narrower than a flit, or its clock slower.
    src_port, dst_port
        Directions ("East", ...), read by XY routing.
    dimension
        Of a regular topology.
    ring, dateline
        Part of a ring of its dimension, and whether the link closes that ring.
    """

    src: int
    dst: int
    latency: int = 1
    weight: int = 1
    cycles_per_flit: float = 1.0
    src_port: str = ""
    dst_port: str = ""
    dimension: int = 0
    ring: bool = False
    dateline: bool = False


@dataclass(frozen=True)
class Dimension:
    """One dimension of a regular topology: ``size`` routers joined as ``kind`` says."""

    kind: str
    size: int
    latency: int = 1
    cycles_per_flit: float = 1.0


@dataclass(frozen=True)
class GarnetNetwork:
    """A complete Garnet network.

    Attributes
    ----------
    clock_hz : int
        Clock of routers and interfaces.
    flit_bytes : int
    packet_bytes : tuple of int
        Bytes per packet, by the dimension of a message's first link (the last one for all further
        dimensions); 0: a message is one packet, whatever its size.
    routers : tuple of int
        Pipeline depth in cycles, one per router.
    routes : tuple of (router, node, next router)
        For ``routing="custom"``.
    vnet_per_dimension : bool
        The virtual network of a transfer is the dimension of its first link.
    dims : tuple of int
        Logical dimensions of the nodes, dimension 0 fastest.
    warnings : tuple of str
        Keys that were accepted with another meaning, or ignored.
    """

    routers: tuple[int, ...]
    nodes: tuple[GarnetNode, ...]
    links: tuple[GarnetLink, ...]
    clock_hz: int = 1_000_000_000
    flit_bytes: int = 16
    packet_bytes: tuple[int, ...] = (0,)
    vnets: tuple[GarnetVnet, ...] = (GarnetVnet(),)
    vcs_per_vnet: int = 4
    buffers_per_ctrl_vc: int = 1
    buffers_per_data_vc: int = 4
    routing: str = "table"
    num_rows: int = 0
    routes: tuple[tuple[int, int, int], ...] = ()
    deadlock_avoidance: str = "none"
    deadlock_threshold: int = 50_000
    series_cycles: int = 0
    vnet_per_dimension: bool = False
    control_msg_bytes: int = 8
    data_msg_bytes: int = 72
    dims: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    source: Path | None = field(default=None, compare=False)

    def options(self) -> dict[str, str]:
        """The same as options of the native backend."""
        options = {
            "clock_hz": str(self.clock_hz),
            "flit_bytes": str(self.flit_bytes),
            "packet_bytes": " ".join(map(str, self.packet_bytes)),
            "vnets": ", ".join(
                vnet.type + (" ordered" if vnet.ordered else "") for vnet in self.vnets
            ),
            "vcs_per_vnet": str(self.vcs_per_vnet),
            "buffers_per_ctrl_vc": str(self.buffers_per_ctrl_vc),
            "buffers_per_data_vc": str(self.buffers_per_data_vc),
            "routing": self.routing,
            "num_rows": str(self.num_rows),
            "deadlock_avoidance": self.deadlock_avoidance,
            "deadlock_threshold": str(self.deadlock_threshold),
            "series_cycles": str(self.series_cycles),
            "routers": " ".join(map(str, self.routers)),
            "nodes": ";".join(
                f"{n.router} {n.link_latency} {n.weight} {n.cycles_per_flit!r}" for n in self.nodes
            ),
            "links": ";".join(
                f"{k.src} {k.dst} {k.latency} {k.weight} {k.cycles_per_flit!r} {k.src_port}"
                for k in self.links
            ),
        }
        if self.routes:
            options["routes"] = ";".join(" ".join(map(str, route)) for route in self.routes)
        if self.links and any(link.dimension for link in self.links):
            options["link_dimensions"] = " ".join(str(link.dimension) for link in self.links)
        if self.vnet_per_dimension:
            options["vnet_per_dimension"] = "true"
        if self.links and self.deadlock_avoidance == "dateline":
            options["link_rings"] = " ".join(str(link.ring + link.dateline) for link in self.links)
        return options


def is_garnet(raw: object) -> bool:
    """Whether a parsed YAML or JSON file is a Garnet network of either form."""
    if not isinstance(raw, Mapping) or "npus_count" in raw or "endpoints" in raw:
        return False
    return any(key in raw for key in ("num-npus", "topology", "routers", "flit_bytes", "nodes"))


def read_garnet(source: str | Path | Mapping[str, Any], *, where: str = "") -> GarnetNetwork:
    """Read a Garnet network.

    Parameters
    ----------
    source
        Path of a YAML or JSON file, or its content.
    where
        Path of the content inside a file, for messages.

    Raises
    ------
    InputError
        A key or a value is not understood; the message says what is allowed.
    """
    file = source_file(source, "network")
    raw = source if file is None else load_yaml(file)
    if isinstance(raw, Mapping) and "num-npus" in raw:
        return _read_astra_sim_1(raw, file)
    return _Reader(raw, file, where).read()


class _Reader:
    """Reads values with their key, so that every error names it."""

    def __init__(self, raw: object, file: Path | None, where: str) -> None:
        self.file, self.where = file, where
        if not isinstance(raw, Mapping):
            raise InputError(
                f"expected keys and values, found {show(raw)}", file=file, key=where or None
            )
        self.raw: Mapping[str, Any] = raw

    def key(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def fail(self, name: str, message: str) -> InputError:
        return InputError(message, file=self.file, key=self.key(name))

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        if name not in self.raw and default is not None:
            return default
        if name not in self.raw:
            raise self.fail(name, f"missing; a whole number from {low} to {high}")
        value = self.raw[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(
                name, f"{show(value)} is not allowed; allowed: whole numbers from {low} to {high}"
            )
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.raw.get(name, default)
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not low <= value <= high:
            raise self.fail(
                name, f"{show(value)} is not allowed; allowed: numbers from {low} to {high:g}"
            )
        return float(value)

    def text(self, name: str, default: str, allowed: tuple[str, ...] = ()) -> str:
        value = self.raw.get(name, default)
        if isinstance(value, str) and (not allowed or value in allowed):
            return value
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        said = ", ".join(allowed) if allowed else "a text"
        raise self.fail(name, f"{show(value)} is not allowed; allowed: {said}{hint}")

    def flag(self, name: str) -> bool:
        value = self.raw.get(name, False)
        if not isinstance(value, bool):
            raise self.fail(name, f"{show(value)} is not allowed; allowed: true, false")
        return value

    def entries(self, name: str) -> list[_Reader]:
        value = self.raw.get(name, [])
        if not isinstance(value, list):
            raise self.fail(name, f"expected a list, found {show(value)}")
        return [
            _Reader(entry, self.file, self.key(f"{name}[{index}]"))
            for index, entry in enumerate(value)
        ]

    def keys(self, known: tuple[str, ...]) -> None:
        check_keys(self.raw, known, file=self.file, where=self.where)

    def by_id(self, name: str) -> list[_Reader]:
        """Entries with ids 0 .. n-1, or in order where none has an id; sorted by id."""
        entries = self.entries(name)
        if not any("id" in entry.raw for entry in entries):
            return entries
        by_id: dict[int, _Reader] = {}
        for entry in entries:
            own = entry.integer("id", None, 0, len(entries) - 1)
            if own in by_id:
                raise entry.fail("id", f"{own} stands there twice")
            by_id[own] = entry
        return [by_id[own] for own in range(len(entries))]

    def read(self) -> GarnetNetwork:
        self.keys(_KEYS)
        explicit = [name for name in ("routers", "nodes", "links") if name in self.raw]
        regular = isinstance(self.raw.get("topology"), list) or (
            "topology" in self.raw and not explicit
        )
        if regular and explicit:
            raise self.fail("topology", f"given twice: here and as {', '.join(explicit)}")
        if not regular and "nodes" not in self.raw:
            raise self.fail(
                "topology",
                "missing; such as 'Mesh_XY 8x8', a list of dimensions, or lists of routers, nodes "
                "and links",
            )
        clock_hz = self.integer("clock_hz", 1_000_000_000, 1, 10**12)
        flit_bytes = self.integer("flit_bytes", 16, 1, 10**9)
        routing = self.text("routing", "table", ("table", "xy", "custom"))
        num_rows = self.integer("num_rows", 0, 0, 65_535)
        if regular:
            routers, nodes, links, dims, rows = self.regular(clock_hz, flit_bytes)
            num_rows = num_rows or rows
        else:
            routers, nodes, links = self.explicit(clock_hz, flit_bytes)
            dims = self.dims(len(nodes))
        vcs_per_vnet = self.integer("vcs_per_vnet", 4, 1, 256)
        rings = vcs_per_vnet > 1 and any(link.ring for link in links)
        deadlock_avoidance = self.text(
            "deadlock_avoidance", "dateline" if rings else "none", ("none", "dateline")
        )
        if deadlock_avoidance == "dateline" and not rings:
            raise self.fail(
                "deadlock_avoidance",
                "dateline needs 'topology' with rings of four or more, and two VCs per vnet",
            )
        return GarnetNetwork(
            routers=routers,
            nodes=nodes,
            links=links,
            clock_hz=clock_hz,
            flit_bytes=flit_bytes,
            packet_bytes=self.packet_bytes(),
            vnets=self.vnets(),
            vcs_per_vnet=vcs_per_vnet,
            buffers_per_ctrl_vc=self.integer("buffers_per_ctrl_vc", 1, 1, 10**9),
            buffers_per_data_vc=self.integer("buffers_per_data_vc", 4, 1, 10**9),
            routing=routing,
            num_rows=num_rows,
            routes=self.routes(len(routers), len(nodes)),
            deadlock_avoidance=deadlock_avoidance,
            deadlock_threshold=self.integer("deadlock_threshold", 50_000, 1, 10**15),
            series_cycles=self.integer("series_cycles", 0, 0, 10**15),
            vnet_per_dimension=self.flag("vnet_per_dimension"),
            control_msg_bytes=self.integer("control_msg_bytes", 8, 1, 2**40),
            data_msg_bytes=self.integer("data_msg_bytes", 72, 1, 2**40),
            dims=dims,
            source=self.file,
        )

    def vnets(self) -> tuple[GarnetVnet, ...]:
        value = self.raw.get("vnets", 1)
        if isinstance(value, int) and not isinstance(value, bool):
            return (GarnetVnet(),) * self.integer("vnets", 1, 1, 32)
        vnets = []
        for entry in self.entries("vnets"):
            entry.keys(("type", "ordered"))
            kind = entry.text("type", "data", ("data", "ctrl"))
            vnets.append(GarnetVnet(kind, entry.flag("ordered")))
        if not 1 <= len(vnets) <= 32:
            raise self.fail("vnets", f"{len(vnets)} virtual networks; allowed: 1 to 32")
        return tuple(vnets)

    def wire(self, clock_hz: int, flit_bytes: int, prefix: str = "") -> tuple[int, float]:
        """Latency in router cycles and cycles per flit, from the link's own clock and width."""
        latency = self.integer(f"{prefix}latency", 1, 0, 10**9)
        width = self.integer(f"{prefix}width_bytes", flit_bytes, 1, 10**9)
        own_hz = self.integer(f"{prefix}clock_hz", clock_hz, 1, 10**12)
        cycles = -(-latency * clock_hz // own_hz)
        per_flit = -(-flit_bytes // width) * clock_hz / own_hz
        if cycles > 10**9 or per_flit > 1e9:
            raise self.fail(f"{prefix}clock_hz", f"{own_hz} is too slow for a clock of {clock_hz}")
        return cycles, max(1.0, per_flit)

    def explicit(
        self, clock_hz: int, flit_bytes: int
    ) -> tuple[tuple[int, ...], tuple[GarnetNode, ...], tuple[GarnetLink, ...]]:
        routers = []
        for entry in self.by_id("routers"):
            entry.keys(("id", "latency"))
            routers.append(entry.integer("latency", 1, 1, 10**6))
        if not 1 <= len(routers) <= MAX_ROUTERS:
            raise self.fail("routers", f"{len(routers)} routers; allowed: 1 to {MAX_ROUTERS}")
        nodes = []
        for entry in self.by_id("nodes"):
            entry.keys(("id", "router", "weight", *_wire_keys("link_")))
            latency, per_flit = entry.wire(clock_hz, flit_bytes, "link_")
            nodes.append(
                GarnetNode(
                    entry.integer("router", None, 0, len(routers) - 1),
                    latency,
                    entry.integer("weight", 1, 0, 10**6),
                    per_flit,
                )
            )
        if not nodes:
            raise self.fail("nodes", "empty; a network needs at least one node")
        links = []
        for entry in self.entries("links"):
            entry.keys(("src", "dst", "weight", "src_port", "dst_port", *_wire_keys("")))
            src = entry.integer("src", None, 0, len(routers) - 1)
            dst = entry.integer("dst", None, 0, len(routers) - 1)
            if src == dst:
                raise entry.fail("dst", f"the link goes from router {src} to itself")
            latency, per_flit = entry.wire(clock_hz, flit_bytes)
            ports = [entry.text("src_port", ""), entry.text("dst_port", "")]
            for name, port in zip(("src_port", "dst_port"), ports, strict=True):
                if any(c.isspace() or c in ";," for c in port) or len(port) > 100:
                    raise entry.fail(name, f"{show(port)} is not a direction, such as East")
            weight = entry.integer("weight", 1, 0, 10**6)
            links.append(GarnetLink(src, dst, latency, weight, per_flit, ports[0], ports[1]))
        if len(links) > MAX_LINKS:
            raise self.fail("links", f"{len(links)} links; allowed: up to {MAX_LINKS}")
        return tuple(routers), tuple(nodes), tuple(links)

    def packet_bytes(self) -> tuple[int, ...]:
        value = self.raw.get("packet_bytes", 0)
        if not isinstance(value, list):
            return (self.integer("packet_bytes", 0, 0, 2**40),)
        if not value or not all(type(one) is int and 0 <= one <= 2**40 for one in value):
            raise self.fail(
                "packet_bytes", f"{show(value)}: expected a number of bytes per dimension"
            )
        return tuple(value)

    def dims(self, nodes: int) -> tuple[int, ...]:
        dims = self.raw.get("dims", [nodes])
        good = isinstance(dims, list) and all(type(d) is int and d >= 1 for d in dims)
        if not good or not dims or math.prod(dims) != nodes:
            raise self.fail("dims", f"{show(dims)}: the product must be the {nodes} nodes")
        return tuple(dims)

    def routes(self, routers: int, nodes: int) -> tuple[tuple[int, int, int], ...]:
        routes = []
        for entry in self.entries("routes"):
            entry.keys(("router", "node", "next"))
            routes.append(
                (
                    entry.integer("router", None, 0, routers - 1),
                    entry.integer("node", None, 0, nodes - 1),
                    entry.integer("next", None, 0, routers - 1),
                )
            )
        return tuple(routes)

    def regular(
        self, clock_hz: int, flit_bytes: int
    ) -> tuple[
        tuple[int, ...], tuple[GarnetNode, ...], tuple[GarnetLink, ...], tuple[int, ...], int
    ]:
        latency, per_flit = self.wire(clock_hz, flit_bytes, "link_")
        ext_latency = self.integer("ext_link_latency", 1, 0, 10**9)
        depth = self.integer("router_latency", 1, 1, 10**6)
        topology = self.raw["topology"]
        dimensions = []
        if isinstance(topology, list):
            for entry in self.entries("topology"):
                entry.keys(("kind", "size", *_wire_keys("link_")))
                own = _Reader({**_only_wire(self.raw), **entry.raw}, self.file, entry.where)
                own_latency, own_per_flit = own.wire(clock_hz, flit_bytes, "link_")
                dimensions.append(
                    Dimension(
                        entry.text("kind", "", KINDS),
                        entry.integer("size", None, 1, MAX_ROUTERS),
                        own_latency,
                        own_per_flit,
                    )
                )
            if not dimensions:
                raise self.fail("topology", "empty; expected one entry per dimension")
            named = ""
        else:
            named, sizes = self.named(topology)
            kind = "crossbar" if named == "star" else named
            dimensions = [Dimension(kind, size, latency, per_flit) for size in sizes]
        nodes = math.prod(dimension.size for dimension in dimensions)
        dims = tuple(dimension.size for dimension in dimensions)
        if named == "star":
            return (depth,), (GarnetNode(0, ext_latency),) * nodes, (), dims, 0
        routers, links = build_links(dimensions, self.file, self.key("topology"))
        meshes = len(dimensions) == 2 and all(d.kind == "mesh" for d in dimensions)
        return (
            (depth,) * routers,
            tuple(GarnetNode(node, ext_latency) for node in range(nodes)),
            tuple(links),
            dims,
            dimensions[1].size if meshes else 0,
        )

    def named(self, text: object) -> tuple[str, list[int]]:
        words = text.split() if isinstance(text, str) else []
        name = words[0].lower() if words else ""
        if len(words) != 2 or name not in _NAMED:
            hint = nearest(words[0], _NAMED_SHOWN) if words else ""
            raise self.fail(
                "topology",
                f"{show(text)} is not allowed; allowed: {', '.join(_NAMED_SHOWN)} and a size, such "
                f"as 'Mesh_XY 8x8'{hint}",
            )
        parts = words[1].lower().split("x")
        if not all(p.isascii() and p.isdigit() and len(p) < 9 and int(p) > 0 for p in parts):
            raise self.fail("topology", f"{show(words[1])} is not a size, such as 8x8 or 16")
        # Rows x columns, as in gem5: the last number is dimension 0.
        return _NAMED[name], [int(part) for part in reversed(parts)]


def _wire_keys(prefix: str) -> tuple[str, ...]:
    return (f"{prefix}latency", f"{prefix}width_bytes", f"{prefix}clock_hz")


def _only_wire(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: raw[name] for name in _wire_keys("link_") if name in raw}


_KEYS = (
    "clock_hz",
    "flit_bytes",
    "packet_bytes",
    "vnets",
    "vcs_per_vnet",
    "buffers_per_ctrl_vc",
    "buffers_per_data_vc",
    "routing",
    "num_rows",
    "routes",
    "deadlock_avoidance",
    "deadlock_threshold",
    "series_cycles",
    "vnet_per_dimension",
    "control_msg_bytes",
    "data_msg_bytes",
    "topology",
    "router_latency",
    *_wire_keys("link_"),
    "ext_link_latency",
    "routers",
    "nodes",
    "links",
    "dims",
)

_PORTS = (("East", "West"), ("North", "South"))


def build_links(
    dimensions: list[Dimension], file: Path | None = None, key: str | None = None
) -> tuple[int, list[GarnetLink]]:
    """Routers and links of a product of dimensions; dimension 0 varies fastest in router ids.

    The weight of a link is its dimension + 1, so the table routes dimension 0 first, as Mesh_XY
    of gem5 does with weights 1 and 2.  A crossbar dimension adds one router per row of it.

    Returns
    -------
    routers : int
    links : list of GarnetLink

    Raises
    ------
    InputError
        Too many routers or links.
    """
    nodes = routers = math.prod(dimension.size for dimension in dimensions)
    total = 0
    for dimension in dimensions:
        degree = dimension.size - 1 if dimension.kind == "fully_connected" else 2
        total += nodes * degree
        routers += nodes // dimension.size if dimension.kind == "crossbar" else 0
    for count, limit, what in ((routers, MAX_ROUTERS, "routers"), (total, MAX_LINKS, "links")):
        if count > limit:
            raise InputError(f"{count} {what}; allowed: up to {limit}", file=file, key=key)
    links: list[GarnetLink] = []
    stride, hub = 1, nodes
    for index, dimension in enumerate(dimensions):
        size = dimension.size
        up, down = _PORTS[index] if index < 2 else (f"Up{index}", f"Down{index}")

        def join(
            a: int,
            b: int,
            ports: tuple[str, str] = ("", ""),
            ring: bool = False,
            dateline: bool = False,
            index: int = index,
            dimension: Dimension = dimension,
        ) -> None:
            links.append(
                GarnetLink(
                    a,
                    b,
                    dimension.latency,
                    index + 1,
                    dimension.cycles_per_flit,
                    *ports,
                    index,
                    ring,
                    dateline,
                )
            )

        for node in range(nodes if size > 1 else 0):
            own = node // stride % size
            after = node + ((own + 1) % size - own) * stride
            last = own == size - 1
            if dimension.kind == "crossbar":
                middle = hub + node % stride + node // (stride * size) * stride
                join(node, middle)
                join(middle, node)
            elif dimension.kind == "fully_connected":
                for peer in range(own + 1, size):
                    join(node, node + (peer - own) * stride)
                    join(node + (peer - own) * stride, node)
            elif not last or (dimension.kind == "ring" and size > 2):
                # Up to three in a ring, no packet passes through two links of it.
                ring = dimension.kind == "ring" and size > 3
                join(node, after, (up, down), ring, ring and last)
                join(after, node, (down, up), ring, ring and last)
        if dimension.kind == "crossbar" and size > 1:
            hub += nodes // size
        stride *= size
    return hub if any(d.kind == "crossbar" for d in dimensions) else nodes, links


_ASTRA_SIM_1_KEYS = (
    "num-npus",
    "num-packages",
    "package-rows",
    "topology",
    "local-rings",
    "vertical-rings",
    "horizontal-rings",
    "links-per-tile",
    "flit-width",
    "local-packet-size",
    "package-packet-size",
    "tile-link-width",
    "package-link-width",
    "vcs-per-vnet",
    "routing-algorithm",
    "router-latency",
    "local-link-latency",
    "package-link-latency",
    "buffers-per-vc",
    "local-link-efficiency",
    "package-link-efficiency",
)


def _read_astra_sim_1(raw: Mapping[str, Any], file: Path | None) -> GarnetNetwork:
    """The Garnet file of ASTRA-sim 1.0; widths in bits, packets in bytes, latencies in cycles."""
    read = _Reader(raw, file, "")
    read.keys(_ASTRA_SIM_1_KEYS)
    npus = read.integer("num-npus", None, 1, MAX_ROUTERS)
    packages = read.integer("num-packages", 1, 1, npus)
    if npus % packages:
        raise read.fail("num-packages", f"{packages} packages do not divide {npus} NPUs")
    topologies = ("NV_Switch", "Torus2D", "Torus3D", "Torus4D", "Torus5D")
    topology = read.text("topology", "", topologies)
    read.text("routing-algorithm", "Ring_XY", ("Ring_XY", "AllToAll"))
    flit_bytes = _bytes_of_bits(read, "flit-width", 1024)
    warnings: list[str] = []

    def dimension(
        kind: str, size: int, width_key: str, latency_key: str, efficiency_key: str, channels: float
    ) -> Dimension:
        width = _bytes_of_bits(read, width_key, flit_bytes * 8)
        efficiency = read.number(efficiency_key, 1.0, 0.01, 1.0)
        latency = read.integer(latency_key, 1, 0, 10**9)
        per_flit = flit_bytes / (width * channels * efficiency)
        if per_flit < 1.0:
            warnings.append(
                f"{width_key}: {channels:g} links of {width} bytes each way are wider than a flit "
                f"of {flit_bytes}; one flit per cycle is the most"
            )
        return Dimension(kind, size, latency, max(1.0, per_flit))

    def rings(key: str) -> float:
        # An even number is half of them in either direction; one ring is half a pair of them.
        return read.integer(key, 2, 1, 10**6) / 2

    local = npus // packages
    tile = ("tile-link-width", "local-link-latency", "local-link-efficiency")
    package = ("package-link-width", "package-link-latency", "package-link-efficiency")
    dimensions = [dimension("ring", local, *tile, rings("local-rings"))] if local > 1 else []
    rows = read.integer("package-rows", 1, 1, packages)
    if packages % rows:
        raise read.fail("package-rows", f"{rows} rows do not divide {packages} packages")
    if topology == "NV_Switch":
        links_per_tile = read.integer("links-per-tile", 1, -1, 10**6)
        dimensions.append(dimension("crossbar", packages, *package, max(1, links_per_tile)))
    elif topology in ("Torus2D", "Torus3D"):
        if topology == "Torus2D" and rows not in (1, packages) and local > 1:
            raise read.fail(
                "package-rows",
                f"Torus2D of packages with several NPUs has one more dimension; {rows} rows need "
                "Torus3D",
            )
        columns = packages // rows
        if columns > 1:
            dimensions.append(dimension("ring", columns, *package, rings("horizontal-rings")))
        if rows > 1:
            dimensions.append(dimension("ring", rows, *package, rings("vertical-rings")))
    else:
        raise read.fail(
            "topology",
            f"{topology} is known, but ASTRA-sim 1.0's file does not say the sizes of its "
            "dimensions; write them as the list 'topology' of a Garnet YAML",
        )
    if not dimensions:
        dimensions = [dimension("ring", 1, *tile, 1)]
    sizes = [read.integer("local-packet-size", 256, 1, 2**40)] if local > 1 else []
    sizes.append(read.integer("package-packet-size", 256, 1, 2**40))
    vcs = read.integer("vcs-per-vnet", 4, 1, 256)
    routers, links = build_links(dimensions, file, "num-npus")
    buffers = read.integer("buffers-per-vc", 4, 1, 10**9)
    at = f"{file}: " if file else ""
    return GarnetNetwork(
        routers=(read.integer("router-latency", 1, 1, 10**6),) * routers,
        nodes=(*(GarnetNode(node) for node in range(npus)),),
        links=tuple(links),
        flit_bytes=flit_bytes,
        packet_bytes=tuple(sizes),
        vcs_per_vnet=vcs,
        buffers_per_ctrl_vc=buffers,
        buffers_per_data_vc=buffers,
        deadlock_avoidance=("dateline" if vcs > 1 and any(link.ring for link in links) else "none"),
        dims=tuple(dimension.size for dimension in dimensions),
        warnings=tuple(at + warning for warning in warnings),
        source=file,
    )


def _bytes_of_bits(read: _Reader, name: str, default: int) -> int:
    return -(-read.integer(name, default, 1, 8 * 10**9) // 8)
