# SPDX-License-Identifier: MIT
"""ns-3: RDMA networks packet by packet.

The models are in ``backends/ns3``, compiled on first use; docs/ns3.md.
"""

from astra_bridge.network.ns3.backend import BACKENDS

__all__ = ["BACKENDS"]
