# SPDX-License-Identifier: MIT
"""The reference engine: readable Python, no compiler needed.

The native engine does exactly the same, event by event; a property test holds the two together.

Order of events
---------------
ASTRA-sim has one queue for network and system events: by time, then by when an event was
scheduled.  Each event here has a key (time, place), where places are drawn from one counter that
is shared with the network (docs/contract.md).  Events of one rank at one time form a *slot*, whose
place is drawn when its first event is registered; all of a slot's events run together, including
those registered while it runs.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from astra_bridge.collectives.issue_order import hash_order
from astra_bridge.engine.bus import SharedBus
from astra_bridge.engine.outcome import WAIT, Outcome, Progress, ProgressCallback
from astra_bridge.errors import SimulationError
from astra_bridge.network.api import (
    DELIVERED,
    PLACES_PER_TRANSFER,
    TIME_NEVER,
    TRANSFER,
    Capability,
    Network,
    Stop,
)
from astra_bridge.program import (
    Bus,
    BusModel,
    GraphOp,
    Op,
    PacketFlag,
    Policy,
    Program,
    QueuePick,
    Variant,
)
from astra_bridge.units import PS_PER_NS

__all__ = ["PythonEngine"]

Action = Callable[[], None]

_CONTROL = 1 << 62
"""Added to the tag of a message to make that of its rendezvous control message."""

_PROGRESS_SECONDS = 0.25


class _Message:
    """One message, from the first of send and receive until both are complete."""

    __slots__ = ("arrived", "bytes", "dst", "on_received", "on_sent", "sent", "src", "what")

    def __init__(self, src: int, dst: int, size: int) -> None:
        self.src, self.dst, self.bytes = src, dst, size
        self.sent = self.arrived = False
        self.on_sent: Action | None = None
        self.on_received: Action | None = None
        self.what = (-1, -1)  # node and collective of whoever waits, for diagnosis


class _Channel:
    """Messages of one (tag, source, destination, size): the n-th receive takes the n-th send."""

    __slots__ = ("messages", "received", "sent")

    def __init__(self) -> None:
        self.sent = self.received = 0
        self.messages: dict[int, _Message] = {}


class _Stream:
    """One chunk of a collective on one rank."""

    __slots__ = (
        "collective",
        "on_end",
        "phases",
        "priority",
        "queue",
        "rank",
        "run",
        "started",
        "tag",
    )

    def __init__(self, rank: int, collective: int, tag: int, priority: int, on_end: Action) -> None:
        self.rank, self.collective, self.tag = rank, collective, tag
        self.priority, self.on_end = priority, on_end
        self.queue = -1
        self.started = False
        self.phases: deque[tuple[int, _Run | _Graph]] = deque()  # queue and what runs there
        self.run: _Run | _Graph | None = None


class _Run:
    """A stream in one phase: the machine that runs a schedule."""

    __slots__ = (
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

    def __init__(self, engine: PythonEngine, stream: _Stream, phase: Any, schedule: int) -> None:
        program = engine.program
        self.engine, self.stream = engine, stream
        self.schedule = engine.schedules[schedule]
        self.bus = phase[7]
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
        if flags & PacketFlag.REDUCED:
            done = partial(self.engine.register, self.stream.rank, reduce_ps, self._processed)
        self.engine.cross_bus(self.stream.rank, self.bus, size, flags, done)

    def _processed(self) -> None:
        self.processed += 1
        self._steps(self.schedule.burst)
        if self.processed == self.schedule.end and self.step == len(self.schedule.steps):
            self.engine.next_phase(self.stream)

    def _steps(self, most: int) -> None:
        steps, engine, stream = self.schedule.steps, self.engine, self.stream
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
                engine.send(stream.rank, self._rank(send_to), send_bytes, stream.tag, None, what)
            if recv_bytes:
                engine.receive(
                    stream.rank, self._rank(recv_from), recv_bytes, stream.tag, self._arrived, what
                )

    def _arrived(self) -> None:
        self.received += 1
        self._insert()


class _Schedule:
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


class _Schedules:
    """Schedules as Python objects, made on first use."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.made: dict[int, _Schedule] = {}

    def __getitem__(self, index: int) -> _Schedule:
        if index not in self.made:
            self.made[index] = _Schedule(self.program, index)
        return self.made[index]


class _Queue:
    """Streams of one queue of one rank; the first ``running`` have started."""

    __slots__ = ("running", "streams")

    def __init__(self) -> None:
        self.streams: list[_Stream] = []
        self.running = 0

    def insert(self, stream: _Stream) -> None:
        """Behind all that have started and all of at least the same priority."""
        at = 0
        while at < len(self.streams) and (
            self.streams[at].started or self.streams[at].priority >= stream.priority
        ):
            at += 1
        self.streams.insert(at, stream)

    def fill(self, limit: int) -> None:
        """Start waiting streams while there is room."""
        at = self.running
        while at < len(self.streams) and self.running < limit:
            stream = self.streams[at]
            stream.started = True
            if stream.run is not None:
                stream.run.start()
            self.running += 1
            at += 1


class _Rank:
    """Everything that belongs to one rank."""

    def __init__(self, engine: PythonEngine, rank: int) -> None:
        program = engine.program
        template = int(program.template_of_rank[rank])
        self.first, count, _ = program.templates[template].tolist()
        self.waiting = engine.parents[self.first : self.first + count]
        self.left = count
        self.free: list[list[int]] = [[], [], [], []]
        self.busy = [0, 0, 0, 0]
        self.queues = [_Queue() for _ in range(program.levels * program.queues_per_level)]
        half = program.queues_per_level // 2
        self.next_queue = [[0, 0, half] for _ in range(program.levels)]
        self.alternate = [0] * program.alternate_slots
        self.streams: dict[int, int] = {}
        self.priority = 0
        self.slots: dict[int, list[Action]] = {}
        self.bus: SharedBus | None = None
        if program.bus_model == BusModel.LOGGP:

            def register(delay_ns: int, action: Action) -> None:
                engine.register(rank, delay_ns * PS_PER_NS, action)

            self.bus = SharedBus(lambda: engine.now_ps // PS_PER_NS, register, program.loggp)


class _Graph:
    """A custom collective on one rank: a small dependency graph, without limits."""

    def __init__(self, engine: PythonEngine, stream: _Stream, graph: int) -> None:
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
            self.engine.send(rank, peer, size, tag, done, what)
        elif op == GraphOp.RECV:
            self.engine.receive(rank, peer, size, tag, done, what)
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


class PythonEngine:
    """Runs one Program on one network.

    Parameters
    ----------
    program : Program
    network : Network
    record_nodes : bool
        Whether to keep start and end of every node.
    progress : callable, optional
        Called now and then with a `Progress`.
    """

    def __init__(
        self,
        program: Program,
        network: Network,
        *,
        record_nodes: bool = True,
        progress: ProgressCallback | None = None,
    ) -> None:
        self.program, self.network, self.progress = program, network, progress
        self.now_ps = 0
        self.schedules = _Schedules(program)
        self.groups = program.groups.tolist()
        self.parents = program.nodes["parents"].tolist()
        self.nodes = program.nodes.tolist()
        self._positions: dict[int, dict[int, int]] = {}
        self._place = 0
        self._heap: list[tuple[int, int, int, list[Action]]] = []
        self._starts: list[tuple[int, ...]] = []
        self._in_flight: dict[int, _Message] = {}
        self._channels: dict[tuple[int, int, int, int], _Channel] = {}
        self._servers: dict[int, deque[tuple[int, int]]] = {}
        self._phases = program.phases.tolist()
        self._collectives = program.collectives.tolist()
        self._events = self._transfers = 0
        self._ordered = Capability.ORDERED in network.info.capabilities
        counts = program.templates["node_count"][program.template_of_rank]
        self._rank_node_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        total = int(self._rank_node_start[-1])
        self._nodes_done, self._nodes_total = 0, total
        recorded = total if record_nodes else 0
        self._start_ps = np.full(recorded, -1, np.int64)
        self._end_ps = np.full(recorded, -1, np.int64)
        self._record = record_nodes
        self._finish_ps = np.full(program.ranks, -1, np.int64)
        self._ranks = [_Rank(self, rank) for rank in range(program.ranks)]

    # Main loop

    def run(self) -> Outcome:
        """Run until nothing more can happen."""
        for rank in range(self.program.ranks):
            self._fire(rank)
        try:
            if self._ordered:
                self._run_ordered()
            else:
                self._run_unordered()
        except SimulationError as error:
            error.outcome = self._outcome()  # type: ignore[attr-defined]
            raise
        return self._outcome()

    def _run_ordered(self) -> None:
        """With a network that shares the order of events."""
        last = (TIME_NEVER, TIME_NEVER)
        network_next = last
        reported = time.monotonic()
        while True:
            ours = self._heap[0][:2] if self._heap else last
            # Transfers that start now are handed over before the first event behind them.
            due = self._starts and ours > (self.now_ps, self._starts[0][0])
            if due or network_next < ours:
                starts = np.array(self._starts, TRANSFER)
                self._starts.clear()
                step = self.network.exchange(starts, self.now_ps, *ours, self._place)
                self._place = step.place
                idle = step.next_ps == TIME_NEVER
                network_next = last if idle else (step.next_ps, step.next_place)
                for completion in step.completions.tolist():
                    self._complete(completion)
            elif self._heap:
                self._run_slot()
            else:
                return
            if self.progress is not None and time.monotonic() - reported > _PROGRESS_SECONDS:
                reported = time.monotonic()
                self._report()

    def _run_unordered(self) -> None:
        """With a network that only knows submit, advance and poll."""
        reported = time.monotonic()
        while True:
            if self._starts:
                starts = np.array(self._starts, TRANSFER)
                # What the network had no room for (R4) starts when it has.
                np.maximum(starts["start_ps"], self.now_ps, out=starts["start_ps"])
                accepted = self.network.submit(starts)
                del self._starts[:accepted]
            until = self._heap[0][0] if self._heap else TIME_NEVER
            if self._in_flight:
                step = self.network.advance(until, 0)
                completions = self.network.poll().tolist()
                self.now_ps = max(self.now_ps, step.now_ps)
                for completion in completions:
                    self._complete(completion)
                if completions or step.stop == Stop.COMPLETION:
                    continue
                if step.stop == Stop.IDLE and not self._heap:
                    return
            elif not self._heap:
                return
            now = self._heap[0][0]
            while self._heap and self._heap[0][0] == now:
                self._run_slot()
            if self.progress is not None and time.monotonic() - reported > _PROGRESS_SECONDS:
                reported = time.monotonic()
                self._report()

    def _run_slot(self) -> None:
        time_ps, _, rank, actions = heapq.heappop(self._heap)
        self.now_ps = time_ps
        # Grows while it runs: what a rank registers for now joins the running slot.
        for action in actions:
            self._events += 1
            action()
        if rank >= 0:
            del self._ranks[rank].slots[time_ps]

    def _complete(self, completion: tuple[int, ...]) -> None:
        transfer, time_ps, kind, outcome, _ = completion
        if kind != DELIVERED:
            return
        self.now_ps = time_ps
        self._events += 1
        message = self._in_flight.pop(transfer)
        if outcome:
            raise SimulationError(
                f"the network lost {message.bytes} bytes from rank {message.src} to rank "
                f"{message.dst} at {time_ps} ps"
            )
        self._delivered(message)

    def register(self, rank: int, delay_ps: int, action: Action) -> None:
        """Run ``action`` on a rank after a delay."""
        time_ps = self.now_ps + delay_ps
        if time_ps >= TIME_NEVER:
            raise SimulationError(
                f"an event {delay_ps} ps after {self.now_ps} ps is beyond the range of time "
                "(2^63 ps)"
            )
        slots = self._ranks[rank].slots
        if time_ps in slots:
            slots[time_ps].append(action)
        else:
            slots[time_ps] = [action]
            heapq.heappush(self._heap, (time_ps, self._draw(), rank, slots[time_ps]))

    def _register_alone(self, action: Action) -> None:
        """Run ``action`` now, after all that is already due now."""
        heapq.heappush(self._heap, (self.now_ps, self._draw(), -1, [action]))

    def _draw(self, count: int = 1) -> int:
        place = self._place
        self._place += count
        return place

    def _report(self) -> None:
        if self.progress is not None:
            self.progress(Progress(self.now_ps, self._events, self._nodes_done, self._nodes_total))

    # Messages

    def _message(self, key: tuple[int, int, int, int], number: int) -> _Message:
        channel = self._channels[key]
        if number not in channel.messages:
            channel.messages[number] = _Message(key[1], key[2], key[3])
        return channel.messages[number]

    def send(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_sent: Action | None,
        what: tuple[int, int],
    ) -> None:
        """Send; ``on_sent`` runs when the message has arrived."""
        if self.program.rendezvous_bytes:
            go = partial(self._send, rank, peer, size, tag, on_sent, what)
            control = self.program.rendezvous_bytes
            self._receive(rank, peer, control, tag | _CONTROL, go, what)
        else:
            self._send(rank, peer, size, tag, on_sent, what)

    def receive(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_received: Action,
        what: tuple[int, int],
    ) -> None:
        """Post a receive; ``on_received`` runs when it is complete."""
        if self.program.rendezvous_bytes:
            go = partial(self._receive, rank, peer, size, tag, on_received, what)
            control = self.program.rendezvous_bytes
            self._send(rank, peer, control, tag | _CONTROL, go, what)
        else:
            self._receive(rank, peer, size, tag, on_received, what)

    def _send(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_sent: Action | None,
        what: tuple[int, int],
    ) -> None:
        key = (tag, rank, peer, size)
        channel = self._channels.setdefault(key, _Channel())
        message = self._message(key, channel.sent)
        message.sent, message.on_sent = True, on_sent
        if message.on_received is not None:
            # Both sides are here: nobody needs to find it any more.
            del channel.messages[channel.sent]
        else:
            message.what = what
        channel.sent += 1
        transfer = self._draw(PLACES_PER_TRANSFER)
        self._starts.append((transfer, self.now_ps, size, rank, peer, 0, 0, 0))
        self._in_flight[transfer] = message
        self._transfers += 1

    def _receive(
        self,
        rank: int,
        peer: int,
        size: int,
        tag: int,
        on_received: Action,
        what: tuple[int, int],
    ) -> None:
        key = (tag, peer, rank, size)
        channel = self._channels.setdefault(key, _Channel())
        message = self._message(key, channel.received)
        message.on_received = on_received
        if message.sent:
            del channel.messages[channel.received]
        else:
            message.what = what
        channel.received += 1
        if message.arrived:
            self._register_alone(on_received)

    def _delivered(self, message: _Message) -> None:
        message.arrived = True
        received = message.on_received
        if message.on_sent is not None:
            message.on_sent()
        if received is not None:
            received()

    # Buses

    def cross_bus(self, rank: int, bus: int, size: int, flags: int, done: Action) -> None:
        """Move data between NPU and memory, then go on with ``done``."""
        shared = self._ranks[rank].bus
        if bus == Bus.ENDPOINT and shared is not None:
            move = shared.to_memory if flags & PacketFlag.TO_MEMORY else shared.to_npu
            reduced, back = bool(flags & PacketFlag.REDUCED), bool(flags & PacketFlag.SEND_BACK)
            move(size, reduced, back, done)
        elif bus == Bus.NONE:
            done()
        else:
            fast = bus == Bus.FAST
            delay_ps = self.program.fast_delay_ps if fast else self.program.endpoint_delay_ps
            self.register(rank, delay_ps, done)

    # Collectives

    def position(self, group: int, rank: int) -> int:
        """Position of a rank in a group."""
        size, stride, start, _ = self.groups[group]
        if stride:
            return int(rank // stride % size)
        if group not in self._positions:
            members = self.program.members[start : start + size].tolist()
            self._positions[group] = {member: i for i, member in enumerate(members)}
        return self._positions[group][rank]

    def _issue_collective(self, rank: int, node: int, index: int) -> None:
        chunks, plan_start, plan_count, group, priority, graph, _, _ = self._collectives[index]
        state = self._ranks[rank]
        if self.program.policy == Policy.LIFO:
            priority = state.priority
            state.priority += 1
        elif self.program.policy == Policy.FIFO:
            priority = state.priority
            state.priority -= 1
        left = [chunks]

        def on_end() -> None:
            left[0] -= 1
            if left[0] == 0:
                self._node_done(rank, node)

        for chunk in range(chunks):
            number = state.streams.get(group, 0)
            state.streams[group] = number + 1
            stream = _Stream(rank, index, self.groups[group][3] + number, priority, on_end)
            if graph >= 0:
                # Custom collectives use queue 0 of the rank.
                which = int(self.program.graph_of_position[graph + self.position(group, rank)])
                stream.phases.append((0, _Graph(self, stream, which)))
            else:
                self._choose_phases(stream, plan_start + chunk % plan_count)
            self.next_phase(stream)

    def _choose_phases(self, stream: _Stream, plan: int) -> None:
        """Choose queue and schedule of every phase when the stream is made, as ASTRA-sim does."""
        state, program = self._ranks[stream.rank], self.program
        per_level = program.queues_per_level
        half = per_level // 2
        start, count = program.plans[plan].tolist()
        for phase in self._phases[start : start + count]:
            level, layout, family0, family1, slot, pick, variant, _ = phase
            counters = state.next_queue[level]
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
                second = bool(state.alternate[slot] % 2)
                state.alternate[slot] += 1
            schedule, positions = program.families[family1 if second else family0].tolist()
            if positions > 1:
                schedule += self.position(layout, stream.rank)
            run = _Run(self, stream, phase, schedule)
            stream.phases.append((level * per_level + queue, run))

    def next_phase(self, stream: _Stream) -> None:
        """End the current phase, if any, and enter the next one, if any."""
        state, limit = self._ranks[stream.rank], self.program.streams_per_queue
        previous = stream.queue
        last = not stream.phases
        if last:
            # The collective may end here, and its rank may issue the next one at once.
            stream.on_end()
        if previous >= 0:
            state.queues[previous].streams.remove(stream)
        if not last:
            stream.queue, stream.run = stream.phases.popleft()
            stream.started = False
            state.queues[stream.queue].insert(stream)
        if previous >= 0:
            state.queues[previous].running -= 1
            state.queues[previous].fill(limit)
        if not last:
            state.queues[stream.queue].fill(limit)

    # Nodes

    def _fire(self, rank: int) -> None:
        state = self._ranks[rank]
        for node, parents in enumerate(state.waiting):
            if parents == 0:
                heapq.heappush(state.free[self.nodes[state.first + node][6]], node)
        self._issue_free(rank)
        if state.left == 0 and self._finish_ps[rank] < 0:
            self._finish_ps[rank] = 0

    def _issue_free(self, rank: int) -> None:
        """Issue free nodes in ascending order, as far as what they occupy is free.

        Nodes that become free meanwhile (after one that completes at once) come in a next pass.
        """
        state, capacity = self._ranks[rank], self.program.unit_capacity
        while True:
            issued = []
            taken = [0, 0, 0, 0]
            for unit in range(4):
                room = int(capacity[unit]) - state.busy[unit]
                while state.free[unit] and taken[unit] < room:
                    issued.append(heapq.heappop(state.free[unit]))
                    taken[unit] += 1
            if not issued:
                return
            done_at_once = False
            for node in sorted(issued):
                done_at_once |= self._issue(rank, node)
            if not done_at_once:
                return

    def _issue(self, rank: int, node: int) -> bool:
        """Issue a node; True where it is complete at once."""
        state = self._ranks[rank]
        duration_ps, _, _, arg, _, op, unit = self.nodes[state.first + node]
        if self._record:
            self._start_ps[self._rank_node_start[rank] + node] = self.now_ps
        state.busy[unit] += 1
        done = partial(self._node_done, rank, node)
        if op == Op.NOTHING:
            self._complete_node(rank, node)
            return True
        if op == Op.DELAY:
            self.register(rank, duration_ps, done)
        elif op == Op.COLLECTIVE:
            self._issue_collective(rank, node, arg)
        elif op == Op.MEMORY:
            self._access_memory(rank, node, duration_ps)
        else:
            size, peer, tag = self.program.messages[arg].tolist()
            act = self.send if op == Op.SEND else self.receive
            act(rank, peer, size, tag, done, (node, -1))
        return False

    def _node_done(self, rank: int, node: int) -> None:
        self._complete_node(rank, node)
        self._issue_free(rank)
        if self._ranks[rank].left == 0 and self._finish_ps[rank] < 0:
            self._finish_ps[rank] = self.now_ps

    def _complete_node(self, rank: int, node: int) -> None:
        state = self._ranks[rank]
        row = self.nodes[state.first + node]
        if self._record:
            self._end_ps[self._rank_node_start[rank] + node] = self.now_ps
        state.busy[row[6]] -= 1
        state.left -= 1
        self._nodes_done += 1
        for child in self.program.children[row[1] : row[1] + row[2]].tolist():
            state.waiting[child] -= 1
            if state.waiting[child] == 0:
                heapq.heappush(state.free[self.nodes[state.first + child][6]], child)

    # Remote memory

    def _access_memory(self, rank: int, node: int, duration_ps: int) -> None:
        server = int(self.program.memory_server[rank])
        if server < 0:
            self.register(rank, duration_ps, partial(self._node_done, rank, node))
            return
        if server in self._servers:
            self._servers[server].append((rank, node))
        else:
            self._servers[server] = deque()
            self._serve(server, rank, node)

    def _serve(self, server: int, rank: int, node: int) -> None:
        duration_ps = self.nodes[self._ranks[rank].first + node][0]
        self.register(rank, duration_ps, partial(self._node_done, rank, node))
        self.register(rank, duration_ps, partial(self._served, server))

    def _served(self, server: int) -> None:
        if self._servers[server]:
            self._serve(server, *self._servers[server].popleft())
        else:
            del self._servers[server]

    # Result

    def _outcome(self) -> Outcome:
        self._report()
        return Outcome(
            finish_ps=self._finish_ps,
            node_start_ps=self._start_ps,
            node_end_ps=self._end_ps,
            rank_node_start=self._rank_node_start,
            events=self._events,
            transfers=self._transfers,
            waits=self._waits(),
        )

    def _waits(self) -> Any:
        rows = []
        for (_, src, dst, size), channel in self._channels.items():
            for message in channel.messages.values():
                if message.sent:
                    # Delivered, but nobody has asked for it.
                    rows.append((src, dst, size, *message.what, 2))
                else:
                    rows.append((dst, src, size, *message.what, 0))
        rows += [
            (message.src, message.dst, message.bytes, *message.what, 1)
            for message in self._in_flight.values()
        ]
        return np.array(rows, WAIT)
