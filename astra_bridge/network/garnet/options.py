# SPDX-License-Identifier: MIT
"""The options of the native backend: those that users set, and a whole network in them."""

from __future__ import annotations

from astra_bridge.network.garnet.model import GarnetNetwork

__all__ = ["OPTIONS", "options_of"]

OPTIONS = (
    "clock_hz",
    "flit_bytes",
    "packet_bytes",
    "vcs_per_vnet",
    "buffers_per_ctrl_vc",
    "buffers_per_data_vc",
    "vnets",
    "router_latency",
    "deadlock_avoidance",
    "deadlock_threshold",
    "series_cycles",
    "sample_interval_us",
    "fast_forward",
    "record_packets",
    "record_transfers",
    "routing",
    "endpoints_forward",
)
"""What ``--network-option`` may set; the same names as in a Garnet YAML."""


def options_of(network: GarnetNetwork) -> dict[str, str]:
    """A network as options."""
    options = {
        "clock_hz": str(network.clock_hz),
        "flit_bytes": str(network.flit_bytes),
        "packet_bytes": " ".join(map(str, network.packet_bytes)),
        "vnets": ", ".join(
            vnet.type + (" ordered" if vnet.ordered else "") for vnet in network.vnets
        ),
        "vcs_per_vnet": str(network.vcs_per_vnet),
        "buffers_per_ctrl_vc": str(network.buffers_per_ctrl_vc),
        "buffers_per_data_vc": str(network.buffers_per_data_vc),
        "routing": network.routing,
        "num_rows": str(network.num_rows),
        "deadlock_avoidance": network.deadlock_avoidance,
        "deadlock_threshold": str(network.deadlock_threshold),
        "series_cycles": str(network.series_cycles),
        "routers": " ".join(map(str, network.routers)),
        "nodes": ";".join(
            f"{n.router} {n.link_latency} {n.weight} {n.cycles_per_flit!r}" for n in network.nodes
        ),
        "links": ";".join(
            f"{k.src} {k.dst} {k.latency} {k.weight} {k.cycles_per_flit!r} {k.src_port}"
            for k in network.links
        ),
    }
    if network.routes:
        options["routes"] = ";".join(" ".join(map(str, route)) for route in network.routes)
    if network.links and any(link.dimension for link in network.links):
        options["link_dimensions"] = " ".join(str(link.dimension) for link in network.links)
    if network.vnet_per_dimension:
        options["vnet_per_dimension"] = "true"
    if network.links and network.deadlock_avoidance == "dateline":
        options["link_rings"] = " ".join(str(link.ring + link.dateline) for link in network.links)
    return options
