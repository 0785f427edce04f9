# SPDX-License-Identifier: MIT
"""Several jobs as one workload: ``trace merge``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from astra_bridge.errors import InputError
from astra_bridge.inputs.groups import GroupKey, group_key
from astra_bridge.text import one_line
from astra_bridge.trace.checking import group_members
from astra_bridge.trace.columns import MISSING, NodeType, TraceColumns, Workload
from astra_bridge.trace.writer import TraceNode
from astra_bridge.workload.builder import GeneratedWorkload, Kinds, TraceBuilder

__all__ = ["Part", "merge"]


class Part(msgspec.Struct, frozen=True, eq=False):
    """A job that becomes a part of a workload.

    Attributes
    ----------
    workload : Workload
    groups : mapping of int or str to sequence of int
        Its communicator groups, of a file.
    ranks : tuple of int, or None
        The rank of the whole that each of its ranks becomes; None is behind the part before it.
    name : str
        What messages call it.
    """

    workload: Workload
    groups: Mapping[GroupKey, Sequence[int]] = {}
    ranks: tuple[int, ...] | None = None
    name: str = ""


def merge(parts: Sequence[Part]) -> GeneratedWorkload:
    """Join jobs to one workload, whose ranks without a job are idle.

    Nodes keep their names, times and dependencies.  Ranks become those of the whole, and groups
    get new numbers: what all ranks of a job did is done by the group of these.

    Parameters
    ----------
    parts : sequence of Part

    Returns
    -------
    GeneratedWorkload
        Ranks that do the same share a trace.

    Raises
    ------
    InputError
        Two jobs are on one rank, or a group is not defined.

    Examples
    --------
    >>> from astra_bridge.workload import collective
    >>> four, two = (collective("all-reduce", 1024, ranks).workload() for ranks in (4, 2))
    >>> joined = merge([Part(four), Part(two)])
    >>> joined.ranks, joined.comm_groups
    (6, {1: (0, 1, 2, 3), 2: (4, 5)})
    """
    places = _places(parts)
    total = max((max(place) + 1 for place in places), default=0)
    whole = _Whole(total)
    for part, place in zip(parts, places, strict=True):
        whole.add(part, place)
    in_turn = all(trace.in_turn for part in parts for trace in part.workload.columns)
    return replace(whole.made(), in_turn=in_turn)


def _places(parts: Sequence[Part]) -> list[tuple[int, ...]]:
    places: list[tuple[int, ...]] = []
    job_of: dict[int, str] = {}
    behind = 0
    for number, part in enumerate(parts):
        name = part.name or f"job {number}"
        place = part.ranks
        if place is None:
            place = tuple(range(behind, behind + part.workload.ranks))
        if len(place) != part.workload.ranks:
            raise InputError(
                f"has {part.workload.ranks} ranks, and {len(place)} places are given", key=name
            )
        for rank in place:
            if rank in job_of:
                raise InputError(f"rank {rank} has a job already: {job_of[rank]}", key=name)
            job_of[rank] = name
        behind = max(behind, *(rank + 1 for rank in place))
        places.append(place)
    return places


class _Whole:
    def __init__(self, total: int) -> None:
        self.total = total
        self._kinds: list[TraceBuilder] = []
        self._kind_of = np.full(total, -1, np.int32)
        self._numbers: dict[tuple[int, Any, tuple[int, ...]], int] = {}
        self._jobs = 0

    def add(self, part: Part, place: tuple[int, ...]) -> None:
        """Add a job: a trace for each kind of rank that it has in the whole."""
        known: dict[Any, int] = {}
        for rank, index in enumerate(part.workload.rank_to_columns.tolist()):
            trace = part.workload.columns[index]
            names = self._names(part, place, rank, trace)
            # A peer that counts from the own rank on is another one on each rank.
            own = rank if trace.relative and _messages(trace) else -1
            key = (index, tuple(names.items()), own)
            if key not in known:
                known[key] = len(self._kinds)
                self._kinds.append(_renamed(trace, names, place, rank))
            self._kind_of[place[rank]] = known[key]
        self._jobs += 1

    def made(self) -> GeneratedWorkload:
        """All jobs."""
        idle = self._kind_of < 0
        if idle.any():
            self._kind_of[idle] = len(self._kinds)
            self._kinds.append(TraceBuilder())
        groups = {number: ranks for (_, _, ranks), number in self._numbers.items()}
        alike, kinds = _distinct(self._kinds)
        return GeneratedWorkload(Kinds(kinds, alike[self._kind_of]), groups)

    def _names(
        self, part: Part, place: tuple[int, ...], rank: int, trace: TraceColumns
    ) -> dict[str, str | None]:
        """What each group of a trace is called in the whole; None is all ranks."""
        found: dict[str, str | None] = {}
        everyone = tuple(range(part.workload.ranks))
        for name in ("", *trace.strings):
            members = group_members(trace, name, part.groups, part.workload.ranks, rank)
            if members is None:
                raise InputError(
                    f"nothing defines group {one_line(name)}, which rank {rank} uses",
                    file=trace.file, key=part.name or None,
                )  # fmt: skip
            ranks = tuple(place[member] for member in members if member < len(place))
            if len(ranks) < len(members):
                raise InputError(
                    f"group {one_line(name)} has rank {max(members)}, and there are {len(place)}",
                    file=trace.file, key=part.name or None,
                )  # fmt: skip
            key = group_key(name) if name else 0
            world = key == 0 and members == everyone
            if world and len(ranks) == self.total and ranks == tuple(range(self.total)):
                found[name] = None
                continue
            if not _used(trace, name):
                continue
            number = self._numbers.setdefault(
                (self._jobs, 0 if world else key, ranks), len(self._numbers) + 1
            )
            found[name] = str(number)
        return found


def _messages(trace: TraceColumns) -> bool:
    return bool(((trace.comm_src != MISSING) | (trace.comm_dst != MISSING)).any())


def _used(trace: TraceColumns, name: str) -> bool:
    """Whether a collective, or a message without a peer, is in a group of this name."""
    if name:
        return True
    return bool(((trace.type == int(NodeType.COMM_COLL)) & (trace.pg_name < 0)).any())


def _renamed(
    trace: TraceColumns, names: Mapping[str, str | None], place: tuple[int, ...], rank: int
) -> TraceBuilder:
    made = TraceBuilder()
    ids = trace.node_id.tolist()
    starts, deps = trace.dep_start.tolist(), trace.dep.tolist()
    control = trace.dep_is_control.tolist()
    peers = {name: getattr(trace, name).tolist() for name in ("comm_src", "comm_dst")}
    for i, kind in enumerate(trace.type.tolist()):
        details = trace.read_details(i)
        attributes: dict[str, Any] = dict(details.attributes)
        for name, values in peers.items():
            if values[i] != MISSING and name in attributes:
                peer = (rank + values[i]) % len(place) if trace.relative else values[i]
                attributes[name] = _at(place, peer, trace, ids[i], name)
        for name in ("root_rank", "comm_root"):
            if name in attributes:
                attributes[name] = _at(place, int(attributes[name]), trace, ids[i], name)
        if kind in _IN_GROUPS:
            group = names.get(attributes.pop("pg_name", "") or "")
            if group is not None and (kind == NodeType.COMM_COLL or trace.pg_name[i] >= 0):
                attributes["pg_name"] = group
        parents = range(starts[i], starts[i + 1])
        made.nodes.append(
            TraceNode(
                id=ids[i],
                type=NodeType(kind),
                name=details.name,
                duration_micros=int(trace.duration_micros[i]),
                data_deps=[ids[deps[at]] for at in parents if not control[at]],
                ctrl_deps=[ids[deps[at]] for at in parents if control[at]],
                attributes=attributes,
                # Groups that a node declares are in the file of groups now.
                inputs_values="" if "pg_name" in details.inputs_values else details.inputs_values,
            )
        )
    return made


_IN_GROUPS = (NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV)


def _at(place: tuple[int, ...], rank: int, trace: TraceColumns, node: int, key: str) -> int:
    if not 0 <= rank < len(place):
        raise InputError(
            f"rank {rank} does not exist: the job has {len(place)}", file=trace.file,
            key=f"node {node}: {key}",
        )  # fmt: skip
    return place[rank]


def _distinct(kinds: Sequence[TraceBuilder]) -> tuple[Any, list[TraceBuilder]]:
    """The different ones of some traces, and for each trace which it is."""
    found: dict[int, int] = {}
    different: list[TraceBuilder] = []
    which = np.zeros(len(kinds), np.int32)
    for index, trace in enumerate(kinds):
        content = trace.content_hash()
        if content not in found:
            found[content] = len(different)
            different.append(trace)
        which[index] = found[content]
    return which, different
