# SPDX-License-Identifier: MIT
"""ASTRA-sim's ns-3 files: what is read, and what each mistake is answered with."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_bridge.errors import InputError
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.network.ns3.backend import prepare
from astra_bridge.network.ns3.build import is_rdma_fork
from astra_bridge.network.ns3.config import Ns3Config, is_ns3_config, read_ns3_config
from astra_bridge.network.ns3.topologies import (
    check_ways,
    read_logical_topology,
    read_physical_topology,
)
from astra_bridge.network.spec import NetworkRequest
from tests.effort import examples

TOPOLOGY = "3 1 2\n2\n2 0 100Gbps 0.001ms 0\n2 1 100Gbps 500ns 0.25\n"
CONFIG = """CC_MODE 1
PACKET_PAYLOAD_SIZE 1000
RP_TIMER 900
RATE_AI 50Mb/s
RATE_HAI 100Mb/s
EWMA_GAIN 0.5
KMIN_MAP 1 100000000000 400
KMAX_MAP 1 100000000000 1600
PMAX_MAP 1 100000000000 0.2
L2_ACK_INTERVAL 1
TOPOLOGY_FILE topology.txt
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "topology.txt").write_text(TOPOLOGY)
    (tmp_path / "config.txt").write_text(CONFIG)
    return tmp_path


def test_config_is_read(folder: Path) -> None:
    config, warnings = read_ns3_config(folder / "config.txt")
    assert warnings == ()
    assert (config.cc_mode, config.rate_ai, config.rate_hai) == (1, 50_000_000, 100_000_000)
    assert config.kmin_map == {100_000_000_000: 400}
    assert config.pmax_map == {100_000_000_000: 0.2}
    assert config.has_win
    assert config.buffer_size == 16
    assert "RP_TIMER" in config.given
    assert "HAS_WIN" not in config.given


def test_every_key_is_known(tmp_path: Path) -> None:
    words = {"bool": "1", "int": "1", "float": "0.5", "str": "name"}
    lines = []
    for field in dataclasses.fields(Ns3Config):
        if field.name in ("given", "source"):
            continue
        value = words.get(str(field.type), "1 100000000000 1")
        if field.name in ("rate_ai", "rate_hai", "min_rate", "dctcp_rate_ai"):
            value = "10Gb/s"
        if field.name == "pint_log_base":
            value = "1.1"
        lines.append(f"{field.name.upper()} {value}\n")
    file = tmp_path / "config.txt"
    file.write_text("".join(lines))
    config, _ = read_ns3_config(file)
    assert len(config.given) == len(lines) == 51
    assert config.min_rate == 10**10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cc_mode 1", "cc_mode: unknown key"),
        ("3 1", "3: unknown key"),
        ("CC_MODE one", "CC_MODE: 'one' is not allowed; allowed: whole numbers from 0"),
        ("CC_MODE", "CC_MODE: the file ends before its value"),
        ("CC_MODE HAS_WIN 1", "CC_MODE: has no value: the next word is the key HAS_WIN"),
        ("HAS_WIN 2", "HAS_WIN: '2' is not allowed; allowed: whole numbers from 0 to 1"),
        ("EWMA_GAIN nan", "EWMA_GAIN: 'nan' is not allowed; allowed: numbers from 0 up to 1"),
        ("RATE_AI 50", "RATE_AI: unknown rate unit"),
        ("RATE_AI fast", "RATE_AI: rate 'fast' is not a number"),
        ("KMIN_MAP 2 100000000000 400", "KMIN_MAP: the file ends before its value"),
        (
            "PMAX_MAP 1 100000000000 1.5",
            "PMAX_MAP: '1.5' is not allowed; allowed: numbers",
        ),
        ("BUFFER_SIZE 0", "BUFFER_SIZE: '0' is not allowed; allowed: whole numbers from 1 to 4095"),
        ("LINK_DOWN 5 1", "LINK_DOWN: the file ends before its value"),
    ],
)
def test_config_mistakes(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.txt"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        read_ns3_config(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_keys_of_other_forks_are_one_warning(tmp_path: Path) -> None:
    file = tmp_path / "config.txt"
    file.write_text("HAS_WIN 0\nBW_MON_FILE bw.txt\nW_AI 1 2\nCC_MOD 3\nCC_MODE 12\nENABLE_INT 0\n")
    config, warnings = read_ns3_config(file)
    assert (config.has_win, config.cc_mode) == (False, 12)
    assert warnings == (
        f"{file}: unknown keys are left out: BW_MON_FILE, W_AI, CC_MOD (did you mean CC_MODE?), "
        "ENABLE_INT",
    )


def test_nvswitches_mark_nothing(tmp_path: Path) -> None:
    links = "0 2 2880Gbps 1us 0\n1 2 2880Gbps 1us 0\n0 3 400Gbps 1us 0\n1 3 400Gbps 1us 0\n"
    (tmp_path / "t.txt").write_text(f"4 2 1 1 4 H100\n2 3\n{links}")
    config = tmp_path / "config.txt"
    config.write_text(CONFIG.replace("100000000000", "400000000000"))
    request = NetworkRequest(network=config, physical_topology=tmp_path / "t.txt")
    found = dict(row.split(":", 1) for row in prepare(request).config.options["ecn_map"].split(","))
    assert found["2880000000000"].endswith(":0")
    assert float(found["2880000000000"].split(":")[0]) > 1e12
    assert not found["400000000000"].endswith(":0")


def test_the_topology_of_simai(tmp_path: Path) -> None:
    """Two GPUs on an NVSwitch, and a switch: the same as by the fork's first line."""
    lines = "2 3\n0 2 2400Gbps 1us 0\n1 2 2400Gbps 1us 0\n0 3 400Gbps 1us 0\n1 3 400Gbps 1us 0\n"
    found = []
    for head in ("4 2 1 1 4 H100", "4 2 4"):
        (tmp_path / "t.txt").write_text(f"{head}\n{lines}")
        found.append(read_physical_topology(tmp_path / "t.txt"))
    first, second = found
    assert first == second


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("3 1\n", "line 1: expected 'nodes switches links', found 2 words"),
        ("144 8 16 16 192 H100\n", "32 switch ids expected"),
        ("3 x 2\n", "line 1: 'x' is not allowed; allowed: whole numbers"),
        ("3 1 2\n5\n", "line 2: '5' is not allowed; allowed: whole numbers from 0 to 2"),
        ("3 2 0\n2 2\n", "line 2: switch 2 is listed twice"),
        ("3 1 2\n2\n2 0 100Gbps 1us 0\n", "line 1 announces 2 links"),
        ("3 1 1\n2\n2 2 100Gbps 1us 0\n", "line 3: node 2 is linked to itself"),
        ("3 1 1\n2\n2 0 100 1us 0\n", "line 3: unknown rate unit"),
        ("3 1 1\n2\n2 0 100Gbps 1 0\n", "line 3: unknown time unit"),
        (
            "3 1 1\n2\n2 0 100Gbps 1us 2\n",
            "line 3: '2' is not allowed; allowed: numbers",
        ),
        ("3 1 1\n2\n2 0 100Gbps 1us 0\n", "endpoint 1 has no link"),
        ("5 2 3\n2 3\n2 0 1Gbps 1us 0\n3 1 1Gbps 1us 0\n3 4 1Gbps 1us 0\n", "cannot be reached"),
        ("1 1 0\n0\n", "there is no endpoint"),
    ],
)
def test_topology_mistakes(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "topology.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=message.replace(".", r"\.")) as error:
        read_physical_topology(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("links", "apart"),
    [
        ("0 1, 1 2, 2 3", "ranks 0 and 2 are joined only by way of rank 1,"),
        ("0 1, 1 2, 2 0, 2 3", "ranks 0 and 3 are joined only by way of rank 2,"),
        ("0 4, 1 4, 1 5, 2 5, 3 5", "ranks 0 and 2 are joined only by way of rank 1,"),
        ("0 1, 1 4, 4 2, 2 5, 5 3", "ranks 0 and 2 are joined only by way of rank 1,"),
        ("0 4, 1 4, 2 5, 3 5, 4 5", ""),
        ("0 4, 1 4, 2 4, 0 5, 1 5, 2 5, 3 5", ""),
        ("0 1, 0 2, 0 3, 1 2, 1 3, 2 3", ""),
        ("0 4, 1 4, 2 4, 2 3", "ranks 0 and 3 are joined only by way of rank 2,"),
    ],
)
def test_a_rank_passes_nothing_on(links: str, apart: str, tmp_path: Path) -> None:
    lines = [f"{pair} 100Gbps 1us 0" for pair in links.split(", ")]
    (tmp_path / "t.txt").write_text("\n".join([f"6 2 {len(lines)}", "4 5", *lines]))
    topology = read_physical_topology(tmp_path / "t.txt")
    if not apart:
        check_ways(topology, 4)
        return
    with pytest.raises(InputError, match=apart):
        check_ways(topology, 4)
    check_ways(topology, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"logical-dims": ["2", "2"]}', "2 x 2 = 4 ranks, but the physical topology has 2"),
        ('{"logical_dims": ["2"]}', "logical-dims: expected"),
        ('{"logical-dims": "2"}', "expected a list of sizes, found '2'"),
        ('{"logical-dims": []}', "expected a list of sizes"),
        ('{"logical-dims": ["two"]}', r"logical-dims\[0\]: expected a whole number"),
        ('{"logical-dims": [true]}', r"logical-dims\[0\]"),
        ('{"logical-dims": ["0"]}', "of at least 1, found '0'"),
        ("[", "not valid JSON"),
    ],
)
def test_logical_topology_mistakes(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "logical.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_logical_topology(file, 2)


@pytest.mark.skipif(is_rdma_fork(), reason="the RDMA fork at NS3_ROOT has one compatibility")
def test_prepare(folder: Path) -> None:
    (folder / "logical.json").write_text('{"logical-dims": ["2", 1]}')
    prepared = prepare(
        NetworkRequest(
            folder / "config.txt",
            logical_topology=folder / "logical.json",
            options={"cc.Gain": "0.25"},
        )
    )
    config = prepared.config
    assert prepared.dims == (2, 1)
    assert (config.endpoints, config.nodes, len(config.links)) == (2, 3, 4)
    assert config.links["latency_ps"].tolist() == [10**6, 10**6, 500_000, 500_000]
    assert config.links["loss"].tolist() == [0, 0, 0.25, 0.25]
    assert config.options["cc.Gain"] == "0.25"
    assert config.options["completion"] == "ack"
    assert config.options["ecn_map"] == "100000000000:400000:1600000:0.2"
    plain = prepare(NetworkRequest(folder / "config.txt", options={"compatibility": "none"}))
    assert "completion" not in plain.config.options
    assert plain.dims == (2,)


def test_the_old_name_of_the_forks_numbers(folder: Path) -> None:
    request = NetworkRequest(folder / "config.txt", options={"compatibility": "astra-sim"})
    named = prepare(request)
    assert named.warnings == ("compatibility=astra-sim is called compatibility=fork now",)
    fork = prepare(NetworkRequest(folder / "config.txt", options={"compatibility": "fork"}))
    assert fork.config.options == named.config.options
    assert fork.warnings == ()
    with pytest.raises(InputError, match="compatibility=forks: must be fork or none"):
        prepare(NetworkRequest(folder / "config.txt", options={"compatibility": "forks"}))


def test_links_say_how_packets_find_their_way() -> None:
    links = [
        {"src": src, "dst": dst, "bandwidth": 50, "latency": 500}
        for src, dst in ((0, 2), (0, 3), (1, 2), (1, 3))
    ]
    network = {"endpoints": 2, "switches": 2, "links": links}
    assert "routing" not in prepare(NetworkRequest(network)).config.options
    said = network | {"routing": "spray", "endpoints_forward": True}
    options = prepare(NetworkRequest(said)).config.options
    assert options["routing"] == "spray"
    assert options["endpoints_forward"] == "true"
    given = NetworkRequest(said, options={"routing": "static"})
    assert prepare(given).config.options["routing"] == "static"


def test_endpoints_need_not_come_first(folder: Path) -> None:
    (folder / "topology.txt").write_text("3 1 2\n0\n0 1 100Gbps 0.001ms 0\n0 2 100Gbps 0.001ms 0\n")
    config = prepare(NetworkRequest(folder / "config.txt")).config
    assert config.options["node_ids"] == "1,2,0"
    assert config.links["src"].tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("100000000000 400", "25000000000 400"),
            "KMIN_MAP: no entry for the link rate 10",
        ),
        (("RP_TIMER 900\n", ""), "RP_TIMER: missing; CC_MODE 1 needs it"),
        (("TOPOLOGY_FILE topology.txt\n", ""), "TOPOLOGY_FILE: missing; or give --physical"),
        (("topology.txt", "nowhere.txt"), "nowhere.txt: cannot read the file"),
        (("CC_MODE 1\n", "CC_MODE 1\nLINK_DOWN 5 0 1\n"), "LINK_DOWN: .*no link between 0 and 1"),
        (("RP_TIMER 900", "RP_TIMER 0.5"), "RP_TIMER: 0.5 is cut to whole microseconds, 0"),
    ],
)
def test_prepare_mistakes(change: tuple[str, str], message: str, folder: Path) -> None:
    (folder / "config.txt").write_text(CONFIG.replace(*change))
    with pytest.raises(InputError, match=message):
        prepare(NetworkRequest(folder / "config.txt"))


def test_link_down_becomes_a_fault(folder: Path) -> None:
    (folder / "config.txt").write_text(CONFIG + "LINK_DOWN 7 1 2\n")
    options = prepare(NetworkRequest(folder / "config.txt")).config.options
    # 7 us after two seconds, both directions of the second cable.
    assert options["faults"] == "2000007000000:2:0,2000007000000:3:0"


@pytest.mark.parametrize(
    ("topology", "counts", "switches", "forward"),
    [
        (("Switch",), (4,), 1, False),
        (("FullyConnected",), (4,), 0, False),
        (("Ring",), (4,), 0, True),
        (("Ring", "Switch"), (2, 3), 2, True),
    ],
)
def test_the_analytical_yaml(
    topology: tuple[str, ...], counts: tuple[int, ...], switches: int, forward: bool
) -> None:
    dims = len(topology)
    network = NetworkDims(topology, counts, (50.0,) * dims, (500.0,) * dims)
    prepared = prepare(NetworkRequest(network))
    config = prepared.config
    assert prepared.dims == counts
    assert config.endpoints == np.prod(counts)
    assert config.nodes == config.endpoints + switches
    assert (config.options.get("endpoints_forward") == "true") == forward
    # Every link has its other direction.
    pairs = sorted(zip(config.links["src"].tolist(), config.links["dst"].tolist(), strict=True))
    assert pairs == sorted((b, a) for a, b in pairs)


MUTANTS = st.sampled_from(["", "-1", "x", "1e400", "nan", "9" * 30, "\n", "0"])


def test_mutated_files_give_answers_or_input_errors(folder: Path) -> None:
    answers = []

    @settings(max_examples=examples(150), deadline=None)
    @given(data=st.data())
    def try_one(data: st.DataObject) -> None:
        for name, text in (("config.txt", CONFIG), ("topology.txt", TOPOLOGY)):
            words = text.split(" ")
            for _ in range(data.draw(st.integers(0, 2))):
                at = data.draw(st.integers(0, len(words) - 1))
                words[at] = data.draw(MUTANTS)
            (folder / name).write_text(" ".join(words))
        # Nothing else may escape.
        with contextlib.suppress(InputError):
            if is_ns3_config(folder / "config.txt"):
                answers.append(prepare(NetworkRequest(folder / "config.txt")))

    try_one()
    assert 0 < len(answers) < 150  # neither is everything refused nor anything accepted
