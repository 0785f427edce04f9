# SPDX-License-Identifier: MIT
"""From a step of a model to traces: one for each kind of rank.

Each communicator has a chain: what uses it waits for what used it before, so all of its members
agree on the order.  Compute follows the order of the pipeline.  Where a rank has a single slot for
all communication, it is taken in the order of the trace (`GeneratedWorkload.in_turn`): all members
of a group have the same program, so they agree on that order too, receives need no slot and are
posted at once, and no schedule without communication has a circle.  So nothing waits for ever.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.compute.gpu import Kernels
from astra_bridge.compute.gpu.model import text_us
from astra_bridge.hardware import Hardware
from astra_bridge.trace.columns import CommType
from astra_bridge.trace.writer import TraceNode
from astra_bridge.workload.builder import TraceBuilder
from astra_bridge.workload.models import formulas
from astra_bridge.workload.models.formulas import Weights
from astra_bridge.workload.models.layers import (
    Compute,
    Exchange,
    Move,
    Passing,
    Slice,
    Step,
    Together,
    layer_steps,
)
from astra_bridge.workload.models.operators import Cost, Operator, Pass, cost
from astra_bridge.workload.models.parallelism import Orbit
from astra_bridge.workload.models.shape import Experts, Layer
from astra_bridge.workload.models.step import Inference, Part, TrainingStep

__all__ = [
    "TWIN_TAGS",
    "Block",
    "Groups",
    "Place",
    "Rank",
    "Timer",
    "join",
    "places_of",
    "steps_of",
    "traces_of",
]

_RING_TAGS = 1 << 28
"""First tag of messages around rings."""
TWIN_TAGS = 1 << 27
"""First tag of messages to the rank that holds the same weights, or gets the same keys."""


StepsOf = Callable[[int, Layer, int], tuple[Step, ...]]
"""Of a layer, by its number, on ranks of an expert-parallel index."""
Known = dict[tuple[Layer, float, float], tuple[Step, ...]]
Work = tuple[tuple[tuple[Operator, ...], Pass], ...]
"""Operators and what is done with them, one after the other."""


class Block(NamedTuple):
    """A layer, the embedding or the head, as a stage has it.

    Attributes
    ----------
    name : str
    steps : tuple of Step
    weights : Weights
    others : callable, or None
        The steps on ranks of an expert-parallel index; None where they are the same on all.
    """

    name: str
    steps: tuple[Step, ...]
    weights: Weights
    others: Callable[[int], tuple[Step, ...]] | None = None


class Groups:
    """Numbers of the groups, which all kinds of ranks have in common."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, Orbit], int] = {}

    def number(self, role: str, orbit: Orbit) -> int:
        """Groups of one orbit with several roles are different communicators."""
        return self.numbers.setdefault((role, orbit), len(self.numbers) + 1)

    def own(self) -> dict[int, tuple[int, int]]:
        return {number: tuple(orbit) for (_, orbit), number in self.numbers.items()}  # type: ignore[misc]


class Timer:
    """Durations of kernels on an accelerator; nothing without one."""

    def __init__(self, hardware: Hardware | None) -> None:
        self._kernels = None if hardware is None else Kernels(hardware)
        self._known: dict[str, int] = {}

    def duration_ns(self, kernels: str) -> int | None:
        if self._kernels is None:
            return None
        found = self._known.get(kernels)
        if found is None:
            found = max(1, round(1000 * text_us(self._kernels, kernels)))
            self._known[kernels] = found
        return found


class Place(NamedTuple):
    """Which kind of rank: its stage, its place in the ring, its expert-parallel index."""

    stage: int
    ring: int  # 0: the first, 1: between, 2: the last
    expert: int


class Rank:
    """The trace of one kind of rank."""

    def __init__(
        self, run: TrainingStep | Inference, place: Place, groups: Groups, timer: Timer
    ) -> None:
        self.run, self.place, self.groups, self.timer = run, place, groups, timer
        self.model, self.par, self.pipe = run.model, run.parallelism, run.pipeline
        self.trace = TraceBuilder()
        self.tail: list[int] = []  # what the next compute node waits for
        self.chain: dict[int, int] = {}  # group -> its last node
        self.ring_tag = _RING_TAGS
        self.stride = self.par.orbit("pp").stride
        self.orbits = {name: self.par.orbit(name) for name in ("tp", "cp")}
        self.orbits["ep"] = self.par.experts
        # What other expert-parallel ranks have otherwise: nodes, each with the block it is of.
        self.block: Block | None = None
        self.varying: list[tuple[int, Block, Work | Move]] = []

    # Nodes.

    def compute(self, name: str, deps: Iterable[int], *work: tuple[Any, Pass]) -> list[int]:
        """A node that does what pairs of operators and passes say; none for nothing."""
        pairs: Work = tuple((tuple(operators), which) for operators, which in work)
        before = len(self.trace.nodes)
        found = self.node(name, _total(pairs), deps)
        if self.block is not None and len(self.trace.nodes) > before:
            self.varying.append((found[0], self.block, pairs))
        return found

    def node(self, name: str, what: Cost, deps: Iterable[int]) -> list[int]:
        """A node of this cost; none where nothing is to be done."""
        if not what.kernels:
            return list(deps)
        node = self.trace.comp(
            name,
            num_ops=what.operations,
            tensor_size_bytes=what.moved_bytes,
            kernels=what.kernels,
            duration_ns=self.timer.duration_ns(what.kernels),
            deps=deps,
        )
        return [node]

    def collective(
        self, name: str, role: str, orbit: Orbit, kind: CommType, size_bytes: int, deps: list[int]
    ) -> list[int]:
        if orbit.size == 1 or size_bytes == 0:
            return deps
        group = self.groups.number(role, orbit)
        before = self.chain.get(group)
        waits = deps if before is None or before in deps else [*deps, before]
        node = self.trace.coll(kind, size_bytes, name=name, group=group, deps=waits)
        self.chain[group] = node
        return [node]

    def over(
        self,
        name: str,
        role: str,
        orbits: Sequence[Orbit],
        kind: CommType,
        size_bytes: int,
        deps: list[int],
    ) -> list[int]:
        """A collective over a group that is made of orbits: one after the other.

        The size is that of the whole buffer, of an all-gather too.
        """
        if kind is CommType.ALL_REDUCE and len(orbits) > 1:
            deps = self.over(name, role, orbits[:1], CommType.REDUCE_SCATTER, size_bytes, deps)
            part = -(-size_bytes // orbits[0].size)
            deps = self.over(name, role, orbits[1:], kind, part, deps)
            return self.over(name, role, orbits[:1], CommType.ALL_GATHER, size_bytes, deps)
        parts = [size_bytes]
        for orbit in orbits:
            parts.append(-(-parts[-1] // orbit.size))
        if kind is CommType.ALL_GATHER:
            for orbit, part in zip(reversed(orbits), reversed(parts), strict=False):
                deps = self.collective(name, role, orbit, kind, part, deps)
            return deps
        for orbit, whole in zip(orbits, parts, strict=False):
            deps = self.collective(name, role, orbit, kind, whole, deps)
        return deps

    def move(self, name: str, group: str, what: Move | None, deps: list[int]) -> list[int]:
        if what is None:
            return deps
        before = len(self.trace.nodes)
        found = self.collective(name, group, self.orbits[group], what.kind, what.size_bytes, deps)
        if self.block is not None and len(self.trace.nodes) > before:
            self.varying.append((found[0], self.block, what))
        return found

    def message(self, name: str, ahead: int, size_bytes: int, tag: int, deps: list[int]) -> int:
        return self.trace.send(ahead, size_bytes, tag, name=name, deps=deps)

    def awaited(self, name: str, ahead: int, size_bytes: int, tag: int) -> int:
        return self.trace.recv(ahead, size_bytes, tag, name=name)

    # Steps of a layer, forward and backward.

    def forward(self, name: str, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Compute):
                self.tail = self.compute(name, self.tail, (step.operators, Pass.FORWARD))
            elif isinstance(step, Exchange):
                self.tail = self.move(f"{name}.{step.name}", step.group, step.forward, self.tail)
            elif isinstance(step, Passing):
                self.pass_around(name, step, Pass.FORWARD)
            else:
                self.together(step, lambda one: self.forward(name, (one,)))

    def together(self, step: Together, act: Callable[[Compute | Exchange], None]) -> None:
        """Each of the steps from where they all begin."""
        start, ends = self.tail, []
        for one in step.steps:
            self.tail = start
            act(one)
            ends += self.tail
        self.tail = join(ends)

    def backward(self, name: str, steps: Sequence[Step], which: Pass) -> None:
        """Go through the steps in reverse order; `which` is BACKWARD or INPUT."""
        at = len(steps) - 1
        while at >= 0:
            step = steps[at]
            before = steps[at - 1] if at else None
            if isinstance(step, Compute) and isinstance(before, Exchange) and before.entry:
                self.entered(name, before, step, which)
                at -= 2
                continue
            self.back_through(name, step, which)
            at -= 1

    def back_through(self, name: str, step: Step, which: Pass) -> None:
        if isinstance(step, Compute):
            self.tail = self.compute(f"{name}.again", self.tail, (step.again, Pass.FORWARD))
            self.tail = self.compute(name, self.tail, (step.operators, which))
        elif isinstance(step, Exchange):
            self.tail = self.move(f"{name}.{step.name}", step.group, step.backward, self.tail)
        elif isinstance(step, Passing):
            self.pass_around(name, step, which)
        else:
            gathered = self.tail
            for one in step.steps:
                if isinstance(one, Exchange) and which is Pass.BACKWARD:
                    label = f"{name}.{one.name}.again"
                    gathered = self.move(label, one.group, one.again, gathered)
            self.together(step, lambda one: self.back_through(name, one, which))
            self.tail = join(self.tail, gathered)

    def entered(self, name: str, entry: Exchange, step: Compute, which: Pass) -> None:
        """Back through operators whose weights are split by columns.

        As Megatron-LM does: the input is gathered again beside the input gradients, and these are
        reduced beside the weight gradient of the first product.
        """
        start = self.compute(f"{name}.again", self.tail, (step.again, Pass.FORWARD))
        if which is not Pass.BACKWARD:
            inputs = self.compute(name, start, (step.operators, which))
            self.tail = self.move(f"{name}.{entry.name}", entry.group, entry.backward, inputs)
            return
        at = next(i for i, one in enumerate(step.operators) if one.weighted)
        first, rest = step.operators[at], (*step.operators[:at], *step.operators[at + 1 :])
        gathered = self.move(f"{name}.{entry.name}.again", entry.group, entry.again, start)
        inputs = self.compute(name, start, (rest, which), ((first,), Pass.INPUT))
        reduced = self.move(f"{name}.{entry.name}", entry.group, entry.backward, inputs)
        waits = join(inputs, gathered)
        weight = self.compute(f"{name}.weight", waits, ((first,), Pass.WEIGHT))
        self.tail = join(reduced, weight)

    def weights(self, name: str, steps: Sequence[Step]) -> None:
        """The gradients of weights that were put off."""
        operators: list[Operator] = []
        start = gathered = self.tail
        for step in reversed(steps):
            inner = step.steps if isinstance(step, Together) else (step,)
            for one in inner:
                if isinstance(one, Compute):
                    operators += one.operators
                elif isinstance(one, Exchange):
                    label = f"{name}.{one.name}.again"
                    gathered = self.move(label, one.group, one.again, gathered)
        waits = join(start, gathered)
        self.tail = self.compute(f"{name}.weight", waits, (operators, Pass.WEIGHT))

    def pass_around(self, name: str, step: Passing, which: Pass) -> None:
        """Ring attention: compute with one rank's keys while those of the next one arrive.

        Backward, the gradients of keys and values go with them, one step behind, and in the end
        come home.
        """
        orbit = self.par.orbit("cp")
        ahead = orbit.stride * (1 if self.place.ring < 2 else 1 - orbit.size)
        behind = orbit.stride * (-1 if self.place.ring > 0 else orbit.size - 1)
        forward = which is Pass.FORWARD
        arrived: list[int] = []
        for turn in range(orbit.size):
            now = join(self.tail, arrived)
            size = step.size_bytes if turn < orbit.size - 1 else 0
            label = f"{name}.ring{turn}"
            operators = step.own if turn == 0 else step.others
            if forward:
                # Keys go on at once; gradients once they are added to.
                sent = now
                done = self.compute(label, now, (operators, Pass.FORWARD))
            else:
                done = self.compute(label, now, (operators, which))
                size += step.size_bytes if turn else 0
                sent = done
            arrived = []
            if size:
                self.ring_tag += 1
                self.message(label, ahead, size, self.ring_tag, sent)
                arrived = [self.awaited(label, behind, size, self.ring_tag)]
            self.tail = done
        self.tail = join(self.tail, arrived)

    # Parts of the model.

    def blocks(
        self, part: Part, steps: StepsOf, ends: tuple[tuple[Step, ...], tuple[Step, ...]]
    ) -> list[Block]:
        """The layers of a part, with embedding and head."""
        model, t = self.model, self.par.tensor
        found = []
        if part.embedding:
            found.append(
                Block("embedding", ends[0], Weights(formulas.embedding_parameters(model, t), 0))
            )
        for at, layer in enumerate(part.layers(model), part.first):
            weights = formulas.layer_weights(model, layer, t, self.par.expert)
            uneven = self.run.imbalance > 0 and isinstance(layer.mlp, Experts)
            others = partial(steps, at, layer) if uneven and self.par.expert > 1 else None
            found.append(Block(f"layer{at}", steps(at, layer, self.place.expert), weights, others))
        if part.head:
            dense = formulas.head_parameters(model, t)
            if model.tied and not part.embedding:
                dense += -(-model.vocabulary // t) * model.hidden
            found.append(Block("head", ends[1], Weights(dense, 0)))
        return found

    def ahead(self, stage: int) -> int:
        """Distance to the rank of another stage."""
        return (stage - self.place.stage) * self.stride

    def within(self, block: Block) -> None:
        """What comes is of this block."""
        self.block = block if block.others is not None else None

    def alike(self, expert: int) -> TraceBuilder | None:
        """The trace of a rank that differs from this one in the load of its experts alone.

        It shares all nodes but those whose sizes differ.  None where more does: an exchange that
        only one of them has.
        """
        made = TraceBuilder()
        made.nodes = self.trace.nodes.copy()
        known: dict[int, _Changes | None] = {}
        for at, block, what in self.varying:
            if id(block) not in known:
                assert block.others is not None
                known[id(block)] = _changes(block.steps, block.others(expert))
            changes = known[id(block)]
            if changes is None:
                return None
            new: dict[str, Any]
            if isinstance(what, Move):
                new = {"comm_size": changes.moves.get(what, what).size_bytes}
                if changes.moves.get(what, what) == what:
                    continue
            else:
                if changes.operators.keys().isdisjoint(chain(*(pair[0] for pair in what))):
                    continue
                total = changes.total(what)
                new = {
                    "num_ops": total.operations, "tensor_size": total.moved_bytes,
                    "kernels": total.kernels,
                }  # fmt: skip
                duration_ns = self.timer.duration_ns(total.kernels)
                if duration_ns is not None:
                    new["duration_ns"] = duration_ns
            node = made.nodes[at]
            made.nodes[at] = TraceNode(
                node.id, node.type, node.name, node.duration_micros, node.data_deps,
                node.ctrl_deps, node.attributes | new,
            )  # fmt: skip
        return made


class _Changes:
    """What becomes of the operators and collectives of a layer on another rank."""

    def __init__(self) -> None:
        self.operators: dict[Operator, Operator] = {}
        self.moves: dict[Move, Move] = {}
        self._known: dict[Work, Cost] = {}

    def total(self, work: Work) -> Cost:
        found = self._known.get(work)
        if found is None:
            get = self.operators.get
            found = self._known[work] = _total(
                tuple((tuple(get(one, one) for one in part), which) for part, which in work)
            )
        return found


def _changes(steps: Sequence[Step], others: Sequence[Step]) -> _Changes | None:
    """None where an operator or a collective becomes several, or one of no bytes."""
    found = _Changes()
    kept: set[Operator | Move] = set()
    for one, other in zip(_parts(steps), _parts(others), strict=True):
        known: dict[Any, Any] = found.moves if isinstance(one, Move) else found.operators
        if isinstance(one, Move) and (one.size_bytes == 0) != (other.size_bytes == 0):
            return None
        if one == other:
            kept.add(one)
        elif known.setdefault(one, other) != other:
            return None
    if not kept.isdisjoint(found.operators) or not kept.isdisjoint(found.moves):
        return None
    return found


def _parts(steps: Iterable[Step]) -> Iterator[Any]:
    """Operators and collectives, in an order."""
    for step in steps:
        if isinstance(step, Compute):
            yield from step.operators
            yield from step.again
        elif isinstance(step, Exchange):
            moves = (step.forward, step.backward, step.again)
            yield from (one for one in moves if one is not None)
        elif isinstance(step, Passing):
            yield from (*step.own, *step.others)
        else:
            yield from _parts(step.steps)


def traces_of(places: Sequence[Place], make: Callable[[Place], Rank]) -> list[TraceBuilder]:
    """The traces of kinds of ranks; those that differ in the load of experts share their nodes.

    Parameters
    ----------
    places
        Those with the same stage and place in the ring one after the other.
    make
        Makes a rank whose trace is built.
    """
    found: list[TraceBuilder] = []
    like: Rank | None = None
    with without_garbage():
        for place in places:
            same = like is not None and like.place[:2] == place[:2]
            made = like.alike(place.expert) if like is not None and same else None
            if made is None:
                like = make(place)
                made = like.trace
            found.append(made)
    return found


@contextmanager
def without_garbage() -> Iterator[None]:
    """Search for no garbage: millions of small objects, none of them in a circle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def join(*ends: Iterable[int]) -> list[int]:
    """Nodes to wait for, each once."""
    return list(dict.fromkeys(chain(*ends)))


def _total(work: Work) -> Cost:
    if len(work) == 1:
        return cost(*work[0])
    costs = [cost(*pair) for pair in work]
    return Cost(
        sum(one.operations for one in costs),
        sum(one.moved_bytes for one in costs),
        "; ".join(one.kernels for one in costs if one.kernels),
    )


def steps_of(run: TrainingStep | Inference, part: Slice, known: Known) -> StepsOf:
    """What gives the steps of a layer on ranks of an expert-parallel index; equal ones are kept."""
    heaviest, loads = run.loads.max(axis=1).tolist(), run.loads.tolist()

    def found(at: int, layer: Layer, expert: int) -> tuple[Step, ...]:
        key = (layer, loads[at][expert], heaviest[at])
        if key not in known:
            mine = replace(part, load=loads[at][expert], heaviest=heaviest[at])
            known[key] = layer_steps(run.model, layer, mine)
        return known[key]

    return found


def places_of(run: TrainingStep | Inference) -> tuple[list[Place], NDArray[np.int32]]:
    """The kinds of ranks, and which each rank is."""
    par = run.parallelism
    ring = np.zeros(par.ranks, np.int64)
    if par.ring and par.context > 1:
        index = par.index("cp")
        ring = np.where(index == 0, 0, np.where(index == par.context - 1, 2, 1))
    uneven = run.imbalance > 0 and par.expert > 1
    expert = par.index("ep") if uneven else np.zeros(par.ranks, np.int64)
    code = (par.index("pp") * 3 + ring) * max(1, par.expert) + expert
    codes, kinds = np.unique(code, return_inverse=True)
    each = max(1, par.expert)
    places = [Place(c // each // 3, c // each % 3, c % each) for c in codes.tolist()]
    return places, kinds.astype(np.int32).reshape(-1)
