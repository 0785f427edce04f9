# SPDX-License-Identifier: MIT
"""A trace format: PREFIX.lines is what all ranks do, line by line.

``comp OPS BYTES``, ``load BYTES`` and ``all-reduce BYTES`` begin when the line before has ended;
with ``&`` in front, at once.
"""

from pathlib import Path

from astra_bridge.errors import InputError
from astra_bridge.trace import CommType, TraceFormat, Workload
from astra_bridge.workload import GeneratedWorkload, TraceBuilder


def file_of(prefix: Path) -> Path:
    return Path(f"{prefix}.lines")


def read(prefix: Path, ranks: int) -> Workload:
    trace = TraceBuilder()
    last: list[int] = []
    for number, line in enumerate(file_of(prefix).read_text().splitlines(), 1):
        words = line.split()
        deps = [] if words[:1] == ["&"] else last
        what, *numbers = words[1:] if words[:1] == ["&"] else words
        sizes = [int(one) for one in numbers]
        if what == "comp":
            node = trace.comp(num_ops=sizes[0], tensor_size_bytes=sizes[1], deps=deps)
        elif what == "load":
            node = trace.load(sizes[0], deps=deps)
        elif what == "all-reduce":
            node = trace.coll(CommType.ALL_REDUCE, sizes[0], deps=deps)
        else:
            raise InputError(
                f"{what!r} is not allowed; allowed: comp, load, all-reduce",
                file=file_of(prefix),
                key=f"line {number}",
            )
        last = [node]
    return GeneratedWorkload([trace] * ranks).workload()


FORMAT = TraceFormat(
    "lines", "PREFIX.lines, what all ranks do.", lambda prefix: file_of(prefix).is_file(), read
)
