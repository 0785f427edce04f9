# SPDX-License-Identifier: MIT
"""Chakra's two JSON forms.

* What Chakra's jsonizer writes, and we write: protobuf's JSON of the ``GlobalMetadata`` and of
  each ``Node``, one object after the other.  Nothing is lost.
* What Chakra's feeder reads from ``.json``: one object ``{"workload_graph": [...]}`` of nodes with
  the keys ``Id Name NodeType runtime data_deps`` and attributes under their own names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import unique_keys
from astra_bridge.text import one_line, show
from astra_bridge.trace.columns import NodeType
from astra_bridge.trace.decode import record_extent
from astra_bridge.trace.kinds import HEAD_BYTES, kind_of_file, what_takes_it
from astra_bridge.trace.raw import RawError
from astra_bridge.trace.schema import GlobalMetadata, Node
from astra_bridge.trace.writer import TraceNode, encode_trace, frame_records

_FEEDER_FIELDS = {
    "Id": int,
    "Name": str,
    "NodeType": int,
    "runtime": int,
    "data_deps": list,
    "ctrl_deps": list,
}


def _objects(text: str, file: Path | None) -> Iterator[Any]:
    decoder = json.JSONDecoder(object_pairs_hook=partial(unique_keys, file=file))
    position, end = 0, len(text)
    while True:
        while position < end and text[position] in " \t\r\n":
            position += 1
        if position == end:
            return
        try:
            value, position = decoder.raw_decode(text, position)
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError(f"not valid JSON: {one_line(str(error))}", file=file) from None
        yield value


# As protobuf's own JSON spells them.
_OTHER_SPELLINGS = {"dataDeps": "data_deps", "ctrlDeps": "ctrl_deps", "id": "Id", "name": "Name"}


def _feeder_node(entry: Any, index: int, file: Path | None) -> TraceNode:
    key = f"workload_graph[{index}]"
    if not isinstance(entry, dict):
        raise InputError(f"a node must be an object, not {show(entry)}", file=file, key=key)
    spelled = {_OTHER_SPELLINGS.get(name, name): value for name, value in entry.items()}
    if len(spelled) < len(entry):
        twice = next(name for name in _OTHER_SPELLINGS if name in entry)
        raise InputError("is given in two spellings", file=file, key=f"{key}.{twice}")
    entry = spelled
    for name, kind in _FEEDER_FIELDS.items():
        if name in entry and type(entry[name]) is not kind:
            raise InputError(
                f"{show(entry[name])} is not a {kind.__name__}", file=file, key=f"{key}.{name}"
            )
    if "Id" not in entry or entry.get("NodeType") not in list(NodeType):
        raise InputError("a node needs an Id and a NodeType from 0 to 7", file=file, key=key)
    return TraceNode(
        id=entry["Id"],
        type=NodeType(entry["NodeType"]),
        name=entry.get("Name", ""),
        duration_micros=entry.get("runtime", 0),
        data_deps=entry.get("data_deps", []),
        ctrl_deps=entry.get("ctrl_deps", []),
        attributes={k: v for k, v in entry.items() if k not in _FEEDER_FIELDS},
    )


_KNOWN = {"version", "attr", "id", "name", "type"}
"""Of what a Chakra trace as JSON may begin with, a file has at least one."""


def json_to_et(data: bytes, *, file: str | Path | None = None) -> bytes:
    """Convert the content of a Chakra JSON file to that of an ``.et`` file.

    Raises
    ------
    InputError
        Not JSON, or not one of Chakra's two forms.
    """
    path = None if file is None else Path(file)
    if (kind := kind_of_file(data[:HEAD_BYTES])) is not None and not kind.readable:
        raise InputError(what_takes_it(kind, path), file=path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason}", file=path) from None
    objects = _objects(text, path)
    first = next(objects, None)
    if isinstance(first, dict) and "workload_graph" in first:
        graph = first["workload_graph"]
        if not isinstance(graph, list):
            raise InputError("must be a list of nodes", file=path, key="workload_graph")
        nodes = (_feeder_node(entry, i, path) for i, entry in enumerate(graph))
        try:
            return encode_trace(nodes)
        except InputError as error:
            if error.file is not None:
                raise
            raise InputError(error.reason, file=path, key=error.key) from None

    if isinstance(first, dict) and first and not first.keys() & _KNOWN:
        keys = ", ".join(show(key) for key in list(first)[:5])
        raise InputError(
            f"holds no trace: its keys are {keys}; known are Kineto's traces (traceEvents), "
            "execution traces (schema, nodes), and Chakra's (version, or workload_graph)",
            file=path,
        )

    def records() -> Iterator[bytes]:
        message = GlobalMetadata()
        for index, value in enumerate(chain([first], objects)):
            try:
                if not isinstance(value, dict):
                    raise TypeError(f"{show(value)} is not an object")
                json_format.ParseDict(value, message)
                yield message.SerializeToString()
            except Exception as error:  # ParseDict lets any error of a value through
                what = "GlobalMetadata" if index == 0 else "Node"
                raise InputError(
                    f"not a Chakra {what}: {one_line(str(error))}", file=path, key=f"object {index}"
                ) from None
            message = Node()

    if first is None:
        raise InputError("the file is empty", file=path)
    return frame_records(records())


def et_to_json(data: bytes, *, file: str | Path | None = None) -> Iterator[str]:
    """Yield the JSON text of each record, GlobalMetadata first (the jsonizer's form).

    Parameters
    ----------
    data
        The uncompressed content of an ``.et`` file.

    Raises
    ------
    InputError
        The bytes are not a trace.
    """
    position = 0
    message: Any = GlobalMetadata()
    while position < len(data):
        start = position
        try:
            begin, position = record_extent(data, start)
            message.ParseFromString(data[begin:position])
            text = json_format.MessageToJson(message)
        except RawError as error:
            raise InputError(error.problem, file=file, key=error.place) from None
        except (DecodeError, ValueError):
            what = "GlobalMetadata" if start == 0 else "Node"
            raise InputError(
                f"this record is not a Chakra {what} message", file=file, key=f"byte {start}"
            ) from None
        yield text
        message = Node()
