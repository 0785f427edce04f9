# SPDX-License-Identifier: MIT
"""Finds the gem5 against which the backend is compiled: under ``GEM5_ROOT``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from astra_bridge.errors import BackendUnavailable
from astra_bridge.network.compiled import Adapter, Simulator

__all__ = ["GEM5", "find_gem5"]

_TARGET = (
    "build/NAME/libgem5_opt.so of a configuration with the protocol Garnet_standalone, with "
    "--without-python (docs/gem5.md)"
)
_VARIANTS = ("fast", "opt", "debug")  # the fastest first
_PARTS = ("params/GarnetNetwork.hh", "mem/ruby/protocol/L1Cache_Controller.hh")


def find_gem5() -> Simulator:
    """The gem5 to use.

    Raises
    ------
    BackendUnavailable
        ``GEM5_ROOT`` is not set, or holds no gem5 with what is needed; the message says what.
    """
    given = os.environ.get("GEM5_ROOT")
    if not given:
        raise BackendUnavailable(
            f"set GEM5_ROOT to the folder of gem5's sources, in which you have built {_TARGET}"
        )
    root = Path(given).absolute()
    if not (root / "src" / "mem" / "ruby" / "network" / "garnet").is_dir():
        raise BackendUnavailable(
            f"GEM5_ROOT={given} has no src/mem/ruby/network/garnet; it must be the folder of "
            "gem5's sources"
        )
    libraries = [
        library
        for variant in _VARIANTS
        for library in sorted(root.glob(f"build/*/libgem5_{variant}.so"))
    ]
    if not libraries:
        raise BackendUnavailable(f"GEM5_ROOT={given} has no build/*/libgem5_*.so; build {_TARGET}")
    for library in libraries:
        if all((library.parent / part).is_file() for part in _PARTS):
            break
    else:
        raise BackendUnavailable(
            f"{libraries[0]} was built without Garnet or its protocol; build {_TARGET}"
        )
    return Simulator(
        "gem5",
        _version(root),
        root,
        "GEM5_ROOT",
        (library, library.parent / "gem5.build" / "config"),
        {"GEM5_ROOT": str(root), "GEM5_LIBRARY": str(library)},
    )


def _version(root: Path) -> str:
    try:
        text = (root / "src" / "base" / "version.cc").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    found = re.search(r'gem5Version = "([-.\w]+)"', text)
    return found.group(1) if found else ""


GEM5 = Adapter("gem5", find_gem5, shares=("garnet",))
