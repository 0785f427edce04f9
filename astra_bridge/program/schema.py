# SPDX-License-Identifier: MIT
"""The records of a Program: the one source of their layout, from which the C++ structs are made."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any

import numpy as np

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
    "QueuePick",
    "Unit",
    "Variant",
    "WaitFor",
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
    REDUCED = 2  # as RELATIVE; the network reduces what all members send, and each gets the result


class GraphOp(IntEnum):
    SEND = 0
    RECV = 1
    DELAY = 2


class Inside(IntEnum):
    """What an engine keeps of what goes on inside collectives."""

    NOTHING = 0
    CHUNKS = 1  # when each chunk was in each phase
    MESSAGES = 2  # and when each message was on its way


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

STAY = _struct(
    ("entered_ps", "<i8"),  # when it came to the queue of the phase
    ("start_ps", "<i8"),  # -1: it never started
    ("end_ps", "<i8"),  # -1: it never ended
    ("task", "<i4"),
    ("node", "<i4"),  # local node of the template
    ("chunk", "<i4"),  # which of the collective
    ("phase", "<i4"),  # index, or -1: a custom collective
    ("queue", "<i4"),  # of the rank: level * queues_per_level + its number there
)
"""What an engine says of one chunk of a collective in one phase on one rank."""

DELIVERY = _struct(
    ("start_ps", "<i8"),
    ("end_ps", "<i8"),  # -1: it never arrived
    ("bytes", "<i8"),
    ("sender", "<i8"),  # the stay that sent it; -2 - n: node n of all tasks
    ("receiver", "<i8"),  # likewise; -1: nobody asked for it
    ("src", "<i4"),
    ("dst", "<i4"),
    ("control", "<i4"),  # 1: of the rendezvous protocol, for whoever then sends
)
"""What an engine says of one message."""

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
