# SPDX-License-Identifier: MIT
"""Importer of ASTRA-sim 1.0 text workloads.

A text workload describes a network layer by layer; the parallelism on its first line says which
of the layer's communications happen and what waits for what.  Dependencies are those of Chakra's
own text converter, with one difference: a communication of type NONE or of size 0 adds no node
(ASTRA-sim 2.0 stalls on a collective without bytes), and what waited for it waits for the compute
node before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from astra_bridge import arguments
from astra_bridge.arguments import whole_text
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import read_text
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.inputs.reading import in_file
from astra_bridge.trace.columns import CommType
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.reader import read_bytes
from astra_bridge.workload.builder import GeneratedWorkload, TraceBuilder

_COMM_TYPES = {
    "NONE": None,
    "ALLREDUCE": CommType.ALL_REDUCE,
    "ALLTOALL": CommType.ALL_TO_ALL,
    "ALLGATHER": CommType.ALL_GATHER,
    "REDUCESCATTER": CommType.REDUCE_SCATTER,
}
_COLUMNS = 12


@dataclass(frozen=True)
class _Pass:
    """Compute and communication of a layer in one direction."""

    compute_us: int
    comm_type: CommType | None
    size_bytes: int


@dataclass(frozen=True)
class _Layer:
    name: str
    forward: _Pass
    input_gradient: _Pass
    weight_gradient: _Pass


@dataclass
class _Ends:
    """The nodes of a layer that later nodes wait for (empty: no such node)."""

    forward_comm: list[int]
    input_gradient_comm: list[int]
    weight_gradient_comm: list[int]


class _Importer:
    def __init__(self, layers: Sequence[_Layer], last_bottom_layer: int) -> None:
        self.layers = layers
        self.last_bottom_layer = last_bottom_layer
        self.trace = TraceBuilder()
        self.ends = [_Ends([], [], []) for _ in layers]

    def _comp(self, layer: _Layer, phase: str, work: _Pass, *deps: list[int]) -> list[int]:
        parents = sorted({node for nodes in deps for node in nodes})
        name = f"{layer.name}.{phase}"
        return [self.trace.comp(name, duration_us=work.compute_us, deps=parents)]

    def _comm(self, layer: _Layer, phase: str, work: _Pass, deps: list[int]) -> list[int]:
        """Add a communication and return what stands for its end."""
        if work.comm_type is None or work.size_bytes == 0:
            return deps
        name = f"{layer.name}.{phase}.comm"
        return [self.trace.coll(work.comm_type, work.size_bytes, name=name, deps=deps)]

    def micro(self) -> None:
        for layer in self.layers:
            self._comm(layer, "weight_gradient", layer.weight_gradient, [])

    def data(self) -> None:
        before: list[int] = []
        for layer, ends in zip(self.layers, self.ends, strict=True):
            before = self._comp(layer, "forward", layer.forward, before, ends.weight_gradient_comm)
        for layer, ends in zip(reversed(self.layers), reversed(self.ends), strict=True):
            work = layer.weight_gradient
            compute = self._comp(layer, "weight_gradient", work, before)
            ends.weight_gradient_comm = self._comm(layer, "weight_gradient", work, compute)
            if layer is not self.layers[0]:
                before = self._comp(layer, "input_gradient", layer.input_gradient, compute)

    def model(self, *, reduce_weights: bool) -> None:
        before: list[int] = []
        for layer, ends in zip(self.layers, self.ends, strict=True):
            compute = self._comp(layer, "forward", layer.forward, before, ends.weight_gradient_comm)
            before = self._comm(layer, "forward", layer.forward, compute)
        for layer, ends in zip(reversed(self.layers), reversed(self.ends), strict=True):
            work = layer.input_gradient
            compute = self._comp(layer, "input_gradient", work, before)
            communication = compute
            if layer is not self.layers[0]:
                communication = self._comm(layer, "input_gradient", work, compute)
            work = layer.weight_gradient
            weights = self._comp(layer, "weight_gradient", work, compute)
            ends.weight_gradient_comm = weights
            if reduce_weights:
                ends.weight_gradient_comm = self._comm(layer, "weight_gradient", work, weights)
            before = [*weights, *communication]

    def dlrm(self) -> None:
        """Embedding (layer 0), bottom layers up to `last_bottom_layer`, then top layers."""
        before: list[int] = []
        embedding = self.ends[0]
        for index, (layer, ends) in enumerate(zip(self.layers, self.ends, strict=True)):
            looked_up = embedding.forward_comm if index == self.last_bottom_layer else []
            before = self._comp(
                layer, "forward", layer.forward, before, ends.weight_gradient_comm, looked_up
            )
            if layer.forward.comm_type is CommType.ALL_TO_ALL:
                ends.forward_comm = self._comm(layer, "forward", layer.forward, before)
        for index in reversed(range(len(self.layers))):
            layer, ends = self.layers[index], self.ends[index]
            work = layer.weight_gradient
            # Only the embedding has gradients of its own to wait for.
            gradients = ends.input_gradient_comm
            compute = self._comp(layer, "weight_gradient", work, before, gradients)
            ends.weight_gradient_comm = self._comm(layer, "weight_gradient", work, compute)
            if index > 0:
                before = self._comp(layer, "input_gradient", layer.input_gradient, compute)
            if index == self.last_bottom_layer + 1:
                embedding.input_gradient_comm = self._comm(
                    self.layers[0], "input_gradient", self.layers[0].input_gradient, before
                )


def _number(text: str, file: Path, key: str) -> int:
    return int(in_file(whole_text(0, 10**18 - 1), text, file=file, key=key))


def _read_layer(line: str, number: int, file: Path) -> _Layer:
    words = line.split()
    key = f"line {number}"
    if len(words) != _COLUMNS:
        raise InputError(
            f"{len(words)} columns; a layer has {_COLUMNS}: name, dependency, then compute time, "
            "communication type and size of forward, input gradient and weight gradient, and "
            "update time",
            file=file,
            key=key,
        )
    passes = []
    for first in (2, 5, 8):
        name = words[first + 1]
        if name not in _COMM_TYPES:
            raise InputError(
                f"unknown communication {name!r}; allowed: {', '.join(_COMM_TYPES)}",
                file=file,
                key=key,
            )
        passes.append(
            _Pass(
                compute_us=_number(words[first], file, key),
                comm_type=_COMM_TYPES[name],
                size_bytes=_number(words[first + 2], file, key),
            )
        )
    return _Layer(words[0], *passes)


_PARALLELISM = (
    "MICRO",
    "DATA",
    "MODEL",
    "HYBRID_DATA_MODEL",
    "HYBRID_MODEL_DATA",
    "HYBRID_DLRM",
    "HYBRID_DLRM_ENHANCED",
)


def import_text(path: str | Path, ranks: int, *, passes: int = 1) -> GeneratedWorkload:
    """Read an ASTRA-sim 1.0 text workload.

    Parameters
    ----------
    path
        First line: the parallelism (MICRO, DATA, MODEL, HYBRID_DATA_MODEL, HYBRID_MODEL_DATA,
        or HYBRID_DLRM with the index of the last bottom layer).  Second line: number of layers.
        Then one line per layer.  Compute times become microseconds, as in Chakra's converter.
    ranks
        Number of ranks; all get the same trace.
    passes
        Training steps.

    Raises
    ------
    InputError
        The file cannot be read or breaks the format; names the line.
    """
    file = arguments.path(path, "path")
    try:
        lines = read_bytes(file).decode().splitlines()
    except UnicodeDecodeError:
        raise InputError("not a text file", file=file) from None
    ranks = arguments.integer(1, MAX_RANKS)(ranks, "ranks")
    passes = arguments.integer(1, 2**31 - 1)(passes, "passes")
    head = lines[0].split() if lines else []
    parallelism = head[0] if head else ""
    if parallelism not in _PARALLELISM:
        raise InputError(
            f"unknown parallelism {parallelism!r}; allowed: {', '.join(_PARALLELISM)}",
            file=file,
            key="line 1",
        )
    rows = [(number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if not rows:
        raise InputError("the number of layers is missing", file=file, key="line 2")
    count = _number(rows[0][1].strip(), file, "line 2")
    layers = [_read_layer(line, number, file) for number, line in rows[1:]]
    if count != len(layers) or not layers:
        raise InputError(f"says {count} layers, but has {len(layers)}", file=file, key="line 2")
    last_bottom_layer = -1
    if "DLRM" in parallelism:
        if len(head) < 2:
            raise InputError("needs the index of the last bottom layer", file=file, key="line 1")
        last_bottom_layer = _number(head[1], file, "line 1")
        if last_bottom_layer >= len(layers):
            raise InputError(
                f"the last bottom layer is {last_bottom_layer}, but there are {len(layers)} layers",
                file=file,
                key="line 1",
            )
    importer = _Importer(layers, last_bottom_layer)
    for _ in range(passes):
        if parallelism == "MICRO":
            importer.micro()
        elif parallelism == "DATA":
            importer.data()
        elif "DLRM" in parallelism:
            importer.dlrm()
        else:
            importer.model(reduce_weights=parallelism != "MODEL")
    if not importer.trace.nodes:
        raise InputError("describes no communication and no compute", file=file)
    return GeneratedWorkload((importer.trace,) * ranks)


def _convert(files: Sequence[Path], how: Conversion) -> GeneratedWorkload:
    if len(files) != 1:
        raise InputError("a text workload is one file, for all ranks", key="INPUT")
    if not how.ranks:
        raise InputError("a text workload needs the number of ranks", key="--ranks")
    return import_text(files[0], how.ranks, passes=how.passes)


def _guess_can_open(path: Path) -> bool:
    if path.suffix != ".txt":
        return False
    try:
        first = read_text(path).split(maxsplit=1)[:1]
    except InputError:
        return False
    return first[0] in _PARALLELISM if first else False


FORMAT = TraceFormat(
    "astra-sim-1",
    "ASTRA-sim 1.0's text (.txt): layers of a model, the same on all ranks.",
    _guess_can_open,
    lambda path, ranks: import_text(path, ranks).workload(),
    _convert,
)
