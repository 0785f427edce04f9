# SPDX-License-Identifier: MIT
"""The native engine's module, which knows the records of a Program and its rules."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from enum import EnumMeta
from importlib import import_module
from typing import Any
from zlib import crc32

import numpy as np

from astra_bridge.errors import BackendUnavailable
from astra_bridge.program import schema
from astra_bridge.program.tables import Tables
from astra_bridge.records import values

__all__ = ["arrays", "check", "fingerprint", "layout", "module", "stale", "unavailable"]

_MODULE = "astra_bridge._native._engine"


SESSION = (
    *("arrays", "table", "sim", "capabilities", "resolution_ps", "max_in_flight", "levels"),
    *("record_nodes", "inside", "folded", "waves", "by_number"),
)
"""What the native engine's ``Session`` takes, by name."""

_REBUILD = "build it again: python setup.py build_native --parts=engine"


@functools.cache
def unavailable() -> str | None:
    """None where the native engine is built, and for this package; else why not."""
    try:
        engine = import_module(_MODULE)
    except ImportError as error:
        return (
            f"the native engine is not built ({error}); install again where a C++17 compiler "
            "is found"
        )
    return stale(engine)


def stale(engine: Any = None) -> str | None:
    """Why the native engine that is built does not belong to this package, or None."""
    engine = engine or sys.modules.get(_MODULE)
    if engine is None or getattr(engine, "FINGERPRINT", None) == fingerprint():
        return None
    return f"the native engine was built for another version of this package; {_REBUILD}"


@functools.cache
def fingerprint() -> str:
    """A hash of all that Python and the native engine have to agree on, built into the latter.

    Records with their fields, values of enums, tables of a Program, arguments of a session.
    """
    told = [repr(SESSION)]
    for name, value in sorted(vars(schema).items()):
        if isinstance(value, np.dtype) and value.names:
            told.append(f"{name} {sorted(layout(value).items())} {value.descr}")
        elif isinstance(value, EnumMeta) and value.__module__ == schema.__name__:
            members: Any = list(value)
            told.append(f"{name} {[(one.name, int(one)) for one in members]}")
    told += [f"{name} {kind}" for name, kind in Tables.__annotations__.items()]
    return f"{crc32(repr(told).encode()):08x}"


def layout(record: np.dtype[Any]) -> dict[str, tuple[int, int]]:
    """Offset and bytes of each field, as the native engine tells its own."""
    assert record.fields is not None
    return {name: (int(field[1]), field[0].itemsize) for name, field in record.fields.items()}


@functools.cache
def module() -> Any:
    """The native engine, if it was built for this package.

    Raises
    ------
    BackendUnavailable
        It was not.
    """
    reason = unavailable()
    if reason is not None:
        raise BackendUnavailable(reason)
    return import_module(_MODULE)


def check(rule: str, tables: dict[str, Any], say: Callable[[], None]) -> None:
    """Check tables: in native code where that is built, else, and where it refuses, in Python.

    Parameters
    ----------
    rule : str
        The function of the module, whose answer is whether all is well.
    tables : dict of str to ndarray
        What it looks at, as records that are known to be of their type.
    say : callable
        The same rule in Python, which raises an error that says what is wrong.
    """
    native = unavailable() is None
    if native and getattr(module(), rule)(tables):
        return
    say()
    if native:
        raise RuntimeError(f"{rule}: native code refuses what Python allows: a defect")


def arrays(tables: Tables) -> dict[str, Any]:
    """The tables as the native engine takes them."""
    return values(tables)
