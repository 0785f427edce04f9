# SPDX-License-Identifier: MIT
"""The commands in README.md and in the examples do what the text beside them says."""

from __future__ import annotations

import re
import runpy
import shlex
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
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r"astra-bridge (run (?!--backend ns3).*)", "\n".join(blocks))
    return [shlex.split(command.split("&&")[0]) for command in found]


PAGES = [ROOT / "README.md", ROOT / EXAMPLES / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_page(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = commands(page)
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
            "--comm-group-configuration=training/comm_group.json",
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
