# SPDX-License-Identifier: MIT
"""A run of a public simulator with its answer: written as the files that a simulation reads."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from astra_bridge.trace.columns import CommType, NodeType
from astra_bridge.trace.writer import TraceNode, write_trace

_TYPES = {
    "COMP": NodeType.COMP,
    "COLL": NodeType.COMM_COLL,
    "SEND": NodeType.COMM_SEND,
    "RECV": NodeType.COMM_RECV,
    "LOAD": NodeType.MEM_LOAD,
    "STORE": NodeType.MEM_STORE,
}
_FIELDS = frozenset(("id", "type", "name", "data_deps", "ctrl_deps", "duration_micros"))


__all__ = ["GoldenCase", "write_golden_case", "write_ns3_network", "write_traces"]


@dataclass(frozen=True)
class GoldenCase:
    """Paths of one case, and what is expected of it.

    Attributes
    ----------
    workload
        Prefix of the ``.et`` files.
    network
        YAML of an analytical case; None for the packet-level ones.
    comm_groups
        None where the case has none.
    flags
        Command-line flags without dashes, as in ``{"num-queues-per-dim": "2"}``.
    model
        "congestion_aware" or "congestion_unaware"; "" for packet level.
    finish_ns, exposed_comm_ns
        One per rank; None where ASTRA-sim itself gives no answer.
    """

    id: str
    model: str
    ranks: int
    workload: Path
    system: Path
    network: Path | None
    remote_memory: Path
    comm_groups: Path | None
    flags: dict[str, str] = field(default_factory=dict)
    finish_ns: list[int] | None = None
    exposed_comm_ns: list[int] | None = None

    def arguments(self) -> list[str]:
        """Return ASTRA-sim's command-line flags for this case."""
        paths = {
            "workload-configuration": self.workload,
            "system-configuration": self.system,
            "network-configuration": self.network,
            "remote-memory-configuration": self.remote_memory,
            "comm-group-configuration": self.comm_groups,
        }
        out = [f"--{key}={path}" for key, path in paths.items() if path is not None]
        return out + [f"--{key}={value}" for key, value in self.flags.items()]


def trace_node(node: dict[str, Any]) -> TraceNode:
    """Convert a node of a golden case."""
    attributes: dict[str, Any] = {"is_cpu_op": False}
    attributes |= {key: value for key, value in node.items() if key not in _FIELDS}
    comm_type = attributes.get("comm_type")
    if isinstance(comm_type, str):
        attributes["comm_type"] = int(CommType[comm_type])
    return TraceNode(
        id=node["id"],
        type=_TYPES[node["type"]],
        name=node.get("name", f"{node['type']}_{node['id']}"),
        duration_micros=node.get("duration_micros", 0),
        data_deps=node.get("data_deps", []),
        ctrl_deps=node.get("ctrl_deps", []),
        attributes=attributes,
    )


def write_traces(prefix: Path, traces: dict[str, list[dict[str, Any]]], ranks: int) -> None:
    """Write ``{prefix}.{rank}.et`` for all ranks; one file with many names where all are equal."""
    shared: Path | None = None
    for rank in range(ranks):
        path = Path(f"{prefix}.{rank}.et")
        nodes = traces.get(str(rank), traces.get("all"))
        if nodes is None:
            raise ValueError(f"the case has no trace for rank {rank}")
        if str(rank) not in traces and shared is not None:
            os.link(shared, path)
            continue
        write_trace(path, map(trace_node, nodes))
        if str(rank) not in traces:
            shared = path


def write_golden_case(case: Path | str | dict[str, Any], folder: Path | str) -> GoldenCase:
    """Write one case into a folder (created if need be).

    Parameters
    ----------
    case
        A file of ``analytical``, ``analytical_upstream_fails`` or ``ns3``, or its content.
    folder
        Should be empty.
    """
    data: dict[str, Any] = (
        case if isinstance(case, dict) else json.loads(Path(case).read_text(encoding="utf-8"))
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, key: str) -> Path | None:
        content = data.get(key)
        if content is None:
            return None
        path = folder / name
        path.write_text(
            yaml.safe_dump(content) if name.endswith("yml") else json.dumps(content, indent=1)
        )
        return path

    network = data.get("network")
    ranks = data["ranks"] if network is None else math.prod(network["npus_count"])
    workload = folder / "trace"
    write_traces(workload, data["traces"], ranks)
    remote_memory = write("memory.json", "remote_memory")
    if remote_memory is None:
        remote_memory = folder / "memory.json"
        remote_memory.write_text('{"memory-type": "NO_MEMORY_EXPANSION"}')
    system = write("system.json", "system")
    assert system is not None
    expect = data.get("expect", {})
    return GoldenCase(
        id=data["id"],
        model=data.get("model", ""),
        ranks=ranks,
        workload=workload,
        system=system,
        network=write("network.yml", "network"),
        remote_memory=remote_memory,
        comm_groups=write("comm_group.json", "comm_groups"),
        flags={key.lstrip("-"): str(value) for key, value in data.get("flags", {}).items()},
        finish_ns=expect.get("finish_ns"),
        exposed_comm_ns=expect.get("exposed_comm_ns"),
    )


def write_ns3_network(case: dict[str, Any], folder: Path) -> Path:
    """Write ``config.txt`` and the topology file of a packet-level case; return the former."""
    topology = case["topology"]
    lines = [f"{topology['nodes']} {len(topology['switches'])} {len(topology['links'])}"]
    lines.append(" ".join(map(str, topology["switches"])))
    lines += [" ".join(map(str, link)) for link in topology["links"]]
    (folder / "topology.txt").write_text("\n".join(lines) + "\n")
    keys = {**case["config"], "TOPOLOGY_FILE": folder / "topology.txt"}
    config = folder / "config.txt"
    config.write_text("".join(f"{key} {value}\n" for key, value in keys.items()))
    return config
