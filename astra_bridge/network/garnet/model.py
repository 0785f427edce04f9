# SPDX-License-Identifier: MIT
"""A Garnet network: routers, network interfaces and links.

All latencies are in cycles and all widths in bytes, as in gem5; docs/garnet.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "MAX_LINKS",
    "MAX_ROUTERS",
    "GarnetLink",
    "GarnetNetwork",
    "GarnetNode",
    "GarnetVnet",
]

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
