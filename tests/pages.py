# SPDX-License-Identifier: MIT
"""Blocks of code of the pages, and how they run: as a reader would, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Block", "blocks", "run"]

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMES = 'astra-bridge() { "$PYTHON" -m astra_bridge "$@"; }\npython() { "$PYTHON" "$@"; }\n'


class Block(NamedTuple):
    """A fenced block.

    Attributes
    ----------
    line
        Of the page, where it begins.
    language
        "" where it has none.
    text
        Its content.
    shown
        Indented lines between it and the next block or heading, which are part of what it prints;
        ``...`` stands for others.
    """

    line: int
    language: str
    text: str
    shown: tuple[str, ...]


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = list(_FENCE.finditer(page))
    ends = [*(one.start() for one in found[1:]), len(page)][: len(found)]
    return [
        Block(
            page.count("\n", 0, one.start()) + 1,
            one[1],
            one[2],
            # What stands below another heading is no output.
            tuple(
                re.findall("^    (.*)$", page[one.end() : end].partition("\n#")[0], re.MULTILINE)
            ),
        )
        for one, end in zip(found, ends, strict=True)
    ]


def run(block: Block, folder: Path) -> str:
    """Run a block of ``sh`` or ``python`` in a folder; what it prints.

    Raises
    ------
    AssertionError
        It fails, or does not print what the page shows.
    """
    words = [sys.executable, "-"] if block.language == "python" else ["bash", "-eu"]
    done = subprocess.run(
        words,
        input=block.text if block.language == "python" else _NAMES + block.text,
        cwd=folder,
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"line {block.line}: {done.stderr}"
    printed = (done.stdout + done.stderr).splitlines()
    for line in block.shown:
        assert line == "..." or line in printed, f"line {block.line}: {line}"
    return done.stdout
