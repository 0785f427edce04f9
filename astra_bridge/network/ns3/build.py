# SPDX-License-Identifier: MIT
"""Finds ns-3, against which the backend is compiled.

It is looked for under ``NS3_ROOT``, then where CMake's ``find_package(ns3)`` looks (the system's
prefixes and ``CMAKE_PREFIX_PATH``), then in the installed wheel ``ns3``.  ``NS3_ROOT`` may be a
prefix, a source tree that is built, or its ``build`` folder.  It may be the public RDMA fork of
ns-3 (HPCC's, ASTRA-sim's, SimAI's), whose devices the backend then uses.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from pathlib import Path

from astra_bridge.errors import BackendUnavailable
from astra_bridge.network.compiled import Adapter, Simulator

__all__ = ["NS3", "find_ns3", "is_rdma_fork"]

_INSTALL = "pip install 'astra-bridge[ns3]' (ns-3 wheel, cmake and ninja)"


_FORK_HEADER = "qbb-net-device.h"
_FORK = f"ns-3 fork (RDMA: {_FORK_HEADER})"


def _core_library(root: Path) -> tuple[Path, str] | None:
    """The core library under a prefix, and the version in its name."""
    for folder in ("lib", "lib64", "lib/*", "build/lib"):
        for path in sorted(root.glob(f"{folder}/libns3*-core*.so")):
            match = re.fullmatch(r"libns(3[-.\w]*?)-core(-\w+)?\.so", path.name)
            if match:
                return path, match.group(1)
    return None


def _at(root: Path, origin: str) -> Simulator | None:
    found = _core_library(root)
    if found is None:
        return None
    library, version = found
    name, marks = "ns-3", [library]
    header = _rdma_header(root)
    if header is not None:
        # Its devices are in a module of ns-3's own.
        devices = library.with_name(library.name.replace("-core", "-point-to-point"))
        name, marks = _FORK, [library, header, *([devices] if devices.exists() else [])]
    return Simulator(name, version, root, origin, tuple(marks), {"NS3_ROOT": str(root)})


def _rdma_header(root: Path) -> Path | None:
    """The header by which the RDMA fork is known."""
    for folder in ("include", "build/include", "include/ns3*"):
        for path in root.glob(f"{folder}/ns3/{_FORK_HEADER}"):
            return path
    return None


def is_rdma_fork() -> bool:
    """Whether the ns-3 that is found is the RDMA fork; not if there is none."""
    try:
        return find_ns3().name == _FORK
    except BackendUnavailable:
        return False


def find_ns3() -> Simulator:
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
                "was installed to, or the folder in which it was built"
            )
        return found
    prefixes = [path for path in os.environ.get("CMAKE_PREFIX_PATH", "").split(os.pathsep) if path]
    for prefix in prefixes:
        found = _with_headers(prefix)
        if found is not None:
            return found
    found = _of_the_system()
    if found is not None:
        return found
    wheel = _wheel(tuple(sys.path))
    if wheel is None:
        raise BackendUnavailable(f"ns-3 is not installed; {_INSTALL}, or set NS3_ROOT")
    found = _at(wheel, "wheel")
    if found is None:
        raise BackendUnavailable(f"the wheel ns3 at {wheel} has no core library; {_INSTALL}")
    return found


def _with_headers(prefix: str) -> Simulator | None:
    # The headers first, for libraries may be in any of a hundred folders.
    has_headers = any(Path(prefix).glob("include/ns3*"))
    return _at(Path(prefix), "find_package") if has_headers else None


@functools.cache
def _of_the_system() -> Simulator | None:
    """Looked for once."""
    return _with_headers("/usr/local") or _with_headers("/usr")


@functools.lru_cache(maxsize=4)
def _wheel(path: tuple[str, ...]) -> Path | None:
    """Where the package ``ns3`` is installed; importlib.metadata would take 15 ms to import."""
    for entry in path:
        with contextlib.suppress(OSError):
            for name in os.listdir(entry or "."):  # noqa: PTH208 - hundreds of names
                if name.startswith("ns3-") and name.endswith(".dist-info"):
                    return Path(entry, "ns3")
    return None


NS3 = Adapter("ns3", find_ns3, _INSTALL)
