# SPDX-License-Identifier: MIT
"""What models decide about collectives: the order of dimensions, and who goes first in a queue."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from astra_bridge.collectives import Kind
from astra_bridge.errors import PluginError
from astra_bridge.lowering.orders import DimensionOrder, OrderRequest, walk
from astra_bridge.lowering.phases import PhaseSpec
from astra_bridge.lowering.policies import QueuePolicy
from astra_bridge.program import COLLECTIVE, QueuePick
from astra_bridge.text import show

__all__ = ["ordered", "prioritised"]

_PICKS = {Kind.REDUCE_SCATTER: QueuePick.FIRST, Kind.ALL_GATHER: QueuePick.LAST}
_PRIORITY = list(COLLECTIVE.names or ()).index("priority")


def ordered(
    chosen: DimensionOrder, kind: Kind, specs: Sequence[PhaseSpec], chunks: Sequence[int]
) -> list[Sequence[PhaseSpec]]:
    """The phases of each chunk, in the order of dimensions that the configuration names.

    Parameters
    ----------
    chosen : DimensionOrder
    kind : Kind
    specs : sequence of PhaseSpec
        In ASTRA-sim's order.
    chunks : sequence of int
        Bytes of each.

    Raises
    ------
    PluginError
        The model gives no order of these dimensions for each chunk.
    """
    if chosen.order is None or len(specs) < 2:
        return [specs] * len(chunks)
    dimensions = list(dict.fromkeys(spec.dimension for spec in specs))
    orders = chosen.order(
        OrderRequest(
            kind,
            tuple(dimension.size for dimension in dimensions),
            tuple(dimension.bandwidth for dimension in dimensions),
            tuple(chunks),
        )
    )
    wrong = next((o for o in orders if sorted(o) != list(range(len(dimensions)))), None)
    if wrong is not None or len(orders) != len(chunks):
        what = f"{len(orders)} orders" if wrong is None else f"the order {show(wrong)}"
        raise PluginError(
            f"order of dimensions {chosen.name!r}: gives {what} for {len(chunks)} chunks and "
            f"{len(dimensions)} dimensions; allowed: for each chunk, each dimension once"
        )
    picks = _PICKS if kind == Kind.ALL_REDUCE else {}
    return [
        [
            PhaseSpec(what, dimensions[at], picks.get(what, QueuePick.NEXT))
            for what, at in walk(kind, order)
        ]
        for order in orders
    ]


def prioritised(policy: QueuePolicy, collectives: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of COLLECTIVE; priorities that a plug-in gives, any numbers, become 0, 1, ...

    Raises
    ------
    PluginError
        A priority is no number.
    """
    if policy.priority is None:
        return collectives
    given = [row[_PRIORITY] for row in collectives]
    wrong = next((p for p in given if not isinstance(p, Real) or p != p), None)
    if wrong is not None:
        raise PluginError(
            f"queue policy {policy.name!r}: gives the priority {show(wrong)}; allowed: a number"
        )
    place = {priority: at for at, priority in enumerate(sorted(set(given)))}
    return [(*row[:_PRIORITY], place[row[_PRIORITY]], *row[_PRIORITY + 1 :]) for row in collectives]
