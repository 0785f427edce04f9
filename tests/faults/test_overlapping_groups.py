# SPDX-License-Identifier: MIT
"""Ranks that have issued unequal numbers of collectives are at different queues: they still end."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.validation.cases import write_golden_case
from tests.effort import examples
from tests.golden_run import answer, run, why_not

ALGORITHMS = {
    "all-reduce": ("ring", "direct", "direct1", "direct2", "halvingDoubling", "doubleBinaryTree"),
    "all-gather": ("ring", "direct", "direct1", "direct2", "halvingDoubling"),
    "reduce-scatter": ("ring", "direct", "direct1", "direct2", "halvingDoubling"),
    "all-to-all": ("ring", "direct", "direct1", "direct2"),
}
NATIVE = pytest.mark.skipif(why_not("native") is not None, reason=str(why_not("native")))


def experiment(rng: random.Random) -> dict[str, Any]:
    """Collectives of overlapping groups, in one order that all ranks keep to."""
    dims = rng.choice([[n] for n in range(3, 9)] + [[2, 3], [4, 2], [3, 3], [2, 2, 2]])
    ranks = math.prod(dims)
    groups = {
        str(group): rng.sample(range(ranks), rng.randint(2, ranks))
        for group in range(1, rng.randint(2, 5))
    }
    collectives = [
        (rng.choice(["", *groups]), rng.choice(list(ALGORITHMS)), rng.choice([64, 4096, 100_003]))
        for _ in range(rng.randint(2, 8))
    ]
    chained = rng.random() < 0.5
    traces = {}
    for rank in range(ranks):
        nodes: list[dict[str, Any]] = []
        for index, (group, kind, size) in enumerate(collectives):
            if group and rank not in groups[group]:
                continue
            node = {
                "id": index,
                "type": "COLL",
                "comm_type": kind.replace("-", "_").upper(),
                "comm_size": size,
                "comm_priority": rng.randrange(5),
                "data_deps": [nodes[-1]["id"]] if chained and nodes else [],
            }
            nodes.append(node | ({"pg_name": group} if group else {}))
        idle = {"id": 0, "type": "COMP", "duration_micros": 1, "num_ops": 1, "tensor_size": 1}
        traces[str(rank)] = nodes or [idle]
    system = {
        "scheduling-policy": rng.choice(["LIFO", "FIFO", "EXPLICIT"]),
        "endpoint-delay": rng.choice([1, 100]),
        "active-chunks-per-dimension": rng.choice([1, 1, 2, 4]),
        "preferred-dataset-splits": rng.choice([1, 2, 3, 8]),
        "collective-optimization": rng.choice(["baseline", "localBWAware"]),
        "local-mem-bw": 50,
    } | {
        f"{kind}-implementation": [rng.choice(names) for _ in dims]
        for kind, names in ALGORITHMS.items()
    }
    network = {
        "topology": [rng.choice(["Ring", "Switch", "FullyConnected"]) for _ in dims],
        "npus_count": dims,
        "bandwidth": [rng.choice([50.0, 12.5]) for _ in dims],
        "latency": [rng.choice([500.0, 20.0]) for _ in dims],
    }
    return {
        "id": "random",
        "model": rng.choice(["congestion_aware", "congestion_unaware"]),
        "network": network,
        "system": system,
        "flags": {"num-queues-per-dim": rng.randint(1, 4)},
        "comm_groups": groups,
        "traces": traces,
    }


@NATIVE
@pytest.mark.parametrize("seed", range(examples(80)))
def test_random_groups_end_alike_in_both_engines(seed: int, tmp_path: Path) -> None:
    case = write_golden_case(experiment(random.Random(seed)), tmp_path)
    assert answer(run(case, "native")) == answer(run(case, "python"))


@NATIVE
@pytest.mark.parametrize("kind", ["native", "python"])
def test_the_first_rank_decides(kind: Any, tmp_path: Path) -> None:
    """Ranks 2 and 3 are at the first queue, ranks 0 and 1 at the second, anticlockwise one."""
    gather = {"type": "COLL", "comm_type": "ALL_GATHER", "comm_size": 4096}
    world = gather | {"id": 1, "data_deps": [0]}
    both = [gather | {"id": 0, "pg_name": "1"}, world]
    one = [gather | {"id": 0}]
    system = {
        "scheduling-policy": "LIFO",
        "endpoint-delay": 10,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 1,
        "collective-optimization": "localBWAware",
        "local-mem-bw": 50,
        "all-gather-implementation": ["ring"],
    }
    case = write_golden_case(
        {
            "id": "queues",
            "model": "congestion_unaware",
            "network": {
                "topology": ["Ring"],
                "npus_count": [4],
                "bandwidth": [50.0],
                "latency": [500.0],
            },
            "system": system,
            "flags": {"num-queues-per-dim": 2},
            "comm_groups": {"1": [0, 1]},
            "traces": {"0": both, "1": both, "2": one, "3": one},
        },
        tmp_path,
    )
    # A message takes 576 ns, a step 10 ns more; ranks 0 and 1 begin when their group has ended, at
    # 10 + 586 = 596 ns.  What rank 3 gets last comes from rank 0, clockwise by way of 1 and 2:
    # 596 + 10 + 3 * 586 = 2364 ns.
    assert answer(run(case, kind))[0] == [2364, 1768, 1788, 2364]
