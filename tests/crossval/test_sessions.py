# SPDX-License-Identifier: MIT
"""The engine's own conformance: however a run is cut, it gives what one run gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge import Experiment
from astra_bridge.engine import Outcome, Session, native
from astra_bridge.errors import ContractError, InputError, SimulationError, Unsupported
from astra_bridge.network.analytical.backend import prepare
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.program import SLOWDOWN, Program
from astra_bridge.program.join import joined, placed
from astra_bridge.workload import collective
from tests.effort import examples
from tests.program_fuzz import drawn
from tests.small import network, system

SEEDS = range(examples(25))


@pytest.fixture(params=["native", "python", "unordered-native", "unordered-python"])
def way(request: pytest.FixtureRequest, missing: Callable[[str, str], None]) -> str:
    """An engine, and whether its network shares the order of events."""
    if "native" in request.param and native.unavailable():
        missing("native", native.unavailable() or "")
    return str(request.param)


class Case:
    """A random Program with several jobs and a slow rank, and how to open its network."""

    def __init__(self, seed: int, way: str, mock: str) -> None:
        self.rng = random.Random(seed)
        self.program, config, model = drawn(seed)
        self.engine: Any = way.rpartition("-")[2]
        if way.startswith("unordered"):
            # The mock does not, and has exact arithmetic of its own.
            self.config = replace(config, options={"contention": "true"})
            self.backend = mock
        else:
            self.config = config
            self.backend = model if self.engine == "native" else f"{model}-python"
        self.slowdowns = np.array(
            [(self.rng.randint(0, 50_000), self.rng.choice((0.5, 3.0)), 0)], SLOWDOWN
        )
        self.more = self.later(self.rng.randint(0, 60_000))

    def later(self, start_ps: int) -> Program:
        """The same work again, elsewhere on the network."""
        ranks = self.program.ranks
        order = self.rng.sample(range(ranks), ranks)
        again = placed(self.program, ranks, order, start_ps)
        return replace(again, memory_server=self.program.memory_server)

    def open(self, stack: ExitStack, program: Program) -> Session:
        network = backend(self.backend).open(self.config)
        return stack.enter_context(Session(program, network, engine=self.engine))


def answer(session: Session) -> tuple[Any, ...]:
    """Run to the end: everything that an outcome says, or how the network failed."""
    try:
        session.advance()
    except SimulationError as error:
        return ("failed", str(error))
    return said(session.outcome())


def said(outcome: Outcome) -> tuple[Any, ...]:
    values = [getattr(outcome, field.name) for field in fields(outcome)]
    return tuple(
        sorted(v.tolist()) if f.name == "waits" else v.tolist() if isinstance(v, np.ndarray) else v
        for f, v in zip(fields(outcome), values, strict=True)
    )


def steps(rng: random.Random, session: Session) -> None:
    """Advance a few times to anywhere."""
    for _ in range(rng.randint(1, 6)):
        session.advance(session.now_ps + rng.choice((0, 1, rng.randint(0, 40_000), 10**7)))


@pytest.fixture
def case(way: str, mock_library: Any) -> Callable[[int], Case]:
    return lambda seed: Case(seed, way, str(mock_library))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_in_steps_is_one_run(seed: int, case: Callable[[int], Case]) -> None:
    one = case(seed)
    program = replace(joined(one.program, one.more), slowdowns=one.slowdowns)
    with ExitStack() as stack:
        whole = answer(one.open(stack, program))
        session = one.open(stack, program)
        try:
            steps(one.rng, session)
            found = answer(session)
        except SimulationError as error:
            found = ("failed", str(error))
        assert found == whole


@pytest.mark.parametrize("seed", SEEDS)
def test_work_that_is_added_is_as_if_it_had_been_there(
    seed: int, case: Callable[[int], Case]
) -> None:
    one = case(seed)
    with ExitStack() as stack:
        session = one.open(stack, one.program)
        try:
            steps(one.rng, session)
        except SimulationError:
            return
        late = one.later(0)
        start_ps = session.now_ps + one.rng.choice((0, one.rng.randint(0, 20_000)))
        again = placed(late, one.program.ranks, None, start_ps)
        again = replace(again, memory_server=one.program.memory_server)
        whole = answer(one.open(stack, joined(one.program, again)))
        first = session.append(late, start_ps)
        assert first == len(one.program.tasks)
        assert answer(session) == whole


@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapshot_goes_on_as_the_original(seed: int, case: Callable[[int], Case]) -> None:
    one = case(seed)
    program = replace(joined(one.program, one.more), slowdowns=one.slowdowns)
    with ExitStack() as stack:
        whole = answer(one.open(stack, program))
        session = one.open(stack, program)
        try:
            steps(one.rng, session)
        except SimulationError:
            return
        second = stack.enter_context(session.snapshot())
        third = stack.enter_context(second.snapshot())
        assert answer(second) == whole
        assert answer(session) == whole
        assert answer(third) == whole


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_takes_work_after_a_rank_has_become_slow(
    seed: int, case: Callable[[int], Case]
) -> None:
    """What has happened to the original does not happen to the copy again."""
    one = case(seed)
    slow = np.array([(1_000, 3.0, 0), (2_000, 1.0, 0)], SLOWDOWN)
    program = replace(one.program, slowdowns=slow)
    with ExitStack() as stack:
        session = one.open(stack, program)
        try:
            session.advance(one.rng.randint(5_000, 2_000_000))
        except SimulationError:
            return
        copy = stack.enter_context(session.snapshot())
        late, now_ps = one.later(0), session.now_ps
        for each in (session, copy):
            each.append(late, now_ps + 1_000)
        assert answer(copy) == answer(session)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_saved_session_goes_on_as_the_original(
    seed: int, case: Callable[[int], Case], tmp_path: Path
) -> None:
    one = case(seed)
    program = replace(joined(one.program, one.more), slowdowns=one.slowdowns)
    file = tmp_path / "checkpoint"
    with ExitStack() as stack:
        whole = answer(one.open(stack, program))
        session = one.open(stack, program)
        try:
            steps(one.rng, session)
            session.save(file)
        except SimulationError:
            return
        except Unsupported:
            assert one.backend.endswith("mock.so")
            return
        network = backend(one.backend).open(one.config)
        loaded = stack.enter_context(Session.load(file, network))
        assert loaded.now_ps == session.now_ps
        assert answer(loaded) == whole
        assert answer(session) == whole


def test_a_checkpoint_is_refused_where_it_does_not_fit(
    case: Callable[[int], Case], tmp_path: Path
) -> None:
    one = case(3)
    file = tmp_path / "checkpoint"
    with ExitStack() as stack:
        session = one.open(stack, one.program)
        try:
            session.save(file)
        except Unsupported:
            return
        data = file.read_bytes()
        for bad, said in (
            (data[:-1], "damaged"),
            (data[:100], "damaged"),
            (b"", "cut off"),
            (b"x" * 1000, "no saved bytes"),
            (data[:200] + b"?" + data[201:], "damaged"),
        ):
            file.write_bytes(bad)
            with pytest.raises(InputError, match=said):
                Session.load(file, backend(one.backend).open(one.config))
        with pytest.raises(InputError, match="cannot read"):
            Session.load(tmp_path / "none", backend(one.backend).open(one.config))
        file.write_bytes(data)
        other = replace(one.config, options=dict(one.config.options) | {"semantics": "corrected"})
        if other != one.config:
            with pytest.raises(ContractError, match="another configuration"):
                Session.load(file, backend(one.backend).open(other))


@pytest.mark.usefixtures("native_engine")
@pytest.mark.parametrize("ranks", [9, 17, 64, 100])
def test_queues_of_many_messages(ranks: int, tmp_path: Path) -> None:
    """All members of an all-to-all start all that they send at once: copies and files hold it."""
    work = collective("all-to-all", ranks * 5_000, ranks)
    shape = network("Switch", ranks, 1, 500)
    program = Experiment(work, system("direct", preferred_dataset_splits=2), shape).lower().program
    config = prepare(NetworkRequest(network=shape)).config

    def opened(stack: ExitStack, engine: Any) -> Session:
        name = "analytical-aware" + ("-python" if engine == "python" else "")
        return stack.enter_context(Session(program, backend(name).open(config), engine=engine))

    with ExitStack() as stack:
        whole = answer(opened(stack, "python"))
        session = opened(stack, "native")
        assert answer(opened(stack, "native")) == whole
        end_ps = max(whole[0])
        copies = []
        for cut in range(1, 4):
            session.advance(cut * end_ps // 4)
            copies.append(stack.enter_context(session.snapshot()))
            file = tmp_path / f"{cut}"
            session.save(file)
            network_again = backend("analytical-aware").open(config)
            copies.append(stack.enter_context(Session.load(file, network_again)))
        for each in (*copies, session):
            assert answer(each) == whole
