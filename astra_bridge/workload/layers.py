# SPDX-License-Identifier: MIT
"""Text workloads: a model layer by layer, as ASTRA-sim 1.0, SimAI and AICB write it.

The first line says how the model is shared out, the second how many layers there are; a layer is a
line of twelve columns: name, dependency, then compute time, communication and size of the forward
pass, of input gradients and of weight gradients, and update time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from astra_bridge.arguments import whole_text
from astra_bridge.errors import InputError
from astra_bridge.inputs.reading import in_file
from astra_bridge.text import show
from astra_bridge.trace.columns import CommType
from astra_bridge.trace.reader import read_bytes
from astra_bridge.workload.builder import TraceBuilder

__all__ = ["GROUPS", "Communicate", "Layer", "LayerTrace", "Part", "TextWorkload", "read_layers"]

_KINDS = {
    "ALLREDUCE": CommType.ALL_REDUCE,
    "ALLTOALL": CommType.ALL_TO_ALL,
    "ALLGATHER": CommType.ALL_GATHER,
    "REDUCESCATTER": CommType.REDUCE_SCATTER,
    "BROADCAST": CommType.BROADCAST,
}
GROUPS = ("TP", "DP", "EP", "DP_EP")
"""What may stand behind a communication of a transformer: which ranks it is among."""
_COLUMNS = 12
_CUSTOMIZED = "HYBRID_CUSTOMIZED"
_OF_A_LAYER = ("DATA", "MODEL", "HYBRID_DATA_MODEL", "HYBRID_MODEL_DATA")
_TRANSFORMER = "HYBRID_TRANSFORMER"


class Part(msgspec.Struct):
    """Compute and communication of a layer in one pass.

    Attributes
    ----------
    compute : int
        As the file has it.
    kind : CommType or None
    size_bytes : int
    group : str
        One of `GROUPS`; "" where the file does not say it.
    """

    compute: int
    kind: CommType | None
    size_bytes: int
    group: str = ""


class Layer(msgspec.Struct):
    """A line; `parallelism` is that of the layer, where each has its own."""

    name: str
    forward: Part
    input_gradient: Part
    weight_gradient: Part
    parallelism: str = ""


class TextWorkload(msgspec.Struct):
    """What a file says.

    Attributes
    ----------
    file : Path
    parallelism : str
        First word of the first line.
    head : str
        The rest of that line.
    count : int
        How many layers the second line announces.
    layers : list of Layer
        Those that are there; at least one.
    """

    file: Path
    parallelism: str
    head: str
    count: int
    layers: list[Layer]

    def number(self, text: str, line: int) -> int:
        """A whole number of the file, or an InputError that names the line."""
        return _number(text, self.file, f"line {line}")


def read_layers(file: Path, known: Sequence[str]) -> TextWorkload:
    """Read a text workload, gzip-compressed or not.

    Parameters
    ----------
    file : Path
    known : sequence of str
        The kinds of parallelism that are allowed.

    Raises
    ------
    InputError
        The file cannot be read or breaks the format; names the line.
    """
    try:
        lines = read_bytes(file).decode().splitlines()
    except UnicodeDecodeError:
        raise InputError("not a text file", file=file) from None
    parallelism, _, head = (lines[0].strip() if lines else "").replace("\t", " ").partition(" ")
    if parallelism not in known:
        raise InputError(
            f"unknown parallelism {parallelism!r}; allowed: {', '.join(known)}",
            file=file,
            key="line 1",
        )
    rows = [(number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if not rows:
        raise InputError("the number of layers is missing", file=file, key="line 2")
    count = _number(rows[0][1].strip(), file, "line 2")
    layers = [_layer(line.split(), parallelism, number, file) for number, line in rows[1:]]
    if not layers:
        raise InputError(f"says {count} layers, but has 0", file=file, key="line 2")
    return TextWorkload(file, parallelism, head.strip(), count, layers)


def _number(text: str, file: Path, key: str) -> int:
    return int(in_file(whole_text(0, 10**18 - 1), text, file=file, key=key))


def _layer(words: list[str], parallelism: str, number: int, file: Path) -> Layer:
    key = f"line {number}"
    own = parallelism == _CUSTOMIZED
    if len(words) != _COLUMNS + own:
        raise InputError(
            f"{len(words)} columns; a layer has {_COLUMNS + own}: name, dependency, then compute "
            "time, communication type and size of forward, input gradient and weight gradient, "
            f"and update time{', and its parallelism' if own else ''}",
            file=file,
            key=key,
        )
    if own and words[_COLUMNS] not in _OF_A_LAYER:
        raise InputError(
            f"unknown parallelism {show(words[_COLUMNS])} of a layer; allowed: "
            f"{', '.join(_OF_A_LAYER)}", file=file, key=key,
        )  # fmt: skip
    grouped = parallelism.startswith(_TRANSFORMER)
    forward, inputs, weights = _parts(words, grouped, key, file)
    return Layer(words[0], forward, inputs, weights, words[_COLUMNS] if own else "")


def _parts(words: list[str], grouped: bool, key: str, file: Path) -> Iterator[Part]:
    for first in (2, 5, 8):
        kind, _, group = words[first + 1].partition("_")
        right = kind == "NONE" or kind in _KINDS
        if not right or (group and not (grouped and group in GROUPS)):
            suffixes = f", each also with _{', _'.join(GROUPS)}" if grouped else ""
            raise InputError(
                f"unknown communication {show(words[first + 1])}; allowed: NONE, "
                f"{', '.join(_KINDS)}{suffixes}", file=file, key=key,
            )  # fmt: skip
        compute, size = (_number(words[at], file, key) for at in (first, first + 2))
        yield Part(compute, _KINDS.get(kind), size, group)


Communicate = Callable[[Layer, str, Part], tuple[int, int | None] | None]
"""Of a layer, its phase and what it sends: bytes and group of the collective; None adds no node."""


class _Ends(msgspec.Struct):
    """The nodes of a layer that later nodes wait for (empty: no such node)."""

    forward_comm: list[int] = []
    input_gradient_comm: list[int] = []
    weight_gradient_comm: list[int] = []


class LayerTrace:
    """The trace of a rank, made of the layers of a model.

    Dependencies are those of Chakra's own text converter, and where it knows a parallelism not,
    those of ASTRA-sim 1.0, with one difference: a communication of type NONE or of size 0 adds no
    node (ASTRA-sim 2.0 stalls on a collective without bytes), and what waited for it waits for the
    compute node before it.

    Parameters
    ----------
    layers : sequence of Layer
    communicate : callable
    in_ns : bool
        Unit of compute times: ns; else us.
    """

    def __init__(
        self, layers: Sequence[Layer], communicate: Communicate, *, in_ns: bool = False
    ) -> None:
        self.layers, self._communicate, self._in_ns = layers, communicate, in_ns
        self.trace = TraceBuilder()
        self.ends = [_Ends() for _ in layers]

    def _comp(self, layer: Layer, phase: str, *deps: list[int]) -> list[int]:
        parents = sorted({node for nodes in deps for node in nodes})
        took = getattr(layer, phase).compute
        return [
            self.trace.comp(
                f"{layer.name}.{phase}", deps=parents,
                duration_us=round(took / 1000) if self._in_ns else took,
                duration_ns=took if self._in_ns else None,
            )
        ]  # fmt: skip

    def _comm(self, layer: Layer, phase: str, deps: list[int]) -> list[int]:
        """Add a communication and return what stands for its end."""
        part: Part = getattr(layer, phase)
        if part.kind is None or part.size_bytes == 0:
            return deps
        found = self._communicate(layer, phase, part)
        if found is None:
            return deps
        size, group = found
        name = f"{layer.name}.{phase}.comm"
        return [self.trace.coll(part.kind, size, name=name, group=group, deps=deps)]

    def micro(self) -> None:
        """Add the collectives alone, all at once."""
        for layer in self.layers:
            self._comm(layer, "weight_gradient", [])

    def data(self) -> None:
        """Add a step whose weight gradients are exchanged during the backward pass."""
        before: list[int] = []
        for layer, ends in zip(self.layers, self.ends, strict=True):
            before = self._comp(layer, "forward", before, ends.weight_gradient_comm)
        for layer, ends in zip(reversed(self.layers), reversed(self.ends), strict=True):
            compute = self._comp(layer, "weight_gradient", before)
            ends.weight_gradient_comm = self._comm(layer, "weight_gradient", compute)
            if layer is not self.layers[0]:
                before = self._comp(layer, "input_gradient", compute)

    def data_reordered(self) -> None:
        """Add such a step in which the input gradients of a layer come before its weight gradients.

        As in the exercises of ASTRA-sim's tutorials of 2022, where all compute is one chain.
        """
        before: list[int] = []
        for layer, ends in zip(self.layers, self.ends, strict=True):
            before = self._comp(layer, "forward", before, ends.weight_gradient_comm)
        for layer, ends in zip(reversed(self.layers), reversed(self.ends), strict=True):
            if layer is not self.layers[0] or len(self.layers) == 1:
                before = self._comp(layer, "input_gradient", before)
            before = self._comp(layer, "weight_gradient", before)
            ends.weight_gradient_comm = self._comm(layer, "weight_gradient", before)

    def inference(self, before: list[int]) -> list[int]:
        """Add a forward pass after some nodes; return what ends it."""
        for index in range(len(self.layers)):
            before = self._forward(index, before)
        return before

    def _forward(self, index: int, before: list[int]) -> list[int]:
        layer, ends = self.layers[index], self.ends[index]
        compute = self._comp(layer, "forward", before, ends.weight_gradient_comm)
        return self._comm(layer, "forward", compute)

    def model(
        self, before: list[int] | None = None, *, first_gradient: bool = False,
        again: Mapping[int, Sequence[int]] | None = None,
    ) -> list[int]:  # fmt: skip
        """Add a step that waits for activations and input gradients.

        Parameters
        ----------
        before : list of int, optional
            What it waits for.
        first_gradient : bool
            Whether the input gradients of the first layer are communicated.
        again : mapping of int to sequence of int, optional
            Layer -> those whose forward pass runs again before its backward pass.

        Returns
        -------
        list of int
            What ends it.
        """
        before = self.inference(before or [])
        for index in reversed(range(len(self.layers))):
            layer, ends = self.layers[index], self.ends[index]
            for other in (again or {}).get(index, ()):
                before = self._forward(other, before)
            compute = self._comp(layer, "input_gradient", before)
            sent = compute
            if index or first_gradient:
                sent = self._comm(layer, "input_gradient", compute)
            weights = self._comp(layer, "weight_gradient", compute)
            ends.weight_gradient_comm = self._comm(layer, "weight_gradient", weights)
            before = [*weights, *sent]
        return before

    def dlrm(self, last_bottom_layer: int) -> None:
        """Add a step of embedding (layer 0), bottom layers up to the last, then top layers."""
        before: list[int] = []
        embedding = self.ends[0]
        for index, (layer, ends) in enumerate(zip(self.layers, self.ends, strict=True)):
            looked_up = embedding.forward_comm if index == last_bottom_layer else []
            before = self._comp(layer, "forward", before, ends.weight_gradient_comm, looked_up)
            if layer.forward.kind is CommType.ALL_TO_ALL:
                ends.forward_comm = self._comm(layer, "forward", before)
        for index in reversed(range(len(self.layers))):
            layer, ends = self.layers[index], self.ends[index]
            # Only the embedding has gradients of its own to wait for.
            compute = self._comp(layer, "weight_gradient", before, ends.input_gradient_comm)
            ends.weight_gradient_comm = self._comm(layer, "weight_gradient", compute)
            if index > 0:
                before = self._comp(layer, "input_gradient", compute)
            if index == last_bottom_layer + 1:
                embedding.input_gradient_comm = self._comm(self.layers[0], "input_gradient", before)
