# SPDX-License-Identifier: MIT
"""Where the time and the bytes of a set of traces are: ``trace show``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.inputs.groups import GroupKey
from astra_bridge.text import one_line
from astra_bridge.trace.checking import group_members
from astra_bridge.trace.columns import MISSING, CommType, NodeType, TraceColumns, Workload

__all__ = ["Communication", "Overview", "Work", "duration_ns", "overview"]


class Work(msgspec.Struct):
    """Compute nodes of one name.

    Attributes
    ----------
    name : str
    count : int
        Over all ranks.
    time_ns : int
        Their durations, over all ranks.
    """

    name: str
    count: int = 0
    time_ns: int = 0


class Communication(msgspec.Struct):
    """Communication of one kind in groups of one size.

    Attributes
    ----------
    kind : str
    members : int
        Size of the group; 2 of messages, 0 where the group is not defined.
    count, bytes : int
        Nodes over all ranks, and the sum of their buffers: of an all-gather what all have in the
        end, of anything else ``comm_size``.
    time_ns : int
        Their recorded durations.
    """

    kind: str
    members: int
    count: int = 0
    bytes: int = 0
    time_ns: int = 0


class Overview(msgspec.Struct):
    """What is in a set of traces.

    Attributes
    ----------
    ranks, traces, nodes : int
        Ranks, distinct traces among them, and nodes over all ranks.
    gpu_ns, cpu_ns : ndarray of int64, shape (ranks,)
        Recorded compute of each rank.
    work : list of Work
        GPU compute by name, the longest first.
    communication : list of Communication
        The most bytes first.
    """

    ranks: int
    traces: int
    nodes: int
    gpu_ns: NDArray[np.int64]
    cpu_ns: NDArray[np.int64]
    work: list[Work]
    communication: list[Communication]


def duration_ns(trace: TraceColumns) -> NDArray[np.int64]:
    """Recorded durations of all nodes; 0 where there is none."""
    exact = trace.duration_ns
    return np.where(exact == MISSING, np.minimum(trace.duration_micros, 2**53) * 1000, exact)


def overview(
    workload: Workload, groups: Mapping[GroupKey, Sequence[int]] | None = None
) -> Overview:
    """Add up time and bytes of the traces of all ranks.

    Parameters
    ----------
    workload : Workload
    groups : mapping of int or str to sequence of int
        Communicator groups of a file.

    Examples
    --------
    >>> from astra_bridge.workload import collective
    >>> found = overview(collective("all-reduce", 1024, 4).workload())
    >>> found.communication
    [Communication(kind='all-reduce', members=4, count=4, bytes=4096, time_ns=0)]
    """
    counts = np.bincount(workload.rank_to_columns, minlength=len(workload.columns)).tolist()
    work: dict[str, Work] = {}
    communication: dict[tuple[str, int], Communication] = {}
    sums: list[tuple[int, int]] = []
    for trace, ranks in zip(workload.columns, counts, strict=True):
        took = duration_ns(trace)
        compute = trace.type == NodeType.COMP
        gpu = compute & ~trace.is_cpu_op
        sums.append((int(took[gpu].sum()), int(took[compute & trace.is_cpu_op].sum())))
        for at in np.flatnonzero(gpu).tolist():
            name = one_line(trace.name(at), 200)
            one = work.setdefault(name, Work(name))
            one.count += ranks
            one.time_ns += ranks * int(took[at])
        _communication(trace, ranks, took, groups or {}, workload.ranks, communication)
    per_rank = np.array(sums, np.int64).reshape(-1, 2)[workload.rank_to_columns]
    return Overview(
        ranks=workload.ranks,
        traces=len(workload.columns),
        nodes=sum(len(t) * n for t, n in zip(workload.columns, counts, strict=True)),
        gpu_ns=per_rank[:, 0],
        cpu_ns=per_rank[:, 1],
        work=sorted(work.values(), key=lambda one: -one.time_ns),
        communication=sorted(communication.values(), key=lambda one: -one.bytes),
    )


_MESSAGES = {NodeType.COMM_SEND: "send", NodeType.COMM_RECV: "receive"}


def _communication(
    trace: TraceColumns,
    ranks: int,
    took: NDArray[np.int64],
    groups: Mapping[GroupKey, Sequence[int]],
    world: int,
    found: dict[tuple[str, int], Communication],
) -> None:
    members: dict[int, int] = defaultdict(int)
    for index, name in enumerate(("", *trace.strings)):
        members[index - 1] = len(group_members(trace, name, groups, world, 0) or ())
    which = np.isin(trace.type, [NodeType.COMM_COLL, *_MESSAGES])
    for at in np.flatnonzero(which).tolist():
        kind = _MESSAGES.get(NodeType(int(trace.type[at])))
        size = 2
        if kind is None:
            number = int(trace.comm_type[at])
            if number not in list(CommType):
                continue
            kind = CommType(number).name.lower().replace("_", "-")
            size = members[int(trace.pg_name[at])]
        one = found.setdefault((kind, size), Communication(kind, size))
        one.count += ranks
        parts = size if trace.comm_type[at] == CommType.ALL_GATHER else 1
        one.bytes += ranks * parts * max(int(trace.comm_size[at]), 0)
        one.time_ns += ranks * int(took[at])
