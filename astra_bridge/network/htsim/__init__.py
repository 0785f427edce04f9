# SPDX-License-Identifier: MIT
"""htsim (github.com/Broadcom/csg-htsim): transports of data centres, packet by packet.

The adapter is in ``backends/htsim``, compiled on first use against a checkout; docs/htsim.md.
"""

from astra_bridge.network.htsim.backend import BACKENDS

__all__ = ["BACKENDS"]
