# SPDX-License-Identifier: MIT
"""Numbers that were measured with ASTRA-sim's analytical networks, written down one by one.

Unless a test says otherwise: one collective of 1 MiB on 8 NPUs, bandwidth 50, latency 500, 4 chunks
one at a time, 10 ns per message, 50 GB/s local memory; all ranks end at the same time.  The
arithmetic of the first entry, an all-reduce around a ring:

    link   = 50 * 2^30 / 1e9 = 53.6870912 B/ns
    chunk  = 2^20 / 4 = 262144 B, message = chunk / 8 = 32768 B
    step   = floor(500 + 32768 / link) + 10 = 1110 + 10 = 1120 ns
    reduce = 3 * floor(32768 / 50e9 * 1e9) = 3 * 655 = 1965 ns
    4 chunks * (10 + 14 steps * 1120 + 7 reductions * 1965) = 117780 ns
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from astra_bridge.trace import CommType, NodeType
from astra_bridge.trace.writer import TraceNode, write_trace
from tests.small import MIB, collective_ns, network, per_rank, run, system

KINDS = (
    CommType.ALL_REDUCE,
    CommType.ALL_GATHER,
    CommType.REDUCE_SCATTER,
    CommType.ALL_TO_ALL,
)
AR, AG, RS, A2A = KINDS
U, A = "analytical-unaware", "analytical-aware"

TABLE: dict[tuple[str, str, str], tuple[int, ...]] = {
    ("ring", "Ring", U): (117780, 151016, 86420, 125480),
    ("ring", "Ring", A): (117780, 151016, 86420, 125480),
    ("ring", "FullyConnected", U): (117780, 151016, 86420, 125480),
    ("ring", "FullyConnected", A): (117780, 151016, 86420, 125480),
    ("ring", "Switch", U): (145780, 165016, 100420, 181480),
    ("ring", "Switch", A): (179940, 301712, 117500, 249800),
    ("direct", "FullyConnected", U): (16860, 21608, 12380, 4520),
    ("direct", "FullyConnected", A): (16860, 21608, 12380, 4520),
    ("direct", "Switch", U): (20860, 23608, 14380, 6520),
    ("direct", "Switch", A): (47700, 160304, 31460, 23600),
    ("direct", "Ring", U): (24860, 27608, 18380, 10520),
    ("direct", "Ring", A): (57900, 199360, 36340, 28480),
    ("direct2", "FullyConnected", U): (51600, 86312, 33680, 17960),
    ("direct2", "FullyConnected", A): (51600, 86312, 33680, 17960),
    ("direct2", "Switch", U): (67600, 94312, 41680, 25960),
    ("direct2", "Switch", A): (87120, 172424, 51440, 35720),
    ("direct2", "Ring", U): (67600, 94312, 41680, 25960),
    ("direct2", "Ring", A): (94080, 261984, 54280, 39840),
    ("halvingDoubling", "Switch", U): (82028, 148872, 52824),
    ("halvingDoubling", "Switch", A): (116196, 285584, 69908),
}


@pytest.mark.parametrize(("algorithm", "topology", "backend"), TABLE)
def test_one_dimension(algorithm: str, topology: str, backend: str) -> None:
    used, net = system(algorithm), network(topology)
    row = TABLE[algorithm, topology, backend]
    # ASTRA-sim has no halvingDoubling all-to-all, hence the shorter rows.
    for kind, finish_ns in zip(KINDS, row, strict=False):
        assert collective_ns(kind, MIB, used, net, backend=backend) == [finish_ns] * 8, kind


def test_halving_doubling_on_a_ring() -> None:
    finish = collective_ns(AR, MIB, system("halvingDoubling"), network("Ring"))
    assert finish == [86028] * 8


@pytest.mark.parametrize(
    ("backend", "finish_ns"),
    [
        (U, [389164, 438292, 432400, 438292, 410782, 438292, 432400, 438292]),
        (A, [530712, 594486, 583712, 599368, 557212, 599368, 588594, 604250]),
    ],
)
def test_double_binary_tree(backend: str, finish_ns: list[int]) -> None:
    # Chunks alternate between two trees; a rank ends when its part of the last one is done.
    used = system("doubleBinaryTree")
    assert collective_ns(AR, MIB, used, network("Switch"), backend=backend) == finish_ns


TWO_DIMENSIONS = network("Ring Switch", [2, 4], [50, 25], [500, 700])


@pytest.mark.parametrize(
    ("second", "finish_ns"),
    [
        ("ring", (100525, 154191, 66004, 95425)),
        ("direct", (55140, 91389, 47901, 18405)),
        ("halvingDoubling", (73533, 148555, 51752)),
    ],
)
def test_two_dimensions(second: str, finish_ns: tuple[int, ...]) -> None:
    for kind, expected in zip(KINDS, finish_ns, strict=False):
        finish = collective_ns(kind, MIB, system(["ring", second]), TWO_DIMENSIONS)
        assert finish == [expected] * 8, kind


def test_two_dimensions_baseline() -> None:
    # A full all-reduce per dimension on undiminished data.
    used = system(["ring", "ring"], collective_optimization="baseline")
    assert collective_ns(AR, MIB, used, TWO_DIMENSIONS) == [153399] * 8


@pytest.mark.parametrize(
    ("involved", "finish_ns"), [([True, False], 55100), ([False, True], 139624)]
)
def test_some_dimensions(involved: list[bool], finish_ns: int) -> None:
    used = system(["ring", "ring"])
    finish = collective_ns(AR, MIB, used, TWO_DIMENSIONS, involved_dim=involved)
    assert finish == [finish_ns] * 8


def test_one_ring_over_two_dimensions_is_costed_on_the_first() -> None:
    # As in one dimension: neighbours differ in dimension 0 first, and that one's cost is charged.
    assert collective_ns(AR, MIB, system("oneRing"), TWO_DIMENSIONS) == [117780] * 8


@pytest.mark.parametrize(
    ("queues", "active", "finish_ns"),
    [
        (1, 2, (57155, 87121, 38414, 49193)),
        (1, 4, (35470, 53586, 24619, 26077)),
        (2, 1, (100525,)),
        # Half of the queues work in each phase of an all-reduce: 2 queues are as good as 1.
        (2, 2, (100525, 87121, 38414, 49193)),
        (4, 4, (57155, 53586, 24619, 26077)),
    ],
)
def test_queues_and_active_chunks(queues: int, active: int, finish_ns: tuple[int, ...]) -> None:
    used = system(["ring", "ring"], active_chunks_per_dimension=active)
    for kind, expected in zip(KINDS, finish_ns, strict=False):
        finish = collective_ns(kind, MIB, used, TWO_DIMENSIONS, num_queues_per_dim=queues)
        assert finish == [expected] * 8, kind


@pytest.mark.parametrize(
    ("backend", "queues", "active", "finish_ns"),
    [(A, 1, 2, 60790), (A, 1, 4, 39195), (U, 1, 4, 29445), (A, 4, 4, 60790)],
)
def test_active_chunks_on_a_ring(backend: str, queues: int, active: int, finish_ns: int) -> None:
    used = system(active_chunks_per_dimension=active)
    finish = collective_ns(AR, MIB, used, network(), backend=backend, num_queues_per_dim=queues)
    assert finish == [finish_ns] * 8


@pytest.mark.parametrize("backend", [U, A])
@pytest.mark.parametrize(
    ("npus", "size_bytes", "finish_ns"),
    [
        # 4 * (10 + 6 * (floor(500 + 65536 / link) + 10) + 3 * 3 * 1310) = 4 * 22180
        (4, MIB, 88720),
        # 4 B and 20 B grow to 8 B a chunk, 1 B a message: 4 * (10 + 14 * 510) = 28600.
        (8, 4, 28600),
        (8, 20, 28600),
        # 1000003 / 4 = 250000 remains 3: five whole chunks, 25 % more.
        (8, 1_000_003, 142115),
    ],
)
def test_sizes(npus: int, size_bytes: int, finish_ns: int, backend: str) -> None:
    finish = collective_ns(AR, size_bytes, system(), network("Ring", npus), backend=backend)
    assert finish == [finish_ns] * npus


def test_rendezvous() -> None:
    finish = collective_ns(AR, MIB, system(), network(), rendezvous_protocol=True)
    assert finish == [154292] * 8


def test_shared_bus() -> None:
    used = system(model_shared_bus=1, L=5, o=2, g=3, G=0.01)
    assert collective_ns(AR, MIB, used, network()) == [185836] * 8


def message_ns(dst: int, network: dict[str, Any], **arguments: Any) -> list[int]:
    """When sender and receiver of 1 MiB from rank 0 have finished."""
    ranks = 1
    for count in network["npus_count"]:
        ranks *= count

    def fill(trace: Any, rank: int) -> None:
        if rank == 0:
            trace.send(dst, MIB, 0)
        elif rank == dst:
            trace.recv(0, MIB, 0)
        else:
            trace.comp()

    finish = run(per_rank(ranks, fill), system(), network, **arguments).finish_ns.tolist()
    return [finish[0], finish[dst]]


@pytest.mark.parametrize(
    ("arguments", "finish_ns"),
    [
        # floor(500 + 2^20 / link)
        ({}, 20031),
        # A control message of 8192 B first: floor(500 + 8192 / link) = 652.
        ({"rendezvous_protocol": True}, 652 + 20031),
    ],
)
def test_message(arguments: dict[str, Any], finish_ns: int) -> None:
    assert message_ns(1, network(), **arguments) == [finish_ns] * 2


@pytest.mark.parametrize(("backend", "finish_ns"), [(U, 20531), (A, 40062)])
def test_message_through_a_switch(backend: str, finish_ns: int) -> None:
    # Unaware: two latencies, one serialisation.  Aware: both twice, each link cut off to whole ns.
    assert message_ns(1, network("Switch"), backend=backend) == [finish_ns] * 2


@pytest.mark.parametrize(("dst", "finish_ns"), [(1, 20031), (2, 40462), (3, 20031)])
def test_message_over_two_dimensions_pays_the_first(dst: int, finish_ns: int) -> None:
    assert message_ns(dst, TWO_DIMENSIONS) == [finish_ns] * 2


# Example inputs of the public ASTRA-sim repository, and the log lines published for them.


def test_published_all_reduce() -> None:
    """HGX-H100-validated: two chunks at a time through a switch of 400 GiB/s and 936.25 ns.

    link    = 400 * 2^30 / 1e9 = 429.4967 B/ns; message = 2^20 / 4 / 8 = 32768 B, 76.3 ns
    step    = 2 * floor(936.25 + 76.3) + 10 = 2034 ns, reduce = 3 * floor(32768 / 3350) = 27 ns
    2 pairs of chunks * (10 + 14 * 2034 + 7 * 27) = 57350 ns, and the second chunk of the last
    pair is floor(76.3) = 76 ns late because it had to wait for the link once.
    """
    used = system(active_chunks_per_dimension=2, local_mem_bw=3350, boost_mode=0)
    finish = collective_ns(AR, MIB, used, network("Switch", 8, 400, 936.25), backend=A)
    assert finish == [57426] * 8


def test_published_all_gather() -> None:
    """Ring_4chunks on 16 NPUs: 4 * (10 + 15 * (floor(500 + 262144 / link) + 10))."""
    used = system(local_mem_bw=1600)
    assert 4 * (10 + 15 * (5382 + 10)) == 323560
    assert collective_ns(AG, MIB, used, network("Ring", 16), backend=A) == [323560] * 16


def test_published_reduce_scatter() -> None:
    """Ring_4chunks on 4 NPUs: 4 * (10 + 3 * (1720 + 10 + 3 * floor(65536 / 1600)))."""
    used = system(local_mem_bw=1600)
    assert 4 * (10 + 3 * (1720 + 10 + 120)) == 22240
    assert collective_ns(RS, MIB, used, network("Ring", 4)) == [22240] * 4


@pytest.mark.parametrize("backend", [U, A])
def test_published_custom_collective(backend: str, tmp_path: Path) -> None:
    """A ring all-reduce as a Chakra trace: 14 times send, then receive; 7 us to reduce each of 7.

    14 * floor(500 + 131072 / link) + 7 * 7000 = 14 * 2941 + 49000 = 90174 ns
    """
    for rank in range(8):
        nodes: list[TraceNode] = []

        def add(
            kind: NodeType, us: int = 0, nodes: list[TraceNode] = nodes, **attributes: int
        ) -> None:
            before = [len(nodes) - 1] if nodes else []
            fields: dict[str, Any] = {"is_cpu_op": False} | attributes
            nodes.append(TraceNode(len(nodes), kind, "", us, before, attributes=fields))

        for step in range(14):
            add(NodeType.COMM_SEND, comm_dst=(rank + 1) % 8, comm_tag=0, comm_size=131072)
            add(NodeType.COMM_RECV, comm_src=(rank - 1) % 8, comm_tag=0, comm_size=131072)
            if step < 7:
                add(NodeType.COMP, us=7)
        write_trace(tmp_path / f"ring.{rank}.et", nodes)
    used = {
        "scheduling-policy": "FIFO",
        "preferred-dataset-splits": 1,
        "all-reduce-implementation-custom": [str(tmp_path / "ring")],
        "local-mem-bw": 50,
    }
    assert collective_ns(AR, MIB, used, network(), backend=backend) == [90174] * 8
