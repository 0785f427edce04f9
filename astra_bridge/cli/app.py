# SPDX-License-Identifier: MIT
"""The commands; each one's module is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["Ended", "app"]

_COMMANDS = {
    "trace": "astra_bridge.cli.trace:app",
    "workload": "astra_bridge.cli.workload:app",
    "garnet": "astra_bridge.cli.garnet:app",
    "doctor": "astra_bridge.cli.doctor:app",
    "conformance": "astra_bridge.cli.conformance:app",
}


def _installed(command: str) -> bool:
    """Whether the command's module is there; a part can be left out of an installation."""
    module = _COMMANDS[command].partition(":")[0]
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Ended(Exception):
    """Carries what typer would make an end of its own of, with its own words and exit code."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.reason = reason


class _LazyGroup(TyperGroup):
    """A group whose commands live in other modules: name -> module:app."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (OSError, KeyboardInterrupt, EOFError) as error:
            raise Ended(error) from None

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *filter(_installed, _COMMANDS)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS or not _installed(cmd_name):
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = typer.main.get_command(getattr(import_module(module), attribute))
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        import astra_bridge

        typer.echo(f"astra-bridge {astra_bridge.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Simulate distributed machine-learning training over any network simulator."""


# ``run`` parses its own flags (see cli/flags.py); here it is for ``astra-bridge --help``.
@app.command(
    "run",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)
def _run(ctx: typer.Context) -> None:
    """Run a simulation."""
    from astra_bridge.cli.run import run

    raise typer.Exit(run(ctx.args))
