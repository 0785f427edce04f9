# SPDX-License-Identifier: MIT
"""Analytical networks: how long a transfer takes, from bandwidths and latencies alone.

Two models (congestion-unaware, congestion-aware), each in pure Python and as a native twin with
the same results; docs/networks.md has the formulas.
"""

from astra_bridge.network.analytical.backend import BACKENDS

__all__ = ["BACKENDS"]
