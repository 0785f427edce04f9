# SPDX-License-Identifier: MIT
"""gem5's own Garnet, from the gem5 that the user has built; docs/gem5.md."""

from astra_bridge.network.gem5.backend import BACKENDS

__all__ = ["BACKENDS"]
