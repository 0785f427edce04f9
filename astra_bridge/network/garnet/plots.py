# SPDX-License-Identifier: MIT
"""Plots of Garnet runs; they need matplotlib (``pip install 'astra-bridge[plot]'``)."""

from __future__ import annotations

import math
from pathlib import Path

from astra_bridge.files import NewFiles
from astra_bridge.network.garnet.model import GarnetNetwork
from astra_bridge.network.garnet.traffic import LoadPoint
from astra_bridge.plotting import new_figure, save_figure
from astra_bridge.signals import deferred

__all__ = ["plot_curve", "plot_heat_map", "router_positions"]


@deferred()  # matplotlib's C++ code does not bear an exception out of nowhere
def plot_curve(points: list[LoadPoint], title: str, path: Path) -> None:
    """Latency against offered load.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.
    InputError
        The file cannot be written.
    """
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    axes.plot([p.rate for p in points], [p.latency for p in points], marker="o", label="latency")
    axes.axhline(points[0].zero_load_latency, linestyle=":", color="grey", label="zero load")
    axes.set(xlabel="offered load [flits/node/cycle]", ylabel="mean latency [cycles]", title=title)
    axes.legend()
    with NewFiles() as files:
        save_figure(files, figure, path)


def router_positions(network: GarnetNetwork) -> list[tuple[float, float]]:
    """Where to draw each router: on the grid of the first two dimensions, or on a circle."""
    dims = [size for size in network.dims if size > 1]
    count = len(network.routers)
    if len(dims) < 2 or math.prod(dims) != count:
        angles = [2 * math.pi * router / count for router in range(count)]
        return [(math.sin(angle) * count, math.cos(angle) * count) for angle in angles]
    positions = []
    for router in range(count):
        x, y, rest = router % dims[0], router // dims[0] % dims[1], router // (dims[0] * dims[1])
        # Further dimensions are copies of the grid, side by side.
        positions.append((float(x + rest * (dims[0] + 1)), float(y)))
    return positions


@deferred()  # matplotlib's C++ code does not bear an exception out of nowhere
def plot_heat_map(network: GarnetNetwork, loads: list[float], title: str, path: Path) -> None:
    """Load of every link between routers, the two directions side by side.

    Parameters
    ----------
    loads : list of float, one per link of the network
        Share of the time in which the link is busy.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.
    InputError
        The file cannot be written.
    """
    figure = new_figure(6, 5)
    positions = router_positions(network)
    lines = []
    for link in network.links:
        (ax, ay), (bx, by) = positions[link.src], positions[link.dst]
        length = math.hypot(bx - ax, by - ay) or 1.0
        aside = (0.12 * (by - ay) / length, -0.12 * (bx - ax) / length)
        lines.append([(ax + aside[0], ay + aside[1]), (bx + aside[0], by + aside[1])])
    from matplotlib.collections import LineCollection

    axes = figure.subplots()
    collection = LineCollection(lines, array=loads, cmap="inferno_r", linewidths=3)
    collection.set_clim(0, max([*loads, 0.01]))
    axes.add_collection(collection)
    axes.scatter(
        [x for x, _ in positions], [y for _, y in positions], s=30, color="black", zorder=3
    )
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title)
    figure.colorbar(collection, ax=axes, label="share of cycles in which the link is busy")
    with NewFiles() as files:
        save_figure(files, figure, path)
