# SPDX-License-Identifier: MIT
"""The dragonfly: Kim, Dally, Scott, Abts, "Technology-driven, highly-scalable dragonfly topology",
ISCA 2008."""

from __future__ import annotations

from math import ceil

import numpy as np

from astra_bridge.fabrics.build import (
    MAX_PORTS,
    NVLINK_LATENCY_NS,
    Fabric,
    checked,
    exact,
    refuse,
    room,
)
from astra_bridge.inputs.network import NetworkLinks

__all__ = ["dragonfly"]


def dragonfly(
    gpus: int,
    *,
    gpus_per_host: int = 8,
    planes: int = 1,
    nic_gbps: float = 400.0,
    nvlink_gbps: float = 3600.0,
    latency_ns: float = 500.0,
    nvlink_latency_ns: float = NVLINK_LATENCY_NS,
    global_latency_ns: float | None = None,
    gpus_per_router: int | None = None,
    routers_per_group: int | None = None,
    global_links: int | None = None,
) -> NetworkLinks:
    """Dragonfly: groups of routers that are all joined, and groups that are all joined.

    With p GPUs and h global cables per router and a routers per group there are at most a h + 1
    groups; fewer share their global cables evenly, as parallel ones.  Without other numbers it is
    balanced, a = 2p = 2h, with the least p that has room.

    Parameters
    ----------
    gpus
        GPUs in all; GPU g of host h is node ``h * gpus_per_host + g``.
    gpus_per_host
        GPUs of a host, each with a port of its own to the same router.
    planes
        Copies of the network that share the bandwidth of a port.
    nic_gbps
        Bandwidth of every cable of the network, all planes together [Gbit/s].
    nvlink_gbps
        Bandwidth of a GPU to the NVSwitch of its host [Gbit/s]; 0: hosts have none.
    latency_ns, nvlink_latency_ns, global_latency_ns
        Time to cross a cable of the network, of a host, and between groups (default: as in the
        network) [ns].
    gpus_per_router
        p, a multiple of ``gpus_per_host``.
    routers_per_group
        a.  Default: 2p.
    global_links
        h.  Default: p.

    Returns
    -------
    NetworkLinks
        With the logical dimensions ``gpus_per_host`` and hosts.

    Raises
    ------
    InputError
        Names the parameter, its value and what is allowed.

    Notes
    -----
    Messages take the fewest hops: the minimal routing of the paper, without its detours (Valiant,
    UGAL).

    Examples
    --------
    >>> network = dragonfly(72, gpus_per_host=2)
    >>> [(one.name, one.count) for one in network.names[1:]]
    [('nvswitch', 36), ('router', 36)]
    """
    given = checked(locals())
    host = given["gpus_per_host"]
    if given["gpus_per_router"] is not None and given["gpus_per_router"] % host:
        raise refuse(
            "gpus_per_router", gpus_per_router, f"multiples of gpus_per_host, which is {host}"
        )

    def shape(terminals: int) -> tuple[int, int, int, int]:
        """p, a, h and the GPUs that there is room for."""
        a = given["routers_per_group"] or 2 * terminals
        h = given["global_links"] or terminals
        return terminals, a, h, terminals * a * (a * h + 1)

    tried = [given["gpus_per_router"]] if gpus_per_router else range(host, MAX_PORTS, host)
    found = next((one for one in map(shape, tried) if one[-1] >= gpus), None)
    if found is None:
        most = shape(given["gpus_per_router"] or MAX_PORTS // host * host)[-1]
        raise refuse("gpus", gpus, f"up to {most} with these routers and global links")
    p, a, h, _ = found
    groups = ceil(gpus / (p * a))
    cables = a * h // (groups - 1) if groups > 1 else 0
    room(groups * a * a // 2, "routers_per_group")
    room(groups * (groups - 1) // 2 * cables, "global_links")
    rate = exact(given["nic_gbps"]) / given["planes"]
    far = latency_ns if given["global_latency_ns"] is None else given["global_latency_ns"]
    fabric = Fabric(given["gpus"])
    fabric.hosts(host, given["nvlink_gbps"], given["nvlink_latency_ns"])
    for before in fabric.planes(given["planes"]):
        router = fabric.add("router", groups * a, f"{before}router").reshape(groups, a)
        fabric.join(fabric.gpus, router.ravel()[fabric.gpus // p], rate, given["latency_ns"])
        one, other = np.triu_indices(a, 1)
        fabric.join(router[:, one], router[:, other], rate, given["latency_ns"])
        # Of each group, the cables to the next group come first, then those to the one after it.
        near, to = np.triu_indices(groups, 1)
        port = np.arange(cables)
        at_near = ((to - near - 1)[:, None] * cables + port) // h
        at_to = ((near - to - 1)[:, None] % groups * cables + port) // h
        fabric.join(router[near[:, None], at_near], router[to[:, None], at_to], rate, far)
    return fabric.network((host, gpus // host))
