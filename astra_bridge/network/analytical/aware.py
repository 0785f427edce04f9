# SPDX-License-Identifier: MIT
"""Congestion-aware: messages queue for links, first come, first served."""

from __future__ import annotations

from collections import deque
from typing import Any

from astra_bridge.network.analytical.load import LinkLoad, sample_interval_ps
from astra_bridge.network.analytical.network import (
    ARRIVAL,
    LATENCY,
    SERIALISATION,
    AnalyticalNetwork,
    on_grid,
    serialisation_ns,
    whole_ns,
)
from astra_bridge.network.analytical.topologies import has_quirk
from astra_bridge.network.api import Capability, NetworkConfig, NetworkInfo
from astra_bridge.units import PS_PER_NS

__all__ = ["AwareNetwork"]


class _Link:
    """One directed link and what waits for it."""

    __slots__ = (
        "busy",
        "busy_ps",
        "bytes",
        "bytes_per_ns",
        "came",
        "dst",
        "index",
        "latency_ns",
        "scale",
        "src",
        "waiting",
    )

    def __init__(self, index: int, src: int, dst: int, rate: float, latency_ns: float) -> None:
        self.index, self.src, self.dst = index, src, dst
        self.bytes_per_ns, self.latency_ns, self.scale = rate, latency_ns, 1.0
        self.busy = False
        self.waiting: deque[_Message] = deque()
        self.bytes = self.busy_ps = 0
        # With folded ranks: when a message last came, and when the place of that was drawn.
        self.came = (-1, -1)


class _Message:
    """A transfer on its way: the links still ahead, the last one first."""

    __slots__ = (
        "ahead", "arrived_ps", "carry_ns", "drawn_ps", "id", "size", "start_ps", "tail_ns"
    )  # fmt: skip

    def __init__(self, transfer_id: int, size: int, ahead: list[_Link], now_ps: int) -> None:
        self.id, self.size, self.ahead = transfer_id, size, ahead
        # Cut-through only: when the head came to the present node, how far the exact time is
        # behind that, and how far the tail is.
        self.arrived_ps, self.carry_ns, self.tail_ns = now_ps, 0.0, 0.0
        # With folded ranks: when the place of the event that it waits for was drawn.
        self.start_ps, self.drawn_ps = now_ps, -1


class AwareNetwork(AnalyticalNetwork):
    """A transfer takes its links one after the other, and queues where they are busy.

    The model of ASTRA-sim's analytical network with congestion (Won et al., "ASTRA-sim2.0",
    ISPASS 2023, section IV-C): a message holds a link for floor(bytes / bandwidth) ns and is
    at the next node floor(latency + bytes / bandwidth) ns after it got the link, whole: store
    and forward.  With ``store-and-forward=false`` the next link may take it as soon as its head is
    there (cut-through), so that a lone message is serialised once.
    """

    info = NetworkInfo(
        "analytical-aware-python",
        "1.0",
        Capability.MULTI_INSTANCE
        | Capability.PARALLEL
        | Capability.INTERRUPT
        | Capability.SNAPSHOT
        | Capability.LINK_FAULTS
        | Capability.CONGESTION
        | Capability.ORDERED
        | Capability.SAVE
        | Capability.PEEK
        | Capability.PIECES,
        resolution_ps=1000,
    )

    CLASSES = (*AnalyticalNetwork.CLASSES, _Link, _Message, LinkLoad)
    DERIVED = AnalyticalNetwork.DERIVED | {"_ways"}

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self._cut_through = not has_quirk(config, "store-and-forward")
        self._over_several = 0  # transfers of more than one link
        self._links: dict[int, _Link] = {}  # made when first used
        self._folds = bool(config.options.get("fold"))
        self._ties = 0  # with folded ranks: orders that could be others elsewhere
        self._load = LinkLoad(sample_interval_ps(config.options))
        self._ways: dict[tuple[int, int, int], tuple[_Link, ...]] = {}

    def _link(self, index: int) -> _Link:
        index = self._routes.folded(index)
        link = self._links.get(index)
        if link is None:
            link = self._links[index] = _Link(index, *self._routes.link(index))
        return link

    def _start(self, transfer_id: int, size: int, src: int, dst: int, now_ps: int) -> None:
        label = transfer_id if self._routes.by_message else 0
        way = self._ways.get((src, dst, label))
        if way is None:
            if len(self._ways) >= 1 << 16:
                self._ways.clear()
            route = self._routes.route(src, dst, label)
            way = tuple(self._link(index) for index in reversed(route))
            self._ways[src, dst, label] = way
        self._over_several += len(way) > 1
        self._forward(_Message(transfer_id, size, list(way), now_ps), now_ps)

    def _forward(self, message: _Message, now_ps: int) -> None:
        link = message.ahead.pop()
        if self._folds:
            self._note_entry(link, message, now_ps)
        if link.busy or link.waiting or link.scale == 0:
            link.waiting.append(message)
        else:
            self._transmit(link, message, now_ps)

    def _note_entry(self, link: _Link, message: _Message, now_ps: int) -> None:
        """A message comes to a link.

        Where the places of two that come in one instant were drawn in one instant, by different
        ranks or links, they might come in another order elsewhere.  Only one endpoint starts
        transfers on a link, and does so in its own order.
        """
        starts = message.drawn_ps < 0
        drawn_ps = now_ps if starts else message.drawn_ps
        self._ties += link.came == (now_ps, drawn_ps) and not starts
        link.came = (now_ps, drawn_ps)

    def _transmit(self, link: _Link, message: _Message, now_ps: int) -> None:
        alone_ns = serialisation_ns(message.size, link.bytes_per_ns * link.scale)
        carry_ns, held_ns = 0.0, alone_ns
        if self._cut_through:
            # What is cut off to whole ns is carried along, so that a lone message takes
            # floor(latencies + bytes / bandwidth).  A slower link behind us feeds this one: it is
            # held until the tail has passed.
            waited_ns = float(now_ps - message.arrived_ps) / PS_PER_NS
            carry_ns = 0.0 if waited_ns > 0 else message.carry_ns
            held_ns = max(carry_ns + alone_ns, message.tail_ns - waited_ns)
        free_ns = whole_ns(held_ns, SERIALISATION)
        if self._folds:
            # Order among what takes no time is nobody's.
            self._ties += free_ns == 0
            message.drawn_ps = now_ps
            if not message.ahead and now_ps != message.start_ps:
                self._waited[message.id] = now_ps - message.start_ps
        # The arrival comes before the release: the order that ASTRA-sim schedules them in.
        if not message.ahead:
            arrival_ns = whole_ns(link.latency_ns + held_ns, ARRIVAL)
            self._schedule(now_ps, arrival_ns, "", message.id)
        elif self._cut_through:
            head_ns = whole_ns(link.latency_ns + carry_ns, LATENCY)
            message.arrived_ps = now_ps + head_ns * PS_PER_NS
            message.carry_ns = link.latency_ns + carry_ns - head_ns
            message.tail_ns = link.latency_ns + held_ns - head_ns
            self._schedule(now_ps, head_ns, "_forward", message)
        else:
            arrival_ns = whole_ns(link.latency_ns + held_ns, ARRIVAL)
            self._schedule(now_ps, arrival_ns, "_forward", message)
        self._schedule(now_ps, free_ns, "_release", link)
        link.busy = True
        link.bytes += message.size
        link.busy_ps += free_ns * PS_PER_NS
        if self._load.interval_ps:
            end_ps = now_ps + free_ns * PS_PER_NS
            self._load.add(link.index, now_ps, end_ps, message.size, free_ns * PS_PER_NS)

    def _release(self, link: _Link, now_ps: int) -> None:
        link.busy = False
        if link.waiting and link.scale:
            self._transmit(link, link.waiting.popleft(), now_ps)

    def _change(self, link_and_scale: tuple[int, float], now_ps: int) -> None:
        self._scale_link(*link_and_scale)
        # A message on the link keeps the bandwidth that it began with.
        link = self._link(link_and_scale[0])
        if link.waiting and not link.busy:
            self._release(link, on_grid(now_ps))

    def _scale_link(self, link: int, bandwidth_scale: float) -> None:
        self._link(link).scale = bandwidth_scale

    def _where_stuck(self) -> str:
        waits = [
            f"{index} ({link.src} -> {link.dst})"
            for index, link in sorted(self._links.items())
            if link.waiting
        ]
        named = ", ".join(waits[:4] + ["..."] * (len(waits) > 4))
        return f"(waiting for link {named}, which is down)" if waits else ""

    def stats(self) -> dict[str, Any]:
        used = [link for _, link in sorted(self._links.items()) if link.bytes]
        table = {
            "link": [link.index for link in used],
            "src": [link.src for link in used],
            "dst": [link.dst for link in used],
            "bytes": [link.bytes for link in used],
            "busy_ps": [link.busy_ps for link in used],
        }
        quirks = {"store-and-forward": self._over_several}
        changed: dict[str, Any] = (
            {"quirks": quirks} if self._over_several and not self._cut_through else {}
        )
        if self._folds:
            changed["fold_ties"] = self._ties
        load = self._load.statistics([link.index for link in used])
        tables = {"links": table} | load.pop("tables", {})
        return super().stats() | changed | load | {"tables": tables}
