# SPDX-License-Identifier: MIT
"""GOAL schedules (Hoefler, Siebert and Lumsdaine, ICPP 2009), the text of LogGOPSim and ATLAHS.

``rank 0 { l1: calc 100  l2: send 8b to 1 tag 3  l2 requires l1 }``: a graph of work per rank;
``calc`` is in ns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from astra_bridge.arguments import whole_text
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import MAX_RANKS
from astra_bridge.inputs.reading import in_file
from astra_bridge.sources.json_list import blocks
from astra_bridge.text import show
from astra_bridge.trace.columns import NodeType, Workload
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.inferences import Inferences
from astra_bridge.trace.kinds import GOAL
from astra_bridge.trace.reader import kind_of_path
from astra_bridge.workload.builder import GeneratedWorkload, TraceBuilder

__all__ = ["FORMAT", "read_goal"]

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|#[^\n]*", re.DOTALL)
_SPACE = re.compile(r"\s*")
_HEAD = re.compile(r"\s*num_ranks\s+(\d+)")
_RANK = re.compile(r"rank\s+(\d+)\s*\{")
_PLACE = r"(?:\s+(?:cpu|nic)\s+\d+)*"
_WORK = re.compile(
    r"(\w+)\s*:\s*(?:calc\s+(?P<ns>\d+)"
    r"|(?P<way>send|recv)\s+(?P<bytes>\d+)b\s+(?:to|from)\s+(?P<peer>\d+)(?:\s+tag\s+(?P<tag>\d+))?)"
    + _PLACE
)
_ORDER = re.compile(r"(\w+)\s+(i?requires)\s+(\w+)")


def read_goal(file: Path, made: Inferences) -> GeneratedWorkload:
    """Read a schedule.

    Parameters
    ----------
    file : Path
        gzip-compressed or not.
    made : Inferences
        Takes what is inferred.

    Raises
    ------
    InputError
        The file cannot be read or breaks the format; names the line.
    """
    try:
        text = b"".join(blocks(file)).decode()
    except UnicodeDecodeError:
        raise InputError("not a text file", file=file) from None
    # Comments become as many lines, so that lines keep their numbers.
    text = _COMMENT.sub(lambda match: "\n" * match.group().count("\n"), text)
    head = _HEAD.match(text)
    if head is None:
        raise InputError("must begin with num_ranks COUNT", file=file, key="line 1")
    ranks = in_file(whole_text(1, MAX_RANKS), head.group(1), file=file, key="num_ranks")
    traces = [TraceBuilder() for _ in range(ranks)]
    seen: set[int] = set()
    lines = _Lines(text)
    at = _after_space(text, head.end())
    while at < len(text):
        begin = _RANK.match(text, at)
        if begin is None:
            raise _wrong("rank NUMBER { ... }", text, at, file)
        rank = int(begin.group(1))
        if rank >= ranks or rank in seen:
            problem = "is given twice" if rank in seen else f"there are ranks 0 to {ranks - 1}"
            raise InputError(problem, file=file, key=f"line {_line(text, at)}: rank {rank}")
        seen.add(rank)
        end = text.find("}", begin.end())
        if end < 0:
            raise InputError("the brace is never closed", file=file, key=f"rank {rank}")
        _read_rank(text, begin.end(), end, traces[rank], rank, ranks, file, made, lines)
        at = _after_space(text, end + 1)
    return GeneratedWorkload(traces)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


class _Lines:
    """Numbers of lines, for places that come in order: counted from one to the next."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._line = text, 0, 1

    def of(self, at: int) -> int:
        self._line += self._text.count("\n", self._at, at)
        self._at = at
        return self._line


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _wrong(wanted: str, text: str, at: int, file: Path) -> InputError:
    found = text[at:].split("\n", 1)[0].strip()
    return InputError(
        f"expected {wanted}, found {show(found)}", file=file, key=f"line {_line(text, at)}"
    )


def _read_rank(
    text: str,
    at: int,
    end: int,
    trace: TraceBuilder,
    rank: int,
    ranks: int,
    file: Path,
    made: Inferences,
    lines: _Lines,
) -> None:
    ids: dict[str, int] = {}
    orders: list[tuple[str, bool, str, int]] = []
    while True:
        at = _after_space(text, at)
        if at >= end:
            break
        if work := _WORK.match(text, at, end):
            label = work.group(1)
            if label in ids:
                raise InputError(
                    f"label {label} is given twice", file=file, key=f"line {_line(text, at)}"
                )
            ids[label] = _add(work, trace, rank, ranks, f"line {lines.of(at)}", file, made)
            at = work.end()
        elif order := _ORDER.match(text, at, end):
            orders.append((order.group(1), order.group(2) == "irequires", order.group(3), at))
            at = order.end()
        else:
            wanted = "LABEL: calc NS, LABEL: send|recv BYTESb to|from RANK tag TAG, or A requires B"
            raise _wrong(wanted, text, at, file)
    # First what waits for an end; what waits for a start waits for what that waits for.
    for with_start in (False, True):
        for later, start, earlier, place in orders:
            if start != with_start:
                continue
            for label in (later, earlier):
                if label not in ids:
                    raise InputError(
                        f"there is no label {label} on rank {rank}", file=file,
                        key=f"line {_line(text, place)}",
                    )  # fmt: skip
            node = trace.nodes[ids[later]]
            if not start:
                node.data_deps.append(ids[earlier])
                continue
            node.data_deps += trace.nodes[ids[earlier]].data_deps
            made.note("irequires: after what the other one waits for", f"{later} on rank {rank}")


def _add(
    work: re.Match[str],
    trace: TraceBuilder,
    rank: int,
    ranks: int,
    where: str,
    file: Path,
    made: Inferences,
) -> int:
    if work["ns"] is not None:
        took = in_file(whole_text(0, 2**62), work["ns"], file=file, key=where)
        return trace.add(
            NodeType.COMP, "calc", duration_us=round(took / 1000), is_cpu_op=False, duration_ns=took
        )
    peer = int(work["peer"])
    if peer >= ranks or peer == rank:
        raise InputError(
            f"rank {rank} cannot {work['way']} {'to' if work['way'] == 'send' else 'from'} rank "
            f"{peer}; there are ranks 0 to {ranks - 1}", file=file, key=where,
        )  # fmt: skip
    size = in_file(whole_text(0, 2**62), work["bytes"], file=file, key=where)
    if size == 0:
        made.note("messages of 0 bytes have 1", where)
        size = 1
    tag = in_file(whole_text(0, 2**31 - 1), work["tag"] or "0", file=file, key=where)
    if work["way"] == "send":
        return trace.send(peer, size, tag)
    return trace.recv(peer, size, tag)


def _convert(files: Sequence[Path], how: Conversion) -> GeneratedWorkload:
    if len(files) != 1:
        raise InputError("a GOAL schedule is one file, for all ranks", key="INPUTS")
    return read_goal(files[0], how.made)


def _read(path: Path, ranks: int) -> Workload:
    made = Inferences()
    workload = read_goal(path, made).workload()
    if workload.ranks != ranks:
        raise InputError(
            f"the schedule has {workload.ranks} ranks, and the network {ranks}", file=path
        )
    return made.said_by(workload, path)


FORMAT = TraceFormat(
    "goal",
    "GOAL schedules of LogGOPSim and ATLAHS, one file for all ranks.",
    lambda path: kind_of_path(path) is GOAL,
    _read,
    _convert,
    lambda path: read_goal(path, Inferences()).ranks,
)
