# SPDX-License-Identifier: MIT
"""Kineto's trace (``torch.profiler``'s JSON) as columns, in a stream: 1 GB needs no 2 GB of memory.

The file is decoded block by block, each cut between two events; of an event, only what linking
needs is kept.  The native scanner (csrc/trace/kineto.cpp) takes plain events; those that are not,
and all that communicate, are decoded here, and where there is no native part all are.
"""

from __future__ import annotations

import importlib
import math
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.sources.json_list import NOT_JSON, read_list
from astra_bridge.text import one_line

_scanner: Any
try:
    _scanner = importlib.import_module("astra_bridge._native._trace").KinetoScanner
except ImportError:
    _scanner = None  # not built: slower, the same result

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


_Thread = int | float | str | None
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Event(msgspec.Struct, gc=False):
    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: _Thread = 0
    tid: _Thread = 0
    ts: float = 0.0
    dur: float = 0.0
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Link(msgspec.Struct, gc=False):
    """What a runtime call has of interest."""

    correlation: _Int64 = -1


class _Placed(msgspec.Struct, gc=False):
    """What an activity of the GPU has of interest."""

    correlation: _Int64 = -1
    device: _Int64 = -1
    stream: _Int64 = -1
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
    backwards : int
        Events that end before they start; they count as of no duration.
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
    backwards: int = 0


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
        # Device, stream, start, duration, name, correlation.
        self.gpu: tuple[Any, Any, Any, Any, Any, Any] = (
            array("q"), array("q"), array("d"), array("d"), array("i"), array("q"),
        )  # fmt: skip
        self.outermost: dict[int, tuple[float, float]] = {}  # thread -> its last operator
        # Name -> its number, and whether it communicates.
        self.kernels: dict[str, tuple[int, bool]] = {}
        self.gpu_args: dict[int, dict[str, Any]] = {}  # of kernels that communicate
        self.calls: list[Call] = []
        self.notes: list[tuple[int, int, int, str]] = []
        self.syncs: dict[int, dict[str, Any]] = {}
        self.backwards = 0
        self.scanner: Any = None
        if _scanner is not None:
            self.scanner = _scanner(
                [(name.encode(), kind) for name, kind in _CATEGORIES.items()],
                lambda pid, tid: self._thread(_json(pid), _json(tid)),
                lambda name: self._communicates(_text(name)),
                lambda name: self._name(_text(name)),
                lambda name: self._kernel(_text(name)),
            )

    def _thread(self, pid: Any, tid: Any) -> int:
        return self.threads.setdefault((pid, tid), len(self.threads))

    def _name(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))

    def _communicates(self, name: str) -> bool:
        found = self.kinds.get(name)
        if found is None:
            found = self.kinds[name] = is_communication(name)
        return found

    def _kernel(self, name: str) -> tuple[int, bool]:
        found = self.kernels.get(name)
        if found is None:
            found = self.kernels[name] = len(self.kernels), "nccl" in name.lower()
        return found

    def scan(self, text: bytes, decode: Callable[[bytes], list[_Event]]) -> tuple[int, bool]:
        """Take the whole events at the start of a text that are plain; see `read_list`."""
        try:
            taken, plain, ops, runtime, gpu, args, rest = self.scanner.scan(text)
        except NOT_JSON:  # of a name
            return 0, False
        first = len(self.gpu[0])
        for columns, found in ((self.ops, ops), (self.runtime, runtime), (self.gpu, gpu)):
            for column, values in zip(columns, found, strict=True):
                column.frombytes(values)
        for at, value in args:
            self.gpu_args[first + at] = _args(value)
        if rest:
            try:
                self.add(decode(b"[" + b",".join(rest) + b"]"))
            except NOT_JSON as error:
                raise InputError(
                    f"not valid JSON: {one_line(str(error))}", file=self.file
                ) from None
        return taken, plain

    def add(self, events: list[_Event]) -> None:
        """Take over what is needed of some events."""
        categories, decode, outermost = _CATEGORIES, _link.decode, self.outermost
        op_thread, op_start, op_took = (column.append for column in self.ops)
        thread_of, start_of, took_of, name_of, link_of = (c.append for c in self.runtime)
        pid: Any = -1  # of the last event of the host
        tid: Any = -1
        thread = -1
        outer_start = outer_end = -math.inf  # of the last operator of that thread around others
        for event in events:
            kind = categories.get(event.cat)
            if kind is None or event.ph != "X":
                continue
            if kind == GPU:
                self._gpu(event)
                continue
            if kind == SYNC:
                args = _args(event.args)
                self.syncs[_whole(args.get("correlation"))] = args
                continue
            if event.tid != tid or event.pid != pid or thread < 0:
                outermost[thread] = outer_start, outer_end
                pid, tid = event.pid, event.tid
                thread = self._thread(pid, tid)
                outer_start, outer_end = outermost.get(thread, (-math.inf, -math.inf))
            name = event.name
            if kind == RUNTIME:
                thread_of(thread)
                start_of(event.ts)
                took_of(event.dur)
                name_of(self._name(name))
                try:
                    link_of(decode(event.args).correlation)
                except msgspec.DecodeError:
                    link_of(_whole(_args(event.args).get("correlation")))
                continue
            communicates = self._communicates(name)
            if communicates or kind == NOTE:
                start_ns, end_ns = self._times_ns(event)
                if communicates:
                    args = _args(event.args)
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
            args = _args(event.args)
            known = _Placed(
                _whole(args.get("correlation")),
                _whole(args.get("device")),
                _whole(args.get("stream")),
                str(args.get("Collective name") or ""),
            )
        name, communicates = self._kernel(event.name)
        if communicates or known.collective:
            self.gpu_args[len(self.gpu[0])] = _args(event.args)
        row = (
            known.device if known.device >= 0 else _whole(event.pid),
            known.stream if known.stream >= 0 else _whole(event.tid),
            event.ts, event.dur, name, known.correlation,
        )  # fmt: skip
        for column, value in zip(self.gpu, row, strict=True):
            column.append(value)

    def _times_ns(self, event: _Event) -> tuple[int, int]:
        start, end = self._columns_ns([event.ts], [event.dur])
        return int(start[0]), int(end[0])

    def _columns_ns(self, start_us: Any, took_us: Any) -> tuple[Column, Column]:
        """Start and end in whole ns; both are rounded, so that equal durations stay equal."""
        start = np.rint(np.array(start_us, np.float64) * 1000)
        took = np.rint(np.array(took_us, np.float64) * 1000)
        for key, values in (("ts", start), ("dur", took)):
            far = ~(np.abs(values) <= _MOST_NS)
            if far.any():
                raise InputError(
                    f"is {values[far][0] / 1000:g} us; allowed: up to {_MOST_NS / 1000:g}",
                    file=self.file, key=key,
                )  # fmt: skip
        self.backwards += int((took < 0).sum())
        begin: Column = start.astype(np.int64)
        end: Column = begin + np.maximum(took, 0).astype(np.int64)
        return begin, end

    def _activities(self, starts: Column, ends: Column) -> Iterator[Gpu]:
        """All of the GPU."""
        device, stream, _, _, name, correlation = self.gpu
        # The same tuples and texts, each only once in memory.
        streams: dict[tuple[int, int], tuple[int, int]] = {}
        names = list(self.kernels)
        args: list[Any] = [None] * len(name)
        for at, value in self.gpu_args.items():
            args[at] = value
        return map(
            Gpu,
            [streams.setdefault(one, one) for one in zip(device, stream, strict=True)],
            starts.tolist(),
            ends.tolist(),
            map(names.__getitem__, name),
            correlation,
            args,
        )

    def finish(self, distributed: Any) -> Recording:
        op_start, op_end = self._columns_ns(self.ops[1], self.ops[2])
        call_start, call_end = self._columns_ns(self.runtime[1], self.runtime[2])
        gpu_start, gpu_end = self._columns_ns(self.gpu[2], self.gpu[3])
        columns = op_start, call_start, gpu_start
        starts = [int(column.min()) for column in columns if len(column)]
        starts += [one.start_ns for one in self.calls]
        starts += [start for _, start, _, _ in self.notes]
        base = min(starts, default=0)
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
            gpu=list(self._activities(gpu_start - base, gpu_end - base)),
            calls=self.calls,
            notes=[
                (thread, start - base, end - base, name) for thread, start, end, name in self.notes
            ],
            syncs=self.syncs,
            base_ns=base,
            backwards=self.backwards,
        )


_ROUNDING_US = 0.002
"""An operator that ends so little before the one around it may end after it in whole ns."""

_MOST_NS = 2.0**61
"""What a recording may say of when something was: 73 years from the start of its clock."""


def _whole_column(values: array[int]) -> Column:
    return np.array(values, np.int64)


def _whole(value: Any, otherwise: int = -1) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise
    return number if -(2**63) <= number < 2**63 else otherwise


def _args(text: Any) -> dict[str, Any]:
    try:
        args = msgspec.json.decode(text)
    except NOT_JSON:
        return {}
    return args if isinstance(args, dict) else {}


def _json(text: bytes) -> Any:
    return msgspec.json.decode(text)


def _text(raw: bytes) -> str:
    """A text as it stands between its quotes."""
    return str(msgspec.json.decode(b'"' + raw + b'"'))


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
    scan = reader.scan if reader.scanner is not None else None
    try:
        beside = read_list(file, "traceEvents", _FIRST_KEYS, _Event, _lenient, reader.add, scan)
    finally:
        reader.scanner = None  # it keeps the reader, and all columns, alive
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
        _thread_of(entry.get("pid", 0)), _thread_of(entry.get("tid", 0)), start, took, args,
    )  # fmt: skip


def _thread_of(value: Any) -> Any:
    return str(value) if isinstance(value, dict | list) else value
