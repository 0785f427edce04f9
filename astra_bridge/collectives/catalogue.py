# SPDX-License-Identifier: MIT
"""The algorithms by the names that system files use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from astra_bridge.collectives.schedule import Algorithm, Kind
from astra_bridge.errors import InputError
from astra_bridge.registry import Registry
from astra_bridge.text import nearest, show

__all__ = ["ALGORITHMS", "IMPLEMENTED", "Chosen", "algorithm", "default"]

ALGORITHMS = Registry(
    "algorithm",
    "astra_bridge.collectives",
    Algorithm,
    {
        "ring": "astra_bridge.collectives.ring:ALGORITHM",
        "oneRing": "astra_bridge.collectives.ring:ALGORITHM",
        "direct": "astra_bridge.collectives.direct:ALGORITHM",
        "oneDirect": "astra_bridge.collectives.direct:ALGORITHM",
        "halvingDoubling": "astra_bridge.collectives.halving_doubling:ALGORITHM",
        "oneHalvingDoubling": "astra_bridge.collectives.halving_doubling:ALGORITHM",
        "doubleBinaryTree": "astra_bridge.collectives.double_binary_tree:ALGORITHM",
        "nccl": "astra_bridge.collectives.nccl.schedules:ALGORITHM",
        "binomialTree": "astra_bridge.collectives.rooted:ALGORITHM",
    },
)

IMPLEMENTED = {
    Kind.ALL_REDUCE: "all-reduce",
    Kind.ALL_GATHER: "all-gather",
    Kind.REDUCE_SCATTER: "reduce-scatter",
    Kind.ALL_TO_ALL: "all-to-all",
}
"""Collectives whose algorithm a system file chooses, by the key ``...-implementation``."""

_WITH_WINDOW = r"(\w*?[A-Za-z])(-1|[1-9][0-9]{0,8})"


class Chosen(NamedTuple):
    """An algorithm as a system file names it.

    Attributes
    ----------
    algorithm : Algorithm
    window : int
        Concurrent sends; -1 where the name carries no number, or this one.
    one : bool
        True where the algorithm spans all dimensions as one (``one...``).
    """

    algorithm: Algorithm
    window: int = -1
    one: bool = False


def default(kind: Kind) -> Chosen:
    """The algorithm of a collective that is not, or cannot be, done as the system file says."""
    name = "ring" if kind in IMPLEMENTED else "binomialTree"
    return Chosen(ALGORITHMS.find(name, key="algorithm"))


def algorithm(given: object, *, key: str = "algorithm", file: Path | None = None) -> Chosen:
    """Understand a configured name such as ``direct4`` or ``oneRing``.

    Parameters
    ----------
    given, key, file
        What the user wrote, and where.

    Raises
    ------
    InputError
        Nothing has this name.
    MissingDependency, PluginError
        As :meth:`astra_bridge.registry.Registry.get`.

    Examples
    --------
    >>> found = algorithm("oneDirect4")
    >>> found.algorithm.name, found.window, found.one
    ('direct', 4, True)
    """
    name = given
    if isinstance(name, str):
        found, window = ALGORITHMS.get(name), -1
        if found is None and (match := re.fullmatch(_WITH_WINDOW, name, re.ASCII)):
            name, window = match[1], int(match[2])
            found = ALGORITHMS.get(name)
            found = found if found is not None and found.windowed else None
        if found is not None and found.kinds & IMPLEMENTED.keys():
            return Chosen(found, window, name == found.spanning)
    raise _refusal(given, key, file)


def _refusal(name: object, key: str, file: Path | None) -> InputError:
    # What a plug-in is good for is only known once it is loaded; its faults do not belong here.
    found = {
        one: ALGORITHMS.get(one) if one in ALGORITHMS.built_in else None
        for one in ALGORITHMS.names()
    }
    known = [one for one, a in found.items() if a is None or a.kinds & IMPLEMENTED.keys()]
    windowed = [one for one, a in found.items() if a is not None and a.windowed]
    hint = nearest(name, known) if isinstance(name, str) else ""
    return InputError(
        f"unknown algorithm {show(name)}; known: {', '.join(known)}; {' and '.join(windowed)} may "
        f"carry a window, such as {windowed[0]}2{hint}",
        file=file,
        key=key,
    )
