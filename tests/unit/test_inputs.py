# SPDX-License-Identifier: MIT
"""Readers of the system, network, remote-memory, group and per-node files."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from astra_bridge.errors import InputError
from astra_bridge.inputs.custom import read_per_node_custom
from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.inputs.memory import RemoteMemoryConfig, read_remote_memory
from astra_bridge.inputs.network import (
    LinkColumns,
    NetworkDims,
    NetworkLink,
    NetworkLinks,
    NodeRange,
    network_text,
    read_network,
)
from astra_bridge.inputs.system import SystemConfig, SystolicArray, read_system
from astra_bridge.lowering import choices

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"

FULL_SYSTEM = {
    "scheduling-policy": "EXPLICIT",
    "collective-optimization": "localBWAware",
    "preferred-dataset-splits": 4,
    "active-chunks-per-dimension": 2,
    "endpoint-delay": 7,
    "local-mem-bw": 1600.5,
    "local-reduction-delay": 3,
    "model-shared-bus": 1,
    "L": 5,
    "o": 2.5,
    "g": 3,
    "G": 0.01,
    "peak-perf": 900,
    "roofline-enabled": 1,
    "replay-only": 0,
    "trace-enabled": True,
    "track-local-mem": False,
    "local-mem-trace-filename": "mem/trace",
    "all-reduce-implementation": ["ring", "direct2"],
    "reduce-scatter-implementation": ["halvingDoubling", "oneDirect-1"],
    "all-gather-implementation": ["oneRing"],
    "all-to-all-implementation": ["direct"],
    "all-gather-implementation-custom": ["collectives/all_gather"],
    "compute-model": "systolic",
    "hardware": "h100-sxm",
    "measured-kernels": "kernels.csv",
    "systolic-array": {"rows": 32, "columns": 16, "dataflow": "os", "frequency-GHz": 0.94},
    "inter-dimension-scheduling": "themis",
}


def test_system_reads_every_key() -> None:
    config = read_system(FULL_SYSTEM)
    assert config == SystemConfig(
        scheduling_policy="EXPLICIT",
        collective_optimization="localBWAware",
        preferred_dataset_splits=4,
        active_chunks_per_dimension=2,
        endpoint_delay_ns=7,
        local_mem_bw_GBps=1600.5,
        local_reduction_delay_ns=3,
        model_shared_bus=True,
        L_ns=5.0,
        o_ns=2.5,
        g_ns=3.0,
        G_ns_per_byte=0.01,
        peak_perf_TFLOPS=900.0,
        roofline_enabled=True,
        replay_only=False,
        trace_enabled=True,
        track_local_mem=False,
        flags_raw={
            "roofline-enabled": 1,
            "replay-only": 0,
            "trace-enabled": True,
            "track-local-mem": False,
        },
        local_mem_trace_filename="mem/trace",
        implementations={
            "all-reduce": ("ring", "direct2"),
            "reduce-scatter": ("halvingDoubling", "oneDirect-1"),
            "all-gather": ("oneRing",),
            "all-to-all": ("direct",),
        },
        custom={"all-gather": "collectives/all_gather"},
        compute_model="systolic",
        hardware="h100-sxm",
        measured_kernels="kernels.csv",
        systolic_array=SystolicArray(32, 16, "os", 0.94),
        inter_dimension_scheduling="themis",
        present=frozenset(FULL_SYSTEM),
    )
    assert read_system(config) is config


def test_system_defaults() -> None:
    assert read_system({}) == SystemConfig(present=frozenset())


@pytest.mark.parametrize(
    ("value", "astra_sim", "corrected"),
    [
        (0, False, False),
        (0.0, False, False),
        (False, True, False),
        (True, True, True),
        (2, True, True),
    ],
)
def test_json_false_switches_a_flag_on_in_astra_sim(
    value: object, astra_sim: bool, corrected: bool
) -> None:
    config = read_system({"roofline-enabled": value})
    assert config.enabled("roofline-enabled", "astra-sim") is astra_sim
    assert config.enabled("roofline-enabled", "corrected") is corrected
    memory = RemoteMemoryConfig()
    assert bool(choices(config, memory, "astra-sim").warnings) is (value is False)
    assert not choices(config, memory, "corrected").warnings


@pytest.mark.parametrize(
    ("value", "on"), [(1, True), (True, True), (1.9, True), (2, False), (0, False)]
)
def test_only_one_switches_the_shared_bus_on(value: object, on: bool) -> None:
    assert read_system({"model-shared-bus": value}).model_shared_bus is on


def test_ignored_keys_warn() -> None:
    config = read_system(
        {
            "boost-mode": 1,
            "intra-dimension-scheduling": "FIFO",
            "inter-dimension-scheduling": "roundRobin",
            "endpoint-delay": 10.7,
            "_comment": "mine",
        }
    )
    assert config.endpoint_delay_ns == 10
    chosen = choices(config, RemoteMemoryConfig())
    assert chosen.order.name == "baseline"
    keys = ["boost-mode", "intra-dimension-scheduling", "endpoint-delay", "inter-dimension"]
    warnings = config.warnings + chosen.warnings
    assert [any(key in warning for warning in warnings) for key in keys] == [True] * 4
    assert len(warnings) == 4


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        ({"endpoint-dely": 1}, "endpoint-dely", "did you mean 'endpoint-delay'"),
        ({"qqq": 1}, "qqq", "known keys: scheduling-policy"),
        ({"endpoint-delay": "10"}, "endpoint-delay", "found '10'"),
        ({"endpoint-delay": -1}, "endpoint-delay", ">= 0, found -1"),
        ({"endpoint-delay": 10**17}, "endpoint-delay", "found 100000000000000000"),
        ({"preferred-dataset-splits": 0}, "preferred-dataset-splits", ">= 1, found 0"),
        ({"active-chunks-per-dimension": 0}, "active-chunks-per-dimension", "found 0"),
        ({"scheduling-policy": "fifo"}, "scheduling-policy", "did you mean 'FIFO'"),
        ({"collective-optimization": 1}, "collective-optimization", "allowed: baseline"),
        ({"all-reduce-implementation": ["ring", "rang"]}, "all-reduce-implementation[1]", "'ring'"),
        ({"all-reduce-implementation": []}, "all-reduce-implementation", "empty"),
        ({"all-reduce-implementation": ["direct0"]}, "all-reduce-implementation[0]", "direct2"),
        ({"all-reduce-implementation": [3]}, "all-reduce-implementation[0]", "found 3"),
        ({"all-to-all-implementation-custom": ["a", "b"]}, "all-to-all-implementation-custom",
         "exactly one"),
        ({"roofline-enabled": "yes"}, "roofline-enabled", "found 'yes'"),
        ({"systolic-array": {"rows": 0}}, "systolic-array.rows", ">= 1, found 0"),
        ({"systolic-array": {"cols": 1}}, "systolic-array.cols", "columns"),
        ({"compute-model": "rofline"}, "compute-model", "did you mean 'roofline'"),
    ],
)  # fmt: skip
def test_system_errors_name_file_key_and_remedy(
    content: dict[str, Any], key: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "system.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        choices(read_system(file), RemoteMemoryConfig())
    assert caught.value.file == str(file)
    assert caught.value.key == key
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "expected keys and values"),
        (b"\xff\xfe", "not a UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"G": 1e999}', "json: G: .*found '1e999'"),
        (b'{"endpoint-delay": 12345678901234567890123}', "endpoint-delay"),
    ],
)
def test_unreadable_json(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "system.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_system(file)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=os.strerror(errno.ENOENT)):
        read_system(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot read"):
        read_network(tmp_path)
    with pytest.raises(InputError, match=r"network: .*allowed: a path"):
        read_network("a\0b")


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="not a regular file"):
            read_system(path)


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "system.json"
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert read_system(file) == SystemConfig(present=frozenset())


def test_per_node_custom_paths_are_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.0.et").write_bytes(b"")
    (tmp_path / "nodes.yml").write_text("3: mine\n12: elsewhere/other\n")
    (tmp_path / "system.json").write_text('{"per-node-custom-implementation": "nodes.yml"}')
    config = read_system(tmp_path / "system.json")
    assert config.per_node_custom == {3: str(tmp_path / "mine"), 12: "elsewhere/other"}


@pytest.mark.parametrize("text", ["- 1", "a: b", "1.5: b", "-1: b", "1: 2", "1: ''", "true: x"])
def test_per_node_custom_errors(text: str, tmp_path: Path) -> None:
    file = tmp_path / "nodes.yml"
    file.write_text(text)
    with pytest.raises(InputError):
        read_per_node_custom(file)


def test_network_dims(tmp_path: Path) -> None:
    file = tmp_path / "network.yml"
    file.write_text(
        "topology: [ Ring, Switch ]\nnpus_count: [ 2, 4 ]\n"
        "bandwidth: [ 5e1, 400Gbps ]\nlatency: [ 500, 0.5us ]\n"
    )
    # 400 Gbit/s = 50e9 B/s = 46.566 GiB/s
    assert read_network(file) == NetworkDims(
        ("Ring", "Switch"), (2, 4), (50.0, 50e9 / 2**30), (500.0, 500.0)
    )


GOOD_DIMS: dict[str, Any] = {
    "topology": ["Ring"],
    "npus_count": [8],
    "bandwidth": [50],
    "latency": [500],
}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"topology": ["ring"]}, "topology[0]"),
        ({"topology": "Ring"}, "topology"),
        ({"topology": []}, "topology"),
        ({"npus_count": [0]}, "npus_count[0]"),
        ({"npus_count": [8.5]}, "npus_count[0]"),
        ({"npus_count": [True]}, "npus_count[0]"),
        ({"bandwidth": [0]}, "bandwidth[0]"),
        ({"bandwidth": [math.inf]}, "bandwidth[0]"),
        ({"bandwidth": ["50 parsecs"]}, "bandwidth[0]"),
        ({"latency": [-1]}, "latency[0]"),
        ({"latency": [math.nan]}, "latency[0]"),
        ({"latency": [1, 2]}, None),
        ({"npus-count": [8]}, "npus-count"),
        (
            {
                "topology": ["Ring"] * 5,
                "npus_count": [1000] * 5,
                "bandwidth": [1] * 5,
                "latency": [1] * 5,
            },
            "npus_count",
        ),
    ],
)
def test_network_dims_errors(change: dict[str, Any], key: str | None) -> None:
    with pytest.raises(InputError) as caught:
        read_network(GOOD_DIMS | change)
    assert caught.value.key == key


@pytest.mark.parametrize("key", list(GOOD_DIMS))
def test_network_dims_need_every_key(key: str) -> None:
    with pytest.raises(InputError, match=f"{key}: missing"):
        read_network({other: value for other, value in GOOD_DIMS.items() if other != key})


def test_network_links() -> None:
    network = read_network(
        {
            "endpoints": 4,
            "switches": 1,
            "dims": [2, 2],
            "links": [
                {"src": 0, "dst": 4, "bandwidth": 50, "latency": 500},
                {"src": 1, "dst": 4, "bandwidth": "8GB/s", "latency": "1us", "loss": 0.5},
                {"src": 2, "dst": 4, "bandwidth": 50, "latency": 0},
                {"src": 4, "dst": 3, "bandwidth": 50, "latency": 500, "bidirectional": False},
                {"src": 3, "dst": 0, "bandwidth": 25, "latency": 500, "bidirectional": False},
            ],
        }
    )
    slow = 8e9 / 2**30
    assert network == NetworkLinks(
        4,
        5,
        (
            NetworkLink(0, 4, 50.0, 500.0),
            NetworkLink(4, 0, 50.0, 500.0),
            NetworkLink(1, 4, slow, 1000.0, 0.5),
            NetworkLink(4, 1, slow, 1000.0, 0.5),
            NetworkLink(2, 4, 50.0, 0.0),
            NetworkLink(4, 2, 50.0, 0.0),
            NetworkLink(4, 3, 50.0, 500.0),
            NetworkLink(3, 0, 25.0, 500.0),
        ),
        (2, 2),
    )


PAIRS = {
    "endpoints": 3,
    "switches": 1,
    "nodes": [{"tier": "gpu", "first": 0, "count": 3}, {"tier": "leaf", "first": 3, "name": "tor"}],
    "links": [{"bandwidth": 50, "latency": 500, "pairs": "0 3\n1 3\n\n 2 3 \n"}],
}


def test_pairs_are_an_entry_each() -> None:
    one_by_one = [{"src": i, "dst": 3, "bandwidth": 50, "latency": 500} for i in range(3)]
    network = read_network(PAIRS)
    assert network == read_network(PAIRS | {"links": one_by_one})
    lists = [{"bandwidth": 50, "latency": 500, "pairs": [[0, 3], [1, 3], [2, 3]]}]
    assert network == read_network(PAIRS | {"links": lists})
    assert isinstance(network, NetworkLinks)
    assert network.links[3] == NetworkLink(3, 1, 50.0, 500.0)
    assert list(network.links[4:]) == [NetworkLink(2, 3, 50.0, 500.0), network.links[5]]
    assert [network.name_of(node) for node in range(4)] == ["gpu0", "gpu1", "gpu2", "tor0"]
    assert network.names[1] == NodeRange("leaf", 3, 1, "tor")
    assert hash(network) == hash(read_network(PAIRS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": "0 3\n1 x"}, "links[0].pairs: expected two nodes, found '1 x'"),
        ({"pairs": "0 3 1"}, "links[0].pairs: expected two nodes, found '0 3 1'"),
        ({"pairs": "0 4"}, "links[0].pairs: 4 is not allowed; allowed: whole numbers from 0 to 3"),
        ({"pairs": "-1 3"}, "links[0].pairs: -1 is not allowed"),
        ({"pairs": "2 2"}, "links[0].pairs: joins node 2 with itself"),
        ({"pairs": [[0, 3], 1]}, "links[0].pairs: expected two nodes, found 1"),
        ({"pairs": [[0, 3.5]]}, "links[0].pairs: expected two nodes, found [0, 3.5]"),
        ({"pairs": 7}, "links[0].pairs: expected text with two nodes a line, or a list"),
        ({"src": 0}, "links[0].src: pairs says it already"),
    ],
)
def test_wrong_pairs(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_network(PAIRS | {"links": [PAIRS["links"][0] | change]})  # type: ignore[index]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({}, "nodes: expected a list of ranges of nodes"),
        ([{"first": 0}], "nodes[0].tier: missing"),
        ([{"tier": "gpu"}], "nodes[0].first: missing"),
        ([{"tier": "a b", "first": 0}], "nodes[0].tier: 'a b' is not allowed; allowed: up to 80"),
        ([{"tier": "gpu", "first": 4}], "nodes[0].first: 4 is not allowed"),
        ([{"tier": "gpu", "first": 2, "count": 3}], "nodes[0].count: 3 is not allowed"),
        ([{"tier": "gpu", "first": 2}, {"tier": "b", "first": 0, "count": 3}], "node 2 is named"),
        ([{"tier": "gpu", "first": 2, "count": 2}], "nodes: gpu has both ranks and switches"),
        ([{"tier": "gpu", "first": 2, "named": "x"}], "nodes[0].named: unknown key"),
    ],
)
def test_wrong_names_of_nodes(nodes: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_network(PAIRS | {"nodes": nodes})
    assert message in str(caught.value)


_RATES = st.one_of(st.floats(1e-9, 1e12), st.integers(1, 10**6).map(lambda n: n * 1e9 / 2**33))
_CABLE = st.tuples(
    st.integers(0, 5),
    st.integers(0, 5),
    _RATES,
    st.sampled_from([0.0, 25.0, 0.125, 1e-7, 500.0, 2.0**53 - 1]),
    st.sampled_from([0.0, 0.5, 1e-9]),
    st.booleans(),
)


@given(st.lists(_CABLE, max_size=12), st.sampled_from(["leaf", "yes", "1", "a:b", "null", "é"]))
def test_what_is_written_is_read_again(cables: list[tuple[Any, ...]], word: str) -> None:
    links = [NetworkLink(i, 6, 50.0, 500.0) for i in range(6)]
    links += [NetworkLink(6, i, 50.0, 500.0) for i in range(6)]
    for src, dst, *rest, both in cables:
        if src != dst:
            links += [NetworkLink(src, dst, *rest)] + [NetworkLink(dst, src, *rest)] * both
    network = NetworkLinks(
        6,
        7,
        tuple(links),
        (2, 3),
        names=(NodeRange(word, 3, 2), NodeRange("sw", 6)),
        routing="spray" if word == "leaf" else "ecmp",
        endpoints_forward=word == "yes",
    )
    text = network_text(network, comment="one\ntwo")
    raw = yaml.safe_load(text)
    assert read_network(raw) == network
    assert text.startswith("# one\n# two\n")


def test_columns_are_checked() -> None:
    good: list[Any] = [[0], [1], [50.0], [500.0], [0.0]]
    assert LinkColumns(*good) == LinkColumns.of([NetworkLink(0, 1, 50.0, 500.0)])
    for at, wrong in [
        (0, [0.5]), (1, [-1]), (2, [0.0]), (2, [math.nan]), (3, [-1.0]), (4, [2.0]), (0, ["0"]),
        (0, [0, 1]), (0, [[0]]), (0, [[0], [0, 1]]), (0, 0),
    ]:  # fmt: skip
        with pytest.raises(InputError, match="LinkColumns"):
            LinkColumns(*good[:at], wrong, *good[at + 1 :])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"dims": [3]}, "dims"),
        ({"endpoints": 0}, "endpoints"),
        ({"switches": -1}, "switches"),
        ({"links": {}}, "links"),
        ({"links": []}, "links"),
        ({"links": [[0, 1]]}, "links[0]"),
        ({"links": [{"src": 0, "dst": 1, "bandwidth": 1}]}, "links[0].latency"),
        ({"links": [{"src": 0, "dst": 2, "bandwidth": 1, "latency": 1}]}, "links[0].dst"),
        ({"links": [{"src": 1, "dst": 1, "bandwidth": 1, "latency": 1}]}, "links[0]"),
        ({"links": [{"src": 0, "dst": 1, "bandwidth": 1, "latency": 1, "loss": 2}]},
         "links[0].loss"),
        ({"links": [{"src": 0, "dst": 1, "bandwidth": 1, "latency": 1, "bidirectional": 1}]},
         "links[0].bidirectional"),
        ({"links": [{"src": 0, "dst": 1, "bandwidth": 1, "latency": 1, "bidirectional": False}]},
         "links"),
    ],
)  # fmt: skip
def test_network_links_errors(change: dict[str, Any], key: str) -> None:
    good = {"endpoints": 2, "links": [{"src": 0, "dst": 1, "bandwidth": 1, "latency": 1}]}
    read_network(good)
    with pytest.raises(InputError) as caught:
        read_network(good | change)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "line 1: repeated key 'a'"),
        # PyYAML refuses some of these itself, in the words of its version.
        ("[" * 200_000, "not valid YAML"),
        ("- " * 200_000, "not valid YAML"),
        ("{[1]: 2}", "not valid YAML"),
        ("a: !!timestamp 2026-13-45", "not valid YAML"),
        ("a: !!python/object:os.system x", "not valid YAML"),
        ("ENABLE_QCN 1\nCC_MODE 12\n", "expected YAML with the keys"),
        ("", "found None"),
    ],
)
def test_yaml_that_must_not_crash(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "network.yml"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        read_network(file)


def test_yaml_alias_bomb_gives_a_short_error(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    file = tmp_path / "network.yml"
    file.write_text("\n".join([*lines, "topology: *a11"]))
    with pytest.raises(InputError) as caught:
        read_network(file)
    assert len(str(caught.value)) < 1000


def test_remote_memory() -> None:
    assert read_remote_memory({"memory-type": "NO_MEMORY_EXPANSION"}) == RemoteMemoryConfig()
    config = read_remote_memory(
        {
            "memory-type": "PER_NODE_MEMORY_EXPANSION",
            "remote-mem-latency": 100,
            "remote-mem-bw": 10.9,
            "num-nodes": 2,
            "num-npus-per-node": 4,
        }
    )
    assert config == RemoteMemoryConfig("PER_NODE_MEMORY_EXPANSION", 100, 10, 2, 4)
    assert "10.9 is cut to 10" in config.warnings[0]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({}, "memory-type"),
        ({"memory-type": "MEMORY_POOLS"}, "memory-type"),
        ({"memory-type": "MEMORY_POOL"}, "remote-mem-bw"),
        ({"memory-type": "MEMORY_POOL", "remote-mem-bw": 0.5}, "remote-mem-bw"),
        ({"memory-type": "MEMORY_POOL", "remote-mem-bw": -1}, "remote-mem-bw"),
        ({"memory-type": "MEMORY_POOL", "remote-mem-bw": 1, "latency": 1}, "latency"),
        ({"memory-type": "PER_NODE_MEMORY_EXPANSION", "remote-mem-bw": 1}, "num-nodes"),
    ],
)
def test_remote_memory_errors(content: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        choices(SystemConfig(), read_remote_memory(content))
    assert caught.value.key == key


def test_groups_keep_their_order(tmp_path: Path) -> None:
    file = tmp_path / "groups.json"
    file.write_text('{"2": [3, 1], "1": [0]}')
    assert read_comm_groups(file, 4) == {2: (3, 1), 1: (0,)}


@pytest.mark.parametrize(
    "source", [None, "empty", "no/such/empty.json", Path("emptyfolder/g.json")]
)
def test_no_groups(source: str | Path | None) -> None:
    assert read_comm_groups(source, 4) == {}


def test_any_text_names_a_group() -> None:
    assert read_comm_groups({"0": [1, 0], "1": [0]}, 2) == {1: (0,)}
    assert read_comm_groups({"0": [1], "1.0": [0]}, 2) == {0: (1,), 1: (0,)}
    names = {"9f2c": (0,), "99999999999": (1,)}
    assert read_comm_groups(names, 2) == names
    with pytest.raises(InputError, match="group 1 is given twice"):
        read_comm_groups({"1": [0], "1.0": [1]}, 2)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"-1": [0]}, "-1"),
        ({"1": [0], "01": [1]}, "01"),
        ({" ": [0]}, " "),
        ({"-2.0": [0]}, "-2.0"),
        ({"1": []}, "1"),
        ({"1": 3}, "1"),
        ({"1": [0, 0]}, "1[1]"),
        ({"1": [4]}, "1[0]"),
        ({"1": [-1]}, "1[0]"),
        ({"1": ["0"]}, "1[0]"),
        ({"1": [True]}, "1[0]"),
    ],
)
def test_group_errors(content: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        read_comm_groups(content, 4)
    assert caught.value.key == key


def test_golden_inputs_are_read() -> None:
    cases = sorted(GOLDEN.glob("analytical*/*.json"))
    if not cases:
        pytest.skip("../shared/golden is not here")
    for case in cases:
        content = json.loads(case.read_text())
        system = read_system(content["system"])
        assert system.preferred_dataset_splits == content["system"]["preferred-dataset-splits"]
        network = read_network(content["network"])
        assert isinstance(network, NetworkDims)
        read_remote_memory(content["remote_memory"])
        groups = read_comm_groups(content.get("comm_groups"), math.prod(network.npus_count))
        assert len(groups) == len(content.get("comm_groups", {}))


def test_only_what_is_not_there_is_an_empty_group_file(tmp_path: Path) -> None:
    file = tmp_path / "nonempty.json"
    assert read_comm_groups(file) == read_comm_groups("empty") == {}
    file.write_text('{"1": [0, 1]}')
    assert read_comm_groups(file) == {1: (0, 1)}
