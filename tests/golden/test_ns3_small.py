# SPDX-License-Identifier: MIT
"""A few answers of ASTRA-sim's RDMA fork of ns-3 that need no other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from astra_bridge.network.ns3 import BACKENDS
from astra_bridge.network.spec import NetworkRequest
from tests.ns3_networks import run

pytestmark = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)

CONFIG = """CC_MODE {mode}
PACKET_PAYLOAD_SIZE 1000
L2_CHUNK_SIZE 4000
L2_ACK_INTERVAL 1
GLOBAL_T 0
VAR_WIN 1
RP_TIMER 900
ALPHA_RESUME_INTERVAL 1
EWMA_GAIN 0.00390625
FAST_RECOVERY_TIMES 1
RATE_AI 50Mb/s
RATE_HAI 100Mb/s
MI_THRESH 0
MULTI_RATE 0
KMIN_MAP 2 100000000000 400 200000000000 600
KMAX_MAP 2 100000000000 1600 200000000000 2400
PMAX_MAP 2 100000000000 0.2 200000000000 0.2
BUFFER_SIZE 32
TOPOLOGY_FILE {folder}/topology.txt
"""


def star(folder: Path, hosts: int, rate: str, delay: str, mode: int) -> NetworkRequest:
    links = "".join(f"{hosts} {host} {rate} {delay} 0\n" for host in range(hosts))
    (folder / "topology.txt").write_text(f"{hosts + 1} 1 {hosts}\n{hosts}\n{links}")
    (folder / "config.txt").write_text(CONFIG.format(mode=mode, folder=folder))
    return NetworkRequest(folder / "config.txt")


@pytest.mark.parametrize(
    ("size", "ns"),
    [
        # 37 B (1 + 36 of headers) and a 48 B acknowledgement at 25 B/ns, each rounded to 1 and
        # 2 ns, on two links of 500 ns: 2 x (1 + 500) + 2 x (2 + 500).
        (1, 2006),
        # 1036 B: 41 ns.
        (1000, 2086),
        # 66 packets, and a window of one bandwidth-delay product that closes once.
        (65536, 4733),
    ],
)
def test_one_flow(size: int, ns: int, tmp_path: Path) -> None:
    config = BACKENDS[0].prepare(star(tmp_path, 2, "200Gbps", "0.0005ms", 12)).config
    assert run(config, [(0, 1, size, 0)])[0] == [ns * 1000]


@pytest.mark.parametrize(
    ("mode", "ns"),
    [
        (1, 91124),
        (3, 99150),  # HPCC holds the link at 95 %, and its telemetry travels along
        (7, 18619102),  # TIMELY without timestamps: the rate collapses
        (8, 91124),
    ],
)
def test_one_flow_under_congestion_control(mode: int, ns: int, tmp_path: Path) -> None:
    config = BACKENDS[0].prepare(star(tmp_path, 2, "100Gbps", "0.001ms", mode)).config
    assert run(config, [(0, 1, 1 << 20, 0)])[0] == [ns * 1000]


def test_incast_under_hpcc(tmp_path: Path) -> None:
    config = BACKENDS[0].prepare(star(tmp_path, 9, "100Gbps", "0.001ms", 3)).config
    times, _ = run(config, [(sender, 8, 2 << 20, 0) for sender in range(8)])
    assert [time // 1000 for time in times] == [
        1533096,
        1515985,
        1532906,
        1374768,
        1412336,
        1536117,
        1127485,
        1316428,
    ]
