# SPDX-License-Identifier: MIT
"""The Garnet file of ASTRA-sim 1.0; widths in bits, packets in bytes, latencies in cycles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astra_bridge.inputs.reading import Reader
from astra_bridge.network.garnet.model import MAX_ROUTERS, GarnetNetwork, GarnetNode
from astra_bridge.network.garnet.regular import RouterDimension, build_links

__all__ = ["read_astra_sim_1"]

_KEYS = (
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


def read_astra_sim_1(raw: Mapping[str, Any], file: Path | None) -> GarnetNetwork:
    """The Garnet file of ASTRA-sim 1.0; widths in bits, packets in bytes, latencies in cycles."""
    read = Reader(raw, file)
    read.keys(_KEYS)
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
    ) -> RouterDimension:
        width = _bytes_of_bits(read, width_key, flit_bytes * 8)
        efficiency = read.number(efficiency_key, 1.0, 0.01, 1.0)
        latency = read.integer(latency_key, 1, 0, 10**9)
        per_flit = flit_bytes / (width * channels * efficiency)
        if per_flit < 1.0:
            warnings.append(
                f"{width_key}: {channels:g} links of {width} bytes each way are wider than a flit "
                f"of {flit_bytes}; one flit per cycle is the most"
            )
        return RouterDimension(kind, size, latency, max(1.0, per_flit))

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


def _bytes_of_bits(read: Reader, name: str, default: int) -> int:
    return -(-read.integer(name, default, 1, 8 * 10**9) // 8)
