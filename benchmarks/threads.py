#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Wavefronts on several threads (docs/wavefronts.md), in turn: ``python benchmarks/threads.py``.

A ring over two dimensions whose links differ, all-reduce of 1 GiB in 4 chunks, whose ranks begin at
random times: it never keeps step, so that each message is computed.  ``--ranks 64 64`` is a smaller
one.  CPU seconds are of all threads; wall seconds mean something where nobody else uses the cores.
"""

from __future__ import annotations

import argparse
import random
import time

from astra_bridge import Experiment
from astra_bridge.trace import CommType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

SYSTEM = {
    "endpoint-delay": 10,
    "active-chunks-per-dimension": 1,
    "preferred-dataset-splits": 4,
    "local-mem-bw": 50,
    "all-reduce-implementation": ["oneRing", "oneRing"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs=2, default=(128, 128), help="per dimension")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2), help="how many")
    parser.add_argument("--runs", type=int, default=3, help="runs of each")
    options = parser.parse_args()
    rng = random.Random(1)
    traces = [TraceBuilder() for _ in range(options.ranks[0] * options.ranks[1])]
    for trace in traces:
        begin = trace.comp(duration_ns=rng.randrange(1, 10_000_000))
        trace.coll(CommType.ALL_REDUCE, 2**30, deps=[begin])
    net = {
        "topology": ["Ring", "Switch"],
        "npus_count": list(options.ranks),
        "bandwidth": [50, 25],
        "latency": [500, 700],
    }
    experiment = Experiment(GeneratedWorkload(traces).workload(), SYSTEM, net, fold="off")
    experiment.lower()
    print("| threads | CPU s | wall s | finish of rank 0 |\n|---|---|---|---|", flush=True)
    for _ in range(options.runs):
        for threads in options.threads:
            began_s = time.perf_counter()
            result = experiment.run(threads=threads)
            wall_s = time.perf_counter() - began_s
            if result.wavefront.reason:
                raise SystemExit(result.wavefront.sentence())
            print(
                f"| {threads} | {result.run_cpu_s:.2f} | {wall_s:.2f} | {result.finish_ns[0]} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
