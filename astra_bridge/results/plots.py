# SPDX-License-Identifier: MIT
"""Plots of a result; nothing is drawn where matplotlib is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astra_bridge.errors import MissingDependency
from astra_bridge.files import NewFiles
from astra_bridge.plotting import new_figure, save_figure
from astra_bridge.signals import deferred
from astra_bridge.text import one_line

if TYPE_CHECKING:
    from astra_bridge.results.table import Table
    from astra_bridge.results.times import RankTimes

__all__ = ["save_ranks_plot", "save_tiers_plot"]

_MOST_STEPS = 1000
"""Steps of a line over time; of more intervals several become one."""
_MOST_TIERS = 8


@deferred()  # matplotlib's C++ code does not bear an exception out of nowhere
def save_ranks_plot(files: NewFiles, result: RankTimes, path: Path) -> list[Path]:
    """Draw finish time and exposed communication per rank, where matplotlib is installed."""
    try:
        figure = new_figure(7, 3.5)
    except MissingDependency:
        return []
    axes = figure.subplots()
    ranks = np.arange(result.rank_count)
    axes.fill_between(ranks, result.finish_ns / 1e3, step="mid", label="finish", color="#9ecae1")
    exposed = result.exposed_comm_ns / 1e3
    axes.fill_between(ranks, exposed, step="mid", label="exposed communication", color="#e6550d")
    axes.set_xlabel("rank")
    axes.set_ylabel("time [us]")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{result.backend}, semantics {result.semantics}")
    axes.legend(loc="lower right")
    save_figure(files, figure, path)
    return [path]


@deferred()  # matplotlib's C++ code does not bear an exception out of nowhere
def save_tiers_plot(
    files: NewFiles, load: Table, interval_ps: int, title: str, path: Path
) -> list[Path]:
    """Draw how busy each tier is over time, and its queues where the table has them.

    Parameters
    ----------
    load
        The table "tier_load".
    interval_ps
        The length of its intervals.
    """
    try:
        new_figure(1, 1)
    except MissingDependency:
        return []
    has_queues = "max_queue_bytes" in load
    figure = new_figure(7, 5.5 if has_queues else 3.5)
    panels = figure.subplots(1 + has_queues, 1, sharex=True, squeeze=False)[:, 0]
    start = load["time_ps"] // interval_ps
    steps = int(start.max(initial=0)) + 1
    width = -(-steps // _MOST_STEPS)  # intervals of a step
    steps = -(-steps // width)
    edges_us = np.arange(steps + 1) * width * interval_ps / 1e6
    # Those that carried most; a fabric of many tiers would hide them.
    names = list(dict.fromkeys(load["tier"].tolist()))
    names.sort(key=lambda name: -int(load["bytes"][load["tier"] == name].sum()))
    for at, name in enumerate(names[:_MOST_TIERS]):
        mine = load["tier"] == name
        step = start[mine] // width
        busy = np.zeros(steps)
        np.add.at(busy, step, load["busy_share"][mine] / width)
        color, label = f"C{at}", one_line(str(name))
        panels[0].stairs(100 * busy, edges_us, color=color, label=label, linewidth=1.3)
        most = _largest(step, load["max_busy_share"][mine], steps)
        panels[0].stairs(100 * most, edges_us, color=color, linewidth=0.7, linestyle=":")
        if has_queues:
            longest = _largest(step, load["max_queue_bytes"][mine], steps)
            panels[1].stairs(longest / 1e3, edges_us, color=color, label=label, linewidth=1.3)
    panels[0].set(ylabel="busy [% of the time]", ylim=(0, 105), title=title)
    panels[0].plot([], [], color="grey", linewidth=0.7, linestyle=":", label="its busiest link")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    if has_queues:
        panels[1].set(ylabel="longest queue [kB]")
        panels[1].set_ylim(bottom=0)
    panels[-1].set(xlabel="time [us]")
    save_figure(files, figure, path)
    return [path]


def _largest(step: Any, values: Any, steps: int) -> Any:
    largest = np.zeros(steps)
    np.maximum.at(largest, step, values)
    return largest
