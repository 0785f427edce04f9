# SPDX-License-Identifier: MIT
"""Building traces node by node, and writing the traces of all ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from astra_bridge.files import NewFiles
from astra_bridge.trace.columns import CommType, NodeType, Workload
from astra_bridge.trace.reader import groups_path, parse_trace, trace_path
from astra_bridge.trace.writer import TraceNode, encode_trace


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
        One per rank; equal ranks may share one object, and large workloads build each one when
        it is asked for.
    comm_groups : dict of int to tuple of int
        Group id (>= 1) -> global ranks; empty when only the group of all ranks is used.
    """

    traces: Sequence[TraceBuilder]
    comm_groups: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def _encoded(self) -> Iterator[bytes]:
        previous: TraceBuilder | None = None
        data = b""
        for trace in self.traces:
            if trace is not previous:
                data = trace.encode()
            previous = trace
            yield data

    def workload(self) -> Workload:
        """Return what a simulation takes, without writing files."""
        index: dict[bytes, int] = {}
        ranks = [index.setdefault(data, len(index)) for data in self._encoded()]
        return Workload(
            columns=tuple(parse_trace(data) for data in index),
            rank_to_columns=np.array(ranks, np.int32),
        )

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
        written = []
        with NewFiles() as files:
            for rank, data in enumerate(self._encoded()):
                written.append(trace_path(prefix, rank))
                with files.open(written[-1]) as out:
                    out.write(data)
            if self.comm_groups:
                written.append(groups_path(prefix))
                lines = (f' "{i}": {list(ranks)}' for i, ranks in self.comm_groups.items())
                with files.open(written[-1]) as out:
                    out.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())
        return written
