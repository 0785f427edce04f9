# SPDX-License-Identifier: MIT
"""All registries: everything that is chosen by name, and that a package can add to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astra_bridge.collectives import ALGORITHMS
from astra_bridge.network.registry import BACKENDS
from astra_bridge.registry import Registry

__all__ = ["REGISTRIES"]

REGISTRIES: Mapping[str, Registry[Any]] = {
    "Network backends": BACKENDS,
    "Collective algorithms": ALGORITHMS,
}
"""Title -> registry."""
