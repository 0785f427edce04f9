# SPDX-License-Identifier: MIT
"""Bytes that each stage keeps on a rank: weights, gradients, optimizer, activations, cache."""

from __future__ import annotations

from typing import NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.hardware import Hardware
from astra_bridge.workload.models import formulas
from astra_bridge.workload.models.formulas import OPTIMIZER_BYTES, Weights
from astra_bridge.workload.models.parallelism import count
from astra_bridge.workload.models.shape import Layer
from astra_bridge.workload.models.step import Inference, Part, TrainingStep, parts_of

__all__ = ["StageMemory", "check_memory", "kept_bytes", "memory", "memory_text", "part_weights"]

_HALF = 2


class StageMemory(NamedTuple):
    """What a rank of a stage keeps, in bytes.

    Attributes
    ----------
    stage, parameters : int
        Parameters are those that the rank computes with.
    weights, gradients, optimizer, activations, cache : int
        In bytes; weights of layers that are gathered for a time count as weights.
    """

    stage: int
    parameters: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    cache: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.cache


def part_weights(run: TrainingStep | Inference, part: Part) -> Weights:
    """Parameters of a part of the model on one rank."""
    model, par = run.model, run.parallelism
    dense = experts = 0
    if part.embedding:
        dense += formulas.embedding_parameters(model, par.tensor)
    for layer in part.layers(model):
        weights = formulas.layer_weights(model, layer, par.tensor, par.expert)
        dense, experts = dense + weights.dense, experts + weights.experts
    if part.head:
        dense += formulas.head_parameters(model, par.tensor)
        if model.tied and not part.embedding:
            dense += -(-model.vocabulary // par.tensor) * model.hidden  # a copy
    return Weights(dense, experts)


def kept_bytes(run: TrainingStep, layer: Layer) -> int:
    """Activations of a layer that a micro-batch keeps for its backward pass."""
    par, own = run.parallelism, run.sequence // run.parallelism.context
    split = par.sequence_parallel and par.tensor > 1
    if run.recompute == "full":
        return run.part().boundary_bytes(run.model)
    return formulas.activation_bytes(
        run.model, layer, run.micro_batch, own, par.tensor, sequence_parallel=split,
        fused=run.fused_attention, selective=run.recompute == "selective",
    )  # fmt: skip


def _training(run: TrainingStep) -> list[StageMemory]:
    model, par, pipe = run.model, run.parallelism, run.pipeline
    parts = parts_of(model, pipe.positions, run.stage_layers)
    shared = [count(par.shards(one)[0]) for one in (par.replicas, par.expert_replicas)]
    found = []
    for stage in range(pipe.stages):
        held = [parts[pipe.position(stage, chunk)] for chunk in range(pipe.chunks)]
        each = [part_weights(run, part) for part in held]
        whole = [sum(one.dense for one in each), sum(one.experts for one in each)]
        split = sum(-(-size // ranks) for size, ranks in zip(whole, shared, strict=True))
        total = sum(whole)
        weights = _HALF * (split if par.zero == 3 else total)
        if par.zero == 3:
            layers = {layer for part in held for layer in part.layers(model)}
            sizes = [
                sum(formulas.layer_weights(model, layer, par.tensor, par.expert))
                for layer in layers
            ]
            weights += _HALF * (1 + par.prefetch) * max(sizes, default=0)
        kept = 0
        for chunk, most in enumerate(pipe.in_flight(stage)):
            sizes = [kept_bytes(run, layer) for layer in held[chunk].layers(model)]
            if run.offloads("activations"):
                # Of all but the last layer the one that computes, and the one that is copied.
                kept += sum(sorted(sizes[:-1])[-2:])
                sizes = sizes[-1:]
            kept += most * sum(sizes)
            if held[chunk].head:
                # Logits in bf16 and fp32, of one micro-batch at a time.
                kept += 6 * run.part().tokens * -(-model.vocabulary // par.tensor)
        found.append(
            StageMemory(
                stage,
                total,
                weights,
                run.gradient_bytes * (split if par.zero >= 2 else total),
                0
                if run.offloads("optimizer")
                else OPTIMIZER_BYTES * (split if par.zero >= 1 else total),
                kept,
                0,
            )
        )
    return found


def _inference(run: Inference) -> list[StageMemory]:
    model, par, pipe = run.model, run.parallelism, run.pipeline
    made = 0 if run.phase == "prefill" else run.output_tokens
    found = []
    for stage, part in enumerate(parts_of(model, pipe.positions, run.stage_layers)):
        total = sum(part_weights(run, part))
        tokens = run.sequence + made
        cached = sum(
            formulas.cache_bytes(layer, tokens, par.tensor) for layer in part.layers(model)
        )
        requests = run.micro_batch * run.micro_batches
        # Of one layer at a time, in and out.
        kept = 2 * run.part().tokens * model.hidden * _HALF
        found.append(
            StageMemory(stage, total, _HALF * total, 0, 0, kept, cached * requests // par.context)
        )
    return found


def memory(run: TrainingStep | Inference) -> list[StageMemory]:
    """What a rank of each stage keeps.

    Weights and activations are in bf16; Adam keeps 12 bytes for each parameter (ZeRO, arXiv
    1910.02054, section 3.1).  What libraries need, and what is lost between blocks, is not in it.

    Examples
    --------
    >>> from astra_bridge.workload.models import named_model
    >>> (stage,) = memory(TrainingStep(named_model("llama-3.1-8b")))
    >>> stage.weights, stage.optimizer
    (16060522496, 96363134976)
    """
    return _training(run) if isinstance(run, TrainingStep) else _inference(run)


_COLUMNS = ("parameters", "weights", "gradients", "optimizer", "activations", "cache", "total")


def memory_text(stages: list[StageMemory], hardware: Hardware | None = None) -> str:
    """A table, in GiB and 10^9 parameters; stages that are alike are one row."""
    rows: list[tuple[str, list[str]]] = []
    for one in stages:
        cells = [f"{one.parameters / 1e9:.3f}"]
        cells += [f"{getattr(one, name) / 2**30:.2f}" for name in _COLUMNS[1:]]
        if rows and rows[-1][1] == cells:
            rows[-1] = (f"{rows[-1][0].partition('-')[0]}-{one.stage}", cells)
        else:
            rows.append((str(one.stage), cells))
    lines = ["memory of a rank [GiB]; parameters [10^9]"]
    lines.append("stage".ljust(8) + "".join(name.rjust(13) for name in _COLUMNS))
    lines += [name.ljust(8) + "".join(cell.rjust(13) for cell in cells) for name, cells in rows]
    if hardware is not None:
        size = hardware.datasheet.memory_GB
        lines.append(f"{hardware.name} has {size:g} GiB")
    return "\n".join(lines)


def check_memory(stages: list[StageMemory], hardware: Hardware) -> None:
    """Refuse what does not fit.

    Raises
    ------
    InputError
        Says how much is needed, of what most, and what would help.
    """
    worst = max(stages, key=lambda one: one.total)
    limit = hardware.datasheet.memory_GB * 2**30  # what makers call a GB of memory
    if worst.total <= limit:
        return
    names = ("weights", "gradients", "optimizer", "activations", "cache")
    most = max(names, key=lambda name: int(getattr(worst, name)))
    remedy = {
        "weights": "more of --tp, --pp or --ep, or --zero 3",
        "gradients": "more of --tp or --pp, or --zero 2",
        "optimizer": "more of --tp, --pp or --dp, --zero 1, or --offload optimizer",
        "activations": "--recompute, --offload activations, a smaller --micro-batch-size, more of "
        "--tp, --pp or --cp",
        "cache": "fewer requests, or more of --tp or --pp",
    }[most]
    raise InputError(
        f"a rank of stage {worst.stage} needs {worst.total / 2**30:.1f} GiB, and {hardware.name} "
        f"has {limit / 2**30:g}; most of it are {most} ({getattr(worst, most) / 2**30:.1f} GiB), "
        f"which {remedy} would make smaller; --force generates it all the same",
        key="--gpu",
    )
