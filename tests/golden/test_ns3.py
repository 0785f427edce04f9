# SPDX-License-Identifier: MIT
"""Flow by flow against the public RDMA fork, without the layers above the network.

Each transfer of a golden case starts when it started there, so that a difference is the
network model's and nobody else's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.network.api import TRANSFER
from astra_bridge.network.ns3 import BACKENDS
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.units import TIME_NEVER
from astra_bridge.validation.cases import write_ns3_network
from tests.ns3_networks import needs_our_devices

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "ns3"
NS3 = BACKENDS[0]

pytestmark = needs_our_devices


def completion_times(case: dict[str, Any], folder: Path) -> tuple[list[int], dict[str, Any]]:
    """Flow completion time [ns] of each flow of a case, and the statistics."""
    flows = case["expect"]["flows"]
    # The ranks post their sends in rank order, a collective's to the next ranks first.
    ranks = case["ranks"]
    order = sorted(
        range(len(flows)),
        key=lambda i: (flows[i][3], flows[i][0], (flows[i][1] - flows[i][0]) % ranks),
    )
    transfers = np.zeros(len(flows), TRANSFER)
    for number, index in enumerate(order):
        src, dst, size, start_ns = flows[index][:4]
        transfers[number] = (number, start_ns * 1000, size, src, dst, 0, 0, 0)
    prepared = NS3.prepare(NetworkRequest(write_ns3_network(case, folder)))
    times = [0] * len(flows)
    with NS3.open(prepared.config) as network:
        assert network.submit(transfers) == len(flows)
        left = len(flows)
        while left:
            network.advance(TIME_NEVER, 10**12)
            for record in network.poll():
                index = order[int(record["id"])]
                times[index] = int(record["time_ps"]) // 1000 - flows[index][3]
                left -= 1
        return times, network.stats()


@pytest.mark.parametrize(
    "name",
    [
        "p2p_1B",
        "p2p_1000B",
        "p2p_65536B",
        "p2p_1hop_cc1",
        "p2p_1hop_cc3",
        "p2p_1hop_cc7",
        "p2p_1hop_cc8",
        "all_gather8",
        "all_to_all8",
        "allreduce16_direct",
        "allreduce8_cc1",
        "allreduce8_cc12",
        "allreduce8_mtu500",
        "dumbbell_share4_cc1",
        "dumbbell_share4_cc8",
        "incast16_pfc_smallbuffer",
        "incast8_cc1",
        "incast8_cc3",
        "leafspine16_ring_cc1",
        "leafspine16_ring_cc3",
    ],
)
def test_every_flow_takes_the_same_nanoseconds(name: str, tmp_path: Path) -> None:
    file = GOLDEN / f"{name}.json"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    case = json.loads(file.read_text())
    times, _ = completion_times(case, tmp_path)
    assert times == [flow[4] for flow in case["expect"]["flows"]]


@pytest.mark.parametrize(
    ("name", "tolerance"), [("leafspine16_2d", 0.01), ("leafspine16_oversub_alltoall_cc1", 0.01)]
)
def test_ties_that_the_ranks_decide(name: str, tolerance: float, tmp_path: Path) -> None:
    """Here the order of sends within one nanosecond matters, which the file does not tell."""
    file = GOLDEN / f"{name}.json"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    case = json.loads(file.read_text())
    flows = case["expect"]["flows"]
    times, _ = completion_times(case, tmp_path)
    assert times == pytest.approx([flow[4] for flow in flows], rel=tolerance)
    first = min(flow[3] for flow in flows)
    started_first = [i for i, flow in enumerate(flows) if flow[3] == first]
    assert [times[i] for i in started_first] == [flows[i][4] for i in started_first]
