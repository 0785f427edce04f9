# SPDX-License-Identifier: MIT
"""The event queue of the analytical networks: buckets of equal time, ordered by place."""

from __future__ import annotations

import heapq
from collections import deque
from operator import itemgetter
from typing import Any

__all__ = ["Event", "TimeBuckets"]


Event = tuple[int, str, Any]
"""(place, handle, subject): something that happens; see docs/contract.md, "Order inside one
instant".

place
    Order inside one instant: the value of the shared counter when the event was scheduled.
handle
    Name of the method that is called as ``handle(subject, time_ps)``; "" for the delivery of a
    transfer, which schedules nothing and changes nothing that another event could see.
subject
    What ``handle`` takes, or the id of the delivered transfer.
"""


class TimeBuckets:
    """Events in the order of (time, place).

    Most events share their time with many others and come in ascending place, so a bucket per
    distinct time takes them in O(1); the heap holds distinct times only.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, deque[Event]] = {}
        self._times: list[int] = []

    def push(self, time_ps: int, event: Event) -> None:
        bucket = self._buckets.get(time_ps)
        if bucket is None:
            self._buckets[time_ps] = deque((event,))
            heapq.heappush(self._times, time_ps)
            return
        if bucket and event[0] < bucket[-1][0]:
            # A host that drew places long ago and only now starts the transfer.
            self._buckets[time_ps] = deque(sorted((*bucket, event), key=itemgetter(0)))
        else:
            bucket.append(event)

    def first_time(self) -> int | None:
        """Time of the next event, or None."""
        return self._times[0] if self._times else None

    def first(self) -> deque[Event]:
        """The events of ``first_time()``, to be consumed from the left; valid until a push."""
        return self._buckets[self._times[0]]

    def drop_first(self) -> None:
        """Forget the first time, whose events have all been consumed."""
        del self._buckets[heapq.heappop(self._times)]
