# SPDX-License-Identifier: MIT
"""Lower inputs and traces to a Program.

Everything that can be known before the first event is decided here: durations, chunks, phases,
schedules, who belongs to which group.  Bad input is found here, with file, node and value.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.collectives import IMPLEMENTED, Kind
from astra_bridge.collectives.issue_order import HashOrder, hash_order
from astra_bridge.compute import ComputeNodes
from astra_bridge.errors import InputError, PluginError, SimulationError, StalledError
from astra_bridge.inputs.common import MAX_TIME_NS
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.program import (
    GRAPH,
    GRAPH_NODE,
    MESSAGE,
    NODE,
    TEMPLATE,
    BusModel,
    GraphOp,
    Op,
    Program,
    Unit,
    machine,
    one_job,
    tasks,
)
from astra_bridge.registry import Spec
from astra_bridge.semantics import QUIRKS, Semantics
from astra_bridge.system.choices import Choices, choices
from astra_bridge.system.plans import WORLD, PlanBuilder
from astra_bridge.system.policies import Queued
from astra_bridge.trace import (
    MISSING,
    NodeType,
    ProcessGroup,
    TraceColumns,
    Workload,
    read_trace,
)
from astra_bridge.units import INT64_MAX, PS_PER_NS, PS_PER_US, checked_int64

__all__ = ["Lowered", "lower"]

_TAGS = 500_000_000
"""ASTRA-sim folds the tags of send and receive nodes into this range."""

_MOST_PS = 2**62
"""Longest single duration, 53 days: two of them can be added."""

_RENDEZVOUS_BYTES = 8192
_FAST_DELAY_NS = 10
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

_NODE_NAMES = {
    NodeType.COMM_SEND: "COMM_SEND",
    NodeType.COMM_RECV: "COMM_RECV",
    NodeType.COMM_COLL: "COMM_COLL",
    NodeType.COMP: "COMP",
    NodeType.MEM_LOAD: "MEM_LOAD",
    NodeType.MEM_STORE: "MEM_STORE",
}


@dataclass(frozen=True, eq=False)
class Lowered:
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
    """

    program: Program
    order: tuple[NDArray[np.int64], ...]
    traces: tuple[TraceColumns, ...]
    trace_of_task: NDArray[np.int64]
    warnings: tuple[str, ...]


def lower(
    workload: Workload,
    system: SystemConfig,
    memory: RemoteMemoryConfig,
    dims: tuple[int, ...],
    comm_groups: Mapping[int, tuple[int, ...]],
    *,
    semantics: Semantics = "astra-sim",
    quirks: frozenset[str] = frozenset(),
    dim_bandwidth: tuple[float, ...] | None = None,
    queues_per_dim: int = 1,
    injection_scale: float = 1.0,
    rendezvous: bool = False,
    receives_at_once: bool = False,
    chosen: Choices | None = None,
) -> Lowered:
    """Lower a workload on a system to a Program.

    Parameters
    ----------
    dims
        Logical dimensions; their product is the number of ranks.
    comm_groups
        Group id -> ranks, in order of position.
    quirks
        Of :data:`astra_bridge.semantics.QUIRKS`, those that are added to the semantics.
    dim_bandwidth
        Bandwidth per dimension in any unit, for greedy scheduling; None takes them as equal.
    queues_per_dim, injection_scale, rendezvous
        ASTRA-sim's command-line flags.
    receives_at_once
        As in :class:`~astra_bridge.program.Program`.
    chosen
        What the names in the inputs stand for, where that is known already.

    Raises
    ------
    InputError
        A node cannot be run on this system.
    StalledError
        Nodes of a trace wait for one another in a circle.
    """
    return _Lowering(
        workload,
        system,
        memory,
        dims,
        comm_groups,
        semantics,
        quirks,
        dim_bandwidth or (1.0,) * len(dims),
        chosen or choices(system, memory, semantics),
    ).lower(queues_per_dim, injection_scale, rendezvous, receives_at_once)


class _Lowering:
    def __init__(
        self,
        workload: Workload,
        system: SystemConfig,
        memory: RemoteMemoryConfig,
        dims: tuple[int, ...],
        comm_groups: Mapping[int, tuple[int, ...]],
        semantics: Semantics,
        quirks: frozenset[str],
        dim_bandwidth: tuple[float, ...],
        chosen: Choices,
    ) -> None:
        self.workload, self.system, self.memory = workload, system, memory
        self.ranks = math.prod(dims)
        self.comm_groups = comm_groups
        self.semantics = semantics
        self.corrected = semantics == "corrected"
        self.quirks = quirks
        self.replayed_broadcasts = 0
        self.choices = chosen
        self.plans = PlanBuilder(system, chosen, dims, self.corrected, dim_bandwidth)
        self.warnings: list[str] = []
        # Ranks sorted by their trace: thousands of traces must not be searched one by one.
        self.trace_index = {id(trace): index for index, trace in enumerate(workload.columns)}
        self.ranks_by_trace = np.argsort(workload.rank_to_columns, kind="stable")
        counts = np.bincount(workload.rank_to_columns, minlength=len(workload.columns))
        ends = np.cumsum(counts)
        self.rank_bounds = list(zip((ends - counts).tolist(), ends.tolist(), strict=True))
        self.replay = system.enabled("replay-only", semantics)
        self.templates: list[tuple[int, int, int, bool]] = []
        self.template_index: dict[bytes, int] = {}
        self.nodes: list[Any] = []
        self.children: list[Any] = []
        self.messages: list[Any] = []
        self.node_total = self.child_total = self.message_total = 0
        self.collective_index: dict[Any, int] = {}
        self.graphs: list[tuple[int, ...]] = []
        self.graph_roots: list[int] = []
        self.graph_nodes: list[Any] = []
        self.graph_children: list[Any] = []
        self.graph_of_position: list[int] = []
        self.graph_total = self.graph_child_total = 0
        self.graph_index: dict[Any, int] = {}

    def lower(
        self,
        queues_per_dim: int,
        injection_scale: float,
        rendezvous: bool,
        receives_at_once: bool,
    ) -> Lowered:
        system, ranks = self.system, self.ranks
        if self.workload.ranks != ranks:
            raise InputError(
                f"the workload has {self.workload.ranks} ranks, the network {ranks}", key="workload"
            )
        orders, template_of_trace = [], np.zeros(len(self.workload.columns), np.int32)
        for index, trace in enumerate(self.workload.columns):
            order, template_of_trace[index] = self._template(trace)
            orders.append(order)
        trace_of_rank = self.workload.rank_to_columns
        endpoint_delay_ns = system.endpoint_delay_ns
        if system.present is None or "endpoint-delay" in system.present:
            endpoint_delay_ns = checked_int64(
                endpoint_delay_ns * injection_scale,
                "endpoint delay times injection scale [ns]",
                high=MAX_TIME_NS,
                round_mode="floor",
                file=system.source,
                key="endpoint-delay",
            )
        capacity = [1, 1, _UNLIMITED if self.corrected else 1, _UNLIMITED]
        program = Program(
            tasks=tasks(template_of_trace[trace_of_rank]),
            jobs=one_job(ranks),
            machines=machine(
                streams_per_queue=-(-system.active_chunks_per_dimension // queues_per_dim),
                policy=self.choices.policy.policy,
                unit_capacity=capacity,
                endpoint_delay_ps=endpoint_delay_ns * PS_PER_NS,
                fast_delay_ps=_FAST_DELAY_NS * PS_PER_NS,
                bus_model=BusModel.LOGGP if system.model_shared_bus else BusModel.FIXED,
                loggp=(
                    int(np.float32(system.L_ns)),
                    int(np.float32(system.o_ns)),
                    int(np.float32(system.g_ns)),
                    # ASTRA-sim keeps G in single precision.
                    float(np.float32(system.G_ns_per_byte)),
                    system.local_reduction_delay_ns,
                ),
            ),
            machine_of_rank=np.zeros(ranks, np.int32),
            memory_server=self._memory_servers(),
            templates=np.array(self.templates, TEMPLATE),
            nodes=np.concatenate([np.zeros(0, NODE), *self.nodes]),
            children=np.concatenate([np.zeros(0, np.int32), *self.children]),
            messages=np.concatenate([np.zeros(0, MESSAGE), *self.messages]),
            graphs=np.array(self.graphs, GRAPH),
            graph_nodes=np.concatenate([np.zeros(0, GRAPH_NODE), *self.graph_nodes]),
            graph_children=np.concatenate([np.zeros(0, np.int32), *self.graph_children]),
            graph_roots=np.array(self.graph_roots, np.int32),
            graph_of_position=np.array(self.graph_of_position, np.int32),
            levels=len(self.plans.dims),
            queues_per_level=queues_per_dim,
            rendezvous_bytes=_RENDEZVOUS_BYTES if rendezvous else 0,
            receives_at_once=receives_at_once,
            **self.plans.arrays(),
        )
        if self.replayed_broadcasts:
            what = QUIRKS["broadcast-is-replayed"]
            self.warnings.append(f"{self.replayed_broadcasts} broadcast(s) were replayed: {what}")
        return Lowered(
            program,
            tuple(orders),
            self.workload.columns,
            trace_of_rank.astype(np.int64),
            tuple(self.warnings),
        )

    def _memory_servers(self) -> NDArray[np.int32]:
        model = self.choices.memory
        servers = np.asarray(model.servers(self.memory, self.ranks))
        if servers.shape != (self.ranks,) or servers.dtype.kind not in "iu":
            raise PluginError(
                f"memory model {model.name!r}: gives {servers.dtype} of shape {servers.shape} as "
                f"servers; allowed: a whole number for each of {self.ranks} ranks"
            )
        return servers.astype(np.int32)

    # One trace

    def _template(self, trace: TraceColumns) -> tuple[NDArray[np.int64], int]:
        """Lower the nodes of a trace in ascending id; return that order and the template."""
        order = np.argsort(trace.node_id, kind="stable")
        count = len(order)
        nodes = np.zeros(count, NODE)
        types = trace.type[order]
        cpu = trace.is_cpu_op[order]
        nodes["unit"] = _UNIT[types]
        nodes["unit"][cpu] = Unit.CPU
        duration_ps = _replay_ps(trace, order)
        compute_ps = 0
        messages, relative = np.zeros(0, MESSAGE), True
        if self.replay:
            nodes["op"] = Op.DELAY
            nodes["duration_ps"] = duration_ps
            compute_ps = _sum_ps(trace, duration_ps[~cpu])
        else:
            compute_ps = self._compute(trace, order, nodes, types, cpu, duration_ps)
            self._remote_memory(trace, order, nodes, types)
            messages, relative = self._messages(trace, order, nodes, types)
            self._collectives(trace, order, nodes, types, duration_ps)
        children = _children(trace, order, nodes, 0)
        return order, self._shared(nodes, children, messages, compute_ps, relative)

    def _shared(
        self, nodes: Any, children: Any, messages: Any, compute_ps: int, relative: bool
    ) -> int:
        """The template of these nodes, whose children and messages are counted from 0.

        Ranks that do the same have one, whatever their files say: peers are distances, and groups
        are those of the own rank.
        """
        key = hashlib.sha256(f"{len(nodes)} {len(children)} {compute_ps} {relative}".encode())
        for part in (nodes, children, messages):
            key.update(part.tobytes())
        found = self.template_index.setdefault(key.digest(), len(self.templates))
        if found < len(self.templates):
            return found
        nodes["child_start"] += self.child_total
        nodes["arg"][(nodes["op"] == Op.SEND) | (nodes["op"] == Op.RECV)] += self.message_total
        self.templates.append((self.node_total, len(nodes), compute_ps, relative))
        self.nodes.append(nodes)
        self.children.append(children)
        self.messages.append(messages)
        self.node_total += len(nodes)
        self.child_total += len(children)
        self.message_total += len(messages)
        return found

    def _ranks_of(self, trace: TraceColumns) -> NDArray[np.int64]:
        """The ranks that run a trace."""
        first, last = self.rank_bounds[self.trace_index[id(trace)]]
        return self.ranks_by_trace[first:last]

    def _at(self, trace: TraceColumns, position: int, attribute: str = "") -> str:
        kind = _NODE_NAMES.get(NodeType(int(trace.type[position])), "")
        return f"node {trace.node_id[position]} {kind} {attribute}".strip()

    def _required(
        self,
        trace: TraceColumns,
        order: NDArray[np.int64],
        which: NDArray[np.bool_],
        column: str,
        low: int,
        high: int,
    ) -> NDArray[np.int64]:
        """Values of an attribute that these nodes must have, within [low, high]."""
        values: NDArray[np.int64] = getattr(trace, column)[order[which]]
        bad = (values < low) | (values > high)
        if bad.any():
            at = int(np.argmax(bad))
            position = int(order[which][at])
            value = int(values[at])
            found = "is missing" if value == MISSING else f"is {value}"
            raise InputError(
                f"{found}; allowed: {low} to {high}",
                file=trace.file,
                key=self._at(trace, position, column),
            )
        return values

    def _compute(
        self,
        trace: TraceColumns,
        order: NDArray[np.int64],
        nodes: Any,
        types: NDArray[np.int32],
        cpu: NDArray[np.bool_],
        duration_ps: NDArray[np.int64],
    ) -> int:
        """COMP nodes; returns the time that does not count as exposed communication."""
        comp = types == NodeType.COMP
        nodes["op"][comp] = Op.DELAY
        nodes["duration_ps"][comp] = duration_ps[comp]
        modelled = comp & ~cpu
        model = self.choices.compute
        if modelled.any():
            for column in model.needs:
                self._required(trace, order, modelled, column, 0, 2**62)
            positions = order[modelled]
            asked = ComputeNodes(trace, positions, duration_ps[modelled])
            nodes["duration_ps"][modelled] = self._checked_ps(
                model.duration_ps(asked, self.system), model, trace, positions
            )
        return _sum_ps(trace, nodes["duration_ps"][modelled])

    def _checked_ps(
        self, duration_ps: Any, model: Spec, trace: TraceColumns, positions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """What a model gives as the durations of nodes, in whole ps."""
        given = np.asarray(duration_ps)
        if given.shape != positions.shape or given.dtype.kind not in "iuf":
            raise PluginError(
                f"{model.name}: gives {given.dtype} of shape {given.shape} as durations of "
                f"{len(positions)} nodes; allowed: a number of ps for each"
            )
        too_long = ~((given >= 0) & (given <= _MOST_PS))
        if too_long.any():
            at = int(np.argmax(too_long))
            raise InputError(
                f"takes {given[at] / PS_PER_NS:.3g} ns by the model {model.name}; allowed: up to "
                f"{_MOST_PS / PS_PER_NS:.3g}",
                file=trace.file,
                key=self._at(trace, int(positions[at])),
            )
        return (np.rint(given) if given.dtype.kind == "f" else given).astype(np.int64)

    def _remote_memory(
        self,
        trace: TraceColumns,
        order: NDArray[np.int64],
        nodes: Any,
        types: NDArray[np.int32],
    ) -> None:
        which = (types == NodeType.MEM_LOAD) | (types == NodeType.MEM_STORE)
        if not which.any():
            return
        model = self.choices.memory
        if model.duration_ps is None:
            position = int(order[which][0])
            raise InputError(
                f"needs remote memory, but memory-type is {model.name}"
                f"{f' in {self.memory.source}' if self.memory.source else ''}",
                file=trace.file,
                key=self._at(trace, position),
            )
        sizes = self._required(trace, order, which, "tensor_size", 0, 2**62)
        nodes["op"][which] = Op.MEMORY
        nodes["duration_ps"][which] = self._checked_ps(
            model.duration_ps(self.memory, sizes), model, trace, order[which]
        )

    def _messages(
        self,
        trace: TraceColumns,
        order: NDArray[np.int64],
        nodes: Any,
        types: NDArray[np.int32],
    ) -> tuple[Any, bool]:
        """Messages of a trace, and whether their peers are distances from its only rank."""
        ranks_of_trace: NDArray[np.int64] | None = None
        parts = [np.zeros(0, MESSAGE)]
        for node_type, op, peer, own in (
            (NodeType.COMM_SEND, Op.SEND, "comm_dst", "comm_src"),
            (NodeType.COMM_RECV, Op.RECV, "comm_src", "comm_dst"),
        ):
            which = types == node_type
            if not which.any():
                continue
            if ranks_of_trace is None:
                ranks_of_trace = self._ranks_of(trace)
            messages = np.zeros(int(which.sum()), MESSAGE)
            messages["peer"] = self._required(trace, order, which, peer, 0, self.ranks - 1)
            messages["bytes"] = self._required(trace, order, which, "comm_size", 1, 2**62)
            tags = self._required(trace, order, which, "comm_tag", -(2**31), 2**32 - 1)
            messages["tag"] = (tags % 2**32) % _TAGS
            owners = getattr(trace, own)[order[which]]
            for bad, what, rule in (
                (
                    # A trace of several ranks cannot name its owner.
                    (owners != MISSING)
                    & ((owners != ranks_of_trace[0]) | (len(ranks_of_trace) > 1)),
                    own,
                    "a rank sends and receives in its own name",
                ),
                (
                    messages["peer"] == ranks_of_trace[0]
                    if len(ranks_of_trace) == 1
                    else np.isin(messages["peer"], ranks_of_trace),
                    peer,
                    "a rank cannot send to itself",
                ),
            ):
                if bad.any():
                    position = int(order[which][int(np.argmax(bad))])
                    raise InputError(
                        f"is {getattr(trace, what)[position]}, but this is the trace of rank "
                        f"{_shorten(ranks_of_trace.tolist())}: {rule}",
                        file=trace.file,
                        key=self._at(trace, position, what),
                    )
            nodes["op"][which] = op
            nodes["arg"][which] = sum(map(len, parts)) + np.arange(len(messages))
            parts.append(messages)
        relative = ranks_of_trace is None or len(ranks_of_trace) == 1
        messages = np.concatenate(parts)
        if relative and ranks_of_trace is not None:
            messages["peer"] -= ranks_of_trace[0]
        return messages, relative

    def _collectives(
        self,
        trace: TraceColumns,
        order: NDArray[np.int64],
        nodes: Any,
        types: NDArray[np.int32],
        duration_ps: NDArray[np.int64],
    ) -> None:
        which = np.flatnonzero(types == NodeType.COMM_COLL)
        if not len(which):
            return
        positions = order[which]
        chosen = types == NodeType.COMM_COLL
        kinds = self._required(trace, order, chosen, "comm_type", 0, max(Kind))
        needs_size = chosen.copy()
        needs_size[which] = kinds != Kind.BARRIER
        self._required(trace, order, needs_size, "comm_size", 0, 2**62)
        if "broadcast-is-replayed" in self.quirks:
            replayed = which[kinds == Kind.BROADCAST]
            nodes["op"][replayed] = Op.DELAY
            nodes["duration_ps"][replayed] = duration_ps[replayed]
            self.replayed_broadcasts += len(replayed) * len(self._ranks_of(trace))
            which, kinds = which[kinds != Kind.BROADCAST], kinds[kinds != Kind.BROADCAST]
            if not len(which):
                return
            positions = order[which]
        columns = [
            kinds,
            trace.comm_size[positions],
            trace.pg_name[positions].astype(np.int64),
            trace.involved_dim[positions].astype(np.int64),
            trace.comm_priority[positions],
            trace.root[positions],
        ]
        if self.system.per_node_custom:
            ids = trace.node_id[positions].astype(np.int64)
            custom = np.isin(ids, list(self.system.per_node_custom))
            columns.append(np.where(custom, ids, -1))
        table, first, inverse = np.unique(
            np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True
        )
        indices = [
            self._collective(trace, int(positions[at]), row)
            for at, row in zip(first.tolist(), table.tolist(), strict=True)
        ]
        arg = np.array(indices, np.int32)[inverse.reshape(-1)]
        nodes["op"][which] = np.where(arg < 0, Op.NOTHING, Op.COLLECTIVE)
        nodes["arg"][which] = arg

    def _collective(self, trace: TraceColumns, position: int, row: list[int]) -> int:
        """Index of a collective, or -1 where there is nothing to do."""
        kind, size, pg_name, involved_dim, priority, root, *custom = row
        group, ranks = self._group(trace, position, pg_name)
        involved = trace.involved_dims[involved_dim] if involved_dim >= 0 else ()
        queued: float = 0 if priority == MISSING else priority
        root_position = 0
        if root != MISSING:
            if root not in ranks:
                raise InputError(
                    f"root {root} is not a member of the group",
                    file=trace.file,
                    key=self._at(trace, position, "root"),
                )
            root_position = ranks.index(root)
        prefix = self.system.per_node_custom.get(custom[0]) if custom else None
        named = IMPLEMENTED.get(Kind(kind))
        if prefix is None and named is not None:
            prefix = self.system.custom.get(named)
        size = 0 if size == MISSING else size
        rule = self.choices.policy.priority
        if rule is not None:
            queued = rule(Queued(Kind(kind), size, tuple(ranks), int(queued)))
        # The peers of a custom collective are ranks, so no other group shares it.
        members = tuple(ranks) if prefix is not None else ()
        key = (kind, size, group, involved, queued, root_position, prefix, members)
        if key in self.collective_index:
            return self.collective_index[key]
        if prefix is not None and len(ranks) > 1:
            graph = self._graphs(prefix, ranks)
            index = self.plans.graph_collective(
                Kind(kind), size, group, graph, priority=0 if rule is None else queued
            )
        else:
            index = self.plans.collective(
                Kind(kind),
                size,
                group,
                involved=involved,
                priority=queued,
                root=root_position,
                where=f"{trace.file or 'the trace'}: {self._at(trace, position)}",
            )
        self.collective_index[key] = index
        return index

    def _group(self, trace: TraceColumns, position: int, pg_name: int) -> tuple[int, Sequence[int]]:
        """Group index and its ranks in order of position."""
        name = trace.strings[pg_name] if pg_name >= 0 else ""
        world = range(self.ranks)
        declared = next((g for g in reversed(trace.process_groups) if g.name == name), None)
        # "0" is all ranks, unless the trace itself says that it is not.
        if name == "" or (name == "0" and _is_all(declared, self.ranks)):
            return WORLD, world
        at = self._at(trace, position, "pg_name")
        try:
            group_id = int(name)
        except ValueError:
            raise InputError(
                f"{name!r} is not a number; communicator groups have numbers as names",
                file=trace.file,
                key=at,
            ) from None
        ranks: list[int] = []
        if declared is not None:
            ranks = list(declared.ranks) or list(world)
            if min(ranks) < 0 or max(ranks) >= self.ranks or len(set(ranks)) != len(ranks):
                raise InputError(
                    f"process group {name} has ranks {_shorten(ranks)}; allowed: 0 to "
                    f"{self.ranks - 1}, each once",
                    file=trace.file,
                    key=at,
                )
        elif group_id in self.comm_groups:
            ranks = list(self.comm_groups[group_id])
        else:
            known = ", ".join(map(str, list(self.comm_groups)[:10])) or "none"
            raise InputError(
                f"communicator group {name} is not defined; defined: {known} (0 is all ranks)",
                file=trace.file,
                key=at,
            )
        users = self._ranks_of(trace)
        alone = len(users) == 1 and int(users[0]) in ranks
        outside = users[:0] if alone else users[~np.isin(users, ranks)]
        if len(outside):
            raise InputError(
                f"rank {outside[0]} runs this trace, but is not a member of communicator group "
                f"{name} (ranks {_shorten(ranks)})",
                file=trace.file,
                key=at,
            )
        return self.plans.group(group_id, ranks), ranks

    def _graphs(self, prefix: str, ranks: Sequence[int]) -> int:
        """One graph per position of the group; returns the first in graph_of_position."""
        key = (prefix, tuple(ranks))
        if key in self.graph_index:
            return self.graph_index[key]
        ordered = sorted(ranks)
        # ASTRA-sim finds the own file by the position among the sorted ranks, but takes peers
        # from the list as given.
        files = [Path(f"{prefix}.{ordered.index(rank)}.et") for rank in ranks]
        traces = [read_trace(file) for file in files]
        peers = ordered if self.corrected else ranks
        if any(
            _names_itself(trace, rank, peers) for trace, rank in zip(traces, ranks, strict=True)
        ):
            self.warnings.append(
                f"communicator group {_shorten(ranks)} is not in ascending order; taking it as "
                "given, ranks would send to themselves in the custom collective "
                f"{prefix}, so it is taken in ascending order"
            )
            peers = ordered
        graphs = [
            self._graph(file, trace, peers) for file, trace in zip(files, traces, strict=True)
        ]
        self.graph_index[key] = len(self.graph_of_position)
        self.graph_of_position += graphs
        return self.graph_index[key]

    def _graph(self, file: Path, trace: TraceColumns, peers: Sequence[int]) -> int:
        order = np.argsort(trace.node_id, kind="stable")
        nodes = np.zeros(len(order), GRAPH_NODE)
        types = trace.type[order]
        known = np.isin(types, [NodeType.COMP, NodeType.COMM_SEND, NodeType.COMM_RECV])
        if not known.all():
            position = int(order[int(np.argmin(known))])
            raise InputError(
                "a custom collective consists of COMP, COMM_SEND and COMM_RECV nodes",
                file=file,
                key=self._at(trace, position),
            )
        nodes["op"] = GraphOp.DELAY
        nodes["duration_ps"] = _replay_ps(trace, order)
        members = np.array(peers, np.int32)
        for node_type, op, column in (
            (NodeType.COMM_SEND, GraphOp.SEND, "comm_dst"),
            (NodeType.COMM_RECV, GraphOp.RECV, "comm_src"),
        ):
            which = types == node_type
            if not which.any():
                continue
            peer = self._required(trace, order, which, column, 0, len(peers) - 1)
            nodes["op"][which] = op
            nodes["peer"][which] = members[peer]
            nodes["bytes"][which] = self._required(trace, order, which, "comm_size", 1, 2**62)
            tags = self._required(trace, order, which, "comm_tag", -(2**31), 2**32 - 1)
            nodes["tag"][which] = (tags % 2**32) % _TAGS
        children = _children(trace, order, nodes, self.graph_child_total)
        nodes["id"] = trace.node_id[order].astype(np.int64)
        roots, buckets = _hash_orders(trace, nodes, children, self.graph_child_total)
        first_root = len(self.graph_roots)
        self.graph_roots += roots
        self.graphs.append((self.graph_total, len(nodes), first_root, len(roots), buckets))
        self.graph_nodes.append(nodes)
        self.graph_children.append(children)
        self.graph_total += len(nodes)
        self.graph_child_total += len(children)
        return len(self.graphs) - 1


def _names_itself(trace: TraceColumns, rank: int, peers: Sequence[int]) -> bool:
    """Whether a node of a custom collective sends to or receives from its own rank."""
    for node_type, column in (
        (NodeType.COMM_SEND, trace.comm_dst),
        (NodeType.COMM_RECV, trace.comm_src),
    ):
        named = column[trace.type == node_type]
        named = named[(named >= 0) & (named < len(peers))]
        if (np.array(peers)[named] == rank).any():
            return True
    return False


def _hash_orders(
    trace: TraceColumns, nodes: Any, children: NDArray[np.int32], offset: int
) -> tuple[list[int], int]:
    """Put the children of each node, and the roots, into the order in which they are issued.

    Returns
    -------
    roots : list of int
        Nodes without parents.
    buckets : int
        Buckets of the set of free nodes after the roots.
    """
    ids = nodes["id"].tolist()
    index = {one: i for i, one in enumerate(ids)}
    file_order = trace.node_id.astype(np.int64).tolist()
    at_file = {one: i for i, one in enumerate(file_order)}
    for node in np.flatnonzero(nodes["child_count"] > 1).tolist():
        first = int(nodes["child_start"][node]) - offset
        part = slice(first, first + int(nodes["child_count"][node]))
        own = sorted((ids[child] for child in children[part].tolist()), key=at_file.__getitem__)
        children[part] = [index[one] for one in hash_order(own)[0]]
    known = HashOrder()
    for position, one in enumerate(file_order):
        known.insert(one)
        parents = trace.dep[trace.dep_start[position] : trace.dep_start[position + 1]].tolist()
        for parent in hash_order([file_order[parent] for parent in parents])[0]:
            known.insert(parent)
    roots = [one for one in known if nodes["parents"][index[one]] == 0]
    ordered, buckets = hash_order(roots)
    return [index[one] for one in ordered], buckets


def _is_all(group: ProcessGroup | None, ranks: int) -> bool:
    return group is None or not group.ranks or sorted(group.ranks) == list(range(ranks))


def _sum_ps(trace: TraceColumns, duration_ps: NDArray[np.int64]) -> int:
    total = float(duration_ps.sum(dtype=np.float64))
    if total >= float(INT64_MAX):
        raise SimulationError(
            f"{trace.file or 'trace'}: its nodes take {total:.3g} ps, beyond the range of time "
            "(2^63 ps)"
        )
    return int(duration_ps.sum())


def _shorten(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")


def _replay_ps(trace: TraceColumns, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Recorded durations; a node without one takes 1 ns."""
    duration_us = trace.duration_micros[order]
    too_long = duration_us > 2**62 // PS_PER_US
    if too_long.any():
        position = int(order[int(np.argmax(too_long))])
        raise InputError(
            f"is {trace.duration_micros[position]}; allowed: up to {2**62 // PS_PER_US}",
            file=trace.file,
            key=f"node {trace.node_id[position]} duration_micros",
        )
    result: NDArray[np.int64] = np.where(duration_us == 0, PS_PER_NS, duration_us * PS_PER_US)
    return result


def _children(
    trace: TraceColumns, order: NDArray[np.int64], nodes: Any, offset: int
) -> NDArray[np.int32]:
    """Fill parents and children of nodes that stand in ``order``; check for circles."""
    count = len(order)
    rank_of = np.empty(count, np.int64)
    rank_of[order] = np.arange(count)
    parents_per_node = np.diff(trace.dep_start)
    child = rank_of[np.repeat(np.arange(count), parents_per_node)]
    parent = rank_of[trace.dep]
    nodes["parents"] = parents_per_node[order]
    by_parent = np.lexsort((child, parent))
    children: NDArray[np.int32] = child[by_parent].astype(np.int32)
    per_parent = np.bincount(parent, minlength=count)
    nodes["child_count"] = per_parent
    nodes["child_start"] = offset + np.cumsum(per_parent) - per_parent
    if (parent >= child).any():
        # Parents usually come first, in which case there can be no circle.
        _check_acyclic(trace, order, nodes, children, offset)
    return children


def _check_acyclic(
    trace: TraceColumns,
    order: NDArray[np.int64],
    nodes: Any,
    children: NDArray[np.int32],
    offset: int,
) -> None:
    waiting = nodes["parents"].tolist()
    start = (nodes["child_start"] - offset).tolist()
    count = nodes["child_count"].tolist()
    kids = children.tolist()
    free = [i for i, parents in enumerate(waiting) if parents == 0]
    done = 0
    while free:
        node = free.pop()
        done += 1
        for child in kids[start[node] : start[node] + count[node]]:
            waiting[child] -= 1
            if waiting[child] == 0:
                free.append(child)
    if done < len(waiting):
        stuck = [int(trace.node_id[order[i]]) for i, w in enumerate(waiting) if w > 0]
        raise StalledError(
            f"{trace.file or 'trace'}: nodes wait for one another in a circle: "
            f"{', '.join(map(str, stuck[:10]))}{' ...' if len(stuck) > 10 else ''}"
        )
