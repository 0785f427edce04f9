# SPDX-License-Identifier: MIT
"""Several backends on one clock, each for the dimensions or links that are its own."""

from astra_bridge.network.composite.backend import BACKENDS

__all__ = ["BACKENDS"]
