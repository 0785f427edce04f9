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
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from astra_bridge.errors import SimulationError

_IN_A_ROW = 8
_INNER_G_NS_PER_BYTE = 0.0038
_REDUCTION_SETUP_NS = 50
_MOST_NS = 9.2e15
"""2^63 ps: no delay is longer."""


def _whole(delay_ns: float) -> int:
    if not delay_ns < _MOST_NS:
        raise SimulationError(
            f"the shared bus takes {delay_ns:g} ns for a transfer, beyond the range of time "
            "(2^63 ps)"
        )
    return int(delay_ns)


Register = Callable[[int, Callable[[], None]], None]
"""register(delay_ns, action): run the action later."""


class _State(Enum):
    FREE = auto()
    SENDING = auto()
    RECEIVING = auto()


@dataclass
class _Request:
    bytes: int
    reduced: bool
    send_back: bool
    done: Callable[[], None]


class _Side:
    """One side of a bus."""

    partner: _Side

    def __init__(
        self,
        clock: Callable[[], int],
        register: Register,
        loggp: tuple[int, int, int, float, int],
        inner: SharedBus | None,
    ) -> None:
        self.clock, self.register, self.inner = clock, register, inner
        self.L, self.o, self.g, self.G, self.reduction_ns = loggp
        self.state = self.previous = _State.FREE
        self.last_transfer = 0
        self.in_a_row = 0
        self.reducing = False
        self.sends: deque[_Request] = deque()
        self.receives: deque[_Request] = deque()
        self.reductions: deque[_Request] = deque()

    def request(self, size: int, reduced: bool, send_back: bool, done: Callable[[], None]) -> None:
        """Move data to the partner's side, then call ``done``."""
        item = _Request(size, reduced, send_back, done)
        if self.inner is not None:
            self.inner.to_npu(size, False, False, lambda: self._queue_send(item))
            return
        self.sends.append(item)
        if self.state is _State.FREE:
            self._try_send()

    def _queue_send(self, item: _Request) -> None:
        self.sends.append(item)
        self._go_on()

    def _go_on(self) -> None:
        if self.state is _State.FREE and self.sends:
            self._try_send()

    def _try_send(self) -> None:
        partner = self.partner
        if self.in_a_row > _IN_A_ROW and partner.sends and partner.in_a_row <= _IN_A_ROW:
            if partner.state is _State.FREE:
                partner._go_on()
            return
        now = self.clock()
        offset = self.o
        if self.previous is _State.SENDING and self.o + (now - self.last_transfer) <= self.g:
            offset = self.g - (now - self.last_transfer)
        item = self.sends[0]
        partner._receive(item, offset)
        self.sends.popleft()
        self.state = _State.SENDING
        self.register(_whole(offset + self.G * (item.bytes - 1)), self._sent)

    def _receive(self, item: _Request, offset: int) -> None:
        self.receives.append(item)
        self.previous = self.state
        self.state = _State.RECEIVING
        delay = offset + (item.bytes - 1) * self.G + self.L + self.o
        self.register(_whole(delay), self._received)
        self.in_a_row = 0

    def _sent(self) -> None:
        self.last_transfer = self.clock()
        self.previous = self.state
        self.state = _State.FREE
        self.in_a_row += 1
        self._go_on()

    def _received(self) -> None:
        self.last_transfer = self.clock()
        self.previous = self.state
        if len(self.receives) < 2:
            self.state = _State.FREE
        item = self.receives[0]
        if item.reduced:
            item.reduced = False
            self.receives.popleft()
            if self.inner is not None:
                self.inner.to_memory(item.bytes, False, True, lambda: self._queue_reduction(item))
            else:
                self.reductions.append(item)
            self._reduce()
        elif item.send_back:
            item.send_back = False
            self.receives.popleft()
            self._send_back(item)
        else:
            self._retire(item, self.receives)
        self._go_on()

    def _queue_reduction(self, item: _Request) -> None:
        self.reductions.append(item)
        self._reduce()
        self._go_on()

    def _reduce(self) -> None:
        if not self.reducing and self.reductions:
            self.reducing = True
            size = self.reductions[0].bytes
            delay = _whole(size // 100 * self.reduction_ns)
            self.register(delay + _REDUCTION_SETUP_NS, self._reduced)

    def _reduced(self) -> None:
        self.reducing = False
        item = self.reductions[0]
        if item.send_back:
            item.send_back = False
            self.reductions.popleft()
            self._send_back(item)
        else:
            self._retire(item, self.reductions)
        self._reduce()
        self._go_on()

    def _send_back(self, item: _Request) -> None:
        if self.inner is not None:
            self.inner.to_memory(item.bytes, False, True, lambda: self._queue_send(item))
        else:
            self.sends.append(item)

    def _retire(self, item: _Request, queue: deque[_Request]) -> None:
        if self.inner is not None:
            queue.popleft()
            self.inner.to_memory(item.bytes, False, False, lambda: self._retired(item))
        else:
            # The item leaves its queue only after whoever waits for it has reacted.
            item.done()
            queue.popleft()

    def _retired(self, item: _Request) -> None:
        item.done()
        self._go_on()


class SharedBus:
    """A bus with an NPU side and a memory side.

    Parameters
    ----------
    clock : callable
        Current time in ns.
    register : callable
        ``register(delay_ns, action)``.
    loggp : tuple (L_ns, o_ns, g_ns, G_ns_per_byte, local_reduction_delay_ns)
    """

    def __init__(
        self,
        clock: Callable[[], int],
        register: Register,
        loggp: tuple[int, int, int, float, int],
        *,
        with_inner: bool = True,
    ) -> None:
        inner = None
        if with_inner:
            L, o, g, _, reduction_ns = loggp
            inner = SharedBus(
                clock,
                register,
                (L, o, g, _INNER_G_NS_PER_BYTE, reduction_ns),
                with_inner=False,
            )
        self.npu = _Side(clock, register, loggp, inner)
        self.memory = _Side(clock, register, loggp, None)
        self.npu.partner, self.memory.partner = self.memory, self.npu

    def to_memory(
        self, size: int, reduced: bool, send_back: bool, done: Callable[[], None]
    ) -> None:
        """Move data from NPU to memory."""
        self.npu.request(size, reduced, send_back, done)

    def to_npu(self, size: int, reduced: bool, send_back: bool, done: Callable[[], None]) -> None:
        """Move data from memory to NPU."""
        self.memory.request(size, reduced, send_back, done)
