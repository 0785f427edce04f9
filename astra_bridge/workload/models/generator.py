# SPDX-License-Identifier: MIT
"""``astra-bridge workload model``: a model's training step or inference, from options."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, NoReturn

from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.text import show
from astra_bridge.workload.builder import GeneratedWorkload
from astra_bridge.workload.generators import Generator, Option
from astra_bridge.workload.models.about import about
from astra_bridge.workload.models.config import named_model
from astra_bridge.workload.models.formulas import active_parameters, flops_per_token, parameters
from astra_bridge.workload.models.memory import check_memory, memory, memory_text
from astra_bridge.workload.models.parallelism import Parallelism
from astra_bridge.workload.models.serving import inference as serving
from astra_bridge.workload.models.step import Inference, TrainingStep
from astra_bridge.workload.models.training import training_step

__all__ = ["GENERATOR"]

# What errors of the dataclasses name -> the option that gives it.
_FLAGS = {
    "tensor": "--tp", "pipeline": "--pp", "data": "--dp", "context": "--cp", "expert": "--ep",
    "vpp": "--vpp", "chunks": "--vpp", "order": "--rank-order", "sequence": "--sequence-length",
    "micro_batch": "--micro-batch-size", "shard": "--shard-size", "phase": "--inference",
    "imbalance": "--expert-imbalance", "host_optimizer_GBps": "--host-optimizer-gbps",
}  # fmt: skip
_GRADIENT_BYTES = {"fp32": 4, "bf16": 2}


def _refuse(error: InputError) -> NoReturn:
    """The same error, of the option."""
    if error.key is None or error.file is not None or error.key.startswith("--"):
        raise error
    name = error.key.rpartition(".")[2]
    flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
    raise InputError(error.reason, key=flag) from None


def _counts(text: str) -> tuple[int, ...]:
    words = text.split(",") if text else []
    if not all(word.isdecimal() and len(word) < 7 for word in words):
        raise InputError(
            f"{show(text)} is not allowed; allowed: numbers of layers, such as 7,8,8,7",
            key="--stage-layers",
        )
    return tuple(map(int, words))


def _micro_batches(given: int, global_batch: int, each: int, data: int) -> int:
    """Micro-batches of each data-parallel rank."""
    if not global_batch:
        return given or 1
    if global_batch % (each * data) or (given and given * each * data != global_batch):
        raise InputError(
            f"{global_batch} sequences are not {given or 'some'} micro-batches of {each} on each "
            f"of {data} data-parallel ranks",
            key="--global-batch-size",
        )
    return global_batch // (each * data)


def _model(
    *,
    model: Annotated[
        str, Option("A config.json of Hugging Face, or a name of docs/models.md.", "MODEL")
    ],
    gpu: Annotated[
        str, Option("An accelerator of doctor, or its profile: gives durations, and a limit.")
    ] = "",
    tp: Annotated[int, Option("Degree of tensor parallelism.")] = 1,
    pp: Annotated[int, Option("Degree of pipeline parallelism.")] = 1,
    dp: Annotated[int, Option("Degree of data parallelism.")] = 1,
    cp: Annotated[int, Option("Degree of context parallelism.")] = 1,
    ep: Annotated[int, Option("Degree of expert parallelism; divides dp x cp.")] = 1,
    vpp: Annotated[int, Option("Chunks of each stage, for interleaved.")] = 1,
    rank_order: Annotated[str, Option("Dimensions of ranks, fastest first.")] = "tp-cp-ep-dp-pp",
    micro_batches: Annotated[
        int, Option("Micro-batches of each data-parallel rank; 0: by the global batch, or 1.")
    ] = 0,
    micro_batch_size: Annotated[int, Option("Sequences of a micro-batch.")] = 1,
    global_batch_size: Annotated[int, Option("Sequences of a step; 0: by the others.")] = 0,
    sequence_length: Annotated[int, Option("Tokens of a sequence, or of a prompt.")] = 4096,
    schedule: Annotated[
        str,
        Option("gpipe, 1f1b, interleaved, zb-h1 or dualpipe; empty: 1f1b, or interleaved by vpp."),
    ] = "",
    stage_layers: Annotated[
        str, Option("Layers of each part of the pipeline, such as 7,8,8,7; empty: even.")
    ] = "",
    zero: Annotated[
        int, Option("Shared by data-parallel ranks: 1 optimizer, 2 gradients, 3 weights too.")
    ] = 1,
    shard_size: Annotated[
        int, Option("Ranks that share them, the others being copies (HSDP); 0: all.")
    ] = 0,
    prefetch: Annotated[int, Option("Layers whose weights are gathered ahead, with zero 3.")] = 1,
    recompute: Annotated[str, Option("none, selective (attention) or full.")] = "none",
    offload: Annotated[
        str, Option("To the host's memory: none, optimizer, activations or both.")
    ] = "none",
    host_optimizer_gbps: Annotated[
        float, Option("Of a rank's share of the host's memory, where the host steps the optimizer.")
    ] = 100.0,
    dtype: Annotated[str, Option("Of the products of layers: bf16, fp16 or fp8.")] = "bf16",
    gradient_dtype: Annotated[str, Option("Of gradients that are reduced: fp32 or bf16.")] = "fp32",
    sequence_parallel: Annotated[bool, Option("Split norms over tensor-parallel ranks.")] = True,
    context: Annotated[
        str, Option("ring, or all-gather: how keys come to context-parallel ranks.")
    ] = "ring",
    attention: Annotated[str, Option("fused, or unfused: which keeps its scores.")] = "fused",
    overlap_grad_reduce: Annotated[
        bool, Option("Reduce gradients during the last backward pass.")
    ] = True,
    overlap_param_gather: Annotated[
        bool, Option("Gather weights during the first forward pass.")
    ] = True,
    overlap_p2p: Annotated[bool, Option("Send to other stages beside the next pass.")] = True,
    tp_comm_overlap: Annotated[
        bool, Option("Let products overlap with tensor-parallel communication.")
    ] = False,
    expert_imbalance: Annotated[
        float, Option("Deviation over the mean of the tokens of an expert.")
    ] = 0.0,
    seed: Annotated[int, Option("Of the imbalance.")] = 0,
    steps: Annotated[int, Option("Training steps.")] = 1,
    inference: Annotated[
        str, Option("prefill, decode or disaggregated, in place of training.")
    ] = "",
    output_tokens: Annotated[int, Option("Tokens that decode makes for each request.")] = 16,
    force: Annotated[bool, Option("Also where it does not fit into the GPU's memory.")] = False,
) -> GeneratedWorkload:
    named = named_model(model, key="MODEL")
    accelerator = hardware(gpu, key="--gpu") if gpu else None
    _one_of(context, "--context", "ring", "all-gather")
    _one_of(attention, "--attention", "fused", "unfused")
    _one_of(gradient_dtype, "--gradient-dtype", *_GRADIENT_BYTES)
    try:
        split = Parallelism(
            tp, pp, dp, cp, ep, rank_order, sequence_parallel, context == "ring", zero, shard_size,
            prefetch,
        )  # fmt: skip
        common: dict[str, Any] = {
            "model": named,
            "parallelism": split,
            "sequence": sequence_length,
            "micro_batch": micro_batch_size,
            "micro_batches": _micro_batches(micro_batches, global_batch_size, micro_batch_size, dp),
            "dtype": dtype,
            "fused_attention": attention == "fused",
            "tensor_overlap": tp_comm_overlap,
            "stage_layers": _counts(stage_layers),
            "imbalance": expert_imbalance,
            "seed": seed,
        }
        run: TrainingStep | Inference
        if inference:
            run = Inference(**common, phase=inference, output_tokens=output_tokens)
        else:
            run = TrainingStep(
                **common,
                schedule=schedule or ("interleaved" if vpp > 1 else "1f1b"),
                chunks=vpp,
                recompute=recompute,
                gradient_bytes=_GRADIENT_BYTES[gradient_dtype],
                overlap_gradients=overlap_grad_reduce,
                overlap_weights=overlap_param_gather,
                overlap_messages=overlap_p2p,
                steps=steps,
                offload=offload,
                host_optimizer_GBps=host_optimizer_gbps,
            )
    except InputError as error:
        _refuse(error)
    needed = memory(run)
    if accelerator is not None and not force:
        check_memory(needed, accelerator)
    if isinstance(run, TrainingStep):
        made = training_step(run, accelerator)
    else:
        made = serving(run, accelerator)
    flops = flops_per_token(named, sequence_length, backward=not inference)
    said = [
        f"{named.name}: {parameters(named):,} parameters, {active_parameters(named):,} active "
        f"(with the output head, without the embedding); {flops / 1e9:.1f} x 10^9 operations per "
        "token",
        memory_text(needed, accelerator),
    ]
    if accelerator is None:
        said.append(
            "without --gpu, compute nodes have shapes and no durations: a system with "
            "compute-model gpu and hardware times them"
        )
    if offload != "none" and not inference:
        said.append(
            "what is offloaded are loads and stores: a remote memory of the type HOST_MEMORY, with "
            "hardware, times them"
        )
    return replace(
        made,
        summary="\n".join(said),
        flags=("--semantics=corrected",),
        about=about(run, accelerator, needed),
    )


def _one_of(given: str, flag: str, *allowed: str) -> None:
    if given not in allowed:
        raise InputError(f"{show(given)} is not allowed; allowed: {', '.join(allowed)}", key=flag)


GENERATOR = Generator(
    "model",
    "Generate training steps or inference of a language model.",
    _model,
    example="llama-3.1-8b --tp 2 --dp 4 -o out/model",
)
