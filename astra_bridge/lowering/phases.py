# SPDX-License-Identifier: MIT
"""The phases of a chunk: which dimension it visits, and with which algorithm.

This is where ASTRA-sim's rules for dimensions and queues live (docs/semantics.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from astra_bridge.collectives import IMPLEMENTED, Algorithm, Chosen, Kind, Request, default
from astra_bridge.errors import InputError
from astra_bridge.lowering.builder import ProgramBuilder
from astra_bridge.lowering.groups import WORLD, Groups
from astra_bridge.lowering.schedules import Schedules
from astra_bridge.lowering.view import FAST_DELAY_NS, Setting
from astra_bridge.program import Bus, QueuePick, Variant
from astra_bridge.records import Record, replace

__all__ = ["Change", "ChosenAlgorithm", "Dimension", "PhaseSpec", "Phases"]

Change = tuple[str, str]
"""A quirk that makes a difference, and which one."""

_MOST_BYTES = 2**62


class ChosenAlgorithm(NamedTuple):
    """What an algorithm that chooses by itself, such as nccl, has chosen.

    Attributes
    ----------
    collective : str
        What the phase does, such as "all-reduce".
    ranks : int
    bytes : int
        Of the phase: as :class:`~astra_bridge.collectives.Request` counts them.
    dimension : int
        Of the network.
    chosen : str
        Algorithm, protocol and channels.
    """

    collective: str
    ranks: int
    bytes: int
    dimension: int
    chosen: str


class Dimension(Record, frozen=True):
    """One dimension of a logical topology: its algorithm and who takes part."""

    algorithm: Algorithm
    window: int
    size: int
    layout: int  # group index
    level: int  # whose queues it uses
    bandwidth: float = 1.0  # relative, for greedy scheduling
    subgroup: bool = False  # of a communicator group, not of the world
    asked: Chosen | None = None  # what the system names in its place


class PhaseSpec(Record, frozen=True):
    """What a phase does, in which dimension, and which of its queues it enters."""

    kind: Kind
    dimension: Dimension
    pick: QueuePick


class Phases:
    """From a collective to the phases of its chunks, and from these to plans."""

    def __init__(self, setting: Setting, builder: ProgramBuilder, groups: Groups) -> None:
        self._setting, self._builder, self._groups = setting, builder, groups
        self.schedules = Schedules(setting.system)
        self._plans: dict[Any, tuple[int, tuple[Change, ...]]] = {}
        self._slots: dict[Any, int] = {}
        self.algorithms: dict[ChosenAlgorithm, None] = {}
        self.remarks: dict[str, None] = {}

    @property
    def slots(self) -> int:
        """Number of ALTERNATE counters per rank."""
        return len(self._slots)

    def specs(
        self, kind: Kind, group: int, involved: Sequence[bool], where: str
    ) -> list[PhaseSpec]:
        """The phases of a collective, in ASTRA-sim's order.

        Parameters
        ----------
        kind : Kind
        group : int
            Index of the group, `WORLD` for all ranks.
        involved : sequence of bool
            For the world: the dimensions that take part; those beyond the list do.
        where : str
            The node, for messages.
        """
        members = self._builder.group_size(group)
        if kind not in IMPLEMENTED:
            found, window, _ = default(kind)
            whole = Dimension(found, window, members, group, 0, subgroup=group != WORLD)
            return [PhaseSpec(kind, whole, QueuePick.NEXT)]
        if members == self._setting.ranks:
            dimensions = self._world(kind, where)
            return self._ordered(kind, dimensions, involved if group == WORLD else ())
        chosen = self._chosen(kind, where)
        one, asked = chosen[0], None
        if len(chosen) > 1 and "direct-in-groups-is-ring" in self._setting.semantics:
            one, asked = default(kind), chosen[0]
        whole = Dimension(
            one.algorithm, one.window, members, group, level=0, subgroup=True, asked=asked
        )
        cuts = one.algorithm.shares_links and kind != Kind.ALL_TO_ALL
        return self._ordered(kind, self._cut(whole) if cuts else [whole], ())

    def _cut(self, whole: Dimension) -> list[Dimension]:
        """A group, cut where network dimensions end, as far as it has as many members in each."""
        stride = self._builder.group_stride(whole.layout)
        parts, left, border = [], whole.size, 1
        for size in self._setting.dims:
            border *= size
            inside, rest = divmod(border, stride) if stride else (1, 0)
            if not rest and 1 < inside < left and left % inside == 0:
                parts.append((stride, inside))
                stride, left = stride * inside, left // inside
        if not parts:
            return [whole]
        return [
            replace(whole, size=size, layout=self._groups.strided(at, size, ("part", at, size)))
            for at, size in [*parts, (stride, left)]
        ]

    def left_out(self, kind: Kind, group: int, involved: Sequence[bool]) -> list[Change]:
        """The dimensions that a collective of all ranks leaves out for want of an algorithm."""
        setting = self._setting
        if kind not in IMPLEMENTED or self._builder.group_size(group) != setting.ranks:
            return []
        chosen = setting.choices.implementations[IMPLEMENTED[kind]]
        involved = involved if group == WORLD else ()
        missing = [
            level
            for level in range(len(chosen), len(setting.dims))
            if setting.dims[level] > 1 and (level >= len(involved) or involved[level])
        ]
        if not missing or chosen[-1].one:
            return []
        levels = ", ".join(map(str, missing))
        detail = f"{kind.word} leaves out dimension(s) {levels} of {setting.dims}"
        return [("missing-algorithms-leave-dimensions-out", detail)]

    def _chosen(self, kind: Kind, where: str) -> tuple[Chosen, ...]:
        key, implementations = IMPLEMENTED[kind], self._setting.choices.implementations
        if key not in implementations:
            raise InputError(
                f"missing, but {where} is an {key}; give one algorithm per dimension, such as "
                f"{['ring'] * len(self._setting.dims)}",
                file=self._setting.system.source,
                key=f"{key}-implementation",
            )
        return implementations[key]

    def _world(self, kind: Kind, where: str) -> list[Dimension]:
        """Dimensions of a collective over all ranks; ``one...`` spans all and ends the list."""
        setting, chosen = self._setting, self._chosen(kind, where)
        dims = setting.dims
        problem = ""
        if len(chosen) > len(dims):
            problem = "; give one per dimension"
        elif (
            len(chosen) < len(dims)
            and not chosen[-1].one
            and "missing-algorithms-leave-dimensions-out" not in setting.semantics
        ):
            problem = (
                ' would leave dimensions out; give one per dimension (semantics "astra-sim" leaves '
                "them out)"
            )
        if problem:
            raise InputError(
                f"{len(chosen)} algorithms for {len(dims)} network dimensions{problem}",
                file=setting.system.source,
                key=f"{IMPLEMENTED[kind]}-implementation",
            )
        dimensions = []
        stride = 1
        for level, (found, window, one) in enumerate(chosen):
            size = setting.ranks if one else dims[level]
            layout = self._groups.strided(1 if one else stride, size, ("dimension", level, one))
            bandwidth = setting.dim_bandwidth[level]
            dimensions.append(Dimension(found, window, size, layout, level, bandwidth))
            if one:
                break
            stride *= dims[level]
        return dimensions

    def _ordered(
        self, kind: Kind, dimensions: list[Dimension], involved: Sequence[bool]
    ) -> list[PhaseSpec]:
        active = [
            dimension
            for index, dimension in enumerate(dimensions)
            if dimension.size > 1 and (index >= len(involved) or involved[index])
        ]
        if not active:
            return []
        plain = self._setting.system.collective_optimization == "baseline"
        plain = plain and not all(dimension.algorithm.shares_links for dimension in active)
        if kind != Kind.ALL_REDUCE or plain:
            order = active[::-1] if kind == Kind.ALL_GATHER else active
            return [PhaseSpec(kind, dimension, QueuePick.NEXT) for dimension in order]
        return [
            *(PhaseSpec(Kind.REDUCE_SCATTER, d, QueuePick.FIRST) for d in active[:-1]),
            PhaseSpec(Kind.ALL_REDUCE, active[-1], QueuePick.FIRST),
            *(PhaseSpec(Kind.ALL_GATHER, d, QueuePick.LAST) for d in reversed(active[:-1])),
        ]

    def plan(
        self, specs: Sequence[PhaseSpec], chunk_bytes: int, kind: Kind, root: int
    ) -> tuple[int, tuple[Change, ...]]:
        """Index of the plan of one chunk, and what quirks change in it."""
        key = (kind, tuple(specs), chunk_bytes, root)
        if key not in self._plans:
            rows, data = [], chunk_bytes
            changes: dict[Change, None] = {}
            for spec in specs:
                row, data, changed = self._phase(spec, data, kind, root)
                rows.append(row)
                changes |= dict.fromkeys(changed)
            self._plans[key] = self._builder.plan(rows), tuple(changes)
        return self._plans[key]

    def _phase(
        self, spec: PhaseSpec, data: int, kind: Kind, root: int
    ) -> tuple[tuple[int, ...], int, list[Change]]:
        """A row of PHASE, the data that is left after it, and what quirks change."""
        dimension, semantics = spec.dimension, self._setting.semantics
        found = dimension.algorithm
        if spec.kind not in found.kinds:
            raise InputError(
                f"{found.name} cannot do {spec.kind.name}; it can do "
                f"{', '.join(sorted(k.name for k in found.kinds))}",
                file=self._setting.system.source,
                key=f"{IMPLEMENTED.get(kind, kind.name.lower())}-implementation",
            )
        if "double-binary-tree-is-all-reduce" not in semantics and not found.computes(spec.kind):
            found = default(spec.kind).algorithm
        if data * dimension.size > _MOST_BYTES:
            raise InputError(
                f"a chunk grows to {data * dimension.size} bytes; allowed: {_MOST_BYTES}",
                key=f"comm_size of {kind.name}",
            )
        level = self._level(dimension)
        request = Request(
            kind=spec.kind,
            size=dimension.size,
            bytes=data,
            window=dimension.window,
            subgroup=dimension.subgroup,
            root=root,
            quirks=found.quirks & semantics.quirks,
            **(self._network(level) if found.own_delays else {}),
        )
        family0, family1, built = self.schedules.families(found, request)
        fast = dimension.subgroup and found.fast_bus_in_subgroups
        fast = fast and "groups-skip-endpoint-delay" in semantics
        slot, variant = -1, Variant.AGREED if built.same_way else found.variant
        if variant == Variant.ALTERNATE:
            # The tree alternates per rank, collective type and dimension.
            slot = self._slots.setdefault((kind, dimension.layout), len(self._slots))
        bus = Bus.NONE if found.own_delays else Bus.FAST if fast else Bus.ENDPOINT
        if built.said:
            chosen = ChosenAlgorithm(spec.kind.word, dimension.size, data, level, built.said)
            self.algorithms[chosen] = None
        if built.remark:
            self.remarks[f"{spec.kind.word} of {dimension.size} ranks: {built.remark}"] = None
        row = (dimension.level, dimension.layout, family0, family1, slot, spec.pick, variant, bus)
        changes = self._changes(dimension, found, request, fast=fast)
        return tuple(map(int, row)), built.final_bytes, changes

    def _level(self, dimension: Dimension) -> int:
        """The highest network dimension in which members of a group differ."""
        if not dimension.subgroup:
            return dimension.level
        first, last = self._builder.group_span(dimension.layout)
        level, within = 0, 1
        for at, size in enumerate(self._setting.dims):
            if first // within != last // within:
                level = at
            within *= size
        return level

    def _network(self, level: int) -> dict[str, Any]:
        """What an algorithm that chooses by the network is told of a dimension."""
        link_Bps, reduces = self._setting.link_Bps, self._setting.reduces
        return {
            "level": level,
            "link_Bps": link_Bps[level] if link_Bps else 0.0,
            "reduces": bool(reduces) and reduces[level],
        }

    def _changes(
        self, dimension: Dimension, found: Algorithm, request: Request, *, fast: bool
    ) -> list[Change]:
        """What would be different without a quirk."""
        setting, changes = self._setting, list[Change]()
        system = setting.system
        what = f"{request.kind.word} of {request.size} ranks"
        shared = system.model_shared_bus
        if fast and (shared or setting.endpoint_delay_ns != FAST_DELAY_NS):
            usual = "the shared bus" if shared else f"in {setting.endpoint_delay_ns:,} ns"
            detail = f"{what} crosses the bus in {FAST_DELAY_NS} ns, not {usual}"
            changes.append(("groups-skip-endpoint-delay", detail))
        if dimension.asked is not None:
            asked, window, _ = dimension.asked
            if not asked.computes(request.kind) and (
                "double-binary-tree-is-all-reduce" not in setting.semantics
            ):
                asked, window, _ = default(request.kind)
            changes += self._other(
                "direct-in-groups-is-ring", what, found, request, asked, replace(
                    request, window=window, quirks=asked.quirks & setting.semantics.quirks
                ),
            )  # fmt: skip
        if not found.computes(request.kind):
            ring = default(request.kind).algorithm
            plain = replace(request, quirks=ring.quirks & setting.semantics.quirks)
            changes += self._other(
                "double-binary-tree-is-all-reduce", what, found, request, ring, plain
            )
        for quirk in sorted(request.quirks):
            plain = replace(request, quirks=request.quirks - {quirk})
            detail = self.schedules.difference(found, request, plain)
            if detail:
                changes.append((quirk, f"{what} {detail}"))
        return changes

    def _other(
        self,
        quirk: str,
        what: str,
        found: Algorithm,
        request: Request,
        asked: Algorithm,
        plain: Request,
    ) -> list[Change]:
        """That one algorithm runs in place of another, and what it costs."""
        if asked is found and plain == request:
            return []
        if request.kind not in asked.kinds:
            cost = "which cannot do it"
        else:
            (sent, size), (usual, usual_size) = (
                self.schedules.sent(found, request), self.schedules.sent(asked, plain)
            )  # fmt: skip
            cost = f"{sent / max(1, usual):.3g} x as many messages, "
            cost += f"{size / max(1, usual_size):.3g} x the bytes"
        window = plain.window if plain.window > 0 else ""
        detail = f"{what} runs {found.name} in place of {asked.name}{window}: {cost}"
        return [(quirk, detail)]
