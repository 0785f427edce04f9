# SPDX-License-Identifier: MIT
"""Statistics of a whole from those of its parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.network.api import NetworkConfig

__all__ = ["merged", "part_of_links"]

Columns = dict[str, list[Any]]


def part_of_links(config: NetworkConfig) -> NDArray[np.int64]:
    """Which part has each link of the whole, shape (links,)."""
    runs = [run.split("*") for run in config.options["part_of_link"].split(",") if run]
    return np.repeat([int(part) for _, part in runs], [int(count) for count, _ in runs])


def merged(stats: dict[str, Any], config: NetworkConfig) -> dict[str, Any]:
    """One table for each name: the columns that all parts have, and which part a row is from.

    Parameters
    ----------
    stats
        What the library wrote: ``parts``, each with its ``backend`` and ``statistics``.
    config
        Of the whole: whose parts count their own links only, where it has a list of them.
    """
    owner = part_of_links(config)
    nodes = _nodes(config)
    pieces: dict[str, list[Columns]] = {}
    for index, part in enumerate(stats.get("parts", ())):
        own = part["statistics"].pop("tables", {})
        numbers = np.flatnonzero(owner == index)
        for name, table in own.items():
            columns: Columns = {key: list(column) for key, column in table.items()}
            if "link" in columns:
                link = np.array(columns["link"], np.int64)
                # Numbers beyond those of the network are of links that the part made for itself,
                # or of its border.
                own_rows = link < (len(numbers) if len(config.links) else len(owner))
                if len(config.links):
                    link[own_rows] = numbers[link[own_rows]]
                else:
                    own_rows[own_rows] = owner[link[own_rows]] == index
                kept = np.flatnonzero(own_rows)
                columns = {key: [column[row] for row in kept] for key, column in columns.items()}
                columns["link"] = link[kept].tolist()
            for end in ("src", "dst"):
                if len(nodes) and end in columns:
                    columns[end] = nodes[np.array(columns[end], np.int64)].tolist()
            count = len(next(iter(columns.values()), []))
            columns["backend"] = [part["backend"]] * count
            pieces.setdefault(name, []).append(columns)
    ties = [part["statistics"].pop("fold_ties", 0) for part in stats.get("parts", ())]
    if "fold_ties" in stats:
        stats = stats | {"fold_ties": stats["fold_ties"] + sum(ties)}
    tables = {}
    for name, several in pieces.items():
        keys = [key for key in several[0] if all(key in columns for columns in several)]
        table = {key: [value for columns in several for value in columns[key]] for key in keys}
        if name == "links" and "link" in table:
            order = np.argsort(np.array(table["link"], np.int64), kind="stable").tolist()
            table = {key: [column[row] for row in order] for key, column in table.items()}
        tables[name] = table
    found = stats | ({"tables": tables} if tables else {})
    intervals_ps = {
        part["statistics"]["sample_interval_ps"]
        for part in stats.get("parts", ())
        if "sample_interval_ps" in part["statistics"]
    }
    if "link_load" in tables and intervals_ps:
        common_ps = math.lcm(*intervals_ps)
        found["sample_interval_ps"] = common_ps
        if len(intervals_ps) > 1:
            tables["link_load"] = _longer(tables["link_load"], common_ps)
    return found


def _longer(load: Columns, interval_ps: int) -> Columns:
    """Loads over time in longer intervals, which hold whole ones of every part."""
    link = np.array(load["link"], np.int64)
    time_ps = np.array(load["time_ps"], np.int64) // interval_ps * interval_ps
    order = np.lexsort((time_ps, link))
    link, time_ps = link[order], time_ps[order]
    new = np.ones(len(link), bool)
    new[1:] = (np.diff(link) != 0) | (np.diff(time_ps) != 0)
    first = np.flatnonzero(new)
    columns: Columns = {"link": link[first].tolist(), "time_ps": time_ps[first].tolist()}
    for name in ("bytes", "busy_ps"):
        columns[name] = np.add.reduceat(np.array(load[name], np.int64)[order], first).tolist()
    columns["backend"] = np.array(load["backend"], object)[order][first].tolist()
    return columns


def _nodes(config: NetworkConfig) -> NDArray[np.int64]:
    """Which node of the whole a node of a part is; empty where all are the same."""
    lines = [line.split() for line in config.options.get("border", "").splitlines()]
    inner = [int(line[0]) for line in lines for _ in line[2:]]
    if not inner:
        return np.zeros(0, np.int64)
    every = np.arange(config.nodes)
    ranks = config.endpoints
    return np.concatenate([every[:ranks], np.array(inner, np.int64), every[ranks:]])
