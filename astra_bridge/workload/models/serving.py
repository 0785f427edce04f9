# SPDX-License-Identifier: MIT
"""Traces of inference: prompts are read, tokens made."""

from __future__ import annotations

import numpy as np

from astra_bridge.hardware import Hardware, hardware
from astra_bridge.workload.builder import GeneratedWorkload, Kinds, TraceBuilder
from astra_bridge.workload.models import formulas
from astra_bridge.workload.models.emission import (
    TWIN_TAGS,
    Block,
    Groups,
    Place,
    Rank,
    Timer,
    join,
    places_of,
    steps_of,
    traces_of,
)
from astra_bridge.workload.models.layers import Slice, embedding_steps, head_steps
from astra_bridge.workload.models.shape import Layer
from astra_bridge.workload.models.step import Inference, is_cached, parts_of

__all__ = ["inference"]


class _Serving(Rank):
    """The trace of a kind of rank in inference."""

    run: Inference

    def __init__(
        self, run: Inference, place: Place, groups: Groups, timer: Timer, *,
        prompts: bool, tokens: bool,
    ) -> None:  # fmt: skip
        super().__init__(run, place, groups, timer)
        self.prompts, self.tokens = prompts, tokens
        self.mine = parts_of(run.model, self.pipe.positions, run.stage_layers)[place.stage]
        self.half = run.parallelism.ranks

    def build(self) -> _Serving:
        run = self.run
        if self.prompts:
            self.read_prompts()
        if not self.tokens:
            return self
        arrived = [] if self.prompts or run.phase == "decode" else [
            self.receive(micro) for micro in range(run.micro_batches)
        ]  # fmt: skip
        for token in range(run.output_tokens):
            blocks = self.blocks_of(run.decoded(token))
            for micro in range(run.micro_batches):
                keys = arrived[micro] if arrived and token == 0 else {}
                self.make_token(token, micro, blocks, keys)
        return self

    def blocks_of(self, part: Slice) -> list[Block]:
        run = self.run
        ends = embedding_steps(run.model, part), head_steps(run.model, part, loss=False)
        return self.blocks(self.mine, steps_of(run, part, {}), ends)

    def read_prompts(self) -> None:
        run, stages = self.run, self.pipe.stages
        part = run.part()
        size = part.boundary_bytes(run.model)
        blocks = self.blocks_of(part)
        hand_over = run.phase == "disaggregated"
        for micro in range(run.micro_batches):
            if self.place.stage:
                node = self.awaited(f"recv.prompt.m{micro}", self.ahead(self.place.stage - 1), size,
                                    2 * micro)  # fmt: skip
                self.tail = join(self.tail, [node])
            for block in blocks:
                self.within(block)
                self.forward(f"{block.name}.prompt.m{micro}", block.steps)
                self.block = None
                if hand_over and (tag := self.cache_tag(micro, block)) is not None:
                    self.message(f"{block.name}.keys.m{micro}", self.half, self.cache_size(block),
                                 tag, self.tail)  # fmt: skip
            if self.place.stage < stages - 1:
                self.message(f"send.prompt.m{micro}", self.ahead(self.place.stage + 1), size,
                             2 * micro, self.tail)  # fmt: skip

    def layer(self, block: Block) -> Layer | None:
        name = block.name.removeprefix("layer")
        return self.model.layers[int(name)] if name.isdigit() else None

    def cache_size(self, block: Block) -> int:
        """Bytes of keys and values of a layer, of the prompts of a micro-batch."""
        layer = self.layer(block)
        assert layer is not None
        each = formulas.cache_bytes(layer, self.run.sequence, self.par.tensor)
        return self.run.micro_batch * each

    def cache_tag(self, micro: int, block: Block) -> int | None:
        layer = self.layer(block)
        if layer is None or not is_cached(layer):
            return None
        return TWIN_TAGS + micro * self.model.depth + int(block.name.removeprefix("layer"))

    def receive(self, micro: int) -> dict[str, int]:
        """Keys and values of a micro-batch, by layer."""
        found = {}
        for block in self.blocks_of(self.run.part()):
            tag = self.cache_tag(micro, block)
            if tag is not None:
                found[block.name] = self.awaited(
                    f"{block.name}.keys.m{micro}", -self.half, self.cache_size(block), tag
                )
        return found

    def make_token(self, token: int, micro: int, blocks: list[Block], keys: dict[str, int]) -> None:
        run, stage, last = self.run, self.place.stage, self.pipe.stages - 1
        size = run.decoded(token).boundary_bytes(run.model)
        number = (token + 1) * run.micro_batches + micro
        name = f"t{token}.m{micro}"
        if stage:
            node = self.awaited(f"recv.{name}", self.ahead(stage - 1), size, 2 * number)
            self.tail = join(self.tail, [node])
        elif last and token:
            # The token that the last stage made before, as a number of 4 bytes for each request.
            before = 2 * (number - run.micro_batches) + 1
            node = self.awaited(f"recv.token.{name}", self.ahead(last), 4 * run.micro_batch, before)
            self.tail = join(self.tail, [node])
        for block in blocks:
            if block.name in keys:
                self.tail = [*self.tail, keys[block.name]]
            self.within(block)
            self.forward(f"{block.name}.{name}", block.steps)
            self.block = None
        if stage < last:
            self.message(f"send.{name}", self.ahead(stage + 1), size, 2 * number, self.tail)
        elif last and token < run.output_tokens - 1:
            self.message(
                f"send.token.{name}", self.ahead(0), 4 * run.micro_batch, 2 * number + 1, self.tail
            )


def inference(run: Inference, gpu: Hardware | str | None = None) -> GeneratedWorkload:
    """Generate the traces of inference; twice as many ranks where it is disaggregated.

    Parameters
    ----------
    run, gpu
        As :func:`training_step`.

    Examples
    --------
    >>> from astra_bridge.workload.models import Parallelism, named_model
    >>> run = Inference(named_model("llama-3.1-8b"), Parallelism(tensor=2), phase="disaggregated")
    >>> inference(run).ranks
    4
    """
    groups, timer = Groups(), Timer(hardware(gpu, key="gpu") if isinstance(gpu, str) else gpu)
    places, kinds = places_of(run)

    def made(prompts: bool, tokens: bool) -> list[TraceBuilder]:
        return traces_of(
            places,
            lambda place: _Serving(
                run, place, groups, timer, prompts=prompts, tokens=tokens
            ).build(),
        )

    if run.phase == "disaggregated":
        traces = made(True, False) + made(False, True)
        kinds = np.concatenate([kinds, kinds + np.int32(len(places))])
    else:
        reads = run.phase == "prefill"
        traces = made(reads, not reads)
    return GeneratedWorkload(Kinds(traces, kinds), own_groups=groups.own(), in_turn=True)
