# SPDX-License-Identifier: MIT
"""What both analytical models share: the contract's two ways to drive one event queue."""

from __future__ import annotations

import heapq
import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import ContractError, Interrupted, SimulationError, Unsupported
from astra_bridge.network.analytical.events import TimeBuckets
from astra_bridge.network.analytical.topologies import routes_of
from astra_bridge.network.api import (
    COMPLETION,
    DELIVERED,
    PLACES_PER_TRANSFER,
    REDUCE,
    TIME_NEVER,
    Advance,
    Capability,
    Exchange,
    NetworkConfig,
    NetworkInfo,
    Status,
    Stop,
)
from astra_bridge.sealed import seal, unseal
from astra_bridge.units import PS_PER_NS

__all__ = [
    "ARRIVAL",
    "LATENCY",
    "SERIALISATION",
    "AnalyticalNetwork",
    "on_grid",
    "serialisation_ns",
    "whole_ns",
]

SERIALISATION = "bytes / bandwidth"
ARRIVAL = "latency + bytes / bandwidth"
LATENCY = "latency"

_FIRST_PLACE = -(2**63)
"""Changes of links come before everything else in their instant."""
_LAST_PLACE = 2**63 - 1
_MOST_PLACE = 2**62 - 1


def beyond(quantity: str) -> SimulationError:
    return SimulationError(f"{quantity} is beyond the range of time (2^63 ps)")


def whole_ns(delay_ns: float, quantity: str) -> int:
    """The part of a delay that counts: ASTRA-sim cuts it off to whole ns."""
    if not delay_ns < 9.2e15:
        raise beyond(f"{quantity}, {delay_ns:.6g} ns,")
    return int(delay_ns)


def serialisation_ns(size_bytes: int, bytes_per_ns: float) -> float:
    """Bytes / bandwidth, as IEEE divides them: by a bandwidth that has vanished too."""
    return size_bytes / bytes_per_ns if bytes_per_ns else math.inf


def on_grid(now_ps: int) -> int:
    """A host may act between two grid points: the model then begins at the next one."""
    off_grid = now_ps % PS_PER_NS
    if off_grid == 0:
        return now_ps
    if now_ps > TIME_NEVER - PS_PER_NS:
        raise beyond(f"the time {now_ps} ps, rounded up to whole ns,")
    return now_ps + PS_PER_NS - off_grid


class AnalyticalNetwork:
    """A simulation of an analytical network; implements ``astra_bridge.network.api.Network``.

    A model says how a transfer starts (``_start``) and schedules events with ``_schedule``.  Time
    is in ps but stays on the grid of whole ns, as in ASTRA-sim.
    """

    info: NetworkInfo

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._routes = routes_of(config)
        self._events = TimeBuckets()
        self._place = 0
        self._records: list[tuple[int, int, int, int, int]] = []
        self._starts: list[tuple[int, ...]] = []  # heap: (start_ps, id, ...)
        self._ids: set[int] = set()  # in flight, submit only
        self._in_flight = 0
        self._last_id = -(2**63)  # exchange only
        self._now_ps = 0
        self._ordered: bool | None = None  # how it is driven: exchange, or submit and advance
        self._changes = 0
        # With folded ranks (the option fold): by transfer, how long after its start it got the
        # place of its delivery.  Those that got it at once are left out.
        self._waited: dict[int, int] = {}
        self._failed = self._interrupted = self._closed = False
        self._transfers = self._bytes = 0

    # -- what a model adds ------------------------------------------------------------------

    @abstractmethod
    def _start(self, transfer_id: int, size: int, src: int, dst: int, now_ps: int) -> None:
        """Start a transfer at the present; at most four events may be scheduled."""

    def _reduce(
        self, transfer_id: int, size: int, src: int, dst: int, now_ps: int, members: int, which: int
    ) -> None:
        """Start a member of a reduction: with the capability REDUCTION only."""

    def _begin(
        self,
        transfer_id: int,
        size: int,
        src: int,
        dst: int,
        now_ps: int,
        flags: int = 0,
        which: int = 0,
    ) -> None:
        self._transfers += 1
        self._bytes += size
        if self._bytes >= 2**63:
            raise SimulationError("the bytes of all transfers pass 2^63")
        if flags:
            self._reduce(transfer_id, size, src, dst, now_ps, flags >> 8, which)
        else:
            self._start(transfer_id, size, src, dst, now_ps)

    def _schedule(
        self,
        now_ps: int,
        delay_ns: int,
        handle: str,
        subject: Any,
    ) -> None:
        """Schedule an event ``delay_ns`` from now, at the next place."""
        place = self._place
        self._place = place + 1
        time_ps = now_ps + delay_ns * PS_PER_NS
        if time_ps >= TIME_NEVER:
            raise beyond(f"the time {now_ps} ps + {delay_ns} ns")
        self._events.push(time_ps, (place, handle, subject))

    def _where_stuck(self) -> str:
        return ""

    # -- the one loop -----------------------------------------------------------------------

    def _run(self, now_ps: int, until_ps: int, until_place: int, whole_instants: bool) -> int:
        """Run events before (until_ps, until_place); return the time of the last one.

        Stops in or after the first instant with a delivery.  With ``whole_instants`` it is run to
        its end.  Without, only deliveries may follow the delivery: anything else could be seen by
        what the host starts in answer to it, and ASTRA-sim lets the host answer first.
        """
        records, events = self._records, self._events
        while True:
            time_ps = events.first_time()
            if time_ps is None or time_ps > until_ps or (records and time_ps > now_ps):
                break
            bucket = events.first()
            while bucket:
                place, handle, subject = bucket[0]
                if time_ps == until_ps and place >= until_place:
                    return now_ps
                if not handle:
                    bucket.popleft()
                    waited_ps = self._waited.pop(subject, 0)
                    records.append((subject, time_ps, DELIVERED, 0, waited_ps))
                elif whole_instants or not records:
                    bucket.popleft()
                    getattr(self, handle)(subject, time_ps)
                    bucket = events.first()
                else:
                    return now_ps
                now_ps = time_ps
            events.drop_first()
        return now_ps

    # -- the contract: exchange -------------------------------------------------------------

    def exchange(
        self,
        starts: NDArray[Any],
        now_ps: int,
        until_ps: int,
        until_place: int,
        place: int,
    ) -> Exchange:
        self._enter("exchange", ordered=True)
        if not self._now_ps <= now_ps <= until_ps:
            self._refuse(
                "exchange", f"now_ps={now_ps} is not in {self._now_ps} .. until_ps={until_ps}"
            )
        rows = self._checked("exchange", starts)
        last_id = self._last_id
        for index, (transfer_id, start_ps, *_) in enumerate(rows):
            if start_ps != now_ps:
                self._refuse("exchange", f"start_ps={start_ps} differs from now_ps={now_ps}", index)
            if transfer_id <= last_id:
                self._refuse("exchange", f"id={transfer_id} does not ascend", index)
            last_id = transfer_id
        if place > _MOST_PLACE or (rows and place < last_id + PLACES_PER_TRANSFER):
            past = f"must be past the places of all starts, and at most {_MOST_PLACE}"
            self._refuse("exchange", f"place={place} {past}")
        self._ordered = True  # not before: what is refused decides nothing (R3)
        self._last_id = last_id
        with self._modelling("exchange"):
            self._catch_up(now_ps)
        self._in_flight += len(rows)
        with self._modelling("exchange"):
            begin_ps = on_grid(now_ps) if rows else 0
            for transfer_id, _, size, src, dst, _, flags, which in rows:
                self._place = transfer_id
                self._begin(transfer_id, size, src, dst, begin_ps, flags, which)
            self._place = place
            now_ps = self._run(now_ps, until_ps, until_place, whole_instants=False)
        records, self._records = self._records, []
        self._in_flight -= len(records)
        next_ps = self._events.first_time()
        if records:
            stop = Stop.COMPLETION
        elif until_ps == TIME_NEVER and next_ps is None:
            stop = Stop.IDLE
            self._now_ps = now_ps
            if self._in_flight:
                self._stuck("exchange")
        else:
            stop = Stop.REACHED
            now_ps = until_ps
        self._now_ps = now_ps
        return Exchange(
            np.array(records, COMPLETION),
            now_ps,
            stop,
            self._place,
            TIME_NEVER if next_ps is None else next_ps,
            0 if next_ps is None else self._events.first()[0][0],
        )

    def _catch_up(self, now_ps: int) -> None:
        """A host that does not know of changes of links may come back after them."""
        while (time_ps := self._events.first_time()) is not None and time_ps < now_ps:
            while bucket := self._events.first():
                _, handle, subject = bucket[0]
                if handle != "_change":
                    past = f"is past the next event, at {time_ps}"
                    self._refuse("exchange", f"now_ps={now_ps} {past}")
                bucket.popleft()
                self._change(subject, time_ps)
            self._events.drop_first()

    # -- the contract: submit, advance, poll ------------------------------------------------

    def submit(self, items: NDArray[Any]) -> int:
        self._enter("submit", ordered=False)
        rows = self._checked("submit", items)
        fresh: set[int] = set()
        for index, (transfer_id, *_) in enumerate(rows):
            if transfer_id in self._ids or transfer_id in fresh:
                self._refuse("submit", f"id={transfer_id} is already in flight", index)
            fresh.add(transfer_id)
        self._ordered = False
        self._ids |= fresh
        for transfer_id, start_ps, size, src, dst, _, flags, which in rows:
            start = (on_grid(start_ps), transfer_id, size, src, dst, flags, which)
            heapq.heappush(self._starts, start)
        self._in_flight += len(rows)
        return len(rows)

    def peek(self) -> int:
        """When the next completion can come at the earliest; TIME_NEVER if none will."""
        self._enter("peek", ordered=self._ordered)
        event_ps = self._events.first_time() if self._in_flight else None
        next_ps = TIME_NEVER if event_ps is None else max(event_ps, self._now_ps)
        return min(next_ps, self._starts[0][0]) if self._starts else next_ps

    def advance(self, until_ps: int, lookahead_ps: int = 0) -> Advance:
        self._enter("advance", ordered=False)
        if until_ps < self._now_ps:
            self._refuse("advance", f"until_ps={until_ps} is before now, {self._now_ps} ps")
        if lookahead_ps < 0:
            self._refuse("advance", f"lookahead_ps={lookahead_ps} is negative")
        if self._records:
            waiting = f"{len(self._records)} completions wait for poll()"
            raise ContractError(f"advance: {waiting}", call="advance", status=Status.BAD_STATE)
        self._ordered = False
        limit_ps, records = until_ps, self._records
        done: list[tuple[int, int, int, int, int]] = []
        interrupted = False
        # What a host waits for; changes of links alone are no reason to go on for ever.
        while until_ps != TIME_NEVER or self._in_flight:
            if self._interrupted:
                interrupted, self._interrupted = True, False
                break
            event_ps = self._events.first_time()
            start_ps = self._starts[0][0] if self._starts else None
            time_ps = min((t for t in (event_ps, start_ps) if t is not None), default=None)
            if time_ps is None or time_ps > limit_ps:
                break
            self._now_ps = time_ps
            with self._modelling("advance"):
                if event_ps == time_ps:
                    self._run(time_ps, time_ps, _LAST_PLACE, whole_instants=True)
                else:
                    # After all that has happened in this instant; among themselves by id (R7).
                    while self._starts and self._starts[0][0] == time_ps:
                        _, transfer_id, size, src, dst, *reduced = heapq.heappop(self._starts)
                        self._begin(transfer_id, size, src, dst, time_ps, *reduced)
            if records:
                if not done:
                    limit_ps = min(limit_ps, time_ps + max(0, lookahead_ps - 1))
                done += records
                self._ids.difference_update(record[0] for record in records)
                self._in_flight -= len(records)
                records.clear()
        self._records = done
        if interrupted:
            raise Interrupted("advance: interrupted", call="advance", status=Status.INTERRUPTED)
        if limit_ps != TIME_NEVER:
            self._now_ps = limit_ps
        if done:
            return Advance(self._now_ps, Stop.COMPLETION)
        idle = self._events.first_time() is None and not self._starts
        if idle and self._in_flight:
            self._stuck("advance")
        return Advance(self._now_ps, Stop.IDLE if until_ps == TIME_NEVER else Stop.REACHED)

    def poll(self) -> NDArray[Any]:
        self._enter("poll", ordered=False)
        records, self._records = self._records, []
        return np.array(records, COMPLETION)

    # -- the contract: the rest -------------------------------------------------------------

    def set_link(self, link: int, at_ps: int, bandwidth_scale: float) -> None:
        if Capability.LINK_FAULTS not in self.info.capabilities:
            raise Unsupported(
                f"set_link: {self.info.name} has no links that could change",
                call="set_link",
                status=Status.UNSUPPORTED,
            )
        self._enter("set_link", ordered=self._ordered)
        if not 0 <= link < self._routes.link_count:
            self._refuse("set_link", f"link={link} but there are {self._routes.link_count} links")
        if not self._now_ps <= at_ps < TIME_NEVER:
            when = "never" if at_ps >= TIME_NEVER else f"before now, {self._now_ps} ps"
            self._refuse("set_link", f"at_ps={at_ps} is {when}")
        if not 0 <= bandwidth_scale < math.inf:
            self._refuse("set_link", f"bandwidth_scale={bandwidth_scale} must be 0 or more")
        if at_ps == self._now_ps:
            self._scale_link(link, bandwidth_scale)
        place = _FIRST_PLACE + self._changes
        self._changes += 1
        self._events.push(at_ps, (place, "_change", (link, bandwidth_scale)))

    def _change(self, link_and_scale: tuple[int, float], now_ps: int) -> None:
        """Event: a link gets another bandwidth."""

    def _scale_link(self, link: int, bandwidth_scale: float) -> None:
        """Change the bandwidth of a link, and nothing else."""

    def stats(self) -> dict[str, Any]:
        return {"transfers": self._transfers, "bytes": self._bytes}

    def snapshot(self) -> AnalyticalNetwork:
        self._enter("snapshot", ordered=self._ordered)
        return deepcopy(self)

    CLASSES: ClassVar[tuple[type, ...]] = (TimeBuckets,)
    """What a state consists of."""
    DERIVED: ClassVar[frozenset[str]] = frozenset({"_config", "_routes"})
    """What follows from the configuration."""

    def _owner(self) -> str:
        config = self._config
        options = sorted(config.options.items())
        links = config.links.tolist()
        return repr((self.info.name, self.info.version, config.endpoints, config.nodes, links,
                     options))  # fmt: skip

    def save(self) -> bytes:
        self._enter("save", ordered=self._ordered)
        state = {name: value for name, value in self.__dict__.items() if name not in self.DERIVED}
        return seal(state, self._owner())

    def restore(self, data: bytes) -> None:
        try:
            state = unseal(data, self._owner(), self.CLASSES)
        except ValueError as error:
            self._refuse("load", str(error))
        self.__dict__ = type(self)(self._config).__dict__ | state

    def interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> AnalyticalNetwork:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- checks -----------------------------------------------------------------------------

    def _enter(self, call: str, ordered: bool | None) -> None:
        if self._closed or self._failed:
            what = "is closed" if self._closed else "has failed; only close() is allowed"
            raise ContractError(
                f"{call}: the simulation {what}", call=call, status=Status.BAD_STATE
            )
        if self._ordered is not None and self._ordered != ordered:
            raise ContractError(
                f"{call}: a simulation uses either exchange() or submit(), advance() and poll()",
                call=call,
                status=Status.BAD_STATE,
            )

    def _checked(self, call: str, items: NDArray[Any]) -> list[tuple[int, ...]]:
        """The rows of TRANSFER records, every one of them valid."""
        rows: list[tuple[int, ...]] = items.tolist()
        count = self._routes.endpoints
        for index, row in enumerate(rows):
            _, start_ps, size, src, dst, traffic_class, flags, reserved = row
            if not (0 <= src < count and 0 <= dst < count):
                name, value = ("dst", dst) if 0 <= src < count else ("src", src)
                known = f"the topology has {count} endpoints (0..{count - 1})"
                self._refuse(call, f"{name}={value} but {known}", index)
            if src == dst:
                self._refuse(call, f"src and dst are both {src}", index)
            if size <= 0:
                self._refuse(call, f"bytes={size} must be positive", index)
            if start_ps < self._now_ps or start_ps > TIME_NEVER - PS_PER_NS:
                self._refuse(call, f"start_ps={start_ps} but now is {self._now_ps} ps", index)
            member = flags & 0xFF == REDUCE and flags >> 8 >= 2 and reserved > 0
            if member and Capability.REDUCTION in self.info.capabilities:
                flags = reserved = 0
            if traffic_class or flags or reserved:
                self._refuse(call, "traffic_class, flags and reserved must be 0", index)
        return rows

    def _refuse(self, call: str, message: str, item: int = -1) -> NoReturn:
        where = "" if item < 0 else f"item {item}: "
        raise ContractError(
            f"{call}: {where}{message}",
            backend=self.info.name,
            call=call,
            status=Status.INVALID,
            item=item,
        )

    @contextmanager
    def _modelling(self, call: str) -> Iterator[None]:
        """After an error of the model only close() is allowed."""
        try:
            yield
        except SimulationError as error:
            self._failed = True
            raise SimulationError(
                f"{call}: {error}", backend=self.info.name, call=call, status=Status.MODEL
            ) from None

    def _stuck(self, call: str) -> None:
        ids = sorted(self._ids)[:4]
        named = f": {', '.join(map(str, ids))}" if ids else ""
        with self._modelling(call):
            raise SimulationError(
                f"at {self._now_ps} ps no event is left, but {self._in_flight} transfers are in "
                f"flight{named} {self._where_stuck()}".rstrip()
            )
