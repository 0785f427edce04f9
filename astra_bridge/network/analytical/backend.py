# SPDX-License-Identifier: MIT
"""The four backends: two models, each in Python and as a native twin."""

from __future__ import annotations

import math
from collections.abc import Mapping

from astra_bridge.errors import InputError
from astra_bridge.inputs.network import ROUTINGS, NetworkDims, read_network
from astra_bridge.network.api import LINK, Network, NetworkConfig
from astra_bridge.network.native import NativeNetwork, library_path
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared, Symmetry, Ways
from astra_bridge.records import replace
from astra_bridge.semantics import Semantics
from astra_bridge.text import nearest
from astra_bridge.topology import Ends, links_of_dims, topology_of

__all__ = ["BACKENDS", "OF_LINKS", "prepare", "symmetry", "topology_options"]

OF_LINKS = {"routing": ROUTINGS, "endpoints_forward": ("true", "false")}
"""Options that networks of links have, and those of dimensions have not."""
_QUIRKS = ("store-and-forward", "first-dimension-only")
_OPTIONS = {
    "semantics": ("astra-sim", "corrected"),
    **dict.fromkeys(_QUIRKS, ("true", "false")),
    **OF_LINKS,
}


def prepare(request: NetworkRequest) -> Prepared:
    """Turn a network input into what ``create`` takes.

    Dimensions travel as options, so that nobody has to list the n (n - 1) links of a
    FullyConnected one; ``repr`` keeps every bit of a double.

    Raises
    ------
    InputError
        The network input, or an option, is not understood.
    """
    prepared = _prepare(request, _OPTIONS)
    # Switches reduce, as those of NVLink and SHARP do.
    kinds = prepared.config.options.get("topology", "")
    return replace(prepared, reduces=tuple(kind == "Switch" for kind in kinds.split(",") if kind))


def _prepare_aware(request: NetworkRequest) -> Prepared:
    return _prepare(request, {**_OPTIONS, "sample_interval_us": ()})


def _prepare(request: NetworkRequest, known: Mapping[str, tuple[str, ...]]) -> Prepared:
    """As `prepare`, with the options of a model; those without allowed words it reads itself."""
    options = dict(request.options)
    for key, value in options.items():
        if key not in known:
            raise InputError(
                f"unknown option {key!r}; this analytical network has: {', '.join(known)}"
                f"{nearest(key, known)}",
                key="--network-option",
            )
        if known[key] and value not in known[key]:
            raise InputError(f"{value!r} is not allowed; allowed: {', '.join(known[key])}", key=key)
    semantics = Semantics.of(options.get("semantics", request.semantics))
    for quirk in _QUIRKS:
        options.setdefault(quirk, "true" if quirk in semantics else "false")
    return topology_options(request.network, options)


def topology_options(source: object, options: dict[str, str]) -> Prepared:
    """Read a network, and add what says so to the options; flow networks take the same."""
    network = read_network(source)  # type: ignore[arg-type]
    if isinstance(network, NetworkDims):
        for key in OF_LINKS:
            if key in options:
                raise InputError(
                    "is for networks of links; dimensions have one way between two ranks", key=key
                )
        endpoints = math.prod(network.npus_count)
        hubs = sum(
            endpoints // size
            for kind, size in zip(network.topology, network.npus_count, strict=True)
            if kind == "Switch" and size > 1
        )
        options["topology"] = ",".join(network.topology)
        options["npus_count"] = ",".join(map(str, network.npus_count))
        options["bandwidth"] = ",".join(repr(float(one)) for one in network.bandwidth_GiBps)
        options["latency"] = ",".join(repr(float(one)) for one in network.latency_ns)
        config = NetworkConfig(endpoints, endpoints + hubs, options=options)
        dims = network

        def ends() -> Ends:
            topology = topology_of(dims)
            return topology.src, topology.dst

        bandwidth = network.bandwidth_GiBps
        return Prepared(
            config,
            network.npus_count,
            dim_bandwidth=bandwidth,
            ends=ends,
            links_of_dims=links_of_dims(network),
        )
    options.setdefault("routing", network.routing)
    options.setdefault("endpoints_forward", "true" if network.endpoints_forward else "false")
    topology = topology_of(network)
    config = NetworkConfig(topology.endpoints, topology.nodes, topology.records(LINK), options)
    return Prepared(config, topology.dims, names=network.names)


def symmetry(config: NetworkConfig) -> Symmetry:
    """In which ways ranks are alike, for networks that know the options ``fold*``.

    Raises
    ------
    NotFolded
        The network has loads over time, or is a list of links whose messages each go their own way.
    """
    # Imported here: small runs do not fold.
    from astra_bridge.network.analytical.folding import symmetry_of

    return symmetry_of(config)


def _symmetry_of_dims(config: NetworkConfig) -> Symmetry | None:
    return symmetry(config) if "topology" in config.options else None


def _knows_ways(config: NetworkConfig) -> bool:
    return "topology" in config.options and not config.options.get("sample_interval_us")


# Imported there: few runs have wavefronts.


def _aware_ways(config: NetworkConfig) -> Ways | None:
    if not _knows_ways(config):
        return None
    from astra_bridge.network.analytical.ways import AwareWays

    return AwareWays(config)


def _unaware_ways(config: NetworkConfig) -> Ways | None:
    if not _knows_ways(config):
        return None
    from astra_bridge.network.analytical.ways import UnawareWays

    return UnawareWays(config)


# What is in Python alone is imported when it is opened: a run on its native twin does without.


def _open_aware_python(config: NetworkConfig) -> Network:
    from astra_bridge.network.analytical.aware import AwareNetwork

    return AwareNetwork(config)


def _open_unaware_python(config: NetworkConfig) -> Network:
    from astra_bridge.network.analytical.unaware import UnawareNetwork

    return UnawareNetwork(config)


def _open_aware(config: NetworkConfig) -> Network:
    library = library_path("analytical_aware")
    return NativeNetwork.open(library, config) if library.exists() else _open_aware_python(config)


def _open_unaware(config: NetworkConfig) -> Network:
    library = library_path("analytical_unaware")
    return NativeNetwork.open(library, config) if library.exists() else _open_unaware_python(config)


BACKENDS = (
    BackendSpec(
        "analytical-aware-python",
        "Messages queue for links, first come, first served; pure Python.",
        _prepare_aware,
        _open_aware_python,
        isolate=False,
        symmetry=_symmetry_of_dims,
        ways=_aware_ways,
    ),
    BackendSpec(
        "analytical-unaware-python",
        "Every transfer has the network for itself; pure Python.",
        prepare,
        _open_unaware_python,
        isolate=False,
        symmetry=_symmetry_of_dims,
        ways=_unaware_ways,
    ),
    BackendSpec(
        "analytical-aware",
        "Messages queue for links, first come, first served.",
        _prepare_aware,
        _open_aware,
        isolate=False,
        symmetry=symmetry,
        ways=_aware_ways,
        library=lambda: library_path("analytical_aware"),
    ),
    BackendSpec(
        "analytical-unaware",
        "Every transfer has the network for itself.",
        prepare,
        _open_unaware,
        isolate=False,
        symmetry=symmetry,
        ways=_unaware_ways,
        library=lambda: library_path("analytical_unaware"),
    ),
)
