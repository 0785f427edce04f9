# SPDX-License-Identifier: MIT
"""Regular topologies: products of dimensions, each a mesh, ring, ..."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from astra_bridge.errors import InputError
from astra_bridge.inputs.reading import Reader
from astra_bridge.network.garnet.model import MAX_LINKS, MAX_ROUTERS, GarnetLink
from astra_bridge.text import nearest, show

__all__ = ["KINDS", "RouterDimension", "build_links", "named_sizes"]

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


@dataclass(frozen=True)
class RouterDimension:
    """One dimension of a regular topology: ``size`` routers joined as ``kind`` says."""

    kind: str
    size: int
    latency: int = 1
    cycles_per_flit: float = 1.0


def named_sizes(read: Reader, text: object) -> tuple[str, list[int]]:
    """Kind and sizes of such as ``Mesh_XY 8x8``, dimension 0 first."""
    words = text.split() if isinstance(text, str) else []
    name = words[0].lower() if words else ""
    if len(words) != 2 or name not in _NAMED:
        hint = nearest(words[0], _NAMED_SHOWN) if words else ""
        raise read.fail(
            "topology",
            f"{show(text)} is not allowed; allowed: {', '.join(_NAMED_SHOWN)} and a size, such "
            f"as 'Mesh_XY 8x8'{hint}",
        )
    parts = words[1].lower().split("x")
    if not all(p.isascii() and p.isdigit() and len(p) < 9 and int(p) > 0 for p in parts):
        raise read.fail("topology", f"{show(words[1])} is not a size, such as 8x8 or 16")
    # Rows x columns, as in gem5: the last number is dimension 0.
    return _NAMED[name], [int(part) for part in reversed(parts)]


_PORTS = (("East", "West"), ("North", "South"))


def build_links(
    dimensions: list[RouterDimension], file: Path | None = None, key: str | None = None
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
        latency, per_flit = dimension.latency, dimension.cycles_per_flit
        if dimension.size > 1:
            links += [
                GarnetLink(a, b, latency, index + 1, per_flit, *ports, index, ring, dateline)
                for node in range(nodes)
                for a, b, ports, ring, dateline in _joins(node, index, dimension, stride, hub)
            ]
            if dimension.kind == "crossbar":
                hub += nodes // dimension.size
        stride *= dimension.size
    return hub, links


_Join = tuple[int, int, tuple[str, str], bool, bool]
"""Source, destination, ports, part of a ring, closes it."""

_NO_PORTS = ("", "")


def _joins(node: int, index: int, dimension: RouterDimension, stride: int, hub: int) -> list[_Join]:
    """What a node adds along one dimension: links to nodes after it, both ways."""
    size = dimension.size
    own = node // stride % size
    if dimension.kind == "crossbar":
        others = [hub + node % stride + node // (stride * size) * stride]
    elif dimension.kind == "fully_connected":
        others = [node + ahead * stride for ahead in range(1, size - own)]
    elif own < size - 1 or (dimension.kind == "ring" and size > 2):
        up, down = _PORTS[index] if index < 2 else (f"Up{index}", f"Down{index}")
        after = node + ((own + 1) % size - own) * stride
        # Up to three in a ring, no packet passes through two links of it.
        ring = dimension.kind == "ring" and size > 3
        closing = ring and own == size - 1
        return [
            (node, after, (up, down), ring, closing),
            (after, node, (down, up), ring, closing),
        ]
    else:
        others = []
    pairs = [pair for other in others for pair in ((node, other), (other, node))]
    return [(a, b, _NO_PORTS, False, False) for a, b in pairs]
