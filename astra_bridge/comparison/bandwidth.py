# SPDX-License-Identifier: MIT
"""Bandwidth of an experiment that is one collective, as nccl-tests print it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from astra_bridge.collectives.bus_bandwidth import bus_factor
from astra_bridge.inputs.groups import GroupKey, group_key
from astra_bridge.trace import CommType, NodeType, Workload

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OneCollective", "one_collective"]


class OneCollective(NamedTuple):
    """A collective that is all that an experiment communicates.

    Attributes
    ----------
    kind : CommType
    ranks : int
        Members of it.
    size_bytes : int
        As nccl-tests count it: the buffer of a rank, the larger one of the two.
    """

    kind: CommType
    ranks: int
    size_bytes: int

    def bandwidth_GBps(self, duration_ps: float) -> tuple[float, float]:
        """Algorithm and bus bandwidth [10**9 bytes per second] of one that takes so long.

        Examples
        --------
        >>> OneCollective(CommType.ALL_REDUCE, 8, 10**6).bandwidth_GBps(10**7)
        (100.0, 175.0)
        """
        algorithm = self.size_bytes * 1e3 / duration_ps
        return algorithm, algorithm * (bus_factor(self.kind, self.ranks) or 0.0)


def one_collective(
    traces: Workload, groups: Mapping[GroupKey, tuple[int, ...]]
) -> OneCollective | None:
    """The one collective that the traces of a job do, be it several times; else None."""
    everyone = len(traces.rank_to_columns)
    found: set[tuple[int, int, int]] = set()
    for columns in traces.columns:
        if ((columns.type == NodeType.COMM_SEND) | (columns.type == NodeType.COMM_RECV)).any():
            return None
        for at in (columns.type == NodeType.COMM_COLL).nonzero()[0].tolist():
            group = int(columns.pg_name[at])
            name = columns.strings[group] if group >= 0 else ""
            declared = (g.size or len(g.ranks) for g in columns.process_groups if g.name == name)
            known = groups.get(group_key(name))
            size = next(declared, 0) or (everyone if known is None else len(known))
            found.add((int(columns.comm_type[at]), int(columns.comm_size[at]), size))
            if len({one[:2] for one in found}) > 1:
                return None
    if not found:
        return None
    sizes = {size for _, _, size in found}
    number, size_bytes, _ = min(found)
    kind, ranks = CommType(number), min(sizes)
    if len(sizes) > 1 or ranks < 2 or size_bytes < 1 or bus_factor(kind, ranks) is None:
        return None
    # Chakra gives what a rank contributes to an all-gather.
    return OneCollective(kind, ranks, size_bytes * (ranks if kind is CommType.ALL_GATHER else 1))
