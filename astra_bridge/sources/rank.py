# SPDX-License-Identifier: MIT
"""The intermediate form that every source gives: what one rank does."""

from __future__ import annotations

from pathlib import Path

import msgspec

from astra_bridge.sources.communication import Facts
from astra_bridge.trace.columns import NodeType

__all__ = ["Rank", "Step"]


class Step(msgspec.Struct, gc=False):
    """Something that a rank does.

    Attributes
    ----------
    type : NodeType
        COMP, COMM_COLL, COMM_SEND or COMM_RECV.
    name : str
    start_ns, duration_ns : int
        As recorded.
    deps : list of int
        Positions of the steps that must end before; all smaller than its own.
    cpu : bool
        It runs on the host.
    stream : int
        Of the GPU; -1 on the host.
    thread : int
        Of the host; -1 on the GPU.
    facts : Facts or None
        Of communication.
    group : str
        Key of its group in `Rank.groups`; "" where it is not known.
    bytes : int
        Chakra's ``comm_size``; -1 where it is not known.
    ops, moved_bytes : int
        Floating-point operations, and bytes moved, for a compute model; -1 where not known.
    kernels : str
        What they are, by shape (docs/formats/trace.md); "" where not known.
    """

    type: NodeType
    name: str
    start_ns: int
    duration_ns: int
    deps: list[int]
    cpu: bool = False
    stream: int = -1
    facts: Facts | None = None
    group: str = ""
    bytes: int = -1
    ops: int = -1
    moved_bytes: int = -1
    kernels: str = ""
    thread: int = -1


class Rank(msgspec.Struct):
    """What one rank does.

    Attributes
    ----------
    rank : int
    world : int or None
        Number of ranks of the job, as far as its file says.
    steps : list of Step
    groups : dict of str to tuple of int
        Name of a process group -> its ranks; empty means all.
    source : Path
    span_ns : int
        From the first to the last recorded event.
    """

    rank: int
    world: int | None
    steps: list[Step]
    groups: dict[str, tuple[int, ...]]
    source: Path
    span_ns: int = 0
