# SPDX-License-Identifier: MIT
"""The backend: what Garnet's backend reads, for gem5."""

from __future__ import annotations

from astra_bridge.network.api import Network, NetworkConfig
from astra_bridge.network.garnet.backend import prepare as prepare_garnet
from astra_bridge.network.gem5.build import GEM5
from astra_bridge.network.native import NativeNetwork
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.records import replace

__all__ = ["BACKENDS", "open_gem5", "prepare"]


def prepare(request: NetworkRequest) -> Prepared:
    """Read the networks of Garnet's backend; what gem5 has not is replaced, and said.

    Raises
    ------
    InputError
        A key, a value or an option is not understood.
    """
    prepared = prepare_garnet(request)
    options, warnings = dict(prepared.config.options), list(prepared.warnings)
    given = request.options
    if options.get("deadlock_avoidance") == "dateline" and "deadlock_avoidance" not in given:
        options["deadlock_avoidance"] = "none"
        warnings.append(
            "gem5 has no datelines: packets can wait for each other around a ring, which ends the "
            "run; backend garnet has them"
        )
    if options.get("routing") == "ecmp" and "routing" not in given:
        options["routing"] = "static"
        warnings.append(
            "gem5 routes by destination alone: routing static instead of ecmp (of these it has "
            "static and spray)"
        )
    return replace(
        prepared, config=replace(prepared.config, options=options), warnings=tuple(warnings)
    )


def open_gem5(config: NetworkConfig) -> Network:
    """Open a simulation; gem5 allows one at a time in a process."""
    return NativeNetwork.open(GEM5.library(), config, trusted=True)


BACKENDS = (
    BackendSpec(
        "gem5",
        "gem5's own Garnet, from the gem5 that you have built.",
        prepare,
        open_gem5,
        unavailable=GEM5.unavailable,
        note=GEM5.note,
        make_ready=GEM5.library,
        library=GEM5.library,
        version=GEM5.version,
    ),
)
