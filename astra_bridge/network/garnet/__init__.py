# SPDX-License-Identifier: MIT
"""Garnet: networks on chips, packages and boards, cycle by cycle.

A from-scratch implementation of the router of gem5's Garnet 3.0; docs/garnet.md.
"""

from astra_bridge.network.garnet.backend import BACKENDS

__all__ = ["BACKENDS"]
