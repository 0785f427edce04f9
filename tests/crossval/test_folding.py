# SPDX-License-Identifier: MIT
"""Folded runs give every number that runs of all ranks give, or say why they did not fold."""

from __future__ import annotations

import random
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from astra_bridge import Experiment, Result, fabrics
from astra_bridge.errors import AstraBridgeError
from astra_bridge.inputs.network import NetworkLinks
from astra_bridge.isolation import RunRequest, run_here
from astra_bridge.network.api import TIME_NEVER, TRANSFER
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.program import Program
from astra_bridge.simulation import LinkFault, Slowdown
from astra_bridge.simulation import experiment as of_experiment
from astra_bridge.simulation.folding import NotFolded, folded_run
from astra_bridge.trace import CommType
from astra_bridge.validation.cases import write_golden_case
from astra_bridge.workload import collective
from benchmarks.transformer import Transformer, transformer
from tests.effort import examples
from tests.golden.test_analytical import CASES, LONG, OWN
from tests.golden_run import GOLDEN
from tests.golden_run import run as run_golden
from tests.random_programs import experiment
from tests.small import network, per_rank, same_on_all, system

pytestmark = pytest.mark.usefixtures("native_engine")

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
ANALYTICAL = ("analytical-unaware", "analytical-aware")
MODELS = (*ANALYTICAL, "flow")
Model = tuple[str, Any]
BOTH: tuple[Model, ...] = (
    *((name, "native") for name in MODELS),
    *((f"{name}-python", "python") for name in ANALYTICAL),
    ("flow", "python"),
)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of few ranks are folded too."""
    monkeypatch.setattr(of_experiment, "_FEWEST_FOLDED", 2)


def compared(program: Program, asked: NetworkRequest, model: Model) -> str:
    """Run a Program folded and not, compare all that is said; return why it was not folded."""
    name, engine = model
    spec = backend(name)
    request = RunRequest(spec.prepare(asked).config, program, engine=engine)
    try:
        few = folded_run(spec, request, lambda *what: run_here(*what, None), lambda _: True)
    except NotFolded as reason:
        return str(reason)
    everyone = run_here(spec, request, None)
    copies, kinds = few.fold.copies, few.fold.kind_of_rank
    one, all_of_them = few.run.outcome, everyone.outcome
    np.testing.assert_array_equal(one.finish_ps[kinds], all_of_them.finish_ps)
    for rank, kind in enumerate(kinds.tolist()):
        mine, its = (
            slice(*outcome.task_node_start[at : at + 2].tolist())
            for outcome, at in ((one, kind), (all_of_them, rank))
        )
        np.testing.assert_array_equal(one.node_start_ps[mine], all_of_them.node_start_ps[its])
        np.testing.assert_array_equal(one.node_end_ps[mine], all_of_them.node_end_ps[its])
    for count in ("transfers", "events", "relieved"):
        assert getattr(one, count) * copies == getattr(all_of_them, count)
    assert few.unfolded_stats() == everyone.stats
    links = few.links()
    assert (links is None) == ("links" not in everyone.tables)
    if links is not None:
        table = links.unfolded()
        assert list(table.keys()) == list(everyone.tables["links"])
        for column, values in everyone.tables["links"].items():
            np.testing.assert_array_equal(table[column], values, column)
    return ""


def tried_on(tried: Experiment, model: Model, **options: str) -> str:
    """What `compared` says of an experiment, or "refused"."""
    try:
        program = tried.lower().program
    except AstraBridgeError:
        return "refused"
    asked = NetworkRequest(network=tried.network, options=options, semantics=tried.semantics)
    return compared(program, asked, model)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=CHECKS)
@given(seed=st.integers(0, 2**63), model=st.sampled_from(BOTH), likely=st.booleans())
def test_random_experiments(seed: int, model: Model, likely: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(random.Random(seed), Path(folder))
        program = tried.lower().program
    if likely:  # leave out what never folds
        alone = np.full_like(program.memory_server, -1)
        program = replace(program, receives_at_once=False, memory_server=alone)
    asked = NetworkRequest(network=tried.network, semantics=tried.semantics)
    event(compared(program, asked, model).partition("time(s)")[2] or "folded or cannot be")


COLLECTIVES = ("ring", "direct", "direct2", "halvingDoubling", "doubleBinaryTree")
NETWORKS = (
    network("Ring", 8),
    network("Switch", 16, 50, 0),
    network("FullyConnected", 8),
    network("Ring Switch", [4, 8], [400, 50], [500, 1000]),
    network("Switch FullyConnected Ring", [4, 2, 4], [400, 50, 25], [500, 700, 900]),
    network("Ring Ring", [2, 6], [50, 50], [500, 500]),
)


@pytest.mark.parametrize("name", MODELS)
def test_starts_in_pieces(name: str) -> None:
    """More messages start at once than are kept: the network gets them in pieces."""
    ranks = 288
    work = same_on_all(ranks, lambda trace: trace.coll(CommType.ALL_TO_ALL, ranks * 1000))
    setting = system("direct", preferred_dataset_splits=1), network("Switch", ranks)
    whole = Experiment(work, *setting, backend=name, fold="off").run()
    assert whole.network["transfers"] == ranks * (ranks - 1) > 2**16
    few = Experiment(work, *setting, backend=name).run()
    assert few.folding.copies > 1
    assert few.finish_ps.tolist() == whole.finish_ps.tolist()


@settings(max_examples=examples(150), deadline=None, suppress_health_check=CHECKS)
@given(
    shape=st.sampled_from(NETWORKS),
    model=st.sampled_from(BOTH),
    kind=st.sampled_from(("all-reduce", "all-gather", "reduce-scatter", "all-to-all")),
    algorithm=st.sampled_from(COLLECTIVES),
    size=st.sampled_from((1000, 65536, 2**20, 1_000_003)),
    chunks=st.sampled_from((1, 3, 8)),
    active=st.sampled_from((1, 2, 4)),
    delay=st.sampled_from((0, 10, 700)),
    bus=st.booleans(),
    queues=st.sampled_from((1, 2)),
    rendezvous=st.booleans(),
    semantics=st.sampled_from(("astra-sim", "corrected")),
)
def test_collectives(
    shape: dict[str, Any],
    model: Model,
    kind: str,
    algorithm: str,
    size: int,
    chunks: int,
    active: int,
    delay: int,
    bus: bool,
    queues: int,
    rendezvous: bool,
    semantics: str,
) -> None:
    ranks = int(np.prod(shape["npus_count"]))
    names = [algorithm] * len(shape["npus_count"])
    if kind == "all-to-all" and algorithm in ("halvingDoubling", "doubleBinaryTree"):
        names = ["direct"] * len(names)
    settings_of = system(
        names,
        preferred_dataset_splits=chunks,
        active_chunks_per_dimension=active,
        endpoint_delay=delay,
        local_mem_bw=400,
    )
    if bus:
        settings_of |= {"model-shared-bus": 1, "L": 5, "o": 2, "g": 3, "G": 0.01}
    tried = Experiment(
        collective(kind, size, ranks),
        settings_of,
        shape,
        num_queues_per_dim=queues,
        rendezvous_protocol=rendezvous,
        semantics=semantics,
    )
    event({"": "folded", "refused": "refused"}.get(tried_on(tried, model), "not folded"))


@settings(max_examples=examples(300), deadline=None, suppress_health_check=CHECKS)
@given(
    shape=st.sampled_from(
        (
            *NETWORKS,
            network("Switch", 24),  # more flows than are shared at once
            network("Switch", 40, 37, 300),
            network("Switch Ring", [6, 4], [90, 30], [100, 900]),
            network("FullyConnected Switch", [4, 8], [77, 33], [1, 2]),
        )
    ),
    kind=st.sampled_from(("all-reduce", "all-gather", "reduce-scatter", "all-to-all")),
    names=st.lists(st.sampled_from(("ring", "direct", "direct2")), min_size=3, max_size=3),
    size=st.sampled_from((1000, 65536, 2**20, 1_000_003)),
    chunks=st.sampled_from((1, 3, 8)),
    active=st.sampled_from((1, 2, 4)),
    delay=st.sampled_from((0, 10, 700)),
    queue_pairs=st.sampled_from((1, 2, 8)),
    tolerance=st.sampled_from(("0", "0.1", "0.5")),
    header=st.sampled_from((0, 82)),
    round_trips=st.sampled_from((0, 0, 2)),
)
def test_fair_shares(
    shape: dict[str, Any],
    kind: str,
    names: list[str],
    size: int,
    chunks: int,
    active: int,
    delay: int,
    queue_pairs: int,
    tolerance: str,
    header: int,
    round_trips: int,
) -> None:
    """Links that many flows share, and groups of so many that shares are kept for a while."""
    ranks = int(np.prod(shape["npus_count"]))
    setting = system(
        names[: len(shape["npus_count"])],
        preferred_dataset_splits=chunks,
        active_chunks_per_dimension=active,
        endpoint_delay=delay,
        local_mem_bw=400,
    )
    program = Experiment(collective(kind, size, ranks), setting, shape).lower().program
    options = {
        "queue_pairs": str(queue_pairs),
        "tolerance": tolerance,
        "header_bytes": str(header),
        "start_up_round_trips": str(round_trips),
    }
    asked = NetworkRequest(network=shape, options=options)
    event(compared(program, asked, ("flow", "native")).partition("time(s)")[2] or "folded")


@settings(max_examples=examples(150), deadline=None, suppress_health_check=CHECKS)
@given(
    shape=st.sampled_from(
        (
            *(one for one in NETWORKS if len(one["npus_count"]) > 1),
            network("Switch Switch", [4, 4], [100, 50], [300, 300]),
            network("FullyConnected FullyConnected", [4, 4], [50, 50], [500, 500]),
            network("Switch Switch Switch", [2, 4, 4], [100, 40, 25], [300, 700, 0]),
        )
    ),
    parts=st.lists(st.sampled_from(MODELS), min_size=3, max_size=3),
    engine=st.sampled_from(("native", "python")),
    kinds=st.lists(
        st.sampled_from((CommType.ALL_TO_ALL, CommType.ALL_REDUCE)), min_size=1, max_size=3
    ),
    at_once=st.booleans(),
    algorithm=st.sampled_from(("ring", "direct", "direct2")),
    crossing=st.booleans(),
    size=st.sampled_from((1000, 65536, 1_000_003)),
    chunks=st.sampled_from((1, 4)),
    border=st.sampled_from((0, 300, 16384)),
    semantics=st.sampled_from(("astra-sim", "corrected")),
)
def test_parts_of_a_composite_network(
    shape: dict[str, Any],
    parts: list[str],
    engine: Any,
    kinds: list[CommType],
    at_once: bool,
    algorithm: str,
    crossing: bool,
    size: int,
    chunks: int,
    border: int,
    semantics: str,
) -> None:
    """Messages that cross parts are those of groups that are no dimension."""
    dims = len(shape["npus_count"])
    ranks, low = int(np.prod(shape["npus_count"])), shape["npus_count"][0]
    groups = {place: list(range(place, ranks, low)) for place in range(low)} if crossing else {}

    def fill(trace: Any, rank: int) -> None:
        last: list[Any] = []
        for kind in kinds:
            made = trace.coll(kind, size, deps=last, **({"group": rank % low} if groups else {}))
            last = [] if at_once else [made]

    setting = system([algorithm] * dims, preferred_dataset_splits=chunks, endpoint_delay=10)
    tried = Experiment(
        per_rank(ranks, fill), setting, shape, semantics=semantics, comm_groups=groups
    )
    options = {"backends": ",".join(parts[:dims]), "border_bytes": str(border)}
    asked = NetworkRequest(network=shape, options=options, semantics=semantics)
    why = compared(tried.lower().program, asked, ("composite", engine))
    event(why.partition("time(s)")[2] or why or "folded")


@pytest.mark.parametrize(("kind", "algorithm"), [("all-reduce", "ring"), ("all-to-all", "direct")])
def test_parts_that_run_in_a_process_of_their_own(kind: str, algorithm: str) -> None:
    parts = {"backends": "flow,analytical-aware", "border_bytes": "1000"}
    result = same(
        Experiment(
            collective(kind, 2**20, 64),
            system([algorithm] * 2),
            network("Ring Switch", [4, 16], [100, 50], [500, 700]),
            backend="composite",
            network_options=parts,
        )
    )
    assert result.folding.copies == 64


def test_its_ties_are_told() -> None:
    said = reason(
        system=system("direct", active_chunks_per_dimension=2),
        backend="composite",
        network_options={"backends": "analytical-unaware"},
    )
    assert said == reason(
        system=system("direct", active_chunks_per_dimension=2), backend="analytical-unaware"
    )


def test_what_meets_where_parts_meet_is_in_doubt() -> None:
    """At the rank between the parts: whose message goes on first, and what is cut for it."""
    shape = network("FullyConnected Switch", [4, 4], [50, 50], [500, 500])

    def ties(*sends: tuple[int, int, int]) -> int:
        options = {"backends": "analytical-aware,analytical-unaware", "border_bytes": "1000"}
        spec = backend("composite")
        config = spec.prepare(NetworkRequest(network=shape, options=options)).config
        config = replace(config, options={**config.options, "fold": "4:4"})
        items = np.zeros(len(sends), TRANSFER)
        for index, (src, dst, size) in enumerate(sends):
            items[index] = (4 * index, 0, size, src, dst, 0, 0, 0)
        with spec.open(config) as opened:
            opened.submit(items)
            left = len(sends)
            while left:
                opened.advance(TIME_NEVER, 0)
                left -= len(opened.poll())
            assert spec.statistics is not None
            found = spec.statistics(opened.stats(), config)
        assert "fold_ties" not in found["parts"][0]["statistics"]
        return int(found["fold_ties"])

    # From ranks 0 and 1 of the last row by rank 2 there, or of different sizes: not at once.
    assert ties((12, 2, 1000)) == 0
    assert ties((12, 2, 1000), (13, 2, 1000)) > 0
    assert ties((12, 2, 1000), (13, 2, 900)) == 0
    # One sender has an order of its own, but where the first message is cut.
    assert ties((12, 2, 1000), (12, 1, 2000)) == 0
    assert ties((12, 2, 2000), (12, 1, 1000)) > 0


FABRICS = (
    fabrics.rail(16, gpus_per_host=4),
    fabrics.rail(64),
    fabrics.rail(32, gpus_per_host=4, hosts_per_leaf=2, oversubscription=2),
    fabrics.rail(32, gpus_per_host=4, nvlink_gbps=0.0),
    fabrics.torus(dims=(4, 4)),
    fabrics.torus(dims=(2, 3, 4)),
    fabrics.leaf_spine(32, gpus_per_host=1, nvlink_gbps=0.0),
    fabrics.fat_tree(16, gpus_per_host=1, nvlink_gbps=0.0),
    fabrics.dragonfly(72),
)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=CHECKS)
@given(
    fabric=st.sampled_from(FABRICS),
    model=st.sampled_from(MODELS),
    engine=st.sampled_from(("native", "python")),
    routing=st.sampled_from(("ecmp", "static")),
    kind=st.sampled_from(("all-reduce", "all-gather", "reduce-scatter", "all-to-all")),
    algorithm=st.sampled_from(("ring", "direct", "halvingDoubling")),
    size=st.sampled_from((1000, 65536, 1_000_003)),
    chunks=st.sampled_from((1, 4)),
    active=st.sampled_from((1, 2)),
    delay=st.sampled_from((0, 10)),
    rendezvous=st.booleans(),
    semantics=st.sampled_from(("astra-sim", "corrected")),
)
def test_lists_of_links(
    fabric: NetworkLinks,
    model: str,
    engine: Any,
    routing: str,
    kind: str,
    algorithm: str,
    size: int,
    chunks: int,
    active: int,
    delay: int,
    rendezvous: bool,
    semantics: str,
) -> None:
    names = [algorithm] * len(fabric.dims)
    if kind == "all-to-all" and algorithm == "halvingDoubling":
        names = ["direct"] * len(names)
    setting = system(
        names,
        preferred_dataset_splits=chunks,
        active_chunks_per_dimension=active,
        endpoint_delay=delay,
        local_mem_bw=400,
    )
    tried = Experiment(
        collective(kind, size, fabric.endpoints),
        setting,
        fabric,
        rendezvous_protocol=rendezvous,
        semantics=semantics,
    )
    why = tried_on(tried, (model, engine), routing=routing)
    event(why.partition("time(s)")[2] or why or "folded")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("fabric", "algorithm", "digits"),
    [
        (fabrics.rail(64), "ring", ((1, 8), (8, 8))),
        (fabrics.rail(64), "halvingDoubling", ((1, 2), (2, 2), (4, 2), (8, 2), (16, 2), (32, 2))),
        (fabrics.torus(dims=(4, 8)), "ring", ((1, 4), (4, 8))),
        # Hosts of a leaf have the next one there, or behind a spine; all rails are alike.
        (fabrics.rail(64, hosts_per_leaf=4, oversubscription=4), "ring", ((1, 8),)),
        (fabrics.rail(512), "ring", ((1, 8),)),
    ],
    ids=["rail", "rail halving", "torus", "leaves", "two leaves"],
)
def test_a_fabric_whose_ways_agree(
    model: str, fabric: NetworkLinks, algorithm: str, digits: tuple[tuple[int, int], ...]
) -> None:
    setting = system([algorithm] * 2, preferred_dataset_splits=4)
    work = collective("all-reduce", 2**24, fabric.endpoints)
    assert same(Experiment(work, setting, fabric, backend=model)).folding.digits == digits


@pytest.mark.parametrize("ranks", [16, 24, 64])
@pytest.mark.parametrize("kind", ["all-to-all", "reduce-scatter"])
def test_an_exchange_of_all_with_all_on_shared_links(ranks: int, kind: str) -> None:
    setting = system("direct", preferred_dataset_splits=4), network("Switch", ranks)
    result = same(Experiment(collective(kind, 2**24, ranks), *setting, backend="flow"))
    assert result.folding.copies == ranks
    assert result.network["sharings"] >= 8  # of each chunk when it begins and ends


def same(tried: Experiment) -> Result:
    """Run it folded and not: everything that a user can see is the same."""
    some, everyone = tried.run(), tried.replace(fold="off", wavefront="off").run()
    assert everyone.folding.reason == "off"
    said, expected = some.to_dict(), everyone.to_dict()
    for one in (said, expected):
        for name in ("wall_s", "folding", "wavefront", "provenance"):
            one.pop(name)
    assert said == expected
    for name in ("finish_ps", "exposed_comm_ps", "node_offset", "node_start_ps", "node_end_ps"):
        np.testing.assert_array_equal(getattr(some, name), getattr(everyone, name), name)
    for rank in {0, 1, some.rank_count - 1}:
        np.testing.assert_array_equal(some.nodes_of(rank).end_ps, everyone.nodes_of(rank).end_ps)
    tables = ["ranks", "nodes", "collectives", *(["links"] if "links" in some.tables else [])]
    for name in tables:
        mine, its = getattr(some, name), getattr(everyone, name)
        assert list(mine.keys()) == list(its.keys())
        assert len(mine) == len(its)
        for column in [*its.keys()]:
            np.testing.assert_array_equal(mine[column], its[column], f"{name}.{column}")
    if "links" in some.tables:
        for found in ("tiers", "busiest_links"):
            mine, its = (
                one.tiers if found == "tiers" else one.busiest_links(3) for one in (some, everyone)
            )
            for column in [*its.keys()]:
                if its[column].dtype.kind == "f":  # added up in another order
                    np.testing.assert_allclose(mine[column], its[column], 1e-12)
                else:
                    np.testing.assert_array_equal(mine[column], its[column], column)
    assert some.versions == everyone.versions
    assert tried.token == tried.replace(fold="off").token
    return some


@pytest.mark.parametrize(
    "path", [*OWN, *(path for path in CASES if path.stem not in LONG)], ids=lambda path: path.stem
)
@pytest.mark.usefixtures("few")
def test_golden_cases(path: Path, tmp_path: Path) -> None:
    if not path.exists():
        pytest.skip(f"no golden cases at {GOLDEN}")
    case = write_golden_case(path, tmp_path)
    result = run_golden(case, "native")
    assert result.folding.asked
    assert result.finish_ns.tolist() == case.finish_ns
    assert result.exposed_comm_ns.tolist() == case.exposed_comm_ns


HIERARCHICAL = system(
    ["ring"] * 3, preferred_dataset_splits=16, active_chunks_per_dimension=2, local_mem_bw=3350
)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dims", [(8, 4, 2), (4, 8, 8), (8, 16, 4)])
def test_a_hierarchical_all_reduce(model: str, dims: tuple[int, ...]) -> None:
    """The case of a million ranks, in small."""
    ranks = int(np.prod(dims))
    net = network("Ring Switch Switch", dims, [400, 50, 50], [500, 1000, 2000])
    result = same(
        Experiment(collective("all-reduce", 2**30, ranks), HIERARCHICAL, net, backend=model)
    )
    if (model, dims) == ("flow", (8, 4, 2)):
        # A message of one chunk begins on a link when one of another chunk leaves it.
        assert "messages came to a link at once" in result.folding.reason
        return
    assert (result.folding.ran, result.folding.copies) == (1, ranks)
    assert result.folding.digits == ((1, 8), (8, 4), (32, 2)) or dims != (8, 4, 2)


def several(topology: str, npus: list[int]) -> dict[str, Any]:
    return network(topology, npus, [50] * len(npus), [500] * len(npus))


TRAINING = {"layers": 4, "hidden": 1024, "sequence": 512}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("changes", "net", "kinds"),
    [
        ({"data": 4, "tensor": 4, "pipeline": 4}, several("Switch Switch", [4, 16]), 4),
        ({"data": 8, "tensor": 4, "pipeline": 2}, several("Ring Switch", [4, 16]), 2),
        ({"data": 16, "tensor": 4, "pipeline": 1}, several("Ring Ring", [4, 16]), 1),
        (
            {"data": 8, "tensor": 4, "pipeline": 2, "experts": 8, "expert": 4},
            several("FullyConnected Switch", [4, 16]),
            # Four experts' ranks of each stage: the ring of all data goes through them in turn.
            8,
        ),
        (
            {"data": 8, "tensor": 4, "pipeline": 2, "experts": 8, "expert": 8},
            several("FullyConnected Switch", [4, 16]),
            2,
        ),
        (
            {"data": 4, "tensor": 4, "pipeline": 2, "sharded_optimizer": True},
            several("Ring Ring Ring", [4, 4, 2]),
            2,
        ),
    ],
)
def test_a_training_step_folds_to_its_stages(
    model: str, changes: dict[str, Any], net: dict[str, Any], kinds: int
) -> None:
    work = transformer(Transformer(**TRAINING, **changes))
    names = ["ring"] * len(net["npus_count"])
    roofline = {"roofline_enabled": 1, "peak_perf": 100}
    result = same(Experiment(work, system(names, **roofline), net, backend=model))
    assert result.folding.ran == kinds


def test_nodes_unfold_when_asked() -> None:
    """Not before: what ranks share is kept once."""
    net = several("Switch Switch", [4, 16])
    work = transformer(Transformer(**TRAINING, data=4, tensor=4, pipeline=4))
    result = Experiment(work, system(["ring"] * 2), net).run()
    assert result.has_nodes
    assert len(result.recorded.start_ps) * 16 == len(result.node_start_ps)
    assert np.shares_memory(result.nodes_of(63).end_ps, result.recorded.end_ps)
    # Which ranks a timeline would draw, as a run says on a terminal, takes none of them.
    again = Experiment(work, system(["ring"] * 2), net).run()
    assert len(again.timeline_ranks()) == 64
    assert "unfolded" not in vars(again.recorded)


# Why not

RING = network("Ring", 16)


def reason(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "workload": collective("all-reduce", 2**20, 16),
        "system": system(),
        "network": RING,
    }
    result = Experiment(**(arguments | changes)).run()
    assert result.folding.asked
    assert not result.folding.digits
    assert result.to_dict()["folding"] == {
        "folded": False,
        "digits": [],
        "reason": result.folding.reason,
    }
    return result.folding.reason


def test_two_senders_at_once_are_a_tie() -> None:
    """Rank 0 hears from the last rank and from rank 1 in the other order than all others do."""
    said = reason(system=system("direct", active_chunks_per_dimension=2), backend=MODELS[0])
    assert re.fullmatch(
        r"\d+ time\(s\) two events came at once in an order that may differ from rank to rank, "
        r"first at rank 0 at \d+ ns",
        said,
    )


@settings(max_examples=examples(100), deadline=None, suppress_health_check=CHECKS)
@given(
    model=st.sampled_from(BOTH),
    micros=st.lists(st.sampled_from((1, 1, 2, 40)), min_size=5, max_size=5),
    waits=st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=3, max_size=3),
)
def test_two_messages_at_once(
    model: Model, micros: list[int], waits: list[set[int]], few: None
) -> None:
    """Stages 0 and 1 send to stage 2, whose work waits for some of both messages."""
    tried = Experiment(two_senders(micros, waits), system(), several("Switch Switch", [4, 3]))
    asked = NetworkRequest(network=several("Switch Switch", [4, 3]), semantics="astra-sim")
    event(compared(tried.lower().program, asked, model).partition("time(s)")[2] or "folded")


def two_senders(micros: list[int], waits: list[set[int]]) -> Any:
    def fill(trace: Any, rank: int) -> None:
        stage = rank // 4
        if stage < 2:
            work = trace.comp(duration_us=micros[stage])
            trace.send(8 + rank % 4, 1000, stage, deps=[work])
            return
        busy = trace.comp(duration_us=micros[2])
        made = [busy, *(trace.recv(4 * sender + rank % 4, 1000, sender) for sender in (0, 1))]
        for at, some in enumerate(waits):
            deps = [made[which] for which in some if which < len(made)]
            made.append(trace.comp(duration_us=micros[3 + at % 2], deps=deps))

    return per_rank(12, fill)


@pytest.mark.parametrize(
    ("waits", "folds"),
    [
        # The first message is not looked at before the long work is over; the second is, at once.
        ([{0, 1}, {2}, set()], True),
        ([{2}, {0, 1}, set()], True),
        ([{0, 1, 2}, set(), set()], True),
        # Work that waits for both is free with the second one, whichever that is.
        ([{1, 2}, set(), set()], False),
        ([{1}, {2}, set()], False),
    ],
)
# The link is full else.
@pytest.mark.parametrize(
    "model", [one for one in BOTH if "unaware" in one[0]], ids=lambda model: model[0]
)
@pytest.mark.usefixtures("few")
def test_a_message_that_only_counts_ties_with_none(
    model: Model, waits: list[set[int]], folds: bool
) -> None:
    micros = [1, 1, 40, 2, 2]
    tried = Experiment(two_senders(micros, waits), system(), several("Switch Switch", [4, 3]))
    asked = NetworkRequest(network=several("Switch Switch", [4, 3]), semantics="astra-sim")
    why = compared(tried.lower().program, asked, model)
    assert (why == "") == folds, why


def shifted(ranks: int, shift: int) -> Any:
    def fill(trace: Any, rank: int) -> None:
        trace.send((rank + shift) % ranks, 1000, 0)
        trace.recv((rank - shift) % ranks, 1000, 0)

    return per_rank(ranks, fill)


def alone(ranks: int, who: int) -> Any:
    return per_rank(ranks, lambda trace, rank: trace.comp(duration_us=1 + (rank == who)))


def unreceived(ranks: int) -> Any:
    def fill(trace: Any, rank: int) -> None:
        trace.send(rank ^ 1, 1000, 0)

    return per_rank(ranks, fill)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workload": alone(16, 3)}, "no two ranks do the same"),
        ({"faults": [Slowdown(3, 0, 2.0)]}, "some ranks become slower meanwhile"),
        ({"faults": [LinkFault(0, 1000, 0.5)]}, "some links change meanwhile"),
        (
            {
                "network_options": {"backends": "flow", "sample_interval_us": "10"},
                "backend": "composite",
            },
            "loads over time are kept of every link (sample_interval_us)",
        ),
        (
            {"network_options": {"backends": "garnet"}, "backend": "composite"},
            "the part garnet knows of no ranks that are alike",
        ),
        (
            {
                "network": fabrics.leaf_spine(32, gpus_per_host=4, hosts_per_leaf=2),
                "workload": collective("all-reduce", 2**20, 32),
                "system": system(["direct", "direct"]),
                "backend": "flow",
            },
            "the ways between ranks differ",
        ),
        (
            {"network": fabrics.rail(16), "network_options": {"routing": "spray"}},
            "messages of one pair of ranks take different ways",
        ),
        (
            # Two ways round, and only the next rank of both is as far from all.
            {"network": fabrics.torus(dims=(16,)), "system": system("direct")},
            "the ways between ranks differ",
        ),
        (
            {"network_options": {"sample_interval_us": "10"}},
            "loads over time are kept of every link (sample_interval_us)",
        ),
        ({"system": system("doubleBinaryTree")}, "no two ranks do the same"),
        (
            {
                "workload": per_rank(
                    16, lambda trace, rank: trace.coll(CommType.ALL_REDUCE, 4096, group=rank % 3)
                ),
                "comm_groups": {
                    0: [0, 3, 6, 9, 12, 15],
                    1: [1, 4, 7, 10, 13],
                    2: [2, 5, 8, 11, 14],
                },
            },
            "a group is a list of ranks without a common distance",
        ),
        ({"workload": shifted(16, 1)}, "no two ranks do the same"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_why_not(changes: dict[str, Any], expected: str) -> None:
    assert expected in reason(**changes)


def test_few_ranks_are_not_folded() -> None:
    result = Experiment(collective("all-reduce", 2**20, 8), system(), network("Ring", 8)).run()
    assert (result.folding.asked, result.folding.reason) == (False, "there are few ranks")
