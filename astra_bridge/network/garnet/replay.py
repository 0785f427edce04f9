# SPDX-License-Identifier: MIT
"""Replay of a message list: which cycle delivers each message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.common import check_keys, load_json, show
from astra_bridge.inputs.garnet import GarnetNetwork, read_garnet
from astra_bridge.network.api import TIME_NEVER, TRANSFER, NetworkConfig
from astra_bridge.network.garnet import BACKENDS

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

    def to_json(self) -> dict[str, Any]:
        """Lists of plain numbers: ``messages``, ``deliver`` and the statistics."""
        names = list(self.rows)
        columns = [column.tolist() for column in self.rows.values()]
        return {
            "messages": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)],
            "deliver": self.rows["deliver"].tolist(),
            "stats": {
                key: value
                for key, value in self.stats.items()
                if key != "tables" and not isinstance(value, (list, dict))
            },
            "warnings": self.stats.get("warnings", []),
            "links": self.stats["tables"]["links"],
        }


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
    rows: object, columns: list[str], network: GarnetNetwork, path: str | Path
) -> NDArray[Any]:
    if not isinstance(rows, list):
        raise InputError(f"expected a list, found {show(rows)}", file=path, key="messages")
    nodes = len(network.nodes)
    limits = {
        "id": (-(2**62), 2**62),
        "cycle": (0, _MAX_CYCLE),
        "src": (0, nodes - 1),
        "dst": (0, nodes - 1),
        "size": (1, min(2**40, network.flit_bytes * 2**30)),
        "vnet": (0, len(network.vnets) - 1),
        "delay": (0, _MAX_CYCLE),
    }
    sizes = {"ctrl": network.control_msg_bytes, "data": network.data_msg_bytes}
    made = np.zeros(len(rows), MESSAGE)
    index_of: dict[int, int] = {}
    after: list[tuple[int, object]] = []
    for index, row in enumerate(rows):
        where = f"messages[{index}]"
        if not isinstance(row, list) or not 6 <= len(row) <= len(columns):
            raise InputError(
                f"expected {', '.join(columns)} (the last two may be missing), found {show(row)}",
                file=path,
                key=where,
            )
        values = dict(zip(columns, row, strict=False))
        if isinstance(values.get("size"), str) and values["size"] in sizes:
            values["size"] = sizes[values["size"]]
        waits_for = values.pop("after", None)
        if values.get("delay") is None:
            values["delay"] = 0
        for name, (low, high) in limits.items():
            value = values.get(name)
            if type(value) is not int or not low <= value <= high:
                extra = ", ctrl, data" if name == "size" else ""
                raise InputError(
                    f"{show(value)} is not allowed; allowed: {low} to {high}{extra}",
                    file=path,
                    key=f"{where}.{name}",
                )
        if values["id"] in index_of:
            raise InputError(
                f"id {values['id']} is the id of messages[{index_of[values['id']]}] too",
                file=path,
                key=f"{where}.id",
            )
        index_of[values["id"]] = index
        if waits_for is not None and waits_for != -1:
            after.append((index, waits_for))
        made[index] = (
            values["id"],
            values["cycle"],
            values["src"],
            values["dst"],
            values["size"],
            values["vnet"],
            -1,
            values["delay"],
        )
    for index, waits_for in after:
        if type(waits_for) is not int or waits_for not in index_of:
            raise InputError(
                f"{show(waits_for)} is not the id of a message",
                file=path,
                key=f"messages[{index}].after",
            )
        made["after"][index] = index_of[waits_for]
    _refuse_circles(made, path)
    return made


def _refuse_circles(messages: NDArray[Any], path: str | Path) -> None:
    """Each message waits for at most one other: follow them."""
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


def replay(case: MessageList) -> Replay:
    """Run a message list.

    Raises
    ------
    SimulationError
        Deadlock, or no route; the message names the VCs that wait for each other.
    """
    network, messages = case.network, case.messages
    hz, nodes = network.clock_hz, len(network.nodes)
    # Endpoints n .. 2n-1 are the nodes once more, because a transfer to itself is not allowed.
    config = NetworkConfig(
        2 * nodes, 2 * nodes, options={**network.options(), "record_packets": "true"}
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
        rows["start_ps"] = [ps_of(cycle, hz) for cycle in inject[indices].tolist()]
        rows["bytes"] = messages["bytes"][indices]
        rows["src"] = messages["src"][indices]
        rows["dst"] = messages["dst"][indices] + nodes
        rows["traffic_class"] = messages["vnet"][indices]
        return rows

    with BACKENDS[0].open(config) as net:
        net.submit(transfers(np.flatnonzero(messages["after"] < 0)))
        left = count
        while left:
            net.advance(TIME_NEVER, lookahead_ps)
            done = net.poll()
            released: list[int] = []
            for index, time_ps in zip(done["id"].tolist(), done["time_ps"].tolist(), strict=True):
                deliver[index] = cycle_of(time_ps, hz)
                for follower in followers.get(index, ()):
                    start = deliver[index] + messages["delay"][follower]
                    inject[follower] = max(int(messages["cycle"][follower]), int(start))
                    released.append(follower)
            left -= len(done)
            if released:
                net.submit(transfers(np.array(released, np.int64)))
        stats = net.stats()
    packets = {
        name: np.array(column, np.int64) for name, column in stats["tables"]["packets"].items()
    }
    order = np.argsort(packets["transfer"], kind="stable")
    own = {name: column[order] for name, column in packets.items()}
    rows = {
        "id": messages["id"].astype(np.int64),
        "inject": inject,
        **{name: own[name] for name in ("pick", "head_send", "tail_send", "head_recv")},
        "deliver": deliver,
        "network_latency": deliver - own["pick"] - 1,
        "queueing_latency": own["pick"] - inject,
        **{name: own[name] for name in ("flits", "hops", "src_vc", "dst_vc")},
    }
    return Replay(rows, stats)
