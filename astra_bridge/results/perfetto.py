# SPDX-License-Identifier: MIT
"""Perfetto's trace format, as far as a timeline needs it: tracks, slices, flows and counters.

The field numbers are those of Perfetto's schema (protos/perfetto/trace); the tests read what is
written with the package ``perfetto``.  Packets of events, of which a timeline has millions, are
made of arrays: those of one shape (the same fields) are rows of one table of bytes, because a
number takes as many bytes in each as the largest one needs.  A varint may be longer than it has to
be; Perfetto's own writer makes lengths so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.trace.varint import varint

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["BEGIN", "COUNTER", "END", "NO_NODE", "TraceWriter"]

Bytes = NDArray[np.uint8]

BEGIN, END, COUNTER = 1, 2, 4
"""Kinds of events: TrackEvent.Type."""

NO_NODE = np.uint64(2**64 - 1)
"""In place of a node's id: none."""

_CLEARED, _NEEDED = 1, 2
_EXPLICIT_ORDER = 3
_SEQUENCE = 1
_VARINT: Literal[0] = 0
_FIXED64: Literal[1] = 1
_LEN = 2
_MOST_EVENTS = 1 << 16
"""Events that are made into bytes together."""

# Fields of InternedData with the texts that stand once in the file; an entry is iid=1, name=2.
_CATEGORY, _NAME, _NOTE = 1, 2, 3


def _tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _tag(field, _VARINT) + varint(value)


def _message(field: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return _tag(field, _LEN) + varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode(errors="replace"))


class _Column(NamedTuple):
    """The values of a field, one in each row."""

    values: NDArray[np.uint64]
    wire: Literal[0, 1]

    @property
    def width(self) -> int:
        """Bytes that each takes."""
        if self.wire == _FIXED64:
            return 8
        return max(-(-int(self.values.max()).bit_length() // 7), 1)

    def write(self, rows: Bytes) -> None:
        """Write the values, shape (n, width)."""
        width = rows.shape[1]
        if self.wire == _FIXED64:
            rows[:] = self.values.astype("<u8").view(np.uint8).reshape(-1, 8)
            return
        for at in range(width):
            part = (self.values >> np.uint64(7 * at)).astype(np.uint8)
            rows[:, at] = part | 0x80 if at < width - 1 else part


_Parts = list["bytes | _Column"]


def _nested(field: int, parts: _Parts) -> _Parts:
    size = sum(part.width if isinstance(part, _Column) else len(part) for part in parts)
    return [_tag(field, _LEN) + varint(size), *parts]


def _rows(parts: _Parts, count: int) -> Bytes:
    widths = [part.width if isinstance(part, _Column) else len(part) for part in parts]
    rows = np.empty((count, sum(widths)), np.uint8)
    at = 0
    for part, width in zip(parts, widths, strict=True):
        if isinstance(part, _Column):
            part.write(rows[:, at : at + width])
        else:
            rows[:, at : at + width] = np.frombuffer(part, np.uint8)
        at += width
    return rows


def _encoded(columns: list[NDArray[np.uint64]], note: int) -> bytes:
    """The packets of events, one for each row of `TraceWriter.events`' columns."""
    _, kind, _, name, category, node_id, flow, ends_flow, _ = columns
    shape = kind.astype(np.int64)
    for at, part in enumerate([name, category, node_id ^ NO_NODE, flow, ends_flow]):
        shape |= (part != 0).astype(np.int64) << (3 + at)
    where, tables = [], []
    lengths = np.empty(len(shape), np.int64)
    for one in np.unique(shape).tolist():
        where.append(np.flatnonzero(shape == one))
        tables.append(_packets(one, [column[where[-1]] for column in columns], note))
        lengths[where[-1]] = tables[-1].shape[1]
    begin = np.cumsum(lengths) - lengths
    out = np.empty(int(lengths.sum()), np.uint8)
    for rows, table in zip(where, tables, strict=True):
        out[begin[rows][:, None] + np.arange(table.shape[1])] = table
    return out.tobytes()


def _packets(shape: int, columns: list[NDArray[np.uint64]], note: int) -> Bytes:
    """The packets of events that have the same fields, one in each row."""
    kind = shape & 7
    has_name, has_category, has_node, has_flow, has_end = (shape >> 3 + at & 1 for at in range(5))
    time, _, track, name, category, node_id, flow, ends_flow, value = columns

    def column(field: int, values: NDArray[np.uint64], wire: Literal[0, 1] = _VARINT) -> _Parts:
        return [_tag(field, wire), _Column(values, wire)]

    event: _Parts = []
    if has_category:
        event += column(3, category)
    if has_node:
        event += _nested(4, [_number(1, note), *column(3, node_id)])
    event += [_number(9, kind)]
    if has_name:
        event += column(10, name)
    event += column(11, track)
    if kind == COUNTER:
        event += column(44, value, _FIXED64)
    if has_flow:
        event += column(47, flow, _FIXED64)
    if has_end:
        event += column(48, ends_flow, _FIXED64)
    said = [_number(10, _SEQUENCE), *_nested(11, event), _number(13, _NEEDED)]
    return _rows(_nested(1, [*column(8, time), *said]), len(time))


class TraceWriter:
    """Writes packets one after the other; times are in ns, Perfetto's unit.

    Parameters
    ----------
    out : binary file
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._interned: dict[tuple[int, str], int] = {}
        self._tracks = 0
        self._first = True
        self._head: list[bytes] = []  # of what the events that wait refer to
        self._events: list[list[NDArray[np.uint64]]] = []
        self._waiting = 0

    def track(
        self, name: str, parent: int = 0, *, order: int = 0, counter: str | None = None
    ) -> int:
        """Add a track below another one; ``counter`` is the unit of one that holds values."""
        return self._descriptor(
            _text(2, name),
            _number(5, parent) if parent else b"",
            b"" if counter is None else _message(8, _text(6, counter)),
            order=order,
        )

    def process(self, name: str, pid: int) -> int:
        """Add a track that others stand below."""
        return self._descriptor(_message(3, _number(1, pid), _text(6, name)), order=pid)

    def name(self, text: str) -> int:
        """The number of a name of slices."""
        return self._number_of(_NAME, text)

    def category(self, text: str) -> int:
        """The number of a category of slices."""
        return self._number_of(_CATEGORY, text)

    def events(
        self,
        kind: ArrayLike,
        track: ArrayLike,
        time_ns: ArrayLike,
        *,
        name: ArrayLike = 0,
        category: ArrayLike = 0,
        node_id: ArrayLike | None = None,
        flow: ArrayLike = 0,
        ends_flow: ArrayLike = 0,
        value: ArrayLike | None = None,
    ) -> None:
        """Add events; of one track and time, in their order.

        Parameters
        ----------
        kind : array_like of int, shape (n,), or int
            `BEGIN` of a slice, `END` of the innermost one of its track, or `COUNTER`: a value from
            then on.
        track : array_like of int
        time_ns : array_like of int, shape (n,)
        name, category : array_like of int
            Of slices that begin, as :meth:`name` and :meth:`category` gave them; 0: none.
        node_id : array_like of uint64, optional
            A note of slices that begin; `NO_NODE`: none.
        flow, ends_flow : array_like of int
            A flow that leaves or enters a slice; 0: none.
        value : array_like of float, optional
            Of counters.
        """
        times = np.asarray(time_ns, np.uint64)
        if not len(times):
            return
        noted = NO_NODE if node_id is None else node_id
        bits = 0 if value is None else np.asarray(value, np.float64).view(np.uint64)
        columns = [times, kind, track, name, category, noted, flow, ends_flow, bits]
        self._events.append(
            [np.broadcast_to(np.asarray(one, np.uint64), times.shape) for one in columns]
        )
        self._waiting += len(times)
        if self._waiting >= _MOST_EVENTS:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        events = b""
        if self._waiting:
            columns = [np.concatenate(one) for one in zip(*self._events, strict=True)]
            events = _encoded(columns, self._number_of(_NOTE, "node_id"))
            self._events, self._waiting = [], 0
        self._out.write(b"".join([*self._head, events]))
        self._head = []

    def _descriptor(self, *parts: bytes, order: int) -> int:
        self._tracks += 1
        place = _number(11, _EXPLICIT_ORDER) + _number(12, order)
        self._packet(_message(60, _number(1, self._tracks), *parts, place))
        return self._tracks

    def _packet(self, content: bytes) -> None:
        flags = _NEEDED | (_CLEARED if self._first else 0)
        self._first = False
        self._head.append(_message(1, _number(10, _SEQUENCE), content, _number(13, flags)))

    def _number_of(self, kind: int, text: str) -> int:
        """The number of a text, which is written once."""
        number = self._interned.get((kind, text))
        if number is None:
            number = self._interned[kind, text] = len(self._interned) + 1
            self._packet(_message(12, _message(kind, _number(1, number), _text(2, text))))
        return number
