# SPDX-License-Identifier: MIT
"""How cost grows with size, where it once grew faster than the work: a table.

    python benchmarks/scaling.py [CASE ...] [--against PYTHON]

* ``all-to-all``: ns-3, every host of a star sends 16 packets to every other one; a million
  packet-hops per CPU second.
* ``route-memory``: ns-3, one message of 1 kB in a star of many hosts; peak memory.
* ``chunks``: an all-reduce of 8 ranks in many chunks, one at a time.
* ``back-pressure``: a direct all-to-all over a network that takes five transfers at a time.

Every case runs in a process of its own; CPU seconds are those of the simulation alone.
``--against`` also runs each case with another interpreter, which has another astra_bridge.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

CASES: dict[str, tuple[int, ...]] = {
    "all-to-all": (64, 128, 256, 512),
    "route-memory": (256, 1024, 2048),
    "chunks": (4000, 16_000, 32_000),
    "back-pressure": (64, 128),
}
UNITS = {
    "all-to-all": "hosts",
    "route-memory": "hosts",
    "chunks": "chunks",
    "back-pressure": "ranks",
}


def star(hosts: int, flows: list[tuple[int, int, int]]) -> dict[str, Any]:
    """Messages (from, to, bytes) on ns-3, among hosts around one switch."""
    import numpy as np

    from astra_bridge.network.api import LINK, TRANSFER, NetworkConfig
    from astra_bridge.network.ns3 import BACKENDS

    ends = [(i, hosts) for i in range(hosts)] + [(hosts, i) for i in range(hosts)]
    links = np.array([(a, b, 50e9, 500_000, 0.0) for a, b in ends], LINK)
    options = {"congestion_control": "none", "window": "pair"}
    config = NetworkConfig(hosts, hosts + 1, links, options)
    items = np.zeros(len(flows), TRANSFER)
    items["id"] = np.arange(len(flows))
    items["src"], items["dst"], items["bytes"] = np.array(flows).T
    begin = time.process_time()
    with BACKENDS[0].open(config) as network:
        emptied_s(network, items)
        seconds = time.process_time() - begin  # opening included
        return {"cpu_s": seconds, "hops": network.stats()["packet_hops"]}


def emptied_s(network: Any, items: Any) -> float:
    """CPU seconds in which the network delivers all of the transfers."""
    begin = time.process_time()
    network.submit(items)
    left = len(items)
    while left:
        network.advance(2**63 - 1, 10**12)
        left -= len(network.poll())
    return time.process_time() - begin


def all_to_all(hosts: int) -> dict[str, Any]:
    """Every host to every other one, all in the same order, so that each in turn is crowded."""
    flows = [(i, j, 16_000) for i in range(hosts) for j in range(hosts) if i != j]
    return star(hosts, flows)


def route_memory(hosts: int) -> dict[str, Any]:
    """One message."""
    return star(hosts, [(0, hosts - 1, 1000)])


def _collective(kind: str, size: int, ranks: int, chunks: int, **options: Any) -> dict[str, Any]:
    from astra_bridge import simulate
    from astra_bridge.workload import collective

    system = {
        "scheduling-policy": "LIFO",
        "endpoint-delay": 10,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": chunks,
        "collective-optimization": "baseline",
        "local-mem-bw": 50,
        "all-reduce-implementation": ["ring"],
        "all-to-all-implementation": ["direct"],
    }
    network = {"topology": ["Switch"], "npus_count": [ranks], "bandwidth": [50], "latency": [500]}
    workload = collective(kind, size, ranks).workload()
    begin = time.process_time()
    result = simulate(workload, system, network, record_nodes=False, **options)
    return {"cpu_s": time.process_time() - begin, "finish_ns": int(result.finish_ns.max())}


def chunks(count: int) -> dict[str, Any]:
    """8 ranks; every chunk is 512 bytes."""
    return _collective("all-reduce", 512 * count, 8, count)


def back_pressure(ranks: int) -> dict[str, Any]:
    """A backend of private wires, declared to take five transfers at a time."""
    root = Path(__file__).parents[1]
    source = (root / "tests" / "abi" / "wire.cpp").read_text()
    source = source.replace("max_in_flight = INT64_MAX", "max_in_flight = 5")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libnarrow.so"
        flags = ["-std=c++17", "-O2", "-shared", "-fPIC", f"-I{root / 'csrc' / 'include'}"]
        command = ["g++", *flags, "-xc++", "-", "-o", str(library)]
        subprocess.run(command, input=source, text=True, check=True)
        options: dict[str, Any] = {"backend": str(library)}
        from astra_bridge import simulate

        if "in_process" in signature(simulate).parameters:
            options["in_process"] = True
        return _collective("all-to-all", 4096 * ranks, ranks, 1, **options)


RUN: dict[str, Callable[[int], dict[str, Any]]] = {
    "all-to-all": all_to_all,
    "route-memory": route_memory,
    "chunks": chunks,
    "back-pressure": back_pressure,
}


def measure(python: str, case: str, size: int) -> dict[str, Any]:
    """One case in a process of its own."""
    command = [python, __file__, case, "--here", str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def shown(case: str, found: dict[str, Any]) -> str:
    """What a cell of the table says."""
    if "failed" in found:
        return found["failed"][:60]
    if case == "all-to-all":
        return f"{found['hops'] / found['cpu_s'] / 1e6:.2f} M hops/s"
    if case == "route-memory":
        return f"{found['peak_MB']:.0f} MB"
    return f"{found['cpu_s']:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all, if none is named")
    parser.add_argument("--against", metavar="PYTHON", help="an interpreter to compare with")
    parser.add_argument("--here", type=int, metavar="SIZE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        found = RUN[given.cases[0]](given.here)
        found["peak_MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found))
        return
    pythons = [given.against] * bool(given.against) + [sys.executable]
    print("| case | size |" + " before |" * bool(given.against) + " now |")
    print("|---|---|" + "---|" * len(pythons))
    for case in given.cases or CASES:
        for size in CASES[case]:
            cells = [shown(case, measure(python, case, size)) for python in pythons]
            print(f"| {case} | {size:,} {UNITS[case]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
