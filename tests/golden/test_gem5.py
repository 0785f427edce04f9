# SPDX-License-Identifier: MIT
"""gem5 itself behind the contract: the answers that it gave before, and those of our own router.

Runs where ``GEM5_ROOT`` names a gem5 that has been built (docs/gem5.md).  All networks of this file
are made in one process, one after another.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.errors import BackendUnavailable, ContractError, SimulationError
from astra_bridge.network.api import TIME_NEVER, TRANSFER, Network, NetworkConfig
from astra_bridge.network.garnet import BACKENDS as GARNET
from astra_bridge.network.garnet.options import options_of
from astra_bridge.network.garnet.reader import read_garnet
from astra_bridge.network.garnet.replay import MessageList, Replay, read_messages, replay
from astra_bridge.network.gem5.backend import open_gem5, prepare
from astra_bridge.network.gem5.build import GEM5, find_gem5
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.simulation import simulate
from tests.crossval.test_garnet_reference import random_case
from tests.effort import spread
from tests.golden.test_garnet_golden import CASES, COLUMNS

EXAMPLES = Path(__file__).parents[2] / "examples"

needs_gem5 = pytest.mark.skipif(GEM5.unavailable() is not None, reason=str(GEM5.unavailable()))
needs_garnet = pytest.mark.skipif(
    GARNET[0].unavailable() is not None, reason=str(GARNET[0].unavailable())
)


def assert_same(one: Replay, other: Replay) -> None:
    for name, column in one.rows.items():
        different = np.flatnonzero(column != other.rows[name])
        assert not different.size, f"{name}: messages {different[:5].tolist()} differ"


@needs_gem5
@needs_garnet
@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_message_as_gem5_answered_and_as_garnet_does(path: Path) -> None:
    case = read_messages(path)
    assert case.results is not None
    answer = replay(case, open_gem5)
    expected = np.array(case.results["rows"], np.int64)
    names = list(case.results["columns"])
    for name in COLUMNS:
        different = np.flatnonzero(expected[:, names.index(name)] != answer.rows[name])
        assert not different.size, f"{name}: messages {different[:5].tolist()} differ"
    assert_same(answer, replay(case))


@needs_gem5
@needs_garnet
@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_networks_as_garnet_does(first: int) -> None:
    for seed in spread(range(first, first + 20), 3):
        case = random_case(seed)
        rng = random.Random(seed)
        # Weights without ties, where gem5 draws; and links that take longer for a flit.
        links = tuple(
            replace(
                link,
                weight=rng.randint(1, 900),
                cycles_per_flit=rng.choice([1.0, 1.0, 1.5, 2.25, 3.0]),
            )
            for link in case.network.links
        )
        case = MessageList(replace(case.network, links=links), case.messages)
        assert_same(replay(case, open_gem5), replay(case))


@needs_gem5
@needs_garnet
def test_an_all_reduce_through_the_bridge(tmp_path: Path) -> None:
    network = tmp_path / "mesh.yml"
    network.write_text("topology: Mesh_XY 2x4\nflit_bytes: 64\npacket_bytes: 256\ndims: [8]\n")
    both = [
        simulate(
            workload=str(EXAMPLES / "analytical" / "all_reduce" / "trace"),
            system=str(EXAMPLES / "analytical" / "system.json"),
            network=str(network),
            remote_memory=str(EXAMPLES / "analytical" / "no_memory.json"),
            backend=backend,
        )
        for backend in ("gem5", "garnet")
    ]
    assert list(both[0].finish_ns) == list(both[1].finish_ns)
    gem5, garnet = both[0].tables, both[1].tables
    for table in ("flows", "routers", "interfaces"):
        for name, column in gem5[table].items():
            assert list(column) == list(garnet[table][name]), f"{table}.{name}"
    for name in ("src", "dst", "flits", "bytes", "busy_ps", "utilization"):
        assert list(gem5["links"][name]) == list(garnet["links"][name]), name
    own = dict(zip(gem5["gem5"]["name"], gem5["gem5"]["value"], strict=True))
    assert own["garnet.packets_received"] == sum(gem5["flows"]["packets"])
    assert own["garnet.int_link_utilization"] == sum(gem5["links"]["flits"])


def transfers(rows: list[tuple[int, ...]]) -> np.ndarray[Any, Any]:
    """Rows of id, start_ps, bytes, src, dst."""
    return np.array([(*row, 0, 0, 0) for row in rows], TRANSFER)


def deliveries(
    config: NetworkConfig, open_network: Callable[[NetworkConfig], Network]
) -> list[tuple[int, int]]:
    """What becomes of random transfers: id and time, in order."""
    rng = np.random.default_rng(1)
    src = rng.integers(0, config.endpoints, 40)
    dst = (src + rng.integers(1, config.endpoints, 40)) % config.endpoints
    start_ps, size = rng.integers(0, 3_000_000, 40), rng.integers(1, 20_000, 40)
    found: list[tuple[int, int]] = []
    with open_network(config) as net:
        net.submit(transfers(list(zip(range(40), start_ps, size, src, dst, strict=True))))
        while len(found) < 40:
            net.advance(TIME_NEVER)
            found += [(int(one["id"]), int(one["time_ps"])) for one in net.poll()]
    return found


@needs_gem5
@needs_garnet
@pytest.mark.parametrize(
    "network",
    [
        {"topology": ["Ring"], "npus_count": [6], "bandwidth": [50], "latency": [500]},
        {
            "topology": ["FullyConnected", "Switch"],
            "npus_count": [3, 2],
            "bandwidth": [100, 25],
            "latency": [100, 900],
        },
        {
            "endpoints": 8,
            "switches": 4,
            "links": [
                {"src": a, "dst": b, "bandwidth": 50, "latency": 500}
                for a, b in [
                    *((rank, 8 + rank // 4) for rank in range(8)),
                    *((leaf, spine) for leaf in (8, 9) for spine in (10, 11)),
                ]
            ],
        },
    ],
    ids=["ring", "two dimensions", "two spines, static routing"],
)
def test_networks_of_the_analytical_backends(network: dict[str, Any]) -> None:
    config = prepare(NetworkRequest(network)).config
    assert deliveries(config, open_gem5) == deliveries(config, GARNET[0].open)


def config_of(**keys: Any) -> NetworkConfig:
    network = read_garnet({"deadlock_avoidance": "none", **keys})
    nodes = len(network.nodes)
    return NetworkConfig(nodes, nodes, options=options_of(network))


@needs_gem5
def test_a_deadlock_is_an_error() -> None:
    config = config_of(topology="Ring 4", vcs_per_vnet=1, buffers_per_data_vc=1)
    # Two hops clockwise each: nobody's second link is ever free.  Weights keep gem5 from drawing.
    links = ";".join(
        f"{r} {(r + step) % 4} 1 {1 if step == 1 else 5} 1.0" for r in range(4) for step in (1, 3)
    )
    config = NetworkConfig(4, 4, options={**config.options, "links": links})
    rows = [(i, 0, 16 * 64, i, (i + 2) % 4) for i in range(4)]
    with open_gem5(config) as net:
        net.submit(transfers(rows))
        with pytest.raises(SimulationError, match=r"deadlock in cycle .* no flit has moved"):
            net.advance(TIME_NEVER)


@needs_gem5
def test_statistics_do_not_change_what_they_count() -> None:
    with open_gem5(config_of(topology="Mesh_XY 2x2")) as net:
        net.submit(transfers([(0, 0, 160, 0, 3)]))
        net.advance(TIME_NEVER)
        net.poll()
        first = net.stats()["tables"]["gem5"]
        net.submit(transfers([(1, 10**6, 160, 3, 0)]))
        net.advance(TIME_NEVER)
        net.poll()
        second = net.stats()["tables"]["gem5"]
    totals = [
        dict(zip(table["name"], table["value"], strict=True))["garnet.int_link_utilization"]
        for table in (first, second)
    ]
    assert totals == [20, 40]  # ten flits over two links, twice


@needs_gem5
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: config_of(topology="Mesh_XY 32x64"), r"NUMBER_BITS_PER_SET"),
        (
            lambda: config_of(
                routers=[{}, {}],
                nodes=[{"router": 0}, {"router": 1}],
                links=[{"src": 0, "dst": 1}, {"src": 0, "dst": 1}, {"src": 1, "dst": 0}],
            ),
            "two links go from router 0 to router 1",
        ),
        (
            lambda: NetworkConfig(
                8,
                8,
                options={**config_of(topology="Ring 8").options, "deadlock_avoidance": "dateline"},
            ),
            "dateline is not in gem5",
        ),
    ],
)
def test_what_gem5_has_not_is_refused(config: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        open_gem5(config())


@needs_gem5
def test_a_packet_whose_flits_gem5_would_count_wrong() -> None:
    with open_gem5(config_of(topology="Mesh_XY 1x2")) as net:
        net.submit(transfers([(0, 0, 1 << 24, 0, 1)]))
        with pytest.raises(SimulationError, match="set a smaller packet_bytes"):
            net.advance(TIME_NEVER)


def test_rings_and_flows_are_replaced_and_said() -> None:
    ring = prepare(NetworkRequest({"topology": "Ring 8"}))
    assert ring.config.options["deadlock_avoidance"] == "none"
    assert any("no datelines" in warning for warning in ring.warnings)
    given = {"deadlock_avoidance": "dateline"}
    asked = prepare(NetworkRequest({"topology": "Ring 8"}, options=given))
    assert asked.config.options["deadlock_avoidance"] == "dateline"  # which create() refuses
    mesh = prepare(NetworkRequest({"topology": "Mesh_XY 4x4"}))
    assert mesh.warnings == ()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "set GEM5_ROOT to the folder of gem5's sources"),
        ((), "has no src/mem/ruby/network/garnet"),
        (("src/mem/ruby/network/garnet/x",), r"has no build/\*/libgem5_\*.so; build build/NAME"),
        (
            ("src/mem/ruby/network/garnet/x", "build/X86/libgem5_opt.so"),
            "was built without Garnet or its protocol",
        ),
    ],
)
def test_what_is_missing_is_said(
    made: tuple[str, ...] | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if made is None:
        monkeypatch.delenv("GEM5_ROOT", raising=False)
    else:
        monkeypatch.setenv("GEM5_ROOT", str(tmp_path))
        for name in made:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("")
    with pytest.raises(BackendUnavailable, match=message):
        find_gem5()
    assert isinstance(GEM5.unavailable(), str)
