# SPDX-License-Identifier: MIT
"""Building traces node by node, and writing the traces of all ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from astra_bridge.files import NewFiles
from astra_bridge.trace.about import About
from astra_bridge.trace.columns import CommType, NodeType, ProcessGroup, Workload
from astra_bridge.trace.manifest import Manifest, manifest_path, placed
from astra_bridge.trace.nodes import columns_of_all
from astra_bridge.trace.per_rank import write_per_rank
from astra_bridge.trace.writer import TraceNode, encode_trace, encode_traces, of_each


class TraceBuilder:
    """Builds the trace of one rank; every method adds a node and returns its id.

    ``deps`` are ids of nodes that must end before the new one starts (Chakra's data_deps).

    Examples
    --------
    >>> trace = TraceBuilder()
    >>> gradient = trace.comp("backward", duration_us=100)
    >>> trace.coll(CommType.ALL_REDUCE, 2**20, deps=[gradient])
    1
    """

    def __init__(self) -> None:
        self.nodes: list[TraceNode] = []

    def add(
        self,
        node_type: NodeType,
        name: str,
        deps: Iterable[int] = (),
        *,
        duration_us: int = 0,
        ctrl_deps: Iterable[int] = (),
        **attributes: Any,
    ) -> int:
        """Add a node of any type; attributes that are None are left out."""
        node = TraceNode(
            id=len(self.nodes),
            type=node_type,
            name=name,
            duration_micros=duration_us,
            data_deps=list(deps),
            ctrl_deps=list(ctrl_deps),
            attributes={k: v for k, v in attributes.items() if v is not None},
        )
        self.nodes.append(node)
        return node.id

    def comp(
        self,
        name: str = "comp",
        *,
        duration_us: int = 0,
        duration_ns: int | None = None,
        num_ops: int | None = None,
        tensor_size_bytes: int | None = None,
        kernels: str | None = None,
        cpu: bool = False,
        deps: Iterable[int] = (),
    ) -> int:
        """Add a compute node.

        Parameters
        ----------
        duration_us
            Duration; 0 takes 1 ns.
        duration_ns
            The same, exact; it counts before the other.
        num_ops, tensor_size_bytes
            Floating-point operations and bytes moved, for compute models.
        kernels
            What they are, by shape: docs/formats/trace.md.
        cpu
            It runs on the host instead of the accelerator.
        """
        return self.add(
            NodeType.COMP,
            name,
            deps,
            duration_us=duration_us,
            is_cpu_op=cpu,
            num_ops=num_ops,
            tensor_size=tensor_size_bytes,
            kernels=kernels,
            duration_ns=duration_ns,
        )

    def coll(
        self,
        kind: CommType,
        size_bytes: int,
        *,
        name: str | None = None,
        group: int | None = None,
        root: int | None = None,
        priority: int | None = None,
        involved_dim: Sequence[bool] | None = None,
        deps: Iterable[int] = (),
    ) -> int:
        """Add a collective.

        Parameters
        ----------
        kind
            Which collective.
        size_bytes
            Chakra's ``comm_size``: the whole buffer of one rank, or for ALL_GATHER what one rank
            contributes.
        group
            Id of a communicator group; None for all ranks.
        root
            Global rank, for BROADCAST, REDUCE, GATHER and SCATTER.
        priority
            For ``scheduling-policy: EXPLICIT``; greater goes first.
        involved_dim
            One flag per network dimension; None for all.
        """
        return self.add(
            NodeType.COMM_COLL,
            name or CommType(kind).name,
            deps,
            is_cpu_op=False,
            comm_type=int(kind),
            comm_size=size_bytes,
            pg_name=None if group is None else str(group),
            root_rank=root,
            comm_priority=priority,
            involved_dim=None if involved_dim is None else list(involved_dim),
        )

    def send(
        self, dst: int, size_bytes: int, tag: int, *, name: str = "send", deps: Iterable[int] = ()
    ) -> int:
        """Add a send to global rank `dst`; it matches a receive of the same tag and size."""
        return self.add(
            NodeType.COMM_SEND,
            name,
            deps,
            is_cpu_op=False,
            comm_dst=dst,
            comm_size=size_bytes,
            comm_tag=tag,
        )

    def recv(
        self, src: int, size_bytes: int, tag: int, *, name: str = "recv", deps: Iterable[int] = ()
    ) -> int:
        """Add a receive from global rank `src`."""
        return self.add(
            NodeType.COMM_RECV,
            name,
            deps,
            is_cpu_op=False,
            comm_src=src,
            comm_size=size_bytes,
            comm_tag=tag,
        )

    def load(self, size_bytes: int, *, name: str = "load", deps: Iterable[int] = ()) -> int:
        """Add a load from remote memory."""
        return self.add(NodeType.MEM_LOAD, name, deps, is_cpu_op=False, tensor_size=size_bytes)

    def store(self, size_bytes: int, *, name: str = "store", deps: Iterable[int] = ()) -> int:
        """Add a store to remote memory."""
        return self.add(NodeType.MEM_STORE, name, deps, is_cpu_op=False, tensor_size=size_bytes)

    def process_groups(self, groups: Mapping[str, Sequence[int]]) -> int:
        """Add a METADATA node that declares process groups as PyTorch does (empty: all ranks)."""
        entries = [{"pg_name": name, "ranks": list(ranks)} for name, ranks in groups.items()]
        node = self.add(NodeType.METADATA, "## process_group:init ##")
        self.nodes[node].inputs_values = f"['{json.dumps(entries)}']"
        return node

    def content_hash(self) -> int:
        """Return a number that traces of the same content have in common in this process."""
        return hash(
            tuple(
                (
                    node.id, node.type, node.name, node.duration_micros, node.inputs_values,
                    *node.data_deps, -1, *node.ctrl_deps,
                    *((k, str(v) if isinstance(v, list) else v, type(v))
                      for k, v in node.attributes.items()),
                )
                for node in self.nodes
            )
        )  # fmt: skip

    def encode(self) -> bytes:
        """Return the content of the ``.et`` file.

        Raises
        ------
        InputError
            A value does not fit its field.
        """
        return encode_trace(self.nodes)


@dataclass(frozen=True)
class GeneratedWorkload:
    """Traces of all ranks and the communicator groups that they use.

    Attributes
    ----------
    traces : sequence of TraceBuilder
        One per rank; ranks that do the same share one object (`Kinds` says so for many), and large
        workloads may build each one when it is asked for.
    comm_groups : dict of int to tuple of int
        Group id (>= 1) -> global ranks; empty when only the group of all ranks is used.
    own_groups : dict of int to (int, int), or None
        Where it is given, traces are relative: the peer of a message is a distance from the own
        rank, and a group id is that of "the group of the own rank", the ranks that agree with it
        in all but ``rank // stride % size``: id -> (stride, size).
    in_turn : bool
        Whether collectives and sends of a rank wait for one another, in ascending id, where it has
        a single slot for communication, as in ASTRA-sim: a rank that takes it in another order than
        the others of a group would wait for ever.  Files for each rank say so by dependencies.
    summary : str
        What `astra-bridge workload` prints of it.
    flags : tuple of str
        What `astra-bridge run` needs besides the prefix.
    about : About, optional
        What it is, for reports.
    """

    traces: Sequence[TraceBuilder]
    comm_groups: dict[int, tuple[int, ...]] = field(default_factory=dict)
    own_groups: dict[int, tuple[int, int]] | None = None
    in_turn: bool = False
    summary: str = ""
    flags: tuple[str, ...] = ()
    about: About | None = None

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return len(self.traces)

    def kinds(self) -> tuple[list[TraceBuilder], NDArray[np.int32]]:
        """The different traces, and for each rank which one it has."""
        if isinstance(self.traces, Kinds):
            return list(self.traces.kinds), self.traces.kind_of_rank
        by_identity: dict[int, int] = {}
        by_content: dict[int, int] = {}
        found: list[TraceBuilder] = []
        kind_of_rank = np.zeros(self.ranks, np.int32)
        for rank, trace in enumerate(self.traces):
            index = by_identity.get(id(trace))
            if index is None or found[index] is not trace:
                index = by_content.setdefault(trace.content_hash(), len(found))
                if index == len(found):
                    found.append(trace)
                    by_identity[id(trace)] = index
            kind_of_rank[rank] = index
        return found, kind_of_rank

    def _process_groups(self) -> tuple[ProcessGroup, ...]:
        if self.own_groups is not None:
            own = self.own_groups.items()
            return tuple(ProcessGroup(str(i), (), stride, size) for i, (stride, size) in own)
        return tuple(ProcessGroup(str(i), tuple(ranks)) for i, ranks in self.comm_groups.items())

    def workload(self) -> Workload:
        """Return what a simulation takes, without files and without encoding anything.

        Raises
        ------
        InputError
            A value of a node does not fit its field.
        """
        kinds, kind_of_rank = self.kinds()
        relative = self.own_groups is not None
        groups = {group.name: group for group in self._process_groups()}
        columns = columns_of_all(self._nodes(kinds))
        return Workload(
            tuple(placed(one, groups, relative=relative, in_turn=self.in_turn) for one in columns),
            kind_of_rank,
            about=self.about,
        )

    def _nodes(self, kinds: Iterable[TraceBuilder]) -> Iterator[Sequence[TraceNode]]:
        """The nodes of each kind, as they stand in a file."""
        nodes = (kind.nodes for kind in kinds)
        return _around(nodes, self.ranks) if self.own_groups is not None else iter(nodes)

    def expanded(self) -> GeneratedWorkload:
        """Return the same with global ranks and groups in the traces, as other simulators read it.

        Each trace is made when it is asked for.
        """
        if self.own_groups is None:
            return self
        numbers: dict[tuple[int, int], int] = {}
        groups: dict[int, tuple[int, ...]] = {}
        for first in range(self.ranks):
            for own, (stride, size) in self.own_groups.items():
                if first // stride % size == 0:
                    number = numbers[own, first] = len(groups) + 1
                    groups[number] = tuple(range(first, first + stride * size, stride))
        return GeneratedWorkload(_Expanded(self, numbers), groups)

    def write(self, prefix: str | Path) -> list[Path]:
        """Write ``{prefix}.{rank}.et``, and ``{prefix}.comm_group.json`` if there are groups.

        Returns
        -------
        list of Path
            The files, traces first.

        Raises
        ------
        InputError
            The folder cannot be written to.
        """
        if self.own_groups is not None:
            return self.expanded().write(prefix)
        return write_per_rank(prefix, self._encoded(), self.comm_groups)

    def _encoded(self) -> Iterator[bytes]:
        """The content of each rank's file; what the rank before has, too, is encoded once."""
        previous: TraceBuilder | None = None
        data = b""
        for trace in self.traces:
            if trace is not previous:
                data = trace.encode()
            previous = trace
            yield data

    def write_kinds(self, prefix: str | Path) -> list[Path]:
        """Write ``{prefix}.kind{i}.et`` for each kind of rank and ``{prefix}.manifest.json``.

        Returns
        -------
        list of Path
            The files, the manifest last.

        Raises
        ------
        InputError
            The folder cannot be written to.
        """
        kinds, kind_of_rank = self.kinds()
        relative = self.own_groups is not None
        names = tuple(f"{Path(prefix).name}.kind{index}.et" for index in range(len(kinds)))
        groups = self._process_groups()
        manifest = Manifest(names, kind_of_rank, relative, groups, self.in_turn, self.about)
        paths = [*(Path(prefix).parent / name for name in names), manifest_path(prefix)]
        with NewFiles() as files:
            for path, content in zip(paths, encode_traces(self._nodes(kinds)), strict=False):
                with files.open(path) as out:
                    out.write(content)
            with files.open(paths[-1]) as out:
                out.write(manifest.encode())
        return paths


class Kinds(Sequence[TraceBuilder]):
    """The traces of ranks of a few kinds.

    Attributes
    ----------
    kinds : sequence of TraceBuilder
    kind_of_rank : ndarray of int32, shape (ranks,)
        Index into `kinds`.

    Examples
    --------
    >>> idle = TraceBuilder()
    >>> len(Kinds([idle], np.zeros(1 << 20, np.int32)))
    1048576
    """

    def __init__(self, kinds: Sequence[TraceBuilder], kind_of_rank: NDArray[np.int32]) -> None:
        self.kinds, self.kind_of_rank = kinds, kind_of_rank

    def __len__(self) -> int:
        return len(self.kind_of_rank)

    @overload
    def __getitem__(self, index: int) -> TraceBuilder: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TraceBuilder]: ...
    def __getitem__(self, index: int | slice) -> TraceBuilder | Sequence[TraceBuilder]:
        if isinstance(index, slice):
            return [self.kinds[kind] for kind in self.kind_of_rank[index].tolist()]
        return self.kinds[int(self.kind_of_rank[index])]


def _around(kinds: Iterable[Sequence[TraceNode]], ranks: int) -> Iterator[Sequence[TraceNode]]:
    """Nodes with distances that are not negative, as fields of ranks take them.

    What a kind shares with the one before, it shares afterwards.
    """

    def made(node: TraceNode) -> TraceNode:
        name = _peer_of(node)
        if not name:
            return node
        return _changed(node, {name: node.attributes[name] % ranks})  # type: ignore[operator]

    return of_each(kinds, made)


def _peer_of(node: TraceNode) -> str:
    # Asked of every node.
    attributes = node.attributes
    return (
        "comm_src" if "comm_src" in attributes else "comm_dst" if "comm_dst" in attributes else ""
    )


def _changed(node: TraceNode, attributes: dict[str, Any]) -> TraceNode:
    return replace(node, attributes=node.attributes | attributes)


class _Expanded(Sequence[TraceBuilder]):
    """Traces with global ranks, each made when it is asked for."""

    def __init__(self, source: GeneratedWorkload, numbers: dict[tuple[int, int], int]) -> None:
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return self._source.ranks

    @overload
    def __getitem__(self, index: int) -> TraceBuilder: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TraceBuilder]: ...
    def __getitem__(self, index: int | slice) -> TraceBuilder | Sequence[TraceBuilder]:
        ranks = range(len(self))[index]
        if isinstance(ranks, range):
            return [self[rank] for rank in ranks]
        assert self._source.own_groups is not None
        names = {}
        for own, (stride, size) in self._source.own_groups.items():
            first = ranks - ranks // stride % size * stride
            names[str(own)] = str(self._numbers[own, first])
        made = TraceBuilder()
        before: int | None = None
        for node in self._source.traces[ranks].nodes:
            new: dict[str, Any] = {}
            if name := _peer_of(node):
                new[name] = ranks + node.attributes[name]  # type: ignore[operator]
            if "pg_name" in node.attributes:
                new["pg_name"] = names[node.attributes["pg_name"]]  # type: ignore[index]
            changed = _changed(node, new) if new else node
            if self._source.in_turn and node.type in (NodeType.COMM_COLL, NodeType.COMM_SEND):
                if before is not None and before not in node.data_deps:
                    changed = replace(changed, data_deps=[*node.data_deps, before])
                before = node.id
            made.nodes.append(changed)
        return made
