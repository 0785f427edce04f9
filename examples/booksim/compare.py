# SPDX-License-Identifier: MIT
"""One transfer on an idle chip of 8 x 8, and an all-reduce: BookSim beside Garnet.

``python compare.py`` prints the table of docs/new_backend.md, ``python compare.py --speed`` the
CPU seconds of a larger all-reduce, thrice by turns.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from astra_bridge import Experiment
from astra_bridge.network.api import TIME_NEVER, TRANSFER
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest

HERE = Path(__file__).resolve().parent
CYCLE_PS = 1000
# Lookahead routing, and both allocations in one cycle; Garnet does all three in one.
SHORT = {"routing_delay": "0", "speculative": "1"}
RUNS: dict[str, tuple[str, Path, dict[str, str]]] = {
    "booksim": ("booksim", HERE / "mesh_8x8.cfg", {}),
    "booksim, short": ("booksim", HERE / "mesh_8x8.cfg", SHORT),
    "garnet": ("garnet", HERE.parent / "garnet" / "mesh_8x8.yml", {}),
}


def latency_cycles(name: str, network: Path, options: dict[str, str], dst: int, size: int) -> int:
    """Of one transfer from the corner, on an idle network."""
    spec = backend(name)
    config = spec.prepare(NetworkRequest(network, options=options)).config
    transfers = np.zeros(1, TRANSFER)
    transfers["dst"], transfers["bytes"] = dst, size
    with spec.open(config) as simulation:
        simulation.submit(transfers)
        simulation.advance(TIME_NEVER)
        return int(simulation.poll()["time_ps"][0]) // CYCLE_PS


def all_reduce(
    name: str, network: Path, options: dict[str, str], size: str = "64KiB"
) -> tuple[int, float]:
    """When it ends [ns], and the CPU seconds that it takes."""
    experiment = Experiment.from_file(HERE / "all_reduce.yaml").replace(
        {"workload.size": size}, backend=name, network=network, network_options=options
    )
    begin = time.process_time()
    result = experiment.run(in_process=True)
    return int(result.finish_ns.max()), time.process_time() - begin


def main() -> None:
    print(f"{'cycles':16}{'':>8}" + "".join(f"{name:>16}" for name in RUNS))
    for size in (64, 256, 4096):
        for label, dst in (("1 hop", 1), ("2 hops", 2), ("7 hops", 7), ("14 hops", 63)):
            cycles = [latency_cycles(*run, dst, size) for run in RUNS.values()]
            print(f"{size:>6} bytes, {label:>10}" + "".join(f"{number:>16}" for number in cycles))
    ends = [all_reduce(*run)[0] for run in RUNS.values()]
    print(f"{'all-reduce, ns':24}" + "".join(f"{end_ns:>16}" for end_ns in ends))


def speed() -> None:
    for _ in range(3):
        for label, run in RUNS.items():
            end_ns, cpu_s = all_reduce(*run, size="256KiB")
            print(f"{label:16} {end_ns:>8} ns {cpu_s:>8.2f} s {end_ns / cpu_s:>12.0f} cycles/s")


if __name__ == "__main__":
    speed() if "--speed" in sys.argv else main()
