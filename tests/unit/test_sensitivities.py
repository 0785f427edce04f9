# SPDX-License-Identifier: MIT
"""What would make a run faster, against runs in which it is."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge import Experiment
from astra_bridge.cli import main
from astra_bridge.engine import native
from astra_bridge.errors import InputError
from astra_bridge.network.native import library_path
from astra_bridge.simulation.jobs import LinkFault
from astra_bridge.trace import CommType, Workload
from astra_bridge.validation.cases import write_golden_case
from astra_bridge.workload import TraceBuilder
from tests.golden_run import run as run_golden
from tests.golden_run import why_not
from tests.small import MIB, network, per_rank, same_on_all, system
from tests.unit.test_explanation import CASES, OWN

EXAMPLES = Path(__file__).parents[2] / "examples" / "analytical"
BACKENDS = ("analytical-unaware", "analytical-aware", "flow")

needs_native = pytest.mark.skipif(
    native.unavailable() is not None or not library_path("flow").exists(),
    reason="the native engine and networks are not built",
)


def leaf_spine(spine_Gbps: float = 400, leaf_Gbps: float = 400) -> dict[str, Any]:
    """Eight ranks under two leaf switches, joined by a spine."""
    link = "{}Gbps".format
    return {
        "endpoints": 8, "switches": 3, "dims": [4, 2],
        "links": [
            *({"src": rank, "dst": 8 + rank // 4, "bandwidth": link(leaf_Gbps), "latency": "300ns"}
              for rank in range(8)),
            *({"src": leaf, "dst": 10, "bandwidth": link(spine_Gbps), "latency": "500ns"}
              for leaf in (8, 9)),
        ],
    }  # fmt: skip


def pipeline(trace: TraceBuilder, rank: int) -> None:
    """Eight stages, six microbatches, collectives beside them."""
    last: list[int] = []
    for batch in range(6):
        deps = [trace.recv(rank - 1, 2 * 10**6, batch)] if rank else []
        last = [trace.comp(f"forward {batch}", duration_us=40, deps=[*deps, *last])]
        if rank < 7:
            trace.send(rank + 1, 2 * 10**6, batch, deps=last)
        trace.coll(CommType.ALL_REDUCE, 10**6, deps=last, involved_dim=[True, False])
    trace.coll(CommType.ALL_REDUCE, 8 * 10**6, deps=last)


def step(trace: TraceBuilder) -> None:
    """Gradients are reduced behind a backward pass, in buckets."""
    last = trace.comp("forward", duration_us=150)
    buckets = []
    for layer in range(6):
        last = trace.comp(f"backward {layer}", duration_us=60, deps=[last])
        buckets.append(trace.coll(CommType.ALL_REDUCE, 3 * MIB, deps=[last]))
    trace.comp("optimizer", duration_us=20, deps=buckets)


def training() -> dict[str, Any]:
    """The example of a training step."""
    return {
        "workload": EXAMPLES / "training" / "trace",
        "comm_groups": EXAMPLES / "training" / "trace.comm_group.json",
        "system": EXAMPLES / "system.json",
    }


def scaled(given: dict[str, Any], kind: str, factor: float) -> dict[str, Any]:
    """A network whose links of one kind are faster."""
    if "links" in given:
        which = {"gpu-switch": "leaf_Gbps", "switch-switch": "spine_Gbps"}[kind]
        return leaf_spine(**{which: 400 * factor})
    dim = int(kind.removeprefix("dim"))
    return {
        **given,
        "bandwidth": [one * (factor if at == dim else 1) for at, one in
                      enumerate(given["bandwidth"])],
    }  # fmt: skip


TWO = network("Ring Switch", [4, 4], [50, 25], [500, 700])
ONE = {"ring": network("Ring", 8), "switch": network("Switch", 8), "all": network(
    "FullyConnected", 8)}  # fmt: skip


def collective(
    kind: CommType, algorithm: str, given: dict[str, Any], size: int = 4 * MIB
) -> dict[str, Any]:
    ranks = int(np.prod(given["npus_count"]))
    return {
        "workload": same_on_all(ranks, lambda trace: trace.coll(kind, size)),
        "system": system([algorithm] * len(given["npus_count"])),
        "network": given,
    }


def workload(ranks: int, fill: Callable[..., object]) -> Workload:
    return per_rank(ranks, fill) if fill is pipeline else same_on_all(ranks, fill)


CASES_OF = {
    **{
        f"{kind.name} {algorithm} {name}": functools.partial(collective, kind, algorithm, given)
        for kind, algorithm, (name, given) in itertools.product(
            (CommType.ALL_REDUCE, CommType.ALL_GATHER, CommType.REDUCE_SCATTER),
            ("ring",),
            (("4x4", TWO), *ONE.items()),
        )
    },
    "ALL_TO_ALL direct all": lambda: collective(CommType.ALL_TO_ALL, "direct", ONE["all"]),
    "ALL_TO_ALL ring switch": lambda: collective(CommType.ALL_TO_ALL, "ring", ONE["switch"]),
    "ALL_REDUCE halvingDoubling switch": lambda: collective(
        CommType.ALL_REDUCE, "halvingDoubling", ONE["switch"]
    ),
    "ALL_REDUCE tree switch": lambda: collective(
        CommType.ALL_REDUCE, "doubleBinaryTree", ONE["switch"]
    ),
    "training ring": lambda: training() | {"network": ONE["ring"]},
    "training leaf and spine": lambda: training() | {"network": leaf_spine()},
    "pipeline": lambda: {
        "workload": workload(8, pipeline), "system": system(["ring"] * 2),
        "network": network("Ring Switch", [2, 4], [100, 25], [500, 700]),
    },
    "rendezvous": lambda: training() | {"network": ONE["ring"], "rendezvous_protocol": True},
    "buckets behind a backward pass": lambda: {
        "workload": workload(16, step), "system": system(["ring"] * 2), "network": TWO,
    },
}  # fmt: skip


@needs_native
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES_OF)
def test_a_tenth_more_bandwidth_does_what_a_run_with_it_says(case: str, backend: str) -> None:
    given = CASES_OF[case]()
    experiment = Experiment(**given, backend=backend)
    result = experiment.run(inside="messages")
    finish_ps = int(result.finish_ps.max())
    with experiment.sensitivities(result) as known:
        assert sum(one.end_ps - one.start_ps for one in known.pieces) == finish_ps
        assert known.replayed([{}]) == [finish_ps]
    table = result.sensitivities
    of = [at for at, what in enumerate(table["what"]) if what.startswith("bandwidth of ")]
    assert of
    for at in of:
        kind = str(table["what"][at]).removeprefix("bandwidth of ")
        faster = experiment.replace(network=scaled(given["network"], kind, 1.1)).run()
        error = (int(table["finish_ps"][at]) - int(faster.finish_ps.max())) / finish_ps
        assert abs(error) < 0.01, (kind, error)


@needs_native
def test_direct_collectives_through_many_networks() -> None:
    """All messages at once: they wait for one another at links, in an order that may change."""
    networks = {
        **ONE, "4x4": TWO, "switch of 16": network("Switch", 16),
        "switches": network("Switch Switch", [4, 4], [50, 25], [500, 700]),
    }  # fmt: skip
    kinds = (CommType.ALL_REDUCE, CommType.ALL_GATHER, CommType.REDUCE_SCATTER, CommType.ALL_TO_ALL)
    errors: dict[tuple[str, str, str, int], float] = {}
    for (name, given), kind, backend, size in itertools.product(
        networks.items(), kinds, BACKENDS, (MIB // 4, 4 * MIB)
    ):
        experiment = Experiment(**collective(kind, "direct", given, size), backend=backend)
        result = experiment.run(inside="messages")
        finish_ps, table = int(result.finish_ps.max()), result.sensitivities
        for what, end_ps in zip(table["what"].tolist(), table["finish_ps"].tolist(), strict=True):
            if what.startswith("bandwidth of "):
                faster = experiment.with_better_links({what: 1.1}).run()
                error = abs(end_ps - int(faster.finish_ps.max())) / finish_ps
                key = name, kind.name, backend, size
                errors[key] = max(error, errors.get(key, 0.0))
    assert len(errors) == 144
    # In the one the order in which messages go through the switch changes.
    assert {key: round(one, 3) for key, one in errors.items() if one >= 0.01} == {
        ("switch", "ALL_REDUCE", "analytical-aware", 4 * MIB): 0.016
    }


@needs_native
def test_another_path_is_told() -> None:
    """Compute beside a collective that ends a little later: with faster links it ends first."""

    def fill(trace: TraceBuilder) -> None:
        trace.coll(CommType.ALL_REDUCE, 10 * MIB, name="gradients")
        trace.comp("beside it", duration_us=760)

    experiment = Experiment(
        same_on_all(4, fill), system(), network(npus=4), backend="analytical-aware"
    )
    result = experiment.run(inside="messages")
    finish_ps = int(result.finish_ps.max())
    assert 770e6 < finish_ps < 780e6
    table = result.sensitivities
    at = table["what"].tolist().index("bandwidth of dim0")
    assert table["other_path"][at] == "yes"
    assert table["finish_ps"][at] == 760 * 10**6
    assert table["path_ps"][at] < 755 * 10**6
    faster = experiment.replace(network=scaled(network(npus=4), "dim0", 1.1)).run()
    assert faster.finish_ps.max() == 760 * 10**6
    # What is not on the path, does not help.
    assert not [what for what in table["what"] if what.startswith("compute")]


@needs_native
def test_compute_and_memory_by_kind_of_operator() -> None:
    def fill(trace: TraceBuilder) -> None:
        last: list[int] = []
        for layer in range(10):
            last = [trace.comp(f"layer{layer}.mlp", duration_us=9, deps=last)]
            last = [trace.comp(f"layer{layer}.attention", duration_us=1, deps=last)]

    result = Experiment(same_on_all(2, fill), system(), network(npus=2)).run(inside="messages")
    table = result.sensitivities
    assert table["what"].tolist() == ["compute: layer*.mlp", "compute: layer*.attention"]
    assert table["change"].tolist() == pytest.approx([-0.9 / 11, -0.1 / 11], abs=1e-8)


@needs_native
@pytest.mark.parametrize("path", [*OWN, *CASES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_pieces_add_up_on_all_golden_cases(path: Path, tmp_path: Path) -> None:
    if why_not("native"):
        pytest.skip("the native engine is not built")
    experiment = run_golden(write_golden_case(path, tmp_path), "native").experiment
    result = experiment.run(inside="messages")
    with experiment.sensitivities(result) as known:
        pieces = known.pieces
    assert sum(one.end_ps - one.start_ps for one in pieces) == result.finish_ps.max(initial=0)
    assert all(one.end_ps == other.start_ps for one, other in itertools.pairwise(pieces))


def test_what_cannot_be_explained() -> None:
    one = Experiment(
        same_on_all(4, lambda trace: trace.coll(CommType.ALL_REDUCE, MIB)), system(),
        network(npus=4), backend="analytical-aware-python",
    )  # fmt: skip
    with pytest.raises(InputError, match="messages were not kept"):
        _ = one.run().sensitivities
    other = one.replace(faults=[LinkFault(link=0, at_ps=0, bandwidth_scale=0.5)])
    assert "change meanwhile" in str(other.unexplained())
    with pytest.raises(InputError, match="change meanwhile"):
        _ = other.run(inside="messages").sensitivities
    with (
        one.sensitivities(one.run(inside="messages")) as known,
        pytest.raises(InputError, match="'bandwidth of dim1' is not on the critical path"),
    ):
        known.what_if({"bandwidth of dim1": 2.0})


@needs_native
@pytest.mark.parametrize("backend", ["analytical-aware", "flow", "a library"])
def test_better_links_are_measured_by_runs_with_them(backend: str) -> None:
    """Also where nothing else is known: of a library of somebody else, which runs by itself."""
    one = Experiment(
        same_on_all(8, lambda trace: trace.coll(CommType.ALL_REDUCE, MIB)), system(["ring"] * 2),
        network("Ring Ring", [2, 4], [50, 25], [500, 700]),
        backend=str(library_path("flow")) if backend == "a library" else backend,
    )  # fmt: skip
    assert (one.unexplained() is not None) == (backend == "a library")
    finish_ps = int((result := one.run()).finish_ps.max())
    table = one.measured_sensitivities(result, 2.0)
    assert sorted(table["what"].tolist()) == sorted(
        f"{what} of dim{dim}" for what in ("bandwidth", "latency") for dim in (0, 1)
    )
    assert set(table["other_path"].tolist()) == {"measured"}
    assert (np.diff(table["finish_ps"]) >= 0).all()
    assert (table["finish_ps"] < finish_ps).all()
    for kind in ("dim0", "dim1"):
        again = one.replace(network=scaled(one.network, kind, 2.0)).run()
        at = table["what"].tolist().index(f"bandwidth of {kind}")
        assert table["finish_ps"][at] == again.finish_ps.max()
    # A part of one run is not used for another.
    assert int(one.run().finish_ps.max()) == finish_ps
    assert one.with_better_links({"latency of dim1": 3}).token != one.token
    for wrong, problem in (
        ({"bandwidth of dim7": 2.0}, "'bandwidth of dim7' is no bandwidth and no latency"),
        ({"bandwidth of dim0": -1.0}, "allowed: above 0"),
    ):
        with pytest.raises(InputError, match=problem):
            one.with_better_links(wrong)


def test_the_command_measures(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", str(EXAMPLES / "experiment.yaml"), "--measure",
               "--what-if", "bandwidth of dim0=2"]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr().out
    assert re.search(r"bandwidth of dim0  -5\.72% of the step  25\.86 us  measured", said)
    assert "measured: bandwidth of dim0 x 2: 18.88 us" in said


def test_a_backend_that_cannot_say_names_what_can(capsys: pytest.CaptureFixture[str]) -> None:
    if not library_path("flow").exists():
        pytest.skip("flow is not built")
    command = ["explain", str(EXAMPLES / "experiment.yaml"), "--backend", str(library_path("flow"))]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "--measure runs it 2 times more" in said
    assert main([*command, "--what-if", "bandwidth of dim0=2"]) == 2
    assert "--what-if: is not known from this one run; with --measure" in capsys.readouterr().err
    assert main([*command, "--measure", "--what-if", "bandwidth of dim0=2"]) == 0
    said = capsys.readouterr().out
    assert "measured: bandwidth of dim0 x 2: " in said
    assert "not known" not in said


def test_links_that_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    """A network of routers with flits: no factor makes its links faster."""
    if not library_path("garnet").exists():
        pytest.skip("Garnet is not built")
    garnet = EXAMPLES.parent / "garnet"
    command = ["explain", "--backend=garnet", f"--network-configuration={garnet}/mesh_8x8.yml",
               f"--workload-configuration={garnet}/all_reduce_64/trace",
               f"--system-configuration={garnet}/system_2d.json"]  # fmt: skip
    assert main(command) == 0
    assert "--set network.PATH=VALUE" in capsys.readouterr().out
    assert main([*command, "--measure"]) == 2
    assert "cannot be made faster kind by kind" in capsys.readouterr().err


def test_too_many_things_for_other_paths_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astra_bridge.explanation.sensitivity.MOST_REPLAYED", 10)
    assert main(["explain", str(EXAMPLES / "experiment.yaml")]) == 0
    said = capsys.readouterr().out
    assert "at the earliest\n" in said
    assert "other paths are not looked at with more than 100,000 nodes" in said


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = str(EXAMPLES / "experiment.yaml")
    assert main(["explain", experiment, "--what-if", "bandwidth of dim0=2"]) == 0
    said = capsys.readouterr().out
    assert "bandwidth of dim0" in said
    assert "bandwidth of dim0 x 2: " in said
    assert "of the step" in said
    folder = str(tmp_path / "out")
    assert main(["run", experiment, "--explain", "--output", folder, "--quiet"]) == 0
    assert main(["explain", folder]) == 0
    assert capsys.readouterr().out.strip() in said
    assert main(["explain", folder, "--better", "2"]) == 2
    assert "--better: needs an experiment" in capsys.readouterr().err
    assert main(["explain", experiment, "--what-if", "bandwidth of dim0=0"]) == 2
    assert main(["run", experiment, "--explain"]) == 2
    assert "--explain: needs --output" in capsys.readouterr().err
