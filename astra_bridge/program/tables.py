# SPDX-License-Identifier: MIT
"""The tables of a Program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.program.schema import (
    COLLECTIVE,
    FAMILY,
    GRAPH,
    GRAPH_NODE,
    GROUP,
    JOB,
    MACHINE,
    MESSAGE,
    NODE,
    PACKET,
    PHASE,
    PLAN,
    SCHEDULE,
    SLOWDOWN,
    STEP,
    TASK,
    TEMPLATE,
    BusModel,
    Op,
    PacketFlag,
    Policy,
)
from astra_bridge.records import Record, field

__all__ = ["Tables", "distinct", "machine", "one_job", "tasks"]


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Sorted, each once: np.unique without the import of masked arrays, which a small run notices.

    Examples
    --------
    >>> distinct(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    values = np.sort(values, axis=None)
    new = np.ones(len(values), bool)
    new[1:] = values[1:] != values[:-1]
    return values[new]


def machine(
    *,
    endpoint_delay_ps: int = 10_000,
    fast_delay_ps: int = 10_000,
    loggp: tuple[int, int, int, float, int] = (0, 0, 0, 0.0, 1),
    unit_capacity: Sequence[int] = (1, 1, 1, 2**31 - 1),
    streams_per_queue: int = 1,
    policy: Policy = Policy.LIFO,
    bus_model: BusModel = BusModel.FIXED,
) -> NDArray[Any]:
    """One row of MACHINE, shape (1,); ``loggp`` is (L_ns, o_ns, g_ns, G_ns_per_byte, reduction_ns).

    Examples
    --------
    >>> machine(endpoint_delay_ps=7_000)["endpoint_delay_ps"].tolist()
    [7000]
    """
    return np.array(
        [
            (
                endpoint_delay_ps,
                fast_delay_ps,
                *loggp,
                tuple(unit_capacity),
                streams_per_queue,
                policy,
                bus_model,
            )
        ],
        MACHINE,
    )


def tasks(template_of_rank: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
    """One job that starts at 0: the n-th entry is the template of rank n.

    Examples
    --------
    >>> tasks([0, 0, 1])["template_index"].tolist()
    [0, 0, 1]
    """
    rows = np.zeros(len(template_of_rank), TASK)
    rows["job_rank"] = np.arange(len(rows))
    rows["template_index"] = template_of_rank
    return rows


def one_job(ranks: int) -> NDArray[Any]:
    """The table of jobs where one job is on all ranks, in their order."""
    return np.array([(0, -1, ranks)], JOB)


def _no_rows(dtype: Any) -> Callable[[], Any]:
    return lambda: np.zeros(0, dtype)


class Tables(Record, frozen=True, eq=False):
    """Everything an engine needs.

    Attributes
    ----------
    tasks, jobs
        Traces on ranks.  Tasks of one rank of the network share its units and queues.
    placement : ndarray of int32
        Ranks of the network, job by job.
    machines, machine_of_rank, memory_server
        What each rank is: ``machine_of_rank`` (int32, shape (ranks,)) points into ``machines``;
        accesses of ranks with the same ``memory_server`` (int32, shape (ranks,)) wait for one
        another, -1 never waits.
    slowdowns
        Ranks that become slower or faster.
    templates, nodes, children, messages
        Nodes of one template stand together, in ascending trace id; children are local indices.
    collectives, plans, phases, groups, members
        ``members`` holds ranks, int32.
    families, schedules, steps, packets
    schedule_of_position : ndarray of int32
        Counted from the first schedule of the family.
    graphs, graph_nodes, graph_children, graph_roots, graph_of_position
        ``collectives.graph`` points into ``graph_of_position``: one graph per group position.
        Peers of graph nodes are ranks.
    queues_per_level, levels : int
        Queues of level d are d * queues_per_level and following.
    alternate_slots : int
        Number of ALTERNATE counters per rank.
    rendezvous_bytes : int
        Size of the control message that precedes each message; 0 is off.
    receives_at_once : bool
        A receive of a collective's step whose data is there is complete inside its post, as in
        ASTRA-sim's ns-3 program; else after all that is due in that instant, as in the others.
    """

    tasks: NDArray[Any]
    jobs: NDArray[Any] = field(default_factory=_no_rows(JOB))
    placement: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    machines: NDArray[Any] = field(default_factory=machine)
    machine_of_rank: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    memory_server: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    slowdowns: NDArray[Any] = field(default_factory=_no_rows(SLOWDOWN))
    templates: NDArray[Any] = field(default_factory=_no_rows(TEMPLATE))
    nodes: NDArray[Any] = field(default_factory=_no_rows(NODE))
    children: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    messages: NDArray[Any] = field(default_factory=_no_rows(MESSAGE))
    collectives: NDArray[Any] = field(default_factory=_no_rows(COLLECTIVE))
    plans: NDArray[Any] = field(default_factory=_no_rows(PLAN))
    phases: NDArray[Any] = field(default_factory=_no_rows(PHASE))
    groups: NDArray[Any] = field(default_factory=_no_rows(GROUP))
    members: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    families: NDArray[Any] = field(default_factory=_no_rows(FAMILY))
    schedule_of_position: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    schedules: NDArray[Any] = field(default_factory=_no_rows(SCHEDULE))
    steps: NDArray[Any] = field(default_factory=_no_rows(STEP))
    packets: NDArray[Any] = field(default_factory=_no_rows(PACKET))
    graphs: NDArray[Any] = field(default_factory=_no_rows(GRAPH))
    graph_nodes: NDArray[Any] = field(default_factory=_no_rows(GRAPH_NODE))
    graph_children: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    graph_roots: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    graph_of_position: NDArray[np.int32] = field(default_factory=_no_rows(np.int32))
    levels: int = 1
    queues_per_level: int = 1
    alternate_slots: int = 0
    rendezvous_bytes: int = 0
    receives_at_once: bool = False

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return len(self.machine_of_rank)

    @property
    def rank_of_task(self) -> NDArray[np.int64]:
        """The rank of the network that each task is on, shape (tasks,)."""
        start = self.jobs["placement_start"][self.tasks["job"]]
        ranks: NDArray[np.int64] = self.tasks["job_rank"].astype(np.int64)
        placed = start >= 0
        if placed.any():
            ranks[placed] = self.placement[start[placed] + ranks[placed]]
        return ranks

    @property
    def task_nodes(self) -> NDArray[np.int64]:
        """Number of nodes of each task, shape (tasks,)."""
        counts: NDArray[np.int64] = self.templates["node_count"][self.tasks["template_index"]]
        return counts

    @property
    def events(self) -> int:
        """About how many events an engine needs for all of it: how far one has come, says this.

        A node is one, and so is a message; of a chunk in a phase each packet is one or two.
        """
        reduced = np.concatenate([[0], np.cumsum(self.packets["flags"] & PacketFlag.REDUCED != 0)])
        sends = np.concatenate([[0], np.cumsum(self.steps["send_bytes"] > 0)])
        rows = self.schedules
        packets = rows["end"].astype(np.int64)
        first = np.minimum(rows["packet_start"], len(self.packets))
        last = np.minimum(first + packets, len(self.packets))
        steps = rows["step_start"], rows["step_start"] + rows["step_count"]
        of_schedule = packets + reduced[last] - reduced[first] + sends[steps[1]] - sends[steps[0]]
        # Of schedules for several positions, the mean.
        sums = np.concatenate([[0], np.cumsum(of_schedule)])
        begin = self.families["first"].astype(np.int64)
        count = self.families["count"].astype(np.int64)
        of_family = (sums[begin + count] - sums[begin]) / np.maximum(count, 1)
        of_phase = of_family[self.phases["family0"]] if len(of_family) else np.zeros(0)
        of_phase = np.concatenate([[0], np.cumsum(of_phase)])
        begin = self.plans["phase_start"].astype(np.int64)
        of_plan = of_phase[begin + self.plans["phase_count"]] - of_phase[begin]
        of_graph = len(self.graph_nodes) / max(len(self.graph_of_position), 1)
        per_template = np.zeros(len(self.templates))
        each = np.full(len(self.collectives), of_graph)
        planned = (self.collectives["plan_count"] > 0) & (self.collectives["graph"] < 0)
        each[planned] = of_plan[self.collectives["plan_start"][planned]]
        each *= self.collectives["chunks"]
        for template in range(len(self.templates)):
            nodes = self.nodes_of(template)
            collective = nodes["op"] == Op.COLLECTIVE
            per_template[template] = each[nodes["arg"][collective]].sum() + (~collective).sum()
        return int(per_template[self.tasks["template_index"]].sum())

    @property
    def stays(self) -> int:
        """In how many phases all chunks of all collectives of all ranks are, together."""
        longest = np.zeros(len(self.collectives), np.int64)
        first = self.collectives["plan_start"].astype(np.int64)
        for at in range(int(self.collectives["plan_count"].max(initial=0))):
            has = self.collectives["plan_count"] > at
            longest[has] = np.maximum(longest[has], self.plans["phase_count"][first[has] + at])
        each = np.maximum(longest, 1) * self.collectives["chunks"]
        per_template = np.zeros(len(self.templates), np.int64)
        for template in range(len(self.templates)):
            nodes = self.nodes_of(template)
            per_template[template] = each[nodes["arg"][nodes["op"] == Op.COLLECTIVE]].sum()
        return int(per_template[self.tasks["template_index"]].sum())

    def nodes_of(self, template: int) -> NDArray[np.void]:
        """The nodes of a template."""
        first = int(self.templates["node_start"][template])
        nodes: NDArray[np.void] = self.nodes[first:]
        return nodes[: int(self.templates["node_count"][template])]
