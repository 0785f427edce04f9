# SPDX-License-Identifier: MIT
"""Bandwidth of a collective as nccl-tests print it, by their doc/PERFORMANCE.md.

The algorithm bandwidth is the size over the time; the bus bandwidth is that times a factor, such
that it can be compared with the bandwidth of the hardware, whatever the number of ranks.
"""

from __future__ import annotations

from astra_bridge.trace import CommType

__all__ = ["bus_factor"]


def bus_factor(kind: CommType, ranks: int) -> float | None:
    """Bus bandwidth over algorithm bandwidth; None for what nccl-tests do not measure.

    Examples
    --------
    >>> bus_factor(CommType.ALL_REDUCE, 8), bus_factor(CommType.BROADCAST, 8)
    (1.75, 1.0)
    """
    share = (ranks - 1) / ranks
    factors = {
        CommType.ALL_REDUCE: 2 * share,
        CommType.ALL_GATHER: share,
        CommType.REDUCE_SCATTER: share,
        CommType.REDUCE_SCATTER_BLOCK: share,
        CommType.ALL_TO_ALL: share,
        CommType.BROADCAST: 1.0,
        CommType.REDUCE: 1.0,
    }
    return factors.get(kind)
