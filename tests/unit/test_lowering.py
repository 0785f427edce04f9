# SPDX-License-Identifier: MIT
"""From inputs to a Program: chunks, phases, groups, messages, dependencies, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.errors import InputError, StalledError
from astra_bridge.inputs.memory import read_remote_memory
from astra_bridge.inputs.system import read_system
from astra_bridge.lowering import Lowered, lower
from astra_bridge.program import Op, Program, QueuePick, Unit
from astra_bridge.trace import CommType, NodeType, Workload
from astra_bridge.trace.writer import TraceNode, write_trace
from astra_bridge.workload import TraceBuilder
from tests.small import network, per_rank, run, same_on_all, system

AR, AG, RS, A2A = (
    CommType.ALL_REDUCE,
    CommType.ALL_GATHER,
    CommType.REDUCE_SCATTER,
    CommType.ALL_TO_ALL,
)


def lowered(
    workload: Workload,
    used: dict[str, Any] | None = None,
    dims: Sequence[int] = (),
    groups: dict[int, tuple[int, ...]] | None = None,
    **arguments: Any,
) -> Lowered:
    return lower(
        workload,
        read_system(used or system()),
        read_remote_memory({"memory-type": "NO_MEMORY_EXPANSION"}),
        tuple(dims) or (workload.ranks,),
        groups or {},
        **arguments,
    )


def one(kind: CommType, size_bytes: int, used: dict[str, Any], dims: Sequence[int],
        **arguments: Any) -> Program:  # fmt: skip
    involved = arguments.pop("involved", None)
    ranks = 1
    for count in dims:
        ranks *= count
    workload = same_on_all(ranks, lambda t: t.coll(kind, size_bytes, involved_dim=involved))
    return lowered(workload, used, dims, **arguments).program


def message_sizes(program: Program) -> set[int]:
    return set(program.steps["send_bytes"].tolist())


# Chunks


@pytest.mark.parametrize(
    ("kind", "size_bytes", "splits", "chunks", "message"),
    [
        (AR, 8000, 4, 4, 250),
        (AR, 8000, 1, 1, 1000),
        # A remainder is one more chunk.
        (AR, 8003, 4, 5, 250),
        (AR, 1_000_003, 4, 5, 31250),
        # Less than a byte per rank and chunk: a byte each, whatever the size.
        (AR, 20, 4, 4, 1),
        (RS, 31, 4, 4, 1),
        (A2A, 32, 4, 4, 1),
        # An all-gather's size is the shard of one rank.
        (AG, 8000, 4, 4, 2000),
        (AG, 20, 4, 4, 5),
        # Fewer bytes than chunks, where ASTRA-sim divides by 0 or never ends.
        (AG, 3, 4, 3, 1),
    ],
)
def test_chunks(kind: CommType, size_bytes: int, splits: int, chunks: int, message: int) -> None:
    program = one(kind, size_bytes, system(preferred_dataset_splits=splits), [8])
    assert program.collectives["chunks"].tolist() == [chunks]
    assert program.collectives["plan_count"].tolist() == [1]
    assert message_sizes(program) == {message}


def test_corrected_chunks_share_a_remainder() -> None:
    used = system(preferred_dataset_splits=4)
    program = one(AR, 8 * 1002, used, [8], semantics="corrected")
    assert program.collectives["chunks"].tolist() == [4]
    # 8016 = 4 * 2004; 2004 / 8 = 250.
    assert message_sizes(program) == {250}
    program = one(AG, 10, used, [8], semantics="corrected")
    assert program.collectives[["chunks", "plan_count"]].tolist() == [(4, 4)]
    assert message_sizes(program) == {3, 2}


# Phases


def phases(program: Program) -> list[tuple[int, int, int]]:
    """(dimension, queue class, messages per rank) of each phase of the only plan."""
    (start, count), = program.plans.tolist()  # fmt: skip
    rows = program.phases[start : start + count]
    first = program.families["first"][rows["family0"]]
    return list(
        zip(
            rows["level"].tolist(),
            rows["pick"].tolist(),
            program.schedules["step_count"][first].tolist(),
            strict=True,
        )
    )


THREE = [2, 4, 8]
NEXT, FIRST, LAST = QueuePick.NEXT, QueuePick.FIRST, QueuePick.LAST
RING3 = ["ring"] * 3


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        (
            AR,
            {},
            [(0, FIRST, 1), (1, FIRST, 3), (2, FIRST, 14), (1, LAST, 3), (0, LAST, 1)],
        ),
        (
            AR,
            {"collective_optimization": "baseline"},
            [(0, NEXT, 2), (1, NEXT, 6), (2, NEXT, 14)],
        ),
        (RS, {}, [(0, NEXT, 1), (1, NEXT, 3), (2, NEXT, 7)]),
        (AG, {}, [(2, NEXT, 7), (1, NEXT, 3), (0, NEXT, 1)]),
        (A2A, {}, [(0, NEXT, 1), (1, NEXT, 6), (2, NEXT, 28)]),
    ],
)
def test_phases(kind: CommType, changes: dict[str, Any], expected: list[Any]) -> None:
    assert phases(one(kind, 2**20, system(RING3, **changes), THREE)) == expected


@pytest.mark.parametrize(
    ("involved", "dimensions"),
    [
        ([True, False, True], [0, 2, 0]),
        ([False, True, False], [1]),
        # Dimensions beyond the list take part.
        ([False], [1, 2, 1]),
        ([True] * 9, [0, 1, 2, 1, 0]),
    ],
)
def test_dimensions_that_do_not_take_part(involved: list[bool], dimensions: list[int]) -> None:
    program = one(AR, 2**20, system(RING3), THREE, involved=involved)
    assert [level for level, _, _ in phases(program)] == dimensions


def test_no_dimension_at_all_is_nothing_to_do() -> None:
    program = one(AR, 2**20, system(RING3), THREE, involved=[False] * 3)
    assert program.nodes["op"].tolist() == [Op.NOTHING]


def test_one_algorithm_spans_all_dimensions() -> None:
    assert phases(one(AR, 2**20, system("oneRing"), THREE)) == [(0, FIRST, 126)]


def test_more_algorithms_than_dimensions_are_an_error() -> None:
    with pytest.raises(InputError) as caught:
        one(AR, 2**20, system(["ring"] * 4), THREE)
    assert caught.value.key == "all-reduce-implementation"


def test_a_missing_implementation_is_named() -> None:
    used = {key: value for key, value in system().items() if key != "all-gather-implementation"}
    with pytest.raises(InputError) as caught:
        one(AG, 8000, used, [4])
    assert caught.value.key == "all-gather-implementation"
    # Nobody asks for what is not used.
    one(AR, 8000, used, [4])


def test_endpoint_delay_is_scaled_only_where_it_is_given() -> None:
    given = one(AR, 8000, system(endpoint_delay=15), [4], injection_scale=2.5)
    assert given.machines["endpoint_delay_ps"].tolist() == [37_000]  # cut off to whole ns
    absent = one(AR, 8000, system(endpoint_delay=None), [4], injection_scale=2.5)
    assert absent.machines["endpoint_delay_ps"].tolist() == [10_000]


# What is the same stands once


def test_ranks_with_the_same_trace_share_everything() -> None:
    def fill(trace: TraceBuilder) -> None:
        for _ in range(3):
            trace.comp(deps=[trace.coll(AR, 8000)])

    program = lowered(same_on_all(16, fill)).program
    assert program.tasks["template_index"].tolist() == [0] * 16
    assert len(program.nodes) == 6
    assert len(program.collectives) == 1


# Groups


def in_group(name: int, ranks: int = 4) -> Workload:
    return per_rank(
        ranks, lambda t, rank: t.coll(AR, 8000, group=name) if rank % 2 == 0 else t.comp()
    )


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(InputError) as caught:
        lowered(in_group(7), groups={3: (0, 2)})
    assert caught.value.key == "node 0 COMM_COLL pg_name"
    assert "communicator group 7 is not defined; defined: 3" in str(caught.value)


def test_a_rank_outside_its_group_is_named() -> None:
    with pytest.raises(InputError, match="rank 2 runs this trace, but is not a member"):
        lowered(in_group(3), groups={3: (0, 1)})


def test_positions_follow_the_list() -> None:
    program = lowered(in_group(3), groups={3: (2, 0)}).program
    assert program.members.tolist() == [2, 0]


def test_group_0_is_everybody() -> None:
    both = [
        run(same_on_all(4, lambda t, g=g: t.coll(AR, 8000, group=g)), system(), network("Ring", 4))  # type: ignore[misc]
        for g in (None, 0)
    ]
    assert both[0].finish_ns.tolist() == both[1].finish_ns.tolist()


def test_process_groups_of_the_trace() -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        trace.process_groups({"5": [1, 3], "6": [0, 2]})
        trace.coll(AR, 8000, group=5 + (rank + 1) % 2)

    found = run(per_rank(4, fill), system(), network("FullyConnected", 4)).finish_ns.tolist()
    alone = run(
        same_on_all(2, lambda t: t.coll(AR, 16000)),
        # Chunks grow with the number of all ranks, not of the group's; there is no remainder here.
        system(preferred_dataset_splits=4),
        network("FullyConnected", 2),
    )
    assert len(set(found)) == 1
    assert found[0] < alone.finish_ns[0]


@pytest.mark.parametrize("ids", [(1, 2), (2148, 999_999), (500, 1000)])
def test_group_ids_do_not_meet(ids: tuple[int, int]) -> None:
    """In ASTRA-sim ids from 2148 on overflow, and ids that differ by 500 share their tags."""

    def fill(trace: TraceBuilder) -> None:
        trace.coll(AR, 8000, group=ids[0])
        trace.coll(AR, 8000, group=ids[1])

    groups = dict.fromkeys(ids, (0, 1, 2, 3))
    finish = run(same_on_all(4, fill), system(), network("Ring", 4), comm_groups=groups).finish_ns
    same = run(
        same_on_all(4, lambda t: (t.coll(AR, 8000), t.coll(AR, 8000))),
        system(),
        network("Ring", 4),
    ).finish_ns
    assert finish.tolist() == same.tolist()


# Nodes


@pytest.mark.parametrize("kind", [NodeType.METADATA, NodeType.INVALID])
def test_nodes_that_do_nothing_take_no_time(kind: NodeType) -> None:
    def fill(trace: TraceBuilder) -> None:
        first = trace.comp(duration_us=2)
        second = trace.add(kind, "nothing", [first])
        trace.comp(duration_us=3, deps=[second])

    found = run(same_on_all(2, fill), system(), network("Ring", 2))
    assert found.finish_ns.tolist() == [5000, 5000]
    assert found.node_end_ps[:3].tolist() == [2_000_000, 2_000_000, 5_000_000]


def test_an_empty_trace_is_done_at_once() -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            trace.comp(duration_us=1)

    found = run(per_rank(3, fill), system(), network("Ring", 3))
    assert found.finish_ns.tolist() == [1000, 0, 0]


def test_times_stand_in_the_order_of_the_file() -> None:
    def fill(trace: TraceBuilder) -> None:
        trace.nodes.append(TraceNode(9, NodeType.COMP, "late", 1, data_deps=[4]))
        trace.nodes.append(TraceNode(4, NodeType.COMP, "early", 2))

    found = run(same_on_all(2, fill), system(), network("Ring", 2))
    assert found.node_start_ps.tolist() == [2_000_000, 0] * 2
    assert found.node_end_ps.tolist() == [3_000_000, 2_000_000] * 2


def test_units() -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        trace.comp()
        trace.comp(cpu=True)
        trace.coll(AR, 8000)
        trace.send(1 - rank, 10, 0)
        trace.recv(1 - rank, 10, 0)
        trace.add(NodeType.METADATA, "", [])

    program = lowered(per_rank(2, fill)).program
    units = [Unit.COMPUTE, Unit.CPU, Unit.COMM, Unit.COMM, Unit.NONE, Unit.NONE]
    assert program.nodes["unit"].tolist() == units * 2
    assert program.machines["unit_capacity"].tolist() == [[1, 1, 1, 2**31 - 1]]


def test_tags_are_folded_as_in_astra_sim() -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            trace.send(1, 1000, 7)
        else:
            trace.recv(0, 1000, 500_000_007)

    assert run(per_rank(2, fill), system(), network("Ring", 2)).finish_ns.tolist() == [518] * 2


# What is refused


def node(kind: NodeType, **attributes: Any) -> Callable[[TraceBuilder, int], None]:
    def fill(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            trace.nodes.append(
                TraceNode(3, kind, "", 0, attributes={"is_cpu_op": False} | attributes)
            )
        else:
            trace.comp()

    return fill


SEND = {"comm_dst": 1, "comm_size": 10, "comm_tag": 0}
RECV = {"comm_src": 1, "comm_size": 10, "comm_tag": 0}
COLL = {"comm_type": 0, "comm_size": 10}


def without(attributes: dict[str, Any], key: str, **changed: Any) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name != key} | changed


@pytest.mark.parametrize(
    ("kind", "attributes", "key", "says"),
    [
        (NodeType.COMM_SEND, without(SEND, "comm_dst"), "comm_dst", "is missing"),
        (NodeType.COMM_SEND, without(SEND, "comm_size"), "comm_size", "is missing"),
        (NodeType.COMM_SEND, without(SEND, "", comm_size=0), "comm_size", "is 0; allowed: 1"),
        (NodeType.COMM_SEND, without(SEND, "", comm_dst=4), "comm_dst", "is 4; allowed: 0 to 3"),
        (NodeType.COMM_SEND, without(SEND, "", comm_dst=0), "comm_dst", "cannot send to itself"),
        (NodeType.COMM_SEND, without(SEND, "", comm_src=2), "comm_src", "in its own name"),
        (NodeType.COMM_RECV, without(RECV, "comm_src"), "comm_src", "is missing"),
        (NodeType.COMM_RECV, without(RECV, "", comm_src=-1), "comm_src", "-1"),
        (NodeType.COMM_RECV, without(RECV, "comm_tag"), "comm_tag", "is missing"),
        (NodeType.COMM_COLL, without(COLL, "comm_type"), "comm_type", "is missing"),
        (NodeType.COMM_COLL, without(COLL, "comm_size"), "comm_size", "is missing"),
        (NodeType.COMM_COLL, without(COLL, "", comm_type=10), "comm_type", "is 10; allowed: 0 to"),
        (NodeType.COMM_COLL, without(COLL, "", comm_size=-5), "comm_size", "-5"),
        (NodeType.COMM_COLL, without(COLL, "", pg_name="x"), "pg_name", "group x is not defined"),
        (NodeType.COMM_COLL, without(COLL, "", comm_type=5, root_rank=9), "root", "root 9 is not"),
        (NodeType.MEM_LOAD, {"tensor_size": 10}, "", "needs remote memory"),
    ],
)
def test_bad_nodes_are_named(
    kind: NodeType, attributes: dict[str, Any], key: str, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        lowered(per_rank(4, node(kind, **attributes)))
    # What no simulation could use is found by the reader of traces, which knows no kinds of nodes.
    assert caught.value.key in (f"node 3 {kind.name} {key}".strip(), f"node 3: {key}")
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_barrier_needs_no_size() -> None:
    found = run(
        per_rank(2, lambda t, _: t.add(NodeType.COMM_COLL, "", [], comm_type=9, is_cpu_op=False)),
        system(),
        network("Ring", 2),
    )
    # One round: 10 + 500 + 10 ns.
    assert found.finish_ns.tolist() == [520, 520]


def test_a_circle_is_named() -> None:
    def fill(trace: TraceBuilder) -> None:
        for number, deps in ((0, []), (1, [0, 3]), (2, [1]), (3, [2])):
            trace.nodes.append(TraceNode(number, NodeType.COMP, "", 1, data_deps=deps))

    with pytest.raises(StalledError, match=r"in a circle: 1, 2, 3$"):
        lowered(same_on_all(2, fill))


def test_a_workload_of_another_size_is_an_error() -> None:
    with pytest.raises(InputError, match="the workload has 2 ranks, the network 4"):
        lowered(same_on_all(2, lambda t: t.comp()), dims=(4,))


# Custom collectives


def write_custom(prefix: Path, positions: int, size_bytes: int = 1000) -> None:
    """Everybody sends to the next position and receives from the one before."""
    for position in range(positions):
        send = {"comm_dst": (position + 1) % positions, "comm_size": size_bytes, "comm_tag": 0}
        recv = {"comm_src": (position - 1) % positions, "comm_size": size_bytes, "comm_tag": 0}
        write_trace(
            Path(f"{prefix}.{position}.et"),
            [
                TraceNode(0, NodeType.COMM_SEND, attributes={"is_cpu_op": False} | send),
                TraceNode(1, NodeType.COMM_RECV, attributes={"is_cpu_op": False} | recv),
                TraceNode(2, NodeType.COMP, duration_micros=5, data_deps=[0, 1]),
            ],
        )


def test_a_custom_collective_replaces_the_algorithm(tmp_path: Path) -> None:
    write_custom(tmp_path / "mine", 4)
    used = system(all_reduce_implementation_custom=[str(tmp_path / "mine")])
    found = run(same_on_all(4, lambda t: t.coll(AR, 8000)), used, network("Ring", 4))
    # One message of 1000 B in 518 ns, then 5 us; no chunks, no endpoint delay.
    assert found.finish_ns.tolist() == [5518] * 4


def test_a_custom_collective_of_one_node(tmp_path: Path) -> None:
    write_custom(tmp_path / "mine", 4)
    table = tmp_path / "table.yml"
    table.write_text(f"1: {tmp_path / 'mine'}")
    used = system(per_node_custom_implementation=str(table))

    def fill(trace: TraceBuilder) -> None:
        first = trace.coll(AR, 8000)
        trace.coll(AR, 8000, deps=[first])

    found = run(same_on_all(4, fill), used, network("Ring", 4))
    ring, both = (found.node_end_ps[:2] // 1000).tolist()
    plain = run(same_on_all(4, lambda t: t.coll(AR, 8000)), system(), network("Ring", 4))
    assert ring == plain.finish_ns[0]
    assert both - ring == 5518


def test_a_missing_file_of_a_custom_collective_is_named(tmp_path: Path) -> None:
    write_custom(tmp_path / "mine", 3)
    used = system(all_reduce_implementation_custom=[str(tmp_path / "mine")])
    with pytest.raises(InputError, match=r"mine\.3\.et"):
        lowered(same_on_all(4, lambda t: t.coll(AR, 8000)), used)


def test_custom_collectives_hold_only_work_and_messages(tmp_path: Path) -> None:
    for position in range(2):
        write_trace(
            tmp_path / f"mine.{position}.et",
            [TraceNode(0, NodeType.COMM_COLL, attributes={"comm_type": 0, "comm_size": 1})],
        )
    used = system(all_reduce_implementation_custom=[str(tmp_path / "mine")])
    with pytest.raises(InputError, match="consists of COMP, COMM_SEND and COMM_RECV"):
        lowered(same_on_all(2, lambda t: t.coll(AR, 8000)), used)
