# SPDX-License-Identifier: MIT
"""Nodes that were made in this process as columns, without a file or bytes in between."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from astra_bridge.errors import InputError
from astra_bridge.text import show
from astra_bridge.trace.columns import MISSING, NodeDetails, TraceColumns
from astra_bridge.trace.raw import ATTRIBUTES, INVOLVED_DIM, IS_CPU_OP, PG_NAME, RawTrace
from astra_bridge.trace.reader import checked_columns
from astra_bridge.trace.writer import VERSION, TraceNode

__all__ = ["columns_of"]

_SLOTS = {name.decode(): slot for name, slot in ATTRIBUTES.items()}


class _Details(msgspec.Struct, frozen=True):
    nodes: Sequence[TraceNode]

    def __call__(self, i: int) -> NodeDetails:
        node = self.nodes[i]
        attributes = {name: _plain(value) for name, value in node.attributes.items()}
        return NodeDetails(node.name, 0, node.inputs_values, "", attributes)


def _plain(value: Any) -> Any:
    """A value whose kind is said, without it: ``("uint64_val", 5)``."""
    said = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)
    value = value[1] if said else value
    return list(value) if isinstance(value, tuple) else value


def columns_of(nodes: Sequence[TraceNode]) -> TraceColumns:
    """The columns of a trace of these nodes, as if it had been written and read again.

    Raises
    ------
    InputError
        A value does not fit its field, or a node waits for one that is not there.

    Examples
    --------
    >>> from astra_bridge.trace import NodeType
    >>> columns_of([TraceNode(0, NodeType.COMP, "a", 5)]).duration_micros.tolist()
    [5]
    """
    n = len(nodes)
    columns: list[list[int] | None] = [None] * IS_CPU_OP
    cpu = bytearray(n)
    pg_name, involved_dim = [-1] * n, [-1] * n
    strings: dict[bytes, int] = {}
    dims: dict[bytes, int] = {}
    dep_start, dep_id, data_count = array("q", [0]), array("Q"), array("i")
    i, name = 0, ""
    try:
        for i, node in enumerate(nodes):
            dep_id.extend(node.data_deps)
            dep_id.extend(node.ctrl_deps)
            dep_start.append(len(dep_id))
            data_count.append(len(node.data_deps))
            for name, value in node.attributes.items():
                slot = _SLOTS.get(name)
                if slot is None:
                    continue
                value = _plain(value)
                if slot < IS_CPU_OP:
                    row = columns[slot]
                    if row is None:
                        row = columns[slot] = [MISSING] * n
                    row[i] = _whole(value)
                elif slot == IS_CPU_OP:
                    cpu[i] = bool(value)
                elif slot == PG_NAME:
                    pg_name[i] = strings.setdefault(value.encode(), len(strings))
                elif slot == INVOLVED_DIM:
                    involved_dim[i] = dims.setdefault(bytes(map(bool, value)), len(dims))
            name = ""
        raw = RawTrace(
            version=VERSION.encode(),
            record_start=np.zeros(n, np.int64),
            node_id=np.array([node.id for node in nodes], np.uint64),
            type=np.array([node.type for node in nodes], np.int32),
            duration_micros=np.array([node.duration_micros for node in nodes], np.uint64),
            is_cpu_op=np.frombuffer(bytes(cpu), np.uint8),
            ints=[None if row is None else np.array(row, np.int64) for row in columns],
            pg_name=np.array(pg_name, np.int32),
            involved_dim=np.array(involved_dim, np.int32),
            strings=list(strings),
            involved_dims=list(dims),
            dep_start=np.frombuffer(dep_start, np.int64),
            dep_id=_unsigned(dep_id),
            data_dep_count=np.frombuffer(data_count, np.int32) if n else np.zeros(0, np.int32),
        )
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        key = f"node {show(nodes[i].id)}{': ' if name else ''}{name}"
        raise InputError(f"does not fit its field: {error}", key=key) from None
    return checked_columns(raw, None, _Details(nodes))


def _unsigned(values: array[int]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(values, np.uint64) if values else np.zeros(0, np.uint64)


def _whole(value: Any) -> int:
    if isinstance(value, (str, bytes, float, list)):
        raise TypeError(f"{show(value)} is no whole number")
    number = int(value)
    if not -(2**63) < number < 2**63:
        raise OverflowError(f"{number} is out of range (-2**63 + 1 to 2**63 - 1)")
    return number
