# SPDX-License-Identifier: MIT
"""The Program: what an engine runs, as arrays.

The system layer lowers inputs and traces to a Program; an engine walks it and knows nothing of
files, traces or collective algorithms.  What is symmetric stays visibly symmetric: ranks that do
the same, each to its own peers and in its own groups, share one *template*, and a collective's
*schedule* names its peers relative to the own position (a distance, or an exclusive or), so that
one copy serves every rank.

Five things make up a Program:

* **Tasks**: a trace on a rank, from a start time on.  The tasks of a *job* name one another by the
  ranks of the job; its placement says where on the network each of them is.
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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError

__all__ = [
    "COLLECTIVE",
    "DONE",
    "ENUMS",
    "FAMILY",
    "GRAPH",
    "GRAPH_NODE",
    "GROUP",
    "JOB",
    "MACHINE",
    "MESSAGE",
    "NODE",
    "PACKET",
    "PHASE",
    "PLAN",
    "RANK_TABLES",
    "SCHEDULE",
    "SLOWDOWN",
    "STEP",
    "TASK",
    "TEMPLATE",
    "WAIT",
    "Bus",
    "BusModel",
    "GraphOp",
    "Op",
    "PacketFlag",
    "Peers",
    "Policy",
    "Program",
    "QueuePick",
    "Unit",
    "Variant",
    "WaitFor",
    "machine",
    "one_job",
    "tasks",
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


class Peers(IntEnum):
    """How a step names positions in its group."""

    RELATIVE = 0  # (own + value) modulo the size of the group
    XOR = 1  # own ^ value


class GraphOp(IntEnum):
    SEND = 0
    RECV = 1
    DELAY = 2


class WaitFor(IntEnum):
    """What is missing where something waits."""

    RECEIVE = 0  # a receive without a send
    IN_FLIGHT = 1  # a send that the network has not delivered
    UNRECEIVED = 2  # a send without a receive


def _struct(*fields: tuple[Any, ...]) -> np.dtype[Any]:
    return np.dtype(list(fields), align=True)


TASK = _struct(
    ("start_ps", "<i8"),
    ("job", "<i4"),
    ("job_rank", "<i4"),
    ("template_index", "<i4"),
)
JOB = _struct(
    ("tag_base", "<i8"),  # added to the tags of its messages, so that jobs do not meet
    ("placement_start", "<i8"),  # into placement; -1: its ranks are those of the network
    ("ranks", "<i4"),
)
MACHINE = _struct(
    ("endpoint_delay_ps", "<i8"),
    ("fast_delay_ps", "<i8"),
    ("L_ns", "<i8"),  # LogGP, of the shared bus
    ("o_ns", "<i8"),
    ("g_ns", "<i8"),
    ("G_ns_per_byte", "<f8"),
    ("reduction_ns", "<i8"),
    ("unit_capacity", "<i4", (4,)),  # how many nodes of a rank may occupy each Unit at a time
    ("streams_per_queue", "<i4"),  # how many streams of one queue run at a time
    ("policy", "<i4"),
    ("bus_model", "<i4"),
)
"""What a rank is, but for the network."""

SLOWDOWN = _struct(("at_ps", "<i8"), ("factor", "<f8"), ("rank", "<i4"))
"""From a time on, DELAY nodes that a rank begins take so many times as long."""

TEMPLATE = _struct(
    ("node_start", "<i8"),
    ("node_count", "<i8"),
    ("compute_ps", "<i8"),
    ("relative_peers", "u1"),  # 1: peers of its messages are distances from the own rank
)
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
MESSAGE = _struct(
    ("bytes", "<i8"),
    ("peer", "<i4"),  # rank of the job, or the distance to it
    ("tag", "<i4"),
)

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
FAMILY = _struct(
    ("position_start", "<i8"),  # into schedule_of_position
    ("positions", "<i4"),  # members of the group, or 0: the first schedule is for all
    ("first", "<i4"),  # schedule
    ("count", "<i4"),
)
"""The schedules of a group: member i plays ``first + schedule_of_position[position_start + i]``."""

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
    ("send_to", "<i4"),  # a position, as peers says
    ("recv_from", "<i4"),
    ("need", "<i4"),
    ("peers", "u1"),
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

WAIT = _struct(
    ("rank", "<i4"),  # who waits
    ("peer", "<i4"),
    ("bytes", "<i8"),
    ("node", "<i4"),  # local node of the template, or -1
    ("collective", "<i4"),  # index, or -1
    ("what", "<i4"),
)
"""What an engine says of something that is not complete when nothing more can happen."""

DONE = _struct(("time_ps", "<i8"), ("task", "<i4"), ("node", "<i4"))
"""What an engine says of something that is complete: a node, or (node -1) a whole task."""

ENUMS = {
    ("MACHINE", "policy"): Policy,
    ("MACHINE", "bus_model"): BusModel,
    ("NODE", "op"): Op,
    ("PHASE", "pick"): QueuePick,
    ("PHASE", "variant"): Variant,
    ("PHASE", "bus"): Bus,
    ("STEP", "peers"): Peers,
    ("GRAPH_NODE", "op"): GraphOp,
    ("WAIT", "what"): WaitFor,
}
"""The fields that hold a value of an enum.  The native engine's header is made of the records and
enums of this file when it is built (csrc/engine/make_records.py)."""

RANK_TABLES = ("machines", "machine_of_rank", "memory_server")
"""Tables of what the ranks are, which do not grow with work."""


_INT32 = np.dtype("<i4")


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


@dataclass(frozen=True, eq=False)
class Program:
    """Everything an engine needs; see the module's text.

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
    placement: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
    machines: NDArray[Any] = field(default_factory=machine)
    machine_of_rank: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
    memory_server: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
    slowdowns: NDArray[Any] = field(default_factory=_no_rows(SLOWDOWN))
    templates: NDArray[Any] = field(default_factory=_no_rows(TEMPLATE))
    nodes: NDArray[Any] = field(default_factory=_no_rows(NODE))
    children: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
    messages: NDArray[Any] = field(default_factory=_no_rows(MESSAGE))
    collectives: NDArray[Any] = field(default_factory=_no_rows(COLLECTIVE))
    plans: NDArray[Any] = field(default_factory=_no_rows(PLAN))
    phases: NDArray[Any] = field(default_factory=_no_rows(PHASE))
    groups: NDArray[Any] = field(default_factory=_no_rows(GROUP))
    members: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
    families: NDArray[Any] = field(default_factory=_no_rows(FAMILY))
    schedule_of_position: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
    schedules: NDArray[Any] = field(default_factory=_no_rows(SCHEDULE))
    steps: NDArray[Any] = field(default_factory=_no_rows(STEP))
    packets: NDArray[Any] = field(default_factory=_no_rows(PACKET))
    graphs: NDArray[Any] = field(default_factory=_no_rows(GRAPH))
    graph_nodes: NDArray[Any] = field(default_factory=_no_rows(GRAPH_NODE))
    graph_children: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
    graph_roots: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
    graph_of_position: NDArray[np.int32] = field(default_factory=_no_rows(_INT32))
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

    def save(self, file: str | Path | IO[bytes]) -> None:
        """Write it as ``.npz``: an array per table.

        Examples
        --------
        >>> import io
        >>> one = Program(
        ...     tasks=tasks([0]),
        ...     jobs=one_job(1),
        ...     machine_of_rank=np.zeros(1, np.int32),
        ...     memory_server=np.full(1, -1, np.int32),
        ...     templates=np.zeros(1, TEMPLATE),
        ... )
        >>> file = io.BytesIO()
        >>> one.save(file)
        >>> Program.load(io.BytesIO(file.getvalue())).ranks
        1
        """
        np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, file: str | Path | IO[bytes]) -> Program:
        """Read what `save` wrote, and validate it.

        Raises
        ------
        InputError
            The file is no such file, or the Program breaks a rule.
        """
        from zipfile import BadZipFile  # few Programs are read from files

        name = file if isinstance(file, (str, Path)) else None
        try:
            with np.load(file, allow_pickle=False) as tables:
                read = {one: tables[one] for one in tables.files}
            scalars = {one: value.item() for one, value in read.items() if value.ndim == 0}
            program = cls(**read | scalars)
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise InputError(f"holds no Program: {error}", file=name) from error
        program.validate()
        return program

    def validate(self) -> None:
        """Check every reference, range and sum of every table: engines rely on it.

        Raises
        ------
        InputError
            Names table, row, field, value and rule; see :mod:`astra_bridge.program_rules`.

        Examples
        --------
        >>> Program(
        ...     tasks=tasks([0, 5]),
        ...     jobs=one_job(2),
        ...     machine_of_rank=np.zeros(2, np.int32),
        ...     memory_server=np.full(2, -1, np.int32),
        ... ).validate()
        Traceback (most recent call last):
            ...
        astra_bridge.errors.InputError: program: tasks[0].template_index: is 0; nothing is allowed
        """
        from astra_bridge.program_rules import check_program

        check_program(self)
