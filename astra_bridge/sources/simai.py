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
from typing import overload

import msgspec

from astra_bridge.arguments import whole_text
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.inputs.reading import in_file
from astra_bridge.trace.columns import CommType, Workload
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.inferences import Inferences
from astra_bridge.trace.kinds import SIMAI
from astra_bridge.trace.reader import kind_of_path
from astra_bridge.workload.builder import GeneratedWorkload, TraceBuilder
from astra_bridge.workload.layers import Layer, LayerTrace, Part, TextWorkload, read_layers

__all__ = ["FORMAT", "read_simai"]

_PARALLELISM = ("HYBRID_TRANSFORMER", "HYBRID_TRANSFORMER_FWD_IN_BCKWD")
_USUAL = {"forward": "TP", "input_gradient": "TP", "weight_gradient": "DP"}


class _Job(msgspec.Struct):
    """How ranks share: the tensor-parallel index runs fastest, then data, then pipeline."""

    ranks: int
    tensor: int
    expert: int
    pipeline: int

    @property
    def data(self) -> int:
        """Size of a data-parallel group."""
        return self.ranks // (self.tensor * self.pipeline)

    def members(self, group: str, rank: int) -> tuple[int, ...]:
        """The ranks of a rank's group."""
        stride, size = {
            "TP": (1, self.tensor),
            "DP": (self.tensor, self.data),
            "EP": (self.tensor, self.expert),
            "DP_EP": (self.tensor * self.expert, self.data // self.expert),
        }[group]
        first = rank - rank // stride % size * stride
        return tuple(range(first, first + stride * size, stride))


class _Traces(Sequence[TraceBuilder]):
    """Builds each rank's trace when it is asked for; ranks of the same groups share one."""

    def __init__(
        self, job: _Job, layers: list[Layer], again: dict[int, range], passes: int
    ) -> None:
        self.job, self.layers, self.again, self.passes = job, layers, again, passes
        used = {
            part.group or usual
            for layer in layers
            for phase, usual in _USUAL.items()
            for part in (getattr(layer, phase),)
            if part.kind is not None
        }
        everyone = tuple(range(job.ranks))
        partial = {job.members(group, rank) for group in used for rank in everyone} - {everyone}
        self.numbers = {
            ranks: number
            for number, ranks in enumerate(sorted(g for g in partial if len(g) > 1), 1)
        }

    def __len__(self) -> int:
        return self.job.ranks

    @overload
    def __getitem__(self, index: int) -> TraceBuilder: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TraceBuilder]: ...
    def __getitem__(self, index: int | slice) -> TraceBuilder | Sequence[TraceBuilder]:
        ranks = range(self.job.ranks)[index]
        if isinstance(ranks, range):
            return [self[rank] for rank in ranks]
        return self._build(ranks)

    def _build(self, rank: int) -> TraceBuilder:
        def communicate(_: Layer, phase: str, part: Part) -> tuple[int, int | None] | None:
            members = self.job.members(part.group or _USUAL[phase], rank)
            if len(members) == 1:
                return None
            size = part.size_bytes
            if part.kind == CommType.ALL_GATHER:
                size = -(-size // len(members))
            return size, self.numbers.get(members)

        step = LayerTrace(self.layers, communicate, in_ns=True)
        before: list[int] = []
        for _ in range(self.passes):
            before = step.model(before, first_gradient=True, again=self.again)
        return step.trace


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
    traces = _Traces(job, text.layers, _recomputed(text), passes)
    return GeneratedWorkload(traces, {number: group for group, number in traces.numbers.items()})


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
