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
from collections import deque
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from astra_bridge.engine.bus import SharedBus
from astra_bridge.engine.messages import Action, Messages
from astra_bridge.engine.outcome import Outcome, Progress, ProgressCallback
from astra_bridge.engine.streams import Graph, Queue, Run, Schedules, Stream
from astra_bridge.engine.ticker import Ticker
from astra_bridge.errors import Interrupted, SimulationError
from astra_bridge.network.api import (
    DELIVERED,
    TIME_NEVER,
    TRANSFER,
    Advance,
    Capability,
    Network,
    Status,
)
from astra_bridge.network.boundary import Boundary
from astra_bridge.program import (
    Bus,
    BusModel,
    Op,
    PacketFlag,
    Policy,
    Program,
    QueuePick,
    Variant,
)
from astra_bridge.units import PS_PER_NS

__all__ = ["PythonEngine"]


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
        self.queues = [Queue() for _ in range(program.levels * program.queues_per_level)]
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
        self._boundary = Boundary(network.info)
        self._ticker = Ticker(network)
        self.now_ps = 0
        self.schedules = Schedules(program)
        self.groups = program.groups.tolist()
        self.parents = program.nodes["parents"].tolist()
        self.nodes = program.nodes.tolist()
        self._positions: dict[int, dict[int, int]] = {}
        self._place = 0
        self._heap: list[tuple[int, int, int, list[Action]]] = []
        self.messages = Messages(self, program.rendezvous_bytes)
        self._servers: dict[int, deque[tuple[int, int]]] = {}
        self._phases = program.phases.tolist()
        self._collectives = program.collectives.tolist()
        self._events = self._relieved = 0
        self._agreed: dict[tuple[int, int, int], list[int]] = {}  # see _agree
        self._network_ps = 0  # how far advance has got; the engine may be ahead
        self._full = False  # the network had no room for the last transfers (R4)
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
        try:
            with self._ticker:
                for rank in range(self.program.ranks):
                    self._fire(rank)
                    self._tick()
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
        while True:
            ours = self._heap[0][:2] if self._heap else last
            # Transfers that start now are handed over before the first event behind them.
            due = self.messages.starts and ours > (self.now_ps, self.messages.starts[0][0])
            if due or network_next < ours:
                network_next = self._exchange(*ours)
            elif self._heap:
                self._run_slot()
            elif self.messages.in_flight:
                # The network says that no event is left: it has to say what became of these (R13).
                network_next = self._exchange(*last)
            elif not self._relieve():
                return
            self._tick()

    def _exchange(self, until_ps: int, until_place: int) -> tuple[int, int]:
        """Give the network what starts now, run it, react; returns the key of its next event."""
        starts = np.array(list(self.messages.starts), TRANSFER)
        self.messages.starts.clear()
        in_flight = self.messages.in_flight
        arguments = (self.now_ps, until_ps, until_place, self._place)
        step = self._boundary.exchanged(
            self.network.exchange(starts, *arguments), *arguments, len(in_flight)
        )
        self._place = step.place
        self._react("exchange", self.now_ps, step.now_ps, step.completions.tolist())
        idle = step.next_ps == TIME_NEVER
        return (TIME_NEVER, TIME_NEVER) if idle else (step.next_ps, step.next_place)

    def _react(self, call: str, before_ps: int, now_ps: int, records: list[Any]) -> None:
        boundary, in_flight = self._boundary, self.messages.in_flight
        boundary.start_records(before_ps)
        for item, row in enumerate(records):
            boundary.record(call, item, row, now_ps, in_flight)
            self._complete(call, row)

    def _run_unordered(self) -> None:
        """With a network that only knows submit, advance and poll."""
        while True:
            self._submit()
            if self.messages.in_flight:
                until_ps = self._heap[0][0] if self._heap else TIME_NEVER
                if self._advance(until_ps):
                    continue
            elif not self._heap:
                if self._relieve():
                    continue
                return
            now = self._heap[0][0]
            while self._heap and self._heap[0][0] == now:
                self._run_slot()
            self._tick()

    def _submit(self) -> None:
        """Give the network what starts now, unless it has no room (R4) and nothing has left it.

        No more than it has room for is offered: thousands may wait.
        """
        starts, messages = self.messages.starts, self.messages
        while starts:
            in_network = len(messages.in_flight) - len(starts)
            if self._full and in_network:
                return
            room = max(1, self.network.info.max_in_flight - in_network)
            items = np.array(list(islice(starts, room)), TRANSFER)
            # What there was no room for starts when there is.
            np.maximum(items["start_ps"], self.now_ps, out=items["start_ps"])
            accepted = self._boundary.submitted(self.network.submit(items), len(items), in_network)
            self._full = accepted < len(starts)
            for _ in range(accepted):
                starts.popleft()

    def _advance(self, until_ps: int) -> bool:
        """Run the network to its next completions, and react; False where there was none."""
        before_ps, idle_interrupts = self._network_ps, 0
        parts = []
        in_network = len(self.messages.in_flight) - len(self.messages.starts)
        target_ps, count = until_ps, 0
        while True:
            self._ticker.enter()
            try:
                step: Advance | None = self._boundary.advanced(
                    self.network.advance(target_ps, 0), before_ps, target_ps
                )
            except Interrupted as error:
                known = error.now_ps >= 0
                now_ps = error.now_ps if known else before_ps
                now_ps = self._boundary.reached(now_ps, before_ps, target_ps)
                moved = now_ps > before_ps
                idle_interrupts = self._boundary.interrupted(moved, idle_interrupts)
                step = None
            finally:
                self._ticker.leave()
            if step is not None:
                now_ps = step.now_ps
            # Drain everything first: answers to the first completion must not change the rest.
            records = self._boundary.polled(self.network.poll(), in_network, count)
            parts.append(records)
            count += len(records)
            if step is not None:
                self._boundary.settled(step, target_ps, len(records), in_network)
                break
            before_ps = now_ps
            if count:
                target_ps = now_ps  # what is left of this instant (R6)
            self._tick(now_ps)
        self._full = self._full and not count
        self._network_ps = now_ps
        before_ps, self.now_ps = self.now_ps, max(self.now_ps, now_ps)
        self._react("poll", before_ps, now_ps, np.concatenate(parts).tolist())
        return count > 0

    def _relieve(self) -> bool:
        """When nothing can go on: start a waiting chunk in every queue that has one.

        Chunks of a hierarchical collective may come to the queues of different ranks in different
        orders, and then wait for one another where a queue runs few at a time.  ASTRA-sim never
        ends there.
        """
        started = sum(queue.relieve() for rank in self._ranks for queue in rank.queues)
        self._relieved += started
        return started > 0

    def _run_slot(self) -> None:
        time_ps, _, rank, actions = heapq.heappop(self._heap)
        self.now_ps = time_ps
        # Grows while it runs: what a rank registers for now joins the running slot.
        for action in actions:
            self._events += 1
            action()
        if rank >= 0:
            del self._ranks[rank].slots[time_ps]

    def _complete(self, call: str, completion: tuple[int, ...]) -> None:
        transfer, time_ps, kind, outcome, _ = completion
        if kind != DELIVERED:
            return
        self.now_ps = time_ps
        self._events += 1
        if outcome:
            message = self.messages.in_flight[transfer]
            raise SimulationError(
                f"{self.network.info.name}: the network lost {message.bytes} bytes from rank "
                f"{message.src} to rank {message.dst} at {time_ps} ps",
                backend=self.network.info.name,
                call=call,
                status=Status.MODEL,
            )
        self.messages.delivered(transfer)

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
            heapq.heappush(self._heap, (time_ps, self.draw(), rank, slots[time_ps]))

    def register_alone(self, action: Action) -> None:
        """Run ``action`` now, after all that is already due now."""
        heapq.heappush(self._heap, (self.now_ps, self.draw(), -1, [action]))

    def draw(self, count: int = 1) -> int:
        """Draw places in the order inside one instant; the first one is returned."""
        place = self._place
        self._place += count
        return place

    def _tick(self, now_ps: int = -1) -> None:
        if self._ticker.due:
            self._ticker.due = False
            self._report(now_ps)

    def _report(self, now_ps: int = -1) -> None:
        if self.progress is not None:
            now_ps = max(now_ps, self.now_ps)
            self.progress(Progress(now_ps, self._events, self._nodes_done, self._nodes_total))

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
            stream = Stream(rank, index, self.groups[group][3] + number, priority, on_end)
            if graph >= 0:
                # Custom collectives use queue 0 of the rank.
                which = int(self.program.graph_of_position[graph + self.position(group, rank)])
                stream.phases.append((0, Graph(self, stream, which)))
            else:
                self._choose_phases(stream, plan_start + chunk % plan_count)
            self.next_phase(stream)

    def _choose_phases(self, stream: Stream, plan: int) -> None:
        """Choose queue and schedule of every phase when the stream is made, as ASTRA-sim does."""
        state, program = self._ranks[stream.rank], self.program
        per_level = program.queues_per_level
        half = per_level // 2
        start, count = program.plans[plan].tolist()
        for index, phase in enumerate(self._phases[start : start + count]):
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
            elif variant == Variant.AGREED and pick == QueuePick.NEXT and per_level > 1:
                second = self._agree(stream, index, layout, second)
            schedule, positions = program.families[family1 if second else family0].tolist()
            if positions > 1:
                schedule += self.position(layout, stream.rank)
            run = Run(self, stream, phase, schedule)
            stream.phases.append((level * per_level + queue, run))

    def _agree(self, stream: Stream, phase: int, layout: int, second: bool) -> bool:
        """Go the way round that the first member of the layout took in this phase of this chunk.

        Ranks that have issued unequal numbers of collectives, in overlapping groups, are at
        different queues of a dimension, and so would go different ways.  ASTRA-sim never ends
        there.
        """
        size, stride, _, _ = self.groups[layout]
        first = stream.rank - self.position(layout, stream.rank) * stride if stride else 0
        agreed = self._agreed.setdefault((stream.tag, phase, first), [int(second), size])
        agreed[1] -= 1
        if agreed[1] == 0:
            del self._agreed[stream.tag, phase, first]
        return bool(agreed[0])

    def next_phase(self, stream: Stream) -> None:
        """End the current phase, if any, and enter the next one, if any."""
        state, limit = self._ranks[stream.rank], self.program.streams_per_queue
        previous = stream.queue
        last = not stream.phases
        if last:
            # The collective may end here, and its rank may issue the next one at once.
            stream.on_end()
        if not last:
            stream.queue, stream.run = stream.phases.popleft()
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
            act = self.messages.send if op == Op.SEND else self.messages.receive
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
            transfers=self.messages.transfers,
            relieved=self._relieved,
            waits=self.messages.waits(),
        )
