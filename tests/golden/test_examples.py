# SPDX-License-Identifier: MIT
"""The commands in README.md and in the examples do what the text beside them says."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from astra_bridge.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLES = "examples/analytical"
# 2 x (20 + 14 x (910 + 20) + 7 x 96) ns: see examples/analytical/README.md.
ALL_REDUCE_NS = 27424


def commands(page: Path) -> list[list[str]]:
    """Arguments of every ``astra-bridge run`` in the code blocks of a page.

    Those on ns-3 need made inputs and an installed ns-3; test_ns3_page.py runs them.
    """
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return commands_of("\n".join(blocks))


def commands_of(script: str) -> list[list[str]]:
    found = re.findall(r"astra-bridge (run (?!--backend ns3).*)", script.replace("\\\n", " "))
    return [shlex.split(command.split("&&")[0]) for command in found]


PAGES = [ROOT / "README.md", ROOT / EXAMPLES / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_page(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    # tests/unit/test_pages.py runs those of which the page makes the inputs itself.
    found = [one for one in commands(page) if any("=examples/" in word for word in one)]
    assert found
    for command in found:
        assert main(command) == 0
        out = capsys.readouterr().out
        line = (
            f"sys[7] finished, {ALL_REDUCE_NS} cycles, "
            f"exposed communication {ALL_REDUCE_NS} cycles."
        )
        assert line in out
    # The page itself says so too.
    assert str(ALL_REDUCE_NS) in page.read_text()


def test_every_command_for_who_comes_from_astra_sim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page makes its inputs itself: bash runs its blocks as they stand, one after the other.

    A block that runs a simulation is followed by the line that each of its ranks prints.
    """
    page = (ROOT / "docs" / "coming_from_astra_sim.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    # The folder is not the project's, so the commands are this Python's, whatever is installed.
    names = 'astra-bridge() { python -m astra_bridge "$@"; }\npython() { "$PYTHON" "$@"; }\n'
    shown = []
    for (kind, script), (_, line) in pairwise([*blocks, ("", "")]):
        if kind != "sh":
            continue
        done = subprocess.run(
            ["bash", "-euc", names + script],
            cwd=tmp_path,
            env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        for warning in done.stderr.splitlines():
            assert f"`{warning}`" in page
        if "astra-bridge run" in script:
            printed = re.findall(r"\[workload\] \[info\] sys.*", done.stdout)
            ranks = len(printed)
            each = [line.strip().replace("sys[0]", f"sys[{rank}]") for rank in range(ranks)]
            assert sorted(printed) == sorted(each)
            shown.append((ranks, int(line.split()[4])))
    # The first four are what ASTRA-sim prints for its own files (test_analytical_table.py).
    assert shown == [(8, 57426), (16, 323560), (8, 90174), (4, 22240), (8, 55298)]

    # ASTRA-sim's own command has the flags of the one under it.
    theirs = next(i for i, (_, script) in enumerate(blocks) if "AstraSim_" in script)
    flags, same = (re.findall(r"--[\w-]+", script) for _, script in blocks[theirs : theirs + 2])
    assert flags == same

    # Flags in the text, added to a command of the page, from another folder.
    monkeypatch.chdir(tmp_path / "out")
    hgx, _, custom, _, _ = commands_of("\n".join(script for _, script in blocks))
    added = re.findall(r"`(--(?:set |semantics=)'[^`]*)`", page)
    # 200 GiB/s: a message takes 152 ns, a step 2 * 1088 + 10 (see test_analytical_table.py).
    slower_ns = 2 * (10 + 14 * 2186 + 7 * 27) + 152
    for text, base, finish_ns in zip(
        added, [custom, hgx, hgx], [90174, 55298, slower_ns], strict=True
    ):
        command = [*base, *shlex.split(text)]
        assert main([word.replace("out/", "").replace("PREFIX", "ring") for word in command]) == 0
        assert f"sys[7] finished, {finish_ns} cycles" in capsys.readouterr().out, text


@pytest.mark.parametrize("semantics", ["astra-sim", "corrected"])
@pytest.mark.parametrize("network", ["ring", "two_dimensions", "leaf_spine"])
def test_training_step(
    network: str,
    semantics: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT / EXAMPLES)
    code = main(
        [
            "run",
            "--workload-configuration=training/trace",
            "--comm-group-configuration=training/trace.comm_group.json",
            f"--system-configuration=system{'' if network == 'ring' else '_2d'}.json",
            f"--network-configuration={network}.yml",
            "--remote-memory-configuration=no_memory.json",
            f"--semantics={semantics}",
        ]
    )
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.out.count(" finished, ") == 8


def test_sweep_gets_faster(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / EXAMPLES / "sweep_bandwidth.py"), run_name="__main__")
    rows = capsys.readouterr().out.splitlines()[1:]
    times = [int(row.split()[1].replace(",", "")) for row in rows]
    assert times == sorted(times, reverse=True)
    assert times[2] == ALL_REDUCE_NS


def test_shipped_workloads_are_what_the_script_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "make_inputs.py"
    script.write_bytes((ROOT / EXAMPLES / "make_inputs.py").read_bytes())
    runpy.run_path(str(script), run_name="__main__")
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("*/*"))
    assert len(made) == 17
    for path in made:
        assert (ROOT / EXAMPLES / path).read_bytes() == (tmp_path / path).read_bytes(), path
