# SPDX-License-Identifier: MIT
"""Small inputs for tests: a system, a network, a workload, each in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from astra_bridge import simulate
from astra_bridge.results import Result
from astra_bridge.trace import CommType, Workload
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

MIB = 2**20


def system(algorithm: str | Sequence[str] = "ring", **changes: Any) -> dict[str, Any]:
    """ASTRA-sim's usual system: 4 chunks, one at a time, 10 ns per message, 50 GB/s memory.

    Parameters
    ----------
    algorithm
        For all kinds of collectives; one per dimension, or one name for the only dimension.
    **changes
        Keys of the file, with _ for -; None takes a key away.
    """
    names = [algorithm] if isinstance(algorithm, str) else list(algorithm)
    result: dict[str, Any] = {
        "scheduling-policy": "LIFO",
        "endpoint-delay": 10,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 4,
        "local-mem-bw": 50,
        "collective-optimization": "localBWAware",
    }
    for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all"):
        result[f"{kind}-implementation"] = names
    result |= {key.replace("_", "-"): value for key, value in changes.items()}
    return {key: value for key, value in result.items() if value is not None}


def network(
    topology: str = "Ring",
    npus: int | Sequence[int] = 8,
    bandwidth: float | Sequence[float] = 50,
    latency: float | Sequence[float] = 500,
) -> dict[str, Any]:
    """Dimensions in one line: network("Ring Switch", [2, 4], [50, 25], [500, 700])."""

    def listed(value: Any) -> list[Any]:
        return list(value) if isinstance(value, Sequence) else [value]

    return {
        "topology": topology.split(),
        "npus_count": listed(npus),
        "bandwidth": listed(bandwidth),
        "latency": listed(latency),
    }


def same_on_all(ranks: int, fill: Callable[[TraceBuilder], object]) -> Workload:
    """A workload whose ranks run the same trace."""
    trace = TraceBuilder()
    fill(trace)
    return GeneratedWorkload([trace] * ranks).workload()


def per_rank(ranks: int, fill: Callable[[TraceBuilder, int], object]) -> Workload:
    """A workload with a trace of its own for each rank."""
    traces = [TraceBuilder() for _ in range(ranks)]
    for rank, trace in enumerate(traces):
        fill(trace, rank)
    return GeneratedWorkload(traces).workload()


def collective_ns(
    kind: CommType,
    size_bytes: int,
    system: dict[str, Any],
    network: dict[str, Any],
    *,
    backend: str = "analytical-unaware",
    involved_dim: Sequence[bool] | None = None,
    **arguments: Any,
) -> list[int]:
    """When each rank has finished one collective of all."""
    ranks = 1
    for count in network["npus_count"]:
        ranks *= count
    workload = same_on_all(ranks, lambda t: t.coll(kind, size_bytes, involved_dim=involved_dim))
    return run(workload, system, network, backend=backend, **arguments).finish_ns.tolist()


def run(
    workload: Workload,
    system: dict[str, Any],
    network: dict[str, Any],
    *,
    backend: str = "analytical-unaware",
    **arguments: Any,
) -> Result:
    """As simulate(), on the congestion-unaware network by default."""
    return simulate(workload, system, network, backend=backend, **arguments)
