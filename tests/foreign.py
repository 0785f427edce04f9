# SPDX-License-Identifier: MIT
"""A library of somebody else, that does what it must not: compiled once for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

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
