# SPDX-License-Identifier: MIT
"""Generators of workloads; each is a subcommand of ``astra-bridge workload``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.registry import Registry, Spec
from astra_bridge.units import parse_size_bytes
from astra_bridge.workload import micro, training
from astra_bridge.workload.builder import GeneratedWorkload

__all__ = ["GENERATORS", "Generator", "Option"]


class Option(NamedTuple):
    """What a parameter of a generator is on the command line.

    Attributes
    ----------
    help : str
        One sentence.
    flag : str
        Its name there, such as ``--dp``; "" is that of the parameter, with dashes.
    """

    help: str
    flag: str = ""


@dataclass(frozen=True)
class Generator(Spec):
    """A source of workloads.

    Attributes
    ----------
    generate
        Makes the workload.  Its parameters are the options: each is annotated with
        ``Annotated[type, Option(...)]``, where type is int, float, str, bool, one of these or None,
        or a list of these; one without a default must be given.
    """

    generate: Callable[..., GeneratedWorkload]


GENERATORS = Registry(
    "generator",
    "astra_bridge.generators",
    Generator,
    dict.fromkeys(("collective", "transformer"), "astra_bridge.workload.generators:BUILT_IN"),
)

_GROUP = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


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


def _collective(
    *,
    kind: Annotated[
        str,
        Option(
            "all-reduce, all-gather, reduce-scatter, all-to-all, broadcast, reduce, gather, "
            "scatter, barrier, or send-recv (a message around the ring of ranks)."
        ),
    ] = "all-reduce",
    size: Annotated[
        str, Option('Bytes, or "64KiB": the buffer of one rank; of all-gather, its shard.')
    ] = "1MiB",
    ranks: Annotated[int, Option("Number of ranks.")],
    group: Annotated[
        list[str],
        Option("Ranks of a group that runs it on its own, such as 0,1,4-7."),
    ] = [],  # noqa: B006 - never changed
    root: Annotated[int | None, Option("Position of the root in its group (default 0).")] = None,
    repeat: Annotated[int, Option("How many, one after the other.")] = 1,
    compute_us: Annotated[int, Option("Compute before each one, in us.")] = 0,
    overlap: Annotated[bool, Option("Let the next compute overlap with communication.")] = False,
) -> GeneratedWorkload:
    try:
        size_bytes = parse_size_bytes(int(size) if size.isdecimal() else size)
    except ValueError as error:
        raise InputError(str(error), key="--size") from None
    return micro.collective(
        kind,
        size_bytes,
        ranks,
        groups=[_parse_group(text) for text in group] or None,
        root=root,
        repeat=repeat,
        compute_us=compute_us,
        overlap=overlap,
    )


def _transformer(
    *,
    layers: Annotated[int, Option("Layers of the model.")] = 8,
    hidden: Annotated[int, Option("Hidden size.")] = 4096,
    sequence: Annotated[int, Option("Tokens per sequence.")] = 2048,
    vocabulary: Annotated[int, Option("Size of the vocabulary.")] = 32000,
    ffn_hidden: Annotated[int, Option("Width of feed-forward layers; 0: 4 x hidden.")] = 0,
    experts: Annotated[int, Option("Experts per layer; 0: dense.")] = 0,
    top_k: Annotated[int, Option("Experts that each token goes to.")] = 2,
    micro_batch: Annotated[int, Option("Sequences per micro-batch.")] = 1,
    micro_batches: Annotated[int, Option("Micro-batches per step and data-parallel rank.")] = 4,
    data: Annotated[int, Option("Degree of data parallelism.", "--dp")] = 1,
    tensor: Annotated[int, Option("Degree of tensor parallelism.", "--tp")] = 1,
    pipeline: Annotated[int, Option("Degree of pipeline parallelism (1F1B).", "--pp")] = 1,
    expert: Annotated[int, Option("Degree of expert parallelism; divides --dp.", "--ep")] = 1,
    element_bytes: Annotated[int, Option("Bytes per parameter or activation.")] = 2,
    gradient_bytes: Annotated[int, Option("Bytes per gradient.")] = 2,
    sharded_optimizer: Annotated[
        bool, Option("Reduce-scatter and all-gather (ZeRO 1) instead of all-reduce.")
    ] = False,
    tflops: Annotated[float, Option("Sustained TFLOP/s of one rank.")] = 200.0,
    steps: Annotated[int, Option("Training steps.")] = 1,
) -> GeneratedWorkload:
    return training.transformer(training.Transformer(**locals()))


BUILT_IN = (
    Generator(
        "collective", "Generate a collective, or messages, on all ranks or in groups.", _collective
    ),
    Generator(
        "transformer",
        "Generate training steps of a transformer on dp x tp x pp ranks.",
        _transformer,
    ),
)
