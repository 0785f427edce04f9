# SPDX-License-Identifier: MIT
"""MSCCL's algorithms (XML), as custom collectives.

A thread block of a GPU runs its steps one after the other; a step may wait for one of another block
(``depid``, ``deps``).  The k-th message that a block sends on a channel is the k-th that its peer's
block receives on it.  Steps that reduce or copy take no time of their own.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from astra_bridge.arguments import whole_text
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.inputs.reading import in_file
from astra_bridge.sources.json_list import blocks, peek
from astra_bridge.text import one_line, show
from astra_bridge.trace.columns import NodeType, Workload
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.kinds import MSCCL
from astra_bridge.trace.reader import kind_of_path
from astra_bridge.workload.builder import GeneratedWorkload, TraceBuilder

__all__ = ["FORMAT", "read_msccl"]

_SENDS = ("s", "rcs", "rrs", "rrcs")
_RECEIVES = ("r", "rrc", "rcs", "rrs", "rrcs")
_LOCAL = ("cpy", "re", "nop")


def read_msccl(file: Path, size_bytes: int) -> GeneratedWorkload:
    """Read an algorithm for a buffer of some size.

    Parameters
    ----------
    file : Path
        gzip-compressed or not.
    size_bytes : int
        Of the whole buffer, which ``nchunksperloop`` chunks make up; each is rounded up.

    Raises
    ------
    InputError
        The file cannot be read or breaks the format; names the element.
    """
    try:
        root = ET.fromstring(b"".join(blocks(file)))
    except (ET.ParseError, UnicodeError) as error:
        raise InputError(f"not valid XML: {one_line(str(error))}", file=file) from None
    if root.tag != "algo":
        raise InputError(f"expected an element algo, found {show(root.tag)}", file=file)
    gpus = list(root.iter("gpu"))
    # The first versions of the format left it out.
    root.attrib.setdefault("ngpus", str(len(gpus)))
    ranks = _number(root, "ngpus", 1, MAX_RANKS, "algo", file)
    chunk = -(-size_bytes // _number(root, "nchunksperloop", 1, 2**31, "algo", file))
    traces = [TraceBuilder() for _ in range(ranks)]
    seen: set[int] = set()
    for gpu in gpus:
        rank = _number(gpu, "id", 0, ranks - 1, "gpu", file)
        if rank in seen:
            raise InputError("is given twice", file=file, key=f"gpu {rank}")
        seen.add(rank)
        _Gpu(gpu, rank, ranks, chunk, traces[rank], file).read()
    return GeneratedWorkload(traces)


def _number(element: ET.Element, name: str, low: int, high: int, where: str, file: Path) -> int:
    text = element.get(name)
    key = f"{where}: {name}"
    if text is None:
        raise InputError("is missing", file=file, key=key)
    return int(in_file(whole_text(low, high), text, file=file, key=key))


class _Gpu:
    """Builds the graph of one GPU."""

    def __init__(
        self, gpu: ET.Element, rank: int, ranks: int, chunk: int, trace: TraceBuilder, file: Path
    ) -> None:
        self.gpu, self.rank, self.ranks, self.chunk = gpu, rank, ranks, chunk
        self.trace, self.file = trace, file
        self.ends: dict[tuple[int, int], int] = {}  # block and step -> its last node
        self.waits: list[tuple[int, tuple[int, int], str]] = []

    def read(self) -> None:
        for block in self.gpu.iter("tb"):
            self._block(block)
        for node, step, where in self.waits:
            if step not in self.ends:
                raise InputError(
                    f"waits for step {step[1]} of block {step[0]}, which is not there",
                    file=self.file, key=where,
                )  # fmt: skip
            self.trace.nodes[node].data_deps.append(self.ends[step])

    def _block(self, block: ET.Element) -> None:
        place = f"gpu {self.rank}"
        number = _number(block, "id", 0, 2**31, place, self.file)
        place = f"{place}, tb {number}"
        to = _number(block, "send", -1, self.ranks - 1, place, self.file)
        source = _number(block, "recv", -1, self.ranks - 1, place, self.file)
        channel = _number(block, "chan", 0, 2**20, place, self.file)
        steps = sorted(
            block.iter("step"),
            key=lambda step: _number(step, "s", 0, 2**31, place, self.file),
        )
        last: list[int] = []
        for step in steps:
            at = int(step.get("s", "0"))
            where = f"{place}, step {at}"
            kind = step.get("type", "")
            if kind not in {*_SENDS, *_RECEIVES, *_LOCAL}:
                known = ", ".join(sorted({*_SENDS, *_RECEIVES, *_LOCAL}))
                raise InputError(
                    f"unknown type {show(kind)}; allowed: {known}", file=self.file, key=where
                )
            count = _number(step, "cnt", 0, 2**31, where, self.file) if "cnt" in step.attrib else 1
            size = max(1, self.chunk * max(count, 1))
            first = len(self.trace.nodes)
            if kind in _LOCAL:
                last = [self.trace.add(NodeType.COMP, kind, last, is_cpu_op=False, duration_ns=0)]
            if kind in _RECEIVES:
                self._peer(source, "recv", where)
                last = [self.trace.recv(source, size, channel, name=kind, deps=last)]
            if kind in _SENDS:
                self._peer(to, "send", where)
                last = [self.trace.send(to, size, channel, name=kind, deps=last)]
            self.ends[number, at] = last[0]
            other = int(step.get("depid", "-1") or -1)
            if other >= 0:
                needed = _number(step, "deps", 0, 2**31, where, self.file)
                self.waits.append((first, (other, needed), where))

    def _peer(self, peer: int, attribute: str, where: str) -> None:
        if peer < 0 or peer == self.rank:
            raise InputError(
                f"the block's {attribute} is {peer}: another GPU is needed", file=self.file,
                key=where,
            )  # fmt: skip


class _Algorithm:
    """An algorithm that says how it is used."""

    def __init__(self, generated: GeneratedWorkload, kind: str) -> None:
        self._generated, self._kind = generated, kind

    def write(self, prefix: str | Path) -> list[Path]:
        """Write ``{prefix}.{rank}.et``."""
        return self._generated.write(prefix)

    def usage(self, prefix: Path) -> str:
        """What a system file says to use it."""
        return f'in the system file: "{self._kind}-implementation-custom": ["{prefix}"]'


_COLLECTIVES = {
    "allreduce": "all-reduce",
    "allgather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "reducescatter": "reduce-scatter",
    "alltoall": "all-to-all",
}


def _convert(files: Sequence[Path], how: Conversion) -> _Algorithm:
    if len(files) != 1:
        raise InputError("an MSCCL algorithm is one file, for all ranks", key="INPUTS")
    if how.size_bytes is None:
        raise InputError(
            "an MSCCL algorithm has chunks, not bytes: give the size of the buffer", key="--size"
        )
    text = peek(files[0]).decode(errors="replace")
    kind = next((ours for name, ours in _COLLECTIVES.items() if f'coll="{name}"' in text), None)
    return _Algorithm(read_msccl(files[0], how.size_bytes), kind or "all-reduce")


def _read(path: Path, ranks: int) -> Workload:
    raise InputError(
        f"an algorithm, for {ranks} ranks or others, is no workload: `astra-bridge trace convert "
        f"{path} OUT --size BYTES` makes a custom collective of it",
        file=path,
    )


FORMAT = TraceFormat(
    "msccl",
    "MSCCL's algorithms (XML): custom collectives.",
    lambda path: kind_of_path(path) is MSCCL,
    _read,
    _convert,
)
