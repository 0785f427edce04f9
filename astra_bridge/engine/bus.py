# SPDX-License-Identifier: MIT
"""The shared bus between NPU and memory, after LogGP.

Alexandrov et al., "LogGP: incorporating long messages into the LogP model", SPAA 1995: latency L,
overhead o, gap g and gap per byte G.  As ASTRA-sim has it: two sides that take turns (at most
eight transfers in a row while the other waits); data from the NPU crosses a second, inner bus of
the same kind with a fixed G before and after; reductions run one at a time on the side that
received the data.  All times here are ns.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from astra_bridge.errors import SimulationError

__all__ = ["Half", "Request", "SharedBus"]

_IN_A_ROW = 8
_INNER_G_NS_PER_BYTE = 0.0038
_REDUCTION_SETUP_NS = 50
_MOST_NS = 9.2e15
"""2^63 ps: no delay is longer."""

_NPU, _MEMORY, _INNER_NPU, _INNER_MEMORY = range(4)
"""The sides.  The inner bus lies before and after the NPU's side of the outer one."""
_SENT, _RECEIVED, _REDUCED = range(3)
"""The events of a side."""
_FREE, _SENDING, _RECEIVING = range(3)
"""What a side does."""
_CROSSED, _QUEUE_SEND, _QUEUE_REDUCTION, _RETIRED = range(4)
"""What goes on when a request is complete: on the outer side, its packet has crossed; on the inner
side, the outer side's request goes on."""


def _whole(delay_ns: float) -> int:
    if not delay_ns < _MOST_NS:
        raise SimulationError(
            f"the shared bus takes {delay_ns:g} ns for a transfer, beyond the range of time "
            "(2^63 ps)"
        )
    return int(delay_ns)


class _Host(Protocol):
    """What buses need of the engine."""

    now_ps: int

    def bus_later(self, rank: int, delay_ns: int, what: int) -> None: ...

    def bus_crossed(self, packet: int, stream: int) -> None: ...


class Request:
    """Data that crosses a bus; ``a`` and ``b`` belong to what goes on then."""

    __slots__ = ("a", "b", "bytes", "reduced", "send_back", "then")

    def __init__(
        self, size: int, reduced: bool, send_back: bool, then: int, a: int, b: int
    ) -> None:
        self.bytes, self.reduced, self.send_back = size, reduced, send_back
        self.then, self.a, self.b = then, a, b


class Half:
    """One side of a bus."""

    __slots__ = (
        "in_a_row", "last_transfer_ns", "previous", "receives", "reducing", "reductions", "sends",
        "state",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state = self.previous = _FREE
        self.last_transfer_ns = self.in_a_row = 0
        self.reducing = False
        self.sends: deque[int] = deque()
        self.receives: deque[int] = deque()
        self.reductions: deque[int] = deque()


class SharedBus:
    """The bus of one rank, with an NPU side and a memory side.

    Parameters
    ----------
    host
        The engine.
    rank : int
    loggp : tuple (L_ns, o_ns, g_ns, G_ns_per_byte, local_reduction_delay_ns)
    """

    STATE = ("_halves", "_made", "_requests")
    """What changes, as plain data."""

    def __init__(self, host: _Host, rank: int, loggp: tuple[int, int, int, float, int]) -> None:
        self._host, self._rank = host, rank
        self._L, self._o, self._g, G, self._reduction_ns = loggp
        self._G = (G, G, _INNER_G_NS_PER_BYTE, _INNER_G_NS_PER_BYTE)
        self._halves = [Half() for _ in range(4)]
        self._requests: dict[int, Request] = {}
        self._made = 0

    def move(
        self, to_memory: bool, size: int, reduced: bool, send_back: bool, packet: int, stream: int
    ) -> None:
        """Move data of one packet of a stream from NPU to memory, or back."""
        side = _NPU if to_memory else _MEMORY
        self._request(side, Request(size, reduced, send_back, _CROSSED, packet, stream))

    def happen(self, what: int) -> None:
        """An event that ``bus_later`` was asked for."""
        side, event = divmod(what, 3)
        (self._sent, self._received, self._reduced)[event](side)

    def _later(self, delay_ns: int, side: int, event: int) -> None:
        self._host.bus_later(self._rank, delay_ns, 3 * side + event)

    def _now_ns(self) -> int:
        return self._host.now_ps // 1000

    def _request(self, side: int, request: Request) -> None:
        self._made += 1
        item = self._made
        self._requests[item] = request
        if side == _NPU:
            self._inner(_INNER_MEMORY, item, False, _QUEUE_SEND)
            return
        half = self._halves[side]
        half.sends.append(item)
        if half.state == _FREE:
            self._try_send(side)

    def _inner(self, side: int, item: int, send_back: bool, then: int) -> None:
        size = self._requests[item].bytes
        self._request(side, Request(size, False, send_back, then, item, 0))

    def _queue_send(self, side: int, item: int) -> None:
        self._halves[side].sends.append(item)
        self._go_on(side)

    def _go_on(self, side: int) -> None:
        half = self._halves[side]
        if half.state == _FREE and half.sends:
            self._try_send(side)

    def _try_send(self, side: int) -> None:
        half, partner = self._halves[side], self._halves[side ^ 1]
        if half.in_a_row > _IN_A_ROW and partner.sends and partner.in_a_row <= _IN_A_ROW:
            if partner.state == _FREE:
                self._go_on(side ^ 1)
            return
        since_ns = self._now_ns() - half.last_transfer_ns
        offset = self._o
        if half.previous == _SENDING and self._o + since_ns <= self._g:
            offset = self._g - since_ns
        item = half.sends[0]
        size = self._requests[item].bytes
        self._receive(side ^ 1, item, offset)
        half.sends.popleft()
        half.state = _SENDING
        self._later(_whole(offset + self._G[side] * (size - 1)), side, _SENT)

    def _receive(self, side: int, item: int, offset: int) -> None:
        half = self._halves[side]
        half.receives.append(item)
        half.previous = half.state
        half.state = _RECEIVING
        delay = offset + (self._requests[item].bytes - 1) * self._G[side] + self._L + self._o
        self._later(_whole(delay), side, _RECEIVED)
        half.in_a_row = 0

    def _sent(self, side: int) -> None:
        half = self._halves[side]
        half.last_transfer_ns = self._now_ns()
        half.previous = half.state
        half.state = _FREE
        half.in_a_row += 1
        self._go_on(side)

    def _received(self, side: int) -> None:
        half = self._halves[side]
        half.last_transfer_ns = self._now_ns()
        half.previous = half.state
        if len(half.receives) < 2:
            half.state = _FREE
        item = half.receives[0]
        request = self._requests[item]
        if request.reduced:
            request.reduced = False
            half.receives.popleft()
            if side == _NPU:
                self._inner(_INNER_NPU, item, True, _QUEUE_REDUCTION)
            else:
                half.reductions.append(item)
            self._reduce(side)
        elif request.send_back:
            request.send_back = False
            half.receives.popleft()
            self._send_back(side, item)
        else:
            self._retire(side, item, half.receives)
        self._go_on(side)

    def _queue_reduction(self, side: int, item: int) -> None:
        self._halves[side].reductions.append(item)
        self._reduce(side)
        self._go_on(side)

    def _reduce(self, side: int) -> None:
        half = self._halves[side]
        if not half.reducing and half.reductions:
            half.reducing = True
            size = self._requests[half.reductions[0]].bytes
            delay = _whole(size // 100 * self._reduction_ns)
            self._later(delay + _REDUCTION_SETUP_NS, side, _REDUCED)

    def _reduced(self, side: int) -> None:
        half = self._halves[side]
        half.reducing = False
        item = half.reductions[0]
        request = self._requests[item]
        if request.send_back:
            request.send_back = False
            half.reductions.popleft()
            self._send_back(side, item)
        else:
            self._retire(side, item, half.reductions)
        self._reduce(side)
        self._go_on(side)

    def _send_back(self, side: int, item: int) -> None:
        if side == _NPU:
            self._inner(_INNER_NPU, item, True, _QUEUE_SEND)
        else:
            self._halves[side].sends.append(item)

    def _retire(self, side: int, item: int, queue: deque[int]) -> None:
        if side == _NPU:
            queue.popleft()
            self._inner(_INNER_NPU, item, False, _RETIRED)
        else:
            # The request leaves its queue only after whoever waits for it has reacted.
            self._complete(item)
            queue.popleft()

    def _complete(self, item: int) -> None:
        request = self._requests.pop(item)
        if request.then == _CROSSED:
            self._host.bus_crossed(request.a, request.b)
        elif request.then == _QUEUE_SEND:
            self._queue_send(_NPU, request.a)
        elif request.then == _QUEUE_REDUCTION:
            self._queue_reduction(_NPU, request.a)
        else:
            self._complete(request.a)
            self._go_on(_NPU)
