# SPDX-License-Identifier: MIT
"""From one collective to chunks, phases and schedules.

This is where ASTRA-sim's rules for chunks, dimensions and queues live (docs/semantics.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np

from astra_bridge.collectives import (
    IMPLEMENTED,
    Algorithm,
    Built,
    Chosen,
    Kind,
    Request,
    default,
)
from astra_bridge.collectives.check import Joined, Tables, check_peers, joined, tables
from astra_bridge.errors import InputError, PluginError
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.program import (
    COLLECTIVE,
    GROUP,
    PHASE,
    PLAN,
    Bus,
    PacketFlag,
    QueuePick,
    Variant,
)
from astra_bridge.program_rules import MOST_CHUNKS, check_schedules
from astra_bridge.system.choices import Choices
from astra_bridge.system.orders import OrderRequest, walk
from astra_bridge.text import show
from astra_bridge.units import PS_PER_NS

WORLD = 0
"""Index of the group of all ranks."""

_MOST_BYTES = 2**62
_MOST_REDUCE_NS = 2.0**50

_PICKS = {Kind.REDUCE_SCATTER: QueuePick.FIRST, Kind.ALL_GATHER: QueuePick.LAST}


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
    kind: Kind
    dimension: Dimension
    pick: QueuePick


def orbit(ranks: Sequence[int], total: int) -> tuple[int, int, int] | None:
    """Stride, size and number of the orbit that these ranks are, if they are one.

    The orbits of (stride, size) are the ranks that agree in all but ``rank // stride % size``.

    Examples
    --------
    >>> orbit([4, 5, 6, 7], 16), orbit([1, 5, 9, 13], 16), orbit([1, 2], 16)
    ((1, 4, 4), (4, 4, 1), None)
    """
    size = len(ranks)
    stride = ranks[1] - ranks[0] if size > 1 else 1
    if stride < 1 or size * stride > total or ranks[0] // stride % size:
        return None
    if list(ranks) != list(range(ranks[0], ranks[0] + size * stride, stride)):
        return None
    return stride, size, ranks[0]


@dataclass
class PlanBuilder:
    """Collects groups, schedules, phases and collectives of a Program, each once.

    Attributes
    ----------
    dims
        Ranks per logical dimension.
    corrected
        True for ``semantics="corrected"``.
    dim_bandwidth
        Bandwidth per dimension, in any unit, for greedy scheduling.
    """

    system: SystemConfig
    choices: Choices
    dims: tuple[int, ...]
    corrected: bool
    dim_bandwidth: tuple[float, ...]
    groups: list[tuple[int, int, int, int]] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    collectives: list[tuple[Any, ...]] = field(default_factory=list)
    plans: list[tuple[int, int]] = field(default_factory=list)
    phases: list[tuple[int, ...]] = field(default_factory=list)
    _built: list[tuple[str, Request, Tables]] = field(default_factory=list)
    _group_index: dict[Any, int] = field(default_factory=dict)
    _family_index: dict[Any, tuple[int, Built]] = field(default_factory=dict)
    _plan_index: dict[Any, int] = field(default_factory=dict)
    _tag_index: dict[Any, int] = field(default_factory=dict)
    _editions: dict[tuple[int, int, int], dict[int, int]] = field(default_factory=dict)
    _slot_index: dict[Any, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ranks = int(np.prod(self.dims, dtype=np.int64))
        self._strided(1, self.ranks, tag_key=("world",))

    # Groups

    def _tag(self, key: Any) -> int:
        # One range of stream numbers per communicator, so that no two share a tag.
        return (self._tag_index.setdefault(key, len(self._tag_index)) + 1) << 32

    def _strided(self, stride: int, size: int, tag_key: Any) -> int:
        key = ("strided", stride, size)
        if key not in self._group_index:
            self._group_index[key] = len(self.groups)
            self.groups.append((size, stride, 0, self._tag(tag_key)))
        return self._group_index[key]

    def group(self, group_id: int, ranks: Sequence[int]) -> int:
        """Index of a communicator group: its id and its ranks, in order of position."""
        key = (group_id, tuple(ranks))
        if key not in self._group_index:
            ascending = tuple(sorted(ranks))
            found = orbit(ascending, self.ranks)
            row_key: Any = key
            tag_key: tuple[Any, ...] = (group_id, ascending)
            if found is not None:
                # Groups that partition the ranks are one row, "the group of the own rank"; a second
                # group of the same ranks counts its streams apart.
                editions = self._editions.setdefault(found, {})
                tag_key = (*found[:2], editions.setdefault(group_id, len(editions)))
                row_key = ("orbit", *tag_key) if key[1] == ascending else key
            if row_key not in self._group_index:
                self._group_index[row_key] = len(self.groups)
                tag = self._tag(("group", *tag_key))
                if row_key is key:
                    self.groups.append((len(ranks), 0, len(self.members), tag))
                    self.members += ranks
                else:
                    self.groups.append((len(ranks), tag_key[0], 0, tag))
            self._group_index[key] = self._group_index[row_key]
        return self._group_index[key]

    # Logical topologies

    def _chosen(self, kind: Kind, where: str) -> tuple[Chosen, ...]:
        key = IMPLEMENTED[kind]
        if key not in self.choices.implementations:
            raise InputError(
                f"missing, but {where} is an {key}; give one algorithm per dimension, such as "
                f"{['ring'] * len(self.dims)}",
                file=self.system.source,
                key=f"{key}-implementation",
            )
        return self.choices.implementations[key]

    def _world_dimensions(self, kind: Kind, where: str) -> list[Dimension]:
        """Dimensions of a collective over all ranks; ``one...`` spans all and ends the list."""
        chosen = self._chosen(kind, where)
        if len(chosen) > len(self.dims):
            raise InputError(
                f"{len(chosen)} algorithms for {len(self.dims)} network dimensions; give one per "
                "dimension",
                file=self.system.source,
                key=f"{IMPLEMENTED[kind]}-implementation",
            )
        if self.corrected and len(chosen) < len(self.dims) and not chosen[-1].one:
            raise InputError(
                f"{len(chosen)} algorithms for {len(self.dims)} network dimensions would leave "
                'dimensions out; give one per dimension (semantics "astra-sim" leaves them out)',
                file=self.system.source,
                key=f"{IMPLEMENTED[kind]}-implementation",
            )
        dimensions = []
        stride = 1
        for level, (found, window, one) in enumerate(chosen):
            size = self.ranks if one else self.dims[level]
            layout = self._strided(1 if one else stride, size, ("dimension", level, one))
            dimensions.append(
                Dimension(found, window, size, layout, level, self.dim_bandwidth[level])
            )
            if one:
                break
            stride *= self.dims[level]
        return dimensions

    def _group_dimension(self, kind: Kind, group: int, where: str) -> Dimension:
        """The single dimension of a communicator group that is not the whole world."""
        chosen = self._chosen(kind, where)
        # ASTRA-sim falls back to a ring wherever several algorithms are configured.
        found, window, _ = chosen[0] if len(chosen) == 1 or self.corrected else default(kind)
        return Dimension(found, window, self.groups[group][0], group, level=0, subgroup=True)

    # Phases

    def _phase_specs(
        self, kind: Kind, dimensions: list[Dimension], involved: Sequence[bool]
    ) -> list[PhaseSpec]:
        active = [
            dimension
            for index, dimension in enumerate(dimensions)
            if dimension.size > 1 and (index >= len(involved) or involved[index])
        ]
        if not active:
            return []
        if kind != Kind.ALL_REDUCE or self.system.collective_optimization == "baseline":
            order = active[::-1] if kind == Kind.ALL_GATHER else active
            return [PhaseSpec(kind, dimension, QueuePick.NEXT) for dimension in order]
        return [
            *(PhaseSpec(Kind.REDUCE_SCATTER, d, QueuePick.FIRST) for d in active[:-1]),
            PhaseSpec(Kind.ALL_REDUCE, active[-1], QueuePick.FIRST),
            *(PhaseSpec(Kind.ALL_GATHER, d, QueuePick.LAST) for d in reversed(active[:-1])),
        ]

    def _plan(self, specs: Sequence[PhaseSpec], chunk_bytes: int, kind: Kind, root: int) -> int:
        """Append the phases of one chunk; return the index of the plan."""
        key = (kind, tuple(specs), chunk_bytes, root)
        if key in self._plan_index:
            return self._plan_index[key]
        start = len(self.phases)
        data = chunk_bytes
        for spec in specs:
            dimension = spec.dimension
            found = dimension.algorithm
            if spec.kind not in found.kinds:
                raise InputError(
                    f"{found.name} cannot do {spec.kind.name}; it can do "
                    f"{', '.join(sorted(k.name for k in found.kinds))}",
                    file=self.system.source,
                    key=f"{IMPLEMENTED.get(kind, kind.name.lower())}-implementation",
                )
            if self.corrected and not found.computes(spec.kind):
                found = default(spec.kind).algorithm
            if data * dimension.size > _MOST_BYTES:
                raise InputError(
                    f"a chunk grows to {data * dimension.size} bytes; allowed: {_MOST_BYTES}",
                    key=f"comm_size of {kind.name}",
                )
            families, built = self._families(found, spec, data, root)
            fast = dimension.subgroup and found.fast_bus_in_subgroups and not self.corrected
            slot, variant = -1, Variant.AGREED if built.same_way else found.variant
            if variant == Variant.ALTERNATE:
                # The tree alternates per rank, collective type and dimension.
                slot_key = (kind, dimension.layout)
                slot = self._slot_index.setdefault(slot_key, len(self._slot_index))
            self.phases.append(
                (
                    dimension.level,
                    dimension.layout,
                    families[0],
                    families[1],
                    slot,
                    int(spec.pick),
                    int(variant),
                    int(Bus.FAST if fast else Bus.ENDPOINT),
                )
            )
            data = built.final_bytes
        self._plan_index[key] = len(self.plans)
        self.plans.append((start, len(self.phases) - start))
        return self._plan_index[key]

    def _families(
        self, found: Algorithm, spec: PhaseSpec, data: int, root: int
    ) -> tuple[tuple[int, int], Built]:
        """Families of both variants, and what is true of both."""
        dimension = spec.dimension
        families = []
        for variant in (0, 1):
            request = Request(
                kind=spec.kind,
                size=dimension.size,
                bytes=data,
                variant=variant if found.directed else 0,
                window=dimension.window,
                subgroup=dimension.subgroup,
                root=root,
                exact=self.corrected,
            )
            key = (found.name, request)
            if key not in self._family_index:
                built = self._append_family(found.name, request, found.build(request))
                self._family_index[key] = (len(self._built) - 1, built)
            index, built = self._family_index[key]
            families.append(index)
        return (families[0], families[1]), built

    def _append_family(self, name: str, request: Request, built: Any) -> Built:
        """Take the tables of what an algorithm has built; return the rest of it."""
        with _blaming(name, request):
            found = tables(request, built)
        self._built.append((name, request, found))
        rest: Built = replace(built, schedules=())
        return rest

    def _schedules(self) -> Joined:
        """All that algorithms have built, if it can work: checked together, which is faster."""
        try:
            families = _checked(self._built)
        except InputError:
            for built in self._built:  # whose is it?
                with _blaming(*built[:2]):
                    _checked([built])
            raise
        packets = families.packets
        reduced = (packets["flags"] & PacketFlag.REDUCED) != 0
        packets["reduce_ps"][reduced] = self._reduce_ps(packets["bytes"][reduced])
        return families

    def _reduce_ps(self, size_bytes: Any) -> Any:
        """One write and two reads of local memory; free where its bandwidth is not given."""
        bandwidth_Bps = self.system.local_mem_bw_GBps * 1e9
        if bandwidth_Bps == 0:
            return 0
        once_ns = np.floor(size_bytes.astype(np.float64) / bandwidth_Bps * 1e9)
        if (once_ns >= _MOST_REDUCE_NS).any():
            raise InputError(
                f"reducing {size_bytes.max()} bytes takes {3 * once_ns.max():.3g} ns at "
                f"{self.system.local_mem_bw_GBps} GB/s; allowed: less than "
                f"{3 * _MOST_REDUCE_NS:.3g}",
                file=self.system.source,
                key="local-mem-bw",
            )
        return 3 * once_ns.astype(np.int64) * PS_PER_NS

    # Collectives

    def collective(
        self,
        kind: Kind,
        size_bytes: int,
        group: int,
        *,
        involved: Sequence[bool] = (),
        priority: float = 0,
        root: int = 0,
        where: str = "a node",
    ) -> int:
        """Append a native collective.

        Parameters
        ----------
        kind, size_bytes
            What, and ``comm_size``: the whole buffer, or for ALL_GATHER the shard.
        group
            Index of the group, `WORLD` for all ranks.
        involved
            For the world: the dimensions that take part; those beyond the list do.
        root
            Position of the root in the group.
        where
            The node, for messages.

        Returns
        -------
        int
            Index into collectives, or -1 where there is nothing to do (one member, or no
            dimension takes part).
        """
        asked = kind
        if kind == Kind.REDUCE_SCATTER_BLOCK:
            kind = Kind.REDUCE_SCATTER  # MPI's name for equal parts, which all parts are
        members = self.groups[group][0]
        if members == 1:
            return -1
        whole_world = members == self.ranks
        if kind in IMPLEMENTED:
            if whole_world:
                dimensions = self._world_dimensions(kind, where)
                specs = self._phase_specs(kind, dimensions, involved if group == WORLD else ())
            else:
                dimensions = [self._group_dimension(kind, group, where)]
                specs = self._phase_specs(kind, dimensions, ())
        else:
            found, window, _ = default(kind)
            whole = Dimension(found, window, members, group, 0, subgroup=group != WORLD)
            specs = [PhaseSpec(kind, whole, QueuePick.NEXT)]
        chunks = self._chunks(kind, size_bytes)
        if not specs or not chunks:
            return -1
        ordered = len(specs) > 1 and self.choices.order.order is not None
        orders = self._ordered(kind, specs, chunks) if ordered else [specs] * len(chunks)
        made = [
            self._plan(order, chunk, kind, root)
            for order, chunk in zip(orders, chunks, strict=True)
        ]
        if len(set(made)) == 1:
            first, count = made[0], 1
        else:
            # Chunks differ: their plans must stand side by side.
            first, count = len(self.plans), len(made)
            self.plans += [self.plans[plan] for plan in made]
        self.collectives.append(
            (len(chunks), first, count, group, priority, -1, int(asked), size_bytes)
        )
        return len(self.collectives) - 1

    def _chunks(self, kind: Kind, size_bytes: int) -> list[int]:
        """Bytes of each chunk."""
        splits = self.system.preferred_dataset_splits
        if kind == Kind.BARRIER:
            return [1]
        if self.corrected:
            splits = max(1, min(splits, size_bytes))
            chunk, more = divmod(size_bytes, splits)
            self._check_chunks(kind, size_bytes, splits)
            return [chunk + (i < more) for i in range(splits)] if size_bytes else []
        chunk = size_bytes // splits
        if kind != Kind.ALL_GATHER and self.ranks > chunk:
            chunk = self.ranks
            size_bytes = splits * chunk
        # ASTRA-sim never ends where an all-gather has fewer bytes than chunks.
        chunk = max(1, chunk)
        # A remainder costs a whole further chunk.
        count = -(-size_bytes // chunk)
        self._check_chunks(kind, size_bytes, count)
        return [chunk] * count

    def _check_chunks(self, kind: Kind, size_bytes: int, count: int) -> None:
        if count > MOST_CHUNKS:
            raise InputError(
                f"is {self.system.preferred_dataset_splits}, which makes {count} chunks of "
                f"{kind.name} of {size_bytes} bytes; allowed: {MOST_CHUNKS} chunks",
                file=self.system.source,
                key="preferred-dataset-splits",
            )

    def _ordered(
        self, kind: Kind, specs: Sequence[PhaseSpec], chunks: Sequence[int]
    ) -> list[list[PhaseSpec]]:
        """The phases of each chunk, in the order of dimensions that the configuration names."""
        dimensions = list(dict.fromkeys(spec.dimension for spec in specs))
        chosen = self.choices.order
        assert chosen.order is not None
        orders = chosen.order(
            OrderRequest(
                kind,
                tuple(dimension.size for dimension in dimensions),
                tuple(dimension.bandwidth for dimension in dimensions),
                tuple(chunks),
            )
        )
        wrong = next((o for o in orders if sorted(o) != list(range(len(dimensions)))), None)
        if wrong is not None or len(orders) != len(chunks):
            what = f"{len(orders)} orders" if wrong is None else f"the order {show(wrong)}"
            raise PluginError(
                f"order of dimensions {chosen.name!r}: gives {what} for {len(chunks)} chunks and "
                f"{len(dimensions)} dimensions; allowed: for each chunk, each dimension once"
            )
        picks = _PICKS if kind == Kind.ALL_REDUCE else {}
        return [
            [
                PhaseSpec(what, dimensions[at], picks.get(what, QueuePick.NEXT))
                for what, at in walk(kind, order)
            ]
            for order in orders
        ]

    def graph_collective(
        self, kind: Kind, size_bytes: int, group: int, graph: int, *, priority: float = 0
    ) -> int:
        """Append a custom collective: ``graph`` is the first of one graph per position."""
        self.collectives.append((1, 0, 0, group, priority, graph, int(kind), size_bytes))
        return len(self.collectives) - 1

    def _prioritised(self) -> list[tuple[Any, ...]]:
        """The collectives; priorities that a plug-in gives, any numbers, become 0, 1, ..."""
        policy = self.choices.policy
        if policy.priority is None:
            return self.collectives
        given = [row[4] for row in self.collectives]
        wrong = next((p for p in given if not isinstance(p, Real) or p != p), None)
        if wrong is not None:
            raise PluginError(
                f"queue policy {policy.name!r}: gives the priority {show(wrong)}; allowed: a number"
            )
        place = {priority: at for at, priority in enumerate(sorted(set(given)))}
        return [(*row[:4], place[row[4]], *row[5:]) for row in self.collectives]

    # Result

    def arrays(self) -> dict[str, Any]:
        """The arrays of the Program that were collected here."""

        def table(rows: Sequence[Any], dtype: Any) -> Any:
            return np.array([tuple(row) for row in rows], dtype)

        return {
            "groups": table(self.groups, GROUP),
            "members": np.array(self.members, np.int32),
            "collectives": table(self._prioritised(), COLLECTIVE),
            "plans": table(self.plans, PLAN),
            "phases": table(self.phases, PHASE),
            **self._schedules()._asdict(),
            "alternate_slots": len(self._slot_index),
        }


def _checked(built: Sequence[tuple[str, Request, Tables]]) -> Joined:
    made = joined([found for _, _, found in built])
    sizes = np.array([request.size for _, request, _ in built], np.int64)
    check_schedules(
        made.schedules, made.steps, made.packets, np.repeat(sizes, made.families["count"])
    )
    check_peers(sizes, made)
    return made


@contextlib.contextmanager
def _blaming(name: str, request: Request) -> Iterator[None]:
    """Errors name the algorithm and what it was asked for."""
    try:
        yield
    except InputError as error:
        key = (error.key or "").removeprefix("program: ")
        what = f"algorithm {name!r}, {request.kind.name} of {request.size} members"
        raise InputError(error.reason, key=f"{what}: {key}" if key else what) from None
