# SPDX-License-Identifier: MIT
"""``astra-bridge workload collective|transformer``."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from astra_bridge.errors import InputError
from astra_bridge.units import parse_size_bytes
from astra_bridge.workload.builder import GeneratedWorkload

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Generate workloads.")

_GROUP = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_OUTPUT = typer.Argument(..., help="Prefix of the traces: PREFIX.0.et, PREFIX.1.et, ...")


def _write(generated: GeneratedWorkload, prefix: Path) -> None:
    written = generated.write(prefix)
    typer.echo(f"wrote the traces of {len(generated.traces)} ranks; to run them:")
    typer.echo(f"  --workload-configuration={prefix}")
    if generated.comm_groups:
        typer.echo(f"  --comm-group-configuration={written[-1]}")


def _parse_group(text: str) -> list[int]:
    if not _GROUP.fullmatch(text) or len(text) > 100_000:
        raise InputError(f"{text!r} is not a list of ranks such as 0,1,4-7", key="--group")
    ranks: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if len(part) > 20 or int(last or first) - int(first) >= 1 << 20:
            raise InputError(f"{part} is too large", key="--group")
        ranks += range(int(first), int(last or first) + 1)
    return ranks


@app.command()
def collective(
    output: Path = _OUTPUT,
    kind: str = typer.Option(
        "all-reduce",
        help="all-reduce, all-gather, reduce-scatter, all-to-all, broadcast, reduce, gather, "
        "scatter, barrier, or send-recv (a message around the ring of ranks).",
    ),
    size: str = typer.Option(
        "1MiB", help='Bytes, or "64KiB": the buffer of one rank; of all-gather, its shard.'
    ),
    ranks: int = typer.Option(..., min=1, help="Number of ranks."),
    group: list[str] = typer.Option(
        [], help="Ranks of a group that runs it on its own, such as 0,1,4-7; may be repeated."
    ),
    root: int | None = typer.Option(None, help="Position of the root in its group (default 0)."),
    repeat: int = typer.Option(1, min=1, help="How many, one after the other."),
    compute_us: int = typer.Option(0, min=0, help="Compute before each one, in us."),
    overlap: bool = typer.Option(False, help="Let the next compute overlap with communication."),
) -> None:
    """Generate a collective, or messages, on all ranks or in groups."""
    from astra_bridge.workload import micro

    try:
        size_bytes = parse_size_bytes(int(size) if size.isdecimal() else size)
    except ValueError as error:
        raise InputError(str(error), key="--size") from None
    generated = micro.collective(
        kind,
        size_bytes,
        ranks,
        groups=[_parse_group(text) for text in group] or None,
        root=root,
        repeat=repeat,
        compute_us=compute_us,
        overlap=overlap,
    )
    _write(generated, output)


@app.command()
def transformer(
    output: Path = _OUTPUT,
    layers: int = typer.Option(8, help="Layers of the model."),
    hidden: int = typer.Option(4096, help="Hidden size."),
    sequence: int = typer.Option(2048, help="Tokens per sequence."),
    vocabulary: int = typer.Option(32000, help="Size of the vocabulary."),
    ffn_hidden: int = typer.Option(0, help="Width of feed-forward layers; 0: 4 x hidden."),
    experts: int = typer.Option(0, help="Experts per layer; 0: dense."),
    top_k: int = typer.Option(2, help="Experts that each token goes to."),
    micro_batch: int = typer.Option(1, help="Sequences per micro-batch."),
    micro_batches: int = typer.Option(4, help="Micro-batches per step and data-parallel rank."),
    data: int = typer.Option(1, "--dp", help="Degree of data parallelism."),
    tensor: int = typer.Option(1, "--tp", help="Degree of tensor parallelism."),
    pipeline: int = typer.Option(1, "--pp", help="Degree of pipeline parallelism (1F1B)."),
    expert: int = typer.Option(1, "--ep", help="Degree of expert parallelism; divides --dp."),
    element_bytes: int = typer.Option(2, help="Bytes per parameter or activation."),
    gradient_bytes: int = typer.Option(2, help="Bytes per gradient."),
    sharded_optimizer: bool = typer.Option(
        False, help="Reduce-scatter and all-gather (ZeRO 1) instead of all-reduce."
    ),
    tflops: float = typer.Option(200.0, help="Sustained TFLOP/s of one rank."),
    steps: int = typer.Option(1, help="Training steps."),
) -> None:
    """Generate training steps of a transformer on dp x tp x pp ranks."""
    from astra_bridge.workload import training

    model = training.Transformer(
        layers=layers,
        hidden=hidden,
        sequence=sequence,
        vocabulary=vocabulary,
        ffn_hidden=ffn_hidden,
        experts=experts,
        top_k=top_k,
        micro_batch=micro_batch,
        micro_batches=micro_batches,
        data=data,
        tensor=tensor,
        pipeline=pipeline,
        expert=expert,
        element_bytes=element_bytes,
        gradient_bytes=gradient_bytes,
        sharded_optimizer=sharded_optimizer,
        tflops=tflops,
        steps=steps,
    )
    _write(training.transformer(model), output)
