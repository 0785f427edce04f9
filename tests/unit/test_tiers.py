# SPDX-License-Identifier: MIT
"""Links by tier: what the tiers of a small fabric carry is known beforehand."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from astra_bridge import fabrics, simulate
from astra_bridge.cli import main
from astra_bridge.cli.summary import summary
from astra_bridge.errors import ContractError, InputError
from astra_bridge.inputs.network import NetworkDims, NodeRange, read_network
from astra_bridge.network.analytical.load import LinkLoad
from astra_bridge.network.api import TIME_NEVER, TRANSFER, NetworkConfig
from astra_bridge.network.native import library_path
from astra_bridge.network.ns3.build import NS3
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.network.statistics import checked
from astra_bridge.results import Result, Table
from astra_bridge.results.tiers import tier_load, tiers_of
from astra_bridge.topology import LinkTiers, links_of_dims, topology_of
from astra_bridge.trace import CommType
from astra_bridge.workload import TraceBuilder
from tests.small import network, per_rank, run, same_on_all, system

ROOT = Path(__file__).parents[2]
RATE_BPS = 50e9  # bytes per second: 400 Gbps
SIZE = 4096 * 500  # bytes that each of three ranks sends to the fourth
US = 10**6  # ps

needs_ns3 = pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable()))
needs_native = pytest.mark.skipif(not library_path("flow").exists(), reason="flow is not built")
backends = pytest.mark.parametrize(
    "name",
    [
        "analytical-aware-python",
        *(pytest.param(one, marks=needs_native) for one in ("analytical-aware", "flow", "garnet")),
        pytest.param("ns3", marks=needs_ns3),
    ],
)


def leaves_and_spines() -> dict[str, Any]:
    """Ranks 0 and 1 on one leaf, 2 and 3 on the other; each leaf has a cable to both spines."""
    cables = [(0, 4), (1, 4), (2, 5), (3, 5), (4, 6), (4, 7), (5, 6), (5, 7)]
    return {
        "endpoints": 4,
        "switches": 4,
        "nodes": [
            {"tier": "gpu", "first": 0, "count": 4},
            {"tier": "leaf", "first": 4, "count": 2},
            {"tier": "spine", "first": 6, "count": 2},
        ],
        "links": [
            {"src": src, "dst": dst, "bandwidth": "400Gbps", "latency": "500ns"}
            for src, dst in cables
        ],
    }


def incast(name: str, **options: object) -> Result:
    """Ranks 0, 1 and 2 send to rank 3, all at once."""

    def fill(trace: TraceBuilder, rank: int) -> None:
        for src in range(3):
            if rank == 3:
                trace.recv(src, SIZE, src)
            elif rank == src:
                trace.send(3, SIZE, src)

    return simulate(
        per_rank(4, fill), system(), leaves_and_spines(), backend=name,
        network_options={key: str(value) for key, value in options.items()},
    )  # fmt: skip


def rows(table: Table) -> dict[str, dict[str, Any]]:
    """The table of tiers, by tier."""
    columns = {name: values.tolist() for name, values in table.items()}
    return {
        tier: {name: values[at] for name, values in columns.items()}
        for at, tier in enumerate(columns["tier"])
    }


# What tiers carry


@pytest.mark.parametrize(
    "name", ["analytical-aware-python", pytest.param("flow", marks=needs_native)]
)
def test_bytes_of_an_incast(name: str) -> None:
    """Three messages go up to their leaf, two of them over a spine, and all down to rank 3."""
    result = incast(name, **({"header_bytes": 0} if name == "flow" else {}))
    tiers = rows(result.tiers)
    assert {tier: (row["links"], row["bytes"]) for tier, row in tiers.items()} == {
        "gpu-leaf up": (4, 3 * SIZE), "gpu-leaf down": (4, 3 * SIZE),
        "leaf-spine up": (4, 2 * SIZE), "leaf-spine down": (4, 2 * SIZE),
    }  # fmt: skip
    # A message holds a link for SIZE / RATE = 40.96 us; analytical-aware cuts off to whole ns.
    held_ps = SIZE / RATE_BPS * 1e12
    end_ps = int(result.finish_ps.max())
    for row, messages in zip(tiers.values(), (3, 3, 2, 2), strict=True):
        assert row["busy_share"] == pytest.approx(messages * held_ps / 4 / end_ps, abs=1e-4)
    down = tiers["gpu-leaf down"]
    assert down["max_busy_share"] == pytest.approx(3 * held_ps / end_ps, abs=1e-4)
    assert down["busiest_link"] == "leaf1 -> gpu3"
    assert "ecn_marks" not in down


@needs_ns3
def test_marks_pauses_and_queues_of_an_incast() -> None:
    """Packets of 4096 + 82 bytes, acknowledgements of 86 and pauses of 84."""
    small = {
        "buffer_bytes": 300_000, "ecn_map": "400000000000:20000:100000:0.5",
        "congestion_control": "none", "window": "none",
    }  # fmt: skip
    result = incast("ns3", **small)
    links, tiers = result.links, rows(result.tiers)
    for column in ("bytes", "packets", "drops", "lost", "ecn_marks", "pauses_sent"):
        assert sum(row[column] for row in tiers.values()) == links[column].sum()
    for total, column in (("ecn_marks", "ecn_marks"), ("pfc_pauses", "pauses_sent")):
        assert result.network[total] == sum(row[column] for row in tiers.values()) > 0
    # Most marks are where three come together.  Pauses go to those who send into that switch, where
    # queues then grow too, but none to a NIC's own queue.
    down = tiers["gpu-leaf down"]
    assert down["ecn_marks"] == max(row["ecn_marks"] for row in tiers.values())
    assert tiers["gpu-leaf up"]["ecn_marks"] == 0
    assert down["busiest_link"] == "leaf1 -> gpu3"
    assert {tier for tier, row in tiers.items() if row["pauses_sent"]} >= {"leaf-spine up"}
    # On each tier data packets as known; what is not data is an acknowledgement or a pause.
    pfc = result.tables["pfc"]
    frames = np.bincount(pfc["link"], minlength=len(links))
    for tier, messages in (("gpu-leaf up", 3), ("gpu-leaf down", 3), ("leaf-spine up", 2)):
        pauses = int(frames[links["tier"] == tier].sum())
        data = messages * SIZE // 4096
        other = tiers[tier]["packets"] - data - pauses
        assert tiers[tier]["bytes"] == data * 4178 + pauses * 84 + other * 86
    assert down["max_queue_bytes"] == links["max_queue_bytes"].max() > 0
    queued = links["mean_queue_bytes"][links["tier"] == "gpu-leaf down"]
    assert down["mean_queue_bytes"] == pytest.approx(queued.sum() / 4)
    assert 0 < queued.max() < down["max_queue_bytes"]
    told = summary(result)
    marks = result.network["ecn_marks"]
    assert f"{marks:,} ECN marks ({down['ecn_marks']:,} on gpu-leaf down, " in told
    assert f", {links['ecn_marks'].max():,} at leaf1 -> gpu3)" in told
    assert "longest queue" in told


@needs_ns3
def test_the_mean_queue_is_that_of_the_time() -> None:
    """Two hosts send P packets to a third at line rate: the queue rises to P packets, and falls.

    Both send for P T, meanwhile P packets leave and P - 1 wait in the end, which leave in P T.
    Half of the peak on average over the 2 P T; the latencies before and after are short.
    """
    packets = 1000
    size = packets * 4096

    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 2:
            trace.recv(0, size, 0)
            trace.recv(1, size, 1)
        else:
            trace.send(2, size, rank)

    star = {
        "endpoints": 3, "switches": 1,
        "links": [{"src": at, "dst": 3, "bandwidth": "400Gbps", "latency": "10ns"}
                  for at in range(3)],
    }  # fmt: skip
    options = {"pfc": "false", "window": "none", "congestion_control": "none"}
    result = simulate(per_rank(3, fill), system(), star, backend="ns3", network_options=options)
    (at,) = np.flatnonzero((result.links["src"] == 3) & (result.links["dst"] == 2))
    peak = result.links["max_queue_bytes"][at]
    assert peak == pytest.approx(packets * 4178, rel=0.01)
    assert result.links["mean_queue_bytes"][at] == pytest.approx(peak / 2, rel=0.01)


# Over time


@backends
@pytest.mark.parametrize("interval_us", [0.5, 7])
def test_loads_over_time_add_up(name: str, interval_us: float) -> None:
    """Per link the intervals have the bytes and the busy time of the whole; none is overfull."""
    result = incast(name, sample_interval_us=interval_us)
    plain = incast(name)
    assert result.finish_ps.tolist() == plain.finish_ps.tolist()
    for column, values in plain.links.items():
        assert values.tolist() == result.links[column].tolist()
    assert "link_load" not in plain.tables
    assert result.network["sample_interval_ps"] == interval_us * US
    links, load = result.links, result.tables["link_load"]
    assert (load["time_ps"] % (interval_us * US) == 0).all()
    assert (load["busy_ps"] <= interval_us * US).all()
    for column in ("bytes", "busy_ps"):
        sums = np.zeros(int(links["link"].max()) + 1, np.int64)
        np.add.at(sums, load["link"], load[column])
        slack = 1 if name == "flow" else 0  # it rounds each link's busy time up
        assert np.abs(sums[links["link"]] - links[column]).max() <= slack
    # By tier likewise.
    over_time, tiers = result.tier_load, rows(result.tiers)
    for tier, row in tiers.items():
        mine = over_time["tier"] == tier
        assert over_time["bytes"][mine].sum() == row["bytes"]
        busy_ps = over_time["busy_share"][mine].sum() * interval_us * US
        assert busy_ps == pytest.approx(row["busy_share"] * result.finish_ps.max(), abs=4)
        assert (over_time["busy_share"][mine] <= over_time["max_busy_share"][mine]).all()


@pytest.mark.parametrize(
    "name", ["analytical-aware-python", pytest.param("flow", marks=needs_native)]
)
def test_shares_over_time_of_one_message(name: str) -> None:
    """SIZE takes 40.96 us on its first link: four intervals of 10 us in full, then 0.96 us."""
    result = run(
        per_rank(4, lambda trace, rank: trace.send(1, SIZE, 7) if rank == 0 else
                 trace.recv(0, SIZE, 7) if rank == 1 else None),
        system(), leaves_and_spines(), backend=name,
        network_options={"sample_interval_us": "10"}
        | ({"header_bytes": "0"} if name == "flow" else {}),
    )  # fmt: skip
    load = result.tables["link_load"]
    first = load["link"] == 0
    assert load["time_ps"][first].tolist() == [0, 10 * US, 20 * US, 30 * US, 40 * US]
    shares = load["busy_ps"][first] / (10 * US)  # from the endpoint delay of 10 ns on
    assert shares.tolist() == pytest.approx([1, 1, 1, 1, 0.096], abs=2e-3)
    assert load["bytes"][first].tolist() == pytest.approx([500_000] * 4 + [48_000], rel=0.02)


@needs_ns3
def test_queues_by_tier_over_time() -> None:
    """The largest of the samples of a tier, in the interval that a sample ends."""
    result = incast("ns3", sample_interval_us=5, window="none", congestion_control="none")
    queues, load = result.tables["queues"], result.tier_load
    assert (queues["time_ps"] % (5 * US) == 0).all()
    down = np.flatnonzero(result.links["tier"] == "gpu-leaf down")
    mine = load["tier"] == "gpu-leaf down"
    assert load["max_queue_bytes"][mine].max() > 0
    for at, longest, mean in zip(
        load["time_ps"][mine].tolist(),
        load["max_queue_bytes"][mine].tolist(),
        load["mean_queue_bytes"][mine].tolist(),
        strict=True,
    ):
        ends = (queues["time_ps"] == at + 5 * US) & np.isin(queues["link"], down)
        assert longest == queues["queue_bytes"][ends].max(initial=0)
        assert mean == pytest.approx(queues["queue_bytes"][ends].sum() / 4)


def test_intervals_become_longer_where_there_are_too_many() -> None:
    load = LinkLoad(10, most_rows=4)
    load.add(0, 0, 60, 600, 60)  # six intervals of 10 would be one too many
    load.add(1, 5, 15, 100, 10)
    found = load.statistics([0, 1])
    assert found["sample_interval_ps"] == 20
    table = found["tables"]["link_load"]
    assert table["time_ps"] == [0, 20, 40, 0]
    assert table["bytes"] == [200, 200, 200, 100]
    assert table["busy_ps"] == [20, 20, 20, 10]
    load.add(0, 60, 160, 1000, 100)
    assert load.statistics([0])["sample_interval_ps"] == 80  # 40 would be five rows
    assert load.statistics([0])["tables"]["link_load"]["bytes"] == [800, 800]
    load.add(0, 1 << 60, (1 << 60) + 1, 5, 1)  # far away is one row
    assert load.statistics([0])["tables"]["link_load"]["time_ps"][-1] == (1 << 60) // 80 * 80


@needs_native
def test_natively_too() -> None:
    """A message holds its link for 20 s; of intervals of 1 us that would be 20 million rows."""
    config = backend("analytical-aware").prepare(
        NetworkRequest(network(npus=3, bandwidth=0.05), options={"sample_interval_us": "1"})
    )
    with backend("analytical-aware").open(config.config) as opened:
        opened.submit(np.array([(0, 0, 1 << 30, 0, 1, 0, 0, 0)], TRANSFER))
        opened.advance(TIME_NEVER)
        stats = opened.stats()
    doublings = 5  # 20 * 10**6 / 2**20 is more than 16, and at most 32
    assert stats["sample_interval_ps"] == US << doublings
    table = stats["tables"]["link_load"]
    assert len(table["link"]) == -(-stats["tables"]["links"]["busy_ps"][0] // (US << doublings))
    assert sum(table["bytes"]) == 1 << 30


@needs_native
@pytest.mark.parametrize("name", ["analytical-aware", "flow", "analytical-aware-python"])
def test_loads_are_part_of_what_is_saved(name: str) -> None:
    request = NetworkRequest(leaves_and_spines(), options={"sample_interval_us": "3"})
    config = backend(name).prepare(request).config
    items = np.array([(at, 0, SIZE, at, 3, 0, 0, 0) for at in range(3)], TRANSFER)
    with backend(name).open(config) as one, backend(name).open(config) as other:
        one.submit(items)
        one.advance(50 * US)
        other.restore(one.save())
        for opened in (one, other):
            for _ in items:
                opened.poll()
                opened.advance(TIME_NEVER)
        assert one.stats() == other.stats()
        assert sum(one.stats()["tables"]["link_load"]["bytes"]) > SIZE


@pytest.mark.parametrize("given", ["-1", "x", "1e10", "nan"])
@pytest.mark.parametrize("name", ["analytical-aware-python", "analytical-aware", "flow", "garnet"])
def test_wrong_intervals(name: str, given: str) -> None:
    if name != "analytical-aware-python" and not library_path("flow").exists():
        pytest.skip("not built")
    with pytest.raises((ContractError, InputError), match="sample_interval_us"):
        incast(name, sample_interval_us=given)


def test_networks_without_links_have_no_intervals() -> None:
    with pytest.raises(InputError, match="unknown option 'sample_interval_us'"):
        incast("analytical-unaware", sample_interval_us=1)
    result = incast("analytical-unaware")
    for table in ("tiers", "tier_load"):
        with pytest.raises(InputError, match="reports no links"):
            getattr(result, table)
    with pytest.raises(InputError, match="reports no link_load"):
        _ = incast("analytical-aware").tier_load


# Which tier a link belongs to


def test_tiers_of_dimensions() -> None:
    """A ring of 4 has 8 links per group of 4 ranks, a switch of 3 six per group of 3."""
    result = simulate(
        same_on_all(12, lambda trace: trace.coll(CommType.ALL_REDUCE, 12 * 4096)),
        system(["ring", "ring"]), network("Ring Switch", [4, 3], [50, 25], [500, 500]),
        backend="analytical-aware",
    )  # fmt: skip
    tiers = rows(result.tiers)
    assert {tier: row["links"] for tier, row in tiers.items()} == {"dim0": 24, "dim1": 24}
    # On the ring 2 x 3/4 of the size cross one link per rank; on the switch, of a quarter, 2 x 2/3
    # cross two links.
    assert tiers["dim0"]["bytes"] == 12 * 2 * 3 * (12 * 4096) // 4
    assert tiers["dim1"]["bytes"] == 12 * 2 * 2 * 2 * (3 * 4096) // 3
    assert tiers["dim0"]["busiest_link"] == "0 -> 1"


@pytest.mark.parametrize("kinds", [["Ring"], ["Switch", "FullyConnected", "Ring"]])
def test_links_of_dimensions_are_those_of_the_graph(kinds: list[str]) -> None:
    sizes = (4, 3, 2)[: len(kinds)]
    rate = (50.0,) * len(kinds)
    dims = NetworkDims(tuple(kinds), sizes, rate, rate)
    assert sum(links_of_dims(dims)) == len(topology_of(dims).src)
    assert links_of_dims(read_network(leaves_and_spines())) == ()


def test_tiers_of_fabrics() -> None:
    network = fabrics.rail(16, hosts_per_leaf=2, gpus_per_host=4)
    topology = topology_of(network)
    tiers = LinkTiers.of_nodes(
        network.names, network.endpoints, network.nodes, (topology.src, topology.dst)
    )
    assert dict(zip(tiers.names, tiers.links, strict=True)) == {
        "gpu-nvlink up": 16, "gpu-nvlink down": 16,
        "gpu-leaf up": 16, "gpu-leaf down": 16,
        "leaf-spine up": 16, "leaf-spine down": 16,
    }  # fmt: skip
    found = tiers.of(np.arange(len(topology.src)))
    leaf = network.name_of(int(topology.dst[np.flatnonzero(found == "leaf-spine down")[0]]))
    assert "leaf" in leaf
    # Routers among themselves lead nowhere in particular, and nodes need no name.
    ends = np.array([0, 2, 2, 3]), np.array([2, 0, 3, 2])
    mixed = LinkTiers.of_nodes((NodeRange("router", 2, 2),), 2, 4, ends)
    assert (mixed.names, mixed.links) == (
        ("gpu-router up", "gpu-router down", "router-router"), (1, 1, 2),
    )  # fmt: skip
    assert mixed.of(np.array([3, -1, 9])).tolist() == ["router-router", "own switch", "own switch"]


@needs_ns3
def test_cables_to_an_own_switch() -> None:
    """Ranks of a ring forward, so that each has a switch of its own in ns-3."""
    result = run(
        same_on_all(4, lambda trace: trace.coll(CommType.ALL_REDUCE, 4096)), system(),
        network(npus=4), backend="ns3",
    )  # fmt: skip
    assert {tier: row["links"] for tier, row in rows(result.tiers).items()} == {
        "dim0": 8, "own switch": 8,
    }  # fmt: skip


def test_the_links_of_a_network_of_garnet_have_dimensions() -> None:
    if not library_path("garnet").exists():
        pytest.skip("garnet is not built")
    result = run(
        same_on_all(9, lambda trace: trace.coll(CommType.ALL_REDUCE, 4096)),
        system(["ring", "ring"]),
        {"topology": "Mesh_XY 3x3", "flit_bytes": 64}, backend="garnet",
    )  # fmt: skip
    assert {tier: row["links"] for tier, row in rows(result.tiers).items()} == {
        "dim0": 12, "dim1": 12,
    }  # fmt: skip


def test_a_network_that_nobody_describes_has_no_tiers() -> None:
    """One that a backend builds of options of its own."""
    prepared = replace(
        backend("analytical-aware").prepare(NetworkRequest(leaves_and_spines())),
        config=NetworkConfig(4, 4), names=(),
    )  # fmt: skip
    assert prepared.link_tiers().names == ()
    ran = incast("analytical-aware")
    result = replace(ran, experiment=SimpleNamespace(prepared=prepared))
    assert "tier" not in result.links
    assert result.tiers["tier"].tolist() == ["other"]
    assert result.tiers["bytes"].tolist() == [ran.link_bytes.sum()]


# Tables


def test_tables_of_anybody() -> None:
    """What a backend does not say is left out; what is wrong is the fault of the backend."""
    links = Table("links", {"src": [5], "dst": [6], "bytes": [7], "busy_ps": [8]})
    assert rows(tiers_of(links, {}, 0))["other"] == {
        "tier": "other", "links": 1, "bytes": 7, "busy_share": 8.0, "max_busy_share": 8.0,
        "busiest_link": "5 -> 6",
    }  # fmt: skip
    empty = Table("links", {name: np.zeros(0, np.int64) for name, _ in links.items()})
    assert len(tiers_of(empty, {"gpu-leaf up": 3}, 1)) == 1
    load = Table("link_load", {"link": [9], "time_ps": [-5], "bytes": [1], "busy_ps": [1]})
    for some in (links, empty):
        for counts in ({}, {"gpu-leaf up": 3}):
            assert tier_load(some, load, Table("queues", {"link": [1.5]}), counts, 10)["bytes"] == [
                1
            ]
    whole = {"link": [0], "time_ps": [0], "bytes": [1], "busy_ps": [1]}
    with pytest.raises(ContractError, match="sample_interval_ps"):
        checked("mine", {"tables": {"link_load": whole}})
    with pytest.raises(ContractError, match="'link_load' lacks the column 'busy_ps'"):
        checked(
            "mine",
            {"tables": {"link_load": {key: whole[key] for key in ("link", "time_ps", "bytes")}}},
        )
    checked("mine", {"sample_interval_ps": 5, "tables": {"link_load": whole}})


def test_files(tmp_path: Path) -> None:
    result = incast("analytical-aware", sample_interval_us=5)
    result.save(tmp_path)
    with (tmp_path / "tiers.csv").open() as lines:
        table = list(csv.DictReader(lines))
    assert [row["tier"] for row in table] == result.tiers["tier"].tolist()
    assert result.tiers.units["bytes"] == "bytes"
    assert (tmp_path / "tier_load.csv").exists()
    pytest.importorskip("matplotlib")
    assert (tmp_path / "tiers.svg").read_text().count("leaf-spine") >= 0
    again = tmp_path / "again"
    incast("analytical-aware").save(again)
    assert (again / "tiers.csv").exists()
    assert not (again / "tiers.svg").exists()


# The page


@needs_ns3
def test_the_page_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands run, print the table and draw the picture; its Python runs."""
    page = (ROOT / "docs/tiers.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (commands,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    for line in commands.replace("\\\n", " ").splitlines():
        program, *words = line.split()
        assert program == "astra-bridge"
        assert main(words) == 0
    printed = capsys.readouterr().out
    table = [line.strip() for line in page.splitlines() if re.match("    (gpu|leaf)-", line)]
    assert len(table) == 6
    assert set(table) <= set(printed.splitlines())
    pytest.importorskip("matplotlib")
    assert (tmp_path / "out" / "tiers.svg").exists()
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, {})
    assert "leaf-spine up: " in capsys.readouterr().out
