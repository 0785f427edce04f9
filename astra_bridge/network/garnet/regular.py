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
        size = dimension.size
        up, down = _PORTS[index] if index < 2 else (f"Up{index}", f"Down{index}")

        def join(
            a: int,
            b: int,
            ports: tuple[str, str] = ("", ""),
            ring: bool = False,
            dateline: bool = False,
            index: int = index,
            dimension: RouterDimension = dimension,
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
