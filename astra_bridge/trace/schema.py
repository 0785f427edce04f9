# SPDX-License-Identifier: MIT
"""Chakra's protobuf messages, built at run time in a private descriptor pool.

Generated ``_pb2`` modules are tied to the protobuf release that made them, and register their
names in a process-wide pool where they clash with Chakra's own.  Descriptors that are built here
work with every protobuf from 4.25 on, next to any other package.

Two views of the same wire format:

* `Node`, `Attribute`, `IOInfo`, `GlobalMetadata`: Chakra's schema, complete.
* `NodeRecord`, `AttributeRecord`, `MetadataRecord`: what a simulation reads and what generators
  write.  Attributes stay bytes (equal bytes are decoded and encoded once), text stays bytes, and
  everything else is skipped without being looked at.  The native reader follows this view.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "ChakraProtoMsg"

_SCALARS = [
    "double",
    "float",
    "int32",
    "int64",
    "uint32",
    "uint64",
    "sint32",
    "sint64",
    "fixed32",
    "fixed64",
    "sfixed32",
    "sfixed64",
    "bool",
    "string",
    "bytes",
]

ATTRIBUTE_FIELDS: dict[str, int] = {
    name: number
    for i, scalar in enumerate(_SCALARS)
    for name, number in ((f"{scalar}_val", 3 + 2 * i), (f"{scalar}_list", 4 + 2 * i))
}
"""Members of the oneof ``AttributeProto.value`` and their field numbers (3 to 32)."""

INT_FIELDS = frozenset(f"{s}_val" for s in _SCALARS if s.lstrip("su").startswith(("int", "fixed")))
"""The members that hold an integer; any of them serves for any integer attribute."""

_NODE = (
    "id=1:uint64 name=2:string type=3:NodeType ctrl_deps=4:uint64* data_deps=5:uint64* "
    "start_time_micros=6:uint64 duration_micros=7:uint64 inputs=8:IOInfo outputs=9:IOInfo "
    "attr=10:AttributeProto*"
)
_NODE_TYPES = [
    "INVALID_NODE",
    "METADATA_NODE",
    "MEM_LOAD_NODE",
    "MEM_STORE_NODE",
    "COMP_NODE",
    "COMM_SEND_NODE",
    "COMM_RECV_NODE",
    "COMM_COLL_NODE",
]


def _fields(message: Any, text: str, oneof: int | None = None) -> None:
    """Add ``name=number:type`` fields to a message descriptor; ``*`` marks a repeated field."""
    proto = descriptor_pb2.FieldDescriptorProto
    for item in text.split():
        name, rest = item.split("=")
        number, kind = rest.split(":")
        field = message.field.add(name=name, number=int(number))
        field.label = proto.LABEL_REPEATED if kind.endswith("*") else proto.LABEL_OPTIONAL
        kind = kind.rstrip("*")
        if kind == "uint64" and field.label == proto.LABEL_REPEATED:
            field.options.packed = True  # proto3's default
        if kind in _SCALARS:
            field.type = proto.Type.Value(f"TYPE_{kind.upper()}")
        else:
            field.type = proto.TYPE_ENUM if kind == "NodeType" else proto.TYPE_MESSAGE
            field.type_name = f".{_PACKAGE}.{kind}"
        if oneof is not None:
            field.oneof_index = oneof


def _complete() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="et_def.proto", package=_PACKAGE, syntax="proto3"
    )
    for scalar in _SCALARS:
        name = f"{scalar.capitalize()}List"
        _fields(file.message_type.add(name=name), f"values=1:{scalar}*")
    attribute = file.message_type.add(name="AttributeProto")
    _fields(attribute, "name=1:string doc_string=2:string")
    attribute.oneof_decl.add(name="value")
    for scalar in _SCALARS:
        value, values = ATTRIBUTE_FIELDS[f"{scalar}_val"], ATTRIBUTE_FIELDS[f"{scalar}_list"]
        _fields(
            attribute,
            f"{scalar}_val={value}:{scalar} {scalar}_list={values}:{scalar.capitalize()}List",
            oneof=0,
        )
    _fields(file.message_type.add(name="GlobalMetadata"), "version=1:string attr=2:AttributeProto*")
    _fields(file.message_type.add(name="IOInfo"), "values=1:string shapes=2:string types=3:string")
    _fields(file.message_type.add(name="Node"), _NODE)
    enum = file.enum_type.add(name="NodeType")
    for number, name in enumerate(_NODE_TYPES):
        enum.value.add(name=name, number=number)
    return file


def _records() -> Any:
    # proto2, because its scalar fields say whether they were present.
    file = descriptor_pb2.FileDescriptorProto(
        name="et_records.proto", package=f"{_PACKAGE}.records", syntax="proto2"
    )
    attribute = file.message_type.add(name="AttributeRecord")
    _fields(attribute, "name=1:bytes")
    attribute.oneof_decl.add(name="value")
    for name, number in ATTRIBUTE_FIELDS.items():
        scalar = name.removesuffix("_val")
        kind = scalar if scalar in _SCALARS and scalar != "string" else "bytes"
        _fields(attribute, f"{name}={number}:{'BoolList' if name == 'bool_list' else kind}", 0)
    _fields(file.message_type.add(name="MetadataRecord"), "version=1:bytes")
    _fields(
        file.message_type.add(name="NodeRecord"),
        "id=1:uint64 name=2:bytes type=3:int32 ctrl_deps=4:uint64* data_deps=5:uint64* "
        "duration_micros=7:uint64 inputs=8:bytes attr=10:bytes*",
    )
    file.dependency.append("et_def.proto")
    return file


_pool = descriptor_pool.DescriptorPool()
for _file in (_complete(), _records()):
    _pool.AddSerializedFile(_file.SerializeToString())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


GlobalMetadata = _message("GlobalMetadata")
Attribute = _message("AttributeProto")
IOInfo = _message("IOInfo")
Node = _message("Node")
MetadataRecord = _message("records.MetadataRecord")
AttributeRecord = _message("records.AttributeRecord")
NodeRecord = _message("records.NodeRecord")
