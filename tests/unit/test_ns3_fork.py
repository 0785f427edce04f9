# SPDX-License-Identifier: MIT
"""The devices of the public RDMA fork of ns-3 instead of ours, where ``NS3_ROOT`` is such a fork.

``tests/golden/test_ns3_runs.py`` compares all recorded runs with either; here is what only the fork
has, and what it refuses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.errors import InputError, NetworkError
from astra_bridge.network.api import TRANSFER, Network
from astra_bridge.network.ns3 import BACKENDS
from astra_bridge.network.ns3.build import NS3, is_rdma_fork
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.simulation import simulate
from astra_bridge.units import TIME_NEVER
from astra_bridge.validation.cases import write_golden_case, write_ns3_network
from tests.golden.test_ns3 import GOLDEN

BACKEND = BACKENDS[0]
DIFFERENCES = GOLDEN.parent / "differences"

pytestmark = [
    pytest.mark.skipif(not is_rdma_fork(), reason="NS3_ROOT is no RDMA fork of ns-3"),
    pytest.mark.skipif(NS3.unavailable() is not None, reason=str(NS3.unavailable())),
]

# 400 Gbit/s, in the GiB/s of these files.
STAR = {"topology": ["Switch"], "npus_count": [4], "bandwidth": [50e9 / 2**30], "latency": [500.0]}


def opened(tmp_path: Path, **options: str) -> Network:
    """Four endpoints at a switch."""
    (tmp_path / "network.yml").write_text(json.dumps(STAR))
    prepared = BACKEND.prepare(NetworkRequest(tmp_path / "network.yml", options=options))
    return BACKEND.open(prepared.config)


def finish(network: Network, rows: list[tuple[Any, ...]]) -> dict[int, int]:
    transfers = np.zeros(len(rows), TRANSFER)
    for number, row in enumerate(rows):
        transfers[number] = (*row, *[0] * (len(TRANSFER.names or ()) - len(row)))
    assert network.submit(transfers) == len(rows)
    times: dict[int, int] = {}
    while len(times) < len(rows):
        network.advance(TIME_NEVER, 10**12)
        for record in network.poll():
            times[int(record["id"])] = int(record["time_ps"])
    return times


def test_doctor_says_which_it_is() -> None:
    assert NS3.version().startswith("ns-3 fork (RDMA: qbb-net-device.h)")


def test_a_transfer_takes_what_its_packets_do(tmp_path: Path) -> None:
    # 10 packets of 1000 bytes and 36 of headers at 400 Gbit/s: 21 ns each (20.72, in whole ns), on
    # two links of 500 ns; the acknowledgement of 48 bytes takes 1 ns, twice.
    with opened(tmp_path) as network:
        times = finish(network, [(0, 0, 10_000, 0, 1)])
        stats = network.stats()
    assert times == {0: ((10 + 1) * 21 + 2 * 500 + 2 * 1 + 2 * 500) * 1000}
    links = stats["tables"]["links"]
    sent = {(s, d): b for s, d, b in zip(links["src"], links["dst"], links["bytes"], strict=True)}
    assert sent[(0, 4)] == sent[(4, 1)] == 10 * 1036
    assert sent[(1, 4)] == sent[(4, 0)] == 10 * 48
    assert stats["data_packets"] == 10
    assert stats["packet_hops"] == 40
    assert stats["tables"]["flows"]["fct_ps"] == [times[0]]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queue_pairs", "2"),
        ("tick_ps", "1"),
        ("completion", "data"),
        ("rto_us", "100"),
        ("pfc", "false"),
        ("header_bytes", "82"),
        ("routing", "spray"),
        ("congestion_control", "swift"),
        ("pcap", "x.pcap"),
    ],
)
def test_what_the_fork_does_not_have_is_refused(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(NetworkError, match=f"option '{option}'.*'{value}'"):
        opened(tmp_path, **{option: value})


def test_there_is_no_other_compatibility(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave NS3_ROOT out"):
        opened(tmp_path, compatibility="none")


def test_attributes_of_the_fork_have_their_own_names_too(tmp_path: Path) -> None:
    with opened(tmp_path, **{"cc.EwmaGain": "0.5", "cc.RateOnFirstCnp": "0.9"}) as network:
        finish(network, [(0, 0, 10_000, 0, 1)])
    with pytest.raises(NetworkError, match=r"option 'cc\.Nonsense' is unknown"):
        opened(tmp_path, **{"cc.Nonsense": "1"})


def test_pauses_marks_and_queues_are_counted(tmp_path: Path) -> None:
    options = {"buffer_bytes": "400000", "ecn_map": "400000000000:20000:100000:0.2"}
    with opened(tmp_path, **options) as network:
        finish(network, [(i, 0, 400_000, i + 1, 0) for i in range(3)])
        stats = network.stats()
    links = stats["tables"]["links"]
    crowded = links["dst"].index(0)  # from the switch
    assert links["src"][crowded] == 4
    assert links["ecn_marks"][crowded] == stats["ecn_marks"] > 0
    assert links["max_queue_bytes"][crowded] > 20_000
    assert stats["pfc_pauses"] == sum(links["pauses_sent"]) > 0
    pfc = stats["tables"]["pfc"]
    assert len(pfc["time_ps"]) == stats["pfc_pauses"] + stats["pfc_resumes"]
    assert set(pfc["priority"]) == {3}
    assert all(links["src"][link] == 4 for link in pfc["link"])
    assert stats["drops"] == 0


def test_a_link_that_comes_back(tmp_path: Path) -> None:
    """Half the rate, nothing at all, and all of it again."""
    with opened(tmp_path) as network:
        alone = finish(network, [(0, 0, 1_000_000, 0, 1)])[0]
    with opened(tmp_path) as network:
        network.set_link(0, 0, 0.5)
        network.set_link(1, 0, 0.5)
        assert finish(network, [(0, 0, 1_000_000, 0, 1)])[0] > 1.9 * alone - 4_000_000
    with opened(tmp_path) as network:
        for link in (0, 1):
            network.set_link(link, 0, 0.0)
            network.set_link(link, 1_000_000_000, 1.0)
        late = finish(network, [(0, 500_000_000, 1_000_000, 0, 1)])[0]
        assert late > 1_000_000_000


def test_what_the_fork_never_repeats_is_stuck_and_named(tmp_path: Path) -> None:
    with opened(tmp_path) as network:
        network.set_link(0, 10_000_000, 0.0)
        network.set_link(1, 10_000_000, 0.0)
        with pytest.raises(NetworkError, match=r"transfer 7 \(0 -> 1, \d+ of 1000000 bytes"):
            finish(network, [(7, 0, 1_000_000, 0, 1)])


@pytest.mark.skipif(not DIFFERENCES.exists(), reason=f"{DIFFERENCES} is not there")
def test_hpcc_without_a_window_is_what_the_fork_makes_of_it(tmp_path: Path) -> None:
    case = json.loads((DIFFERENCES / "ns3_hpcc_nowin.json").read_text())
    # These files have the keys that are not as usual.
    usual = json.loads((GOLDEN / "p2p_1hop_cc3.json").read_text())["config"]
    case["config"] = {**usual, **case["config"]}
    files = write_golden_case(case, tmp_path)
    result = simulate(
        str(files.workload),
        files.system,
        write_ns3_network(case, tmp_path),
        files.remote_memory,
        backend="ns3",
        logical_topology=_logical(case, tmp_path),
    )
    assert result.finish_ns.tolist() == case["expect"]["finish_ns"]


def _logical(case: dict[str, Any], folder: Path) -> Path:
    path = folder / "logical.json"
    path.write_text(json.dumps({"logical-dims": list(map(str, case["logical_dims"]))}))
    return path
