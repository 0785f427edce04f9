# SPDX-License-Identifier: MIT
"""Random ns-3 networks whose links lose, fail and recover: every run ends, and says how."""

from __future__ import annotations

import random
from typing import Any

from astra_bridge.errors import SimulationError
from astra_bridge.network.api import NetworkConfig
from tests import ns3_networks as net
from tests.child import DEATHS, in_child

GBPS = net.GBPS
OPTIONS: dict[str, tuple[object, ...]] = {
    "completion": ("ack",),
    "tick_ps": (1000,),
    "mtu_bytes": (256, 4096, 9000),
    "variable_window": ("false",),
    "rate_bound": ("false",),
    "queue_pairs": (0, 3),
    "loss_recovery": ("go-back-n",),
    "routing": ("static", "spray", "adaptive"),
    "chunk_bytes": (0, 1, 1000),
    "ack_interval_bytes": (0, 1, 5000),
    "back_to_zero": ("true",),
    "nack_interval_us": (0.1, 5),
    "rto_us": (10, 50, 200),
    "retry_limit": (1, 3, 30),
    "ecn": ("false",),
    "ecn_map": ("25000000000:1000:2000:1.0",),
    "pfc": ("false",),
    "buffer_bytes": (20_000, 100_000, 10**6),
    "headroom_factor": (0, 1),
    "ack_high_priority": ("true",),
    "sample_interval_us": (10,),
    "flow_table": ("false",),
}
SIZES = (1, 999, 1000, 1001, 5000, 100_000, 300_000)
OVER_TCP = ("mtu_bytes", "rto_us")


def drawn(rng: random.Random) -> tuple[NetworkConfig, list[Any], list[Any]]:
    """A network, its flows (src, dst, bytes, start_ps), its faults (link, at_ps, scale)."""
    chosen = {key: rng.choice(values) for key, values in OPTIONS.items() if rng.random() < 0.2}
    chosen["congestion_control"] = rng.choice(net.CONTROLS)
    chosen["window"] = rng.choice(("none", "pair", "global"))
    if "back_to_zero" in chosen:
        chosen |= {"queue_pairs": 0, "loss_recovery": "go-back-n"}
    if chosen.get("loss_recovery") == "go-back-n" and chosen.get("routing") != "static":
        chosen.pop("routing", None)
    shape = rng.randrange(3)
    if shape == 0:
        rate, latency = rng.choice((1, 25, 100, 400)) * GBPS, rng.choice((0, 1000, 10**6))
        config = net.dumbbell(rng.randint(1, 6), rate, latency, **chosen)
    elif shape == 1:
        rate, up = rng.choice((25, 100)) * GBPS, rng.choice((10, 100)) * GBPS
        leaves, hosts, spines = rng.randint(1, 4), rng.randint(2, 5), rng.randint(1, 4)
        config = net.leaf_spine(leaves, hosts, spines, rate, up, 500_000, **chosen)
    else:
        last = rng.randint(3, 10)
        cables = [(0, 2, 100 * GBPS, 1000), (last, 1, 100 * GBPS, 1000)]
        cables += [(i, i + 1, 100 * GBPS, rng.choice((1000, 10**6))) for i in range(2, last)]
        config = net.config(2, cables, **chosen)
    if rng.random() < 0.15:
        options = {key: value for key, value in config.options.items() if key in OVER_TCP}
        options["transport"] = "tcp"
        config = NetworkConfig(config.endpoints, config.nodes, config.links, options)
    links = len(config.links)
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 3)):
            config.links["loss"][rng.randrange(links)] = rng.choice((0.001, 0.1, 0.9))
    flows = [
        (*rng.sample(range(config.endpoints), 2), rng.choice(SIZES), rng.randrange(50_000_000))
        for _ in range(rng.randint(1, 50))
    ]
    faults = [
        (rng.randrange(links), rng.randrange(200_000_000), rng.choice((0.0, 0.0, 1.0, 0.25, 2.0)))
        for _ in range(rng.choice((0, 0, 1, 2, 6)))
    ]
    return config, flows, sorted(faults, key=lambda fault: fault[1])


def _verdict(config: NetworkConfig, flows: list[Any], faults: list[Any]) -> tuple[Any, ...]:
    try:
        times, _ = net.run(config, flows, faults)
    except SimulationError as error:
        return ("failed", str(error))
    return ("ran", times)


def attack(seed: int) -> tuple[str, str]:
    """One random network; what happened, and what is wrong with that."""
    config, flows, faults = drawn(random.Random(seed))
    said = in_child(_verdict, config, flows, faults)
    wrong = said[0] in DEATHS or (said[0] == "failed" and "waiting: transfer" not in said[1])
    return said[0], f"seed {seed}: {str(said)[:300]}" if wrong else ""
