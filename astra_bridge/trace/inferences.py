# SPDX-License-Identifier: MIT
"""What an importer had to infer, because no file says it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from astra_bridge.errors import InputError
from astra_bridge.records import replace
from astra_bridge.trace.columns import Workload

__all__ = ["Inferences"]


class Inferences:
    """What was inferred, each kind counted, with its first instance.

    Examples
    --------
    >>> made = Inferences()
    >>> made.note("peers of messages", "node 3")
    >>> made.note("peers of messages", "node 5")
    >>> made.lines()
    ['2 x peers of messages (first: node 3)']
    """

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def note(self, what: str, where: str, times: int = 1) -> None:
        """Something that no file says was taken as likely."""
        self._count[what] += times
        self._first.setdefault(what, where)

    def lines(self) -> list[str]:
        """One sentence per kind, the most frequent first."""
        return [
            f"{count:,} x {what} (first: {self._first[what]})"
            for what, count in self._count.most_common()
        ]

    def said_by(self, workload: Workload, file: Path) -> Workload:
        """Return the workload with a warning that says all, if there is any."""
        if not self._count:
            return workload
        said = f"{file}: inferred: {'; '.join(self.lines())}"
        return replace(workload, warnings=(*workload.warnings, said))

    def refuse(self) -> None:
        """Refuse what was inferred, where there is any.

        Raises
        ------
        InputError
            Says all.
        """
        if self._count:
            raise InputError(
                "--strict allows no inference, and these were made: " + "; ".join(self.lines())
            )
