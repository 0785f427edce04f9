# SPDX-License-Identifier: MIT
"""Topologies of other tools become networks of links; every file here is made up for the tests."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_bridge import fabrics
from astra_bridge.cli import main
from astra_bridge.cli.command import Command
from astra_bridge.cli.topology import COMMAND
from astra_bridge.errors import InputError
from astra_bridge.fabrics import infragraph_text, read_topology
from astra_bridge.fabrics.drawing import draw_topology
from astra_bridge.fabrics.htsim import is_htsim, read_htsim
from astra_bridge.fabrics.infragraph import read_infragraph
from astra_bridge.fabrics.simai import is_simai, read_simai
from astra_bridge.fabrics.summary import cables_of, tiers_of
from astra_bridge.inputs.network import (
    LinkColumns,
    NetworkLink,
    NetworkLinks,
    NodeRange,
    network_text,
    read_network,
)
from tests.effort import examples

GBPS = 1e9 / 8 / 2**30

# Two servers of two GPUs; NVSwitches 4 and 5, leaves 6 and 7, and spine 8 between them.
SIMAI = """9 2 2 3 10 H100
4 5 6 7 8
0 4 2880Gbps 0.000025ms 0
1 4 2880Gbps 0.000025ms 0
2 5 2880Gbps 0.000025ms 0
3 5 2880Gbps 0.000025ms 0
0 6 400Gbps 0.0005ms 0
2 6 400Gbps 0.0005ms 0
1 7 400Gbps 0.0005ms 0.25
3 7 400Gbps 0.0005ms 0
6 8 800Gbps 1us 0
7 8 800Gbps 1us 0
"""

# A pod of two racks and a second one; two cables from each aggregation switch to each core.
HTSIM = """# made up
Nodes 8
Tiers 3
Podsize 4
Tier 0
Downlink_speed_Gbps 200
Radix_Down 2
Radix_Up 2
Queue_Up 100
Downlink_Latency_ns 1000
Switch_Latency_ns 50

Tier 1
Downlink_speed_Gbps 200
Radix_Down 2
Radix_Up 4
Downlink_Latency_ns 700
Switch_Latency_ns 30
Tier 2
Downlink_speed_Gbps 100
Radix_Down 4
Downlink_Latency_ns 2000
Switch_Latency_ns 10
Bundle 2
"""


def ends(network: NetworkLinks) -> list[tuple[str, str]]:
    return [(network.name_of(one.src), network.name_of(one.dst)) for one in network.links][::2]


def rows(network: NetworkLinks) -> list[tuple[Any, ...]]:
    """Links in an order of their own."""
    columns = LinkColumns.of(network.links)
    return sorted(
        (one.src, one.dst, round(one.bandwidth_GiBps / GBPS, 6), one.latency_ns) for one in columns
    )


def test_simai() -> None:
    network = read_simai(SIMAI)
    assert (network.endpoints, network.nodes, network.dims) == (4, 9, (2, 2))
    tiers = [(one.tier, one.first, one.count) for one in network.names]
    assert tiers == [("gpu", 0, 4), ("nvlink", 4, 2), ("leaf", 6, 2), ("spine", 8, 1)]
    assert network.links[0] == NetworkLink(0, 4, 2880 * GBPS, 25.0)
    assert network.links[12] == NetworkLink(1, 7, 400 * GBPS, 500.0, 0.25)
    assert network.links[19] == NetworkLink(8, 7, 800 * GBPS, 1000.0)


def test_simai_with_other_ids_is_the_same() -> None:
    """Ids of the file may be in any order: here node n is called 8 - n."""
    lines = SIMAI.splitlines()
    turned = [" ".join(str(8 - int(n)) for n in lines[1].split())]
    for line in lines[2:]:
        a, b, *rest = line.split()
        turned.append(" ".join([str(8 - int(a)), str(8 - int(b)), *rest]))
    network = read_simai("\n".join([lines[0], *turned]))
    # GPUs count the other way round; all else has the order of the list of switches, or of ids.
    to = {0: 3, 1: 2, 2: 1, 3: 0, 4: 4, 5: 5, 6: 7, 7: 6, 8: 8}
    expected = sorted((to[a], to[b], *rest) for a, b, *rest in rows(read_simai(SIMAI)))
    assert rows(network) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("9 2 2 3 10", "9 3 2 3 10", "nodes: 4 GPUs are left of 9 nodes; allowed: multiples of 3"),
        ("9 2 2 3 10", "9 2 9 3 10", "nodes: -3 GPUs are left"),
        ("9 2 2 3 10", "9 2 2 3 11", "link 10: the file ends here"),
        ("9 2 2 3 10", "9 2 2 3 9", "'7' follows the last link"),
        ("4 5 6 7 8\n", "4 5 6 7 7\n", "id of a switch: 7 is there twice"),
        ("0 6 400Gbps", "0 9 400Gbps", "link 4: '9' is not allowed; allowed: whole numbers from 0"),
        ("0 6 400Gbps", "6 6 400Gbps", "link 4: joins node 6 with itself"),
        ("0 6 400Gbps", "0 6 fast", "link 4: "),
        ("0.0005ms 0.25", "0.0005ms 2", "link 6: '2' is not allowed; allowed: numbers from 0 up"),
    ],
)
def test_wrong_simai(old: str, new: str, message: str) -> None:
    assert old in SIMAI
    with pytest.raises(InputError) as caught:
        read_simai(SIMAI.replace(old, new, 1), Path("a.topo"))
    assert f"a.topo: {message}" in str(caught.value)


def test_htsim() -> None:
    network = read_htsim(HTSIM)
    tiers = [(one.tier, one.count) for one in network.names]
    assert tiers == [("gpu", 8), ("leaf", 4), ("spine", 4), ("core", 4)]
    assert network.dims == (8,)
    found = ends(network)
    assert found[:3] == [("gpu0", "leaf0"), ("gpu1", "leaf0"), ("gpu2", "leaf1")]
    between = [pair for pair in found if "leaf" in pair[0]]
    assert between == [
        *((f"leaf{rack}", f"spine{spine}") for rack in (0, 1) for spine in (0, 1)),
        *((f"leaf{rack}", f"spine{spine}") for rack in (2, 3) for spine in (2, 3)),
    ]
    above = [pair for pair in found if "spine" in pair[0]]
    for spine in range(4):  # the first of a pod has cores 0 and 2, the second 1 and 3
        cores = [core for own, core in above if own == f"spine{spine}"]
        assert cores == [f"core{n}" for n in (spine % 2, spine % 2, 2 + spine % 2, 2 + spine % 2)]
    said = {(round(one.bandwidth_GiBps / GBPS), one.latency_ns) for one in network.links}
    # Each switch's own time is shared by the two links that lead through it.
    assert said == {(200, 1000 + 25), (200, 700 + 25 + 15), (100, 2000 + 15 + 5)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Nodes 8\n", "", "nodes: missing"),
        ("Nodes 8", "Nodes 9", "podsize: 4 is not allowed; allowed: divisors of nodes"),
        ("Nodes 8", "Nodes 8 8", "line 2: expected a key and a number"),
        ("Nodes 8", "Nodes x", "line 2: 'x' is not allowed"),
        ("Nodes 8", "Nodes 0.5", "line 2: 0.5 is not allowed; allowed: whole numbers"),
        ("Tiers 3", "Tiers 2", "tiers: 2 tiers, and 3 are described"),
        ("Tier 1", "Tier 2", "line 13: tier 2 is not allowed; allowed: 1"),
        ("Queue_Up", "Queues", "line 9: unknown key 'Queues'; did you mean"),
        ("Queue_Up 100", "Radix_Up 2", "line 9: Radix_Up is there twice"),
        ("Radix_Up 2\n", "", "tier 0 radix_up: missing"),
        ("Bundle 2", "Bundle 3", "tier 1 radix_up: 4 is no multiple of the bundle above"),
        ("Bundle 2", "Bundle 1", "tier 2 radix_down: 4 is not allowed; allowed: 2, a bundle of 1"),
        ("Radix_Up 2\n", "Radix_Up 1\n", "tier 0 oversubscribed: 1 is not allowed; allowed: 2"),
        ("Radix_Down 2\n", "Radix_Down 3\n", "tier 0 radix_down: 3 does not divide 4 hosts"),
    ],
)
def test_wrong_htsim(old: str, new: str, message: str) -> None:
    assert old in HTSIM
    with pytest.raises(InputError) as caught:
        read_htsim(HTSIM.replace(old, new, 1), Path("a.topo"))
    assert f"a.topo: {message}" in str(caught.value)


HOSTS = """
name: made up
devices:
  - name: box
    components:
      - {name: gpu, choice: xpu, count: 2}
      - {name: nv, choice: switch, count: 1}
      - {name: nic, choice: nic, count: 2}
      - {name: mgmt, choice: custom, custom: {type: mgmt-nic}, count: 1}
      - {name: host, choice: cpu, count: 1}
    links:
      - {name: nvlink, physical: {bandwidth: {choice: gigabytes_per_second,
                                              gigabytes_per_second: 450}}}
      - {name: pcie, physical: {latency: {choice: us, us: 0.5}}}
    edges:
      - {ep1: {component: gpu}, ep2: {component: nv}, scheme: many2many, link: nvlink}
      - {ep1: {component: gpu}, ep2: {component: nic}, scheme: one2one, link: pcie}
      - {ep1: {component: mgmt}, ep2: {component: host}, scheme: one2one, link: pcie}
  - name: switch
    components:
      - {name: asic, choice: switch, count: 1}
      - {name: port, choice: port, count: 8}
    links: [{name: inside}]
    edges:
      - {ep1: {component: asic}, ep2: {component: port}, scheme: many2many, link: inside}
instances:
  - {name: server, device: box, count: 2}
  - {name: tor, device: switch, count: 2}
links:
  - {name: fast, physical: {bandwidth: {choice: gigabits_per_second, gigabits_per_second: 400},
                            latency: {choice: ns, ns: 300}}}
  - {name: trunk, physical: {bandwidth: {choice: gigabits_per_second, gigabits_per_second: 800}}}
edges:
  - {ep1: {instance: "server[0]", component: nic}, scheme: one2one, link: fast,
     ep2: {instance: "tor[0]", component: "port[0:2]"}}
  - {ep1: {instance: "server[1]", component: nic}, scheme: one2one, link: fast,
     ep2: {instance: "tor[1]", component: "port[0:2]"}}
  - {ep1: {instance: "tor[0]", component: "port[4:6]"}, ep2: {instance: "tor[1]",
     component: "port[4:6]"}, scheme: one2one, link: trunk}
"""


def test_infragraph() -> None:
    pytest.importorskip("infragraph")
    network = read_infragraph(yaml.safe_load(HOSTS))
    assert network.dims == (2, 2)
    assert not network.endpoints_forward
    named = [(one.tier, one.name, one.count) for one in network.names]
    assert named == [
        ("gpu", "server.gpu", 4), ("nv", "server.nv", 2), ("tor", "tor", 2)
    ]  # fmt: skip
    said = [
        (network.name_of(one.src), network.name_of(one.dst),
         round(one.bandwidth_GiBps / GBPS), one.latency_ns) for one in network.links
    ][::2]  # fmt: skip
    assert said == [
        ("server.gpu0", "server.nv0", 3600, 0.0),
        ("server.gpu0", "tor0", 400, 800.0),  # the NIC is part of the cable: 500 + 300 ns
        ("server.gpu1", "server.nv0", 3600, 0.0),
        ("server.gpu1", "tor0", 400, 800.0),
        ("server.gpu2", "server.nv1", 3600, 0.0),
        ("server.gpu2", "tor1", 400, 800.0),
        ("server.gpu3", "server.nv1", 3600, 0.0),
        ("server.gpu3", "tor1", 400, 800.0),
        ("tor0", "tor1", 800, 0.0),
        ("tor0", "tor1", 800, 0.0),
    ]


def test_an_infragraph_without_a_bandwidth() -> None:
    pytest.importorskip("infragraph")
    raw = yaml.safe_load(re.sub(r", physical: {bandwidth: {choice: giga.*800}}", "", HOSTS))
    with pytest.raises(
        InputError, match=r"inside . trunk . inside: says no bandwidth; add it, or give"
    ):
        read_infragraph(raw)
    network = read_infragraph(raw, default_gbps=100.0, default_latency_ns=7.0)
    assert network.links[-1] == NetworkLink(7, 6, 100 * GBPS, 7.0)
    with pytest.raises(InputError, match="infragraph says:"):
        read_infragraph(raw | {"instances": [{"name": "server", "device": "none", "count": 2}]})
    with pytest.raises(InputError, match="no component is of type xpu"):
        read_infragraph(raw | {"edges": [], "instances": raw["instances"][1:]})


SMALL = settings(
    deadline=None, max_examples=examples(24), suppress_health_check=[HealthCheck.too_slow]
)
MADE = st.one_of(
    st.builds(
        fabrics.rail,
        st.sampled_from([8, 16, 32]),
        planes=st.integers(1, 2),
        hosts_per_leaf=st.sampled_from([None, 1, 2]),
        nic_gbps=st.floats(1, 1000),
        latency_ns=st.floats(0, 1e4),
        nvlink_gbps=st.sampled_from([0.0, 900.0]),
    ),
    st.builds(fabrics.torus, dims=st.lists(st.integers(2, 4), min_size=1, max_size=2)),
    st.builds(fabrics.dragonfly, st.sampled_from([2, 12]), gpus_per_host=st.just(1)),
    st.builds(fabrics.hgx, st.sampled_from([2, 8, 16])),
)


@SMALL
@given(MADE)
def test_an_infragraph_gives_the_network_back(network: NetworkLinks) -> None:
    """But for the logical dimensions and the order of the links."""
    pytest.importorskip("infragraph")
    again = read_infragraph(yaml.load(infragraph_text(network), yaml.CSafeLoader))
    assert again.names == network.names
    assert (again.endpoints, again.nodes) == (network.endpoints, network.nodes)
    assert again.endpoints_forward == network.endpoints_forward
    for one, other in zip(rows(again), rows(network), strict=True):
        assert one == pytest.approx(other, rel=1e-9)


def test_what_an_infragraph_cannot_say() -> None:
    one_way = NetworkLinks(2, 2, [NetworkLink(0, 1, 50.0, 500.0)], (2,))
    lossy = [NetworkLink(0, 1, 50.0, 500.0, 0.5), NetworkLink(1, 0, 50.0, 500.0, 0.5)]
    for network in (one_way, NetworkLinks(2, 2, lossy, (2,))):
        with pytest.raises(InputError, match="go both ways and lose nothing only"):
            infragraph_text(network)


def test_the_content_says_the_format(tmp_path: Path) -> None:
    network = fabrics.rail(16)
    contents = {"simai": SIMAI, "htsim": HTSIM, "links": network_text(network)}
    for name, text in contents.items():
        file = tmp_path / name
        file.write_text(text)
        assert (is_simai(text), is_htsim(text)) == (name == "simai", name == "htsim")
        assert read_topology(file) == read_topology(file, name)
    assert read_topology(tmp_path / "links") == network
    for text in ("topology: [Ring]\nnpus_count: [4]\nbandwidth: [1]\nlatency: [1]\n", "7", ""):
        file.write_text(text)
        with pytest.raises(InputError, match="no topology of a format that is known: links, infr"):
            read_topology(file)
    with pytest.raises(InputError, match="file_format: 'simia' is not allowed; allowed: links"):
        read_topology(file, "simia")


def test_an_infragraph_in_a_file(tmp_path: Path) -> None:
    pytest.importorskip("infragraph")
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    assert read_topology(tmp_path / "hosts.yaml").dims == (2, 2)


def command(*words: str) -> int:
    return main(["topology", *words])


def test_a_command_for_each_fabric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    group = COMMAND
    for name in group.summaries():
        entry = group.find(name)
        assert isinstance(entry, Command)
        assert command(name, "--help") == 0
        if name == "convert":
            continue
        assert main(entry.example.split()) == 0
        file = Path(entry.example.split()[-1])
        network = read_topology(file)
        assert file.read_text().startswith(f"# astra-bridge {entry.example.partition(' -o')[0]}\n")
        made: Any = getattr(fabrics, name.replace("-", "_"))
        given = re.findall(r"--([\w-]+) (\S+)", entry.example)
        values = {
            key.replace("-", "_"): [int(one) for one in value.split(",")]
            if key == "dims"
            else int(value)
            for key, value in given
        }
        assert made(**values) == network
    out = capsys.readouterr().out
    assert "wrote rail.yml: 512 GPUs, dimensions 8 x 64\n  512 gpu\n  64 nvlink\n  16 leaf\n" in out
    assert "  gpu-leaf: 512 x 400 Gbps, 500 ns\n" in out


def test_what_all_kinds_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("rail", "--gpus", "16", "--rail-only") == 0
    made = network_text(
        fabrics.rail(16, rail_only=True), "astra-bridge topology rail --gpus 16 --rail-only"
    )
    assert capsys.readouterr().out == made
    words = ["rail", "--gpus", "16", "--dims", "4x4", "--routing", "spray"]
    assert command(*words) == 0
    text = capsys.readouterr().out
    assert text.startswith("# astra-bridge topology rail --gpus 16 --dims 4,4 --routing spray\n")
    network = read_network(yaml.safe_load(text))
    assert isinstance(network, NetworkLinks)
    assert (network.dims, network.routing) == ((4, 4), "spray")
    file, back = tmp_path / "rail.yml", tmp_path / "back.yml"
    assert command(*words, "-o", str(file)) == 0
    pytest.importorskip("infragraph")
    assert command("convert", str(file), "--to", "infragraph", "-o", str(back)) == 0
    again = read_topology(back)
    assert (again.dims, rows(again)) == ((16,), rows(network))
    assert command("convert", str(back), "--dims", "4,4", "--output", str(file)) == 0
    assert rows(read_topology(file)) == rows(network)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rail", "missing: --gpus; `astra-bridge topology rail --help` explains"),
        ("rail --gpus 12", "--gpus: 12 is not allowed; allowed: multiples of gpus_per_host, which"),
        ("rail --gpus 8.5", "--gpus: '8.5' is not allowed; allowed: whole numbers from"),
        ("rail --gpus 64 --nic-gbps -1", "--nic-gbps: -1.0 is not allowed; allowed: numbers from"),
        ("rail --gpus 64 --spine 2", "unknown flag '--spine'; did you mean '--spines'?"),
        ("rail --gpus 64 --dims 8,9", "--dims: 8 x 9 is not allowed; allowed: sizes whose product"),
        ("rail --gpus 64 --dims 8,0", "--dims: '8,0' is not allowed; allowed: sizes such as 8,64"),
        ("torus --gpus 9 --dims 2,4", "--dims: 2 x 4 is 8, but gpus is 9"),
        (
            "rail --gpus 64 --routing best",
            "--routing: 'best' is not allowed; allowed: ecmp, static",
        ),
        ("rail --gpus 64 --to simai", "--to: 'simai' is not allowed; allowed: links, infragraph"),
        ("leaf --gpus 64", "unknown command 'leaf'"),
        ("convert none.yml", "none.yml: cannot read the file"),
        ("convert none.yml --from x", "--from: 'x' is not allowed; allowed: links, infragraph, si"),
        ("convert none.yml --default-gbps 0", "--default-gbps: 0.0 is not allowed; allowed: numbe"),
    ],
)
def test_a_wrong_command(
    words: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(*words.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["rail", "dragonfly", "torus"])
def test_a_drawing(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = [tmp_path / name for name in ("a.svg", "b.svg")]
    network = tmp_path / "network.yml"
    for picture in pictures:
        words = ["--gpus", "4096", "-o", str(network), "--drawing", str(picture)]
        assert command(kind, *words) == 0
    said = pictures[0].read_text()
    assert pictures[1].read_text() == said
    assert len(said) < 400_000  # groups, not nodes


def test_a_drawing_of_any_network(tmp_path: Path) -> None:
    """Nodes without names, links of one way, switches that nobody reaches, parallel cables."""
    pytest.importorskip("matplotlib")
    links = [NetworkLink(0, 2, 50.0, 500.0), NetworkLink(2, 0, 50.0, 500.0)] * 2
    network = NetworkLinks(2, 5, [*links, NetworkLink(1, 2, 1.0, 0.0)], (2,))
    draw_topology(network, tmp_path / "a.png", "a title")
    assert (tmp_path / "a.png").stat().st_size > 1000
    names = (NodeRange("leaf", 2, 1), NodeRange("leaf", 3, 1, "other"))
    draw_topology(replace(network, names=names), tmp_path / "a.png")
    with pytest.raises(InputError, match="cannot draw a 'doc'"):
        draw_topology(network, tmp_path / "a.doc")
    assert [str(one) for one in cables_of(network)] == [
        "1 x 8.59 Gbps, 0 ns", "2 x 429.497 Gbps, 500 ns"
    ]  # fmt: skip
    assert tiers_of(network) == {"gpu": 2, "switch": 3}


def test_the_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("infragraph")
    pytest.importorskip("matplotlib")
    page = (Path(__file__).parents[2] / "docs/fabrics.md").read_text()
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^astra-bridge (topology .*)$", page, re.MULTILINE)
    assert len(commands) == 3
    for words in commands:
        assert main(words.split()) == 0
        printed = capsys.readouterr().out
        if "rail --gpus" in words:
            assert "".join(f"    {line}\n" for line in printed.splitlines()) in page
    assert rows(read_topology(tmp_path / "again.yml")) == rows(read_topology(tmp_path / "rail.yml"))
    assert set(COMMAND.summaries()) == {*re.findall(r"^\| `([a-z-]+)` \|", page, re.M), "convert"}


def test_a_large_cluster_takes_seconds(tmp_path: Path) -> None:
    """8,192 hosts: written in 1.4 s and read in 0.8 s of CPU time; ten times that is a mistake."""
    file = tmp_path / "large.yml"
    began = time.process_time()
    assert command("rail", "--gpus", "65536", "-o", str(file)) == 0
    written = time.process_time()
    network = read_topology(file)
    assert network.endpoints == 65536
    assert len(network.links) == 2 * 3 * 65536
    assert (written - began, time.process_time() - written) < (10, 10)


def test_an_htsim_file_that_would_take_all_memory() -> None:
    tier = "Tier {}\nDownlink_speed_Gbps {}\nRadix_Down {}\nDownlink_Latency_ns 1\n"
    text = "Nodes 1000\nTiers 2\nPodsize 1000\n"
    text += tier.format(0, 1000, 1) + "Radix_Up 1000000\n" + tier.format(1, 0.001, 1000)
    with pytest.raises(InputError, match="tier 0 radix_up: makes 1000000000 cables"):
        read_htsim(text)
