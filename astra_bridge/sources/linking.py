# SPDX-License-Identifier: MIT
"""From a recording of one rank to its steps: who waits for whom, on the host and on the GPU.

Walks through the recorded events in the order of time and keeps, per thread of the host, the last
step and when the thread went on after it; per stream of the GPU, the last step.  A stretch of the
host between two points that matter (a launch, a synchronisation, a call of communication) is one
step; what the host waits in a call is not part of it.

What CUDA's events connect is not in a trace, unless CUPTI recorded them (``cuda_sync``): which
stream waits and for what is inferred from the order of calls, and never against recorded times.

Steps are replayed as they are made: each starts when all that it waits for has ended.  Where a
kernel would start too early, for the gaps that a busy stream has between its kernels add up, a
pause stands before it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.sources.calls import Communication, find_calls
from astra_bridge.sources.communication import SEND_RECV, Facts, facts, kind_of, merged
from astra_bridge.sources.execution_trace import ExecutionTrace
from astra_bridge.sources.kineto import Gpu, Recording
from astra_bridge.sources.rank import Rank, Step
from astra_bridge.text import one_line
from astra_bridge.trace.columns import CommType, NodeType
from astra_bridge.trace.inferences import Inferences

__all__ = ["link"]

_LEAST_WAIT_NS = 100_000
"""A thread that pauses for less is at work in Python, not waiting for another thread."""
_LATE_NS = 20_000
"""A kernel that starts so long after all that it is known to wait for waits for something else."""
_CAUSE_NS = 15_000
"""And for what ended at most so long before."""
_MOST_RECENT = 64
_MOST_UNWAITED = 256
"""Communication that nobody has waited for after so much more of it was never waited for."""

# Kernels that communicate without NCCL, of which a recording has no bytes: DeepEP's and NVSHMEM's,
# the all-reduces of vLLM, SGLang and TensorRT-LLM, PyTorch's symmetric memory, MSCCL++.
_ON_THEIR_OWN = re.compile(
    r"(?:nv|roc)shmem|\bdeep_?ep\b|\bep::|\b(?:inter|intra)node(?:_ll)?::|cross_device_reduce"
    r"|(?:one|two)_?shot_?all_?reduce|multimem_|mscclpp",
    re.IGNORECASE,
)

# Kinds of marks, in the order in which those of one instant are looked at.
(
    _END, _DONE, _RESUME, _CALL, _ISSUE, _WORK, _MOVE, _JOIN, _AWAIT, _RECORD, _STREAM_WAIT,
    _SYNC, _STRAY, _LAUNCH, _WAIT, _FINISH,
) = range(16)  # fmt: skip

_COMP = NodeType.COMP  # looked up once, not for each kernel
_Stream = tuple[int, int]


class _Thread(msgspec.Struct):
    """Where a thread of the host stands."""

    number: int
    step: int = -1
    resume_ns: int = 0
    awaited: list[int] = []
    stream: _Stream | None = None  # of its last launch that was no communication
    waits: int = 0  # stream waits since its last launch
    recorded_ns: int = -(10**18)  # the last event that it recorded
    joins: list[int] = []  # steps that its next launch waits for
    unwaited: list[Communication] = []
    working: Communication | None = None  # what a thread of a backend carries out


def link(
    recording: Recording,
    execution: ExecutionTrace | None,
    made: Inferences,
    position: int = 0,
) -> Rank:
    """Make the steps of a rank.

    Parameters
    ----------
    recording : Recording
        Kineto's trace.
    execution : ExecutionTrace or None
        The execution trace of the same step: sizes and groups of collectives.
    made : Inferences
        Takes what is inferred.
    position : int
        Number of the rank, where the trace does not say it.

    Raises
    ------
    InputError
        There is nothing in the trace that could be simulated.
    """
    if recording.backwards:
        made.note(
            "an event that ends before it starts takes no time", recording.file.name,
            recording.backwards,
        )  # fmt: skip
    if not (len(recording.op_thread) or recording.gpu or recording.calls):
        raise InputError("holds no operator of the host and no kernel", file=recording.file)
    return _Linker(recording, execution, made, position).run()


class _Linker:
    def __init__(
        self,
        recording: Recording,
        execution: ExecutionTrace | None,
        made: Inferences,
        position: int,
    ) -> None:
        self.recording, self.made = recording, made
        distributed = recording.distributed
        self.rank = _count(distributed.get("rank"), position)
        self.world = _count(distributed.get("world_size"), -1)
        self.where = f"{recording.file.name}"
        self.steps: list[Step] = []
        self.ends: list[int] = []  # recorded end of each step
        self.replayed: list[int] = []  # and its end, where all start as soon as they can
        self.begin_ns = 0
        self.threads = [_Thread(number) for number in range(len(recording.threads))]
        self.last: dict[_Stream, list[int]] = {}  # what ends a stream so far
        self.comm_last: dict[str, int] = {}  # last communication without a kernel, by group
        self.stream_waits: dict[_Stream, list[int]] = defaultdict(list)  # known exactly
        self.records: dict[int, dict[_Stream, list[int]]] = {}
        self.joined: dict[_Stream, set[int]] = defaultdict(set)
        self.joined_up_to: dict[_Stream, int] = defaultdict(int)
        self.comm_steps: list[int] = []
        self.final_of: dict[int, list[int]] = {}  # what a backend on the host does after it
        self.recent: list[int] = []  # steps of the GPU, lately
        self.groups = _groups(recording, execution)
        self.communications, self.wait_calls = find_calls(recording, execution, made)
        self.workers = {one.worker for one in self.communications if one.worker != one.thread}
        self.by_thread: dict[int, list[Communication]] = defaultdict(list)
        for one in self.communications:
            self.by_thread[one.thread].append(one)
        self.starts_of = {t: [c.start_ns for c in cs] for t, cs in self.by_thread.items()}
        self.launched_by: dict[int, list[int]] = defaultdict(list)
        for index, gpu in enumerate(recording.gpu):
            self.launched_by[gpu.correlation].append(index)
        self.has_gpu = bool(recording.gpu)
        self.launches = True
        self.number_of = _stream_numbers({gpu.stream for gpu in recording.gpu})
        self.later_kernels = self._kernels_outside_of_calls()

    # Marks

    def _marks(self) -> list[tuple[int, int, int, int, Any]]:
        """(time, kind, number, thread, what) of all that matters."""
        recording = self.recording
        marks: list[tuple[int, int, int, int, Any]] = []
        kinds = [_call_kind(name) for name in recording.names]
        names = recording.call_name.tolist()
        rows = zip(
            recording.call_thread.tolist(),
            recording.call_start_ns.tolist(),
            recording.call_end_ns.tolist(),
            names,
            recording.call_correlation.tolist(),
            strict=True,
        )
        launched_by, gpu = self.launched_by, recording.gpu
        known: set[int] = set()
        for thread, start, end, name, correlation in rows:
            launched = launched_by.get(correlation) if correlation >= 0 else None
            if launched and correlation not in known:
                known.add(correlation)
                first = gpu[launched[0]].start_ns
                if len(launched) > 1:
                    first = min(gpu[i].start_ns for i in launched)
                at = max(start, min(end, first))
                marks.append((at, _LAUNCH, len(marks), thread, (launched, end, name)))
            kind = kinds[name]
            if kind is not None:
                marks.append((start, kind, len(marks), thread, (end, name, correlation)))
        orphans = [i for key, many in launched_by.items() if key not in known for i in many]
        if orphans:
            orphans.sort(key=lambda i: gpu[i].start_ns)
            # As if the thread that launches most had done so when they start.
            launching = Counter(mark[3] for mark in marks if mark[1] == _LAUNCH)
            self.launches = bool(launching)
            if launching:
                thread = launching.most_common(1)[0][0]
            else:
                thread = len(self.threads)
                self.threads.append(_Thread(thread))
            times = self._before_launches(orphans, marks)
            for at, i in zip(times, orphans, strict=True):
                marks.append((at, _STRAY, len(marks), thread, gpu[i]))
            self.made.note("a kernel without a launch starts as recorded", self.where, len(orphans))
        for one in self.communications:
            marks.append((one.start_ns, _CALL, len(marks), one.thread, one))
            if one.worker < 0:
                marks.append((one.end_ns, _END, len(marks), one.thread, one))
                continue
            (begin, end), moved = one.ran_ns, one.moved_ns
            if one.worker != one.thread:
                issued = max(one.start_ns, min(one.end_ns, begin))
                marks.append((issued, _ISSUE, len(marks), one.thread, one))
                marks.append((begin, _WORK, len(marks), one.worker, one))
            marks.append((moved[0], _MOVE, len(marks), one.worker, one))
            marks.append((end, _DONE, len(marks), one.worker, one))
        for one in self.wait_calls:
            marks.append((one.end_ns, _WAIT, len(marks), one.thread, one))
        return marks

    def _before_launches(
        self, orphans: list[int], marks: list[tuple[int, int, int, int, Any]]
    ) -> list[int]:
        """When to look at kernels without a launch: before what follows them is launched."""
        gpu = self.recording.gpu
        followers: dict[_Stream, list[tuple[int, int]]] = defaultdict(list)
        for mark in marks:
            if mark[1] == _LAUNCH:
                for i in mark[4][0]:
                    followers[gpu[i].stream].append((gpu[i].start_ns, mark[0]))
        earliest: dict[_Stream, tuple[list[int], list[int]]] = {}
        for stream, found in followers.items():
            found.sort()
            first = list(accumulate((launched for _, launched in reversed(found)), min))
            earliest[stream] = [start for start, _ in found], first[::-1]
        times = []
        for i in orphans:
            start = gpu[i].start_ns
            starts, launched = earliest.get(gpu[i].stream, ([], []))
            at = bisect_left(starts, start)
            times.append(min(start, launched[at]) if at < len(starts) else start)
        return times

    def run(self) -> Rank:
        marks = self._marks()
        busy = self._busy()
        self._joins(marks, busy)
        self._host_waits(marks, busy)
        first = {thread: int(starts[0]) for thread, (starts, _) in busy.items()}
        final = {thread: int(ends[-1]) for thread, (_, ends) in busy.items()}
        # An annotation around the first operator says that its thread was at work before it.
        for thread, start, end, _ in self.recording.notes:
            if thread in first:
                first[thread] = min(first[thread], start)
                final[thread] = max(final[thread], end)
        for thread, start in first.items():
            self.threads[thread].resume_ns = start
        starts_ns = [*first.values(), *(gpu.start_ns for gpu in self.recording.gpu)]
        self.begin_ns = min(starts_ns, default=0)
        for thread, end in final.items():
            marks.append((end, _FINISH, len(marks), thread, None))
        marks.sort()  # numbers differ, so nothing behind them is compared
        handlers: dict[int, Callable[[int, int, Any], None]] = {
            _CALL: self._call, _END: self._call_end, _RECORD: self._record, _ISSUE: self._issue,
            _WORK: self._work, _MOVE: self._move, _DONE: self._done, _AWAIT: self._await,
            _STREAM_WAIT: self._stream_wait, _SYNC: self._sync, _LAUNCH: self._launch,
            _STRAY: self._stray, _WAIT: self._wait, _JOIN: self._join, _RESUME: self._foreign,
            _FINISH: self._finish,
        }  # fmt: skip
        for at, kind, _, thread, what in marks:
            handlers[kind](thread, at, what)
        kernels = Counter(gpu.name for gpu in self.recording.gpu if gpu.args is None)
        for name in filter(_ON_THEIR_OWN.search, kernels):
            self.made.note(
                "a kernel that communicates without NCCL is compute, of its recorded time",
                name, kernels[name],
            )  # fmt: skip
        lost = [one for one in self.communications if not one.steps]
        if lost:
            self.made.note("a call of communication left out", lost[0].name, len(lost))
        ends_ns = [*final.values(), *(gpu.end_ns for gpu in self.recording.gpu)]
        ends_ns += [one.ran_ns[1] for one in self.communications]
        return Rank(
            rank=self.rank,
            world=self.world if self.world > 0 else None,
            steps=self._needed(),
            groups=self.groups,
            source=self.recording.file,
            span_ns=max(ends_ns, default=0) - self.begin_ns,
        )

    def _needed(self) -> list[Step]:
        """The steps without stretches of the host that nothing waits for.

        A thread of a library that works beside the others would hold the one CPU that ASTRA-sim's
        ranks have.
        """
        steps = self.steps
        needed = [not step.cpu for step in steps]
        if self.ends:
            needed[max(range(len(steps)), key=self.ends.__getitem__)] = True
        for i in range(len(steps) - 1, -1, -1):
            if needed[i]:
                for dep in steps[i].deps:
                    needed[dep] = True
        if all(needed):
            return steps
        place, kept = [0] * len(steps), 0
        for i, keep in enumerate(needed):
            place[i] = kept
            kept += keep
        self.made.note(
            "host work that nothing waits for is left out", self.where, len(steps) - kept
        )
        found = [step for step, keep in zip(steps, needed, strict=True) if keep]
        for step in found:
            step.deps = [place[dep] for dep in step.deps]
        return found

    # When threads are at work

    def _busy(self) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Per thread, the stretches in which an operator or a call of the runtime runs."""
        recording, workers = self.recording, self.workers
        more = [
            (call.thread, call.start_ns, call.end_ns)
            for call in recording.calls
            if kind_of(call.name) != "wait" and (not call.note or call.thread in workers)
        ]
        extra = np.array(more, np.int64).reshape(-1, 3)
        thread = np.concatenate([recording.op_thread, recording.call_thread, extra[:, 0]])
        start = np.concatenate([recording.op_start_ns, recording.call_start_ns, extra[:, 1]])
        end = np.concatenate([recording.op_end_ns, recording.call_end_ns, extra[:, 2]])
        found = {}
        for one in range(len(recording.threads)):
            mine = thread == one
            if mine.any():
                found[one] = _union(start[mine], end[mine])
        return found

    def _joins(
        self,
        marks: list[tuple[int, int, int, int, Any]],
        busy: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]],
    ) -> None:
        """Where a thread pauses until another one has come to an end."""
        for thread, (starts, ends) in busy.items():
            others = [one for one in busy if one != thread and one not in self.workers]
            if not others or thread in self.workers:
                continue
            foreign = [busy[other][1] for other in others]
            owner = [np.full(len(busy[other][1]), other) for other in others]
            times, owners = np.concatenate(foreign), np.concatenate(owner)
            order = np.argsort(times, kind="stable")
            times, owners = times[order], owners[order]
            since = np.concatenate([[-(2**62)], ends[:-1]])
            latest = np.searchsorted(times, starts, side="right") - 1
            cause = times[np.maximum(latest, 0)]
            pause = starts - since
            waiting = (latest >= 0) & (cause > since) & (pause >= _LEAST_WAIT_NS)
            # Who is woken up goes on soon; who happens to be in Python need not.
            waiting &= (starts - cause) * 2 <= pause
            for i in np.flatnonzero(waiting).tolist():
                resumed = [int(owners[latest[i]]), -1]
                marks.append((int(cause[i]), _RESUME, len(marks), resumed[0], resumed))
                what = resumed, int(since[i]), int(cause[i])
                marks.append((int(starts[i]), _JOIN, len(marks), thread, what))

    def _host_waits(
        self,
        marks: list[tuple[int, int, int, int, Any]],
        busy: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]],
    ) -> None:
        """Where a thread pauses until the host has communicated."""
        on_host = [one for one in self.communications if one.worker >= 0]
        for thread, (starts, ends) in busy.items():
            if thread in self.workers or not on_host:
                continue
            pauses: dict[int, list[Communication]] = defaultdict(list)
            waiting: set[int] = set()
            for one in on_host:
                done = max(one.ran_ns[1], one.end_ns if one.thread == thread else 0)
                i = int(np.searchsorted(starts, done))
                if i in (0, len(starts)) or ends[i - 1] > done:
                    continue  # it is at work when the communication ends
                begin, resumed = int(ends[i - 1]), int(starts[i])
                pauses[i].append(one)
                last = one.thread == thread and one.start_ns <= begin <= one.end_ns + _CAUSE_NS
                length = resumed - begin
                # Who is woken up goes on soon; and who calls and does nothing else has waited.
                if last or (length >= _LEAST_WAIT_NS and (resumed - done) * 2 <= length):
                    waiting.add(i)
            for i in waiting:
                done = max(one.ran_ns[1] for one in pauses[i])
                what = pauses[i], int(ends[i - 1]), min(done, int(starts[i]))
                marks.append((int(starts[i]), _AWAIT, len(marks), thread, what))

    # Handlers

    def _add(self, step: Step, ready: int | None = None) -> int:
        self.steps.append(step)
        self.ends.append(step.start_ns + step.duration_ns)
        if ready is None:
            ready = self._ready(step.deps)
        self.replayed.append(ready + step.duration_ns)
        return len(self.steps) - 1

    def _ready(self, deps: Iterable[int]) -> int:
        """When a step could start in a replay."""
        ready, replayed = self.begin_ns, self.replayed
        for step in deps:
            if replayed[step] > ready:
                ready = replayed[step]
        return ready

    def _advance(self, thread: _Thread, at: int, name: str) -> None:
        """A stretch of the host that ends at a point that matters."""
        took = at - thread.resume_ns
        if not thread.awaited:
            if took > 0:
                deps = [thread.step] if thread.step >= 0 else []
                step = Step(_COMP, name, thread.resume_ns, took, deps, True, thread=thread.number)
                thread.step, thread.resume_ns = self._add(step), at
            return
        deps = sorted({*thread.awaited, *([thread.step] if thread.step >= 0 else [])})
        if took <= 0 and len(deps) == 1:
            thread.step = deps[0]
        else:
            start = min(thread.resume_ns, at)
            step = Step(_COMP, name, start, max(took, 0), deps, True, thread=thread.number)
            thread.step = self._add(step)
        thread.awaited = []
        thread.resume_ns = max(thread.resume_ns, at)

    def _finish(self, index: int, at: int, _: Any) -> None:
        self._advance(self.threads[index], at, "host")

    def _foreign(self, index: int, at: int, resumed: list[int]) -> None:
        self._advance(self.threads[index], at, "host")
        resumed[1] = self.threads[index].step

    def _join(self, index: int, at: int, what: tuple[list[int], int, int]) -> None:
        """A thread goes on after another one has come to an end."""
        thread, (resumed, since, cause) = self.threads[index], what
        self._advance(thread, since, "host")
        if resumed[1] >= 0 and resumed[1] != thread.step:
            thread.awaited.append(resumed[1])
        thread.resume_ns = cause
        self.made.note("a thread waits for another thread", f"{self.where}, {at / 1e3:.0f} us")
        # What the other one started and did not wait for, this one does.
        other = self.threads[resumed[0]]
        pending = [one for one in other.unwaited if one.worker < 0]
        if pending and not self.recording.syncs:
            thread.joins += [step for one in pending for step in one.steps]
            self.made.note(
                "collectives are waited for where their thread hands over",
                f"{self.where}, {at / 1e3:.0f} us",
                len(pending),
            )
            other.unwaited = []

    def _await(self, index: int, at: int, what: tuple[list[Communication], int, int]) -> None:
        """A thread goes on after the host has communicated."""
        thread, (awaited, begin, done) = self.threads[index], what
        self._advance(thread, begin, "host")
        thread.awaited += [step for one in awaited for step in one.final]
        thread.resume_ns = max(thread.resume_ns, done)
        inferred = [one for one in awaited if not one.facts.blocking]
        if inferred:
            self.made.note(
                "a thread waits for communication of the host", f"{self.where}, {at / 1e3:.0f} us",
                len(inferred),
            )  # fmt: skip

    def _issue(self, index: int, at: int, one: Communication) -> None:
        """A call gives its work to a thread of the backend."""
        thread = self.threads[index]
        self._advance(thread, at, one.name)
        one.issued = [thread.step] if thread.step >= 0 else []

    def _work(self, index: int, at: int, one: Communication) -> None:
        """A thread of a backend begins what it was given."""
        thread = self.threads[index]
        before = [self.ends[step] for step in (*one.issued, thread.step) if step >= 0]
        ready = min(at, max(before, default=at))
        thread.awaited += one.issued
        if one.stream is not None:
            thread.stream = one.stream
        if one.moved_ns == one.ran_ns:
            # Until its thread is woken up belongs to the communication: no processor is at work.
            thread.resume_ns = at
            one.moved_ns = ready, one.moved_ns[1]
        else:
            thread.resume_ns = ready
            self._advance(thread, at, one.name)

    def _move(self, index: int, at: int, one: Communication) -> None:
        """The host communicates."""
        thread = self.threads[index]
        begin, end = one.moved_ns
        if begin == at:
            self._advance(thread, at, one.name)
        deps = {*thread.awaited, *one.launched, *([thread.step] if thread.step >= 0 else [])}
        step = self._communicate(one, begin, end - begin, sorted(deps), -1)
        one.final = [step]
        self.threads[one.thread].unwaited.append(one)
        if one.worker != one.thread:
            thread.step, thread.awaited = step, []
            thread.resume_ns = max(thread.resume_ns, end)
            thread.working = one

    def _done(self, index: int, at: int, one: Communication) -> None:
        """A thread of a backend ends what it was given."""
        if one.worker == one.thread:
            return
        thread = self.threads[index]
        thread.working = None
        self._advance(thread, at, one.name)
        one.final = [thread.step]

    def _call(self, index: int, _at: int, _one: Communication) -> None:
        thread = self.threads[index]
        thread.waits = 0  # they were for the stream of this call

    def _call_end(self, index: int, at: int, one: Communication) -> None:
        """The end of a call; what has no kernel of its own becomes a step."""
        if one.steps:
            return
        thread = self.threads[index]
        if not self.has_gpu:
            self._blocking_call(thread, one)
            return
        if self._may_get_kernel(one):
            return
        self._advance(thread, at, one.name)
        self._kernelless(thread, at, one)

    def _kernelless(self, thread: _Thread, at: int, one: Communication) -> None:
        """A collective of a fake backend, or of one rank: in the order of streams, without time."""
        stream = one.stream or thread.stream
        deps = {thread.step} if thread.step >= 0 else set()
        if stream is not None:
            deps.update(self.last.get(stream, []))
        deps.update(one.launched)
        key = self._group_key(one.facts)
        if key in self.comm_last:
            deps.add(self.comm_last[key])
        step = self._communicate(one, at, 0, sorted(deps), -1)
        self.comm_last[key] = step
        if one.facts.blocking:
            thread.joins.append(step)
        else:
            thread.unwaited.append(one)
        self.made.note("a collective without a kernel follows the stream of its call", one.name)

    def _blocking_call(self, thread: _Thread, one: Communication) -> None:
        """Communication that the host itself does."""
        self._advance(thread, one.start_ns, one.name)
        deps = [thread.step] if thread.step >= 0 else []
        step = self._communicate(one, one.start_ns, one.end_ns - one.start_ns, deps, -1)
        thread.awaited.append(step)
        thread.resume_ns = max(thread.resume_ns, one.end_ns)

    def _communicate(
        self, one: Communication, at: int, took: int, deps: list[int], stream: int
    ) -> int:
        kind = one.facts.kind
        node = NodeType.COMM_COLL
        if kind in SEND_RECV:
            node = NodeType.COMM_SEND if kind == "send" else NodeType.COMM_RECV
        step = self._add(
            Step(
                node, one.name, at, took, deps,
                stream=stream, facts=one.facts, group=self._group_key(one.facts),
            )
        )  # fmt: skip
        one.steps = [*one.steps, step]
        self.comm_steps.append(step)
        return step

    def _group_key(self, given: Facts) -> str:
        """Key of the group of a call; the group becomes known by it."""
        name = given.group
        if name is not None and name in self.groups and given.members in (None, self.groups[name]):
            return name
        if given.members is not None:
            if name is None:
                same = [key for key, ranks in self.groups.items() if ranks == given.members]
                name = same[0] if same else f"ranks {','.join(map(str, given.members))}"
            self.groups[name] = given.members
            return name
        if name is not None:
            return name
        return ""

    def _may_get_kernel(self, one: Communication) -> bool:
        """Whether a kernel that is launched later belongs to a call: calls come in batches."""
        return one.facts.size != 1 and bisect_left(self.later_kernels, one.end_ns) < len(
            self.later_kernels
        )

    def _kernels_outside_of_calls(self) -> list[int]:
        """When kernels that communicate are launched outside of any call."""
        recording = self.recording
        kernels = [gpu.correlation for gpu in recording.gpu if gpu.args is not None]
        which = np.isin(recording.call_correlation, np.array(kernels, np.int64))
        launches = zip(
            recording.call_thread[which].tolist(),
            recording.call_start_ns[which].tolist(),
            strict=True,
        )
        return sorted(at for thread, at in launches if self._inside(thread, at) is None)

    def _record(self, index: int, at: int, what: tuple[int, int, int]) -> None:
        self.threads[index].recorded_ns = at
        self.records[what[2]] = dict(self.last)

    def _stream_wait(self, index: int, _at: int, what: tuple[int, int, int]) -> None:
        thread = self.threads[index]
        known = self.recording.syncs.get(what[2])
        if known and "wait_on_stream" in known:
            device = _whole(known.get("device"), 0)
            target = device, _whole(known.get("stream"), -1)
            source = device, _whole(known["wait_on_stream"], -1)
            record = self.records.get(_whole(known.get("wait_on_cuda_event_record_corr_id"), -1))
            steps = (self.last if record is None else record).get(source, [])
            self.stream_waits[target] += steps
            return
        thread.waits += 1

    def _sync(self, index: int, at: int, what: tuple[int, int, int]) -> None:
        """The host waits: for the device, a stream or an event."""
        end, name, correlation = what
        thread = self.threads[index]
        text = self.recording.names[name].lower()
        self._advance(thread, at, self.recording.names[name])
        if "device" in text or "ctx" in text:
            awaited = [step for steps in self.last.values() for step in steps]
            awaited += list(self.comm_last.values())
            for other in self.threads:
                other.unwaited = []
        else:
            awaited = self._synchronised(thread, at, end, correlation)
        awaited = [step for step in awaited if self.ends[step] <= end]
        thread.awaited += awaited
        latest = max((self.ends[step] for step in awaited), default=at)
        thread.resume_ns = max(thread.resume_ns, min(max(at, latest), end))

    def _synchronised(self, thread: _Thread, at: int, end: int, correlation: int) -> list[int]:
        known = self.recording.syncs.get(correlation)
        if known and _whole(known.get("wait_on_stream", known.get("stream")), -1) >= 0:
            stream = _whole(known.get("wait_on_stream", known.get("stream")), -1)
            return self.last.get((_whole(known.get("device"), 0), stream), [])
        ended = [
            step for steps in self.last.values() for step in steps if at <= self.ends[step] <= end
        ]
        if ended:
            self.made.note("what a synchronisation waits for", f"{self.where}, {at / 1e3:.0f} us")
            return [max(ended, key=lambda step: self.ends[step])]
        if thread.stream is not None:
            return self.last.get(thread.stream, [])
        return []

    def _wait(self, index: int, at: int, one: Communication) -> None:
        """``wait_tensor`` and ``work.wait()``: later launches wait for a collective."""
        thread = self.threads[index]
        candidates = [other for other in self._outstanding() if other.steps]
        chosen: list[Communication] = []
        if one.facts.storages:
            chosen = [
                c for c in candidates if c.facts.storages and c.facts.storages & one.facts.storages
            ]
        if not chosen and one.facts.sequence is not None:
            chosen = [c for c in candidates if c.facts.sequence == one.facts.sequence]
        if not chosen:
            chosen = [c for c in thread.unwaited if c.steps][:1]
            if chosen:
                self.made.note("which collective a wait is for: the oldest", one.name)
        for c in chosen:
            if c.worker < 0:
                thread.joins += c.steps
                continue
            self._advance(thread, one.start_ns, one.name)
            thread.awaited += c.final
            thread.resume_ns = max(thread.resume_ns, min(at, c.ran_ns[1]))
        for other in self.threads:
            other.unwaited = [c for c in other.unwaited if c not in chosen]

    def _outstanding(self) -> list[Communication]:
        return [one for thread in self.threads for one in thread.unwaited]

    # Launches

    def _launch(self, index: int, at: int, what: tuple[list[int], int, int]) -> None:
        launched, call_end, name = what
        recording = self.recording
        thread = self.threads[index]
        self._advance(thread, at, recording.names[name] if name >= 0 else "host")
        gpus = [recording.gpu[i] for i in launched]
        if len(gpus) > 1:
            gpus.sort(key=lambda gpu: gpu.start_ns)
        for gpu in gpus:
            stream = gpu.stream
            deps = set(self.last.get(stream, ()))
            if thread.step >= 0:
                deps.add(thread.step)
            if stream in self.stream_waits:
                deps.update(self.stream_waits.pop(stream))
            work = self._compute if gpu.args is None else self._communication
            steps = self.last[stream] = work(index, at, gpu, deps)
            self._remember(steps)
        if call_end >= gpus[-1].end_ns > at:
            # The call itself waits, as copies to memory that is not pinned do.
            thread.awaited += self.last[gpus[-1].stream]
            thread.resume_ns = max(thread.resume_ns, gpus[-1].end_ns)

    def _stray(self, index: int, at: int, gpu: Gpu) -> None:
        """What the GPU runs without a launch.

        It starts when it did by the clock of a thread, unless what follows it in its stream was
        launched before: then it was launched before that, and waits for its stream alone.
        """
        stream, thread = gpu.stream, self.threads[index]
        deps = set(self.last.get(stream, ()))
        if at == gpu.start_ns:
            self._advance(thread, at, "host")
            if thread.step >= 0:
                deps.add(thread.step)
        else:
            at = self.begin_ns
        if gpu.args is None:
            steps = [self._kernel(gpu, at, deps)]
        else:
            steps = self._stray_communication(gpu, at, deps)
        self.last[stream] = steps
        self._remember(steps)

    def _remember(self, steps: list[int]) -> None:
        recent = self.recent
        recent += steps
        if len(recent) > _MOST_RECENT:
            del recent[: -_MOST_RECENT // 2]

    def _stray_communication(self, gpu: Gpu, at: int, deps: set[int]) -> list[int]:
        given = facts("record_param_comms", gpu.args or {}, None)
        if given.kind is None:
            given = Facts(kind=_kernel_kind(gpu.name))
        sized = given.in_bytes is not None or given.out_bytes is not None
        # What was called before the recording began says nothing; a trace of the GPU alone must.
        if given.kind is None or given.kind == "wait" or (self.launches and not sized):
            return [self._communication_pause(gpu, at, deps)]
        self._find_cause(gpu, at, deps)
        one = Communication(-1, gpu.start_ns, gpu.start_ns, gpu.name, given)
        took = gpu.end_ns - gpu.start_ns
        number = self.number_of[gpu.stream]
        return [self._communicate(one, gpu.start_ns, took, sorted(deps), number)]

    def _communication_pause(self, gpu: Gpu, at: int, deps: set[int]) -> int:
        """Keep the time of what communicates nobody knows what."""
        self.made.note("a communication kernel without a call is a pause", gpu.name)
        return self._kernel(gpu, at, deps, NodeType.METADATA)

    def _compute(self, index: int, at: int, gpu: Gpu, deps: set[int]) -> list[int]:
        """A kernel, a copy or a fill."""
        thread = self.threads[index]
        if thread.joins:
            deps.update(thread.joins)
            thread.joins = []
        if thread.waits:
            deps.update(self._waited_streams(thread, gpu, at))
            thread.waits = 0
        steps = [self._kernel(gpu, at, deps)]
        thread.stream = gpu.stream
        if thread.working is not None:
            self.final_of[thread.working.steps[0]] = steps
        inside = self._inside(index, at)
        if inside is not None:
            inside.stream = gpu.stream
            inside.launched = [*inside.launched, *steps]
        return steps

    def _kernel(self, gpu: Gpu, at: int, deps: set[int], node: NodeType = _COMP) -> int:
        ready = self._find_cause(gpu, at, deps)
        start = gpu.start_ns
        took = gpu.end_ns - start
        step = Step(node, gpu.name, start, took, sorted(deps), False, self.number_of[gpu.stream])
        return self._add(step, ready)

    def _communication(self, index: int, at: int, gpu: Gpu, deps: set[int]) -> list[int]:
        """A kernel of a communication library."""
        thread = self.threads[index]
        if thread.stream is not None and thread.stream != gpu.stream:
            # Its stream waits for the one that calls it.
            before = self.last.get(thread.stream, ())
            deps.update(step for step in before if self.ends[step] <= gpu.start_ns)
        calls = self._calls_of(index, at, gpu)
        if not calls:
            return [self._communication_pause(gpu, at, deps)]
        self._find_cause(gpu, at, deps)
        return self._kernel_of(calls, gpu, sorted(deps))

    def _inside(self, index: int, at: int) -> Communication | None:
        """The call of communication in which a thread is."""
        starts = self.starts_of.get(index)
        if not starts:
            return None
        found = bisect_right(starts, at) - 1
        one = self.by_thread[index][found] if found >= 0 else None
        return one if one is not None and at <= one.end_ns else None

    def _calls_of(self, index: int, at: int, gpu: Gpu) -> list[Communication]:
        """The calls that a kernel of a communication library carries out."""
        inside = self._inside(index, at)
        if inside is not None:
            return [inside]
        given = facts("record_param_comms", gpu.args or {}, None)
        starts = self.starts_of.get(index, [])
        waiting: list[Communication] = []
        for one in reversed(self.by_thread[index][: bisect_right(starts, at)]):
            if one.steps:
                break
            if given.group is None or one.facts.group in (None, given.group):
                waiting.append(one)
        if waiting:
            return waiting[::-1]
        if given.kind is None:
            given = Facts(kind=_kernel_kind(gpu.name))
        if given.kind is None or given.kind == "wait":
            return []
        return [Communication(index, at, at, gpu.name, given)]

    def _kernel_of(self, calls: list[Communication], gpu: Gpu, deps: list[int]) -> list[int]:
        """The steps of a kernel of communication."""
        steps: list[int] = []
        took = gpu.end_ns - gpu.start_ns
        more = facts("record_param_comms", gpu.args or {}, None)
        for one in calls:
            if one.steps:
                # A further kernel of the same call.
                for step in one.steps:
                    self.steps[step].duration_ns += took
                    self.ends[step] = gpu.end_ns
                    self.replayed[step] += took
                steps += one.steps
                continue
            if len(calls) == 1:
                one.facts = merged([one.facts, more])
            steps.append(
                self._communicate(one, gpu.start_ns, took, deps, self.number_of[gpu.stream])
            )
            pending = self.threads[one.thread].unwaited
            pending.append(one)
            del pending[:-_MOST_UNWAITED]
        return steps

    def _waited_streams(self, thread: _Thread, gpu: Gpu, at: int) -> list[int]:
        """What the stream of a launch waits for, by the events that its thread waited for."""
        if not thread.waits:
            return []
        stream, own = gpu.stream, thread.stream
        others = [
            step
            for other, steps in self.last.items()
            if other != stream
            for step in steps
            if self.ends[step] <= gpu.start_ns
        ]
        found: list[int] = []
        if own is not None and own != stream and at - thread.recorded_ns < 3 * _CAUSE_NS:
            found = [step for step in self.last.get(own, []) if self.ends[step] <= gpu.start_ns]
        else:
            found = self._oldest(stream, gpu.start_ns, thread.waits)
            waited = set(found)
            found = [late for step in found for late in self.final_of.get(step, [step])]
            for other in self.threads:
                other.unwaited = [c for c in other.unwaited if not waited.issuperset(c.steps)]
        if not found and others:
            found = [max(others, key=lambda step: self.ends[step])]
        if found:
            self.made.note(
                "what a stream waits for (no cuda_sync events)", f"{self.where}, {at / 1e3:.0f} us"
            )
        return found

    def _oldest(self, stream: _Stream, before_ns: int, count: int) -> list[int]:
        """The oldest communication that has ended and that a stream has not waited for."""
        done = self.joined[stream]
        first = self.joined_up_to[stream]
        while first < len(self.comm_steps) and self.comm_steps[first] in done:
            done.discard(self.comm_steps[first])
            first += 1
        self.joined_up_to[stream] = first
        found: list[int] = []
        for step in self.comm_steps[first : first + _MOST_UNWAITED]:
            if len(found) == count:
                break
            if step not in done and self.ends[step] <= before_ns:
                found.append(step)
        done.update(found)
        return found

    def _find_cause(self, gpu: Gpu, at: int, deps: set[int]) -> int:
        """Add what a kernel that starts late must have waited for: a pause where that is not known.

        Processes that share a GPU wait for one another's time slices, for one.  Returns when the
        kernel can start in a replay.
        """
        ends, late = self.ends, gpu.start_ns - _LATE_NS
        ready = self._ready(deps)
        if ready > late:
            return ready
        free = max([at, *(ends[step] for step in deps)])
        if free <= late:
            causes = [
                step
                for step in self.recent
                if step not in deps and gpu.start_ns - _CAUSE_NS <= ends[step] <= gpu.start_ns
            ]
            if causes:
                cause = max(causes, key=ends.__getitem__)
                deps.add(cause)
                self.made.note("a kernel starts when another stream has ended", self.where)
                return max(ready, self.replayed[cause])
            self.made.note("a kernel starts as late as recorded, for no known reason", self.where)
        # It stands between what the kernel waits for and the kernel, and occupies nothing.
        pause = Step(
            NodeType.METADATA, "pause", free, gpu.start_ns - ready, sorted(deps), False,
            self.number_of[gpu.stream],
        )  # fmt: skip
        deps.clear()
        deps.add(self._add(pause, ready))
        return gpu.start_ns


def _stream_numbers(streams: set[_Stream]) -> dict[_Stream, int]:
    """A number for each stream: its own, unless one of another device has that.

    Examples
    --------
    >>> _stream_numbers({(0, 7), (1, 7), (0, 20)})
    {(0, 7): 7, (0, 20): 20, (1, 7): 21}
    """
    numbers: dict[_Stream, int] = {}
    for stream in sorted(streams):
        taken = numbers.values()
        numbers[stream] = max(taken) + 1 if stream[1] in taken else stream[1]
    return numbers


def _union(
    start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The stretches that some intervals cover."""
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    reach = np.maximum.accumulate(end)
    new = np.concatenate([[True], start[1:] > reach[:-1]])
    first = np.flatnonzero(new)
    last = np.concatenate([first[1:] - 1, [len(start) - 1]])
    return start[first], reach[last]


def _call_kind(name: str) -> int | None:
    """What a call of the GPU's runtime is."""
    text = name.lower()
    if "streamwaitevent" in text:
        return _STREAM_WAIT
    if "eventrecord" in text:
        return _RECORD
    return _SYNC if "synchronize" in text else None


def _kernel_kind(name: str) -> CommType | str | None:
    """What a kernel of NCCL or RCCL does, by its name: ncclDevKernel_AllReduce_Sum_bf16_RING_LL."""
    plain = name.lower().partition("nccl")[2]
    for part in plain.replace("kernel", "_").split("_"):
        if part in ("sendrecv",):
            return None
        if (kind := kind_of(part)) is not None:
            return kind
    return None


def _groups(recording: Recording, execution: ExecutionTrace | None) -> dict[str, tuple[int, ...]]:
    """The process groups that either file lists."""
    groups: dict[str, tuple[int, ...]] = {}
    listed = recording.distributed.get("pg_config")
    for source in (
        execution.groups if execution else [],
        listed if isinstance(listed, list) else [],
    ):
        for one in source:
            if not isinstance(one, dict) or one.get("pg_name") is None:
                continue
            ranks = one.get("ranks")
            if isinstance(ranks, str):
                ranks = [
                    int(n) for n in one_line(ranks).strip("[]").split(",") if n.strip().isdigit()
                ]
            if isinstance(ranks, list):
                groups[str(one["pg_name"])] = tuple(r for r in ranks if type(r) is int)
    return groups


def _whole(value: Any, otherwise: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise


def _count(value: Any, otherwise: int) -> int:
    """A number of ranks, or of one, where it can be one."""
    number = _whole(value, otherwise)
    return number if 0 <= number <= MAX_RANKS else otherwise
