# SPDX-License-Identifier: MIT
"""The remote-memory configuration (JSON)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import msgspec

from astra_bridge.arguments import (
    check_fields,
    choice,
    integer,
    list_of,
    optional,
    path,
    source_file,
    text,
)
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import (
    MAX_TIME_NS,
    check_keys,
    convert,
    load_json,
    path_or_name,
    whole,
)
from astra_bridge.records import Sourced

__all__ = ["HostMemory", "RemoteMemoryConfig", "read_remote_memory"]

HostMemory = Literal["pinned", "pageable"]


class RemoteMemoryConfig(Sourced, frozen=True, eq=False):
    """Where tensors live that a rank loads from or stores to remote memory.

    Attributes
    ----------
    kind
        Who shares one memory: nobody has one ("NO_MEMORY_EXPANSION"), each rank
        ("PER_NPU_MEMORY_EXPANSION"), the ranks of a node ("PER_NODE_MEMORY_EXPANSION"), all ranks
        ("MEMORY_POOL"); the host of each rank ("HOST_MEMORY"), or a plug-in's name.
    latency_ns, bandwidth_GBps
        One access takes ``latency_ns + floor(bytes / bandwidth_GBps)`` ns.  The bandwidth is a
        whole number of decimal GB/s, as in ASTRA-sim, and positive unless there is no memory.
    num_nodes, num_npus_per_node
        Nodes, and ranks per node (``PER_NODE_MEMORY_EXPANSION`` only, else 0).
    hardware, host_memory
        Accelerator whose copies of "pinned" or "pageable" memory count: a name, or the path of a
        profile (``HOST_MEMORY`` only, else None).
    source, warnings
        The file, and sentences for the user.
    """

    kind: str = "NO_MEMORY_EXPANSION"
    latency_ns: int = 0
    bandwidth_GBps: int = 0
    num_nodes: int = 0
    num_npus_per_node: int = 0
    hardware: str | None = None
    host_memory: HostMemory = "pinned"
    source: Path | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, _FIELDS)


_FIELDS = {
    "kind": text,
    "latency_ns": integer(0, MAX_TIME_NS),
    "bandwidth_GBps": integer(0, 2**53),
    "num_nodes": integer(0, 2**31 - 1),
    "num_npus_per_node": integer(0, 2**31 - 1),
    "hardware": optional(text),
    "host_memory": choice(*get_args(HostMemory)),
    "source": optional(path),
    "warnings": list_of(text),
}

_Latency = (
    Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_NS)]
    | Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME_NS)]
)
_Bandwidth = (
    Annotated[int, msgspec.Meta(ge=0, le=2**53)] | Annotated[float, msgspec.Meta(ge=0, le=2**53)]
)
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class _MemoryFile(msgspec.Struct, rename="kebab"):
    memory_type: str
    remote_mem_latency: _Latency = 0
    remote_mem_bw: _Bandwidth = 0
    num_nodes: _Count | None = None
    num_npus_per_node: _Count | None = None
    hardware: str | None = None
    host_memory: HostMemory = "pinned"


_KEYS = tuple(item.encode_name for item in msgspec.structs.fields(_MemoryFile))


def read_remote_memory(
    source: str | Path | Mapping[str, Any] | RemoteMemoryConfig,
) -> RemoteMemoryConfig:
    """Read a remote-memory configuration.

    Raises
    ------
    InputError
        The file cannot be read, or a key or value is not understood.
    """
    if isinstance(source, RemoteMemoryConfig):
        return source
    file = source_file(source, "remote_memory")
    raw = load_json(file) if file is not None else source
    warnings = check_keys(raw, _KEYS, file=file)
    if cast("dict[str, Any]", raw).get("memory-type") is None:
        raise InputError(
            "missing; it says where remote memory is, such as NO_MEMORY_EXPANSION",
            file=file,
            key="memory-type",
        )
    # Before msgspec, whose message does not say what is allowed.
    choice(*get_args(HostMemory))(
        cast("dict[str, Any]", raw).get("host-memory", "pinned"), "host-memory"
    )
    read = convert(raw, _MemoryFile, file=file)
    bandwidth = whole(read.remote_mem_bw, key="remote-mem-bw", file=file, warnings=warnings)
    return RemoteMemoryConfig(
        kind=read.memory_type,
        latency_ns=whole(
            read.remote_mem_latency, key="remote-mem-latency", file=file, warnings=warnings
        ),
        bandwidth_GBps=bandwidth,
        num_nodes=read.num_nodes or 0,
        num_npus_per_node=read.num_npus_per_node or 0,
        hardware=path_or_name(read.hardware, file),
        host_memory=read.host_memory,
        source=file,
        warnings=tuple(warnings),
    )
