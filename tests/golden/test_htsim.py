# SPDX-License-Identifier: MIT
"""htsim through the bridge: its own programs' flow completion times, physics, and all-reduces.

Runs where ``HTSIM_ROOT`` is a checkout of htsim; what compares with its programs, where ``make``
has been run there as its README says.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge import fabrics, simulate
from astra_bridge.cli import main
from astra_bridge.conformance import run_supervised
from astra_bridge.errors import AstraBridgeError
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.network.api import TRANSFER
from astra_bridge.network.htsim.build import HTSIM
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.units import TIME_NEVER
from astra_bridge.workload import collective
from tests.waiting import HANGS_S

ROOT = Path(__file__).parents[2]
TRANSPORTS = ("ndp", "eqds", "roce", "hpcc", "swift", "tcp", "dctcp")
Connection = tuple[int, int, int]  # from, to, bytes
TINY = "leaf_spine_tiny.topo"  # 32 hosts, 4 leaves of 8, 2 spines


@pytest.fixture(autouse=True)
def needs_htsim(missing: Callable[[str, str], None]) -> None:
    reason = HTSIM.unavailable()
    if reason is not None:
        missing("htsim", reason)


def folder() -> Path:
    return Path(os.environ["HTSIM_ROOT"]) / "sim" / "datacenter"


def run(
    network: Any, connections: Iterable[Connection], start_ps: int = 0, **options: object
) -> tuple[list[int], dict[str, Any]]:
    """Times that the transfers take [ps], all from one instant, and the statistics."""
    spec = backend("htsim")
    prepared = spec.prepare(
        NetworkRequest(network, options={key: str(value) for key, value in options.items()})
    )
    rows = [(4 * i, start_ps, size, a, b, 0, 0, 0) for i, (a, b, size) in enumerate(connections)]
    with spec.open(prepared.config) as sim:
        assert sim.submit(np.array(rows, TRANSFER)) == len(rows)
        times: dict[int, int] = {}
        while len(times) < len(rows):
            sim.advance(TIME_NEVER)
            times |= {int(one["id"]): int(one["time_ps"]) - start_ps for one in sim.poll()}
        return [times[4 * i] for i in range(len(rows))], sim.stats()


# ---- its own programs ----


def own(
    program: str, connections: list[Connection], nodes: int, tmp_path: Path, *flags: str
) -> list[str]:
    """What htsim's program prints as the times of these flows [us]."""
    path = folder() / program
    if not path.exists():
        pytest.skip(f"{path} is not built; run make in sim and in sim/datacenter")
    matrix = tmp_path / "connections.cm"
    lines = [f"{a}->{b} id {i} start 0 size {n}" for i, (a, b, n) in enumerate(connections, 1)]
    matrix.write_text(f"Nodes {nodes}\nConnections {len(lines)}\n" + "\n".join(lines) + "\n")
    done = subprocess.run(
        [path, "-tm", matrix, "-end", "100000", *flags],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    pattern = r"Flow \w+?_(\d+)_(\d+)\S* .*?finished at ([\d.e+]+)"
    found = {(int(m[1]), int(m[2])): m[3] for m in re.finditer(pattern, done.stdout)}
    return [found[a, b] for a, b, _ in connections]


def as_printed(times_ps: list[int]) -> list[str]:
    """As a C++ stream prints a number of microseconds: six digits."""
    return [f"{time / 1e6:g}" for time in times_ps]


PERMUTATION = [(i, (i * 13 + 5) % 32, 2_000_000) for i in range(32) if (i * 13 + 5) % 32 != i]
INCAST = [(i, 31, 2_000_000) for i in range(15)]
RACK = [(i, 7, 500_000 + 100_000 * i) for i in range(7)]  # below one switch


@pytest.mark.parametrize("connections", [PERMUTATION, INCAST, RACK], ids=["perm", "incast", "rack"])
@pytest.mark.parametrize(
    ("program", "flags", "options"),
    [
        ("htsim_eqds", [], {"transport": "eqds"}),
        ("htsim_ndp", ["-nodes", "32", "-strat", "ecmp_host", "-paths", "64"], {}),
        ("htsim_ndp", ["-nodes", "32", "-strat", "perm"], {"strategy": "perm", "paths": 10000}),
    ],
    ids=["eqds", "ndp", "ndp-perm"],
)
def test_every_flow_ends_when_it_does_in_htsims_own_program(
    connections: list[Connection],
    program: str,
    flags: list[str],
    options: dict[str, object],
    tmp_path: Path,
) -> None:
    topology = folder() / "topologies" / TINY
    expected = own(program, connections, 32, tmp_path, "-topo", str(topology), *flags)
    times, stats = run(topology, connections, completion="ack", **options)
    assert as_printed(times) == expected
    assert stats["trims"] > 0  # it was congested, and decided by random numbers


def test_roce_below_one_switch_as_in_its_own_program(tmp_path: Path) -> None:
    """Beyond it the program seeds the choice of ways by the clock, and differs from itself."""
    topology = folder() / "topologies" / TINY
    flags = ["-nodes", "32", "-strat", "ecmp_host", "-paths", "64"]
    expected = own("htsim_roce", RACK, 32, tmp_path, "-topo", str(topology), *flags)
    times, _ = run(topology, RACK, completion="ack", transport="roce")
    assert as_printed(times) == expected


# ---- the contract, and physics ----


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_transport_conforms(transport: str) -> None:
    verdicts = run_supervised("htsim", options={"transport": transport}, limit_s=HANGS_S)
    assert [v for v in verdicts if v.outcome == "fail"] == []
    assert sum(v.outcome == "pass" for v in verdicts) >= 16


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_never_faster_than_bytes_over_the_bottleneck_and_latency(transport: str) -> None:
    """One flow, and eight that end at one host, on a fat-tree of 16 hosts at 400 Gbps."""
    network = fabrics.fat_tree(16, gpus_per_host=1, nvlink_gbps=0)
    size, hop_ps, byte_ps = 1 << 20, 500_000, 20
    [alone], _ = run(network, [(0, 15, size)], transport=transport)
    least = size * byte_ps + 6 * hop_ps  # edge, aggregation, core and down again
    assert least <= alone < 4 * least
    times, stats = run(network, [(i, 15, size) for i in range(8)], transport=transport)
    assert max(times) >= 8 * size * byte_ps + 2 * hop_ps
    links = stats["tables"]["links"]
    into = [row for row, dst in enumerate(links["dst"]) if dst == 15]
    # Headers and what is sent again come on top.
    assert sum(links["bytes"][row] for row in into) >= 8 * size
    assert all(busy <= max(times) + 10**9 for busy in links["busy_ps"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_same_answer_at_any_time_and_after_any_other_simulation(transport: str) -> None:
    network = fabrics.fat_tree(16, gpus_per_host=1, nvlink_gbps=0)
    flows = [(i, (i * 7 + 3) % 16, 100_000 + i) for i in range(16) if (i * 7 + 3) % 16 != i]
    first, _ = run(network, flows, transport=transport)
    run(network, flows, transport="ndp" if transport != "ndp" else "eqds", seed=2)
    assert run(network, flows, transport=transport)[0] == first
    assert run(network, flows, start_ps=10**15 + 1, transport=transport)[0] == first


def test_spraying_uses_all_ways_and_a_hash_one() -> None:
    network = fabrics.fat_tree(16, gpus_per_host=1, nvlink_gbps=0)

    def used(**options: object) -> int:
        _, stats = run(network, [(0, 15, 1 << 20)], **options)
        links = stats["tables"]["links"]
        # Up from the edge switch of host 0; its acknowledgements go down.
        return sum(
            sent > 500_000 // 4 and src >= 16 and dst >= 16
            for src, dst, sent in zip(links["src"], links["dst"], links["bytes"], strict=True)
        )

    assert used(transport="roce") == 4
    assert used(transport="ndp") > 4
    assert used(transport="ndp", paths=1) == 4


# ---- through the whole bridge ----


@pytest.mark.parametrize("transport", ["ndp", "eqds", "roce"])
def test_an_all_reduce(transport: str) -> None:
    result = simulate(
        collective("all-reduce", 1 << 20, 16),
        {"all-reduce-implementation": ["ring"], "preferred-dataset-splits": 1},
        fabrics.fat_tree(16, gpus_per_host=1, nvlink_gbps=0),
        backend="htsim",
        network_options={"transport": transport},
    )
    ideal_ns = 2 * 15 / 16 * (1 << 20) / 50  # 400 Gbps, without any latency
    assert ideal_ns <= max(result.finish_ns) < 10 * ideal_ns
    assert len(result.tables["flows"]["id"]) == 16 * 30


# ---- what users give ----


def test_dimensions_and_a_rate_that_htsim_does_not_have(caplog: pytest.LogCaptureFixture) -> None:
    """3600 Gbps are 2.2 ps per byte; htsim counts whole ones: 3."""
    [time], _ = run(
        NetworkDims(("FullyConnected",), (2,), (3600 / 8.589934592,), (0.0,)), [(0, 1, 90_000)]
    )
    assert 90_000 * 3 <= time < 90_000 * 3 * 1.2
    assert "2 links of 3600 Gbps have 2666.67 Gbps in htsim" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transprot": "ndp"}, "unknown option 'transprot'.*did you mean.*transport"),
        ({"transport": "quic"}, "'quic', but must be one of ndp, eqds"),
        ({"queue": "lossless"}, "transport=ndp needs composite"),
        ({"transport": "roce", "queue": "composite"}, "transport=roce needs one that neither"),
        ({"transport": "eqds", "entropies": 3}, "power of two"),
        ({"transport": "tcp", "routing": "spray"}, "must be ecmp or static with transport=tcp"),
        ({"transport": "eqds", "strategy": "perm"}, "option 'strategy' is unknown"),
        ({"mtu_bytes": 70000}, "whole number from 128 to 65000"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, object], message: str) -> None:
    network = fabrics.fat_tree(16, gpus_per_host=1, nvlink_gbps=0)
    with pytest.raises(AstraBridgeError, match=message):
        run(network, [(0, 1, 1)], **options)


def test_a_loss_of_links_is_refused(tmp_path: Path) -> None:
    network = tmp_path / "network.yml"
    link = "{src: 0, dst: 1, bandwidth: 100Gbps, latency: 1us, loss: 0.1}"
    network.write_text(f"endpoints: 2\nswitches: 0\nlinks: [{link}]\n")
    with pytest.raises(AstraBridgeError, match="htsim's links lose nothing"):
        run(network, [(0, 1, 1)])


def test_the_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "htsim.md").read_text()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = "".join(block for block in blocks if "topology" in block)
    for line in commands.replace("\\\n", " ").splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
    finish_ns = re.search(r"sys\[15\] finished, (\d+) cycles", capsys.readouterr().out)
    assert finish_ns is not None
    assert f"{int(finish_ns[1]):,} ns" in page
