# SPDX-License-Identifier: MIT
"""Nothing that a child can send is more than an error to its parent."""

from __future__ import annotations

import json
import struct
import zlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge import supervision
from astra_bridge.errors import AstraBridgeError, BackendError, InputError
from astra_bridge.inputs.memory import read_remote_memory
from astra_bridge.inputs.system import read_system
from astra_bridge.isolation import _read
from astra_bridge.lowering import lower
from astra_bridge.program import WAIT, Program
from astra_bridge.supervision import NONSENSE, Child, ChildEnded, Message, ask, received
from astra_bridge.trace import CommType
from tests.effort import examples
from tests.small import same_on_all, system
from tests.waiting import HANGS_S

pytestmark = pytest.mark.usefixtures("every_kind_of_child")

RANKS = 4
CHILDREN = "tests.faults.children"


@pytest.fixture(autouse=True)
def with_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find theirs, which stands in the working directory."""
    path = [str(Path(__file__).parents[2]), *supervision.safe_path()]
    monkeypatch.setattr(supervision, "safe_path", lambda: path)


def frame(head: bytes, body: bytes = b"", **wrong: Any) -> bytes:
    checksum = wrong.get("checksum", zlib.crc32(head + body))
    sizes = (wrong.get("head_size", len(head)), wrong.get("body_size", len(body)))
    return b"token" + struct.pack("<IQI", *sizes, checksum) + head + body


# The frame's own packing has no gaps, so that "token" can stand for its eight bytes.
assert supervision._FRAME.size == 8 + struct.calcsize("<IQI")


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_a_message_crosses(size: int) -> None:
    content = np.random.default_rng(1).bytes(size)
    with Child(f"{CHILDREN}:echo", content, most_body=size) as child:
        message = child.receive(HANGS_S)
        assert message == Message("echo", {"length": size}, content)
        with pytest.raises(ChildEnded, match="ended with exit code 0"):
            child.receive(HANGS_S)


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage garbage garbage garbage",
        b"\xff" * 64,
        frame(b"not json"),
        frame(b"[]"),
        frame(b"{}"),
        frame(b'{"kind": 3}'),
        frame(b'{"kind": "x"}', checksum=1),
        frame(b'{"kind": "x"}', body_size=2**63),
        frame(b'{"kind": "x"}', head_size=2**31),
        frame(b"[" * 100_000),
        frame(b'{"kind": "x", "n": ' + b"9" * 10_000 + b"}"),
        frame(b'{"kind": "\\ud800"')[:-1],
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_nonsense_in_the_pipe(raw: bytes) -> None:
    with pytest.raises(BackendError, match=r"mine: start: the process that runs it (wrote|ended)"):
        ask(f"{CHILDREN}:write_raw", raw, backend="mine", timeout_s=HANGS_S)


@pytest.mark.parametrize(
    "head",
    [
        '{"kind": "progress"}', '{"kind": "progress", "progress": ["x"]}',
        '{"kind": "progress", "progress": [Infinity]}', '{"kind": "call", "call": 3}',
        '{"kind": "error"}', '{"kind": "error", "error": "InputError"}', '{"kind": "what"}',
        '{"kind": "error", "error": "InputError", "text": "x", "key": 5}',
        '{"kind": "error", "error": "BackendError", "text": "x", "status": "y"}',
        '{"kind": "log"}', '{"kind": "log", "level": "high", "logger": 1, "text": 2}',
    ],
)  # fmt: skip
def test_messages_of_a_wrong_form(head: str) -> None:
    with pytest.raises(BackendError, match="sent an answer of a wrong form"):
        ask(f"{CHILDREN}:write_raw", frame(head.encode()), backend="mine", timeout_s=HANGS_S)


def test_time_in_which_the_parent_is_stopped_is_not_the_childs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    def an_hour_later() -> float:
        nonlocal looks
        looks += 1
        return 3600.0 * looks

    with Child(f"{CHILDREN}:wait", None) as child, monkeypatch.context() as patch:
        patch.setattr(supervision, "time", SimpleNamespace(monotonic=an_hour_later))
        assert child.receive(2.0) is None
        assert child.silent_s == 2.0
        assert looks == 1 + 2.0 / 0.5  # each counts as two ticks of a quarter of a second


def test_errors_cross_as_themselves() -> None:
    with pytest.raises(InputError) as caught:
        ask(f"{CHILDREN}:raise_it", InputError("bad", file="f", key="k"), backend="mine")
    assert (caught.value.file, caught.value.key, str(caught.value)) == ("f", "k", "f: k: bad")
    with pytest.raises(BackendError, match="mine: start: KeyError: 'x'"):
        ask(f"{CHILDREN}:raise_it", KeyError("x"), backend="mine")
    with pytest.raises(MemoryError):
        ask(f"{CHILDREN}:raise_it", MemoryError(), backend="mine")
    with pytest.raises(BackendError, match="SystemExit"):
        ask(f"{CHILDREN}:raise_it", SystemExit(0), backend="mine")


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = plain | st.lists(plain, max_size=3) | st.just({}) | st.just([[]])


@cache
def program() -> Program:
    return lower(
        same_on_all(RANKS, lambda trace: trace.coll(CommType.ALL_REDUCE, 65536)),
        read_system(system()), read_remote_memory({"memory-type": "NO_MEMORY_EXPANSION"}),
        (RANKS,), {},
    ).program  # fmt: skip


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(st.dictionaries(st.sampled_from(["error", "text", "file", "key", "status"]), anything))
def test_whatever_an_error_says(head: dict[str, Any]) -> None:
    try:
        error = received(head, "mine", "create")
    except NONSENSE:
        return
    assert isinstance(error, (AstraBridgeError, MemoryError))


@settings(max_examples=examples(200), suppress_health_check=list(HealthCheck), deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["sizes", "events", "transfers", "relieved", "failed", "engine"]),
        anything | st.lists(st.integers(-2, 5), min_size=4, max_size=4),
    ),
    st.binary(max_size=200),
)
def test_whatever_an_outcome_says(head: dict[str, Any], body: bytes) -> None:
    good = {
        "sizes": [RANKS, RANKS, RANKS, 1], "events": 1, "transfers": 1, "relieved": 0,
        "failed": None, "engine": "python",
    }  # fmt: skip
    waits = np.zeros(1, WAIT)
    content = np.arange(3 * RANKS, dtype=np.int64).tobytes() + waits.tobytes() + b"{}"
    message = Message("result", json.loads(json.dumps({**good, **head})), body or content)
    offsets = np.arange(RANKS + 1)
    try:
        run, _ = _read(message, program(), offsets, RANKS)
    except (*NONSENSE, msgspec.MsgspecError):
        return
    assert len(run.outcome.finish_ps) == RANKS
    assert run.outcome.events >= 0
