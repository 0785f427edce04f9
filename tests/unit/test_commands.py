# SPDX-License-Identifier: MIT
"""Every command: its help, and its errors for what is unknown or missing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.cli import main
from astra_bridge.cli.command import Argument, Command, Group, dispatch, one_of
from astra_bridge.cli.commands import ROOT
from astra_bridge.errors import InputError

PACKAGE = Path(__file__).parents[2] / "astra_bridge"


def walk(entry: Command | Group, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple]]:
    yield entry, path
    if isinstance(entry, Group):
        for name in entry.summaries():
            yield from walk(entry.find(name), (*path, name))


ALL = list(walk(ROOT))
GROUPS = [pytest.param(e, p, id=" ".join(p) or "root") for e, p in ALL if isinstance(e, Group)]
COMMANDS = [pytest.param(e, p, id=" ".join(p)) for e, p in ALL if isinstance(e, Command)]


def rows(command: Command) -> list[Argument]:
    return [row for table in command.arguments.values() for row in table]


def misspelt(name: str) -> str:
    """One letter more."""
    return f"{name[:-1]}{name[-1]}{name[-1]}"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(("command", "path"), COMMANDS)
def test_an_unknown_flag_names_the_nearest(
    command: Command, path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for row in rows(command):
        if row.is_flag:
            wrong = misspelt(row.name)
            for given in ([wrong, "1"], [f"{wrong}=1"]):
                said = refused(capsys, *path, *given)
                # Of two as near (--dp and --pp), either.
                near = row.name if len(row.name) > 4 else "--"
                assert f"unknown flag '{wrong}'; did you mean '{near}" in said
    said = refused(capsys, *path, "--qqqqqqq")
    assert f"astra-bridge {' '.join(path)} --help" in said


@pytest.mark.parametrize(("command", "path"), COMMANDS)
def test_help_has_every_argument_and_fits(
    command: Command, path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("--help", "-h"):
        assert main([*path, flag]) == 0
        text = capsys.readouterr().out
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        assert " ".join(text.split()).count(command.summary) == 1
        for title, table in command.arguments.items():
            assert not table or f"{title}:" in lines
        for row in rows(command):
            shown = f"  {row.name.strip('[]')} {row.value or '[=false]' * row.is_flag}".rstrip()
            # Behind a short name, which some versions of Python give a value of its own.
            assert any(
                line.startswith(shown) or (row.short and f", {shown.strip()}" in line)
                for line in lines
            ), row.name
        at = lines.index("example:")
        assert lines[at + 1].startswith(f"  astra-bridge {' '.join(path)}")


@pytest.mark.parametrize(("command", "path"), COMMANDS)
def test_the_example_is_understood(
    command: Command, path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.example.replace("\\\n", " ").split()
    assert tuple(words[: len(path)]) == path
    seen: dict[str, Any] = {}
    assert dispatch(command._replace(run=lambda **v: seen.update(v)), words[len(path) :]) == 0
    assert list(seen) == [row.key for row in rows(command)]


@pytest.mark.parametrize(("command", "path"), COMMANDS)
def test_what_is_missing_is_named(
    command: Command, path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    needed = [row.name for row in rows(command) if row.required or re.match("[A-Z]", row.name)]
    if path == ("run",):  # an experiment stands for these
        needed = [row.name for row in rows(command) if row.field and "required" in row.help]
        assert len(needed) == 3
    if needed:
        said = refused(capsys, *path)
        assert f"missing: {', '.join(needed)}; " in said
    if not any(row.repeated and not row.is_flag for row in rows(command)):
        said = refused(capsys, *path, *["1"] * 9)
        assert "unexpected argument '1'" in said or "missing: --" in said


@pytest.mark.parametrize(("group", "path"), GROUPS)
def test_groups(group: Group, path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in (([], 2), (["--help"], 0), (["-h"], 0)):
        assert main([*path, *words]) == code
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 80
        assert " ".join(("usage: astra-bridge", *path, "COMMAND")) in text
        for name, summary in group.summaries().items():
            assert f"{name} {summary}" in " ".join(text.split())
    for name, summary in group.summaries().items():
        assert f"did you mean '{name}'?" in refused(capsys, *path, misspelt(name))
        assert group.find(name).summary == summary
    assert "unknown flag '--qqq'" in refused(capsys, *path, "--qqq")


def test_a_command_imports_its_own_module_only() -> None:
    code = (
        "import sys; from astra_bridge.cli import main; main(sys.argv[1:])\n"
        "print(*sorted(m for m in sys.modules if m.startswith('astra_bridge.cli.')))"
    )
    shared = {f"astra_bridge.cli.{name}" for name in ("command", "commands", "terminal")}
    for path in ([], ["doctor"], ["trace"], ["garnet"], ["run"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *path, "--help"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert set(done.stdout.splitlines()[-1].split()) == shared | {
            f"astra_bridge.cli.{name}" for name in path
        }


@pytest.mark.parametrize(
    "words",
    [
        "x.yaml --backend b --set a=1",
        "--backend b x.yaml --set=a=1",
        "--backend=b --set a=1 x.yaml",
        "--backend=b x.yaml --in-process --set a=1 --no-in-process",
    ],
)
def test_an_experiment_may_stand_anywhere(words: str) -> None:
    seen: dict[str, Any] = {}
    run = ROOT.find("run")
    assert isinstance(run, Command)
    dispatch(run._replace(run=lambda **v: seen.update(v)), words.split())
    assert (seen["experiment"], seen["backend"], seen["set"]) == ("x.yaml", "b", ["a=1"])
    assert seen["in_process"] is False


# The parser by itself


def values(*words: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    table = (
        Argument("FIRST", "", "One."),
        Argument("[SECOND]", "", "Two."),
        Argument("--on", "", "A switch.", default=False),
        Argument("--pair", "A B", "Two values.", default=("a", "b")),
        Argument("--many", "X", "100 % of them.", lambda text, name: int(text), repeated=True),
        Argument("--one", "X|Y", "One of two.", one_of("red", "blue"), default="red"),
    )
    dispatch(Command("Nothing.", {"all": table}, lambda **v: seen.update(v), "x"), words, "x")
    return seen


EMPTY = {"first": "f", "second": None, "on": False, "pair": ("a", "b"), "many": [], "one": "red"}


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("f", {}),
        ("f s", {"second": "s"}),
        ("--on f", {"on": True}),
        ("--on=TRUE f --on=off", {"on": False}),
        ("f --on --no-on", {"on": False}),
        ("--pair c d f", {"pair": ("c", "d")}),
        ("--pair=c d f s", {"pair": ("c", "d"), "second": "s"}),
        ("f --many 1 --many=-2 --many -3", {"many": [1, -2, -3]}),
        ("f --one=blue", {"one": "blue"}),
        ("--one blue -- --on", {"one": "blue", "first": "--on"}),
        ("f -", {"second": "-"}),
    ],
)
def test_spellings(words: str, changed: dict[str, Any]) -> None:
    assert values(*words.split()) == EMPTY | changed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("f --on=maybe", "--on: 'maybe' is not allowed; allowed: true, false"),
        ("f --no-on=true", "unknown flag '--no-on'"),
        ("f --no-pair", "unknown flag '--no-pair'"),
        ("f --o", "unknown flag '--o'"),
        ("f --pair c", "--pair: expected 2 arguments"),
        ("f --one=", "--one: '' is not allowed"),
        ("f --one=blu", "did you mean 'blue'?"),
        ("f s t", "unexpected argument 't'"),
        ("", "missing: FIRST; `x --help` explains"),
    ],
)
def test_refusals(words: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        values(*words.split())
    assert said in str(caught.value)
