# SPDX-License-Identifier: MIT
"""What ``astra-sim-sdk`` calls a Config, as the files and flags of ``astra-bridge run``.

The SDK's names are those of ASTRA-sim's files in another spelling, so rules say which they are, and
a key that the files gain needs nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from astra_bridge.errors import InputError
from astra_bridge.text import show

__all__ = ["BACKENDS", "Configured", "configure"]

BACKENDS = {
    "analytical_congestion_aware": "analytical-aware",
    "analytical_congestion_unaware": "analytical-unaware",
    "ns3": "ns3",
}
"""Backends of the SDK, and ours."""

_LETTERS = {"latency": "L", "overhead": "o", "gap": "g", "global_memory": "G"}
_KINDS = {"ring": "Ring", "fullyconnected": "FullyConnected", "switch": "Switch"}
_CUSTOM = ("all_reduce", "all_gather", "all_to_all")
_OF_RESULTS = ("flow", "trace_output", "fct_output", "pfc_output", "qlen_mon")


class Configured(NamedTuple):
    """A Config, written down.

    Attributes
    ----------
    choice : str
        The SDK's name of the backend that it describes.
    flags : dict of str to str
        Of ``astra-bridge run``, without dashes.
    warnings : tuple of str
        What of it has no effect.
    """

    choice: str
    flags: dict[str, str]
    warnings: tuple[str, ...]


def configure(config: Any, folder: Path, results: Path) -> Configured:
    """Write the files of a Config.

    Parameters
    ----------
    config
        The Config as JSON has it.
    folder : Path
        Where the traces have been unpacked, and where the files go.
    results : Path
        Where a run will write.

    Raises
    ------
    InputError
        A part is missing or not understood; names it as the SDK does.
    """
    whole = _object(config, "config")
    common = _object(_needed(whole, "common_config", "config"), "common_config")
    network = _object(_needed(whole, "network_backend", "config"), "network_backend")
    choice = str(_needed(network, "choice", "network_backend"))
    warnings = []
    if common.get("logging"):
        warnings.append("logging: ignored: astra-bridge does not use spdlog")
    memory = {_dashed(key): value for key, value in _part(common, "remote_memory").items()}
    memory.setdefault("memory-type", "NO_MEMORY_EXPANSION")  # the SDK's own default
    flags = {
        "workload-configuration": str(_workload(common, folder)),
        "system-configuration": _json(
            folder / "system.json", _system(_part(common, "system"), folder)
        ),
        "remote-memory-configuration": _json(folder / "remote_memory.json", memory),
    }
    groups = common.get("communicator_group")
    if groups:
        content = {
            str(_needed(_object(one, "communicator_group"), "identifier", "communicator_group")):
            _needed(one, "npu_list", "communicator_group")
            for one in _list(groups, "communicator_group")
        }  # fmt: skip
        flags["comm-group-configuration"] = _json(folder / "communicator_group.json", content)
    for key, value in _part(common, "cmd_parameters").items():
        flags[_dashed(key)] = json.dumps(value)
    described = _object(_needed(network, choice, "network_backend"), f"network_backend.{choice}")
    writer = _NETWORKS.get(choice)
    if writer is None:
        raise InputError(
            f"{show(choice)} is not served here; allowed: {', '.join(_NETWORKS)}",
            key="network_backend.choice",
        )
    flags |= writer(described, folder, results)
    return Configured(choice, flags, tuple(warnings))


# ---- the parts ----


def _workload(common: Mapping[str, Any], folder: Path) -> Path:
    """The prefix of the traces among the unpacked files.

    The SDK's users write it as it is in the archive, or as it is on their own machine.
    """
    said = _needed(common, "workload", "common_config")
    parts = [part for part in PurePosixPath(str(said)).parts if part not in ("/", ".")]
    if not parts or ".." in parts:
        raise InputError(f"{show(said)} is no prefix of traces", key="common_config.workload")
    for kept in (parts, parts[-2:], parts[-1:]):
        prefix = folder.joinpath(*kept)
        if any(prefix.parent.glob(f"{_literal(prefix.name)}.*")):
            return prefix
    found = sorted({str(one.relative_to(folder)) for one in folder.rglob("*.0.et")})
    more = f"; there is {', '.join(found[:4])}" if found else "; no traces have been uploaded"
    raise InputError(f"no traces {show(said)}.RANK.et were uploaded{more}", key="workload")


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _system(system: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    content = {_LETTERS.get(key, _dashed(key)): value for key, value in system.items()}
    custom = [kind for kind in _CUSTOM if f"{kind}_implementation_custom" in system]
    for kind in custom:
        key = _dashed(f"{kind}_implementation_custom")
        paths = _list(content[key], f"system.{kind}_implementation_custom")
        content[key] = [str(_inside(folder, one, key)) for one in paths]
    if custom:
        # As ASTRA-sim's service has it: traces of their own take the place of all algorithms.
        for kind in (*_CUSTOM, "reduce_scatter"):
            content.pop(_dashed(f"{kind}_implementation"), None)
    return content


def _analytical(described: Mapping[str, Any], folder: Path, _results: Path) -> dict[str, str]:
    topology = _object(_needed(described, "topology", "analytical"), "topology")
    _only(topology, "network")
    dims = _list(_needed(topology, "network", "topology"), "topology.network")
    rows = [_object(one, "topology.network") for one in dims]
    kinds = [str(_needed(row, "topology", "topology.network")) for row in rows]
    content: dict[str, Any] = {"topology": [_KINDS.get(kind, kind) for kind in kinds]}
    for key in ("npus_count", "bandwidth", "latency"):
        content[key] = [_needed(row, key, "topology.network") for row in rows]
    file = folder / "analytical_network.yml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return {"network-configuration": str(file)}


def _ns3(described: Mapping[str, Any], folder: Path, results: Path) -> dict[str, str]:
    topology = _object(_needed(described, "topology", "ns3"), "ns3.topology")
    _only(topology, "nc_topology")
    links = folder / "nc-topology-file.txt"
    links.write_text(_nc_topology(_part(topology, "nc_topology")), encoding="utf-8")
    trace = folder / "trace.txt"
    ids = _list(_part(described, "trace").get("trace_ids", []), "ns3.trace.trace_ids")
    trace.write_text(f"{len(ids)}\n{' '.join(map(str, ids))}\n", encoding="utf-8")
    lines = []
    for key, value in _part(described, "network").items():
        name = key.removesuffix("_file")
        if key == "topology_file":
            value = links
        elif key == "trace_file":
            value = trace
        elif name in _OF_RESULTS:
            value = results / PurePosixPath(str(value)).name
        words = value if isinstance(value, list) else [value]
        lines.append(f"{key.upper()} {' '.join(map(str, words))}\n")
    file = folder / "network_config.txt"
    file.write_text("".join(lines), encoding="utf-8")
    flags = {"network-configuration": str(file)}
    logical = _part(described, "logical_topology").get("logical_dimensions")
    if logical:
        content = {"logical-dims": [str(one) for one in _list(logical, "logical_dimensions")]}
        flags["logical-topology-configuration"] = _json(folder / "logical.json", content)
    return flags


def _nc_topology(described: Mapping[str, Any]) -> str:
    """The text of a topology file: counts, switches, and a line for each cable."""

    def need(key: str) -> Any:
        return _needed(described, key, "ns3.topology.nc_topology")

    rows = [_object(one, "connections") for one in _list(need("connections"), "connections")]
    total = described.get("total_links", len(rows))
    lines = [f"{need('total_nodes')} {need('total_switches')} {total}"]
    lines.append(" ".join(map(str, _list(described.get("switch_ids", []), "switch_ids"))))
    columns = ("source_index", "destination_index", "bandwidth", "latency")
    for row in rows:
        words = [str(_needed(row, key, "connections")) for key in columns]
        lines.append(" ".join([*words, str(row.get("error_rate", 0))]))
    return "\n".join(lines) + "\n"


_NETWORKS: dict[str, Callable[[Mapping[str, Any], Path, Path], dict[str, str]]] = {
    "analytical_congestion_aware": _analytical,
    "analytical_congestion_unaware": _analytical,
    "ns3": _ns3,
}
"""Choice of a network -> what writes its files."""


# ---- helpers ----


def _dashed(key: str) -> str:
    return str(key).replace("_", "-")


def _json(file: Path, content: Any) -> str:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return str(file)


def _inside(folder: Path, said: Any, key: str) -> Path:
    path = folder / str(said)
    if ".." in PurePosixPath(str(said)).parts or PurePosixPath(str(said)).is_absolute():
        raise InputError(f"{show(said)} is no path among the uploaded files", key=key)
    return path


def _object(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{show(value)} is no object", key=key)
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{show(value)} is no list", key=key)
    return value


def _needed(holder: Mapping[str, Any], key: str, where: str) -> Any:
    if holder.get(key) is None:
        raise InputError("is missing", key=f"{where}.{key}")
    return holder[key]


def _only(topology: Mapping[str, Any], choice: str) -> None:
    """Refuse what the SDK can describe, but this service does not translate."""
    given = topology.get("choice", choice)
    if given != choice:
        raise InputError(
            f"{show(given)} is not served here; allowed: {choice} (`astra-bridge topology` "
            "converts InfraGraph files)",
            key="topology.choice",
        )


def _part(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return _object(holder.get(key) or {}, key)
