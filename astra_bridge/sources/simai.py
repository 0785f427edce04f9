# SPDX-License-Identifier: MIT
"""SimAI's and AICB's text workloads: ASTRA-sim 1.0's format with groups.

The first line says how many ranks share what; a layer is a line, as in ASTRA-sim 1.0, with compute
in ns.  A forward pass goes through the layers, a backward pass back: input gradients, then weight
gradients while the input gradients are communicated.  Communication belongs to the tensor-parallel
group in the forward pass and of input gradients, to the data-parallel group of weight gradients;
``_EP`` and ``_DP_EP`` behind it name the expert-parallel group and the replicas of experts.

SimAI gives every communication the size of the whole buffer; Chakra an all-gather that of one
rank's part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import msgspec

from astra_bridge.arguments import whole_text
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.inputs.reading import in_file
from astra_bridge.sources.json_list import blocks, peek
from astra_bridge.text import show
from astra_bridge.trace.columns import CommType, NodeType, Workload
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.inferences import Inferences
from astra_bridge.trace.kinds import SIMAI, kind_of_file
from astra_bridge.workload.builder import GeneratedWorkload, TraceBuilder

__all__ = ["FORMAT", "read_simai"]

_KINDS = {
    "ALLREDUCE": CommType.ALL_REDUCE,
    "ALLGATHER": CommType.ALL_GATHER,
    "REDUCESCATTER": CommType.REDUCE_SCATTER,
    "ALLTOALL": CommType.ALL_TO_ALL,
    "BROADCAST": CommType.BROADCAST,
}
_GROUPS = ("TP", "DP", "EP", "DP_EP")
_COLUMNS = 12


class _Part(msgspec.Struct):
    """Compute and communication of a layer in one pass."""

    compute_ns: int
    kind: CommType | None
    size_bytes: int
    group: str


class _Layer(msgspec.Struct):
    name: str
    forward: _Part
    input_gradient: _Part
    weight_gradient: _Part


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
    """Builds each rank's trace when it is asked for."""

    def __init__(self, job: _Job, layers: list[_Layer], passes: int) -> None:
        self.job, self.layers, self.passes = job, layers, passes
        used = {
            part.group
            for layer in layers
            for part in (layer.forward, layer.input_gradient, layer.weight_gradient)
            if part.kind is not None
        }
        everyone = tuple(range(job.ranks))
        partial = {job.members(group, rank) for group in used for rank in range(job.ranks)} - {
            everyone
        }
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
        trace = TraceBuilder()
        gradients: list[list[int]] = [[] for _ in self.layers]
        before: list[int] = []
        for _ in range(self.passes):
            for layer, gradient in zip(self.layers, gradients, strict=True):
                deps = [*before, *gradient]
                compute = self._compute(trace, layer, "forward", layer.forward, deps)
                before = self._communicate(trace, rank, layer, "forward", layer.forward, compute)
            for at in reversed(range(len(self.layers))):
                layer = self.layers[at]
                work = layer.input_gradient
                compute = self._compute(trace, layer, "input_gradient", work, before)
                sent = self._communicate(trace, rank, layer, "input_gradient", work, compute)
                work = layer.weight_gradient
                weights = self._compute(trace, layer, "weight_gradient", work, compute)
                gradients[at] = self._communicate(
                    trace, rank, layer, "weight_gradient", work, weights
                )
                before = sorted({*weights, *sent})
        return trace

    def _compute(
        self, trace: TraceBuilder, layer: _Layer, phase: str, part: _Part, deps: list[int]
    ) -> list[int]:
        took = part.compute_ns
        node = trace.add(
            NodeType.COMP, f"{layer.name}.{phase}", sorted(set(deps)),
            duration_us=round(took / 1000), is_cpu_op=False, duration_ns=took,
        )  # fmt: skip
        return [node]

    def _communicate(
        self,
        trace: TraceBuilder,
        rank: int,
        layer: _Layer,
        phase: str,
        part: _Part,
        deps: list[int],
    ) -> list[int]:
        if part.kind is None or part.size_bytes == 0:
            return deps
        members = self.job.members(part.group, rank)
        if len(members) == 1:
            return deps
        size = part.size_bytes
        if part.kind == CommType.ALL_GATHER:
            size = -(-size // len(members))
        return [
            trace.coll(
                part.kind, size, name=f"{layer.name}.{phase}.comm",
                group=self.numbers.get(members), deps=deps,
            )
        ]  # fmt: skip


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
    try:
        lines = b"".join(blocks(file)).decode().splitlines()
    except UnicodeDecodeError:
        raise InputError("not a text file", file=file) from None
    job = _job(lines[0] if lines else "", ranks, file, made)
    rows = [(number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if not rows:
        raise InputError("the number of layers is missing", file=file, key="line 2")
    count = in_file(whole_text(1, 10**9), rows[0][1].strip(), file=file, key="line 2")
    layers = [_layer(line, number, file) for number, line in rows[1:]]
    if not layers:
        raise InputError("has no layers", file=file, key="line 3")
    if count != len(layers):
        made.note("the layers that are there count", f"line 2 says {count}, not {len(layers)}")
    traces = _Traces(job, layers, passes)
    return GeneratedWorkload(traces, {number: group for group, number in traces.numbers.items()})


def _job(line: str, ranks: int | None, file: Path, made: Inferences) -> _Job:
    given = {
        key.lower(): in_file(whole_text(0, 2**31), value, file=file, key=f"line 1: {key}")
        for key, value in re.findall(r"(\w+)\s*:\s*(\d+)", line)
    }
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
    if given.get("checkpoints"):
        made.note("layers are not computed again in the backward pass", "checkpoints")
    return _Job(total, tensor, expert, pipeline)


def _layer(line: str, number: int, file: Path) -> _Layer:
    words = line.split()
    key = f"line {number}"
    if len(words) != _COLUMNS:
        raise InputError(
            f"{len(words)} columns; a layer has {_COLUMNS}: name, dependency, then compute time, "
            "communication and size of forward, input gradient and weight gradient, and update "
            "time", file=file, key=key,
        )  # fmt: skip
    parts = list(_parts(words, key, file))
    return _Layer(words[0], *parts)


def _parts(words: list[str], key: str, file: Path) -> Iterator[_Part]:
    for first, usual in ((2, "TP"), (5, "TP"), (8, "DP")):
        compute = in_file(whole_text(0, 2**62), words[first], file=file, key=key)
        kind, _, suffix = words[first + 1].partition("_")
        if kind != "NONE" and (kind not in _KINDS or (suffix and suffix not in _GROUPS)):
            raise InputError(
                f"unknown communication {show(words[first + 1])}; allowed: NONE, "
                f"{', '.join(_KINDS)}, each also with _{', _'.join(_GROUPS)}", file=file, key=key,
            )  # fmt: skip
        size = in_file(whole_text(0, 2**62), words[first + 2], file=file, key=key)
        yield _Part(compute, _KINDS.get(kind), size, suffix or usual)


def _convert(files: Sequence[Path], how: Conversion) -> GeneratedWorkload:
    if len(files) != 1:
        raise InputError("a text workload is one file, for all ranks", key="INPUTS")
    return read_simai(files[0], how.ranks, how.made, how.passes)


def _can_open(path: Path) -> bool:
    try:
        return kind_of_file(peek(path)) is SIMAI
    except InputError:
        return False


def _read(path: Path, ranks: int) -> Workload:
    return read_simai(path, ranks, Inferences()).workload()


FORMAT = TraceFormat(
    "simai-workload",
    "SimAI's and AICB's text: layers of a transformer, and its groups.",
    _can_open,
    _read,
    _convert,
)
