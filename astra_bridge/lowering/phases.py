# SPDX-License-Identifier: MIT
"""The phases of a chunk: which dimension it visits, and with which algorithm.

This is where ASTRA-sim's rules for dimensions and queues live (docs/semantics.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from astra_bridge.collectives import IMPLEMENTED, Algorithm, Chosen, Kind, Request, default
from astra_bridge.errors import InputError
from astra_bridge.lowering.builder import ProgramBuilder
from astra_bridge.lowering.groups import WORLD, Groups
from astra_bridge.lowering.schedules import Schedules
from astra_bridge.lowering.view import Setting
from astra_bridge.program import Bus, QueuePick, Variant

__all__ = ["Dimension", "PhaseSpec", "Phases"]

_MOST_BYTES = 2**62


@dataclass(frozen=True)
class Dimension:
    """One dimension of a logical topology: its algorithm and who takes part."""

    algorithm: Algorithm
    window: int
    size: int
    layout: int  # group index
    level: int  # whose queues it uses
    bandwidth: float = 1.0  # relative, for greedy scheduling
    subgroup: bool = False  # of a communicator group, not of the world


@dataclass(frozen=True)
class PhaseSpec:
    """What a phase does, in which dimension, and which of its queues it enters."""

    kind: Kind
    dimension: Dimension
    pick: QueuePick


class Phases:
    """From a collective to the phases of its chunks, and from these to plans."""

    def __init__(self, setting: Setting, builder: ProgramBuilder, groups: Groups) -> None:
        self._setting, self._builder, self._groups = setting, builder, groups
        self.schedules = Schedules(setting.system)
        self._plans: dict[Any, int] = {}
        self._slots: dict[Any, int] = {}

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
        # ASTRA-sim falls back to a ring wherever several algorithms are configured.
        alone = len(chosen) == 1 or self._setting.corrected
        found, window, _ = chosen[0] if alone else default(kind)
        return self._ordered(
            kind, [Dimension(found, window, members, group, level=0, subgroup=True)], ()
        )

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
        elif setting.corrected and len(chosen) < len(dims) and not chosen[-1].one:
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
        if kind != Kind.ALL_REDUCE or self._setting.system.collective_optimization == "baseline":
            order = active[::-1] if kind == Kind.ALL_GATHER else active
            return [PhaseSpec(kind, dimension, QueuePick.NEXT) for dimension in order]
        return [
            *(PhaseSpec(Kind.REDUCE_SCATTER, d, QueuePick.FIRST) for d in active[:-1]),
            PhaseSpec(Kind.ALL_REDUCE, active[-1], QueuePick.FIRST),
            *(PhaseSpec(Kind.ALL_GATHER, d, QueuePick.LAST) for d in reversed(active[:-1])),
        ]

    def plan(self, specs: Sequence[PhaseSpec], chunk_bytes: int, kind: Kind, root: int) -> int:
        """Index of the plan of one chunk."""
        key = (kind, tuple(specs), chunk_bytes, root)
        if key not in self._plans:
            rows, data = [], chunk_bytes
            for spec in specs:
                row, data = self._phase(spec, data, kind, root)
                rows.append(row)
            self._plans[key] = self._builder.plan(rows)
        return self._plans[key]

    def _phase(
        self, spec: PhaseSpec, data: int, kind: Kind, root: int
    ) -> tuple[tuple[int, ...], int]:
        """A row of PHASE, and the data that is left after it."""
        dimension, corrected = spec.dimension, self._setting.corrected
        found = dimension.algorithm
        if spec.kind not in found.kinds:
            raise InputError(
                f"{found.name} cannot do {spec.kind.name}; it can do "
                f"{', '.join(sorted(k.name for k in found.kinds))}",
                file=self._setting.system.source,
                key=f"{IMPLEMENTED.get(kind, kind.name.lower())}-implementation",
            )
        if corrected and not found.computes(spec.kind):
            found = default(spec.kind).algorithm
        if data * dimension.size > _MOST_BYTES:
            raise InputError(
                f"a chunk grows to {data * dimension.size} bytes; allowed: {_MOST_BYTES}",
                key=f"comm_size of {kind.name}",
            )
        request = Request(
            kind=spec.kind,
            size=dimension.size,
            bytes=data,
            window=dimension.window,
            subgroup=dimension.subgroup,
            root=root,
            exact=corrected,
        )
        family0, family1, built = self.schedules.families(found, request)
        fast = dimension.subgroup and found.fast_bus_in_subgroups and not corrected
        slot, variant = -1, Variant.AGREED if built.same_way else found.variant
        if variant == Variant.ALTERNATE:
            # The tree alternates per rank, collective type and dimension.
            slot = self._slots.setdefault((kind, dimension.layout), len(self._slots))
        bus = Bus.FAST if fast else Bus.ENDPOINT
        row = (dimension.level, dimension.layout, family0, family1, slot, spec.pick, variant, bus)
        return tuple(map(int, row)), built.final_bytes
