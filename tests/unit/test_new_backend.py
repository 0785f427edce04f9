# SPDX-License-Identifier: MIT
"""``astra-bridge new-backend``: what it writes works as it stands, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from astra_bridge.cli import main
from astra_bridge.errors import InputError
from astra_bridge.kit import LANGUAGES, new_backend
from astra_bridge.kit.build import extension

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# As long as a name can be, and one that sorts behind other modules.
NAMES = {"c": f"net-{'n' * 28}", "c++": "ports", "python": "zeta-9"}

CONFORMS = {
    "c": "17 passed, 0 failed, 3 skipped",
    "c++": "17 passed, 0 failed, 3 skipped",
    "python": "14 passed, 0 failed, 6 skipped",  # which has no table to test
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A new package in each language."""
    folder = tmp_path_factory.mktemp("new")
    for language, name in NAMES.items():
        new_backend(name, language, folder / name)
    return {language: folder / name for language, name in NAMES.items()}


def run(*words: str | Path, folder: Path, code: int = 0, **more: str | Path) -> str:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder, env={**environment, **{key: str(value) for key, value in more.items()}},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_writes_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-backend", "my-net", "--language=python"]) == 0
    said = capsys.readouterr().out.splitlines()
    files = sorted(str(path.relative_to(tmp_path)) for path in Path.cwd().rglob("*.*"))
    assert said[:-1] == [file for file in files if Path(file).is_file()]
    assert "my-net/src/my_net/network.py" in said
    assert said[-1].startswith("next: cd my-net; README.md")
    assert main(["new-backend", "my-net", "-o", "else where"]) == 0
    assert "next: cd 'else where'; " in capsys.readouterr().out
    assert Path("else where/src/my_net/backend.cpp").is_file()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "'' is not allowed; allowed: small letters"),
        ("Net", "'Net' is not allowed"),
        ("my_net", "'my_net' is not allowed"),
        ("../net", "'../net' is not allowed"),
        ("2net", "is not allowed"),
        ("net-", "is not allowed"),
        ("my--net", "is not allowed"),
        ("n\nt", "is not allowed"),
        ("netz\n", "is not allowed"),
        ("nétz", "is not allowed"),
        ("n" * 33, "is too long; at most 32"),
        ("flow", "there is a backend 'flow' already"),
        ("json", "there is a module 'json' already"),
        ("class", "there is a module 'class' already"),
        ("numpy", "there is a module 'numpy' already"),
        ("astra-bridge", "there is a module 'astra_bridge' already"),
    ],
)
def test_bad_names(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NAME: ") as caught:
        new_backend(name, "c", tmp_path / "new")
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/kept").write_text("mine")
    Path("file").write_text("mine")
    Path("link").symlink_to("nowhere")
    Path("empty").mkdir()
    for place, said in (
        ("full", "full: is not empty; nothing in it is overwritten"),
        ("file", "file: is there already"),
        ("link", "link: is there already"),
        ("file/below", "below"),
    ):
        assert main(["new-backend", "my-net", "--output", place]) == 2
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.out == ""
    assert Path("full/kept").read_text() == Path("file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full", "link"]
    assert main(["new-backend", "my-net", "--output", "empty"]) == 0
    assert main(["new-backend", "my-net", "--output", "empty"]) == 2


def test_an_unknown_language_names_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"'pyton' is not allowed; allowed: c\+\+, c, python; did"):
        new_backend("my-net", "pyton", tmp_path / "new")
    assert main(["new-backend", "my-net", "--language=rust"]) == 2
    assert "--language: 'rust' is not allowed; allowed: c++, c, python" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_sources_are_of_one_language() -> None:
    assert extension("a.b", ["a.c", "b.c"]).language == "c"
    for sources in (["a.c", "b.cpp"], ["a.rs"], []):
        with pytest.raises(ValueError, match="must be files of one language"):
            extension("a.b", sources)


def test_what_is_written_is_laid_out(written: dict[str, Path]) -> None:
    """By tools as users have them: ruff without any settings, and all checks of this project."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it")
    if not (BIN / "ruff").exists():
        pytest.skip("the tools of development are not installed")
    checks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    chosen = [f"--select={','.join(checks['select'])}", f"--ignore={','.join(checks['ignore'])}"]
    for folder in written.values():
        run(BIN / "ruff", "check", "--no-cache", "--isolated", *chosen, ".", folder=folder)
        run(BIN / "ruff", "format", "--no-cache", "--isolated", "--check", ".", folder=folder)
        natives = [path for path in folder.rglob("*.c*") if path.suffix in (".c", ".cpp")]
        style = f"--style=file:{ROOT / '.clang-format'}"
        run(BIN / "clang-format", style, "--dry-run", "--Werror", *natives, folder=folder)
        assert yaml.safe_load((folder / ".github/workflows/test.yml").read_text())["jobs"]
        for path in folder.rglob("*"):
            assert path.is_dir() or "$" not in path.read_text().replace('"$ASTRA_BRIDGE"', "")


@pytest.mark.slow
def test_what_is_written_is_typed(written: dict[str, Path]) -> None:
    pytest.importorskip("mypy", reason="the tools of development are not installed")
    run(
        BIN / "mypy", "--strict", "--follow-imports=silent", "--cache-dir=/dev/null",
        "--explicit-package-bases",
        written["python"] / "src", written["python"] / "tests", written["c"] / "src",
        folder=written["c"], MYPYPATH=f"{ROOT}{os.pathsep}{written['python'] / 'src'}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(written: dict[str, Path], missing: Callable[[str, str], None]) -> Path:
    """The packages, each built from nothing and installed as its workflow does it."""
    if not (BIN / "pip").exists():
        missing("plugin", "pip is not installed")
    for compiler in ("cc", "c++"):
        if shutil.which(compiler) is None:
            missing("plugin", f"there is no {compiler}")
    folder = written["c"].parent / "site"
    for package in written.values():
        install = steps(package)[1]
        assert install == "pip install --no-build-isolation ."
        run(
            "bash", "-c", install, folder=package, CFLAGS="-Wpedantic -Werror",
            PIP_TARGET=folder, PIP_NO_DEPS="1", PIP_NO_INDEX="1",
        )  # fmt: skip
    return folder


def steps(package: Path) -> list[str]:
    """What the workflow runs; the first installs astra_bridge and pytest."""
    workflow = yaml.safe_load((package / ".github/workflows/test.yml").read_text())
    found = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert found[0].startswith('pip install "$ASTRA_BRIDGE" ')
    return found


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_its_workflow_passes(language: str, written: dict[str, Path], site: Path) -> None:
    package = written[language]
    conformance, all_reduce, tests = steps(package)[2:]
    name = package.name
    assert "--backend" not in all_reduce
    for command, said in (
        (conformance, CONFORMS[language]),
        (all_reduce, "sys[3] finished, 34457 cycles"),
        (f"{all_reduce} --backend {name}", "sys[3] finished, 34457 cycles"),
        (f"{all_reduce} --network-option latency_ps=0", "sys[3] finished, 31457 cycles"),
        (f"{tests} -q -p no:cacheprovider", "3 passed"),
    ):
        assert said in run("bash", "-c", command, folder=package, PYTHONPATH=site)
    assert "allowed" in run(
        "bash", "-c", f"{all_reduce} --network-option latency_ms=1",
        folder=package, code=4, PYTHONPATH=site,
    )  # fmt: skip


COMPARE = """
import random, sys
from astra_bridge.conformance.drive import simulate, transfers
from astra_bridge.conformance.subject import subject
options = {"rate_Bps": "3e9", "latency_ps": "700"}
all = [subject(name, options=options) for name in sys.argv[1:]]
for seed in range(40):
    draw = random.Random(seed)
    rows = []
    for number in range(draw.randrange(1, 14)):
        src = draw.randrange(6)
        dst = (src + draw.randrange(1, 6)) % 6
        rows.append((number, draw.randrange(3000), draw.randrange(1, 20), src, dst))
    steps = sorted(draw.randrange(12000) for _ in range(draw.randrange(6)))
    found = [simulate(one, transfers(rows), steps=steps).tobytes() for one in all]
    assert found[0] == found[1] == found[2], seed
"""


@pytest.mark.slow
def test_the_three_are_one_network(written: dict[str, Path], site: Path) -> None:
    """They share no line, and every completion is the same."""
    names = [package.name for package in written.values()]
    run(sys.executable, "-c", COMPARE, *names, folder=site, PYTHONPATH=site)


def test_the_tutorial_shows_what_is_written(tmp_path: Path) -> None:
    page = (ROOT / "docs/new_backend.md").read_text()
    files = new_backend("ports", folder=tmp_path / "ports")
    source = (tmp_path / "ports/src/ports/backend.cpp").read_text()
    assert f"```cpp\n{source}```" in page
    for text in (page, (ROOT / "docs/contract.md").read_text()):
        assert f"`{CONFORMS['c++']}`" in text
    assert source.count("\n") <= 100
    for file in files:
        if file.name != "README.md" and file.name != ".gitignore":
            assert f"| `{file.relative_to(tmp_path / 'ports')}` |" in page
    commands = page.split("```\n")[1].splitlines()
    package = tmp_path / "ports"
    assert commands[0] == "astra-bridge new-backend ports"
    assert commands[2:] == steps(package)[1:]
    for command in commands[2:]:
        assert command in (package / "README.md").read_text()
