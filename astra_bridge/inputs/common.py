# SPDX-License-Identifier: MIT
"""What the readers of all input formats share: loading, type conversion, errors with a remedy."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

import msgspec

from astra_bridge import arguments
from astra_bridge.errors import InputError
from astra_bridge.text import nearest, one_line, show

__all__ = [
    "MAX_TIME_NS",
    "check_keys",
    "convert",
    "load_json",
    "load_yaml",
    "nearest",
    "open_regular",
    "parse_json",
    "read_text",
    "path_or_name",
    "resolve",
    "show",
    "unique_keys",
    "whole",
]

MAX_TIME_NS = 2**53 - 1
"""Largest time an input may hold [ns]; in picoseconds it still fits an int64."""

_MAX_FILE_BYTES = 1 << 28
_MAX_YAML_DEPTH = 500
_MOST_DIGITS = 400

_T = TypeVar("_T")


def open_regular(file: str | Path) -> io.FileIO:
    """Open a file to be read, never to wait: not for a pipe, a device or the kernel's messages.

    Raises
    ------
    InputError
        It is no regular file.
    OSError
        It cannot be opened.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("cannot read: not a regular file", file=file)
    return io.FileIO(descriptor, "r")


def read_text(path: str | Path) -> str:
    """The content of a UTF-8 text file.

    Raises
    ------
    InputError
        The file cannot be read, is no regular file (a pipe may never end), is larger than
        256 MiB, or is not UTF-8.
    """
    file = arguments.path(path, "path")
    try:
        with open_regular(file) as handle:
            # Some files of the system have no size.
            size = os.fstat(handle.fileno()).st_size or _MAX_FILE_BYTES
            content = handle.read(min(size, _MAX_FILE_BYTES) + 1) or b""
        if len(content) > _MAX_FILE_BYTES:
            raise InputError("file is larger than 256 MiB", file=file)
        return content.decode("utf-8-sig")
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"not a UTF-8 text file (byte {error.start})", file=file) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read the file: {reason}", file=file) from None


def load_json(path: str | Path) -> Any:
    """Parse a JSON file; a repeated key is an error.

    Raises
    ------
    InputError
        As :func:`read_text`, or not JSON, or a key is repeated in an object.
    """
    return parse_json(read_text(path), file=path)


def parse_json(text: str | bytes, *, file: str | Path | None) -> Any:
    """Parse JSON text that stands in a file; a repeated key is an error.

    Raises
    ------
    InputError
        Not JSON, or a key is repeated in an object.
    """
    try:
        with suppress(msgspec.ValidationError):  # a number that fits nowhere: see _number
            msgspec.json.decode(text)
        return json.loads(
            text,
            object_pairs_hook=partial(unique_keys, file=file),
            parse_int=_number,
            parse_float=_number,
        )
    except InputError:
        raise
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InputError(f"not valid JSON: {one_line(str(error))}", file=file) from None


def unique_keys(pairs: list[tuple[str, Any]], file: str | Path | None) -> dict[str, Any]:
    """``object_pairs_hook`` of every JSON reader: a repeated key is an error, as in YAML."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for at, name in enumerate(names) if name in names[:at])
        raise InputError("the key is given twice in one object", file=file, key=repeated)
    return content


def _number(text: str) -> int | float | str:
    """A number of a file; one that nothing can hold stays text, which its reader then refuses."""
    if len(text) > _MOST_DIGITS:
        return text
    try:
        return int(text)
    except ValueError:
        value = float(text)
        return value if math.isfinite(value) else text


@cache
def _yaml_loader() -> Any:
    """What reads YAML: each key once, and no number that takes for ever."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if key.id == "scalar"]
            if len(set(keys)) < len(keys):
                repeated = next(key for at, key in enumerate(keys) if key in keys[:at])
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: repeated key {show(repeated)}")
            return super().construct_mapping(node, deep)  # type: ignore[no-any-return]

        def construct_yaml_int(self, node: Any) -> Any:
            # Long ones take for ever, or end in an error without a place; see _number.
            long = len(node.value) > _MOST_DIGITS
            return node.value if long else super().construct_yaml_int(node)

        def construct_yaml_float(self, node: Any) -> Any:
            long = len(node.value) > _MOST_DIGITS
            return node.value if long else super().construct_yaml_float(node)

    for kind in ("int", "float"):
        Loader.add_constructor(
            f"tag:yaml.org,2002:{kind}", getattr(Loader, f"construct_yaml_{kind}")
        )
    return Loader


def load_yaml(path: str | Path) -> Any:
    """Parse a YAML file; a repeated key is an error."""
    text = read_text(path)
    import yaml  # here, because JSON inputs should not pay for its import

    loader = _yaml_loader()
    try:
        # The C composer recurses without a limit and would take the process with it.  Nothing is
        # nested deeper than the text is long, so small files skip the check.
        if len(text) > _MAX_YAML_DEPTH:
            depth = 0
            for event in yaml.parse(text, loader):
                depth += isinstance(event, yaml.CollectionStartEvent)
                depth -= isinstance(event, yaml.CollectionEndEvent)
                if depth > _MAX_YAML_DEPTH:
                    raise yaml.YAMLError(f"nested more than {_MAX_YAML_DEPTH} deep")
        return yaml.load(text, loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(
            f"not valid YAML: {line}{one_line(str(error.problem))}", file=path
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {one_line(str(error))}", file=path) from None
    except Exception as error:
        # PyYAML lets the exceptions of its scalar constructors through: ValueError for a date
        # such as 2026-13-45, KeyError for "!!bool maybe", RecursionError, and more.
        raise InputError(f"not valid YAML: {show(str(error))}", file=path) from None


def check_keys(
    raw: object,
    known: Iterable[str],
    *,
    file: str | Path | None,
    ignored: Mapping[str, str] | None = None,
    where: str = "",
) -> list[str]:
    """Require a mapping with known keys only; return a warning for each ignored one.

    Parameters
    ----------
    raw
        What was read from the file.
    known
        The keys that have a meaning.
    ignored
        Keys that are accepted without effect, each with the reason.  Keys that start with ``_``
        or ``$`` are comments.
    where
        Path of ``raw`` inside the file, for messages.

    Raises
    ------
    InputError
        ``raw`` is no mapping, or a key is unknown; names the nearest known one.
    """
    if not isinstance(raw, Mapping):
        raise InputError(
            f"expected keys and values, found {show(raw)}", file=file, key=where or None
        )
    known = list(known)
    ignored = ignored or {}
    warnings = []
    prefix = f"{where}." if where else ""
    for key in raw:
        if not isinstance(key, str):
            raise InputError(f"key {show(key)} is not a string", file=file, key=where or None)
        if key in known or key.startswith(("_", "$")):
            continue
        if key not in ignored:
            hint = nearest(key, [*known, *ignored]) or f"; known keys: {', '.join(known)}"
            raise InputError(f"unknown key{hint}", file=file, key=f"{prefix}{key}")
        at = f"{file}: " if file else ""
        warnings.append(f"{at}{prefix}{key}: ignored: {ignored[key]}")
    return warnings


def convert(raw: Any, to: type[_T], *, file: str | Path | None, where: str = "") -> _T:
    """``msgspec.convert`` whose error names file, key and value."""
    try:
        return msgspec.convert(raw, to)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        keys = _path_keys(path.rstrip("`"))
        value: Any = raw
        try:
            for key in keys:
                value = value[key]
            reason = f"{reason}, found {show(value)}"
        except (KeyError, IndexError, TypeError):
            pass  # a missing key: the reason says so
        key_text = where + "".join(
            f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys
        )
        raise InputError(reason.replace("`", ""), file=file, key=key_text.strip(".")) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # what no file can hold
        raise InputError(str(error), file=file, key=where or None) from None


def _path_keys(path: str) -> list[str | int]:
    """Keys of a msgspec path: ``.links[3].src`` is links, 3, src."""
    keys: list[str | int] = []
    for part in path.replace("[", ".[").split("."):
        if part.startswith("["):
            index = part.strip("[]")
            keys.append(int(index) if index.isdigit() else index)
        elif part:
            keys.append(part)
    return keys


def whole(value: float | int, *, key: str, file: str | Path | None, warnings: list[str]) -> int:
    """An integer key: a fraction is cut off with a warning, as ASTRA-sim cuts it off silently."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"expected a whole number, found {value}", file=file, key=key)
    if value != int(value):
        at = f"{file}: " if file else ""
        warnings.append(f"{at}{key}: whole numbers only: {value} is cut to {int(value)}")
    return int(value)


def path_or_name(given: str | None, file: Path | None) -> str | None:
    """An accelerator: the path of a profile, as `resolve` has it, or a name."""
    return given if given is None or "." not in given else resolve(given, file)


def resolve(path: str, file: str | Path | None) -> str:
    """A path written inside a file: relative to the working directory, as ASTRA-sim takes it.

    Where nothing of that name is there, and the folder of ``file`` has it, the latter is taken,
    so that a folder of inputs works from anywhere.
    """
    if file is None or Path(path).is_absolute():
        return path
    beside = Path(file).parent / path
    for candidate in (Path(path), beside):
        folder, name = candidate.parent, candidate.name
        # A prefix of trace files (name.0.et, ...) or one file.
        if candidate.exists() or (folder / f"{name}.0.et").exists():
            return str(candidate)
    return path
