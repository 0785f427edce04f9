# SPDX-License-Identifier: MIT
"""What ran, once more with other durations: nodes, chunks and messages keep their order and causes.

The critical path says what would be sooner if nothing else became the longer way.  Here all ways
are there: a node begins when all that it depends on has ended, a chunk when its queue is free, a
message when what let it be sent has happened.  No network is simulated: a message takes as long as
in an idle one, and what waited for others waits behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.explanation.path import Parents

if TYPE_CHECKING:
    from astra_bridge.explanation.causes import Causes

__all__ = ["MOST_REPLAYED", "Durations", "replay"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_REPLAYED = 100_000
"""Nodes, chunks in phases, and messages together."""

_PASSES = 20
_ARRIVES, _LEAVES, _ENDS, _BEGINS, _ENTERS, _STARTS, _SENDS = range(7)
"""In which order things of one instant are, unless something takes no time."""


class Durations:
    """How long things take, in each of several cases.

    Attributes
    ----------
    nodes : ndarray of float64, shape (nodes, cases)
        [ps] of those that take a time of their own.
    messages : ndarray of float64, shape (messages, cases)
        In an idle network [ps].
    latencies : ndarray of float64, shape (messages, cases)
        The part of that that no bandwidth makes shorter [ps].
    waits : ndarray of float64, shape (messages, cases)
        Part of what each waited for others.
    endpoints : ndarray of float64, shape (cases,)
        Part of what endpoints take.
    """

    def __init__(
        self, nodes: Floats, messages: Floats, latencies: Floats, waits: Floats, endpoints: Floats
    ) -> None:
        self.nodes, self.messages, self.latencies = nodes, messages, latencies
        self.waits, self.endpoints = waits, endpoints


def replay(causes: Causes, durations: Durations) -> Floats | None:
    """When the last node ends in each case [ps]; None where it is not known.

    Parameters
    ----------
    causes
        What ran, and why each thing began.
    durations
        What takes how long.
    """
    plan = _Plan(causes, durations)
    for _ in range(_PASSES):
        if not plan.run():
            return plan.finish()
    return None


class _Plan:
    """All that happens, in the order in which it did, and what each is computed of."""

    def __init__(self, causes: Causes, durations: Durations) -> None:
        self._durations = durations
        times, stays, messages = causes.times, causes.stays, causes.deliveries
        cases = len(durations.endpoints)
        nodes = len(times.start_ps)
        self._begin = np.zeros((nodes, cases))
        self._end = np.zeros((nodes, cases))
        self._entered = np.zeros((len(stays), cases))
        self._start = np.zeros((len(stays), cases))
        self._left = np.zeros((len(stays), cases))
        self._sent = np.zeros((len(messages), cases))
        self._arrived = np.zeros((len(messages), cases))
        self._causes = causes
        ran = np.flatnonzero((times.start_ps >= 0) & (times.end_ps >= 0))
        arrived = np.flatnonzero(messages["end_ps"] >= 0)
        left = np.flatnonzero(stays["end_ps"] >= 0)
        parts = [
            (messages["end_ps"], arrived, _ARRIVES), (stays["end_ps"], left, _LEAVES),
            (times.end_ps, ran, _ENDS), (times.start_ps, ran, _BEGINS),
            (stays["entered_ps"], left, _ENTERS), (stays["start_ps"], left, _STARTS),
            (messages["start_ps"], arrived, _SENDS),
        ]  # fmt: skip
        at = np.concatenate([values[which] for values, which, _ in parts])
        what = np.concatenate([np.full(len(which), one) for _, which, one in parts])
        index = np.concatenate([which for _, which, _ in parts])
        order = np.lexsort((index, what, at))
        self._events = list(zip(what[order].tolist(), index[order].tolist(), strict=True))
        self._ran = ran
        self._prepare()

    def _prepare(self) -> None:
        causes = self._causes
        times, stays, messages = causes.times, causes.stays, causes.deliveries
        program = causes.program
        self._starts_ps, self._ends_ps = times.start_ps.tolist(), times.end_ps.tolist()
        # Of each node: what it depends on, and what held its place.
        parents = Parents(program)
        self._needs: list[list[int]] = [[] for _ in self._starts_ps]
        template = program.tasks["template_index"].tolist()
        for row in range(len(template)):
            offset, parent = parents.of(template[row])
            first, last = times.offset[row : row + 2].tolist()
            here = causes.row(row)
            for local in range(last - first):
                start = self._starts_ps[first + local]
                if start < 0:
                    continue
                mine = [first + int(one) for one in parent[offset[local] : offset[local + 1]]]
                ended = max((self._ends_ps[one] for one in mine), default=here.start_ps)
                if ended < start:
                    enabler = here.enabler(local, start)
                    if enabler >= 0:
                        mine.append(first + enabler)
                self._needs[first + local] = mine
        self._op = causes.op_of_node.tolist()
        # Of each stay: the one before of its chunk and of its queue, its node, what it receives.
        self._before = causes.before_of_stay().tolist()
        self._held_by = causes.held_by().tolist()
        self._node = causes.node_of_stay.tolist()
        self._receives: list[list[int]] = [[] for _ in range(len(stays))]
        self._of_node: dict[int, list[int]] = {}
        for at, (receiver, sender, control) in enumerate(
            zip(
                *(messages[name].tolist() for name in ("receiver", "sender", "control")),
                strict=True,
            )
        ):
            if control:
                continue
            if receiver >= 0:
                self._receives[receiver].append(at)
            elif receiver < -1:
                self._of_node.setdefault(-2 - receiver, []).append(at)
            if sender < -1:
                self._of_node.setdefault(-2 - sender, []).append(at)
            elif sender >= 0 and int(stays["phase"][sender]) < 0:
                self._receives[sender].append(at)
        self._stays_of: dict[int, list[int]] = {}
        for at, node in enumerate(self._node):
            self._stays_of.setdefault(node, []).append(at)
        self._stay_ps = {
            name: stays[name].tolist() for name in ("entered_ps", "start_ps", "end_ps")
        }
        self._message_ps = {name: messages[name].tolist() for name in ("start_ps", "end_ps")}
        self._sender = messages["sender"].tolist()
        self._trigger = [
            causes.trigger(sender, start) if sender >= 0 else -1
            for sender, start in zip(self._sender, self._message_ps["start_ps"], strict=True)
        ]
        self._asked = [causes.asked(at) for at in range(len(messages))]
        self._behind = [causes.waited_for(at) for at in range(len(messages))]

    def run(self) -> bool:
        """Go through all once; whether anything changed."""
        acts = (self._arrives, self._leaves, self._ends, self._begins, self._enters, self._starts,
                self._sends)  # fmt: skip
        kept = (self._arrived, self._left, self._end, self._begin, self._entered, self._start,
                self._sent)  # fmt: skip
        changed = False
        for what, at in self._events:
            new = acts[what](at)
            old = kept[what][at]
            if (new != old).any():
                changed = True
                kept[what][at] = new
        return changed

    def finish(self) -> Floats:
        """When the last node ends."""
        last: Floats = self._end[self._ran].max(axis=0)
        return last

    def _begins(self, node: int) -> Any:
        """When all that a node needs has ended."""
        start = self._starts_ps[node]
        needs = self._needs[node]
        if not needs:
            return np.full(len(self._durations.endpoints), float(start))
        ended = max(self._ends_ps[one] for one in needs)
        return self._end[needs].max(axis=0) + (start - ended)

    def _ends(self, node: int) -> Any:
        begin = self._begin[node]
        stays = self._stays_of.get(node)
        if stays:
            ended = max(self._stay_ps["end_ps"][one] for one in stays)
            lag = self._ends_ps[node] - ended
            return np.maximum(self._left[stays].max(axis=0) + lag, begin)
        messages = self._of_node.get(node)
        if messages:
            return np.maximum(self._arrived[messages].max(axis=0), begin)
        return begin + self._durations.nodes[node]

    def _enters(self, stay: int) -> Any:
        before = self._before[stay]
        if before >= 0:
            return self._left[before]
        return self._begin[self._node[stay]]

    def _starts(self, stay: int) -> Any:
        held = self._held_by[stay]
        return (
            self._entered[stay] if held < 0 else np.maximum(self._entered[stay], self._left[held])
        )

    def _leaves(self, stay: int) -> Any:
        received, end = self._receives[stay], self._stay_ps["end_ps"][stay]
        begin, part = self._stay_ps["start_ps"][stay], self._durations.endpoints
        if not received:
            return self._start[stay] + (end - begin) * part
        last = max(self._message_ps["end_ps"][one] for one in received)
        if last < begin:
            return self._start[stay] + (end - begin) * part
        arrived = np.maximum(self._arrived[received].max(axis=0), self._start[stay])
        return arrived + (end - last) * part

    def _sends(self, message: int) -> Any:
        sender, start = self._sender[message], self._message_ps["start_ps"][message]
        part = self._durations.endpoints
        if self._asked[message] >= 0:
            return self._arrived[self._asked[message]]
        if sender < -1:
            return self._begin[-2 - sender]
        if sender < 0:
            return np.full(len(part), float(start))
        trigger = self._trigger[message]
        if trigger < 0:
            return self._start[sender] + (start - self._stay_ps["start_ps"][sender]) * part
        arrived = np.maximum(self._arrived[trigger], self._start[sender])
        return arrived + (start - self._message_ps["end_ps"][trigger]) * part

    def _arrives(self, message: int) -> Any:
        behind, durations = self._behind[message], self._durations
        start, end = (self._message_ps[name][message] for name in ("start_ps", "end_ps"))
        alone = self._sent[message] + durations.messages[message]
        waits = durations.waits[message]
        if behind == message:
            waited = max(end - start - self._causes.idle_of(message), 0)
            return alone + waited * waits
        # They leave the link that both need one behind the other; then each has a way of its own.
        here, there = durations.latencies[message], durations.latencies[behind]
        gap = end - here[0] - (self._message_ps["end_ps"][behind] - there[0])
        between = gap * waits if gap > 0 else gap
        return np.maximum(alone, self._arrived[behind] - there + between + here)
