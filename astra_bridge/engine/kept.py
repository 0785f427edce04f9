# SPDX-License-Identifier: MIT
"""What the reference engine keeps of what goes on inside collectives."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from astra_bridge.program import DELIVERY, STAY, Inside

__all__ = ["Kept"]

_START_PS, _END_PS = STAY.names.index("start_ps"), STAY.names.index("end_ps")  # type: ignore[union-attr]
_ARRIVED_PS, _RECEIVER = (DELIVERY.names.index(name) for name in ("end_ps", "receiver"))  # type: ignore[union-attr]


class Kept:
    """Rows of STAY and DELIVERY, as they come about.

    Attributes
    ----------
    inside : Inside
        What is kept.
    owner : int
        Who sends and receives now, as DELIVERY has it.
    """

    def __init__(self, inside: Inside) -> None:
        self.inside, self.owner = inside, -1
        self._stays: list[list[int]] = []
        self._deliveries: list[list[int]] = []
        self._stay_of: dict[int, int] = {}  # by stream
        self._delivery_of: dict[int, int] = {}  # by transfer

    def copy(self) -> Kept:
        """What a copy of the engine goes on with."""
        return copy.deepcopy(self)

    def entered(self, now_ps: int, stream: int, row: tuple[int, int, int, int, int]) -> None:
        """A chunk comes to a queue: task, node, chunk, phase, queue."""
        if self.inside:
            self._stay_of[stream] = len(self._stays)
            self._stays.append([now_ps, -1, -1, *row])

    def started(self, now_ps: int, stream: int) -> None:
        """Its phase begins."""
        if self.inside:
            self._stays[self._stay_of[stream]][_START_PS] = now_ps

    def ended(self, now_ps: int, stream: int) -> None:
        """Its phase ends."""
        if self.inside:
            self._stays[self._stay_of[stream]][_END_PS] = now_ps

    def acts(self, stream: int) -> None:
        """What is sent and received now, is so by this chunk."""
        if self.inside:
            self.owner = self._stay_of[stream]

    def sent(
        self, now_ps: int, transfer: int, size: int, way: tuple[int, int, int], by: int
    ) -> None:
        """A message is given to the network: source, destination, control; who receives it."""
        if self.inside is Inside.MESSAGES:
            self._delivery_of[transfer] = len(self._deliveries)
            self._deliveries.append([now_ps, -1, size, self.owner, by, *way])

    def receives(self, transfer: int) -> None:
        """Somebody asks for a message that has been sent."""
        if self.inside is Inside.MESSAGES:
            self._deliveries[self._delivery_of[transfer]][_RECEIVER] = self.owner

    def delivered(self, now_ps: int, transfer: int) -> None:
        """It has arrived."""
        if self.inside is Inside.MESSAGES:
            self._deliveries[self._delivery_of[transfer]][_ARRIVED_PS] = now_ps

    def stays(self) -> Any:
        """As an array of STAY."""
        return np.array([tuple(row) for row in self._stays], STAY)

    def deliveries(self) -> Any:
        """As an array of DELIVERY."""
        return np.array([tuple(row) for row in self._deliveries], DELIVERY)
