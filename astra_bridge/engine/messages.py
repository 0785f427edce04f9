# SPDX-License-Identifier: MIT
"""Messages of the reference engine: sends meet receives here, above the network contract."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np

from astra_bridge.engine.actions import RENDEZVOUS, Action
from astra_bridge.network.api import PLACES_PER_TRANSFER
from astra_bridge.program import WAIT, WaitFor

__all__ = ["Message", "Messages", "Way"]

_CONTROL = 1 << 62
"""Added to the tag of a message to make that of its rendezvous control message."""


class _Host(Protocol):
    """What messages need of the engine."""

    now_ps: int

    def draw(self, count: int = 1) -> int: ...

    def register_alone(self, action: Action) -> None: ...

    def run(self, action: Action) -> None: ...


class Message:
    """One message, from the first of send and receive until both are complete."""

    __slots__ = ("arrived", "bytes", "dst", "on_received", "on_sent", "sent", "src", "what")

    def __init__(self, src: int, dst: int, size: int) -> None:
        self.src, self.dst, self.bytes = src, dst, size
        self.sent = self.arrived = False
        self.on_sent: Action | None = None
        self.on_received: Action | None = None
        self.what = (-1, -1)  # node and collective of whoever waits, for diagnosis


class Way:
    """Messages of one (tag, source, destination, size): the n-th receive takes the n-th send."""

    __slots__ = ("messages", "received", "sent")

    def __init__(self) -> None:
        self.sent = self.received = 0
        self.messages: dict[int, Message] = {}


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

    STATE = ("_channels", "_held", "_holds", "in_flight", "starts", "transfers")
    """What changes, as plain data."""

    def __init__(self, host: _Host, control_bytes: int) -> None:
        self._host, self._control_bytes = host, control_bytes
        self._channels: dict[tuple[int, int, int, int], Way] = {}
        # What waits for its control message: sends, rank, peer, size, tag, then, what, level,
        # at_once.
        self._held: dict[int, tuple[Any, ...]] = {}
        self._holds = 0
        self.starts: deque[tuple[int, ...]] = deque()
        self.in_flight: dict[int, Message] = {}
        self.transfers = 0

    def _message(self, key: tuple[int, int, int, int], number: int) -> Message:
        channel = self._channels[key]
        if number not in channel.messages:
            channel.messages[number] = Message(key[1], key[2], key[3])
        return channel.messages[number]

    def send(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_sent: Action | None,
        what: tuple[int, int],
        level: int = 0,
    ) -> None:
        """Send; ``on_sent`` happens when the message has arrived."""
        if self._control_bytes:
            go = self._hold((True, rank, peer, size, tag, on_sent, what, level, False))
            self._receive(rank, peer, self._control_bytes, tag | _CONTROL, go, what)
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
    ) -> None:
        """Post a receive; ``on_received`` happens when it is complete.

        If it is complete already, that is after all that is due now, or inside with ``at_once``.
        """
        if self._control_bytes:
            go = self._hold((False, rank, peer, size, tag, on_received, what, level, at_once))
            self._send(rank, peer, self._control_bytes, tag | _CONTROL, go, what, level)
        else:
            self._receive(rank, peer, size, tag, on_received, what, at_once=at_once)

    def _hold(self, held: tuple[Any, ...]) -> Action:
        self._holds += 1
        self._held[self._holds] = held
        return (RENDEZVOUS, 0, self._holds)

    def meet(self, _: int, index: int) -> None:
        """The control message is complete: now the message itself."""
        sends, rank, peer, size, tag, then, what, level, at_once = self._held.pop(index)
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
    ) -> None:
        key = (tag, rank, peer, size)
        channel = self._channels.setdefault(key, Way())
        message = self._message(key, channel.sent)
        message.sent, message.on_sent = True, on_sent
        if message.on_received is not None:
            # Both sides are here: nobody needs to find it any more.
            del channel.messages[channel.sent]
        else:
            message.what = what
        channel.sent += 1
        transfer = self._host.draw(PLACES_PER_TRANSFER)
        self.starts.append((transfer, self._host.now_ps, size, rank, peer, level, 0, 0))
        self.in_flight[transfer] = message
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
        key = (tag, peer, rank, size)
        channel = self._channels.setdefault(key, Way())
        message = self._message(key, channel.received)
        message.on_received = on_received
        if message.sent:
            del channel.messages[channel.received]
        else:
            message.what = what
        channel.received += 1
        if message.arrived:
            if at_once:
                self._host.run(on_received)
            else:
                self._host.register_alone(on_received)

    def delivered(self, transfer: int) -> None:
        """A transfer has arrived: its send is complete, and its receive, if it is posted."""
        message = self.in_flight.pop(transfer)
        message.arrived = True
        received = message.on_received
        if message.on_sent is not None:
            self._host.run(message.on_sent)
        if received is not None:
            self._host.run(received)

    def waits(self) -> Any:
        """What is incomplete, as an array of WAIT."""
        rows = []
        for (_, src, dst, size), channel in self._channels.items():
            for message in channel.messages.values():
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
