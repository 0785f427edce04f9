# SPDX-License-Identifier: MIT
"""What only a run tells about the quirks of its semantics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.engine import Outcome
from astra_bridge.program import Program, Unit
from astra_bridge.semantics import QUIRKS, Effects, Semantics

__all__ = ["seen_in_run"]


def seen_in_run(
    program: Program,
    outcome: Outcome,
    stats: Mapping[str, Any],
    exposed_ps: NDArray[np.int64],
    semantics: Semantics,
    copies: int = 1,
) -> Effects:
    """Note the quirks that made a difference.

    Parameters
    ----------
    program, outcome
        What ran, to its end.
    stats
        Of the network; its ``quirks`` are how many transfers each quirk changed.
    exposed_ps : ndarray of int64, shape (tasks,)
        Exposed communication.
    semantics
        The quirks.
    copies
        How many tasks each one stands for.
    """
    effects = Effects()
    changed = stats.get("quirks")
    for quirk, count in changed.items() if isinstance(changed, Mapping) else ():
        if quirk in QUIRKS:
            effects.note(quirk, f"changed the time of {count:,} message(s)")
    if "one-communication-at-a-time" in semantics and len(outcome.node_start_ps):
        waits, longest_ps = _waits(program, outcome)
        if waits:
            effects.note(
                "one-communication-at-a-time",
                f"{waits * copies:,} node(s) waited for another one of their rank, the longest "
                f"{longest_ps // 1000:,} ns",
            )
    negative = int((exposed_ps < 0).sum()) * copies
    if negative and "printed-times-wrap-around" in semantics:
        effects.note(
            "printed-times-wrap-around",
            f"the exposed communication of {negative:,} rank(s) is negative",
        )
    return effects


def _waits(program: Program, outcome: Outcome) -> tuple[int, int]:
    """How many communication nodes began later than the last of their parents ended."""
    waits, longest_ps = 0, 0
    index = program.tasks["template_index"]
    for number, template in enumerate(program.templates):
        first, count = int(template["node_start"]), int(template["node_count"])
        nodes = program.nodes[first : first + count]
        communicates = nodes["unit"] == int(Unit.COMM)
        if communicates.sum() < 2:
            continue
        begin = int(nodes["child_start"].min())
        end = int((nodes["child_start"] + nodes["child_count"]).max())
        child = program.children[begin:end]
        parent = np.repeat(np.arange(count), nodes["child_count"])
        wanted = communicates[child]
        child, parent = child[wanted], parent[wanted]
        by_child = np.argsort(child, kind="stable")
        child, parent = child[by_child], parent[by_child]
        some = np.flatnonzero(np.diff(child, prepend=-1))
        for task in np.flatnonzero(index == number).tolist():
            at = int(outcome.task_node_start[task])
            ends = outcome.node_end_ps[at : at + count]
            ready = np.full(count, int(program.tasks["start_ps"][task]))
            if len(child):
                ready[child[some]] = np.maximum.reduceat(ends[parent], some)
            late = (outcome.node_start_ps[at : at + count] - ready)[communicates]
            waits += int((late > 0).sum())
            longest_ps = max(longest_ps, int(late.max()))
    return waits, longest_ps
