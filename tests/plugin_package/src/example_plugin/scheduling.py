# SPDX-License-Identifier: MIT
"""A queue policy and an order of dimensions."""

from astra_bridge.lowering.orders import DimensionOrder, OrderRequest
from astra_bridge.lowering.policies import Queued, QueuePolicy


def smallness(collective: Queued) -> float:
    return -float(collective.size_bytes)


def last_first(request: OrderRequest) -> list[list[int]]:
    return [list(reversed(range(len(request.sizes)))) for _ in request.chunk_bytes]


SMALLEST_FIRST = QueuePolicy(
    "smallest-first", "Of the waiting collectives, the smallest.", priority=smallness
)
LAST_FIRST = DimensionOrder("last-first", "The last dimension first.", last_first)
