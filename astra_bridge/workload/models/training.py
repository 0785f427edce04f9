# SPDX-License-Identifier: MIT
"""Traces of training steps."""

from __future__ import annotations

from collections.abc import Sequence

from astra_bridge.hardware import Hardware, hardware
from astra_bridge.trace.columns import CommType
from astra_bridge.workload.builder import GeneratedWorkload, Kinds
from astra_bridge.workload.models import formulas
from astra_bridge.workload.models.emission import (
    TWIN_TAGS,
    Block,
    Groups,
    Known,
    Place,
    Rank,
    Timer,
    join,
    places_of,
    steps_of,
    traces_of,
)
from astra_bridge.workload.models.layers import embedding_steps, head_steps
from astra_bridge.workload.models.memory import kept_bytes
from astra_bridge.workload.models.operators import Cost, Pass
from astra_bridge.workload.models.parallelism import Orbit, count
from astra_bridge.workload.models.schedules import Action, Work
from astra_bridge.workload.models.step import TrainingStep, parts_of

__all__ = ["training_step"]

_HALF = 2


class _Training(Rank):
    """The trace of a kind of rank in training."""

    run: TrainingStep

    def __init__(
        self, run: TrainingStep, place: Place, groups: Groups, timer: Timer, known: Known
    ) -> None:
        super().__init__(run, place, groups, timer)
        part = run.part()
        layers = steps_of(run, part, known)
        parts = parts_of(run.model, self.pipe.positions, run.stage_layers)
        ends = embedding_steps(run.model, part), head_steps(run.model, part, loss=True)
        self.chunks = [
            self.blocks(parts[self.pipe.position(place.stage, chunk)], layers, ends)
            for chunk in range(self.pipe.chunks)
        ]
        self.held = [block for blocks in self.chunks for block in blocks]
        self.offloaded: dict[tuple[int, str], int] = {}
        if run.offloads("activations"):
            for chunk in range(self.pipe.chunks):
                its = parts[self.pipe.position(place.stage, chunk)]
                # The last layer's backward pass may follow at once.
                for at, layer in enumerate(its.layers(run.model)[:-1], its.first):
                    self.offloaded[chunk, f"layer{at}"] = kept_bytes(run, layer)
        self.boundary_bytes = part.boundary_bytes(run.model)
        self.reduced: list[int] = []  # gradients that were reduced, or are ready to be
        self.gathering: dict[tuple[int, str], list[int]] = {}
        self.step = 0
        # Activations on the host: chunk, block and micro-batch -> their copy there.
        self.away: dict[tuple[int, str, int], int] = {}
        self.before: list[int] = []  # where the pass over the block before began

    def build(self) -> _Training:
        for step in range(self.run.steps):
            self.step = step
            self.one_step()
        return self

    def one_step(self) -> None:
        order = self.pipe.orders[self.place.stage]
        left = [0] * self.pipe.chunks  # backward passes until a chunk's gradients are whole
        for one in order:
            left[one.chunk] += one.work in (Work.BACKWARD, Work.WEIGHT)
        self.reduced = []
        self.gathering = {}
        if self.par.zero in (1, 2) and self.run.overlap_weights:
            for chunk, blocks in enumerate(self.chunks):
                for block in blocks:
                    self.gathering[chunk, block.name] = self.gather(block, self.tail)
        uses = [(one, block) for one in order for block in self.order_of(one)]
        self.uses, self.used = iter(uses), 0
        self.ahead_of: list[list[int]] = []
        at = 0
        while at < len(order):
            # Passes that run together begin when all have what they need, and then all send.
            end = at + 1
            while end < len(order) and order[end].beside:
                end += 1
            self.together_pass(order[at:end], left)
            at = end
        self.finish()

    def together_pass(self, actions: Sequence[Action], left: list[int]) -> None:
        for one in actions:
            self.arrive(one)
        start, ends = self.tail, []
        for one in actions:
            self.tail = start
            if one.work is Work.FORWARD:
                self.go_forward(one)
            else:
                left[one.chunk] -= one.work in (Work.BACKWARD, Work.WEIGHT)
                self.go_back(one, last=left[one.chunk] == 0)
            ends += self.tail
        self.tail = join(ends)
        for one in actions:
            self.leave(one)

    def order_of(self, one: Action) -> list[Block]:
        blocks = self.chunks[one.chunk]
        return blocks if one.work is Work.FORWARD else blocks[::-1]

    # Messages between stages.

    def tag(self, one: Action, chunk: int, forward: bool) -> int:
        """Of the message that chunk `chunk` of its receiver waits for."""
        number = (self.step * self.run.micro_batches + one.micro) * self.pipe.chunks + chunk
        return 2 * number + (not forward)

    def arrive(self, one: Action) -> None:
        """Wait for what another stage sends."""
        if one.work is Work.WEIGHT:
            return
        forward = one.work is Work.FORWARD
        source = self.pipe.neighbour(self.place.stage, one.chunk, -1 if forward else 1)
        if source is None or source[0] == self.place.stage:
            return
        what = "activations" if forward else "gradients"
        node = self.awaited(
            f"recv.{what}.m{one.micro}", self.ahead(source[0]), self.boundary_bytes,
            self.tag(one, one.chunk, forward),
        )  # fmt: skip
        self.tail = join(self.tail, [node])

    def leave(self, one: Action) -> None:
        """Send to the next stage."""
        if one.work is Work.WEIGHT:
            return
        forward = one.work is Work.FORWARD
        target = self.pipe.neighbour(self.place.stage, one.chunk, 1 if forward else -1)
        if target is None or target[0] == self.place.stage:
            return
        what = "activations" if forward else "gradients"
        node = self.message(
            f"send.{what}.m{one.micro}", self.ahead(target[0]), self.boundary_bytes,
            self.tag(one, target[1], forward), self.tail,
        )  # fmt: skip
        if not self.run.overlap_messages:
            self.tail = join(self.tail, [node])

    # Passes.

    def go_forward(self, one: Action) -> None:
        for block in self.chunks[one.chunk]:
            self.have_weights(one, block)
            self.within(block)
            self.before = self.tail
            self.forward(f"{block.name}.forward.m{one.micro}", block.steps)
            self.block = None
            self.put_away(one, block)

    def go_back(self, one: Action, *, last: bool) -> None:
        which = Pass.INPUT if one.work is Work.INPUT else Pass.BACKWARD
        for block in reversed(self.chunks[one.chunk]):
            self.have_weights(one, block)
            if one.work is not Work.WEIGHT:
                self.bring_back(one, block)
            self.within(block)
            if one.work is Work.WEIGHT:
                self.weights(f"{block.name}.backward.m{one.micro}", block.steps)
            else:
                if self.run.recompute == "full" and block.name.startswith("layer"):
                    self.forward(f"{block.name}.again.m{one.micro}", block.steps)
                self.backward(f"{block.name}.backward.m{one.micro}", block.steps, which)
            self.block = None
            if one.work is not Work.INPUT:
                self.gradients(block, last)

    # Activations on the host.

    def put_away(self, one: Action, block: Block) -> None:
        """Copy what a layer keeps to the host, beside what follows."""
        size_bytes = self.offloaded.get((one.chunk, block.name), 0)
        if size_bytes:
            name = f"{block.name}.offload.m{one.micro}"
            node = self.trace.store(size_bytes, name=name, deps=self.tail)
            self.away[one.chunk, block.name, one.micro] = node

    def bring_back(self, one: Action, block: Block) -> None:
        """Wait for what a layer keeps: its copy begins one block ahead."""
        stored = self.away.pop((one.chunk, block.name, one.micro), None)
        ahead, self.before = self.before, self.tail
        if stored is not None:
            size_bytes = self.offloaded[one.chunk, block.name]
            name = f"{block.name}.reload.m{one.micro}"
            deps = join(ahead, [stored])
            self.tail = join(self.tail, [self.trace.load(size_bytes, name=name, deps=deps)])

    # Data parallelism.

    def sharing(self) -> list[tuple[str, tuple[Orbit, ...], tuple[Orbit, ...]]]:
        """Role, shards and copies, of dense weights and of experts."""
        par = self.par
        return [
            ("dp", *par.shards(par.replicas)),
            ("edp", *par.shards(par.expert_replicas)),
        ]

    def gather(self, block: Block, deps: list[int]) -> list[int]:
        """Gather the weights of a block."""
        found: list[int] = []
        for (role, shards, _), size in zip(self.sharing(), block.weights, strict=True):
            if size and shards:
                found += self.over(
                    f"{block.name}.gather", f"{role}-gather", shards, CommType.ALL_GATHER,
                    size * _HALF, deps,
                )  # fmt: skip
        return found

    def have_weights(self, one: Action, block: Block) -> None:
        """Wait until the weights of a block are there."""
        if self.par.zero != 3:
            ready = self.gathering.pop((one.chunk, block.name), None)
            if ready:
                self.tail = join(self.tail, ready)
            return
        # So many blocks ahead, in the order of their use; the gradients of weights need none.
        while len(self.ahead_of) <= self.used + self.par.prefetch:
            use = next(self.uses, None)
            if use is None:
                break
            again = use[0].work is not Work.WEIGHT
            self.ahead_of.append(self.gather(use[1], self.tail) if again else [])
        self.tail = join(self.tail, self.ahead_of[self.used])
        self.used += 1

    def gradients(self, block: Block, last: bool) -> None:
        """Reduce the gradients of a block, where it is time for it."""
        if not (last or self.par.zero >= 2):
            return
        if last and not self.run.overlap_gradients and self.par.zero < 2:
            return  # all at the end
        self.reduced += self.reduce(block, self.tail, last)

    def reduce(self, block: Block, deps: list[int], last: bool) -> list[int]:
        found: list[int] = []
        for (role, shards, copies), size in zip(self.sharing(), block.weights, strict=True):
            size_bytes, name = size * self.run.gradient_bytes, f"{block.name}.reduce"
            if not size:
                continue
            if self.par.zero == 0:
                every = (*shards, *copies)
                found += self.over(name, role, every, CommType.ALL_REDUCE, size_bytes, deps)
                continue
            here = self.over(name, role, shards, CommType.REDUCE_SCATTER, size_bytes, deps)
            if copies and last:
                part = -(-size_bytes // count(shards))
                here = self.over(name, f"{role}-copies", copies, CommType.ALL_REDUCE, part, here)
            found += here
        if last and self.run.offloads("optimizer"):
            size_bytes = self.owned([block]) * self.run.gradient_bytes
            return [self.trace.store(size_bytes, name=f"{block.name}.offload", deps=found or deps)]
        return found

    def owned(self, held: Sequence[Block]) -> int:
        """Parameters of blocks whose gradients, or optimizer, this rank has."""
        whole = [
            sum(block.weights.dense for block in held),
            sum(block.weights.experts for block in held),
        ]
        if self.par.zero == 0:
            return sum(whole)
        each = (count(shards) for _, shards, _ in self.sharing())
        return sum(-(-size // ranks) for size, ranks in zip(whole, each, strict=True))

    def finish(self) -> None:
        """What comes after the last pass: gradients, the optimizer, weights."""
        if not self.run.overlap_gradients and self.par.zero < 2:
            for blocks in self.chunks:
                for block in reversed(blocks):
                    self.reduced += self.reduce(block, self.tail, True)
        self.tail = join(self.tail, self.reduced)
        self.twins()
        owned = self.owned(self.held)
        moved = owned * formulas.optimizer_traffic_bytes(self.run.gradient_bytes)
        name = f"optimizer.step{self.step}"
        if self.run.offloads("optimizer"):
            duration_ns = max(1, round(moved / self.run.host_optimizer_GBps))
            stepped = self.trace.comp(name, duration_ns=duration_ns, cpu=True, deps=self.tail)
            self.tail = [self.trace.load(owned * _HALF, name="weights.reload", deps=[stepped])]
        else:
            # Adam: about ten operations for each parameter.
            self.tail = self.node(name, Cost(10 * owned, moved, f"optimizer {moved}"), self.tail)
        if self.par.zero in (1, 2) and not self.run.overlap_weights:
            start, found = self.tail, []
            for blocks in self.chunks:
                for block in blocks:
                    found += self.gather(block, start)
            self.tail = join(start, found)

    def twins(self) -> None:
        """Sum gradients with the other stage that has the same weights, by a message each way."""
        stages, stage, model = self.pipe.stages, self.place.stage, self.model
        if self.pipe.mirrored:
            twin, size = stages - 1 - stage, self.owned(self.held)
        elif model.tied and stages > 1 and stage in (0, stages - 1):
            twin = stages - 1 - stage
            size = -(-model.vocabulary // self.par.tensor) * model.hidden
            if self.par.zero:
                size = -(-size // count(self.par.shards(self.par.replicas)[0]))
        else:
            return
        size_bytes, tag = size * self.run.gradient_bytes, TWIN_TAGS + self.step
        name = "twin.reduce"
        self.message(name, self.ahead(twin), size_bytes, tag, self.tail)
        self.tail = [*self.tail, self.awaited(name, self.ahead(twin), size_bytes, tag)]


def training_step(run: TrainingStep, gpu: Hardware | str | None = None) -> GeneratedWorkload:
    """Generate the traces of a training step.

    Parameters
    ----------
    run
        The step.
    gpu
        The accelerator, its name or its profile's path: gives compute nodes their durations;
        without one they have shapes only, for a compute model.

    Returns
    -------
    GeneratedWorkload
        One trace for each kind of rank: each stage, and where ranks differ by their place in a
        ring or by the load of their experts, each of these.

    Raises
    ------
    InputError
        The accelerator has no products of this precision.

    Examples
    --------
    >>> from astra_bridge.workload.models import Parallelism, named_model
    >>> model = named_model("llama-3.1-8b")
    >>> made = training_step(TrainingStep(model, Parallelism(tensor=8, pipeline=2, data=4)))
    >>> made.ranks, len(made.kinds()[0])
    (64, 2)
    """
    groups, timer = Groups(), Timer(hardware(gpu, key="gpu") if isinstance(gpu, str) else gpu)
    places, kinds = places_of(run)
    known: Known = {}
    traces = traces_of(places, lambda place: _Training(run, place, groups, timer, known).build())
    return GeneratedWorkload(Kinds(traces, kinds), own_groups=groups.own(), in_turn=True)
