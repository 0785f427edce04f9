# SPDX-License-Identifier: MIT
"""The training step that `fidelity.py` and `speed.py` measure: a transformer of any sizes.

`astra-bridge workload model` makes better ones, which would be other numbers: this one stays as it
is, so that what was measured with it can be measured again.

Compute and communication volumes follow Megatron-LM: Shoeybi et al. 2019 (arXiv 1909.08053,
section 3: two all-reduces per layer and direction) and Narayanan et al. 2021 (SC'21, section 3.2
and appendix: FLOPs of a layer; section 2.2: the 1F1B schedule); experts follow Rajbhandari et al.
2022 (DeepSpeed-MoE: all-to-all before and after the experts).

No deadlock on a system with one communication slot per rank
------------------------------------------------------------
On each rank, every collective and every send depends on the one before it, so the slot is used in
program order.  All members of a collective belong to the same pipeline stage and have the same
program, so they agree on the order of collectives; receives need no slot and are posted at once,
so a send always ends; and 1F1B without communication has no cycle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from astra_bridge.arguments import Check, check_fields, flag, integer, positive
from astra_bridge.errors import InputError
from astra_bridge.trace.columns import CommType
from astra_bridge.workload import GeneratedWorkload, Kinds, TraceBuilder


@dataclass(frozen=True)
class Transformer:
    """Model, batch and parallelism; ``ranks = data * tensor * pipeline``.

    Ranks are numbered with the tensor index fastest, then data, then pipeline.

    Attributes
    ----------
    layers, hidden, sequence, vocabulary : int
        Shape of the model; sequence in tokens.
    ffn_hidden : int
        Width of the feed-forward layers; 0 for 4 * hidden.
    experts, top_k : int
        Experts per layer in place of its feed-forward part (0: dense), and how many each token
        goes to.
    micro_batch, micro_batches : int
        Sequences per micro-batch, and micro-batches per step and data-parallel rank.
    data, tensor, pipeline, expert : int
        Degrees of parallelism.  Expert-parallel groups are parts of data-parallel groups, so
        `expert` divides `data`.
    element_bytes, gradient_bytes : int
        Size of a parameter or activation, and of a gradient, in bytes.
    sharded_optimizer : bool
        Reduce-scatter gradients and all-gather parameters (ZeRO stage 1) instead of all-reduce.
    tflops : float
        Sustained TFLOP/s of one rank; gives the compute nodes their durations.  A system with
        roofline-enabled uses their num_ops and tensor_size instead.
    steps : int
        Training steps, one after the other.
    """

    layers: int = 8
    hidden: int = 4096
    sequence: int = 2048
    vocabulary: int = 32000
    ffn_hidden: int = 0
    experts: int = 0
    top_k: int = 2
    micro_batch: int = 1
    micro_batches: int = 4
    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    element_bytes: int = 2
    gradient_bytes: int = 2
    sharded_optimizer: bool = False
    tflops: float = 200.0
    steps: int = 1

    def __post_init__(self) -> None:
        checks: dict[str, Check] = {item.name: integer(1, 2**53) for item in fields(self)}
        checks |= {name: integer(0, 2**53) for name in ("ffn_hidden", "experts")}
        checks |= {"sharded_optimizer": flag, "tflops": positive(1e30)}
        check_fields(self, checks)
        if self.layers % self.pipeline:
            raise InputError(
                f"{self.pipeline} stages cannot share {self.layers} layers evenly", key="pipeline"
            )
        for what in ("hidden", "vocabulary", "ffn"):
            size = getattr(self, what)
            if size % self.tensor:
                raise InputError(f"{self.tensor} does not divide {what} {size}", key="tensor")
        if self.data % self.expert:
            raise InputError(f"{self.expert} does not divide data {self.data}", key="expert")
        if self.expert > 1 and not self.experts:
            raise InputError("needs a model with experts", key="expert")
        if self.experts % self.expert:
            raise InputError(
                f"{self.expert} ranks cannot share {self.experts} experts evenly", key="expert"
            )
        if self.experts and self.top_k > self.experts:
            raise InputError(f"{self.top_k} is more than {self.experts} experts", key="top_k")

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return self.data * self.tensor * self.pipeline

    @property
    def ffn(self) -> int:
        """Width of the feed-forward layers."""
        return self.ffn_hidden or 4 * self.hidden


@dataclass(frozen=True)
class _Work:
    """One compute node of the forward pass, on one rank."""

    name: str
    flops: int
    weights: int  # parameters whose gradients it makes
    traffic: int  # elements that it moves to or from memory
    forward: str  # its kernels by shape, docs/formats/trace.md
    backward: str
    experts: bool = False


_HEAD_SIZE = 128
"""Elements of an attention head, where the model does not say: that of most large ones."""


def _kernels(*products: tuple[int, int, int], more: str = "", times: int = 1) -> tuple[str, str]:
    """Products of matrices (m, n, k) and other kernels as text, forward and backward."""
    often = f"{times}*" if times > 1 else ""
    forward = [f"{often}gemm {m} {n} {k}" for m, n, k in products]
    # The gradients of the input and of the weight.
    backward = [f"{often}gemm {m} {k} {n}; {often}gemm {n} {k} {m}" for m, n, k in products]
    others = more.split("; ") if more else []
    return (
        "; ".join(forward + others),
        "; ".join(backward + [f"{one} backward" for one in others]),
    )


class _Stage:
    """Builds the program that all ranks of a stage have in common."""

    def __init__(self, model: Transformer, stage: int, groups: dict[tuple[int, int], int]) -> None:
        self.model = m = model
        self.trace = TraceBuilder()
        self._groups = groups
        self._stage = stage
        self._slot: list[int] = []  # the last node that used the communication slot
        self._compute: list[int] = []  # what the next compute node waits for
        self._tensor_group = self._group(1, m.tensor)
        self._data_group = self._group(m.tensor, m.data)
        self._expert_group = self._group(m.tensor, m.expert)
        self._expert_data_group = self._group(m.tensor * m.expert, m.data // m.expert)
        self._boundary_bytes = m.micro_batch * m.sequence * m.hidden * m.element_bytes

    def _group(self, stride: int, size: int) -> tuple[int, int | None]:
        """Return (size, id) of the group of the own rank; all ranks together have no id."""
        if size in (1, self.model.ranks):
            return size, None
        return size, self._groups.setdefault((stride, size), len(self._groups) + 1)

    # What a stage computes for one micro-batch.

    def _layer(self, layer: int) -> Iterator[_Work]:
        m = self.model
        tokens = m.micro_batch * m.sequence
        rows = tokens * m.hidden
        attention = 8 * tokens * m.hidden**2 + 4 * tokens * m.sequence * m.hidden
        ffn_weights = 2 * m.hidden * m.ffn
        weights = 4 * m.hidden**2 // m.tensor
        width = m.hidden // m.tensor
        heads = max(1, width // _HEAD_SIZE)
        common = f"add {tokens} {m.hidden}; layer_norm {tokens} {m.hidden}"
        kernels = _kernels(
            (tokens, 3 * width, m.hidden),
            (tokens, m.hidden, width),
            more=f"attention {m.micro_batch} {heads} {heads} {m.sequence} {m.sequence} "
            f"{max(1, width // heads)}; {common}",
        )
        yield _Work(
            f"layer{layer}.attention", attention // m.tensor, weights, weights + 2 * rows, *kernels
        )
        flops = 2 * tokens * ffn_weights // m.tensor
        weights = ffn_weights // m.tensor
        if m.experts:
            flops *= m.top_k
            weights *= m.experts // m.expert
            rows *= m.top_k
            own = m.experts // m.expert
            routed = max(1, tokens * m.top_k // own)
            kernels = _kernels(
                (routed, m.ffn // m.tensor, m.hidden),
                (routed, m.hidden, m.ffn // m.tensor),
                more=f"gelu {routed * own} {m.ffn // m.tensor}; {common}",
                times=own,
            )
            yield _Work(f"layer{layer}.experts", flops, weights, weights + 2 * rows, *kernels, True)
        else:
            kernels = _kernels(
                (tokens, m.ffn // m.tensor, m.hidden),
                (tokens, m.hidden, m.ffn // m.tensor),
                more=f"gelu {tokens} {m.ffn // m.tensor}; {common}",
            )
            yield _Work(f"layer{layer}.mlp", flops, weights, weights + 2 * rows, *kernels)

    def _stage_work(self) -> list[_Work]:
        m = self.model
        tokens = m.micro_batch * m.sequence
        rows = tokens * m.hidden
        per_stage = m.layers // m.pipeline
        table = m.vocabulary * m.hidden // m.tensor
        work: list[_Work] = []
        if self._stage == 0:
            # A look-up: one row per token, and no arithmetic worth counting.
            moved = f"stream {2 * rows * m.element_bytes}"
            work.append(_Work("embedding", rows, table, 2 * rows, moved, f"2*{moved}"))
        for layer in range(self._stage * per_stage, (self._stage + 1) * per_stage):
            work += self._layer(layer)
        if self._stage == m.pipeline - 1:
            logits = tokens * m.vocabulary // m.tensor
            kernels = _kernels((tokens, m.vocabulary // m.tensor, m.hidden))
            work.append(_Work("head", 2 * tokens * table, table, table + rows + logits, *kernels))
        return work

    # Nodes.

    def _comp(self, name: str, flops: int, traffic_elements: int, kernels: str) -> None:
        m = self.model
        node = self.trace.comp(
            name,
            duration_us=max(1, round(flops / (m.tflops * 1e6))),
            num_ops=max(1, flops),
            tensor_size_bytes=max(1, traffic_elements * m.element_bytes),
            kernels=kernels,
            deps=self._compute,
        )
        self._compute = [node]

    def _coll(
        self, kind: CommType, name: str, size_bytes: int, group: tuple[int, int | None]
    ) -> None:
        """Add a collective that the next compute node does not wait for."""
        members, group_id = group
        if members == 1:
            return
        node = self.trace.coll(
            kind,
            size_bytes,
            name=name,
            group=group_id,
            deps=sorted({*self._compute, *self._slot}),
        )
        self._slot = [node]

    def _blocking(
        self, kind: CommType, name: str, size_bytes: int, group: tuple[int, int | None]
    ) -> None:
        """Add a collective whose result the next compute node needs."""
        before = self._slot
        self._coll(kind, name, size_bytes, group)
        if self._slot is not before:
            self._compute = self._slot

    def _exchange(self, work: _Work, direction: str) -> None:
        """All-to-all of the tokens of a micro-batch among experts."""
        if work.experts:
            self._blocking(
                CommType.ALL_TO_ALL,
                f"{work.name}.{direction}",
                self._boundary_bytes * self.model.top_k,
                self._expert_group,
            )

    def _send(self, step: int, micro: int, forward: bool) -> None:
        peer = self._ahead(1 if forward else -1)
        node = self.trace.send(
            peer,
            self._boundary_bytes,
            self._tag(step, micro, forward),
            name=f"send.{'fwd' if forward else 'bwd'}.mb{micro}",
            deps=sorted({*self._compute, *self._slot}),
        )
        self._slot = [node]

    def _recv(self, step: int, micro: int, forward: bool) -> None:
        peer = self._ahead(-1 if forward else 1)
        node = self.trace.recv(
            peer,
            self._boundary_bytes,
            self._tag(step, micro, forward),
            name=f"recv.{'fwd' if forward else 'bwd'}.mb{micro}",
        )
        self._compute = [*self._compute, node]

    def _ahead(self, stages: int) -> int:
        """Distance to the same place of another stage."""
        return stages * self.model.data * self.model.tensor

    def _tag(self, step: int, micro: int, forward: bool) -> int:
        return 2 * (step * self.model.micro_batches + micro) + (not forward)

    def _forward(self, step: int, micro: int, stage_work: list[_Work]) -> None:
        if self._stage > 0:
            self._recv(step, micro, forward=True)
        for work in stage_work:
            name = f"{work.name}.fwd.mb{micro}"
            self._exchange(work, f"dispatch.fwd.mb{micro}")
            self._comp(name, work.flops, work.traffic, work.forward)
            if work.name != "head":
                self._blocking(
                    CommType.ALL_REDUCE, f"{name}.tp", self._boundary_bytes, self._tensor_group
                )
            self._exchange(work, f"combine.fwd.mb{micro}")
        if self._stage < self.model.pipeline - 1:
            self._send(step, micro, forward=True)

    def _backward(self, step: int, micro: int, stage_work: list[_Work]) -> None:
        if self._stage < self.model.pipeline - 1:
            self._recv(step, micro, forward=False)
        last = micro == self.model.micro_batches - 1
        for work in reversed(stage_work):
            name = f"{work.name}.bwd.mb{micro}"
            self._exchange(work, f"combine.bwd.mb{micro}")
            # Gradients of inputs and of weights: twice the forward work.
            self._comp(name, 2 * work.flops, 2 * work.traffic, work.backward)
            if work.name != "embedding":
                self._blocking(
                    CommType.ALL_REDUCE, f"{name}.tp", self._boundary_bytes, self._tensor_group
                )
            self._exchange(work, f"dispatch.bwd.mb{micro}")
            if last:
                self._synchronise(work)
        if self._stage > 0:
            self._send(step, micro, forward=False)

    def _synchronise(self, work: _Work) -> None:
        m = self.model
        kind = CommType.REDUCE_SCATTER if m.sharded_optimizer else CommType.ALL_REDUCE
        size_bytes = work.weights * m.gradient_bytes
        self._coll(kind, f"{work.name}.grad", size_bytes, self._replicas(work))

    def _replicas(self, work: _Work) -> tuple[int, int | None]:
        """Return the group of ranks that hold the same weights."""
        return self._expert_data_group if work.experts else self._data_group

    def _optimizer(self, step: int, stage_work: list[_Work]) -> None:
        m = self.model
        weights = sum(
            work.weights // (self._replicas(work)[0] if m.sharded_optimizer else 1)
            for work in stage_work
        )
        self._compute = sorted({*self._compute, *self._slot})
        # Adam: about ten operations per parameter; reads and writes parameter and two moments.
        moved = f"optimizer {max(1, 6 * weights * m.element_bytes)}"
        self._comp(f"optimizer.step{step}", 10 * weights, 6 * weights, moved)
        if m.sharded_optimizer:
            for work in stage_work:
                group = self._replicas(work)
                shard = math.ceil(work.weights / group[0]) * m.element_bytes
                self._blocking(CommType.ALL_GATHER, f"{work.name}.param", shard, group)

    def build(self) -> TraceBuilder:
        m = self.model
        stage_work = self._stage_work()
        warm_up = min(m.pipeline - 1 - self._stage, m.micro_batches)
        for step in range(m.steps):
            for micro in range(warm_up):
                self._forward(step, micro, stage_work)
            for micro in range(m.micro_batches - warm_up):
                self._forward(step, micro + warm_up, stage_work)
                self._backward(step, micro, stage_work)
            for micro in range(m.micro_batches - warm_up, m.micro_batches):
                self._backward(step, micro, stage_work)
            self._optimizer(step, stage_work)
        return self.trace


def transformer(model: Transformer) -> GeneratedWorkload:
    """Generate the traces of a training step.

    Returns
    -------
    GeneratedWorkload
        One trace per stage; its groups are those of more than one and fewer than all ranks.
    """
    groups: dict[tuple[int, int], int] = {}
    stages = [_Stage(model, stage, groups).build() for stage in range(model.pipeline)]
    stage_of_rank = np.arange(model.ranks, dtype=np.int32) // (model.data * model.tensor)
    own_groups = {number: group for group, number in groups.items()}
    return GeneratedWorkload(Kinds(stages, stage_of_rank), own_groups=own_groups)
