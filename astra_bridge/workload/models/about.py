# SPDX-License-Identifier: MIT
"""What reports need to know of a model's workload."""

from __future__ import annotations

from astra_bridge.hardware import Hardware
from astra_bridge.trace import About
from astra_bridge.workload.models.formulas import flops_per_token
from astra_bridge.workload.models.memory import StageMemory
from astra_bridge.workload.models.step import Inference, TrainingStep

__all__ = ["about"]

_KEPT = ("weights", "gradients", "optimizer", "activations", "cache")


def about(
    run: TrainingStep | Inference, accelerator: Hardware | None, needed: list[StageMemory]
) -> About:
    """The model, its tokens and operations, and what each stage keeps.

    Decoded tokens are taken to meet the prompt alone; of disaggregated inference, where half of the
    ranks read and half answer, operations are not told.
    """
    if isinstance(run, TrainingStep):
        tokens, steps, backward = run.tokens * run.steps, run.steps, True
    else:
        made = 1 if run.phase == "prefill" else run.output_tokens
        each = run.sequence if run.phase == "prefill" else made
        tokens = each * run.micro_batch * run.micro_batches * run.parallelism.data
        steps, backward = 1, False
    known = not isinstance(run, Inference) or run.phase != "disaggregated"
    each_token = flops_per_token(run.model, run.sequence, backward=backward)
    peak = 0.0 if accelerator is None else accelerator.datasheet.tensor_TFLOPS.get(run.dtype, 0.0)
    return About(
        model=run.model.name,
        tokens=tokens,
        operations=tokens * each_token if known else 0,
        steps=steps,
        accelerator="" if accelerator is None else accelerator.name,
        peak=peak * 1e12,
        stage_stride=run.parallelism.orbit("pp").stride,
        memory=tuple(
            {name: int(getattr(one, name)) for name in _KEPT if getattr(one, name)}
            for one in needed
        ),
    )
