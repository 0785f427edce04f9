# SPDX-License-Identifier: MIT
"""Statistics of a whole from those of its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["merged"]

Columns = dict[str, list[Any]]


def merged(stats: dict[str, Any], part_of_link: str, links: NDArray[Any]) -> dict[str, Any]:
    """One table for each name: the columns that all parts have, and which part a row is from.

    Parameters
    ----------
    stats
        What the library wrote: ``parts``, each with its ``backend`` and ``statistics``.
    part_of_link
        ``COUNT*PART`` for links that follow one another.
    links : ndarray of LINK
        Of a network of links, whose parts count their own ones only; else empty.
    """
    runs = [run.split("*") for run in part_of_link.split(",") if run]
    owner = np.repeat([int(part) for _, part in runs], [int(count) for count, _ in runs])
    pieces: dict[str, list[Columns]] = {}
    for index, part in enumerate(stats.get("parts", ())):
        own = part["statistics"].pop("tables", {})
        numbers = np.flatnonzero(owner == index)
        for name, table in own.items():
            columns: Columns = {key: list(column) for key, column in table.items()}
            if "link" in columns:
                link = np.array(columns["link"], np.int64)
                # Numbers beyond those of the network are links that the part made for itself.
                own_rows = link < (len(numbers) if len(links) else len(owner))
                if len(links):
                    link[own_rows] = numbers[link[own_rows]]
                else:
                    own_rows[own_rows] = owner[link[own_rows]] == index
                kept = np.flatnonzero(own_rows)
                columns = {key: [column[row] for row in kept] for key, column in columns.items()}
                columns["link"] = link[kept].tolist()
            count = len(next(iter(columns.values()), []))
            columns["backend"] = [part["backend"]] * count
            pieces.setdefault(name, []).append(columns)
    tables = {}
    for name, several in pieces.items():
        keys = [key for key in several[0] if all(key in columns for columns in several)]
        table = {key: [value for columns in several for value in columns[key]] for key in keys}
        by = "link" if name == "links" and "link" in table else None
        if by:
            order = np.argsort(np.array(table[by], np.int64), kind="stable").tolist()
            table = {key: [column[row] for row in order] for key, column in table.items()}
        tables[name] = table
    return stats | ({"tables": tables} if tables else {})
