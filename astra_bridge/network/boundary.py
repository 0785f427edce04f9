# SPDX-License-Identifier: MIT
"""Nobody's word is taken: what an engine checks of every answer of a backend.

Every field of every record and reply is checked once, here for Python and in
``csrc/engine/boundary.hpp`` for the native engine.  `LIES` names each check, so that both engines
say the same of the same answer; ``tests/faults/test_lies.py`` holds the two together.

A check fails only where the answer cannot be true, whatever the network: the error is a
`ContractError` that names backend, call, field, value and rule (docs/contract.md).
"""

from __future__ import annotations

import operator
from collections.abc import Container
from typing import Any, NamedTuple, NoReturn

from astra_bridge.errors import ContractError
from astra_bridge.network.api import (
    COMPLETION,
    DELIVERED,
    SENT,
    TIME_NEVER,
    Advance,
    Capability,
    Exchange,
    NetworkInfo,
    Status,
    Stop,
)
from astra_bridge.text import show

__all__ = ["LIES", "MOST_IDLE_INTERRUPTS", "MOST_PLACE", "Boundary", "broken"]

MOST_PLACE = 2**62 - 1
"""Last place in the order inside one instant that may be drawn (ids up to 2^62 are exact, R14)."""

MOST_DRAWN = 2**40
"""Most places that one call draws: more than any network has events between two completions."""

MOST_IDLE_INTERRUPTS = 10_000
"""How often in a row ``advance`` may be interrupted without moving in time."""


class Lie(NamedTuple):
    """One check: the field of the answer, its rule, and what is allowed ({bound} is filled in)."""

    field: str
    rule: str
    allowed: str


LIES = {
    "reply": Lie("reply", "R2", "it must be {bound}"),
    "accepted": Lie("accepted", "R4", "{bound} transfers were submitted"),
    "accepted-none": Lie("accepted", "R4", "nothing is in flight, so one of {bound} must fit"),
    "interrupt": Lie("status", "CAP", "the capability INTERRUPT is not declared"),
    "interrupt-again": Lie("status", "R5", "time has stood still over {bound} such calls"),
    "completions": Lie("completions", "R2", "the array belongs to the host, at {bound}"),
    "capacity": Lie("capacity", "R2", "the host has given {bound}"),
    "count": Lie("count", "R2", "capacity is {bound}"),
    "count-flight": Lie("count", "R8", "what is in flight can have {bound} records at most"),
    "stop": Lie("stop", "R5", "allowed are 1 (REACHED), 2 (COMPLETION) and 3 (IDLE)"),
    "stop-completion": Lie("stop", "R5", "there are {bound} records, and COMPLETION says some"),
    "stop-reached": Lie("stop", "R5", "REACHED says that now_ps is until_ps, {bound}"),
    "stop-until": Lie("stop", "R5", "IDLE needs an until_ps of NEVER, and it is {bound}"),
    "stop-idle": Lie("stop", "R13", "IDLE says nothing is in flight, and {bound} transfers are"),
    "now-back": Lie("now_ps", "R5", "it was {bound} before"),
    "now-beyond": Lie("now_ps", "R5", "until_ps is {bound}"),
    "now-never": Lie("now_ps", "R14", "it must be before NEVER, {bound}"),
    "place-back": Lie("place", "R15", "it was {bound} before"),
    "place-jump": Lie("place", "R15", "from where it was, {bound} is the most that a call reaches"),
    "next-back": Lie("next_ps", "R15", "now_ps is {bound}"),
    "next-ps": Lie("next_ps", "R15", "what is before until_ps, {bound}, was to be run"),
    "next-place": Lie("next_place", "R15", "what is before until_place, {bound}, was to be run"),
    "next-none": Lie("next_ps", "R13", "{bound} transfers are in flight, so an event is left"),
    "id": Lie("id", "R8", "no transfer of this id is in flight"),
    "kind": Lie("kind", "R8", "allowed are 1 (DELIVERED) and, with SENT, 2 (SENT)"),
    "sent": Lie("kind", "CAP", "the capability SENT is not declared"),
    "sent-again": Lie("kind", "R8", "SENT was reported of this transfer before"),
    "time": Lie("time_ps", "R6", "a delivery is told at its time, and now_ps is {bound}"),
    "time-order": Lie("time_ps", "R7", "times ascend, and it was {bound} before"),
    "time-late": Lie("time_ps", "R6", "now_ps is {bound}"),
    "time-grid": Lie("time_ps", "R14", "resolution_ps is {bound}"),
    "outcome": Lie("outcome", "R8", "allowed are 0 and 5 (MODEL: lost)"),
    "reserved": Lie("reserved", "R2", "it must be 0"),
}
"""Every check by its name, which the native engine uses as well."""


def broken(
    backend: str, call: str, name: str, value: Any, bound: Any = "", item: int = -1
) -> ContractError:
    """The error for an answer that cannot be true.

    Parameters
    ----------
    backend, call : str
    name : str
        Which of `LIES`.
    value
        What the field is.
    bound
        What belongs to the check: a limit, or what was there before.
    item : int
        Index of the record, or -1.

    Returns
    -------
    ContractError

    Examples
    --------
    >>> print(broken("mine", "submit", "accepted", 9, 5))
    mine: submit: the backend broke the contract: accepted=9, but 5 transfers were submitted (R4)
    """
    lie = LIES[name]
    value = int(value) if isinstance(value, int) else value  # no names of enumerations
    where = f" of record {item}" if item >= 0 else ""
    return ContractError(
        f"{backend}: {call}: the backend broke the contract: {lie.field}={show(value)}{where}, but "
        f"{lie.allowed.format(bound=bound)} ({lie.rule})",
        backend=backend,
        call=call,
        status=int(Status.INTERNAL),
        item=item,
    )


class Boundary:
    """The checks of one simulation.

    Attributes
    ----------
    info : NetworkInfo
        What the backend has declared.
    sent : set of int
        Ids in flight of which SENT has been reported.
    """

    STATE = ("_last_ps", "sent")
    """What changes, as plain data."""

    def __init__(self, info: NetworkInfo) -> None:
        self.info = info
        self.sent: set[int] = set()
        self._grid = info.resolution_ps
        self._sends = Capability.SENT in info.capabilities
        self._last_ps = 0

    def refuse(self, call: str, name: str, value: Any, bound: Any = "", item: int = -1) -> NoReturn:
        """Raise the error of a check."""
        raise broken(self.info.name, call, name, value, bound, item)

    def whole(self, call: str, value: Any) -> int:
        """A number of a reply, which a network in Python may make of anything."""
        if type(value) is int:
            return value
        try:
            return int(operator.index(value))
        except TypeError:
            self.refuse(call, "reply", value, "a whole number")

    def submitted(self, answer: Any, submitted: int, in_flight: int) -> int:
        """How many transfers a ``submit`` has taken."""
        accepted = self.whole("submit", answer)
        if not 0 <= accepted <= submitted:
            self.refuse("submit", "accepted", accepted, submitted)
        if accepted == 0 and submitted and not in_flight:
            self.refuse("submit", "accepted-none", accepted, submitted)
        return accepted

    def interrupted(self, moved: bool, before: int) -> int:
        """How often an ``advance`` has been interrupted in a row without moving in time."""
        if Capability.INTERRUPT not in self.info.capabilities:
            self.refuse("advance", "interrupt", int(Status.INTERRUPTED))
        count = 0 if moved else before + 1
        if count > MOST_IDLE_INTERRUPTS:
            refused = int(Status.INTERRUPTED)
            self.refuse("advance", "interrupt-again", refused, MOST_IDLE_INTERRUPTS)
        return count

    def stop(self, call: str, stop: Any) -> Stop:
        """Why a call has stopped."""
        if type(stop) is Stop:
            return stop
        stop = self.whole(call, stop)
        if stop not in (Stop.REACHED, Stop.COMPLETION, Stop.IDLE):
            self.refuse(call, "stop", stop)
        return Stop(stop)

    def _now(self, call: str, answer: Any, before_ps: int, until_ps: int) -> int:
        now_ps = self.whole(call, answer)
        if now_ps < before_ps:
            self.refuse(call, "now-back", now_ps, before_ps)
        if now_ps > until_ps:
            self.refuse(call, "now-beyond", now_ps, until_ps)
        if now_ps == TIME_NEVER:
            self.refuse(call, "now-never", now_ps, TIME_NEVER)
        return now_ps

    def _stopped(
        self, call: str, stop: int, now_ps: int, until_ps: int, count: int, in_flight: int
    ) -> None:
        """The reason to stop fits to everything else."""
        if (stop == Stop.COMPLETION) != (count > 0):
            self.refuse(call, "stop-completion", stop, count)
        if stop == Stop.REACHED and now_ps != until_ps:
            self.refuse(call, "stop-reached", stop, until_ps)
        if stop == Stop.IDLE:
            if until_ps != TIME_NEVER:
                self.refuse(call, "stop-until", stop, until_ps)
            if in_flight:
                self.refuse(call, "stop-idle", stop, in_flight)

    def advanced(self, reply: Any, before_ps: int, until_ps: int) -> Advance:
        """The answer of ``advance``, as far as it can be judged before ``poll``."""
        if not isinstance(reply, Advance):
            self.refuse("advance", "reply", type(reply).__name__, "an Advance")
        stop = self.stop("advance", reply.stop)
        return Advance(self._now("advance", reply.now_ps, before_ps, until_ps), stop)

    def reached(self, now_ps: Any, before_ps: int, until_ps: int) -> int:
        """Where an ``advance`` that was interrupted has got to."""
        return self._now("advance", now_ps, before_ps, until_ps)

    def polled(self, records: Any, in_flight: int, before: int) -> Any:
        """The records of ``poll``: their type and, with those ``before``, their number."""
        self._records("poll", records)
        most = self.most_records(in_flight) - before
        if len(records) > most:
            self.refuse("poll", "count-flight", len(records), most)
        return records

    def most_records(self, in_flight: int) -> int:
        """How many records so many transfers can still have."""
        return in_flight * 2 - len(self.sent) if self._sends else in_flight

    def settled(self, step: Advance, until_ps: int, count: int, in_flight: int) -> None:
        """The answer of ``advance`` fits to what ``poll`` has given."""
        self._stopped("advance", step.stop, step.now_ps, until_ps, count, in_flight)

    def exchanged(
        self,
        reply: Any,
        now_ps: int,
        until_ps: int,
        until_place: int,
        place: int,
        in_flight: int,
    ) -> Exchange:
        """The answer of ``exchange``; ``in_flight`` counts what it has started."""
        call = "exchange"
        if not isinstance(reply, Exchange):
            self.refuse(call, "reply", type(reply).__name__, "an Exchange")
        self._records(call, reply.completions)
        stop = self.stop(call, reply.stop)
        now = self._now(call, reply.now_ps, now_ps, until_ps)
        drawn = self.whole(call, reply.place)
        if drawn < place:
            self.refuse(call, "place-back", drawn, place)
        most = min(place + MOST_DRAWN, MOST_PLACE)
        if drawn > most:
            self.refuse(call, "place-jump", drawn, most)
        next_ps = self.whole(call, reply.next_ps)
        next_place = self.whole(call, reply.next_place)
        if next_ps < now:
            self.refuse(call, "next-back", next_ps, now)
        count = len(reply.completions)
        self._stopped(call, stop, now, until_ps, count, in_flight)
        if stop != Stop.COMPLETION:
            if next_ps < until_ps:
                self.refuse(call, "next-ps", next_ps, until_ps)
            if next_ps == TIME_NEVER:
                if in_flight:
                    self.refuse(call, "next-none", next_ps, in_flight)
            elif next_ps == until_ps and next_place < until_place:
                self.refuse(call, "next-place", next_place, until_place)
        if next_ps > TIME_NEVER:
            self.refuse(call, "reply", next_ps, "an int64")
        return Exchange(reply.completions, now, stop, drawn, next_ps, next_place)

    def _records(self, call: str, records: Any) -> None:
        dtype = getattr(records, "dtype", None)
        if (dtype is not COMPLETION and dtype != COMPLETION) or records.ndim != 1:
            self.refuse(call, "reply", type(records).__name__, "an array of COMPLETION")

    def start_records(self, before_ps: int) -> None:
        """Before the first record of a call, which began at ``before_ps``."""
        self._last_ps = before_ps

    def record(
        self, call: str, item: int, row: tuple[int, ...], now_ps: int, in_flight: Container[int]
    ) -> None:
        """One record: id, time_ps, kind, outcome and reserved, in this order."""
        transfer, time_ps, kind, outcome, reserved = row
        if transfer not in in_flight:
            self.refuse(call, "id", transfer, item=item)
        if kind == SENT:
            if not self._sends:
                self.refuse(call, "sent", kind, item=item)
            if transfer in self.sent:
                self.refuse(call, "sent-again", kind, item=item)
        elif kind != DELIVERED:
            self.refuse(call, "kind", kind, item=item)
        if kind == DELIVERED and time_ps != now_ps:
            self.refuse(call, "time", time_ps, now_ps, item)
        if time_ps < self._last_ps:
            self.refuse(call, "time-order", time_ps, self._last_ps, item)
        if time_ps > now_ps:
            self.refuse(call, "time-late", time_ps, now_ps, item)
        if time_ps % self._grid:
            self.refuse(call, "time-grid", time_ps, self._grid, item)
        if outcome not in (0, Status.MODEL) or (outcome and kind == SENT):
            self.refuse(call, "outcome", outcome, item=item)
        if reserved:
            self.refuse(call, "reserved", reserved, item=item)
        self._last_ps = time_ps
        if kind == SENT:
            self.sent.add(transfer)
        else:
            self.sent.discard(transfer)
