# SPDX-License-Identifier: MIT
"""What an algorithm has built, as tables, and whether its members agree.

Algorithms may be anybody's: nothing here takes their word for anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.collectives.schedule import Built, Request, Schedule
from astra_bridge.errors import InputError
from astra_bridge.program import PACKET, SCHEDULE, STEP
from astra_bridge.text import show
from astra_bridge.units import checked_int64

__all__ = ["check_peers", "tables"]

_STEP_COLUMNS = ("need", "send_to", "send_bytes", "recv_from", "recv_bytes")
_COUNTS = ("window", "burst", "gate_step", "gate_received", "end")
_MOST_BYTES = 2**62


def tables(request: Request, built: Any) -> tuple[Any, Any, Any]:
    """The schedules of one family as arrays of SCHEDULE, STEP and PACKET, counted from 0.

    Raises
    ------
    InputError
        It is not what :class:`~astra_bridge.collectives.schedule.Built` says, or a number fits
        nowhere.
    """
    if not isinstance(built, Built):
        raise InputError(f"is {show(built)}; allowed: a Built", key="what it builds")
    checked_int64(built.final_bytes, "final_bytes", high=_MOST_BYTES)
    schedules = tuple(built.schedules)
    if len(schedules) not in (1, request.size):
        raise InputError(
            f"has {len(schedules)}; allowed: 1 for all, or {request.size}", key="schedules"
        )
    for index, one in enumerate(schedules):
        if not isinstance(one, Schedule):
            raise InputError(f"is {show(one)}; allowed: a Schedule", key=f"schedules[{index}]")
    steps = _table((step for one in schedules for step in one.steps), STEP, _STEP_COLUMNS, "steps")
    packets = _table(
        (packet for one in schedules for packet in one.packets),
        PACKET,
        ("bytes", "flags"),
        "packets",
    )
    rows = _table(
        ([getattr(one, name) for name in _COUNTS] for one in schedules),
        SCHEDULE,
        _COUNTS,
        "schedules",
    )
    rows["step_count"] = [len(one.steps) for one in schedules]
    held = np.array([len(one.packets) for one in schedules], np.int64)
    rows["step_start"] = np.cumsum(rows["step_count"]) - rows["step_count"]
    rows["packet_start"] = np.cumsum(held) - held
    # The table knows no ends of packets: each schedule must have its own.
    short = rows["end"] > held
    if short.any():
        index = int(np.argmax(short))
        raise InputError(
            f"is {rows['end'][index]}, but there are {held[index]} packets", key=_end(index)
        )
    return rows, steps, packets


def _end(index: int) -> str:
    return f"schedules[{index}].end"


def _table(rows: Iterable[Any], dtype: Any, columns: tuple[str, ...], what: str) -> Any:
    listed = list(rows)
    try:
        values = np.array(listed) if listed else np.zeros((0, len(columns)), np.int64)
    except (ValueError, TypeError, OverflowError):
        values = np.zeros(0, object)
    if values.shape != (len(listed), len(columns)) or values.dtype.kind not in "iu":
        raise InputError(f"are not rows of the whole numbers {', '.join(columns)}", key=what)
    result = np.zeros(len(listed), dtype)
    for column, name in enumerate(columns):
        limits = np.iinfo(dtype[name])
        outside = (values[:, column] < limits.min) | (values[:, column] > limits.max)
        if outside.any():
            row = int(np.argmax(outside))
            raise InputError(
                f"is {values[row, column]}; allowed: {limits.min} to {limits.max}",
                key=f"{what}[{row}].{name}",
            )
        result[name] = values[:, column]
    return result


def check_peers(request: Request, schedules: Any, steps: Any) -> None:
    """Every message that one member sends, another one receives: same two members, same size.

    Raises
    ------
    InputError
        Names both members and the size.
    """
    n = request.size
    count = schedules["step_count"]
    # With one schedule for all, member 0 stands for every member.
    own = np.repeat(np.arange(len(schedules)), count)
    shared = len(schedules) == 1
    to = (own + steps["send_to"]) % n
    source = (own + steps["recv_from"]) % n
    sent = np.stack([own, to, steps["send_bytes"]], axis=1)[steps["send_bytes"] > 0]
    wanted = np.stack([source, own, steps["recv_bytes"]], axis=1)[steps["recv_bytes"] > 0]
    if shared:
        wanted[:, 1] = (n - wanted[:, 0]) % n  # who receives, where member 0 sends
        wanted[:, 0] = 0
    sent, wanted = _ordered(sent), _ordered(wanted)
    if len(sent) == len(wanted) and (sent == wanted).all():
        return
    rows = np.concatenate([sent, wanted])
    sign = np.concatenate([np.ones(len(sent), np.int64), -np.ones(len(wanted), np.int64)])
    kinds, which = np.unique(rows, axis=0, return_inverse=True)
    left = np.bincount(which.reshape(-1), sign, len(kinds)).astype(np.int64)
    source, to, size = kinds[int(np.argmax(left != 0))].tolist()
    surplus = int(left[int(np.argmax(left != 0))])
    problem = "sent but not received" if surplus > 0 else "received but not sent"
    raise InputError(
        f"{abs(surplus)} message(s) of {size} bytes from member {source} to member {to} are "
        f"{problem}: a send and its receive must agree in size"
    )


def _ordered(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.lexsort(rows.T[::-1])]
