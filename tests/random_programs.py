# SPDX-License-Identifier: MIT
"""Random experiments: any mixture of what a workload, a system and a network may hold."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.inputs.memory import read_remote_memory
from astra_bridge.inputs.system import read_system
from astra_bridge.lowering import Lowered, lower
from astra_bridge.semantics import Semantics
from astra_bridge.trace import CommType, NodeType, Workload
from astra_bridge.trace.writer import TraceNode, write_trace
from astra_bridge.workload import GeneratedWorkload, TraceBuilder
from tests.small import network, system

COLLECTIVES = {
    "all-reduce": ("ring", "direct", "direct1", "direct3", "halvingDoubling", "doubleBinaryTree"),
    "all-gather": ("ring", "direct", "direct2", "halvingDoubling"),
    "reduce-scatter": ("ring", "direct", "direct2", "halvingDoubling"),
    "all-to-all": ("ring", "direct", "direct1"),
}
ONE = ("oneRing", "oneDirect", "oneDirect2")
SIZES = (1, 7, 1000, 8192, 65536, 100_003, 2**20)
KINDS = (0, 0, 0, 2, 6, 7, 8, 1, 3, 4, 5, 9)


@dataclass(frozen=True)
class Experiment:
    """What one run takes."""

    workload: Workload
    system: dict[str, Any]
    memory: dict[str, Any]
    network: dict[str, Any]
    groups: dict[int, tuple[int, ...]]
    queues: int
    rendezvous: bool
    semantics: Semantics
    receives_at_once: bool

    @property
    def ranks(self) -> int:
        return math.prod(self.network["npus_count"])

    def lower(self) -> Lowered:
        return lower(
            self.workload,
            read_system(self.system),
            read_remote_memory(self.memory),
            tuple(self.network["npus_count"]),
            read_comm_groups(self.groups, self.ranks),
            semantics=self.semantics,
            dim_bandwidth=tuple(self.network["bandwidth"]),
            queues_per_dim=self.queues,
            rendezvous=self.rendezvous,
            receives_at_once=self.receives_at_once,
        )


def experiment(rng: random.Random, folder: Path) -> Experiment:
    """Draw an experiment; custom collectives are written to the folder."""
    dims = rng.choice([[n] for n in range(2, 10)] + [[2, 3], [4, 2], [3, 3], [2, 2, 2]])
    ranks = math.prod(dims)
    net = network(
        " ".join(rng.choice(("Ring", "Switch", "FullyConnected")) for _ in dims),
        dims,
        [rng.choice((1, 25, 50, 400.5)) for _ in dims],
        [rng.choice((0, 0.5, 500, 936.25)) for _ in dims],
    )
    groups = dict(enumerate(_groups(rng, ranks), 1))
    custom = all(len(members) > 1 for members in groups.values()) and rng.random() < 0.3
    return Experiment(
        workload=_workload(rng, ranks, groups),
        system=_system(rng, dims, folder if custom else None),
        memory=_memory(rng, ranks),
        network=net,
        groups=groups,
        queues=rng.choice((1, 1, 1, 2, 3, 4)),
        rendezvous=rng.random() < 0.2,
        semantics=rng.choice(("astra-sim", "astra-sim", "corrected")),
        receives_at_once=rng.random() < 0.3,
    )


def _groups(rng: random.Random, ranks: int) -> Iterator[tuple[int, ...]]:
    """A partition of the ranks in any order, then all of them in any order."""
    order = rng.sample(range(ranks), ranks)
    while order:
        size = rng.randint(1, len(order))
        yield tuple(order[:size])
        order = order[size:]
    yield tuple(rng.sample(range(ranks), ranks))


def _memory(rng: random.Random, ranks: int) -> dict[str, Any]:
    speed = {"remote-mem-latency": rng.choice((0, 100)), "remote-mem-bw": rng.choice((1, 50))}
    kind = rng.choice(("PER_NPU_MEMORY_EXPANSION", "PER_NODE_MEMORY_EXPANSION", "MEMORY_POOL"))
    if kind == "PER_NODE_MEMORY_EXPANSION":
        speed |= {"num-nodes": -(-ranks // 2), "num-npus-per-node": 2}
    return {"memory-type": kind} | speed


def _system(rng: random.Random, dims: list[int], folder: Path | None) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for kind, algorithms in COLLECTIVES.items():
        chosen = [rng.choice(algorithms) for _ in dims]
        if rng.random() < 0.2:
            chosen = [rng.choice(ONE)]
        names[f"{kind}-implementation"] = chosen
    result = system(
        scheduling_policy=rng.choice(("LIFO", "FIFO", "EXPLICIT")),
        endpoint_delay=rng.choice((0, 1, 10, 10, 700)),
        active_chunks_per_dimension=rng.choice((1, 2, 3)),
        preferred_dataset_splits=rng.choice((1, 2, 3, 5)),
        local_mem_bw=rng.choice((0, 50, 1600)),
        collective_optimization=rng.choice(("baseline", "localBWAware")),
        roofline_enabled=rng.choice((0, 1)),
        peak_perf=rng.choice((1, 100)),
    )
    if result["roofline-enabled"] and not result["local-mem-bw"]:
        result["local-mem-bw"] = 7
    if rng.random() < 0.2:
        result |= {"model-shared-bus": 1, "L": 5, "o": 2, "g": 3, "G": 0.01}
        result["local-reduction-delay"] = rng.choice((1, 3))
    if rng.random() < 0.2:
        result["inter-dimension-scheduling"] = "themis"
    if folder is not None:
        kind = rng.choice(list(COLLECTIVES))
        _custom(rng, folder / kind, math.prod(dims))
        result[f"{kind}-implementation-custom"] = [str(folder / kind)]
    return result | names


def _custom(rng: random.Random, prefix: Path, ranks: int) -> None:
    """A collective that any group of up to ``ranks`` members can run: peers by distance 1."""
    rounds = [(rng.choice(SIZES), rng.randint(0, 2)) for _ in range(rng.randint(1, 4))]
    chained = rng.random() < 0.5
    for position in range(ranks):
        nodes: list[TraceNode] = []
        for size, tag in rounds:
            before = [nodes[-1].id] if nodes and chained else []
            fields = {"comm_size": size, "comm_tag": tag, "is_cpu_op": False}
            # Position 0 and 1 are in every group of at least two.
            if position < 2:
                peer = 1 - position
                nodes.append(_node(nodes, NodeType.COMM_SEND, before, comm_dst=peer, **fields))
                nodes.append(_node(nodes, NodeType.COMM_RECV, before, comm_src=peer, **fields))
            nodes.append(_node(nodes, NodeType.COMP, before))
        write_trace(Path(f"{prefix}.{position}.et"), nodes)


def _node(nodes: list[TraceNode], kind: NodeType, deps: list[int], **fields: Any) -> TraceNode:
    return TraceNode(len(nodes), kind, "", 1, deps, attributes=fields)


def _workload(rng: random.Random, ranks: int, groups: dict[int, tuple[int, ...]]) -> Workload:
    """The same kinds of work on all ranks; who depends on what may differ, so some get stuck."""
    traces = [TraceBuilder() for _ in range(ranks)]
    mine = [[i for i, members in groups.items() if rank in members] for rank in range(ranks)]
    uniform = rng.random() < 0.9
    nodes: list[list[int]] = [[] for _ in range(ranks)]
    for _ in range(rng.randint(1, 7)):
        what = rng.choice(
            ("collective", "collective", "collective", "message", "compute", "memory")
        )
        size, kind = rng.choice(SIZES), CommType(rng.choice(KINDS))
        which = rng.choice((None, None, 0, -1))
        root = rng.randrange(ranks) if which is None else None
        micros, shift = rng.choice((0, 1, 30)), rng.randrange(1, ranks)
        priority = rng.randrange(3)
        cpu, chain = rng.random() < 0.2, rng.choice((0, 1, 2))
        for rank, trace in enumerate(traces):
            deps = nodes[rank][-chain:] if chain else []
            if not uniform and rng.random() < 0.1:
                deps, size = [], rng.choice(SIZES)
            if what == "collective":
                group = None if which is None else mine[rank][which]
                if not uniform and rng.random() < 0.05:
                    continue
                made = [
                    trace.coll(kind, size, group=group, root=root, priority=priority, deps=deps)
                ]
            elif what == "message":
                to, source = (rank + shift) % ranks, (rank - shift) % ranks
                made = [
                    trace.send(to, size, priority, deps=deps),
                    trace.recv(source, size, priority, deps=deps),
                ]
            elif what == "compute":
                ops = {"num_ops": size, "tensor_size_bytes": rng.choice(SIZES)}
                made = [trace.comp(duration_us=micros, cpu=cpu, deps=deps, **ops)]
            else:
                made = [trace.load(size, deps=deps)]
            nodes[rank] += made
    return GeneratedWorkload(traces).workload()
