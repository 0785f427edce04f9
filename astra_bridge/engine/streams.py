# SPDX-License-Identifier: MIT
"""Chunks of collectives in the reference engine: streams, queues, and what runs in a stream."""

from __future__ import annotations

import heapq
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from astra_bridge.collectives.issue_order import hash_order
from astra_bridge.engine.messages import Action
from astra_bridge.program import Bus, GraphOp, PacketFlag, Program

if TYPE_CHECKING:
    from astra_bridge.engine.python import PythonEngine

__all__ = ["Graph", "Queue", "Run", "Schedules", "Stream"]

_REDUCED = int(PacketFlag.REDUCED)  # asked for every packet, and far faster than the enum


class Stream:
    """One chunk of a collective on one rank."""

    __slots__ = (
        "collective",
        "on_end",
        "phases",
        "priority",
        "queue",
        "rank",
        "run",
        "tag",
    )

    def __init__(self, rank: int, collective: int, tag: int, priority: int, on_end: Action) -> None:
        self.rank, self.collective, self.tag = rank, collective, tag
        self.priority, self.on_end = priority, on_end
        self.queue = -1
        self.phases: deque[tuple[int, Run | Graph]] = deque()  # queue and what runs there
        self.run: Run | Graph | None = None


class Run:
    """A stream in one phase: the machine that runs a schedule."""

    __slots__ = (
        "at_once",
        "base",
        "bus",
        "engine",
        "inserted",
        "members",
        "position",
        "processed",
        "received",
        "schedule",
        "size",
        "step",
        "stream",
        "stride",
    )

    def __init__(self, engine: PythonEngine, stream: Stream, phase: Any, schedule: int) -> None:
        program = engine.program
        self.engine, self.stream = engine, stream
        self.schedule = engine.schedules[schedule]
        self.bus = phase[7]
        # Without a bus to cross, the packet of a receive could end the stream whose step posts it.
        self.at_once = program.receives_at_once and self.bus != Bus.NONE
        self.size, self.stride, start, _ = engine.groups[phase[1]]
        self.position = engine.position(phase[1], stream.rank)
        self.members = program.members[start : start + self.size] if not self.stride else None
        self.base = stream.rank - self.position * self.stride
        self.step = self.processed = self.received = self.inserted = 0

    def _rank(self, relative: int) -> int:
        position = (self.position + relative) % self.size
        if self.members is None:
            return int(self.base + position * self.stride)
        return int(self.members[position])

    def start(self) -> None:
        """Run the steps that need nothing, then insert the first packets."""
        self._steps(len(self.schedule.steps))
        for _ in range(self.schedule.window):
            self._insert()

    def _insert(self) -> None:
        size, reduce_ps, flags = self.schedule.packets[self.inserted]
        self.inserted += 1
        done = self._processed
        if flags & _REDUCED:
            done = partial(self.engine.register, self.stream.rank, reduce_ps, self._processed)
        self.engine.cross_bus(self.stream.rank, self.bus, size, flags, done)

    def _processed(self) -> None:
        self.processed += 1
        self._steps(self.schedule.burst)
        if self.processed == self.schedule.end and self.step == len(self.schedule.steps):
            self.engine.next_phase(self.stream)

    def _steps(self, most: int) -> None:
        steps, stream = self.schedule.steps, self.stream
        messages, rank = self.engine.messages, stream.rank
        while most and self.step < len(steps):
            if self.step >= self.schedule.gate_step and self.received < self.schedule.gate_received:
                return
            send_bytes, recv_bytes, send_to, recv_from, need = steps[self.step]
            if self.processed < need:
                return
            most -= 1
            self.step += 1
            what = (-1, stream.collective)
            if send_bytes:
                messages.send(rank, self._rank(send_to), send_bytes, stream.tag, None, what)
            if recv_bytes:
                peer = self._rank(recv_from)
                messages.receive(
                    rank, peer, recv_bytes, stream.tag, self._arrived, what, at_once=self.at_once
                )

    def _arrived(self) -> None:
        self.received += 1
        self._insert()


class Schedule:
    __slots__ = ("burst", "end", "gate_received", "gate_step", "packets", "steps", "window")

    def __init__(self, program: Program, index: int) -> None:
        row = program.schedules[index]
        first, count = int(row["step_start"]), int(row["step_count"])
        self.steps = program.steps[first : first + count].tolist()
        inserted = int(row["window"]) + sum(1 for step in self.steps if step[1])
        first = int(row["packet_start"])
        self.packets = program.packets[first : first + inserted].tolist()
        self.window, self.burst = int(row["window"]), int(row["burst"])
        self.gate_step, self.gate_received = int(row["gate_step"]), int(row["gate_received"])
        self.end = int(row["end"])


class Schedules:
    """Schedules as Python objects, made on first use."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.made: dict[int, Schedule] = {}

    def __getitem__(self, index: int) -> Schedule:
        if index not in self.made:
            self.made[index] = Schedule(self.program, index)
        return self.made[index]


class Queue:
    """Streams of one queue of one rank: how many run, and those that wait for their turn."""

    __slots__ = ("_came", "_waiting", "running")

    def __init__(self) -> None:
        self.running = 0
        self._came = 0
        self._waiting: list[tuple[int, int, Stream]] = []  # a heap

    def insert(self, stream: Stream) -> None:
        """Wait behind all of at least the same priority."""
        self._came += 1
        heapq.heappush(self._waiting, (-stream.priority, self._came, stream))

    def fill(self, limit: int) -> None:
        """Start waiting streams while there is room."""
        while self._waiting and self.running < limit:
            self._start_next()

    def relieve(self) -> bool:
        """Start one more waiting stream, room or not; False where none waits."""
        if not self._waiting:
            return False
        self._start_next()
        return True

    def _start_next(self) -> None:
        stream = heapq.heappop(self._waiting)[2]
        self.running += 1
        if stream.run is not None:
            stream.run.start()


class Graph:
    """A custom collective on one rank: a small dependency graph, without limits."""

    def __init__(self, engine: PythonEngine, stream: Stream, graph: int) -> None:
        program = engine.program
        self.engine, self.stream = engine, stream
        first, count, first_root, roots, self.buckets = program.graphs[graph].tolist()
        self.nodes = program.graph_nodes[first : first + count].tolist()
        self.roots = program.graph_roots[first_root : first_root + roots].tolist()
        self.waiting = [node[7] for node in self.nodes]
        self.left = count

    def start(self) -> None:
        """Issue all nodes without parents."""
        if not self.nodes:
            self.engine.next_phase(self.stream)
            return
        for index in self.roots:
            self._issue(index)

    def _issue(self, index: int) -> None:
        duration_ps, size, _, _, _, peer, tag, _, op = self.nodes[index]
        rank, done = self.stream.rank, partial(self._done, index)
        what = (-1, self.stream.collective)
        if op == GraphOp.SEND:
            self.engine.messages.send(rank, peer, size, tag, done, what)
        elif op == GraphOp.RECV:
            self.engine.messages.receive(rank, peer, size, tag, done, what)
        else:
            self.engine.register(rank, duration_ps, done)

    def _done(self, index: int) -> None:
        self.left -= 1
        start, count = self.nodes[index][2], self.nodes[index][4]
        free = {}
        for child in self.engine.program.graph_children[start : start + count].tolist():
            self.waiting[child] -= 1
            if self.waiting[child] == 0:
                free[self.nodes[child][3]] = child
        order, self.buckets = hash_order(list(free), self.buckets)
        for one in order:
            self._issue(free[one])
        if self.left == 0:
            self.engine.next_phase(self.stream)
