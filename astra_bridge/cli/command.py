# SPDX-License-Identifier: MIT
"""What a command is, and the one parser of all of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

from astra_bridge.errors import InputError
from astra_bridge.text import nearest, show

__all__ = [
    "PER_RANK",
    "Argument",
    "Command",
    "Group",
    "dispatch",
    "group_of",
    "key_value",
    "one_of",
    "some_text",
    "unknown",
]

_COLUMNS = 80
_HELP = ("-h", "--help")


def some_text(text: str, name: str) -> str:
    """Check that there is a text at all."""
    if not text:
        raise InputError("needs a value", key=name)
    return text


class Argument(NamedTuple):
    """One row of a command's table.

    Attributes
    ----------
    name : str
        ``--flag``, or ``FILE`` for what stands by position, ``[FILE]`` if it may be left out.  One
        of these may be repeated: any number, also none.
    value : str
        What ``--help`` shows for the value of a flag, its unit if it has one: ``SECONDS``.  "" is a
        switch: ``--flag``, ``--flag=false`` and ``--no-flag``.  Two words: two values.
    help : str
        One sentence.
    check : callable
        Gives the value of a text, or refuses it, with the name of the flag for messages.
    default : Any
        The value where the flag is left out; of a flag that may be repeated, an empty list.
    otherwise : str
        What ``--help`` calls the default, where the default itself does not say it.
    required, repeated : bool
        Whether a flag must be given, and whether it may be several times; its value is then a list.
    field : str
        ``run``: the argument of `Experiment` that it gives.
    short : str
        A second name of a flag: ``-o``.
    """

    name: str
    value: str
    help: str
    check: Callable[[str, str], Any] = some_text
    default: Any = None
    otherwise: str = ""
    required: bool = False
    repeated: bool = False
    field: str = ""
    short: str = ""

    @property
    def key(self) -> str:
        """The parameter of the command's function that takes the value."""
        return self.name.strip("-[]").lower().replace("-", "_")

    @property
    def is_flag(self) -> bool:
        """Whether it goes by name, not by position."""
        return self.name.startswith("--")

    @property
    def is_switch(self) -> bool:
        """Whether it is a flag that needs no value."""
        return self.is_flag and not self.value


PER_RANK = Argument(
    "--per-rank", "",
    "Write PREFIX.0.et, PREFIX.1.et, ... instead, as ASTRA-sim reads them.", default=False,
)  # fmt: skip
"""Of what writes workloads."""


class Command(NamedTuple):
    """A command: a table of arguments, and the function that takes their values.

    Attributes
    ----------
    summary : str
        One sentence.
    arguments : mapping
        Title of a group in ``--help`` -> its rows.
    run : callable
        Takes each argument by its key, and gives the exit code; None is 0.
    example : str
        A command line, without the name of the program; lines of at most 78 columns.
    notes : str
        Further words at the end of ``--help``.
    work : str
        What it says that it is still doing where it takes long, such as "generating traces";
        empty: it shows its progress itself, or is always quick.
    """

    summary: str
    arguments: Mapping[str, Sequence[Argument]]
    run: Callable[..., int | None]
    example: str
    notes: str = ""
    work: str = ""


class Group(NamedTuple):
    """Commands under a name.

    Attributes
    ----------
    summary : str
        One sentence.
    summaries : callable
        The commands' names and what each does.
    find : callable
        The command of a name, or ``InputError``.
    notes : str
        Further words at the end of ``--help``.
    """

    summary: str
    summaries: Callable[[], Mapping[str, str]]
    find: Callable[[str], Command | Group]
    notes: str = ""


def group_of(summary: str, commands: Mapping[str, Command]) -> Group:
    """Make a group of commands that are there."""

    def find(name: str) -> Command:
        if name not in commands:
            raise unknown("command", name, commands)
        return commands[name]

    return Group(summary, lambda: {name: one.summary for name, one in commands.items()}, find)


def unknown(kind: str, name: str, known: Iterable[str], more: str = "") -> InputError:
    """The error for a name that is none of the known ones; it says the nearest, or more."""
    known = list(known)
    more = more or f"; allowed: {', '.join(known)}"
    hint = nearest(name.replace("_", "-"), known)
    return InputError(f"unknown {kind} {show(name)}{hint or more}")


def dispatch(entry: Command | Group, words: Sequence[str], program: str = "astra-bridge") -> int:
    """Run the command that the words name, and return its exit code.

    Raises
    ------
    InputError
        The command or a flag is unknown, lacks its value or has a wrong one, or one is missing.
    """
    if isinstance(entry, Command):
        parser = _parser(entry, program)
        if not set(_HELP).isdisjoint(words):
            print(_command_help(entry, parser), end="")
            return 0
        values = _values(entry, parser, words)
        if not entry.work:
            return entry.run(**values) or 0
        from astra_bridge.cli.progress import StillWorking

        with StillWorking(entry.work):
            return entry.run(**values) or 0
    if not words or words[0] in _HELP:
        print(_group_help(entry, program), end="")
        return 0 if words else 2
    if words[0].startswith("-"):
        raise unknown("flag", words[0], _HELP, f"; `{program} --help` lists the commands")
    return dispatch(entry.find(words[0]), words[1:], f"{program} {words[0]}")


class _Parser(argparse.ArgumentParser):
    """argparse's errors as ours."""

    def error(self, message: str) -> NoReturn:
        said = message.removeprefix("argument ")
        said = said.replace("the following arguments are required", "missing")
        raise InputError(f"{said}; `{self.prog} --help` explains")


def _parser(command: Command, program: str) -> _Parser:
    """argparse splits words into texts by name and writes ``--help``; what texts mean is ours."""
    rows = [row for rows in command.arguments.values() for row in rows]
    usage = [program]
    usage += [f"{row.name}..." if row.repeated else row.name for row in rows if not row.is_flag]
    usage += [f"{row.name} {row.value}" for row in rows if row.required]
    usage += ["[--FLAG VALUE ...]"] if any(row.is_flag and not row.required for row in rows) else []
    parser = _Parser(
        program,
        usage=" ".join(usage).replace("%", "%%"),
        # A width that is given: argparse imports shutil to find the terminal's.
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=_COLUMNS),
        add_help=False,
        allow_abbrev=False,
    )
    for title, table in command.arguments.items():
        section = parser.add_argument_group(title)
        for row in table:
            _add(section, row)
    section.add_argument(*_HELP, action="store_true", help="Show this and end.")
    return parser


def _add(section: argparse._ArgumentGroup, row: Argument) -> None:
    said = (f"{row.help} {_notes(row)}".rstrip()).replace("%", "%%")
    if not row.is_flag:
        nargs = "*" if row.repeated else "?" if row.name.startswith("[") else None
        section.add_argument(row.key, metavar=row.name.strip("[]"), nargs=nargs, help=said)
        return
    names = tuple(row.value.split())
    options: dict[str, Any] = {"metavar": names[0]} if len(names) == 1 else {}
    if len(names) > 1:
        options |= {"metavar": names, "nargs": len(names)}
    elif row.is_switch:
        options |= {"metavar": "=false", "nargs": "?"}  # shown as [=false]
    section.add_argument(
        *filter(None, (row.short, row.name)), dest=row.key, required=row.required, help=said,
        action="append" if row.repeated else "store", **options,
    )  # fmt: skip


def _notes(row: Argument) -> str:
    default = row.otherwise
    if not default and row.default is not None and row.default is not False and row.default != []:
        words = row.default if isinstance(row.default, tuple) else (row.default,)
        default = " ".join("true" if word is True else str(word) for word in words)
    notes = ["required"] if row.required else []
    notes += [f"default: {default}"] if default else []
    notes += ["may be repeated"] if row.repeated else []
    return f"[{'; '.join(notes)}]" if notes else ""


def _values(command: Command, parser: _Parser, words: Sequence[str]) -> dict[str, Any]:
    rows = [row for rows in command.arguments.values() for row in rows]
    flags = {row.name: row for row in rows if row.is_flag}
    given = list(_spelled(words, flags, parser.prog))
    # What may be repeated or left out takes its share when all that stands by position is known.
    many = any(not row.is_flag and (row.repeated or row.name.startswith("[")) for row in rows)
    mixed = many and "--" not in given  # which argparse forgets when it takes its two turns
    parse = parser.parse_known_intermixed_args if mixed else parser.parse_known_args
    found, rest = parse(given)
    if rest:
        raise InputError(f"unexpected argument {show(rest[0])}; `{parser.prog} --help` explains")
    return {row.key: _value(row, getattr(found, row.key)) for row in rows}


def _spelled(words: Sequence[str], flags: Mapping[str, Argument], program: str) -> Iterable[str]:
    """The words as argparse wants them: all flags known, and a switch with its value."""
    for at, word in enumerate(words):
        if word == "--":
            yield from words[at:]
            return
        name, equals, text = word.partition("=")
        positive = "--" + name.removeprefix("--no-")
        if not word.startswith("--"):
            yield word
        elif name in flags:
            if flags[name].is_switch:
                yield word if equals else f"{name}=true"
            elif equals and " " in flags[name].value:
                yield from (name, text)
            else:
                yield word
        elif positive in flags and flags[positive].is_switch and not equals:
            yield f"{positive}=false"
        else:
            raise unknown("flag", name, flags, f"; `{program} --help` lists all")


def _value(row: Argument, given: Any) -> Any:
    if given is None:
        return [] if row.repeated and row.default is None else row.default
    if isinstance(given, list):
        checked = (row.check(text, row.name) for text in given)
        return list(checked) if row.repeated else tuple(checked)
    if row.is_switch:
        return _switch(given, row.name)
    return row.check(given, row.name)


def _switch(text: str, name: str) -> bool:
    if text.lower() in ("true", "t", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "f", "0", "no", "off"):
        return False
    raise InputError(f"{show(text)} is not allowed; allowed: true, false", key=name)


def _command_help(command: Command, parser: _Parser) -> str:
    parser.description = _wrapped(command.summary)
    parser.epilog = f"example:\n  astra-bridge {command.example}"
    if command.notes:
        parser.epilog += f"\n\n{_wrapped(command.notes)}"
    return parser.format_help()


def _group_help(entry: Group, program: str) -> str:
    summaries = entry.summaries()
    width = max(map(len, summaries), default=0)
    rows = [f"  {name:<{width}}  {summary}" for name, summary in summaries.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND ...\n",
            f"{_wrapped(entry.summary)}\n",
            "commands:",
            *(_wrapped(row) for row in rows),
            f"\n`{program} COMMAND --help` explains a command.",
            *([_wrapped(entry.notes)] if entry.notes else []),
            "",
        ]
    )


def _wrapped(text: str) -> str:
    """Each line cut to the width of ``--help``; rows of a table go on in their second column."""
    import textwrap  # only --help needs it

    lines = []
    for line in text.splitlines():
        first = re.match(r" +\S+ {2,}", line)
        indent = " " * first.end() if first else ""
        lines.append(textwrap.fill(line, _COLUMNS, subsequent_indent=indent))
    return "\n".join(lines)


# Checks of values


def one_of(*allowed: str) -> Callable[[str, str], str]:
    """Make a check: one of some words; it says the nearest."""

    def check(text: str, name: str) -> str:
        if text not in allowed:
            said = f"{show(text)} is not allowed; allowed: {', '.join(allowed)}"
            raise InputError(f"{said}{nearest(text, allowed)}", key=name)
        return text

    return check


def key_value(text: str, name: str) -> tuple[str, str]:
    """Split KEY=VALUE.

    Raises
    ------
    InputError
        It is not of that form.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InputError(f"{show(text)} is not of the form KEY=VALUE", key=name)
    return key, value
