# SPDX-License-Identifier: MIT
"""Traces that are bombs, that change while they are read, and that are not there."""

from __future__ import annotations

import errno
import gzip
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from astra_bridge.errors import InputError
from astra_bridge.trace import read_workload, reader
from astra_bridge.trace.columns import NodeType
from astra_bridge.trace.reader import native_available, parse_trace, read_trace
from astra_bridge.trace.writer import TraceNode, encode_trace

METADATA = b"\x07\n\x050.0.4"
DECODERS = ["python", *(["native"] if native_available() else [])]


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(reader, "_native", None)
    return str(request.param)


def trace(nodes: int) -> bytes:
    return encode_trace(
        TraceNode(i, NodeType.COMP, f"n{i}", duration_micros=1, data_deps=[i - 1] if i else [])
        for i in range(nodes)
    )


def test_a_compressed_file_of_zeros_is_refused_by_its_growth(tmp_path: Path) -> None:
    file = tmp_path / "a.0.et"
    file.write_bytes(gzip.compress(METADATA + bytes(1 << 27)))
    with pytest.raises(InputError, match="bytes grow to more than") as caught:
        read_trace(file)
    assert caught.value.file == str(file)


def test_a_file_of_zeros_is_refused_before_it_takes_memory(decoder: str, tmp_path: Path) -> None:
    file = tmp_path / "a.0.et"
    with file.open("wb") as out:
        out.write(METADATA)
        out.truncate(1 << 30)  # sparse
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if decoder == "native":
        with pytest.raises(
            InputError, match="node 0: the id is used twice, by the nodes at positions 0 and 1"
        ):
            read_trace(file)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    with pytest.raises(
        InputError, match="node 0: the id is used twice, by the nodes at positions 0 and 1"
    ):
        parse_trace(METADATA + bytes(1000))


def test_ordinary_compression_works(decoder: str) -> None:
    data = trace(3000)
    assert len(parse_trace(gzip.compress(data, 9))) == 3000


def test_no_memory_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(reader, "_decode", full)
    with pytest.raises(InputError, match=r"x\.et: .*do not fit in memory"):
        parse_trace(METADATA, file="x.et")


CUT = """
import os, sys
from astra_bridge.errors import InputError
from astra_bridge.trace import read_workload, reader
hash_of = hash
def cut(data):
    os.truncate(sys.argv[1], 5000)  # after it was opened, before it is read
    return hash_of(data)
reader.hash = cut
try:
    read_workload(sys.argv[1].removesuffix(".0.et"), 1)
except InputError as error:
    print(error.reason)
"""


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "t.0.et"
    file.write_bytes(trace(20_000))
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(file)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert "has changed while it was read" in said


@pytest.mark.parametrize("seed", range(3))
def test_files_that_change_all_the_time(seed: int, tmp_path: Path) -> None:
    """Sixty readings of a file that a thread cuts and restores; this process lives on."""
    file = tmp_path / "t.0.et"
    whole = trace(20_000)
    file.write_bytes(whole)
    random = np.random.default_rng(seed)
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            os.truncate(file, int(random.integers(len(whole))))
            time.sleep(0.0005)
            file.write_bytes(whole)
            time.sleep(0.0005)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(60):
            with suppress(InputError):
                # Cut between two records before it is read, it is a shorter trace.
                assert 0 < len(read_trace(file)) <= 20_000
    finally:
        done.set()
        thread.join()


def test_a_missing_trace_is_reported_at_once(tmp_path: Path) -> None:
    for rank in range(8):
        (tmp_path / f"t.{rank}.et").write_bytes(trace(1))
    (tmp_path / "x\x1b[2J.0.et").write_bytes(b"")
    began_s = time.process_time()
    with pytest.raises(InputError, match=r"no trace for rank 8 .*8 of 16777216 ranks"):
        read_workload(tmp_path / "t", 1 << 24)
    with pytest.raises(InputError, match=r"with traces in that folder: t, x") as caught:
        read_workload(tmp_path / "u", 1 << 24)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(InputError, match=os.strerror(errno.ENAMETOOLONG)):
        read_workload("a" * 5000, 1 << 24)
    assert time.process_time() - began_s < 10  # 16 million files take minutes
