# SPDX-License-Identifier: MIT
"""Templates and groups that ranks share do what one of each for every rank would do."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.engine import native
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.system import read_system
from astra_bridge.lowering import lower
from astra_bridge.program import COLLECTIVE, GROUP, PHASE, PLAN, TEMPLATE, Op, Program
from benchmarks.transformer import Transformer, transformer
from tests.crossval.test_peers import ENGINES, played
from tests.random_programs import experiment
from tests.small import network, system


class _Apart:
    """Rewrites a Program so that no two tasks share a template, and no two groups a row."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.groups = program.groups.tolist()
        self.members = program.members.tolist()
        self.collectives: list[Any] = []
        self.plans: list[Any] = []
        self.phases: list[Any] = []
        self.rows: dict[Any, int] = {}

    def group(self, group: int, rank: int) -> int:
        """A list of its own for each group of a row."""
        size, stride, _, tag = self.groups[group]
        if not stride:
            return group
        first = rank - rank // stride % size * stride
        if (group, first) not in self.rows:
            self.rows[group, first] = len(self.groups)
            own_tag = tag + (len(self.rows) << 40)
            self.groups.append((size, 0, len(self.members), own_tag))
            self.members += range(first, first + size * stride, stride)
        return self.rows[group, first]

    def collective(self, index: int, rank: int) -> int:
        row = self.program.collectives[index].copy()
        own = self.group(int(row["group"]), rank)
        if (index, own, "run") in self.rows:
            return self.rows[index, own, "run"]
        plans = self.program.plans[row["plan_start"] :][: row["plan_count"]]
        shared, row["group"], row["plan_start"] = int(row["group"]), own, len(self.plans)
        for start, count in plans.tolist():
            self.plans.append((len(self.phases), count))
            for phase in self.program.phases[start : start + count].copy():
                if phase["layout"] == shared:
                    phase["layout"] = own
                self.phases.append(phase.tolist())
        self.rows[index, own, "run"] = len(self.collectives)
        self.collectives.append(row.tolist())
        return len(self.collectives) - 1

    def made(self) -> Program:
        program = self.program
        templates, nodes, messages = [], [], []
        children: list[int] = []
        tasks = program.tasks.copy()
        total = 0
        for task in range(len(tasks)):
            row = program.templates[tasks["template_index"][task]]
            rank = int(tasks["job_rank"][task])
            own = program.nodes[row["node_start"] :][: row["node_count"]].copy()
            for index in np.flatnonzero(own["op"] == Op.COLLECTIVE):
                own["arg"][index] = self.collective(int(own["arg"][index]), rank)
            for index in np.flatnonzero((own["op"] == Op.SEND) | (own["op"] == Op.RECV)):
                message = program.messages[own["arg"][index]].copy()
                message["peer"] += rank if row["relative_peers"] else 0
                own["arg"][index] = len(messages)
                messages.append(message)
            for node in own:
                start, count = int(node["child_start"]), int(node["child_count"])
                node["child_start"] = len(children)
                children += program.children[start : start + count].tolist()
            tasks["template_index"][task] = task
            templates.append((total, len(own), row["compute_ps"], 0))
            nodes.append(own)
            total += len(own)
        return replace(
            program,
            tasks=tasks,
            templates=np.array(templates, TEMPLATE),
            nodes=np.concatenate(nodes),
            children=np.array(children, np.int32),
            messages=np.array(messages, program.messages.dtype),
            collectives=np.array(self.collectives, COLLECTIVE),
            plans=np.array(self.plans, PLAN),
            phases=np.array(self.phases, PHASE),
            groups=np.array(self.groups, GROUP),
            members=np.array(self.members, np.int32),
        )


def model(**changes: Any) -> Transformer:
    given = {"hidden": 256, "sequence": 128, "vocabulary": 1000, "micro_batches": 3}
    return Transformer(**(given | changes))


def lowered(made: Transformer, *algorithms: str) -> Program:
    generated = transformer(made)
    return lower(
        generated.workload(),
        read_system(system(algorithms)),
        RemoteMemoryConfig(),
        (made.ranks,),
        generated.comm_groups,
    ).program


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("ring", {"layers": 4, "data": 2, "tensor": 2, "pipeline": 2}),
        ("doubleBinaryTree", {"layers": 2, "data": 4, "tensor": 2, "sharded_optimizer": False}),
        ("halvingDoubling", {"layers": 4, "tensor": 4, "pipeline": 4}),
        ("direct2", {"layers": 3, "data": 3, "pipeline": 3, "steps": 2}),
    ],
)
def test_a_transformer_has_the_same_events(algorithm: str, changes: Any, engine: Any) -> None:
    if engine == "native" and native.unavailable() is not None:
        pytest.skip("the native engine is not built")
    made = model(**changes)
    program = lowered(made, algorithm)
    assert len(program.templates) <= made.pipeline
    apart = _Apart(program).made()
    assert len(apart.templates) == made.ranks
    given = network("Switch", made.ranks)
    assert played(program, given, engine) == played(apart, given, engine)


@pytest.mark.parametrize("seed", range(40))
def test_random_experiments_have_the_same_events(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(random.Random(seed), Path(folder))
        program = tried.lower().program
    if len(program.graphs):
        return  # custom collectives share nothing
    engine = "python" if native.unavailable() else "native"
    apart = _Apart(program).made()
    assert played(program, tried.network, engine) == played(apart, tried.network, engine)


def test_1024_ranks_have_as_many_templates_as_kinds() -> None:
    """A pipeline of eight stages: its ends differ from what is between them."""
    made = model(layers=8, data=16, tensor=8, pipeline=8, micro_batches=8)
    assert made.ranks == 1024
    program = lowered(made, "ring")
    # With eight micro-batches each stage begins after another number of them.
    assert len(program.templates) == 8
    assert (program.groups["stride"] > 0).all()
    assert len(program.members) == 0
