# SPDX-License-Identifier: MIT
"""Numbers in inputs: refused at once where they fit nowhere, with file and key, never wrapped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge.cli import main
from astra_bridge.errors import InputError
from astra_bridge.inputs.custom import read_per_node_custom
from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.inputs.memory import read_remote_memory
from astra_bridge.inputs.network import read_network
from astra_bridge.inputs.system import read_system
from astra_bridge.network.garnet.reader import read_garnet
from astra_bridge.network.garnet.replay import read_messages
from astra_bridge.network.ns3.config import read_ns3_config
from astra_bridge.network.ns3.topologies import read_logical_topology, read_physical_topology
from astra_bridge.trace import reader
from astra_bridge.trace.columns import NodeType
from astra_bridge.trace.reader import native_available, parse_trace, read_trace
from astra_bridge.trace.writer import TraceNode, encode_trace
from astra_bridge.units import (
    INT64_MAX,
    checked_int64,
    parse_rate_Bps,
    parse_size_bytes,
    parse_time_ps,
    time_ps,
)
from tests.effort import examples

BOMBS = [
    "1e99999999", "1e-99999999", "-1e99999999", "9" * 6000, "-" + "9" * 6000, "0." + "9" * 6000,
    "0x" + "f" * 6000, "0b" + "1" * 6000, "1" + ":59" * 3000, "1" + ":59" * 3000 + ".5",
    "1e" + "9" * 500, "1_000" * 2000, "0" * 6000 + "8", "1e400", ".inf", ".nan", "-.inf", "0o777",
    "٣", "²", "1e5e5", "--5", "0x", "1.5.5", "9" * 400, "9" * 18, "1e18", "9223372036854775808",
]  # fmt: skip
FEW_S = 10.0
"""Of processor time; none takes a hundredth of it where all is well, and some took minutes."""


def refused(call: Callable[[], object], file: Path) -> None:
    """An answer or an error that names the file and is short; at once."""
    began_s = time.process_time()
    try:
        call()
    except InputError as error:
        caught = error
    else:
        caught = None
    assert time.process_time() - began_s < FEW_S
    if caught is not None:
        assert str(file) in str(caught)
        assert len(str(caught)) < len(str(file)) + 1300


YAML = [
    (read_network, "topology: [Ring]\nnpus_count: [{}]\nbandwidth: [50]\nlatency: [5]\n"),
    (read_network, "topology: [Ring]\nnpus_count: [8]\nbandwidth: [{}]\nlatency: [5]\n"),
    (read_network, "topology: [Ring]\nnpus_count: [8]\nbandwidth: [{}Gbps]\nlatency: [5]\n"),
    (read_network, "topology: [Ring]\nnpus_count: [8]\nbandwidth: [50]\nlatency: [{}]\n"),
    (read_network, "topology: [Ring]\nnpus_count: [8]\nbandwidth: [50]\nlatency: [{}ms]\n"),
    (read_network, "endpoints: {}\nlinks: []\n"),
    (read_network, "endpoints: 2\nlinks: [{{src: 0, dst: {}, bandwidth: 1, latency: 1}}]\n"),
    (read_network, "endpoints: 2\nlinks: [{{src: 0, dst: 1, bandwidth: 1, latency: 1, loss: {}}}]"),
    (read_garnet, "topology: mesh {}x2\n"),
    (read_garnet, "topology: mesh 2x2\nflit_bytes: {}\n"),
    (read_garnet, "topology: mesh 2x2\nclock_GHz: {}\n"),
    (read_per_node_custom, "{}: prefix\n"),
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:12])
def test_yaml(bomb: str, tmp_path: Path) -> None:
    for at, (read, text) in enumerate(YAML):
        file = tmp_path / f"{at}.yml"
        file.write_text(text.format(bomb))
        refused(lambda read=read, file=file: read(file), file)


JSON = [
    (read_system, '{{"endpoint-delay": {}}}'),
    (read_system, '{{"G": {}}}'),
    (read_system, '{{"preferred-dataset-splits": {}}}'),
    (read_system, '{{"roofline-enabled": {}}}'),
    (read_system, '{{"systolic-array": {{"rows": {}}}}}'),
    (read_remote_memory, '{{"memory-type": "MEMORY_POOL", "remote-mem-bw": {}}}'),
    (read_remote_memory, '{{"memory-type": "MEMORY_POOL", "remote-mem-latency": {}}}'),
    (read_comm_groups, '{{"1": [{}]}}'),
    (read_comm_groups, '{{"{}": [1]}}'),
    (lambda file: read_logical_topology(file, 8), '{{"logical-dims": ["{}"]}}'),
    (lambda file: read_logical_topology(file, 8), '{{"logical-dims": [{}]}}'),
    (read_messages, '{{"network": {{"topology": "mesh 2x2"}}, "messages": [{}]}}'),
    (read_trace, '{{"workload_graph": [{{"Id": {}, "NodeType": 4, "runtime": 1}}]}}'),
    (read_trace, '{{"workload_graph": [{{"Id": 0, "NodeType": 4, "runtime": {}}}]}}'),
    (read_trace, '{{"version": "1"}}\n{{"id": "{}", "type": "COMP_NODE"}}'),
    (read_trace, '{{"version": "1"}}\n{{"id": "1", "type": {}}}'),
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:12])
def test_json(bomb: str, tmp_path: Path) -> None:
    for at, (read, text) in enumerate(JSON):
        file = tmp_path / f"{at}.json"
        file.write_text(text.format(bomb), encoding="utf-8")
        refused(lambda read=read, file=file: read(file), file)


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:12])
def test_files_of_ns3(bomb: str, tmp_path: Path) -> None:
    for at, text in enumerate(
        ("{} 1 1\n1\n0 1 400Gbps 1us 0\n", "2 1 1\n1\n0 1 {}Gbps 1us 0\n",
         "2 1 1\n1\n0 1 400Gbps {}s 0\n", "2 1 1\n1\n0 1 400Gbps 1us {}\n")
    ):  # fmt: skip
        file = tmp_path / f"{at}.txt"
        file.write_text(text.format(bomb), encoding="utf-8")
        refused(lambda file=file: read_physical_topology(file), file)
    for key in ("PACKET_PAYLOAD_SIZE", "CC_MODE", "SIMULATOR_STOP_TIME", "EWMA_GAIN"):
        file = tmp_path / f"{key}.txt"
        file.write_text(f"{key} {bomb}\n", encoding="utf-8")
        refused(lambda file=file: read_ns3_config(file), file)


@pytest.mark.parametrize("flag", ["num-queues-per-dim", "injection-scale", "comm-scale"])
def test_flags(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    for bomb in BOMBS:
        began_s = time.process_time()
        code = main(["run", f"--{flag}={bomb}"])
        assert code == 2
        assert time.process_time() - began_s < FEW_S
        assert len(capsys.readouterr().err) < 1300


def test_the_key_and_a_short_value_are_named(tmp_path: Path) -> None:
    file = tmp_path / "n.yml"
    file.write_text(YAML[1][1].format("0x" + "f" * 6000))
    with pytest.raises(InputError, match=r"bandwidth\[0\]: .*\.\.\..* is not allowed") as caught:
        read_network(file)
    assert caught.value.key == "bandwidth[0]"


@pytest.mark.parametrize("parse", [parse_time_ps, parse_size_bytes, parse_rate_Bps])
@given(
    number=st.one_of(
        st.from_regex(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,8})?", fullmatch=True),
        st.text(max_size=20),
    ),
    unit=st.sampled_from(["", "s", "ps", "ns", "B", "KiB", "TB", "Gbps", "B/s", "x", " ms"]),
)
@settings(max_examples=examples(150), deadline=None)
def test_any_text_of_a_quantity(parse: Callable[[str], Any], number: str, unit: str) -> None:
    try:
        value = parse(number + unit)
    except InputError as error:
        refusal = str(error)
    else:
        assert 0 <= value <= INT64_MAX or isinstance(value, float)
        if unit == "ps":
            assert abs(value - Fraction(number)) <= Fraction(1, 2)
        return
    assert len(refusal) < 500


@given(
    value=st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.fractions()),
    mode=st.sampled_from(["error", "floor", "ceil", "nearest"]),
)
def test_the_one_conversion(value: Any, mode: Any) -> None:
    try:
        whole = checked_int64(value, "size [bytes]", round_mode=mode)
    except InputError as error:
        refusal = str(error)
    else:
        assert type(whole) is int
        assert 0 <= whole <= INT64_MAX
        assert abs(Fraction(whole) - Fraction(value)) < 1
        assert mode != "error" or whole == value
        return
    assert refusal.startswith("size [bytes]: ")
    finite = not isinstance(value, float) or math.isfinite(value)
    assert not (finite and 0 <= value <= 2**62 and (mode != "error" or value == int(value)))


def test_what_overflows_says_which_quantity() -> None:
    with pytest.raises(InputError, match=r"time of 9300000 s in ps: .* is out of range"):
        time_ps(9_300_000, "s")
    with pytest.raises(InputError, match=r"size '8388608TiB' in bytes: .* is out of range"):
        parse_size_bytes("8388608TiB")


@pytest.mark.skipif(not native_available(), reason="the native decoder is not built")
@given(
    attribute=st.sampled_from(
        ["comm_size", "comm_src", "comm_tag", "num_ops", "tensor_size", "comm_type", "root_rank"]
    ),
    value=st.one_of(st.integers(-(2**63), 2**64 - 1), st.sampled_from([2**63 - 1, -(2**63), 0])),
    duration=st.integers(0, 2**64 - 1),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_decoders_read_the_same_numbers(attribute: str, value: int, duration: int) -> None:
    try:
        data = encode_trace(
            [TraceNode(1, NodeType.METADATA, "n", duration, attributes={attribute: value})]
        )
    except InputError:
        return  # the field cannot hold it
    answers = []
    native = reader._native
    try:
        for decoder in (native, None):
            reader._native = decoder
            try:
                columns = parse_trace(data)
                answers.append((columns.duration_micros.tolist(), str(columns.comm_size)))
            except InputError as error:
                answers.append(str(error))
    finally:
        reader._native = native
    assert answers[0] == answers[1]


REPEATED = [
    (read_system, '{"endpoint-delay": 1, "L": 2, "endpoint-delay": 2}', "endpoint-delay"),
    (read_system, '{"systolic-array": {"rows": 1, "rows": 1}}', "rows"),
    (read_remote_memory, '{"memory-type": "MEMORY_POOL", "memory-type": "MEMORY_POOL"}',
     "memory-type"),
    (read_comm_groups, '{"1": [0], "1": [1]}', "1"),
    (lambda file: read_logical_topology(file, 8), '{"logical-dims": [8], "logical-dims": [8]}',
     "logical-dims"),
    (read_messages, '{"messages": [], "messages": []}', "messages"),
    (read_trace, '{"workload_graph": [{"Id": 0, "Id": 1, "NodeType": 4}]}', "Id"),
    (read_trace, '{"version": "1"}\n{"id": 1, "id": 2, "type": 4}', "id"),
]  # fmt: skip


@pytest.mark.parametrize(("read", "text", "key"), REPEATED)
def test_a_repeated_key_is_refused(
    read: Callable[[Path], object], text: str, key: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    assert all(json.loads(line) for line in text.splitlines())  # it is JSON
    with pytest.raises(InputError, match="given twice") as caught:
        read(file)
    assert (caught.value.file, caught.value.key) == (str(file), key)
