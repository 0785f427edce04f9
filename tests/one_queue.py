# SPDX-License-Identifier: MIT
"""Hosts that react to deliveries, to test the order of events inside one instant."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from astra_bridge.network.api import TIME_NEVER, TRANSFER, Network, Stop

LAST_PLACE = 2**63 - 1


class OneQueue:
    """ASTRA-sim's world in a few lines: host and network on one queue, plain calls between them.

    Events run in the order of (time, when they were scheduled).  Written apart from the networks
    under test, to be compared with them.
    """

    def __init__(self, route: Callable[[int, int], list[int]], rate: float, latency: float) -> None:
        self.route, self.rate, self.latency = route, rate, latency
        self.now = 0
        self.count = itertools.count()
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.busy: set[int] = set()
        self.waiting: dict[int, list[Any]] = {}

    def schedule(self, delay: int, call: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + delay, next(self.count), call))

    def send(self, src: int, dst: int, size: int, arrived: Callable[[], None]) -> None:
        self.hop(self.route(src, dst), size, arrived)

    def hop(self, way: list[int], size: int, arrived: Callable[[], None]) -> None:
        if way[0] in self.busy:
            self.waiting.setdefault(way[0], []).append((way, size, arrived))
            return
        self.busy.add(way[0])
        onward = arrived if len(way) == 1 else lambda: self.hop(way[1:], size, arrived)
        self.schedule(int(self.latency + size / self.rate), onward)
        self.schedule(int(size / self.rate), lambda: self.release(way[0]))

    def release(self, link: int) -> None:
        self.busy.remove(link)
        if self.waiting.get(link):
            self.hop(*self.waiting[link].pop(0))

    def run(self) -> None:
        while self.queue:
            self.now, _, call = heapq.heappop(self.queue)
            call()


class Exchanging:
    """The same world with the network behind exchange(): what an engine does."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.now = 0
        self.place = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.starts: list[tuple[int, ...]] = []
        self.arrived: dict[int, Callable[[], None]] = {}

    def schedule(self, delay: int, call: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + delay * 1000, self.place, call))
        self.place += 1

    def send(self, src: int, dst: int, size: int, arrived: Callable[[], None]) -> None:
        self.starts.append((self.place, self.now, size, src, dst, 0, 0, 0))
        self.arrived[self.place] = arrived
        self.place += 4

    def run(self) -> None:
        while True:
            until, until_place = self.queue[0][:2] if self.queue else (TIME_NEVER, LAST_PLACE)
            batch = np.array(self.starts, TRANSFER)
            self.starts.clear()
            out = self.network.exchange(batch, self.now, until, until_place, self.place)
            self.now, self.place = out.now_ps, out.place
            for record in out.completions:
                assert record["time_ps"] == self.now
                self.arrived.pop(int(record["id"]))()
            if out.stop == Stop.REACHED:
                assert (out.next_ps, out.next_place) >= (until, until_place)
                heapq.heappop(self.queue)[2]()
            elif out.stop == Stop.IDLE:
                assert not self.queue
                assert not self.arrived
                return


class Chatter:
    """A host that reacts: on every arrival, sender and receiver may send or compute."""

    def __init__(self, world: Any, seed: int, endpoints: int, now: Callable[[], int]) -> None:
        self.world, self.now = world, now
        self.random = random.Random(seed)
        self.endpoints = endpoints
        self.left = 60
        self.log: list[tuple[int, str]] = []
        for rank in range(endpoints):
            self.act(rank)

    def act(self, rank: int) -> None:
        if self.left == 0:
            return
        self.left -= 1
        number = self.left
        if self.random.random() < 0.3:
            delay = self.random.choice([0, 0, 1, 2, 5])
            self.world.schedule(delay, lambda: self.after(rank, f"compute {number}"))
        else:
            peer = (rank + self.random.randrange(1, self.endpoints)) % self.endpoints
            size = self.random.choice([1, 1, 2, 3, 5])
            self.world.send(rank, peer, size, lambda: self.after(peer, f"{number}: {rank}->{peer}"))
            if self.random.random() < 0.5:
                self.act(rank)

    def after(self, rank: int, what: str) -> None:
        self.log.append((self.now(), what))
        self.act(rank)
        if self.random.random() < 0.3:
            self.act((rank + 1) % self.endpoints)
