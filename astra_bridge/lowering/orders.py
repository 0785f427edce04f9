# SPDX-License-Identifier: MIT
"""Orders of dimensions: in which order a chunk of a collective visits them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from astra_bridge.collectives import Kind
from astra_bridge.registry import Registry, Spec

__all__ = ["DIMENSION_ORDERS", "DimensionOrder", "OrderRequest", "walk"]


class OrderRequest(msgspec.Struct, frozen=True):
    """A collective over several dimensions.

    Attributes
    ----------
    kind : Kind
    sizes : tuple of int, shape (dims,)
        Members in each dimension that takes part.
    bandwidths : tuple of float, shape (dims,)
        In any unit; all 1 where the network does not say.
    chunk_bytes : tuple of int, shape (chunks,)
    """

    kind: Kind
    sizes: tuple[int, ...]
    bandwidths: tuple[float, ...]
    chunk_bytes: tuple[int, ...]


class DimensionOrder(Spec, frozen=True, eq=False):
    """How the order of dimensions is chosen.

    Attributes
    ----------
    order
        Gives for each chunk a permutation of range(dims): the dimensions in the order in which the
        chunk is reduced or exchanged; :func:`walk` makes phases of it.  None is ASTRA-sim's order,
        the same for all chunks.
    bandwidth
        Whether it makes use of ``OrderRequest.bandwidths``.
    """

    order: Callable[[OrderRequest], Sequence[Sequence[int]]] | None
    bandwidth: bool = False


def walk(kind: Kind, order: Sequence[int]) -> list[tuple[Kind, int]]:
    """Phases of a chunk: what each does, and in which dimension.

    An all-gather visits them the other way round, an all-reduce is a reduce-scatter there and an
    all-gather back.
    """
    if kind == Kind.ALL_GATHER:
        return [(kind, dim) for dim in reversed(order)]
    if kind == Kind.ALL_REDUCE:
        there = [(Kind.REDUCE_SCATTER, dim) for dim in order]
        return there + [(Kind.ALL_GATHER, dim) for dim in reversed(order)]
    return [(kind, dim) for dim in order]


def _themis(request: OrderRequest) -> list[list[int]]:
    """Each chunk visits the least loaded dimension first.

    Rashidi et al., "Themis: a network bandwidth-aware collective scheduling policy for
    distributed training of DL models", ISCA 2022, algorithm 1.
    """
    load = [0.0] * len(request.sizes)
    orders = []
    for chunk in request.chunk_bytes:
        ascending = sorted(range(len(load)), key=load.__getitem__)
        data = float(chunk)
        for kind, dim in walk(request.kind, ascending):
            size = request.sizes[dim]
            if kind == Kind.ALL_GATHER:
                moved, data = data * (size - 1), data * size
            else:
                moved = data * (size - 1) / size
                data = data / size if kind == Kind.REDUCE_SCATTER else data
            load[dim] += moved / request.bandwidths[dim]
        orders.append(ascending)
    return orders


DIMENSION_ORDERS = Registry(
    "order of dimensions",
    "astra_bridge.dimension_orders",
    DimensionOrder,
    dict.fromkeys(("baseline", "themis"), "astra_bridge.lowering.orders:BUILT_IN"),
)

BUILT_IN = (
    DimensionOrder("baseline", "Dimension 0 first, the same for all chunks.", None),
    DimensionOrder(
        "themis", "Each chunk goes to the least loaded dimension first.", _themis, bandwidth=True
    ),
)
