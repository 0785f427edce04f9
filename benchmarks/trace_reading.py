# SPDX-License-Identifier: MIT
"""Time and memory of reading traces: ``python benchmarks/trace_reading.py``.

Each line is a fresh process; CPU seconds and peak memory are those of the whole process, start of
Python included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from astra_bridge.trace import reader
from astra_bridge.trace.columns import CommType, NodeType
from astra_bridge.trace.writer import TraceNode, write_trace


def nodes(count: int, seed: int) -> Iterator[TraceNode]:
    """Compute, then an all-reduce that overlaps with the next compute."""
    for i in range(0, count, 2):
        yield TraceNode(
            id=i,
            type=NodeType.COMP,
            name=f"comp{i}",
            duration_micros=10,
            data_deps=[i - 2] if i else [],
            attributes={"is_cpu_op": False, "num_ops": 1000 + seed, "tensor_size": 64},
        )
        yield TraceNode(
            id=i + 1,
            type=NodeType.COMM_COLL,
            name=f"all-reduce{i}",
            data_deps=[i],
            attributes={
                "is_cpu_op": False,
                "comm_type": int(CommType.ALL_REDUCE),
                "comm_size": 65536,
            },
        )


def read(prefix: str, ranks: int, decoder: str) -> None:
    """Read, and print what it took (run in a process of its own)."""
    if decoder == "python":
        reader._native = None
    workload = reader.read_chakra(Path(prefix), ranks)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    distinct = len(workload.columns)
    total = sum(len(trace) for trace in workload.columns)
    # Not ru_maxrss: a child starts with its parent's.
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f"{distinct:>8} {total:>9} {cpu_s:>7.2f} {peak_kib / 1024:>8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", nargs=3, metavar=("PREFIX", "RANKS", "DECODER"))
    arguments = parser.parse_args()
    if arguments.read:
        prefix, ranks, decoder = arguments.read
        read(prefix, int(ranks), decoder)
        return
    print(f"{'work':<34} {'decoder':<7} {'distinct':>8} {'nodes':>9} {'CPU s':>7} {'peak MB':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_trace(folder / "million.0.et", nodes(1_000_000, 0))
        for rank in range(64):
            write_trace(folder / f"distinct.{rank}.et", nodes(20_000, rank))
            write_trace(folder / f"equal.{rank}.et", nodes(20_000, 0))
        for work, prefix, ranks in (
            ("1 file of 1,000,000 nodes", "million", 1),
            ("64 equal files of 20,000 nodes", "equal", 64),
            ("64 distinct files of 20,000 nodes", "distinct", 64),
        ):
            for decoder in ("native", "python"):
                if decoder == "native" and not reader.native_available():
                    continue
                done = subprocess.run(
                    [sys.executable, __file__, "--read", str(folder / prefix), str(ranks), decoder],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                print(f"{work:<34} {decoder:<7} {done.stdout}", end="", flush=True)


if __name__ == "__main__":
    main()
