# SPDX-License-Identifier: MIT
"""The native engine does the same as the Python engine, event by event, whatever the experiment."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from astra_bridge.engine import Outcome, Session, native
from astra_bridge.engine import run as run_engine
from astra_bridge.errors import BackendUnavailable, StalledError
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.system import read_system
from astra_bridge.isolation import Checkpoint, RunRequest, run_here, run_isolated
from astra_bridge.lowering import lower
from astra_bridge.network.analytical.aware import AwareNetwork
from astra_bridge.network.analytical.backend import prepare
from astra_bridge.network.api import Capability, Exchange, NetworkConfig
from astra_bridge.network.native import NativeNetwork
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.program import Inside, Program
from astra_bridge.simulation import Experiment
from astra_bridge.trace import CommType
from astra_bridge.workload import TraceBuilder
from tests.effort import examples
from tests.random_programs import experiment
from tests.small import network, per_rank, run, system

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("native_engine")

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
MODELS = ("analytical-aware", "analytical-unaware")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]) -> Path:
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        missing("native", f"no C++ compiler {compiler}")
    library = tmp_path_factory.mktemp("narrow") / "libnarrow.so"
    source = Path(__file__).with_name("narrow.cpp")
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += [f"-I{ROOT / 'csrc' / 'include'}", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def summary(outcome: Outcome) -> dict[str, Any]:
    """All that an engine says, in a form that can be compared."""
    said = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    listed = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in said.items()}
    return listed | {"waits": sorted(listed["waits"])}


def played(program: Program, name: str, engine: Any, config: NetworkConfig) -> dict[str, Any]:
    with backend(name).open(config) as opened:
        outcome, engine_name = run_engine(program, opened, engine=engine, inside=Inside.MESSAGES)
        assert engine_name == engine
        return summary(outcome) | {"links": opened.stats()}


@settings(max_examples=examples(150), deadline=None, suppress_health_check=CHECKS)
@given(seed=st.integers(0, 2**63), model=st.sampled_from(MODELS))
def test_same_events_on_analytical_networks(seed: int, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(random.Random(seed), Path(folder))
        program = tried.lower().program
    request = NetworkRequest(network=tried.network, semantics=tried.semantics)
    config = prepare(request).config
    python = played(program, f"{model}-python", "python", config)
    event("complete" if min(python["finish_ps"]) >= 0 else "stuck")
    assert played(program, model, "python", config) == python
    assert played(program, model, "native", config) == python
    assert played(program, model, "native", config) == python


@settings(max_examples=examples(80), deadline=None, suppress_health_check=CHECKS)
@given(seed=st.integers(0, 2**63), latency_ps=st.sampled_from([0, 16, 16000]))
def test_same_events_on_a_network_without_order(seed: int, latency_ps: int, narrow: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(random.Random(seed), Path(folder))
        program = tried.lower().program
    config = NetworkConfig(tried.ranks, tried.ranks, options={"latency_ps": str(latency_ps)})
    outcomes = []
    for engine in ("python", "native"):
        with NativeNetwork.open(narrow, config) as opened:
            kept = run_engine(program, opened, engine=engine, inside=Inside.MESSAGES)[0]
            outcomes.append(summary(kept))
    event("complete" if min(outcomes[0]["finish_ps"]) >= 0 else "stuck")
    assert outcomes[0] == outcomes[1]


class Spy(AwareNetwork):
    """The congestion-aware network, which remembers what was started and what arrived."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.started: list[tuple[int, ...]] = []
        self.arrived: list[tuple[int, int]] = []

    def exchange(self, starts: NDArray[Any], *arguments: int) -> Exchange:
        self.started += starts.tolist()
        starts["traffic_class"] = 0
        step = super().exchange(starts, *arguments)
        self.arrived += step.completions[["id", "time_ps"]].tolist()
        return step


@pytest.mark.parametrize(("classes", "expected"), [(1, {0}), (2, {0, 1}), (8, {0, 1, 2})])
def test_the_class_of_a_message_is_its_dimension(classes: int, expected: set[int]) -> None:
    """Of a collective, at most what the network can tell apart; without LEVELS it is 0."""

    def fill(trace: TraceBuilder, rank: int) -> None:
        first = trace.coll(CommType.ALL_REDUCE, 8192)
        if rank == 0:
            trace.send(7, 500, tag=1, deps=[first])
        if rank == 7:
            trace.recv(0, 500, tag=1, deps=[first])

    program = lower(
        per_rank(8, fill),
        read_system(system(["ring"] * 3)),
        RemoteMemoryConfig(),
        (2, 2, 2),
        {},
    ).program
    config = prepare(
        NetworkRequest(network=network("Ring Ring Ring", [2] * 3, [50] * 3, [500] * 3))
    ).config
    for declared in (Capability.LEVELS, Capability(0)):
        with Spy(config) as spy:
            info = spy.info
            both = (info.capabilities & ~Capability.LEVELS) | declared
            spy.info = replace(info, traffic_classes=classes, capabilities=both)  # type: ignore[misc]
            run_engine(program, spy)
        assert {row[5] for row in spy.started} == (expected if declared else {0})
        for _, _, size, src, dst, level, *_ in spy.started:
            dimension = 0 if size == 500 else (src ^ dst).bit_length() - 1
            assert level == (min(dimension, classes - 1) if declared else 0)


@settings(max_examples=examples(50), deadline=None, suppress_health_check=CHECKS)
@given(seed=st.integers(0, 2**63))
def test_every_message_arrives_once_and_not_before_physics(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(random.Random(seed), Path(folder))
        program = tried.lower().program
    with Spy(prepare(NetworkRequest(network=tried.network)).config) as network:
        outcome, _ = run_engine(program, network)
        links = network.stats()["tables"]["links"]
    arrived = dict(network.arrived)
    assert len(arrived) == len(network.arrived) == len(network.started) == outcome.transfers
    fastest = max(tried.network["bandwidth"]) * 2**30 / 1e9  # B/ns
    least_ns = min(tried.network["latency"])
    sent = 0
    for transfer, start_ps, size, *_ in network.started:
        assert arrived[transfer] >= start_ps + 1000 * int(least_ns + size / fastest)
        sent += size
    # Every byte crosses one link at least; in fully connected ranks, exactly one.
    carried = sum(links["bytes"])
    assert carried == sent if tried.network["topology"] == ["FullyConnected"] else carried >= sent
    # Sends and receives of one pair fit together wherever a run is complete.
    if (outcome.finish_ps >= 0).all():
        assert not (outcome.waits["what"] != 2).any()


def test_auto_takes_the_native_engine_on_native_networks() -> None:
    workload = per_rank(4, in_order)
    for name, expected in (("analytical-aware", "native"), ("analytical-aware-python", "python")):
        assert run(workload, system(), network("Ring", 4), backend=name).engine == expected


def test_the_native_engine_needs_a_native_network() -> None:
    with pytest.raises(BackendUnavailable, match="use --engine python") as caught:
        run(
            per_rank(4, in_order),
            system(),
            network("Ring", 4),
            backend="analytical-aware-python",
            engine="native",
        )
    assert caught.value.exit_code == 4


def test_without_the_native_engine_auto_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", lambda: "the native engine is not built (why)")
    workload = per_rank(4, in_order)
    assert run(workload, system(), network("Ring", 4)).engine == "python"
    with pytest.raises(BackendUnavailable, match=r"not built \(why\)"):
        run(workload, system(), network("Ring", 4), engine="native")


def in_order(trace: TraceBuilder, rank: int) -> None:
    before = [trace.comp(duration_us=rank)]
    trace.coll(CommType.ALL_REDUCE, 8000, name="gradients", deps=before)


def test_a_lost_transfer_is_named(narrow: Path) -> None:
    said = []
    for engine in ("python", "native"):
        with pytest.raises(StalledError) as caught:
            run(
                per_rank(4, in_order),
                system(),
                network("Ring", 4),
                backend=str(narrow),
                engine=engine,  # type: ignore[arg-type]
                network_options={"lose": "3"},
            )
        assert caught.value.exit_code == 3
        said.append(str(caught.value))
    first, second, *ranks = said[0].splitlines()
    # The arrivals before it: from rank 0 to 1 at once, from 1 to 2 when rank 1 begins, after 1 us;
    # then what rank 1 has reduced: 1 us + 10 + 10 + 3 * (500 / 50) ns, and 4 + 16 ns on the way.
    assert first == "narrow: the network lost 500 bytes from rank 1 to rank 2 at 1070000 ps"
    assert second.endswith("4 of 4 ranks never finish")
    assert ranks[0].startswith("rank 0: node 1 (gradients) ALL_REDUCE of 8000 bytes")
    assert said[0] == said[1]


@pytest.mark.parametrize("alone", [False, True], ids=["here", "in a process of its own"])
@pytest.mark.parametrize("model", MODELS)
def test_messages_of_different_collectives_meet(model: str, tmp_path: Path, *, alone: bool) -> None:
    """As in ASTRA-sim, where ranks issue them in different orders and they have one size."""
    kinds = (CommType.REDUCE_SCATTER, CommType.ALL_TO_ALL)

    def fill(trace: TraceBuilder, rank: int) -> None:
        first = trace.coll(kinds[rank], 1000)
        trace.coll(kinds[1 - rank], 1000, deps=[first])

    rules = system("direct", reduce_scatter_implementation=["halvingDoubling"])
    given = Experiment(per_rank(2, fill), rules, network("Switch", 2), backend=model)
    program = given.lower().program
    config = prepare(NetworkRequest(network=given.network, semantics=given.semantics)).config
    request = RunRequest(config, program)
    run = partial(run_isolated, model) if alone else partial(run_here, backend(model))
    found, expected = (
        run(replaced, None)
        for replaced in (request, msgspec.structs.replace(request, engine="python"))
    )
    assert (found.engine, expected.engine) == ("native", "python")
    assert found.outcome.finish_ps.tolist() == expected.outcome.finish_ps.tolist()
    assert min(found.outcome.finish_ps) > 0
    # A session goes on as it began, and says what it cannot.
    for by_number in (True, False):
        with Session(program, backend(model).open(config), by_number=by_number) as session:
            session.advance()
            assert session.missed == by_number
            assert (min(session.outcome().finish_ps) < 0) == by_number
    with given.open() as session:
        session.advance()
        assert session.outcome().finish_ps.tolist() == expected.outcome.finish_ps.tolist()
    file = tmp_path / "state"
    with Session(program, backend(model).open(config)) as session:
        session.advance(1)
        session.save(file, label="it")
    for checkpoint in (Checkpoint("it", tmp_path / "new"), Checkpoint("it", resume=file)):
        found = run(msgspec.structs.replace(request, checkpoint=checkpoint), None)
        assert found.outcome.finish_ps.tolist() == expected.outcome.finish_ps.tolist()
