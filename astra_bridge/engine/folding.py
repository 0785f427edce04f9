# SPDX-License-Identifier: MIT
"""One rank runs for all that are alike.

`astra_bridge.program.folding` finds digits of the ranks' numbers in which the whole Program can be
turned: adding to ``rank // stride % size``, round and round, maps tasks to equal tasks, groups to
groups and peers to peers, and the network says the same of its links.  Of each set of ranks that
these turns carry into one another, the one whose digits are 0 runs.

**Messages.**  What it sends to a peer is received, turned until that peer is one that runs, from
another one: :meth:`Folding.turned` gives both ends, and sends meet receives there.  The network
gets the turned message, whose way is as long.

**Order.**  Times follow from what happens to each rank, one thing after the other.  All ranks of a
set see the same sequence, unless its order differs between them: events of one instant come in the
order of their places, places ascend with the time at which they are drawn, and those that one rank
draws in one instant come in its own order, which by induction is that of all its set.  So two
events of a rank in one instant are in doubt only where *two* ranks drew their places in one
instant: in a ring, rank 0 hears from the last rank and from rank 1, in the other order than all
others do.  Those are *ties*, unless they may change places (messages of one chunk of a collective:
whichever comes first, the next packet goes to the bus), or all but one are *quiet*: receives whose
nodes occupy nothing scarce, and whose children still wait when all have happened, so that they do
nothing but count, whenever they come.  A run with a tie proves nothing, and is thrown away; one
without is the run of all ranks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

__all__ = ["Folding"]

FIRST_STREAM = 1 << 32
"""Tags of collectives begin here."""

Node = tuple[int, int]
"""A task, and a node of its template."""


class Folding:
    """Which ranks run, and whether their order is that of all.

    Parameters
    ----------
    digits : iterable of (stride, size)
        The lowest first.
    ranks : int
        Number of ranks that run.

    Examples
    --------
    >>> ring = Folding([(1, 8)], 1)
    >>> ring.turned(3, 4), ring.turned(0, 7)
    ((7, 0), (1, 0))
    """

    def __init__(self, digits: Iterable[tuple[int, int]], ranks: int) -> None:
        self._digits = list(digits)
        self._last: list[tuple[int, int, int, int]] = [(-1, -1, -1, -1)] * ranks
        # What has happened at that time, from places of that time.
        self._loud = [False] * ranks
        self._quiet: list[list[Node]] = [[] for _ in range(ranks)]
        self._marks: list[int] = []  # the first place that is drawn at ...
        self._times: list[int] = []
        self.ties = 0
        self.first_tie = (-1, -1)  # rank and time [ps]
        self.ranks = []
        for rank in range(ranks):
            for stride, size in self._digits:
                rank = rank // stride * stride * size + rank % stride
            self.ranks.append(rank)

    def index_of(self, rank: int) -> int:
        """Which of those that run a rank of the network is."""
        for stride, size in reversed(self._digits):
            rank = rank // (stride * size) * stride + rank % stride
        return rank

    def turned(self, src: int, dst: int) -> tuple[int, int]:
        """Both ends, turned until ``dst`` is a rank that runs."""
        for stride, size in self._digits:
            to = dst // stride % size
            if to:
                digit = src // stride % size
                src += ((digit - to) % size - digit) * stride
                dst -= to * stride
        return src, dst

    def at(self, place: int, now_ps: int) -> None:
        """From now on places are drawn at this time."""
        if not self._times or self._times[-1] != now_ps:
            self._marks.append(place)
            self._times.append(now_ps)

    def drawn_ps(self, place: int) -> int:
        """When a place was drawn."""
        index = bisect_right(self._marks, place) - 1
        return self._times[index] if index >= 0 else -1

    def happens(self, index: int, now_ps: int, drawn_ps: int, actor: int, stream: int) -> bool:
        """Something happens to a rank, at a place that ``actor`` drew; -1 is nobody else's.

        Events of the same ``stream``, unless that is -1, may change places.

        Returns
        -------
        bool
            Whether its order is in doubt; :meth:`quiet` or :meth:`loud` says then what it was.
        """
        doubtful = False
        last_ps, last_drawn_ps, last_stream, last_actor = self._last[index]
        if (last_ps, last_drawn_ps) == (now_ps, drawn_ps):
            same_actor = -1 < actor == last_actor
            same_stream = -1 < stream == last_stream
            doubtful = not same_actor and not same_stream
            actor = actor if same_actor else -1
            stream = stream if same_stream else -1
        else:
            self._loud[index] = False
            self._quiet[index].clear()
        self._last[index] = (now_ps, drawn_ps, stream, actor)
        return doubtful

    def quiet(self, index: int, node: Node) -> None:
        """It was a receive that does nothing but count, whose node this is."""
        self._quiet[index].append(node)

    def loud(self, index: int, doubtful: bool, waits: Callable[[Node], bool] | None = None) -> None:
        """It was anything else.

        A tie, if in doubt, unless all that came before it was quiet, and ``waits`` says of these
        nodes that what they could free still waits.
        """
        alone = not self._loud[index] and waits is not None and all(map(waits, self._quiet[index]))
        if doubtful and not alone:
            if not self.ties:
                self.first_tie = (self.ranks[index], self._last[index][0])
            self.ties += 1
        self._loud[index] = True
