# SPDX-License-Identifier: MIT
"""The k-ary fat-tree: Al-Fares, Loukissas, Vahdat, "A scalable, commodity data center network
architecture", SIGCOMM 2008."""

from __future__ import annotations

from math import ceil, lcm

import numpy as np

from astra_bridge.errors import InputError
from astra_bridge.fabrics.build import MAX_PORTS, NVLINK_LATENCY_NS, Fabric, checked, exact, refuse
from astra_bridge.inputs.network import NetworkLinks

__all__ = ["fat_tree"]


def fat_tree(
    gpus: int,
    *,
    gpus_per_host: int = 8,
    planes: int = 1,
    oversubscription: float = 1.0,
    nic_gbps: float = 400.0,
    nvlink_gbps: float = 3600.0,
    latency_ns: float = 500.0,
    nvlink_latency_ns: float = NVLINK_LATENCY_NS,
    radix: int | None = None,
) -> NetworkLinks:
    """Fat-tree of k-port switches: pods of k/2 edge and k/2 aggregation switches, and cores.

    An edge switch has k/2 GPUs below and a cable to each aggregation switch of its pod; an
    aggregation switch has a cable to k/2 cores, and a core one to every pod: k^3/4 GPUs.  As many
    pods are built as the GPUs need; the last may not be full.

    Parameters
    ----------
    gpus
        GPUs in all; GPU g of host h is node ``h * gpus_per_host + g``.
    gpus_per_host
        GPUs of a host, each with a port of its own to the same edge switch.
    planes
        Copies of the tree that share the bandwidth of a port.
    oversubscription
        Bandwidth of a full edge switch towards hosts over that towards aggregation; above them
        nothing is lost.
    nic_gbps
        Bandwidth of every cable of the network, all planes together [Gbit/s].
    nvlink_gbps
        Bandwidth of a GPU to the NVSwitch of its host [Gbit/s]; 0: hosts have none.
    latency_ns, nvlink_latency_ns
        Time to cross a cable of the network and of a host [ns].
    radix
        Ports of a switch, k: even.  Default: the fewest that suffice.

    Returns
    -------
    NetworkLinks
        With the logical dimensions ``gpus_per_host`` and hosts.

    Raises
    ------
    InputError
        Names the parameter, its value and what is allowed.

    Examples
    --------
    >>> network = fat_tree(16, gpus_per_host=1)
    >>> network.nodes - network.endpoints, len(network.links) // 2
    (20, 48)
    """
    given = checked(locals())
    host = given["gpus_per_host"]
    ratio = 1 / exact(given["oversubscription"])
    step = lcm(ratio.denominator, host)
    if radix is not None and given["radix"] % 2:
        raise refuse("radix", radix, "even numbers")

    def down_of(ports: int) -> int:
        """GPUs of a full edge switch."""
        return int(ports / (1 + ratio)) // step * step

    def room(ports: int) -> int:
        return down_of(ports) * (ports // 2) * ports

    ports = given["radix"]
    if ports is None:
        ports = next((one for one in range(4, MAX_PORTS + 1, 2) if room(one) >= gpus), None)
        if ports is None:
            raise InputError(
                f"no switch of up to {MAX_PORTS} ports takes a multiple of {step} GPUs, for whole "
                "hosts and uplinks",
                key="oversubscription",
            )
    down = down_of(ports)
    if not down:
        raise refuse("radix", ports, f"ports for {step} GPUs and their uplinks, or more")
    if gpus > room(ports):
        raise refuse("gpus", gpus, f"up to {room(ports)}, with a radix of {ports}")
    half, up = ports // 2, int(down * ratio)
    edges = ceil(gpus / down)
    pods = ceil(edges / half)
    rate = exact(given["nic_gbps"]) / given["planes"]
    latency = given["latency_ns"]
    fabric = Fabric(given["gpus"])
    fabric.hosts(host, given["nvlink_gbps"], given["nvlink_latency_ns"])
    for before in fabric.planes(given["planes"]):
        edge = fabric.add("edge", edges, f"{before}edge")
        fabric.join(fabric.gpus, edge[fabric.gpus // down], rate, latency)
        if edges == 1:
            continue
        aggregation = fabric.add("aggregation", pods * up, f"{before}aggregation").reshape(pods, up)
        fabric.join(edge[:, None], aggregation[np.arange(edges) // half], rate, latency)
        if pods > 1:
            core = fabric.add("core", up * half, f"{before}core").reshape(1, up, half)
            fabric.join(aggregation[:, :, None], core, rate, latency)
    return fabric.network((host, gpus // host))
