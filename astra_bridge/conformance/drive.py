# SPDX-License-Identifier: MIT
"""How the rules drive a network: workloads, and the loops of an honest host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.conformance.subject import Subject
from astra_bridge.errors import ContractError
from astra_bridge.network.api import (
    COMPLETION,
    DELIVERED,
    PLACES_PER_TRANSFER,
    TIME_NEVER,
    TRANSFER,
    Capability,
    Network,
    Status,
    Stop,
)

__all__ = [
    "Broken",
    "drain",
    "exchange_all",
    "finish_times",
    "need",
    "refused",
    "simulate",
    "submit_all",
    "transfers",
    "workload",
]

Records = NDArray[Any]
Row = tuple[int, int, int, int, int]
"""id, start_ps, bytes, src, dst"""


class Broken(AssertionError):
    """The backend broke the rule; the message says how."""


def need(condition: object, message: str) -> None:
    """Raise :class:`Broken` unless ``condition``."""
    if not condition:
        raise Broken(message)


def transfers(rows: Iterable[Row]) -> Records:
    """Records of dtype TRANSFER."""
    listed = list(rows)
    items = np.zeros(len(listed), TRANSFER)
    for item, (number, start_ps, size, src, dst) in zip(items, listed, strict=True):
        item["id"], item["start_ps"], item["bytes"] = number, start_ps, size
        item["src"], item["dst"] = src, dst
    return items


def workload(s: Subject, seed: int, count: int = 24, distinct: bool = False) -> Records:
    """Random transfers, ids in random order, several of them at the same instant.

    With ``distinct``, odd start times and sizes, so that hardly any two events coincide.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(count) * PLACES_PER_TRANSFER
    rows: list[Row] = []
    for number in ids.tolist():
        src, dst = rng.choice(s.config.endpoints, 2, replace=False).tolist()
        start = int(rng.integers(0, 2_000_003)) if distinct else int(rng.integers(0, 5)) * 400_000
        size = int(rng.integers(1, 16_384)) if distinct else int(rng.choice([1, 1024, 4096, 10007]))
        start = -(-start // s.info.resolution_ps) * s.info.resolution_ps
        rows.append((number, start, size, src, dst))
    return transfers(rows)


def submit_all(network: Network, items: Records) -> Records:
    """Submit what fits; return the rest (R4)."""
    accepted = network.submit(items)
    need(0 <= accepted <= len(items), f"submit accepted {accepted} of {len(items)}")
    return items[accepted:]


def drain(
    network: Network,
    pending: Iterable[int],
    rest: Records | None = None,
    lookahead_ps: int = 0,
    steps: Sequence[int] = (),
    react: Callable[[Records], Records] | None = None,
) -> Records:
    """Run to the end; return all completions in the order of poll.

    Parameters
    ----------
    network
        The simulation.
    pending
        Ids in flight.
    rest
        Transfers that did not fit, resubmitted after each poll.
    lookahead_ps
        Passed to advance; ``react`` keeps the promise.
    steps
        Times at which advance is made to stop first, ascending.
    react
        Called with the completions of each poll, returns transfers to submit.
    """
    waiting = set(pending)
    rest = np.zeros(0, TRANSFER) if rest is None else rest
    parts: list[Records] = []
    targets = [*steps, TIME_NEVER]
    now_ps = 0
    while True:
        until_ps = targets[0]
        if until_ps < now_ps:
            targets.pop(0)
            continue
        before_ps = now_ps
        now_ps, stop = network.advance(until_ps, lookahead_ps)
        records = network.poll()
        need(
            bool(len(records)) == (stop == Stop.COMPLETION),
            f"advance stopped with {Stop(stop).name}, but poll gave {len(records)} completions",
        )
        need(bool((np.diff(records["time_ps"]) >= 0).all()), "poll does not give ascending times")
        parts.append(records)
        for record in records[records["kind"] == DELIVERED]["id"].tolist():
            need(record in waiting, f"transfer {record} was delivered, but it is not in flight")
            waiting.discard(record)
        if react is not None and len(records):
            more = react(records)
            waiting.update(more["id"].tolist())
            rest = np.concatenate([rest, more])
        if len(rest):
            rest["start_ps"] = np.maximum(rest["start_ps"], now_ps)
            rest = submit_all(network, rest)
        if stop == Stop.REACHED:
            need(now_ps == until_ps, f"advance said REACHED {until_ps} ps, but is at {now_ps} ps")
            targets.pop(0)
        elif stop == Stop.IDLE:
            need(until_ps == TIME_NEVER, f"advance to {until_ps} ps said IDLE")
            need(
                not waiting,
                f"advance said IDLE, but transfers {sorted(waiting)[:4]} were never delivered",
            )
            return np.concatenate(parts) if parts else np.zeros(0, COMPLETION)
        else:
            need(
                len(records) or now_ps > before_ps,
                f"advance returned at {now_ps} ps without progress",
            )


def simulate(
    s: Subject,
    items: Records,
    *,
    batches: int = 1,
    lookahead_ps: int = 0,
    steps: Sequence[int] = (),
    react: Callable[[Records], Records] | None = None,
) -> Records:
    """Open, submit in so many batches, run to the end; completions in the order of poll."""
    with s.open() as network:
        rest = [submit_all(network, part) for part in np.array_split(items, batches)]
        return drain(
            network, items["id"].tolist(), np.concatenate(rest), lookahead_ps, steps, react
        )


def finish_times(records: Records) -> dict[int, int]:
    """Id to time of delivery [ps]."""
    done = records[records["kind"] == DELIVERED]
    times = dict(zip(done["id"].tolist(), done["time_ps"].tolist(), strict=True))
    need(len(times) == len(done), "a transfer was delivered twice")
    return times


def refused(call: Callable[[], object], what: str) -> ContractError:
    """The ContractError (INVALID, BAD_STATE) that the call must raise."""
    try:
        call()
    except ContractError as error:
        need(error.status in (Status.INVALID, Status.BAD_STATE), str(error))
        return error
    raise Broken(f"{what} was accepted")


def exchange_all(
    s: Subject, items: Records, stops: Sequence[tuple[int, int]] = ()
) -> tuple[Records, int]:
    """Run ``items`` through exchange(); completions in order, and the final place counter.

    The ids of ``items`` ascend with their start times.

    ``stops`` are further pairs (time, place) at which the call is made to return.
    """
    need(
        Capability.ORDERED in s.info.capabilities, "exchange() needs ORDERED"
    )  # a caller's mistake
    order = items[np.lexsort((items["id"], items["start_ps"]))]
    # The host's own events come first in an instant: no place is smaller than its.
    host = [(int(time), -1) for time in np.unique(order["start_ps"])]
    agenda = [*sorted({*host, *stops}), (TIME_NEVER, TIME_NEVER)]
    place = PLACES_PER_TRANSFER * (len(items) + 1)
    now_ps = 0
    parts: list[Records] = []
    none = np.zeros(0, TRANSFER)
    waiting = set(items["id"].tolist())
    with s.open() as network:
        starts = none
        for until_ps, until_place in agenda:
            while True:
                got = network.exchange(starts, now_ps, until_ps, until_place, place)
                starts = none
                need(got.place >= place, f"exchange took the place counter back to {got.place}")
                need(now_ps <= got.now_ps <= until_ps, f"exchange went to {got.now_ps} ps")
                now_ps, place = got.now_ps, got.place
                times = set(got.completions["time_ps"].tolist())
                need(
                    times <= {now_ps},
                    f"exchange ran on after a completion: completions at {sorted(times)} ps, but "
                    f"it returned at {now_ps} ps",
                )
                parts.append(got.completions)
                for number in got.completions["id"].tolist():
                    need(number in waiting, f"transfer {number} is not in flight")
                    waiting.discard(number)
                need(
                    bool(len(got.completions)) == (got.stop == Stop.COMPLETION),
                    f"exchange stopped with {got.stop.name} and {len(got.completions)} completions",
                )
                if got.stop != Stop.COMPLETION:
                    need(
                        got.next_ps == TIME_NEVER
                        or (got.next_ps, got.next_place) >= (until_ps, until_place),
                        f"exchange to {until_ps} ps left an event at {got.next_ps} ps",
                    )
                    break
            if until_ps == TIME_NEVER:
                need(got.stop == Stop.IDLE, f"exchange ended with {got.stop.name}, not IDLE")
                need(not waiting, f"exchange said IDLE with {sorted(waiting)[:4]} in flight")
            else:
                need(now_ps == until_ps, f"exchange said REACHED, but is at {now_ps} ps")
                if until_place == -1:
                    starts = order[order["start_ps"] == until_ps]
    return np.concatenate(parts), place
