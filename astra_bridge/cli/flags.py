# SPDX-License-Identifier: MIT
"""The flags of ``astra-bridge run``: ASTRA-sim's own, under their own names, and ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from astra_bridge.arguments import number_text, whole_text
from astra_bridge.errors import InputError
from astra_bridge.semantics import Semantics
from astra_bridge.text import show

__all__ = ["FLAGS", "Flag", "help_text", "key_value", "parse_flags"]


class Flag(NamedTuple):
    """One flag.

    Attributes
    ----------
    name
        Without the dashes.
    help
        One sentence.
    kind
        str, int, float or bool.
    default
        None where the flag may be left out.
    required
        Whether it must be given.
    allowed
        The values that a str may have, if not all.
    check
        Gives the value of a str, or refuses it, with the name of the flag for messages.
    repeated
        Whether it may be given several times; its value is then a list.
    field
        The argument of `Experiment` that it gives.
    """

    name: str
    help: str
    kind: type = str
    default: Any = None
    required: bool = False
    allowed: tuple[str, ...] = ()
    check: Callable[[str, str], Any] | None = None
    repeated: bool = False
    field: str = ""
    group: str = "ASTRA-sim's flags"


def _semantics(text: str, key: str) -> str:
    return str(Semantics.of(text, key))


_OURS = "Flags of astra-bridge"

FLAGS = {
    flag.name: flag
    for flag in (
        Flag("workload-configuration", "Prefix of the traces PREFIX.0.et, PREFIX.1.et, ...",
             required=True, field="workload"),
        Flag("system-configuration", "System JSON.", required=True, field="system"),
        Flag("network-configuration",
             "Network file of the backend (YAML; ns-3 takes its config.txt).", required=True,
             field="network"),
        Flag("remote-memory-configuration", "Remote-memory JSON.", required=True,
             field="remote_memory"),
        Flag("comm-group-configuration",
             'Communicator-group JSON; "empty" is none.', default="empty", field="comm_groups"),
        Flag("logging-configuration", "Accepted without effect (spdlog settings of ASTRA-sim).",
             default="empty"),
        Flag("logging-folder", "Write log.log and err.log into this folder."),
        Flag("num-queues-per-dim", "Queues per network dimension.", int, 1,
             field="num_queues_per_dim"),
        Flag("comm-scale", 'Accepted without effect, as in ASTRA-sim.',
             float, 1.0, field="comm_scale"),
        Flag("compute-scale", 'Accepted without effect, as in ASTRA-sim.',
             float, 1.0, field="compute_scale"),
        Flag("injection-scale", "Factor on endpoint-delay.", float, 1.0, field="injection_scale"),
        Flag("rendezvous-protocol", "Receivers ask senders before data flows.", bool, False,
             field="rendezvous_protocol"),
        Flag("logical-topology-configuration", 'JSON {"logical-dims": ["8", "2"]} (ns-3).',
             field="logical_topology"),
        Flag("backend", "Network simulator: a name that `astra-bridge doctor` lists, or the path "
             "of a shared library.", default="analytical-aware", group=_OURS, field="backend"),
        Flag("engine", "auto takes native where it was built.", default="auto",
             allowed=("auto", "native", "python"), group=_OURS),
        Flag("semantics", "astra-sim gives ASTRA-sim's numbers, corrected mends its quirks; "
             ",+NAME adds one of them and ,-NAME takes one away (docs/semantics.md).",
             default="astra-sim", check=_semantics, group=_OURS, field="semantics"),
        Flag("trace-format", "Format of the traces, of those that `astra-bridge doctor` lists; "
             "else it is found out.", group=_OURS, field="trace_format"),
        Flag("physical-topology", "Topology file of a packet-level backend.", group=_OURS,
             field="physical_topology"),
        Flag("network-option", "KEY=VALUE for the backend; may be repeated.", repeated=True,
             group=_OURS),
        Flag("faults", "YAML of links and ranks that change meanwhile: a list of {link, at, "
             "bandwidth} and {rank, at, slowdown}.", group=_OURS, field="faults"),
        Flag("jobs", "YAML of several workloads on one network, in place of "
             "--workload-configuration: a list of {workload, ranks, start, name, ...}.",
             group=_OURS, field="jobs"),
        Flag("set", "PATH=VALUE: change one value of an input, such as "
             "network.bandwidth[0]=100; may be repeated.", repeated=True, group=_OURS),
        Flag("checkpoint", "Write the state into this file now and then, if the backend can.",
             group=_OURS),
        Flag("checkpoint-interval", "Seconds of real time between two checkpoints.", float, 60.0,
             group=_OURS),
        Flag("resume", "Go on from this checkpoint of the same experiment.", group=_OURS),
        Flag("no-progress-timeout", "Seconds that a backend may go without progress before it is "
             "ended; 0 is without limit.", float, 300.0, group=_OURS),
        Flag("in-process", "Run a backend that is not known to be safe in this process; if it "
             "crashes or hangs, so does the command.", bool, False, group=_OURS),
        Flag("output", "Write tables, timeline, plot and log into this folder.", group=_OURS),
        Flag("json", "Write the result as JSON to this file.", group=_OURS),
    )
}  # fmt: skip
"""All flags by name, in the order of ``--help``."""

_TRUE = ("true", "t", "1", "yes", "on")
_FALSE = ("false", "f", "0", "no", "off")


def parse_flags(arguments: list[str]) -> dict[str, Any]:
    """Parse ``--key=value`` and ``--key value``; a flag given twice has its last value.

    Returns
    -------
    dict
        Flag name -> value, with defaults, for every flag; and under "" the set of those that were
        given, under "experiment" the file that was named without a flag, or None.

    Raises
    ------
    InputError
        A flag is unknown (names the nearest known one), lacks its value or has a wrong one, or a
        required one is missing.
    """
    values: dict[str, Any] = {
        name: [] if flag.repeated else flag.default for name, flag in FLAGS.items()
    }
    values["experiment"] = None
    given = values[""] = set[str]()
    rest = iter(arguments)
    for argument in rest:
        name, equals, text = argument.removeprefix("--").partition("=")
        if values["experiment"] is None and _is_file(argument):
            values["experiment"] = argument
            continue
        if not argument.startswith("--") or not name:
            raise InputError(f"unexpected argument {show(argument)}; flags look like --key=value")
        flag = FLAGS.get(name)
        if flag is None:
            from astra_bridge.inputs.common import nearest

            hint = nearest(name.replace("_", "-"), FLAGS)
            raise InputError(f"unknown flag{hint or '; `astra-bridge run --help` lists all'}",
                             key=f"--{name}")  # fmt: skip
        if not equals:
            text = "true" if flag.kind is bool else next(rest, "")
        value = _value(flag, text)
        given.add(name)
        if flag.repeated:
            values[name].append(value)
        else:
            values[name] = value
    without = {"workload-configuration"} if values["jobs"] else set()
    missing = [
        f"--{flag.name}"
        for flag in FLAGS.values()
        if flag.required and not values[flag.name] and flag.name not in without
    ]
    if values["experiment"] is not None:
        missing = []
    if missing:
        raise InputError(f"missing: {', '.join(missing)}; `astra-bridge run --help` explains them")
    return values


def _is_file(argument: str) -> bool:
    return argument.endswith((".yaml", ".yml")) and not argument.startswith("-")


def _value(flag: Flag, text: str) -> Any:
    key = f"--{flag.name}"
    if not text:
        raise InputError("needs a value", key=key)
    if flag.kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise InputError(f"{show(text)} is not allowed; allowed: true, false", key=key)
        return text.lower() in _TRUE
    if flag.kind is int:
        return whole_text(1, 999_999_999)(text, key)  # ASTRA-sim's only integer flag is a count
    if flag.kind is float:
        return number_text(0, 1e12)(text, key)
    if flag.check is not None:
        return flag.check(text, key)
    if flag.allowed and text not in flag.allowed:
        from astra_bridge.inputs.common import nearest

        raise InputError(
            f"{show(text)} is not allowed; allowed: {', '.join(flag.allowed)}"
            f"{nearest(text, flag.allowed)}",
            key=key,
        )
    return text


def key_value(text: str, flag: str) -> tuple[str, str]:
    """Split KEY=VALUE.

    Raises
    ------
    InputError
        It is not of that form.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InputError(f"{show(text)} is not of the form KEY=VALUE", key=flag)
    return key, value


def help_text() -> str:
    """What ``astra-bridge run --help`` prints."""
    import textwrap

    lines = [
        "Usage: astra-bridge run [EXPERIMENT.yaml] --KEY=VALUE ...",
        "",
        "Run a simulation.",
        "Flags that are given count more than the file.",
    ]
    group = ""
    for flag in FLAGS.values():
        if flag.group != group:
            group = flag.group
            lines += ["", f"{group}:"]
        notes = []
        if flag.allowed:
            notes.append(f"one of {', '.join(flag.allowed)}")
        if flag.required:
            notes.append("required")
        elif flag.default is not None:
            default = str(flag.default).lower() if flag.kind is bool else flag.default
            notes.append(f"default {default}")
        note = f" [{'; '.join(notes)}]" if notes else ""
        lines.append(f"  --{flag.name}")
        lines += textwrap.wrap(flag.help + note, 92, initial_indent=" " * 6,
                               subsequent_indent=" " * 6)  # fmt: skip
    lines += ["", "Exit codes: 0 done, 2 bad input, 3 the simulation cannot go on, 4 a network",
              "backend or a plug-in failed."]  # fmt: skip
    return "\n".join(lines)
