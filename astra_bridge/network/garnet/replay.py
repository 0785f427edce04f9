# SPDX-License-Identifier: MIT
"""Replay of a message list: which cycle delivers each message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import check_keys, load_json, show
from astra_bridge.network.api import TIME_NEVER, TRANSFER, Network, NetworkConfig
from astra_bridge.network.garnet.backend import open_garnet
from astra_bridge.network.garnet.model import GarnetNetwork
from astra_bridge.network.garnet.options import options_of
from astra_bridge.network.garnet.reader import read_garnet

__all__ = ["COLUMNS", "MessageList", "Replay", "cycle_of", "ps_of", "read_messages", "replay"]

MESSAGE = np.dtype(
    [
        ("id", "<i8"),
        ("cycle", "<i8"),
        ("src", "<i4"),
        ("dst", "<i4"),
        ("bytes", "<i8"),
        ("vnet", "<i4"),
        ("after", "<i8"),
        ("delay", "<i8"),
    ]
)
"""One message; ``after`` is an index into the list, or -1."""

COLUMNS = ("id", "cycle", "src", "dst", "size", "vnet", "after", "delay")
_KEYS = ("network", "messages")
_MAX_CYCLE = 10**15
_SLICE_CYCLES = 2048  # how long to run before the deliveries are taken


@dataclass(frozen=True)
class MessageList:
    """A network and the messages for it: MESSAGE, shape (n,)."""

    network: GarnetNetwork
    messages: NDArray[Any]
    results: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Replay:
    """What became of a message list.

    Attributes
    ----------
    rows : dict of str to ndarray of int64, shape (n,)
        Per message, in the order of the list: id, inject, pick, head_send, tail_send, head_recv,
        deliver (cycles), network_latency, queueing_latency, flits, hops, src_vc, dst_vc.
    stats : dict
        The backend's statistics.
    """

    rows: dict[str, NDArray[np.int64]]
    stats: dict[str, Any]

    def to_json(self) -> bytes:
        """A JSON object with ``messages``, ``deliver`` and statistics (docs/garnet.md)."""
        # A type with fixed fields is built and written several times faster than dicts.
        row_type = msgspec.defstruct("Row", [(name, int) for name in self.rows], gc=False)
        columns = [column.tolist() for column in self.rows.values()]
        content = {
            "messages": list(map(row_type, *columns)),
            "deliver": self.rows["deliver"].tolist(),
            "stats": {
                key: value
                for key, value in self.stats.items()
                if key != "tables" and not isinstance(value, (list, dict))
            },
            "warnings": self.stats.get("warnings", []),
            "links": self.stats["tables"]["links"],
        }
        return msgspec.json.encode(content)


def ps_of(cycle: int, clock_hz: int) -> int:
    """The instant of a cycle: its start, rounded up to picoseconds."""
    return -(-cycle * 10**12 // clock_hz)


def cycle_of(time_ps: int, clock_hz: int) -> int:
    """The cycle of an instant that :func:`ps_of` gave."""
    return time_ps * clock_hz // 10**12


def read_messages(path: str | Path) -> MessageList:
    """Read a message list: a JSON object with ``network`` and ``messages``.

    Other keys (a name, reference results) may stand beside them.

    Raises
    ------
    InputError
        The file is not such a list; the message says where and what is allowed.
    """
    raw = load_json(path)
    if not isinstance(raw, Mapping):
        raise InputError(
            f"expected an object with {', '.join(_KEYS)}, found {show(raw)}", file=path
        )
    for key in _KEYS:
        if key not in raw:
            raise InputError("missing", file=path, key=key)
    try:
        network = read_garnet(_mapping(raw["network"], path), where="network")
    except InputError as error:
        raise InputError(error.reason, file=path, key=error.key) from None
    columns = raw.get("message_columns", list(COLUMNS))
    if not isinstance(columns, list) or not set(COLUMNS[:6]) <= set(map(str, columns)):
        raise InputError(
            f"expected a list with {', '.join(COLUMNS[:6])}, found {show(columns)}",
            file=path,
            key="message_columns",
        )
    check_keys(dict.fromkeys(map(str, columns)), COLUMNS, file=path, where="message_columns")
    if len(set(columns)) != len(columns):
        raise InputError("a column stands there twice", file=path, key="message_columns")
    messages = _messages(raw["messages"], columns, network, path)
    results = raw.get("results_order_independent", raw.get("results"))
    return MessageList(network, messages, results if isinstance(results, Mapping) else None)


def _mapping(value: object, path: str | Path) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"expected keys and values, found {show(value)}", file=path, key="network")
    return value


def _messages(
    rows: object, names: list[str], network: GarnetNetwork, path: str | Path
) -> NDArray[Any]:
    if not isinstance(rows, list):
        raise InputError(f"expected a list, found {show(rows)}", file=path, key="messages")
    for index, row in enumerate(rows):
        if type(row) is not list or not 6 <= len(row) <= len(names):
            raise InputError(
                f"expected {', '.join(names)} (the last two may be missing), found {show(row)}",
                file=path,
                key=f"messages[{index}]",
            )
    if len({*map(len, rows)}) > 1:
        rows = [row + [None] * (len(names) - len(row)) for row in rows]
    # Column by column: a list may have a million messages.
    columns: dict[str, list[Any]] = dict(
        zip(names, map(list, zip(*rows, strict=True)), strict=False)
    )
    made = np.zeros(len(rows), MESSAGE)
    made["after"] = -1
    if not rows:
        return made
    sizes: dict[object, int] = {"ctrl": network.control_msg_bytes, "data": network.data_msg_bytes}
    columns["size"] = [
        sizes[one] if type(one) is str and one in sizes else one for one in columns["size"]
    ]
    columns["delay"] = [one or 0 for one in columns.get("delay", [0])]
    nodes = len(network.nodes)
    for name, high in {
        "id": 2**62,
        "cycle": _MAX_CYCLE,
        "src": nodes - 1,
        "dst": nodes - 1,
        "size": min(2**40, network.flit_bytes * 2**30),
        "vnet": len(network.vnets) - 1,
        "delay": _MAX_CYCLE,
    }.items():
        low = {"id": -high, "size": 1}.get(name, 0)
        made["bytes" if name == "size" else name] = _column(columns[name], name, low, high, path)
    order = np.argsort(made["id"], kind="stable")
    ids = made["id"][order]
    again = np.flatnonzero(ids[1:] == ids[:-1])
    if again.size:
        first, second = (int(order[again[0] + i]) for i in (0, 1))
        raise InputError(
            f"id {ids[again[0]]} is the id of messages[{first}] too",
            file=path,
            key=f"messages[{second}].id",
        )
    waits = {i: one for i, one in enumerate(columns.get("after", ())) if one not in (None, -1)}
    for index, waits_for in waits.items():
        at = np.searchsorted(ids, waits_for) if _within(waits_for, 2**62) else len(ids)
        if at == len(ids) or ids[at] != waits_for:
            raise InputError(
                f"{show(waits_for)} is not the id of a message",
                file=path,
                key=f"messages[{index}].after",
            )
        made["after"][index] = order[at]
    _refuse_circles(made, path)
    return made


def _within(value: object, high: int) -> bool:
    return type(value) is int and -high <= value <= high


def _column(
    values: list[Any], name: str, low: int, high: int, path: str | Path
) -> NDArray[np.int64]:
    """Whole numbers from low to high, or an error that names the first that is not one."""
    if {*map(type, values)} == {int}:
        try:
            array = np.array(values, np.int64)
        except OverflowError:
            pass
        else:
            if array.min() >= low and array.max() <= high:
                return array
    index = next(
        i for i, one in enumerate(values) if type(one) is not int or not low <= one <= high
    )
    extra = ", ctrl, data" if name == "size" else ""
    raise InputError(
        f"{show(values[index])} is not allowed; allowed: {low} to {high}{extra}",
        file=path,
        key=f"messages[{index}].{name}",
    )


def _refuse_circles(messages: NDArray[Any], path: str | Path) -> None:
    """Each message waits for at most one other: follow them."""
    if not (messages["after"] >= 0).any():
        return
    after = messages["after"].tolist()
    ends = [waits_for < 0 for waits_for in after]
    for first in range(len(after)):
        walk: list[int] = []
        seen: set[int] = set()
        index = first
        while not ends[index]:
            if index in seen:
                raise InputError(
                    f"messages {', '.join(str(messages['id'][i]) for i in walk[:8])} wait for each "
                    "other",
                    file=path,
                    key=f"messages[{index}].after",
                )
            seen.add(index)
            walk.append(index)
            index = after[index]
        for index in walk:
            ends[index] = True


def replay(
    case: MessageList, open_network: Callable[[NetworkConfig], Network] = open_garnet
) -> Replay:
    """Run a message list.

    Parameters
    ----------
    case : MessageList
    open_network : callable, optional
        What simulates it: that of a backend which takes Garnet's options.

    Raises
    ------
    SimulationError
        Deadlock, or no route; the message names the VCs that wait for each other.
    """
    network, messages = case.network, case.messages
    hz, nodes = network.clock_hz, len(network.nodes)
    # Endpoints n .. 2n-1 are the nodes once more, because a transfer to itself is not allowed.
    config = NetworkConfig(
        2 * nodes,
        2 * nodes,
        options={**options_of(network), "record_packets": "true", "record_transfers": "false"},
    )
    count = len(messages)
    inject = messages["cycle"].copy()
    deliver = np.full(count, -1, np.int64)
    followers: dict[int, list[int]] = {}
    for index in np.flatnonzero(messages["after"] >= 0).tolist():
        followers.setdefault(int(messages["after"][index]), []).append(index)
    # Nothing is sent sooner after a delivery than the shortest delay.
    waiting = messages["delay"][messages["after"] >= 0]
    ahead = min(int(waiting.min()), _SLICE_CYCLES) if waiting.size else _SLICE_CYCLES
    lookahead_ps = ahead * 10**12 // hz

    def transfers(indices: NDArray[np.int64]) -> NDArray[Any]:
        rows = np.zeros(len(indices), TRANSFER)
        rows["id"] = indices
        if 10**12 % hz == 0:
            rows["start_ps"] = inject[indices] * (10**12 // hz)
        else:
            rows["start_ps"] = [ps_of(cycle, hz) for cycle in inject[indices].tolist()]
        rows["bytes"] = messages["bytes"][indices]
        rows["src"] = messages["src"][indices]
        rows["dst"] = messages["dst"][indices] + nodes
        rows["traffic_class"] = messages["vnet"][indices]
        return rows

    with open_network(config) as net:
        net.submit(transfers(np.flatnonzero(messages["after"] < 0)))
        left = count
        while left:
            net.advance(TIME_NEVER, lookahead_ps)
            done = net.poll()
            released: list[int] = []
            for index, time_ps in zip(done["id"].tolist(), done["time_ps"].tolist(), strict=True):
                deliver[index] = cycle_of(time_ps, hz)
                if not followers:
                    continue
                for follower in followers.get(index, ()):
                    start = deliver[index] + messages["delay"][follower]
                    inject[follower] = max(int(messages["cycle"][follower]), int(start))
                    released.append(follower)
            left -= len(done)
            if released:
                net.submit(transfers(np.array(released, np.int64)))
        stats = net.stats()
    # Usually a message is one packet; with packet_bytes it may be several.
    packets = {
        name: np.array(column, np.int64) for name, column in stats["tables"]["packets"].items()
    }
    order = np.lexsort((packets["pick"], packets["transfer"]))
    first = np.searchsorted(packets["transfer"][order], np.arange(count))

    def merged(name: str, merge: np.ufunc) -> NDArray[np.int64]:
        column = packets[name][order]
        return column if len(column) == count else merge.reduceat(column, first)

    pick = merged("pick", np.minimum)
    rows = {
        "id": messages["id"].astype(np.int64),
        "inject": inject,
        "pick": pick,
        "head_send": merged("head_send", np.minimum),
        "tail_send": merged("tail_send", np.maximum),
        "head_recv": merged("head_recv", np.minimum),
        "deliver": deliver,
        "network_latency": deliver - pick - 1,
        "queueing_latency": pick - inject,
        "flits": merged("flits", np.add),
        "hops": merged("hops", np.maximum),
        "src_vc": packets["src_vc"][order][first],
        "dst_vc": packets["dst_vc"][order][first],
    }
    return Replay(rows, stats)
