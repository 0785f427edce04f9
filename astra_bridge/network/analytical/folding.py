# SPDX-License-Identifier: MIT
"""In which ways the ranks of a network of dimensions are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.network.analytical.topologies import Dimensions
from astra_bridge.network.api import NetworkConfig
from astra_bridge.network.spec import Symmetry
from astra_bridge.program.folding import NotFolded, Turn

__all__ = ["symmetry_of"]


def symmetry_of(config: NetworkConfig) -> Symmetry:
    """All dimensions may be turned; the ranks of a Switch, or a FullyConnected one, change places.

    A transfer crosses dimensions in ascending order, a ring the shorter way round, clockwise where
    both are equally long: all of which a turn leaves as it is.

    Raises
    ------
    NotFolded
        The network is a list of links, or has loads over time.

    Examples
    --------
    >>> ring = {"topology": "Ring", "npus_count": "4", "bandwidth": "1", "latency": "0"}
    >>> of_ring = symmetry_of(NetworkConfig(4, 4, options=ring | {"fold": "1:4"}))
    >>> of_ring.turns
    (Turn(size=4, any=False),)
    >>> link, src, dst = of_ring.turned(np.array([1]), np.array([0, 1]))
    >>> link.tolist(), src.tolist(), dst.tolist()
    ([[1, 3]], [[0, 1]], [[3, 0]])
    """
    if "topology" not in config.options:
        raise NotFolded("which ranks of a list of links are alike is not known")
    if config.options.get("sample_interval_us"):
        raise NotFolded("loads over time are kept of every link (sample_interval_us)")
    network = Dimensions(config.options, config.endpoints, first_only=False)

    def turned(
        links: NDArray[Any], by: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        shape = (len(links), len(by))
        number, src, dst = (np.zeros(shape, np.int64) for _ in range(3))
        firsts = [one.first_link for one in network.dimensions]
        dimension = np.searchsorted(firsts, links, "right") - 1
        for d in range(len(network.dimensions)):
            rows = np.flatnonzero(dimension == d)
            if len(rows):
                number[rows], src[rows], dst[rows] = network.turned(d, links[rows], by)
        return number, src, dst

    return Symmetry(tuple(Turn(one.size, one.kind != "Ring") for one in network.dimensions), turned)
