# SPDX-License-Identifier: MIT
"""Names and texts of others drive no terminal, forge no line, and do not fill the screen."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astra_bridge.cli import main, terminal
from astra_bridge.cli.summary import summary
from astra_bridge.errors import BackendError, InputError, StalledError
from astra_bridge.files import NewFiles
from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.inputs.system import read_system
from astra_bridge.results.files import save_log
from astra_bridge.text import one_line, printable, show
from astra_bridge.trace import read_workload
from astra_bridge.trace.writer import write_trace
from tests.made_result import COLL, make, node

EVIL = (
    "\x1b[2J\r\n[2026-01-01 12:00:00.000] [workload] [info] sys[0] finished, 1 cycles\x07\u202e\x9b"
)
HUGE = "n" * 2_000_000


def harmless(text: str, lines: bool = True) -> bool:
    allowed = "\n" if lines else ""
    return all(
        c in allowed or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text
    )


@given(st.text(st.characters(), max_size=300))
def test_whatever_the_text(text: str) -> None:
    for said in (one_line(text), show(text), one_line(printable(text).replace("\n", ""))):
        assert harmless(said, lines=False)
    assert harmless(printable(text))
    assert all(line.startswith("  ") for line in printable(text).split("\n")[1:])
    assert printable(printable(text)) == printable(text)
    if text.isprintable():
        assert one_line(text) == text


def test_huge_texts_are_cut() -> None:
    assert len(one_line(HUGE)) < 1100
    assert len(show(HUGE)) < 70
    assert len(printable(HUGE)) < 110_000
    assert "characters)" in one_line(HUGE)


@pytest.mark.parametrize("kind", [InputError, StalledError, BackendError])
def test_errors_are_fit_for_a_terminal(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from astra_bridge import cli

    def fail(_: list[str]) -> int:
        raise kind(EVIL)

    assert harmless(str(kind(EVIL)))
    monkeypatch.setattr(cli, "_dispatch", fail)
    assert main(["run"]) in (2, 3, 4)
    said = capsys.readouterr().err
    assert harmless(said)
    assert all(line.startswith(("error: ", "  ")) for line in said.splitlines())


def test_warnings_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("warning", EVIL)
    said = capsys.readouterr().err
    assert harmless(said)
    assert said.count("warning: ") == 1
    assert "\n[2026" not in said


def test_keys_of_files(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"\\u001b[31mred\\u0007": 1}')
    for read in (read_system, read_comm_groups):
        with pytest.raises(InputError) as caught:
            read(file)
        assert harmless(str(caught.value), lines=False)
    file.write_text('{"' + "1" * 200_000 + '": [0]}')
    with pytest.raises(InputError) as caught:
        read_comm_groups(file)
    assert len(str(caught.value)) < 1500


def test_names_in_a_log(tmp_path: Path) -> None:
    nodes = [node(0, COLL, EVIL, comm_type=0, comm_size=8), node(1, COLL, HUGE, comm_type=0)]
    result = make(tmp_path, [[(0, 5), (5, 9)]], [nodes], {"trace-enabled": 1}, backend=EVIL)
    with NewFiles() as files:
        save_log(files, result, result.statistics, tmp_path / "log", datetime(2026, 1, 1), [EVIL])
    log = (tmp_path / "log" / "log.log").read_text()
    assert harmless(log)
    assert log.count("finished") == 3 + 1  # warning, issue, callback; and the true one
    lines = log.splitlines()
    assert sum("] [workload] [info] sys[0] finished, 9 cycles" in line for line in lines) == 1
    assert not any(line.startswith("[2026-01-01 12") for line in lines)
    assert max(map(len, lines)) < 1500
    assert harmless(summary(result))


def test_what_a_dump_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.0.et"
    write_trace(file, [node(0, COLL, EVIL, comm_type=0, pg_name=EVIL), node(1, COLL, HUGE)])
    assert main(["trace", "dump", str(file)]) == 0
    said = capsys.readouterr().out
    assert harmless(said)
    assert len(said) < 4000
    assert len(said.splitlines()) == 4


def test_a_group_of_an_evil_name(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.0.et", [node(0, COLL, "n", comm_type=0, pg_name=EVIL + HUGE)])
    columns = read_workload(tmp_path / "t", 1).columns[0]
    assert columns.strings  # it is kept as it is; whoever shows it escapes it
