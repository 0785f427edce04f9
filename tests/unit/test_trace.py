# SPDX-License-Identifier: MIT
"""Reading and writing traces: every column, every kind of attribute, every error."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.errors import InputError
from astra_bridge.trace import (
    MISSING,
    CommType,
    NodeType,
    ProcessGroup,
    parse_trace,
    read_trace,
    read_workload,
)
from astra_bridge.trace.columns import INT_COLUMNS, TraceColumns
from astra_bridge.trace.schema import ATTRIBUTE_FIELDS
from astra_bridge.trace.writer import TraceNode, encode_trace, write_trace
from tests.trace_twins import differences, parents, use_decoder

METADATA = b"\x07\x0a\x050.0.4"  # length 7; field 1, 5 bytes: the version


@pytest.fixture(params=["python", "native"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_decoder(request.param, monkeypatch)
    return str(request.param)


def one(**node: Any) -> TraceColumns:
    """Return the columns of a trace with one COMM_COLL node."""
    return parse_trace(encode_trace([TraceNode(5, NodeType.COMM_COLL, **node)]))


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        parse_trace(data, file="some.et")
    assert str(caught.value).startswith("some.et: ")
    return str(caught.value).removeprefix("some.et: ")


def test_bytes_of_a_node_are_chakras(decoder: str) -> None:
    # Written by hand after et_def.proto: id 300, name "n", COMM_COLL, data_deps [] (packed),
    # duration 7, comm_size int64 -> two's complement varint, is_cpu_op bool.
    comm_size = b"\x0a\x09comm_size" + b"\x48\x80\x08"  # field 9 (int64_val) = 1024
    is_cpu_op = b"\x0a\x09is_cpu_op" + b"\xd8\x01\x01"  # field 27 (bool_val) = 1
    node = b"\x08\xac\x02" + b"\x12\x01n" + b"\x18\x07" + b"\x38\x07"
    for attribute in (comm_size, is_cpu_op):
        node += b"\x52" + bytes([len(attribute)]) + attribute
    data = METADATA + bytes([len(node)]) + node
    trace = parse_trace(data)
    assert len(trace) == 1
    assert trace.version == "0.0.4"
    assert (trace.node_id[0], trace.type[0], trace.duration_micros[0]) == (300, 7, 7)
    assert trace.comm_size[0] == 1024
    assert trace.is_cpu_op[0]
    assert trace.name(0) == "n"
    written = encode_trace(
        [
            TraceNode(
                300,
                NodeType.COMM_COLL,
                "n",
                duration_micros=7,
                attributes={"comm_size": 1024, "is_cpu_op": True},
            )
        ]
    )
    assert written == data


def test_absent_attributes_are_missing(decoder: str) -> None:
    trace = one()
    for name in INT_COLUMNS:
        assert getattr(trace, name)[0] == MISSING, name
    assert not trace.is_cpu_op[0]
    assert trace.pg_name[0] == trace.involved_dim[0] == -1
    assert trace.dep_start.tolist() == [0, 0]


def test_columns_have_the_documented_types(decoder: str) -> None:
    trace = one()
    expected = dict.fromkeys(INT_COLUMNS, np.int64) | {
        "node_id": np.uint64,
        "type": np.int32,
        "duration_micros": np.int64,
        "is_cpu_op": np.bool_,
        "pg_name": np.int32,
        "involved_dim": np.int32,
        "dep_start": np.int64,
        "dep": np.int32,
    }
    for name, dtype in expected.items():
        column = getattr(trace, name)
        assert column.dtype == dtype, name
        assert not column.flags.writeable, name


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int32_val", -(2**31)),
        ("int64_val", -(2**63) + 1),
        ("uint32_val", 2**32 - 1),
        ("uint64_val", 2**63 - 1),
        ("sint32_val", -(2**31)),
        ("sint64_val", -(2**63) + 1),
        ("fixed32_val", 2**32 - 1),
        ("fixed64_val", 2**63 - 1),
        ("sfixed32_val", -(2**31)),
        ("sfixed64_val", 2**63 - 1),
        ("int64_val", 0),
    ],
)
def test_any_kind_of_integer_converts(decoder: str, kind: str, value: int) -> None:
    assert one(attributes={"comm_tag": (kind, value)}).comm_tag[0] == value
    assert one(attributes={"is_cpu_op": (kind, value)}).is_cpu_op[0] == (value != 0)


def test_every_other_kind_is_refused(decoder: str) -> None:
    values: dict[str, Any] = {"bool": True, "string": "1", "bytes": b"1", "double": 1.0}
    values["float"] = 1.0
    for kind in ATTRIBUTE_FIELDS:
        scalar, suffix = kind.rsplit("_", 1)
        value = values.get(scalar, 1)
        if suffix == "val" and scalar not in values:
            continue
        node = TraceNode(
            5, NodeType.COMP, attributes={"num_ops": (kind, value if suffix == "val" else [value])}
        )
        message = refused(encode_trace([node]))
        assert message == (
            f"node 5: num_ops: a {kind} is not allowed here; it takes any kind of integer"
        )


@pytest.mark.parametrize("name", INT_COLUMNS)
def test_each_attribute_has_its_column(decoder: str, name: str) -> None:
    attribute = "root_rank" if name == "root" else name
    trace = one(attributes={attribute: 77})
    for column in INT_COLUMNS:
        assert getattr(trace, column)[0] == (77 if column == name else MISSING), column


def test_the_root_has_two_names(decoder: str) -> None:
    assert one(attributes={"comm_root": 3}).root[0] == 3


def test_repeated_attribute_the_first_one_counts(decoder: str) -> None:
    first = encode_trace([TraceNode(0, NodeType.COMP, attributes={"num_ops": 1})])
    second = encode_trace([TraceNode(0, NodeType.COMP, attributes={"num_ops": 2})])
    node = first[len(METADATA) + 1 :] + second[len(METADATA) + 1 :]
    trace = parse_trace(METADATA + bytes([len(node)]) + node)
    assert trace.num_ops[0] == 1


def test_strings_and_dimensions_are_shared(decoder: str) -> None:
    nodes = [
        TraceNode(
            i,
            NodeType.COMM_COLL,
            attributes={"pg_name": f"g{i % 2}", "involved_dim": [True] * (i % 3)},
        )
        for i in range(6)
    ]
    trace = parse_trace(encode_trace(nodes))
    assert trace.strings == ("g0", "g1")
    assert trace.pg_name.tolist() == [0, 1, 0, 1, 0, 1]
    assert trace.involved_dims == ((), (True,), (True, True))
    assert trace.involved_dim.tolist() == [0, 1, 2, 0, 1, 2]


def test_dependencies_are_merged_once_each_and_ascending(decoder: str) -> None:
    nodes = [
        TraceNode(10, NodeType.COMP),
        TraceNode(7, NodeType.COMP, data_deps=[10, 99, 10], ctrl_deps=[99, 10]),
        TraceNode(99, NodeType.COMP, ctrl_deps=[10]),
    ]
    trace = parse_trace(encode_trace(nodes))
    assert trace.node_id.tolist() == [10, 7, 99]
    assert trace.dep_start.tolist() == [0, 0, 2, 3]
    assert trace.dep.tolist() == [0, 2, 0]
    assert parents(trace, 1) == [10, 99]


def test_dependencies_may_stand_unpacked(decoder: str) -> None:
    nodes = METADATA + b"\x02\x08\x01" + b"\x06\x08\x02\x28\x01\x20\x01"
    trace = parse_trace(nodes)
    assert parents(trace, 1) == [1]


@pytest.mark.parametrize("first_id", [0, 1, 2**64 - 3])
def test_ids_use_all_64_bits(decoder: str, first_id: int) -> None:
    nodes = [
        TraceNode(first_id + i, NodeType.COMP, data_deps=[first_id + i - 1] if i else [])
        for i in range(3)
    ]
    trace = parse_trace(encode_trace(nodes))
    assert trace.dep.tolist() == [0, 1]
    nodes[0].data_deps = [first_id - 1 if first_id else 2**64 - 1]
    assert "this trace does not have" in refused(encode_trace(nodes))


def test_long_durations_saturate(decoder: str) -> None:
    trace = one(duration_micros=2**64 - 1)
    assert trace.duration_micros[0] == 2**63 - 1


def test_a_trace_may_have_no_nodes(decoder: str) -> None:
    trace = parse_trace(METADATA)
    assert len(trace) == 0
    assert trace.dep_start.tolist() == [0]
    # GlobalMetadata without any field is a record of length 0.
    assert len(parse_trace(b"\x00")) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: the file is empty"),
        (b"\x80", "byte 0: the length of the next record is truncated"),
        (b"\xff" * 11, "byte 0: the length of the next record is truncated or longer"),
        (b"\xff" * 9 + b"\x7f", "byte 0: the record that starts here is longer"),
        (b"\x08" + METADATA[1:], "byte 0: the record that starts here is longer than the rest of"),
        (b"\x02\x08\x01", "byte 0: the first record is a node; a trace starts with a GlobalMeta"),
        (b"\x01\x0a", "byte 0: the first record is not a Chakra GlobalMetadata"),
        (METADATA + b"\x02\x08\x80", "byte 8: this record is not a Chakra Node message"),
        (METADATA + b"\x05\x08\x01\x52\x01\x0a", "byte 8: this record is not a Chakra Node"),
        (METADATA + b"\x04\x08\x03\x18\x08", "node 3: unknown node type 8; allowed: 0 INVALID, 1"),
        (METADATA + b"\x00\x00", "node 0: the id is used twice, by the nodes at positions 0 and 1"),
        (
            METADATA + b"\x04\x08\x03\x28\x09",
            "node 3: data_deps: depends on node 9, which this trace does not have",
        ),
        (b"\x1f\x8b\x08damaged", "the gzip-compressed trace is damaged"),
    ],
)
def test_damaged_files_are_refused(decoder: str, data: bytes, message: str) -> None:
    assert refused(data).startswith(message)


@pytest.mark.parametrize(
    ("node_type", "attributes", "message"),
    [
        (NodeType.COMM_COLL, {"pg_name": 1}, "pg_name: a int64_val is not allowed here; it takes"),
        (NodeType.COMM_COLL, {"involved_dim": 1}, "involved_dim: a int64_val is not allowed"),
        (NodeType.COMP, {"is_cpu_op": 1.5}, "is_cpu_op: a double_val is not allowed here"),
        (NodeType.COMP, {"is_cpu_op": "1"}, "is_cpu_op: a string_val is not allowed here"),
        (
            NodeType.COMP,
            {"num_ops": 2**64 - 1},
            "num_ops: 18446744073709551615 is out of range (-2**63 + 1 to 2**63 - 1)",
        ),
        (NodeType.COMP, {"num_ops": MISSING}, f"num_ops: {MISSING} is out of range"),
        (NodeType.COMP, {"num_ops": -1}, "num_ops: -1 is negative; it must be >= 0"),
        (NodeType.COMM_SEND, {"comm_dst": -4}, "comm_dst: -4 is negative"),
        (NodeType.COMM_RECV, {"comm_src": -4}, "comm_src: -4 is negative"),
        (NodeType.COMM_COLL, {"comm_size": -5}, "comm_size: -5 is negative"),
        (NodeType.COMM_COLL, {"comm_root": -5}, "root: -5 is negative"),
        (NodeType.MEM_LOAD, {"tensor_size": -5}, "tensor_size: -5 is negative"),
    ],
)
def test_errors_name_node_and_attribute(
    decoder: str, node_type: NodeType, attributes: dict[str, Any], message: str
) -> None:
    nodes = [TraceNode(1, NodeType.COMP), TraceNode(42, node_type, attributes=attributes)]
    assert refused(encode_trace(nodes)).startswith(f"node 42: {message}")


def test_an_attribute_without_value_is_refused(decoder: str) -> None:
    node = b"\x08\x05\x52\x0b\x0a\x09comm_size"
    assert refused(METADATA + bytes([len(node)]) + node) == (
        "node 5: comm_size: the attribute has no value"
    )


def test_unknown_attributes_are_kept_for_those_who_ask(decoder: str) -> None:
    attributes: dict[str, Any] = {
        "inputs": ["w", "8", "x", "16"],
        "flops": 1.5,
        "ranks": [1, 2],
        "raw": b"\xff",
    }
    trace = one(name="op", attributes=attributes)
    assert trace.attributes(0) == attributes
    assert trace.name(0) == "op"


def test_process_groups_of_pytorch(decoder: str) -> None:
    entries = '[{"pg_name": "0", "ranks": []}, {"pg_name": "3", "ranks": [4, 2]}]'
    for text in (f"['{entries}']", f'["{entries}"]', entries):
        nodes = [
            TraceNode(0, NodeType.METADATA, inputs_values=text),
            TraceNode(1, NodeType.METADATA, inputs_values="['something else']"),
        ]
        trace = parse_trace(encode_trace(nodes))
        assert trace.process_groups == (ProcessGroup("0", ()), ProcessGroup("3", (4, 2)))


@pytest.mark.parametrize(
    "text",
    [
        '[\'[{"pg_name": "0"}]\']',
        '[\'[{"pg_name": 0, "ranks": []}]\']',
        '[\'[{"pg_name": "0", "ranks": [-1]}]\']',
        '[\'[{"pg_name": "0", "ranks": [true]}]\']',
        '[\'{"pg_name": "0"}\']',
        "pg_name",
        "pg_name" + "[" * 100_000,
    ],
)
def test_bad_process_groups_are_refused(text: str) -> None:
    message = refused(encode_trace([TraceNode(9, NodeType.METADATA, inputs_values=text)]))
    assert message.startswith("node 9: inputs.values: ")


def test_details_are_read_again_from_the_file(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "a.0.et"
    nodes = [TraceNode(i, NodeType.COMP, name=f"layer{i}") for i in range(3)]
    write_trace(path, nodes)
    trace = read_trace(path)
    assert [trace.name(i) for i in range(3)] == ["layer0", "layer1", "layer2"]
    assert trace.names()[1] == ["layer0", "layer1", "layer2"]
    write_trace(path, nodes[:1])
    assert trace.name(1) == ""
    assert (trace.names()[0].tolist(), trace.names()[1]) == ([0, 0, 0], [""])
    with pytest.raises(InputError, match="has changed since it was read"):
        trace.attributes(1)
    path.unlink()
    with pytest.raises(
        InputError, match=f"cannot read the trace again: {os.strerror(errno.ENOENT)}"
    ):
        trace.attributes(1)


def test_names_are_read_together(tmp_path: Path, decoder: str) -> None:
    texts = ["a", "", "b" * 126, "a", "c" * 20_000, "\u4f60" * 70, "b"]
    path = tmp_path / "a.0.et"
    write_trace(path, [TraceNode(i, NodeType.COMP, name=text) for i, text in enumerate(texts)])
    for trace in (read_trace(path), parse_trace(path.read_bytes())):
        which, names = trace.names()
        assert [names[at] for at in which] == texts == [one.name for one in trace.all_details()]
        assert len(names) == 6


def test_text_that_is_not_utf8(decoder: str) -> None:
    node = b"\x08\x05\x12\x01\xff"
    trace = parse_trace(METADATA + bytes([len(node)]) + node)
    assert trace.name(0) == ""
    assert trace.names()[1] == [""]
    with pytest.raises(InputError, match="not UTF-8"):
        trace.read_details(0)
    attribute = b"\x0a\x07pg_name\xea\x01\x01\xff"
    node = b"\x52" + bytes([len(attribute)]) + attribute
    assert refused(METADATA + bytes([len(node)]) + node) == "pg_name: b'\\xff' is not UTF-8"


def test_gzip_is_read_transparently(tmp_path: Path, decoder: str) -> None:
    data = encode_trace([TraceNode(1, NodeType.COMP, "n")])
    path = tmp_path / "a.0.et"
    path.write_bytes(gzip.compress(data))
    trace = read_trace(path)
    assert differences(trace, parse_trace(data)) == []
    assert trace.name(0) == "n"


def test_large_files_are_mapped(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "a.0.et"
    count = 5000
    write_trace(
        path,
        (TraceNode(i, NodeType.COMP, f"n{i}", 1, [i - 1] if i else []) for i in range(count)),
    )
    assert path.stat().st_size > 1 << 16
    trace = read_trace(path)
    assert len(trace) == count
    assert trace.dep.tolist() == list(range(count - 1))
    assert trace.name(count - 1) == f"n{count - 1}"


def test_equal_files_are_read_once(tmp_path: Path) -> None:
    def write(rank: int, size: int) -> None:
        node = TraceNode(
            0,
            NodeType.COMM_COLL,
            attributes={"comm_type": int(CommType.BARRIER), "comm_size": size},
        )
        write_trace(tmp_path / f"w.{rank}.et", [node])

    for rank, size in enumerate([8, 9, 8, 9]):
        write(rank, size)
    os.link(tmp_path / "w.1.et", tmp_path / "w.4.et")
    (tmp_path / "w.5.et").symlink_to("w.0.et")
    workload = read_workload(tmp_path / "w", 6)
    assert workload.ranks == 6
    assert workload.rank_to_columns.tolist() == [0, 1, 0, 1, 1, 0]
    assert [trace.comm_size[0] for trace in workload.columns] == [8, 9]
    assert workload.of_rank(4) is workload.columns[1]
    assert workload.columns[0].file == tmp_path / "w.0.et"


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    for rank in (0, 1, 3):
        write_trace(tmp_path / f"w.{rank}.et", [TraceNode(0, NodeType.COMP)])
    with pytest.raises(InputError, match=r"w\.2\.et: no trace for rank 2 .*; 3 of 4 ranks have"):
        read_workload(tmp_path / "w", 4)
    with pytest.raises(InputError, match=r"v\.0\.et: no trace for rank 0 .*; 0 of 4 .*folder: w$"):
        read_workload(tmp_path / "v", 4)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_unreadable_files_are_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.0.et")
    with pytest.raises(InputError, match=r"a\.0\.et: (not a regular file|cannot read: )"):
        read_trace(tmp_path / "a.0.et")
    with pytest.raises(InputError, match=r"a\.0\.et"):
        read_workload(tmp_path / "a", 1)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (TraceNode(-1, NodeType.COMP), "node -1: "),
        (TraceNode(0, NodeType.COMP, duration_micros=2**64), "node 0: "),
        (TraceNode(0, NodeType.COMP, data_deps=[-1]), "node 0: "),
        (TraceNode(0, NodeType.COMP, attributes={"a": 2**64}), "node 0: a: "),
        (TraceNode(0, NodeType.COMP, attributes={"a": ("int32_val", 2**31)}), "node 0: a: "),
        (TraceNode(0, NodeType.COMP, attributes={"a": ("int32_val", "x")}), "node 0: a: "),
        (TraceNode(0, NodeType.COMP, attributes={"a": None}), "node 0: a: "),  # type: ignore[dict-item]
        (TraceNode(0, NodeType.COMP, name="\ud800"), "node 0: "),
    ],
)
def test_the_writer_refuses_what_does_not_fit(node: TraceNode, message: str) -> None:
    with pytest.raises(InputError) as caught:
        encode_trace([node])
    assert str(caught.value).startswith(message)


def test_no_name_is_registered_in_the_process_wide_pool() -> None:
    # Chakra's own generated code would clash with it.
    from google.protobuf import descriptor_pool

    parse_trace(encode_trace([TraceNode(0, NodeType.COMP)])).name(0)
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("ChakraProtoMsg.Node")
