# SPDX-License-Identifier: MIT
"""Print the numbers of docs/semantics.md: ``python examples/semantics/show.py``.

Each line is a small simulation, run with two semantics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from astra_bridge import InputError, simulate
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.semantics import QUIRKS, Semantics
from astra_bridge.trace import CommType, NodeType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

MiB = 2**20
RING_8 = NetworkDims(("Ring",), (8,), (50.0,), (500.0,))
SWITCH_8 = NetworkDims(("Switch",), (8,), (50.0,), (500.0,))
CONNECTED_8 = NetworkDims(("FullyConnected",), (8,), (50.0,), (500.0,))
RING_4_RING_2 = NetworkDims(("Ring", "Ring"), (4, 2), (50.0, 50.0), (500.0, 500.0))
RING_2_SWITCH_4 = NetworkDims(("Ring", "Switch"), (2, 4), (50.0, 25.0), (500.0, 700.0))
FIRST_FOUR = {1: (0, 1, 2, 3), 2: (4, 5, 6, 7)}


def system(*algorithms: str, **changes: Any) -> dict[str, Any]:
    """A system with one algorithm per dimension for all collectives."""
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    return {
        "preferred-dataset-splits": 4,
        "collective-optimization": "localBWAware",
        "endpoint-delay": 10,
        "local-mem-bw": 50,
        "scheduling-policy": "LIFO",
        **{f"{kind}-implementation": list(algorithms or ("ring",)) for kind in kinds},
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }


def every(
    build: Callable[[TraceBuilder, int], object],
    groups: Mapping[int, tuple[int, ...]] | None = None,
) -> GeneratedWorkload:
    """Eight ranks; ``build(trace, rank)`` adds the nodes of each."""
    traces = []
    for rank in range(8):
        trace = TraceBuilder()
        build(trace, rank)
        traces.append(trace)
    return GeneratedWorkload(tuple(traces), dict(groups or {}))


def collective(
    kind: CommType, size_bytes: int, *, groups: bool = False, **more: Any
) -> GeneratedWorkload:
    """One collective, of all ranks or of the first and the last four."""

    def build(trace: TraceBuilder, rank: int) -> None:
        group = 1 + rank // 4 if groups else None
        trace.coll(kind, size_bytes, group=group, **more)

    return every(build, FIRST_FOUR if groups else None)


def message(dst: int, size_bytes: int) -> GeneratedWorkload:
    """One message from rank 0; the others compute for a moment."""

    def build(trace: TraceBuilder, rank: int) -> None:
        if rank == 0:
            trace.send(dst, size_bytes, 1)
        elif rank == dst:
            trace.recv(0, size_bytes, 1)
        else:
            trace.comp()

    return every(build)


def three_at_once(trace: TraceBuilder, _: int) -> None:
    for _ in range(3):
        trace.coll(CommType.ALL_REDUCE, MiB)


def compute(trace: TraceBuilder, _: int) -> None:
    trace.comp(duration_us=7, num_ops=1_000_000, tensor_size_bytes=1_000_000)


def behind_in_stream(trace: TraceBuilder, _: int) -> None:
    reduced = trace.coll(CommType.ALL_REDUCE, MiB)
    kernel = trace.comp(duration_us=20)
    for node in (reduced, kernel):
        trace.nodes[node].attributes["stream"] = 7


def two_streams(trace: TraceBuilder, _: int) -> None:
    for stream in (7, 20):
        kernel = trace.comp(duration_us=10)
        trace.nodes[kernel].attributes["stream"] = stream


def nodes_without_work(trace: TraceBuilder, _: int) -> None:
    groups = trace.process_groups({"1": range(8)})
    invalid = trace.add(NodeType.INVALID, "nothing", [groups])
    cpu = trace.comp("on the CPU", duration_us=3, cpu=True, deps=[invalid])
    trace.coll(CommType.ALL_REDUCE, MiB, deps=[cpu])


def one_member(trace: TraceBuilder, rank: int) -> None:
    alone = trace.coll(CommType.ALL_REDUCE, MiB, group=rank + 1)
    trace.comp(duration_us=5, deps=[alone])


@dataclass(frozen=True)
class Case:
    """One line."""

    title: str
    workload: GeneratedWorkload
    network: NetworkDims = RING_8
    system: dict[str, Any] = field(default_factory=system)
    backend: str = "analytical-unaware"
    quirk: str = ""


ALL_REDUCE, ALL_GATHER = CommType.ALL_REDUCE, CommType.ALL_GATHER
REDUCE_SCATTER = CommType.REDUCE_SCATTER

TWO = ("ring", "ring")
SIXTEEN = {"preferred_dataset_splits": 16}


def odd(case: Case, ranks: int) -> Case:
    """The same with another number of ranks."""
    network = NetworkDims(("FullyConnected",), (ranks,), (50.0,), (500.0,))
    traces = (case.workload.traces[0],) * ranks
    return replace(
        case,
        title=f"{case.title}, {ranks} ranks",
        workload=GeneratedWorkload(traces),
        network=network,
    )


CHANGES = (
    Case(
        "all-reduce of 1,000,003 B in 4 chunks",
        collective(ALL_REDUCE, 1_000_003),
        quirk="remainder-is-a-chunk",
    ),
    Case(
        "all-reduce of 20 B in 64 chunks",
        collective(ALL_REDUCE, 20),
        system=system(preferred_dataset_splits=64),
        quirk="small-chunks-are-padded",
    ),
    Case(
        "three all-reduces at once, 12 active chunks",
        every(three_at_once),
        system=system(active_chunks_per_dimension=12),
        quirk="one-communication-at-a-time",
    ),
    Case(
        "message of 1 MiB through a Switch, aware",
        message(1, MiB),
        SWITCH_8,
        backend="analytical-aware",
        quirk="store-and-forward",
    ),
    Case(
        "message of 1 MiB across both of two dimensions",
        message(3, MiB),
        RING_2_SWITCH_4,
        quirk="first-dimension-only",
    ),
    Case(
        "oneRing all-reduce over two dimensions",
        collective(ALL_REDUCE, MiB),
        RING_2_SWITCH_4,
        system("oneRing"),
        quirk="first-dimension-only",
    ),
    Case(
        "one algorithm for two dimensions",
        collective(ALL_REDUCE, MiB),
        RING_2_SWITCH_4,
        system("ring"),
        quirk="missing-algorithms-leave-dimensions-out",
    ),
    Case(
        "ring all-reduce in groups of 4, endpoint-delay 1000",
        collective(ALL_REDUCE, MiB, groups=True),
        CONNECTED_8,
        system(endpoint_delay=1000),
        quirk="groups-skip-endpoint-delay",
    ),
    Case(
        "all-reduce in groups of 4, direct in each of two dimensions",
        collective(ALL_REDUCE, MiB, groups=True),
        RING_2_SWITCH_4,
        system("direct", "direct"),
        quirk="direct-in-groups-is-ring",
    ),
    Case(
        "direct all-reduce in groups of 4",
        collective(ALL_REDUCE, MiB, groups=True),
        CONNECTED_8,
        system("direct"),
        quirk="direct-charges-by-window",
    ),
    Case(
        "direct2 reduce-scatter",
        collective(REDUCE_SCATTER, MiB),
        CONNECTED_8,
        system("direct2"),
        quirk="direct-charges-by-window",
    ),
    Case(
        "halvingDoubling all-reduce",
        collective(ALL_REDUCE, MiB),
        CONNECTED_8,
        system("halvingDoubling"),
        quirk="halving-doubling-skips-a-reduction",
    ),
    odd(
        Case(
            "halvingDoubling all-gather",
            collective(ALL_GATHER, MiB),
            system=system("halvingDoubling"),
            quirk="halving-doubling-wraps-around",
        ),
        6,
    ),
    Case(
        "doubleBinaryTree reduce-scatter",
        collective(REDUCE_SCATTER, MiB),
        CONNECTED_8,
        system("doubleBinaryTree"),
        quirk="double-binary-tree-is-all-reduce",
    ),
    Case(
        'compute of 7 us with `"roofline-enabled": false`',
        every(compute),
        system=system(peak_perf=1, roofline_enabled=False),
        quirk="false-is-on",
    ),
    Case(
        "all-reduce of 1 MiB, and behind it in its stream compute of 20 us",
        every(behind_in_stream),
        quirk="streams-do-not-order",
    ),
    Case(
        "two kernels of 10 us, each in a stream of its own",
        every(two_streams),
        quirk="streams-do-not-order",
    ),
    Case(
        "broadcast of 1 MiB",
        collective(CommType.BROADCAST, MiB),
        CONNECTED_8,
        quirk="broadcast-is-replayed",
    ),
)

BOTH = (
    Case("broadcast of 1 MiB", collective(CommType.BROADCAST, MiB), CONNECTED_8),
    Case("reduce of 1 MiB", collective(CommType.REDUCE, MiB), CONNECTED_8),
    Case("scatter of 1 MiB", collective(CommType.SCATTER, MiB), CONNECTED_8),
    Case("gather of 1 MiB", collective(CommType.GATHER, MiB), CONNECTED_8),
    Case("barrier", collective(CommType.BARRIER, 0), CONNECTED_8),
    Case("METADATA, INVALID and CPU nodes, then an all-reduce", every(nodes_without_work)),
    Case(
        "all-reduce in a group of one member, then 5 us of compute",
        every(one_member, {rank + 1: (rank,) for rank in range(8)}),
    ),
    Case(
        "all-reduce of 64 MiB over two dimensions",
        collective(ALL_REDUCE, 64 * MiB),
        RING_4_RING_2,
        system(*TWO, **SIXTEEN),
    ),
    Case(
        "the same with themis",
        collective(ALL_REDUCE, 64 * MiB),
        RING_4_RING_2,
        system(*TWO, **SIXTEEN, inter_dimension_scheduling="themis"),
    ),
)


SIZES = tuple(
    odd(Case(f"{name} all-reduce", collective(ALL_REDUCE, MiB), system=system(name)), ranks)
    for name in ("halvingDoubling", "doubleBinaryTree")
    for ranks in (6, 8, 9)
)


def finish(case: Case, semantics: str) -> str:
    """Least and greatest finish time in ns, or that it is refused."""
    try:
        result = simulate(
            workload=case.workload.workload(),
            system=case.system,
            network=case.network,
            comm_groups=case.workload.comm_groups or None,
            backend=case.backend,
            semantics=semantics,
        )
    except InputError:
        return "refused"
    # Idle ranks end after a moment.
    times = [t for t in result.finish_ns.tolist() if t > 1] or [1]
    least, most = min(times), max(times)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def lines() -> list[str]:
    """The tables as docs/semantics.md has them."""
    text = ["| quirk | effect | in `astra-sim` |", "|---|---|---|"]
    for quirk, effect in QUIRKS.items():
        has = "yes" if quirk in Semantics.of("astra-sim") else "no"
        text.append(f"| `{quirk}` | {effect} | {has} |")
    text += ["", "| work | quirk | corrected [ns] | with the quirk [ns] |", "|---|---|---|---|"]
    for case in CHANGES:
        plain, changed = finish(case, "corrected"), finish(case, f"corrected,+{case.quirk}")
        text.append(f"| {case.title} | `{case.quirk}` | {plain} | {changed} |")
    text.append("")
    for cases in (BOTH, SIZES):
        text += ["| work | astra-sim [ns] | corrected [ns] |", "|---|---|---|"]
        for case in cases:
            ours, corrected = finish(case, "astra-sim"), finish(case, "corrected")
            text.append(f"| {case.title} | {ours} | {corrected} |")
        text.append("")
    return text


if __name__ == "__main__":
    print("\n".join(lines()))
