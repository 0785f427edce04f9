# SPDX-License-Identifier: MIT
"""Whatever a file holds, its reader parses it or raises InputError."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge.errors import InputError
from astra_bridge.inputs.custom import read_per_node_custom
from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.inputs.memory import read_remote_memory
from astra_bridge.inputs.network import read_network
from astra_bridge.inputs.system import read_system
from astra_bridge.trace import read_trace
from tests.effort import examples

# A longer run: ASTRA_BRIDGE_FUZZ=100 python -m pytest tests/faults/test_input_fuzz.py
FUZZ = settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SYSTEM = {
    "scheduling-policy": "LIFO",
    "endpoint-delay": 10,
    "preferred-dataset-splits": 4,
    "all-reduce-implementation": ["ring", "direct4"],
    "all-to-all-implementation-custom": ["prefix"],
    "roofline-enabled": 0,
    "local-mem-bw": 1600,
    "systolic-array": {"rows": 8, "frequency-GHz": 1.5},
}
DIMS = {
    "topology": ["Ring", "Switch"],
    "npus_count": [4, 2],
    "bandwidth": [50, 25],
    "latency": [5, 7],
}
LINKS = {
    "endpoints": 2,
    "switches": 1,
    "dims": [2],
    "links": [
        {"src": 0, "dst": 2, "bandwidth": 50, "latency": 5},
        {"src": 1, "dst": 2, "bandwidth": "1GB/s", "latency": "1us", "bidirectional": True},
    ],
}
MEMORY = {
    "memory-type": "PER_NODE_MEMORY_EXPANSION",
    "remote-mem-latency": 10,
    "remote-mem-bw": 5,
    "num-nodes": 2,
    "num-npus-per-node": 1,
}
READERS: dict[str, tuple[Callable[[Any], object], Any]] = {
    "system": (read_system, SYSTEM),
    "dims": (read_network, DIMS),
    "links": (read_network, LINKS),
    "memory": (read_remote_memory, MEMORY),
    "groups": (lambda source: read_comm_groups(source, 4), {"1": [0, 1], "2": [2, 3]}),
    "per-node": (read_per_node_custom, {1: "prefix", 2: "other"}),
}

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["ring", "direct9", "LIFO", "Ring", "1e3", "5us", "NO_MEMORY_EXPANSION"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=6) | st.integers(0, 3), inner, max_size=4)
    ),
    max_leaves=6,
)


def attempt(read: Callable[[Any], object], source: object) -> None:
    message = "read"
    try:
        read(source)
    except InputError as error:
        message = str(error)
    assert 0 < len(message) < 2000


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A copy of ``value`` with some parts replaced, removed or renamed."""
    if isinstance(value, dict) and draw(st.integers(0, 3)):
        result = {}
        for key, item in value.items():
            action = draw(st.integers(0, 9))
            if action == 0:
                continue
            name = draw(st.text(max_size=6)) if action == 1 else key
            result[name] = draw(mutated(item))
        return result
    if isinstance(value, list) and draw(st.integers(0, 3)):
        items = [draw(mutated(item)) for item in value]
        return items + draw(st.lists(VALUES, max_size=1))
    return draw(VALUES) if draw(st.integers(0, 5)) == 0 else value


@pytest.mark.parametrize("name", READERS)
@FUZZ
@given(data=st.data())
def test_mutated_content(name: str, data: st.DataObject) -> None:
    read, good = READERS[name]
    read(good)
    content = data.draw(mutated(good))
    if isinstance(content, dict):  # else it is not content; files are tested below
        attempt(read, content)


@pytest.mark.parametrize("name", READERS)
@FUZZ
@given(data=st.data())
def test_mutated_files(name: str, data: st.DataObject, tmp_path: Path) -> None:
    read, good = READERS[name]
    text = bytearray(json.dumps(good, indent=data.draw(st.sampled_from([None, 1]))).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text)))
        action = data.draw(st.integers(0, 2))
        piece = data.draw(st.binary(min_size=1, max_size=3) | st.sampled_from(
            [b"[", b"{", b"&a", b"*a", b"!!int ", b"!!bool ", b"- ", b"\n", b": ", b"1e400", b"?"]
        ))  # fmt: skip
        if action == 0:
            text[at:at] = piece
        elif action == 1:
            text[at : at + len(piece)] = piece
        else:
            del text[at : at + data.draw(st.integers(1, 20))]
    file = tmp_path / "input"
    file.write_bytes(text)
    attempt(read, file)


@pytest.mark.parametrize("name", READERS)
@FUZZ
@given(content=st.binary(max_size=200))
def test_random_bytes(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(content)
    attempt(READERS[name][0], file)


@pytest.mark.parametrize("name", READERS)
@FUZZ
@given(content=VALUES)
def test_random_json(name: str, content: Any, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text(json.dumps(content), encoding="utf-8")
    attempt(READERS[name][0], file)


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="no such file of the kernel here")
@pytest.mark.parametrize("read", [read_network, read_system, read_trace])
def test_a_file_of_the_system_that_never_ends(read: Callable[[str], object]) -> None:
    """It calls itself a regular file, and waits for the kernel to say more."""
    with pytest.raises(InputError):
        read("/proc/kmsg")


def test_lone_surrogates_from_python() -> None:
    for raw in ({"local-mem-trace-filename": "\ud800"}, {"L": "\ud800"}, {"\ud800": 1}):
        with pytest.raises(InputError):
            read_system(raw)
