# SPDX-License-Identifier: MIT
"""Recordings as PyTorch writes them, made event by event; times in us."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


class Recording:
    """A Kineto trace of one rank.

    Parameters
    ----------
    rank, world
        Of the job.
    groups
        Name of a process group -> its ranks.
    """

    def __init__(self, rank: int = 0, world: int = 1, groups: dict[str, list[int]] | None = None):
        self.events: list[dict[str, Any]] = []
        self.correlation = 100
        self.record = 0
        groups = {"0": list(range(world))} | (groups or {})
        config = [{"pg_name": n, "pg_size": len(r), "ranks": r} for n, r in groups.items()]
        self.head = {
            "schemaVersion": 1,
            "distributedInfo": {"rank": rank, "world_size": world, "pg_config": config},
        }
        self.groups = groups
        self.nodes: list[dict[str, Any]] = []

    def add(self, cat: str, name: str, ts: float, dur: float, tid: int = 1, **args: Any) -> None:
        self.events.append(
            {"ph": "X", "cat": cat, "name": name, "pid": 9, "tid": tid, "ts": ts, "dur": dur,
             "args": args}
        )  # fmt: skip

    def op(self, ts: float, dur: float, name: str = "aten::mm", tid: int = 1, **args: Any) -> None:
        self.record += 1
        args = {"External id": self.record, "Record function id": self.record} | args
        self.add("cpu_op", name, ts, dur, tid, **args)

    def call(self, name: str, ts: float, dur: float = 2, tid: int = 1, **args: Any) -> int:
        """A call of CUDA's runtime; returns its correlation."""
        self.correlation += 1
        self.add("cuda_runtime", name, ts, dur, tid, correlation=self.correlation, **args)
        return self.correlation

    def kernel(
        self, launch: float, start: float, dur: float, name: str = "gemm", stream: int = 7,
        tid: int = 1, **args: Any,
    ) -> None:  # fmt: skip
        """A kernel and its launch."""
        link = self.call("cudaLaunchKernel", launch, tid=tid)
        self.add("kernel", name, start, dur, stream, correlation=link, device=0, stream=stream,
                 **args)  # fmt: skip

    def described(self, kind: str, elements: int, group: str, **more: Any) -> dict[str, Any]:
        """Kineto's arguments of ``record_param_comms``."""
        ranks = self.groups[group]
        return {
            "Collective name": kind, "In msg nelems": elements, "Out msg nelems": elements,
            "dtype": "BFloat16", "Group size": len(ranks), "Process Group Name": group,
            "Process Group Ranks": str(ranks),
        } | more  # fmt: skip

    def collective(
        self, at: float, dur: float, kind: str = "allreduce", elements: int = 512,
        group: str = "0", stream: int = 20, tid: int = 1, **more: Any,
    ) -> None:  # fmt: skip
        """A collective on NCCL: operator, ``record_param_comms``, launch and kernel."""
        args = self.described(kind, elements, group, **more)
        self.op(at, 20, f"c10d::{kind}_", tid)
        self.op(at + 1, 18, "record_param_comms", tid, **args)
        self.call("cudaEventRecord", at + 2, 1, tid)
        self.call("cudaStreamWaitEvent", at + 4, 1, tid)
        self.kernel(at + 6, at + 15, dur, f"ncclDevKernel_{kind}(ncclComm*)", stream, tid)

    def execution_trace(self, path: Path, sizes: dict[str, list[Any]]) -> Path:
        """Write the execution trace of the operators so far; inputs of some of them by name."""
        nodes = [
            {"id": i, "name": e["name"], "ctrl_deps": 1,
             "inputs": {"values": sizes.get(e["name"], []), "shapes": [], "types": []},
             "outputs": {"values": [], "shapes": [], "types": []},
             "attrs": [{"name": "rf_id", "value": e["args"]["Record function id"]},
                       {"name": "tid", "value": e["tid"]}]}
            for i, e in enumerate(self.events, 2) if e["cat"] == "cpu_op"
        ]  # fmt: skip
        text = json.dumps({"schema": "1.1.1-chakra.0.0.4", "pid": 9, "nodes": nodes}, indent=1)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
        return path

    def write(self, path: Path) -> Path:
        text = json.dumps(self.head | {"traceEvents": self.events, "traceName": "x"}, indent=1)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
        return path
