# SPDX-License-Identifier: MIT
"""Simulations in child processes: what ends a child does not end us, and says what it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from astra_bridge.cli import main
from astra_bridge.engine import Outcome, native
from astra_bridge.errors import BackendError, ContractError, SimulationError
from astra_bridge.inputs.memory import read_remote_memory
from astra_bridge.inputs.system import read_system
from astra_bridge.isolation import RunRequest, run_here, run_isolated
from astra_bridge.lowering import lower
from astra_bridge.network.api import NetworkConfig
from astra_bridge.network.registry import backend
from astra_bridge.program import Program
from astra_bridge.trace import CommType
from astra_bridge.workload import collective
from tests.small import network, same_on_all, system

pytestmark = pytest.mark.usefixtures("every_kind_of_child")

ENGINES = ("python",) if native.unavailable() else ("python", "native")
RANKS = 4


@pytest.fixture(scope="module")
def program() -> Program:
    return lower(
        same_on_all(RANKS, lambda trace: trace.coll(CommType.ALL_REDUCE, 65536)),
        read_system(system()),
        read_remote_memory({"memory-type": "NO_MEMORY_EXPANSION"}),
        (RANKS,),
        {},
    ).program


def config(**options: str) -> NetworkConfig:
    return NetworkConfig(RANKS, RANKS, options=options)


def isolated(
    library: Path, program: Program, options: Mapping[str, str], engine: Any = "python"
) -> Outcome:
    used = NetworkConfig(RANKS, RANKS, options=options)
    run = run_isolated(str(library), RunRequest(used, program, engine), None)
    assert run.engine == engine
    return run.outcome


@pytest.mark.parametrize("engine", ENGINES)
def test_the_answer_is_that_of_a_run_here(
    engine: Any, mock_library: Path, program: Program
) -> None:
    here = run_here(backend(str(mock_library)), RunRequest(config(), program, engine), None)
    there = run_isolated(str(mock_library), RunRequest(config(), program, engine), None)
    assert there.engine == here.engine == engine
    for name in [field.name for field in fields(Outcome) if "NDArray" in str(field.type)]:
        mine, theirs = getattr(here.outcome, name), getattr(there.outcome, name)
        assert mine.dtype == theirs.dtype
        assert mine.tolist() == theirs.tolist()
    assert there.outcome.events == here.outcome.events
    assert there.stats == here.stats
    assert there.tables.keys() == here.tables.keys()
    for name, table in here.tables.items():
        assert {column: cells.tolist() for column, cells in table.items()} == {
            column: cells.tolist() for column, cells in there.tables[name].items()
        }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("abort", "was ended by SIGABRT"),
        ("segv", "was ended by SIGSEGV"),
        ("exit", "ended with exit code"),
    ],
)
@pytest.mark.parametrize("call", ["create", "exchange"])
def test_the_end_of_the_child_is_an_error_here(
    fault: str, how: str, call: str, engine: Any, mock_library: Path, program: Program
) -> None:
    with pytest.raises(BackendError) as caught:
        isolated(mock_library, program, {"fault": fault, "fault.call": call}, engine)
    assert caught.value.exit_code == 4
    assert f"{how}" in str(caught.value)
    assert caught.value.call == call
    assert str(mock_library) in str(caught.value)


def test_an_error_of_the_child_is_an_error_here(mock_library: Path, program: Program) -> None:
    options = {"rate_Bps": "nonsense"}
    # Not a death, but an error that crosses over as itself.
    with pytest.raises(ContractError) as caught:
        isolated(mock_library, program, options)
    assert "rate_Bps" in str(caught.value)


def test_a_failing_network_keeps_what_was_reached(mock_library: Path, program: Program) -> None:
    options = {"fault": "status:5", "fault.call": "exchange", "fault.nth": "4"}
    with pytest.raises(SimulationError) as caught:
        isolated(mock_library, program, options)
    assert "injected status 5" in str(caught.value)
    reached = caught.value.outcome  # type: ignore[attr-defined]
    assert reached.finish_ps.tolist() == [-1] * RANKS
    assert reached.transfers > 0


def test_an_error_here_ends_the_child(mock_library: Path, program: Program) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    before = children()
    with pytest.raises(KeyboardInterrupt):
        run_isolated(str(mock_library), RunRequest(config(), program, "python"), stop)
    assert children() == before


def children() -> set[str]:
    folder = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return set(folder.read_text().split()) if folder.exists() else set()


def test_several_run_side_by_side(mock_library: Path, program: Program) -> None:
    latencies_ps = [0, 1000, 1000, 50_000]
    expected = [
        run_here(
            backend(str(mock_library)),
            RunRequest(config(latency_ps=str(ps)), program, "python"),
            None,
        ).outcome.finish_ps.tolist()
        for ps in latencies_ps
    ]
    with ThreadPoolExecutor(4) as threads:
        runs = [
            threads.submit(isolated, mock_library, program, {"latency_ps": str(ps)})
            for ps in latencies_ps
        ]
        dying = threads.submit(
            isolated, mock_library, program, {"fault": "abort", "fault.call": "exchange"}
        )
        assert [run.result().finish_ps.tolist() for run in runs] == expected
        with pytest.raises(BackendError, match="SIGABRT"):
            dying.result()


@pytest.mark.parametrize(("fault", "code"), [("none", 0), ("abort", 4), ("status:5", 3)])
def test_the_command_says_it_with_its_exit_code(
    fault: str,
    code: int,
    mock_library: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generated = collective("all-reduce", 65536, RANKS)
    generated.write(tmp_path / "trace")
    (tmp_path / "system.json").write_text(json.dumps(system()))
    (tmp_path / "network.yml").write_text(yaml.safe_dump(network("Ring", RANKS)))
    (tmp_path / "memory.json").write_text('{"memory-type": "NO_MEMORY_EXPANSION"}')
    names = {
        "workload": "trace",
        "system": "system.json",
        "network": "network.yml",
        "remote-memory": "memory.json",
    }
    options = [] if fault == "none" else [f"fault={fault}", "fault.call=exchange"]
    arguments = [
        "run",
        f"--backend={mock_library}",
        *(f"--{key}-configuration={tmp_path / name}" for key, name in names.items()),
        *(f"--network-option={option}" for option in options),
    ]
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out.count(" finished, ") == (RANKS if code == 0 else 0)
    if code == 4:
        assert "exchange: the process that runs it was ended by SIGABRT" in captured.err
    if code == 3:
        assert "injected status 5" in captured.err
        assert "4 of 4 ranks never finish" in captured.err
