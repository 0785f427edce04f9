# SPDX-License-Identifier: MIT
"""The reference engine: readable Python, no compiler needed.

The native engine does exactly the same, event by event; a property test holds the two together.

Order of events
---------------
ASTRA-sim has one queue for network and system events: by time, then by when an event was
scheduled.  Each event here has a key (time, place), where places are drawn from one counter that
is shared with the network (docs/contract.md).  Events of one rank at one time form a *slot*, whose
place is drawn when its first event is registered; all of a slot's events run together, including
those registered while it runs.  What the Program has at a fixed time (a task that starts, a rank
that becomes slower) comes before all else of that instant, so that it does not matter when the
engine learns of it.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from astra_bridge.engine.actions import (
    ARRIVED,
    BUS_CROSSED,
    BUS_REDUCED,
    NODE_DONE,
    RENDEZVOUS,
    SERVED,
    SHARED_BUS,
    Action,
)
from astra_bridge.engine.bus import Half, Request, SharedBus
from astra_bridge.engine.folding import FIRST_STREAM, Folding
from astra_bridge.engine.kept import Kept
from astra_bridge.engine.messages import CONTROL, Message, Messages
from astra_bridge.engine.outcome import (
    Outcome,
    Progress,
    ProgressCallback,
    Stop,
    Watch,
    Waves,
)
from astra_bridge.engine.streams import GraphRun, Queue, Stream, Streams
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
from astra_bridge.program import DONE, Bus, BusModel, Inside, Op, PacketFlag, Program
from astra_bridge.sealed import seal, unseal
from astra_bridge.units import PS_PER_NS

__all__ = ["PythonEngine"]

_MOST_PS = 9.2e18


class Task:
    """A trace on a rank."""

    __slots__ = ("first", "first_record", "left", "origin", "rank", "waiting")

    def __init__(
        self, rank: int, origin: int, first: int, first_record: int, waiting: list[int]
    ) -> None:
        self.rank, self.first, self.first_record = rank, first, first_record
        self.origin = origin  # rank of the job that peers of messages are counted from
        self.waiting, self.left = waiting, len(waiting)


class Rank:
    """What belongs to one rank."""

    __slots__ = ("busy", "free", "left", "slots", "slowdown")

    def __init__(self) -> None:
        self.left = 0  # nodes of all its tasks
        self.slowdown = 1.0
        self.free: list[list[tuple[int, int]]] = [[], [], [], []]  # heaps of (task, node)
        self.busy = [0, 0, 0, 0]
        self.slots: dict[int, list[Action]] = {}


class PythonEngine:
    """Runs a Program on a network.

    Parameters
    ----------
    program : Program
    network : Network
    record_nodes : bool
        Whether to keep start and end of every node.
    inside : Inside
        What to keep of what goes on inside collectives.
    folded : sequence of (stride, size)
        Digits in which the ranks are alike: see `astra_bridge.engine.folding`.
    """

    name = "python"
    STATE = ("_arrivals", "_done", "_end_ps", "_events", "_finish_ps", "_full", "_heap",
             "_network_next", "_network_ps", "_nodes_done", "_place", "_ranks", "_servers",
             "_start_ps", "_task_finish_ps", "_tasks", "now_ps")  # fmt: skip
    """What changes, as plain data; besides that of messages, streams, buses and boundary."""

    def __init__(
        self,
        program: Program,
        network: Network,
        *,
        record_nodes: bool = True,
        inside: Inside = Inside.NOTHING,
        folded: Sequence[tuple[int, int]] = (),
        waves: Waves | None = None,  # noqa: ARG002 - all phases are events
        by_number: bool = True,  # noqa: ARG002 - all messages are searched for
    ) -> None:
        self.folding = Folding(folded, program.ranks) if folded else None
        # Arrivals of one chunk may change places, as all packets cross a bus.
        self._interchange = not (program.phases["bus"] == Bus.NONE).any()
        self.program, self.network = program, network
        self._boundary = Boundary(network.info)
        self._ordered = Capability.ORDERED in network.info.capabilities
        self._record = record_nodes
        self.kept = Kept(inside)
        self._progress: ProgressCallback | None = None
        self._ticker = Ticker(network)  # of this call of advance
        self._watch, self._stop, self._paused = Watch.NOTHING, False, False
        self.now_ps = self._place = self._events = self._nodes_done = 0
        self._freed = 0  # nodes that the end of another one has made free
        self._heap: list[tuple[int, int, int, list[Action]]] = []
        # (time, is it a task, index), ascending
        self._arrivals: deque[tuple[int, bool, int]] = deque()
        self._network_next = (TIME_NEVER, TIME_NEVER)
        self._network_ps = 0  # how far advance has got; the engine may be ahead
        self._full = False  # the network had no room for the last transfers (R4)
        self._servers: dict[int, deque[tuple[int, int]]] = {}
        self._done: list[tuple[int, int, int]] = []
        self._finish_ps = [0] * program.ranks
        self._task_finish_ps: list[int] = []
        self._start_ps: list[int] = []
        self._end_ps: list[int] = []
        self._ranks = [Rank() for _ in range(program.ranks)]
        self._tasks: list[Task] = []
        self._task_node_start = [0]
        self._slowdowns = 0
        self.messages = Messages(self, program.rendezvous_bytes)
        self.streams = Streams(self)
        self._buses: list[SharedBus] = []
        machines = program.machines[program.machine_of_rank]
        if (machines["bus_model"] == BusModel.LOGGP).any():
            loggp = machines[["L_ns", "o_ns", "g_ns", "G_ns_per_byte", "reduction_ns"]].tolist()
            self._buses = [SharedBus(self, rank, one) for rank, one in enumerate(loggp)]
        # By what an action is.
        self._acts = (
            self.node_done,
            self.streams.arrived,
            self.streams.graph_done,
            self.messages.meet,
            self.streams.processed,
            self.streams.crossed,
            self._served,
            self._bus_event,
        )
        self._grow()

    def append(self, fragment: Program, program: Program) -> None:  # noqa: ARG002
        """More work: ``program`` is all of it, whose last part ``fragment`` is."""
        self.program = program
        self.streams.read()
        self._grow()

    def _grow(self) -> None:
        """Make state for what is new in the Program."""
        program = self.program
        self._nodes = program.nodes.tolist()
        machines = program.machines[program.machine_of_rank]
        self._capacity = machines["unit_capacity"].tolist()
        self._delay_ps: dict[int, list[int]] = {
            Bus.ENDPOINT: machines["endpoint_delay_ps"].tolist(),
            Bus.FAST: machines["fast_delay_ps"].tolist(),
        }
        self._shared = (machines["bus_model"] == BusModel.LOGGP).tolist()
        parents = program.nodes["parents"].tolist()
        ranks = program.rank_of_task.tolist()
        if self.folding is not None:
            ranks = [self.folding.index_of(rank) for rank in ranks]
        new: list[tuple[int, bool, int]] = []
        for index in range(len(self._tasks), len(program.tasks)):
            start_ps, _, job_rank, template = program.tasks[index].tolist()
            first, count, _, relative = program.templates[template].tolist()
            rank = ranks[index]
            record = self._task_node_start[-1]
            origin = job_rank if relative else 0
            self._tasks.append(Task(rank, origin, first, record, parents[first : first + count]))
            self._task_node_start.append(record + count)
            self._task_finish_ps.append(-1)
            self._ranks[rank].left += count
            self._finish_ps[rank] = -1
            new.append((start_ps, True, index))
        slowdowns = program.slowdowns["at_ps"].tolist()
        new += [
            (slowdowns[index], False, index) for index in range(self._slowdowns, len(slowdowns))
        ]
        self._slowdowns = len(slowdowns)
        self._arrivals = deque(sorted([*self._arrivals, *new]))
        if self._record:
            more = self._task_node_start[-1] - len(self._start_ps)
            self._start_ps += [-1] * more
            self._end_ps += [-1] * more

    # What a session asks for

    def missed(self) -> bool:
        """Whether messages that meet by number still wait: none do."""
        return False

    def advance(self, until_ps: int, progress: ProgressCallback | None) -> Stop:
        """Run everything before ``until_ps``, or to the end of the instant of what is watched."""
        self._progress, self._stop, self._paused = progress, False, False
        try:
            with Ticker(self.network) as ticker:
                self._ticker = ticker
                if self._ordered:
                    self._run_ordered(until_ps)
                else:
                    self._run_unordered(until_ps)
        except SimulationError as error:
            error.outcome = self.outcome()
            raise
        if self._stop:
            return Stop.PAUSED if self._paused else Stop.DONE
        if until_ps == TIME_NEVER or not self._pending():
            return Stop.IDLE
        self.now_ps = max(self.now_ps, until_ps)
        return Stop.REACHED

    def _pending(self) -> bool:
        return bool(self._heap or self._arrivals or self.messages.in_flight)

    def watch(self, what: Watch) -> None:
        self._watch = what

    def poll(self) -> Any:
        done, self._done = self._done, []
        return np.array(done, DONE)

    def progress(self) -> Progress:
        total = self._task_node_start[-1]
        return Progress(self.now_ps, self._events, self._nodes_done, total)

    def outcome(self, *, last: bool = False) -> Outcome:  # noqa: ARG002
        return Outcome(
            finish_ps=np.array(self._finish_ps, np.int64),
            task_finish_ps=np.array(self._task_finish_ps, np.int64),
            node_start_ps=np.array(self._start_ps, np.int64),
            node_end_ps=np.array(self._end_ps, np.int64),
            task_node_start=np.array(self._task_node_start, np.int64),
            events=self._events,
            transfers=self.messages.transfers,
            relieved=self.streams.relieved,
            waits=self.messages.waits(),
            stays=self.kept.stays(),
            deliveries=self.kept.deliveries(),
            ties=0 if self.folding is None else self.folding.ties,
            first_tie=(-1, -1) if self.folding is None else self.folding.first_tie,
        )

    def copy(self, network: Network) -> PythonEngine:
        """The same state on a copy of the network."""
        other = PythonEngine(
            self.program, network, record_nodes=self._record, inside=self.kept.inside
        )
        other.load(self.save())
        other.kept = self.kept.copy()
        return other

    def _parts(self) -> list[Any]:
        return [self, self.messages, self.streams, self._boundary, *self._buses]

    def save(self) -> bytes:
        """All that changes, as bytes."""
        # One object graph: a message in flight is also in its channel.
        state = [{name: getattr(part, name) for name in part.STATE} for part in self._parts()]
        return seal((int(self._watch), state), self.name)

    def load(self, data: bytes) -> None:
        """Go on from what `save` gave, of an engine with the same Program.

        Raises
        ------
        ValueError
            The bytes are damaged, or those of another engine.
        """
        watch, state = unseal(data, self.name, _CLASSES)
        self._watch = Watch(watch)
        for part, values in zip(self._parts(), state, strict=True):
            for name in part.STATE:
                setattr(part, name, values[name])

    # Main loop

    def _arrive(self) -> None:
        """What comes at a fixed time comes before all else of that instant."""
        self._now_is(self._arrivals[0][0])
        while self._arrivals and self._arrivals[0][0] == self.now_ps:
            _, is_task, index = self._arrivals.popleft()
            if is_task:
                self._fire(index)
                self._tick()
            else:
                _, factor, rank = self.program.slowdowns[index].tolist()
                self._ranks[rank].slowdown = factor

    def _run_ordered(self, until_ps: int) -> None:
        """With a network that shares the order of events."""
        never = (TIME_NEVER, TIME_NEVER)
        heap, starts, arrivals, ticker = (
            self._heap, self.messages.starts, self._arrivals, self._ticker
        )  # fmt: skip
        while not self._stop:
            ours = heap[0][:2] if heap else never
            # At a fixed time, places begin at 0.
            fixed_ps = arrivals[0][0] if arrivals and arrivals[0][0] < until_ps else until_ps
            fixed = fixed_ps <= ours[0] and fixed_ps != TIME_NEVER
            if fixed:
                ours = (fixed_ps, 0)
            # Transfers that start now are handed over before the first event behind them.
            due = starts and ours > (self.now_ps, starts[0][0])
            if due or self._network_next < ours:
                self._exchange(*ours)
            elif fixed:
                if fixed_ps == until_ps:
                    return
                self._arrive()
            elif heap:
                self._run_slot()
            elif self.messages.in_flight:
                # The network says that no event is left: it has to say what became of these (R13).
                self._exchange(*never)
            elif not self.streams.relieve():
                return
            if ticker.due:
                self._tick()

    def _exchange(self, until_ps: int, until_place: int) -> None:
        """Give the network what starts now, run it, react."""
        starts = np.array(list(self.messages.starts), TRANSFER)
        self.messages.starts.clear()
        in_flight = self.messages.in_flight
        arguments = (self.now_ps, until_ps, until_place, self._place)
        step = self._boundary.exchanged(
            self.network.exchange(starts, *arguments), *arguments, len(in_flight)
        )
        self._place = step.place
        idle = step.next_ps == TIME_NEVER
        self._network_next = (step.next_ps, TIME_NEVER if idle else step.next_place)
        self._react("exchange", self.now_ps, step.now_ps, step.completions.tolist())

    def _react(self, call: str, before_ps: int, now_ps: int, records: list[Any]) -> None:
        """Do what follows from completions."""
        boundary, messages, acts = self._boundary, self.messages, self._acts
        boundary.start_records(before_ps)
        for item, row in enumerate(records):
            if self.folding is not None:
                waited_ps, row = row[4], (*row[:4], 0)
            boundary.record(call, item, row, now_ps, messages.in_flight)
            transfer, time_ps, kind, outcome, _ = row
            if kind != DELIVERED:
                continue
            self._now_is(time_ps)
            self._events += 1
            if outcome:
                self._lost(call, transfer)
            if self.folding is not None:
                self._deliver_noted(self.folding, transfer, waited_ps)
                continue
            for action in messages.delivered(transfer):
                if action is not None:
                    what, a, b = action
                    acts[what](a, b)

    def _run_unordered(self, until_ps: int) -> None:
        """With a network that only knows submit, advance and poll."""
        while not self._stop:
            self._tick()
            self._submit()
            slot_ps = self._heap[0][0] if self._heap else TIME_NEVER
            arrival_ps = self._arrivals[0][0] if self._arrivals else TIME_NEVER
            ours_ps = min(slot_ps, arrival_ps)
            if self.messages.in_flight:
                if self._advance_network(min(ours_ps, until_ps)):
                    continue
            elif ours_ps == TIME_NEVER:
                if until_ps == TIME_NEVER and self.streams.relieve():
                    continue
                return
            if ours_ps >= until_ps:
                return
            if arrival_ps == ours_ps:
                self._arrive()
                continue
            while not self._stop and self._heap and self._heap[0][0] == ours_ps:
                self._run_slot()

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

    def _advance_network(self, until_ps: int) -> bool:
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

    def _run_slot(self) -> None:
        time_ps, place, rank, actions = heapq.heappop(self._heap)
        self._now_is(time_ps)
        if self.folding is not None:
            self._note_slot(self.folding, place, rank, actions[0])
        # Grows while it runs: what a rank registers for now joins the running slot.
        acts = self._acts
        for kind, a, b in actions:
            self._events += 1
            acts[kind](a, b)
        if rank >= 0:
            del self._ranks[rank].slots[time_ps]

    def _now_is(self, now_ps: int) -> None:
        self.now_ps = now_ps
        if self.folding is not None:
            self.folding.at(self._place, now_ps)

    def _deliver_noted(self, folding: Folding, transfer: int, waited_ps: int) -> None:
        """A delivery got its place so long after its start; note whom it happens to."""
        message = self.messages.in_flight[transfer]
        receiver = folding.index_of(message.dst)
        doubtful = self._note_delivery(folding, message, waited_ps)
        sent, received = self.messages.delivered(transfer)
        if sent is not None:
            self.run(sent)
        freed = self._freed
        if received is not None:
            self.run(received)
            if received[0] == NODE_DONE and freed == self._freed:
                node = received[1:]
                task = self._tasks[node[0]]
                unit = self._nodes[task.first + node[1]][6]
                if self._capacity[task.rank][unit] >= self._task_node_start[-1]:
                    folding.quiet(receiver, node)
                    return
        folding.loud(receiver, doubtful, self._children_wait)

    def _children_wait(self, node: tuple[int, int]) -> bool:
        task = self._tasks[node[0]]
        row = self._nodes[task.first + node[1]]
        children = self.program.children[row[1] : row[1] + row[2]].tolist()
        return all(task.waiting[child] > 0 for child in children)

    def _note_delivery(self, folding: Folding, message: Message, waited_ps: int) -> bool:
        """Whether the order of a delivery is in doubt at whom it is for."""
        drawn_ps = message.start_ps + waited_ps
        # What is sent at once has the place that its sender drew.
        at_once = waited_ps == 0
        received = message.on_received
        of_stream = (
            self._interchange
            and FIRST_STREAM <= message.tag < CONTROL
            and message.on_sent is None
            and (received is None or received[0] == ARRIVED)
        )
        if message.on_sent is not None:
            index = folding.index_of(message.src)
            actor = folding.ranks[index] if at_once else -1
            folding.loud(index, folding.happens(index, self.now_ps, drawn_ps, actor, -1))
        actor, stream = message.src if at_once else -1, message.tag if of_stream else -1
        index = folding.index_of(message.dst)
        return folding.happens(index, self.now_ps, drawn_ps, actor, stream)

    def _note_slot(self, folding: Folding, place: int, rank: int, action: Action) -> None:
        """A slot runs."""
        if rank < 0:  # it stands alone
            what, a, b = action
            if what == NODE_DONE:
                rank = self._tasks[a].rank
            elif what == RENDEZVOUS:
                rank = self.messages.held_by(b)
            else:
                rank = self.streams[b].rank
        drawn_ps = folding.drawn_ps(place)
        doubtful = folding.happens(rank, self.now_ps, drawn_ps, folding.ranks[rank], -1)
        folding.loud(rank, doubtful)

    def run(self, action: Action) -> None:
        """Do what an action says, now."""
        kind, a, b = action
        self._acts[kind](a, b)

    def _lost(self, call: str, transfer: int) -> NoReturn:
        message = self.messages.in_flight[transfer]
        raise SimulationError(
            f"{self.network.info.name}: the network lost {message.bytes} bytes from rank "
            f"{message.src} to rank {message.dst} at {self.now_ps} ps",
            backend=self.network.info.name,
            call=call,
            status=Status.MODEL,
        )

    def register(self, rank: int, delay_ps: int, action: Action) -> None:
        """Let an action of a rank happen after a delay."""
        time_ps = self.now_ps + delay_ps
        if time_ps >= TIME_NEVER:
            raise SimulationError(
                f"an event {delay_ps} ps after {self.now_ps} ps is beyond the range of time "
                "(2^63 ps)"
            )
        slots = self._ranks[rank].slots
        actions = slots.get(time_ps)
        if actions is None:
            actions = slots[time_ps] = []
            heapq.heappush(self._heap, (time_ps, self.draw(), rank, actions))
        actions.append(action)

    def register_alone(self, action: Action) -> None:
        """Let an action happen now, after all that is already due now."""
        heapq.heappush(self._heap, (self.now_ps, self.draw(), -1, [action]))

    def draw(self, count: int = 1) -> int:
        """Draw places in the order inside one instant; the first one is returned."""
        place = self._place
        self._place += count
        return place

    def _tick(self, now_ps: int = -1) -> None:
        if self._ticker.due:
            self._ticker.due = False
            if self._progress is not None:
                reached = self.progress()
                if self._progress(reached._replace(now_ps=max(now_ps, reached.now_ps))) is True:
                    self._stop = self._paused = True

    # Buses

    def cross_bus(self, stream: Stream, packet: int, size: int, flags: int) -> None:
        """Move data of a packet between NPU and memory; then it pays its reduction, if any."""
        rank, bus = stream.rank, stream.bus
        if bus == _ENDPOINT and self._shared[rank]:
            to_memory, reduced = bool(flags & PacketFlag.TO_MEMORY), bool(flags & _REDUCED)
            back = bool(flags & PacketFlag.SEND_BACK)
            self._buses[rank].move(to_memory, size, reduced, back, packet, stream.self)
        elif bus == _NO_BUS:
            self.streams.crossed(packet, stream.self)
        else:
            kind = BUS_REDUCED if flags & _REDUCED else BUS_CROSSED
            self.register(rank, self._delay_ps[bus][rank], (kind, packet, stream.self))

    def bus_later(self, rank: int, delay_ns: int, what: int) -> None:
        """Let an event of the bus of a rank happen."""
        self.register(rank, delay_ns * PS_PER_NS, (SHARED_BUS, what, rank))

    def bus_crossed(self, packet: int, stream: int) -> None:
        """A packet has crossed the shared bus."""
        self.streams.crossed(packet, stream)

    def _bus_event(self, what: int, rank: int) -> None:
        self._buses[rank].happen(what)

    # Nodes

    def _fire(self, index: int) -> None:
        task = self._tasks[index]
        for node, parents in enumerate(task.waiting):
            if parents == 0:
                unit = self._nodes[task.first + node][6]
                heapq.heappush(self._ranks[task.rank].free[unit], (index, node))
        self._issue_free(task.rank)
        if task.left == 0:  # it may be empty
            self._note_end(index)

    def _note_end(self, index: int) -> None:
        """The last node of a task is complete, and maybe of its rank: that is when it ends."""
        rank = self._tasks[index].rank
        if self._ranks[rank].left == 0 and self._finish_ps[rank] < 0:
            self._finish_ps[rank] = self.now_ps
        if self._task_finish_ps[index] >= 0:
            return
        self._task_finish_ps[index] = self.now_ps
        if self._watch:
            self._done.append((self.now_ps, index, -1))
            self._stop = True

    def _issue_free(self, rank: int) -> None:
        """Issue free nodes in ascending order, as far as what they occupy is free.

        Nodes that become free meanwhile (after one that completes at once) come in a next pass.
        """
        state, capacity = self._ranks[rank], self._capacity[rank]
        while True:
            issued = []
            taken = [0, 0, 0, 0]
            for unit in range(4):
                room = capacity[unit] - state.busy[unit]
                while state.free[unit] and taken[unit] < room:
                    issued.append(heapq.heappop(state.free[unit]))
                    taken[unit] += 1
            if not issued:
                return
            done_at_once = False
            for task, node in sorted(issued):
                done_at_once |= self._issue(task, node)
            if not done_at_once:
                return

    def _issue(self, index: int, node: int) -> bool:
        """Issue a node; True where it is complete at once."""
        task = self._tasks[index]
        rank = task.rank
        duration_ps, _, _, arg, _, op, unit = self._nodes[task.first + node]
        if self._record:
            self._start_ps[task.first_record + node] = self.now_ps
        self._ranks[rank].busy[unit] += 1
        done = (NODE_DONE, index, node)
        if op == Op.NOTHING:
            self._complete_node(index, node)
            return True
        if op == Op.DELAY:
            self.register(rank, self._slowed(rank, duration_ps), done)
        elif op == Op.COLLECTIVE:
            self.streams.issue(index, node, rank, arg)
        elif op == Op.MEMORY:
            self._access_memory(index, node, duration_ps)
        else:
            size, peer, tag = self.program.messages[arg].tolist()
            peer, tag = self.streams.peer(index, task.origin + peer, tag)
            self.kept.owner = -2 - (task.first_record + node)
            act = self.messages.send if op == Op.SEND else self.messages.receive
            act(rank, peer, size, tag, done, (node, -1))
        return False

    def _slowed(self, rank: int, duration_ps: int) -> int:
        """What a slow rank takes for a compute node, to the next picosecond."""
        slowdown = self._ranks[rank].slowdown
        if slowdown == 1:
            return int(duration_ps)
        slow_ps = math.floor(float(duration_ps) * slowdown + 0.5)
        if not slow_ps < _MOST_PS:
            raise SimulationError(
                f"a compute node of rank {rank}, slowed down {slowdown:g} times, takes "
                f"{float(slow_ps):g} ps, beyond the range of time (2^63 ps)"
            )
        return slow_ps

    def node_done(self, task: int, node: int) -> None:
        """A node is complete: its children may be free now, and what it occupied."""
        self._complete_node(task, node)
        self._issue_free(self._tasks[task].rank)

    def _complete_node(self, index: int, node: int) -> None:
        task = self._tasks[index]
        state = self._ranks[task.rank]
        row = self._nodes[task.first + node]
        if self._record:
            self._end_ps[task.first_record + node] = self.now_ps
        state.busy[row[6]] -= 1
        state.left -= 1
        task.left -= 1
        self._nodes_done += 1
        if self._watch == Watch.NODES:
            self._done.append((self.now_ps, index, node))
            self._stop = True
        for child in self.program.children[row[1] : row[1] + row[2]].tolist():
            task.waiting[child] -= 1
            if task.waiting[child] == 0:
                self._freed += 1
                unit = self._nodes[task.first + child][6]
                heapq.heappush(state.free[unit], (index, child))
        if task.left == 0:
            self._note_end(index)

    # Remote memory

    def _access_memory(self, task: int, node: int, duration_ps: int) -> None:
        rank = self._tasks[task].rank
        server = int(self.program.memory_server[rank])
        if server < 0:
            self.register(rank, duration_ps, (NODE_DONE, task, node))
            return
        if server in self._servers:
            self._servers[server].append((task, node))
        else:
            self._servers[server] = deque()
            self._serve(server, task, node)

    def _serve(self, server: int, index: int, node: int) -> None:
        task = self._tasks[index]
        duration_ps = self._nodes[task.first + node][0]
        self.register(task.rank, duration_ps, (NODE_DONE, index, node))
        self.register(task.rank, duration_ps, (SERVED, server, 0))

    def _served(self, server: int, _: int) -> None:
        if self._servers[server]:
            self._serve(server, *self._servers[server].popleft())
        else:
            del self._servers[server]


# Asked for every packet, and far faster than the enums.
_REDUCED, _ENDPOINT, _NO_BUS = int(PacketFlag.REDUCED), int(Bus.ENDPOINT), int(Bus.NONE)
_CLASSES = (Task, Rank, Message, Stream, GraphRun, Queue, Half, Request)
"""What a state consists of."""
