# SPDX-License-Identifier: MIT
"""Messages of the reference engine: sends meet receives here, above the network contract."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np

from astra_bridge.engine.actions import RENDEZVOUS, Action
from astra_bridge.engine.folding import Folding
from astra_bridge.engine.kept import Kept
from astra_bridge.network.api import PLACES_PER_TRANSFER, REDUCE
from astra_bridge.program import WAIT, WaitFor

__all__ = ["CONTROL", "Message", "Messages"]

CONTROL = 1 << 62
"""Added to the tag of a message to make that of its rendezvous control message."""


class _Host(Protocol):
    """What messages need of the engine."""

    now_ps: int
    kept: Kept
    folding: Folding | None

    def draw(self, count: int = 1) -> int: ...

    def register_alone(self, action: Action) -> None: ...

    def run(self, action: Action) -> None: ...


_Channel = tuple[int, int, int, int]
"""(tag, source, destination, size): the n-th receive takes the n-th send."""


class Message:
    """One message, from the first of send and receive until both are complete."""

    __slots__ = (
        "arrived", "bytes", "dst", "on_received", "on_sent", "receiver", "sent", "src", "start_ps",
        "tag", "transfer", "what",
    )  # fmt: skip

    def __init__(self, channel: _Channel, sent: bool, what: tuple[int, int]) -> None:
        self.tag, self.src, self.dst, self.bytes = channel
        self.start_ps = 0  # of its transfer
        self.transfer = -1
        self.receiver = -1  # as DELIVERY has it
        # The side that came first; its node and collective are for diagnosis.
        self.sent, self.what = sent, what
        self.arrived = False
        self.on_sent: Action | None = None
        self.on_received: Action | None = None


class Messages:
    """All messages of a simulation.

    Parameters
    ----------
    host
        The engine: its clock, its counter of places, and a way to run something now.
    control_bytes : int
        Size of the control message of the rendezvous protocol; 0 is off.

    Attributes
    ----------
    starts : deque of tuple
        TRANSFER records that the network has not been given yet.
    in_flight : dict of int to Message
        By the id of their transfer.
    transfers : int
        Messages so far.
    """

    STATE = ("_alone", "_held", "_holds", "in_flight", "starts", "transfers")
    """What changes, as plain data."""

    def __init__(self, host: _Host, control_bytes: int) -> None:
        self._host, self._control_bytes = host, control_bytes
        # Messages that wait for their other side: those of a channel all for the same one.
        self._alone: dict[_Channel, deque[Message]] = {}
        # What waits for its control message: sends, rank, peer, size, tag, then, what, level,
        # at_once, and whose it is.
        self._held: dict[int, tuple[Any, ...]] = {}
        self._holds = 0
        self.starts: deque[tuple[int, ...]] = deque()
        self.in_flight: dict[int, Message] = {}
        self.transfers = 0

    def _message(self, channel: _Channel, sent: bool, what: tuple[int, int]) -> Message:
        """The message that a send, or a receive, is one side of."""
        alone = self._alone.get(channel)
        if alone is None:
            alone = self._alone[channel] = deque()
        elif alone[0].sent != sent:
            message = alone.popleft()
            if not alone:
                del self._alone[channel]
            return message
        message = Message(channel, sent, what)
        alone.append(message)
        return message

    def send(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_sent: Action | None,
        what: tuple[int, int],
        level: int = 0,
        *,
        together: tuple[int, int] | None = None,
    ) -> None:
        """Send; ``on_sent`` happens when the message has arrived.

        ``together``: members and number of a reduction, which meet in the network.
        """
        if together is not None:
            self._send(rank, peer, size, tag, on_sent, what, level, together)
        elif self._control_bytes:
            go = self._hold((True, rank, peer, size, tag, on_sent, what, level, False))
            self._receive(rank, peer, self._control_bytes, tag | CONTROL, go, what)
        else:
            self._send(rank, peer, size, tag, on_sent, what, level)

    def receive(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_received: Action,
        what: tuple[int, int],
        level: int = 0,
        *,
        at_once: bool = False,
        together: bool = False,
    ) -> None:
        """Post a receive; ``on_received`` happens when it is complete.

        If it is complete already, that is after all that is due now, or inside with ``at_once``.
        """
        if self._control_bytes and not together:
            go = self._hold((False, rank, peer, size, tag, on_received, what, level, at_once))
            self._send(rank, peer, self._control_bytes, tag | CONTROL, go, what, level)
        else:
            self._receive(rank, peer, size, tag, on_received, what, at_once=at_once)

    def _hold(self, held: tuple[Any, ...]) -> Action:
        self._holds += 1
        self._held[self._holds] = (*held, self._host.kept.owner)
        return (RENDEZVOUS, 0, self._holds)

    def held_by(self, index: int) -> int:
        """Whose send or receive waits for its control message."""
        rank: int = self._held[index][1]
        return rank

    def meet(self, _: int, index: int) -> None:
        """The control message is complete: now the message itself."""
        sends, rank, peer, size, tag, then, what, level, at_once, owner = self._held.pop(index)
        self._host.kept.owner = owner
        if sends:
            self._send(rank, peer, size, tag, then, what, level)
        else:
            self._receive(rank, peer, size, tag, then, what, at_once=at_once)

    def _send(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_sent: Action | None,
        what: tuple[int, int],
        level: int,
        together: tuple[int, int] | None = None,
    ) -> None:
        src, dst = rank, peer
        if self._host.folding is not None:
            src, dst = self._host.folding.turned(self._host.folding.ranks[rank], peer)
        message = self._message((tag, src, dst, size), True, what)
        message.on_sent = on_sent
        message.start_ps = self._host.now_ps
        transfer = self._host.draw(PLACES_PER_TRANSFER)
        flags, which = (0, 0) if together is None else (REDUCE | together[0] << 8, together[1])
        self.starts.append((transfer, self._host.now_ps, size, src, dst, level, flags, which))
        self.in_flight[transfer] = message
        message.transfer = transfer
        control = int(bool(tag & CONTROL))
        self._host.kept.sent(
            message.start_ps, transfer, size, (src, dst, control), message.receiver
        )
        self.transfers += 1

    def _receive(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_received: Action,
        what: tuple[int, int],
        *,
        at_once: bool = False,
    ) -> None:
        src, dst = peer, rank
        if self._host.folding is not None:
            src, dst = self._host.folding.turned(peer, self._host.folding.ranks[rank])
        message = self._message((tag, src, dst, size), False, what)
        message.on_received, message.receiver = on_received, self._host.kept.owner
        if message.transfer >= 0:
            self._host.kept.receives(message.transfer)
        if message.arrived:
            if at_once:
                self._host.run(on_received)
            else:
                self._host.register_alone(on_received)

    def delivered(self, transfer: int) -> tuple[Action | None, Action | None]:
        """A transfer has arrived: its send is complete, and its receive, if it is posted.

        Returns
        -------
        tuple
            What happens now, in this order.
        """
        message = self.in_flight.pop(transfer)
        message.arrived = True
        self._host.kept.delivered(self._host.now_ps, transfer)
        return message.on_sent, message.on_received

    def waits(self) -> Any:
        """What is incomplete, as an array of WAIT."""
        rows = []
        for (_, src, dst, size), alone in self._alone.items():
            for message in alone:
                if message.sent:
                    # Delivered, but nobody has asked for it.
                    rows.append((src, dst, size, *message.what, WaitFor.UNRECEIVED))
                else:
                    rows.append((dst, src, size, *message.what, WaitFor.RECEIVE))
        rows += [
            (message.src, message.dst, message.bytes, *message.what, WaitFor.IN_FLIGHT)
            for message in self.in_flight.values()
        ]
        return np.array(rows, WAIT)
