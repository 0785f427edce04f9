# SPDX-License-Identifier: MIT
"""A library of somebody else, that does what it must not: compiled once for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from astra_bridge import supervision

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).parent / "faults" / "foreign.c"


@cache
def _made(flags: tuple[str, ...]) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = Path(tempfile.mkdtemp(prefix="astra_bridge_foreign_")) / "foreign.so"
    subprocess.run(
        [compiler, "-w", "-O1", "-shared", "-fPIC", f"-I{ROOT / 'csrc' / 'include'}", *flags,
         str(SOURCE), "-o", str(library), "-lpthread"],
        check=True,
    )  # fmt: skip
    return library


def foreign_library(folder: Path, *flags: str, name: str = "foreign.so") -> Path:
    """A copy in ``folder``; ``-DINIT=...`` and ``-DCONSTRUCTOR=...`` choose faults of loading."""
    path = folder / name
    shutil.copy(_made(flags), path)
    return path


def no_time_before_the_fault(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """No time passes for supervisors before a library has reached its fault.

    So a child may take as long as it likes to start, and a limit is that of the call that hangs.
    """
    reached = folder / "fault-reached"
    patch.setenv("ASTRA_BRIDGE_REACHED", str(reached))
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() if reached.exists() else 0.0, sleep=time.sleep
    )
    patch.setattr(supervision, "time", clock)
