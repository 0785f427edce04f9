# SPDX-License-Identifier: MIT
"""Synthetic traffic: the patterns of gem5's Garnet tester, and latency against load."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import nearest
from astra_bridge.network.api import TRANSFER, Network, NetworkConfig
from astra_bridge.network.garnet.backend import open_garnet
from astra_bridge.network.garnet.model import GarnetNetwork
from astra_bridge.network.garnet.options import options_of

__all__ = [
    "PATTERNS",
    "LoadPoint",
    "destinations",
    "make_traffic",
    "run_traffic",
    "run_transfers",
    "sweep",
]

Nodes = NDArray[np.int64]
Pattern = Callable[[Nodes, int], Nodes]


def _on_grid(step: Callable[[Nodes, Nodes, int], tuple[Nodes, Nodes]]) -> Pattern:
    """A pattern of the x and y of a square grid of side k."""

    def pattern(src: Nodes, nodes: int) -> Nodes:
        k = math.isqrt(nodes)
        x, y = step(src % k, src // k, k)
        return x + y * k

    return pattern


def _bit_reverse(src: Nodes, nodes: int) -> Nodes:
    bits = nodes.bit_length() - 1
    return sum(((src >> bit & 1) << (bits - 1 - bit) for bit in range(bits)), np.zeros_like(src))


def _bit_rotation(src: Nodes, nodes: int) -> Nodes:
    return src // 2 + (src % 2) * (nodes // 2)


def _shuffle(src: Nodes, nodes: int) -> Nodes:
    return np.where(src < nodes // 2, src * 2, src * 2 - nodes + 1)


_SQUARE: dict[str, Pattern] = {
    "tornado": _on_grid(lambda x, y, k: ((x + k // 2 - 1) % k, y)),
    "bit_complement": _on_grid(lambda x, y, k: (k - 1 - x, k - 1 - y)),
    "neighbor": _on_grid(lambda x, y, k: ((x + 1) % k, y)),
    "transpose": _on_grid(lambda x, y, _: (y, x)),
}
_POWER_OF_TWO: dict[str, Pattern] = {
    "bit_reverse": _bit_reverse,
    "bit_rotation": _bit_rotation,
    "shuffle": _shuffle,
}
MAX_PACKETS = 50_000_000
PATTERNS = ("uniform", *_SQUARE, *_POWER_OF_TWO)
"""Names of the patterns of gem5's GarnetSyntheticTraffic."""


def destinations(pattern: str, src: Nodes, nodes: int, rng: np.random.Generator) -> Nodes:
    """Destination of each source node; uniform includes the node itself, as in gem5.

    Raises
    ------
    InputError
        The pattern does not exist, or not for this number of nodes.
    """
    if pattern == "uniform":
        return rng.integers(0, nodes, len(src))
    if pattern in _SQUARE:
        if math.isqrt(nodes) ** 2 != nodes:
            raise InputError(
                f"{pattern} needs a square number of nodes, not {nodes}", key="--pattern"
            )
        return _SQUARE[pattern](src, nodes)
    if pattern in _POWER_OF_TWO:
        if nodes & (nodes - 1):
            raise InputError(
                f"{pattern} needs a power of two of nodes, not {nodes}", key="--pattern"
            )
        return _POWER_OF_TWO[pattern](src, nodes)
    raise InputError(
        f"{pattern!r} is not allowed; allowed: {', '.join(PATTERNS)}{nearest(pattern, PATTERNS)}",
        key="--pattern",
    )


def make_traffic(
    network: GarnetNetwork,
    pattern: str,
    rate: float,
    cycles: int,
    packet_flits: int,
    seed: int,
) -> NDArray[Any]:
    """Packets of Bernoulli sources: TRANSFER, shape (n,), ascending start.

    Parameters
    ----------
    rate : float
        Offered load in flits per node and cycle; a node starts a packet in a cycle with
        probability rate / packet_flits.
    cycles : int
        Cycles in which packets start.

    Raises
    ------
    InputError
        The pattern does not fit the network, or there would be too many packets.
    """
    nodes = len(network.nodes)
    rng = np.random.default_rng(seed)
    probability = rate / packet_flits
    # Gaps of a Bernoulli process are geometric: no draw per idle cycle.
    expected = cycles * nodes * probability
    if expected > MAX_PACKETS:
        raise InputError(
            f"{cycles} cycles at rate {rate:g} are {expected:.0f} packets; at most {MAX_PACKETS} "
            "are possible",
            key="--cycles",
        )
    times: NDArray[np.int64] = np.zeros(0, np.int64)
    last = -1
    while last < cycles * nodes:
        count = int(expected + 6 * math.sqrt(expected) + 16)
        more = last + np.cumsum(rng.geometric(probability, count))
        times = np.concatenate([times, more])
        last = int(more[-1])
    times = times[times < cycles * nodes]
    rows = np.zeros(len(times), TRANSFER)
    cycle, src = times // nodes, times % nodes
    hz = network.clock_hz
    if 10**12 % hz == 0:
        rows["start_ps"] = cycle * (10**12 // hz)
    else:
        rows["start_ps"] = [-(-c * 10**12 // hz) for c in cycle.tolist()]
    rows["id"] = np.arange(len(times))
    rows["bytes"] = packet_flits * network.flit_bytes
    rows["src"] = src
    rows["dst"] = destinations(pattern, src, nodes, rng) + nodes
    return rows


@dataclass(frozen=True)
class LoadPoint:
    """One point of the latency-load curve.

    Attributes
    ----------
    rate, throughput : float
        Offered and accepted load, flits per node and cycle, after the warm-up.
    latency, network_latency, zero_load_latency : float
        Mean cycles of a packet, from its enqueueing or from its first VC, and if it were alone.
    hops : float
        Mean links between routers.
    saturated : bool
        Latency above three times the zero-load latency, or throughput below 95 % of the offer.
    stats : dict
        The backend's statistics.
    """

    rate: float
    throughput: float
    latency: float
    network_latency: float
    zero_load_latency: float
    hops: float
    saturated: bool
    stats: dict[str, Any]


def run_transfers(
    network: GarnetNetwork,
    rows: NDArray[Any],
    until_ps: int,
    *,
    record: bool = True,
    open_network: Callable[[NetworkConfig], Network] = open_garnet,
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Deliver transfers that depend on nothing; ``record`` keeps the table "flows".

    ``open_network`` is that of a backend which takes Garnet's options.

    Returns
    -------
    time_ps : ndarray of int64, shape (n,)
        Delivery by id; -1 where it lies after ``until_ps``.
    stats : dict
    """
    nodes = len(network.nodes)
    options = {**options_of(network), "record_transfers": "true" if record else "false"}
    config = NetworkConfig(2 * nodes, 2 * nodes, options=options)
    time_ps = np.full(len(rows), -1, np.int64)
    lookahead_ps = 1024 * 10**12 // network.clock_hz  # nothing reacts, so any would do
    with open_network(config) as net:
        net.submit(rows)
        left = len(rows)
        while left:
            reached = net.advance(until_ps, lookahead_ps)
            done = net.poll()
            time_ps[done["id"]] = done["time_ps"]
            left -= len(done)
            if not len(done) and reached.now_ps >= until_ps:
                break
        return time_ps, net.stats()


def run_traffic(
    network: GarnetNetwork,
    pattern: str,
    rate: float,
    *,
    cycles: int = 10_000,
    warmup: int = 1_000,
    packet_flits: int = 5,
    seed: int = 1,
) -> LoadPoint:
    """Offer a load and measure the packets that start between ``warmup`` and ``cycles``.

    The measured packets are followed to their delivery while traffic goes on behind them, for at
    most three times the measured time more: in saturation the latency has no limit.

    Raises
    ------
    InputError
        The pattern does not fit the network.
    SimulationError
        Deadlock.
    """
    hz = network.clock_hz
    network = replace(network, packet_bytes=(0,))
    rows = make_traffic(network, pattern, rate, 2 * cycles, packet_flits, seed)
    until_ps = 4 * cycles * 10**12 // hz
    time_ps, stats = run_transfers(network, rows, until_ps)
    start = rows["start_ps"] * (hz / 1e12)
    end = np.where(time_ps < 0, np.inf, time_ps * (hz / 1e12))
    measured = (start >= warmup) & (start < cycles)
    accepted = np.count_nonzero((end >= warmup) & (end < cycles))
    throughput = accepted * packet_flits / ((cycles - warmup) * len(network.nodes))
    latency = np.minimum(end, 4 * cycles)[measured] - start[measured]
    flows = stats["tables"].get("flows")
    if flows is None or not measured.any():
        raise InputError(
            f"no packet was delivered at rate {rate:g} in {cycles} cycles; raise one of them",
            key="--rate",
        )
    ids = np.array(flows["id"])
    kept = np.isin(ids, np.flatnonzero(measured))
    scale = float(hz / 1e12)

    def mean(name: str) -> float:
        column = np.array(flows[name], np.float64)[kept]
        return float(column.mean()) if column.size else math.nan

    mean_latency, ideal = float(latency.mean()), mean("ideal_fct_ps") * scale
    return LoadPoint(
        rate=float(rate),
        throughput=float(throughput),
        latency=mean_latency,
        network_latency=mean("network_ps") * scale,
        zero_load_latency=ideal,
        hops=mean("hops"),
        saturated=bool(mean_latency > 3 * ideal or throughput < 0.95 * rate),
        stats=stats,
    )


def sweep(network: GarnetNetwork, pattern: str, **options: Any) -> list[LoadPoint]:
    """The latency-load curve up to and including the first saturated point.

    Raises
    ------
    InputError
        The pattern does not fit the network.
    """
    points: list[LoadPoint] = []
    rate = 0.02
    while rate <= 1.0 and not (points and points[-1].saturated):
        points.append(run_traffic(network, pattern, round(rate, 6), **options))
        rate += 0.04
    return points
