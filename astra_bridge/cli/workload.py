# SPDX-License-Identifier: MIT
"""``astra-bridge workload``: a subcommand for each generator."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from astra_bridge.errors import AstraBridgeError, PluginError
from astra_bridge.text import show
from astra_bridge.workload.builder import GeneratedWorkload
from astra_bridge.workload.generators import GENERATORS, Generator, Option

__all__ = ["app"]

_NAMED = inspect.Parameter.KEYWORD_ONLY
_OUTPUT = typer.Argument(..., help="Prefix of the traces: PREFIX.0.et, PREFIX.1.et, ...")


def _run(generator: Generator, prefix: Path, options: dict[str, Any]) -> None:
    generated = generator.generate(**options)
    if not isinstance(generated, GeneratedWorkload):
        raise PluginError(
            f"generator {generator.name!r}: gives {show(generated)}; allowed: a GeneratedWorkload"
        )
    written = generated.write(prefix)
    typer.echo(f"wrote the traces of {len(generated.traces)} ranks; to run them:")
    typer.echo(f"  --workload-configuration={prefix}")
    if generated.comm_groups:
        typer.echo(f"  --comm-group-configuration={written[-1]}")


def _command(generator: Generator) -> Any:
    """The generator's parameters as options."""
    kinds: dict[str, Any] = {"output": Path}
    parameters = [inspect.Parameter("output", _NAMED, default=_OUTPUT)]
    hints = get_type_hints(generator.generate, include_extras=True)
    for name, parameter in inspect.signature(generator.generate).parameters.items():
        kind, option = (*get_args(hints.get(name)), None, None)[:2]
        if not isinstance(option, Option):
            raise PluginError(
                f"generator {generator.name!r}: parameter {name} is not annotated with "
                "Annotated[type, Option(...)]"
            )
        needed = parameter.default is inspect.Parameter.empty
        default = typer.Option(
            ... if needed else parameter.default,
            *([option.flag] if option.flag else []),
            help=option.help,
        )
        kinds[name] = kind
        parameters.append(inspect.Parameter(name, _NAMED, default=default, annotation=kind))

    def run(output: Path, **options: Any) -> None:
        _run(generator, output, options)

    run.__doc__ = generator.summary
    run.__annotations__ = kinds
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    single = typer.Typer(add_completion=False)
    single.command(generator.name)(run)
    return typer.main.get_command(single)


def _loads(name: str) -> bool:
    """Whether ``--help`` can tell of it; `astra-bridge doctor` tells why not."""
    try:
        return GENERATORS.get(name) is not None
    except AstraBridgeError:
        return False


class _Generators(TyperGroup):
    """The registry's names as commands."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - a method of click
        return list(filter(_loads, GENERATORS.names()))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        return _command(GENERATORS.find(cmd_name, key="workload"))


app = typer.Typer(
    cls=_Generators, no_args_is_help=True, add_completion=False, help="Generate workloads."
)


@app.callback()
def _main() -> None:
    """Generate workloads."""
