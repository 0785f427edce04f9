# SPDX-License-Identifier: MIT
"""Small inputs of kinds that failed once: each ends as the page of ``../shared/cases`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

import astra_bridge
from astra_bridge.cli import main
from astra_bridge.errors import AstraBridgeError, InputError
from astra_bridge.network.ns3.build import NS3
from astra_bridge.trace import CommType, NodeType, read_trace, read_workload

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
COMMON = CASES / "common"

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/cases")

RIGHT = {
    "01_dangling_ctrl_deps/t": (26_542, "ctrl_deps"),
    "02_ctrl_deps_cycle/t": (51_541, "circle"),
    "03_cpu_collective_without_type/t": (106_541, ""),
    "05_group_names/float": (33_829, ""),
    "05_group_names/hash": (33_829, ""),
    "05_group_names/zero": (21_541, ""),
    "06_kineto/kineto": (131_541, "inferred"),
    "09_compute_without_duration/t": (21_542, "duration"),
    "11_p2p_without_peer/t": (576, "group"),
}
"""Case -> when the last rank ends [ns], and a word of the one warning of it."""


def test_every_case_has_a_test() -> None:
    here = {path.name[:2] for path in CASES.iterdir() if path.name[:2].isdecimal()}
    assert here == {name[:2] for name in RIGHT} | {"08", "12", "14"}


@pytest.mark.parametrize("case", RIGHT)
def test_traces(case: str) -> None:
    ranks = 4 if "group_names" in case else 2
    groups = CASES / f"{case}.json"
    finish_ns, word = RIGHT[case]
    result = astra_bridge.simulate(
        workload=CASES / case,
        system=COMMON / "system.json",
        network=COMMON / f"ring{ranks}.yml",
        remote_memory=COMMON / "mem.json",
        comm_groups=groups if groups.exists() else None,
    )
    assert max(result.finish_ns) == finish_ns
    said = [one for one in result.warnings if not one.startswith("quirk")]
    assert [word in one for one in said] == [True] * bool(word)


def test_06_names_what_takes_a_file() -> None:
    algorithm, goal = CASES / "06_kineto/algo.xml", CASES / "06_kineto/two.goal"
    with pytest.raises(AstraBridgeError, match=r"`astra-bridge trace convert .* OUT --size BYTES`"):
        read_workload(algorithm, 2)
    with pytest.raises(InputError, match=r"a GOAL schedule.*; `astra-bridge trace convert .* OUT`"):
        read_trace(goal)
    with pytest.raises(InputError, match=r"a Kineto trace.*; `astra-bridge trace convert"):
        read_trace(CASES / "06_kineto/kineto.0.json")
    assert read_workload(goal, 2).ranks == 2


def test_06_converts(tmp_path: Path) -> None:
    for given in ("kineto.{rank}.json", "two.goal"):
        out = str(tmp_path / given[:3])
        assert main(["trace", "convert", str(CASES / "06_kineto" / given), out]) == 0
        assert read_workload(out, 2).ranks == 2
    trace = read_workload(tmp_path / "kin", 2).of_rank(1)
    comm = trace.type == NodeType.COMM_COLL
    assert trace.comm_type[comm].tolist() == [CommType.ALL_REDUCE]
    assert trace.comm_size[comm].tolist() == [262144 * 4]


def test_12_dependencies(tmp_path: Path) -> None:
    out = tmp_path / "deps.et"
    assert main(["trace", "convert", str(CASES / "12_json_deps/deps.json"), str(out)]) == 0
    trace = read_trace(out)
    assert trace.dep_start.tolist() == [0, 0, 1]
    assert trace.dep.tolist() == [0]
    assert "dataDeps" not in trace.attributes(1)


NS3_COMMAND = [
    "run", "--backend", "ns3",
    f"--workload-configuration={COMMON / 'ar4'}",
    f"--system-configuration={COMMON / 'system.json'}",
    f"--remote-memory-configuration={COMMON / 'mem.json'}",
]  # fmt: skip
HERE = CASES / "08_ns3_files"
CONFIG = f"--network-configuration={HERE / 'config.txt'}"


@pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable()))
def test_08_other_forks_keys_and_topologies(capsys: pytest.CaptureFixture[str]) -> None:
    def finished(*more: str) -> tuple[list[str], str]:
        logical = f"--logical-topology-configuration={HERE / 'logical.json'}"
        assert main([*NS3_COMMAND, logical, *more]) == 0
        out, err = capsys.readouterr()
        return [line.split("] ", 3)[-1] for line in out.splitlines() if "cycles" in line], err

    plain, _ = finished(CONFIG)
    assert len(plain) == 4
    more, said = finished(f"--network-configuration={HERE / 'config_extra_key.txt'}")
    assert more == plain
    unknown = [line for line in said.splitlines() if "unknown" in line]
    assert len(unknown) == 1
    assert "BW_MON_FILE, W_AI" in unknown[0]
    simai, _ = finished(CONFIG, f"--physical-topology={HERE / 'simai_topology.txt'}")
    assert len(simai) == 4
    assert simai != plain


def test_14_a_rank_between(capsys: pytest.CaptureFixture[str]) -> None:
    chain = f"--physical-topology={CASES / '14_ns3_host_relay/topology.txt'}"
    assert main([*NS3_COMMAND, CONFIG, chain]) == 2
    said = capsys.readouterr().err
    assert "ranks 0 and 2 are joined only by way of rank 1" in said
    assert "endpoints_forward=true" in said
