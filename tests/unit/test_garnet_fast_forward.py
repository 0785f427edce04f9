# SPDX-License-Identifier: MIT
"""fast_forward=exact of Garnet: every number is that of a run cycle by cycle."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from astra_bridge import fabrics
from astra_bridge.conformance import run_supervised
from astra_bridge.errors import AstraBridgeError, InputError
from astra_bridge.network.api import TIME_NEVER, TRANSFER, NetworkConfig
from astra_bridge.network.garnet import BACKENDS
from astra_bridge.network.garnet.options import options_of
from astra_bridge.network.garnet.reader import read_garnet
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.trace import CommType
from tests.effort import spread
from tests.small import MIB, network, same_on_all, system
from tests.small import run as simulate
from tests.waiting import HANGS_S

pytestmark = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)
JUMPS = "fast_forward_jumps"


def random_package(rng: random.Random) -> NetworkConfig:
    """One or two dimensions, with links of any width and latency."""
    kinds = ["mesh", "ring", "fully_connected", "crossbar"]
    flit = rng.choice([1, 16, 33])
    dims = [
        {
            "kind": rng.choice(kinds),
            "size": rng.randint(2, 5),
            "link_latency": rng.choice([1, 1, 2, 7, 90]),
            "link_width_bytes": rng.choice([flit, flit, max(1, flit // 2), max(1, flit // 3)]),
            "link_clock_hz": rng.choice([10**9, 10**9, 7 * 10**8]),
        }
        for _ in range(rng.choice([1, 1, 2]))
    ]
    made = read_garnet(
        {
            "topology": dims,
            "flit_bytes": flit,
            "packet_bytes": flit * rng.choice([1, 3, 4, 16]),
            "vnets": [
                {"type": rng.choice(["data", "ctrl"]), "ordered": rng.random() < 0.4}
                for _ in range(rng.choice([1, 1, 2]))
            ],
            "vcs_per_vnet": rng.choice([2, 2, 4, 8, 40]),
            "buffers_per_data_vc": rng.randint(1, 6),
            "router_latency": rng.choice([1, 1, 3]),
            "deadlock_threshold": rng.choice([3000, 50000]),
        }
    )
    return NetworkConfig(len(made.nodes), len(made.nodes), options=options_of(made))


def random_fabric(rng: random.Random) -> NetworkConfig:
    """A list of links, over which a hash, the destination or the moment chooses the way."""
    kind = rng.choice([fabrics.leaf_spine, fabrics.rail, fabrics.dragonfly])
    made = kind(
        8,
        gpus_per_host=rng.choice([2, 4]),
        nic_gbps=rng.choice([128.0, 128.0, 400.0]),
        nvlink_gbps=rng.choice([0.0, 1024.0]),
        latency_ns=rng.choice([2.0, 20.0, 150.0]),
    )
    routing = rng.choice(["ecmp", "ecmp", "static", "spray", "adaptive"])
    request = NetworkRequest(made, options={"routing": routing})
    return backend("garnet").prepare(request).config


def having(config: NetworkConfig, **options: str) -> NetworkConfig:
    return replace(config, options={**config.options, **options})


class Steps(NamedTuple):
    """Transfers, each after the delivery of the one before."""

    pattern: str
    bytes: int
    stagger_ps: int
    slows_down: bool

    @classmethod
    def random(cls, rng: random.Random, flit_bytes: int) -> Steps:
        size = rng.choice([50, 400, 2000]) * 4 * flit_bytes + rng.choice([0, 0, 1, flit_bytes])
        pattern = rng.choice(["ring", "all", "random"])
        return cls(pattern, size, rng.choice([0, 0, 1000, 37000]), rng.random() < 0.3)


def run(config: NetworkConfig, mode: str, steps: Steps, stops: int = 0) -> tuple[Any, Any, int]:
    """Deliveries, statistics and how often it jumped; in pieces of ``stops`` ps, if not 0."""
    rng = random.Random(steps.bytes)
    done: list[tuple[int, int]] = []
    nodes, number = config.endpoints, 0
    with backend("garnet").open(having(config, fast_forward=mode)) as net:

        def send(src: int, dst: int, start_ps: int) -> None:
            nonlocal number
            row = np.zeros(1, TRANSFER)
            row["id"], row["bytes"], row["src"], row["dst"] = number, steps.bytes, src, dst
            row["start_ps"], row["traffic_class"] = start_ps, src % 2
            net.submit(row)
            number += 1

        for src in range(nodes):
            if steps.pattern == "ring":
                peers = [(src + 1) % nodes]
            elif steps.pattern == "all":
                peers = [(src + step) % nodes for step in range(1, nodes)]
            else:
                dst = rng.randrange(nodes - 1)
                peers = [dst + (dst >= src)]
            for dst in peers:
                send(src, dst, src * steps.stagger_ps)
        limit = number * 2
        if steps.slows_down:
            net.set_link(0, 400_000, 0.5)
        now_ps = 0
        while len(done) < number:
            now_ps += stops
            net.advance(now_ps if stops else TIME_NEVER, 0)
            for item in net.poll():
                done.append((int(item["id"]), int(item["time_ps"])))
                if steps.pattern == "ring" and number < limit:
                    src = (int(item["id"]) + 1) % nodes
                    send(src, (src + 1) % nodes, max(now_ps, int(item["time_ps"])))
        stats: dict[str, Any] = dict(net.stats())
    jumps = int(stats.pop(JUMPS, 0))
    stats.pop("fast_forward_ns", None)
    return done, msgspec.json.encode(stats, enc_hook=lambda column: column.tolist()), jumps


@pytest.mark.parametrize("make", [random_package, random_fabric])
@pytest.mark.parametrize("seed", spread(range(240), 24))
def test_every_number_is_the_same(
    make: Callable[[random.Random], NetworkConfig], seed: int
) -> None:
    rng = random.Random(seed)
    config = make(rng)
    steps = Steps.random(rng, int(config.options.get("flit_bytes", 64)))
    assert told(config, "exact", steps) == told(config, "off", steps)


def told(config: NetworkConfig, mode: str, steps: Steps) -> tuple[Any, ...]:
    """What a run gives, be it a deadlock."""
    try:
        return run(config, mode, steps)[:2]
    except AstraBridgeError as error:
        return type(error), str(error)


def ring(**changes: Any) -> NetworkConfig:
    made = read_garnet(
        {"topology": "Ring 4", "packet_bytes": 256, "deadlock_avoidance": "dateline"} | changes
    )
    return NetworkConfig(4, 4, options=options_of(made))


LONG = Steps("ring", 200_000, 0, False)


def test_it_jumps() -> None:
    """At least one jump per message of so many packets, which is nearly all of them."""
    done, stats, jumps = run(ring(), "exact", LONG)
    assert jumps >= 2
    assert (done, stats) == run(ring(), "off", LONG)[:2]


def test_a_run_in_pieces_is_the_same() -> None:
    """Where it ends a piece, it has not jumped beyond; and it jumps between two ends."""
    whole = run(ring(), "off", LONG, 3_000_000)
    pieces = run(ring(), "exact", LONG, 3_000_000)
    assert pieces[:2] == whole[:2]
    assert pieces[2] >= 2


@pytest.mark.parametrize("changes", [{"record_packets": "true"}, {"series_cycles": "100"}])
def test_what_wants_every_cycle_has_every_cycle(changes: dict[str, str]) -> None:
    config = having(ring(), **changes)
    found = run(config, "exact", LONG)
    assert found[2] == 0
    assert found[:2] == run(config, "off", LONG)[:2]


def test_a_copy_and_what_was_saved_go_on_alike() -> None:
    config = having(ring(), fast_forward="exact")
    row = np.zeros(1, TRANSFER)
    row["bytes"], row["dst"] = 200_000, 1

    def rest(net: Any) -> list[int]:
        net.advance(TIME_NEVER, 0)
        return [int(item["time_ps"]) for item in net.poll()]

    with backend("garnet").open(config) as net, backend("garnet").open(config) as other:
        net.submit(row)
        net.advance(2_000_000, 0)
        saved = net.save()
        with net.snapshot() as copy:
            other.restore(saved)
            ends = [rest(one) for one in (net, copy, other)]
            jumps = [one.stats()[JUMPS] for one in (net, copy, other)]
    assert ends[0] == ends[1] == ends[2] != []
    assert min(jumps) >= 1


def test_the_contract_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "ring.yml"
    file.write_text("topology: [Ring]\nnpus_count: [6]\nbandwidth: [50]\nlatency: [500]\n")
    options = {"fast_forward": "exact"}
    verdicts = run_supervised("garnet", network=str(file), options=options, limit_s=HANGS_S)
    assert [one for one in verdicts if one.outcome == "fail"] == []
    assert sum(one.outcome == "pass" for one in verdicts) >= 12


def test_a_collective() -> None:
    trace = same_on_all(8, lambda one: one.coll(CommType.ALL_REDUCE, MIB))
    off, exact = (
        simulate(
            trace, system(), {"topology": "Ring 8", "packet_bytes": 64}, backend="garnet",
            network_options={"fast_forward": mode},
        )
        for mode in ("off", "exact")
    )  # fmt: skip
    assert exact.finish_ns.tolist() == off.finish_ns.tolist()
    assert exact.network[JUMPS] > 0


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match="fast_forward"):
        simulate(
            same_on_all(4, lambda one: one.coll(CommType.ALL_REDUCE, 1024)),
            system(), network("Ring", 4), backend="garnet",
            network_options={"fast_forward": "steady"},
        )  # fmt: skip
