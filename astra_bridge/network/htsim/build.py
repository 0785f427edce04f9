# SPDX-License-Identifier: MIT
"""Finds htsim: a checkout, under ``HTSIM_ROOT``, whose sources are compiled with the adapter's."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from astra_bridge.errors import BackendUnavailable
from astra_bridge.network.compiled import Adapter, Simulator

__all__ = ["HTSIM", "find_htsim"]

_WHAT = "HTSIM_ROOT must be a checkout of github.com/Broadcom/csg-htsim"


def find_htsim() -> Simulator:
    """The htsim to use.

    Raises
    ------
    BackendUnavailable
        ``HTSIM_ROOT`` is not set, or holds none.
    """
    given = os.environ.get("HTSIM_ROOT")
    if not given:
        raise BackendUnavailable(f"htsim is not found: {_WHAT}")
    root = Path(given).absolute()
    sim = root / "sim"
    missing = [name for name in ("eventlist.h", "Makefile") if not (sim / name).is_file()]
    if missing:
        raise BackendUnavailable(f"HTSIM_ROOT={given} has no sim/{missing[0]}; {_WHAT}")
    # Whatever is changed there, the library is made anew.
    marks = [sim / "Makefile"]
    for folder in (sim, sim / "datacenter"):
        marks += sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])
    return Simulator(
        "htsim", _commit(root), root, "HTSIM_ROOT", tuple(marks), {"HTSIM_ROOT": str(root)}
    )


def _commit(root: Path) -> str:
    """The first digits of the commit that is checked out, or "": htsim has no versions."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        git = root / ".git"
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head[:7]
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text(encoding="ascii").strip()[:7]
        for line in (git / "packed-refs").read_text(encoding="ascii").splitlines():
            if line.endswith(f" {name}"):
                return line[:7]
    return ""


HTSIM = Adapter("htsim", find_htsim)
