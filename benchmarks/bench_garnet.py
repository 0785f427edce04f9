# SPDX-License-Identifier: MIT
"""Speed of Garnet: uniform random 5-flit packets at 0.1 flits per node and cycle.

    python benchmarks/bench_garnet.py [--backend garnet|gem5] [--sizes 4,8,16] [--cycles 100000]
        [--repeats 3]
    python benchmarks/bench_garnet.py --fast-forward [--repeats 3]

The times of gem5's own program for the same traffic (docs/garnet.md): 1.3 s, 9.2 s and 94 s.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import astra_bridge as ab
from astra_bridge.network.api import TIME_NEVER, TRANSFER, NetworkConfig
from astra_bridge.network.garnet.options import options_of
from astra_bridge.network.garnet.reader import read_garnet
from astra_bridge.network.garnet.traffic import make_traffic, run_transfers
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import BackendSpec
from astra_bridge.workload import collective

GEM5_SECONDS = {4: 1.3, 8: 9.2, 16: 94.0}


def loaded(spec: BackendSpec, size: int, cycles: int, repeats: int) -> None:
    """Messages as arrays in, delivery times as arrays out; without reading and writing files."""
    network = read_garnet({"topology": f"Mesh_XY {size}x{size}", "vnets": 3})
    rows = make_traffic(network, "uniform", 0.1, cycles, 5, seed=1)
    cpu, wall = [], []
    hops = 0
    for _ in range(repeats):
        begin = time.process_time(), time.perf_counter()
        _, stats = run_transfers(network, rows, TIME_NEVER, record=False, open_network=spec.open)
        cpu.append(time.process_time() - begin[0])
        wall.append(time.perf_counter() - begin[1])
        hops = stats["flit_hops"]
    best = min(cpu)
    gem5 = f"gem5 {GEM5_SECONDS[size]} s" if size in GEM5_SECONDS and cycles == 100_000 else ""
    print(
        f"{size:3d}x{size:<3d} {len(rows):8d} packets {hops:10d} flit-hops "
        f"{best:7.3f} s CPU {min(wall):7.3f} s wall {hops / best / 1e6:6.1f} M flit-hops/s {gem5}"
    )


def idle(spec: BackendSpec, size: int, cycles: int) -> None:
    """One packet at the beginning and one at the end of a long time."""
    network = read_garnet({"topology": f"Mesh_XY {size}x{size}"})
    nodes = len(network.nodes)
    begin = time.perf_counter()
    config = NetworkConfig(nodes, nodes, options=options_of(network))
    with spec.open(config) as net:
        created = time.perf_counter()
        rows = np.zeros(2, TRANSFER)
        rows["id"], rows["bytes"], rows["dst"] = [0, 1], 80, nodes - 1
        rows["start_ps"] = [0, cycles * 1000]
        net.submit(rows)
        for _ in rows:
            net.advance(TIME_NEVER)
            net.poll()
        done = time.perf_counter()
    print(
        f"{size:3d}x{size:<3d} idle for {cycles} cycles: {(done - created) * 1e6:.0f} us "
        f"(creation {(created - begin) * 1e3:.0f} ms)"
    )


def fast_forward(repeats: int) -> None:
    """Collectives cycle by cycle, and with fast_forward=exact, in turn."""
    chip = {"flit_bytes": 64, "packet_bytes": 1024}
    dims = {"topology": ["Ring"], "npus_count": [8], "bandwidth": [50.0], "latency": [100.0]}
    for name, network, kind, how, size, ranks in (
        ("Ring 8", chip | {"topology": "Ring 8"}, "all-reduce", "ring", 64 << 20, 8),
        (
            "FullyConnected 8",
            chip | {"topology": "FullyConnected 8"},
            "all-reduce",
            "ring",
            64 << 20,
            8,
        ),
        ("Mesh_XY 4x4", chip | {"topology": "Mesh_XY 4x4"}, "all-reduce", "ring", 16 << 20, 16),
        ("Mesh_XY 4x4", chip | {"topology": "Mesh_XY 4x4"}, "all-to-all", "direct", 16 << 20, 16),
        ("[Ring] of 8, 50 GB/s", dims, "all-reduce", "ring", 64 << 20, 8),
    ):
        given = ab.Experiment(
            collective(kind, size, ranks),
            {f"{kind}-implementation": [how], "preferred-dataset-splits": 1},
            network,
            backend="garnet",
        )
        best: dict[str, float] = {}
        ends: dict[str, list[int]] = {}
        jumped = 0.0
        for _ in range(repeats):
            for mode in ("off", "exact"):
                done = given.replace(network_options={"fast_forward": mode}).run()
                best[mode] = min(done.run_cpu_s, best.get(mode, np.inf))
                ends[mode] = done.finish_ns.tolist()
                jumped = done.network.get("fast_forward_ns", 0) / max(ends[mode])
        assert ends["off"] == ends["exact"]
        print(
            f"{kind} ({how}) of {size >> 20} MiB, {name}: off {best['off']:.3f} s, "
            f"exact {best['exact']:.3f} s CPU, {best['off'] / best['exact']:.1f} times, "
            f"{jumped:.1%} of the time jumped"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["garnet", "gem5"], default="garnet")
    parser.add_argument("--sizes", default="4,8,16")
    parser.add_argument("--cycles", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fast-forward", action="store_true")
    given = parser.parse_args()
    if given.fast_forward:
        fast_forward(given.repeats)
        raise SystemExit
    chosen = backend(given.backend)
    for one in map(int, given.sizes.split(",")):
        loaded(chosen, one, given.cycles, given.repeats)
    if given.backend == "garnet":  # gem5 takes long to make a network of 1024 nodes
        idle(chosen, 32, 1_000_000_000)
