# SPDX-License-Identifier: MIT
"""The backend: what users give becomes what the native library takes."""

from __future__ import annotations

from astra_bridge.errors import InputError
from astra_bridge.network.analytical.backend import OF_LINKS, symmetry, topology_options
from astra_bridge.network.native import library_path, not_built, open_own
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.text import nearest

__all__ = ["BACKENDS", "prepare"]

_OPTIONS = (
    *("mtu_bytes", "header_bytes", "queue_pairs", "start_up_round_trips", "tolerance"),
    "sample_interval_us",
    *OF_LINKS,
)


def prepare(request: NetworkRequest) -> Prepared:
    """Turn a network input, dimensions or links, into what ``create`` takes.

    Raises
    ------
    InputError
        The network input, or an option, is not understood.
    """
    for key in request.options:
        if key not in _OPTIONS:
            raise InputError(
                f"unknown option {key!r}; flow has: {', '.join(_OPTIONS)}{nearest(key, _OPTIONS)}",
                key="--network-option",
            )
    return topology_options(request.network, dict(request.options))


BACKENDS = (
    BackendSpec(
        "flow",
        "Flows share links max-min fairly; routes, headers and latencies as packets have them.",
        prepare,
        lambda config: open_own("flow", config),
        unavailable=lambda: not_built("flow"),
        isolate=False,
        symmetry=symmetry,
        library=lambda: library_path("flow"),
    ),
)
