# SPDX-License-Identifier: MIT
"""Speed of the ns-3 backend on two all-reduces, and of a bare ns-3 event loop beside it.

    python benchmarks/bench_ns3.py [--case CASE] [--fast-forward exact] [--bare]

* ``allreduce8``: ring all-reduce of 64 MiB on 8 hosts and one switch, 400 Gbit/s, 500 ns links.
  ASTRA-sim with its RDMA fork, built with -O3, takes 3.4 CPU s and 63 MB for it; limit 1.1 s.
* ``leafspine64``: ring all-reduce of 16 MiB on 64 hosts: 8 leaves of 8 hosts at 200 Gbit/s,
  4 spines at 400 Gbit/s, 1 us links.  The fork: 18.5 CPU s and 471 MB; limit 5 s and 150 MB.
* ``--fast-forward``: the option of that name (docs/ns3.md); ``--compatibility`` likewise.
* ``--bare``: a program that only schedules and runs events in ns-3, for scale.

CPU seconds are those of engine and network together, the least of three runs; beside them those of
the whole process, with Python's start and the reading of traces.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIG = """CC_MODE 12
PACKET_PAYLOAD_SIZE 1000
L2_CHUNK_SIZE 4000
L2_ACK_INTERVAL 1
HAS_WIN 1
GLOBAL_T 0
VAR_WIN 1
KMIN_MAP 2 200000000000 600 400000000000 800
KMAX_MAP 2 200000000000 2400 400000000000 3200
PMAX_MAP 2 200000000000 0.2 400000000000 0.2
BUFFER_SIZE 32
TOPOLOGY_FILE topology.txt
"""
SYSTEM = {
    "scheduling-policy": "LIFO",
    "endpoint-delay": 10,
    "active-chunks-per-dimension": 1,
    "preferred-dataset-splits": 4,
    "collective-optimization": "localBWAware",
    "local-mem-bw": 1600,
    **{f"{kind}-implementation": ["ring"] for kind in ("all-reduce", "all-gather")},
    **{f"{kind}-implementation": ["ring"] for kind in ("reduce-scatter", "all-to-all")},
}
CASES = {
    # name: ranks, bytes, limit [s]
    "allreduce8": (8, 64 << 20, 1.1),
    "leafspine64": (64, 16 << 20, 5.0),
}
BARE = """
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include "ns3/core-module.h"
static long left;
static void Again(int delay) {
  if (left-- > 0) ns3::Simulator::Schedule(ns3::NanoSeconds(delay), &Again, delay);
}
int main(int, char** argv) {
  left = std::atol(argv[1]);
  for (int i = 0; i < 64; ++i) ns3::Simulator::Schedule(ns3::NanoSeconds(i), &Again, 40 + i % 7);
  ns3::Simulator::Run();
  std::printf("%f\\n", std::clock() / double(CLOCKS_PER_SEC));
}
"""


def write_inputs(name: str, folder: Path) -> None:
    from astra_bridge.workload import collective

    ranks, size, _ = CASES[name]
    if name == "allreduce8":
        switches, links = [8], [f"8 {host} 400Gbps 0.0005ms 0" for host in range(8)]
    else:
        switches = list(range(64, 76))
        links = [f"{host} {64 + host // 8} 200Gbps 0.001ms 0" for host in range(64)]
        links += [f"{64 + i // 4} {72 + i % 4} 400Gbps 0.001ms 0" for i in range(32)]
    head = f"{ranks + len(switches)} {len(switches)} {len(links)}"
    rows = [head, " ".join(map(str, switches)), *links]
    (folder / "topology.txt").write_text("\n".join(rows) + "\n")
    (folder / "config.txt").write_text(CONFIG)
    (folder / "system.json").write_text(json.dumps(SYSTEM))
    collective("all-reduce", size, ranks).write(folder / "trace")


def simulate_here(folder: Path, options: dict[str, str]) -> dict[str, float]:
    """One simulation in this process, timed without reading and lowering the traces."""
    import numpy as np

    from astra_bridge.isolation import run_here
    from astra_bridge.network.api import TIME_NEVER, TRANSFER
    from astra_bridge.network.ns3 import BACKENDS
    from astra_bridge.simulation import experiment, simulate

    seconds: list[float] = []
    configs: list[Any] = []

    def timed(*arguments: Any) -> Any:
        configs.append(arguments[1].config)
        begin = time.process_time()
        answer = run_here(BACKENDS[0], *arguments[1:])
        seconds.append(time.process_time() - begin)
        return answer

    experiment.run_isolated = timed
    inputs = (folder / "trace", folder / "system.json", folder / "config.txt")
    result = simulate(*inputs, backend="ns3", record_nodes=False, network_options=options)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole = time.process_time()

    # The same transfers at the same times, without an engine: what the network alone takes.
    flows = result.tables["flows"]
    transfers = np.zeros(len(flows["src"]), TRANSFER)
    for field in ("id", "src", "dst", "bytes", "start_ps"):
        transfers[field] = flows[field]
    with BACKENDS[0].open(configs[0]) as network:
        begin = time.process_time()
        network.submit(transfers)
        left = len(transfers)
        while left:
            network.advance(TIME_NEVER, 10**15)
            left -= len(network.poll())
        alone = time.process_time() - begin
    return {
        "process_s": whole,
        "simulation_s": seconds[0],
        "network_s": alone,
        "peak_mb": peak_kb / 1024,
        "finish_ns": int(result.finish_ns.max()),
        "packet_hops": int(result.network["packet_hops"]),
        "events": int(result.network["events"]),
        "jumped_ns": int(result.network.get("fast_forward_ns", 0)),
    }


def measure(name: str, repeats: int, options: dict[str, str]) -> bool:
    limit_s = CASES[name][2]
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(name, Path(folder))
        runs = []
        for _ in range(repeats):
            done = subprocess.run(
                [sys.executable, __file__, "--inside", folder, "--options", json.dumps(options)],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            runs.append(json.loads(done.stdout))
    best = min(runs, key=lambda run: run["simulation_s"])
    hops, seconds = best["packet_hops"], best["simulation_s"]
    outside = max(0.0, 1 - min(run["network_s"] for run in runs) / seconds)
    print(
        f"{name}: {seconds:.2f} CPU s (whole process {best['process_s']:.2f}; limit {limit_s}), "
        f"{best['peak_mb']:.0f} MB, ends at {best['finish_ns']:,} ns\n"
        f"  {hops:,} packet-hops, {hops / seconds / 1e6:.1f} million per CPU s, "
        f"{best['events'] / hops:.2f} events per packet-hop; "
        f"engine and bridge take {outside:.1%}"
    )
    if best["jumped_ns"]:
        print(f"  {best['jumped_ns']:,} ns jumped")
    return bool(best["process_s"] <= limit_s)


def bare(events: int) -> None:
    """Events per CPU second of ns-3's own queue, in a program that does nothing else."""
    from astra_bridge.network.ns3.build import find_ns3

    ns3 = find_ns3()
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "bare.cc"), Path(folder, "bare")
        source.write_text(BARE)
        command = ["c++", "-std=c++20", "-O3", str(source), "-o", str(program), str(ns3.core)]
        command += [f"-I{ns3.root / 'include'}", f"-Wl,-rpath,{ns3.core.parent}"]
        subprocess.run(command, check=True)
        done = subprocess.run(
            [str(program), str(events)], stdout=subprocess.PIPE, check=True, text=True
        )
    seconds = float(done.stdout)
    print(f"bare ns-3 {ns3.version}: {events:,} events in {seconds:.2f} CPU s, ", end="")
    print(f"{events / seconds / 1e6:.1f} million per s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=[*CASES, "all"], default="all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="also time ns-3's event queue alone")
    parser.add_argument("--fast-forward", choices=["off", "exact", "steady"], default="off")
    parser.add_argument("--compatibility", choices=["fork", "none"], default="fork")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(simulate_here(arguments.inside, arguments.options)))
        return 0
    names = list(CASES) if arguments.case == "all" else [arguments.case]
    options = {
        "fast_forward": arguments.fast_forward,
        "compatibility": arguments.compatibility,
    }
    within = [measure(name, arguments.repeats, options) for name in names]
    if arguments.bare:
        bare(7_500_000)
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
