# SPDX-License-Identifier: MIT
"""Statistics per rank, as ASTRA-sim defines them, for all ranks at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from astra_bridge.compute import COMPUTE_MODELS
from astra_bridge.records import replace
from astra_bridge.semantics import Semantics
from astra_bridge.trace import MISSING, NodeType

if TYPE_CHECKING:
    from astra_bridge.inputs.system import SystemConfig
    from astra_bridge.results.times import RankTimes

__all__ = ["CATEGORIES", "RankStatistics", "Roofline", "categories", "rank_statistics"]

CATEGORIES = ("CPU", "GPU", "Comm", "Remote mem", "Invalid")
"""Kinds of node time, under the names that ASTRA-sim prints."""

_CPU, _GPU, _COMM, _REMOTE, _INVALID = range(5)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Roofline(msgspec.Struct, frozen=True, eq=False):
    """Averages over a rank's compute nodes, weighted by time; float64 arrays of shape (ranks,).

    ASTRA-sim adds 1 ns to the total time that it divides by; so does this.
    """

    compute_bound: Floats
    compute_utilization: Floats
    memory_utilization: Floats
    operation_intensity: Floats


class RankStatistics(msgspec.Struct, frozen=True, eq=False):
    """Statistics per rank.

    Attributes
    ----------
    wall_ns : ndarray of int64, shape (ranks,)
        End of the last node.
    time_ns : ndarray of int64, shape (ranks, 5)
        Time in which at least one node of a category (:data:`CATEGORIES`) ran.
    has : ndarray of bool, shape (ranks, 5)
        Whether the rank has nodes of the category.
    overlap_ns : ndarray of int64, shape (ranks,)
        Time in which GPU compute and communication ran at once.  With semantics "astra-sim", and
        where the rank has no other nodes, ASTRA-sim's GPU + Comm - wall, which counts idle gaps
        against the overlap; never less than 0 (ASTRA-sim prints 2**64 less something then).
    roofline : Roofline or None
        Where compute nodes were timed by the roofline.
    """

    wall_ns: Ints
    time_ns: Ints
    has: npt.NDArray[np.bool_]
    overlap_ns: Ints
    roofline: Roofline | None = None

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as columns of shape (ranks,), named with their units."""
        result: dict[str, npt.NDArray[Any]] = {"wall_ns": self.wall_ns}
        for index, name in enumerate(CATEGORIES):
            result[f"{name.lower().replace(' ', '_')}_ns"] = self.time_ns[:, index]
        result["compute_comm_overlap_ns"] = self.overlap_ns
        if self.roofline is not None:
            result["compute_bound"] = self.roofline.compute_bound
            result["compute_utilization"] = self.roofline.compute_utilization
            result["memory_utilization"] = self.roofline.memory_utilization
            result["operation_intensity_ops_per_byte"] = self.roofline.operation_intensity
        return result


def categories(
    types: npt.NDArray[np.int32], is_cpu_op: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int8]:
    """Index into :data:`CATEGORIES` of each node.

    METADATA counts as Invalid: ASTRA-sim aborts on it.
    """
    table = np.full(8, _INVALID, np.int8)
    table[[NodeType.MEM_LOAD, NodeType.MEM_STORE]] = _REMOTE
    table[[NodeType.COMM_SEND, NodeType.COMM_RECV, NodeType.COMM_COLL]] = _COMM
    table[NodeType.COMP] = _GPU
    result = table[np.where((types >= 0) & (types < 8), types, NodeType.INVALID)]
    result[(types == NodeType.COMP) & is_cpu_op] = _CPU
    return result


def _union_length(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Length of the union of the intervals of each group, shape (groups,); exact."""
    if not len(end):
        return np.zeros(groups, np.int64)
    order = np.lexsort((start, group))
    group, start, end = group[order], start[order], end[order]
    # Latest end before each interval, restarting with each group: ends of later groups are lifted
    # above all ends of earlier ones.  Where that would overflow, the places of the ends in their
    # sorted order stand in for them.
    times, lifted = None, end
    if groups * (int(end.max()) + 1) >= 2**63:
        times, lifted = np.unique(end, return_inverse=True)
    width = int(lifted.max()) + 1
    reached = np.maximum.accumulate(lifted + group * width)
    before = np.concatenate([start[:1], reached[:-1] % width])
    if times is not None:
        before[1:] = times[before[1:]]
    first = np.concatenate([[True], group[1:] != group[:-1]])
    begin = np.where(first, start, np.maximum(start, before))
    lengths = np.zeros(groups, np.int64)
    np.add.at(lengths, group, np.maximum(end - begin, 0))
    return lengths


_MOST_NODES_AT_ONCE = 200_000
"""Ranks are taken in parts of about so many nodes: time stays the same, memory stays small."""


def rank_statistics(result: RankTimes) -> RankStatistics:
    """Compute the statistics of all ranks; only the wall time where nodes were not recorded."""
    ranks, width = result.rank_count, len(CATEGORIES)
    kinds = result.recorded.kind_of_row
    if kinds is not None:
        return _unfolded(rank_statistics(_kinds(result)), kinds)
    if not result.has_nodes:
        none = np.zeros((ranks, width), np.int64)
        return RankStatistics(result.finish_ns, none, none > 0, none[:, 0])
    parts = []
    first = 0
    while first < ranks:
        most = result.node_offset[first] + _MOST_NODES_AT_ONCE
        last = int(np.searchsorted(result.node_offset, most, side="right")) - 1
        last = min(max(last, first + 1), ranks)
        parts.append(_of_ranks(result, first, last))
        first = last
    rooflines = [part.roofline for part in parts if part.roofline is not None]
    return RankStatistics(
        wall_ns=np.concatenate([part.wall_ns for part in parts]),
        time_ns=np.concatenate([part.time_ns for part in parts]),
        has=np.concatenate([part.has for part in parts]),
        overlap_ns=np.concatenate([part.overlap_ns for part in parts]),
        roofline=None
        if not rooflines
        else Roofline(
            *(
                np.concatenate([getattr(one, name) for one in rooflines])
                for name in Roofline.__struct_fields__
            )
        ),
    )


def _kinds(result: RankTimes) -> RankTimes:
    """One row of each kind."""
    rows, workload = result.recorded.row_of_kind, result.workload
    return replace(
        result,
        finish_ps=result.finish_ps[rows],
        exposed_comm_ps=result.exposed_comm_ps[rows],
        workload=replace(workload, rank_to_columns=workload.rank_to_columns[rows]),
        recorded=result.recorded.kinds,
    )


def _unfolded(one: RankStatistics, kind_of_row: npt.NDArray[np.int32]) -> RankStatistics:
    roofline = one.roofline
    if roofline is not None:
        names = Roofline.__struct_fields__
        roofline = Roofline(*(getattr(roofline, name)[kind_of_row] for name in names))
    return RankStatistics(
        one.wall_ns[kind_of_row],
        one.time_ns[kind_of_row],
        one.has[kind_of_row],
        one.overlap_ns[kind_of_row],
        roofline,
    )


def _of_ranks(result: RankTimes, first: int, last: int) -> RankStatistics:
    """The statistics of ranks first to last - 1."""
    ranks, width = last - first, len(CATEGORIES)
    nodes = slice(int(result.node_offset[first]), int(result.node_offset[last]))
    workload = result.workload
    templates = workload.rank_to_columns[first:last].tolist()

    def per_node(name: str) -> npt.NDArray[Any]:
        """A trace column for all nodes of these ranks."""
        return np.concatenate([getattr(workload.columns[index], name) for index in templates])

    counts = np.diff(result.node_offset[first : last + 1])
    rank = np.repeat(np.arange(ranks, dtype=np.int64), counts)
    kind = categories(per_node("type"), per_node("is_cpu_op")).astype(np.int64)
    ran = result.node_end_ps[nodes] >= 0
    rank, kind = rank[ran], kind[ran]
    start = result.node_start_ps[nodes][ran] // 1000
    end = result.node_end_ps[nodes][ran] // 1000

    wall = np.zeros(ranks, np.int64)
    np.maximum.at(wall, rank, end)
    time = _union_length(rank * width + kind, start, end, ranks * width).reshape(ranks, width)
    has = np.zeros((ranks, width), np.bool_)
    has[rank, kind] = True

    # |A and B| = |A| + |B| - |A or B|
    both = (kind == _GPU) | (kind == _COMM)
    joined = _union_length(rank[both], start[both], end[both], ranks)
    overlap = time[:, _GPU] + time[:, _COMM] - joined
    if "overlap-is-busy-less-wall" in Semantics.of(result.semantics):
        only = ~has[:, [_CPU, _REMOTE, _INVALID]].any(axis=1)
        theirs = np.maximum(time[:, _GPU] + time[:, _COMM] - wall, 0)
        overlap = np.where(only & has[:, _GPU] & has[:, _COMM], theirs, overlap)

    system = result.system
    roofline = None
    name = system.timed_by(result.semantics)
    if COMPUTE_MODELS.find(name, key="compute-model").roofline:
        num_ops = per_node("num_ops")[ran].astype(np.float64)
        size = per_node("tensor_size")[ran].astype(np.float64)
        duration = (end - start).astype(np.float64)
        if system.enabled("replay-only", result.semantics):
            num_ops[:] = 0  # nothing was timed by the roofline: ASTRA-sim prints zeros
        roofline = _roofline(result.system, ranks, rank, kind, duration, num_ops, size)
    return RankStatistics(wall, time, has, overlap, roofline)


def _roofline(
    system: SystemConfig,
    ranks: int,
    rank: Ints,
    kind: Ints,
    duration: Floats,
    num_ops: Floats,
    size: Floats,
) -> Roofline:
    """perf = min(bandwidth * intensity, peak): Williams et al., Roofline, CACM 52(4), 2009."""
    bandwidth = system.local_mem_bw_GBps * 1e9
    peak = system.peak_perf_TFLOPS * 1e12
    compute = (kind == _CPU) | (kind == _GPU)
    total = np.bincount(rank[compute], duration[compute], ranks) + 1.0
    timed = (kind == _GPU) & (size > 0) & (num_ops > 0) & (size != MISSING)
    rank, duration = rank[timed], duration[timed]
    intensity = num_ops[timed] / size[timed]
    performance = np.minimum(bandwidth * intensity, peak)

    def average(values: npt.NDArray[Any]) -> Floats:
        return np.asarray(np.bincount(rank, values * duration, ranks) / total)

    return Roofline(
        compute_bound=average(performance >= peak),
        compute_utilization=average(performance / peak if peak else performance),
        memory_utilization=average(
            performance / intensity / bandwidth if bandwidth else performance
        ),
        operation_intensity=average(intensity),
    )
