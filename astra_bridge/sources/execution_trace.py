# SPDX-License-Identifier: MIT
"""PyTorch's execution trace (``ExecutionTraceObserver``'s JSON), schemas 1.0.1 to 1.1.1."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from astra_bridge.sources.json_list import read_list

__all__ = ["ExecutionTrace", "Operator", "read_execution_trace", "tensors"]


class Operator(msgspec.Struct):
    """A node of an execution trace.

    Attributes
    ----------
    id, parent : int
        The parent is the operator that called it.
    name : str
    record : int
        ``rf_id``, the number that Kineto calls "Record function id"; -1 where there is none.
    thread : int
    inputs, outputs : list
        Values; a tensor is [tensor, storage, offset, elements, bytes of an element, device].
    input_shapes : list
    attributes : dict
        ``collective_name``, ``pg_name``, ... where PyTorch writes them; and ``op_schema``.
    """

    id: int
    parent: int
    name: str
    record: int
    thread: int
    inputs: list[Any]
    outputs: list[Any]
    input_shapes: list[Any]
    attributes: dict[str, Any]


class ExecutionTrace(msgspec.Struct):
    """The operators that were asked for, in order of id.

    Attributes
    ----------
    file : Path
    schema : str
    operators : list of Operator
    groups : list of dict
        What ``## process_group:init ##`` lists: ``pg_name``, ``ranks`` (empty: all), ...
    """

    file: Path
    schema: str
    operators: list[Operator]
    groups: list[dict[str, Any]]


class _Node(msgspec.Struct):
    id: int = 0
    name: str = ""
    ctrl_deps: Any = 0
    parent: Any = None
    rf_id: Any = -1
    tid: Any = 0
    op_schema: str = ""
    inputs: msgspec.Raw = msgspec.Raw(b"[]")
    outputs: msgspec.Raw = msgspec.Raw(b"[]")
    input_shapes: msgspec.Raw = msgspec.Raw(b"[]")
    attrs: msgspec.Raw = msgspec.Raw(b"[]")


_FIRST_KEYS = ("id", "name", "ctrl_deps")


def _lenient(entry: dict[str, Any]) -> _Node:
    raw = {
        key: msgspec.Raw(msgspec.json.encode(entry.get(key, [])))
        for key in ("inputs", "outputs", "input_shapes", "attrs")
    }
    plain = {key: entry[key] for key in ("ctrl_deps", "parent", "rf_id", "tid") if key in entry}
    number = entry.get("id")
    return _Node(
        id=number if isinstance(number, int) else 0,
        name=str(entry.get("name", "")),
        op_schema=str(entry.get("op_schema", "")),
        **plain,
        **raw,
    )


def read_execution_trace(
    file: Path, wanted: Callable[[str], bool] = lambda _: True
) -> ExecutionTrace:
    """Read an execution trace, gzip-compressed or not.

    Parameters
    ----------
    file : Path
    wanted : callable
        Whether operators of a name are needed; what is not costs little.

    Raises
    ------
    InputError
        It cannot be read, or is no execution trace.
    """
    operators: list[Operator] = []
    groups: list[dict[str, Any]] = []

    def add(nodes: list[_Node]) -> None:
        for node in nodes:
            if "process_group:init" in node.name:
                groups.extend(_groups(_values(node.inputs)[0]))
            elif wanted(node.name):
                operators.append(_operator(node))

    beside = read_list(file, "nodes", _FIRST_KEYS, _Node, _lenient, add)
    operators.sort(key=lambda operator: operator.id)
    return ExecutionTrace(file, str(beside.get("schema", "")), operators, groups)


def _values(raw: msgspec.Raw) -> tuple[list[Any], list[Any]]:
    """Values and shapes, which stand in one object since schema 1.0.2."""
    found = msgspec.json.decode(raw)
    if isinstance(found, dict):
        return _list(found.get("values")), _list(found.get("shapes"))
    return _list(found), []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _operator(node: _Node) -> Operator:
    inputs, shapes = _values(node.inputs)
    attributes = {
        str(one["name"]): one.get("value")
        for one in _list(msgspec.json.decode(node.attrs))
        if isinstance(one, dict) and "name" in one
    }
    attributes.setdefault("op_schema", node.op_schema)
    parent = node.ctrl_deps if node.parent is None else node.parent
    if isinstance(parent, list):
        parent = parent[0] if parent else 0
    return Operator(
        id=node.id,
        parent=_whole(parent),
        name=node.name,
        record=_whole(attributes.get("rf_id", node.rf_id)),
        thread=_whole(attributes.get("tid", node.tid)),
        inputs=inputs,
        outputs=_values(node.outputs)[0],
        input_shapes=shapes or _list(msgspec.json.decode(node.input_shapes)),
        attributes=attributes,
    )


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return -1


def _groups(values: list[Any]) -> list[dict[str, Any]]:
    for value in values:
        if isinstance(value, str) and "pg_name" in value:
            try:
                found = msgspec.json.decode(value)
            except msgspec.DecodeError:
                continue
            return [one for one in _list(found) if isinstance(one, dict)]
    return []


_DEVICE = re.compile(r"[a-z]+(:\d+)?$")


def tensors(value: Any) -> list[list[Any]]:
    """All tensors in a value, however deep.

    Examples
    --------
    >>> tensors([[[8, 9, 0, 1024, 8, "cuda:0"]], "sum", 3])
    [[8, 9, 0, 1024, 8, 'cuda:0']]
    """
    if not isinstance(value, list):
        return []
    if len(value) == 6 and isinstance(value[5], str) and all(type(n) is int for n in value[:5]):
        return [value] if _DEVICE.match(value[5]) else []
    return [found for inner in value for found in tensors(inner)]
