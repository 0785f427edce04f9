# SPDX-License-Identifier: MIT
"""Reading traces: from ``.et`` files to `TraceColumns`, one `Workload` for all ranks."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from astra_bridge import arguments
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import open_regular, unique_keys
from astra_bridge.text import one_line, show
from astra_bridge.trace.columns import (
    INT_COLUMNS,
    MISSING,
    NodeDetails,
    NodeType,
    ProcessGroup,
    TraceColumns,
    Workload,
)
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.kinds import HEAD_BYTES, Kind, kind_of_file, what_takes_it
from astra_bridge.trace.raw import RawError, RawTrace, twice

_native: Any
try:
    _native = importlib.import_module("astra_bridge._native._trace")
except ImportError:
    _native = None

_GZIP_MAGIC = b"\x1f\x8b"
_MOST_EXPANSION = 200
_SMALL_BYTES = 1 << 26
"""A compressed trace may be any size up to this, and more where it grows less than 200-fold."""
_LONGEST_PREFIX = 10
_MAPPED_BYTES = 1 << 16


def native_available() -> bool:
    """Say whether traces are read by the native decoder (the same columns, many times faster)."""
    return _native is not None


def _decode(data: Any) -> RawTrace:
    if _native is not None:
        try:
            return RawTrace(*_native.decode(data))
        except _native.RawError as error:
            raise RawError(*error.args) from None
    from astra_bridge.trace.decode import decode

    return decode(data)


class _Source(msgspec.Struct, frozen=True):
    """The bytes of a trace: kept (parsed from memory, or compressed), or read again from a file."""

    file: Path | None
    data: bytes | None
    signature: tuple[int, int]
    record_start: npt.NDArray[np.int64]

    def record(self, i: int) -> bytes:
        from astra_bridge.trace.decode import record_extent

        position = int(self.record_start[i])
        if self.data is not None:
            begin, end = record_extent(self.data, position)
            return self.data[begin:end]
        assert self.file is not None
        try:
            with self.file.open("rb") as file:
                if _signature(file.fileno()) != self.signature:
                    raise InputError("the trace has changed since it was read", file=self.file)
                file.seek(position)
                prefix = file.read(_LONGEST_PREFIX)
                begin, end = record_extent(prefix, 0, self.signature[0] - position)
                file.seek(position + begin)
                return file.read(end - begin)
        except OSError as error:
            raise InputError(
                f"cannot read the trace again: {error.strerror or error}", file=self.file
            ) from None

    def every(self) -> Iterator[NodeDetails]:
        """The details of all nodes: what is in a file is read at once."""
        return map(self._details, itertools.count(), self._records())

    def names(self) -> Iterator[str]:
        """The names of all nodes."""
        from google.protobuf.message import DecodeError

        from astra_bridge.trace.schema import NodeRecord

        read = 0
        try:
            for record in self._records():
                yield NodeRecord.FromString(record).name.decode()
                read += 1
        except (DecodeError, ValueError):
            raise self._no_node(read) from None

    def _records(self) -> Iterator[bytes]:
        data: Any = self.data
        if data is None:
            assert self.file is not None
            data, signature = _open(self.file)
            if signature != self.signature:
                raise InputError("the trace has changed since it was read", file=self.file)
        # Each begins after its length and ends where the next one's stands.
        content = np.frombuffer(data, np.uint8)
        begin = self.record_start.copy()
        end = np.append(begin[1:], len(content))
        long = np.arange(len(begin))
        while len(long):
            long = long[(content[begin[long]] >= 0x80) & (begin[long] < end[long] - 1)]
            begin[long] += 1
        begin += 1
        for first, last in zip(begin.tolist(), end.tolist(), strict=True):
            yield bytes(data[first:last])

    def __call__(self, i: int) -> NodeDetails:
        return self._details(i, self.record(i))

    def _no_node(self, i: int) -> InputError:
        return InputError(
            "this record is not a Chakra Node message (wrong field or text that is not UTF-8)",
            file=self.file,
            key=f"byte {self.record_start[i]}",
        )

    def _details(self, i: int, record: bytes) -> NodeDetails:
        from google.protobuf.message import DecodeError

        from astra_bridge.trace.schema import Node

        try:
            node = Node.FromString(record)
        except (DecodeError, ValueError):  # ValueError: text that is not UTF-8, without upb
            raise self._no_node(i) from None
        attributes = {}
        for attribute in node.attr:
            field = attribute.WhichOneof("value")
            # Of two attributes of one name the first counts, as in ASTRA-sim.
            if field is not None and attribute.name not in attributes:
                value = getattr(attribute, field)
                attributes[attribute.name] = (
                    list(value.values) if field.endswith("_list") else value
                )
        return NodeDetails(
            name=node.name,
            start_time_micros=node.start_time_micros,
            inputs_values=node.inputs.values,
            outputs_values=node.outputs.values,
            attributes=attributes,
        )


def _signature(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _node(file: Path | None, node_id: int, problem: str, key: str = "") -> InputError:
    return InputError(problem, file=file, key=f"node {node_id}{': ' if key else ''}{key}")


class _Dependencies(msgspec.Struct):
    """Who waits for whom, by positions; the fields of `TraceColumns`."""

    dep_start: npt.NDArray[np.int64]
    dep: npt.NDArray[np.int32]
    dep_is_control: npt.NDArray[np.bool_]
    unknown_callers: int = 0


def _resolve_deps(raw: RawTrace, file: Path | None) -> _Dependencies:
    """Check ids and turn ids of parents into positions."""
    ids = raw.node_id
    n = len(ids)
    # Producers number nodes in ascending order, so sorting is rarely needed.
    order: npt.NDArray[np.int64] | None = None
    if n > 1 and not bool(np.all(ids[1:] > ids[:-1])):
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        same = np.flatnonzero(ids[1:] == ids[:-1])
        if len(same):
            first, second = order[same[0]], order[same[0] + 1]
            raise _node(
                file,
                int(ids[same[0]]),
                twice(int(first), int(second)),
            )
    dep_id, counts = raw.dep_id, np.diff(raw.dep_start)
    if not len(dep_id):
        return _Dependencies(raw.dep_start, np.zeros(0, np.int32), np.zeros(0, np.bool_))
    control: npt.NDArray[np.bool_] | None = None
    if int(raw.data_dep_count.sum()) < len(dep_id):
        of_node = np.arange(len(dep_id)) - np.repeat(raw.dep_start[:-1], counts)
        control = of_node >= np.repeat(raw.data_dep_count, counts)
    if n and int(ids[-1]) - int(ids[0]) == n - 1:
        # Ids without gaps: the position is a subtraction (uint64 wraps below the first id).
        parent: npt.NDArray[np.uint64] = dep_id - ids[0]
        known = parent < n
    else:
        parent = np.minimum(np.searchsorted(ids, dep_id), n - 1).astype(np.uint64)
        known = ids[parent] == dep_id
    unknown = 0
    if not bool(known.all()):
        wrong = ~known if control is None else ~known & ~control
        if bool(wrong.any()):
            edge = int(np.argmax(wrong))
            child = int(np.searchsorted(raw.dep_start, edge, side="right")) - 1
            raise _node(
                file,
                int(raw.node_id[child]),
                f"depends on node {dep_id[edge]}, which this trace does not have",
                "data_deps",
            )
        # PyTorch's linker writes a caller of every operator, recorded or not.
        assert control is not None
        unknown = int((~known).sum())
        counts = np.bincount(np.repeat(np.arange(n), counts)[known], minlength=n).astype(np.int64)
        parent, control = parent[known], control[known]
    dep = parent.astype(np.int32)
    if order is not None:
        dep = order.astype(np.int32)[dep]
    if len(counts) and int(counts.max()) > 1:
        # Ascending per node and without repetition: child in the high half, parent in the low.
        children = np.repeat(np.arange(n, dtype=np.int64), counts)
        edges = children << 32 | dep
        if control is None:
            edges = np.unique(edges)
        else:
            # Data dependencies come first, so an edge of both kinds is found as one of data.
            edges, first_of = np.unique(edges, return_index=True)
            control = control[first_of]
        dep = (edges & 0xFFFFFFFF).astype(np.int32)
        counts = np.bincount(edges >> 32, minlength=n).astype(np.int64)
    dep_start = np.zeros(n + 1, np.int64)
    np.cumsum(counts, out=dep_start[1:])
    if control is None:
        control = _no_control(len(dep))
    return _Dependencies(dep_start, dep, control, unknown)


@lru_cache(maxsize=1)
def _no_control(count: int) -> npt.NDArray[np.bool_]:
    """Of dependencies none of which is a control dependency; traces of a length share it."""
    return np.zeros(count, np.bool_)


def _check_ranges(raw: RawTrace, file: Path | None) -> None:
    """Refuse values that no simulation can use, on the nodes that use them."""
    bad = np.flatnonzero((raw.type < 0) | (raw.type >= len(NodeType)))
    if len(bad):
        i = int(bad[0])
        allowed = ", ".join(f"{t.value} {t.name}" for t in NodeType)
        raise _node(
            file, int(raw.node_id[i]), f"unknown node type {raw.type[i]}; allowed: {allowed}"
        )
    p2p = (raw.type == int(NodeType.COMM_SEND)) | (raw.type == int(NodeType.COMM_RECV))
    comm = p2p | (raw.type == int(NodeType.COMM_COLL))
    memory = (raw.type == int(NodeType.MEM_LOAD)) | (raw.type == int(NodeType.MEM_STORE))
    compute = raw.type == int(NodeType.COMP)
    for name, used in (
        ("comm_size", comm),
        ("comm_src", p2p),
        ("comm_dst", p2p),
        ("root", comm),
        ("num_ops", compute),
        ("tensor_size", compute | memory),
        ("duration_ns", raw.type >= 0),
    ):
        row = raw.ints[INT_COLUMNS.index(name)]
        if row is None:
            continue
        bad = np.flatnonzero(used & (row < 0) & (row != MISSING))
        if len(bad):
            i = int(bad[0])
            raise _node(file, int(raw.node_id[i]), f"{row[i]} is negative; it must be >= 0", name)


@lru_cache(maxsize=1)
def _all_missing(n: int) -> npt.NDArray[np.int64]:
    """Return a column without any value; the columns of all traces of a length share it."""
    return np.full(n, MISSING, np.int64)


def _process_groups(
    node_type: npt.NDArray[np.int32],
    node_id: npt.NDArray[np.uint64],
    read_details: Callable[[int], NodeDetails],
    file: Path | None,
) -> tuple[ProcessGroup, ...]:
    """Parse the process groups that METADATA nodes declare.

    PyTorch writes ``inputs.values`` as the text of a list with one string, which is JSON:
    ``['[{"pg_name": "1", "ranks": [0, 1]}]']``.  Other METADATA nodes are none of our business.
    """
    groups: dict[str, ProcessGroup] = {}
    for i in np.flatnonzero(node_type == int(NodeType.METADATA)):
        text = read_details(int(i)).inputs_values.strip()
        if "pg_name" not in text:
            continue
        if text[:2] in ("['", '["'):
            text = text[2:-2]
        entries = None
        for candidate in (text, text.replace('\\"', '"')):
            try:
                entries = json.loads(candidate, object_pairs_hook=partial(unique_keys, file=file))
                break
            except InputError as error:
                what = f"{error.reason}: {error.key}"
                raise _node(file, int(node_id[i]), what, "inputs.values") from None
            except (ValueError, RecursionError):
                continue
        if not isinstance(entries, list):
            raise _node(
                file,
                int(node_id[i]),
                "process groups must be a quoted JSON list of {pg_name, ranks}, "
                f"not {show(text)}",
                "inputs.values",
            )
        for entry in entries:
            name = entry.get("pg_name") if isinstance(entry, dict) else None
            ranks = entry.get("ranks") if isinstance(entry, dict) else None
            if (
                not isinstance(name, str)
                or not isinstance(ranks, list)
                or not all(type(rank) is int and 0 <= rank < 2**31 for rank in ranks)
            ):
                raise _node(
                    file,
                    int(node_id[i]),
                    f"{show(entry)} is not a process group "
                    '{"pg_name": text, "ranks": [ranks >= 0]}',
                    "inputs.values",
                )
            groups[name] = ProcessGroup(name, tuple(ranks))
    return tuple(groups.values())


def _columns(
    data: Any, file: Path | None, kept: bytes | None, signature: tuple[int, int]
) -> TraceColumns:
    try:
        raw = _decode(data)
        return checked_columns(raw, file, _Source(file, kept, signature, raw.record_start))
    except RawError as error:
        if (kind := kind_of_file(bytes(data[:HEAD_BYTES]))) is not None:
            raise InputError(what_takes_it(kind, file), file=file) from None
        raise InputError(one_line(error.problem), file=file, key=error.place) from None
    except MemoryError:
        raise _too_large(len(data), "bytes of records", file) from None


def checked_columns(
    raw: RawTrace, file: Path | None, source: Callable[[int], NodeDetails]
) -> TraceColumns:
    """Check decoded records and put them together; `source` reads the details of a node again.

    Raises
    ------
    InputError
        A value is out of range, or a node waits for one that is not there.
    """
    _check_ranges(raw, file)
    waits = _resolve_deps(raw, file)
    try:
        strings = tuple(text.decode() for text in raw.strings)
    except UnicodeDecodeError as error:
        raise InputError(f"{show(error.object)} is not UTF-8", file=file, key="pg_name") from None
    columns = TraceColumns(
        file=file,
        version=raw.version.decode(errors="replace"),
        node_id=raw.node_id,
        type=raw.type,
        duration_micros=np.minimum(raw.duration_micros, np.uint64(2**63 - 1)).astype(np.int64),
        is_cpu_op=raw.is_cpu_op.view(np.bool_),
        **{
            name: _all_missing(len(raw.node_id)) if row is None else row
            for name, row in zip(INT_COLUMNS, raw.ints, strict=True)
        },
        pg_name=raw.pg_name,
        involved_dim=raw.involved_dim,
        strings=strings,
        involved_dims=tuple(tuple(map(bool, dims)) for dims in raw.involved_dims),
        dep_start=waits.dep_start,
        dep=waits.dep,
        dep_is_control=waits.dep_is_control,
        unknown_callers=waits.unknown_callers,
        process_groups=_process_groups(raw.type, raw.node_id, source, file),
        read_details=source,
        relative=False,
        in_turn=False,
    )
    for value in msgspec.structs.astuple(columns):
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    return columns


def _plain(data: bytes, file: Path | None) -> bytes:
    """Return the uncompressed content of an ``.et`` file."""
    if data[:2] == _GZIP_MAGIC:
        data = _decompress(data, file)
    if file is not None and file.suffix == ".json":
        from astra_bridge.trace.json import json_to_et

        data = json_to_et(data, file=file)
    return data


def _decompress(data: bytes, file: Path | None) -> bytes:
    import gzip  # most traces are not compressed

    most = max(_SMALL_BYTES, _MOST_EXPANSION * len(data))
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            plain = stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the gzip-compressed trace is damaged: {error}", file=file) from None
    except MemoryError:
        raise _too_large(len(data), "compressed bytes", file) from None
    if len(plain) > most:
        raise InputError(
            f"{len(data)} bytes grow to more than {most}; a trace grows less than "
            f"{_MOST_EXPANSION}-fold (decompress it with gunzip if it is right)",
            file=file,
        )
    return plain


def _too_large(count: int, what: str, file: Path | None) -> InputError:
    return InputError(f"{count} {what} do not fit in memory", file=file)


def parse_trace(data: bytes, *, file: str | Path | None = None) -> TraceColumns:
    """Parse a trace that is already in memory, gzip-compressed or not.

    Parameters
    ----------
    data
        The content of an ``.et`` file.
    file
        The name that errors give; it is not opened.  If it ends in ``.json``, the content is
        Chakra JSON.

    Raises
    ------
    InputError
        The bytes are not a valid trace.
    """
    path = None if file is None else arguments.path(file, "file")
    data = _plain(bytes(arguments.instance(bytes, bytearray, memoryview)(data, "data")), path)
    return _columns(data, path, data, (0, 0))


def _open(file: str | Path) -> tuple[Any, tuple[int, int]]:
    """Read a file; returns its bytes (or a view of them) and signature.

    A large one is mapped into memory, by native code that bears with a file that is cut meanwhile.
    """
    try:
        with open_regular(file) as handle:
            signature = _signature(handle.fileno())
            mapped = getattr(_native, "MappedFile", None)
            if mapped is None or signature[0] < _MAPPED_BYTES:
                return handle.read() or b"", signature
            return memoryview(mapped(handle.fileno(), signature[0])), signature
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", file=file) from None
    except MemoryError:
        raise InputError("the file does not fit in memory", file=file) from None


def _parse_opened(data: Any, file: Path, signature: tuple[int, int]) -> TraceColumns:
    if data[:2] == _GZIP_MAGIC or file.suffix == ".json":
        return parse_trace(data, file=file)
    try:
        columns = _columns(data, file, None, signature)
    except InputError:
        _check_unchanged(file, signature)  # if it has changed, that is what to say
        raise
    _check_unchanged(file, signature)
    return columns


def _check_unchanged(file: Path, signature: tuple[int, int]) -> None:
    try:
        status = file.stat()
    except OSError as error:
        raise InputError(
            f"cannot read the trace again: {error.strerror or error}", file=file
        ) from None
    if (status.st_size, status.st_mtime_ns) != signature:
        raise InputError("the trace has changed while it was read", file=file)


def read_trace(path: str | Path) -> TraceColumns:
    """Read one trace: Chakra protobuf, gzip-compressed or not, or Chakra JSON (``.json``).

    Raises
    ------
    InputError
        The file cannot be read or is not a valid trace; names the node and the attribute.
    """
    file = arguments.path(path, "path")
    data, signature = _open(file)
    return _parse_opened(data, file, signature)


def read_bytes(path: str | Path) -> bytes:
    """Read a trace of any kind as the uncompressed content of an ``.et`` file, without parsing it.

    Raises
    ------
    InputError
        The file cannot be read, or is no valid gzip or JSON file.
    """
    file = arguments.path(path, "path")
    return _plain(bytes(_open(file)[0]), file)


def trace_path(prefix: str | Path, rank: int) -> Path:
    """Return ``{prefix}.{rank}.et``."""
    return Path(f"{prefix}.{rank}.et")


def groups_path(prefix: str | Path) -> Path:
    """Return ``{prefix}.comm_group.json``, the communicator groups of a workload."""
    return Path(f"{prefix}.comm_group.json")


def count_ranks(prefix: Path) -> int:
    """How many ranks have a file ``{prefix}.{rank}.et``."""
    file = trace_path(prefix, 0)
    stem = file.name.rsplit(".", 2)[0]
    return sum(name == stem and number.isdecimal() for name, number in _files_beside(file))


def read_chakra(prefix: Path, ranks: int) -> Workload:
    """Read ``{prefix}.{rank}.et`` of every rank; byte-identical files are parsed once.

    Parameters
    ----------
    prefix
        What stands before ``.{rank}.et``.
    ranks
        Number of ranks, >= 1.

    Raises
    ------
    InputError
        A file is missing (the message says which, and how many exist) or is not a valid trace.
    """
    columns: list[TraceColumns] = []
    by_inode: dict[tuple[int, int], int] = {}
    by_content: dict[tuple[int, int], int] = {}  # length and keyed 64-bit hash
    rank_to_columns = np.zeros(ranks, np.int32)
    for rank in range(ranks):
        name = f"{prefix}.{rank}.et"  # as text: making a path takes longer than opening it
        try:
            status = os.stat(name)  # noqa: PTH116
        except OSError as error:
            raise _missing(prefix, rank, ranks, error) from None
        inode = (status.st_dev, status.st_ino)
        index = by_inode.get(inode)
        if index is None:
            data, signature = _open(name)
            content = len(data), hash(data)
            index = by_content.get(content)
            if index is None:
                index = by_content[content] = len(columns)
                columns.append(_parse_opened(data, Path(name), signature))
            by_inode[inode] = index
        rank_to_columns[rank] = index
    rank_to_columns.flags.writeable = False
    return Workload(tuple(columns), rank_to_columns, _left_over(prefix, ranks))


def _left_over(prefix: Path, ranks: int) -> tuple[str, ...]:
    """Say that there are files of more ranks than are simulated."""
    if not os.path.exists(f"{prefix}.{ranks}.et"):  # noqa: PTH110 as text, as above
        return ()
    return (
        f"{prefix}: there are traces of {count_ranks(prefix)} ranks, and the network has {ranks}: "
        f"only those of ranks 0 to {ranks - 1} run",
    )


def _missing(prefix: str | Path, rank: int, ranks: int, error: OSError) -> InputError:
    file = trace_path(prefix, rank)
    if (kind := kind_of_path(Path(prefix))) is not None:
        return InputError(what_takes_it(kind, prefix), file=prefix)
    stem, _, number = str(prefix).removesuffix(".et").rpartition(".")
    if str(prefix).endswith(".et") and number.isdecimal() and os.path.exists(prefix):  # noqa: PTH110
        return InputError(
            f"this is the trace of rank {number} alone: give what comes before .{number}.et, "
            f"`{stem}`", file=Path(prefix),
        )  # fmt: skip
    files = _files_beside(file)
    stem = file.name.rsplit(".", 2)[0]
    exist = sum(
        name == stem and number.isdecimal() and number.isascii() and int(number) < ranks
        for name, number in files
    )
    message = (
        f"no trace for rank {rank} ({error.strerror}); {exist} of {ranks} ranks have a file "
        "{prefix}.{rank}.et"
    )
    others = sorted({name for name, _ in files})
    if not exist and others:
        shown = ", ".join(one_line(name, 100) for name in others[:8])
        message += f"; prefixes with traces in that folder: {shown}"
    return InputError(message, file=file)


def kind_of_path(path: Path) -> Kind | None:
    """What a file is, by its content, gzip-compressed or not; None where there is none."""
    try:
        with open_regular(path) as handle:
            head = handle.read(HEAD_BYTES) or b""
    except (InputError, OSError):
        return None
    if head[:2] == _GZIP_MAGIC:
        with suppress(zlib.error):
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    return kind_of_file(head)


def _files_beside(file: Path) -> list[tuple[str, str]]:
    """(prefix, rank) of the traces in a file's folder, as far as it can be listed."""
    found = []
    with suppress(OSError), os.scandir(file.parent) as entries:
        for entry in entries:
            parts = entry.name.rsplit(".", 2)
            if len(parts) == 3 and parts[2] == "et" and len(parts[1]) < 10 and entry.is_file():
                found.append((parts[0], parts[1]))
    return found


class _OneTrace(msgspec.Struct):
    """A Chakra trace that is to be written in another form."""

    source: Path

    def write(self, prefix: str | Path) -> list[Path]:
        """Write an ``.et`` file, compressed (``.et.gz``) or not, or ``.json``; ``InputError``."""
        from astra_bridge.files import write_file  # which a run does not need

        target = Path(prefix)
        data = read_bytes(self.source)
        if target.suffix == ".json":
            from astra_bridge.trace.json import et_to_json

            data = "".join(f"{text}\n" for text in et_to_json(data, file=self.source)).encode()
        elif target.suffix == ".gz":
            import gzip

            data = gzip.compress(data, mtime=0)
        elif target.suffix != ".et":
            raise InputError(
                f"cannot write {target.suffix!r}; allowed: .et, .et.gz, .json", file=target
            )
        write_file(target, data)
        return [target]


def _convert(files: Sequence[Path], _how: Conversion) -> _OneTrace:
    if len(files) != 1:
        raise InputError("one Chakra trace is converted at a time", key="INPUTS")
    read_trace(files[0])  # refuse what cannot be run
    return _OneTrace(files[0])


FORMAT = TraceFormat(
    "chakra",
    "Chakra protobuf, one file PREFIX.RANK.et per rank.",
    # No error where the path is too long, or a folder may not be entered.
    lambda prefix: (
        os.path.exists(f"{prefix}.0.et") and not os.path.exists(f"{prefix}.manifest.json")  # noqa: PTH110
    ),
    read_chakra,
    _convert,
    count_ranks,
)
