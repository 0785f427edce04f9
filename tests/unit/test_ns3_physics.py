# SPDX-License-Identifier: MIT
"""The ns-3 backend against formulas that are written out here."""

from __future__ import annotations

import itertools
import math
import struct
from pathlib import Path

import numpy as np
import pytest

from astra_bridge.errors import SimulationError
from astra_bridge.network.api import TRANSFER
from astra_bridge.units import TIME_NEVER
from tests import ns3_networks as net
from tests.ns3_networks import needs_our_devices

GBPS, MTU, HEADER = net.GBPS, net.MTU, net.HEADER
US = 10**6  # ps

pytestmark = needs_our_devices


def transmit_ps(payload: int, rate: float) -> int:
    """Time of one packet on a link, to the nearest ps."""
    return math.floor((payload + HEADER) / rate * 1e12 + 0.5)


@pytest.mark.parametrize("size", [1, MTU, MTU + 1, 10 * MTU, 12345])
def test_one_flow_on_one_link(size: int) -> None:
    rate, latency = 100 * GBPS, 2 * US
    [time], _ = net.run(net.config(2, [(0, 1, rate, latency)]), [(0, 1, size, 0)])
    payloads = [MTU] * (size // MTU) + [size % MTU] * (size % MTU > 0)
    # Packets leave back to back; the last one crosses the link.
    assert time == sum(transmit_ps(payload, rate) for payload in payloads) + latency


@pytest.mark.parametrize("switches", [1, 2, 5])
def test_store_and_forward(switches: int) -> None:
    rate, latency, packets = 400 * GBPS, 1 * US, 7
    chain = [0, *range(2, 2 + switches), 1]
    cables = [(a, b, rate, latency) for a, b in itertools.pairwise(chain)]
    [time], _ = net.run(net.config(2, cables), [(0, 1, packets * MTU, 0)])
    # Every switch receives a packet completely before it sends it on.
    assert time == (packets + switches) * transmit_ps(MTU, rate) + (switches + 1) * latency


def test_a_slower_last_link_is_the_bottleneck() -> None:
    fast, slow, latency, packets = 400 * GBPS, 100 * GBPS, 1 * US, 50
    cables = [(0, 2, fast, latency), (2, 1, slow, latency)]
    [time], _ = net.run(net.config(2, cables), [(0, 1, packets * MTU, 0)])
    expected = transmit_ps(MTU, fast) + packets * transmit_ps(MTU, slow) + 2 * latency
    assert time == expected


@pytest.mark.parametrize("flows", [2, 3, 8])
def test_fair_share(flows: int) -> None:
    rate, latency, packets = 100 * GBPS, 1 * US, 250
    times, stats = net.run(
        net.dumbbell(flows, rate, latency), [(i, flows + i, packets * MTU, 0) for i in range(flows)]
    )
    # All bytes pass the middle link; each flow gets an equal part of it to the end.
    whole = flows * packets * transmit_ps(MTU, rate) + 2 * transmit_ps(MTU, rate) + 3 * latency
    assert max(times) == whole
    assert min(times) >= whole - 2 * flows * transmit_ps(MTU, rate)
    assert stats["drops"] == 0


def test_window_bounds_the_rate() -> None:
    rate, there, back, windows = 100 * GBPS, 10 * US, 40 * US, 10
    links = [(0, 2, rate, there, 0), (2, 0, rate, back, 0), (2, 1, rate, there, 0)]
    links.append((1, 2, rate, back, 0))
    # As in the fork: twice the delay there and a packet's payload on each link, in bytes.
    rtt = 4 * there + 2 * MTU / rate * 1e12
    window = math.ceil(math.floor(rtt * rate / 1e12) / MTU)  # packets
    options = {"congestion_control": "none", "window": "pair", "order": "astra-sim"}
    config = net.NetworkConfig(2, 3, np.array(links, net.LINK), options)
    [time], _ = net.run(config, [(0, 1, windows * window * MTU, 0)])
    # Each window waits for the first acknowledgement of the one before: 86 bytes back, twice.
    acknowledged = 2 * (there + transmit_ps(MTU, rate) + back + math.floor(86 / rate * 1e12 + 0.5))
    last = (window + 1) * transmit_ps(MTU, rate) + 2 * there
    assert time == pytest.approx((windows - 1) * acknowledged + last, rel=1e-4)


def test_pfc_loses_nothing_in_an_incast() -> None:
    senders, rate, latency = 16, 100 * GBPS, 1 * US
    cables = [(i, senders + 1, rate, latency) for i in range(senders + 1)]
    flows = [(i, senders, 400 * MTU, 0) for i in range(senders)]
    options = {"buffer_bytes": 2 << 20, "ecn": "false"}
    times, stats = net.run(net.config(senders + 1, cables, **options), flows)
    assert stats["drops"] == 0
    assert stats["pfc_pauses"] > 0
    assert stats["pfc_pauses"] - stats["pfc_resumes"] == 0
    whole = (senders * 400 + 1) * transmit_ps(MTU, rate) + 2 * latency
    assert stats["pfc_rows_left_out"] == 0
    assert len(stats["tables"]["pfc"]["link"]) == 2 * stats["pfc_pauses"]
    few = net.run(net.config(senders + 1, cables, pfc_rows=3, **options), flows)
    assert few[0] == times
    assert len(few[1]["tables"]["pfc"]["link"]) == 3
    assert few[1]["pfc_rows_left_out"] == 2 * stats["pfc_pauses"] - 3
    # The bottleneck never idles: paused senders resume before the queue is empty.
    assert max(times) == whole
    # Without PFC the same buffer overflows, and go-back-N repairs it.
    late, lossy = net.run(net.config(senders + 1, cables, pfc="false", **options), flows)
    assert lossy["drops"] > 0
    assert lossy["pfc_pauses"] == 0
    assert max(late) > whole
    assert all(flow > 0 for flow in late)


def test_pauses_propagate_to_the_sender() -> None:
    fast, slow, latency = 100 * GBPS, 10 * GBPS, 1 * US
    # 0 - s2 - s3 - s4 - 1, the last link ten times slower.
    cables = [(0, 2, fast, latency), (2, 3, fast, latency), (3, 4, fast, latency)]
    cables.append((4, 1, slow, latency))
    _, stats = net.run(
        net.config(2, cables, buffer_bytes=1 << 20, ecn="false"), [(0, 1, 5000 * MTU, 0)]
    )
    first = {}
    table = stats["tables"]["pfc"]
    for time, link, pause in zip(table["time_ps"], table["link"], table["pause"], strict=True):
        if pause:
            first.setdefault(int(link), int(time))
    # Links 5, 3, 1 go back from s4, s3 and s2: pressure builds up from the slow end.
    assert list(first) == [5, 3, 1]
    assert stats["drops"] == 0


def test_ecmp_spreads_flows() -> None:
    spines, hosts, latency = 4, 8, 1 * US
    config = net.leaf_spine(4, hosts, spines, 100 * GBPS, 400 * GBPS, latency)
    endpoints = 4 * hosts
    flows = [
        (src, dst, MTU, 0)
        for src in range(endpoints)
        for dst in range(endpoints)
        if src // hosts != dst // hosts
    ]
    _, stats = net.run(config, flows)
    links = stats["tables"]["links"]
    from_leaf_0 = [
        int(packets)
        for src, dst, packets in zip(links["src"], links["dst"], links["packets"], strict=True)
        if src == endpoints and dst >= endpoints
    ]
    assert len(from_leaf_0) == spines
    # 192 data packets and 192 acknowledgements on four links: 96 each, binomial deviation 8.5.
    assert sum(from_leaf_0) == 2 * hosts * (endpoints - hosts)
    assert all(abs(packets - 96) < 4 * 8.5 for packets in from_leaf_0)


def _steady(flows: int, control: str, **options: object) -> tuple[float, float, float]:
    """Middle link of a dumbbell after the start: use of its rate, mean queue [B], Jain's index."""
    rate, latency, packets = 25 * GBPS, 1 * US, 8000
    config = net.dumbbell(
        flows, rate, latency, congestion_control=control, sample_interval_us=10, **options
    )
    times, stats = net.run(config, [(i, flows + i, packets * MTU, 0) for i in range(flows)])
    table = stats["tables"]["queues"]
    middle = np.array(table["link"]) == 2 * 2 * flows
    at = np.array(table["time_ps"])[middle]
    late = (at > 0.3 * min(times)) & (at < 0.9 * min(times))
    sent = np.array(table["tx_bytes"])[middle][late]
    seconds = (at[late][-1] - at[late][0]) * 1e-12
    queue = np.array(table["queue_bytes"])[middle][late]
    shares = 1 / np.array(times)
    jain = shares.sum() ** 2 / (flows * (shares**2).sum())
    return float((sent[-1] - sent[0]) / seconds / rate), float(queue.mean()), float(jain)


def test_dcqcn_steady_state() -> None:
    kmin, kmax, pmax, flows = 5_000, 200_000, 0.01, 2
    interval_us = 55
    used, queue, jain = _steady(
        flows,
        "dcqcn",
        ecn_map=f"25000000000:{kmin}:{kmax}:{pmax}",
        cc_Gain=1 / 256,
        cc_AlphaInterval=interval_us,
        cc_DecreaseInterval=50,
        cc_IncreaseInterval=interval_us,
        cc_AdditiveRate=40_000_000,
        cc_HyperRate=40_000_000,
    )
    assert used > 0.95
    assert jain > 0.95
    # The paper keeps the queue on the slope of its marking profile (section 5, equation 14 and
    # the discussion of figure 13): above Kmin, since something must be marked, and below Kmax.
    assert 0 < queue < kmax


def test_hpcc_steady_state() -> None:
    used, queue, jain = _steady(
        4,
        "hpcc",
        window="pair",
        mtu_bytes=1000,  # the bandwidth-delay product is five packets of 4096 bytes
        cc_TargetUtilization=0.95,
        cc_AdditiveRate=20_000_000,
        cc_MaxStage=5,
    )
    # Section 3.2: the link is used to eta = 95 % (up to the additive steps), with a queue of no
    # more than a few packets, and all flows get the same.
    assert used == pytest.approx(0.95, abs=0.03)
    assert queue < 10 * (MTU + HEADER)
    assert jain > 0.98


@pytest.mark.parametrize("control", net.CONTROLS)
def test_every_congestion_control_finishes_and_is_deterministic(control: str) -> None:
    config = net.dumbbell(4, 100 * GBPS, US, congestion_control=control, window="pair")
    flows = [(i, 4 + i, 300 * MTU, i * 1000) for i in range(4)]
    times, stats = net.run(config, flows)
    ideal = 4 * 300 * transmit_ps(MTU, 100 * GBPS)
    assert ideal <= max(times) < 3 * ideal
    assert net.run(config, flows) == (times, stats)


@pytest.mark.parametrize("tcp", ["TcpCubic", "TcpNewReno", "TcpDctcp"])
def test_tcp_fills_and_shares_a_link(tcp: str) -> None:
    flows, size = 4, 2_000_000
    config = net.dumbbell(flows, 25 * GBPS, US)
    config = net.NetworkConfig(
        config.endpoints, config.nodes, config.links, {"transport": "tcp", "tcp": tcp}
    )
    transfers = [(i, flows + i, size, 0) for i in range(flows)]
    times, stats = net.run(config, transfers)
    # Payload 1448 of every 1502 bytes: TCP with timestamps 32, IPv4 20, PPP 2.
    ideal = flows * size / 1448 * 1502 / (25 * GBPS) * 1e12
    assert ideal < max(times) < 1.5 * ideal
    assert sum(stats["tables"]["flows"]["bytes"]) == flows * size
    assert net.run(config, transfers) == (times, stats)


def test_tcp_survives_a_failed_link() -> None:
    base = net.leaf_spine(2, 1, 2, 25 * GBPS, 25 * GBPS, US)
    config = net.NetworkConfig(base.endpoints, base.nodes, base.links, {"transport": "tcp"})
    [clean], before = net.run(config, [(0, 1, 3_000_000, 0)])
    links = before["tables"]["links"]
    used = next(i for i in (4, 6) if links["bytes"][i] > 1_000_000)
    faults = [(used, clean // 2, 0.0), (used + 1, clean // 2, 0.0)]
    [time], after = net.run(config, [(0, 1, 3_000_000, 0)], faults=faults)
    assert time > clean
    assert after["tables"]["links"]["bytes"][10 - used] > 1_000_000


def test_tcp_spreads_flows_over_all_paths() -> None:
    spines, hosts, size = 4, 8, 100_000
    base = net.leaf_spine(2, hosts, spines, 10 * GBPS, 10 * GBPS, US)
    config = net.NetworkConfig(base.endpoints, base.nodes, base.links, {"transport": "tcp"})
    flows = [(src, hosts + dst, size, 0) for src in range(hosts) for dst in range(hosts)]
    _, stats = net.run(config, flows)
    links = stats["tables"]["links"]
    up = [
        int(sent)
        for src, dst, sent in zip(links["src"], links["dst"], links["bytes"], strict=True)
        if src == 2 * hosts and dst >= 2 * hosts + 2
    ]
    assert len(up) == spines
    # 64 flows on four links: 16 each, binomial deviation 3.5; the rest is headers.
    assert all(abs(sent / size - 16 * 1502 / 1448) < 3 * 3.5 for sent in up)


def test_a_tcp_flow_keeps_to_one_path() -> None:
    base = net.leaf_spine(2, 1, 4, 10 * GBPS, 10 * GBPS, US)
    config = net.NetworkConfig(base.endpoints, base.nodes, base.links, {"transport": "tcp"})
    _, stats = net.run(config, [(0, 1, 1_000_000, 0)])
    links = stats["tables"]["links"]
    from_leaf = [
        int(sent) for src, sent in zip(links["src"], links["bytes"], strict=True) if src == 2
    ]
    assert sum(sent > 0 for sent in from_leaf) == 2  # a spine's, and the acknowledgements' host
    assert max(from_leaf) > 1_000_000


def test_tcp_has_one_traffic_class() -> None:
    base = net.dumbbell(1, 25 * GBPS, US)
    config = net.NetworkConfig(base.endpoints, base.nodes, base.links, {"transport": "tcp"})
    transfers = np.zeros(1, TRANSFER)
    transfers[0] = (7, 0, 1000, 0, 1, 3, 0, 0)
    with net.NS3.open(config) as network:
        network.submit(transfers)
        with pytest.raises(SimulationError, match="transfer 7: traffic_class=3, but transport=tcp"):
            network.advance(TIME_NEVER, 10**12)


def _frames(file: Path) -> list[tuple[int, int, bytes]]:
    """Time [ns], length on the wire and captured bytes of every frame of a nanosecond pcap."""
    raw = file.read_bytes()
    magic, _, _, _, _, snap, link_type = struct.unpack("<IHHiIII", raw[:24])
    assert (magic, snap, link_type) == (0xA1B23C4D, 128, 1)
    frames, at = [], 24
    while at < len(raw):
        seconds, nanoseconds, captured, length = struct.unpack("<IIII", raw[at : at + 16])
        frames.append((seconds * 10**9 + nanoseconds, length, raw[at + 16 : at + 16 + captured]))
        at += 16 + captured
    return frames


def test_pcap_holds_rocev2(tmp_path: Path) -> None:
    file = tmp_path / "wire.pcap"
    cables = [(0, 2, 100 * GBPS, US), (2, 1, 10 * GBPS, US)]
    options = {"pcap": file, "completion": "ack", "buffer_bytes": 100_000}
    options["headroom_extra_bytes"] = 20_000
    packets = 200
    _, stats = net.run(net.config(2, cables, **options), [(0, 1, packets * MTU - 1, 0)])
    frames = _frames(file)
    assert len(frames) == stats["packet_hops"]
    assert [time for time, _, _ in frames] == sorted(time for time, _, _ in frames)
    opcodes: dict[int, int] = {}
    pauses = 0
    for _, length, frame in frames:
        ether_type = int.from_bytes(frame[12:14], "big")
        if ether_type == 0x8808:  # 802.1Qbb, opcode 0x0101, priority 3
            assert frame[14:18].hex() == "01010008"
            pauses += 1
            continue
        assert ether_type == 0x0800
        ip, udp, bth = frame[14:34], frame[34:42], frame[42:54]
        words = struct.unpack(">10H", ip)
        assert sum(words) % 0xFFFF == 0  # the header's checksum
        assert words[1] == length - 14 == int.from_bytes(udp[4:6], "big") + 20
        assert int.from_bytes(udp[2:4], "big") == 4791
        opcodes[bth[0]] = opcodes.get(bth[0], 0) + 1
        # The last packet is a byte short and padded to a multiple of four: one byte.
        assert (bth[1] >> 4) == (1 if bth[0] == 2 else 0)
    # SEND First, Middle, Last and ACK, each on two links; one ACK per 16 KiB.
    acks = packets * MTU // 16384
    assert opcodes == {0: 2, 1: 2 * (packets - 2), 2: 2, 17: 2 * acks}
    assert pauses == stats["pfc_pauses"] + stats["pfc_resumes"] > 0


def test_pcap_of_one_link(tmp_path: Path) -> None:
    file = tmp_path / "wire.pcap"
    config = net.dumbbell(1, 100 * GBPS, US, pcap=file, pcap_links="4")
    net.run(config, [(0, 1, 10 * MTU, 0)])
    assert len(_frames(file)) == 10
