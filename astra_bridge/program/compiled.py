# SPDX-License-Identifier: MIT
"""The native engine's module, which knows the records of a Program and its rules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from astra_bridge.program import schema
from astra_bridge.program.tables import Tables

__all__ = ["arrays", "check", "layout", "module", "unavailable"]

_MODULE = "astra_bridge._native._engine"


@functools.cache
def unavailable() -> str | None:
    """None where the native engine is built, else why not."""
    try:
        import_module(_MODULE)
    except ImportError as error:
        return (
            f"the native engine is not built ({error}); install again where a C++17 compiler "
            "is found"
        )
    return None


def layout(record: np.dtype[Any]) -> dict[str, tuple[int, int]]:
    """Offset and bytes of each field, as the native engine tells its own."""
    assert record.fields is not None
    return {name: (int(field[1]), field[0].itemsize) for name, field in record.fields.items()}


@functools.cache
def module() -> Any:
    """The native engine, if it was built for the records of this package."""
    engine = import_module(_MODULE)
    for name, own in engine.LAYOUT.items():
        record = getattr(schema, name, None)
        if record is None or layout(record) != own:
            raise RuntimeError(
                f"the native engine was built for other records of {name}; build it again"
            )
    return engine


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
    return dict(vars(tables))
