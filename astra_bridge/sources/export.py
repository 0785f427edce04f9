# SPDX-License-Identifier: MIT
"""The one writer: a job's ranks as Chakra traces, and its groups as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from astra_bridge.sources.across import Job
from astra_bridge.sources.rank import Step
from astra_bridge.trace.columns import CommType, NodeType, Workload
from astra_bridge.trace.per_rank import write_per_rank
from astra_bridge.trace.reader import parse_trace
from astra_bridge.trace.schema import GlobalMetadata
from astra_bridge.trace.varint import varint
from astra_bridge.trace.writer import (
    VERSION,
    TraceNode,
    attribute_field,
    encode_any,
    encode_attribute,
    encode_node,
    frame_records,
    name_field,
)

__all__ = ["RecordedWorkload", "encoded_trace"]

_MOST_NAME = 160
_ROOTED = (CommType.BROADCAST, CommType.REDUCE, CommType.GATHER, CommType.SCATTER)


def encoded_trace(job: Job, rank: int) -> bytes:
    """The content of one rank's trace.

    The exact time of a node is its attribute ``duration_ns``.  Chakra's own field has whole
    microseconds: what is cut off from one is added to the next of its unit, so that sums are right
    for other tools too.
    """
    metadata = GlobalMetadata(version=VERSION).SerializeToString()
    return frame_records(chain([metadata], _records(job, rank)))


def _records(job: Job, rank: int) -> Iterator[bytes]:
    groups = {key: job.number(rank, key) for key in job.group_of[rank]}
    declared = {
        str(number): list(job.members(rank, key))
        for key, number in groups.items()
        if number is not None
    }
    first = 0
    if declared:
        entries = [{"pg_name": name, "ranks": ranks} for name, ranks in declared.items()]
        node = TraceNode(0, NodeType.METADATA, "## process_group:init ##")
        node.inputs_values = f"['{json.dumps(entries)}']"
        yield encode_any(node)
        first = 1
    known: dict[Any, bytes] = {}

    def attribute(name: str, value: object) -> bytes:
        key = name, value
        if key not in known:
            known[key] = attribute_field(name, value)
        return known[key]

    host = attribute_field("is_cpu_op", False), attribute_field("is_cpu_op", True)
    # With a value of 1, the last byte is the value.
    duration = encode_attribute("duration_ns", 1)[:-1]
    durations = [b"\x52" + varint(len(duration) + length) + duration for length in range(11)]
    owed_ns = [0, 0]
    reached_ns = -(2**62)
    chain_of: tuple[bytes, ...] = ()
    ids = [varint(i) for i in range(first)]
    for i, step in enumerate(job.ranks[rank].steps, first):
        ids.append(varint(i))
        took = step.duration_ns
        # What nodes of a kernel have in common.
        cpu = step.cpu
        alike = step.name, cpu, step.stream, step.thread
        fields = known.get(alike)
        if fields is None:
            name = step.name
            name = name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}..."
            fields = name_field(name) + host[cpu]
            if step.stream >= 0:
                fields += attribute_field("stream", step.stream)
            elif step.thread >= 0:
                fields += attribute_field("tid", step.thread)
            known[alike] = fields
        control: tuple[bytes, ...] = ()
        facts, ops = step.facts, step.ops
        if facts is not None:
            described = _communication(job, rank, i - first, step, groups[step.group])
            for name, value in described.items():
                fields += attribute(name, value)
            if step.type != NodeType.COMM_RECV:
                # The calls of a rank in their order: what all ranks agree on, and what keeps
                # one unit for communication from standing still.  Where several overlap, each
                # has the time that the ones before it do not cover.
                control, chain_of = chain_of, (ids[i],)
                end = step.start_ns + took
                took = max(0, end - max(step.start_ns, reached_ns))
                reached_ns = max(reached_ns, end)
            micros = round(took / 1000)
        else:
            total = owed_ns[cpu] + took
            micros = max(0, round(total / 1000))
            owed_ns[cpu] = total - 1000 * micros
            if ops >= 0 or step.moved_bytes >= 0 or step.kernels:
                fields += _work(step, attribute)
        if ops < 0:
            number = varint(took)
            fields += durations[len(number)] + number
        deps = step.deps
        if len(deps) == 1:
            packed = ids[deps[0] + first]
        else:
            packed = b"".join([ids[dep + first] for dep in deps])
        yield encode_node(ids[i], step.type, micros, packed, b"".join(control), fields)


def _work(step: Step, attribute: Callable[[str, object], bytes]) -> bytes:
    """What a compute model needs to know of a step."""
    given = {
        "num_ops": step.ops if step.ops >= 0 else None,
        "tensor_size": step.moved_bytes if step.moved_bytes >= 0 else None,
        "kernels": step.kernels or None,
    }
    return b"".join(attribute(key, value) for key, value in given.items() if value is not None)


def _communication(
    job: Job, rank: int, i: int, step: Step, number: int | None
) -> dict[str, object]:
    assert step.facts is not None
    found: dict[str, object] = {"comm_size": step.bytes}
    if number is not None:
        found["pg_name"] = str(number)
    if step.type == NodeType.COMM_SEND:
        return found | {"comm_dst": job.peer_of[rank][i], "comm_tag": number or 0}
    if step.type == NodeType.COMM_RECV:
        return found | {"comm_src": job.peer_of[rank][i], "comm_tag": number or 0}
    kind = CommType(step.facts.kind)  # type: ignore[arg-type]
    found["comm_type"] = int(kind)
    root = step.facts.root
    if kind in _ROOTED and root is not None:
        members = job.members(rank, step.group)
        found["root_rank"] = members[root] if root < len(members) else root
    return found


class RecordedWorkload:
    """A job that can be written, or simulated at once."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def _encoded(self) -> Iterator[bytes]:
        """The content of each rank's file; ranks that do the same are encoded once."""
        job = self.job
        known: dict[object, bytes] = {}
        for rank in range(job.size):
            key = (
                id(job.ranks[rank]),
                tuple(sorted(job.group_of[rank].items())),
                tuple(sorted(job.peer_of[rank].items())),
            )
            if key not in known:
                known[key] = encoded_trace(job, rank)
            yield known[key]

    def workload(self) -> Workload:
        """What a simulation takes, without files."""
        index: dict[bytes, int] = {}
        ranks = [index.setdefault(data, len(index)) for data in self._encoded()]
        return Workload(tuple(parse_trace(data) for data in index), np.array(ranks, np.int32))

    def write(self, prefix: str | Path) -> list[Path]:
        """Write ``{prefix}.{rank}.et``, and ``{prefix}.comm_group.json`` if there are groups.

        Returns
        -------
        list of Path
            The files, traces first.

        Raises
        ------
        InputError
            The folder cannot be written to.
        """
        groups = {number: ranks for (_, ranks), number in self.job.numbers.items()}
        return write_per_rank(prefix, self._encoded(), groups)
