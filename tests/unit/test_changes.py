# SPDX-License-Identifier: MIT
"""Every file of changes/ is well-formed, and a release makes a section of CHANGELOG.md of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRAGMENTS = sorted({*(ROOT / "changes").iterdir()} - {ROOT / "changes/README.md"})
LONGEST = 140


def faults(name: str, text: str) -> list[str]:
    """What is wrong with one file."""
    found = []
    if not re.fullmatch(r"[a-z0-9.-]+\.(added|changed|fixed)\.md", name):
        found.append("its name is not WORDS.added.md, WORDS.changed.md or WORDS.fixed.md")
    if not text.startswith("- ") or not text.endswith("\n") or text.endswith("\n\n"):
        found.append("it is not the items of a list, each line ended once")
    for number, line in enumerate(text.splitlines(), 1):
        if not re.match(r"(- |  )\S", line):
            found.append(f"line {number} neither begins an item nor continues one: {line!r}")
        if len(line) > LONGEST:
            found.append(f"line {number} has {len(line)} characters; at most {LONGEST}")
    return found


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_well_formed(path: Path) -> None:
    if path.suffix != ".jinja":
        assert faults(path.name, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("thing.md", "- A thing.\n"),
        ("thing.feature.md", "- A thing.\n"),
        ("Big Thing.added.md", "- A thing.\n"),
        ("thing.added.md", "A thing.\n"),
        ("thing.added.md", "- A thing."),
        ("thing.added.md", "- A thing.\n\n"),
        ("thing.added.md", "- A thing,\nand another.\n"),
        ("thing.added.md", "- A thing.\n\n- Another.\n"),
        ("thing.added.md", "<" * 7 + " HEAD\n- A thing.\n"),
        ("thing.added.md", f"- {'long ' * 30}\n"),
    ],
)
def test_the_check_can_fail(name: str, text: str) -> None:
    assert faults("thing.added.md", "- A thing,\n  and more.\n- Another.\n") == []
    assert faults(name, text) != []


def test_the_list_of_changes_has_releases_only() -> None:
    """What git merges into CHANGELOG.md on its own belongs into changes/."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.count("<!-- releases -->\n") == 1
    before, after = text.split("<!-- releases -->\n")
    assert "\n- " not in before
    assert "unreleased" not in after
    assert after == "" or after.startswith("\n## ")


def test_a_release_makes_a_section_of_them(
    tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    if find_spec("towncrier") is None:
        missing("towncrier", "towncrier is not installed")
    for name in ("CHANGELOG.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "changes", tmp_path / "changes")
    (tmp_path / "changes/thing.fixed.md").write_text("- A thing,\n  and more.\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--yes", "--version=9.9", "--date=2030-01-02"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    after = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    head, rest = before.split("<!-- releases -->\n")
    assert after.startswith(f"{head}<!-- releases -->\n\n## 9.9 (2030-01-02)\n\n### ")
    assert after.endswith(f"\n{rest}")
    assert "\n\n\n" not in after
    assert not after.endswith("\n\n")
    assert "\n- A thing,\n  and more.\n" in after.split("\n\n### Fixed\n")[1]
    for path in FRAGMENTS:
        if path.suffix != ".jinja":
            assert path.read_text(encoding="utf-8") in after
    left = {path.name for path in (tmp_path / "changes").iterdir()}
    assert left == {"README.md", "template.jinja"}
