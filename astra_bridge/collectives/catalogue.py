# SPDX-License-Identifier: MIT
"""The algorithms by the names that system files use."""

from __future__ import annotations

from astra_bridge.collectives import direct, double_binary_tree, halving_doubling, ring, rooted
from astra_bridge.collectives.schedule import Algorithm
from astra_bridge.inputs.system import parse_implementation

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
        -1 where the name carries no number, or this one.
    one : bool
        True where the algorithm spans all dimensions as one (``one...``).

    Raises
    ------
    KeyError
        Unknown name.
    """
    # Rooted collectives have names that system files do not know.
    base, window = parse_implementation(name) or (name, -1)
    return ALGORITHMS[_ONE.get(base, base)], window, base in _ONE
