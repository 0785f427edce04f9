# SPDX-License-Identifier: MIT
"""Finds ns-3 and compiles the backend against it, once per version of either.

ns-3 is looked for under ``NS3_ROOT``, then where CMake's ``find_package(ns3)`` looks (the system's
prefixes and ``CMAKE_PREFIX_PATH``), then in the installed wheel ``ns3``.  The library goes to a
cache (``ASTRA_BRIDGE_CACHE``, else ``~/.cache/astra_bridge``) under a key made of the sources, the
ns-3 libraries and the compiler.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from astra_bridge.errors import BackendUnavailable
from astra_bridge.files import user_cache
from astra_bridge.network.native import source_root

__all__ = ["Ns3", "cache_folder", "find_ns3", "library", "unavailable"]

_INSTALL = "pip install 'astra-bridge[ns3]' (ns-3 wheel, cmake and ninja)"
_TIMEOUT_S = 900


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


def _compiler() -> str | None:
    wanted = os.environ.get("CXX")
    names = [wanted] if wanted else ["c++", "g++", "clang++"]
    return next((path for path in map(shutil.which, names) if path), None)


def cache_folder() -> Path:
    """Where compiled backends are kept."""
    given = os.environ.get("ASTRA_BRIDGE_CACHE")
    if given:
        return Path(given)
    return user_cache()


def _sources() -> list[Path]:
    root = source_root()
    return [
        *sorted((root / "csrc" / "include").glob("astra_net.h*")),
        *sorted(path for path in (root / "backends" / "ns3").iterdir() if path.is_file()),
    ]


@functools.cache
def _compiler_version(compiler: str) -> str:
    done = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.split("\n", 1)[0]


def _key(ns3: Ns3, compiler: str) -> str:
    digest = hashlib.sha256()
    for source in _sources():
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    stat = ns3.core.stat()
    for part in (ns3.core.resolve(), stat.st_size, stat.st_mtime_ns, _compiler_version(compiler)):
        digest.update(str(part).encode() + b"\0")
    return digest.hexdigest()[:16]


def _target(ns3: Ns3, compiler: str) -> Path:
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
        return "a C++20 compiler is needed on first use (Debian: apt install g++)"
    if not (source_root() / "backends" / "ns3").is_dir():
        return "the sources backends/ns3 are missing from this installation"
    if _target(ns3, compiler).exists():
        return None
    missing = [name for name in ("cmake", "ninja") if _tool(name) is None]
    if missing:
        return f"{' and '.join(missing)} needed on first use; {_INSTALL}"
    return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def library() -> Path:
    """The compiled backend; compiles it when the cache has none for this ns-3.

    Raises
    ------
    BackendUnavailable
        Something is missing, or it does not compile; the message ends with the compiler's words.
    """
    reason = unavailable()
    if reason:
        raise BackendUnavailable(reason)
    ns3, compiler = find_ns3(), _compiler()
    assert compiler is not None
    target = _target(ns3, compiler)
    if target.exists():
        return target
    try:
        with _locked(target.parent):
            if not target.exists():
                _compile(ns3, compiler, target)
    except OSError as error:
        raise BackendUnavailable(
            f"cannot write to {target.parent}: {error.strerror}; set ASTRA_BRIDGE_CACHE to a "
            "folder that can be written"
        ) from None
    return target


def _compile(ns3: Ns3, compiler: str, target: Path) -> None:
    root = source_root()
    cmake, ninja = _tool("cmake"), _tool("ninja")
    with tempfile.TemporaryDirectory(prefix="astra_bridge_ns3_") as folder:
        log = ""
        for command in (
            [
                str(cmake), "-S", str(root / "backends" / "ns3"), "-B", folder, "-G", "Ninja",
                f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DCMAKE_CXX_COMPILER={compiler}",
                f"-DNS3_ROOT={ns3.root}", f"-DASTRA_INCLUDE={root / 'csrc' / 'include'}",
            ],
            [str(cmake), "--build", folder, "-j", "2"],
        ):  # fmt: skip
            try:
                done = subprocess.run(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                    timeout=_TIMEOUT_S,
                )
            except subprocess.TimeoutExpired:
                raise BackendUnavailable(f"compiling took more than {_TIMEOUT_S} s") from None
            log += done.stdout
            if done.returncode != 0:
                (target.parent / "build.log").write_text(log, encoding="utf-8")
                errors = [line for line in log.splitlines() if "rror" in line] or [log[-300:]]
                raise BackendUnavailable(
                    f"the ns-3 backend does not compile against ns-3 {ns3.version} in {ns3.root}: "
                    f"{errors[0].strip()} (all of it: {target.parent / 'build.log'})"
                )
        # One step, so that nobody loads half a file.
        temporary = target.with_suffix(f".{os.getpid()}")
        shutil.copy2(Path(folder) / target.name, temporary)
        temporary.replace(target)
