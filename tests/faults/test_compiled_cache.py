# SPDX-License-Identifier: MIT
"""The cache of compiled libraries: the user's own, whole, and verified before use."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from astra_bridge.errors import BackendUnavailable
from astra_bridge.network import cached, compiled, compiling
from astra_bridge.network.ns3.build import NS3
from tests.foreign import foreign_library
from tests.waiting import HANGS_S, until

pytestmark = pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable()))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a "compiler" that copies a library."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ASTRA_BRIDGE_CACHE", str(folder))
    made = foreign_library(tmp_path)
    monkeypatch.setattr(
        compiling,
        "_commands",
        lambda *parts: [["cp", str(made), f"{parts[-1]}/libastra_net_ns3.so"]],
    )
    return folder


def names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*/*"))


WHOLE = ["libastra_net_ns3.so", "libastra_net_ns3.sum", "lock"]


def test_compiled_once(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "to be compiled on first use" in NS3.note()
    old_mask = os.umask(0)
    try:
        library = NS3.library()
    finally:
        os.umask(old_mask)
    said = capfd.readouterr().err
    assert "note: compiling the backend for ns-3" in said
    assert "note: compiled in" in said
    assert names(cache) == WHOLE
    for path in (cache, library.parent, library):
        assert path.stat().st_mode & 0o022 == 0
    assert NS3.library() == library
    assert capfd.readouterr().err == ""
    assert NS3.note().endswith(", compiled")


def test_how_much_is_left_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (copy,) = compiling._commands(Path(), None, [], Path("/made"))  # type: ignore[arg-type]

    def commands(*parts: object) -> list[list[str]]:
        script = f"echo '[1/4] one'; echo '[2/4] two'; cp {copy[1]} {parts[-1]}/libastra_net_ns3.so"
        return [["sh", "-c", script]]

    monkeypatch.setattr(compiling, "_commands", commands)
    monkeypatch.setattr(compiling, "_SAID_EVERY_S", 0.0)
    NS3.library()
    said = capfd.readouterr().err
    for done in (1, 2):
        assert re.search(rf"note: compiling: {done} of 4 steps, about \d+ s left\n", said)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_damaged_one_is_compiled_again(size: int, cache: Path) -> None:
    library = NS3.library()
    whole = library.read_bytes()
    os.truncate(library, size)
    assert NS3.unavailable() is None
    assert "damaged: to be compiled again" in NS3.note()
    assert NS3.library() == library
    assert library.read_bytes() == whole


def test_what_is_only_half_installed_is_compiled_again(cache: Path) -> None:
    library = NS3.library()
    library.with_suffix(".sum").unlink()
    (library.parent / "build-stale").mkdir()
    NS3.library()
    assert names(cache) == WHOLE


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o722])
@pytest.mark.parametrize("part", ["cache", "folder", "file"])
def test_what_others_can_write_to_is_not_loaded(part: str, mode: int, cache: Path) -> None:
    library = NS3.library()
    {"cache": cache, "folder": library.parent, "file": library}[part].chmod(mode)
    for attempt in (NS3.unavailable, lambda: None):
        reason = attempt()
        assert reason is None or "can be written by other users" in reason
    with pytest.raises(BackendUnavailable, match="can be written by other users"):
        NS3.library()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_is_not_loaded(cache: Path) -> None:
    library = NS3.library()
    content = library.read_bytes() + b"\0"
    library.write_bytes(content)
    library.with_suffix(".sum").write_text(cached.checksum(content))
    os.chown(library, 12345, -1)
    with pytest.raises(BackendUnavailable, match="belongs to another user"):
        NS3.library()


def test_what_cannot_be_loaded_is_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = foreign_library(tmp_path, '-DCONSTRUCTOR="segv"', name="bad.so")
    monkeypatch.setattr(
        compiling,
        "_commands",
        lambda *parts: [["cp", str(bad), f"{parts[-1]}/libastra_net_ns3.so"]],
    )
    with pytest.raises(BackendUnavailable, match="was ended by SIGSEGV"):
        NS3.library()
    assert names(cache) == ["lock"]


def test_a_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("astra_bridge.files.os.fsync", full)
    with pytest.raises(BackendUnavailable, match="No space left on device"):
        NS3.library()
    assert names(cache) == ["lock"]


def test_the_errors_are_the_compilers(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "echo '[1/9] /usr/bin/g++ -Werror -o error.o -c error.cc'\n"
        "echo 'x.cc: In function: there is an error'\n"
        "echo \"x.cc:3:7: error: 'y' was not declared in this scope\"\n"
        "echo 'cc1plus: fatal error: z.s: No space left on device'\n"
        "exit 3\n"
    )
    monkeypatch.setattr(compiling, "_commands", lambda *_parts: [["sh", "-c", script]])
    with pytest.raises(BackendUnavailable) as caught:
        NS3.library()
    assert ": x.cc:3:7: error: 'y' was not declared in this scope; cc1plus: fatal error: z.s" in (
        str(caught.value)
    )
    assert "-Werror" not in str(caught.value)
    assert names(cache) == ["build.log", "lock"]


@pytest.mark.parametrize("character", [";", "$", "#"])
def test_paths_that_cmake_cannot_have(
    character: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_BRIDGE_CACHE", f"{cache}{character}x")
    with pytest.raises(BackendUnavailable, match=r"cannot work with the characters .* in the path"):
        NS3.library()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g++ -m64", ["g++", "-m64"]),
        ("/nowhere/g++", None),
        ("'unfinished", None),
    ],
)
def test_the_compiler_of_the_environment(
    text: str, words: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", text)
    assert compiled._compiler() == words
    if words is None:
        assert "a C++20 compiler is needed" in str(NS3.unavailable())
        assert text in str(NS3.unavailable())


def test_another_compiler_makes_another_library(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version has the old one's place, and the launcher in front of it stays."""
    launcher, compiler = tmp_path / "launcher", tmp_path / "c++"
    for program in (launcher, compiler):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("CXX", f"{launcher} {compiler}")
    first = NS3.library()
    assert NS3.library() == first
    compiler.write_text("#!/bin/sh\n# version 2\n")
    assert NS3.library().parent != first.parent
    monkeypatch.setenv("CXX", f"{launcher} {compiler} -O3")
    assert NS3.note().endswith("to be compiled on first use")


def test_whoever_waits_says_so(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    library = NS3.library()
    library.unlink()
    hold = (
        "import fcntl, sys, time\n"
        "lock = open(sys.argv[1], 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(library.parent / "lock")], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiting = threading.Thread(target=NS3.library)
        waiting.start()
        said = "waiting for another process that compiles the backend for ns-3"
        assert until(lambda: said in capfd.readouterr().err)
        assert waiting.is_alive()
        holder.kill()
    waiting.join(HANGS_S)
    assert library.exists()


def test_where_there_are_no_locks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert NS3.library().exists()
