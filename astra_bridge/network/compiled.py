# SPDX-License-Identifier: MIT
"""Adapters that are compiled against a simulator that the user has, once per version of either.

A simulator is found by a function of its adapter: under an environment variable, or where it is
usually installed.  The library goes to a cache (``ASTRA_BRIDGE_CACHE``, else
``~/.cache/astra_bridge``) under a key made of the adapter's sources, the simulator's files and the
compiler.  From there it is only loaded as it was written, by this user.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from astra_bridge.errors import BackendError, BackendUnavailable, InputError
from astra_bridge.files import NewFiles, user_cache
from astra_bridge.network.native import probe, source_root
from astra_bridge.supervision import Child, ChildEnded, Message, Parent
from astra_bridge.text import one_line

__all__ = ["Adapter", "Simulator", "cache_folder", "serve"]

_TIMEOUT_S = 900
_SAID_EVERY_S = 10.0
_MOST_LOG = 1 << 20
_UNFIT = ";$#\"'\\\n"  # what CMake or ninja reads as more than a character of a path


@dataclass(frozen=True)
class Simulator:
    """A simulator that is installed here.

    Parameters
    ----------
    name : str
        As its project writes it, with the kind where there are several: ``ns-3``.
    version : str
        As far as it tells.
    root : Path
        Where it is.
    origin : str
        How it was found: the environment variable, ``find_package``, ``wheel``.
    marks : sequence of Path
        Files that are others when the simulator was built anew: its libraries.
    defines : mapping of str to str
        What CMake is told: ``-DNAME=value``.
    """

    name: str
    version: str
    root: Path
    origin: str
    marks: tuple[Path, ...]
    defines: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


@dataclass(frozen=True)
class Adapter:
    """What joins a simulator to the contract: sources of ours, compiled on first use.

    Parameters
    ----------
    name : str
        Of the adapter.  Its ``CMakeLists.txt`` makes ``libastra_net_NAME.so`` of the definitions of
        the simulator, ``ASTRA_INCLUDE`` (the folder of ``astra_net.h``) and ``ASTRA_WERROR``.
    find : callable
        The `Simulator` to use; raises `BackendUnavailable`, with what to do, where there is none.
    tools : str
        How to install CMake and ninja, where they are missing.
    sources : Path, optional
        Folder of ``CMakeLists.txt``: ``backends/NAME`` of this project, unless a plug-in brings
        its own.
    shares : sequence of str, optional
        Folders beside that one of which it compiles files too.

    Examples
    --------
    >>> def find():
    ...     raise BackendUnavailable("set TOY_ROOT to the folder of the toy")
    >>> Adapter("toy", find).unavailable()
    'set TOY_ROOT to the folder of the toy'
    """

    name: str
    find: Callable[[], Simulator]
    tools: str = "pip install cmake ninja"
    sources: Path | None = None
    shares: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Of the sources."""
        return self.sources or source_root() / "backends" / self.name

    def unavailable(self) -> str | None:
        """None where the backend can run (or be compiled), else why not and what to do."""
        try:
            self._place()
        except BackendUnavailable as error:
            return str(error)
        return None

    def version(self) -> str:
        """Of the simulator that is found."""
        return str(self.find())

    def note(self) -> str:
        """What else is to be said of a backend that can run: which simulator, and if compiled."""
        simulator, compiler = self.find(), _compiler()
        if compiler is None:
            return ""
        target = self._target(simulator, compiler)
        state = "compiled" if _is_whole(target) else "to be compiled on first use"
        if state != "compiled" and target.exists():
            state = "compiled, but the file is damaged: to be compiled again on next use"
        return f"{simulator} ({simulator.origin}), {state}"

    def library(self) -> Path:
        """The compiled backend; compiles it when the cache has none for this simulator.

        Raises
        ------
        BackendUnavailable
            Something is missing, or it does not compile; the message has the compiler's words.
        """
        simulator, compiler, target, is_there = self._place()
        if is_there:
            return target
        try:
            _make_folder(target.parent)
            with _locked(target.parent, simulator):
                if not _is_whole(target):
                    _compile(self.folder, simulator, compiler, target)
        except OSError as error:
            raise BackendUnavailable(
                f"cannot write to {target.parent}: {error.strerror}; set ASTRA_BRIDGE_CACHE to a "
                "folder that can be written"
            ) from None
        return target

    def _place(self) -> tuple[Simulator, list[str], Path, bool]:
        """Simulator, compiler, where the library belongs, and whether it is there and whole.

        Raises
        ------
        BackendUnavailable
            Something is missing, or what is there may not be used.
        """
        simulator, compiler = self.find(), _compiler()
        if compiler is None:
            wanted = f" (CXX={one_line(os.environ['CXX'], 200)})" if os.environ.get("CXX") else ""
            raise BackendUnavailable(
                f"a C++20 compiler is needed on first use (Debian: apt install g++){wanted}"
            )
        if not self.folder.is_dir():
            raise BackendUnavailable(
                f"the sources {self.folder} are missing from this installation"
            )
        target = self._target(simulator, compiler)
        foreign = _not_ours(target)
        if foreign is not None:
            raise BackendUnavailable(foreign)
        is_there = _is_whole(target)
        missing = [name for name in ("cmake", "ninja") if not is_there and _tool(name) is None]
        if missing:
            raise BackendUnavailable(f"{' and '.join(missing)} needed on first use; {self.tools}")
        return simulator, compiler, target, is_there

    def _target(self, simulator: Simulator, compiler: list[str]) -> Path:
        version = re.sub(r"[^-.\w]+", "-", simulator.version)
        folders = [self.folder, *(self.folder.parent / name for name in self.shares)]
        name = f"{self.name}-{version}-{_key(folders, simulator, compiler)}"
        return cache_folder() / name / f"libastra_net_{self.name}.so"


def _tool(name: str) -> str | None:
    """A program: the one beside this interpreter, else the system's."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def _compiler() -> list[str] | None:
    """The command: ``CXX``, which may have flags or a launcher in front, else the system's."""
    wanted = os.environ.get("CXX", "").strip()
    with contextlib.suppress(ValueError):  # a quotation without end
        words = shlex.split(wanted)
        if words:
            return words if shutil.which(words[0]) else None
        found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
        return [found] if found else None
    return None


def cache_folder() -> Path:
    """Where compiled backends are kept."""
    given = os.environ.get("ASTRA_BRIDGE_CACHE")
    if given:
        return Path(given)
    return user_cache()


@functools.cache
def _compiler_version(*compiler: str) -> str:
    try:
        done = subprocess.run(
            [*compiler, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.split("\n", 1)[0]


def _key(folders: list[Path], simulator: Simulator, compiler: list[str]) -> str:
    digest = hashlib.sha256()
    for source in [
        *sorted((source_root() / "csrc" / "include").glob("astra_*.h*")),
        *sorted(path for folder in folders for path in folder.iterdir() if path.is_file()),
    ]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    parts: list[object] = [_compiler_version(*compiler), *compiler[1:]]
    for mark in simulator.marks:
        status = mark.stat()
        parts += [mark.resolve(), status.st_size, status.st_mtime_ns]
    parts += [f"{name}={value}" for name, value in sorted(simulator.defines.items())]
    for part in parts:
        digest.update(str(part).encode() + b"\0")
    return digest.hexdigest()[:16]


# ---- the cache ----


def _not_ours(target: Path) -> str | None:
    """Why what stands in the cache might be another's, or None; what is not there is nobody's."""
    for path in (target, target.parent, target.parent.parent):
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_uid not in (os.geteuid(), 0):
            return f"{path} belongs to another user; set ASTRA_BRIDGE_CACHE to a folder of your own"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
            return (
                f"{path} can be written by other users, so its content is not to be trusted; "
                f"chmod go-w it, or set ASTRA_BRIDGE_CACHE to a folder of your own"
            )
    return None


def _sum_file(target: Path) -> Path:
    return target.with_suffix(".sha256")


def _is_whole(target: Path) -> bool:
    """Whether the library is there as it was written."""
    try:
        written = _sum_file(target).read_text(encoding="ascii").strip()
        file = target.stat()
        marks = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
        return _sum_of(target, marks) == written
    except (OSError, ValueError):
        return False


@functools.lru_cache(maxsize=16)
def _sum_of(path: Path, _marks: tuple[int, ...]) -> str:
    """Of a file, read once as long as its marks are the same."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that nobody else can write to, whatever the umask."""
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o700)


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


# ---- compiling ----


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
            "astra_bridge.network.compiled:serve", request, most_body=_MOST_LOG, cleans_up=True
        ) as child:
            message = _answer(child, simulator)
            if message.head.get("code") != 0:
                _fail(simulator, target, message.body.decode("utf-8", "replace"))
            _install(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(f"compiled in {time.monotonic() - begin:.0f} s")


def _commands(
    sources: Path, simulator: Simulator, compiler: list[str], folder: Path
) -> list[list[str]]:
    cmake, ninja = _tool("cmake"), _tool("ninja")
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


def _install(made: Path, target: Path) -> None:
    """Copy a library into the cache, once it is known that it can be loaded."""
    try:
        probe(made)
    except BackendError as error:
        raise BackendUnavailable(f"compiled, but cannot be loaded: {error}") from None
    content = made.read_bytes()
    try:
        with NewFiles() as files:
            for path, part in (
                (_sum_file(target), hashlib.sha256(content).hexdigest().encode()),
                (target, content),
            ):
                with files.open(path) as out:
                    os.fchmod(out.fileno(), 0o644)  # whatever the umask
                    out.write(part)
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
