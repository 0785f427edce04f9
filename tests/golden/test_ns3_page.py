# SPDX-License-Identifier: MIT
"""The quick commands of docs/ns3.md give the numbers that stand beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from astra_bridge.cli import main
from tests.ns3_networks import needs_our_devices

ROOT = Path(__file__).parents[2]
FOLDER = "examples/analytical"

pytestmark = needs_our_devices


@pytest.mark.parametrize(("option", "finish_ns"), [("tcp", 69540), ("rdma", 28865)])
def test_one_experiment_on_either_transport(
    option: str,
    finish_ns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    code = main(
        [
            "run",
            "--backend=ns3",
            f"--network-option=transport={option}",
            f"--workload-configuration={FOLDER}/all_reduce/trace",
            f"--system-configuration={FOLDER}/system.json",
            f"--network-configuration={FOLDER}/ring.yml",
            f"--remote-memory-configuration={FOLDER}/no_memory.json",
        ]
    )
    assert code == 0
    assert f"sys[7] finished, {finish_ns} cycles" in capsys.readouterr().out
    assert f"{finish_ns:,} ns" in (ROOT / "docs" / "ns3.md").read_text()
