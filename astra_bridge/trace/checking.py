# SPDX-License-Identifier: MIT
"""What is wrong with a set of traces, without a network or a system: ``trace check``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from astra_bridge.inputs.groups import GroupKey, group_key
from astra_bridge.text import one_line
from astra_bridge.trace.columns import MISSING, CommType, NodeType, TraceColumns, Workload

__all__ = ["Finding", "check_workload", "group_members"]

_MOST = 3
_GROUP_TWO = 2
_SIZELESS = (CommType.BARRIER,)
_ROOTED = (CommType.BROADCAST, CommType.REDUCE, CommType.GATHER, CommType.SCATTER)


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong or odd.

    Attributes
    ----------
    stops : bool
        A simulation would refuse it, or stand still.
    what : str
        How many of what, and the first.
    repair : str
        What would help; "" where only another recording does.
    """

    stops: bool
    what: str
    repair: str = ""


class _Findings:
    """Collects what is found, each kind once."""

    def __init__(self) -> None:
        self._count: Counter[tuple[bool, str, str]] = Counter()
        self._first: dict[tuple[bool, str, str], str] = {}

    def add(self, stops: bool, what: str, where: str, repair: str = "", times: int = 1) -> None:
        key = stops, what, repair
        self._count[key] += times
        self._first.setdefault(key, where)

    def all(self) -> list[Finding]:
        found = [
            Finding(stops, f"{self._count[key]:,} x {what} (first: {self._first[key]})", repair)
            for key in self._count
            for stops, what, repair in [key]
        ]
        return sorted(found, key=lambda one: not one.stops)


def group_members(
    trace: TraceColumns, name: str, groups: Mapping[GroupKey, Sequence[int]], ranks: int, rank: int
) -> tuple[int, ...] | None:
    """The ranks that a ``pg_name`` stands for in the trace of a rank; None: nothing defines it."""
    declared = next((g for g in reversed(trace.process_groups) if g.name == name), None)
    key = group_key(name)
    if declared is not None:
        return declared.members(rank) or tuple(range(ranks))
    if key in groups:
        return tuple(groups[key])
    return tuple(range(ranks)) if name == "" or key == 0 else None


def check_workload(
    workload: Workload, groups: Mapping[GroupKey, Sequence[int]] | None = None
) -> list[Finding]:
    """Look for what is wrong with the traces of all ranks.

    Parameters
    ----------
    workload : Workload
    groups : mapping of int or str to sequence of int
        Communicator groups of a file.

    Returns
    -------
    list of Finding
        What stops a simulation first.

    Examples
    --------
    >>> from astra_bridge.workload import collective
    >>> check_workload(collective("all-reduce", 1024, 4).workload())
    []
    """
    checker = _Checker(workload, groups or {})
    checker.traces()
    checker.messages()
    checker.collectives()
    return checker.found.all()


class _Checker:
    def __init__(self, workload: Workload, groups: Mapping[GroupKey, Sequence[int]]) -> None:
        self.workload, self.groups = workload, groups
        self.found = _Findings()
        self.ranks = workload.ranks
        for said in workload.warnings:
            self.found.add(False, "what the reader of the files says", said)

    def _each(self, kinds: Sequence[NodeType]) -> Iterator[tuple[int, TraceColumns, list[int]]]:
        """Rank, trace and positions of nodes of some kinds, in the order of their ids."""
        known: dict[int, list[int]] = {}
        for rank, index in enumerate(self.workload.rank_to_columns.tolist()):
            trace = self.workload.columns[index]
            if index not in known:
                which = np.flatnonzero(np.isin(trace.type, kinds))
                known[index] = which[np.argsort(trace.node_id[which], kind="stable")].tolist()
            yield rank, trace, known[index]

    def _members(self, rank: int, trace: TraceColumns, name: str) -> tuple[int, ...] | None:
        return group_members(trace, name, self.groups, self.ranks, rank)

    def _at(self, rank: int, trace: TraceColumns, position: int) -> str:
        name = one_line(trace.name(position), 60)
        return f"rank {rank}, node {trace.node_id[position]} {name}".rstrip()

    # One trace at a time

    def traces(self) -> None:
        """What can be said of each trace alone."""
        for trace in self.workload.columns:
            file = str(trace.file or "trace")
            if trace.unknown_callers:
                self.found.add(
                    False, "ctrl_deps on nodes that the trace does not have: not waited for", file,
                    times=trace.unknown_callers,
                )  # fmt: skip
            stuck = _circle(trace, np.ones(len(trace.dep), np.bool_))
            if stuck and not _circle(trace, ~trace.dep_is_control):
                self.found.add(False, "ctrl_deps in a circle: none of the trace's orders", file)
            elif stuck:
                self.found.add(True, f"nodes wait for one another in a circle: {stuck[:8]}", file)
            untimed = trace.untimed & (trace.type == NodeType.COMP)
            silent, host = untimed & ~trace.is_cpu_op, untimed & trace.is_cpu_op
            modelled = silent & (trace.num_ops != MISSING) & (trace.tensor_size != MISSING)
            if modelled.any():
                self.found.add(
                    False, "compute nodes with operations in place of a duration", file,
                    '"roofline-enabled": 1 with peak-perf and local-mem-bw in the system file',
                    int(modelled.sum()),
                )  # fmt: skip
            if host.any():
                self.found.add(
                    False, "operators of the host without a duration, which take 1 ns", file,
                    times=int(host.sum()),
                )  # fmt: skip
            if (silent & ~modelled).any():
                self.found.add(
                    False, "compute nodes without a duration, which take 1 ns", file,
                    "convert the recording again with its Kineto trace",
                    int((silent & ~modelled).sum()),
                )  # fmt: skip

    # Messages

    def messages(self) -> None:
        """Peers, and whether both ends fit."""
        sent: dict[tuple[int, ...], list[str]] = defaultdict(list)
        received: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for rank, trace, positions in self._each((NodeType.COMM_SEND, NodeType.COMM_RECV)):
            for at in positions:
                sends = trace.type[at] == NodeType.COMM_SEND
                where = self._at(rank, trace, at)
                peer = self._peer(rank, trace, at, bool(sends), where)
                size, tag = int(trace.comm_size[at]), int(trace.comm_tag[at])
                if size < 1:
                    self.found.add(True, "messages without a size", where)
                if peer is None or size < 1:
                    continue
                tag = 0 if tag == MISSING else tag
                ends = (rank, peer) if sends else (peer, rank)
                message = (*ends, tag, size)
                (sent if sends else received)[message].append(where)
        for key in sorted({*sent, *received}):
            out, back = sent.get(key, []), received.get(key, [])
            source, target, tag, size = key
            what = f"{size:,} B from {source} to {target} with tag {tag}"
            for more, fewer, problem in (
                (out, back, "messages that nobody receives"),
                (back, out, "receives of what nobody sends"),
            ):
                if len(more) > len(fewer):
                    self.found.add(
                        True, problem, f"{more[len(fewer)]}: {what}",
                        self._other_size(key, received if more is out else sent),
                        len(more) - len(fewer),
                    )  # fmt: skip

    def _other_size(self, key: tuple[int, ...], others: Mapping[tuple[int, ...], list[str]]) -> str:
        """A hint, where the other end differs in size or tag."""
        near = [k for k in others if k[:2] == key[:2] and k != key and others[k]]
        if not near:
            return ""
        _, _, tag, size = near[0]
        return f"the other end has {size:,} B with tag {tag}: sizes and tags must be the same"

    def _peer(self, rank: int, trace: TraceColumns, at: int, sends: bool, where: str) -> int | None:
        column = "comm_dst" if sends else "comm_src"
        peer = int(getattr(trace, column)[at])
        if peer == MISSING:
            name = trace.strings[trace.pg_name[at]] if trace.pg_name[at] >= 0 else ""
            members = self._members(rank, trace, name) if name else None
            if members is not None and len(members) == _GROUP_TWO and rank in members:
                self.found.add(
                    False, "messages without a peer, in groups of two: to the other member", where
                )
                return members[0] if members[1] == rank else members[1]
            self.found.add(
                True, f"messages without {column}", where,
                "convert the recordings of all ranks again: astra-bridge trace convert",
            )  # fmt: skip
            return None
        if trace.relative:
            peer = (rank + peer) % self.ranks
        if not 0 <= peer < self.ranks:
            self.found.add(
                True, "messages to ranks that do not exist", f"{where}: {column} is {peer}",
                f"a network of at least {peer + 1} ranks",
            )  # fmt: skip
            return None
        if peer == rank:
            self.found.add(True, "messages of a rank to itself", where)
            return None
        return peer

    # Collectives

    def collectives(self) -> None:
        """Groups, sizes, and the order across ranks."""
        lines: dict[Any, dict[int, list[tuple[int, int, str]]]] = defaultdict(dict)
        orders: list[list[tuple[Any, int]]] = []
        for rank, trace, positions in self._each((NodeType.COMM_COLL,)):
            order: list[tuple[Any, int]] = []
            for at in positions:
                kind = int(trace.comm_type[at])
                if kind == MISSING and trace.is_cpu_op[at]:
                    continue  # the call of the host
                where = self._at(rank, trace, at)
                name = trace.strings[trace.pg_name[at]] if trace.pg_name[at] >= 0 else ""
                members = self._members(rank, trace, name)
                if not self._sound(rank, trace, at, kind, name, members, where):
                    continue
                assert members is not None
                key = group_key(name) if name else 0, members
                line = lines[key].setdefault(rank, [])
                order.append((key, len(line)))
                line.append((kind, max(int(trace.comm_size[at]), 0), where))
            orders.append(order)
        self._compare(lines)
        self._order(orders)

    def _sound(
        self,
        rank: int,
        trace: TraceColumns,
        at: int,
        kind: int,
        name: str,
        members: tuple[int, ...] | None,
        where: str,
    ) -> bool:
        if kind == MISSING or not 0 <= kind < len(CommType):
            self.found.add(True, "collectives without a known comm_type", where)
            return False
        if trace.comm_size[at] == MISSING and kind not in _SIZELESS:
            self.found.add(True, "collectives without comm_size", where)
            return False
        if members is None:
            self.found.add(
                True, "collectives of groups that nothing defines", f"{where}: {one_line(name)}",
                "give the file of groups: --comm-group-configuration",
            )  # fmt: skip
            return False
        if rank not in members:
            said = f"{where}: group {one_line(name)} is {list(members[:8])}"
            self.found.add(True, "collectives of groups that the rank is not in", said)
            return False
        if max(members) >= self.ranks:
            self.found.add(
                True, "groups with ranks that do not exist", f"{where}: rank {max(members)}",
                f"a network of at least {max(members) + 1} ranks",
            )  # fmt: skip
            return False
        root = int(trace.root[at])
        if kind in _ROOTED and root != MISSING and root not in members:
            self.found.add(True, "roots that are not in the group", f"{where}: root {root}")
        return True

    def _compare(self, lines: Mapping[Any, Mapping[int, list[tuple[int, int, str]]]]) -> None:
        """Members of a group must run the same collectives in the same order."""
        for (key, members), per_rank in lines.items():
            first = per_rank.get(members[0], [])
            for rank in members[1:]:
                line = per_rank.get(rank, [])
                at = next(
                    (
                        k
                        for k, (a, b) in enumerate(zip(first, line, strict=False))
                        if a[:2] != b[:2]
                    ),
                    min(len(first), len(line)),
                )
                if at == len(first) == len(line):
                    continue
                ours, theirs = _said(line, at), _said(first, at)
                self.found.add(
                    True, "groups whose members do not run the same collectives",
                    f"group {key}, collective {at}: {theirs} on rank {members[0]}, {ours} on rank "
                    f"{rank} ({len(first)} and {len(line)} in all)",
                    "record all ranks over the same steps",
                )  # fmt: skip
                break

    def _order(self, orders: Sequence[Sequence[tuple[Any, int]]]) -> None:
        """Ranks that run collectives of several groups in different orders may wait for ever."""
        after: dict[Any, set[Any]] = defaultdict(set)
        waiting: Counter[Any] = Counter()
        for order in orders:
            for one, following in pairwise(order):
                if following not in after[one]:
                    after[one].add(following)
                    waiting[following] += 1
        everything = {one for order in orders for one in order}
        free = [one for one in everything if not waiting[one]]
        done = 0
        while free:
            done += 1
            for following in after[free.pop()]:
                waiting[following] -= 1
                if not waiting[following]:
                    free.append(following)
        if done < len(everything):
            stuck = sorted(str(key[0][0]) for key in everything if waiting[key] > 0)
            self.found.add(
                False, "collectives of several groups in different orders on different ranks",
                f"groups {', '.join(sorted(set(stuck))[:8])}: where a rank runs one at a time, "
                "they may wait for one another for ever",
                "--semantics corrected lets them run side by side",
            )  # fmt: skip


def _said(line: Sequence[tuple[int, int, str]], at: int) -> str:
    if at >= len(line):
        return "nothing"
    kind, size, _ = line[at]
    return f"{CommType(kind).name.lower().replace('_', '-')} of {size:,} B"


def _circle(trace: TraceColumns, counts: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    """Ids of nodes that wait for one another."""
    children = np.repeat(np.arange(len(trace)), np.diff(trace.dep_start))[counts]
    parents = trace.dep[counts]
    if not (parents >= children).any():
        return []
    after: dict[int, list[int]] = defaultdict(list)
    waiting = np.bincount(children, minlength=len(trace)).tolist()
    for parent, child in zip(parents.tolist(), children.tolist(), strict=True):
        after[parent].append(child)
    free = [i for i, count in enumerate(waiting) if not count]
    done = 0
    while free:
        done += 1
        for child in after[free.pop()]:
            waiting[child] -= 1
            if not waiting[child]:
                free.append(child)
    if done == len(trace):
        return []
    return [int(trace.node_id[i]) for i, count in enumerate(waiting) if count]
