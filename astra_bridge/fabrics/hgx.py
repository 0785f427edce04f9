# SPDX-License-Identifier: MIT
"""Hosts around NVSwitches, and one switch between them."""

from __future__ import annotations

from astra_bridge.errors import InputError
from astra_bridge.fabrics.build import NVLINK_LATENCY_NS, Fabric, checked, exact
from astra_bridge.inputs.network import NetworkLinks

__all__ = ["hgx"]


def hgx(
    gpus: int = 8,
    *,
    gpus_per_host: int | None = None,
    nvswitches: int = 4,
    nic_gbps: float = 400.0,
    nvlink_gbps: float = 3600.0,
    latency_ns: float = 500.0,
    nvlink_latency_ns: float = NVLINK_LATENCY_NS,
) -> NetworkLinks:
    """Hosts as NVIDIA's HGX boards: each GPU has cables to every NVSwitch chip of its host.

    Parameters
    ----------
    gpus
        GPUs in all; GPU g of host h is node ``h * gpus_per_host + g``.
    gpus_per_host
        GPUs of a host.  Default: up to 8.  72 and ``nvswitches=18`` make a rack of GB200.
    nvswitches
        NVSwitch chips of a host, which share the bandwidth of a GPU evenly.
    nic_gbps
        Bandwidth of a GPU's port to the one switch between hosts, if there are several [Gbit/s].
    nvlink_gbps
        Bandwidth of a GPU to all NVSwitches of its host together [Gbit/s].
    latency_ns, nvlink_latency_ns
        Time to cross a cable of the network and of a host [ns].

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
    >>> network = hgx()
    >>> network.endpoints, network.nodes, network.links[0].bandwidth_GiBps * 2**30 / 1e9
    (8, 12, 112.5)
    """
    if gpus_per_host is None and isinstance(gpus, int):
        gpus_per_host = max(1, min(gpus, 8))
    given = checked(locals())
    hosts = gpus // given["gpus_per_host"]
    fabric = Fabric(given["gpus"])
    fabric.hosts(
        given["gpus_per_host"], given["nvlink_gbps"], given["nvlink_latency_ns"], nvswitches
    )
    if hosts > 1:
        switch = fabric.add("leaf", 1, "leaf")
        fabric.join(fabric.gpus, switch, exact(given["nic_gbps"]), given["latency_ns"])
    elif given["nvlink_gbps"] == 0:
        raise InputError(
            "0 is not allowed; allowed: positive numbers, where there is one host",
            key="nvlink_gbps",
        )
    return fabric.network((given["gpus_per_host"], hosts))
