# SPDX-License-Identifier: MIT
"""Generators of workloads; each is a subcommand of ``astra-bridge workload``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from astra_bridge.arguments import Check, flag, integer, number
from astra_bridge.arguments import text as plain_text
from astra_bridge.errors import InputError, PluginError
from astra_bridge.registry import Registry, Spec
from astra_bridge.text import nearest, show
from astra_bridge.units import parse_size_bytes
from astra_bridge.workload import micro
from astra_bridge.workload.builder import GeneratedWorkload

__all__ = ["GENERATORS", "Generator", "Option", "Parameter", "generated", "parameters"]


class Option(NamedTuple):
    """What a parameter of a generator is on the command line.

    Attributes
    ----------
    help : str
        One sentence.
    flag : str
        Its name there, such as ``--dp``, or ``FILE`` where it stands by position; "" is that of
        the parameter, with dashes.
    """

    help: str
    flag: str = ""


class Generator(Spec, frozen=True, eq=True):
    """A source of workloads.

    Attributes
    ----------
    generate
        Makes the workload.  Its parameters are the options: each is annotated with
        ``Annotated[type, Option(...)]``, where type is int, float, str, bool, one of these or None,
        or a list of these; one without a default must be given.
    example
        What may stand behind its name on the command line; "" is its prefix and what it needs.
    """

    generate: Callable[..., GeneratedWorkload]
    example: str = ""


GENERATORS = Registry(
    "generator",
    "astra_bridge.generators",
    Generator,
    {
        "collective": "astra_bridge.workload.generators:BUILT_IN",
        "model": "astra_bridge.workload.models.generator:GENERATOR",
    },
    {
        "transformer": "`astra-bridge workload model config.json` makes training steps of a model "
        'of any sizes: docs/models.md, "Models of your own"',
    },
)


class Parameter(NamedTuple):
    """A parameter of a generator, as its annotations describe it.

    Attributes
    ----------
    name : str
        As in Python.
    flag : str
        As on the command line: ``--micro-batches``.
    help : str
    kind : type
        int, float, str or bool.
    repeated : bool
        Whether it is a list of these.
    default : Any
        ``inspect.Parameter.empty`` if it must be given.
    """

    name: str
    flag: str
    help: str
    kind: type
    repeated: bool
    default: Any

    @property
    def key(self) -> str:
        """As in a file."""
        return self.flag.removeprefix("--").lower()

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty


def _or_none(kind: Any) -> Any:
    """Take ``| None`` away."""
    kinds = [one for one in get_args(kind) if one is not NoneType]
    return kinds[0] if get_origin(kind) in (Union, UnionType) and len(kinds) == 1 else kind


def parameters(generator: Generator) -> list[Parameter]:
    """The parameters of a generator.

    Raises
    ------
    PluginError
        One is not annotated as it should be.
    """
    hints = get_type_hints(generator.generate, include_extras=True)
    return [
        _parameter(generator, one, hints.get(name))
        for name, one in inspect.signature(generator.generate).parameters.items()
    ]


def _parameter(generator: Generator, parameter: inspect.Parameter, hint: Any) -> Parameter:
    # Python 3.10 adds "or None" to what has None as its default.
    kind, option = (*get_args(_or_none(hint)), None, None)[:2]
    kind = _or_none(kind)
    repeated = get_origin(kind) is list
    kind = _or_none(get_args(kind)[0]) if repeated else kind
    if not isinstance(option, Option) or kind not in _VALUES:
        raise PluginError(
            f"generator {generator.name!r}: parameter {parameter.name} is not annotated with "
            "Annotated[type, Option(...)], where type is int, float, str, bool, one of these or "
            "None, or a list of these"
        )
    flag_name = option.flag or "--" + parameter.name.replace("_", "-")
    return Parameter(parameter.name, flag_name, option.help, kind, repeated, parameter.default)


def _text(value: Any, name: str) -> str:
    """Text; a number of a file is text too (``size: 1024``)."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole else plain_text(value, name)


_VALUES: dict[Any, Check] = {
    int: integer(-(2**63), 2**63 - 1),
    float: number(-1e300, 1e300),
    str: _text,
    bool: flag,
}


def generated(content: Mapping[Any, Any], ranks: int, key: str = "workload") -> GeneratedWorkload:
    """Generate what a mapping of an experiment describes.

    Parameters
    ----------
    content
        ``generator``, its name, and its options, named as on the command line without ``--``.
    ranks
        Number of ranks, for a generator that takes it and is not told.
    key
        Where the mapping stands, for messages.

    Raises
    ------
    InputError
        Says which key, value and what is allowed.
    PluginError
        The generator of a package is not what it should be.

    Examples
    --------
    >>> made = generated({"generator": "collective", "size": "64KiB"}, ranks=4)
    >>> len(made.traces), made.traces[0].nodes[0].attributes["comm_size"]
    (4, 65536)
    """
    options = {str(name).replace("_", "-"): value for name, value in content.items()}
    name = options.pop("generator", None)
    generator = GENERATORS.find(name, key=f"{key}.generator")
    known = {one.key: one for one in parameters(generator)}
    for given in options:
        if given not in known:
            raise InputError(
                f"is no option of {name}; allowed: {', '.join(known)}{nearest(given, known)}",
                key=f"{key}.{given}",
            )
    if "ranks" in known and known["ranks"].required:
        options.setdefault("ranks", ranks)
    missing = [given for given, one in known.items() if one.required and given not in options]
    if missing:
        raise InputError(f"lacks {', '.join(missing)}", key=key)
    arguments = {
        known[given].name: _checked(known[given], value, f"{key}.{given}")
        for given, value in options.items()
    }
    try:
        made = generator.generate(**arguments)
    except InputError as error:
        if error.file is not None:
            raise
        where = f".{error.key.removeprefix('--').lower()}" if error.key else ""
        raise InputError(error.reason, key=f"{key}{where}") from None
    if not isinstance(made, GeneratedWorkload):
        raise PluginError(
            f"generator {generator.name!r}: gives {show(made)}; allowed: a GeneratedWorkload"
        )
    return made


def _checked(parameter: Parameter, value: Any, key: str) -> Any:
    check = _VALUES[parameter.kind]
    if parameter.repeated:
        listed = value if isinstance(value, (list, tuple)) else [value]
        return [check(one, f"{key}[{at}]") for at, one in enumerate(listed)]
    return None if value is None and parameter.default is None else check(value, key)


_GROUP = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def _parse_group(text: str) -> list[int]:
    if not _GROUP.fullmatch(text) or len(text) > 100_000:
        raise InputError(f"{text!r} is not a list of ranks such as 0,1,4-7", key="--group")
    ranks: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if len(part) > 20 or int(last or first) - int(first) >= 1 << 20:
            raise InputError(f"{part} is too large", key="--group")
        ranks += range(int(first), int(last or first) + 1)
    return ranks


def _collective(
    *,
    kind: Annotated[
        str,
        Option(
            "all-reduce, all-gather, reduce-scatter, all-to-all, broadcast, reduce, gather, "
            "scatter, barrier, or send-recv (a message around the ring of ranks)."
        ),
    ] = "all-reduce",
    size: Annotated[
        str, Option('Bytes, or "64KiB": the buffer of one rank; of all-gather, its shard.')
    ] = "1MiB",
    ranks: Annotated[int, Option("Number of ranks.")],
    group: Annotated[
        list[str],
        Option("Ranks of a group that runs it on its own, such as 0,1,4-7."),
    ] = [],  # noqa: B006 - never changed
    root: Annotated[int | None, Option("Position of the root in its group (default 0).")] = None,
    repeat: Annotated[int, Option("How many, one after the other.")] = 1,
    compute_us: Annotated[int, Option("Compute before each one, in us.")] = 0,
    overlap: Annotated[bool, Option("Let the next compute overlap with communication.")] = False,
) -> GeneratedWorkload:
    try:
        size_bytes = parse_size_bytes(int(size) if size.isdecimal() else size)
    except ValueError as error:
        raise InputError(str(error), key="--size") from None
    return micro.collective(
        kind,
        size_bytes,
        ranks,
        groups=[_parse_group(text) for text in group] or None,
        root=root,
        repeat=repeat,
        compute_us=compute_us,
        overlap=overlap,
    )


BUILT_IN = (
    Generator(
        "collective", "Generate a collective, or messages, on all ranks or in groups.", _collective
    ),
)
