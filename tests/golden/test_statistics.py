# SPDX-License-Identifier: MIT
"""The statistics lines and the local-memory trace that ASTRA-sim itself wrote."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.cli import main
from astra_bridge.validation.cases import write_golden_case
from tests.golden_run import KINDS, Kind, answer, run, why_not

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "statistics.json").read_text(encoding="utf-8")
)


def events(trace: list[dict[str, Any]]) -> Counter[str]:
    """The events of a trace in any order.  Rows (tid) of tensors are numbered as a hash table has
    them, in ASTRA-sim, but those of the heat map by lifetime."""
    found: Counter[str] = Counter()
    for event in trace:
        if event.get("cat", "tensorHeatmap") != "tensorHeatmap":
            event = event | {"tid": "any"}
        found[json.dumps(event, sort_keys=True)] += 1
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_lines_and_local_memory(
    case: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = write_golden_case(case, tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--backend=analytical-unaware", f"--output={tmp_path / 'out'}"]
    assert main([*arguments, *files.arguments()]) == 0
    lines = re.findall(r"\[(?:statistics|workload)\] \[info\] (sys.*)", capsys.readouterr().out)
    assert sorted(lines) == case["expect"]["lines"]
    expected = case["expect"].get("local_memory_of_rank_0")
    if expected is not None:
        trace = json.loads((tmp_path / "out" / "mem.0.json").read_text(encoding="utf-8"))
        assert events(trace["traceEvents"]) == events(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_times(case: dict[str, Any], kind: Kind, tmp_path: Path) -> None:
    if reason := why_not(kind):
        pytest.skip(reason)
    files = write_golden_case(case, tmp_path)
    assert answer(run(files, kind)) == (files.finish_ns, files.exposed_comm_ns)
