# SPDX-License-Identifier: MIT
"""What is lowered: the setting that all traces share, and a trace in the order of its template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.groups import GroupKey
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.lowering.choices import Choices
from astra_bridge.records import Record
from astra_bridge.semantics import Effects, Semantics
from astra_bridge.trace import MISSING, NodeType, TraceColumns

__all__ = ["FAST_DELAY_NS", "Remarks", "Setting", "TraceView", "shorten"]

FAST_DELAY_NS = 10
"""What crossing the bus takes in a communicator group of ASTRA-sim."""

_NAMES = {
    NodeType.COMM_SEND: "COMM_SEND",
    NodeType.COMM_RECV: "COMM_RECV",
    NodeType.COMM_COLL: "COMM_COLL",
    NodeType.COMP: "COMP",
    NodeType.MEM_LOAD: "MEM_LOAD",
    NodeType.MEM_STORE: "MEM_STORE",
}


class Setting(Record, frozen=True, eq=False):
    """All inputs but the traces.

    Attributes
    ----------
    system, memory, choices
        The configurations, and what their names stand for.
    dims : tuple of int
        Ranks per logical dimension.
    dim_bandwidth : tuple of float
        Of each dimension, in any unit, for orders of dimensions.
    comm_groups : mapping of int or str to tuple of int
        Group id -> ranks, in order of position.
    semantics : Semantics
    endpoint_delay_ns : int
        What crossing the bus takes otherwise.
    effects : Effects
        Where a quirk of the semantics that makes a difference is noted.
    link_Bps : tuple of float
        Bandwidth of a link of each dimension; empty where it is not known.
    reduces : tuple of bool
        Whether the network can reduce in each dimension; empty where it can in none.
    """

    system: SystemConfig
    memory: RemoteMemoryConfig
    choices: Choices
    dims: tuple[int, ...]
    dim_bandwidth: tuple[float, ...]
    comm_groups: Mapping[GroupKey, tuple[int, ...]]
    semantics: Semantics
    endpoint_delay_ns: int
    effects: Effects
    link_Bps: tuple[float, ...] = ()
    reduces: tuple[bool, ...] = ()

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return math.prod(self.dims)


class TraceView:
    """A trace in the order of its template, ascending id.

    Attributes
    ----------
    trace : TraceColumns
    ranks : ndarray of int64
        Those that run it.
    order : ndarray of int64, shape (nodes,)
        Node i of the template is node ``order[i]`` of the trace.
    types, cpu : ndarray, shape (nodes,)
        Type of each node, and whether it runs on the CPU, in the order of the template.
    remarks : dict of str to int
        What users should know about the trace, and of how many of its nodes.
    """

    def __init__(self, trace: TraceColumns, ranks: NDArray[np.int64]) -> None:
        self.trace, self.ranks = trace, ranks
        self.order: NDArray[np.int64] = np.argsort(trace.node_id, kind="stable")
        self.types: NDArray[Any] = trace.type[self.order]
        self.cpu: NDArray[np.bool_] = trace.is_cpu_op[self.order]
        self.remarks: dict[str, int] = {}
        # A collective of the host that does not say what it does is the call that launches one.
        launch = (self.types == int(NodeType.COMM_COLL)) & self.cpu
        launch &= trace.comm_type[self.order] == MISSING
        self.types[launch] = int(NodeType.COMP)

    def at(self, position: int, attribute: str = "") -> str:
        """A node of the file, for messages."""
        kind = _NAMES.get(NodeType(int(self.trace.type[position])), "")
        return f"node {self.trace.node_id[position]} {kind} {attribute}".strip()

    def remark(self, what: str, count: int) -> None:
        """Say something about some nodes of the trace: "compute nodes have no duration"."""
        self.remarks[what] = self.remarks.get(what, 0) + count

    def refuse(self, reason: str, position: int, attribute: str = "") -> NoReturn:
        """Raise an InputError that names file, node and attribute."""
        raise InputError(reason, file=self.trace.file, key=self.at(position, attribute))

    def required(
        self, which: NDArray[np.bool_], column: str, low: int, high: int
    ) -> NDArray[np.int64]:
        """Values of an attribute that these nodes must have, within [low, high].

        Raises
        ------
        InputError
            Says which node has none, or another one.
        """
        positions = self.order[which]
        values: NDArray[np.int64] = getattr(self.trace, column)[positions]
        bad = (values < low) | (values > high)
        if bad.any():
            at = int(np.argmax(bad))
            value = int(values[at])
            found = "is missing" if value == MISSING else f"is {value}"
            self.refuse(f"{found}; allowed: {low} to {high}", int(positions[at]), column)
        return values


class Remarks:
    """What is to be said of traces, each once, however many they are."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._traces: dict[str, list[TraceColumns]] = {}

    def add(self, view: TraceView) -> None:
        """Take over what is to be said of one."""
        for what, count in view.remarks.items():
            self._count[what] += count
            self._traces.setdefault(what, []).append(view.trace)

    def warnings(self) -> list[str]:
        """One sentence for each."""
        return [
            f"{traces[0].file or 'trace'}{_and_more(len(traces))}: {self._count[what]:,} {what}"
            for what, traces in self._traces.items()
        ]


def _and_more(count: int) -> str:
    return "" if count == 1 else f" and {count - 1} other trace{'s' if count > 2 else ''}"


def shorten(ranks: Sequence[int]) -> str:
    """The first few ranks, for messages.

    Examples
    --------
    >>> shorten(range(100))
    '0, 1, 2, 3, 4, 5, 6, 7, ...'
    """
    return ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
