# SPDX-License-Identifier: MIT
"""Flows that share links max-min fairly; docs/flow.md has the model."""

from astra_bridge.network.flow.backend import BACKENDS

__all__ = ["BACKENDS"]
