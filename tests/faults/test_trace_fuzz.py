# SPDX-License-Identifier: MIT
"""Whatever bytes a trace holds: both decoders agree, and only InputError comes out.

Longer runs: ``ASTRA_BRIDGE_FUZZ=100 python -m pytest tests/faults/test_trace_fuzz.py``, and
``python -m tests.fuzz_trace --minutes 10``.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf import __version__ as protobuf_version
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge.errors import InputError
from astra_bridge.trace.columns import NodeType, TraceColumns
from astra_bridge.trace.json import et_to_json, json_to_et
from astra_bridge.trace.raw import ATTRIBUTES, RawTrace
from astra_bridge.trace.reader import parse_trace
from astra_bridge.trace.schema import ATTRIBUTE_FIELDS
from astra_bridge.trace.writer import TraceNode, encode_trace
from astra_bridge.workload.astra1 import import_text
from tests.effort import FACTOR, examples
from tests.fuzz_trace import (
    SEEDS,
    build_sanitized,
    disagreement,
    mutation,
    outcome,
    run_sanitized,
)
from tests.trace_twins import differences, native_decoder


def fuzz(most: int) -> settings:
    return settings(
        max_examples=examples(most),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "string": st.text(max_size=6),
    "bytes": st.binary(max_size=6),
    "double": st.floats(),
    "float": st.floats(width=32),
}
for _bits in (32, 64):
    for _signed in ("int", "sint", "sfixed"):
        _SCALARS[f"{_signed}{_bits}"] = st.integers(-(2 ** (_bits - 1)), 2 ** (_bits - 1) - 1)
    for _unsigned in ("uint", "fixed"):
        _SCALARS[f"{_unsigned}{_bits}"] = st.integers(0, 2**_bits - 1)


@st.composite
def attribute_values(draw: st.DrawFn) -> tuple[str, Any]:
    kind = draw(st.sampled_from(sorted(ATTRIBUTE_FIELDS)))
    scalar, suffix = kind.rsplit("_", 1)
    strategy = _SCALARS[scalar]
    return kind, draw(strategy if suffix == "val" else st.lists(strategy, max_size=4))


# What the readers accept, so that whole traces are accepted often enough to be compared.
VALID_ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        name.decode(): st.integers(0, 2**40)
        if slot < 12
        else {12: st.booleans(), 13: st.text(max_size=3), 14: st.lists(st.booleans(), max_size=4)}[
            slot
        ]
        for name, slot in ATTRIBUTES.items()
    },
)
ANY_ATTRIBUTES = st.dictionaries(
    st.sampled_from([name.decode() for name in ATTRIBUTES]) | st.text(max_size=4),
    attribute_values(),
    max_size=4,
)


@st.composite
def traces(draw: st.DrawFn, attributes: st.SearchStrategy[Any]) -> bytes:
    ids = draw(st.lists(st.integers(0, 20) | st.integers(0, 2**64 - 1), unique=True, max_size=6))
    parents = st.lists(st.sampled_from(ids), max_size=4) if ids else st.just([])
    nodes = [
        TraceNode(
            node_id,
            draw(st.sampled_from(NodeType)),
            draw(st.text(max_size=4)),
            draw(st.integers(0, 5) | st.integers(0, 2**64 - 1)),
            draw(parents),
            draw(parents),
            draw(attributes),
        )
        for node_id in ids
    ]
    return encode_trace(nodes, version=draw(st.text(max_size=5)))


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.integers(0, 4))
        if how == 0:
            del data[at:]
        elif how == 1:
            del data[at : at + draw(st.integers(1, 8))]
        elif how == 2:
            data[at:at] = draw(st.binary(max_size=4))
        elif how == 3:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        else:
            data[at:at] = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


BYTES = st.one_of(
    st.binary(max_size=80),
    traces(VALID_ATTRIBUTES),
    traces(ANY_ATTRIBUTES),
    mutated(traces(VALID_ATTRIBUTES)),
    mutated(traces(ANY_ATTRIBUTES)),
)


@fuzz(200)
@given(data=BYTES)
def test_both_decoders_agree(data: bytes) -> None:
    assert disagreement(native_decoder(), data) is None


@pytest.mark.slow
def test_both_decoders_agree_on_many_mutations() -> None:
    """Hypothesis finds what is rare; this is for bulk."""
    native = native_decoder()
    random = Random(7)
    accepted = 0
    for _ in range(10_000 * FACTOR):
        data = mutation(random, SEEDS)
        found = disagreement(native, data)
        assert found is None, f"{found}: {data.hex()}"
        accepted += isinstance(outcome(native, data), RawTrace)
    assert accepted > 1000  # the comparison of columns was exercised too


@pytest.mark.parametrize(
    "content",
    [
        b"\x33\x34",  # a group: field 6 starts and ends
        b"\x33\x3b\x3c\x34",  # one in another
        b"\x33",
        b"\x34",
        b"\x33\x3c",
        b"\x33" * 100 + b"\x34" * 100,
        b"\x33" * 101 + b"\x34" * 101,
        b"\x33\x0e\x34",  # wire type 6
        pytest.param(
            b"\x33\x00\x01\x34",  # field 0; found by a long run of fuzzing
            marks=pytest.mark.skipif(
                int(protobuf_version.split(".")[0]) < 7, reason="protobuf 7 accepts it in a group"
            ),
        ),
    ],
)
def test_both_decoders_agree_on_groups(content: bytes) -> None:
    record = bytes([0x80 | len(content) & 0x7F, len(content) >> 7]) + content
    for data in (record, b"\x00" + record):
        assert disagreement(native_decoder(), data) is None


@pytest.mark.slow
def test_native_decoder_under_sanitizers(tmp_path: Path) -> None:
    program = build_sanitized(tmp_path)
    if program is None:
        pytest.skip("no C++ compiler with AddressSanitizer and UndefinedBehaviorSanitizer")
    run_sanitized(program, SEEDS, inputs=20_000 * FACTOR, seed=1)


def check(trace: TraceColumns) -> None:
    """Whatever was accepted can be looked at, and holds together."""
    n = len(trace)
    assert trace.dep_start[0] == 0
    assert trace.dep_start[n] == len(trace.dep)
    assert ((trace.dep >= 0) & (trace.dep < n)).all()
    assert len(set(trace.node_id.tolist())) == n
    assert (trace.pg_name < len(trace.strings)).all()
    assert (trace.involved_dim < len(trace.involved_dims)).all()
    for i in range(n):
        trace.name(i)


@fuzz(100)
@given(data=BYTES)
def test_a_trace_parses_or_is_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        check(parse_trace(data))


@fuzz(60)
@given(data=traces(VALID_ATTRIBUTES))
def test_valid_traces_survive_json_and_gzip(data: bytes) -> None:
    trace = parse_trace(data)
    check(trace)
    text = "".join(et_to_json(data)).encode()
    for other in (parse_trace(json_to_et(text)), parse_trace(gzip.compress(data))):
        assert differences(trace, other) == []
        assert [trace.read_details(i) for i in range(len(trace))] == [
            other.read_details(i) for i in range(len(other))
        ]


FEEDER_JSON = json.dumps(
    {
        "workload_graph": [
            {"Id": 1, "Name": "a", "NodeType": 4, "runtime": 5, "is_cpu_op": False},
            {"Id": 2, "Name": "b", "NodeType": 7, "data_deps": [1], "comm_size": 64},
        ]
    }
).encode()
PROTO_JSON = "".join(
    et_to_json(encode_trace([TraceNode(1, NodeType.COMP, "a", attributes={"num_ops": 3})]))
).encode()


@fuzz(200)
@given(data=mutated(st.sampled_from([FEEDER_JSON, PROTO_JSON])) | st.binary(max_size=40))
def test_json_parses_or_is_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        check(parse_trace(json_to_et(data)))


@fuzz(50)
@given(data=mutated(st.just(gzip.compress(encode_trace([TraceNode(1, NodeType.COMP)])))))
def test_compressed_traces_parse_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        check(parse_trace(data))


TEXT = b"""HYBRID_DLRM 1
3
embedding -1 5 ALLTOALL 64 5 ALLTOALL 64 5 NONE 0 1
bottom -1 5 NONE 0 5 NONE 0 5 ALLREDUCE 64 1
top -1 5 NONE 0 5 NONE 0 5 ALLREDUCE 64 1
"""


@fuzz(100)
@given(data=mutated(st.just(TEXT)) | st.binary(max_size=40))
def test_text_workloads_parse_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "workload.txt"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        check(import_text(path, 2).workload().columns[0])
