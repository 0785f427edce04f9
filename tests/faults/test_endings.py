# SPDX-License-Identifier: MIT
"""The command ends its process at once, where nobody has anything left to do in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Freed at Python's own end, which then says so; a process that just ends frees nothing.
FREED = (
    "import sys\n"
    "class Kept:\n"
    "    def __del__(self, write=sys.stderr.write): write('freed\\n')\n"
    "sys.kept = Kept()\n"
)
COMMAND = "from astra_bridge.cli import command\n"
VERSION = "sys.argv = ['astra-bridge', '--version']\ncommand()\n"
SHARED = "from astra_bridge import process\nprocess.claim = process.share\n"


def ended(script: str, *flags: str) -> tuple[int, str, list[str]]:
    done = subprocess.run(
        [sys.executable, *flags, "-c", script],
        capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("script", "flags", "said"),
    [
        (COMMAND + VERSION, (), []),
        (COMMAND + VERSION, ("-W", "default"), ["freed"]),
        (COMMAND + VERSION, ("-X", "dev"), ["freed"]),
        (COMMAND + SHARED + VERSION, (), ["freed"]),
        (COMMAND.replace("command", "main as command") + VERSION, (), ["freed"]),
    ],
    ids=["at once", "warnings are wanted", "development mode", "code of others", "not the command"],
)
def test_nothing_is_freed_one_by_one(script: str, flags: tuple[str, ...], said: list[str]) -> None:
    code, out, errors = ended(FREED + script, *flags)
    assert (code, out.split()[0], errors) == (0, "astra-bridge", said)


def test_what_others_do_at_the_end_is_done() -> None:
    before = "import atexit, sys\natexit.register(print, 'first')\n"
    assert ended(before + COMMAND + VERSION)[1].endswith("first\n")
    during = "import atexit, sys\nfrom astra_bridge import process\n"
    during += "process.claim = lambda claim=process.claim: (claim(), atexit.register(print, 'x'))\n"
    code, out, errors = ended(FREED + COMMAND + during + VERSION)
    assert (code, out.splitlines()[-1], errors) == (0, "x", [])


def test_the_exit_code_is_the_commands() -> None:
    code, _, errors = ended(COMMAND + "import sys\nsys.argv = ['astra-bridge', 'ru']\ncommand()\n")
    assert code == 2
    assert any("ru" in line for line in errors)
