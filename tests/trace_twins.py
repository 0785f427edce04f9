# SPDX-License-Identifier: MIT
"""The two trace decoders, under one signature."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from astra_bridge.trace import decode, reader
from astra_bridge.trace.columns import TraceColumns
from astra_bridge.trace.raw import RawError, RawTrace


class _PythonOnly:
    """Stands in for the native module, in its own terms."""

    RawError = RawError

    @staticmethod
    def decode(data: Any) -> tuple[Any, ...]:
        return msgspec.structs.astuple(decode.decode(data))


def use_decoder(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `reader` use the "python" or the "native" decoder; skip where there is no native one."""
    if which == "python":
        monkeypatch.setattr(reader, "_native", _PythonOnly)
    else:
        require_native()


def require_native() -> None:
    """Skip, with the reason, where the native reader was not built."""
    if reader.native_available():
        return
    reason = "the native trace reader is not built (python setup.py build_native)"
    if "native" in os.environ.get("ASTRA_BRIDGE_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


def native_decoder() -> Callable[[bytes], RawTrace]:
    """Return the native decoder, raising RawError like the Python one."""
    require_native()
    native = importlib.import_module("astra_bridge._native._trace")

    def run(data: bytes) -> RawTrace:
        try:
            return RawTrace(*native.decode(data))
        except native.RawError as error:
            raise RawError(*error.args) from None

    return run


def differences(a: Any, b: Any) -> list[str]:
    """Return the names of the fields in which two RawTrace or TraceColumns differ."""

    def same(x: Any, y: Any) -> bool:
        if isinstance(x, np.ndarray):
            return isinstance(y, np.ndarray) and x.dtype == y.dtype and np.array_equal(x, y)
        if isinstance(x, list):
            return len(x) == len(y) and all(map(same, x, y))
        return bool(x == y)

    return [
        name
        for name, value in msgspec.structs.asdict(a).items()
        if name not in ("file", "read_details") and not same(value, getattr(b, name))
    ]


def parents(trace: TraceColumns, i: int) -> list[int]:
    """Return the ids of the parents of node i."""
    positions = trace.dep[trace.dep_start[i] : trace.dep_start[i + 1]]
    return [int(node_id) for node_id in trace.node_id[positions]]
