# SPDX-License-Identifier: MIT
"""A hash of what things say, whatever file or object says it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from astra_bridge.records import Record
from astra_bridge.trace import TraceColumns, Workload

__all__ = ["content_hash"]

_DIGEST_BYTES = 16


def content_hash(*values: Any) -> str:
    """A hash that equal contents have in common, on every machine.

    Of a record count its fields that take part in comparison; of a mapping its keys in
    ascending order.  A path counts as the content of its file.

    Examples
    --------
    >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    True
    >>> content_hash((1, 2)) == content_hash((1, "2"))
    False
    """
    import hashlib  # few experiments are compared

    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for value in values:
        _feed(state, value)
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    # Each value says what it is and where it ends, so that no two say the same in sum.
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if value is None or isinstance(value, bool):
        state.update(repr(value).encode())
    elif isinstance(value, int):
        state.update(f"i{value};".encode())
    elif isinstance(value, float):
        # A whole number means the same with and without a point.
        if value.is_integer():
            state.update(f"i{int(value)};".encode())
        else:
            state.update(struct.pack("<cd", b"f", value))
    elif isinstance(value, (str, bytes)):
        data = value.encode() if isinstance(value, str) else value
        state.update(b"s%d;" % len(data))
        state.update(data)
    elif isinstance(value, np.ndarray):
        state.update(f"a{value.dtype.descr}{value.shape};".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        state.update(b"m%d;" % len(value))
        for key in sorted(value, key=str):
            _feed(state, str(key))
            _feed(state, value[key])
    elif isinstance(value, (tuple, list)):
        state.update(b"l%d;" % len(value))
        for one in value:
            _feed(state, one)
    elif isinstance(value, (set, frozenset)):
        _feed(state, sorted(value, key=str))
    elif isinstance(value, Path):
        _feed(state, value.read_bytes())
    elif isinstance(value, Workload):
        # Whether equal traces stand once or several times does not matter.
        hashes = [content_hash(columns).encode() for columns in value.columns]
        # As a list of texts, but there may be a million ranks.
        each = [b"s%d;%s" % (len(one), one) for one in hashes]
        state.update(b"l%d;" % len(value.rank_to_columns))
        state.update(b"".join([each[index] for index in value.rank_to_columns]))
    elif isinstance(value, msgspec.Struct) or hasattr(type(value), "__dataclass_fields__"):
        _feed(state, type(value).__name__)
        for name in _compared(value):
            _feed(state, name)
            _feed(state, getattr(value, name))
        if isinstance(value, TraceColumns):
            _feed_details(state, value)
    else:
        raise TypeError(f"{type(value).__name__} has no content to compare")


def _feed_details(state: Any, trace: TraceColumns) -> None:
    """Names and attributes of nodes: a model may take its times from any of them."""
    encode = msgspec.msgpack.Encoder().encode
    for one in trace.all_details():
        attributes = sorted(one.attributes.items())
        state.update(encode((one.name, one.inputs_values, one.outputs_values, attributes)))


def _compared(record: Any) -> Iterable[str]:
    """The fields that say what it is."""
    if isinstance(record, TraceColumns):
        return (name for name in record.__struct_fields__ if name not in ("file", "read_details"))
    if isinstance(record, Record):
        return (name for name in record.__struct_fields__ if name not in record.beside)
    if isinstance(record, msgspec.Struct):
        return record.__struct_fields__
    from dataclasses import fields

    return (field.name for field in fields(record) if field.compare)
