# SPDX-License-Identifier: MIT
"""The library with both ends of a connection, ``backends/remote``."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

from astra_bridge.network.header import ffi
from astra_bridge.network.native import library_path

__all__ = ["entry", "ends_path", "unavailable"]

# As backends/remote/remote.h has them.
_TYPES = {
    "astra_remote_open": "astra_net_status(*)(const char *, const char *, uint32_t, "
    "astra_net_backend *, char *, size_t, astra_net_error *)",
    "astra_remote_serve": "astra_net_status(*)(int32_t, const astra_net_backend *, "
    "const astra_net_host *, int64_t, astra_net_error *)",
}


def ends_path() -> Path:
    """Where the build puts it."""
    return library_path("").with_name("libastra_remote.so")


def unavailable() -> str | None:
    """Why there can be no connections, or None."""
    if ends_path().exists():
        return None
    return "not built: install again where a C++17 compiler is found"


@functools.cache
def entry(name: str) -> Any:
    """One of its two functions, to be called through cffi, which lets other threads run."""
    library = ctypes.CDLL(str(ends_path()))
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    return ffi().cast(_TYPES[name], address)
