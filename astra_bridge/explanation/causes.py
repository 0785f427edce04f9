# SPDX-License-Identifier: MIT
"""The critical path message by message: what each moment until the finish was spent on.

From the end backwards, each thing is taken back to what let it begin.  A node began when what it
depends on, or what held its place, ended; a phase of a chunk when the phase before, or another
chunk that held its queue, ended; a phase ends with the last message that it receives, and a message
is sent when another one has been received and processed, or when its phase, or its node, begins.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.explanation.matching import Times
from astra_bridge.explanation.path import Parents, Row
from astra_bridge.program import Bus, BusModel, Op
from astra_bridge.units import PS_PER_NS

if TYPE_CHECKING:
    from astra_bridge.lowering import Lowered
    from astra_bridge.program import Program

__all__ = ["Causes", "Kind", "Piece"]

Ints = NDArray[np.int64]
Records = NDArray[np.void]

_MOST_WAITS = 100_000
"""Messages in a row that waited for one another."""


class Kind(IntEnum):
    """What a piece of the path is."""

    NODE = 0  # a node that takes a time of its own
    MESSAGE = 1
    ENDPOINT = 2  # a rank processes what it received, or posts what it sends
    OTHER = 3  # nothing that is known


class Piece(NamedTuple):
    """A part of the path; each begins where the one before ends.

    Attributes
    ----------
    start_ps, end_ps : int
    kind : Kind
    row : int
        Rank, or row of the result.
    node : int
        Local node of the template, of a ``NODE``; else -1.
    message : int
        Index of the delivery, of a ``MESSAGE``; else -1.  It is the last of those that waited for
        one another from ``start_ps`` on.
    """

    start_ps: int
    end_ps: int
    kind: Kind
    row: int
    node: int = -1
    message: int = -1


class _Sorted:
    """Rows by a key, and within it by time."""

    def __init__(self, key: Ints, time_ps: Ints) -> None:
        self._order = np.lexsort((np.arange(len(key)), time_ps, key))
        self._key, self._time_ps = key[self._order], time_ps[self._order]

    def last(self, key: int, until_ps: int) -> int:
        """The last row of a key at a time not after ``until_ps``; -1 if there is none."""
        first, end = np.searchsorted(self._key, [key, key + 1]).tolist()
        at = first + int(np.searchsorted(self._time_ps[first:end], until_ps, "right")) - 1
        return int(self._order[at]) if at >= first else -1

    def before(self, key: int, row: int, time_ps: int) -> int:
        """The row that stands before ``row``, which has this key and time; -1 if it is first."""
        first, end = np.searchsorted(self._key, [key, key + 1]).tolist()
        low = first + int(np.searchsorted(self._time_ps[first:end], time_ps, "left"))
        while self._order[low] != row:
            low += 1
        return int(self._order[low - 1]) if low > first else -1


class Causes:
    """What let each thing begin.

    Parameters
    ----------
    lowered, times
        What ran, and when (in the order of the templates).
    stays, deliveries
        What was kept of the inside of collectives.
    idle_ps
        How long a message from a rank to a rank of so many bytes takes in an idle network [ps].
    ways
        Of each delivery; those of different numbers share no link.
    """

    def __init__(
        self,
        lowered: Lowered,
        times: Times,
        stays: Records,
        deliveries: Records,
        idle_ps: Callable[[int, int, int], int],
        ways: Ints,
    ) -> None:
        program = lowered.program
        self._lowered, self.times, self.program = lowered, times, program
        self._idle_ps = idle_ps
        self._parents, self._rows = Parents(program), dict[int, Row]()
        # What never ended decided nothing.
        never = np.iinfo(np.int64).max
        self.stays, self.deliveries = stays, deliveries
        arrived = np.where(deliveries["end_ps"] < 0, never, deliveries["end_ps"])
        left = np.where(stays["end_ps"] < 0, never, stays["end_ps"])
        control = deliveries["control"] != 0
        self._received = _Sorted(np.where(control, -1, deliveries["receiver"]), arrived)
        self._sent = _Sorted(np.where(control, -1, deliveries["sender"]), arrived)
        self._asked = _Sorted(np.where(control, deliveries["receiver"], -1), arrived)
        start, src, dst = (deliveries[name].astype(np.int64) for name in ("start_ps", "src", "dst"))
        ranks = program.ranks
        count = int(ways.max(initial=0)) + 1
        alike = (src * ranks + dst, src, dst, np.zeros(len(src), np.int64))
        self._alike = [(_Sorted(key * count + ways, start), key * count + ways) for key in alike]
        node = times.offset[stays["task"]] + stays["node"]
        self.node_of_stay = node
        self._in_node = _Sorted(node, left)
        chunks = int(stays["chunk"].max(initial=0)) + 1
        self._chunk = node * chunks + stays["chunk"]
        self._of_chunk = _Sorted(self._chunk, left)
        queues = max(int(stays["queue"].max(initial=0)) + 1, 1)
        rank = program.rank_of_task[stays["task"]] if len(stays) else node
        self._queue = rank * queues + stays["queue"]
        self._of_queue = _Sorted(self._queue, left)
        self._delay_ps = _delays(program, stays, rank)
        self._pieces: list[Piece] = []
        self._seen: set[tuple[str, int]] = set()  # at this time

    def _add(
        self, start_ps: int, end_ps: int, kind: Kind, row: int, node: int = -1, message: int = -1
    ) -> int:
        if start_ps < end_ps:
            self._pieces.append(Piece(start_ps, end_ps, kind, row, node, message))
            self._seen.clear()
        return min(start_ps, end_ps)

    def row(self, row: int) -> Row:
        """The nodes of a row."""
        if row not in self._rows:
            self._rows[row] = Row(self._lowered, self.times, row, self._parents)
        return self._rows[row]

    def path(self, finish_ps: Ints) -> list[Piece]:
        """From the last node of the last rank back to time 0."""
        if not len(finish_ps) or finish_ps.max() <= 0:
            return []
        row = int(np.argmax(finish_ps))
        now = int(finish_ps[row])
        node = self.row(row).last_to_end(now)
        at: tuple[str, int] | None = None
        if node >= 0:
            at = ("end", self.row(row).first + node)
        steps = {"end": self._ended, "start": self._began, "left": self._left,
                 "entered": self._entered, "sent": self._was_sent}  # fmt: skip
        while at is not None and now > 0:
            if at in self._seen:  # what began at once in a circle is for nobody to say
                break
            self._seen.add(at)
            at, now = steps[at[0]](at[1], now)
        self._add(0, now, Kind.OTHER, row)
        return self._pieces[::-1]

    def _place(self, node: int) -> tuple[int, int]:
        """Row and local node of a node of all."""
        row = int(np.searchsorted(self.times.offset, node, "right")) - 1
        return row, node - int(self.times.offset[row])

    def _ended(self, node: int, now: int) -> tuple[tuple[str, int] | None, int]:
        """A node ended now."""
        row, local = self._place(node)
        begin = int(self.times.start_ps[node])
        program = self.program
        op = int(program.nodes_of(int(program.tasks["template_index"][row]))["op"][local])
        if op == Op.COLLECTIVE:
            stay = self._in_node.last(node, now)
            if stay >= 0:
                return ("left", stay), now
        elif op in (Op.SEND, Op.RECV):
            found = (self._sent if op == Op.SEND else self._received).last(-2 - node, now)
            if found >= 0 and int(self.deliveries["end_ps"][found]) >= begin:
                return self._message(found, row, now)
        else:
            now = self._add(begin, now, Kind.NODE, row, local)
        return ("start", node), min(begin, now)

    def _began(self, node: int, now: int) -> tuple[tuple[str, int] | None, int]:
        """A node began now."""
        row, local = self._place(node)
        here = self.row(row)
        enabler = here.enabler(local, now)
        if enabler < 0 or int(here.end[enabler]) < here.start_ps:
            return None, now
        end = int(here.end[enabler])
        now = self._add(end, now, Kind.OTHER, row)
        return ("end", here.first + enabler), now

    def _left(self, stay: int, now: int) -> tuple[tuple[str, int] | None, int]:
        """A chunk left a phase now."""
        return self._acted(stay, now, graph=int(self.stays["phase"][stay]) < 0)

    def _acted(
        self, stay: int, now: int, *, graph: bool = False
    ) -> tuple[tuple[str, int] | None, int]:
        """A chunk sent something, or left its phase: because of what it had received."""
        row, begin = int(self.stays["task"][stay]), int(self.stays["start_ps"][stay])
        found = self.trigger(stay, now, graph=graph)
        if found >= 0:
            now = self._add(int(self.deliveries["end_ps"][found]), now, Kind.ENDPOINT, row)
            return self._message(found, row, now)
        now = self._add(begin, now, Kind.ENDPOINT, row)
        return ("entered", stay), now

    def _entered(self, stay: int, now: int) -> tuple[tuple[str, int] | None, int]:
        """A chunk began a phase now: when it came to its queue, or when another one left that."""
        row = int(self.stays["task"][stay])
        entered = int(self.stays["entered_ps"][stay])
        if entered < now:
            other = self._of_queue.last(int(self._queue[stay]), now)
            if other >= 0 and int(self.stays["end_ps"][other]) == now:
                return ("left", other), now
            now = self._add(entered, now, Kind.OTHER, row)
        before = self._of_chunk.last(int(self._chunk[stay]), now)
        if before >= 0 and before != stay and int(self.stays["end_ps"][before]) == now:
            return ("left", before), now
        node = int(self.times.offset[row]) + int(self.stays["node"][stay])
        return ("start", node), min(now, int(self.times.start_ps[node]))

    def _message(self, found: int, row: int, now: int) -> tuple[tuple[str, int] | None, int]:
        """A message arrived now; where it waited for others, those began it."""
        begin = found
        for _ in range(_MOST_WAITS):
            before = self.waited_for(begin)
            if before == begin:
                break
            begin = before
        now = self._add(
            int(self.deliveries["start_ps"][begin]), now, Kind.MESSAGE, row, message=found
        )
        return ("sent", begin), now

    def _was_sent(self, message: int, now: int) -> tuple[tuple[str, int] | None, int]:
        """A message was sent now."""
        sender = int(self.deliveries["sender"][message])
        asked = self.asked(message)
        if asked >= 0:
            stays = self.stays["task"]
            row = int(stays[sender]) if sender >= 0 else self._place(-2 - sender)[0]
            return self._message(asked, row, now)
        if sender >= 0:
            return self._acted(sender, now)
        if sender < -1:
            return ("start", -2 - sender), now
        return None, now

    def trigger(self, stay: int, now: int, *, graph: bool = False) -> int:
        """The message because of which a chunk did something now; -1 if it was none."""
        until = now - int(self._delay_ps[stay])
        found = self._received.last(stay, until)
        ends = self.deliveries["end_ps"]
        if graph:
            sent = self._sent.last(stay, until)
            if sent >= 0 and (found < 0 or ends[sent] > ends[found]):
                found = sent
        if found >= 0 and int(ends[found]) >= int(self.stays["start_ps"][stay]):
            return found
        return -1

    def asked(self, message: int) -> int:
        """The control message that let one be sent; -1 where there was none."""
        row = self.deliveries[message]
        sender, start = int(row["sender"]), int(row["start_ps"])
        if sender == -1 or row["control"]:
            return -1
        found = self._asked.last(sender, start)
        return found if found >= 0 and int(self.deliveries["end_ps"][found]) == start else -1

    def idle_of(self, message: int) -> int:
        """How long a message takes in an idle network [ps]."""
        row = self.deliveries[message]
        return self._idle_ps(int(row["src"]), int(row["dst"]), int(row["bytes"]))

    def waited_for(self, message: int) -> int:
        """The message behind which one stood for a link; itself, if there was none.

        Where one shares a link with others that go on after it, it did not wait for them.
        """
        rows = self.deliveries
        start, end = int(rows["start_ps"][message]), int(rows["end_ps"][message])
        if end - start - self.idle_of(message) < PS_PER_NS:
            return message
        for index, keys in self._alike:
            before = index.before(int(keys[message]), message, start)
            if before >= 0 and start < int(rows["end_ps"][before]) <= end:
                return before
        return message

    @cached_property
    def op_of_node(self) -> Ints:
        """Operation of each node of all tasks."""
        program = self.program
        parts = [program.nodes_of(one)["op"] for one in range(len(program.templates))]
        templates = program.tasks["template_index"].tolist()
        return np.concatenate([parts[one] for one in templates]).astype(np.int64)

    def before_of_stay(self) -> Ints:
        """The phase before of the same chunk; -1 of its first one."""
        before = np.full(len(self.stays), -1, np.int64)
        order = np.argsort(self._chunk, kind="stable")  # they stand in the order of phases
        same = self._chunk[order][1:] == self._chunk[order][:-1]
        before[order[1:][same]] = order[:-1][same]
        return before

    def held_by(self) -> Ints:
        """The chunk whose end makes room in the queue for each; -1 where there is room."""
        held = np.full(len(self.stays), -1, np.int64)
        if not len(held):
            return held
        started = np.where(
            self.stays["start_ps"] < 0, np.iinfo(np.int64).max, self.stays["start_ps"]
        )
        order = np.lexsort((np.arange(len(held)), started, self._queue))
        program = self.program
        rank = program.rank_of_task[self.stays["task"][order]]
        most = program.machines["streams_per_queue"][program.machine_of_rank[rank]].astype(np.int64)
        at = np.arange(len(order))
        earlier = at - most
        there = (earlier >= 0) & (
            self._queue[order[np.clip(earlier, 0, None)]] == self._queue[order]
        )
        held[order[there]] = order[earlier[there]]
        # Where nothing could go on, some began although their queue was full.
        left = self.stays["end_ps"][np.clip(held, 0, None)]
        start = self.stays["start_ps"]
        held[(left < 0) | (left > start)] = -1
        for stay in np.flatnonzero(self.stays["entered_ps"] < start).tolist():
            other = self._of_queue.last(int(self._queue[stay]), int(start[stay]))
            if other >= 0 and int(self.stays["end_ps"][other]) == int(start[stay]):
                held[stay] = other
        return held


def _delays(program: Program, stays: Records, rank: Ints) -> Ints:
    """How long what each of these chunks receives takes until it can be answered."""
    if not len(stays):
        return np.zeros(0, np.int64)
    bus = program.phases["bus"][np.clip(stays["phase"], 0, None)] if len(program.phases) else None
    machine = program.machines[program.machine_of_rank[rank]]
    delay = np.zeros(len(stays), np.int64)
    if bus is None:
        return delay
    of_phase = stays["phase"] >= 0
    plain = machine["bus_model"] != BusModel.LOGGP
    for which, name in ((Bus.ENDPOINT, "endpoint_delay_ps"), (Bus.FAST, "fast_delay_ps")):
        mine = of_phase & (bus == which) & plain
        delay[mine] = machine[name][mine]
    return delay
