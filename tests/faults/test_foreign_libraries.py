# SPDX-License-Identifier: MIT
"""Libraries that we did not ship crash, hang, exit and scribble; the user gets one sentence."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from astra_bridge import simulate
from astra_bridge.conformance import run_supervised
from astra_bridge.errors import BackendError, NetworkError
from astra_bridge.network.native import Library
from astra_bridge.results import Result
from astra_bridge.workload import collective
from tests.faults.test_signals import nothing_left
from tests.foreign import foreign_library, no_time_before_the_fault
from tests.small import network, system

pytestmark = pytest.mark.usefixtures("every_kind_of_child")

RANKS = 4
LIMIT_S = 1.0
"""How long a backend may go without progress that hangs; others may as long as they like."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_library(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(autouse=True)
def limits_of_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_time_before_the_fault(tmp_path, monkeypatch)


def run(library: Path, limit_s: float = 0, **options: str) -> Result:
    arguments: dict[str, Any] = {
        "backend": str(library),
        "network_options": options,
        "no_progress_timeout_s": limit_s,
    }
    workload = collective("all-reduce", 65536, RANKS)
    return simulate(workload, system(), network("Ring", RANKS), **arguments)


def refused(library: Path, limit_s: float = 0, **options: str) -> NetworkError:
    with pytest.raises(NetworkError) as caught:
        run(library, limit_s, **options)
    assert caught.value.exit_code == 4
    assert "Traceback" not in str(caught.value)
    return caught.value


def test_a_good_one_runs(library: Path) -> None:
    result = run(library)
    assert (result.finish_ns > 0).all()


DEATHS = {
    "segv": "was ended by SIGSEGV",
    "abort": "was ended by SIGABRT",
    "exit": "ended with exit code 0",
    "_exit": "ended with exit code 0",
    "signal40": "was ended by signal 40",
    "kill": "was ended by SIGKILL",
    "forkdie": "was ended by SIGABRT",
    "overwrite": "was ended by SIG",
    "closeall": "closed the pipe that belongs to astra_bridge",
    "writeall": "wrote into the pipe that belongs to astra_bridge",
    "chatter": "wrote into the pipe that belongs to astra_bridge",
    "hang": f"no progress for {LIMIT_S:g} s",
    "spin": f"no progress for {LIMIT_S:g} s",
    "print": f"no progress for {LIMIT_S:g} s",
    "stop": f"no progress for {LIMIT_S:g} s",
}
LIMITS_S = {what: LIMIT_S for what, said in DEATHS.items() if "no progress" in said}
CALLS = {
    "create": "create",
    "submit": "submit, advance or poll",
    "advance": "submit, advance or poll",
    "poll": "submit, advance or poll",
    "stats": "stats",
    "destroy": "destroy",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", DEATHS)
def test_every_fault_in_a_call(what: str, library: Path) -> None:
    error = refused(library, LIMITS_S.get(what, 0), fault=f"{what}_advance")
    assert DEATHS[what] in str(error)
    assert CALLS["advance"] in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["abort", "hang"])
@pytest.mark.parametrize("call", CALLS)
def test_every_call(call: str, what: str, library: Path) -> None:
    error = refused(library, LIMITS_S.get(what, 0), fault=f"{what}_{call}")
    assert DEATHS[what] in str(error)
    assert f": {CALLS[call]}: " in str(error)
    assert error.call == CALLS[call]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["segv", "exit", "hang", "closeall", "writeall"])
@pytest.mark.parametrize("place", ["CONSTRUCTOR", "INIT", "INFO"])
def test_loading(place: str, what: str, tmp_path: Path) -> None:
    bad = foreign_library(tmp_path, f'-D{place}="{what}"')
    call = {"CONSTRUCTOR": "load", "INIT": "astra_net_backend_init", "INFO": "info"}[place]
    error = refused(bad, LIMITS_S.get(what, 0))
    assert DEATHS[what] in str(error)
    assert f": {call}: " in str(error)


def test_what_is_no_library(tmp_path: Path, library: Path) -> None:
    content = library.read_bytes()
    for size in (0, 1, 64, 4096, len(content) // 2, len(content) - 5000):
        bad = tmp_path / f"{size}.so"
        bad.write_bytes(content[:size])
        refused(bad)
    data = foreign_library(tmp_path, "-DDATA", name="data.so")
    assert "astra_net_backend_init" in str(refused(data))
    address = foreign_library(tmp_path, "-DADDRESS", name="address.so")
    assert "create: the process that runs it was ended by SIGSEGV" in str(refused(address))


def test_loading_from_python_and_in_the_suite(tmp_path: Path, library: Path) -> None:
    bad = foreign_library(tmp_path, '-DCONSTRUCTOR="segv"')
    with pytest.raises(BackendError, match=r"load: .* ended by SIGSEGV"):
        Library.load(bad)
    with pytest.raises(BackendError, match=r"load: .* ended by SIGSEGV"):
        run_supervised(str(bad))
    assert Library.load(library).info.name == "foreign"
    (verdict,) = run_supervised(str(library), options={"fault": "exit_advance"}, rules=["R5"])
    assert "ended with exit code 0" in verdict.detail


def test_the_command_says_one_sentence(library: Path, tmp_path: Path) -> None:
    inputs = Path(__file__).parents[2] / "examples" / "analytical"
    for mode, code in (("none", 0), ("exit_advance", 4)):
        done = subprocess.run(
            [
                sys.executable, "-m", "astra_bridge", "run", f"--backend={library}",
                f"--workload-configuration={inputs}/all_reduce/trace",
                f"--system-configuration={inputs}/system.json",
                f"--network-configuration={inputs}/ring.yml",
                f"--remote-memory-configuration={inputs}/no_memory.json",
                f"--network-option=fault={mode}", f"--json={tmp_path}/{mode}.json",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert (tmp_path / f"{mode}.json").exists() == (code == 0)
        assert done.stderr.count("\n") == (code != 0)


def test_helpers_of_a_library_end_with_it(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_BRIDGE_MARK", "helpers")
    run(library, fault="fork_create")
    refused(library, fault="forkdie_create")
    nothing_left("ASTRA_BRIDGE_MARK=helpers")


def test_in_process_is_a_choice(library: Path) -> None:
    code = (
        "import sys\n"
        "from astra_bridge import simulate\n"
        "from astra_bridge.workload import collective\n"
        "from tests.small import network, system\n"
        "simulate(collective('all-reduce', 65536, 4), system(), network('Ring', 4),\n"
        "         backend=sys.argv[1], network_options={'fault': sys.argv[2]}, in_process=True)\n"
        "print('done')\n"
    )
    for fault, code_of_it, said in (("none", 0, "done\n"), ("abort_advance", -6, "")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(library), fault], cwd=Path(__file__).parents[2],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (code_of_it, said), done.stderr


@pytest.mark.slow
def test_the_command_ends_what_hangs(library: Path) -> None:
    inputs = Path(__file__).parents[2] / "examples" / "analytical"
    done = subprocess.run(
        [
            sys.executable, "-m", "astra_bridge", "run", f"--backend={library}",
            f"--workload-configuration={inputs}/all_reduce/trace",
            f"--system-configuration={inputs}/system.json",
            f"--network-configuration={inputs}/ring.yml",
            f"--remote-memory-configuration={inputs}/no_memory.json",
            "--network-option=fault=spin_advance", "--no-progress-timeout=2",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "no progress for 2 s" in done.stderr


def test_its_log_reaches_the_caller(library: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(library, fault="log_create")
    assert caplog.records == []
    with caplog.at_level(logging.INFO, "astra_bridge"):
        run(library, fault="log_create")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("astra_bridge.network.foreign", 20)
    assert record.getMessage() == "said\\nerror: forged"
