# SPDX-License-Identifier: MIT
"""Garnet under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_sanitizer_reports(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    garnet = ROOT / "backends" / "garnet"
    program = tmp_path / "drive"
    command = [
        *(compiler, "-std=c++17", "-O0", "-g1", "-fsanitize=address,undefined"),
        *("-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS"),
        *("-I", str(ROOT / "csrc" / "include"), "-I", str(garnet)),
        *(str(path) for path in sorted(garnet.glob("*.cpp"))),
        *(str(ROOT / "tests" / "faults" / "garnet_sanitized.cpp"), "-o", str(program)),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find -lasan" in built.stderr or "libasan" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
