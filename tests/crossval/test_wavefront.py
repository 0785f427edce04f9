# SPDX-License-Identifier: MIT
"""Runs with wavefronts give every number that events give, or say why they had none."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from astra_bridge import Experiment, Result
from astra_bridge.isolation import RunRequest, run_here
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.program import Program
from astra_bridge.program.wavefront import NoWavefront
from astra_bridge.simulation import LinkFault
from astra_bridge.simulation import experiment as of_experiment
from astra_bridge.simulation.wavefront import waved_run
from astra_bridge.trace import CommType, Workload
from astra_bridge.validation.cases import write_golden_case
from astra_bridge.workload import TraceBuilder, collective
from benchmarks.transformer import Transformer, transformer
from tests.effort import examples, spread
from tests.golden.test_analytical import CASES, LONG, OWN
from tests.golden_run import GOLDEN
from tests.golden_run import run as run_golden
from tests.random_programs import experiment
from tests.small import network, per_rank, same_on_all, system

pytestmark = pytest.mark.usefixtures("native_engine")

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
MODELS = ("analytical-unaware", "analytical-aware")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of few ranks have wavefronts too, and none is folded."""
    monkeypatch.setattr(of_experiment, "_FEWEST_WAVED", 2)
    monkeypatch.setattr(of_experiment, "_FEWEST_FOLDED", 2**31)


def compared(program: Program, asked: NetworkRequest, model: str, threads: int = 1) -> str:
    """Run a Program with and without, compare all that is said; return why there was none."""
    spec = backend(model)
    request = RunRequest(spec.prepare(asked).config, program)
    try:
        waved, said = waved_run(spec, request, threads, lambda *what: run_here(*what, None))
    except NoWavefront as reason:
        return str(reason)
    assert said.phases > 0
    plain = run_here(spec, request, None)
    one, other = waved.outcome, plain.outcome
    for name in ("finish_ps", "task_finish_ps", "node_start_ps", "node_end_ps", "waits"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    for count in ("transfers", "relieved"):
        assert getattr(one, count) == getattr(other, count)
    assert waved.stats == plain.stats
    assert list(waved.tables) == list(plain.tables)
    for name, table in plain.tables.items():
        assert list(waved.tables[name]) == list(table)
        for column, values in table.items():
            np.testing.assert_array_equal(waved.tables[name][column], values, column)
            assert np.asarray(waved.tables[name][column]).dtype == np.asarray(values).dtype
    return ""


@settings(max_examples=examples(200), deadline=None, suppress_health_check=CHECKS)
@given(seed=st.integers(0, 2**63), model=st.sampled_from(MODELS))
def test_random_experiments(seed: int, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(random.Random(seed), Path(folder))
        program = tried.lower().program
    asked = NetworkRequest(network=tried.network, semantics=tried.semantics)
    event(compared(program, asked, model).partition(", first")[0] or "waved")


KINDS = {
    "all-reduce": CommType.ALL_REDUCE,
    "all-gather": CommType.ALL_GATHER,
    "reduce-scatter": CommType.REDUCE_SCATTER,
    "all-to-all": CommType.ALL_TO_ALL,
}
SHAPES = (["Ring"], ["Switch"], ["FullyConnected"], ["Ring", "Switch"], ["Ring", "Ring"])


def skewed(ranks: int, delays_ns: Sequence[int], kinds: Sequence[str], sizes: Sequence[int]) -> Any:
    """Ranks that begin their collectives at different times; one after the other, or together."""

    def fill(trace: TraceBuilder, rank: int) -> None:
        after: list[int] = []
        for at, kind in enumerate(kinds):
            delay_ns = delays_ns[(rank * 7 + at * 3) % len(delays_ns)]
            if delay_ns:
                after = [trace.comp(duration_ns=delay_ns, deps=after)]
            done = trace.coll(KINDS[kind], sizes[at % len(sizes)], deps=after)
            after = [done] if at % 3 != 1 else after

    return per_rank(ranks, fill)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=CHECKS)
@given(
    kinds_of_dims=st.sampled_from(SHAPES),
    length=st.integers(2, 9),
    model=st.sampled_from(MODELS),
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3),
    delays_ns=st.lists(
        st.sampled_from((0, 1, 17, 1000, 40_000, 1_000_003)), min_size=1, max_size=9
    ),
    sizes=st.lists(st.sampled_from((1, 1000, 65536, 1_000_003, 2**22)), min_size=1, max_size=2),
    chunks=st.sampled_from((1, 2, 3, 8)),
    active=st.sampled_from((1, 1, 2)),
    queues=st.sampled_from((1, 1, 2)),
    bandwidth=st.sampled_from((0.3, 25, 50, 400.5)),
    latency=st.sampled_from((0, 0.5, 500, 936.25)),
    delay=st.sampled_from((0, 10, 700, 50_000)),
    memory_bw=st.sampled_from((1.7, 50, 3350)),
    semantics=st.sampled_from(("astra-sim", "corrected")),
    policy=st.sampled_from(("LIFO", "FIFO")),
)
def test_skewed_rings(
    kinds_of_dims: list[str],
    length: int,
    model: str,
    kinds: list[str],
    delays_ns: list[int],
    sizes: list[int],
    chunks: int,
    active: int,
    queues: int,
    bandwidth: float,
    latency: float,
    delay: int,
    memory_bw: float,
    semantics: str,
    policy: str,
) -> None:
    dims = [length, 3][: len(kinds_of_dims)]
    shape = network(
        " ".join(kinds_of_dims), dims, [bandwidth, 50][: len(dims)], [latency, 700][: len(dims)]
    )
    work = skewed(int(np.prod(dims)), delays_ns, kinds, sizes)
    event(wave_or_why(work, shape, model, semantics, queues, {
        "preferred_dataset_splits": chunks,
        "active_chunks_per_dimension": active,
        "endpoint_delay": delay,
        "local_mem_bw": memory_bw,
        "scheduling_policy": policy,
    }).partition(", first")[0] or "waved")  # fmt: skip


def wave_or_why(
    work: Workload,
    shape: dict[str, Any],
    model: str,
    semantics: str = "astra-sim",
    queues: int = 1,
    changes: dict[str, Any] | None = None,
    threads: int = 1,
) -> str:
    names = ["ring"] * len(shape["npus_count"])
    tried = Experiment(
        work,
        system(names, **(changes or {})),
        shape,
        num_queues_per_dim=queues,
        semantics=semantics,
    )
    asked = NetworkRequest(network=shape, semantics=semantics)
    return compared(tried.lower().program, asked, model, threads)


def test_streams_of_two_priorities_enter_where_one_ends() -> None:
    """Who is first depends on which of two events of one instant is."""
    work = skewed(3, [0], ["all-gather"] * 3, [1000, 1])
    changes = {"preferred_dataset_splits": 2, "endpoint_delay": 0, "local_mem_bw": 1.7}
    shape = network("Ring", 3, 0.3, 0)
    said = wave_or_why(work, shape, MODELS[0], "corrected", 2, changes)
    assert said == "a dimension has several queues"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("length", [511, 1030, 2100])
def test_blocks_of_members(model: str, length: int) -> None:
    """Long rings whose ranks begin at random times, so that no step is as the one before."""
    rng = random.Random(length)
    delays_ns = [rng.randrange(3_000_000) for _ in range(length)]
    work = skewed(length, delays_ns, ["all-gather"], [2**20])
    changes = {"preferred_dataset_splits": 1, "local_mem_bw": 777.7}
    assert wave_or_why(work, network("Ring", length, 3.3), model, changes=changes) == ""


@pytest.mark.parametrize("model", MODELS)
def test_any_number_of_threads(model: str) -> None:
    length = 4097
    rng = random.Random(7)
    work = per_rank(
        length,
        lambda trace, _: trace.coll(
            CommType.ALL_REDUCE,
            2**28,
            deps=[trace.comp(duration_ns=1 + rng.randrange(10_000_000))],
        ),
    )
    setting = system(preferred_dataset_splits=2), network("Ring", length, 25)
    tried = Experiment(work, *setting, backend=model, fold="off")
    one = tried.run()
    assert one.wavefront.phases == 2 * length
    for threads in (2, 3, 8):
        several = tried.run(threads=threads)
        assert several.wavefront.sentence().endswith(f"on {threads} threads")
        np.testing.assert_array_equal(several.finish_ps, one.finish_ps)
        assert several.network == one.network
        for name, table in one.tables.items():
            for column in [*table.keys()]:
                np.testing.assert_array_equal(several.tables[name][column], table[column])


def same(tried: Experiment) -> Result:
    """Run it with and without: everything that a user can see is the same."""
    some, plain = tried.run(), tried.replace(wavefront="off").run()
    assert plain.wavefront.reason == "off"
    said, expected = some.to_dict(), plain.to_dict()
    for one in (said, expected):
        for name in ("wall_s", "wavefront", "provenance"):
            one.pop(name)
    assert said == expected
    for name in ("finish_ps", "exposed_comm_ps", "node_offset", "node_start_ps", "node_end_ps"):
        np.testing.assert_array_equal(getattr(some, name), getattr(plain, name), name)
    for name in ("ranks", "nodes", "collectives", *some.tables):
        mine, its = (
            one.tables[name] if name in one.tables else getattr(one, name) for one in (some, plain)
        )
        assert list(mine.keys()) == list(its.keys())
        for column in [*its.keys()]:
            np.testing.assert_array_equal(mine[column], its[column], f"{name}.{column}")
    assert some.versions == plain.versions
    assert tried.token == tried.replace(wavefront="off").token
    return some


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "reduce-scatter"])
@pytest.mark.parametrize(
    "shape",
    [
        network("Ring", 16),
        network("Switch", 24),
        network("FullyConnected", 16, 25, 0),
        network("Ring Switch Switch", [4, 4, 2], [400, 50, 25], [500, 700, 1000]),
    ],
    ids=lambda shape: "-".join(shape["topology"]),
)
def test_where_it_applies(shape: dict[str, Any], kind: str, model: str) -> None:
    """All that a ring does, on every kind of dimension."""
    ranks = int(np.prod(shape["npus_count"]))
    setting = system(["ring"] * len(shape["npus_count"])), shape
    result = same(Experiment(collective(kind, 2**24, ranks), *setting, backend=model, fold="off"))
    assert result.wavefront.phases >= 4 * ranks
    assert result.wavefront.by_events == 0
    assert result.wavefront.to_dict()["reason"] == ""


def test_a_training_step_beside_events() -> None:
    """Where transfers never meet, other messages may be on their way."""
    work = transformer(
        Transformer(layers=4, hidden=1024, sequence=512, data=4, tensor=4, pipeline=2)
    )
    shape = network("Switch Switch", [4, 8], [50, 25], [500, 700])
    tried = Experiment(
        work,
        system(["ring"] * 2, roofline_enabled=1, peak_perf=100),
        shape,
        backend=MODELS[0],
        fold="off",
    )
    assert same(tried).wavefront.phases > 0


def test_folding_comes_first() -> None:
    result = Experiment(collective("all-reduce", 2**20, 16), system(), network("Ring", 16)).run(
        threads=2
    )
    assert result.folding.copies == 16
    assert result.wavefront.sentence() == (
        "no phase was a wavefront, all that threads are for: one rank ran for all that are alike"
    )


@pytest.mark.parametrize(
    "path",
    spread([*OWN, *(path for path in CASES if path.stem not in LONG)], 8),
    ids=lambda path: path.stem,
)
@pytest.mark.usefixtures("few")
def test_golden_cases(path: Path, tmp_path: Path) -> None:
    if not path.exists():
        pytest.skip(f"no golden cases at {GOLDEN}")
    case = write_golden_case(path, tmp_path)
    result = run_golden(case, "native")
    assert result.wavefront.asked
    assert result.finish_ns.tolist() == case.finish_ns
    assert result.exposed_comm_ns.tolist() == case.exposed_comm_ns


def test_a_broken_answer_of_a_network() -> None:
    """Arrays of unequal length are refused, and the run goes on by events."""
    spec = backend(MODELS[0])
    program = Experiment(collective("all-reduce", 2**20, 4), system(), network("Ring", 4)).lower()
    config = spec.prepare(NetworkRequest(network=network("Ring", 4))).config
    request = RunRequest(config, program.program)
    phases = np.ones(len(program.program.phases), np.int64)

    def hops(src: Any, dst: Any, size: int) -> Any:
        return np.zeros(4, int), np.zeros(4, int), np.zeros(3, int)

    with pytest.raises(ValueError, match="hops of transfers: arrays differ in length"):
        run_here(spec, msgspec.structs.replace(request, waves=(phases, hops, 1)), None)


# Why not


def pair(trace: TraceBuilder, rank: int) -> None:
    trace.coll(CommType.ALL_REDUCE, 2**20)
    (trace.send if rank % 2 else trace.recv)(rank ^ 1, 1000, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"engine": "python"}, "the Python engine has none"),
        ({"inside": "chunks"}, "what goes on inside collectives is kept"),
        ({"faults": [LinkFault(0, 1000, 0.5)]}, "some links change meanwhile"),
        ({"backend": "flow"}, "backend flow cannot say what transfers take that meet nobody"),
        (
            {"network_options": {"sample_interval_us": "10"}},
            "backend analytical-aware cannot say what transfers take that meet nobody",
        ),
        ({"rendezvous_protocol": True}, "messages wait for control messages"),
        (
            {"system": system() | {"model-shared-bus": 1, "L": 5, "o": 2, "g": 3, "G": 0.01}},
            "packets share a bus, or cross none",
        ),
        ({"system": system("direct")}, "no phase has one neighbour to hear of (a ring)"),
        (
            {
                "system": system(["ring", "direct"]),
                "network": network("Ring Switch", [4, 4], [50, 50], [500, 500]),
            },
            "other phases use the same links",
        ),
        ({"workload": per_rank(16, pair)}, "messages of nodes use the same links"),
        (
            {"workload": same_on_all(16, lambda trace: trace.comp(duration_us=3))},
            "there are no collectives",
        ),
        (
            {"system": system(active_chunks_per_dimension=2)},
            "several chunks of a queue run at a time",
        ),
        (
            {
                "backend": MODELS[0],
                "system": system(["ring"] * 2, active_chunks_per_dimension=2),
                "network": network("Ring Ring", [4, 4], [50, 50], [500, 500]),
            },
            "several chunks of a queue run at a time",
        ),
        (
            {
                "semantics": "corrected",
                "network": network("Switch", 16),
            },
            "it is not known what a message takes alone, first at rank 0 at 0 ns",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_why_not(changes: dict[str, Any], expected: str) -> None:
    arguments: dict[str, Any] = {
        "workload": collective("all-reduce", 2**20, 16),
        "system": system(),
        "network": network("Ring", 16),
        "fold": "off",
    }
    how = {name: changes[name] for name in ("engine", "inside") if name in changes}
    arguments |= {name: value for name, value in changes.items() if name not in how}
    tried = Experiment(**arguments)
    result = tried.run(**how)
    assert result.wavefront.asked
    assert expected in result.wavefront.reason
    assert result.finish_ps.tolist() == tried.replace(wavefront="off").run().finish_ps.tolist()


def test_few_ranks_have_no_wavefronts() -> None:
    result = Experiment(collective("all-reduce", 2**20, 8), system(), network("Ring", 8)).run()
    assert (result.wavefront.asked, result.wavefront.reason) == (False, "there are few ranks")
