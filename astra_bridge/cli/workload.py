# SPDX-License-Identifier: MIT
"""``astra-bridge workload``: a subcommand for each generator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from astra_bridge.arguments import number_text, path, whole_text
from astra_bridge.cli.command import PER_RANK, Argument, Command, Group, some_text
from astra_bridge.errors import AstraBridgeError, PluginError
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
    return Argument(
        parameter.flag, value, parameter.help, check,
        default=None if parameter.required else parameter.default,
        required=parameter.required, repeated=parameter.repeated, field=parameter.name,
    )  # fmt: skip


def _command(generator: Generator) -> Command:
    """A command that has the generator's parameters as options."""
    rows = [_argument(one) for one in parameters(generator)]
    output = Argument(
        "OUTPUT", "", "Prefix of the files: PREFIX.manifest.json, PREFIX.kind0.et, ...", path
    )

    def run(output: Path, per_rank: bool, **values: Any) -> None:
        _run(generator, output, per_rank, {row.field: values[row.key] for row in rows})

    examples = {value: example for value, _, example in _KINDS.values()}
    needed = "".join(f" {row.name} {examples[row.value]}" for row in rows if row.required)
    return Command(
        f"{generator.summary.rstrip('.')}.",
        {"arguments": [output], "options": [*rows, PER_RANK]},
        run,
        f"workload {generator.name} out/{generator.name}{needed}",
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
