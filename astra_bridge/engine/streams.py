# SPDX-License-Identifier: MIT
"""Chunks of collectives in the reference engine: streams, queues, and what runs in a stream."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Protocol

from astra_bridge.collectives.issue_order import hash_order
from astra_bridge.engine.actions import ARRIVED, BUS_CROSSED, GRAPH_DONE, Action
from astra_bridge.engine.folding import Folding
from astra_bridge.engine.kept import Kept
from astra_bridge.engine.messages import Messages
from astra_bridge.network.api import Network
from astra_bridge.program import (
    Bus,
    GraphOp,
    PacketFlag,
    Peers,
    Policy,
    Program,
    QueuePick,
    Variant,
)

__all__ = ["GraphRun", "Queue", "Stream", "Streams"]

_XOR, _TOGETHER = int(Peers.XOR), int(Peers.REDUCED)
_REDUCED = int(PacketFlag.REDUCED)  # asked for every packet, and far faster than the enum


class _Host(Protocol):
    """What streams need of the engine."""

    program: Program
    network: Network
    kept: Kept
    now_ps: int
    messages: Messages
    folding: Folding | None

    def register(self, rank: int, delay_ps: int, action: Action) -> None: ...

    def cross_bus(self, stream: Stream, packet: int, size: int, flags: int) -> None: ...

    def node_done(self, task: int, node: int) -> None: ...


class Stream:
    """One chunk of a collective on one rank, and the schedule that it runs in its current phase."""

    __slots__ = (
        "at_once",
        "base",
        "bus",
        "collective",
        "graph",
        "inserted",
        "job_rank",
        "layout",
        "level",
        "number",
        "phases",
        "position",
        "priority",
        "processed",
        "queue",
        "rank",
        "received",
        "run",
        "schedule",
        "self",
        "size",
        "step",
        "stride",
        "tag",
        "task",
    )

    def __init__(self, index: int, task: int, rank: int, job_rank: int, collective: int) -> None:
        self.self, self.task, self.rank, self.job_rank = index, task, rank, job_rank
        self.collective, self.number = collective, 0
        self.queue = -1
        self.phases: deque[tuple[int, int, int]] = deque()  # queue, phase, schedule
        self.graph: GraphRun | None = None
        self.tag = self.priority = self.run = 0
        self.bus, self.at_once = 0, False
        self.schedule = self.layout = -1
        self.level = 0
        self.size = self.stride = self.position = self.base = 0
        self.step = self.processed = self.received = self.inserted = 0


class GraphRun:
    """A custom collective on one rank: a small dependency graph, without limits."""

    __slots__ = ("buckets", "first", "left", "roots", "waiting")

    def __init__(self, first: int, buckets: int, waiting: list[int], roots: list[int]) -> None:
        self.first, self.buckets, self.waiting, self.roots = first, buckets, waiting, roots
        self.left = len(waiting)


class Queue:
    """Streams of one queue of one rank: how many run, and those that wait for their turn."""

    __slots__ = ("came", "running", "waiting")

    def __init__(self) -> None:
        self.running = self.came = 0
        self.waiting: list[tuple[int, int, int]] = []  # a heap

    def insert(self, stream: Stream) -> None:
        """Wait behind all of at least the same priority."""
        self.came += 1
        heapq.heappush(self.waiting, (-stream.priority, self.came, stream.self))


class Schedule:
    """A schedule as Python lists."""

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


class _Schedules(dict[int, Schedule]):
    """Schedules of the Program by index, made when they are first asked for."""

    def __init__(self, host: _Host) -> None:
        self._host = host

    def __missing__(self, index: int) -> Schedule:
        self[index] = made = Schedule(self._host.program, index)
        return made


class Streams:
    """All streams of a simulation.

    Parameters
    ----------
    host
        The engine: its Program and messages, a way to run something later, its buses.
    """

    STATE = ("_agreed", "_alternate", "_made", "_next_queue", "_numbers", "_priority", "_reduced",
             "_reductions", "_runs", "_streams", "queues", "relieved")  # fmt: skip
    """What changes, as plain data."""

    def __init__(self, host: _Host) -> None:
        self._host = host
        self._schedules = _Schedules(host)
        self._positions: dict[int, dict[int, int]] = {}
        program = host.program
        half = program.queues_per_level // 2
        ranks = range(program.ranks)
        self.queues = [
            [Queue() for _ in range(program.levels * program.queues_per_level)] for _ in ranks
        ]
        self._next_queue = [[[0, 0, half] for _ in range(program.levels)] for _ in ranks]
        self._alternate: dict[tuple[int, int], int] = {}  # (rank, slot)
        self._numbers: dict[tuple[int, int], int] = {}  # (rank, group) -> streams so far
        self._priority = [0] * program.ranks
        self._streams: dict[int, Stream] = {}
        self._runs: dict[int, list[int]] = {}  # task, node, chunks that are left
        self._made = 0
        self._agreed: dict[tuple[int, int, int], list[int]] = {}  # see _agree
        # (tag, phases to come, first rank of the layout, step) -> number, members to come
        self._reductions: dict[tuple[int, int, int, int], list[int]] = {}
        self._reduced = 0  # reductions so far
        self.relieved = 0
        self._levels = host.network.info.levels
        self.read()

    def read(self) -> None:
        """Take up what is new in the Program."""
        program = self._host.program
        self._groups = program.groups.tolist()
        self._phases = program.phases.tolist()
        self._collectives = program.collectives.tolist()
        machines = program.machines[program.machine_of_rank]
        self._policy = machines["policy"].tolist()
        self._most = machines["streams_per_queue"].tolist()
        self._job_of = program.tasks["job"].tolist()
        self._tag_base = program.jobs["tag_base"].tolist()
        placements = [
            program.placement[start : start + ranks].tolist() if start >= 0 else None
            for _, start, ranks in program.jobs.tolist()
        ]
        self._placement_of_task = [placements[job] for job in self._job_of]
        self._graph_nodes = program.graph_nodes.tolist()

    def __getitem__(self, index: int) -> Stream:
        return self._streams[index]

    def _position(self, group: int, job_rank: int) -> int:
        size, stride, start, _ = self._groups[group]
        if stride:
            return int(job_rank // stride % size)
        if group not in self._positions:
            members = self._host.program.members[start : start + size].tolist()
            self._positions[group] = {member: i for i, member in enumerate(members)}
        return self._positions[group][job_rank]

    def _placed(self, task: int, job_rank: int) -> int:
        """A rank of the job of a task, as a rank of the network."""
        placement = self._placement_of_task[task]
        return job_rank if placement is None else placement[job_rank]

    def peer(self, task: int, job_rank: int, tag: int) -> tuple[int, int]:
        """Rank of the network and tag of a point-to-point message of a task."""
        return self._placed(task, job_rank), tag + self._tag_base[self._job_of[task]]

    # Collectives

    def issue(self, task: int, node: int, rank: int, index: int) -> None:
        """Begin a collective: its chunks enter the queues of their first phases."""
        chunks, plan_start, plan_count, group, priority, graph, _, _ = self._collectives[index]
        program = self._host.program
        job_rank = int(program.tasks["job_rank"][task])
        if self._policy[rank] == Policy.LIFO:
            priority = self._priority[rank]
            self._priority[rank] += 1
        elif self._policy[rank] == Policy.FIFO:
            priority = self._priority[rank]
            self._priority[rank] -= 1
        self._made += 1
        run = self._made
        self._runs[run] = [task, node, chunks]
        for chunk in range(chunks):
            number = self._numbers.get((rank, group), 0)
            self._numbers[rank, group] = number + 1
            self._made += 1
            stream = Stream(self._made, task, rank, job_rank, index)
            self._streams[self._made] = stream
            stream.tag, stream.priority = self._groups[group][3] + number, priority
            stream.run = run
            stream.number = chunk
            if graph >= 0:
                # Custom collectives use queue 0 of the rank.
                where = graph + self._position(group, job_rank)
                first, count, first_root, roots, buckets = program.graphs[
                    program.graph_of_position[where]
                ].tolist()
                stream.graph = GraphRun(
                    first,
                    buckets,
                    program.graph_nodes["parents"][first : first + count].tolist(),
                    program.graph_roots[first_root : first_root + roots].tolist(),
                )
                stream.phases.append((0, -1, -1))
            else:
                self._choose_phases(stream, plan_start + chunk % plan_count)
            self._next_phase(stream)

    def _choose_phases(self, stream: Stream, plan: int) -> None:
        """Choose queue and schedule of every phase when the stream is made, as ASTRA-sim does."""
        program, rank = self._host.program, stream.rank
        per_level = program.queues_per_level
        half = per_level // 2
        start, count = program.plans[plan].tolist()
        for number in range(count):
            index = start + number
            level, layout, family0, family1, slot, pick, variant, _ = self._phases[index]
            counters = self._next_queue[rank][level]
            queue = counters[pick]
            counters[pick] += 1
            second = pick == QueuePick.LAST
            if pick == QueuePick.NEXT:
                second = per_level > 1 and queue >= half
                if counters[pick] >= per_level:
                    counters[pick] = 0
            elif pick == QueuePick.FIRST:
                if counters[pick] >= half:
                    counters[pick] = 0
            elif counters[pick] >= per_level:
                counters[pick] = half
            if variant == Variant.ALTERNATE:
                turn = self._alternate.get((rank, slot), 0)
                second = bool(turn % 2)
                self._alternate[rank, slot] = turn + 1
            elif variant == Variant.AGREED and pick == QueuePick.NEXT and per_level > 1:
                second = self._agree(stream, number, layout, second)
            family = family1 if second else family0
            own, positions, schedule, _ = program.families[family].tolist()
            if positions:
                own += self._position(layout, stream.job_rank)
                schedule += int(program.schedule_of_position[own])
            stream.phases.append((level * per_level + queue, index, schedule))

    def _agree(self, stream: Stream, phase: int, layout: int, second: bool) -> bool:
        """Go the way round that the first member of the layout took in this phase of this chunk.

        Ranks that have issued unequal numbers of collectives, in overlapping groups, are at
        different queues of a dimension, and so would go different ways.  ASTRA-sim never ends
        there.
        """
        size, stride, _, _ = self._groups[layout]
        rank = stream.job_rank
        first = rank - self._position(layout, rank) * stride if stride else 0
        agreed = self._agreed.setdefault((stream.tag, phase, first), [int(second), size])
        agreed[1] -= 1
        if agreed[1] == 0:
            del self._agreed[stream.tag, phase, first]
        return bool(agreed[0])

    def _next_phase(self, stream: Stream) -> None:
        """End the current phase, if any, and enter the next one, if any."""
        queues, most = self.queues[stream.rank], self._most[stream.rank]
        previous = stream.queue
        last = not stream.phases
        kept = self._host.kept
        if previous >= 0:
            kept.ended(self._host.now_ps, stream.self)
        if last:
            # The collective may end here, and its rank may issue the next one at once.
            run = self._runs[stream.run]
            run[2] -= 1
            if run[2] == 0:
                del self._runs[stream.run]
                self._host.node_done(run[0], run[1])
        else:
            self._enter(stream, *stream.phases.popleft())
            queues[stream.queue].insert(stream)
        if previous >= 0:
            queues[previous].running -= 1
            self._fill(queues[previous], most)
        if last:
            del self._streams[stream.self]
        else:
            self._fill(queues[stream.queue], most)

    def _enter(self, stream: Stream, queue: int, index: int, schedule: int) -> None:
        stream.queue = queue
        stream.step = stream.processed = stream.received = stream.inserted = 0
        task, node, _ = self._runs[stream.run]
        where = (task, node, stream.number, index, queue)
        self._host.kept.entered(self._host.now_ps, stream.self, where)
        if index < 0:
            return
        phase = self._phases[index]
        stream.schedule, stream.layout, stream.bus = schedule, phase[1], phase[7]
        stream.level = min(phase[0], self._levels - 1)
        # Without a bus to cross, the packet of a receive could end the stream whose step posts it.
        stream.at_once = self._host.program.receives_at_once and stream.bus != Bus.NONE
        stream.size, stream.stride, _, _ = self._groups[stream.layout]
        stream.position = self._position(stream.layout, stream.job_rank)
        stream.base = stream.job_rank - stream.position * stream.stride

    def _fill(self, queue: Queue, most: int) -> None:
        """Start waiting streams while there is room."""
        while queue.waiting and queue.running < most:
            self._start_next(queue)

    def _start_next(self, queue: Queue) -> None:
        stream = self._streams[heapq.heappop(queue.waiting)[2]]
        queue.running += 1
        self._host.kept.started(self._host.now_ps, stream.self)
        if stream.graph is not None:
            self._start_graph(stream, stream.graph)
            return
        # Run the steps that need nothing, then insert the first packets.
        schedule = self._schedules[stream.schedule]
        self._steps(stream, schedule, len(schedule.steps))
        for _ in range(schedule.window):
            self._insert(stream, schedule)

    def relieve(self) -> bool:
        """When nothing can go on: start a waiting chunk in every queue that has one.

        Chunks of a hierarchical collective may come to the queues of different ranks in different
        orders, and then wait for one another where a queue runs few at a time.  ASTRA-sim never
        ends there.
        """
        before = self.relieved
        for queues in self.queues:
            for queue in queues:
                if queue.waiting:
                    self._start_next(queue)
                    self.relieved += 1
        return self.relieved > before

    # The machine that runs a schedule

    def _rank(self, stream: Stream, peers: int, value: int) -> int:
        if peers == _XOR:
            position = stream.position ^ value
        else:
            position = (stream.position + value) % stream.size
        if stream.stride:
            return self._placed(stream.task, stream.base + position * stream.stride)
        start = self._groups[stream.layout][2]
        return self._placed(stream.task, int(self._host.program.members[start + position]))

    def _insert(self, stream: Stream, schedule: Schedule) -> None:
        index = stream.inserted
        stream.inserted += 1
        size, _, flags = schedule.packets[index]
        self._host.cross_bus(stream, index, size, flags)

    def crossed(self, packet: int, index: int) -> None:
        """A packet has crossed the bus; it may pay its reduction."""
        stream = self._streams[index]
        _, reduce_ps, flags = self._schedules[stream.schedule].packets[packet]
        if flags & _REDUCED:
            self._host.register(stream.rank, reduce_ps, (BUS_CROSSED, packet, index))
        else:
            self.processed(packet, index)

    def processed(self, _: int, index: int) -> None:
        """A packet is processed: further steps may run, and the phase may end."""
        stream = self._streams[index]
        schedule = self._schedules[stream.schedule]
        stream.processed += 1
        self._steps(stream, schedule, schedule.burst)
        if stream.processed == schedule.end and stream.step == len(schedule.steps):
            self._next_phase(stream)

    def _steps(self, stream: Stream, schedule: Schedule, most: int) -> None:
        steps, messages, rank = schedule.steps, self._host.messages, stream.rank
        self._host.kept.acts(stream.self)
        while most and stream.step < len(steps):
            if stream.step >= schedule.gate_step and stream.received < schedule.gate_received:
                return
            send_bytes, recv_bytes, send_to, recv_from, need, peers = steps[stream.step]
            if stream.processed < need:
                return
            most -= 1
            stream.step += 1
            what = (-1, stream.collective)
            if send_bytes:
                peer = self._rank(stream, peers, send_to)
                together = self._together(stream) if peers == _TOGETHER else None
                messages.send(
                    rank, peer, send_bytes, stream.tag, None, what, stream.level, together=together
                )
            if recv_bytes:
                peer, then = self._rank(stream, peers, recv_from), (ARRIVED, 0, stream.self)
                messages.receive(
                    rank,
                    peer,
                    recv_bytes,
                    stream.tag,
                    then,
                    what,
                    stream.level,
                    at_once=stream.at_once,
                    together=peers == _TOGETHER,
                )

    def _together(self, stream: Stream) -> tuple[int, int] | None:
        """Members, and number, of the reduction that this member's part belongs to.

        With folded ranks the members are those that run; one that stands for all others waits for
        nobody: None.
        """
        relative, size, folding = int(Peers.RELATIVE), stream.size, self._host.folding
        first = self._rank(stream, relative, -stream.position)
        if folding is not None:
            ranks = [self._rank(stream, relative, position) for position in range(size)]
            running = {folding.turned(rank, rank)[1] for rank in ranks}
            first, size = min(running), len(running)
            if size == 1:
                return None
        key = (stream.tag, len(stream.phases), first, stream.step)
        if key not in self._reductions:
            self._reduced += 1
            self._reductions[key] = [self._reduced, size]
        found = self._reductions[key]
        found[1] -= 1
        if not found[1]:
            del self._reductions[key]
        return size, found[0]

    def arrived(self, _: int, index: int) -> None:
        """A message is complete: it inserts the next packet."""
        stream = self._streams[index]
        stream.received += 1
        self._insert(stream, self._schedules[stream.schedule])

    # Custom collectives

    def _start_graph(self, stream: Stream, graph: GraphRun) -> None:
        """Issue all nodes without parents."""
        if not graph.left:
            self._next_phase(stream)
            return
        for node in graph.roots:
            self._issue_graph_node(stream, graph, node)

    def _issue_graph_node(self, stream: Stream, graph: GraphRun, index: int) -> None:
        duration_ps, size, _, _, _, peer, tag, _, op = self._graph_nodes[graph.first + index]
        then = (GRAPH_DONE, index, stream.self)
        if op == GraphOp.DELAY:
            self._host.register(stream.rank, duration_ps, then)
            return
        peer, tag = self.peer(stream.task, peer, tag)
        self._host.kept.acts(stream.self)
        act = self._host.messages.send if op == GraphOp.SEND else self._host.messages.receive
        act(stream.rank, peer, size, tag, then, (-1, stream.collective))

    def graph_done(self, index: int, which: int) -> None:
        """A node of a custom collective is complete."""
        stream = self._streams[which]
        graph, nodes = stream.graph, self._graph_nodes
        assert graph is not None
        graph.left -= 1
        start, count = nodes[graph.first + index][2], nodes[graph.first + index][4]
        free = {}
        for child in self._host.program.graph_children[start : start + count].tolist():
            graph.waiting[child] -= 1
            if graph.waiting[child] == 0:
                free[nodes[graph.first + child][3]] = child
        order, graph.buckets = hash_order(list(free), graph.buckets)
        for one in order:
            self._issue_graph_node(stream, graph, free[one])
        if graph.left == 0:
            self._next_phase(stream)
