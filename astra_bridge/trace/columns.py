# SPDX-License-Identifier: MIT
"""What a trace is once it has been read: columns, one entry per node, in file order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from astra_bridge.errors import InputError
from astra_bridge.records import Record
from astra_bridge.trace.about import About

MISSING = -(2**63)
"""Entry of an int64 column whose attribute the node does not carry."""

AttributeValue = (
    bool | int | float | str | bytes | list[int] | list[float] | list[str] | list[bytes]
)


class NodeType(IntEnum):
    """Chakra's NodeType.

    Compared with a column as ``int(NodeType.COMP)``, which NumPy takes much faster.
    """

    INVALID = 0
    METADATA = 1
    MEM_LOAD = 2
    MEM_STORE = 3
    COMP = 4
    COMM_SEND = 5
    COMM_RECV = 6
    COMM_COLL = 7


class CommType(IntEnum):
    """Chakra's CollectiveCommType, the values of the column ``comm_type``."""

    ALL_REDUCE = 0
    REDUCE = 1
    ALL_GATHER = 2
    GATHER = 3
    SCATTER = 4
    BROADCAST = 5
    ALL_TO_ALL = 6
    REDUCE_SCATTER = 7
    REDUCE_SCATTER_BLOCK = 8
    BARRIER = 9


INT_COLUMNS = (
    "comm_type",
    "comm_size",
    "comm_src",
    "comm_dst",
    "comm_tag",
    "comm_priority",
    "num_ops",
    "tensor_size",
    "root",
    "duration_ns",
    "stream",
    "tid",
)
"""The int64 columns, in the order in which both readers fill them."""


_MARK, _MOST_MARKS = "[pytorch|profiler|execution_trace|", 100


class ProcessGroup(msgspec.Struct, frozen=True):
    """A PyTorch process group, as a METADATA node declares it.

    Attributes
    ----------
    name : str
        The ``pg_name`` that COMM_COLL nodes refer to.
    ranks : tuple of int
        Its members, in the order of the file; empty means all ranks.
    stride, size : int
        Where stride is not 0, it is in place of `ranks` the group of the own rank: the ranks that
        agree with it in all but ``rank // stride % size``.
    """

    name: str
    ranks: tuple[int, ...]
    stride: int = 0
    size: int = 0

    def members(self, rank: int) -> tuple[int, ...]:
        """The ranks of the group that this rank is in, where they are said."""
        if not self.stride:
            return self.ranks
        first = rank - rank // self.stride % self.size * self.stride
        return tuple(range(first, first + self.stride * self.size, self.stride))


class NodeDetails(msgspec.Struct, frozen=True):
    """What simulation rarely needs of one node, read from its record on demand."""

    name: str
    start_time_micros: int
    inputs_values: str
    outputs_values: str
    attributes: dict[str, AttributeValue]


class TraceColumns(msgspec.Struct, frozen=True, eq=False):
    """One trace; ``n`` nodes, arrays of length n in file order, read only.

    Attributes
    ----------
    file : Path or None
        Where it was read from; of several identical files, the first.
    version : str
        ``GlobalMetadata.version``.
    node_id : ndarray of uint64, shape (n,)
        Unique within the trace.
    type : ndarray of int32, shape (n,)
        `NodeType`.
    duration_micros : ndarray of int64, shape (n,)
        Duration in us; 0 where absent; values above 2**63 - 1 are stored as 2**63 - 1.
    duration_ns : ndarray of int64, shape (n,)
        The same in ns, of nodes that carry it; `MISSING` where absent.  It counts before the other.
    is_cpu_op : ndarray of bool, shape (n,)
        False where absent, as in ASTRA-sim.
    comm_type, comm_size, comm_src, comm_dst, comm_tag, comm_priority, num_ops, tensor_size, root
        ndarray of int64, shape (n,); `MISSING` where absent.  Sizes in bytes.  ``root`` is the
        attribute ``root_rank`` or ``comm_root``, a global rank, of the rooted collectives.
    pg_name : ndarray of int32, shape (n,)
        Index into `strings`, -1 where absent.
    stream : ndarray of int64, shape (n,)
        Of the GPU; `MISSING` where absent.
    tid : ndarray of int64, shape (n,)
        Thread of the host; `MISSING` where absent.
    involved_dim : ndarray of int32, shape (n,)
        Index into `involved_dims`, -1 where absent.
    strings : tuple of str
        The distinct names of process groups.
    involved_dims : tuple of tuple of bool
        The distinct lists of dimensions.
    dep_start : ndarray of int64, shape (n + 1,)
        The parents of node i are ``dep[dep_start[i]:dep_start[i + 1]]``.
    dep : ndarray of int32, shape (number of dependencies,)
        Positions (not ids) of parents: data_deps and ctrl_deps together, without repetition,
        ascending per node.
    dep_is_control : ndarray of bool, shape (number of dependencies,)
        Those that are among ctrl_deps only.
    unknown_callers : int
        How many ctrl_deps name nodes that the trace does not have; nobody waits for these.
    process_groups : tuple of ProcessGroup
        From METADATA nodes, in file order; a later one of the same name replaces an earlier one.
    read_details : callable
        ``read_details(i)`` reads the details of node i again from the file (or from the bytes it
        was parsed from).  Raises `InputError` when the file has gone or has changed.
    relative : bool
        Whether ``comm_src`` and ``comm_dst`` count from the own rank on, modulo the number of
        ranks, so that ranks at different places share the trace.
    in_turn : bool
        Whether collectives and sends wait for one another, in ascending id, where a rank has a
        single slot for communication.
    """

    file: Path | None
    version: str
    node_id: npt.NDArray[np.uint64]
    type: npt.NDArray[np.int32]
    duration_micros: npt.NDArray[np.int64]
    is_cpu_op: npt.NDArray[np.bool_]
    comm_type: npt.NDArray[np.int64]
    comm_size: npt.NDArray[np.int64]
    comm_src: npt.NDArray[np.int64]
    comm_dst: npt.NDArray[np.int64]
    comm_tag: npt.NDArray[np.int64]
    comm_priority: npt.NDArray[np.int64]
    num_ops: npt.NDArray[np.int64]
    tensor_size: npt.NDArray[np.int64]
    root: npt.NDArray[np.int64]
    duration_ns: npt.NDArray[np.int64]
    stream: npt.NDArray[np.int64]
    tid: npt.NDArray[np.int64]
    pg_name: npt.NDArray[np.int32]
    involved_dim: npt.NDArray[np.int32]
    strings: tuple[str, ...]
    involved_dims: tuple[tuple[bool, ...], ...]
    dep_start: npt.NDArray[np.int64]
    dep: npt.NDArray[np.int32]
    dep_is_control: npt.NDArray[np.bool_]
    unknown_callers: int
    process_groups: tuple[ProcessGroup, ...]
    read_details: Callable[[int], NodeDetails]
    relative: bool = False
    in_turn: bool = False

    def __len__(self) -> int:
        return len(self.node_id)

    @property
    def untimed(self) -> npt.NDArray[np.bool_]:
        """Nodes without a recorded duration, shape (n,).

        But for the marks that stand for whole threads and processes in PyTorch's execution traces.
        """
        silent: npt.NDArray[np.bool_] = (self.duration_micros == 0) & (self.duration_ns == MISSING)
        # There is one for each thread, and reading names takes time.
        for at in np.flatnonzero(silent & self.is_cpu_op)[:_MOST_MARKS].tolist():
            if self.name(at).startswith(_MARK):
                silent[at] = False
        return silent

    def name(self, i: int) -> str:
        """Return the name of node i, for messages and reports; "" when it can no longer be read."""
        try:
            return self.read_details(i).name
        except InputError:
            return ""

    def names(self) -> tuple[npt.NDArray[np.int32], list[str]]:
        """The names of all nodes: of each one its place among the distinct ones, and these.

        A name is "" where it can no longer be read.
        """
        known: dict[str, int] = {}
        read = getattr(self.read_details, "names", None)
        every = (one.name for one in self.all_details()) if read is None else read()
        index = np.zeros(len(self), np.int32)
        try:
            for i, name in enumerate(every):
                index[i] = known.setdefault(name, len(known))
        except InputError:
            return np.zeros(len(self), np.int32), [""]
        return index, list(known)

    def attributes(self, i: int) -> dict[str, AttributeValue]:
        """Return all attributes of node i (``inputs``, ``outputs`` of local-memory tracking...).

        Raises
        ------
        InputError
            The file has gone or has changed since it was read.
        """
        return self.read_details(i).attributes

    def all_details(self) -> Iterator[NodeDetails]:
        """The details of all nodes, in file order; the file is opened once.

        Raises
        ------
        InputError
            The file has gone or has changed since it was read.
        """
        every = getattr(self.read_details, "every", None)
        if every is not None:
            yield from every()
        else:
            yield from map(self.read_details, range(len(self)))


class Workload(Record, frozen=True, eq=False):
    """The traces of all ranks; ranks with byte-identical files share one `TraceColumns`.

    Attributes
    ----------
    columns : tuple of TraceColumns
        The distinct traces, in order of the first rank that has each.
    rank_to_columns : ndarray of int32, shape (ranks,)
        Index into `columns`.
    warnings : tuple of str
        What was odd about the files.
    about : About, optional
        What it is, for reports.
    """

    columns: tuple[TraceColumns, ...]
    rank_to_columns: npt.NDArray[np.int32]
    warnings: tuple[str, ...] = ()
    about: About | None = None

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return len(self.rank_to_columns)

    def of_rank(self, rank: int) -> TraceColumns:
        """Return the trace of one rank."""
        return self.columns[int(self.rank_to_columns[rank])]
