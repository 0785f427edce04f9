# SPDX-License-Identifier: MIT
"""The algorithms by the names that system files use."""

from __future__ import annotations

import re

from astra_bridge.collectives import direct, double_binary_tree, halving_doubling, ring, rooted
from astra_bridge.collectives.schedule import Algorithm

ALGORITHMS: dict[str, Algorithm] = {
    module.ALGORITHM.name: module.ALGORITHM
    for module in (ring, direct, halving_doubling, double_binary_tree, rooted)
}

_ONE = {"oneRing": "ring", "oneDirect": "direct", "oneHalvingDoubling": "halvingDoubling"}


def algorithm(name: str) -> tuple[Algorithm, int, bool]:
    """Split a configured name such as ``direct4`` or ``oneRing``.

    Returns
    -------
    algorithm : Algorithm
    window : int
        -1 where the name carries no number.
    one : bool
        True where the algorithm spans all dimensions as one (``one...``).

    Raises
    ------
    KeyError
        Unknown name.
    """
    match = re.fullmatch(r"(direct|oneDirect)(\d+)", name)
    base, window = (match.group(1), int(match.group(2))) if match else (name, -1)
    return ALGORITHMS[_ONE.get(base, base)], window, base in _ONE
