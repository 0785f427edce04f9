# SPDX-License-Identifier: MIT
"""What the suite tests: a way to make simulations, and the network that they are of."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from astra_bridge.conformance.quirks import QUIRKS, Quirks
from astra_bridge.errors import BackendUnavailable
from astra_bridge.inputs.network import NetworkDims, read_network
from astra_bridge.network.api import LINK, Network, NetworkConfig, NetworkInfo
from astra_bridge.network.native import Library, NativeNetwork
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.topology import Topology, topology_of
from astra_bridge.units import PS_PER_S

__all__ = ["Subject", "named_backend", "subject"]

DEFAULT_NETWORK = NetworkDims(("FullyConnected",), (6,), (50.0,), (500.0,))
"""What every backend can do, with or without routing."""


@dataclass(frozen=True)
class Subject:
    """A backend on one network.

    Attributes
    ----------
    name : str
    open : callable
        Makes a fresh simulation.
    config : NetworkConfig
    topology : Topology
        The same network as links, for the physical bounds.
    info : NetworkInfo
    library : Library or None
        None for a pure Python network.
    quirks : Quirks
    """

    name: str
    open: Callable[[], Network]
    config: NetworkConfig
    topology: Topology
    info: NetworkInfo
    library: Library | None
    quirks: Quirks

    def dimensions_apart(self, src: int, dst: int) -> int:
        """In how many logical dimensions two endpoints differ."""
        apart = 0
        for size in self.topology.dims:
            apart += src % size != dst % size
            src, dst = src // size, dst // size
        return apart

    def earliest_ps(self, src: int, dst: int, size_bytes: int) -> float:
        """No transfer can take less: bytes / widest path + shortest path."""
        latency = _best(self.topology, src, dst, lambda far, hop: far + hop[0], 0.0)
        width = -_best(self.topology, src, dst, lambda far, hop: max(far, -hop[1]), -math.inf)
        return size_bytes / width * PS_PER_S + latency

    @property
    def link_count(self) -> int:
        """Links that ``set_link`` may name: those of the configuration, where it lists any."""
        return len(self.config.links) or len(self.topology.src)


def _best(
    topology: Topology,
    src: int,
    dst: int,
    extend: Callable[[float, tuple[float, float]], float],
    begin: float,
) -> float:
    """Cost of the cheapest path, where ``extend(cost, (latency_ps, bytes_per_second))`` grows."""
    neighbours: dict[int, list[tuple[int, tuple[float, float]]]] = {}
    for a, b, latency, rate in zip(
        topology.src.tolist(),
        topology.dst.tolist(),
        topology.latency_ps.tolist(),
        topology.bytes_per_second.tolist(),
        strict=True,
    ):
        neighbours.setdefault(a, []).append((b, (latency, rate)))
    queue, done = [(begin, src)], set()
    while queue:
        cost, node = heapq.heappop(queue)
        if node == dst:
            return cost
        if node not in done:
            done.add(node)
            for other, hop in neighbours.get(node, ()):
                heapq.heappush(queue, (extend(cost, hop), other))
    raise ValueError(f"no path from {src} to {dst}")


def subject(
    target: str | Path | BackendSpec | Callable[[NetworkConfig], Network],
    *,
    network: object = DEFAULT_NETWORK,
    options: Mapping[str, str] | None = None,
    quirks: Quirks | None = None,
) -> Subject:
    """Make a subject of a backend's name, a library's path, a spec, or a Python network class.

    Raises
    ------
    InputError, BackendError
        The backend is unknown, cannot be loaded, or refuses the network.
    BackendUnavailable
        It cannot run here; the message says why.
    """
    if isinstance(target, (str, Path)):
        target = named_backend(target)
    topology = topology_of(read_network(network))  # type: ignore[arg-type]
    if isinstance(target, BackendSpec):
        reason = target.unavailable()
        if reason is not None:
            raise BackendUnavailable(f"{target.name}: {reason}")
        prepared = target.prepare(NetworkRequest(network, options=dict(options or {})))
        name, make = target.name, target.open
    else:
        config = NetworkConfig(
            topology.endpoints, topology.nodes, topology.records(LINK), dict(options or {})
        )
        prepared = Prepared(config, topology.dims)
        name, make = getattr(target, "__name__", str(target)), target
    with make(prepared.config) as probe:
        info = probe.info
        library = probe.library if isinstance(probe, NativeNetwork) else None

    def open_() -> Network:
        # Its own copy of the links: R2 scribbles over them.
        return make(replace(prepared.config, links=prepared.config.links.copy()))

    return Subject(
        name,
        open_,
        prepared.config,
        topology,
        info,
        library,
        quirks or _known(info, probe, len(topology.dims)),
    )


def _known(info: NetworkInfo, network: Network, hops: int) -> Quirks:
    """Of a backend, and of those that it is made of: a transfer may cross each dimension apart."""
    known = QUIRKS.get(info.name, Quirks())
    for library in network.lent if isinstance(network, NativeNetwork) else ():
        other = QUIRKS.get(library.info.name, Quirks())
        known = Quirks(
            {**known.skip, **other.skip},
            min(known.largest_bytes, other.largest_bytes),
            max(known.bound_slack_ps, hops * (other.bound_slack_ps + library.info.resolution_ps)),
            known.bound_in_one_dimension or other.bound_in_one_dimension,
        )
    return known


def named_backend(target: str | Path) -> BackendSpec:
    """The backend of this name or path; a file in the working directory needs no ./ in front."""
    name = str(target)
    return backend(str(Path(name).resolve()) if Path(name).is_file() else name)
