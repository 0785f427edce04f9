# SPDX-License-Identifier: MIT
"""A child that is a copy of its parent has what a new process has, and nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from astra_bridge import process
from astra_bridge.process import Aside
from tests.faults.test_signals import nothing_left
from tests.foreign import foreign_library
from tests.waiting import HANGS_S, until

ROOT = Path(__file__).parents[2]
INPUTS = ROOT / "examples" / "analytical"
# On a busy machine a thread may take longer to be gone than a command waits for that.
COMMAND = """
import sys
from astra_bridge import process
from astra_bridge.cli import main
process._JOIN_S = process._GONE_S = 300.0
"""
# How the command starts -> whether its child is a copy.
STARTS = {
    "sys.exit(main())": True,
    "sys.exit(main(sys.argv[1:]))": False,  # of a program that may have done anything before
    "import threading\n"
    "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    "sys.exit(main())": False,
    "from astra_bridge import process\n"
    "claim, process.claim = process.claim, lambda: (claim(), process.share())\n"
    "sys.exit(main())": False,
    # From the working directory, where a new Python does not look.
    "import helper\nsys.exit(main())": False,
    "sys.path.append('.')\nsys.exit(main())": False,
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only copied on Linux")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_library(tmp_path_factory.mktemp("foreign"))


@contextmanager
def running(start: str, library: Path, here: Path) -> Iterator[tuple[int, int]]:
    """The numbers of a command that waits for its backend, and of its child."""
    (here / "helper.py").write_text("")
    reached = here / "reached"
    mark = f"ASTRA_BRIDGE_MARK={os.getpid()}-{time.monotonic_ns()}"
    command = [
        sys.executable, "-W", "error", "-c", COMMAND + start, "run", f"--backend={library}",
        f"--workload-configuration={INPUTS}/all_reduce/trace",
        f"--system-configuration={INPUTS}/system.json",
        f"--network-configuration={INPUTS}/ring.yml",
        "--network-option=fault=hang_advance", f"--network-option=reached={reached}",
    ]  # fmt: skip
    name, _, value = mark.partition("=")
    environment = {**os.environ, name: value, "PYTHONPATH": str(ROOT)}
    with (
        (here / "left_open").open("w") as left_open,
        subprocess.Popen(
            command, env=environment, cwd=here, stderr=subprocess.PIPE,
            pass_fds=(left_open.fileno(),),
        ) as parent,
    ):  # fmt: skip
        assert until(lambda: reached.exists() or parent.poll() is not None)
        assert reached.exists(), parent.communicate()
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        try:
            yield parent.pid, int(children[-1])
        finally:
            parent.kill()
            assert parent.communicate()[1] == b""
    nothing_left(mark)


def command_line(number: int) -> list[bytes]:
    return Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")


def condition(number: int) -> dict[str, object]:
    """What a process has from the one that started it."""
    status = dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{number}/status").read_text()))
    links = Path(f"/proc/{number}/fd")

    def opened() -> dict[int, str]:
        with suppress(FileNotFoundError):  # the library closes `reached` at once
            names = {int(link.name): str(link.readlink()) for link in links.iterdir()}
            if not any(name.endswith("reached") for name in names.values()):
                return {number: name.partition(":")[0] for number, name in names.items()}
        return {}

    descriptors = until(opened)
    wanted = ("SigBlk", "SigIgn", "SigCgt", "ShdPnd", "NoNewPrivs")
    return {
        "session": os.getsid(number) == number,
        "signals": {name: status.get(name) for name in wanted},
        "standard": [descriptors.pop(0), descriptors.pop(1), descriptors.pop(2)],
        "others": sorted(descriptors.values()),
        "high": all(one >= 200 for one in descriptors),
        "folder": str(Path(f"/proc/{number}/cwd").readlink()),
        "limits": Path(f"/proc/{number}/limits").read_text(),
    }


def test_a_copy_has_what_a_new_python_has(library: Path, tmp_path: Path) -> None:
    found = []
    for number, start in enumerate(STARTS):
        if number > 1:
            break
        folder = tmp_path / f"{number}"
        folder.mkdir()
        with running(start, library, folder) as (_parent, child):
            found.append({**condition(child), "folder": ""})
    copy, new = found
    assert copy == new
    assert copy["session"]
    assert copy["high"]
    assert copy["standard"] == ["/dev/null", "pipe", "pipe"]
    assert copy["others"] == ["pipe", "pipe"]


@pytest.mark.parametrize(("start", "is_copied"), STARTS.items())
def test_who_is_copied(start: str, is_copied: bool, library: Path, tmp_path: Path) -> None:
    with running(start, library, tmp_path) as (parent, child):
        assert (command_line(child) == command_line(parent)) == is_copied
        # Its parent is killed now, and it must end.


def claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_ours", True)
    monkeypatch.setattr(process, "_has_one_thread", lambda: True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # this one has threads
@pytest.mark.parametrize(("run", "code"), [(lambda: os._exit(7), 7), (lambda: None, 1)])
def test_a_copy_never_comes_back(
    run: Callable[[], None], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed(monkeypatch)
    number = process.copy(run)
    assert number is not None
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == code


def test_where_the_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError("Resource temporarily unavailable")

    claimed(monkeypatch)
    monkeypatch.setattr(os, "fork", refuse)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert process.copy(lambda: None) is None
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_an_aside_is_away_during_a_copy_and_keeps_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    called = threading.Event()
    before = set(threading.enumerate())
    during = []

    def others() -> int:
        return len(set(threading.enumerate()) - before)

    def fork() -> int:
        during.append(others())
        raise OSError

    claimed(monkeypatch)
    monkeypatch.setattr(process, "_JOIN_S", HANGS_S)
    monkeypatch.setattr(os, "fork", fork)
    aside = Aside(called.set, 0.3)
    began_s = time.monotonic()
    aside.begin()
    try:
        time.sleep(0.2)
        assert process.copy(lambda: None) is None
        assert during == [0]
        assert others() == 1
        assert called.wait(HANGS_S)
        assert time.monotonic() - began_s >= 0.3
    finally:
        aside.end()
    assert process.copy(lambda: None) is None
    assert during == [0, 0]
