# SPDX-License-Identifier: MIT
"""The native engine's event queue against its definition: slots in the order of (time, place)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.effort import FACTOR, examples

ROOT = Path(__file__).parents[2]
SEEDS = 300


def test_slots_run_in_order(tmp_path: Path, missing: Callable[[str, str], None]) -> None:
    """With few delays and with many; with copies of the queue that were bytes in between."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        missing("native", f"no C++ compiler {compiler}")
    program, source = tmp_path / "events", Path(__file__).with_name("events.cpp")
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{ROOT / 'csrc' / name}" for name in ("engine", "include")]
    subprocess.run([*command, str(source), "-o", str(program)], check=True)
    count = FACTOR * examples(SEEDS)
    run = subprocess.run([program, "0", str(count)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert int(run.stdout) > 100 * count
