# SPDX-License-Identifier: MIT
"""docs/models.md: its commands run and print what it says, and it has all names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from astra_bridge.cli import main
from astra_bridge.workload.models import SCHEDULES, model_names
from astra_bridge.workload.models.config import ARCHITECTURES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/models.md").read_text(encoding="utf-8")


def test_its_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("system.json", "no_memory.json"):
        shutil.copy(ROOT / "examples/analytical" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = [
        line.removeprefix("astra-bridge ").split()
        for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("astra-bridge ")
    ]
    (host,) = re.findall(r"(?m)^echo '(.*)' > out/host.json$", PAGE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/host.json").write_text(host)
    # 1,024 kinds of ranks take a while.
    commands = [words for words in commands if "out/uneven" not in words]
    assert len(commands) == 10
    said = []
    for words in commands:
        assert main(words) == 0, words
        said.append(capsys.readouterr().out)
    shown = [re.sub("(?m)^    ", "", block) for block in re.findall(r"((?:    .*\n)+)", PAGE)]
    assert [said[0], said[3]] == shown[:2]
    assert "16 ranks" in said[2]
    assert "for 16384 ranks" in said[-1]


def test_its_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], {})
    assert re.fullmatch(r"[\d.]+ GiB\n[\d.]+ s\n", capsys.readouterr().out)


def test_all_names_are_there() -> None:
    for name in (*ARCHITECTURES, *SCHEDULES):
        assert f"`{name}`" in PAGE, name
    for name in model_names():
        assert f"    {name} " in PAGE, name
