# SPDX-License-Identifier: MIT
"""The calls of communication in a recording: each once, with all the marks that it left."""

from __future__ import annotations

import re
from collections import defaultdict

import msgspec
import numpy as np

from astra_bridge.sources.communication import Facts, facts, kind_of, merged
from astra_bridge.sources.execution_trace import ExecutionTrace, Operator
from astra_bridge.sources.kineto import Call, Recording
from astra_bridge.trace.inferences import Inferences

__all__ = ["Communication", "find_calls"]

# Backends that communicate on the host: their annotation is the communication itself.
_ON_HOST = re.compile(r"(gloo|mpi|ucc):")


class Communication(msgspec.Struct):
    """A call of communication: the innermost operator with all that is around it.

    Attributes
    ----------
    thread : int
        Of the host, that calls.
    start_ns, end_ns : int
        The call.
    name : str
    facts : Facts
    worker : int
        Thread that carries it out, where the host does: -1 where the GPU does.
    ran_ns : tuple of int
        From when to when it did.
    moved_ns : tuple of int
        The longest stretch of that in which it did nothing else, such as to copy from the GPU.
    issued : list of int
        Steps of the calling thread.
    stream : tuple of int or None
        Of the GPU, in which the call stands.
    launched : list of int
        Steps that the GPU runs on its behalf.
    steps : list of int
        What it became.
    final : list of int
        What ends it: its steps, or what the worker does after them.
    """

    thread: int
    start_ns: int
    end_ns: int
    name: str
    facts: Facts
    worker: int = -1
    ran_ns: tuple[int, int] = (0, 0)
    moved_ns: tuple[int, int] = (0, 0)
    issued: list[int] = []
    stream: tuple[int, int] | None = None
    launched: list[int] = []
    steps: list[int] = []
    final: list[int] = []


def find_calls(
    recording: Recording, execution: ExecutionTrace | None, made: Inferences
) -> tuple[list[Communication], list[Communication]]:
    """Find what communicates, and what waits for it; both in the order of time.

    Parameters
    ----------
    recording : Recording
    execution : ExecutionTrace or None
    made : Inferences
    """
    operators = _Operators(execution, made, recording.file.name)
    found: list[Communication] = []
    waits: list[Communication] = []
    apart: list[Call] = []
    per_thread: dict[int, list[Call]] = defaultdict(list)
    for call in recording.calls:
        per_thread[call.thread].append(call)
    operators.prepare(sorted(recording.calls, key=lambda call: call.start_ns))
    for calls in per_thread.values():
        calls.sort(key=lambda call: (call.start_ns, -call.end_ns))
        chains, alone = _chains(calls)
        apart += alone
        for chain, note in chains:
            # The innermost knows most, and the annotation of a backend least.
            marks = [*reversed(chain), *([note] if note else [])]
            together = merged([facts(mark.name, mark.args, operators.of(mark)) for mark in marks])
            inner = chain[-1]
            one = Communication(inner.thread, inner.start_ns, inner.end_ns, inner.name, together)
            if note is not None and _ON_HOST.match(note.name):
                one.worker = note.thread
                one.ran_ns = one.moved_ns = note.start_ns, note.end_ns
            if together.kind is None and inner.name == "record_param_comms":
                together.kind = "wait"  # PyTorch before 2.2 wrote no names
            if together.kind == "wait":
                waits.append(one)
            elif together.kind is not None:
                found.append(one)
    found.sort(key=lambda one: one.start_ns)
    waits.sort(key=lambda one: one.start_ns)
    _pair_workers(recording, found, apart)
    return found, waits


def _pair_workers(recording: Recording, found: list[Communication], apart: list[Call]) -> None:
    """Pair what threads of a backend do with the calls that gave it to them, in order."""
    waiting: dict[object, list[Communication]] = defaultdict(list)
    for one in found:
        if one.worker < 0:
            waiting[one.facts.kind].append(one)
    for call in sorted(apart, key=lambda call: call.start_ns):
        if not _ON_HOST.match(call.name):
            continue
        known = facts(call.name, call.args, None)
        queue = waiting[known.kind]
        ready = [c for c in queue if c.start_ns <= call.start_ns]
        if not ready:
            continue
        one = ready[0]
        queue.remove(one)
        one.facts = merged([one.facts, known])
        one.worker, one.ran_ns = call.thread, (call.start_ns, call.end_ns)
        inner = recording.call_thread == call.thread
        inner &= recording.call_start_ns >= call.start_ns
        inner &= recording.call_end_ns <= call.end_ns
        begins = np.concatenate([[call.start_ns], np.sort(recording.call_end_ns[inner])])
        ends = np.concatenate([np.sort(recording.call_start_ns[inner]), [call.end_ns]])
        longest = int(np.argmax(ends - begins))
        one.moved_ns = int(begins[longest]), int(ends[longest])


class _Operators:
    """Finds the operator of the execution trace that a call of Kineto's is."""

    def __init__(self, execution: ExecutionTrace | None, made: Inferences, where: str) -> None:
        self._execution = execution
        self._by_record: dict[int, Operator] = {}
        self._by_name: dict[str, list[Operator]] = defaultdict(list)
        self._found: dict[int, Operator] = {}
        self._made, self._where = made, where
        if execution is None:
            return
        for operator in execution.operators:
            if operator.record > 0:
                self._by_record[operator.record] = operator
            self._by_name[operator.name].append(operator)

    def prepare(self, calls: list[Call]) -> None:
        """Pair calls, by number where there is one, and else by name, in the order of time."""
        if self._execution is None:
            return
        for call in calls:
            record = call.args.get("Record function id") or 0
            operator = self._by_record.get(record) if record else None
            if operator is None or operator.name != call.name:
                if record and self._by_record:
                    continue
                queue = self._by_name.get(call.name)
                if not queue:
                    continue
                operator = queue.pop(0)
                self._made.note("operators are paired by name and order", self._where)
            self._found[id(call)] = operator

    def of(self, call: Call) -> Operator | None:
        return self._found.get(id(call))


def _chains(calls: list[Call]) -> tuple[list[tuple[list[Call], Call | None]], list[Call]]:
    """Each innermost operator with all around it, outermost first, and its annotation.

    Parameters
    ----------
    calls : list of Call
        Of one thread, in the order of time.

    Returns
    -------
    chains : list of tuple
    apart : list of Call
        Annotations outside of any operator: what threads of a backend do.
    """
    stack: list[Call] = []
    around: dict[int, list[Call]] = {}
    outer: set[int] = set()
    notes: dict[int, Call] = {}
    apart: list[Call] = []
    for call in calls:
        while stack and call.start_ns >= stack[-1].end_ns:
            stack.pop()
        if call.note:
            # It may end long after the operator that began it.
            if stack:
                notes.setdefault(id(stack[-1]), call)
            else:
                apart.append(call)
            continue
        if kind_of(_told(call)) is None:
            continue
        outer.update(map(id, stack))
        around[id(call)] = list(stack)
        stack.append(call)
    chains = [
        ([*around[id(call)], call], notes.get(id(call)))
        for call in calls
        if id(call) in around and id(call) not in outer
    ]
    return chains, apart


def _told(call: Call) -> str:
    """The name that says what a call does."""
    if call.name != "record_param_comms":
        return call.name
    return str(call.args.get("Collective name") or "wait")
