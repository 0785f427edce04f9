# SPDX-License-Identifier: MIT
"""What a result says of phases that were evaluated as wavefronts."""

from __future__ import annotations

from typing import Any

__all__ = ["Wavefront"]


class Wavefront:
    """How many phases were wavefronts, or why none was.

    Attributes
    ----------
    phases, by_events : int
        Phases of a chunk on a rank that were, and others.
    threads : int
        How many threads there were for them.
    reason : str
        Why there was none; "" where there was.
    asked : bool
        Whether it was tried.

    Examples
    --------
    >>> Wavefront(8, 2).sentence()
    '8 of 10 phases of chunks were wavefronts'
    """

    def __init__(
        self,
        phases: int = 0,
        by_events: int = 0,
        threads: int = 1,
        reason: str = "",
        *,
        asked: bool = True,
    ) -> None:
        self.phases, self.by_events, self.threads = phases, by_events, threads
        self.reason, self.asked = reason, asked

    def sentence(self) -> str:
        """What to say of it."""
        if self.reason:
            alone = ", all that threads are for" if self.threads > 1 else ""
            return f"no phase was a wavefront{alone}: {self.reason}"
        threads = f", on {self.threads} threads" if self.threads > 1 else ""
        total = self.phases + self.by_events
        return f"{self.phases:,} of {total:,} phases of chunks were wavefronts{threads}"

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        return {
            "phases": self.phases,
            "by_events": self.by_events,
            "threads": self.threads,
            "reason": self.reason,
        }
