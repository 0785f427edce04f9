# SPDX-License-Identifier: MIT
"""Garnet's input files: the YAML, ASTRA-sim 1.0's keys, message lists; and their errors."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from astra_bridge.cli import main
from astra_bridge.errors import AstraBridgeError, InputError
from astra_bridge.network.garnet.backend import BACKENDS, prepare
from astra_bridge.network.garnet.reader import is_garnet, read_garnet
from astra_bridge.network.garnet.replay import read_messages, replay
from astra_bridge.network.spec import NetworkRequest
from tests.effort import examples

EXAMPLES = Path(__file__).parents[2] / "examples" / "garnet"
RING: dict[str, Any] = {
    "routers": [{}] * 3,
    "nodes": [{"router": r} for r in range(3)],
    "links": [{"src": r, "dst": (r + d) % 3} for r in range(3) for d in (1, 2)],
}


@pytest.mark.parametrize(
    ("topology", "routers", "nodes", "links", "dims"),
    [
        ("Mesh_XY 2x3", 6, 6, 2 * (2 * 2 + 3), (3, 2)),
        ("mesh 8x8", 64, 64, 224, (8, 8)),
        ("Torus 4x4", 16, 16, 64, (4, 4)),
        ("Torus 2x2", 4, 4, 8, (2, 2)),  # a ring of two is one cable
        ("Ring 5", 5, 5, 10, (5,)),
        ("FullyConnected 6", 6, 6, 30, (6,)),
        ("Pt2Pt 6", 6, 6, 30, (6,)),
        ("Crossbar 6", 7, 6, 12, (6,)),
        ("Star 6", 1, 6, 0, (6,)),
        ("Ring 1", 1, 1, 0, (1,)),
    ],
)
def test_named_topologies(
    topology: str, routers: int, nodes: int, links: int, dims: tuple[int, ...]
) -> None:
    network = read_garnet({"topology": topology})
    assert (len(network.routers), len(network.nodes), len(network.links)) == (routers, nodes, links)
    assert network.dims == dims
    pairs = [(link.src, link.dst) for link in network.links]
    assert sorted(pairs) == sorted((b, a) for a, b in pairs)
    assert len(set(pairs)) == len(pairs)


def test_mesh_is_the_one_of_gem5() -> None:
    # x = id % columns, weights 1 along x and 2 along y, port names as gem5's Mesh_XY.py gives.
    network = read_garnet({"topology": "Mesh_XY 2x3"})
    assert network.num_rows == 2
    found = {(k.src, k.dst): (k.weight, k.src_port, k.dst_port) for k in network.links}
    assert found[0, 1] == (1, "East", "West")
    assert found[1, 0] == (1, "West", "East")
    assert found[0, 3] == (2, "North", "South")
    assert found[3, 0] == (2, "South", "North")


def test_hierarchical_topology() -> None:
    network = read_garnet(EXAMPLES / "packages.yml")
    assert network.dims == (4, 4, 4)
    local = next(k for k in network.links if (k.src, k.dst) == (0, 1))
    between = next(k for k in network.links if (k.src, k.dst) == (0, 4))
    assert (local.cycles_per_flit, local.latency, local.dimension) == (1.0, 1, 0)
    assert (between.cycles_per_flit, between.latency, between.dimension) == (4.0, 20, 1)
    assert network.deadlock_avoidance == "dateline"
    # Each ring is closed in either direction once.
    assert sum(k.dateline for k in network.links) == 3 * 16 * 2


def test_astra_sim_1_file() -> None:
    network = read_garnet(EXAMPLES / "astra_sim_1.txt")
    assert network.dims == (4, 4, 4)
    assert network.flit_bytes == 128  # bits there
    assert network.packet_bytes == (512, 256)  # inside a package, between packages
    assert (network.vcs_per_vnet, network.buffers_per_data_vc) == (50, 5000)
    local = next(k for k in network.links if k.dimension == 0)
    package = next(k for k in network.links if k.dimension == 2)
    assert (local.latency, package.latency) == (90, 200)
    # 1024-bit flits over 256 bits at 94 % efficiency; two rings are one each way.
    assert package.cycles_per_flit == pytest.approx(4 / 0.94)
    assert local.cycles_per_flit == pytest.approx(1 / 0.94)


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"topologi": "Ring 4"}, "topologi", "did you mean 'topology'"),
        ({"topology": "Rong 4"}, "topology", "did you mean 'Ring'"),
        ({"topology": "Ring four"}, "topology", "is not a size"),
        ({"topology": "Ring 0"}, "topology", "is not a size"),
        ({"topology": "Ring 99999"}, "topology", "allowed: up to 16384"),
        ({"topology": "FullyConnected 16000"}, "topology", "links; allowed"),
        ({"topology": 7}, "topology", "7 is not allowed"),
        ({"topology": []}, "topology", "empty"),
        ({"topology": [{"kind": "rung", "size": 4}]}, "topology[0].kind", "did you mean 'ring'"),
        ({"topology": [{"kind": "ring"}]}, "topology[0].size", "missing"),
        ({**RING, "nodes": []}, "nodes", "empty"),
        ({}, "topology", "missing"),
        ({"topology": "Ring 4", "vnets": 0}, "vnets", "1 to 32"),
        ({"topology": "Ring 4", "vnets": [{"type": "dota"}]}, "vnets[0].type", "did you mean"),
        ({"topology": "Ring 4", "clock_hz": "fast"}, "clock_hz", "'fast' is not allowed"),
        ({"topology": "Ring 4", "clock_hz": True}, "clock_hz", "True is not allowed"),
        ({"topology": "Ring 4", "router_latency": 0}, "router_latency", "from 1"),
        ({"topology": "Ring 4", "routing": "yx"}, "routing", "table, xy, custom"),
        ({**RING, "links": [{"src": 0, "dst": 3}]}, "links[0].dst", "from 0 to 2"),
        ({**RING, "links": [{"src": 1, "dst": 1}]}, "links[0].dst", "to itself"),
        ({**RING, "links": 5}, "links", "expected a list"),
        ({**RING, "links": [5]}, "links[0]", "expected keys and values"),
        (
            {**RING, "nodes": [{"router": 0, "id": 0}, {"router": 0, "id": 0}]},
            "nodes[1].id",
            "twice",
        ),
        ({**RING, "dims": [2, 2]}, "dims", "product"),
        ({**RING, "deadlock_avoidance": "dateline"}, "deadlock_avoidance", "needs 'topology'"),
        ({**RING, "routes": [{"router": 0, "node": 1}]}, "routes[0].next", "missing"),
        ({**RING, "links": [{"src": 0, "dst": 1, "src_port": "a b"}]}, "links[0].src_port", "East"),
        ({"num-npus": 6, "num-packages": 4}, "num-packages", "do not divide"),
        ({"num-npus": 4, "topology": "Torus4D"}, "topology", "sizes of its dimensions"),
        ({"num-npus": 4, "topology": "Tours3D"}, "topology", "did you mean 'Torus3D'"),
        ({"num-npus": 4, "vcs": 4}, "vcs", "unknown key"),
    ],
)
def test_errors_name_key_and_remedy(change: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_garnet(change)
    assert caught.value.key == key
    assert says in caught.value.reason


def test_which_files_are_garnet() -> None:
    assert is_garnet({"topology": "Mesh_XY 4x4"})
    assert is_garnet({"num-npus": 4})
    assert not is_garnet({"topology": ["Ring"], "npus_count": [4]})
    assert not is_garnet({"endpoints": 2, "links": []})
    assert not is_garnet([1])


def test_prepare_options() -> None:
    request = NetworkRequest(EXAMPLES / "mesh_8x8.yml", options={"router_latency": "2"})
    prepared = prepare(request)
    assert prepared.dims == (8, 8)
    assert prepared.config.options["routers"].split() == ["2"] * 64
    with pytest.raises(InputError, match="did you mean 'vcs_per_vnet'"):
        prepare(NetworkRequest(EXAMPLES / "mesh_8x8.yml", options={"vcs_per_vnt": "2"}))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clock_hz": "fast"}, "'clock_hz' is 'fast'"),
        ({"vnets": "data unordered"}, "'unordered' is not: ordered"),
        ({"router_latency": "0"}, "router 0: latency 0 cycles; allowed: 1"),
        ({"vcs_per_vnet": "1", "deadlock_avoidance": "dateline"}, "needs vcs_per_vnet 2 or more"),
        ({"deadlock_threshold": "0"}, "whole number from 1"),
    ],
)
def test_bad_option_values(options: dict[str, str], says: str) -> None:
    if BACKENDS[0].unavailable():
        pytest.skip(str(BACKENDS[0].unavailable()))
    with pytest.raises(InputError) as caught:
        BACKENDS[0].open(prepare(NetworkRequest(EXAMPLES / "mesh_8x8.yml", options=options)).config)
    assert says in str(caught.value)


needs_native = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(content))
    return path


@needs_native
def test_after_and_delay(tmp_path: Path) -> None:
    messages = [
        [5, 10, 0, 1, 16, 0],
        [9, 0, 1, 2, 16, 0, 5, 3],  # three cycles after message 5
        [2, 500, 2, 0, 16, 0, 9, 1],  # but not before its own cycle
    ]
    case = read_messages(write(tmp_path, {"network": RING, "messages": messages}))
    rows = replay(case).rows
    first = 10 + 7  # one hop
    assert rows["inject"].tolist() == [10, first + 3, 500]
    assert rows["deliver"].tolist() == [first, first + 3 + 7, 507]


@needs_native
def test_messages_of_several_packets(tmp_path: Path) -> None:
    network = {**RING, "packet_bytes": 32, "buffers_per_data_vc": 8}
    rows = [[0, 1, 0, 1, 100, 0], [1, 1, 1, 2, 16, 0]]
    replayed = replay(read_messages(write(tmp_path, {"network": network, "messages": rows}))).rows
    assert replayed["flits"].tolist() == [7, 1]
    # The last of four packets is picked up in cycle 5; seven flits leave one after another.
    assert replayed["deliver"].tolist() == [1 + 7 + 6, 1 + 7]
    assert replayed["tail_send"][0] == 2 + 6


@needs_native
def test_json_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path, {"network": RING, "messages": [[4, 1, 0, 1, "data", 0], [3, 1, 1, 1, "ctrl", 0]]}
    )
    out = tmp_path / "out.json"
    assert main(["garnet", "replay", str(path), "--json", str(out)]) == 0
    answer = json.loads(out.read_text())
    assert [row["id"] for row in answer["messages"]] == [4, 3]
    assert [row["deliver"] for row in answer["messages"]] == answer["deliver"]
    # Five flits over one hop: 7 + 4, and one cycle until the fifth credit of four buffers is back.
    assert answer["deliver"] == [1 + 7 + 4 + 1, 1 + 5]
    assert main(["garnet", "replay", str(path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["deliver"] == [13, 6]


@needs_native
def test_json_of_traffic(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert main(["garnet", "traffic", "--topology", "mesh", "3x3", "--rate", "0.1", "--rate", "1",
                 "--cycles", "3000", "--warmup", "100", "--json", str(out)]) == 0  # fmt: skip
    points = json.loads(out.read_text())["points"]
    assert [point["rate"] for point in points] == [0.1, 1]
    assert [point["saturated"] for point in points] == [False, True]


@pytest.mark.parametrize(
    ("messages", "key"),
    [
        ([[0, 1, 0, 3, 16, 0]], "messages[0].dst"),
        ([[0, -1, 0, 1, 16, 0]], "messages[0].cycle"),
        ([[0, 1, 0, 1, 0, 0]], "messages[0].size"),
        ([[0, 1, 0, 1, "dat", 0]], "messages[0].size"),
        ([[0, 1, 0, 1, 16, 1]], "messages[0].vnet"),
        ([[0, 1, 0, 1, 16]], "messages[0]"),
        ([[0, 1, 0, 1, 16, 0, 7, 1]], "messages[0].after"),
        ([[0, 1, 0, 1, 16, 0], [0, 1, 0, 1, 16, 0]], "messages[1].id"),
        ([[0, 1, 0, 1, 16, 0, 1, 1], [1, 1, 0, 1, 16, 0, 0, 1]], "messages[0].after"),
        ([[0, 1, 0, 1, 16, 0, 0, 1]], "messages[0].after"),
        ([[0, True, 0, 1, 16, 0]], "messages[0].cycle"),
        ([[0, 1.5, 0, 1, 16, 0]], "messages[0].cycle"),
        ([[0, 2**70, 0, 1, 16, 0]], "messages[0].cycle"),
        (["x"], "messages[0]"),
        (7, "messages"),
    ],
)
def test_bad_messages(tmp_path: Path, messages: object, key: str) -> None:
    path = write(tmp_path, {"network": RING, "messages": messages})
    with pytest.raises(InputError) as caught:
        read_messages(path)
    assert caught.value.key == key
    assert main(["garnet", "replay", str(path)]) == 2


@needs_native
def test_exit_codes(tmp_path: Path) -> None:
    stuck = {
        "routers": [{}] * 4,
        "nodes": [{"router": r} for r in range(4)],
        "links": [{"src": r, "dst": (r + 1) % 4} for r in range(4)],
        "vcs_per_vnet": 1,
    }
    rows = [[r, 1, r, (r + 2) % 4, 640, 0] for r in range(4)]
    assert (
        main(["garnet", "replay", str(write(tmp_path, {"network": stuck, "messages": rows}))]) == 3
    )
    assert main(["garnet", "replay", str(tmp_path / "none.json")]) == 2
    assert main(["garnet", "traffic", "--topology", "mesh", "3x4", "--pattern", "transpose"]) == 2
    assert main(["garnet", "traffic", "--topology", "mesh", "8x8", "--cycles", "100000000"]) == 2
    assert main(["garnet", "traffic", "--topology", "ring", "4", "--rate", "0.1", "--cycles", "500",
                 "--warmup", "100"]) == 0  # fmt: skip


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.floats(allow_nan=True)
    | st.sampled_from(
        ["ring", "data", "Mesh_XY 2x2", "xy", "custom", "dateline", "", "East", "\x00"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "latency",
                    "router",
                    "src",
                    "dst",
                    "weight",
                    "kind",
                    "size",
                    "type",
                    "next",
                    "node",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KEYS = ("topology", "routers", "nodes", "links", "vnets", "routing", "num_rows", "routes", "dims",
        "vcs_per_vnet", "flit_bytes", "clock_hz", "deadlock_avoidance", "num-npus")  # fmt: skip


@needs_native
@settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.lists(
            st.integers(0, 3) | st.sampled_from(["data", "ctrl", None, -1, 2**64, 0.5]), max_size=9
        )
        | values,
        max_size=5,
    )
)
def test_any_messages_are_run_or_refused(tmp_path: Path, messages: list[Any]) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps({"network": RING, "messages": messages}, allow_nan=True))
    assert main(["garnet", "replay", str(path)]) in (0, 2)


@needs_native
def test_any_network_is_read_or_refused() -> None:
    opened = []

    @settings(
        max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(st.dictionaries(st.sampled_from(KEYS), values, max_size=5), st.booleans())
    @example({}, True)
    def try_one(changes: dict[str, Any], on_top: bool) -> None:
        raw = {**RING, **changes} if on_top else changes
        # Any other exception, or a crash, fails.
        with contextlib.suppress(AstraBridgeError):
            prepared = prepare(NetworkRequest(read_garnet(raw)))
            BACKENDS[0].open(prepared.config).close()
            opened.append(raw)

    try_one()
    assert 0 < len(opened) < 150  # neither is everything refused nor anything accepted
