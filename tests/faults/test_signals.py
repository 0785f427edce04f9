# SPDX-License-Identifier: MIT
"""Whatever signal ends the command, and when: no process is left, files are whole or absent.

A few moments in the suite; many with
``ASTRA_BRIDGE_MOMENTS=25 python -m pytest tests/faults/test_signals.py``: so many for each signal.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from astra_bridge.network.ns3.build import NS3
from astra_bridge.signals import Ended, deferred, unwinding
from tests.foreign import foreign_library
from tests.waiting import HANGS_S, until

ROOT = Path(__file__).parents[2]
INPUTS = ROOT / "examples" / "analytical"
RUN = [
    sys.executable, "-m", "astra_bridge", "run",
    f"--workload-configuration={INPUTS}/all_reduce/trace",
    f"--system-configuration={INPUTS}/system.json",
    f"--network-configuration={INPUTS}/ring.yml",
    f"--remote-memory-configuration={INPUTS}/no_memory.json",
]  # fmt: skip
MOMENTS = int(os.environ.get("ASTRA_BRIDGE_MOMENTS", "4"))
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL)

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
    pytest.mark.timeout(900 + 60 * MOMENTS),
]


def left_of(mark: str) -> list[str]:
    """Command lines of the processes that have the mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(command.decode("utf-8", "replace"))
    return found


def nothing_left(mark: str) -> None:
    assert until(lambda: left_of(mark) == []), left_of(mark)


def heed_all() -> None:
    """Ignore no signal, whatever has started the suite (a shell's ``&``, ``nohup``)."""
    for number in (*SIGNALS, signal.SIGQUIT):
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def no_nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def end_after(
    command: list[str],
    wait: Callable[[], object],
    sent: signal.Signals,
    cwd: Path,
    **environment: str,
) -> tuple[int, str]:
    """Start, wait, send; exit code and what was said on stderr, once nothing is left."""
    mark = f"ASTRA_BRIDGE_MARK={secrets.token_hex(8)}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), name: value, **environment},
        preexec_fn=heed_all,
    )  # fmt: skip
    wait()
    process.send_signal(sent)
    _, said = process.communicate()
    nothing_left(mark)
    return process.returncode, said


def check_whole(folder: Path) -> None:
    for file in folder.rglob("*"):
        if not file.is_file() or file.name.startswith("."):
            continue
        content = file.read_bytes()
        if file.suffix == ".json":
            json.loads(content)
        elif file.suffix == ".svg":
            assert content.rstrip().endswith(b"</svg>")
        elif file.suffix == ".parquet":
            assert content[:4] == content[-4:] == b"PAR1"
        elif file.suffix == ".csv":
            assert content.endswith(b"\n")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["analytical-aware", "garnet", "ns3"])
def test_random_moments(backend: str, tmp_path: Path, mock_library: Path) -> None:
    if backend == "ns3" and NS3.unavailable() is not None:
        pytest.skip(str(NS3.unavailable()))
    command = [*RUN, f"--backend={backend}"]
    end_after([*command, f"--output={tmp_path}/0"], lambda: None, signal.SIGCONT, tmp_path)
    began = time.monotonic()  # again, now that everything is compiled
    end_after([*command, f"--output={tmp_path}/0"], lambda: None, signal.SIGCONT, tmp_path)
    span_s = time.monotonic() - began
    assert (tmp_path / "0" / "result.json").exists()
    moments = random.Random(7)
    for number in range(MOMENTS):
        for sent in SIGNALS:
            out = tmp_path / f"{sent.name}-{number}"
            code, said = end_after(
                [*command, f"--output={out}"],
                partial(time.sleep, moments.uniform(0.0, 1.05 * span_s)),
                sent,
                tmp_path,
            )
            # The signal itself before there is anything to clean up, or after all is done.
            starting = "Fatal Python error: init" in said  # Ctrl-C before Python itself is up
            assert code in (0, -sent, 128 + sent) or starting, said
            check_whole(out)
            if code > 1:
                assert not (out / "result.json").exists() or said.count("error: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("sent", [*SIGNALS, signal.SIGQUIT])
@pytest.mark.parametrize("where", ["create", "advance"])
def test_a_backend_that_hangs(where: str, sent: signal.Signals, tmp_path: Path) -> None:
    library = foreign_library(tmp_path)
    reached = tmp_path / "reached"

    def wait() -> None:
        assert until(reached.exists)

    command = [
        *RUN, f"--backend={library}", f"--network-option=fault=spin_{where}",
        f"--network-option=reached={reached}", f"--output={tmp_path}/o",
    ]  # fmt: skip
    code, said = end_after(command, wait, sent, tmp_path)
    caught = sent in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    assert code == (128 + sent if caught else -sent)
    assert "Traceback" not in said
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable()))
@pytest.mark.parametrize("sent", [*SIGNALS, signal.SIGQUIT])
def test_compiling(sent: signal.Signals, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def wait() -> None:
        # Deep in: the compilers work.
        assert until(lambda: list(cache.glob("*/build-*/**/*.ninja")))
        time.sleep(random.Random(sent).uniform(0.3, 1.0))

    code, said = end_after(
        [*RUN, "--backend=ns3"], wait, sent, tmp_path, ASTRA_BRIDGE_CACHE=str(cache)
    )
    assert code in (128 + sent, -sent)
    assert "compiling the backend for ns-3" in said
    left = [path.name for path in cache.glob("*/*")]
    assert left == ["lock"]


def test_code_that_turns_the_exception_into_its_own() -> None:
    with pytest.raises(Ended) as caught, unwinding():  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(HANGS_S)
        except KeyboardInterrupt:
            raise ValueError("what C++ code makes of it") from None
    assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_code_that_bears_no_exception() -> None:
    done = []
    with pytest.raises(Ended) as caught, unwinding():  # noqa: PT012
        with deferred(), deferred():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            done.append("inner")
        done.append("outer")
    assert caught.value.number == signal.SIGHUP
    assert done == ["inner"]
