# SPDX-License-Identifier: MIT
"""The one way to write files: whole or absent, and together.

A file is written without a name or under one of its own beside its place, and takes its place only
when all is there.  What stood there before stays until then, whatever happens in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from astra_bridge import arguments
from astra_bridge.errors import InputError
from astra_bridge.text import one_line

__all__ = ["NewFiles", "new_file", "new_folder", "user_cache", "write_file"]

_FOLDER, _PROTECTED = "is a folder", "the file is write-protected"


class NewFiles:
    """Files that appear together at the end of a ``with`` block, or not at all.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with NewFiles() as files:
    ...     with files.open(folder / "a.txt") as out:
    ...         _ = out.write(b"whole")
    ...     (folder / "a.txt").exists()
    False
    >>> (folder / "a.txt").read_bytes()
    b'whole'
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Path, Path]] = []  # where it is, where it belongs

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for part, path in self._waiting:
                    with _refusals(path):
                        part.replace(path)
                for folder in {path.parent for _, path in self._waiting}:
                    _sync_folder(folder)
        finally:
            for part, _ in self._waiting:
                with suppress(OSError):
                    part.unlink(missing_ok=True)

    @contextmanager
    def open(self, path: str | Path) -> Iterator[BinaryIO]:
        """Write one of the files; folders above it are made.

        A device or a pipe is written directly, and the file that a link leads to is replaced, not
        the link.

        Raises
        ------
        InputError
            It cannot be written: says which file and why.
        """
        shown = arguments.path(path, "path")
        with _refusals(shown):
            path = Path(os.path.realpath(path))
            old = _status(path)
            if old is not None and stat.S_ISDIR(old.st_mode):
                raise InputError(f"cannot write: {_FOLDER}", file=shown)
            if old is not None and not stat.S_ISREG(old.st_mode):
                with path.open("wb") as out:
                    yield out
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            if old is not None and not os.access(path, os.W_OK):
                raise InputError(f"cannot write: {_PROTECTED}", file=shown)
            with _unnamed(path.parent) as (out, keep):
                yield out
                out.flush()
                if old is not None:
                    os.fchmod(out.fileno(), stat.S_IMODE(old.st_mode))
                os.fsync(out.fileno())
                self._waiting.append((keep(), path))


def write_file(path: str | Path, content: bytes) -> None:
    """Write one file, whole or not at all; as :meth:`NewFiles.open`."""
    with NewFiles() as files, files.open(path) as out:
        out.write(content)


def new_file(value: str | Path, name: str) -> Path:
    """Check that a file can be written, before the work whose result it is for.

    Parameters
    ----------
    value
        Its path; ``-`` is always allowed, for commands that print then.
    name
        What to call it in the error.

    Raises
    ------
    InputError
        It is a folder, or may not be written.

    Examples
    --------
    >>> new_file("/dev/null/x", "--json")
    Traceback (most recent call last):
    astra_bridge.errors.InputError: /dev/null/x: --json: cannot write: /dev/null is no folder
    """
    path = arguments.path(value, name)
    if str(path) != "-":
        _refuse(name, path, lambda: _why_no_file(path))
    return path


def new_folder(value: str | Path, name: str) -> Path:
    """Check that files can be written into a folder, which need not exist; as :func:`new_file`."""
    path = arguments.path(value, name)
    _refuse(name, path, lambda: _why_no_folder(path))
    return path


def _refuse(name: str, path: Path, why: Callable[[], str | None]) -> None:
    try:
        reason = why()
    except OSError as error:  # such as a name that is too long
        reason = error.strerror or str(error)
    if reason is not None:
        raise InputError(f"cannot write: {one_line(reason)}", file=path, key=name)


def _why_no_file(path: Path) -> str | None:
    """None where a file can be written or replaced."""
    if path.is_dir():
        return _FOLDER
    if path.exists() and not os.access(path, os.W_OK):
        return _PROTECTED
    # A device or a pipe is written where it is.
    return None if path.exists() and not path.is_file() else _why_no_folder(path.parent)


def _why_no_folder(folder: Path) -> str | None:
    """None where a folder takes files, or can be made."""
    folder = folder.absolute()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} is write-protected"


def user_cache() -> Path:
    """Make a path for what this user keeps between runs; the folder may not exist.

    ``XDG_CACHE_HOME``, ``~/.cache``, or for a user without a home (a container's) a folder of its
    own among the temporary ones.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named) / "astra_bridge"
    try:
        return Path.home() / ".cache" / "astra_bridge"
    except RuntimeError:
        import tempfile  # it loads much, and is hardly ever needed

        return Path(tempfile.gettempdir()) / f"astra_bridge-{os.getuid()}"


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the system says against writing a file, in one sentence with its name."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        reason = one_line(error.strerror or str(error))
        raise InputError(f"cannot write: {reason}", file=path) from None


@contextmanager
def _unnamed(folder: Path) -> Iterator[tuple[BinaryIO, Callable[[], Path]]]:
    """A new file in a folder, and the function that gives it a passing name once it is whole.

    Where the system can, it has no name before, so that nothing is left of a process that is
    killed.
    """
    part = folder / f".astra-bridge-{os.urandom(8).hex()}.part"
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
        named = False
    except (OSError, AttributeError):
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        named = True

    def keep() -> Path:
        if not named:
            # linkat(2) with AT_SYMLINK_FOLLOW, which Python takes only with a folder's descriptor.
            source = f"/proc/self/fd/{descriptor}"
            os.link(source, part, src_dir_fd=descriptor, follow_symlinks=True)
        return part

    try:
        with os.fdopen(descriptor, "w+b") as out:
            yield out, keep
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make the new names last; not every file system can, and the files are whole either way."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
