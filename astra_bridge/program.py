# SPDX-License-Identifier: MIT
"""The Program: what an engine runs, as arrays.

The system layer lowers inputs and traces to a Program; an engine walks it and knows nothing of
files, traces or collective algorithms.  What is symmetric stays visibly symmetric: ranks that run
the same trace share one *template*, and a collective's *schedule* names its peers relative to the
own position, so that one copy serves every rank.

Four things make up a Program:

* **Templates**: the nodes of a trace in ascending id, what each occupies and waits for.
* **Collectives**: a collective is split into chunks; a chunk runs the phases of a *plan*, one
  after the other; a phase runs one schedule in one queue of one dimension.
* **Schedules**: the algorithm as data.  A schedule is a list of *steps* (send and/or post a
  receive) and a list of *packets* (what the endpoint does with data before the next step may
  run).  Step ``k`` runs as soon as ``steps[k].need`` packets have been processed.
* **Graphs**: custom collectives, where a small dependency graph replaces a schedule.

All times are int64 ps, all sizes int64 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COLLECTIVE",
    "GRAPH",
    "GRAPH_NODE",
    "GROUP",
    "MESSAGE",
    "NODE",
    "PACKET",
    "PHASE",
    "PLAN",
    "SCHEDULE",
    "STEP",
    "TEMPLATE",
    "Bus",
    "BusModel",
    "GraphOp",
    "Op",
    "PacketFlag",
    "Policy",
    "Program",
    "QueuePick",
    "Unit",
    "Variant",
]


class Op(IntEnum):
    """What a node of a template does."""

    NOTHING = 0  # completes at once
    DELAY = 1  # takes duration_ps
    COLLECTIVE = 2  # arg: index into collectives
    SEND = 3  # arg: index into messages; completes when delivered, as in ASTRA-sim
    RECV = 4  # arg: index into messages
    MEMORY = 5  # takes duration_ps at the rank's memory server


class Unit(IntEnum):
    """What a node occupies while it runs; how many of each a rank has is in unit_capacity."""

    CPU = 0
    COMPUTE = 1
    COMM = 2
    NONE = 3  # unlimited: receives


class QueuePick(IntEnum):
    """Which queue of its dimension a phase enters (round robin in each class)."""

    NEXT = 0  # all queues; the second half runs anticlockwise
    FIRST = 1  # first half, clockwise
    LAST = 2  # second half, anticlockwise


class Variant(IntEnum):
    """How a phase chooses between its two schedules."""

    BY_DIRECTION = 0  # 0 clockwise, 1 anticlockwise
    ALTERNATE = 1  # 0, 1, 0, 1, ... per rank and slot
    AGREED = 2  # by direction, of the member that issues its collective first


class Bus(IntEnum):
    """Delay between network and memory that each packet pays."""

    ENDPOINT = 0  # endpoint_delay_ps, or the shared bus
    FAST = 1  # fast_delay_ps
    NONE = 2


class BusModel(IntEnum):
    FIXED = 0
    LOGGP = 1


class Policy(IntEnum):
    """Priority of the streams of a collective."""

    LIFO = 0
    FIFO = 1
    EXPLICIT = 2


class PacketFlag(IntFlag):
    TO_MEMORY = 1  # crosses the bus from NPU to memory, else from memory to NPU
    REDUCED = 2  # pays the reduction
    SEND_BACK = 4  # crosses the shared bus a second time


class GraphOp(IntEnum):
    SEND = 0
    RECV = 1
    DELAY = 2


def _struct(*fields: tuple[str, str]) -> np.dtype[Any]:
    return np.dtype(list(fields), align=True)


TEMPLATE = _struct(("node_start", "<i8"), ("node_count", "<i8"), ("compute_ps", "<i8"))
"""``compute_ps``: sum of the durations that do not count as exposed communication."""

NODE = _struct(
    ("duration_ps", "<i8"),
    ("child_start", "<i8"),  # into children
    ("child_count", "<i4"),
    ("arg", "<i4"),
    ("parents", "<i4"),
    ("op", "u1"),
    ("unit", "u1"),
)
MESSAGE = _struct(("bytes", "<i8"), ("peer", "<i4"), ("tag", "<i4"))

COLLECTIVE = _struct(
    ("chunks", "<i8"),
    ("plan_start", "<i4"),
    ("plan_count", "<i4"),  # chunk i uses plan plan_start + i % plan_count
    ("group", "<i4"),
    ("priority", "<i4"),
    ("graph", "<i4"),  # index into graphs, or -1
    ("kind", "<i4"),  # for messages: Chakra's collective type
    ("bytes", "<i8"),
)
PLAN = _struct(("phase_start", "<i4"), ("phase_count", "<i4"))
PHASE = _struct(
    ("level", "<i4"),  # dimension whose queues it uses
    ("layout", "<i4"),  # index into groups: who takes part
    ("family0", "<i4"),  # indices into families, per variant
    ("family1", "<i4"),
    ("slot", "<i4"),  # of the ALTERNATE counter
    ("pick", "u1"),
    ("variant", "u1"),
    ("bus", "u1"),
)
GROUP = _struct(
    ("size", "<i4"),
    ("stride", "<i4"),  # > 0: positions are (rank // stride) % size; 0: a list
    ("member_start", "<i8"),  # into members, ranks in order of position
    ("tag_base", "<i8"),  # tag of the first stream of collectives of this group
)
SCHEDULE = _struct(
    ("step_start", "<i8"),
    ("packet_start", "<i8"),
    ("step_count", "<i4"),
    ("window", "<i4"),  # packets inserted at the start
    ("burst", "<i4"),  # most steps per processed packet
    ("gate_step", "<i4"),  # steps from here on ...
    ("gate_received", "<i4"),  # ... wait for so many receives
    ("end", "<i4"),  # finished when so many packets are processed
)
STEP = _struct(
    ("send_bytes", "<i8"),  # 0: no send
    ("recv_bytes", "<i8"),  # 0: no receive is posted
    ("send_to", "<i4"),  # position relative to the own one, modulo group size
    ("recv_from", "<i4"),
    ("need", "<i4"),
)
PACKET = _struct(("bytes", "<i8"), ("reduce_ps", "<i8"), ("flags", "<i4"))

GRAPH = _struct(
    ("node_start", "<i8"),
    ("node_count", "<i8"),
    ("root_start", "<i8"),  # into graph_roots: nodes without parents, in order of issue
    ("root_count", "<i8"),
    ("buckets", "<i8"),  # of the hash set that orders what becomes free together
)
GRAPH_NODE = _struct(
    ("duration_ps", "<i8"),
    ("bytes", "<i8"),
    ("child_start", "<i8"),  # into graph_children, in the order of the hash set of children
    ("id", "<i8"),
    ("child_count", "<i4"),
    ("peer", "<i4"),
    ("tag", "<i4"),
    ("parents", "<i4"),
    ("op", "u1"),
)


_INT32 = np.dtype("<i4")


@dataclass(frozen=True, eq=False)
class Program:
    """Everything an engine needs; see the module's text.

    Attributes
    ----------
    ranks : int
    template_of_rank : ndarray of int32, shape (ranks,)
    templates, nodes, children, messages
        Nodes of one template stand together, in ascending trace id; children are local indices.
    collectives, plans, phases, groups, members
        ``members`` holds ranks, int32.
    families : ndarray of int32, shape (families, 2)
        (first schedule, number of schedules): one schedule per position, or one for all.
    schedules, steps, packets
    graphs, graph_nodes, graph_children, graph_roots, graph_of_position
        ``collectives.graph`` points into ``graph_of_position``: one graph per group position.
        Peers of graph nodes are ranks.
    queues_per_level, levels : int
        Queues of level d are d * queues_per_level and following.
    streams_per_queue : int
        How many streams of one queue run at a time.
    policy : Policy
    alternate_slots : int
        Number of ALTERNATE counters per rank.
    unit_capacity : ndarray of int32, shape (4,)
        How many nodes of a rank may occupy each Unit at a time.
    endpoint_delay_ps, fast_delay_ps : int
    bus_model : BusModel
    loggp : tuple (L_ns, o_ns, g_ns, G_ns_per_byte, local_reduction_delay_ns)
    rendezvous_bytes : int
        Size of the control message that precedes each message; 0 is off.
    receives_at_once : bool
        A receive of a collective's step whose data is there is complete inside its post, as in
        ASTRA-sim's ns-3 program; else after all that is due in that instant, as in the others.
    memory_server : ndarray of int32, shape (ranks,)
        Accesses of ranks with the same server wait for one another; -1 never waits.
    """

    ranks: int
    template_of_rank: NDArray[np.int32]
    templates: NDArray[Any] = field(default_factory=lambda: np.zeros(0, TEMPLATE))
    nodes: NDArray[Any] = field(default_factory=lambda: np.zeros(0, NODE))
    children: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, _INT32))
    messages: NDArray[Any] = field(default_factory=lambda: np.zeros(0, MESSAGE))
    collectives: NDArray[Any] = field(default_factory=lambda: np.zeros(0, COLLECTIVE))
    plans: NDArray[Any] = field(default_factory=lambda: np.zeros(0, PLAN))
    phases: NDArray[Any] = field(default_factory=lambda: np.zeros(0, PHASE))
    groups: NDArray[Any] = field(default_factory=lambda: np.zeros(0, GROUP))
    members: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, _INT32))
    families: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    schedules: NDArray[Any] = field(default_factory=lambda: np.zeros(0, SCHEDULE))
    steps: NDArray[Any] = field(default_factory=lambda: np.zeros(0, STEP))
    packets: NDArray[Any] = field(default_factory=lambda: np.zeros(0, PACKET))
    graphs: NDArray[Any] = field(default_factory=lambda: np.zeros(0, GRAPH))
    graph_nodes: NDArray[Any] = field(default_factory=lambda: np.zeros(0, GRAPH_NODE))
    graph_children: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, _INT32))
    graph_roots: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, _INT32))
    graph_of_position: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, _INT32))
    levels: int = 1
    queues_per_level: int = 1
    streams_per_queue: int = 1
    policy: Policy = Policy.LIFO
    alternate_slots: int = 0
    unit_capacity: NDArray[np.int32] = field(
        default_factory=lambda: np.array([1, 1, 1, 2**31 - 1], np.int32)
    )
    endpoint_delay_ps: int = 10_000
    fast_delay_ps: int = 10_000
    bus_model: BusModel = BusModel.FIXED
    loggp: tuple[int, int, int, float, int] = (0, 0, 0, 0.0, 1)
    rendezvous_bytes: int = 0
    receives_at_once: bool = False
    memory_server: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def validate(self) -> None:
        """Check every reference, range and sum of every table: engines rely on it.

        Raises
        ------
        InputError
            Names table, row, field, value and rule; see :mod:`astra_bridge.program_rules`.

        Examples
        --------
        >>> Program(ranks=2, template_of_rank=np.array([0, 5], np.int32)).validate()
        Traceback (most recent call last):
            ...
        astra_bridge.errors.InputError: program: template_of_rank[0]: is 0; nothing is allowed
        """
        from astra_bridge.program_rules import check_program

        check_program(self)
