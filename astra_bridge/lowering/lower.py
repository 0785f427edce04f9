# SPDX-License-Identifier: MIT
"""Lower inputs and traces to a Program.

Everything that can be known before the first event is decided here: durations, chunks, phases,
schedules, who belongs to which group.  Bad input is found here, with file, node and value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError, PluginError
from astra_bridge.inputs.common import MAX_TIME_NS
from astra_bridge.inputs.groups import GroupKey
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.lowering.builder import ProgramBuilder
from astra_bridge.lowering.choices import Choices, choices
from astra_bridge.lowering.collectives import Collectives
from astra_bridge.lowering.dependencies import dependencies
from astra_bridge.lowering.durations import compute, recorded_ps, remote_memory, replayed_ps, sum_ps
from astra_bridge.lowering.p2p import messages
from astra_bridge.lowering.phases import ChosenAlgorithm
from astra_bridge.lowering.view import FAST_DELAY_NS, Remarks, Setting, TraceView
from astra_bridge.program import MESSAGE, NODE, BusModel, Op, Program, Unit, machine, one_job, tasks
from astra_bridge.records import Record
from astra_bridge.semantics import Effects, Semantics
from astra_bridge.trace import TraceColumns, Workload
from astra_bridge.units import PS_PER_NS, checked_int64

__all__ = ["Lowered", "lower"]

_RENDEZVOUS_BYTES = 8192
_UNLIMITED = 2**31 - 1

_UNIT = np.array(
    [
        Unit.NONE,  # INVALID
        Unit.NONE,  # METADATA
        Unit.COMM,  # MEM_LOAD
        Unit.COMM,  # MEM_STORE
        Unit.COMPUTE,  # COMP
        Unit.COMM,  # COMM_SEND
        Unit.NONE,  # COMM_RECV
        Unit.COMM,  # COMM_COLL
    ],
    np.uint8,
)
"""What a node occupies, by its type, unless it runs on the CPU."""


class Lowered(Record, frozen=True, eq=False):
    """A Program and the way back from its nodes to the trace.

    Attributes
    ----------
    program : Program
    order : tuple of ndarray of int64
        Per trace: node i of its template is node ``order[i]`` of the trace file.
    traces : tuple of TraceColumns
        Several may have become one template.
    trace_of_task : ndarray of int64, shape (tasks,)
        Index into ``traces``.
    warnings : tuple of str
    effects : Effects
        What the quirks of the semantics changed.
    algorithms : tuple of ChosenAlgorithm
        What algorithms that choose by themselves have chosen.
    """

    program: Program
    order: tuple[NDArray[np.int64], ...]
    traces: tuple[TraceColumns, ...]
    trace_of_task: NDArray[np.int64]
    warnings: tuple[str, ...]
    effects: Effects
    algorithms: tuple[ChosenAlgorithm, ...] = ()


def lower(
    workload: Workload,
    system: SystemConfig,
    memory: RemoteMemoryConfig,
    dims: tuple[int, ...],
    comm_groups: Mapping[GroupKey, tuple[int, ...]],
    *,
    semantics: Semantics | str = "astra-sim",
    dim_bandwidth: tuple[float, ...] | None = None,
    queues_per_dim: int = 1,
    injection_scale: float = 1.0,
    rendezvous: bool = False,
    receives_at_once: bool = False,
    link_Bps: tuple[float, ...] = (),
    reduces: tuple[bool, ...] = (),
    chosen: Choices | None = None,
) -> Lowered:
    """Lower a workload on a system to a Program.

    Parameters
    ----------
    dims
        Logical dimensions; their product is the number of ranks.
    comm_groups
        Group id -> ranks, in order of position.
    semantics
        Which of ASTRA-sim's quirks to keep.
    dim_bandwidth
        Bandwidth per dimension in any unit, for greedy scheduling; None takes them as equal.
    queues_per_dim, injection_scale, rendezvous
        ASTRA-sim's command-line flags.
    receives_at_once
        As in :class:`~astra_bridge.program.Program`.
    link_Bps, reduces
        Bandwidth of a link of each dimension, and whether the network can reduce in it; empty
        where that is not known, and where it cannot.
    chosen
        What the names in the inputs stand for, where that is known already.

    Raises
    ------
    InputError
        A node cannot be run on this system.
    StalledError
        Nodes of a trace wait for one another in a circle.
    """
    ranks = math.prod(dims)
    if workload.ranks != ranks:
        raise InputError(
            f"the workload has {workload.ranks} ranks, the network {ranks}", key="workload"
        )
    semantics = Semantics.of(semantics)
    setting = Setting(
        system,
        memory,
        chosen or choices(system, memory, semantics),
        dims,
        dim_bandwidth or (1.0,) * len(dims),
        comm_groups,
        semantics,
        _endpoint_delay_ns(system, injection_scale),
        Effects(),
        link_Bps,
        reduces,
    )
    builder = ProgramBuilder()
    collectives = Collectives(setting, builder)
    orders, template_of_trace = [], np.zeros(len(workload.columns), np.int32)
    remarks = Remarks()
    for index, view in enumerate(_views(workload)):
        template_of_trace[index] = _template(view, setting, builder, collectives)
        orders.append(view.order)
        remarks.add(view)
    # First what completes the rows of the builder.
    more = collectives.finished()
    program = Program(
        tasks=tasks(template_of_trace[workload.rank_to_columns]),
        jobs=one_job(ranks),
        machines=_machine(setting, queues_per_dim),
        machine_of_rank=np.zeros(ranks, np.int32),
        memory_server=_memory_servers(setting),
        levels=len(dims),
        queues_per_level=queues_per_dim,
        rendezvous_bytes=_RENDEZVOUS_BYTES if rendezvous else 0,
        receives_at_once=receives_at_once,
        **more,
        **builder.arrays(),
    )
    return Lowered(
        program,
        tuple(orders),
        workload.columns,
        workload.rank_to_columns.astype(np.int64),
        (*workload.warnings, *remarks.warnings(), *collectives.warnings),
        setting.effects,
        collectives.algorithms(),
    )


def _views(workload: Workload) -> Iterator[TraceView]:
    # Ranks sorted by their trace: thousands of traces must not be searched one by one.
    ranks = np.argsort(workload.rank_to_columns, kind="stable")
    counts = np.bincount(workload.rank_to_columns, minlength=len(workload.columns))
    ends = np.cumsum(counts)
    for trace, first, last in zip(workload.columns, ends - counts, ends, strict=True):
        yield TraceView(trace, ranks[first:last])


def _template(
    view: TraceView, setting: Setting, builder: ProgramBuilder, collectives: Collectives
) -> int:
    """Lower a trace; return its template."""
    nodes = np.zeros(len(view.order), NODE)
    nodes["unit"] = _UNIT[view.types]
    nodes["unit"][view.cpu] = Unit.CPU
    duration_ps = recorded_ps(view)
    sent, relative, modelled = np.zeros(0, MESSAGE), True, None
    if setting.system.enabled("replay-only", setting.semantics):
        duration_ps = replayed_ps(view)
        nodes["op"] = Op.DELAY
        nodes["duration_ps"] = duration_ps
        compute_ps = sum_ps(view, duration_ps[~view.cpu])
    else:
        compute_ps, modelled = compute(view, nodes, duration_ps, setting)
        remote_memory(view, nodes, setting)
        sent, relative = messages(view, nodes, setting.ranks, collectives.groups)
        collectives.lower(view, nodes, duration_ps)
    alone = "one-communication-at-a-time" in setting.semantics
    in_turn = alone and view.trace.in_turn
    children = dependencies(view, nodes, setting, in_turn=in_turn, modelled=modelled)
    return builder.template(nodes, children, sent, compute_ps, relative)


def _endpoint_delay_ns(system: SystemConfig, injection_scale: float) -> int:
    if system.present is not None and "endpoint-delay" not in system.present:
        return system.endpoint_delay_ns
    return checked_int64(
        system.endpoint_delay_ns * injection_scale,
        "endpoint delay times injection scale [ns]",
        high=MAX_TIME_NS,
        round_mode="floor",
        file=system.source,
        key="endpoint-delay",
    )


def _machine(setting: Setting, queues_per_dim: int) -> Any:
    """The only row of MACHINE: all ranks are alike."""
    system = setting.system
    alone = "one-communication-at-a-time" in setting.semantics
    return machine(
        streams_per_queue=-(-system.active_chunks_per_dimension // queues_per_dim),
        policy=setting.choices.policy.policy,
        unit_capacity=[1, 1, 1 if alone else _UNLIMITED, _UNLIMITED],
        endpoint_delay_ps=setting.endpoint_delay_ns * PS_PER_NS,
        fast_delay_ps=FAST_DELAY_NS * PS_PER_NS,
        bus_model=BusModel.LOGGP if system.model_shared_bus else BusModel.FIXED,
        loggp=(
            int(np.float32(system.L_ns)),
            int(np.float32(system.o_ns)),
            int(np.float32(system.g_ns)),
            # ASTRA-sim keeps G in single precision.
            float(np.float32(system.G_ns_per_byte)),
            system.local_reduction_delay_ns,
        ),
    )


def _memory_servers(setting: Setting) -> NDArray[np.int32]:
    model, ranks = setting.choices.memory, setting.ranks
    servers = np.asarray(model.servers(setting.memory, ranks))
    if servers.shape != (ranks,) or servers.dtype.kind not in "iu":
        raise PluginError(
            f"memory model {model.name!r}: gives {servers.dtype} of shape {servers.shape} as "
            f"servers; allowed: a whole number for each of {ranks} ranks"
        )
    return servers.astype(np.int32)
