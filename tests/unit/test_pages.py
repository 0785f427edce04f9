# SPDX-License-Identifier: MIT
"""Every block of code of the pages: its commands are understood, and it runs here or elsewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.cli.command import Command, dispatch
from astra_bridge.cli.commands import ROOT as COMMANDS
from astra_bridge.network.native import library_path
from tests.pages import ROOT, Block, blocks, run

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md")
}
CODE = ("sh", "python")

# Blocks of sh and python run here, in their order, in one folder; of Python in one process.
RUN = [
    "docs/architecture.md", "docs/extending.md", "docs/fabrics.md", "docs/folding.md",
    "docs/formats/remote_memory.md",
    "docs/hardware.md", "docs/howto.md", "docs/models.md", "docs/python.md", "docs/remote.md",
    "docs/report.md", "docs/workloads.md", "README.md",
]  # fmt: skip

# Elsewhere: a test that reads the page, or why no machine of ours can.
ELSEWHERE = {
    "docs/coming_from_astra_sim.md": "tests/golden/test_examples.py",
    "docs/compare.md": "tests/unit/test_comparison.py",
    "docs/contract.md": "tests/unit/test_new_backend.py",
    "docs/formats/trace.md": "PREFIX stands for a trace of the reader's",
    "docs/htsim.md": "tests/golden/test_htsim.py",
    "docs/new_backend.md": "tests/unit/test_new_backend.py",
    "docs/recordings.md": "tests/unit/test_recordings.py",
    "docs/serve.md": "tests/crossval/test_sdk.py",
    "docs/sweeps.md": "tests/unit/test_sweep.py",
    "docs/tiers.md": "tests/unit/test_tiers.py",
    "docs/tutorial_architect.md": "tests/unit/test_site.py",
    "docs/tutorial_network.md": "tests/unit/test_site.py",
    "docs/validation.md": "tests/unit/test_validation.py",
}


def code_of(page: str) -> list[Block]:
    return [one for one in blocks(PAGES[page]) if one.language in CODE]


def test_every_page_with_code_is_run_somewhere() -> None:
    assert {page for page in PAGES if code_of(page)} == {*RUN, *ELSEWHERE}
    for place in ELSEWHERE.values():
        assert " " in place or (ROOT / place).is_file(), place


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", RUN)
def test_every_block_runs_and_prints_what_stands_below(
    page: str, tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    if not library_path("flow").exists():
        missing("native", "flow is not built")
    for needed in ("scipy", "plotly", "matplotlib"):
        pytest.importorskip(needed)
    for name in ("astra_bridge", "backends", "csrc", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for one in blocks(PAGES[page]):
        if one.language == "json" and '"name": "my-card"' in one.text:
            (tmp_path / "my-card.json").write_text(one.text)
    rings = {f"{name}-implementation": ["ring", "ring"]
             for name in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")}  # fmt: skip
    (tmp_path / "system.json").write_text(json.dumps(rings))
    before = ""  # Python of the page so far: a block goes on where the one before ended
    for one in code_of(page):
        if one.language == "python" and page != "docs/extending.md":
            run(one._replace(text=before + one.text), tmp_path, 200)
            before += one.text
        else:
            run(one, tmp_path, 200)


def commands() -> list[Any]:
    """All command lines of ``astra-bridge`` in fenced blocks of all pages."""
    found = []
    for page, text in PAGES.items():
        for one in blocks(text):
            lines = re.sub(r"\\\n\s*", " ", one.text).splitlines()
            for line in lines:
                match = re.match(r"(?:\$ )?(?:\S*bin/|\w+=\S+ )*astra-bridge (.*)", line)
                if match and "..." not in match[1] and "[--" not in match[1]:
                    found.append(pytest.param(match[1], id=f"{Path(page).stem}:{one.line}"))
    return found


@pytest.mark.parametrize("line", commands())
def test_every_command_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name, its flags and their values; also where it cannot run here."""
    words = shlex.split(line.split(" | ")[0].split(" > ")[0].split(" && ")[0], comments=True)
    words = [word for word in words if word not in ("&", "||")]
    if "||" in line:
        words = shlex.split(line.split("||")[0])
    entry: Any = COMMANDS
    while not isinstance(entry, Command):
        entry = entry.find(words.pop(0))
    seen: dict[str, Any] = {}
    assert dispatch(entry._replace(run=lambda **given: seen.update(given)), words) == 0
    assert seen or words == ["--help"] or not words


def test_the_check_of_commands_can_fail() -> None:
    from astra_bridge.errors import InputError

    with pytest.raises(InputError, match="unknown flag"):
        dispatch(COMMANDS.find("run")._replace(run=lambda **_: None), ["--sytem=x"])
    assert len(commands()) > 90
    assert find_spec("astra_bridge") is not None
