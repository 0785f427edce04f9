# SPDX-License-Identifier: MIT
"""asv finds the rows of ``benchmarks/speed.py``, and one of them runs."""

from __future__ import annotations

import json
import re
import resource
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from astra_bridge.engine import native

ROOT = Path(__file__).parents[2]


def rows() -> dict[str, object]:
    return dict(runpy.run_path(str(ROOT / "benchmarks/asv_rows/rows.py")))


def test_asv_loads_its_configuration_and_finds_the_rows(
    missing: Callable[[str, str], None],
) -> None:
    if find_spec("asv") is None:
        missing("asv", "asv is not installed")
    text = (ROOT / "benchmarks/asv.conf.json").read_text()
    configuration = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert configuration["benchmark_dir"] == "asv_rows"
    done = subprocess.run(
        [sys.executable, "-c", "from asv.main import main; main()", "check", "--python=same"],
        cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


def test_every_quick_row_is_one() -> None:
    found = rows()
    speed, known = found["speed"], found["ROWS"]
    assert isinstance(known, dict)
    assert list(known.values()) == [row for row in speed.ROWS if not row.long]  # type: ignore[attr-defined]
    assert len(known) > 5


def test_a_row_runs(missing: Callable[[str, str], None]) -> None:
    if (reason := native.unavailable()) is not None:
        missing("native", reason)
    found = rows()
    (work,) = [name for name in found["ROWS"] if name.endswith("Ring 1024, unaware")]  # type: ignore[attr-defined]
    one = found["Cpu"]()  # type: ignore[operator]
    one.setup(work)
    try:
        cpu_s, peak_mb = one._run(work)
    finally:
        one.teardown(work)
    assert 0 < cpu_s < 60
    # A child's peak starts with that of the process that starts it, here of all tests before.
    own_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert 10 < peak_mb < max(2000, 1.1 * own_mb)


@pytest.mark.slow
def test_instructions_differ_little_from_run_to_run() -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    found = rows()
    work = min(found["ROWS"], key=len)  # type: ignore[call-overload]
    one = found["Instructions"]()  # type: ignore[operator]
    one.setup(work)
    try:
        counts = [one.track_instructions(work) for _ in range(2)]
    finally:
        one.teardown(work)
    assert counts[0] == pytest.approx(counts[1], rel=0.01)
