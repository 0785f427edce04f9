# SPDX-License-Identifier: MIT
"""What the fabrics share: nodes in tiers, cables by column, hosts, and checks of what is given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astra_bridge.arguments import Check, flag, integer, number, optional
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import LinkColumns, NetworkLinks, NodeRange

__all__ = ["MAX_GPUS", "NVLINK_LATENCY_NS", "Fabric", "checked", "exact", "named", "refuse", "room"]

MAX_GPUS = 1 << 20
MAX_PORTS = 1 << 16
MAX_CABLES = 1 << 25
"""Of a fabric, all tiers and planes together; also the most nodes of a tier.

A cable takes 140 bytes while the network is made, two links of 32 twice and its ends: 5 GB.
"""

NVLINK_LATENCY_NS = 25.0
"""Of a GPU's link to the NVSwitch; SimAI's generator of topologies has it as a default, too."""

_COUNT = integer(1, MAX_PORTS)
_RATE = number(1e-6, 1e9)
_TIME = number(0, 1e12)
_CHECKS: dict[str, Check] = {
    "gpus": integer(1, MAX_GPUS),
    "gpus_per_host": _COUNT,
    "rails": optional(_COUNT),
    "rail_only": flag,
    "planes": _COUNT,
    "radix": optional(integer(2, MAX_PORTS)),
    "spines": optional(_COUNT),
    "hosts_per_leaf": optional(_COUNT),
    "oversubscription": number(1e-3, 1e3),
    "nic_gbps": _RATE,
    "uplink_gbps": optional(_RATE),
    "nvlink_gbps": lambda value, name: number(0, 1e9)(value, name) and _RATE(value, name),
    "nvswitches": _COUNT,
    "latency_ns": _TIME,
    "nvlink_latency_ns": _TIME,
    "global_latency_ns": optional(_TIME),
    "gpus_per_router": optional(_COUNT),
    "routers_per_group": optional(_COUNT),
    "global_links": optional(_COUNT),
}


def refuse(name: str, value: object, allowed: str) -> InputError:
    """The error of a parameter whose value does not go with the others."""
    return InputError(f"{value} is not allowed; allowed: {allowed}", key=name)


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a fabric was given, each in its plain type.

    Raises
    ------
    InputError
        Names the parameter, its value and what is allowed; also where ``gpus`` do not fill hosts.
    """
    plain = {name: _CHECKS[name](value, name) for name, value in given.items()}
    gpus, per_host = plain["gpus"], plain.get("gpus_per_host", 1)
    if gpus % per_host:
        raise refuse("gpus", gpus, f"multiples of gpus_per_host, which is {per_host}")
    return plain


def room(count: int, key: str) -> int:
    """A number of cables or nodes, before they are made.

    Raises
    ------
    InputError
        They are too many; names the parameter that makes them so.
    """
    if count > MAX_CABLES:
        raise InputError(f"makes {count} cables or nodes; allowed: up to {MAX_CABLES}", key=key)
    return count


def exact(value: float) -> Fraction:
    """A number as people write it: 0.1 is a tenth."""
    return Fraction(repr(value)).limit_denominator(10**9)


def named(network: NetworkLinks) -> list[NodeRange]:
    """All nodes in ranges, in order; those without a name are gpu or switch."""
    ranges: list[NodeRange] = []
    end = 0

    def fill(last: int) -> None:
        for first, stop, tier in (
            (end, min(last, network.endpoints), "gpu"),
            (max(end, network.endpoints), last, "switch"),
        ):
            if first < stop:
                ranges.append(NodeRange(tier, first, stop - first))

    for one in sorted(network.names, key=lambda one: one.first):
        fill(one.first)
        ranges.append(one)
        end = one.first + one.count
    fill(network.nodes)
    return ranges


class _Cables(NamedTuple):
    """Cables of one kind, each of which becomes a link there and a link back."""

    one: NDArray[np.int32]
    other: NDArray[np.int32]
    bandwidth_GiBps: float
    latency_ns: float


class Fabric:
    """Nodes and cables while a fabric is put together.

    The GPUs are nodes 0 .. gpus-1, those of a host next to one another.
    """

    def __init__(self, gpus: int) -> None:
        self.gpus = np.arange(gpus)
        self.nodes = gpus
        self._names = [NodeRange("gpu", 0, gpus)]
        self._cables: list[_Cables] = []
        self._count = 0  # of cables

    def planes(self, count: int) -> Iterator[str]:
        """What the names of each plane begin with; the first says how many cables all have.

        Raises
        ------
        InputError
            They are too many.
        """
        before = self._count
        for plane in range(count):
            yield f"plane{plane}." if count > 1 else ""
            if plane == 0:
                room(before + count * (self._count - before), "planes")

    def add(self, tier: str, count: int, name: str) -> NDArray[np.int64]:
        """More switches; their ids."""
        room(count, "gpus")
        self._names.append(NodeRange(tier, self.nodes, count, name))
        self.nodes += count
        return np.arange(self.nodes - count, self.nodes)

    def join(self, a: ArrayLike, b: ArrayLike, gbps: Fraction | float, latency_ns: float) -> None:
        """A cable from each of ``a`` to that of ``b``, which NumPy broadcasts to one shape."""
        self._count = room(self._count + np.broadcast(a, b).size, "gpus")
        one, other = (end.astype(np.int32).ravel() for end in np.broadcast_arrays(a, b))
        # As "400Gbps" in a file is read: whole bits, then bytes, then GiB.
        bandwidth = float(gbps) * 1e9 / 8 / (1 << 30)
        self._cables.append(_Cables(one, other, bandwidth, latency_ns))

    def hosts(self, per_host: int, gbps: float, latency_ns: float, nvswitches: int = 1) -> None:
        """Join the GPUs of each host through its NVSwitches, which share the rate of a GPU."""
        if gbps == 0 or per_host == 1:
            return
        count = len(self.gpus) // per_host
        switches = self.add("nvlink", count * nvswitches, "nvswitch").reshape(count, 1, nvswitches)
        gpus = self.gpus.reshape(count, per_host, 1)
        self.join(gpus, switches, exact(gbps) / nvswitches, latency_ns)

    def network(self, dims: tuple[int, ...], *, forward: bool = False) -> NetworkLinks:
        """What was put together; ``forward``: GPUs forward for one another."""
        count = 2 * self._count
        src, dst = np.empty(count, np.int32), np.empty(count, np.int32)
        bandwidth, latency = np.empty(count), np.empty(count)
        at = 0
        for cables in self._cables:
            there, back, all_ = (
                slice(at + first, at + 2 * len(cables.one), step)
                for first, step in ((0, 2), (1, 2), (0, 1))
            )
            src[there] = dst[back] = cables.one
            dst[there] = src[back] = cables.other
            bandwidth[all_], latency[all_] = cables.bandwidth_GiBps, cables.latency_ns
            at += 2 * len(cables.one)
        return NetworkLinks(
            len(self.gpus),
            self.nodes,
            LinkColumns(src, dst, bandwidth, latency, np.broadcast_to(0.0, count)),
            tuple(size for size in dims if size > 1) or (math.prod(dims),),
            names=tuple(self._names),
            endpoints_forward=forward,
        )
