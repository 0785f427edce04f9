# SPDX-License-Identifier: MIT
"""How much of a rank's time its GPU did not compute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from astra_bridge.engine import Outcome
from astra_bridge.lowering import Lowered
from astra_bridge.program import Op, Unit
from astra_bridge.trace import NodeType

__all__ = ["exposed_comm_ps"]


def exposed_comm_ps(lowered: Lowered, outcome: Outcome) -> NDArray[np.int64]:
    """Finish of each task less its start and the time of its GPU compute nodes, shape (tasks,).

    Where these may run at once, in several streams, that is the time in which at least one of them
    ran; the sum of their durations, where nodes were not recorded.
    """
    program = lowered.program
    template = program.tasks["template_index"]
    wall_ps = outcome.task_finish_ps - program.tasks["start_ps"]
    exposed: NDArray[np.int64] = wall_ps - program.templates["compute_ps"][template]
    at_once = (program.nodes["unit"] == Unit.NONE) & (program.nodes["op"] == Op.DELAY)
    if not (len(outcome.node_end_ps) and at_once.any()):
        return exposed
    # Imported here: few runs need it.
    from astra_bridge.explanation.breakdown import first_of_those_that_run

    for index in range(len(program.templates)):
        nodes = program.nodes_of(index)
        tasks = np.flatnonzero(template == index)
        if not ((nodes["unit"] == Unit.NONE) & (nodes["op"] == Op.DELAY)).any() or not len(tasks):
            continue
        trace = int(lowered.trace_of_task[tasks[0]])
        columns, order = lowered.traces[trace], lowered.order[trace]
        kernel = ((columns.type == NodeType.COMP) & ~columns.is_cpu_op)[order]
        if not (kernel & (nodes["unit"] == Unit.NONE)).any():
            continue
        where = outcome.task_node_start[tasks][:, None] + np.flatnonzero(kernel)
        row = np.broadcast_to(np.arange(len(tasks))[:, None], where.shape).reshape(-1)
        start, end = outcome.node_start_ps[where], outcome.node_end_ps[where]
        busy = first_of_those_that_run(
            row, np.zeros_like(row), start.reshape(-1), end.reshape(-1), len(tasks), 1
        )
        exposed[tasks] = wall_ps[tasks] - busy[:, 0]
    return exposed
