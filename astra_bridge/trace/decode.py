# SPDX-License-Identifier: MIT
"""The pure-Python trace decoder, used where the native one was not built.

It must agree with ``csrc/trace``: same columns, or both refuse (see tests/unit/test_trace_fuzz.py).
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from astra_bridge.trace.columns import MISSING
from astra_bridge.trace.raw import (
    ATTRIBUTES,
    INVOLVED_DIM,
    IS_CPU_OP,
    PG_NAME,
    RawError,
    RawTrace,
    twice,
)
from astra_bridge.trace.schema import INT_FIELDS, AttributeRecord, MetadataRecord, NodeRecord

_MAX_ATTRIBUTE_CACHE = 1 << 16
_NODE_FIELDS = ("id", "type", "duration_micros")

NOT_METADATA = "the first record is a node; a trace starts with a GlobalMetadata record"
TRUNCATED_LENGTH = "the length of the next record is truncated or longer than 10 bytes"
EMPTY = "the file is empty; a trace has at least a GlobalMetadata record"
BAD_METADATA = "the first record is not a Chakra GlobalMetadata message"
BAD_NODE = "this record is not a Chakra Node message"


def record_extent(data: Any, position: int, end: int | None = None) -> tuple[int, int]:
    """Return first and past-the-last byte of the record whose length prefix is at `position`.

    The data ends at `end`, or where it ends.

    Raises
    ------
    RawError
        The prefix or the record runs over the end of `data`.
    """
    size = shift = 0
    start = position
    end = len(data) if end is None else end
    while True:
        if start >= len(data) or shift == 70:
            raise RawError(f"byte {position}", TRUNCATED_LENGTH)
        byte = data[start]
        start += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if size > end - start:
        raise RawError(
            f"byte {position}",
            "the record that starts here is longer than the rest of the file "
            f"({end - start} bytes)",
        )
    return start, start + size


def _value(attribute: Any, slot: int) -> Any:
    """The value of an attribute that simulation reads."""
    name = attribute.name.decode()
    field = attribute.WhichOneof("value")
    if field is None:
        raise RawError(name, "the attribute has no value")
    value = getattr(attribute, field)
    if slot == PG_NAME:
        if field != "string_val":
            raise RawError(name, f"a {field} is not allowed here; it takes a string_val")
        return value
    if slot == INVOLVED_DIM:
        if field != "bool_list":
            raise RawError(name, f"a {field} is not allowed here; it takes a bool_list")
        return bytes(value.values)
    if slot == IS_CPU_OP and field == "bool_val":
        return int(value)
    if field not in INT_FIELDS:
        raise RawError(name, f"a {field} is not allowed here; it takes any kind of integer")
    if slot == IS_CPU_OP:
        return int(value != 0)
    if not -(2**63) < value < 2**63:
        raise RawError(name, f"{value} is out of range (-2**63 + 1 to 2**63 - 1)")
    return value


def decode(data: Any) -> RawTrace:
    """Decode the bytes of a trace.

    Parameters
    ----------
    data
        bytes or mmap of the whole (uncompressed) file.

    Raises
    ------
    RawError
        The bytes are not a trace.
    """
    if len(data) == 0:
        raise RawError("byte 0", EMPTY)
    end = len(data)
    record_start = array("q")
    begins, ends = array("q"), array("q")
    position = 0
    empty = 0
    while position < end:
        record_start.append(position)
        # Records of fewer than 128 bytes, the usual case, need no loop.
        if (byte := data[position]) < 0x80 and position + 1 + byte <= end:
            begin, position = position + 1, position + 1 + byte
        else:
            begin, position = record_extent(data, position)
        # An empty record is node 0.  A file of zeros has as many records as bytes: end before they
        # take memory.
        if begin == position and begins:
            if empty:
                raise RawError("node 0", twice(empty - 1, len(begins) - 1))
            empty = len(begins)
        begins.append(begin)
        ends.append(position)

    first = data[begins[0] : ends[0]]
    try:
        version = MetadataRecord.FromString(first).version
        node = NodeRecord.FromString(first)
    except DecodeError:
        raise RawError("byte 0", BAD_METADATA) from None
    if any(node.HasField(field) for field in _NODE_FIELDS):
        raise RawError("byte 0", NOT_METADATA)

    n = len(begins) - 1
    node_id = np.zeros(n, np.uint64)
    node_type = np.zeros(n, np.int32)
    duration_micros = np.zeros(n, np.uint64)
    is_cpu_op = np.zeros(n, np.uint8)
    ints: list[npt.NDArray[np.int64] | None] = [None] * IS_CPU_OP
    pg_name = np.full(n, -1, np.int32)
    involved_dim = np.full(n, -1, np.int32)
    dep_start = np.zeros(n + 1, np.int64)
    dep_id = array("Q")
    data_dep_count = np.zeros(n, np.int32)
    strings: dict[bytes, int] = {}
    dims: dict[bytes, int] = {}

    # Element-wise stores through memoryviews cost half of NumPy's.
    id_view, type_view, duration_view = node_id.data, node_type.data, duration_micros.data
    dep_view, data_view = dep_start.data, data_dep_count.data
    slots: list[Any] = [None] * IS_CPU_OP + [is_cpu_op.data, pg_name.data, involved_dim.data]
    cache: dict[bytes, tuple[int, Any]] = {}
    parse = NodeRecord.FromString
    i = 0
    try:
        for i in range(n):
            node = parse(data[begins[i + 1] : ends[i + 1]])
            id_view[i] = node.id
            type_view[i] = node.type
            duration_view[i] = node.duration_micros
            # Slices, because iterating over protobuf's own containers is slow.
            if parents := node.data_deps:
                dep_id.fromlist(parents[:])
                data_view[i] = len(parents)
            if parents := node.ctrl_deps:
                dep_id.fromlist(parents[:])
            dep_view[i + 1] = len(dep_id)
            seen = 0
            for encoded in node.attr[:]:
                hit = cache.get(encoded)
                if hit is None:
                    attribute = AttributeRecord.FromString(encoded)
                    slot = ATTRIBUTES.get(attribute.name, -1)
                    if slot >= 0 and seen >> slot & 1:
                        continue
                    value: Any = _value(attribute, slot) if slot >= 0 else None
                    if slot == PG_NAME:
                        value = strings.setdefault(value, len(strings))
                    elif slot == INVOLVED_DIM:
                        value = dims.setdefault(value, len(dims))
                    elif slot >= 0 and slots[slot] is None:
                        row = ints[slot] = np.full(n, MISSING, np.int64)
                        slots[slot] = row.data
                    if len(cache) == _MAX_ATTRIBUTE_CACHE:
                        cache.clear()
                    hit = cache[encoded] = (slot, value)
                slot = hit[0]
                # Of two attributes of one name the first counts, as in ASTRA-sim.
                if slot >= 0 and not seen >> slot & 1:
                    seen |= 1 << slot
                    slots[slot][i] = hit[1]
    except DecodeError:
        raise RawError(f"byte {record_start[i + 1]}", BAD_NODE) from None
    except RawError as error:
        raise RawError(f"node {node.id}: {error.place}", error.problem) from None

    return RawTrace(
        version=version,
        record_start=np.frombuffer(record_start, np.int64)[1:],
        node_id=node_id,
        type=node_type,
        duration_micros=duration_micros,
        is_cpu_op=is_cpu_op,
        ints=ints,
        pg_name=pg_name,
        involved_dim=involved_dim,
        strings=list(strings),
        involved_dims=list(dims),
        dep_start=dep_start,
        dep_id=np.frombuffer(dep_id, np.uint64) if dep_id else np.zeros(0, np.uint64),
        data_dep_count=data_dep_count,
    )
