# SPDX-License-Identifier: MIT
"""Finds ns-3 and compiles the backend against it, once per version of either.

ns-3 is looked for under ``NS3_ROOT``, then where CMake's ``find_package(ns3)`` looks (the system's
prefixes and ``CMAKE_PREFIX_PATH``), then in the installed wheel ``ns3``.  The library goes to a
cache (``ASTRA_BRIDGE_CACHE``, else ``~/.cache/astra_bridge``) under a key made of the sources, the
ns-3 libraries and the compiler.  From there it is only loaded as it was written, by this user.
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
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from astra_bridge.errors import BackendError, BackendUnavailable, InputError
from astra_bridge.files import NewFiles, user_cache
from astra_bridge.network.native import probe, source_root
from astra_bridge.supervision import Child, ChildEnded, Message, Parent
from astra_bridge.text import one_line

__all__ = ["Ns3", "cache_folder", "find_ns3", "library", "note", "serve", "unavailable"]

_INSTALL = "pip install 'astra-bridge[ns3]' (ns-3 wheel, cmake and ninja)"
_TIMEOUT_S = 900
_MOST_LOG = 1 << 20
_UNFIT = ";$#\"'\\\n"  # what CMake or ninja reads as more than a character of a path


@dataclass(frozen=True)
class Ns3:
    """An installed ns-3: its prefix, version, core library, and how it was found."""

    root: Path
    version: str
    core: Path
    origin: str


def _core_library(root: Path) -> tuple[Path, str] | None:
    """The core library under a prefix, and the version in its name."""
    for folder in ("lib", "lib64", "lib/*", "build/lib"):
        for path in sorted(root.glob(f"{folder}/libns3*-core*.so")):
            match = re.fullmatch(r"libns(3[-.\w]*?)-core(-\w+)?\.so", path.name)
            if match:
                return path, match.group(1)
    return None


def _at(root: Path, origin: str) -> Ns3 | None:
    found = _core_library(root)
    return Ns3(root, found[1], found[0], origin) if found else None


def find_ns3() -> Ns3:
    """The ns-3 to use.

    Raises
    ------
    BackendUnavailable
        There is none, or ``NS3_ROOT`` holds none.
    """
    given = os.environ.get("NS3_ROOT")
    if given:
        found = _at(Path(given), "NS3_ROOT")
        if found is None:
            raise BackendUnavailable(
                f"NS3_ROOT={given} has no lib*/libns3*-core*.so; it must be the prefix that ns-3 "
                "was installed to"
            )
        return found
    prefixes = [path for path in os.environ.get("CMAKE_PREFIX_PATH", "").split(os.pathsep) if path]
    for prefix in [*prefixes, "/usr/local", "/usr"]:
        found = _at(Path(prefix), "find_package")
        if found is not None and (found.root / "include").is_dir():
            return found
    try:
        wheel = Path(str(distribution("ns3").locate_file("ns3")))
    except PackageNotFoundError:
        raise BackendUnavailable(f"ns-3 is not installed; {_INSTALL}, or set NS3_ROOT") from None
    found = _at(wheel, "wheel")
    if found is None:
        raise BackendUnavailable(f"the wheel ns3 at {wheel} has no core library; {_INSTALL}")
    return found


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


def _sources() -> list[Path]:
    root = source_root()
    return [
        *sorted((root / "csrc" / "include").glob("astra_*.h*")),
        *sorted(path for path in (root / "backends" / "ns3").iterdir() if path.is_file()),
    ]


@functools.cache
def _compiler_version(*compiler: str) -> str:
    try:
        done = subprocess.run(
            [*compiler, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.split("\n", 1)[0]


def _key(ns3: Ns3, compiler: list[str]) -> str:
    digest = hashlib.sha256()
    for source in _sources():
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    status = ns3.core.stat()
    version = _compiler_version(*compiler)
    for part in (ns3.core.resolve(), status.st_size, status.st_mtime_ns, version, *compiler[1:]):
        digest.update(str(part).encode() + b"\0")
    return digest.hexdigest()[:16]


def _target(ns3: Ns3, compiler: list[str]) -> Path:
    name = f"ns3-{ns3.version}-{_key(ns3, compiler)}"
    return cache_folder() / name / "libastra_net_ns3.so"


def unavailable() -> str | None:
    """None where the backend can run (or be compiled), else why not and what to do."""
    try:
        ns3 = find_ns3()
    except BackendUnavailable as error:
        return str(error)
    compiler = _compiler()
    if compiler is None:
        wanted = f" (CXX={one_line(os.environ['CXX'], 200)})" if os.environ.get("CXX") else ""
        return f"a C++20 compiler is needed on first use (Debian: apt install g++){wanted}"
    if not (source_root() / "backends" / "ns3").is_dir():
        return "the sources backends/ns3 are missing from this installation"
    target = _target(ns3, compiler)
    foreign = _not_ours(target)
    if foreign is not None:
        return foreign
    if _is_whole(target):
        return None
    missing = [name for name in ("cmake", "ninja") if _tool(name) is None]
    if missing:
        return f"{' and '.join(missing)} needed on first use; {_INSTALL}"
    return None


def version() -> str:
    """Of the ns-3 that is found."""
    return f"ns-3 {find_ns3().version}"


def note() -> str:
    """What else is to be said of a backend that can run: which ns-3, and whether it is compiled."""
    ns3, compiler = find_ns3(), _compiler()
    if compiler is None:
        return ""
    target = _target(ns3, compiler)
    state = "compiled" if _is_whole(target) else "to be compiled on first use"
    if state != "compiled" and target.exists():
        state = "compiled, but the file is damaged: to be compiled again on next use"
    return f"ns-3 {ns3.version} ({ns3.origin}), {state}"


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
        return hashlib.sha256(target.read_bytes()).hexdigest() == written
    except (OSError, ValueError):
        return False


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that nobody else can write to, whatever the umask."""
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o700)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time; whoever waits says so."""
    with (folder / "lock").open("w") as lock:
        with contextlib.suppress(ImportError):  # where there are no locks, the last one wins
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("waiting for another process that compiles the ns-3 backend ...")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"note: {text}\n")
        sys.stderr.flush()


def library() -> Path:
    """The compiled backend; compiles it when the cache has none for this ns-3.

    Raises
    ------
    BackendUnavailable
        Something is missing, or it does not compile; the message has the compiler's words.
    """
    reason = unavailable()
    if reason:
        raise BackendUnavailable(reason)
    ns3, compiler = find_ns3(), _compiler()
    assert compiler is not None
    target = _target(ns3, compiler)
    if _is_whole(target):
        return target
    try:
        _make_folder(target.parent)
        with _locked(target.parent):
            if not _is_whole(target):
                _compile(ns3, compiler, target)
    except OSError as error:
        raise BackendUnavailable(
            f"cannot write to {target.parent}: {error.strerror}; set ASTRA_BRIDGE_CACHE to a "
            "folder that can be written"
        ) from None
    return target


# ---- compiling ----


def _compile(ns3: Ns3, compiler: list[str], target: Path) -> None:
    """Compile to ``target``; its folder is locked.

    A process of its own does it, which ends all compilers and removes their files when this one
    ends, however that happens.
    """
    for stale in target.parent.glob("build-*"):  # of one that was killed as well
        shutil.rmtree(stale, ignore_errors=True)
    root = source_root()
    for path in (target.parent, root, ns3.root):
        unfit = sorted(set(str(path)) & set(_UNFIT))
        if unfit:
            raise BackendUnavailable(
                f"CMake cannot work with the characters {' '.join(unfit)} in the path {path}"
            )
    begin = time.monotonic()
    _say(f"compiling the backend for ns-3 {ns3.version} (once; about a minute) ...")
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=target.parent))
    try:
        request = (_commands(ns3, compiler, root, folder), folder)
        with Child(
            "astra_bridge.network.ns3.build:serve", request, most_body=_MOST_LOG, cleans_up=True
        ) as child:
            message = _answer(child)
            if message.head.get("code") != 0:
                _fail(ns3, target, message.body.decode("utf-8", "replace"))
            _install(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(f"compiled in {time.monotonic() - begin:.0f} s")


def _commands(ns3: Ns3, compiler: list[str], root: Path, folder: Path) -> list[list[str]]:
    cmake, ninja = _tool("cmake"), _tool("ninja")
    strict = "ON" if os.environ.get("ASTRA_BRIDGE_STRICT") == "1" else "OFF"
    configure = [
        str(cmake), "-S", str(root / "backends" / "ns3"), "-B", str(folder), "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DASTRA_WERROR={strict}",
        f"-DNS3_ROOT={ns3.root}", f"-DASTRA_INCLUDE={root / 'csrc' / 'include'}",
    ]  # fmt: skip
    if not os.environ.get("CXX"):  # which CMake reads itself, with its flags
        configure.append(f"-DCMAKE_CXX_COMPILER={compiler[0]}")
    return [configure, [str(cmake), "--build", str(folder), "-j", "2"]]


def _answer(child: Child) -> Message:
    try:
        message = child.receive(_TIMEOUT_S)
    except ChildEnded as ended:
        raise BackendUnavailable(f"the process that compiles the ns-3 backend {ended}") from None
    if message is None:
        raise BackendUnavailable(f"compiling took more than {_TIMEOUT_S} s")
    return message


def _fail(ns3: Ns3, target: Path, log: str) -> None:
    kept = ""
    with contextlib.suppress(OSError):
        (target.parent / "build.log").write_text(log, encoding="utf-8")
        kept = f" (all of it: {target.parent / 'build.log'})"
    raise BackendUnavailable(
        f"the ns-3 backend does not compile against ns-3 {ns3.version} in {ns3.root}: "
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
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=environment
        )
        code, log = done.returncode, log + done.stdout
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
