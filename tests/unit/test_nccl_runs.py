# SPDX-License-Identifier: MIT
"""Collectives of the algorithm ``nccl`` in runs: its times, its choices, and what forces them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from astra_bridge import InputError, simulate
from astra_bridge.collectives.nccl import Where, nccl_choice, nccl_cost, nccl_us
from astra_bridge.hardware import hardware
from astra_bridge.inputs.nccl import NcclSettings, read_tuner
from astra_bridge.results import Result
from astra_bridge.validation.nccl import simulated_us
from astra_bridge.workload import collective

KIB, MIB = 2**10, 2**20
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
NAMES = dict(zip(KINDS, ("all_reduce", "all_gather", "reduce_scatter", "alltoall"), strict=True))


def run(
    kind: str = "all-reduce",
    size: int = MIB,
    *,
    dims: tuple[int, ...] = (8,),
    groups: list[list[int]] | None = None,
    machine: str = "h100-sxm",
    backend: str = "analytical-unaware",
    engine: str = "auto",
    system: dict[str, Any] | None = None,
    topology: str = "Switch",
    fold: str = "auto",
    **nccl: Any,
) -> Result:
    """A collective among all ranks; ``size`` as nccl-tests count it."""
    ranks = 1
    for one in dims:
        ranks *= one
    sheet, hop_us = hardware(machine).datasheet, hardware(machine).nccl.hop_us
    widths = [sheet.link_GBps, 50.0][: len(dims)]
    return simulate(
        workload=collective(kind, size // ranks if kind == "all-gather" else size, ranks,
                            groups=groups),
        system={f"{one}-implementation": ["nccl"] * len(dims) for one in KINDS}
        | {"hardware": machine, "nccl": nccl} | (system or {}),
        network={
            "topology": [topology] * len(dims),
            "npus_count": list(dims),
            "bandwidth": [one * 1e9 / 2**30 for one in widths],
            "latency": [hop_us * 500, 1000.0][: len(dims)],
        },
        backend=backend,
        engine=engine,
        fold=fold,
        semantics="corrected",
    )  # fmt: skip


def us(result: Result) -> float:
    return float(result.finish_ps.max()) / 1e6


@pytest.mark.parametrize("machine", ["a100-80gb", "h100-sxm", "h200", "b200"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_run_takes_what_is_predicted(machine: str, kind: str, ranks: int) -> None:
    for size in (512, 96 * KIB, 2 * MIB, 16 * MIB, 512 * MIB):
        expected = nccl_us(hardware(machine), NAMES[kind], ranks, size)
        # A message is cut off to whole ns, of which there are 14 at most.
        found = us(run(kind, size, dims=(ranks,), machine=machine))
        assert found == pytest.approx(expected, rel=2e-4, abs=0.02), size
        # What `validate nccl` does.
        assert found == simulated_us(hardware(machine), NAMES[kind], ranks, size)


@pytest.mark.parametrize("algorithm", ["ring", "tree"])
@pytest.mark.parametrize("proto", ["ll", "ll128", "simple"])
def test_forced_algorithms_take_what_is_predicted(algorithm: str, proto: str) -> None:
    for size in (4 * KIB, 8 * MIB, 256 * MIB):
        machine = hardware("h100-sxm")
        choice = nccl_choice(
            machine, "all_reduce", 8, size, algorithms=[algorithm], protocols=[proto]
        )
        result = run(size=size, algo=algorithm, proto=proto)
        expected = nccl_us(machine, "all_reduce", 8, size, choice=choice)
        assert us(result) == pytest.approx(expected, rel=2e-3, abs=0.05)
        assert [one["chosen"] for one in result.algorithms] == [choice.words]


@pytest.mark.parametrize(
    ("backend", "engine"),
    [
        ("analytical-unaware", "python"),
        ("analytical-unaware-python", "python"),
        ("analytical-unaware-python", "auto"),
    ],
)
@pytest.mark.parametrize("size", [64 * KIB, 64 * MIB])
def test_all_engines_say_the_same(backend: str, engine: str, size: int) -> None:
    for dims in ((8,), (4, 4)):
        for splits in (1, 3):
            system = {"preferred-dataset-splits": splits, "active-chunks-per-dimension": 2}
            native = run(size=size, dims=dims, system=system)
            other = run(size=size, dims=dims, system=system, backend=backend, engine=engine)
            assert other.finish_ps.tolist() == native.finish_ps.tolist()


def test_reductions_of_several_groups_do_not_meet() -> None:
    alone = us(run(size=64 * MIB))
    groups = [list(range(8)), list(range(8, 16))]
    both = run(size=64 * MIB, dims=(8, 2), groups=groups)
    assert both.algorithms[0]["chosen"] == "nvls simple 16 channels"
    assert us(both) == pytest.approx(alone)
    # Groups across nodes are not on NVSwitches.
    across = run(size=64 * MIB, dims=(8, 2), groups=[[i, i + 8] for i in range(8)])
    assert across.algorithms[0]["dimension"] == 1
    assert not across.algorithms[0]["chosen"].startswith("nvls")


@pytest.mark.parametrize("optimization", ["baseline", "localBWAware"])
@pytest.mark.parametrize(
    ("kind", "stride", "inside", "nodes", "phases"),
    [
        ("all-reduce", 1, 8, 4, ["reduce-scatter 8", "all-reduce 4", "all-gather 8"]),
        ("all-reduce", 2, 4, 4, ["reduce-scatter 4", "all-reduce 4", "all-gather 4"]),
        ("all-gather", 2, 4, 4, ["all-gather 4", "all-gather 4"]),
        ("reduce-scatter", 4, 2, 4, ["reduce-scatter 2", "reduce-scatter 4"]),
        ("all-reduce", 8, 1, 4, ["all-reduce 4"]),
        ("all-reduce", 1, 4, 1, ["all-reduce 4"]),
    ],
)
def test_several_gpus_of_a_node_use_all_of_their_adapters(
    kind: str, stride: int, inside: int, nodes: int, phases: list[str], optimization: str
) -> None:
    """Between nodes each has its part alone, (n - 1) / n of S / k bytes each way."""
    size, ranks = 512 * MIB, inside * nodes
    groups = None
    if (stride, ranks) != (1, 32):
        first = [r for r in range(32) if r // stride % ranks == 0]
        groups = [[one + stride * i for i in range(ranks)] for one in first]
    given = size // ranks * 32 if kind == "all-gather" else size
    found = run(
        kind, given, dims=(8, 4), groups=groups, algo="ring", proto="simple",
        system={"collective-optimization": optimization},
    )  # fmt: skip
    said = [f"{one['collective']} {one['ranks']}" for one in found.algorithms]
    assert set(said) == set(phases)
    if nodes == 1:
        return
    ways = 2 if kind == "all-reduce" else 1
    wire_us = ways * size / inside * (nodes - 1) / nodes / 50e3
    # All else: what the links inside take, at 450 GB/s a way, and steps of 14 us.
    within_us = ways * size * (inside - 1) / inside / (450e3 * 0.8)
    assert wire_us < us(found) < wire_us + 1.4 * within_us + 400


@pytest.mark.parametrize("backend", ["analytical-aware", "flow", "garnet"])
def test_other_backends_run_it_and_say_what_they_lack(backend: str, missing: Any) -> None:
    size = 16 * MIB if backend != "garnet" else 256 * KIB
    topology = "Switch" if backend != "garnet" else "Ring"
    result = run(size=16 * MIB, backend=backend, topology=topology, dims=(8,))
    assert result.algorithms[0]["chosen"] == "ring ll128 24 channels"
    assert any("NVLS needs a network that reduces" in one for one in result.warnings)
    assert us(result) > 0.9 * us(run(size=size))


def test_between_nodes_nccls_constants_count() -> None:
    """PAT and trees have one member for each node."""
    machine = hardware("h100-sxm")
    for kind, algorithm, ranks in (
        ("all-gather", "pat", 16), ("all-reduce", "tree", 16), ("all-reduce", "ring", 4),
    ):  # fmt: skip
        groups = [[i + 8 * k for k in range(ranks)] for i in range(8)]
        size = 4 * MIB
        result = run(
            kind, size * 8 if kind == "all-gather" else size, dims=(8, ranks), groups=groups,
            algo=algorithm,
        )  # fmt: skip
        chosen = result.algorithms[0]
        assert chosen["chosen"].startswith(algorithm)
        where = Where(ranks, 50.0, True)
        choice = nccl_choice(machine, NAMES[kind], ranks, size, algorithms=[algorithm], where=where)
        cost = nccl_cost(machine, NAMES[kind], ranks, size, choice, where=where)
        # The network's own latency comes on top: two links of 1 us for each round.
        rounds = cost.rounds * (2 if cost.both else 1)
        assert us(result) == pytest.approx(cost.us(50.0) + 2 * rounds, rel=0.02)


def test_the_result_says_what_was_chosen() -> None:
    result = run(size=64 * MIB)
    assert result.algorithms == (
        {
            "collective": "all-reduce", "ranks": 8, "bytes": 64 * MIB, "dimension": 0,
            "chosen": "nvls simple 16 channels",
        },
    )  # fmt: skip
    assert result.to_dict()["algorithms"] == list(result.algorithms)
    assert "all-reduce of 8 ranks, 67,108,864 B: nvls simple 16 channels" in repr(result)
    plain = run(system={"all-reduce-implementation": ["ring"]})
    assert plain.algorithms == ()
    assert "algorithms" not in plain.to_dict()


def test_channels_are_limited() -> None:
    def channels(**nccl: Any) -> str:
        return str(run(size=4 * MIB, algo="ring", proto="ll", **nccl).algorithms[0]["chosen"])

    assert channels() == "ring ll 24 channels"
    assert channels(**{"max-nchannels": 4}) == "ring ll 4 channels"
    assert channels(**{"min-nchannels": 32}) == "ring ll 32 channels"


TUNER = """\
# collective_type,min_bytes,max_bytes,algorithm,protocol,channels,nNodes,nRanks,numPipeOps,regBuff
allreduce,0,65536,tree,simple,2,1,-1,-1,1
allreduce,0,65536,tree,ll,2,1,8

allreduce,65537,4294967295,ring,ll128,-1,1,-1,-1,0
allgather,0,4294967295,nvls_tree,simple,4,-1,-1
"""


def test_a_tuner_file_forces(tmp_path: Path) -> None:
    file = tmp_path / "nccl_tuner.conf"
    file.write_text(TUNER)
    assert len(read_tuner(file)) == 3  # registered buffers are another thing
    forced = {"tuner-file": str(file)}
    assert run(size=KIB, **forced).algorithms[0]["chosen"] == "tree ll 2 channels"
    assert run(size=64 * MIB, **forced).algorithms[0]["chosen"] == "ring ll128 24 channels"
    # What NCCL does not have there stays its own choice.
    assert run("all-gather", 64 * MIB, **forced).algorithms[0]["chosen"].startswith("ring")


def test_the_environment_counts_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_ALGO", "Tree")
    monkeypatch.setenv("NCCL_MAX_NCHANNELS", "2")
    assert run(size=64 * MIB).algorithms[0]["chosen"].startswith("nvls")
    asked = run(size=64 * MIB, environment=True)
    assert asked.algorithms[0]["chosen"] == "tree simple 2 channels"
    # What the file says outranks it.
    assert (
        run(size=64 * MIB, environment=True, algo="ring").algorithms[0]["chosen"].startswith("ring")
    )
    monkeypatch.setenv("NCCL_MAX_NCHANNELS", "many")
    with pytest.raises(InputError, match="environment variable NCCL_MAX_NCHANNELS"):
        run(environment=True)


@pytest.mark.parametrize(
    ("nccl", "said"),
    [
        ({"algo": "rings"}, "'rings' is not known to NCCL; allowed: .*did you mean 'ring'"),
        ({"algo": "ring;tree"}, "all entries but the first begin with a collective"),
        ({"algo": "allreduces:tree"}, "'allreduces' is no collective"),
        ({"proto": "ll256"}, "'ll256' is not known to NCCL"),
        ({"algo": "collnetdirect"}, "NCCL has no all_reduce of 8 ranks by nothing"),
        ({"max-nchannels": 65}, "max_nchannels"),
        ({"min-nchannels": 9, "max-nchannels": 8}, "9 is more than max-nchannels, 8"),
        ({"tuner-file": "no-such.conf"}, "no-such.conf"),
        ({"environment": "yes"}, "allowed: true, false"),
        ({"algos": "ring"}, "did you mean 'algo'"),
        ({"hardware": "h10"}, "'h10'"),
        ({"hardware": "mi300x"}, "compute capability"),
    ],
)
def test_what_is_refused(nccl: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(**nccl)


def test_an_accelerator_is_needed() -> None:
    with pytest.raises(InputError, match="hardware: missing"):
        run(system={"hardware": None})


def test_a_tuner_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tuner.conf")
    with pytest.raises(InputError, match="regular file"):
        read_tuner(tmp_path / "tuner.conf")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("allreduce,0,1,ring", "line 1: has 4 fields; allowed: 8 to 10"),
        ("allreduc,0,1,ring,ll,1,1,1", "line 1: collective_type.*did you mean 'allreduce'"),
        ("allreduce,a,1,ring,ll,1,1,1", "line 1: min_bytes: 'a'"),
        (
            "allreduce,0,1,ring,ll,99,1,1",
            "line 1: channels: '99' .*allowed: -1 to 64",
        ),
    ],
)
def test_a_bad_line_of_a_tuner_file_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "tuner.conf"
    file.write_text(line + "\n")
    with pytest.raises(InputError, match=said):
        read_tuner(file)


def test_settings_decide_the_token() -> None:
    from astra_bridge import Experiment

    def token(**nccl: Any) -> str:
        return str(
            Experiment(
                workload=collective("all-reduce", MIB, 8),
                system={"all-reduce-implementation": ["nccl"], "hardware": "h100-sxm",
                        "nccl": nccl},
                network={"topology": ["Switch"], "npus_count": [8], "bandwidth": [400.0],
                         "latency": [100.0]},
            ).token
        )  # fmt: skip

    assert token() == token()
    assert token() != token(algo="ring")
    assert NcclSettings() == NcclSettings(tuner=())


@pytest.mark.parametrize("engine", ["native", "python"])
def test_members_of_a_reduction_fold(engine: str) -> None:
    """One stands for all; groups of which some members are alike count those that run."""
    nodes = [list(range(8 * i, 8 * i + 8)) for i in range(4)]
    for groups in (None, nodes):
        folded, plain = (
            run(size=64 * MIB, dims=(8, 4), groups=groups, fold=fold, engine=engine)
            for fold in ("auto", "off")
        )
        assert folded.folding.copies > 1, folded.folding.sentence()
        assert folded.finish_ps.tolist() == plain.finish_ps.tolist()
