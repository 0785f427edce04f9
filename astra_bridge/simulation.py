# SPDX-License-Identifier: MIT
"""The public API: from inputs to a Result."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.arguments import (
    Check,
    choice,
    flag,
    function,
    instance,
    integer,
    mapping_of,
    number,
    optional,
    path,
    text,
)
from astra_bridge.engine import ENGINES, EngineName, Outcome, ProgressCallback
from astra_bridge.errors import BackendUnavailable, InputError, SimulationError, StalledError
from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.inputs.memory import RemoteMemoryConfig, read_remote_memory
from astra_bridge.inputs.network import NetworkDims, NetworkLinks, read_network
from astra_bridge.inputs.system import SystemConfig, read_system
from astra_bridge.isolation import run_here, run_isolated
from astra_bridge.network.registry import backend as find_backend
from astra_bridge.network.spec import NetworkRequest, Prepared
from astra_bridge.results import Result
from astra_bridge.semantics import SEMANTICS, split_semantics
from astra_bridge.stall import describe_stall
from astra_bridge.supervision import NO_PROGRESS_TIMEOUT_S
from astra_bridge.system import Choices, Lowered, choices, lower
from astra_bridge.text import one_line
from astra_bridge.trace import Workload, read_workload
from astra_bridge.units import PS_PER_NS

if TYPE_CHECKING:
    from astra_bridge.workload import GeneratedWorkload

__all__ = ["simulate"]

_MOST_RECORDED_NODES = 50_000_000
"""Above so many nodes of all ranks together, start and end of each node are not kept."""


def simulate(
    workload: str | Path | Workload | GeneratedWorkload,
    system: str | Path | Mapping[str, Any] | SystemConfig,
    network: str | Path | Mapping[str, Any] | NetworkDims | NetworkLinks,
    remote_memory: str | Path | Mapping[str, Any] | RemoteMemoryConfig | None = None,
    comm_groups: str | Path | Mapping[Any, Any] | None = None,
    *,
    backend: str = "analytical-aware",
    engine: EngineName = "auto",
    semantics: str = "astra-sim",
    num_queues_per_dim: int = 1,
    injection_scale: float = 1.0,
    comm_scale: float = 1.0,
    compute_scale: float = 1.0,
    rendezvous_protocol: bool = False,
    logical_topology: str | Path | None = None,
    physical_topology: str | Path | None = None,
    network_options: Mapping[str, str] | None = None,
    record_nodes: bool | None = None,
    progress: ProgressCallback | None = None,
    in_process: bool = False,
    no_progress_timeout_s: float = NO_PROGRESS_TIMEOUT_S,
) -> Result:
    """Simulate a workload.

    Parameters
    ----------
    workload
        Prefix of the traces (``{prefix}.{rank}.et``), or an already read or generated workload.
    system, network, remote_memory, comm_groups
        Paths, parsed contents, or already read configurations.  No remote memory is the same as
        ``NO_MEMORY_EXPANSION``.
    backend
        Name of a network simulator, or path of a shared library.
    engine
        "native", "python", or "auto".
    semantics
        "astra-sim" reproduces ASTRA-sim's numbers, quirks included; "corrected" fixes the quirks
        that docs/semantics.md lists.  ",+NAME" adds one of ``astra_bridge.semantics.QUIRKS``.
    num_queues_per_dim, injection_scale, rendezvous_protocol
        ASTRA-sim's flags of these names.
    comm_scale, compute_scale
        Accepted and without effect, as in ASTRA-sim.
    logical_topology, physical_topology
        Further files of packet-level backends.
    network_options
        The backend's own options.
    record_nodes
        Whether to keep start and end of every node; None keeps them up to 50 million nodes.
    progress
        Called about four times a second with a ``Progress``.
    in_process
        Run the backend in this process even where it is not known to be safe (a library that is
        not part of astra_bridge, ns-3): a crash or an exit of it then ends the caller.
    no_progress_timeout_s
        How long a backend may go without progress before it is ended [s]; 0 is without limit.
        Progress is that simulated time, events or completed nodes change, or that another call
        begins.  In this process, a backend can only be interrupted.

    Raises
    ------
    InputError
        Bad input; says file and key, or argument, value and what is allowed.
    StalledError
        The simulation cannot go on; says which ranks and nodes wait for what.
    NetworkError
        The network simulator failed.
    """
    began = time.perf_counter()
    given = locals()
    checked = {name: check(given[name], name) for name, check in _ARGUMENTS.items()}
    backend, num_queues_per_dim = checked["backend"], checked["num_queues_per_dim"]
    injection_scale, network = checked["injection_scale"], checked["network"]
    base_semantics, quirks = split_semantics(checked["semantics"])
    spec = find_backend(backend)
    _tell_of_a_bare_tree(engine)
    request = NetworkRequest(
        network=network,
        logical_topology=checked["logical_topology"],
        physical_topology=checked["physical_topology"],
        options=checked["network_options"] or {},
        semantics=base_semantics,
    )
    # Bad input is reported even where the backend cannot run here.
    prepared = spec.prepare(request)
    missing = spec.unavailable()
    if missing is not None:
        raise BackendUnavailable(f"backend {backend!r} cannot run here: {missing}")
    system = read_system(system)
    memory = read_remote_memory(
        {"memory-type": "NO_MEMORY_EXPANSION"} if remote_memory is None else remote_memory
    )
    chosen = choices(system, memory, base_semantics)
    ranks = math.prod(prepared.dims)
    given_workload = checked["workload"]
    workload = (
        given_workload
        if isinstance(given_workload, Workload)
        else read_workload(given_workload, ranks)
    )
    dim_bandwidth, unknown_bandwidth = _dim_bandwidth(chosen, network, prepared)
    lowered = lower(
        workload,
        system,
        memory,
        prepared.dims,
        read_comm_groups(comm_groups, ranks),
        semantics=base_semantics,
        quirks=quirks,
        dim_bandwidth=dim_bandwidth,
        queues_per_dim=num_queues_per_dim,
        injection_scale=injection_scale,
        rendezvous=rendezvous_protocol,
        receives_at_once=prepared.receives_at_once and base_semantics == "astra-sim",
        chosen=chosen,
    )
    program = lowered.program
    if record_nodes is None:
        record_nodes = int(program.task_nodes.sum()) <= _MOST_RECORDED_NODES
    spec.make_ready()
    run = run_isolated if spec.isolate and not in_process else run_here
    try:
        outcome, engine_name, stats, tables = run(
            backend,
            prepared.config,
            program,
            engine,
            record_nodes,
            progress,
            checked["no_progress_timeout_s"],
        )
    except SimulationError as error:
        reached: Outcome | None = error.outcome
        if reached is not None:
            stall = describe_stall(lowered, reached, network_failed=True)
            raise StalledError(f"{error}\n{stall}") from error
        raise
    if (outcome.finish_ps < 0).any():
        raise StalledError(describe_stall(lowered, outcome))
    start_ps, end_ps = _in_file_order(lowered, outcome)
    compute_ps = program.templates["compute_ps"][program.tasks["template_index"]]
    return Result(
        backend=backend,
        engine=engine_name,
        semantics=base_semantics,
        finish_ns=outcome.finish_ps // PS_PER_NS,
        exposed_comm_ns=(outcome.finish_ps - compute_ps) // PS_PER_NS,
        wall_s=time.perf_counter() - began,
        events=outcome.events,
        workload=workload,
        system=system,
        node_offset=outcome.task_node_start,
        node_start_ps=start_ps,
        node_end_ps=end_ps,
        tables=tables,
        network=stats,
        warnings=_unique(
            *system.warnings,
            *memory.warnings,
            *chosen.warnings,
            *prepared.warnings,
            *unknown_bandwidth,
            *lowered.warnings,
            *_ignored(checked["comm_scale"], checked["compute_scale"]),
            *_relieved(outcome),
            *_unreceived(outcome),
        ),
    )


@cache
def _tell_of_a_bare_tree(engine: EngineName) -> None:
    """One line, once, where all is slow because this folder hides the built package."""
    package = Path(__file__).parent
    bare = (package.parent / "setup.py").exists() and not any(package.glob("_native/_engine.*"))
    if bare and engine != "python" and sys.stderr is not None:
        sys.stderr.write(
            f"note: {package.parent} is a source tree without its native parts, so everything runs "
            f"in Python, slower; build them: {sys.executable} -m pip install -e {package.parent}\n"
        )


def _workload(value: Any, name: str) -> Any:
    """A workload, or its path."""
    if isinstance(value, (str, PathLike)):
        return path(value, name)
    # Only who generates a workload pays for the import.
    from astra_bridge.workload.builder import GeneratedWorkload as Generated

    if isinstance(value, Generated):
        return value.workload()
    return instance(Workload)(value, name)


def _network(value: Any, name: str) -> Any:
    """A network, its content, or its path; which of them it may be is up to the backend."""
    if isinstance(value, (Mapping, NetworkDims, NetworkLinks)):
        return value
    if is_dataclass(value) and type(value).__module__.startswith("astra_bridge.inputs."):
        return value
    return path(value, name)


def _name_or_path(value: Any, name: str) -> str:
    return value if isinstance(value, str) else str(path(value, name))


_ARGUMENTS: dict[str, Check] = {
    "workload": _workload,
    "network": _network,
    "backend": _name_or_path,
    "engine": choice(*ENGINES),
    "semantics": choice(*SEMANTICS),
    "num_queues_per_dim": integer(1, 4096),
    "injection_scale": number(0, 1e9),
    "comm_scale": number(0, 1e12),
    "compute_scale": number(0, 1e12),
    "rendezvous_protocol": flag,
    "logical_topology": optional(path),
    "physical_topology": optional(path),
    "network_options": optional(mapping_of(text, text)),
    "record_nodes": optional(flag),
    "progress": optional(function),
    "in_process": flag,
    "no_progress_timeout_s": number(0, 1e9),
}
"""What ``simulate`` takes; the readers check the rest."""


def _dim_bandwidth(
    chosen: Choices, network: Any, prepared: Prepared
) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Bandwidth per dimension, where it is asked for, and what to say where it is unknown."""
    if not chosen.order.bandwidth or len(prepared.dims) == 1:
        return None, ()
    try:
        read = read_network(network)
    except InputError:
        read = None  # another kind of network file
    if isinstance(read, NetworkDims) and read.npus_count == prepared.dims:
        return read.bandwidth_GiBps, ()
    return None, (
        f"inter-dimension-scheduling: {chosen.order.name} takes all dimensions as equal, because "
        "the network does not say the bandwidth of each of the logical dimensions "
        f"{prepared.dims}",
    )


def _in_file_order(
    lowered: Lowered, outcome: Outcome
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Node times from the order of the template (ascending id) to that of the trace file."""
    sorted_already = [bool((np.diff(order) == 1).all()) for order in lowered.order]
    if not len(outcome.node_start_ps) or all(sorted_already):
        return outcome.node_start_ps, outcome.node_end_ps
    start, end = outcome.node_start_ps.copy(), outcome.node_end_ps.copy()
    for rank, template in enumerate(lowered.program.tasks["template_index"].tolist()):
        if not sorted_already[template]:
            first, last = outcome.task_node_start[rank : rank + 2]
            start[first + lowered.order[template]] = outcome.node_start_ps[first:last]
            end[first + lowered.order[template]] = outcome.node_end_ps[first:last]
    return start, end


def _unique(*sentences: str) -> tuple[str, ...]:
    return tuple(one_line(sentence) for sentence in dict.fromkeys(sentences))


def _ignored(comm_scale: float, compute_scale: float) -> list[str]:
    return [
        f"--{name}: {value:g} has no effect, as in ASTRA-sim"
        for name, value in (("comm-scale", comm_scale), ("compute-scale", compute_scale))
        if value != 1.0
    ]


def _relieved(outcome: Outcome) -> list[str]:
    if not outcome.relieved:
        return []
    return [
        f"{outcome.relieved} chunk(s) were started beyond active-chunks-per-dimension, because "
        "chunks waited for one another in the queues of different ranks; a higher value avoids that"
    ]


def _unreceived(outcome: Outcome) -> list[str]:
    if not len(outcome.waits):
        return []
    first = outcome.waits[0]
    return [
        f"{len(outcome.waits)} message(s) were sent but never received; the first has "
        f"{first['bytes']} bytes from rank {first['rank']} to rank {first['peer']}"
    ]
