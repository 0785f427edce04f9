# SPDX-License-Identifier: MIT
"""How fast a recording of PyTorch is converted: ``python benchmarks/recordings.py --mb 1024``.

Writes a Kineto trace of a made-up step over and over, as PyTorch lays it out, and converts it in a
process of its own; prints CPU seconds, MB per CPU second and peak memory.  ``--layouts`` does so
for other ways in which the same JSON may be written; MB are those of the text, before gzip.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
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


LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "as PyTorch writes it": ("", {"indent": 2}),
    "the same, gzip": (".gz", {"indent": 2}),
    "without spaces": ("", {"separators": (",", ":")}),
    "a line for each event": ("", {}),
    "indented by 8": ("", {"indent": 8}),
    "keys sorted": ("", {"indent": 2, "sort_keys": True}),
    "times as texts": ("", {"indent": 2, "texts": True}),
}
"""Name -> ending of the file, and how its events are written."""


def encoded(event: dict[str, Any], *, texts: bool = False, **how: Any) -> str:
    if texts and "dur" in event:
        event = event | {"ts": str(event["ts"]), "dur": str(event["dur"])}
    return json.dumps(event, **how)


def write(path: Path, size_bytes: int, how: Mapping[str, Any] | None = None) -> None:
    """Write a recording of at least so many bytes."""
    how = LAYOUTS["as PyTorch writes it"][1] if how is None else how
    with gzip.open(path, "wt", 1) if path.suffix == ".gz" else path.open("w") as out:
        out.write('{\n  "schemaVersion": 1,\n  "traceEvents": [')
        number = 0
        while out.tell() < size_bytes:
            events = step(1e12 + 50.0 * LAUNCHES * number, number)
            text = ",\n  ".join(encoded(event, **how) for event in events)
            out.write(("\n  " if number == 0 else ",\n  ") + text)
            number += 1
        out.write('\n  ],\n  "traceName": "x"\n}\n')


def measured(size: int, ending: str, how: Mapping[str, Any]) -> str:
    """Size, CPU seconds, MB per CPU second and peak memory of a conversion, as cells of a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"kineto.json{ending}"
        write(path, size, how)
        command = [sys.executable, "-m", "astra_bridge", "trace", "convert", str(path)]
        process = subprocess.Popen([*command, str(Path(folder) / "w")], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        seconds = used.ru_utime + used.ru_stime
        read = size / 1e6
    return f"{read:,.0f} | {seconds:.1f} | {read / seconds:.0f} | {used.ru_maxrss / 1e3:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=128, help="size of the recording in 10^6 bytes")
    parser.add_argument("--layouts", action="store_true", help="in every layout")
    given = parser.parse_args()
    print("| layout | MB | CPU s | MB / CPU s | peak MB |\n|---|---|---|---|---|")
    for name, (ending, how) in LAYOUTS.items():
        print(f"| {name} | {measured(given.mb * 10**6, ending, how)}", flush=True)
        if not given.layouts:
            break


if __name__ == "__main__":
    main()
