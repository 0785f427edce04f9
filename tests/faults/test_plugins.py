# SPDX-License-Identifier: MIT
"""Backends that packages plug in run in a child too, and their faults are theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INPUTS = ROOT / "examples" / "analytical"
RUN = [
    sys.executable, "-m", "astra_bridge", "run", "--backend=plugged",
    f"--workload-configuration={INPUTS}/all_reduce/trace",
    f"--system-configuration={INPUTS}/system.json",
    f"--network-configuration={INPUTS}/ring.yml",
    f"--remote-memory-configuration={INPUTS}/no_memory.json",
]  # fmt: skip
MODULE = """
import os
from dataclasses import replace
from astra_bridge.network.analytical import BACKENDS
from astra_bridge.network.analytical.backend import prepare
from astra_bridge.network.analytical.unaware import UnawareNetwork
from astra_bridge.network.spec import BackendSpec

class Plugged(UnawareNetwork):
    pass

{more}

SPEC = BackendSpec("plugged", "A plug-in.", prepare, Plugged)
"""


def run(folder: Path, more: str) -> subprocess.CompletedProcess[str]:
    info = folder / "plugged-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[astra_bridge.backends]\nplugged = plugged:SPEC\n")
    (folder / "plugged.py").write_text(MODULE.format(more=more))
    return subprocess.run(
        RUN, env={**os.environ, "PYTHONPATH": str(folder)}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_good_one(tmp_path: Path) -> None:
    done = run(tmp_path, "")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" finished, ") == 8


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("raise KeyError('on import')", "plug-in backend 'plugged': KeyError: 'on import'"),
        ("import no_such_module", "plug-in backend 'plugged': ModuleNotFoundError"),
        ("def prepare(request): return 1 / 0", "plug-in backend 'plugged': ZeroDivisionError"),
        ("def Plugged(config): os._exit(0)", "the process that runs it ended with exit code 0"),
        ("def Plugged(config): raise KeyError(5)", "plugged: load: KeyError: 5"),
        ("Plugged.stats = lambda self: {'a': object()}", "plugged: stats: TypeError: object"),
        ("Plugged.stats = lambda self: [1]", "stats: the backend broke the contract"),
        ("Plugged.close = lambda self: os.abort()", "destroy: the process that runs it"),
    ],
)
def test_faults(more: str, words: str, tmp_path: Path) -> None:
    done = run(tmp_path, more)
    assert done.returncode == 4, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
