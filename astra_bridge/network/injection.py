# SPDX-License-Identifier: MIT
"""What the links out of a rank could carry towards others: no collective is faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.topology import links_per_endpoint

__all__ = ["of_dims", "of_links"]


def of_dims(
    kinds: Sequence[str], sizes: Sequence[int], rates_Bps: Sequence[float], ranks: NDArray[Any]
) -> float:
    """The links of a rank in all dimensions in which ranks differ [B/s].

    Examples
    --------
    >>> of_dims(["Ring", "Switch"], [4, 2], [50.0, 20.0], np.array([0, 1, 2, 3]))
    100.0
    >>> of_dims(["Ring", "Switch"], [4, 2], [50.0, 20.0], np.array([0, 4]))
    20.0
    """
    total, stride = 0.0, 1
    for kind, size, rate in zip(kinds, sizes, rates_Bps, strict=True):
        if len(np.unique(ranks // stride % size)) > 1:
            # Of a switch, one link comes from it.
            total += rate * (1 if kind == "Switch" else links_per_endpoint(kind, size))
        stride *= size
    return total


def of_links(links: NDArray[Any], tier: NDArray[Any], endpoints: int, ranks: NDArray[Any]) -> float:
    """The links of a rank of the kind that joins all of these ranks, and has most [B/s].

    Examples
    --------
    >>> from astra_bridge.network.api import LINK
    >>> ways = [(0, 2, 50e9), (1, 2, 50e9), (2, 0, 50e9), (2, 1, 50e9)]
    >>> links = np.array([(*way, 0, 0.0) for way in ways], LINK)
    >>> of_links(links, np.array([0, 0, 1, 1]), 2, np.array([0, 1]))
    50000000000.0
    """
    src, dst = links["src"].astype(np.int64), links["dst"].astype(np.int64)
    nodes = int(max(src.max(), dst.max(), endpoints - 1)) + 1
    # Switches that are joined without a rank between them.
    inner = np.flatnonzero((src >= endpoints) & (dst >= endpoints))
    part = np.arange(nodes)
    while True:
        low = np.minimum(part[src[inner]], part[dst[inner]])
        new = part.copy()
        np.minimum.at(new, src[inner], low)
        np.minimum.at(new, dst[inner], low)
        if (new == part).all():
            break
        part = new
    best = 0.0
    for one in np.unique(tier[src < endpoints]).tolist():
        out = np.flatnonzero((tier == one) & np.isin(src, ranks))
        own = out[src[out] == ranks[0]]
        pairs = np.unique(np.stack([part[dst[out]], src[out]]), axis=1)
        _, members = np.unique(pairs[0][pairs[0] >= endpoints], return_counts=True)
        direct = np.isin(ranks[1:], dst[own]).all()
        if direct or (members == len(ranks)).any():
            best = max(best, float(links["bytes_per_second"][own].sum()))
    return best
