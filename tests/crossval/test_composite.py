# SPDX-License-Identifier: MIT
"""Several backends on one clock: alone each gives what it gives alone, together what adds up."""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astra_bridge as ab
from astra_bridge.cli import main
from astra_bridge.conformance import run_supervised
from astra_bridge.engine import Outcome, native
from astra_bridge.engine import run as run_engine
from astra_bridge.errors import AstraBridgeError, SimulationError
from astra_bridge.inputs.network import (
    NetworkDims,
    NetworkLink,
    NetworkLinks,
    NodeRange,
    network_text,
    read_network,
)
from astra_bridge.network.api import TIME_NEVER, TRANSFER
from astra_bridge.network.native import not_built
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.program import Program
from astra_bridge.program.join import placed
from astra_bridge.workload import collective
from tests.effort import examples
from tests.random_programs import experiment
from tests.small import system

PARTS = ("analytical-aware", "analytical-unaware", "flow", "garnet")


@pytest.fixture(autouse=True)
def built(missing: Callable[[str, str], None]) -> None:
    reason = not_built("composite")
    if reason is not None:
        missing("native", reason)


@pytest.fixture(params=["native", "python"])
def engine(request: pytest.FixtureRequest, missing: Callable[[str, str], None]) -> Any:
    if request.param == "native" and native.unavailable():
        missing("native", native.unavailable() or "")
    return request.param


def outcome(name: str, network: Any, program: Program, engine: Any, semantics: Any) -> Any:
    """All numbers of a run, or how it ends."""
    spec = backend(name)
    config = spec.prepare(NetworkRequest(network, semantics=semantics)).config
    try:
        with spec.open(config) as opened:
            found: Outcome = run_engine(program, opened, engine=engine)[0]
    except SimulationError as error:
        return str(error).rpartition(": ")[2]
    numbers = (found.finish_ps, found.node_start_ps, found.node_end_ps)
    return [column.tolist() for column in numbers], found.waits.tolist(), found.transfers


@pytest.mark.parametrize("name", PARTS)
def test_one_part_for_all_is_that_backend(name: str, engine: Any, tmp_path: Path) -> None:
    for seed in range(examples(12)):
        rng = random.Random(seed)
        tried = experiment(rng, tmp_path)
        program = tried.lower().program
        network = read_network(tried.network)
        assert isinstance(network, NetworkDims)
        whole = replace(network, backends=(name,) * len(network.npus_count))
        args = (program, engine, tried.semantics)
        assert outcome("composite", whole, *args) == outcome(name, network, *args), seed


def one_dimension(seed: int, folder: Path, at: int, name: str, other: str) -> tuple[Any, ...]:
    """Random work within dimension ``at`` of a network of two, of which ``name`` has that one."""
    rng = random.Random(seed)
    tried = experiment(rng, folder)
    while len(tried.network["npus_count"]) != 1:
        tried = experiment(rng, folder)
    inner = read_network(tried.network)
    assert isinstance(inner, NetworkDims)
    size = inner.npus_count[0]
    count = rng.choice((2, 3))
    rows: dict[str, list[Any]] = {
        "topology": ["Switch"],
        "npus_count": [count],
        "bandwidth_GiBps": [40.0],
        "latency_ns": [7.0],
        "backends": [other],
    }
    own = {"backends": name}
    for key, column in rows.items():
        column.insert(at, own[key] if key in own else getattr(inner, key)[0])
    network = NetworkDims(**{key: tuple(column) for key, column in rows.items()})
    stride = 1 if at == 0 else count
    first = rng.randrange(count) * (size if at == 0 else 1)
    ranks = [first + stride * i for i in range(size)]
    program = placed(tried.lower().program, size * count, ranks, 0)
    machines = np.maximum(program.machine_of_rank, 0).astype(program.machine_of_rank.dtype)
    return network, replace(program, machine_of_rank=machines), tried.semantics


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("name", PARTS)
def test_where_one_dimension_has_traffic_it_is_its_backend(
    name: str, at: int, engine: Any, tmp_path: Path
) -> None:
    for seed in range(examples(8)):
        for other in PARTS:
            network, program, semantics = one_dimension(seed, tmp_path, at, name, other)
            alone = replace(network, backends=())
            args = (program, engine, semantics)
            assert outcome("composite", network, *args) == outcome(name, alone, *args), (
                seed,
                other,
            )


NETWORK = NetworkDims(("Ring", "Switch"), (4, 3), (100.0, 50.0), (100.0, 500.0))


def times(network: Any, rows: list[tuple[int, ...]], **options: str) -> dict[int, int]:
    """Id -> arrival [ps] of transfers (id, start_ps, bytes, src, dst)."""
    spec = backend("composite")
    config = spec.prepare(NetworkRequest(network, options=options)).config
    items = np.zeros(len(rows), TRANSFER)
    for item, row in zip(items, rows, strict=True):
        for name, value in zip(("id", "start_ps", "bytes", "src", "dst"), row, strict=True):
            item[name] = value
    arrived: dict[int, int] = {}
    with spec.open(config) as opened:
        opened.submit(items)
        while len(arrived) < len(rows):
            opened.advance(TIME_NEVER)
            for record in opened.poll():
                arrived[int(record["id"])] = int(record["time_ps"])
    return arrived


def test_a_transfer_over_two_parts_takes_what_each_takes() -> None:
    network = replace(NETWORK, backends=("analytical-unaware", "flow"))
    # From rank 0 over the ring of 4 to rank 2, then over the switch to rank 2 + 4.
    size = 1 << 20
    (there,) = times(network, [(0, 0, size, 0, 6)], border_bytes="0").values()
    (ring,) = times(network, [(0, 0, size, 0, 2)]).values()
    (switch,) = times(network, [(0, ring, size, 2, 6)]).values()
    assert there == switch
    # In pieces, all but one hide behind one another: the slower part, and a piece of the other.
    piece = 1 << 16
    (pieces,) = times(network, [(0, 0, size, 0, 6)], border_bytes=str(piece)).values()
    gone_ps = switch - ring
    assert gone_ps < pieces < 1.02 * gone_ps + 2 * ring / (size // piece) + 200_000
    assert pieces < 0.8 * there


def test_dimensions_of_one_part_are_crossed_at_once() -> None:
    three = NetworkDims(("Ring",) * 3, (4, 4, 4), (50.0,) * 3, (100.0,) * 3)
    both = replace(three, backends=("flow", "flow", "analytical-unaware"))
    to = 1 + 4 * 1
    alone = replace(three, backends=("flow",) * 3)
    assert times(both, [(0, 0, 100_000, 0, to)]) == times(alone, [(0, 0, 100_000, 0, to)])


# Two servers of two GPUs: an NVLink switch in each, and a leaf for the first and for the second GPU
# of each; GPUs pass on what is for others.
SERVERS = NetworkLinks(
    4,
    8,
    tuple(
        NetworkLink(*ends, bandwidth, latency)
        for gpu in range(4)
        for switch, bandwidth, latency in ((4 + gpu // 2, 400.0, 100.0), (6 + gpu % 2, 50.0, 500.0))
        for ends in ((gpu, switch), (switch, gpu))
    ),
    (2, 2),
    names=(NodeRange("gpu", 0, 4), NodeRange("nvlink", 4, 2), NodeRange("leaf", 6, 2)),
    endpoints_forward=True,
    backends=(("gpu", "nvlink", "garnet"), ("leaf", "gpu", "flow")),
)


def test_tiers_of_a_list_of_links_are_parts(tmp_path: Path) -> None:
    file = tmp_path / "servers.yml"
    file.write_text(network_text(SERVERS))
    assert read_network(file) == SERVERS
    spec = backend("composite")
    config = spec.prepare(NetworkRequest(file)).config
    assert [name for name, _ in config.parts] == ["flow", "garnet"]
    assert [len(part.links) for _, part in config.parts] == [8, 8]
    alone = replace(SERVERS, backends=())
    for name, src, dst in (("garnet", 0, 1), ("flow", 0, 2)):
        is_flow = name == "flow"
        mine = [one for one in SERVERS.links if (max(one.src, one.dst) >= 6) == is_flow]
        part = replace(alone, links=tuple(mine), backends=(("", "", name),))
        assert times(file, [(0, 0, 50_000, src, dst)]) == times(part, [(0, 0, 50_000, src, dst)])


def test_a_transfer_changes_parts_at_a_rank() -> None:
    # Rank 0 to rank 3: over NVLink to rank 1 and a leaf, or over a leaf to rank 2 and NVLink.
    (there,) = times(SERVERS, [(0, 0, 50_000, 0, 3)], border_bytes="0").values()
    ways = []
    for middle in (1, 2):
        (first,) = times(SERVERS, [(0, 0, 50_000, 0, middle)]).values()
        ways += times(SERVERS, [(0, first, 50_000, middle, 3)]).values()
    assert there in ways


def test_links_are_changed_and_counted_by_their_numbers() -> None:
    spec = backend("composite")
    config = spec.prepare(NetworkRequest(SERVERS)).config
    items = np.zeros(2, TRANSFER)
    items["id"], items["bytes"] = (0, 4), 50_000
    items["src"], items["dst"] = (0, 3), (1, 1)
    slow = [
        index
        for index, link in enumerate(SERVERS.links)
        if (link.src, link.dst) in ((0, 4), (3, 7))
    ]
    done = {}
    for scale in (1.0, 0.5):
        with spec.open(config) as opened:
            for link in slow:
                opened.set_link(link, 0, scale)
            opened.submit(items)
            ends = {}
            while len(ends) < 2:
                opened.advance(TIME_NEVER)
                for record in opened.poll():
                    ends[int(record["id"])] = int(record["time_ps"])
            done[scale] = ends
            table = opened.stats()["tables"]["links"]
        rows = dict(zip(table["link"], table["bytes"], strict=True))
        used = {
            index
            for index, link in enumerate(SERVERS.links)
            if (link.src, link.dst) in ((0, 4), (4, 1), (3, 7), (7, 1))
        }
        assert {link for link, count in rows.items() if count} == used
        named = dict(zip(table["link"], table["backend"], strict=True))
        assert {named[link] for link in used} == {"garnet", "flow"}
    assert all(done[0.5][number] > 1.1 * done[1.0][number] for number in (0, 4))


@pytest.mark.parametrize(
    ("network", "options", "said"),
    [
        (NETWORK, {}, "backends: missing; a composite network needs a backend for each of 2"),
        (NETWORK, {"backends": "flow"}, "has 1 entries"),
        (NETWORK, {"backends": "flow,flwo"}, "did you mean 'flow'"),
        (NETWORK, {"backends": "flow,composite"}, "a composite network needs a backend for each"),
        (NETWORK, {"backends": "flow,analytical-aware-python"}, "a part must be a shared library"),
        (
            NETWORK,
            {"backends": "flow,garnet", "ns3.mtu_bytes": "9000"},
            "the parts of this network: flow, garnet",
        ),
        (NETWORK, {"backends": "flow,flow", "flow.mtu": "9000"}, "mtu_bytes"),
        (NETWORK, {"backends": "flow,flow", "border": "9000"}, "did you mean 'border_bytes'"),
        (replace(SERVERS, backends=()), {}, "no backend for the links between tiers gpu and"),
        (SERVERS, {"backends": "flow,flow"}, "is for networks of dimensions"),
    ],
)
def test_what_is_wrong_is_said(network: Any, options: dict[str, str], said: str) -> None:
    spec = backend("composite")
    with pytest.raises(AstraBridgeError) as caught:
        spec.open(spec.prepare(NetworkRequest(network, options=options)).config).close()
    assert said in str(caught.value)


LEAVES = NetworkLinks(
    8,
    14,
    tuple(
        NetworkLink(*ends, 50.0, 500.0)
        for a, b in (
            *((gpu, 8 + gpu // 4) for gpu in range(8)),
            *((leaf, spine) for leaf in (8, 9) for spine in range(10, 14)),
        )
        for ends in ((a, b), (b, a))
    ),
    (8,),
    names=(NodeRange("leaf", 8, 2), NodeRange("spine", 10, 4)),
    backends=(("leaf", "spine", "flow"), ("", "", "analytical-unaware")),
)


def test_parts_may_meet_at_switches() -> None:
    size = 100_000
    (there,) = times(LEAVES, [(0, 0, size, 0, 5)], border_bytes="0").values()
    per_byte_ps = 1e12 / (50 * 2**30)
    # A link to or from a leaf, unaware: whole nanoseconds.
    outer = int(500 + size * per_byte_ps / 1000) * 1000
    # Leaf, spine, leaf as flow has them: headers, and a packet at all links but the narrowest, of
    # which those at the border are two.
    wire = size + -(-size // 4096) * 82
    inner = int(np.ceil(wire * per_byte_ps + 1_000_000 + (4096 + 82) * 3 * per_byte_ps))
    whole_ns = -(-(outer + inner) // 1000) * 1000
    assert there == pytest.approx(whole_ns + outer, abs=1)


def test_flows_of_different_ranks_stay_different_at_a_border() -> None:
    spec = backend("composite")
    network = replace(LEAVES, backends=(*LEAVES.backends[:1], ("", "", "analytical-aware")))
    config = spec.prepare(NetworkRequest(network)).config
    rows = [(src, dst) for src in range(4) for dst in range(4, 8)]
    items = np.zeros(len(rows), TRANSFER)
    items["id"], items["bytes"] = 4 * np.arange(len(rows)), 10_000
    items["src"], items["dst"] = np.array(rows).T
    with spec.open(config) as opened:
        opened.submit(items)
        left = len(rows)
        while left:
            opened.advance(TIME_NEVER)
            left -= len(opened.poll())
        table = opened.stats()["tables"]["links"]
    moved = {
        (src, dst): count
        for src, dst, count in zip(table["src"], table["dst"], table["bytes"], strict=True)
    }
    assert all(moved[src, 8] == moved[9, src + 4] == 40_000 for src in range(4))
    spines = [moved.get((8, spine), 0) for spine in range(10, 14)]
    assert sum(spines) == 160_000
    assert sum(count > 0 for count in spines) >= 3
    assert spines == [moved.get((spine, 9), 0) for spine in range(10, 14)]


def test_a_stuck_part_names_the_transfers_of_the_host() -> None:
    spec = backend("composite")
    network = replace(NETWORK, backends=("garnet", "flow"))
    with spec.open(spec.prepare(NetworkRequest(network)).config) as opened:
        links = len(spec.prepare(NetworkRequest(network)).link_ends()[0])
        for link in range(links):
            opened.set_link(link, 0, 0.0)
        items = np.zeros(1, TRANSFER)
        items["id"], items["bytes"], items["dst"] = 4321, 1000, 1
        opened.submit(items)
        with pytest.raises(SimulationError, match=r"in flight: 4321; garnet: .*which is down"):
            opened.advance(TIME_NEVER)


@pytest.mark.parametrize("backends", ["garnet,flow", "flow,analytical-aware", "flow,flow"])
def test_a_composite_network_conforms(backends: str, tmp_path: Path) -> None:
    file = tmp_path / "network.yml"
    file.write_text(
        "topology: [Ring, Switch]\nnpus_count: [4, 3]\nbandwidth: [100, 50]\nlatency: [100, 500]\n"
    )
    verdicts = run_supervised("composite", network=str(file), options={"backends": backends})
    assert [v for v in verdicts if v.outcome == "fail"] == []
    assert sum(v.outcome == "pass" for v in verdicts) >= 16


def test_garnet_ns3_and_flow_together(missing: Callable[[str, str], None], tmp_path: Path) -> None:
    reason = backend("ns3").unavailable()
    if reason is not None:
        missing("ns3", reason)
    file = tmp_path / "network.yml"
    file.write_text(
        "topology: [Ring, Switch, Switch]\nnpus_count: [4, 2, 2]\nbandwidth: [100, 50, 25]\n"
        "latency: [100, 500, 1000]\nbackends: [garnet, ns3, flow]\n"
    )
    verdicts = run_supervised("composite", network=str(file))
    assert [v for v in verdicts if v.outcome == "fail"] == []
    assert sum(v.outcome == "pass" for v in verdicts) >= 15


@pytest.mark.parametrize("size", [1 << 20, 1 << 23])
def test_an_all_reduce_takes_what_its_phases_take_alone(
    size: int, missing: Callable[[str, str], None]
) -> None:
    reason = backend("ns3").unavailable()
    if reason is not None:
        missing("ns3", reason)
    rows = (("Ring", 4, 100.0, 100.0), ("Switch", 2, 50.0, 500.0), ("Switch", 2, 25.0, 1000.0))
    backends = ("garnet", "ns3", "flow")

    def finish_ns(kind: str, bytes_: int, name: str, *dims: tuple[Any, ...]) -> int:
        topology, count, bandwidth, latency = zip(*dims, strict=True)
        network = NetworkDims(topology, count, bandwidth, latency)
        if name == "composite":
            network = replace(network, backends=backends)
        names = {f"{one}-implementation": ["ring"] * len(dims) for one in KINDS}
        result = ab.simulate(
            collective(kind, bytes_, int(np.prod(count))),
            system(preferred_dataset_splits=1) | names,
            network,
            backend=name,
        )
        return int(result.finish_ns.max())

    together = finish_ns("all-reduce", size, "composite", *rows)
    alone = finish_ns("all-reduce", size // 8, backends[2], rows[2])
    for dim, share in ((0, 1), (1, 4)):
        for kind, bytes_ in (
            ("reduce-scatter", size // share),
            ("all-gather", size // share // rows[dim][1]),
        ):
            alone += finish_ns(kind, bytes_, backends[dim], rows[dim])
    assert together == pytest.approx(alone, rel=0.05)


KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")


def test_the_command_of_the_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs/composite.md").read_text()
    found = re.search(r"```sh\nastra-bridge (.*?)\n```", page)
    assert found
    monkeypatch.chdir(root)
    assert main(shlex.split(found[1])) == 0
    said = capsys.readouterr().out
    (finish_ns,) = {int(one) for one in re.findall(r"finished, (\d+) cycles", said)}
    assert f"ends at {finish_ns:,} ns." in page
    shown = re.search(r"```yaml\n(topology.*?)```", page, re.DOTALL)
    assert shown
    assert shown[1] in (root / "examples/composite/package_server_pod.yml").read_text()


@pytest.mark.parametrize("of_garnet", [None, "7"])
def test_loads_over_time_are_those_of_the_parts(of_garnet: str | None) -> None:
    """Sums are those of the whole; where parts have intervals of 5 and of 7 us, those are 35 us."""
    root = Path(__file__).parents[2]
    options = {"sample_interval_us": "5"} | (
        {"garnet.sample_interval_us": "7"} if of_garnet else {}
    )
    experiment = ab.Experiment.from_file(root / "examples/composite/experiment.yaml")
    result = experiment.replace(network_options=options).run()
    plain = experiment.run()
    assert result.finish_ps.tolist() == plain.finish_ps.tolist()
    interval_ps = (35 if of_garnet else 5) * 10**6
    assert result.network["sample_interval_ps"] == interval_ps
    links, load = result.links, result.tables["link_load"]
    assert (load["time_ps"] % interval_ps == 0).all()
    keys = list(zip(load["link"].tolist(), load["time_ps"].tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    assert len(set(load["backend"].tolist())) == 3
    for name in ("bytes", "busy_ps"):
        sums = np.zeros(int(links["link"].max()) + 1, np.int64)
        np.add.at(sums, load["link"], load[name])
        assert np.abs(sums[links["link"]] - links[name]).max() <= 1  # flow rounds busy_ps up
    assert result.tiers["tier"].tolist() == ["dim0", "dim1", "dim2"]
    assert result.tier_load["bytes"].sum() == links["bytes"].sum()
