# SPDX-License-Identifier: MIT
"""Compiles the adapter of a simulator into the cache, on first use.

Apart from `compiled`, as most runs find there what they need.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from astra_bridge.errors import BackendError, BackendUnavailable, InputError
from astra_bridge.network import cached
from astra_bridge.network.installed import Simulator
from astra_bridge.network.native import probe, source_root
from astra_bridge.supervision import Child, ChildEnded, Message, Parent
from astra_bridge.text import one_line

__all__ = ["install", "serve", "tool"]

_TIMEOUT_S = 900
_SAID_EVERY_S = 10.0
_MOST_LOG = 1 << 20
_UNFIT = ";$#\"'\\\n"  # what CMake or ninja reads as more than a character of a path


def install(sources: Path, simulator: Simulator, compiler: list[str], target: Path) -> None:
    """Compile sources to ``target``, unless another process has while this one waited for it.

    Raises
    ------
    BackendUnavailable
        It does not compile, or cannot be written; the message has the compiler's words.
    """
    try:
        cached.make_folder(target.parent)
        with _locked(target.parent, simulator):
            if not cached.is_whole(target):
                _compile(sources, simulator, compiler, target)
    except OSError as error:
        raise BackendUnavailable(
            f"cannot write to {target.parent}: {error.strerror}; set ASTRA_BRIDGE_CACHE to a "
            "folder that can be written"
        ) from None


def tool(name: str) -> str | None:
    """A program: the one beside this interpreter, else the system's."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


@contextlib.contextmanager
def _locked(folder: Path, simulator: Simulator) -> Iterator[None]:
    """One at a time; whoever waits says so."""
    with (folder / "lock").open("w") as lock:
        with contextlib.suppress(ImportError):  # where there are no locks, the last one wins
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say(f"waiting for another process that compiles the backend for {simulator} ...")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"note: {text}\n")
        sys.stderr.flush()


def _compile(sources: Path, simulator: Simulator, compiler: list[str], target: Path) -> None:
    """Compile to ``target``; its folder is locked.

    A process of its own does it, which ends all compilers and removes their files when this one
    ends, however that happens.
    """
    for stale in target.parent.glob("build-*"):  # of one that was killed as well
        shutil.rmtree(stale, ignore_errors=True)
    for path in (target.parent, sources, source_root(), simulator.root):
        unfit = sorted(set(str(path)) & set(_UNFIT))
        if unfit:
            raise BackendUnavailable(
                f"CMake cannot work with the characters {' '.join(unfit)} in the path {path}"
            )
    begin = time.monotonic()
    _say(f"compiling the backend for {simulator} (once; about a minute) ...")
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=target.parent))
    try:
        request = (_commands(sources, simulator, compiler, folder), folder)
        with Child(
            "astra_bridge.network.compiling:serve", request, most_body=_MOST_LOG, cleans_up=True
        ) as child:
            message = _answer(child, simulator)
            if message.head.get("code") != 0:
                _fail(simulator, target, message.body.decode("utf-8", "replace"))
            _keep(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(f"compiled in {time.monotonic() - begin:.0f} s")


def _commands(
    sources: Path, simulator: Simulator, compiler: list[str], folder: Path
) -> list[list[str]]:
    cmake, ninja = tool("cmake"), tool("ninja")
    strict = "ON" if os.environ.get("ASTRA_BRIDGE_STRICT") == "1" else "OFF"
    configure = [
        str(cmake), "-S", str(sources), "-B", str(folder), "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DASTRA_WERROR={strict}",
        f"-DASTRA_INCLUDE={source_root() / 'csrc' / 'include'}",
        *(f"-D{name}={value}" for name, value in simulator.defines.items()),
    ]  # fmt: skip
    if not os.environ.get("CXX"):  # which CMake reads itself, with its flags
        configure.append(f"-DCMAKE_CXX_COMPILER={compiler[0]}")
    return [configure, [str(cmake), "--build", str(folder), "-j", "2"]]


def _answer(child: Child, simulator: Simulator) -> Message:
    begin_s = said_s = time.monotonic()
    while True:
        try:
            message = child.receive(max(0.0, begin_s + _TIMEOUT_S - time.monotonic()))
        except ChildEnded as ended:
            raise BackendUnavailable(
                f"the process that compiles the backend for {simulator} {ended}"
            ) from None
        if message is None:
            raise BackendUnavailable(f"compiling took more than {_TIMEOUT_S} s")
        if message.kind != "progress":
            return message
        done, total = (int(one) for one in message.head["progress"])
        now_s = time.monotonic()
        if done and now_s - said_s >= _SAID_EVERY_S:
            said_s = now_s
            left_s = (now_s - begin_s) * (total - done) / done
            _say(f"compiling: {done} of {total} steps, about {left_s:.0f} s left")


def _fail(simulator: Simulator, target: Path, log: str) -> None:
    kept = ""
    with contextlib.suppress(OSError):
        (target.parent / "build.log").write_text(log, encoding="utf-8")
        kept = f" (all of it: {target.parent / 'build.log'})"
    raise BackendUnavailable(
        f"the backend does not compile against {simulator} in {simulator.root}: "
        f"{_reasons(log)}{kept}"
    )


def _reasons(log: str) -> str:
    """The first errors in what CMake, the compiler and the linker said.

    Examples
    --------
    >>> _reasons("[1/2] g++ -Werror -c a.cc\\na.cc:1:2: error: no such thing\\n")
    'a.cc:1:2: error: no such thing'
    """
    pattern = r"\b(fatal )?error: |^CMake Error|No space left on device|undefined reference to"
    lines = log.splitlines()
    found = []
    for number, line in enumerate(lines):
        if re.search(pattern, line):
            more = [] if ": error: " in line else lines[number + 1 : number + 3]
            found.append(" ".join([line, *more] if line.startswith("CMake") else [line]))
    return "; ".join(one_line(" ".join(line.split()), 400) for line in found[:3]) or log[-300:]


def _keep(made: Path, target: Path) -> None:
    """Copy a library into the cache, once it is known that it can be loaded."""
    try:
        probe(made)
    except BackendError as error:
        raise BackendUnavailable(f"compiled, but cannot be loaded: {error}") from None
    try:
        cached.keep(made.read_bytes(), target)
    except InputError as error:
        raise BackendUnavailable(f"{target}: {error.reason}") from None


def serve(parent: Parent) -> None:
    """The process that compiles: run commands until one fails; send its exit code and what it said.

    When the parent is gone, nothing is left of them.
    """
    commands, folder = parent.request

    def end() -> None:
        _end_session()
        shutil.rmtree(folder, ignore_errors=True)

    parent.on_end = end
    # cmake may be a Python script; it needs no modules of whoever called.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    code, log = 0, b""
    for command in commands:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        ) as running:
            assert running.stdout is not None
            for line in running.stdout:
                log += line
                step = re.match(rb"\[(\d+)/(\d+)\]", line)  # ninja's
                if step is not None:
                    parent.send("progress", progress=[int(step[1]), int(step[2])])
        code = running.returncode
        if code != 0:
            break
    parent.send("done", log[-_MOST_LOG:], code=code)
    while True:  # until the parent has what it needs
        signal.pause()


def _end_session() -> None:
    """Kill every other process of this session; ninja gives compilers groups of their own."""
    me, session = os.getpid(), os.getsid(0)
    for _ in range(1000):
        others = [
            number
            for number in (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
            if number != me and _session_of(number) == session
        ]
        if not others:
            return
        for number in others:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def _session_of(number: int) -> int:
    """Session of a process that can still run, or -1."""
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    fields = state.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[3])
