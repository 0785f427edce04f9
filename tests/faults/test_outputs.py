# SPDX-License-Identifier: MIT
"""Output files are whole or absent, whatever becomes of the disk, of stdout and of the process."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.errors import InputError
from astra_bridge.files import NewFiles, write_file
from astra_bridge.inputs.system import SystemConfig, read_system

ROOT = Path(__file__).parents[2]
INPUTS = ROOT / "examples" / "analytical"
RUN = [
    sys.executable, "-m", "astra_bridge", "run",
    f"--workload-configuration={INPUTS}/all_reduce/trace",
    f"--system-configuration={INPUTS}/system.json",
    f"--network-configuration={INPUTS}/ring.yml",
    f"--remote-memory-configuration={INPUTS}/no_memory.json",
]  # fmt: skip


def run(*flags: str, shell: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, its standard streams redirected by the shell as ``shell`` says."""
    words = " ".join(f"'{word}'" for word in [*RUN, *flags])
    return subprocess.run(
        ["bash", "-c", f"{words} {shell}"],
        capture_output=True, text=True, errors="replace", check=False, cwd=ROOT,
        **options,
    )  # fmt: skip


def whole(file: Path) -> bool:
    return len(json.loads(file.read_text())["finish_ns"]) == 8


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("| true; exit ${PIPESTATUS[0]}", 0),
        ("2>&1 | true; exit ${PIPESTATUS[0]}", 0),
        ("> /dev/full", 1),
        ("2> /dev/full", 0),
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
    ],
)
def test_whatever_stdout_and_stderr_are(shell: str, code: int, tmp_path: Path) -> None:
    done = run(f"--json={tmp_path}/r.json", f"--output={tmp_path}/o", shell=shell)
    assert done.returncode == code, done.stderr
    assert whole(tmp_path / "r.json")
    assert whole(tmp_path / "o" / "result.json")
    assert (tmp_path / "o" / "log" / "log.log").read_text().count("finished") == 8
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr
    if "full" in shell and code:
        assert "No space left" in done.stderr


@pytest.mark.parametrize("command", [["trace", "dump", f"{INPUTS}/all_reduce/trace.0.et"],
                                     ["doctor"], ["--help"]])  # fmt: skip
def test_a_reader_that_goes_early(command: list[str]) -> None:
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    assert reader.stdin is not None
    done = subprocess.run(
        [sys.executable, "-m", "astra_bridge", *command],
        stdout=reader.stdin, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    reader.stdin.close()
    assert (done.returncode, done.stderr) == (0, "")


def small_disk() -> None:
    """Files of at most 1 KiB: what a full disk is to a process (Python ignores SIGXFSZ)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert run(f"--output={out}").returncode == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert any(len(content) > 1024 for content in before.values())
    done = run(f"--output={out}", f"--json={tmp_path}/new.json", preexec_fn=small_disk)
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert "bug" not in done.stderr
    assert done.stdout == ""  # files first
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["o"]


SLOW = """
import sys, time
from astra_bridge import files
class Slow(files.NewFiles):
    def __exit__(self, *error):
        try:
            print("all written", flush=True)
            time.sleep(60)
        except BaseException as end:
            super().__exit__(type(end), end, None)
            raise
files.NewFiles = Slow
from astra_bridge.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_an_end_before_the_names_are_given(sent: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert run(f"--output={out}").returncode == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *RUN[3:], f"--output={out}"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        # Ctrl-C is on, also where a shell has started the suite in the background.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "all written\n"
    process.send_signal(sent)
    process.communicate()
    now = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert {file: now[file] for file in before} == before
    left = [file for file in now if file not in before]
    assert all(file.name.endswith(".part") for file in left)
    assert not (left and sent == signal.SIGINT)


@pytest.mark.slow
def test_ended_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL at a dozen moments of a run; every file is whole or absent."""
    began = time.monotonic()
    assert run(f"--output={tmp_path}/o").returncode == 0
    span = time.monotonic() - began
    for moment in range(12):
        out = tmp_path / str(moment)
        process = subprocess.Popen([*RUN, f"--output={out}"], stdout=subprocess.DEVNULL, cwd=ROOT)
        time.sleep(span * (moment + 1) / 13)
        process.kill()
        process.wait()
        for file in out.rglob("*"):
            if file.is_file() and not file.name.startswith("."):
                assert len(file.read_bytes()) >= (0 if file.name == "err.log" else 100), file
                if file.suffix == ".json":
                    json.loads(file.read_text())


def test_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with suppress(ZeroDivisionError), NewFiles() as files:
        for name in ("a", "b"):
            with files.open(tmp_path / name) as out:
                out.write(b"new")
        assert not (tmp_path / "b").exists()
        _ = 1 / 0
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_places_that_are_no_ordinary_files(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(real)
    write_file(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640
    write_file("/dev/null", b"x")
    assert Path("/dev/null").is_char_device()
    for path, said in ((tmp_path, "folder"), (real / "x", "."), (tmp_path / ("n" * 300), "."),
                       ("/proc/none/x", ".")):  # fmt: skip
        with pytest.raises(InputError, match=f"cannot write: .*{said}"):
            write_file(path, b"x")


def test_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    write_file(tmp_path / "a", b"whole")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    with suppress(ZeroDivisionError), NewFiles() as files, files.open(tmp_path / "a") as out:
        out.write(b"half")
        _ = 1 / 0
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"whole"]


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a/../../x", "", "a\0b"])
def test_names_in_a_system_file_stay_in_the_folder(name: str, tmp_path: Path) -> None:
    file = tmp_path / "system.json"
    file.write_text(json.dumps({"track-local-mem": 1, "local-mem-trace-filename": name}))
    with pytest.raises(InputError, match="stay in the folder") as caught:
        read_system(file)
    assert (caught.value.file, caught.value.key) == (str(file), "local-mem-trace-filename")
    with pytest.raises(InputError, match="local_mem_trace_filename"):
        SystemConfig(local_mem_trace_filename=name)


def test_the_same_inputs_give_the_same_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from astra_bridge.plotting import new_figure, save_figure

    for kind in ("svg", "pdf", "png"):
        for name in ("a", "b"):
            figure = new_figure(3, 2)
            axes = figure.subplots()
            axes.fill_between([0, 1], [1, 2], label="x")
            axes.legend()
            with NewFiles() as files:
                save_figure(files, figure, tmp_path / f"{name}.{kind}")
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with pytest.raises(InputError, match=r"allowed: .*svg"), NewFiles() as files:
        save_figure(files, figure, tmp_path / "a.xyz")


def test_two_runs_give_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(f"--output={tmp_path}/{name}")
    for file in (tmp_path / "a").iterdir():
        if file.is_file() and file.name != "result.json":  # it has the wall time
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}


def test_an_encoding_that_lacks_the_letters(tmp_path: Path) -> None:
    plain = environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    for env in (plain, environment(PYTHONIOENCODING="ascii")):
        done = run(f"--output={tmp_path}/ü", f"--json={tmp_path}/ü/r.json", env=env)
        assert done.returncode == 0, done.stderr
        assert whole(tmp_path / "ü" / "r.json")


@pytest.mark.parametrize(
    "flag", ["--workload-configuration", "--system-configuration", "--network-configuration",
             "--remote-memory-configuration", "--comm-group-configuration", "--json", "--output"]
)  # fmt: skip
def test_a_name_that_no_file_can_have(flag: str) -> None:
    done = run(f"{flag}={'n' * 5000}")
    assert done.returncode == 2
    assert "bug" not in done.stderr
    assert len(done.stderr) < 1000


NOBODY = """
import pwd, sys
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
from astra_bridge.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", [["doctor"], RUN[3:]], ids=["doctor", "run"])
def test_a_user_that_nobody_knows(command: list[str], tmp_path: Path) -> None:
    """Containers run as users without a name and without a home."""
    env = environment(TMPDIR=str(tmp_path))
    for name in ("HOME", "XDG_CACHE_HOME", "ASTRA_BRIDGE_CACHE"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, *command],
        capture_output=True, text=True, check=False, cwd=ROOT, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        FileNotFoundError(2, "No usable temporary directory found"),
        BlockingIOError(11, "Resource temporarily unavailable"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_machine_is_not_our_bug(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from astra_bridge import cli

    def refuse(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", refuse)
    monkeypatch.setattr(cli, "drop_stdout", lambda: None)
    assert cli.main(["run"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "bug" not in said


def test_garnet_plots_leave_matplotlib_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import matplotlib as mpl

    from astra_bridge.network.garnet.plots import plot_heat_map
    from astra_bridge.network.garnet.reader import read_garnet

    before = dict(mpl.rcParams)
    network = read_garnet({"topology": "mesh 2x2"})
    plot_heat_map(network, [0.5] * len(network.links), "title", tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    assert (tmp_path / "a.png").stat().st_size > 1000
