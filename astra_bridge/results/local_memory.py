# SPDX-License-Identifier: MIT
"""The local-memory trace of ``track-local-mem``: which tensors live when, on each rank.

Nodes say what they read and write in the attributes ``inputs`` and ``outputs``, each a list
``[name, bytes, name, bytes, ...]``.  A tensor lives from the start of the node that writes it to
the end of the last node that reads it; one that is read but never written is there from the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from astra_bridge.errors import InputError
from astra_bridge.records import Record, field

if TYPE_CHECKING:
    from astra_bridge.results.times import RankTimes
    from astra_bridge.trace import TraceColumns

__all__ = ["LocalMemory", "local_memory"]

_LIFETIME_PID, _USAGE_PID, _HEAT_PID = 1_000_000, 2_000_000, 3_000_000
_UNDEFINED_NODE = 2**64 - 1
_UNITS = ("B", "KB", "MB", "GB", "TB")
_HEAT_LABEL = "Tensor Lifetime Heap"
_HEAT_ORDER = "Longest Lifetime → Shortest Lifetime"


class _Access(Record, frozen=True):
    start_ns: int
    end_ns: int
    node_name: str
    node_id: int


class LocalMemory(msgspec.Struct):
    """Tensors of one rank: name -> bytes, write access, read accesses in order of their end."""

    rank: int
    size_bytes: dict[str, int] = field(default_factory=dict)
    write: dict[str, _Access] = field(default_factory=dict)
    reads: dict[str, list[_Access]] = field(default_factory=dict)

    def usage(self) -> list[tuple[int, int]]:
        """Steps of the memory in use: (time [ns], bytes from then on)."""
        change: dict[int, int] = {}
        for name, access in self.write.items():
            change[access.start_ns] = change.get(access.start_ns, 0) + self.size_bytes[name]
        for name, accesses in self.reads.items():
            end = accesses[-1].end_ns
            change[end] = change.get(end, 0) - self.size_bytes[name]
        total = 0
        steps = []
        for time_ns in sorted(change):
            total += change[time_ns]
            steps.append((time_ns, total))
        return steps

    def peak(self) -> str:
        """Peak use for people, as ASTRA-sim prints it ("1.50 GB", powers of 1024)."""
        peak_bytes = max((used for _, used in self.usage()), default=0)
        power = min(max(peak_bytes.bit_length() - 1, 0) // 10, 4)
        # ASTRA-sim rounds to single precision first.
        return f"{float(np.float32(peak_bytes)) / 1024**power:.2f} {_UNITS[power]}"

    def chrome_trace(self) -> dict[str, Any]:
        """Events as in ASTRA-sim's ``{name}.{rank}.json``."""
        return {"traceEvents": list(self._events())}

    def _events(self) -> Iterator[dict[str, Any]]:
        tid = {name: index for index, name in enumerate(sorted(self.size_bytes))}
        for name in tid:
            for access in self.reads.get(name, ()):
                yield from self._span("tensorRead", name, tid[name], access)
        for name in tid:
            yield from self._span("tensorWrite", name, tid[name], self.write[name])
        last_reads = {name: accesses[-1].end_ns for name, accesses in self.reads.items()}
        for phase, times in (
            ("B", {name: access.start_ns for name, access in self.write.items()}),
            ("E", last_reads),
        ):
            for name, time_ns in times.items():
                yield {
                    "name": name,
                    "cat": "tensorLifetime",
                    "ph": phase,
                    "ts": 1e-3 * time_ns,
                    "pid": self.rank + _LIFETIME_PID,
                    "tid": tid[name],
                    "args": {"size": self.size_bytes[name]},
                }
        usage = self.usage()
        for time_ns, used in usage:
            yield {
                "name": "GPU Memory Usage (MB)",
                "cat": "GPU Memory",
                "ph": "C",
                "ts": 1e-3 * time_ns,
                "pid": self.rank + _USAGE_PID,
                "args": {"Memory_MB": used / 2**20},
            }
        yield from self._heat(last_reads, usage[-1][0] if usage else 0)

    def _span(
        self, category: str, name: str, tid: int, access: _Access
    ) -> Iterator[dict[str, Any]]:
        for phase, time_ns in (("B", access.start_ns), ("E", access.end_ns)):
            yield {
                "name": name,
                "cat": category,
                "ph": phase,
                "ts": 1e-3 * time_ns,
                "pid": self.rank,
                "tid": tid,
                "args": {
                    "size": self.size_bytes[name],
                    "node_name": access.node_name,
                    "node_id": access.node_id,
                },
            }

    def _heat(self, last_reads: dict[str, int], last_ns: int) -> Iterator[dict[str, Any]]:
        """Tensors by lifetime: the longer-lived, the further down; the larger, the redder."""
        pid = self.rank + _HEAT_PID
        yield {"name": "process_name", "ph": "M", "pid": pid, "args": {"name": _HEAT_LABEL}}
        label = {"name": _HEAT_ORDER}
        yield {"name": "thread_name", "ph": "M", "pid": pid, "tid": 0, "args": label}
        lifetime = {
            name: max(last_reads.get(name, last_ns) - access.start_ns, 0)
            for name, access in self.write.items()
        }
        low, high = min(lifetime.values(), default=0), max(lifetime.values(), default=0)
        largest = max(self.size_bytes.values(), default=1)
        for name in sorted(lifetime, key=lambda name: -lifetime[name]):
            size = self.size_bytes[name]
            share = float(lifetime[name] - low) / float(high - low) if high > low else 0.0
            position = int(share * (len(lifetime) - 1))
            red = min(255, int(float(size) / float(largest) * 255))
            size_MB = size / 2**20
            yield {
                "name": f"{_short(name)} ({f'{size_MB:.6f}'[:5]} MB)",
                "cat": "tensorHeatmap",
                "ph": "X",
                "ts": 1e-3 * self.write[name].start_ns,
                "dur": 1e-3 * lifetime[name],
                "pid": pid,
                "tid": position,
                "cname": f"#{red:02X}64{255 - red:02X}",
                "args": {
                    "tensor_name": name,
                    "size_bytes": size,
                    "size_mb": size_MB,
                    "lifetime_ns": lifetime[name],
                    "position": position,
                },
            }
        yield {
            "name": "Tensor Lifetime Heatmap",
            "cat": "tensorHeatmap",
            "ph": "i",
            "ts": 0,
            "pid": pid,
            "s": "p",
            "args": {
                "description": "Tensors arranged by lifetime duration (longest at bottom)",
                "total_tensors": len(lifetime),
                "displayed_tensors": len(lifetime),
            },
        }


def _short(name: str) -> str:
    """At most 20 bytes of a name, as ASTRA-sim cuts it; never half a character."""
    encoded = name.encode()
    return name if len(encoded) <= 20 else f"{encoded[:17].decode(errors='ignore')}..."


def local_memory(result: RankTimes, rank: int) -> LocalMemory:
    """Follow the tensors of one rank.

    Raises
    ------
    InputError
        A node's list of tensors is malformed, or two nodes write the same tensor.
    """
    nodes = result.nodes_of(rank)
    columns = nodes.columns
    memory = LocalMemory(rank)
    ran = np.flatnonzero(nodes.end_ps >= 0)
    for index in ran[np.argsort(nodes.end_ps[ran], kind="stable")].tolist():
        attributes = columns.attributes(index)
        access = _Access(
            int(nodes.start_ps[index]) // 1000,
            int(nodes.end_ps[index]) // 1000,
            columns.name(index),
            int(columns.node_id[index]),
        )
        for name, size in _tensors(columns, index, "inputs", attributes.get("inputs")):
            if name not in memory.size_bytes:
                memory.size_bytes[name] = size
                # ASTRA-sim shows such a tensor as written in the first 10 ns.
                memory.write[name] = _Access(0, 10, "UNDEFINED", _UNDEFINED_NODE)
            memory.reads.setdefault(name, []).append(access)
        for name, size in _tensors(columns, index, "outputs", attributes.get("outputs")):
            if name in memory.size_bytes:
                raise InputError(
                    f"tensor {name!r} is written a second time, or after it was read",
                    file=columns.file,
                    key=f"node {access.node_id} outputs",
                )
            memory.size_bytes[name] = size
            memory.write[name] = access
    return memory


def _tensors(
    columns: TraceColumns, index: int, attribute: str, value: object
) -> Iterator[tuple[str, int]]:
    """(name, bytes) pairs of an attribute; tensors of no bytes do not count."""
    if value is None:
        return
    key = f"node {columns.node_id[index]} {attribute}"
    if not isinstance(value, list) or len(value) % 2:
        raise InputError(
            "expected a list of strings name, bytes, name, bytes, ...", file=columns.file, key=key
        )
    for name, size in zip(value[::2], value[1::2], strict=True):
        try:
            count = int(size)
        except (TypeError, ValueError):
            count = -1
        if count < 0 or not isinstance(name, str):
            raise InputError(
                f"{name!r}, {size!r} is not a tensor's name and its bytes",
                file=columns.file,
                key=key,
            )
        if count:
            yield name, count
