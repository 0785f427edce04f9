# SPDX-License-Identifier: MIT
"""Make a Result from times that are written down in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from astra_bridge.inputs.system import read_system
from astra_bridge.results import Result, Table
from astra_bridge.results.times import NodeRecord
from astra_bridge.trace import NodeType, read_workload
from astra_bridge.trace.writer import TraceNode, write_trace


def make(
    folder: Path,
    times_ns: list[list[tuple[int, int]]],
    nodes: list[list[TraceNode]],
    system: dict[str, Any] | None = None,
    **fields: Any,
) -> Result:
    """A result of made-up times: one list of nodes, and of (start, end), per rank."""
    tables = fields.pop("tables", {})
    fields["tables"] = {name: Table(name, columns) for name, columns in tables.items()}
    for rank, trace in enumerate(nodes):
        write_trace(folder / f"trace.{rank}.et", trace)
    flat = np.array([pair for rank in times_ns for pair in rank], np.int64).reshape(-1, 2)
    ps = np.where(flat < 0, -1, flat * 1000)
    finish = np.array([max((end for _, end in rank), default=0) for rank in times_ns], np.int64)
    return Result(
        **{
            "backend": "analytical-aware",
            "engine": "python",
            "semantics": "astra-sim",
            "finish_ps": finish * 1000,
            "exposed_comm_ps": finish * 500,
            "wall_s": 0.25,
            "run_cpu_s": 0.125,
            "events": 42,
            "workload": read_workload(folder / "trace", len(nodes)),
            "system": read_system(system or {}),
            "recorded": NodeRecord(
                np.cumsum([0, *map(len, times_ns)]), ps[:, 0].copy(), ps[:, 1].copy()
            ),
            **fields,
        }
    )


def node(node_id: int, kind: NodeType, name: str = "", **attributes: Any) -> TraceNode:
    attributes = {"is_cpu_op": False} | attributes
    return TraceNode(id=node_id, type=kind, name=name or f"n{node_id}", attributes=attributes)


COMP, COLL = NodeType.COMP, NodeType.COMM_COLL
PAIR = [node(0, COMP), node(1, COLL, comm_type=0, comm_size=8)]
