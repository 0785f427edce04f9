# SPDX-License-Identifier: MIT
"""Truths of the ns-3 models at the edges of their inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_bridge import simulate
from astra_bridge.errors import ContractError
from astra_bridge.network.api import TRANSFER
from astra_bridge.trace import CommType
from astra_bridge.units import TIME_NEVER
from tests import ns3_networks as net
from tests.golden.test_ns3_rules import check, star
from tests.ns3_networks import needs_our_devices
from tests.small import network, same_on_all, system

GBPS, MTU, HEADER = net.GBPS, net.MTU, net.HEADER
US = 10**6  # ps
RATE = 100 * GBPS

pytestmark = needs_our_devices


def test_hpcc_without_a_window_as_in_the_fork(tmp_path: Path) -> None:
    # The fork's answer, to the nanosecond: it divides by the window of 0, and what is not a number
    # drops out of its comparisons.
    config = {"CC_MODE": 3, "HAS_WIN": 0, "MULTI_RATE": 1}
    check(tmp_path, star([100, 100]), [(0, 1, 200_000, 21_298)], **config)


@pytest.mark.parametrize("window", ["none", "pair"])
@pytest.mark.parametrize("switches", [1, 5, 6, 12])
def test_hpcc_holds_its_target_whatever_the_path(switches: int, window: str) -> None:
    # Two senders share a chain: 95 % of its rate, and a short queue.
    packets, first = 5000, 4
    chain = [first + i for i in range(switches)]
    cables = [(0, chain[0], RATE, US), (1, chain[0], RATE, US)]
    cables += [(a, a + 1, RATE, US) for a in chain[:-1]]
    cables += [(chain[-1], 2, RATE, US), (chain[-1], 3, RATE, US)]
    if switches == 1:  # one switch: both go to one receiver
        flows = [(0, 2, packets * MTU, 0), (1, 2, packets * MTU, 0)]
    else:
        flows = [(0, 2, packets * MTU, 0), (1, 3, packets * MTU, 0)]
    config = net.config(4, cables, congestion_control="hpcc", window=window)
    times, stats = net.run(config, flows)
    ideal = 2 * packets * (MTU + HEADER) / RATE * 1e12
    assert ideal < max(times) < 1.25 * ideal
    free, loaded = net.run(net.config(4, cables, window=window), flows)
    assert max(free) >= ideal
    if window == "none":  # the other way the whole of one flow waits
        assert max(loaded["tables"]["links"]["max_queue_bytes"]) > 5 * max(
            stats["tables"]["links"]["max_queue_bytes"]
        )
    assert stats["hpcc_blind_transfers"] == 0


@pytest.mark.parametrize(("switches", "blind"), [(5, 0), (6, 2)])
def test_hpcc_of_the_fork_counts_whom_it_does_not_see(switches: int, blind: int) -> None:
    chain = [4 + i for i in range(switches)]
    cables = [(0, chain[0], RATE, US), (1, chain[0], RATE, US)]
    cables += [(a, a + 1, RATE, US) for a in chain[:-1]]
    cables += [(chain[-1], 2, RATE, US), (chain[-1], 3, RATE, US)]
    flows = [(0, 2, 2000 * MTU, 0), (1, 3, 2000 * MTU, 0)]
    fork = {"order": "astra-sim", "telemetry_exact": "false", "window": "pair"}
    times, stats = net.run(net.config(4, cables, congestion_control="hpcc", **fork), flows)
    uncontrolled, _ = net.run(net.config(4, cables, congestion_control="none", **fork), flows)
    assert stats["hpcc_blind_transfers"] == blind
    assert (times == uncontrolled) == (blind > 0)


def incast(classes: int, buffer_bytes: int, **options: object) -> dict[str, object]:
    """16 senders to one receiver, in so many traffic classes: the statistics."""
    hosts = 16
    cables = [(i, hosts + 1, RATE, US) for i in range(hosts + 1)]
    named = {"buffer_bytes": buffer_bytes, "ecn": "false", "nack_interval_us": 10, **options}
    config = net.config(hosts + 1, cables, **named)
    transfers = np.zeros(hosts * classes, TRANSFER)
    for number in range(len(transfers)):
        traffic_class, src = divmod(number, hosts)
        transfers[number] = (number, 0, 2_000_000 // classes, src, hosts, traffic_class, 0, 0)
    with net.NS3.open(config) as network:
        network.submit(transfers)
        left = len(transfers)
        while left:
            network.advance(TIME_NEVER, 10**12)
            left -= len(network.poll())
        return network.stats()


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("mib", [1, 4])
def test_a_switch_never_holds_more_than_its_buffer(classes: int, mib: int) -> None:
    stats = incast(classes, mib << 20)
    # Control frames wait in a queue of their own, which is not part of the buffer.
    assert 0 < max(stats["tables"]["links"]["max_queue_bytes"]) <= (mib << 20) + 1000
    # Reserve and headroom of 17 ports, 33 kB each, fit for one class; for five in 4 MiB only.
    if mib == 4 or classes == 1:
        assert stats["drops"] == 0


def test_the_fork_counts_headroom_once_per_port() -> None:
    stats = incast(5, 1 << 20, order="astra-sim")
    assert stats["drops"] == 0
    assert max(stats["tables"]["links"]["max_queue_bytes"]) > 1 << 20


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e300", "abc", "1e"])
@pytest.mark.parametrize(
    ("control", "attribute"),
    [
        ("dcqcn", "Gain"),
        ("dcqcn", "DecreaseInterval"),
        ("dcqcn-sigcomm15", "ByteCounter"),
        ("hpcc", "TargetUtilization"),
        ("hpcc", "MaxStage"),
        ("hpcc", "FastReact"),
    ],
)
def test_an_attribute_that_is_no_such_number_is_refused(
    control: str, attribute: str, value: str
) -> None:
    # ns-3 itself ends the process over a text that it cannot read.
    config = net.dumbbell(1, RATE, US, congestion_control=control, **{f"cc_{attribute}": value})
    with pytest.raises(ContractError, match=rf"option 'cc.{attribute}' is '{value}', but must be"):
        net.run(config, [(0, 1, MTU, 0)])


def test_themis_without_a_bandwidth_per_dimension(tmp_path: Path) -> None:
    """The logical topology has dimensions that the network file knows nothing of: all are equal."""
    logical = tmp_path / "logical.json"
    logical.write_text('{"logical-dims": ["2", "4"]}')
    result = simulate(
        same_on_all(8, lambda trace: trace.coll(CommType.ALL_REDUCE, 65536)),
        system(["ring", "ring"], inter_dimension_scheduling="themis"),
        network("Ring", 8),
        backend="ns3",
        logical_topology=logical,
    )
    assert min(result.finish_ns) > 0
    assert any("themis takes all dimensions as equal" in said for said in result.warnings)
