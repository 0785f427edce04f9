# SPDX-License-Identifier: MIT
"""``experiment.yaml``: an experiment as a file, and the JSON Schema of such files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from astra_bridge.arguments import path as check_path
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import check_keys, convert, load_yaml
from astra_bridge.simulation.jobs import beside, read_faults, read_jobs

__all__ = ["SCHEMA_FILE", "arguments_of", "experiment_arguments", "experiment_schema"]

SCHEMA_FILE = Path(__file__).with_name("experiment.schema.json")
"""`experiment_schema`, as it is shipped for editors."""


def _said(text: str) -> Any:
    return msgspec.Meta(description=text)


_Input = str | dict[str, Any]


class _JobEntry(msgspec.Struct, forbid_unknown_fields=True):
    workload: Annotated[
        _Input, _said("Prefix of its traces, relative to this file; or what to generate.")
    ]
    name: Annotated[str | None, _said("What reports call it; default job0, job1, ...")] = None
    ranks: Annotated[
        str | list[int] | None,
        _said("The rank of the network that each of its ranks is on, such as 0-3,8; default all."),
    ] = None
    start: Annotated[
        str | float, _said("When it starts: a time such as 5us, or a number of ns.")
    ] = 0.0
    system: Annotated[_Input | None, _said("Its system configuration, if not the common one.")] = (
        None
    )
    comm_groups: Annotated[_Input | None, _said("Its communicator groups.")] = None
    trace_format: Annotated[str | None, _said("Format of its traces.")] = None
    dims: Annotated[
        list[int] | None, _said("Its logical dimensions; default the first of the network's.")
    ] = None


class _LinkEntry(msgspec.Struct, forbid_unknown_fields=True):
    link: Annotated[int | list[int], _said("Number of a link, or the two nodes that it joins.")]
    at: Annotated[str | float, _said("From when on: a time such as 20us, or a number of ns.")]
    bandwidth: Annotated[float, _said("Factor on its bandwidth; 0 is down, 1 as it was.")]


class _SlowEntry(msgspec.Struct, forbid_unknown_fields=True):
    rank: Annotated[int, _said("A rank of the network.")]
    at: Annotated[str | float, _said("From when on: a time such as 20us, or a number of ns.")]
    slowdown: Annotated[float, _said("Factor on how long its compute nodes take.")]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """An experiment of astra-bridge.  Paths are relative to this file."""

    system: Annotated[_Input, _said("System JSON, or its content.")]
    network: Annotated[_Input, _said("Network file of the backend, or its content.")]
    workload: Annotated[
        _Input | None,
        _said(
            "Prefix of the traces PREFIX.0.et, PREFIX.1.et, ..., or what to generate: "
            "{generator: NAME, OPTION: VALUE, ...}; or see jobs."
        ),
    ] = None
    jobs: Annotated[
        list[dict[str, Any]] | None,
        _said("Several workloads on one network, in place of workload."),
    ] = None
    remote_memory: Annotated[_Input | None, _said("Remote-memory JSON, or its content.")] = None
    comm_groups: Annotated[_Input | None, _said("Communicator-group JSON, or its content.")] = None
    trace_format: Annotated[str | None, _said("Format of the traces; default found out.")] = None
    backend: Annotated[
        str, _said("A network simulator of `astra-bridge doctor`, or the path of a library.")
    ] = "analytical-aware"
    semantics: Annotated[
        str, _said("astra-sim keeps ASTRA-sim's quirks, corrected mends them; ,+NAME adds one.")
    ] = "astra-sim"
    num_queues_per_dim: Annotated[int, _said("Queues per network dimension.")] = 1
    injection_scale: Annotated[float, _said("Factor on endpoint-delay.")] = 1.0
    comm_scale: Annotated[float, _said("Without effect, as in ASTRA-sim.")] = 1.0
    compute_scale: Annotated[float, _said("Without effect, as in ASTRA-sim.")] = 1.0
    rendezvous_protocol: Annotated[bool, _said("Receivers ask senders before data flows.")] = False
    logical_topology: Annotated[str | None, _said("JSON of logical dimensions (ns-3).")] = None
    physical_topology: Annotated[str | None, _said("Topology file of a packet-level backend.")] = (
        None
    )
    network_options: Annotated[
        dict[str, str | int | float | bool] | None, _said("The backend's own options.")
    ] = None
    faults: Annotated[
        list[dict[str, Any]] | None, _said("Links and ranks that change meanwhile.")
    ] = None
    fold: Annotated[
        str, _said("auto lets one rank run for all that are alike, off lets all run.")
    ] = "auto"
    wavefront: Annotated[
        str, _said("auto evaluates rings as arrays where that gives the same numbers, off never.")
    ] = "auto"


_PATHS = ("workload", "system", "network", "remote_memory", "comm_groups", "logical_topology",
          "physical_topology")  # fmt: skip


def experiment_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file; `SCHEMA_FILE` has it."""
    entries: dict[str, list[type]] = {"jobs": [_JobEntry], "faults": [_LinkEntry, _SlowEntry]}
    kinds = [kind for some in entries.values() for kind in some]
    _, parts = msgspec.json.schema_components([_File, *kinds], ref_template="#/$defs/{name}")
    schema: dict[str, Any] = parts.pop(_File.__name__)
    for name, some in entries.items():
        items = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in some]
        schema["properties"][name] = {
            "description": schema["properties"][name]["description"],
            "type": "array",
            "items": {"anyOf": items},
        }
    schema["title"] = "Experiment of astra-bridge"
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **schema, "$defs": parts}


def experiment_arguments(file: str | Path) -> dict[str, Any]:
    """The arguments of `Experiment` that a file has.

    Raises
    ------
    InputError
        The file cannot be read, or a key or value is not understood: says which, and what is
        allowed.
    """
    source = check_path(file, "experiment")
    return arguments_of(load_yaml(source), source)


def arguments_of(raw: Any, source: Path | None) -> dict[str, Any]:
    """The arguments of `Experiment` that the content of a file says.

    Parameters
    ----------
    raw
        The content; it may be a part of another file.
    source
        The file, which paths are relative to; None: they are as they stand.

    Raises
    ------
    InputError
        As `experiment_arguments`.
    """
    names = [field.name for field in msgspec.structs.fields(_File)]
    if not isinstance(raw, dict):
        raise InputError("is no mapping", file=source)
    check_keys(raw, names, file=source)
    plain = {key: value for key, value in raw.items() if key in names}  # others are comments
    read = convert(plain, _File, file=source)
    arguments: dict[str, Any] = {
        name: getattr(read, name) for name in plain if getattr(read, name) is not None
    }
    for name in _PATHS:
        if name in arguments:
            arguments[name] = beside(arguments[name], source)
    if "/" in read.backend:
        arguments["backend"] = str(beside(read.backend, source))
    if raw.get("jobs") is not None:
        arguments["jobs"] = read_jobs(raw["jobs"], file=source)
    if raw.get("faults") is not None:
        arguments["faults"] = read_faults(raw["faults"], file=source)
    return {"workload": None} | arguments
