# SPDX-License-Identifier: MIT
"""The command line, with a simulation that is replaced where it would be run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import astra_bridge
from astra_bridge import Experiment
from astra_bridge.cli import main
from astra_bridge.cli import run as run_module
from astra_bridge.cli.command import Command, dispatch
from astra_bridge.cli.progress import ProgressReport
from astra_bridge.cli.summary import text_table
from astra_bridge.engine.outcome import Progress
from astra_bridge.errors import BackendError, InputError, StalledError
from astra_bridge.trace import CommType
from tests.made_result import PAIR, make
from tests.small import network, same_on_all, system
from tests.waiting import until

REQUIRED = {
    "workload-configuration": "trace",
    "system-configuration": "system.json",
    "network-configuration": "network.yml",
    "remote-memory-configuration": "memory.json",
}
ARGUMENTS = [f"--{key}={value}" for key, value in REQUIRED.items()]


def parsed(*words: str) -> dict[str, Any]:
    """What the function of `run` gets."""
    seen: dict[str, Any] = {}
    command: Command = run_module.COMMAND._replace(run=lambda **values: seen.update(values))
    assert dispatch(command, words) == 0
    return seen


def test_astra_sims_flags() -> None:
    values = parsed(
        *ARGUMENTS,
        "--comm-group-configuration=empty",
        "--num-queues-per-dim=2",
        "--injection-scale",
        "0.5",
        "--rendezvous-protocol=true",
        "--network-option=A=1",
        "--network-option",
        "B=x=y",
    )
    assert {key: values[key.replace("-", "_")] for key in REQUIRED} == REQUIRED
    assert values["num_queues_per_dim"] == 2
    assert values["injection_scale"] == 0.5
    assert values["rendezvous_protocol"] is True
    assert values["in_process"] is False
    assert values["comm_scale"] is None
    assert values["network_option"] == ["A=1", "B=x=y"]
    assert values["set"] == []
    assert values["output"] is None
    assert parsed("--backend=a", "--backend", "b")["backend"] == "b"
    assert parsed("--in-process", "x.yaml")["experiment"] == "x.yaml"


_SAID = ("", "empty", "it is found out", "there is no remote memory")
"""Defaults in words."""


def test_the_defaults_that_help_says_are_those_of_an_experiment() -> None:
    defaults = {one.name: one.default for one in fields(astra_bridge.Experiment)}
    for rows in run_module.COMMAND.arguments.values():
        for row in rows:
            if row.field and row.otherwise not in _SAID:
                assert row.default is None
                assert row.otherwise == f"{defaults[row.field]}".removesuffix(".0"), row.name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rendezvous-protocl=true"], "did you mean '--rendezvous-protocol'"),
        (["--system_configuration=x"], "did you mean '--system-configuration'"),
        (["--zzz"], "run --help"),
        (["-x"], "unexpected argument '-x'"),
        (["trace"], "unexpected argument 'trace'"),
        (["a.yaml", "b.yaml"], "unexpected argument 'b.yaml'"),
        (["--", "--backend"], "unexpected argument '--backend'"),
        (["--engine=fast"], "allowed: auto, native, python"),
        (["--semantics=corected"], "did you mean 'corrected'"),
        (["--num-queues-per-dim=0"], "whole numbers from 1"),
        (["--num-queues-per-dim=1.5"], "whole numbers from 1"),
        (["--num-queues-per-dim=²"], "whole numbers from 1"),
        (["--comm-scale=nan"], "numbers from 0 up to"),
        (["--comm-scale=-1"], "numbers from 0 up to"),
        (["--rendezvous-protocol=maybe"], "allowed: true, false"),
        (["--backend="], "--backend: needs a value"),
        (["--backend"], "--backend: expected one argument"),
        ([], "missing: --workload-configuration, --system-configuration"),
    ],
)
def test_flag_errors(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def write_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch, system: str = "{}") -> None:
    (folder / "system.json").write_text(system)
    (folder / "memory.json").write_text('{"memory-type": "NO_MEMORY_EXPANSION"}')
    monkeypatch.chdir(folder)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace the simulation; what it is called with is collected."""
    write_inputs(tmp_path, monkeypatch)
    seen: list[dict[str, Any]] = []

    def run(self: astra_bridge.Experiment, **arguments: Any) -> Any:
        seen.append({one.name: getattr(self, one.name) for one in fields(self)} | arguments)
        result = make(
            tmp_path,
            [[(0, 100), (50, 200)]] * 2,
            [PAIR, PAIR],
            {"track-local-mem": int(self.system_config.track_local_mem)},
            warnings=("queues are long",),
        )
        failure = {"stalled": StalledError, "broken": BackendError, "bug": ZeroDivisionError}
        if self.backend in failure:
            raise failure[self.backend](self.backend)
        return result

    monkeypatch.setattr(astra_bridge.Experiment, "run", run)
    return seen


def test_run(
    calls: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "system.json").write_text('{"boost-mode": 1, "track-local-mem": 1}')
    extra = ["--json=r.json", "--output=out", "--network-option=K=V", "--engine=python"]
    assert main(["run", *ARGUMENTS, *extra]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].endswith(
        "[workload] [info] sys[0] finished, 200 cycles, exposed communication 100 cycles."
    )
    assert any(line.endswith("sys[1] peak memory usage: 0.00 B") for line in lines)
    finish = ["finish", *["200", "ns"] * 3, "0"]
    assert any(line.split() == finish for line in lines)
    assert captured.err.splitlines() == [
        "warning: system.json: boost-mode: ignored: ASTRA-sim 2.0 reads no such key",
        "warning: queues are long",
    ]
    assert json.loads((tmp_path / "r.json").read_text())["finish_ns"] == [200, 200]
    for name in ("result.json", "ranks.csv", "nodes.csv", "timeline.pftrace", "log/log.log",
                 "log/err.log", "local_mem_trace.1.json"):  # fmt: skip
        assert (tmp_path / "out" / name).is_file(), name
    (call,) = calls
    assert call["network_options"] == {"K": "V"}
    assert (call["engine"], call["backend"]) == ("python", "analytical-aware")
    assert call["comm_groups"] is None
    assert call["workload"] == Path("trace")


@pytest.mark.parametrize(
    ("backend", "code", "said"),
    [
        ("stalled", 3, "error: stalled\n"),
        ("broken", 4, "error: broken\n"),
        ("bug", 1, "error: internal fault: ZeroDivisionError: bug\n"),
    ],
)
def test_exit_codes(
    backend: str,
    code: int,
    said: str,
    calls: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", *ARGUMENTS, f"--backend={backend}"]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(said)
    assert "Traceback" not in captured.err
    assert "finished" not in captured.out


def test_bad_system_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, monkeypatch, '{"endpoint-delay": "ten"}')
    assert main(["run", *ARGUMENTS]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: system.json: endpoint-delay: ")
    assert said.endswith(", found 'ten'\n")


def test_bad_network_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *ARGUMENTS, "--network-option=K"]) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, f"astra-bridge {astra_bridge.__version__}"),
        (["--help"], 0, "doctor"),
        (["run", "--help"], 0, "--remote-memory-configuration"),
        (["doctor"], 0, "analytical-aware"),
        (["runn"], 2, "unknown command 'runn'; did you mean 'run'?"),
    ],
)
def test_other_commands(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert said in captured.out + captured.err


def test_progress_speaks_after_a_while_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = Progress(now_ps=5_000_000_000, events=3000, nodes_done=1, nodes_total=4)
    with ProgressReport() as report:
        report(progress)
        clock[0] = 9.0
        report(progress)
        assert capsys.readouterr().err == ""
        clock[0] = 30.0
        report(progress)
    assert capsys.readouterr().err == ("simulated 5.000 ms, 100 events/s, 25.0% of 4 nodes done\n")


def test_progress_says_how_long_it_takes_inside_one_collective(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    experiment = Experiment(
        same_on_all(8, lambda trace: trace.coll(CommType.ALL_REDUCE, 10**6)), system(),
        network(npus=8),
    )  # fmt: skip
    events = experiment.run().events
    assert experiment.lower().program.events == events
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with ProgressReport(lambda: experiment.lower().program) as report:
        for clock[0], done in ((0.0, 0), (30.0, events // 4), (3030.0, events // 2)):
            report(Progress(now_ps=0, events=done, nodes_done=0, nodes_total=8))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("25.0% done, about 90 s left")
    assert second.endswith("50.0% done, about 50 min left")


def test_work_without_measure_says_that_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astra_bridge.cli.progress._PLAIN_S", 0.02)
    monkeypatch.setattr("astra_bridge.cli.progress.time", SimpleNamespace(monotonic=lambda: 7.0))
    before = set(threading.enumerate())
    said = []

    def run() -> None:
        said.append(until(lambda: capsys.readouterr().err))
        assert len(set(threading.enumerate()) - before) == 1

    assert (
        dispatch(Command("Work.", {"options": ()}, run, "work", work="generating traces"), []) == 0
    )
    assert said[0].startswith("note: 0 s: still generating traces\n")
    assert until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("backend", ["analytical-aware", "analytical-unaware"])
@pytest.mark.parametrize("algorithm", ["ring", "direct", "halvingDoubling", "doubleBinaryTree"])
def test_how_many_events_there_will_be(algorithm: str, backend: str) -> None:
    experiment = Experiment(
        same_on_all(16, lambda trace: trace.coll(CommType.ALL_REDUCE, 10**6)),
        system([algorithm] * 2, all_to_all_implementation=["direct"] * 2,
               all_gather_implementation=["ring"] * 2, reduce_scatter_implementation=["ring"] * 2),
        network("Switch Switch", [4, 4], [50, 25], [500, 700]), backend=backend,
    )  # fmt: skip
    events = experiment.run().events
    assert experiment.lower().program.events == pytest.approx(events, rel=0.1)


def test_progress_on_a_terminal_is_one_line_that_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("astra_bridge.cli.progress.columns", lambda stream: 30)
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress(now_ps=5_000_000_000, events=3000, nodes_done=1, nodes_total=4)
    with ProgressReport() as report:
        for clock[0] in (0.9, 2.0, 2.1):  # too early; a line; too soon after it
            report(progress)
        said = capsys.readouterr().err
        assert said == "\r\x1b[Ksimulated 5.000 ms, 1,500 eve\r"
    assert capsys.readouterr().err == "\r\x1b[K"
    with ProgressReport():
        pass
    assert capsys.readouterr().err == ""


def test_a_long_preparation_says_that_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astra_bridge.cli.progress._PLAIN_S", 0.02)
    monkeypatch.setattr("astra_bridge.cli.progress.time", SimpleNamespace(monotonic=lambda: 7.0))
    before = set(threading.enumerate())
    with ProgressReport() as report:
        said = until(lambda: capsys.readouterr().err)
        assert said.startswith("note: 0 s: still preparing")
        assert len(set(threading.enumerate()) - before) == 1
        report(Progress(now_ps=0, events=0, nodes_done=0, nodes_total=1))
        assert until(lambda: set(threading.enumerate()) <= before)
        capsys.readouterr()
    assert capsys.readouterr().err == ""


def test_text_table() -> None:
    assert text_table(["name", "n"], [["a", "10"], ["long name", "2"]]) == (
        "name        n\na          10\nlong name   2"
    )


def test_version_is_that_of_the_project() -> None:
    root = Path(__file__).parents[2]
    assert f'\nversion = "{astra_bridge.__version__}"\n' in (root / "pyproject.toml").read_text()
    assert f"\nversion: {astra_bridge.__version__}\n" in (root / "CITATION.cff").read_text()


def test_import_is_light() -> None:
    """``import astra_bridge`` and the flags of ``run`` need no numpy."""
    code = (
        "import sys, astra_bridge, astra_bridge.cli.run\n"
        "heavy = {'numpy', 'yaml', 'shutil', 'textwrap', 'google', 'msgspec'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert astra_bridge.InputError.exit_code == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="simulte"):
        astra_bridge.simulte  # noqa: B018
    assert astra_bridge.InputError is InputError


def test_how_much_is_printed(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, lines, table in (
        ([], 2, True),
        (["--log-lines=summary"], 0, True),
        (["--quiet"], 0, False),
    ):
        assert main(["run", *ARGUMENTS, *flags]) == 0
        out = capsys.readouterr().out
        assert out.count("finished, ") == lines
        assert ("max at rank" in out) == table


@pytest.mark.parametrize("flag", ["--output", "--json", "--logging-folder"])
def test_where_results_go_is_looked_at_before_the_run(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An hour of simulation is not lost because its results cannot be written."""
    (tmp_path / "file").write_text("")
    words = ["run", "--workload-configuration=none", f"{flag}={tmp_path / 'file' / 'x'}"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"{flag}: cannot write: " in said
    assert "file is no folder" in said
