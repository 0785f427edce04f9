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
        | Capability.PEEK
        | Capability.REDUCTION
        | Capability.PIECES,
        resolution_ps=1000,
    )

    DERIVED = AnalyticalNetwork.DERIVED | {"_costs"}

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self._costs: dict[tuple[int, int, int], tuple[float, float, bool]] = {}
        self._shortened = 0  # transfers that pay for one dimension of several
        # Number -> id and delay of the members that have started.
        self._reductions: dict[int, list[tuple[int, int]]] = {}

    def _start(self, transfer_id: int, size: int, src: int, dst: int, now_ps: int) -> None:
        self._schedule(now_ps, self._delay_ns(transfer_id, size, src, dst), "", transfer_id)

    def _reduce(
        self, transfer_id: int, size: int, src: int, dst: int, now_ps: int, members: int, which: int
    ) -> None:
        """The switches begin when the last member has, and all get the result then.

        Data goes up and comes down at the same time, so it takes as long as one transfer.
        """
        parts = self._reductions.setdefault(which, [])
        parts.append((transfer_id, self._delay_ns(transfer_id, size, src, dst)))
        if len(parts) < members:
            return
        place = self._place
        for part, delay_ns in parts:
            self._place = place
            self._schedule(now_ps, delay_ns, "", part)
        del self._reductions[which]

    def _delay_ns(self, transfer_id: int, size: int, src: int, dst: int) -> int:
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
        return whole_ns(latency_ns + serialisation_ns(size, bytes_per_ns), ARRIVAL)

    def stats(self) -> dict[str, Any]:
        quirks = {"first-dimension-only": self._shortened}
        return super().stats() | ({"quirks": quirks} if self._shortened else {})
