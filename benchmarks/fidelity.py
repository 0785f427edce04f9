# SPDX-License-Identifier: MIT
"""How far the cheaper networks are from ns-3, on experiments of the kinds that clusters run.

    python benchmarks/fidelity.py [--count 63] [--seed 1] [--backends flow,analytical-aware] [-o F]

Each experiment is a fabric (rail, leaf-spine, fat-tree; 32 to 256 GPUs; 1:1 to 4:1), a workload
(all-reduce by ring, tree and halving-doubling, all-to-all, incast, a data-parallel and a
mixture-of-experts step) and a size (64 KiB to 64 MiB).  Every run is a process of its own: what it
takes is the CPU time of that process and its children, from the inputs to the result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KIB, MIB = 1 << 10, 1 << 20
SIZES = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
FABRICS = ("rail", "leaf_spine", "fat_tree")
WORKLOADS = (
    *("ring", "doubleBinaryTree", "halvingDoubling", "all-to-all"),
    *("incast", "data-parallel", "mixture-of-experts"),
)
REFERENCE = "ns3"


def experiments(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Every workload on every fabric in turn; the rest at random."""
    rng = random.Random(seed)
    for number in range(count):
        fabric = FABRICS[number % len(FABRICS)]
        workload = WORKLOADS[number // len(FABRICS) % len(WORKLOADS)]
        gpus = rng.choice([32, 64, 128, 256])
        size = rng.choice(SIZES)
        if workload in ("all-to-all", "mixture-of-experts"):
            size = max(size, 1 * MIB)
        yield {
            "fabric": fabric,
            "gpus": gpus,
            "oversubscription": rng.choice([1, 2, 4]),
            "workload": workload,
            "bytes": size,
        }


def incast(bytes_each: int, senders: int, ranks: int) -> Any:
    """`senders` ranks, spread over all, send to rank 0 at once."""
    from astra_bridge.workload import GeneratedWorkload, TraceBuilder

    traces = [TraceBuilder() for _ in range(ranks)]
    step = (ranks - 1) // senders
    chosen = [1 + step * k for k in range(senders)]
    for rank in range(1, ranks):
        if rank in chosen:
            traces[rank].send(0, bytes_each, 0)
            traces[0].recv(rank, bytes_each, 0)
        else:
            traces[rank].comp("idle")
    return GeneratedWorkload(tuple(traces), {})


def run(one: dict[str, Any], backend: str) -> dict[str, Any]:
    """In this process: the last rank's end, and the CPU time of the run."""
    import astra_bridge as ab
    from astra_bridge.inputs.system import read_system
    from astra_bridge.workload import Transformer, collective, transformer

    gpus, kind, size = one["gpus"], one["workload"], one["bytes"]
    network = getattr(ab.fabrics, one["fabric"])(
        gpus, oversubscription=one["oversubscription"], **one.get("more", {})
    )
    algorithm = kind if kind in ("ring", "doubleBinaryTree", "halvingDoubling") else "ring"
    dims = len(network.dims)
    system = read_system(
        {
            "scheduling-policy": "LIFO",
            "endpoint-delay": 10,
            "active-chunks-per-dimension": 2,
            "preferred-dataset-splits": 4,
            **{
                f"{name}-implementation": [algorithm] * dims
                for name in ("all-reduce", "all-gather", "reduce-scatter")
            },
            "all-to-all-implementation": ["direct"] * dims,
            "local-mem-bw": 1600,
            "collective-optimization": "localBWAware",
        }
    )
    if kind == "incast":
        workload = incast(size, min(32, gpus - 1), gpus)
    elif kind in ("data-parallel", "mixture-of-experts"):
        experts = {"experts": 2 * min(8, gpus), "expert": min(8, gpus)} if "mix" in kind else {}
        # Gradients of a layer are about `bytes`: 12 hidden^2 parameters of 2 bytes.
        hidden = max(64, 64 * round(math.sqrt(size / 24) / 64))
        model = Transformer(
            layers=2,
            hidden=hidden,
            sequence=512,
            data=gpus,
            micro_batches=1,
            vocabulary=1024,
            **experts,
        )
        workload = transformer(model)
    else:
        workload = collective("all-to-all" if kind == "all-to-all" else "all-reduce", size, gpus)
    given = workload.workload() if hasattr(workload, "workload") else workload
    begin = sum(os.times()[:4])
    result = ab.simulate(given, system, network, backend=backend, semantics="corrected")
    cpu_s = sum(os.times()[:4]) - begin
    return {"finish_ns": max(result.finish_ps) / 1000, "cpu_s": cpu_s}


def child(one: dict[str, Any], backend: str, limit_s: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", json.dumps(one), "--backends", backend]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {limit_s:.0f} s"}
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:200]}
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=63)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backends", default="flow,analytical-aware")
    parser.add_argument("--limit-s", type=float, default=600)
    parser.add_argument("-o", "--output")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.backends.split(",")
    if given.one:
        print(json.dumps(run(json.loads(given.one), names[0])))
        return
    rows, errors, costs = [], {name: [] for name in names}, {name: [] for name in names}
    print(
        f"{'fabric':10} {'GPUs':>4} {'over':>4} {'workload':18} {'KiB':>6} {'ns-3 us':>10}", end=""
    )
    print("".join(f" {name[-8:]:>8} {'CPU':>6}" for name in names))
    for one in experiments(given.count, given.seed):
        row = {**one, REFERENCE: child(one, REFERENCE, given.limit_s)}
        said = f"{one['fabric']:10} {one['gpus']:4} {one['oversubscription']:4} "
        said += f"{one['workload']:18} {one['bytes'] // KIB:6} "
        reference = row[REFERENCE]
        said += f"{reference['finish_ns'] / 1e3:10.1f}" if "finish_ns" in reference else " " * 10
        for name in names:
            got = row[name] = child(one, name, given.limit_s)
            if "error" in got or "error" in reference:
                said += f" {got.get('error') or reference.get('error')}"
                continue
            got["error_of_finish"] = got["finish_ns"] / reference["finish_ns"] - 1
            errors[name].append(got["error_of_finish"])
            costs[name].append(reference["cpu_s"] / max(got["cpu_s"], 1e-3))
            said += f" {got['error_of_finish']:+8.1%} {costs[name][-1]:5.0f}x"
        print(said, flush=True)
        rows.append(row)
        if given.output:
            Path(given.output).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    for name in names:
        found = errors[name]
        if not found:
            continue
        mean = math.exp(sum(math.log1p(abs(e)) for e in found) / len(found)) - 1
        worst = max(found, key=abs)
        cost = math.exp(sum(map(math.log, costs[name])) / len(costs[name]))
        print(
            f"{name}: {len(found)} experiments; geometric mean of the error {mean:.1%}, worst "
            f"{worst:+.1%}, within 5 %: {sum(abs(e) <= 0.05 for e in found)}; "
            f"{cost:.0f} times less CPU time than {REFERENCE} (geometric mean)"
        )


if __name__ == "__main__":
    main()
