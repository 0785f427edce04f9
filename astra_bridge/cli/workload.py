# SPDX-License-Identifier: MIT
"""``astra-bridge workload``: a subcommand for each generator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from astra_bridge.arguments import number_text, path, whole_text
from astra_bridge.cli.command import PER_RANK, Argument, Command, Group, some_text
from astra_bridge.errors import AstraBridgeError, InputError, PluginError
from astra_bridge.text import show
from astra_bridge.workload.builder import GeneratedWorkload
from astra_bridge.workload.generators import GENERATORS, Generator, Parameter, parameters

__all__ = ["COMMAND", "write"]


def _run(generator: Generator, prefix: Path, per_rank: bool, options: dict[str, Any]) -> None:
    generated = generator.generate(**options)
    if not isinstance(generated, GeneratedWorkload):
        raise PluginError(
            f"generator {generator.name!r}: gives {show(generated)}; allowed: a GeneratedWorkload"
        )
    write(generated, prefix, per_rank)


def write(generated: GeneratedWorkload, prefix: Path, per_rank: bool) -> None:
    """Write a workload, and print the flags that run it."""
    if generated.summary:
        print(generated.summary)
    if per_rank:
        written = generated.write(prefix)
        print(f"wrote the traces of {generated.ranks} ranks; to run them:")
    else:
        written = generated.write_kinds(prefix)
        kinds = len(written) - 1
        traces = "one trace" if kinds == 1 else f"traces of {kinds} kinds of ranks"
        print(f"wrote {traces}, for {generated.ranks} ranks; to run them:")
    print(f"  --workload-configuration={prefix}")
    if written[-1].name.endswith(".comm_group.json"):
        print(f"  --comm-group-configuration={written[-1]}")
    for flag in generated.flags:
        print(f"  {flag}")


# Type of a parameter -> what ``--help`` calls its value, its check, an example.
_KINDS: dict[Any, tuple[str, Callable[[str, str], Any], str]] = {
    int: ("COUNT", whole_text(-(2**63), 2**63 - 1), "8"),
    float: ("NUMBER", number_text(-1e300, 1e300), "0.5"),
    str: ("TEXT", some_text, "x"),
    bool: ("", some_text, ""),
}


def _argument(parameter: Parameter) -> Argument:
    """A parameter of a generator as a row."""
    value, check, _ = _KINDS[parameter.kind]
    by_name = parameter.flag.startswith("--")
    return Argument(
        parameter.flag, value if by_name else "", parameter.help, check,
        default=None if parameter.required else parameter.default,
        required=parameter.required and by_name,
        repeated=parameter.repeated, field=parameter.name,
    )  # fmt: skip


def _command(generator: Generator) -> Command:
    """A command that has the generator's parameters as options."""
    rows = [_argument(one) for one in parameters(generator)]
    placed, options = [row for row in rows if not row.is_flag], [row for row in rows if row.is_flag]
    prefix = Argument("[OUT]", "", "Of the files: PREFIX.manifest.json, PREFIX.kind0.et, ...", path)
    output = Argument("--output", "PREFIX", "The same, as a flag.", path, short="-o")

    def run(out: Path | None, output: Path | None, per_rank: bool, **values: Any) -> None:
        if (out is None) == (output is None):
            raise InputError("is the prefix of the files: give one", key="OUT or --output")
        given = {row.field: values[row.key] for row in rows}
        _run(generator, out or output or Path(), per_rank, given)

    examples = {value: example for value, _, example in _KINDS.values()}
    needed = "".join(f" {row.name} {examples[row.value]}" for row in options if row.required)
    return Command(
        f"{generator.summary.rstrip('.')}.",
        {"arguments": [*placed, prefix], "options": [*options, output, PER_RANK]},
        run,
        f"workload {generator.name} {generator.example or f'out/{generator.name}{needed}'}",
        work="generating traces",
    )


def _summaries() -> dict[str, str]:
    """Of those that can be loaded; `astra-bridge doctor` tells why not."""
    found = {}
    for name in GENERATORS.names():
        with suppress(AstraBridgeError):
            found[name] = GENERATORS.find(name, key="workload").summary
    return found


COMMAND = Group(
    "Generate workloads.",
    _summaries,
    lambda name: _command(GENERATORS.find(name, key="workload")),
)
