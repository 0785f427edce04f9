# SPDX-License-Identifier: MIT
"""What an algorithm has built, as tables, and whether its members agree.

Algorithms may be anybody's: nothing here takes their word for anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.collectives.schedule import Built, Request, Schedule
from astra_bridge.errors import InputError
from astra_bridge.program import FAMILY, PACKET, SCHEDULE, STEP, Peers, compiled
from astra_bridge.text import show
from astra_bridge.units import checked_int64

__all__ = ["Joined", "Tables", "check_peers", "joined", "tables"]

_COLUMNS: dict[Any, tuple[str, ...]] = {
    STEP: ("need", "send_to", "send_bytes", "recv_from", "recv_bytes", "peers"),
    PACKET: ("bytes", "flags", "reduce_ps"),
    SCHEDULE: ("window", "burst", "gate_step", "gate_received", "end"),
}
_LIMITS = {
    dtype: tuple(
        np.array([getattr(np.iinfo(dtype[name]), end) for name in names]) for end in ("min", "max")
    )
    for dtype, names in _COLUMNS.items()
}
"""The least and the greatest number of each column."""

_MOST_BYTES = 2**62

Numbers = NDArray[np.int64]


class Tables(NamedTuple):
    """The schedules of one family as whole numbers, not yet known to fit anywhere.

    Attributes
    ----------
    schedules : ndarray, shape (schedules, 5)
        Each once.
    steps : ndarray, shape (steps, 6)
    packets : ndarray, shape (packets, 3)
        The columns of SCHEDULE, STEP and PACKET that an algorithm chooses.
    step_count, packet_count : list of int
        Of each schedule.
    of_position : ndarray of int64
        Which schedule each position plays; empty where the only one is for all.
    """

    schedules: Numbers
    steps: Numbers
    packets: Numbers
    step_count: list[int]
    packet_count: list[int]
    of_position: Numbers


class Joined(NamedTuple):
    """Many families as arrays of a Program, one family after the other."""

    families: Any
    schedule_of_position: NDArray[np.int32]
    schedules: Any
    steps: Any
    packets: Any


def tables(request: Request, built: Any) -> Tables:
    """What an algorithm has built, as numbers.

    Raises
    ------
    InputError
        It is not what :class:`~astra_bridge.collectives.schedule.Built` says.
    """
    if not isinstance(built, Built):
        raise InputError(f"is {show(built)}; allowed: a Built", key="what it builds")
    checked_int64(built.final_bytes, "final_bytes", high=_MOST_BYTES)
    schedules = tuple(built.schedules)
    if len(schedules) not in (1, request.size):
        raise InputError(
            f"has {len(schedules)}; allowed: 1 for all, or {request.size}", key="schedules"
        )
    first_at: dict[int, int] = {}
    for index, one in enumerate(schedules):
        if id(one) not in first_at and not isinstance(one, Schedule):
            raise InputError(f"is {show(one)}; allowed: a Schedule", key=f"schedules[{index}]")
        first_at.setdefault(id(one), index)
    number = {one: number for number, one in enumerate(first_at)}
    several = schedules if len(schedules) > 1 else ()
    of_position = np.array([number[id(one)] for one in several], np.int64)
    schedules = tuple(schedules[index] for index in first_at.values())
    counts = [[getattr(one, name) for name in _COLUMNS[SCHEDULE]] for one in schedules]
    return Tables(
        _numbers(counts, SCHEDULE, "schedules"),
        _numbers([step for one in schedules for step in one.steps], STEP, "steps"),
        _numbers([packet for one in schedules for packet in one.packets], PACKET, "packets"),
        [len(one.steps) for one in schedules],
        [len(one.packets) for one in schedules],
        of_position,
    )


def _numbers(rows: list[Any], dtype: Any, what: str) -> Numbers:
    columns = _COLUMNS[dtype]
    try:
        values = np.array(rows) if rows else np.zeros((0, len(columns)), np.int64)
    except (ValueError, TypeError, OverflowError):
        values = np.zeros(0, object)
    if values.shape != (len(rows), len(columns)) or values.dtype.kind not in "iu":
        raise InputError(f"are not rows of the whole numbers {', '.join(columns)}", key=what)
    if values.dtype.kind == "u":
        _check_limits(values, dtype, what)
    return values.astype(np.int64, copy=False)


def _check_limits(values: Any, dtype: Any, what: str) -> None:
    """Every number fits into its column."""
    low, high = _LIMITS[dtype]
    if not len(values) or ((values.min(axis=0) >= low) & (values.max(axis=0) <= high)).all():
        return
    outside = (values < low) | (values > high)
    row, column = divmod(int(np.argmax(outside)), len(low))
    raise InputError(
        f"is {values[row, column]}; allowed: {low[column]} to {high[column]}",
        key=f"{what}[{row}].{_COLUMNS[dtype][column]}",
    )


def joined(families: Sequence[Tables]) -> Joined:
    """Many families as arrays of a Program, one family after the other.

    Raises
    ------
    InputError
        A number does not fit into its column, or a schedule has fewer packets than it inserts.
    """

    def table(index: int, dtype: Any, what: str) -> Any:
        columns = _COLUMNS[dtype]
        none = np.zeros((0, len(columns)), np.int64)
        values = np.concatenate([none, *(family[index] for family in families)])
        _check_limits(values, dtype, what)
        result = np.zeros(len(values), dtype)
        for column, name in enumerate(columns):
            result[name] = values[:, column]
        return result

    schedules = table(0, SCHEDULE, "schedules")
    steps = table(1, STEP, "steps")
    packets = table(2, PACKET, "packets")
    schedules["step_count"] = [count for family in families for count in family.step_count]
    held = np.array([count for family in families for count in family.packet_count], np.int64)
    schedules["step_start"] = np.cumsum(schedules["step_count"]) - schedules["step_count"]
    schedules["packet_start"] = np.cumsum(held) - held
    # The table knows no ends of packets: each schedule must have its own.
    short = schedules["end"] > held
    if short.any():
        row = int(np.argmax(short))
        raise InputError(
            f"is {schedules['end'][row]}, but there are {held[row]} packets",
            key=f"schedules[{row}].end",
        )
    rows = np.zeros(len(families), FAMILY)
    rows["count"] = [len(family.schedules) for family in families]
    rows["first"] = np.cumsum(rows["count"]) - rows["count"]
    rows["positions"] = [len(family.of_position) for family in families]
    rows["position_start"] = np.cumsum(rows["positions"]) - rows["positions"]
    of_position = np.concatenate([np.zeros(0, int), *(family.of_position for family in families)])
    return Joined(rows, of_position.astype(np.int32), schedules, steps, packets)


def check_peers(sizes: NDArray[np.int64], families: Joined) -> None:
    """Every message that one member sends, another one receives: same two members, same size.

    Parameters
    ----------
    sizes : ndarray of int64, shape (families,)
        Members of the group that runs each.
    families : Joined

    Raises
    ------
    InputError
        Names both members and the size.
    """
    tables = families._asdict() | {"sizes": sizes}
    compiled.check("peers_agree", tables, lambda: say_peers(sizes, families))


def say_peers(sizes: NDArray[np.int64], families: Joined) -> None:
    """As `check_peers`, in Python, which says what is wrong."""
    rows, steps = families.families, families.steps
    start, count = families.schedules["step_start"], families.schedules["step_count"]
    xor = np.concatenate([[0], np.cumsum(steps["peers"] == Peers.XOR)])
    xor = xor[start + count] - xor[start]
    first, positions = rows["first"], rows["positions"]
    # With one schedule for all, of one kind of peers, member 0 stands for every member: who
    # receives, where it sends.  An exclusive or stays within a power of two.
    for_all = positions == 0
    shared = for_all & (
        (xor[first] == 0) | ((xor[first] == count[first]) & (sizes & (sizes - 1) == 0))
    )
    members = np.where(for_all, np.where(shared, 1, sizes), positions)
    family = np.repeat(np.arange(len(rows)), members)
    own = np.arange(len(family)) - np.repeat(np.cumsum(members) - members, members)
    schedule = first[family].astype(np.int64)
    listed = ~for_all[family]
    schedule[listed] += families.schedule_of_position
    count = count[schedule]
    at = np.repeat(start[schedule] - np.cumsum(count) + count, count) + np.arange(count.sum())
    family, own = np.repeat(family, count), np.repeat(own, count)
    mine, n = steps[at], sizes[family]
    xor = mine["peers"] == Peers.XOR
    to = np.where(xor, own ^ mine["send_to"], (own + mine["send_to"]) % n)
    source = np.where(xor, own ^ mine["recv_from"], (own + mine["recv_from"]) % n)
    sends, receives = mine["send_bytes"] > 0, mine["recv_bytes"] > 0
    outside = (sends & (to >= n)) | (receives & (source >= n))
    if outside.any():
        row = int(np.argmax(outside))
        peer = to if to[row] >= n[row] else source
        raise InputError(f"member {own[row]} has the peer {peer[row]}; allowed: 0 to {n[row] - 1}")
    sent = np.stack([family, own, to, mine["send_bytes"]], axis=1)[sends]
    stands, receiver = shared[family], np.where(xor, source, (n - source) % n)
    source, own = np.where(stands, 0, source), np.where(stands, receiver, own)
    wanted = np.stack([family, source, own, mine["recv_bytes"]], axis=1)[receives]
    if sent.shape == wanted.shape and (sent == wanted).all():
        return
    sent, wanted = _ordered(sent), _ordered(wanted)
    if sent.shape == wanted.shape and (sent == wanted).all():
        return
    rows = np.concatenate([sent, wanted])
    sign = np.concatenate([np.ones(len(sent), np.int64), -np.ones(len(wanted), np.int64)])
    kinds, which = np.unique(rows, axis=0, return_inverse=True)
    left = np.bincount(which.reshape(-1), sign, len(kinds)).astype(np.int64)
    _, source, to, size = kinds[int(np.argmax(left != 0))].tolist()
    surplus = int(left[int(np.argmax(left != 0))])
    problem = "sent but not received" if surplus > 0 else "received but not sent"
    raise InputError(
        f"{abs(surplus)} message(s) of {size} bytes from member {source} to member {to} are "
        f"{problem}: a send and its receive must agree in size"
    )


def _ordered(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.lexsort(rows.T[::-1])]
