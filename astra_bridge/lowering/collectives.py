# SPDX-License-Identifier: MIT
"""Collective nodes: each distinct collective once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.collectives import IMPLEMENTED, Kind
from astra_bridge.lowering.builder import ProgramBuilder
from astra_bridge.lowering.chunking import chunks_of
from astra_bridge.lowering.groups import Groups
from astra_bridge.lowering.phases import Change, ChosenAlgorithm, Phases
from astra_bridge.lowering.policies import Queued
from astra_bridge.lowering.scheduling import ordered, prioritised
from astra_bridge.lowering.view import Setting, TraceView
from astra_bridge.program import COLLECTIVE, Op
from astra_bridge.trace import MISSING, NodeType

if TYPE_CHECKING:
    from astra_bridge.lowering.custom import CustomCollectives

__all__ = ["Collectives"]

_GROUP = list(COLLECTIVE.fields or ()).index("group")
_LAST_KIND = int(max(Kind))


class Collectives:
    """The collectives of a Program.

    Attributes
    ----------
    warnings : list of str
    groups : Groups
    """

    def __init__(self, setting: Setting, builder: ProgramBuilder) -> None:
        self._setting, self._builder = setting, builder
        self.groups = Groups(setting, builder)
        self._phases = Phases(setting, builder, self.groups)
        self.warnings: list[str] = []
        self._custom: CustomCollectives | None = None
        self._index: dict[Any, int] = {}
        self._changes: dict[int, tuple[Change, ...]] = {}  # of collectives
        self._members: Counter[int] = Counter()  # ranks that run these
        self._replayed = 0

    def lower(self, view: TraceView, nodes: Any, duration_ps: NDArray[np.int64]) -> None:
        """Fill in the collective nodes of a trace."""
        trace = view.trace
        chosen = view.types == int(NodeType.COMM_COLL)
        which = np.flatnonzero(chosen)
        if not len(which):
            return
        kinds = view.required(chosen, "comm_type", 0, _LAST_KIND)
        needs_size = chosen.copy()
        needs_size[which] = kinds != int(Kind.BARRIER)
        view.required(needs_size, "comm_size", 0, 2**62)
        if "broadcast-is-replayed" in self._setting.semantics:
            replayed = which[kinds == Kind.BROADCAST]
            nodes["op"][replayed] = Op.DELAY
            nodes["duration_ps"][replayed] = duration_ps[replayed]
            self._replayed += len(replayed) * len(view.ranks)
            which, kinds = which[kinds != Kind.BROADCAST], kinds[kinds != Kind.BROADCAST]
            if not len(which):
                return
        positions = view.order[which]
        columns = [
            kinds,
            trace.comm_size[positions],
            trace.pg_name[positions].astype(np.int64),
            trace.involved_dim[positions].astype(np.int64),
            trace.comm_priority[positions],
            trace.root[positions],
        ]
        if self._setting.system.per_node_custom:
            ids = trace.node_id[positions].astype(np.int64)
            custom = np.isin(ids, list(self._setting.system.per_node_custom))
            columns.append(np.where(custom, ids, -1))
        rows = np.stack(columns, axis=1)
        first, inverse = _distinct(rows)
        indices = [
            self._collective(view, int(positions[at]), rows[at].tolist()) for at in first.tolist()
        ]
        arg = np.array(indices, np.int32)[inverse]
        nodes["op"][which] = np.where(arg < 0, int(Op.NOTHING), int(Op.COLLECTIVE))
        nodes["arg"][which] = arg
        if self._changes:
            for index, count in Counter(arg.tolist()).items():
                if index in self._changes:
                    self._members[index] += count * len(view.ranks)

    def _collective(self, view: TraceView, position: int, row: list[int]) -> int:
        """Index of a collective, or -1 where there is nothing to do."""
        number, size, pg_name, involved_dim, priority, root, *custom = row
        kind, system = Kind(number), self._setting.system
        group, ranks = self.groups.named(view, position, pg_name)
        involved = view.trace.involved_dims[involved_dim] if involved_dim >= 0 else ()
        root_position = 0
        if root != MISSING:
            if root not in ranks:
                view.refuse(f"root {root} is not a member of the group", position, "root")
            root_position = ranks.index(root)
        prefix = system.per_node_custom.get(custom[0]) if custom else None
        named = IMPLEMENTED.get(kind)
        if prefix is None and named is not None:
            prefix = system.custom.get(named)
        size = 0 if size == MISSING else size
        queued: float = 0 if priority == MISSING else priority
        rule = self._setting.choices.policy.priority
        if rule is not None:
            queued = rule(Queued(kind, size, tuple(ranks), int(queued)))
        # The peers of a custom collective are ranks, so no other group shares it.
        members = tuple(ranks) if prefix is not None else ()
        key = (kind, size, group, involved, queued, root_position, prefix, members)
        if key not in self._index:
            if prefix is not None and len(ranks) > 1:
                if view.trace.relative and len(ranks) < self._setting.ranks:
                    view.refuse(
                        "custom collectives of groups need one trace per rank; write the workload "
                        "with --per-rank",
                        position,
                    )
                graph = self._graphs(prefix, ranks)
                first = 0 if rule is None else queued
                self._index[key] = self._builder.collective(
                    1, 0, 0, group, first, graph, int(kind), size
                )
            else:
                where = f"{view.trace.file or 'the trace'}: {view.at(position)}"
                self._index[key] = self._native(
                    kind, size, group, involved, queued, root_position, where
                )
        return self._index[key]

    def _graphs(self, prefix: str, ranks: Sequence[int]) -> int:
        from astra_bridge.lowering.custom import CustomCollectives  # few runs need it

        if self._custom is None:
            self._custom = CustomCollectives(self._setting, self._builder, self.warnings)
        return self._custom.graphs(prefix, ranks)

    def _native(
        self,
        asked: Kind,
        size_bytes: int,
        group: int,
        involved: Sequence[bool],
        priority: float,
        root: int,
        where: str,
    ) -> int:
        """Append a collective of chunks, unless there is nothing to do: -1.

        That is so with one member, and where no dimension takes part.
        """
        # MPI's name for equal parts, which all parts are.
        block = asked == Kind.REDUCE_SCATTER_BLOCK
        kind = Kind.REDUCE_SCATTER if block else asked
        if self._builder.group_size(group) == 1:
            return -1
        specs = self._phases.specs(kind, group, involved, where)
        chunks, changes = chunks_of(kind, size_bytes, self._setting)
        left_out = self._phases.left_out(kind, group, involved)
        if not specs or not chunks:
            for change in left_out if chunks else ():
                self._setting.effects.note(*change)
            return -1
        orders = ordered(self._setting.choices.order, kind, specs, chunks)
        planned = [
            self._phases.plan(order, chunk, kind, root)
            for order, chunk in zip(orders, chunks, strict=True)
        ]
        plans = [plan for plan, _ in planned]
        changes += left_out
        for changed in dict(planned).values():
            changes += changed
        # Where chunks differ, their plans must stand side by side.
        first, count = self._builder.side_by_side(plans)
        index = self._builder.collective(
            len(chunks), first, count, group, priority, -1, int(asked), size_bytes
        )
        if changes:
            self._changes[index] = tuple(dict.fromkeys(changes))
        return index

    def algorithms(self) -> tuple[ChosenAlgorithm, ...]:
        """What algorithms that choose by themselves have chosen."""
        return tuple(self._phases.algorithms)

    def finished(self) -> dict[str, Any]:
        """Complete the rows of the builder; return the tables that it does not have."""
        if self._replayed:
            self._setting.effects.note(
                "broadcast-is-replayed", f"{self._replayed} broadcast(s) were replayed"
            )
        self.warnings += self._phases.remarks
        builder, policy = self._builder, self._setting.choices.policy
        for index, changes in self._changes.items():
            size = builder.group_size(builder.collectives[index][_GROUP])
            for change in changes:
                self._setting.effects.note(*change, max(1, self._members[index] // size))
        builder.collectives = prioritised(policy, builder.collectives)
        return {
            "alternate_slots": self._phases.slots,
            **self._phases.schedules.arrays(),
        }


def _distinct(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each distinct row stands first, in their order, and which of them each row is.

    As np.unique along an axis, which takes a tenth of a small run.
    """
    order = np.lexsort(rows.T[::-1])
    new = np.ones(len(rows), bool)
    new[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    inverse = np.empty(len(rows), np.int64)
    inverse[order] = np.cumsum(new) - 1
    return order[new], inverse
