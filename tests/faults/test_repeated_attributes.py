# SPDX-License-Identifier: MIT
"""What stands twice in a trace: of attributes the first counts, of fields the last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from astra_bridge import simulate
from astra_bridge.errors import InputError
from astra_bridge.results import Result
from astra_bridge.trace import NodeType, TraceColumns, Workload
from astra_bridge.trace.reader import parse_trace
from astra_bridge.trace.schema import GlobalMetadata, Node
from astra_bridge.trace.writer import TraceNode, encode_trace, frame_records
from tests.small import network, system
from tests.trace_twins import use_decoder


@pytest.fixture(params=["python", "native"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_decoder(request.param, monkeypatch)


def bytes_of(*attributes: tuple[str, str, Any], after: bytes = b"", node_id: int = 0) -> bytes:
    """A trace of one collective with these attributes, and ``after`` at the end of its record."""
    node = Node(id=node_id, type=NodeType.COMM_COLL)
    for name, field, value in attributes:
        attribute = node.attr.add(name=name)
        if field.endswith("_list"):
            getattr(attribute, field).values.extend(value)
        elif field:
            setattr(attribute, field, value)
    metadata = GlobalMetadata(version="0.0.4").SerializeToString()
    return frame_records([metadata, node.SerializeToString() + after])


def run(columns: TraceColumns, ranks: int, **arguments: Any) -> Result:
    small = system(preferred_dataset_splits=1)
    workload = Workload((columns,), np.zeros(ranks, np.int32))
    return simulate(workload, small, network(npus=ranks), backend="analytical-unaware", **arguments)


@pytest.mark.usefixtures("decoder")
def test_the_first_attribute_counts() -> None:
    columns = parse_trace(
        bytes_of(
            ("is_cpu_op", "bool_val", False),
            ("comm_type", "int64_val", 0),
            ("comm_size", "int64_val", 1000),
            ("comm_size", "int64_val", 1_000_000),
            ("comm_type", "int64_val", 2),
            ("is_cpu_op", "bool_val", True),
            ("involved_dim", "bool_list", [True]),
            ("involved_dim", "bool_list", [False]),
        )
    )
    assert columns.comm_size.tolist() == [1000]
    assert columns.comm_type.tolist() == [0]
    assert columns.is_cpu_op.tolist() == [False]
    assert columns.involved_dims[columns.involved_dim[0]] == (True,)
    assert columns.attributes(0)["comm_size"] == 1000
    # ASTRA-sim's own answer.
    assert run(columns, 4).finish_ns.tolist() == [3139] * 4


@pytest.mark.usefixtures("decoder")
def test_what_does_not_count_may_be_of_any_kind() -> None:
    columns = parse_trace(
        bytes_of(
            ("pg_name", "string_val", "1"),
            ("comm_size", "uint64_val", 7),
            ("pg_name", "int64_val", 2),
            ("comm_size", "string_val", "much"),
            ("comm_size", "", None),
        )
    )
    assert columns.comm_size.tolist() == [7]
    assert columns.strings[columns.pg_name[0]] == "1"
    with pytest.raises(InputError, match="comm_size: a string_val is not allowed here"):
        parse_trace(bytes_of(("comm_size", "string_val", "much"), ("comm_size", "int64_val", 7)))


@pytest.mark.usefixtures("decoder")
def test_every_node_begins_anew() -> None:
    nodes = [
        TraceNode(i, NodeType.COMM_COLL, attributes={"comm_size": size})
        for i, size in enumerate([5, 6, 5, 6])
    ]
    assert parse_trace(encode_trace(nodes)).comm_size.tolist() == [5, 6, 5, 6]


@pytest.mark.usefixtures("decoder")
def test_of_a_field_the_last_counts() -> None:
    """As protobuf says: the node's id, and the name and the value of an attribute."""
    twice = b"\x0a\x01x\x0a\x09comm_size\x48\x05\x48\x09"  # name, name, int64_val, int64_val
    after = b"\x08\x07\x52" + bytes([len(twice)]) + twice
    columns = parse_trace(bytes_of(after=after, node_id=3))
    assert columns.node_id.tolist() == [7]
    assert columns.comm_size.tolist() == [9]


def declaring(text: str, pg_name: str = "0") -> TraceColumns:
    """An all-reduce in a group, after a METADATA node that declares groups."""
    collective = {"comm_type": 0, "comm_size": 4096, "pg_name": pg_name}
    return parse_trace(
        encode_trace(
            [
                TraceNode(1, NodeType.METADATA, inputs_values=text),
                TraceNode(2, NodeType.COMM_COLL, data_deps=[1], attributes=collective),
            ]
        )
    )


@pytest.mark.parametrize(
    "text",
    [
        '[{"pg_name": "0", "ranks": [0], "ranks": [0, 1]}]',
        '[\'[{"pg_name": "0", "pg_name": "1", "ranks": [0, 1]}]\']',
        '["[{\\"pg_name\\": \\"0\\", \\"ranks\\": [0], \\"ranks\\": [0, 1]}]"]',
    ],
)
def test_a_repeated_key_of_a_process_group_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"node 1: inputs.values: .*given twice"):
        declaring(text)


def test_a_declared_group_0_is_the_ranks_that_it_names() -> None:
    """It used to be all ranks, whatever the trace said."""
    part = declaring('[{"pg_name": "0", "ranks": [0, 1]}]')
    same = declaring('[{"pg_name": "5", "ranks": [0, 1]}]', "5")
    idle = parse_trace(encode_trace([TraceNode(0, NodeType.COMP, duration_micros=1)]))
    times = []
    for columns in (part, same):
        workload = Workload((columns, idle), np.array([0, 0, 1, 1], np.int32))
        result = simulate(workload, system(), network(npus=4), backend="analytical-unaware")
        times.append(result.finish_ns.tolist())
    assert times[0] == times[1]
    assert times[0][2:] == [1000, 1000]
    with pytest.raises(InputError, match="rank 2 runs this trace, but is not a member"):
        run(part, 4)


@pytest.mark.parametrize("ranks", ["[]", "[0, 1, 2, 3]", "[3, 1, 2, 0]"])
def test_a_declared_group_0_of_all_ranks_is_all_ranks(ranks: str) -> None:
    declared = run(declaring(f'[{{"pg_name": "0", "ranks": {ranks}}}]'), 4)
    assert declared.finish_ns.tolist() == run(declaring("", ""), 4).finish_ns.tolist()


@pytest.mark.usefixtures("decoder")
def test_empty_records_are_node_0_however_their_length_is_written() -> None:
    metadata = GlobalMetadata(version="0.0.4").SerializeToString()
    three = frame_records([metadata]) + b"\0" + b"\x80\x80\x00" + b"\0"
    with pytest.raises(InputError, match="positions 0 and 1"):
        parse_trace(three)
