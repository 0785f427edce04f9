# SPDX-License-Identifier: MIT
"""Importer of ASTRA-sim 1.0 text workloads.

The parallelism on the first line says which of a layer's communications happen and what waits for
what; they run on all ranks, as in Chakra's own text converter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from astra_bridge import arguments
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.kinds import ASTRA_SIM_1
from astra_bridge.trace.reader import kind_of_path
from astra_bridge.workload.builder import GeneratedWorkload
from astra_bridge.workload.layers import Layer, LayerTrace, Part, TextWorkload, read_layers

_PARALLELISM = (
    "MICRO",
    "DATA",
    "DATA_REORDER",
    "MODEL",
    "HYBRID_DATA_MODEL",
    "HYBRID_MODEL_DATA",
    "HYBRID_CUSTOMIZED",
    "HYBRID_DLRM",
    "HYBRID_DLRM_ENHANCED",
    "DISTRIBUTED_INFERENCE",
)
_PHASES = {
    "DATA": ("weight_gradient",),
    "DATA_REORDER": ("weight_gradient",),
    "MODEL": ("forward", "input_gradient"),
    "DISTRIBUTED_INFERENCE": ("forward",),
}
"""In which phases there is communication, where it is not in all of them."""


def import_text(path: str | Path, ranks: int, *, passes: int = 1) -> GeneratedWorkload:
    """Read an ASTRA-sim 1.0 text workload.

    Parameters
    ----------
    path
        First line: the parallelism (MICRO, DATA, DATA_REORDER, MODEL, HYBRID_DATA_MODEL,
        HYBRID_MODEL_DATA, HYBRID_CUSTOMIZED, DISTRIBUTED_INFERENCE, or HYBRID_DLRM with the index
        of the last bottom layer).  Second line: number of layers.  Then one line per layer; with
        HYBRID_CUSTOMIZED its last column is the parallelism of the layer.  Compute times become
        microseconds, as in Chakra's converter.
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
    ranks = arguments.integer(1, MAX_RANKS)(ranks, "ranks")
    passes = arguments.integer(1, 2**31 - 1)(passes, "passes")
    text = read_layers(file, _PARALLELISM)
    if text.count != len(text.layers):
        raise InputError(
            f"says {text.count} layers, but has {len(text.layers)}", file=file, key="line 2"
        )
    last_bottom_layer = _last_bottom_layer(text) if "DLRM" in text.parallelism else -1

    def communicate(layer: Layer, phase: str, part: Part) -> tuple[int, int | None] | None:
        happens = phase in _PHASES.get(layer.parallelism or text.parallelism, (phase,))
        return (part.size_bytes, None) if happens else None

    step = LayerTrace(text.layers, communicate)
    before: list[int] = []
    for _ in range(passes):
        if text.parallelism == "MICRO":
            step.micro()
        elif text.parallelism == "DATA":
            step.data()
        elif text.parallelism == "DATA_REORDER":
            step.data_reordered()
        elif text.parallelism == "DISTRIBUTED_INFERENCE":
            before = step.inference(before)
        elif "DLRM" in text.parallelism:
            step.dlrm(last_bottom_layer)
        else:
            step.model()
    if not step.trace.nodes:
        raise InputError("describes no communication and no compute", file=file)
    return GeneratedWorkload((step.trace,) * ranks)


def _last_bottom_layer(text: TextWorkload) -> int:
    words = text.head.split()
    if not words:
        raise InputError("needs the index of the last bottom layer", file=text.file, key="line 1")
    last = text.number(words[0], 1)
    if last >= len(text.layers):
        raise InputError(
            f"the last bottom layer is {last}, but there are {len(text.layers)} layers",
            file=text.file,
            key="line 1",
        )
    return last


def _convert(files: Sequence[Path], how: Conversion) -> GeneratedWorkload:
    if len(files) != 1:
        raise InputError("a text workload is one file, for all ranks", key="INPUT")
    if not how.ranks:
        raise InputError("a text workload needs the number of ranks", key="--ranks")
    return import_text(files[0], how.ranks, passes=how.passes)


FORMAT = TraceFormat(
    "astra-sim-1",
    "ASTRA-sim 1.0's text: layers of a model, the same on all ranks.",
    lambda path: kind_of_path(path) is ASTRA_SIM_1,
    lambda path, ranks: import_text(path, ranks).workload(),
    _convert,
)
