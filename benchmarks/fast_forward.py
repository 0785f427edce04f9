# SPDX-License-Identifier: MIT
"""Fast-forward of ns-3 on a training step of GPT-13B on 128 GPUs: CPU time, and what it changes.

    python benchmarks/fast_forward.py [--layers 4] [--micro-batches 2] [--modes off]

16 hosts of eight GPUs with NVSwitches, 400 Gbit/s rails; tensor parallel 8, pipeline 2, data
parallel 8.  All modes run in this process, one after the other.  Each line has the CPU seconds of
engine and network together, and against the first mode: how many times less, and how far off the
completion times of messages are (of their duration), on average and at the 99th percentile.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np

import astra_bridge as ab
from astra_bridge.isolation import run_here
from astra_bridge.network.ns3 import BACKENDS
from astra_bridge.simulation import experiment
from astra_bridge.workload.models import Parallelism, TrainingStep, named_model, training_step

SYSTEM = {
    "scheduling-policy": "LIFO",
    "endpoint-delay": 10,
    "active-chunks-per-dimension": 1,
    "preferred-dataset-splits": 1,
    "collective-optimization": "localBWAware",
    "local-mem-bw": 3350,
    "all-reduce-implementation": ["ring", "ring"],
    "all-gather-implementation": ["ring", "ring"],
    "reduce-scatter-implementation": ["ring", "ring"],
    "all-to-all-implementation": ["direct", "direct"],
}


def errors(plain: Any, other: Any) -> tuple[float, float]:
    """Mean and 99th percentile of the relative error of messages' durations."""
    # The k-th message of a pair of ranks is the same in both.
    first, second = plain.tables["flows"], other.tables["flows"]
    orders = [np.lexsort((flows["id"], flows["dst"], flows["src"])) for flows in (first, second)]
    a, b = (flows["fct_ps"][order] for flows, order in zip((first, second), orders, strict=True))
    error = np.abs(b - a) / a
    return float(error.mean()), float(np.quantile(error, 0.99))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=4, help="of 40")
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=1, help="sequences")
    parser.add_argument("--sequence", type=int, default=2048)
    parser.add_argument("--hosts-per-leaf", type=int, default=16)
    parser.add_argument("--modes", default="off,exact,steady")
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of the network")
    arguments = parser.parse_args()

    model = named_model("gpt-13b")
    step = TrainingStep(
        dataclasses.replace(model, layers=model.layers[: arguments.layers]),
        Parallelism(tensor=8, pipeline=2, data=8),
        sequence=arguments.sequence,
        micro_batch=arguments.micro_batch,
        micro_batches=arguments.micro_batches,
    )
    work = training_step(step, "h100-sxm").workload()
    fabric = ab.fabrics.rail(128, hosts_per_leaf=arguments.hosts_per_leaf)
    seconds: list[float] = []

    def timed(*given: Any) -> Any:
        begin = time.process_time()
        answer = run_here(BACKENDS[0], *given[1:])
        seconds.append(time.process_time() - begin)
        return answer

    experiment.run_isolated = timed
    plain: Any = None
    for mode in arguments.modes.split(","):
        options = dict(option.split("=", 1) for option in arguments.option)
        result = ab.simulate(
            work,
            SYSTEM,
            fabric,
            backend="ns3",
            network_options=options | {"fast_forward": mode},
            record_nodes=False,
        )
        network = {k: v for k, v in result.network.items() if k.startswith("fast_forward")}
        line = f"{mode}: {seconds[-1]:.2f} CPU s, {result.network['packet_hops']:,} packet-hops, "
        line += f"{result.network['ecn_marks']:,} marks, ends at {result.finish_ns.max():,} ns"
        if plain is None:
            plain = result
        else:
            mean, worst = errors(plain, result)
            line += f"; {seconds[0] / seconds[-1]:.0f} times less, messages {mean:.3%} off, "
            line += f"99th percentile {worst:.3%}; {network}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
