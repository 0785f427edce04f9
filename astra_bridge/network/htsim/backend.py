# SPDX-License-Identifier: MIT
"""The backend: what users give becomes what the compiled library takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_bridge.errors import InputError
from astra_bridge.fabrics.htsim import is_htsim, read_htsim
from astra_bridge.inputs.common import read_text
from astra_bridge.inputs.network import NetworkDims, NetworkLinks, dim_bandwidth, read_network
from astra_bridge.network.api import LINK, Network, NetworkConfig
from astra_bridge.network.htsim.build import HTSIM
from astra_bridge.network.native import NativeNetwork
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.text import nearest
from astra_bridge.topology import links_of_dims, topology_of

__all__ = ["BACKENDS", "OPTIONS", "prepare"]

OPTIONS = (
    *("transport", "mtu_bytes", "queue", "queue_packets", "mark_packets", "host_queue"),
    *("pfc_low_packets", "pfc_high_packets", "paths", "completion", "seed", "timer_us"),
    *("cwnd_packets", "strategy", "path_burst", "pull_rate", "rts", "oversubscribed_cc"),
    *("entropies", "rto_us", "base_rtt_us", "target_utilization", "max_stages"),
    *("plb", "hdiv", "ssthresh_packets"),
    *("fat_tree", "switch_routing", "routing", "endpoints_forward"),
    *("flow_table", "sample_interval_us"),
)
"""docs/htsim.md says what they mean; the library, which of them go together."""


def prepare(request: NetworkRequest) -> Prepared:
    """Turn a network input into what ``create`` takes.

    Dimensions and links, as for every backend, and htsim's own ``.topo``: then its own fat-tree is
    used, whose switches choose ways, unless ``fat_tree=none``.

    Raises
    ------
    InputError
        The network input, or an option, is not understood.
    """
    for key in request.options:
        if key not in OPTIONS:
            raise InputError(
                f"unknown option {key!r}; htsim has: {', '.join(OPTIONS)}{nearest(key, OPTIONS)}",
                key="--network-option",
            )
    network: Any = request.network
    options: dict[str, str] = {}
    parsed: NetworkDims | NetworkLinks
    own = _own_file(network)
    if own is not None:
        parsed = read_htsim(read_text(own), own)
        options["fat_tree"] = str(own.absolute())
    else:
        parsed = read_network(network)
    topology = topology_of(parsed)
    if isinstance(parsed, NetworkDims):
        forwards = len(parsed.topology) > 1 or parsed.topology[0] == "Ring"
    else:
        forwards = parsed.endpoints_forward
        if parsed.routing != "ecmp":
            options["routing"] = parsed.routing
    if forwards:
        options["endpoints_forward"] = "true"
    options |= request.options
    if options.get("fat_tree") == "none":
        del options["fat_tree"]
    return Prepared(
        NetworkConfig(topology.endpoints, topology.nodes, topology.records(LINK), options),
        topology.dims,
        dim_bandwidth=dim_bandwidth(parsed, topology.dims),
        names=parsed.names,
        links_of_dims=links_of_dims(parsed),
    )


def _own_file(network: object) -> Path | None:
    """The path of a file of htsim's own fat-tree."""
    if not isinstance(network, (str, Path)):
        return None
    path = Path(network)
    return path if path.is_file() and is_htsim(read_text(path)) else None


def _open(config: NetworkConfig) -> Network:
    return NativeNetwork.open(HTSIM.library(), config, trusted=True)


BACKENDS: tuple[BackendSpec, ...] = (
    BackendSpec(
        name="htsim",
        summary="htsim, packet by packet: NDP, EQDS, Swift, RoCE, HPCC, TCP, DCTCP",
        prepare=prepare,
        open=_open,
        unavailable=HTSIM.unavailable,
        note=HTSIM.note,
        make_ready=HTSIM.library,
        library=HTSIM.library,
        version=HTSIM.version,
    ),
)
