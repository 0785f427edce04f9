# SPDX-License-Identifier: MIT
"""Formats of traces: each reads what a prefix stands for into columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from astra_bridge import arguments
from astra_bridge.errors import AstraBridgeError, PluginError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.registry import Registry, Spec
from astra_bridge.text import show
from astra_bridge.trace.columns import Workload
from astra_bridge.trace.inferences import Inferences

__all__ = ["TRACE_FORMATS", "Conversion", "TraceFormat", "Writable", "count_ranks", "read_workload"]


class Writable(Protocol):
    """A workload that can be written as Chakra traces."""

    def write(self, prefix: str | Path) -> list[Path]:
        """Write ``{prefix}.{rank}.et`` and what goes with them; return the files, traces first."""


class Conversion(msgspec.Struct, frozen=True, eq=False):
    """How files are to be converted: ``astra-bridge trace convert``.

    Attributes
    ----------
    ranks : int or None
        Number of ranks, where the files do not say it.
    passes : int
        Training steps.
    execution : str
        Pattern of execution traces beside Kineto's, "" if there are none.
    size_bytes : int or None
        Of the buffer, where files count in chunks.
    made : Inferences
        Takes what is inferred.
    """

    ranks: int | None = None
    passes: int = 1
    execution: str = ""
    size_bytes: int | None = None
    made: Inferences = msgspec.field(default_factory=Inferences)


class TraceFormat(Spec, frozen=True, eq=False):
    """A format of traces.

    Attributes
    ----------
    guess_can_open
        Of a prefix: whether this format is likely to be able to read it.  Quick, and without an
        error whatever is there.
    read
        Of a prefix and a number of ranks: the traces of all ranks; raises ``InputError``.
    convert
        Of files (or patterns with ``{rank}``) and a `Conversion`: what is to be written; None
        where files of this format cannot be converted.
    count
        Of a prefix: how many ranks its files are of; 0 where they do not say.  None where files of
        this format never do.
    """

    guess_can_open: Callable[[Path], bool]
    read: Callable[[Path, int], Workload]
    convert: Callable[[Sequence[Path], Conversion], Writable] | None = None
    count: Callable[[Path], int] | None = None


TRACE_FORMATS = Registry(
    "trace format",
    "astra_bridge.trace_formats",
    TraceFormat,
    {
        "chakra": "astra_bridge.trace.reader:FORMAT",
        "manifest": "astra_bridge.trace.manifest:FORMAT",
        "astra-sim-1": "astra_bridge.workload.astra1:FORMAT",
        "pytorch": "astra_bridge.sources.pytorch:FORMAT",
        "simai-workload": "astra_bridge.sources.simai:FORMAT",
        "goal": "astra_bridge.sources.goal:FORMAT",
        "msccl": "astra_bridge.sources.msccl:FORMAT",
    },
)


def read_workload(prefix: str | Path, ranks: int, *, trace_format: str | None = None) -> Workload:
    """Read the traces of all ranks.

    Parameters
    ----------
    prefix : str or Path
        What ASTRA-sim calls workload configuration.
    ranks : int
        Number of ranks, >= 1.
    trace_format : str, optional
        A name in :data:`TRACE_FORMATS`.  None takes the first that says that it can open the
        prefix, and "chakra" (``{prefix}.{rank}.et``) where none does.

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        There is no such format, or a file is missing or not a valid trace.
    PluginError
        The format is a package's, and fails.
    """
    path = arguments.path(prefix, "workload")
    ranks = arguments.integer(1, MAX_RANKS)(ranks, "ranks")
    name = _guess(path) if trace_format is None else trace_format
    workload = TRACE_FORMATS.find(name, key="trace_format").read(path, ranks)
    if not isinstance(workload, Workload):
        raise PluginError(f"trace format {name!r}: gives {show(workload)}; allowed: a Workload")
    return workload


def count_ranks(prefix: str | Path, *, trace_format: str | None = None) -> int:
    """How many ranks the files are of that a prefix stands for; 0 where they do not say.

    Parameters and errors are those of :func:`read_workload`.
    """
    path = arguments.path(prefix, "workload")
    found = TRACE_FORMATS.find(trace_format or _guess(path), key="trace_format")
    return 0 if found.count is None else found.count(path)


def _guess(path: Path) -> str:
    # Looking for plug-ins is slow, and most traces need none.
    return _first(TRACE_FORMATS.built_in, path) or _first(TRACE_FORMATS.names(), path) or "chakra"


def _first(names: Iterable[str], path: Path) -> str | None:
    return next((name for name in names if _can_open(name, path)), None)


def _can_open(name: str, path: Path) -> bool:
    try:
        found = TRACE_FORMATS.get(name)
        return found is not None and found.unavailable() is None and found.guess_can_open(path)
    except AstraBridgeError:
        return False  # a broken plug-in, which `astra-bridge doctor` tells of
