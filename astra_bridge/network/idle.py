# SPDX-License-Identifier: MIT
"""How long a single message takes in a network where nothing else goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.network.api import (
    DELIVERED,
    PLACES_PER_TRANSFER,
    TIME_NEVER,
    TRANSFER,
    Network,
    NetworkConfig,
)
from astra_bridge.network.spec import Prepared

__all__ = ["IdleNetworks"]


class IdleNetworks:
    """Asks a backend; each answer is remembered, and each network opened once.

    Parameters
    ----------
    prepared : Prepared
        The network.
    open_network
        What makes a simulation of it.

    Raises
    ------
    InputError
        The links of this network cannot be changed kind by kind.

    Examples
    --------
    >>> from astra_bridge.network.registry import backend
    >>> from astra_bridge.network.spec import NetworkRequest
    >>> ring = {"topology": ["Ring"], "npus_count": [4], "bandwidth": [1.0], "latency": [500.0]}
    >>> spec = backend("analytical-unaware-python")
    >>> with IdleNetworks(spec.prepare(NetworkRequest(ring)), spec.open) as idle:
    ...     idle.tiers, [idle.time_ps(0, 1, 2**20, {"dim0": factor}, {}) for factor in (1, 2)]
    (('dim0',), [977062000, 488781000])
    """

    def __init__(
        self, prepared: Prepared, open_network: Callable[[NetworkConfig], Network]
    ) -> None:
        self._prepared, self._open = prepared, open_network
        self.tiers = prepared.link_kinds
        if not self.tiers:
            raise InputError(
                "the links of this network cannot be made faster kind by kind", key="network"
            )
        self._stack = ExitStack()
        self._networks: dict[object, tuple[Network, list[int]]] = {}
        self._known: dict[object, int] = {}

    def ways(self, src: NDArray[Any], dst: NDArray[Any]) -> NDArray[Any]:
        """As `Prepared.ways`."""
        return self._prepared.ways(src, dst)

    def time_ps(
        self,
        src: int,
        dst: int,
        size: int,
        faster: Mapping[str, float],
        sooner: Mapping[str, float],
    ) -> int:
        """With bandwidths times, and latencies divided by, a factor per kind of links [ps]."""
        which = tuple(sorted(faster.items())), tuple(sorted(sooner.items()))
        key = src, dst, size, which
        if key not in self._known:
            self._known[key] = self._ask(which, src, dst, size, faster, sooner)
        return self._known[key]

    def _ask(
        self,
        which: object,
        src: int,
        dst: int,
        size: int,
        faster: Mapping[str, float],
        sooner: Mapping[str, float],
    ) -> int:
        if which not in self._networks:
            config = self._prepared.changed(faster, sooner)
            self._networks[which] = self._stack.enter_context(self._open(config)), [0, 0]
        network, state = self._networks[which]
        number, now_ps = state
        resolution = network.info.resolution_ps
        now_ps = -(-now_ps // resolution) * resolution
        network.submit(np.array([(number, now_ps, size, src, dst, 0, 0, 0)], TRANSFER))
        while True:
            reached = network.advance(TIME_NEVER, 0)
            done = network.poll()
            ended = done[done["kind"] == DELIVERED]
            if len(ended):
                break
            now_ps = max(now_ps, reached.now_ps)
        end_ps = int(ended["time_ps"][0])
        state[:] = number + PLACES_PER_TRANSFER, max(end_ps, reached.now_ps)
        return end_ps - now_ps

    def close(self) -> None:
        """End all simulations."""
        self._stack.close()

    def __enter__(self) -> IdleNetworks:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
