# SPDX-License-Identifier: MIT
"""In which ways the ranks of a network of several parts are alike: as they are in each of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.network.spec import Symmetry
from astra_bridge.program.folding import NotFolded, Turn

__all__ = ["symmetry_of"]


def symmetry_of(
    parts: Sequence[tuple[str, Symmetry | None]], part_of_link: NDArray[Any]
) -> Symmetry:
    """Of parts, each of which knows the whole network and carries some of its links.

    Parameters
    ----------
    parts
        What each is called, and what it says.
    part_of_link : ndarray of int, shape (links,)

    Raises
    ------
    NotFolded
        A part knows of no ranks that are alike, or has other dimensions than the others.

    Examples
    --------
    >>> def turned(links, by):
    ...     return links[:, None] + by, links[:, None] + by, links[:, None] + by + 1
    >>> ring, switch = (Symmetry((Turn(4, any),), turned) for any in (False, True))
    >>> both = symmetry_of([("ring", ring), ("switch", switch)], np.array([0, 1]))
    >>> both.turns
    (Turn(size=4, any=False),)
    >>> both.turned(np.array([1]), np.array([0, 2]))[0].tolist()
    [[1, 3]]
    >>> symmetry_of([("ring", ring), ("mesh", None)], np.array([0, 1]))
    Traceback (most recent call last):
    ...
    astra_bridge.program.folding.NotFolded: the part mesh knows of no ranks that are alike
    """
    known = []
    for name, symmetry in parts:
        if symmetry is None:
            raise NotFolded(f"the part {name} knows of no ranks that are alike")
        known.append(symmetry)
    sizes = {tuple(turn.size for turn in symmetry.turns) for symmetry in known}
    if len(sizes) != 1:
        raise NotFolded("the parts have other dimensions")
    turns = tuple(
        Turn(of_parts[0].size, all(turn.any for turn in of_parts))
        for of_parts in zip(*(symmetry.turns for symmetry in known), strict=True)
    )

    def turned(
        links: NDArray[Any], by: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        shape = (len(links), len(by))
        number, src, dst = (np.zeros(shape, np.int64) for _ in range(3))
        owner = part_of_link[np.asarray(links, np.int64)]
        for index, symmetry in enumerate(known):
            rows = np.flatnonzero(owner == index)
            if len(rows):
                number[rows], src[rows], dst[rows] = symmetry.turned(links[rows], by)
        return number, src, dst

    return Symmetry(turns, turned)
