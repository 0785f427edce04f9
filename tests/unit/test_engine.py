# SPDX-License-Identifier: MIT
"""What both engines do with nodes and messages, on workloads whose times can be added up by hand.

tests/crossval/test_engines.py compares the engines on random programs; here stands what is right.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from astra_bridge.engine import Progress, native
from astra_bridge.errors import AstraBridgeError
from astra_bridge.trace import CommType, NodeType, Workload
from astra_bridge.workload import TraceBuilder
from tests.small import MIB, network, per_rank, run, same_on_all, system

AR = CommType.ALL_REDUCE
ENGINES = ("python",) if native.unavailable() else ("python", "native")
pytestmark = pytest.mark.parametrize("engine", ENGINES)


def ends_ns(workload: Workload, engine: Any, **arguments: Any) -> list[int]:
    """When each node of each rank has ended, rank by rank."""
    net = arguments.pop("net", network("Ring", workload.ranks))
    result = run(workload, arguments.pop("used", system()), net, engine=engine, **arguments)
    return (result.node_end_ps // 1000).tolist()


# Nodes of one rank


def test_compute_nodes_take_turns_in_ascending_id(engine: Any) -> None:
    def fill(trace: TraceBuilder) -> None:
        for micros in (3, 1, 2):
            trace.comp(duration_us=micros)

    assert ends_ns(same_on_all(2, fill), engine) == [3000, 4000, 6000] * 2


def test_the_cpu_works_beside_the_accelerator(engine: Any) -> None:
    def fill(trace: TraceBuilder) -> None:
        trace.comp(duration_us=3)
        trace.comp(duration_us=2, cpu=True)
        trace.comp(duration_us=4, cpu=True)

    assert ends_ns(same_on_all(2, fill), engine) == [3000, 2000, 6000] * 2


def test_data_and_control_dependencies_both_count(engine: Any) -> None:
    def fill(trace: TraceBuilder) -> None:
        first = trace.comp(duration_us=1)
        second = trace.comp(duration_us=2, cpu=True)
        trace.add(NodeType.COMP, "", [first], duration_us=1, ctrl_deps=[second], is_cpu_op=False)

    assert ends_ns(same_on_all(2, fill), engine) == [1000, 2000, 3000] * 2


def test_communication_runs_beside_computation(engine: Any) -> None:
    def fill(trace: TraceBuilder) -> None:
        trace.coll(AR, MIB)
        trace.comp(duration_us=500)

    assert ends_ns(same_on_all(8, fill), engine) == [117780, 500_000] * 8


def test_exposed_communication_is_what_computation_does_not_cover(engine: Any) -> None:
    def fill(trace: TraceBuilder) -> None:
        trace.coll(AR, MIB)
        trace.comp(duration_us=100)
        trace.comp(duration_us=10, cpu=True)

    result = run(same_on_all(8, fill), system(), network(), engine=engine)
    assert result.finish_ns.tolist() == [117780] * 8
    assert result.exposed_comm_ns.tolist() == [17780] * 8


def test_one_collective_or_send_at_a_time(engine: Any) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            trace.send(1, 1000, 0)
            trace.send(1, 1000, 1)
        else:
            trace.recv(0, 1000, 1)
            trace.recv(0, 1000, 0)

    # A send holds its place until it has arrived, 518 ns; receives wait side by side.
    assert ends_ns(per_rank(2, fill), engine) == [518, 1036, 1036, 518]


def test_corrected_sends_do_not_wait_for_one_another(engine: Any) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        for tag in (0, 1):
            if rank == 0:
                trace.send(1, 1000, tag)
            else:
                trace.recv(0, 1000, tag)

    found = ends_ns(per_rank(2, fill), engine, semantics="corrected")
    assert found == [518] * 4
    # With congestion the second waits for the link, 18 ns.
    arguments: dict[str, Any] = {"semantics": "corrected", "backend": "analytical-aware"}
    assert ends_ns(per_rank(2, fill), engine, **arguments) == [518, 536] * 2


# Messages


def test_messages_of_one_tag_and_size_keep_their_order(engine: Any) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        before: list[int] = []
        for micros in (1, 5, 1):
            before = [trace.comp(duration_us=micros, deps=before)]
            if rank == 0:
                trace.send(1, 1000, 0, deps=before)
            else:
                trace.recv(0, 1000, 0, deps=[])

    ends = ends_ns(per_rank(2, fill), engine)
    assert ends[1::2][:3] == [1518, 6518, 7518]
    assert ends[6:][1::2] == [1518, 6518, 7518]


def test_a_late_receive_ends_when_it_is_posted(engine: Any) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            trace.send(1, 1000, 0)
        else:
            trace.recv(0, 1000, 0, deps=[trace.comp(duration_us=9)])

    assert ends_ns(per_rank(2, fill), engine) == [518, 9000, 9000]


def test_rendezvous_makes_the_sender_wait_for_the_receiver(engine: Any) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            trace.send(1, 1000, 0)
        else:
            trace.recv(0, 1000, 0, deps=[trace.comp(duration_us=9)])

    # At 9 us the receiver sends 8192 B, 652 ns; then the data comes, 518 ns.
    found = ends_ns(per_rank(2, fill), engine, rendezvous_protocol=True)
    assert found == [9000 + 652 + 518, 9000, 9000 + 652 + 518]


def test_links_carry_what_was_sent(engine: Any) -> None:
    sizes = {(0, 1): 1000, (0, 2): 20, (3, 1): 7, (2, 0): 2**33}

    def fill(trace: TraceBuilder, rank: int) -> None:
        for tag, ((src, dst), size) in enumerate(sizes.items()):
            if rank == src:
                trace.send(dst, size, tag)
            elif rank == dst:
                trace.recv(src, size, tag)

    result = run(
        per_rank(4, fill),
        system(),
        network("FullyConnected", 4),
        backend="analytical-aware",
        engine=engine,
    )
    links = result.tables["links"]
    ends = list(zip(links["src"].tolist(), links["dst"].tolist(), strict=True))
    carried = dict(zip(ends, links["bytes"].tolist(), strict=True))
    assert {pair: size for pair, size in carried.items() if size} == sizes
    busy_ps = dict(zip(ends, links["busy_ps"].tolist(), strict=True))
    # bytes / bandwidth, in whole ns
    assert busy_ps[0, 1] == 1000 * int(1000 / (50 * 2**30 / 1e9))


# The engine itself


def test_a_time_beyond_all_time_is_an_error(engine: Any) -> None:
    def fill(trace: TraceBuilder) -> None:
        before: list[int] = []
        for _ in range(3):
            before = [trace.comp(duration_us=2**42, deps=before)]

    with pytest.raises(AstraBridgeError, match="beyond the range of time") as caught:
        ends_ns(same_on_all(2, fill), engine)
    assert caught.value.exit_code == 3


def test_nodes_need_not_be_recorded(engine: Any) -> None:
    workload = same_on_all(8, lambda trace: trace.coll(AR, MIB))
    result = run(workload, system(), network(), engine=engine, record_nodes=False)
    assert result.finish_ns.tolist() == [117780] * 8
    assert len(result.node_start_ps) == len(result.node_end_ps) == 0


def test_progress_is_reported_and_may_stop_the_run(engine: Any) -> None:
    seen: list[Progress] = []
    net = network("Ring", 32)
    repeat = 1

    def fill(trace: TraceBuilder) -> None:
        before: list[int] = []
        for _ in range(repeat):
            before = [trace.coll(CommType.ALL_TO_ALL, MIB, deps=before)]

    while len(seen) < 3:  # a fast machine needs a longer run for three reports on the way
        seen.clear()
        repeat *= 2
        workload = same_on_all(32, fill)
        run(workload, system(), net, engine=engine, progress=seen.append, fold="off")
    for before, after in itertools.pairwise(seen):
        assert before.events <= after.events
        assert before.now_ps <= after.now_ps
        assert before.nodes_done <= after.nodes_done
    assert all(progress.nodes_total == 32 * repeat for progress in seen)

    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workload, system(), net, engine=engine, progress=stop, fold="off")
