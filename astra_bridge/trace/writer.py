# SPDX-License-Identifier: MIT
"""Writing ``.et`` files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from astra_bridge.errors import InputError
from astra_bridge.files import write_file
from astra_bridge.text import one_line, show
from astra_bridge.trace.columns import AttributeValue, NodeType
from astra_bridge.trace.schema import (
    ATTRIBUTE_FIELDS,
    Attribute,
    GlobalMetadata,
    IOInfo,
    NodeRecord,
)
from astra_bridge.trace.varint import varint

VERSION = "0.0.4"
"""Version of Chakra's schema that is written by default."""

_Made = TypeVar("_Made")
_MAX_CACHED_ATTRIBUTES = 1 << 16
_INT32_ATTRIBUTES = frozenset(("comm_src", "comm_dst", "comm_tag", "comm_priority"))


@dataclass(slots=True)
class TraceNode:
    """One node to be written.

    Attributes
    ----------
    id : int
        Unique within the trace, 0 to 2**64 - 1.
    type : NodeType
    name : str
    duration_micros : int
    data_deps, ctrl_deps : list of int
        Ids of parents.
    attributes : dict
        Chakra attributes under their own names.  The kind follows the value (bool, int, float,
        str, bytes, or a list of one of them; int becomes int32 for ``comm_src``, ``comm_dst``,
        ``comm_tag``, ``comm_priority``, which ASTRA-sim's feeder reads so, and int64 otherwise),
        or is said: ``("uint64_val", 5)``.
    inputs_values : str
        Text of ``inputs.values``; METADATA nodes declare process groups there.
    """

    id: int
    type: NodeType
    name: str = ""
    duration_micros: int = 0
    data_deps: list[int] = field(default_factory=list)
    ctrl_deps: list[int] = field(default_factory=list)
    attributes: dict[str, AttributeValue | tuple[str, Any]] = field(default_factory=dict)
    inputs_values: str = ""


def _kind(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return _kind("", value[0] if value else False).replace("_val", "_list")
    if isinstance(value, bool):
        return "bool_val"
    if isinstance(value, int):
        if name in _INT32_ATTRIBUTES and -(2**31) <= value < 2**31:
            return "int32_val"
        return "int64_val" if value < 2**63 else "uint64_val"
    for kind, field_name in ((float, "double_val"), (str, "string_val"), (bytes, "bytes_val")):
        if isinstance(value, kind):
            return field_name
    raise TypeError(f"a {type(value).__name__} cannot be an attribute")


def encode_attribute(name: str, value: Any) -> bytes:
    """Encode an attribute; the kind follows the value, as in `TraceNode`."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] in ATTRIBUTE_FIELDS:
        kind, value = value
    else:
        kind = _kind(name, value)
    attribute = Attribute(name=name)
    if kind.endswith("_list"):
        values = getattr(attribute, kind)
        values.SetInParent()
        values.values.extend(value)
    else:
        setattr(attribute, kind, value)
    return bytes(attribute.SerializeToString())


class _Encoder:
    """Encodes nodes; equal attributes are encoded once."""

    def __init__(self) -> None:
        self._attributes: dict[Any, bytes] = {}

    def _attribute(self, name: str, value: Any) -> bytes:
        if isinstance(value, (list, tuple)):  # a list inside cannot be a key
            return encode_attribute(name, value)
        # The type, because 1 == True == 1.0.
        key = name, type(value), value
        known = self._attributes.get(key)
        if known is None:
            if len(self._attributes) == _MAX_CACHED_ATTRIBUTES:
                self._attributes.clear()
            known = self._attributes[key] = encode_attribute(name, value)
        return known

    def encode(self, node: TraceNode) -> bytes:
        name = ""
        attributes = []
        try:
            for name, value in node.attributes.items():
                attributes.append(self._attribute(name, value))
            name = ""
            record = NodeRecord(
                name=node.name.encode(),
                type=int(node.type) or None,  # like proto3, which omits zeros
                id=node.id or None,
                duration_micros=node.duration_micros or None,
                data_deps=node.data_deps,
                ctrl_deps=node.ctrl_deps,
                attr=attributes,
            )
            if node.inputs_values:
                record.inputs = IOInfo(values=node.inputs_values).SerializeToString()
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            key = f"node {show(node.id)}{': ' if name else ''}{name}"
            raise InputError(one_line(str(error)), key=key) from None
        return bytes(record.SerializeToString())


def encode_any(node: TraceNode) -> bytes:
    """Encode one node.

    Raises
    ------
    InputError
        A value does not fit its field.
    """
    return _Encoder().encode(node)


def name_field(name: str) -> bytes:
    """The field of a node that holds its name, for :func:`encode_node`."""
    content = name.encode(errors="replace")
    return b"\x12" + varint(len(content)) + content


def attribute_field(name: str, value: Any) -> bytes:
    """The field of a node that holds an attribute, for :func:`encode_node`."""
    content = encode_attribute(name, value)
    return b"\x52" + varint(len(content)) + content


def encode_node(
    node_id: bytes,
    node_type: int,
    duration_micros: int,
    data_deps: bytes,
    ctrl_deps: bytes,
    fields: bytes,
) -> bytes:
    """Encode a node whose values are known to fit, as long traces are made: nothing is checked.

    Parameters
    ----------
    node_id : bytes
        As :func:`varint` gives it; `data_deps` and `ctrl_deps` are such, one after the other.
    fields : bytes
        Those that :func:`name_field` and :func:`attribute_field` give, one after the other.
    """
    record = b"\x08" + node_id + b"\x18" + varint(node_type)
    if ctrl_deps:
        record += b"\x22" + varint(len(ctrl_deps)) + ctrl_deps
    if data_deps:
        record += b"\x2a" + varint(len(data_deps)) + data_deps
    if duration_micros:
        record += b"\x38" + varint(duration_micros)
    return record + fields


def frame_records(records: Iterable[bytes]) -> bytes:
    """Put encoded messages, GlobalMetadata first, together as the content of an ``.et`` file."""
    out = bytearray()
    for record in records:
        out += varint(len(record))
        out += record
    return bytes(out)


def encode_trace(nodes: Iterable[TraceNode], *, version: str = VERSION) -> bytes:
    """Encode nodes as the content of an ``.et`` file.

    Raises
    ------
    InputError
        A value does not fit its field.
    """
    metadata = GlobalMetadata(version=version).SerializeToString()
    return frame_records(chain([metadata], map(_Encoder().encode, nodes)))


def encode_traces(
    traces: Iterable[Sequence[TraceNode]], *, version: str = VERSION
) -> Iterator[bytes]:
    """Encode traces one after the other; nodes that one shares with the one before, only once.

    Raises
    ------
    InputError
        A value does not fit its field.

    Examples
    --------
    >>> node = TraceNode(0, NodeType.COMP, "a", 5)
    >>> first, second = encode_traces([[node], [node, TraceNode(1, NodeType.COMP, "b", 5)]])
    >>> first == encode_trace([node]), len(second) > len(first)
    (True, True)
    """
    metadata = GlobalMetadata(version=version).SerializeToString()
    for records in of_each(traces, _Encoder().encode):
        yield frame_records(chain([metadata], records))


def of_each(
    traces: Iterable[Sequence[TraceNode]], make: Callable[[TraceNode], _Made]
) -> Iterator[list[_Made]]:
    """What is made of the nodes of traces, one trace after the other.

    Of a node that a trace shares with the one before, in the same place, it is made once.

    Examples
    --------
    >>> shared, last = TraceNode(0, NodeType.COMP, "a"), TraceNode(1, NodeType.COMP, "b")
    >>> first, second = of_each([[shared], [shared, last]], lambda node: [node.name])
    >>> first, second, first[0] is second[0]
    ([['a']], [['a'], ['b']], True)
    """
    before: Sequence[TraceNode] = []
    made: list[_Made] = []
    for nodes in traces:
        made = [
            known if node is old else make(node)
            for node, old, known in zip(nodes, before, made, strict=False)
        ]
        made += map(make, nodes[len(made) :])
        before = nodes
        yield made


def write_trace(path: str | Path, nodes: Iterable[TraceNode], *, version: str = VERSION) -> None:
    """Write an ``.et`` file.

    Parameters
    ----------
    path
        Where to; folders above it are made.
    nodes
        In the order in which they shall stand in the file.
    version
        ``GlobalMetadata.version``.

    Raises
    ------
    InputError
        A value does not fit its field, or the file cannot be written.
    """
    write_file(path, encode_trace(nodes, version=version))
