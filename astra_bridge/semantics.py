# SPDX-License-Identifier: MIT
"""Which of ASTRA-sim's quirks a simulation keeps: ``--semantics``.

``astra-sim`` keeps those that docs/semantics.md lists, ``corrected`` none of them.  A quirk that
neither has by itself is added by its name: ``astra-sim,+broadcast-is-replayed``.
"""

from __future__ import annotations

from typing import Literal, cast

__all__ = ["QUIRKS", "SEMANTICS", "Semantics", "split_semantics"]

Semantics = Literal["astra-sim", "corrected"]

QUIRKS = {
    "broadcast-is-replayed": "a broadcast takes its recorded duration, or 1 ns, and no network",
}
"""Name -> what it does."""

_BASES = ("astra-sim", "corrected")
SEMANTICS = (*_BASES, *(f"{base},+{quirk}" for base in _BASES for quirk in QUIRKS))
"""What ``--semantics`` takes."""


def split_semantics(text: str) -> tuple[Semantics, frozenset[str]]:
    """Split one of :data:`SEMANTICS` into its base and the quirks that are added.

    Examples
    --------
    >>> split_semantics("corrected,+broadcast-is-replayed")
    ('corrected', frozenset({'broadcast-is-replayed'}))
    """
    base, *added = text.split(",")
    return cast(Semantics, base), frozenset(name.removeprefix("+") for name in added)
