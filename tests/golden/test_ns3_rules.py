# SPDX-License-Identifier: MIT
"""Rules of ASTRA-sim's RDMA fork of ns-3 that ``compatibility=fork`` follows.

One small network per rule: hosts on one switch, every flow starts at 0.  The expected flow
completion times [ns] are the fork's answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from astra_bridge.network.ns3.config import CC_MODES
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.simulation import simulate
from astra_bridge.validation.cases import write_golden_case, write_ns3_network
from tests import ns3_networks as net
from tests.golden.test_ns3 import NS3, completion_times
from tests.ns3_networks import needs_our_devices

pytestmark = needs_our_devices

RATES = (25, 40, 50, 100, 200, 400)
CONFIG = {
    "PACKET_PAYLOAD_SIZE": 1000,
    "RATE_AI": "50Mb/s",
    "RATE_HAI": "100Mb/s",
    "L2_CHUNK_SIZE": 4000,
    "L2_ACK_INTERVAL": 1,
    "GLOBAL_T": 0,
    "VAR_WIN": 1,
    "MI_THRESH": 0,
    "MULTI_RATE": 0,
    "BUFFER_SIZE": 32,
    "KMIN_MAP": f"{len(RATES)} " + " ".join(f"{rate}000000000 {4 * rate}" for rate in RATES),
    "KMAX_MAP": f"{len(RATES)} " + " ".join(f"{rate}000000000 {16 * rate}" for rate in RATES),
    "PMAX_MAP": f"{len(RATES)} " + " ".join(f"{rate}000000000 0.2" for rate in RATES),
}

Flow = tuple[int, int, int, int]  # source, destination, bytes, expected completion time [ns]


def star(rates_Gbps: list[int], loss: float = 0) -> dict[str, Any]:
    """Hosts on one switch by links of 1 us."""
    switch = len(rates_Gbps)
    links = [[host, switch, f"{rate}Gbps", "0.001ms", loss] for host, rate in enumerate(rates_Gbps)]
    return {"nodes": switch + 1, "switches": [switch], "links": links}


def check(folder: Path, topology: dict[str, Any], flows: list[Flow], **config: object) -> Any:
    case = {
        "topology": topology,
        "config": {**CONFIG, **config},
        "ranks": topology["nodes"] - 1,
        "expect": {"flows": [[src, dst, size, 0, time] for src, dst, size, time in flows]},
    }
    times, stats = completion_times(case, folder)
    assert times == [flow[3] for flow in flows]
    return stats


def test_hpcc_codes_a_rate_it_does_not_know_as_25_gbps(tmp_path: Path) -> None:
    check(tmp_path, star([100, 100]), [(0, 1, 100_000, 12_965)], CC_MODE=3)
    check(tmp_path, star([40, 40]), [(0, 1, 100_000, 36_924)], CC_MODE=3)


@pytest.mark.parametrize(("size", "time_ns"), [(100_000, 20_964), (200_000, 33_639)])
def test_links_share_one_stream_of_losses(size: int, time_ns: int, tmp_path: Path) -> None:
    stats = check(
        tmp_path, star([100, 100]), [(0, 1, size, time_ns)], CC_MODE=12, ERROR_RATE_PER_LINK=0.01
    )
    assert stats["lost"] > 0


@pytest.mark.parametrize(
    ("size", "time_ns"), [(100_000, 16_648), (200_000, 33_580), (300_000, 50_571)]
)
def test_a_link_with_its_own_loss_has_its_own_stream(
    size: int, time_ns: int, tmp_path: Path
) -> None:
    stats = check(tmp_path, star([100, 100], loss=0.01), [(0, 1, size, time_ns)], CC_MODE=12)
    assert stats["lost"] > 0


def test_pauses_are_lost_like_data(tmp_path: Path) -> None:
    flows = [(0, 2, 400_000, 354_030), (1, 2, 400_000, 417_892)]
    stats = check(
        tmp_path,
        star([100, 100, 25]),
        flows,
        CC_MODE=12,
        BUFFER_SIZE=1,
        HAS_WIN=0,
        ERROR_RATE_PER_LINK=0.004,
    )
    assert stats["lost"] > 0
    assert stats["pfc_pauses"] > 0


def test_pint_draws_for_the_last_acknowledgement_too(tmp_path: Path) -> None:
    check(
        tmp_path,
        star([100, 100, 25]),
        [(0, 2, 100_000, 75_024), (1, 2, 100_000, 77_680)],
        CC_MODE=10,
    )


@pytest.mark.parametrize("engine", ["native", "python"])
def test_a_receive_whose_data_is_there_is_complete_inside_its_post(
    engine: Any, tmp_path: Path
) -> None:
    # An all-reduce by direct exchange with a window of 2 whose rank 1 is 199 us late.
    def trace(microseconds: int) -> list[dict[str, Any]]:
        late = {"id": 0, "type": "COMP", "duration_micros": microseconds}
        late |= {"num_ops": 1, "tensor_size": 1}
        reduce = {"id": 1, "type": "COLL", "comm_type": "ALL_REDUCE", "comm_size": 1920}
        return [late, reduce | {"data_deps": [0]}]

    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    case = {
        "id": "late",
        "ranks": 4,
        "topology": star([100] * 4),
        "config": CONFIG | {"CC_MODE": 12},
        "traces": {str(rank): trace(200 if rank == 1 else 1) for rank in range(4)},
        "system": {
            "scheduling-policy": "LIFO",
            "endpoint-delay": 100,
            "active-chunks-per-dimension": 2,
            "preferred-dataset-splits": 1,
            "collective-optimization": "baseline",
            "local-mem-bw": 1600,
        }
        | {f"{kind}-implementation": ["direct2"] for kind in kinds},
    }
    files = write_golden_case(case, tmp_path)
    network = write_ns3_network(case, tmp_path)
    result = simulate(str(files.workload), files.system, network, backend="ns3", engine=engine)
    assert result.finish_ns.tolist() == [212_752, 208_662, 208_680, 212_711]


@pytest.mark.parametrize("mode", [1, 3, 12])
@pytest.mark.parametrize("control", net.CONTROLS)
def test_the_option_stands_in_for_cc_mode(mode: int, control: str, tmp_path: Path) -> None:
    def time_ps(mode: int, options: dict[str, str]) -> list[int]:
        case = {"topology": star([100, 100]), "config": CONFIG | {"RP_TIMER": 900, "CC_MODE": mode}}
        request = NetworkRequest(write_ns3_network(case, tmp_path), options=options)
        return net.run(NS3.prepare(request).config, [(0, 1, 100_000, 0)])[0]

    replaced = time_ps(mode, {"congestion_control": control})
    if control in CC_MODES.values():
        own = next(number for number, name in CC_MODES.items() if name == control)
        assert replaced == time_ps(own, {})
