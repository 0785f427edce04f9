# SPDX-License-Identifier: MIT
"""How fast a recording of PyTorch is converted: ``python benchmarks/recordings.py --mb 1024``.

Writes a Kineto trace of a made-up step over and over, as PyTorch lays it out, and converts it in a
process of its own; prints CPU seconds, MB per CPU second and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LAUNCHES = 40


def step(at: float, number: int) -> list[dict[str, Any]]:
    """An operator with inner ones, a launch and a kernel, again and again, and their flows."""
    events: list[dict[str, Any]] = []

    def add(cat: str, name: str, ts: float, dur: float, tid: int, **args: Any) -> None:
        events.append({"ph": "X", "cat": cat, "name": name, "pid": 9, "tid": tid, "ts": ts,
                       "dur": dur, "args": args})  # fmt: skip

    for i in range(LAUNCHES):
        start, link = at + 50 * i, 1000 * number + i
        for inner, name in enumerate(("aten::linear", "aten::t", "aten::transpose", "aten::addmm")):
            add("cpu_op", name, start + inner, 40.125 - inner, 1, **{
                "External id": link, "Record function id": 4 * link + inner,
                "Ev Idx": link})  # fmt: skip
        add("cuda_runtime", "cudaLaunchKernel", start + 10, 5.5, 1, **{
            "External id": link, "cbid": 211, "correlation": link})  # fmt: skip
        add("kernel", "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor>",
            start + 20, 12.25, 7, **{
                "External id": link, "queued": 0, "device": 0, "context": 1, "stream": 7,
                "correlation": link, "registers per thread": 32, "shared memory": 0,
                "blocks per SM": 7.757576, "warps per SM": 31.030304, "grid": [1024, 1, 1],
                "block": [128, 1, 1], "est. achieved occupancy %": 48})  # fmt: skip
        for phase, tid, ts in (("s", 1, start + 10), ("f", 7, start + 20)):
            events.append({"ph": phase, "id": link, "pid": 9, "tid": tid, "ts": ts, "cat": "ac2g",
                           "name": "ac2g", "bp": "e"})  # fmt: skip
    return events


def write(path: Path, size_bytes: int) -> None:
    """Write a recording of at least so many bytes."""
    with path.open("w") as out:
        out.write('{\n  "schemaVersion": 1,\n  "traceEvents": [')
        number = 0
        while out.tell() < size_bytes:
            events = step(1e12 + 50.0 * LAUNCHES * number, number)
            text = ",\n  ".join(json.dumps(event, indent=2) for event in events)
            out.write(("\n  " if number == 0 else ",\n  ") + text)
            number += 1
        out.write('\n  ],\n  "traceName": "x"\n}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=128, help="size of the recording in 10^6 bytes")
    size = parser.parse_args().mb * 10**6
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kineto.json"
        write(path, size)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "astra_bridge", "trace", "convert", str(path)]
        subprocess.run([*command, str(Path(folder) / "w")], check=True, stdout=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        read = os.path.getsize(path) / 1e6  # noqa: PTH202
        print("| MB | CPU s | MB / CPU s | peak MB |\n|---|---|---|---|")
        print(
            f"| {read:,.0f} | {seconds:.1f} | {read / seconds:.0f} | {used.ru_maxrss / 1e3:.0f} |"
        )


if __name__ == "__main__":
    main()
