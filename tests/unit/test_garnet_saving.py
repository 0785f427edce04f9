# SPDX-License-Identifier: MIT
"""A Garnet simulation that is saved in the middle and loaded goes on as the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astra_bridge as ab
from astra_bridge.network.api import TIME_NEVER, TRANSFER, Network, NetworkConfig
from astra_bridge.network.garnet import BACKENDS
from astra_bridge.network.garnet.options import options_of
from astra_bridge.network.garnet.reader import read_garnet
from astra_bridge.simulation.jobs import LinkFault
from astra_bridge.workload import collective
from tests.small import system

pytestmark = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)

ROUTERS = 16
RECORDS = {"record_packets": "true", "series_cycles": "50"}
# What has state of its own: packets, series, orders of arrival, rings with datelines, narrow links,
# a wheel of events that is too short (latency), more VCs than fit in one word and in four.
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "mesh": ({"topology": "Mesh_XY 4x4"}, RECORDS),
    "ordered": ({"topology": "Torus 4x4", "vnets": [{"type": "data", "ordered": True}] * 2}, {}),
    "narrow": ({"topology": "Mesh_XY 4x4", "link_width_bytes": 5, "buffers_per_data_vc": 1}, {}),
    "far": ({"topology": "Ring 16", "link_latency": 20_000, "router_latency": 3}, {}),
    "many-vcs": ({"topology": "Mesh_XY 4x4", "vnets": 3, "vcs_per_vnet": 30}, RECORDS),
    "more-vcs": ({"topology": "Mesh_XY 4x4", "vnets": 3, "vcs_per_vnet": 100}, {}),
}


def network_of(name: str) -> NetworkConfig:
    fields, more = NETWORKS[name]
    options = options_of(read_garnet({"packet_bytes": 64, **fields}))
    return NetworkConfig(ROUTERS, ROUTERS, options={**options, **more})


def traffic(rng: np.random.Generator, count: int, until_ps: int) -> np.ndarray:
    """Transfers at random times between random endpoints, in random classes."""
    made = np.zeros(count, TRANSFER)
    made["id"] = rng.permutation(count)
    made["start_ps"] = rng.integers(0, until_ps, count)
    made["bytes"] = rng.integers(1, 700, count)
    made["src"] = rng.integers(0, ROUTERS, count)
    made["dst"] = (made["src"] + rng.integers(1, ROUTERS, count)) % ROUTERS
    made["traffic_class"] = rng.integers(0, 3, count)
    return made


def finish(network: Network, count: int) -> list[tuple[int, int]]:
    """Deliver what is in flight: pairs of id and time, in order."""
    found: list[tuple[int, int]] = []
    while len(found) < count:
        network.advance(TIME_NEVER)
        done = network.poll()
        found += zip(done["id"].tolist(), done["time_ps"].tolist(), strict=True)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NETWORKS)
def test_a_loaded_simulation_goes_on_as_the_original(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    config = network_of(name)
    until_ps = 10**6 if name != "far" else 10**8
    items = traffic(rng, 120, until_ps)
    with BACKENDS[0].open(config) as network, BACKENDS[0].open(config) as other:
        for link in range(8):  # some changes before the moment of saving, some after it
            network.set_link(link, int(rng.integers(0, until_ps)), float(rng.choice([0, 0.1, 0.7])))
            network.set_link(link, 2 * until_ps, 1.0)
        network.submit(items)
        left = len(items)
        moment = int(rng.integers(0, until_ps))
        now = 0
        while now < moment:
            now, _ = network.advance(moment)
            left -= len(network.poll())
        saved = network.save()
        other.restore(saved)
        assert other.save() == saved
        assert finish(other, left) == finish(network, left)
        assert other.stats() == network.stats()
        assert other.save() == network.save()
        # And once more, with what came back and was used again.
        more = traffic(rng, 50, until_ps)
        more["start_ps"] += 1000 * until_ps
        for one in (network, other):
            one.submit(more)
        assert finish(other, len(more)) == finish(network, len(more))
        assert other.stats() == network.stats()


def test_every_moment_can_be_saved() -> None:
    """A message with a cycle, a fault and a slow link: each cycle is saved and gone on from."""
    config = network_of("mesh")
    items = traffic(np.random.default_rng(9), 12, 20_000)

    def begin(network: Network) -> None:
        network.set_link(0, 15_000, 0.3)
        network.set_link(3, 10_000, 0.0)
        network.set_link(3, 60_000, 1.0)
        network.submit(items)

    with BACKENDS[0].open(config) as network:
        begin(network)
        expected = finish(network, len(items))
    seen: list[tuple[int, int]] = []
    saved = b""
    for cycle in range(max(time for _, time in expected) // 1000 + 1):
        with BACKENDS[0].open(config) as network:
            if saved:
                network.restore(saved)
            else:
                begin(network)
            now = -1
            while now < cycle * 1000:
                now, _ = network.advance(cycle * 1000)
                done = network.poll()
                seen += zip(done["id"].tolist(), done["time_ps"].tolist(), strict=True)
            saved = network.save()
    assert seen == expected


@pytest.mark.parametrize("at_ps", [1, 500_000, 3_000_000])
def test_an_experiment_goes_on_from_its_checkpoint(at_ps: int, tmp_path: Path) -> None:
    one = ab.Experiment(
        backend="garnet",
        network={"topology": "Torus 2x2", "flit_bytes": 16, "packet_bytes": 64},
        system=system(),
        workload=collective("all-reduce", 2**14, 4),
        faults=[LinkFault((0, 1), 400_000, 0.0), LinkFault((0, 1), 2_000_000, 0.25)],
    )
    whole = one.run()
    assert whole.finish_ps.max() > 3_000_000
    file = tmp_path / "checkpoint"
    with one.open() as session:
        session.advance(at_ps)
        session.save(file, label=one.token)
    again = one.run(resume=file)
    assert again.finish_ps.tolist() == whole.finish_ps.tolist()
    for name, column in whole.links.items():
        assert again.links[name].tolist() == column.tolist(), name
