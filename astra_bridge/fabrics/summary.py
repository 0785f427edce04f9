# SPDX-License-Identifier: MIT
"""What a network of links consists of, in a few numbers."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.fabrics.build import named
from astra_bridge.inputs.network import LinkColumns, NetworkLinks

__all__ = ["Cables", "cables_of", "one_way", "tiers_of"]


class Cables(NamedTuple):
    """Cables that are alike: tiers that they join, bandwidth, latency, and how many there are."""

    lower: str
    upper: str
    gbps: float
    ns: float
    number: int

    def __str__(self) -> str:
        return f"{self.number} x {self.gbps:g} Gbps, {self.ns:g} ns"


def tiers_of(network: NetworkLinks) -> dict[str, int]:
    """Tier -> nodes, in the order of ids.

    Examples
    --------
    >>> from astra_bridge.fabrics import hgx
    >>> tiers_of(hgx(16))
    {'gpu': 16, 'nvlink': 8, 'leaf': 1}
    """
    found = Counter[str]()
    for one in named(network):
        found[one.tier] += one.count
    return dict(found)


def one_way(network: NetworkLinks) -> NDArray[np.bool_]:
    """Of each cable the link that leads to the larger id; also links that have no way back."""
    links = LinkColumns.of(network.links)
    src, dst = links.src.astype(np.int64), links.dst.astype(np.int64)
    back = np.isin(dst * network.nodes + src, src * network.nodes + dst)
    ahead: NDArray[np.bool_] = (src < dst) | ~back
    return ahead


def cables_of(network: NetworkLinks) -> list[Cables]:
    """Kinds of cables, in the order of the tiers that they join.

    Examples
    --------
    >>> from astra_bridge.fabrics import hgx
    >>> [f"{one.lower}-{one.upper}: {one}" for one in cables_of(hgx(16, nvswitches=1))]
    ['gpu-nvlink: 16 x 3600 Gbps, 25 ns', 'gpu-leaf: 16 x 400 Gbps, 500 ns']
    """
    links, ahead = LinkColumns.of(network.links), one_way(network)
    tiers = list(tiers_of(network))
    tier = np.zeros(network.nodes, np.int64)
    for one in named(network):
        tier[one.first : one.first + one.count] = tiers.index(one.tier)
    ends = np.stack([tier[links.src[ahead]], tier[links.dst[ahead]]])
    kinds = Counter(
        zip(
            ends.min(axis=0).tolist(),
            ends.max(axis=0).tolist(),
            np.round(links.bandwidth_GiBps[ahead] * (1 << 30) * 8 / 1e9, 3).tolist(),
            links.latency_ns[ahead].tolist(),
            strict=True,
        )
    )
    return [
        Cables(tiers[low], tiers[high], gbps, ns, number)
        for (low, high, gbps, ns), number in sorted(kinds.items())
    ]
