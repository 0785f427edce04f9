# SPDX-License-Identifier: MIT
"""Kineto's trace (``torch.profiler``'s JSON) as columns, in a stream: 1 GB needs no 2 GB of memory.

The file is decoded block by block, each cut between two events; of an event, only what linking
needs is kept.
"""

from __future__ import annotations

import math
import re
from array import array
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.sources.json_list import read_list

__all__ = ["Call", "Gpu", "Recording", "is_communication", "read_kineto"]

Column = NDArray[np.int64]

HOST, RUNTIME, GPU, NOTE, SYNC = range(5)
_CATEGORIES = {
    "cpu_op": HOST,
    "user_annotation": NOTE,
    "cuda_runtime": RUNTIME,
    "cuda_driver": RUNTIME,
    "privateuse1_runtime": RUNTIME,
    "privateuse1_driver": RUNTIME,
    "xpu_runtime": RUNTIME,
    "kernel": GPU,
    "gpu_memcpy": GPU,
    "gpu_memset": GPU,
    "cuda_sync": SYNC,
    # As PyTorch before 1.12 spelled them.
    "Operator": HOST,
    "Runtime": RUNTIME,
    "Kernel": GPU,
    "Memcpy": GPU,
    "Memset": GPU,
}
_COMMUNICATION = re.compile(
    r"(_?c10d(_functional)?(_autograd)?::|_c10d_functional|c10d_functional|record_param_comms$"
    r"|(nccl|gloo|mpi|ucc|xccl|hccl|rccl):)"
)


def is_communication(name: str) -> bool:
    """Whether a host operator of this name communicates, or waits for communication."""
    return _COMMUNICATION.match(name) is not None


class _Event(msgspec.Struct, gc=False):
    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: Any = 0
    tid: Any = 0
    ts: float = 0.0
    dur: float = 0.0
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Link(msgspec.Struct, gc=False):
    """What a runtime call has of interest."""

    correlation: int = -1


class _Placed(msgspec.Struct, gc=False):
    """What an activity of the GPU has of interest."""

    correlation: int = -1
    device: int = -1
    stream: int = -1
    collective: str = msgspec.field(default="", name="Collective name")


class Call(msgspec.Struct):
    """A host operator that communicates.

    Attributes
    ----------
    thread : int
    start_ns, end_ns : int
    name : str
    args : dict
        As recorded.
    note : bool
        An annotation (``nccl:all_reduce``, ``gloo:all_reduce``), not an operator.
    """

    thread: int
    start_ns: int
    end_ns: int
    name: str
    args: dict[str, Any]
    note: bool


class Gpu(msgspec.Struct, gc=False):
    """A kernel, a copy or a fill on a stream of the GPU."""

    stream: tuple[int, int]
    start_ns: int
    end_ns: int
    name: str
    correlation: int
    args: dict[str, Any] | None  # of a kernel of a communication library


class Recording(msgspec.Struct):
    """What was recorded of one rank; times in ns from the first event.

    Attributes
    ----------
    file : Path
    distributed : dict
        ``distributedInfo``: rank, world_size, pg_config ...; may be empty.
    threads : list of tuple
        Process and thread of each host thread; elsewhere, threads are indices into it.
    op_thread, op_start_ns, op_end_ns : ndarray of int64
        Operators of the host, most of those left out that are inside of others.
    call_thread, call_start_ns, call_end_ns, call_name, call_correlation : ndarray of int64
        Calls of the GPU's runtime; names are indices into `names`.
    names : list of str
    gpu : list of Gpu
    calls : list of Call
        Operators and annotations that communicate.
    notes : list of tuple
        Other annotations: thread, start, end, name.
    syncs : dict of int to dict
        By correlation, what CUPTI says of a wait for an event or a stream.
    base_ns : int
        What was taken off all times.
    """

    file: Path
    distributed: dict[str, Any]
    threads: list[tuple[Any, Any]]
    op_thread: NDArray[np.int64]
    op_start_ns: NDArray[np.int64]
    op_end_ns: NDArray[np.int64]
    call_thread: NDArray[np.int64]
    call_start_ns: NDArray[np.int64]
    call_end_ns: NDArray[np.int64]
    call_name: NDArray[np.int64]
    call_correlation: NDArray[np.int64]
    names: list[str]
    gpu: list[Gpu]
    calls: list[Call]
    notes: list[tuple[int, int, int, str]]
    syncs: dict[int, dict[str, Any]]
    base_ns: int


_link = msgspec.json.Decoder(_Link)
_placed = msgspec.json.Decoder(_Placed)


class _Reader:
    """Collects the columns."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.threads: dict[tuple[Any, Any], int] = {}
        self.names: dict[str, int] = {}
        self.kinds: dict[str, bool] = {}
        self.ops: tuple[Any, Any, Any] = array("i"), array("d"), array("d")
        self.runtime: tuple[Any, Any, Any, Any, Any] = (
            array("i"), array("d"), array("d"), array("i"), array("q"),
        )  # fmt: skip
        self.outermost: dict[int, tuple[float, float]] = {}  # thread -> its last operator
        # Name -> the same text, each only once in memory, and whether it communicates.
        self.kernels: dict[str, tuple[str, bool]] = {}
        self.gpu: list[Gpu] = []
        self.calls: list[Call] = []
        self.notes: list[tuple[int, int, int, str]] = []
        self.syncs: dict[int, dict[str, Any]] = {}

    def add(self, events: list[_Event]) -> None:
        """Take over what is needed of some events."""
        threads, kinds, names = self.threads, self.kinds, self.names
        op_thread, op_start, op_took = (column.append for column in self.ops)
        thread_of, start_of, took_of, name_of, link_of = (c.append for c in self.runtime)
        categories, decode, outermost = _CATEGORIES, _link.decode, self.outermost
        pid = tid = thread = -1  # of the last event of the host
        outer_start = outer_end = -math.inf  # of the last operator of that thread around others
        for event in events:
            kind = categories.get(event.cat)
            if kind is None or event.ph != "X":
                continue
            if kind == GPU:
                self._gpu(event)
                continue
            if kind == SYNC:
                args = _args(event)
                self.syncs[_whole(args.get("correlation"))] = args
                continue
            if event.tid != tid or event.pid != pid or thread < 0:
                outermost[thread] = outer_start, outer_end
                pid, tid = event.pid, event.tid
                thread = threads.setdefault((pid, tid), len(threads))
                outer_start, outer_end = outermost.get(thread, (-math.inf, -math.inf))
            name = event.name
            if kind == RUNTIME:
                thread_of(thread)
                start_of(event.ts)
                took_of(event.dur)
                name_of(names.setdefault(name, len(names)))
                try:
                    link_of(decode(event.args).correlation)
                except msgspec.DecodeError:
                    link_of(_whole(_args(event).get("correlation")))
                continue
            communicates = kinds.get(name)
            if communicates is None:
                communicates = kinds[name] = is_communication(name)
            if communicates or kind == NOTE:
                start_ns = round(event.ts * 1000)
                end_ns = start_ns + round(event.dur * 1000)
                if communicates:
                    args = _args(event)
                    self.calls.append(Call(thread, start_ns, end_ns, name, args, kind == NOTE))
                else:
                    self.notes.append((thread, start_ns, end_ns, name))
                continue
            start, took = event.ts, event.dur
            if outer_start <= start and start + took < outer_end:
                continue  # inside of another operator
            outer_start, outer_end = start, start + took - _ROUNDING_US
            op_thread(thread)
            op_start(start)
            op_took(took)
        outermost[thread] = outer_start, outer_end

    def _gpu(self, event: _Event) -> None:
        """A kernel, a copy or a fill."""
        try:
            known = _placed.decode(event.args)
        except msgspec.DecodeError:
            args = _args(event)
            known = _Placed(
                _whole(args.get("correlation")),
                _whole(args.get("device")),
                _whole(args.get("stream")),
                str(args.get("Collective name") or ""),
            )
        stream = (
            known.device if known.device >= 0 else _whole(event.pid),
            known.stream if known.stream >= 0 else _whole(event.tid),
        )
        name = event.name
        kernel = self.kernels.get(name)
        if kernel is None:
            kernel = self.kernels[name] = name, "nccl" in name.lower()
        more = _args(event) if kernel[1] or known.collective else None
        start = round(event.ts * 1000)
        end = start + round(event.dur * 1000)
        self.gpu.append(Gpu(stream, start, end, kernel[0], known.correlation, more))

    def finish(self, distributed: Any) -> Recording:
        op_start, op_end = _times_ns(self.ops[1], self.ops[2])
        call_start, call_end = _times_ns(self.runtime[1], self.runtime[2])
        starts = [int(column.min()) for column in (op_start, call_start) if len(column)]
        starts += [one.start_ns for one in self.gpu] + [one.start_ns for one in self.calls]
        starts += [start for _, start, _, _ in self.notes]
        base = min(starts, default=0)
        for one in self.gpu:
            one.start_ns -= base
            one.end_ns -= base
        for call in self.calls:
            call.start_ns -= base
            call.end_ns -= base
        return Recording(
            file=self.file,
            distributed=distributed if isinstance(distributed, dict) else {},
            threads=list(self.threads),
            op_thread=_whole_column(self.ops[0]),
            op_start_ns=op_start - base,
            op_end_ns=op_end - base,
            call_thread=_whole_column(self.runtime[0]),
            call_start_ns=call_start - base,
            call_end_ns=call_end - base,
            call_name=_whole_column(self.runtime[3]),
            call_correlation=_whole_column(self.runtime[4]),
            names=list(self.names),
            gpu=self.gpu,
            calls=self.calls,
            notes=[
                (thread, start - base, end - base, name) for thread, start, end, name in self.notes
            ],
            syncs=self.syncs,
            base_ns=base,
        )


_ROUNDING_US = 0.002
"""An operator that ends so little before the one around it may end after it in whole ns."""


def _times_ns(start_us: array[float], took_us: array[float]) -> tuple[Column, Column]:
    """Start and end in whole ns; both are rounded, so that equal durations stay equal."""
    start = np.rint(np.array(start_us, np.float64) * 1000).astype(np.int64)
    return start, start + np.rint(np.array(took_us, np.float64) * 1000).astype(np.int64)


def _whole_column(values: array[int]) -> Column:
    return np.array(values, np.int64)


def _whole(value: Any, otherwise: int = -1) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return otherwise


def _args(event: _Event) -> dict[str, Any]:
    try:
        args = msgspec.json.decode(event.args)
    except msgspec.DecodeError:
        return {}
    return args if isinstance(args, dict) else {}


def read_kineto(file: Path) -> Recording:
    """Read what ``torch.profiler`` wrote, gzip-compressed or not.

    Parameters
    ----------
    file : Path

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        It cannot be read, or is not Kineto's JSON.
    """
    reader = _Reader(file)
    beside = read_list(file, "traceEvents", _FIRST_KEYS, _Event, _lenient, reader.add)
    return reader.finish(beside.get("distributedInfo"))


_FIRST_KEYS = ("ph", "name", "cat", "pid", "tid", "ts", "dur", "args", "id", "s")


def _lenient(entry: dict[str, Any]) -> _Event:
    """An event whose fields are not of the usual kinds."""
    try:
        start, took = float(entry.get("ts") or 0), float(entry.get("dur") or 0)
    except (TypeError, ValueError):
        return _Event()
    args = msgspec.Raw(msgspec.json.encode(entry.get("args")))
    return _Event(
        str(entry.get("ph", "")), str(entry.get("cat", "")), str(entry.get("name", "")),
        entry.get("pid", 0), entry.get("tid", 0), start, took, args,
    )  # fmt: skip
