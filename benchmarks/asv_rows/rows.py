# SPDX-License-Identifier: MIT
"""What asv measures: rows of ``benchmarks/speed.py``, each a command in a process of its own.

Instructions are counted by valgrind (callgrind), where a time would be noise: on a busy machine
they differ by less than a percent from one run to the next.  CPU seconds are there for the rest.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[1] / "speed.py"
_COUNTED = re.compile(r"Collected : (\d+)")


def _speed() -> Any:
    found = importlib.util.spec_from_file_location("speed", _FILE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["speed"] = module
    found.loader.exec_module(module)
    return module


speed = _speed()
ROWS = {f"{row.inputs or 'no inputs'}: {row.work}": row for row in speed.ROWS if not row.long}


class _Row:
    """A row's inputs, in a folder of their own."""

    params = tuple(ROWS)
    param_names = ("work",)
    timeout = 600

    def setup(self, work: str) -> None:
        if not ROWS[work].is_possible:
            raise NotImplementedError(f"{ROWS[work].needs} is not installed")
        self.folder = Path(tempfile.mkdtemp())
        if ROWS[work].inputs:
            speed.make_inputs(ROWS[work].inputs, self.folder)
        self.words = [one.replace("FOLDER", str(self.folder)) for one in ROWS[work].arguments]

    def teardown(self, _work: str) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Instructions(_Row):
    """Of the whole command."""

    def setup(self, work: str) -> None:
        if shutil.which("valgrind") is None:
            raise NotImplementedError("valgrind is not installed")
        super().setup(work)

    def track_instructions(self, _work: str) -> int:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable,
             *self.words],
            cwd=self.folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(_COUNTED.findall(done.stderr)[-1])

    track_instructions.unit = "instructions"  # type: ignore[attr-defined]


class Cpu(_Row):
    """CPU seconds and peak memory of the whole command; its answer is checked."""

    def track_cpu_s(self, work: str) -> float:
        return min(self._run(work)[0] for _ in range(3))

    track_cpu_s.unit = "s"  # type: ignore[attr-defined]

    def track_peak_memory(self, work: str) -> float:
        return self._run(work)[1]

    track_peak_memory.unit = "MB"  # type: ignore[attr-defined]

    def _run(self, work: str) -> tuple[float, float]:
        found: tuple[float, float] = speed.measure(
            sys.executable, self.words, ROWS[work].finish_ns, dict(os.environ)
        )
        return found
