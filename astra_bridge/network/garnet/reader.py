# SPDX-License-Identifier: MIT
"""Garnet networks as YAML (or its JSON form): our own, and the keys of ASTRA-sim 1.0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astra_bridge.arguments import source_file
from astra_bridge.inputs.common import load_yaml
from astra_bridge.inputs.reading import Reader
from astra_bridge.network.garnet.astra_sim_1 import read_astra_sim_1
from astra_bridge.network.garnet.model import (
    MAX_LINKS,
    MAX_ROUTERS,
    GarnetLink,
    GarnetNetwork,
    GarnetNode,
    GarnetVnet,
)
from astra_bridge.network.garnet.regular import KINDS, RouterDimension, build_links, named_sizes
from astra_bridge.text import show

__all__ = ["is_garnet", "read_garnet"]


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
        return read_astra_sim_1(raw, file)
    return _network(Reader(raw, file, where))


def _network(read: Reader) -> GarnetNetwork:
    read.keys(_KEYS)
    explicit = [name for name in ("routers", "nodes", "links") if name in read.raw]
    regular = isinstance(read.raw.get("topology"), list) or (
        "topology" in read.raw and not explicit
    )
    if regular and explicit:
        raise read.fail("topology", f"given twice: here and as {', '.join(explicit)}")
    if not regular and "nodes" not in read.raw:
        raise read.fail(
            "topology",
            "missing; such as 'Mesh_XY 8x8', a list of dimensions, or lists of routers, nodes "
            "and links",
        )
    clock_hz = read.integer("clock_hz", 1_000_000_000, 1, 10**12)
    flit_bytes = read.integer("flit_bytes", 16, 1, 10**9)
    routing = read.text("routing", "table", ("table", "xy", "custom"))
    num_rows = read.integer("num_rows", 0, 0, 65_535)
    if regular:
        routers, nodes, links, dims, rows = _regular(read, clock_hz, flit_bytes)
        num_rows = num_rows or rows
    else:
        routers, nodes, links = _explicit(read, clock_hz, flit_bytes)
        dims = _dims(read, len(nodes))
    vcs_per_vnet = read.integer("vcs_per_vnet", 4, 1, 256)
    rings = vcs_per_vnet > 1 and any(link.ring for link in links)
    deadlock_avoidance = read.text(
        "deadlock_avoidance", "dateline" if rings else "none", ("none", "dateline")
    )
    if deadlock_avoidance == "dateline" and not rings:
        raise read.fail(
            "deadlock_avoidance",
            "dateline needs 'topology' with rings of four or more, and two VCs per vnet",
        )
    return GarnetNetwork(
        routers=routers,
        nodes=nodes,
        links=links,
        clock_hz=clock_hz,
        flit_bytes=flit_bytes,
        packet_bytes=_packet_bytes(read),
        vnets=_vnets(read),
        vcs_per_vnet=vcs_per_vnet,
        buffers_per_ctrl_vc=read.integer("buffers_per_ctrl_vc", 1, 1, 10**9),
        buffers_per_data_vc=read.integer("buffers_per_data_vc", 4, 1, 10**9),
        routing=routing,
        num_rows=num_rows,
        routes=_routes(read, len(routers), len(nodes)),
        deadlock_avoidance=deadlock_avoidance,
        deadlock_threshold=read.integer("deadlock_threshold", 50_000, 1, 10**15),
        series_cycles=read.integer("series_cycles", 0, 0, 10**15),
        vnet_per_dimension=read.flag("vnet_per_dimension"),
        control_msg_bytes=read.integer("control_msg_bytes", 8, 1, 2**40),
        data_msg_bytes=read.integer("data_msg_bytes", 72, 1, 2**40),
        dims=dims,
        source=read.file,
    )


def _vnets(read: Reader) -> tuple[GarnetVnet, ...]:
    value = read.raw.get("vnets", 1)
    if isinstance(value, int) and not isinstance(value, bool):
        return (GarnetVnet(),) * read.integer("vnets", 1, 1, 32)
    vnets = []
    for entry in read.entries("vnets"):
        entry.keys(("type", "ordered"))
        kind = entry.text("type", "data", ("data", "ctrl"))
        vnets.append(GarnetVnet(kind, entry.flag("ordered")))
    if not 1 <= len(vnets) <= 32:
        raise read.fail("vnets", f"{len(vnets)} virtual networks; allowed: 1 to 32")
    return tuple(vnets)


def _wire(read: Reader, clock_hz: int, flit_bytes: int, prefix: str = "") -> tuple[int, float]:
    """Latency in router cycles and cycles per flit, from the link's own clock and width."""
    latency = read.integer(f"{prefix}latency", 1, 0, 10**9)
    width = read.integer(f"{prefix}width_bytes", flit_bytes, 1, 10**9)
    own_hz = read.integer(f"{prefix}clock_hz", clock_hz, 1, 10**12)
    cycles = -(-latency * clock_hz // own_hz)
    per_flit = -(-flit_bytes // width) * clock_hz / own_hz
    if cycles > 10**9 or per_flit > 1e9:
        raise read.fail(f"{prefix}clock_hz", f"{own_hz} is too slow for a clock of {clock_hz}")
    return cycles, max(1.0, per_flit)


def _explicit(
    read: Reader, clock_hz: int, flit_bytes: int
) -> tuple[tuple[int, ...], tuple[GarnetNode, ...], tuple[GarnetLink, ...]]:
    routers = []
    for entry in read.by_id("routers"):
        entry.keys(("id", "latency"))
        routers.append(entry.integer("latency", 1, 1, 10**6))
    if not 1 <= len(routers) <= MAX_ROUTERS:
        raise read.fail("routers", f"{len(routers)} routers; allowed: 1 to {MAX_ROUTERS}")
    nodes = []
    for entry in read.by_id("nodes"):
        entry.keys(("id", "router", "weight", *_wire_keys("link_")))
        latency, per_flit = _wire(entry, clock_hz, flit_bytes, "link_")
        nodes.append(
            GarnetNode(
                entry.integer("router", None, 0, len(routers) - 1),
                latency,
                entry.integer("weight", 1, 0, 10**6),
                per_flit,
            )
        )
    if not nodes:
        raise read.fail("nodes", "empty; a network needs at least one node")
    links = []
    for entry in read.entries("links"):
        entry.keys(("src", "dst", "weight", "src_port", "dst_port", *_wire_keys("")))
        src = entry.integer("src", None, 0, len(routers) - 1)
        dst = entry.integer("dst", None, 0, len(routers) - 1)
        if src == dst:
            raise entry.fail("dst", f"the link goes from router {src} to itself")
        latency, per_flit = _wire(entry, clock_hz, flit_bytes)
        ports = [entry.text("src_port", ""), entry.text("dst_port", "")]
        for name, port in zip(("src_port", "dst_port"), ports, strict=True):
            if any(c.isspace() or c in ";," for c in port) or len(port) > 100:
                raise entry.fail(name, f"{show(port)} is not a direction, such as East")
        weight = entry.integer("weight", 1, 0, 10**6)
        links.append(GarnetLink(src, dst, latency, weight, per_flit, ports[0], ports[1]))
    if len(links) > MAX_LINKS:
        raise read.fail("links", f"{len(links)} links; allowed: up to {MAX_LINKS}")
    return tuple(routers), tuple(nodes), tuple(links)


def _packet_bytes(read: Reader) -> tuple[int, ...]:
    value = read.raw.get("packet_bytes", 0)
    if not isinstance(value, list):
        return (read.integer("packet_bytes", 0, 0, 2**40),)
    if not value or not all(type(one) is int and 0 <= one <= 2**40 for one in value):
        raise read.fail("packet_bytes", f"{show(value)}: expected a number of bytes per dimension")
    return tuple(value)


def _dims(read: Reader, nodes: int) -> tuple[int, ...]:
    dims = read.raw.get("dims", [nodes])
    good = isinstance(dims, list) and all(type(d) is int and d >= 1 for d in dims)
    if not good or not dims or math.prod(dims) != nodes:
        raise read.fail("dims", f"{show(dims)}: the product must be the {nodes} nodes")
    return tuple(dims)


def _routes(read: Reader, routers: int, nodes: int) -> tuple[tuple[int, int, int], ...]:
    routes = []
    for entry in read.entries("routes"):
        entry.keys(("router", "node", "next"))
        routes.append(
            (
                entry.integer("router", None, 0, routers - 1),
                entry.integer("node", None, 0, nodes - 1),
                entry.integer("next", None, 0, routers - 1),
            )
        )
    return tuple(routes)


def _regular(
    read: Reader, clock_hz: int, flit_bytes: int
) -> tuple[tuple[int, ...], tuple[GarnetNode, ...], tuple[GarnetLink, ...], tuple[int, ...], int]:
    latency, per_flit = _wire(read, clock_hz, flit_bytes, "link_")
    ext_latency = read.integer("ext_link_latency", 1, 0, 10**9)
    depth = read.integer("router_latency", 1, 1, 10**6)
    topology = read.raw["topology"]
    dimensions = []
    if isinstance(topology, list):
        for entry in read.entries("topology"):
            entry.keys(("kind", "size", *_wire_keys("link_")))
            own = Reader({**_only_wire(read.raw), **entry.raw}, read.file, entry.where)
            own_latency, own_per_flit = _wire(own, clock_hz, flit_bytes, "link_")
            dimensions.append(
                RouterDimension(
                    entry.text("kind", "", KINDS),
                    entry.integer("size", None, 1, MAX_ROUTERS),
                    own_latency,
                    own_per_flit,
                )
            )
        if not dimensions:
            raise read.fail("topology", "empty; expected one entry per dimension")
        named = ""
    else:
        named, sizes = named_sizes(read, topology)
        kind = "crossbar" if named == "star" else named
        dimensions = [RouterDimension(kind, size, latency, per_flit) for size in sizes]
    nodes = math.prod(dimension.size for dimension in dimensions)
    dims = tuple(dimension.size for dimension in dimensions)
    if named == "star":
        return (depth,), (GarnetNode(0, ext_latency),) * nodes, (), dims, 0
    routers, links = build_links(dimensions, read.file, read.key("topology"))
    meshes = len(dimensions) == 2 and all(d.kind == "mesh" for d in dimensions)
    return (
        (depth,) * routers,
        tuple(GarnetNode(node, ext_latency) for node in range(nodes)),
        tuple(links),
        dims,
        dimensions[1].size if meshes else 0,
    )


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
