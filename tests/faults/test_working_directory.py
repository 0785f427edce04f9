# SPDX-License-Identifier: MIT
"""What stands in the working directory is never imported by a process that we start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from astra_bridge.network.native import library_path
from astra_bridge.network.ns3.build import NS3
from astra_bridge.supervision import safe_path
from tests.foreign import foreign_library

ROOT = Path(__file__).parents[2]
INPUTS = ROOT / "examples" / "analytical"
RUN = [
    "run",
    f"--workload-configuration={INPUTS}/all_reduce/trace",
    f"--system-configuration={INPUTS}/system.json",
    f"--network-configuration={INPUTS}/ring.yml",
    f"--remote-memory-configuration={INPUTS}/no_memory.json",
]
BAIT = (
    "json", "numpy", "pickle", "struct", "random", "socket", "selectors", "ctypes", "cffi",
    "importlib", "logging", "msgspec", "sitecustomize", "usercustomize", "astra_bridge",
)  # fmt: skip
# The command as installed: its folder, not the working directory, comes first.
COMMAND = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
from astra_bridge.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    for name in BAIT:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'RAN')!r}, 'a').write({name!r})\n")
    (folder / "backend").mkdir()
    return folder


def command(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=here, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_library(here: Path) -> None:
    library = foreign_library(here)
    done = command(here, *RUN, f"--backend={library}")
    assert done.returncode == 0, done.stderr
    assert not (here / "RAN").exists()


@pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable()))
def test_ns3(here: Path) -> None:
    done = command(here, *RUN, "--backend=ns3")
    assert done.returncode == 0, done.stderr
    assert not (here / "RAN").exists()


def test_conformance(here: Path) -> None:
    done = command(here, "conformance", str(library_path("mock")), "--rule=R1")
    assert done.returncode == 0, done.stderr
    assert not (here / "RAN").exists()


@pytest.mark.parametrize("entry", [".", "", "../here", "{here}"])
def test_entries_of_the_path_that_lead_here(entry: str, here: Path) -> None:
    """The parent may search there; a child does not."""
    code = (
        "import sys\n"
        "before = list(sys.path)\n"
        "from astra_bridge.supervision import safe_path\n"
        "print(*before, '', *safe_path(), sep='\\n')\n"
    )
    for bait in here.glob("*.py"):
        bait.unlink()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{entry.format(here=here)}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *given = done.stdout.removesuffix("\n").split("\n")
    assert first == ""  # of -c
    safe = given[given.index("") + 1 :]
    assert str(here) in {os.path.realpath(here / path) for path in given[: given.index("")]}
    assert str(here) not in {os.path.realpath(here / path) for path in safe}
    assert str(ROOT) in safe


def test_the_module_as_a_command_from_its_own_root(tmp_path: Path) -> None:
    """``python -m`` puts the working directory first; a child takes the package alone from it."""
    library = foreign_library(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "astra_bridge", *RUN, f"--backend={library}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_is_safe() -> None:
    assert all(Path(entry).is_absolute() for entry in safe_path())
    assert str(Path.cwd()) not in safe_path()
