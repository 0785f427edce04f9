# SPDX-License-Identifier: MIT
"""Leaves and spines: rail-optimised and plain, the folded Clos network of two tiers."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, gcd, lcm

import numpy as np

from astra_bridge.errors import InputError
from astra_bridge.fabrics.build import MAX_PORTS, NVLINK_LATENCY_NS, Fabric, checked, exact, refuse
from astra_bridge.inputs.network import NetworkLinks

__all__ = ["leaf_spine", "rail"]

_RADIX = 64


def rail(
    gpus: int,
    *,
    gpus_per_host: int = 8,
    rails: int | None = None,
    rail_only: bool = False,
    planes: int = 1,
    oversubscription: float = 1.0,
    nic_gbps: float = 400.0,
    uplink_gbps: float | None = None,
    nvlink_gbps: float = 3600.0,
    latency_ns: float = 500.0,
    nvlink_latency_ns: float = NVLINK_LATENCY_NS,
    radix: int | None = None,
    hosts_per_leaf: int | None = None,
    spines: int | None = None,
) -> NetworkLinks:
    """Rail-optimised: GPU g of every host hangs on a leaf of rail g, and spines join all leaves.

    Parameters
    ----------
    gpus
        GPUs in all; GPU g of host h is node ``h * gpus_per_host + g``.
    gpus_per_host
        GPUs of a host, each with a port of its own to the network.
    rails
        GPU g is on rail ``g % rails``; a divisor of ``gpus_per_host``.  Default: one per GPU.
    rail_only
        Each rail has spines of its own, or none where one leaf suffices: no cable joins two rails.
    planes
        Copies of leaves and spines that share the bandwidth of a port.
    oversubscription
        Bandwidth of a full leaf towards hosts over that towards spines.
    nic_gbps
        Bandwidth of a GPU's port [Gbit/s], all planes together.
    uplink_gbps
        Bandwidth of a cable between leaf and spine [Gbit/s].  Default: that of a port.
    nvlink_gbps
        Bandwidth of a GPU to the NVSwitch of its host [Gbit/s]; 0: hosts have none.
    latency_ns, nvlink_latency_ns
        Time to cross a cable of the network and of a host [ns].
    radix
        Ports of a switch.  Default: 64, or the next power of two with which two tiers suffice.
    hosts_per_leaf
        Hosts of a full leaf.  Default: as many as fill as few leaves as possible evenly.
    spines
        Spines per plane, of each rail with ``rail_only``.  Default: one for each uplink of a leaf.

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
    The layout of NVIDIA's DGX SuperPOD and of Alibaba's HPN (Qian et al., SIGCOMM 2024).  With
    ``rail_only`` that of Wang et al., "Rail-only", HOTI 2024: there is no way between two rails,
    which hierarchical collectives on the dimensions ``gpus_per_host`` and hosts do not need.

    Examples
    --------
    >>> network = rail(512, hosts_per_leaf=32)
    >>> network.dims, [(one.name, one.count) for one in network.names[1:4]]
    ((8, 64), [('nvswitch', 64), ('rail0.leaf', 2), ('rail1.leaf', 2)])
    """
    given = checked(locals())
    per_host = given["gpus_per_host"]
    rails = per_host if given["rails"] is None else given["rails"]
    if per_host % rails:
        raise refuse("rails", rails, f"divisors of gpus_per_host, which is {per_host}")
    return _two_tiers(**given | {"rails": rails, "least_leaves": 1})


def leaf_spine(
    gpus: int,
    *,
    gpus_per_host: int = 8,
    planes: int = 1,
    oversubscription: float = 1.0,
    nic_gbps: float = 400.0,
    uplink_gbps: float | None = None,
    nvlink_gbps: float = 3600.0,
    latency_ns: float = 500.0,
    nvlink_latency_ns: float = NVLINK_LATENCY_NS,
    radix: int | None = None,
    hosts_per_leaf: int | None = None,
    spines: int | None = None,
) -> NetworkLinks:
    """Leaf and spine: all GPUs of a host hang on one leaf, and each leaf on every spine.

    The parameters are those of :func:`rail`.

    Returns
    -------
    NetworkLinks
        With the logical dimensions ``gpus_per_host`` and hosts; at least two leaves where there
        are two hosts.

    Raises
    ------
    InputError
        Names the parameter, its value and what is allowed.

    Examples
    --------
    >>> network = leaf_spine(64, gpus_per_host=8, oversubscription=2, hosts_per_leaf=2)
    >>> [(one.tier, one.count) for one in network.names]
    [('gpu', 64), ('nvlink', 8), ('leaf', 4), ('spine', 8)]
    """
    given = checked(locals())
    return _two_tiers(**given, rails=1, rail_only=False, least_leaves=2)


@dataclass(frozen=True)
class _Leaf:
    """A full leaf, and how many there are per rail and plane.

    Attributes
    ----------
    down, up
        Cables towards hosts and towards spines.
    leaves
        Leaves of a rail.
    spines
        Spines above them; 0 where one leaf suffices.
    """

    down: int
    up: int
    leaves: int
    spines: int

    def ports(self, joined: int) -> int:
        """The most ports that a switch needs, where spines join so many rails."""
        spine = joined * self.leaves * (self.up // self.spines) if self.spines else 0
        return max(self.down + (self.up if self.spines else 0), spine)


def _two_tiers(
    *,
    gpus: int,
    gpus_per_host: int,
    rails: int,
    rail_only: bool,
    planes: int,
    oversubscription: float,
    nic_gbps: float,
    uplink_gbps: float | None,
    nvlink_gbps: float,
    latency_ns: float,
    nvlink_latency_ns: float,
    radix: int | None,
    hosts_per_leaf: int | None,
    spines: int | None,
    least_leaves: int,
) -> NetworkLinks:
    port = exact(nic_gbps) / planes
    uplink = port if uplink_gbps is None else exact(uplink_gbps)
    hosts, unit = gpus // gpus_per_host, gpus_per_host // rails
    # Uplinks per cable towards hosts; a leaf has whole cables to every spine.
    ratio = port / (exact(oversubscription) * uplink)
    step = ratio.denominator * (spines or 1) // gcd(ratio.numerator, spines or 1)
    step = lcm(step, unit)
    least_leaves = min(least_leaves, hosts)
    joined = 1 if rail_only else rails
    if hosts_per_leaf is not None and hosts_per_leaf * unit % step:
        raise refuse(
            "hosts_per_leaf", hosts_per_leaf, f"multiples of {step // unit}, for whole uplinks"
        )

    def leaf(ports: int) -> _Leaf | None:
        """The leaves of switches with so many ports; None if they do not suffice."""
        most = int(ports / (1 + ratio)) // step * step
        single = hosts <= (hosts_per_leaf or hosts) and joined == least_leaves == 1
        if single and hosts * unit <= ports:
            return _Leaf(hosts * unit, 0, 1, 0)
        if hosts_per_leaf is not None:
            downs = [hosts_per_leaf * unit]
        elif most:
            leaves = max(least_leaves, ceil(hosts * unit / most))
            # All full, if some more leaves are enough for that; else the fewest.
            full = (hosts // n * unit for n in range(leaves, 2 * leaves) if hosts % n == 0)
            downs = [down for down in full if down % step == 0][:1]
            downs.append(ceil(hosts * unit / (leaves * step)) * step)
        else:
            return None
        for down in downs:
            up = int(down * ratio)
            found = _Leaf(down, up, ceil(hosts * unit / down), spines or up)
            if found.ports(joined) <= ports:
                return found
        return None

    powers = (1 << bit for bit in range(6, MAX_PORTS.bit_length()))
    plan = leaf(radix) if radix else next(filter(None, map(leaf, powers)), None)
    if plan is None:
        enough = next((ports for ports in range(radix or 2, MAX_PORTS + 1) if leaf(ports)), None)
        whole = f"a leaf takes a multiple of {step // unit} hosts, for whole uplinks"
        if radix is None or enough is None:
            raise InputError(f"two tiers of {MAX_PORTS} ports do not suffice; {whole}", key="radix")
        raise refuse("radix", radix, f"{enough} or more ports here; {whole}")
    if hosts_per_leaf is None and plan.spines and plan.down > hosts * unit:
        used = ceil(hosts / plan.leaves) * unit
        name, value = ("spines", spines) if spines else ("oversubscription", oversubscription)
        raise refuse(name, value, f"what gives {used} ports towards hosts whole uplinks")
    fabric = Fabric(gpus)
    fabric.hosts(gpus_per_host, nvlink_gbps, nvlink_latency_ns)
    host, place = np.divmod(fabric.gpus, gpus_per_host)
    for before in fabric.planes(planes):
        tops = []
        for number in range(rails):
            name = f"{before}rail{number}.leaf" if rails > 1 else f"{before}leaf"
            leaves = fabric.add("leaf", plan.leaves, name)
            own = fabric.gpus[place % rails == number]
            fabric.join(own, leaves[host[own] * unit // plan.down], port, latency_ns)
            tops.append((f"{before}rail{number}.spine", leaves))
        if not plan.spines:
            continue
        if not rail_only:
            tops = [(f"{before}spine", np.concatenate([leaves for _, leaves in tops]))]
        for name, leaves in tops:
            spine = fabric.add("spine", plan.spines, name)
            cables = np.tile(spine, plan.up // plan.spines)
            fabric.join(leaves[:, None], cables[None, :], uplink, latency_ns)
    return fabric.network((gpus_per_host, hosts))
