# SPDX-License-Identifier: MIT
"""How far the cheaper networks are from ns-3, on experiments of the kinds that clusters run.

    python benchmarks/fidelity.py [--count 63] [--seed 1] [--backends a,b,...] [-o F] [--page F]

Each experiment is a fabric (rail, leaf-spine, fat-tree; 32 to 256 GPUs; 1:1 to 4:1), a workload
(all-reduce by ring, tree and halving-doubling, all-to-all, incast, a data-parallel and a
mixture-of-experts step) and a size (64 KiB to 64 MiB).  What a run takes is `run_cpu_s` of
`astra-bridge compare`, the CPU time of engine and network while simulated time advances, and
`cpu_s` of the whole run.  `--page docs/fidelity.md` writes that page.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import astra_bridge as ab
from astra_bridge.inputs.system import read_system
from astra_bridge.workload import GeneratedWorkload, TraceBuilder, collective

sys.path.insert(0, str(Path(__file__).parents[1]))  # where a script does not look
from benchmarks.transformer import Transformer, transformer

KIB, MIB = 1 << 10, 1 << 20
SIZES = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
FABRICS = ("rail", "leaf_spine", "fat_tree")
WORKLOADS = (
    *("ring", "doubleBinaryTree", "halvingDoubling", "all-to-all"),
    *("incast", "data-parallel", "mixture-of-experts"),
)
PAIRWISE = ("all-to-all", "mixture-of-experts")  # a message of each pair: not too small
KEYS = ("fabric", "gpus", "oversubscription", "workload", "bytes")
REFERENCE = "ns3"
COSTS = ("run_cpu_s", "cpu_s")
BACKENDS = "flow,analytical-aware,analytical-unaware"

PAGE = Path(__file__).with_name("fidelity_page.md")


def experiments(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Every workload on every fabric in turn; the rest at random, none twice."""
    rng = random.Random(seed)
    seen = set()
    for number in range(count):
        fabric = FABRICS[number % len(FABRICS)]
        workload = WORKLOADS[number // len(FABRICS) % len(WORKLOADS)]
        sizes = [size for size in SIZES if size >= MIB or workload not in PAIRWISE]
        while True:
            values = (
                fabric,
                rng.choice([32, 64, 128, 256]),
                rng.choice([1, 2, 4]),
                workload,
                rng.choice(sizes),
            )
            if values not in seen:
                break
        seen.add(values)
        yield dict(zip(KEYS, values, strict=True))


def incast(bytes_each: int, senders: int, ranks: int) -> GeneratedWorkload:
    """`senders` ranks, spread over all, send to rank 0 at once."""
    traces = [TraceBuilder() for _ in range(ranks)]
    step = (ranks - 1) // senders
    chosen = {1 + step * k for k in range(senders)}
    for rank in range(1, ranks):
        if rank in chosen:
            traces[rank].send(0, bytes_each, 0)
            traces[0].recv(rank, bytes_each, 0)
        else:
            traces[rank].comp("idle")
    return GeneratedWorkload(tuple(traces), {})


def workload_of(kind: str, size: int, gpus: int) -> GeneratedWorkload:
    if kind == "incast":
        return incast(size, min(32, gpus - 1), gpus)
    if kind == "all-to-all":
        return collective("all-to-all", size, gpus)
    if kind not in ("data-parallel", "mixture-of-experts"):
        return collective("all-reduce", size, gpus)
    # Gradients of a layer are about `size`: 12 hidden^2 parameters of 2 bytes.
    hidden = max(64, 64 * round(math.sqrt(size / 24) / 64))
    experts = {"experts": 16, "expert": 8} if kind == "mixture-of-experts" else {}
    return transformer(
        Transformer(
            layers=2, hidden=hidden, sequence=512, vocabulary=1024, data=gpus, micro_batches=1,
            **experts,
        )
    )  # fmt: skip


def experiment(one: dict[str, Any]) -> ab.Experiment:
    network = getattr(ab.fabrics, one["fabric"])(
        one["gpus"], oversubscription=one["oversubscription"]
    )
    algorithm = one["workload"] if one["workload"] in WORKLOADS[:3] else "ring"
    dims = len(network.dims)
    system = {
        "scheduling-policy": "LIFO",
        "endpoint-delay": 10,
        "active-chunks-per-dimension": 2,
        "preferred-dataset-splits": 4,
        "all-reduce-implementation": [algorithm] * dims,
        "all-gather-implementation": [algorithm] * dims,
        "reduce-scatter-implementation": [algorithm] * dims,
        "all-to-all-implementation": ["direct"] * dims,
        "local-mem-bw": 1600,
        "collective-optimization": "localBWAware",
    }
    workload = workload_of(one["workload"], one["bytes"], one["gpus"])
    return ab.Experiment(workload, read_system(system), network, semantics="corrected")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=63)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backends", default=BACKENDS)
    parser.add_argument("-o", "--output", type=Path, help="the rows as JSON")
    parser.add_argument("--page", type=Path, help="a page of what came out")
    given = parser.parse_args()
    names = given.backends.split(",")
    rows: list[dict[str, Any]] = []
    print(
        f"{'fabric':10} {'GPUs':>4} {'over':>4} {'workload':18} {'KiB':>6} {'ns-3 us':>10}", end=""
    )
    print(f" {'CPU s':>7}" + "".join(f" {name[-10:]:>10} {'CPU':>6}" for name in names))
    for one in experiments(given.count, given.seed):
        found = ab.compare(experiment(one), [*names, REFERENCE], reference=REFERENCE)
        runs = {row["backend"]: row for row in found.rows}
        reference = runs[REFERENCE]
        said = f"{one['fabric']:10} {one['gpus']:4} {one['oversubscription']:4} "
        said += f"{one['workload']:18} {one['bytes'] // KIB:6} "
        if reference["failure"]:
            print(said + reference["failure"], flush=True)
            continue
        said += f"{reference['finish_ns'] / 1e3:10.1f} {reference['run_cpu_s']:7.3f}"
        for name in names:
            run = runs[name]
            if run["failure"]:
                said += " " + run["failure"]
                continue
            said += f" {run['error']:+10.1%} {reference['run_cpu_s'] / run['run_cpu_s']:5.0f}x"
            costs = {f"reference_{cost}": reference[cost] for cost in COSTS}
            rows.append({**one, **run, **costs})
        print(said, flush=True)
        if given.output:
            given.output.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    said = [line for name in names if (line := summary(name, rows))]
    print("\n".join(said))
    if given.page:
        page = PAGE.read_text(encoding="utf-8").format(
            count=len(rows) // len(names),
            seed=given.seed,
            summary="\n".join(f"* {line}" for line in said),
            table="\n".join(table(names, rows)),
            sizes="\n".join(sizes(names, rows)),
            experiments="\n".join(each(names, rows)),
        )
        given.page.write_text(page, encoding="utf-8")


def geometric_mean(errors: list[float]) -> float:
    return math.exp(sum(math.log1p(abs(one)) for one in errors) / len(errors)) - 1


def ratios(rows: list[dict[str, Any]]) -> list[float]:
    """How many times less each cost is than the reference's, as geometric means."""
    found = [[math.log(row[f"reference_{cost}"] / row[cost]) for row in rows] for cost in COSTS]
    return [math.exp(sum(one) / len(one)) for one in found]


def summary(name: str, rows: list[dict[str, Any]]) -> str:
    mine = [row for row in rows if row["backend"] == name]
    if not mine:
        return ""
    errors = [row["error"] for row in mine]
    ratio, whole = ratios(mine)
    total = sum(row["reference_run_cpu_s"] for row in mine) / sum(row["run_cpu_s"] for row in mine)
    return (
        f"`{name}`: error of the finish {geometric_mean(errors):.1%} (geometric mean), at worst "
        f"{max(errors, key=abs):+.1%}, at most 5 % in {sum(abs(one) <= 0.05 for one in errors)} of "
        f"{len(errors)}; {ratio:.0f} times less CPU time than {REFERENCE} (geometric mean; "
        f"{total:.0f} in sum; of whole runs {whole:.0f})"
    )


def table(names: list[str], rows: list[dict[str, Any]]) -> Iterator[str]:
    """In Markdown: a row per workload."""
    yield "| workload | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for workload in WORKLOADS:
        cells = []
        for name in names:
            mine = [r["error"] for r in rows if r["backend"] == name and r["workload"] == workload]
            cells.append(f"{geometric_mean(mine):.1%} ({max(mine, key=abs):+.0%})" if mine else "-")
        yield f"| {workload} | " + " | ".join(cells) + " |"


def sizes(names: list[str], rows: list[dict[str, Any]]) -> Iterator[str]:
    """In Markdown: a row per size, how many times less each backend costs than the reference."""
    yield "| size | experiments | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 2) + "|"
    for size in SIZES:
        some = [[r for r in rows if (r["backend"], r["bytes"]) == (name, size)] for name in names]
        if not some[0]:
            continue
        cells = [f"{run:.0f} ({whole:.0f})" for run, whole in map(ratios, some)]
        shown = f"{size // KIB} KiB" if size < MIB else f"{size // MIB} MiB"
        yield f"| {shown} | {len(some[0])} | " + " | ".join(cells) + " |"


def each(names: list[str], rows: list[dict[str, Any]]) -> Iterator[str]:
    """In Markdown: a row per experiment."""
    yield f"| experiment | {REFERENCE} [ms] | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 2) + "|"
    for at in range(0, len(rows), len(names)):
        one = rows[at]
        said = f"{one['workload']} {one['bytes'] // KIB} KiB, {one['fabric']} {one['gpus']}, "
        said += f"{one['oversubscription']}:1"
        cells = [
            f"{row['run_cpu_s'] * 1e3:.2f} ({row['reference_run_cpu_s'] / row['run_cpu_s']:.0f})"
            for row in rows[at : at + len(names)]
        ]
        yield f"| {said} | {one['reference_run_cpu_s'] * 1e3:.1f} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
