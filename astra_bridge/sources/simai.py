# SPDX-License-Identifier: MIT
"""Transformers as text, of SimAI, AICB and ASTRA-sim 1.0: layers, and groups that share them.

The first line says how many ranks share what; a layer is a line, with compute in ns (ASTRA-sim's
cycles).  A forward pass goes through the layers, a backward pass back: input gradients, then weight
gradients while the input gradients are communicated.  Communication belongs to the tensor-parallel
group in the forward pass and of input gradients, to the data-parallel group of weight gradients;
``_EP`` and ``_DP_EP`` behind it name the expert-parallel group and the replicas of experts.

SimAI gives every communication the size of the whole buffer; Chakra an all-gather that of one
rank's part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from astra_bridge.arguments import whole_text
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.inputs.reading import in_file
from astra_bridge.trace.columns import CommType, Workload
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.inferences import Inferences
from astra_bridge.trace.kinds import SIMAI
from astra_bridge.trace.reader import kind_of_path
from astra_bridge.workload.builder import GeneratedWorkload, Kinds
from astra_bridge.workload.layers import Layer, LayerTrace, Part, TextWorkload, read_layers

__all__ = ["FORMAT", "read_simai"]

_PARALLELISM = ("HYBRID_TRANSFORMER", "HYBRID_TRANSFORMER_FWD_IN_BCKWD")
_SHARDED = (CommType.ALL_GATHER, CommType.REDUCE_SCATTER)
_USUAL = {"forward": "TP", "input_gradient": "TP", "weight_gradient": "DP"}


class _Job(msgspec.Struct):
    """How ranks share: the tensor-parallel index runs fastest, then data, then pipeline."""

    ranks: int
    tensor: int
    expert: int
    pipeline: int

    def group(self, name: str) -> tuple[int, int]:
        """Stride and size of the group of a rank, whichever it is."""
        data = self.ranks // (self.tensor * self.pipeline)
        return {
            "TP": (1, self.tensor),
            "DP": (self.tensor, data),
            "EP": (self.tensor, self.expert),
            "DP_EP": (self.tensor * self.expert, data // self.expert),
        }[name]


def read_simai(
    file: Path, ranks: int | None, made: Inferences, passes: int = 1
) -> GeneratedWorkload:
    """Read a workload of SimAI or AICB.

    Parameters
    ----------
    file : Path
        gzip-compressed or not.
    ranks : int or None
        Number of ranks; None takes ``all_gpus`` of the file.
    made : Inferences
        Takes what is inferred.
    passes : int
        Training steps.

    Raises
    ------
    InputError
        The file cannot be read or breaks the format; names the line.
    """
    text = read_layers(file, _PARALLELISM)
    if text.count != len(text.layers):
        said = f"line 2 says {text.count}, not {len(text.layers)}"
        made.note("the layers that are there count", said)
    job = _job(text, ranks, made)
    numbers: dict[tuple[int, int], int] = {}

    def communicate(layer: Layer, phase: str, part: Part) -> tuple[int, int | None] | None:
        name = part.group or _USUAL[phase]
        stride, members = job.group(name)
        if members == 1 and part.kind in _SHARDED and not part.group:
            name = "DP"
            stride, members = job.group(name)
            if members > 1:
                made.note(
                    "without tensor parallelism, all-gathers and reduce-scatters are those of "
                    "data-parallel ranks that share parameters (ZeRO)", f"{layer.name}, {phase}",
                )  # fmt: skip
        if members == 1:
            made.note(
                "communication in a group of one rank is left out", f"{layer.name}, {phase}, {name}"
            )
            return None
        size = part.size_bytes
        if part.kind == CommType.ALL_GATHER:
            size = -(-size // members)
        if members == job.ranks:
            return size, None
        return size, numbers.setdefault((stride, members), len(numbers) + 1)

    step = LayerTrace(text.layers, communicate, in_ns=True)
    again = _recomputed(text)
    before: list[int] = []
    for _ in range(passes):
        before = step.model(before, first_gradient=True, again=again)
    # One trace is that of all ranks: each is in a group of its own of every kind.
    traces = Kinds([step.trace], np.zeros(job.ranks, np.int32))
    return GeneratedWorkload(traces, own_groups={n: group for group, n in numbers.items()})


def _given(text: TextWorkload) -> dict[str, int]:
    """The numbers of the first line."""
    return {
        key.lower(): in_file(whole_text(0, 2**31), value, file=text.file, key=f"line 1: {key}")
        for key, value in re.findall(r"(\w+)\s*:\s*(\d+)", text.head)
    }


def _job(text: TextWorkload, ranks: int | None, made: Inferences) -> _Job:
    given, file = _given(text), text.file
    total = ranks or given.get("all_gpus", 0)
    if not total:
        raise InputError(
            "line 1 does not say all_gpus: give the number of ranks", file=file, key="--ranks"
        )
    if total > MAX_RANKS:
        raise InputError(f"{total} ranks; at most {MAX_RANKS} are possible", file=file)
    tensor = given.get("model_parallel_npu_group", 1) or 1
    expert = given.get("ep", given.get("expert_parallel_npu_group", 1)) or 1
    pipeline = given.get("pp", 1) or 1
    if total % (tensor * pipeline) or total // (tensor * pipeline) % expert:
        raise InputError(
            f"{total} ranks cannot be shared by tensor {tensor}, pipeline {pipeline} and expert "
            f"{expert} parallelism", file=file, key="line 1",
        )  # fmt: skip
    if pipeline > 1:
        made.note(
            "all stages of the pipeline run the layers of the file, without messages between them",
            f"pp: {pipeline}",
        )
    if given.get("all_gpus", total) != total:
        said = f"{total}, all_gpus: {given['all_gpus']}"
        made.note("another number of ranks than the file is for", said)
    return _Job(total, tensor, expert, pipeline)


def _recomputed(text: TextWorkload) -> dict[int, range]:
    """Layer -> those whose forward pass runs again before its backward pass.

    The first line lists layers that keep what they were given (``checkpoints``), and those whose
    backward pass starts with a forward pass from the checkpoint before it on
    (``checkpoint_initiates``), each behind their number.
    """
    listed = {}
    for key in ("checkpoints", "checkpoint_initiates"):
        found = re.search(rf"\b{key}\s*:\s*((?:\d+\s*)*)", text.head)
        count, *layers = [text.number(word, 1) for word in (found[1].split() if found else ["0"])]
        if len(layers) != count or max(layers, default=0) >= len(text.layers):
            raise InputError(
                f"{key}: expected {count} layers, 0 to {len(text.layers) - 1}, found {layers}",
                file=text.file, key="line 1",
            )  # fmt: skip
        listed[key] = sorted(layers)
    again = {}
    for layer in listed["checkpoint_initiates"]:
        kept = [one for one in listed["checkpoints"] if one <= layer]
        if not kept:
            raise InputError(
                f"checkpoint_initiates: there is no checkpoint at or before layer {layer}",
                file=text.file, key="line 1",
            )  # fmt: skip
        again[layer] = range(kept[-1], layer)
    return again


def _convert(files: Sequence[Path], how: Conversion) -> GeneratedWorkload:
    if len(files) != 1:
        raise InputError("a text workload is one file, for all ranks", key="INPUTS")
    return read_simai(files[0], how.ranks, how.made, how.passes)


def _read(path: Path, ranks: int) -> Workload:
    made = Inferences()
    return made.said_by(read_simai(path, ranks, made).workload(), path)


FORMAT = TraceFormat(
    "simai-workload",
    "SimAI's and AICB's text: layers of a transformer, and its groups.",
    lambda path: kind_of_path(path) is SIMAI,
    _read,
    _convert,
    lambda path: _given(read_layers(path, _PARALLELISM)).get("all_gpus", 0),
)
