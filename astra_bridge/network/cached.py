# SPDX-License-Identifier: MIT
"""The cache of compiled adapters: where it is, whose, and whether what it has is whole."""

from __future__ import annotations

import functools
import os
import stat
import zlib
from pathlib import Path

from astra_bridge.files import NewFiles, user_cache

__all__ = [
    "cache_folder",
    "checksum",
    "foreign",
    "is_whole",
    "keep",
    "make_folder",
    "sum_of",
]


def cache_folder() -> Path:
    """Where compiled backends are kept."""
    given = os.environ.get("ASTRA_BRIDGE_CACHE")
    if given:
        return Path(given)
    return user_cache()


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that nobody else can write to, whatever the umask."""
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            path.mkdir(0o700, exist_ok=True)


def foreign(target: Path) -> str | None:
    """Why what stands there might be another's, or None; what is not there is nobody's."""
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


def checksum(content: bytes) -> str:
    """Two sums, 16 digits: against damage and old versions, not against enemies.

    Those have no access (`foreign`), and hashlib takes 3 ms to import.

    Examples
    --------
    >>> checksum(b"content")
    'fec530a90bcb02fc'
    """
    return f"{zlib.crc32(content):08x}{zlib.adler32(content):08x}"


def keep(content: bytes, target: Path) -> None:
    """Write a library, and beside it its sum.

    Raises
    ------
    InputError
        It cannot be written.
    """
    with NewFiles() as files:
        for path, part in ((_sum_file(target), checksum(content).encode()), (target, content)):
            with files.open(path) as out:
                os.fchmod(out.fileno(), 0o644)  # whatever the umask
                out.write(part)


def is_whole(target: Path) -> bool:
    """Whether the library is there as it was written."""
    try:
        return sum_of(target) == _sum_file(target).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return False


def sum_of(path: Path) -> str:
    """`checksum` of a file, which is read once as long as it is the same by its marks.

    Raises
    ------
    OSError
        It cannot be read.
    """
    file = path.stat()
    marks = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
    return _sum_of(path, marks)


@functools.lru_cache(maxsize=256)
def _sum_of(path: Path, _marks: tuple[int, ...]) -> str:
    return checksum(path.read_bytes())


def _sum_file(target: Path) -> Path:
    return target.with_suffix(".sum")
