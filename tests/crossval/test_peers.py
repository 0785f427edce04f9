# SPDX-License-Identifier: MIT
"""A schedule that many positions share does what one schedule for each position would do."""

from __future__ import annotations

import itertools
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.engine import native
from astra_bridge.engine import run as run_engine
from astra_bridge.errors import InputError
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.system import read_system
from astra_bridge.lowering import lower
from astra_bridge.network.analytical.backend import prepare
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.program import FAMILY, SCHEDULE, STEP, Peers, Program
from astra_bridge.trace import CommType
from tests.random_programs import experiment
from tests.small import network, same_on_all, system

ENGINES = {"python": "analytical-aware-python", "native": "analytical-aware"}


def spelled_out(program: Program) -> Program:
    """The same Program with a schedule of its own, of relative peers, for each position."""
    families = np.zeros(len(program.families), FAMILY)
    schedules: list[Any] = []
    steps: list[Any] = []
    of_position: list[int] = []
    sizes = np.ones(len(families), int)
    for name in ("family0", "family1"):
        sizes[program.phases[name]] = program.groups["size"][program.phases["layout"]]
    for index, (family, size) in enumerate(zip(program.families, sizes.tolist(), strict=True)):
        families[index] = (len(of_position), size, len(schedules), size)
        of_position += range(size)
        for position in range(size):
            which = int(family["first"])
            if family["positions"]:
                which += int(program.schedule_of_position[family["position_start"] + position])
            schedule = program.schedules[which].copy()
            start, count = int(schedule["step_start"]), int(schedule["step_count"])
            own = program.steps[start : start + count].copy()
            for peer in ("send_to", "recv_from"):
                xor = own["peers"] == Peers.XOR
                own[peer][xor] = (position ^ own[peer][xor]) - position
            own["peers"] = Peers.RELATIVE
            schedule["step_start"] = len(steps)
            schedules.append(schedule)
            steps += own.tolist()
    return replace(
        program,
        families=families,
        schedule_of_position=np.array(of_position, np.int32),
        schedules=np.array([one.tolist() for one in schedules], SCHEDULE),
        steps=np.array(steps, STEP),
    )


def played(program: Program, given: Any, engine: Any) -> list[Any]:
    config = prepare(NetworkRequest(network=given, semantics="astra-sim")).config
    with backend(ENGINES[engine]).open(config) as opened:
        outcome, used = run_engine(program, opened, engine=engine)
        assert used == engine
    times = [outcome.node_start_ps.tolist(), outcome.node_end_ps.tolist()]
    return [
        *times,
        outcome.events,
        outcome.transfers,
        outcome.relieved,
        sorted(outcome.waits.tolist()),
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(
            ["halvingDoubling"],
            [CommType.ALL_REDUCE, CommType.ALL_GATHER, CommType.REDUCE_SCATTER],
        ),
        ("doubleBinaryTree", CommType.ALL_REDUCE),
        *itertools.product(
            ["ring"], [CommType.BROADCAST, CommType.REDUCE, CommType.SCATTER, CommType.GATHER]
        ),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_shared_schedules_give_the_same_events(name: str, kind: CommType, engine: Any) -> None:
    if engine == "native" and native.unavailable() is not None:
        pytest.skip("the native engine is not built")
    for n in (2, 3, 6, 8, 13, 16):
        root = n // 2 if name == "ring" else None
        workload = same_on_all(n, lambda t, root=root: t.coll(kind, 4096, root=root))  # type: ignore[misc]
        for semantics in ("astra-sim", "corrected"):
            program = lower(
                workload,
                read_system(system(name)),
                RemoteMemoryConfig(),
                (n,),
                {},
                semantics=semantics,  # type: ignore[arg-type]
            ).program
            other = spelled_out(program)
            given = network("Switch", n)
            assert played(program, given, engine) == played(other, given, engine), (n, semantics)


@pytest.mark.parametrize("seed", range(12))
def test_random_experiments_give_the_same_events(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(random.Random(seed), Path(folder))
        program = tried.lower().program
    engine = "python" if native.unavailable() else "native"
    other = spelled_out(program)
    assert played(program, tried.network, engine) == played(other, tried.network, engine)


def test_an_exclusive_or_may_not_leave_the_group() -> None:
    """Neither with one schedule for all positions, nor with one for each."""
    workload = same_on_all(12, lambda t: t.coll(CommType.ALL_REDUCE, 4096))
    made = lower(workload, read_system(system("ring")), RemoteMemoryConfig(), (12,), {}).program
    for value, inside in ((1, True), (3, True), (4, False), (8, False)):
        steps = made.steps.copy()
        steps["peers"], steps["send_to"], steps["recv_from"] = Peers.XOR, value, value
        shared = replace(made, steps=steps)
        listed = replace(
            shared,
            families=np.array([(0, 12, one["first"], 1) for one in made.families], FAMILY),
            schedule_of_position=np.zeros(12 * len(made.families), np.int32),
        )
        listed.families["position_start"] = 12 * np.arange(len(made.families))
        for program in (shared, listed):
            if inside:
                program.validate()
                continue
            with pytest.raises(InputError, match=r"steps\[0\].send_to: is .* out of a group of 12"):
                program.validate()


def test_65536_ranks_need_one_schedule() -> None:
    workload = same_on_all(2**16, lambda t: t.coll(CommType.ALL_REDUCE, 2**30))
    used = read_system(system("halvingDoubling"))
    program = lower(workload, used, RemoteMemoryConfig(), (2**16,), {}).program
    assert (len(program.schedules), len(program.steps)) == (1, 32)
