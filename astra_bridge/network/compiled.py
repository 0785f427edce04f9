# SPDX-License-Identifier: MIT
"""Adapters that are compiled against a simulator that the user has, once per version of either.

A simulator is found by a function of its adapter: under an environment variable, or where it is
usually installed.  The library goes to a cache (``ASTRA_BRIDGE_CACHE``, else
``~/.cache/astra_bridge``) under a key made of the adapter's sources, the simulator's files and the
compiler.  From there it is only loaded as it was written, by this user.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from astra_bridge.errors import BackendUnavailable
from astra_bridge.network import cached
from astra_bridge.network.installed import Simulator
from astra_bridge.network.native import source_root
from astra_bridge.records import Record
from astra_bridge.text import one_line

__all__ = ["Adapter", "Simulator"]


class Adapter(Record, frozen=True):
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
        state = "compiled" if cached.is_whole(target) else "to be compiled on first use"
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
        from astra_bridge.network import compiling  # which few runs do

        compiling.install(self.folder, simulator, compiler, target)
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
        foreign = cached.foreign(target)
        if foreign is not None:
            raise BackendUnavailable(foreign)
        is_there = cached.is_whole(target)
        if not is_there:
            from astra_bridge.network import compiling

            missing = [name for name in ("cmake", "ninja") if compiling.tool(name) is None]
            if missing:
                what = " and ".join(missing)
                raise BackendUnavailable(f"{what} needed on first use; {self.tools}")
        return simulator, compiler, target, is_there

    def _target(self, simulator: Simulator, compiler: list[str]) -> Path:
        version = re.sub(r"[^-.\w]+", "-", simulator.version)
        folders = [self.folder, *(self.folder.parent / name for name in self.shares)]
        name = f"{self.name}-{version}-{_key(folders, simulator, compiler)}"
        return cached.cache_folder() / name / f"libastra_net_{self.name}.so"


def _program(word: str) -> Path | None:
    """The file that a shell would run; shutil takes 2 ms to import."""
    for folder in [""] if os.sep in word else os.get_exec_path():
        path = Path(folder, word)
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def _compiler() -> list[str] | None:
    """The command: ``CXX``, which may have flags or a launcher in front, else the system's."""
    wanted = os.environ.get("CXX", "").strip()
    if not wanted:
        found = next(filter(None, map(_program, ("c++", "g++", "clang++"))), None)
        return [str(found)] if found else None
    import shlex

    with contextlib.suppress(ValueError):  # a quotation without end
        words = shlex.split(wanted)
        if words and _program(words[0]):
            return words
    return None


def _key(folders: list[Path], simulator: Simulator, compiler: list[str]) -> str:
    """Another one for other sources, for what the simulator was built to, and other compilers.

    The compiler and its launcher are known by their files, for asking for the version takes 4 ms.
    """
    sources = [
        *sorted((source_root() / "csrc" / "include").glob("astra_*.h*")),
        *sorted(path for folder in folders for path in folder.iterdir() if path.is_file()),
    ]
    parts: list[object] = [f"{source.name} {cached.sum_of(source)}" for source in sources]
    parts += compiler[1:]
    for mark in [*filter(None, map(_program, compiler)), *simulator.marks]:
        status = mark.stat()
        parts += [mark.resolve(), status.st_size, status.st_mtime_ns]
    parts += [f"{name}={value}" for name, value in sorted(simulator.defines.items())]
    return cached.checksum(b"\0".join(str(part).encode() for part in parts))
