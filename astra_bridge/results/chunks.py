# SPDX-License-Identifier: MIT
"""When the chunks of collectives were in their phases, by rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from astra_bridge.results.times import NodeRecord

__all__ = ["Chunk", "Chunks", "PhaseTimes"]


class PhaseTimes(NamedTuple):
    """A phase of a chunk.

    Attributes
    ----------
    name : str
        ``dim1, 4 ranks``
    entered_ps, start_ps, end_ps : int
        When it came to the queue, when it began, when it ended.
    """

    name: str
    entered_ps: int
    start_ps: int
    end_ps: int


class Chunk(NamedTuple):
    """A chunk of a collective on a rank.

    Attributes
    ----------
    node : int
        The collective's place in the trace file.
    number : int
        Which chunk of it.
    phases : tuple of PhaseTimes
    """

    node: int
    number: int
    phases: tuple[PhaseTimes, ...]


class Chunks:
    """All chunks that a run kept.

    Parameters
    ----------
    recorded : NodeRecord
    lowered : Lowered
        What ran, all ranks of it.
    """

    def __init__(self, recorded: NodeRecord, lowered: Any) -> None:
        stays = recorded.stays
        self._stays = stays[np.lexsort((stays["chunk"], stays["node"], stays["task"]))]
        self._of_task = self._stays["task"]
        self._kind_of_row, self._lowered = recorded.kind_of_row, lowered
        program = lowered.program
        sizes = program.groups["size"][program.phases["layout"]].tolist()
        self._names = [
            f"dim{level}, {size} ranks"
            for level, size in zip(program.phases["level"].tolist(), sizes, strict=True)
        ]

    def _part(self, row: int) -> slice:
        kind = row if self._kind_of_row is None else int(self._kind_of_row[row])
        first, last = np.searchsorted(self._of_task, [kind, kind + 1]).tolist()
        return slice(first, last)

    def count(self, rows: Sequence[int]) -> int:
        """In how many phases the chunks of some ranks were, together."""
        parts = [self._part(row) for row in rows]
        return sum(part.stop - part.start for part in parts)

    def of_row(self, row: int) -> Iterator[Chunk]:
        """The chunks of a rank that ran to their end, collective by collective."""
        order = self._lowered.order[int(self._lowered.trace_of_task[row])]
        known: tuple[int, int] | None = None
        phases: list[PhaseTimes] = []
        columns = ("node", "chunk", "phase", "entered_ps", "start_ps", "end_ps")
        part = self._stays[self._part(row)]
        for node, chunk, phase, entered, start, end in zip(
            *(part[name].tolist() for name in columns), strict=True
        ):
            if (node, chunk) != known:
                if known is not None and phases:
                    yield Chunk(int(order[known[0]]), known[1], tuple(phases))
                known, phases = (node, chunk), []
            if end >= 0:
                name = self._names[phase] if phase >= 0 else "custom"
                phases.append(PhaseTimes(name, entered, start, end))
        if known is not None and phases:
            yield Chunk(int(order[known[0]]), known[1], tuple(phases))
