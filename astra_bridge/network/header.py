# SPDX-License-Identifier: MIT
"""``astra_net.h`` as cffi knows it.

Parsing C costs a tenth of a small run, so the build keeps what it parsed beside the native
libraries.  The header stays the authority: where its text is another one than the build saw, it is
parsed again.  The build imports this module too: nothing here needs more than cffi.
"""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path
from typing import Any

import astra_bridge

__all__ = ["KEPT", "declarations", "ffi", "header_path", "keep", "parse", "source_root"]

KEPT = "_astra_net"
"""Name of the kept module in ``astra_bridge/_native``."""


def source_root() -> Path:
    """The folder with ``csrc/include`` and ``backends``: shipped with the package, or the tree."""
    package = Path(astra_bridge.__file__).parent
    shipped = package / "_sources"
    return shipped if shipped.is_dir() else package.parent


def header_path() -> Path:
    """``astra_net.h``, the authority of the contract."""
    return source_root() / "csrc" / "include" / "astra_net.h"


def declarations() -> str:
    """What cffi reads: the header between its marks, and the symbol that a library exports."""
    text = header_path().read_text(encoding="utf-8")
    marked = text.split("/* [cdef.begin] */")[1].split("/* [cdef.end] */")[0]
    return marked + "astra_net_backend_init_fn astra_net_backend_init;"


def parse(text: str) -> Any:
    """A cffi.FFI of these declarations."""
    import cffi

    parsed = cffi.FFI()
    parsed.cdef(text)
    return parsed


def keep(folder: Path) -> Path:
    """Write the parsed header as a module into ``folder``; return its path."""
    text = declarations()
    parsed = parse(text)
    parsed.set_source(f"astra_bridge._native.{KEPT}", None)
    path = folder / f"{KEPT}.py"
    parsed.emit_python_code(str(path))
    with path.open("a", encoding="utf-8") as module:
        module.write(f"declarations = {text!r}\n")
    return path


@functools.cache
def ffi() -> Any:
    """The header: as the build parsed it, else parsed now."""
    text = declarations()
    try:
        kept = import_module(f"astra_bridge._native.{KEPT}")
    except ImportError:
        return parse(text)  # not built, or by a cffi that this one does not understand
    return kept.ffi if kept.declarations == text else parse(text)
