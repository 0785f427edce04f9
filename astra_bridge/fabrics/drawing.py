# SPDX-License-Identifier: MIT
"""A drawing of a network of links: its tiers as rows; it needs matplotlib."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.arguments import path as check_path
from astra_bridge.fabrics.build import named
from astra_bridge.fabrics.summary import cables_of, one_way
from astra_bridge.files import NewFiles
from astra_bridge.inputs.network import LinkColumns, NetworkLinks, NodeRange
from astra_bridge.plotting import new_figure, save_figure
from astra_bridge.signals import deferred

__all__ = ["draw_topology"]

_MOST_NODES, _GROUPS = 16, 8
_COLORS = ("#cfe3f5", "#f7d9c4", "#d5ecd0", "#e6d9f0", "#fbeeb8", "#e2e2e2")
_LINE = "#8895a5b0"
_BELOW = "nvlink"


@dataclass
class _Row:
    """A tier: its boxes are nodes, or groups of nodes that follow one another."""

    tier: str
    labels: list[str] = field(default_factory=list)
    boxes: list[int] = field(default_factory=list)


@deferred()  # matplotlib's C++ code does not bear an exception out of nowhere
def draw_topology(network: NetworkLinks, path: str | Path, title: str = "") -> None:
    """Draw the tiers as rows: NVSwitches, GPUs, then switches, each above what is nearer to GPUs.

    A tier of more than 16 nodes is drawn as about 8 groups of nodes that follow one another;
    beside each pair of tiers stand number, bandwidth and latency of the cables between them.

    Parameters
    ----------
    network
        What to draw.
    path
        The picture; the ending says which kind (.svg, .png, .pdf).
    title
        What stands above.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.
    InputError
        The file cannot be written.
    """
    file = check_path(path, "path")
    rows, box_of = _rows(network)
    figure = new_figure(10, 1.2 + 1.25 * len(rows))
    axes = figure.subplots()
    centre: dict[int, tuple[float, float]] = {}
    for height, row in enumerate(rows):
        count = len(row.boxes)
        widest = max(len(line) for label in row.labels for line in label.split("\n"))
        size = min(8.0, 620 / (count * (widest + 1)))
        for index, (box, label) in enumerate(zip(row.boxes, row.labels, strict=True)):
            x = (index + 0.5) / count
            centre[box] = (x, float(height))
            axes.text(
                x,
                height,
                label,
                ha="center",
                va="center",
                fontsize=size,
                zorder=3,
                bbox={
                    "boxstyle": "round,pad=0.3",
                    "facecolor": _COLORS[height % len(_COLORS)],
                    "edgecolor": "#445",
                },
            )
        axes.text(-0.03, height, row.tier, ha="right", va="center", fontsize=10, weight="bold")
    _draw_cables(axes, network, box_of, centre, rows)
    axes.set_xlim(-0.1, 1.32)
    arcs = bool(axes.patches)  # between nodes of a tier
    axes.set_ylim(-0.5, len(rows) - 0.5 + 0.5 * arcs)
    axes.set_axis_off()
    dims = " x ".join(map(str, network.dims))
    axes.set_title(title or f"{network.endpoints} GPUs ({dims})", fontsize=11)
    with NewFiles() as files:
        save_figure(files, figure, file)


def _rows(network: NetworkLinks) -> tuple[list[_Row], NDArray[np.int64]]:
    """Rows from below, and the box of each node."""
    links = LinkColumns.of(network.links)
    ranges = named(network)
    tiers: dict[str, list[NodeRange]] = {}
    for one in ranges:
        tiers.setdefault(one.tier, []).append(one)
    inside = np.zeros(network.nodes, bool)
    for one in tiers.get(_BELOW, []):
        inside[one.first : one.first + one.count] = True
    outer = ~(inside[links.src] | inside[links.dst])
    distance = np.where(np.arange(network.nodes) < network.endpoints, 0, network.nodes)
    for _ in range(len(tiers)):
        near = np.full(network.nodes, network.nodes)
        np.minimum.at(near, links.dst[outer], distance[links.src[outer]] + 1)
        distance = np.minimum(distance, near)
    # NVSwitches stand below their GPUs, on the other side than the network.
    height = {
        tier: -1 if tier == _BELOW else min(int(distance[one.first]) for one in own)
        for tier, own in tiers.items()
    }
    box_of = np.zeros(network.nodes, np.int64)
    rows: list[_Row] = []
    boxes = 0
    for tier in sorted(tiers, key=lambda tier: height[tier]):
        row = _Row(tier)
        rows.append(row)
        total = sum(one.count for one in tiers[tier])
        for one in _merged(tiers[tier]):
            each = 1 if total <= _MOST_NODES else _group(one.count, one.count / total)
            for first in range(0, one.count, each):
                last = min(first + each, one.count) - 1
                name = one.name.replace(".", ".\n")
                span = f"\n{first} .. {last}" if last > first else str(first)
                row.labels.append(name + span)
                row.boxes.append(boxes)
                box_of[one.first + first : one.first + last + 1] = boxes
                boxes += 1
    return rows, box_of


def _merged(ranges: list[NodeRange]) -> list[NodeRange]:
    """The ranges of a tier; where they are too many, as one."""
    if len(ranges) <= _MOST_NODES:
        return ranges
    first = min(one.first for one in ranges)
    total = max(one.first + one.count for one in ranges) - first
    return [NodeRange(ranges[0].tier, first, total)]


def _group(count: int, share: float) -> int:
    """Nodes of a box, where a range has its share of the boxes of a row; if it can be, evenly."""
    least = ceil(count / max(1, int(_GROUPS * share)))
    return next((size for size in range(least, 2 * least) if count % size == 0), least)


def _draw_cables(
    axes: Any,
    network: NetworkLinks,
    box_of: NDArray[np.int64],
    centre: dict[int, tuple[float, float]],
    rows: list[_Row],
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import FancyArrowPatch

    links = LinkColumns.of(network.links)
    up = one_way(network)
    ends = np.sort(np.stack([box_of[links.src[up]], box_of[links.dst[up]]], axis=1), axis=1)
    pairs, counts = np.unique(ends, axis=0, return_counts=True)
    lines, widths = [], []
    for (a, b), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        if a == b:
            continue
        (xa, ya), (xb, yb) = centre[a], centre[b]
        width = 0.5 + 0.1 * log2(count)
        if ya == yb:
            arc = FancyArrowPatch(
                (xa, ya),
                (xb, yb),
                connectionstyle=f"arc3,rad={-0.3 if xa < xb else 0.3}",
                arrowstyle="-",
                color=_LINE,
                linewidth=width,
                zorder=1,
            )
            axes.add_patch(arc)
        else:
            lines.append([(xa, ya), (xb, yb)])
            widths.append(width)
    axes.add_collection(LineCollection(lines, linewidths=widths, colors=_LINE, zorder=1))
    height_of = {row.tier: height for height, row in enumerate(rows)}
    said: dict[float, list[str]] = {}
    for one in cables_of(network):
        low, high = sorted((height_of[one.lower], height_of[one.upper]))
        far = f" ({rows[low].tier}-{rows[high].tier})" if high - low > 1 else ""
        said.setdefault((low + high) / 2, []).append(f"{one}{far}")
    for height, texts in said.items():
        shown = texts if len(texts) < 5 else [*texts[:3], f"and {len(texts) - 3} more kinds"]
        axes.text(1.03, height, "\n".join(shown), ha="left", va="center", fontsize=8)
