# SPDX-License-Identifier: MIT
"""A long list inside a JSON file, entry by entry: what is not needed is never in memory.

The file is cut into blocks between two entries.  A comma that stands between two braces, before one
of the known first keys, stands in no text; one that is nested in an entry leaves a block that does
not decode, and the cut before it is taken.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import open_regular
from astra_bridge.text import one_line, show

__all__ = ["NOT_JSON", "blocks", "peek", "read_list"]

_BLOCK_BYTES = 1 << 17
_MOST_HEAD_BYTES = 1 << 26
_MOST_ENTRY_BYTES = 1 << 27
_TRIED_CUTS = 50
NOT_JSON = msgspec.DecodeError, UnicodeDecodeError
# PyTorch writes what C++ prints for numbers that JSON has no word for.
_NO_JSON = re.compile(rb"([:,\[]\s*)-?(?:inf|nan|Infinity|NaN)\b")


def blocks(file: Path, size: int = _BLOCK_BYTES) -> Iterator[bytes]:
    """The content of a file, gzip-compressed or not, in blocks.

    Raises
    ------
    InputError
        It cannot be read, or is damaged.
    """
    try:
        with open_regular(file) as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Any = gzip.GzipFile(fileobj=raw) if compressed else raw
            while block := stream.read(size):
                yield block
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"the gzip-compressed file is damaged: {one_line(str(error))}", file=file
        ) from None
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", file=file) from None


def peek(file: Path, size: int = 1 << 16) -> bytes:
    """The first bytes of a file, gzip-compressed or not; ``InputError`` as :func:`blocks`."""
    return next(blocks(file, size), b"")


Scan = Callable[[bytes, Callable[[bytes], list[Any]]], tuple[int, bool]]


def read_list(
    file: Path,
    key: str,
    first_keys: Sequence[str],
    entry: Any,
    lenient: Callable[[dict[str, Any]], Any],
    add: Callable[[list[Any]], None],
    scan: Scan | None = None,
) -> dict[str, Any]:
    """Read the list under a key of the object that a file is.

    Parameters
    ----------
    file : Path
        gzip-compressed or not.
    key : str
        Of the list.
    first_keys : sequence of str
        With which entries begin.
    entry : type
        What msgspec makes of an entry.
    lenient : callable
        Makes an `entry` of a plain object whose fields are not of the usual kinds.
    add : callable
        Takes entries as they come.
    scan : callable, optional
        Takes the whole entries at the start of a text, as far as they are plain and a comma
        follows, on its own; returns where the rest begins, and whether that is plain: cut off, or
        the end of the list.  It is given a function that makes entries of a text.

    Returns
    -------
    dict
        What stands beside the list.

    Raises
    ------
    InputError
        The file cannot be read, has no such list, or is no JSON.
    """
    decoder = msgspec.json.Decoder(list[entry])

    def decode(text: bytes) -> list[Any]:
        try:
            return decoder.decode(text)
        except msgspec.ValidationError:
            return [lenient(one) for one in msgspec.json.decode(text) if isinstance(one, dict)]

    start = re.compile(rb'"' + key.encode() + rb'"\s*:\s*\[')
    cut = re.compile(rb"\}\s*,(?=\s*\{\s*\"(?:" + "|".join(first_keys).encode() + rb")\"\s*:)")
    stream = blocks(file)
    buffer, found = b"", None
    for block in stream:
        buffer += block
        found = start.search(buffer)
        if found or len(buffer) > _MOST_HEAD_BYTES:
            break
    if found is None:
        raise InputError(f"has no list {show(key)}", file=file)
    head = _object(buffer[: found.end()] + b"]}", file)
    buffer = buffer[found.end() :]
    for block in stream:
        buffer += block
        begin, plain = (0, False) if scan is None else scan(buffer, decode)
        buffer = buffer[begin:]
        end = 0 if plain else _add_whole(buffer, cut, decode, add)
        if begin == end == 0 and len(buffer) > _MOST_ENTRY_BYTES:
            raise InputError(
                f"not valid JSON: no entry of {show(key)} ends within {_MOST_ENTRY_BYTES} bytes",
                file=file,
            )
        buffer = buffer[end:]
    # The last entries, and what stands behind the list.
    tail = _object(b'{"' + key.encode() + b'":[' + buffer, file)
    rest = tail.pop(key, None)
    if not isinstance(rest, list):
        raise InputError("must be a list", file=file, key=key)
    add(decode(msgspec.json.encode(rest)))
    head.pop(key, None)
    return head | tail


def _add_whole(
    buffer: bytes,
    cut: re.Pattern[bytes],
    decode: Callable[[bytes], list[Any]],
    add: Callable[[list[Any]], None],
) -> int:
    """Take the whole entries at the start of a buffer; return where the rest begins."""
    window = 1 << 12
    while True:
        cuts = list(cut.finditer(buffer, max(0, len(buffer) - window)))
        for match in reversed(cuts[-_TRIED_CUTS:]):
            text = b"[" + memoryview(buffer)[: match.start() + 1] + b"]"
            try:
                entries = decode(text)
            except NOT_JSON:
                try:
                    entries = decode(_NO_JSON.sub(rb"\1null", text))
                except NOT_JSON:
                    continue
            add(entries)
            return match.end()
        if window >= len(buffer):
            return 0
        window *= 8


def _object(text: bytes, file: Path) -> dict[str, Any]:
    try:
        try:
            value = msgspec.json.decode(text)
        except NOT_JSON:
            value = msgspec.json.decode(_NO_JSON.sub(rb"\1null", text))
    except (*NOT_JSON, RecursionError) as error:
        raise InputError(f"not valid JSON, or cut off: {one_line(str(error))}", file=file) from None
    if not isinstance(value, dict):
        raise InputError(f"must be an object, not {show(value)}", file=file)
    return value
