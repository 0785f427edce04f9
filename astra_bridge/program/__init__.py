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

from astra_bridge.program.program import Program
from astra_bridge.program.schema import (
    COLLECTIVE,
    DELIVERY,
    DONE,
    ENUMS,
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
    RANK_TABLES,
    SCHEDULE,
    SLOWDOWN,
    STAY,
    STEP,
    TASK,
    TEMPLATE,
    WAIT,
    Bus,
    BusModel,
    GraphOp,
    Inside,
    Op,
    PacketFlag,
    Peers,
    Policy,
    QueuePick,
    Unit,
    Variant,
    WaitFor,
)
from astra_bridge.program.tables import Tables, machine, one_job, tasks

__all__ = [
    "Bus",
    "BusModel",
    "COLLECTIVE",
    "DELIVERY",
    "DONE",
    "ENUMS",
    "FAMILY",
    "GRAPH",
    "GRAPH_NODE",
    "GROUP",
    "GraphOp",
    "Inside",
    "JOB",
    "MACHINE",
    "MESSAGE",
    "NODE",
    "Op",
    "PACKET",
    "PHASE",
    "PLAN",
    "PacketFlag",
    "Peers",
    "Policy",
    "Program",
    "QueuePick",
    "RANK_TABLES",
    "SCHEDULE",
    "SLOWDOWN",
    "STAY",
    "STEP",
    "TASK",
    "TEMPLATE",
    "Tables",
    "Unit",
    "Variant",
    "WAIT",
    "WaitFor",
    "machine",
    "one_job",
    "tasks",
]
