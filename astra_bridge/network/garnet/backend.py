# SPDX-License-Identifier: MIT
"""The backend: what users give becomes what the native library takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import load_yaml
from astra_bridge.inputs.network import NetworkDims, dim_bandwidth, read_network
from astra_bridge.network.api import LINK, Network, NetworkConfig
from astra_bridge.network.garnet.model import GarnetNetwork
from astra_bridge.network.garnet.options import OPTIONS, options_of
from astra_bridge.network.garnet.reader import is_garnet, read_garnet
from astra_bridge.network.native import library_path, not_built, open_own
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.text import nearest
from astra_bridge.topology import Ends, links_of_dims, links_per_endpoint, topology_of

__all__ = ["BACKENDS", "open_garnet", "prepare"]

_PACKET_FLITS = 16


def prepare(request: NetworkRequest) -> Prepared:
    """Read a Garnet YAML, an ASTRA-sim 1.0 Garnet file, or the analytical networks' YAML.

    Raises
    ------
    InputError
        A key, a value or an option is not understood.
    """
    for key in request.options:
        if key not in OPTIONS:
            raise InputError(
                f"unknown option {key!r}; Garnet has: {', '.join(OPTIONS)}{nearest(key, OPTIONS)}",
                key="--network-option",
            )
    network: Any = request.network
    if isinstance(network, (str, Path)):
        raw = load_yaml(network)
        if is_garnet(raw):
            network = read_garnet(network)
    elif isinstance(network, Mapping) and is_garnet(network):
        network = read_garnet(network)
    if isinstance(network, GarnetNetwork):
        return _prepare_garnet(network, request.options)
    return _prepare_links(network, request.options)


def _prepare_garnet(network: GarnetNetwork, given: Mapping[str, str]) -> Prepared:
    options = options_of(network)
    if "sample_interval_us" in given and network.series_cycles == 0:
        del options["series_cycles"]
    if not all(network.packet_bytes):
        # gem5 makes a message one packet; a transfer of a collective may be gigabytes.
        options["packet_bytes"] = str(_PACKET_FLITS * network.flit_bytes)
    for key, value in given.items():
        if key == "router_latency":
            options["routers"] = " ".join([value] * len(network.routers))
        else:
            options[key] = value
    nodes = len(network.nodes)
    config = NetworkConfig(nodes, nodes, options=options)

    def ends() -> Ends:
        rows = [(link.src, link.dst) for link in network.links]
        src, dst = np.array(rows, np.int32).reshape(-1, 2).T
        return src, dst

    # Links of a regular topology stand one dimension after the other; all others have none.
    links = [link.dimension for link in network.links]
    counts = tuple(np.bincount(links).tolist()) if links == sorted(links) else ()
    return Prepared(
        config,
        network.dims or (nodes,),
        network.warnings,
        ends=ends,
        links_of_dims=counts,
    )


def _prepare_links(source: Any, given: Mapping[str, str]) -> Prepared:
    """A router per node; the backend chooses flits and buffers that keep every link busy."""
    network = read_network(source)
    topology = topology_of(network)
    options = dict(given)
    if isinstance(network, NetworkDims):
        dimensions: list[int] = []
        rings: list[int] = []
        stride = 1
        for index, (kind, size) in enumerate(
            zip(network.topology, network.npus_count, strict=True)
        ):
            first = len(dimensions)
            count = topology.endpoints * links_per_endpoint(kind, size)
            dimensions += [index] * count
            ring = kind == "Ring" and size > 3
            for link in range(first, first + count):
                src = int(topology.src[link]) // stride % size
                dst = int(topology.dst[link]) // stride % size
                rings.append(ring + (ring and abs(src - dst) > 1))
            stride *= size
        options["link_dimensions"] = " ".join(map(str, dimensions))
        # At equal distance the least weight goes first: dimension 0, then 1, ...
        options["link_weights"] = " ".join(str(index + 1) for index in dimensions)
        if any(rings) and options.get("deadlock_avoidance") != "none":
            options["deadlock_avoidance"] = "dateline"
            options["link_rings"] = " ".join(map(str, rings))
        if "vnets" not in options:
            # A virtual network per dimension; the backend's limit is 32.
            options["vnets"] = ", ".join(["data ordered"] * min(32, len(network.topology)))
            options["vnet_per_dimension"] = "true"
    else:
        options.setdefault("routing", network.routing)
        options.setdefault("endpoints_forward", "true" if network.endpoints_forward else "false")
    config = NetworkConfig(topology.endpoints, topology.nodes, topology.records(LINK), options)
    known = dim_bandwidth(network, topology.dims)
    return Prepared(
        config,
        topology.dims,
        dim_bandwidth=known,
        names=network.names,
        links_of_dims=links_of_dims(network),
    )


def open_garnet(config: NetworkConfig) -> Network:
    """Open a Garnet simulation; errors name the limit that was met."""
    return open_own("garnet", config)


BACKENDS = (
    BackendSpec(
        "garnet",
        "gem5's Garnet router, cycle by cycle: flits, virtual channels, credits.",
        prepare,
        open_garnet,
        unavailable=lambda: not_built("garnet"),
        isolate=False,
        library=lambda: library_path("garnet"),
    ),
)
