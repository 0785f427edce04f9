# SPDX-License-Identifier: MIT
"""Nodes that were made in this process as columns, without a file or bytes in between."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
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

__all__ = ["columns_of", "columns_of_all"]

_SLOTS = {name.decode(): slot for name, slot in ATTRIBUTES.items()}


class _Details(msgspec.Struct, frozen=True):
    nodes: Sequence[TraceNode]

    def __call__(self, i: int) -> NodeDetails:
        node = self.nodes[i]
        attributes = {name: _plain(value) for name, value in node.attributes.items()}
        return NodeDetails(node.name, 0, node.inputs_values, "", attributes)

    def names(self) -> Iterator[str]:
        return (node.name for node in self.nodes)


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
    return checked_columns(_raw(nodes), None, _Details(nodes))


def columns_of_all(traces: Iterable[Sequence[TraceNode]]) -> Iterator[TraceColumns]:
    """The columns of traces one after the other; what one shares with the one before, only once.

    Raises
    ------
    InputError
        As :func:`columns_of`.

    Examples
    --------
    >>> from astra_bridge.trace import NodeType
    >>> node, other = (TraceNode(0, NodeType.COMP, "a", us) for us in (5, 6))
    >>> [one.duration_micros.tolist() for one in columns_of_all([[node], [other]])]
    [[5], [6]]
    """
    before: Sequence[TraceNode] = []
    raw: RawTrace | None = None
    for nodes in traces:
        changed = _changed(raw, before, nodes) if raw is not None else None
        raw, before = changed or _raw(nodes), nodes
        yield checked_columns(raw, None, _Details(nodes))


def _changed(
    raw: RawTrace, before: Sequence[TraceNode], nodes: Sequence[TraceNode]
) -> RawTrace | None:
    """The same with other whole numbers in some nodes; None where more is different."""
    if len(before) != len(nodes):
        return None
    ints = list(raw.ints)
    copied = set()
    for i, (old, node) in enumerate(zip(before, nodes, strict=True)):
        if node is old:
            continue
        same = (
            node.id == old.id and node.type == old.type and node.name == old.name
            and node.duration_micros == old.duration_micros and node.data_deps == old.data_deps
            and node.ctrl_deps == old.ctrl_deps and node.inputs_values == old.inputs_values
            and node.attributes.keys() == old.attributes.keys()
        )  # fmt: skip
        if not same:
            return None
        for name, value in node.attributes.items():
            if value is old.attributes[name] or name not in _SLOTS:
                continue
            slot = _SLOTS[name]
            # What does not fit is said by what reads all of it.
            if slot >= IS_CPU_OP or type(value) is not int or abs(value) >= 2**63:
                return None
            if slot not in copied:
                copied.add(slot)
                ints[slot] = np.array(raw.ints[slot])
            row = ints[slot]
            assert row is not None
            row[i] = value
    return msgspec.structs.replace(raw, ints=ints)


def _raw(nodes: Sequence[TraceNode]) -> RawTrace:
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
        return RawTrace(
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


def _unsigned(values: array[int]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(values, np.uint64) if values else np.zeros(0, np.uint64)


def _whole(value: Any) -> int:
    if isinstance(value, (str, bytes, float, list)):
        raise TypeError(f"{show(value)} is no whole number")
    number = int(value)
    if not -(2**63) < number < 2**63:
        raise OverflowError(f"{number} is out of range (-2**63 + 1 to 2**63 - 1)")
    return number
