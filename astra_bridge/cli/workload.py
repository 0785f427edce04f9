# SPDX-License-Identifier: MIT
"""``astra-bridge workload``: a subcommand for each generator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from astra_bridge.arguments import number_text, path, whole_text
from astra_bridge.cli.command import Argument, Command, Group, some_text
from astra_bridge.errors import AstraBridgeError, PluginError
from astra_bridge.text import show
from astra_bridge.workload.builder import GeneratedWorkload
from astra_bridge.workload.generators import GENERATORS, Generator, Option

__all__ = ["COMMAND"]


def _run(generator: Generator, prefix: Path, options: dict[str, Any]) -> None:
    generated = generator.generate(**options)
    if not isinstance(generated, GeneratedWorkload):
        raise PluginError(
            f"generator {generator.name!r}: gives {show(generated)}; allowed: a GeneratedWorkload"
        )
    written = generated.write(prefix)
    print(f"wrote the traces of {len(generated.traces)} ranks; to run them:")
    print(f"  --workload-configuration={prefix}")
    if generated.comm_groups:
        print(f"  --comm-group-configuration={written[-1]}")


# Type of a parameter -> what ``--help`` calls its value, its check, an example.
_KINDS: dict[Any, tuple[str, Callable[[str, str], Any], str]] = {
    int: ("COUNT", whole_text(-(2**63), 2**63 - 1), "8"),
    float: ("NUMBER", number_text(-1e300, 1e300), "0.5"),
    str: ("TEXT", some_text, "x"),
    bool: ("", some_text, ""),
}


def _or_none(kind: Any) -> Any:
    """Take ``| None`` away."""
    kinds = [one for one in get_args(kind) if one is not NoneType]
    return kinds[0] if get_origin(kind) in (Union, UnionType) and len(kinds) == 1 else kind


def _argument(generator: Generator, parameter: inspect.Parameter, hint: Any) -> Argument:
    """A parameter of a generator as a row."""
    # Python 3.10 adds "or None" to what has None as its default.
    kind, option = (*get_args(_or_none(hint)), None, None)[:2]
    kind = _or_none(kind)
    repeated = get_origin(kind) is list
    kind = _or_none(get_args(kind)[0]) if repeated else kind
    if not isinstance(option, Option) or kind not in _KINDS:
        raise PluginError(
            f"generator {generator.name!r}: parameter {parameter.name} is not annotated with "
            "Annotated[type, Option(...)], where type is int, float, str, bool, one of these or "
            "None, or a list of these"
        )
    value, check, _ = _KINDS[kind]
    needed = parameter.default is inspect.Parameter.empty
    return Argument(
        option.flag or "--" + parameter.name.replace("_", "-"), value, option.help, check,
        default=None if needed else parameter.default, required=needed, repeated=repeated,
        field=parameter.name,
    )  # fmt: skip


def _command(generator: Generator) -> Command:
    """A command that has the generator's parameters as options."""
    hints = get_type_hints(generator.generate, include_extras=True)
    parameters = inspect.signature(generator.generate).parameters
    rows = [_argument(generator, one, hints.get(name)) for name, one in parameters.items()]
    output = Argument("OUTPUT", "", "Prefix of the traces: PREFIX.0.et, PREFIX.1.et, ...", path)

    def run(output: Path, **values: Any) -> None:
        _run(generator, output, {row.field: values[row.key] for row in rows})

    examples = {value: example for value, _, example in _KINDS.values()}
    needed = "".join(f" {row.name} {examples[row.value]}" for row in rows if row.required)
    return Command(
        f"{generator.summary.rstrip('.')}.",
        {"arguments": [output], "options": rows},
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
