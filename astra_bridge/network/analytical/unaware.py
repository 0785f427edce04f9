# SPDX-License-Identifier: MIT
"""Congestion-unaware: every transfer has the network for itself."""

from __future__ import annotations

from typing import Any

from astra_bridge.network.analytical.network import (
    ARRIVAL,
    AnalyticalNetwork,
    serialisation_ns,
    whole_ns,
)
from astra_bridge.network.api import Capability, NetworkConfig, NetworkInfo

__all__ = ["UnawareNetwork"]


class UnawareNetwork(AnalyticalNetwork):
    """A transfer takes floor(latency of the way + bytes / bandwidth) ns.

    The model of ASTRA-sim's analytical network without congestion (Won et al., "ASTRA-sim2.0",
    ISPASS 2023, section IV-C): the message is cut through, so it is serialised once, and
    transfers never slow one another.
    """

    info = NetworkInfo(
        "analytical-unaware-python",
        "1.0",
        Capability.MULTI_INSTANCE
        | Capability.PARALLEL
        | Capability.INTERRUPT
        | Capability.SNAPSHOT
        | Capability.ORDERED
        | Capability.SAVE
        | Capability.PEEK,
        resolution_ps=1000,
    )

    DERIVED = AnalyticalNetwork.DERIVED | {"_costs"}

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self._costs: dict[tuple[int, int, int], tuple[float, float, bool]] = {}
        self._shortened = 0  # transfers that pay for one dimension of several

    def _start(self, transfer_id: int, size: int, src: int, dst: int, now_ps: int) -> None:
        label = transfer_id if self._routes.by_message else 0
        cost = self._costs.get((src, dst, label))
        if cost is None:
            if len(self._costs) >= 1 << 16:
                self._costs.clear()
            cost = self._costs[src, dst, label] = (
                *self._routes.cost(src, dst, label),
                self._routes.shortened(src, dst),
            )
        latency_ns, bytes_per_ns, shortened = cost
        self._shortened += shortened
        delay_ns = whole_ns(latency_ns + serialisation_ns(size, bytes_per_ns), ARRIVAL)
        self._schedule(now_ps, delay_ns, "", transfer_id)

    def stats(self) -> dict[str, Any]:
        quirks = {"first-dimension-only": self._shortened}
        return super().stats() | ({"quirks": quirks} if self._shortened else {})
