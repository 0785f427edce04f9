# SPDX-License-Identifier: MIT
"""The backend: the network as a whole, and as each of its parts sees it.

A part that carries dimensions gets the whole network, so that what it carries takes the ways that
it would take there; one that carries links gets its own links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import BackendUnavailable, ContractError, InputError
from astra_bridge.inputs.network import (
    LinkColumns,
    NetworkDims,
    NetworkLinks,
    dim_bandwidth,
    read_network,
)
from astra_bridge.network.api import LINK, NetworkConfig
from astra_bridge.network.composite.border import Border
from astra_bridge.network.composite.tables import merged, part_of_links
from astra_bridge.network.native import NativeNetwork, library_path, not_built
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared, Symmetry
from astra_bridge.records import replace
from astra_bridge.text import nearest
from astra_bridge.topology import Ends, links_of_dims, topology_of

__all__ = ["BACKENDS", "part_library", "prepare"]

_OPTIONS = ("backends", "border_bytes", "sample_interval_us")
_OF_PARTS = ("sample_interval_us",)
"""Options that every part gets, unless it has been given its own."""
_EXAMPLE = "backends: [garnet, ns3]"


def prepare(request: NetworkRequest) -> Prepared:
    """Share a network out among the backends that its key ``backends`` names.

    Raises
    ------
    InputError
        Nothing says which backend a dimension or link has, one of them is not native, or refuses
        the network or an option.
    BackendUnavailable
        One of them cannot run here.
    """
    network = read_network(request.network)  # type: ignore[arg-type]
    named = request.options.get("backends")
    if isinstance(network, NetworkDims):
        names = _of_dimensions(network, named)
        parts = list(dict.fromkeys(names))
        part_of_link = np.repeat([parts.index(name) for name in names], links_of_dims(network))
    else:
        of_links = _of_links(network, named)
        parts = sorted(set(of_links.tolist()))
        part_of_link = np.searchsorted(parts, of_links.astype(str))
    own, given = _options(request.options, parts)
    made, warnings = [], []
    border = Border.of(network, part_of_link)
    for index, name in enumerate(parts):
        seen = border.part(part_of_link == index)
        prepared = _prepare_part(name, replace(request, network=seen, options=given[name]))
        made.append((name, prepared.config))
        warnings += [f"{name}: {warning}" for warning in prepared.warnings]
    topology = topology_of(network)
    options = own | {"part_of_link": _runs(part_of_link)}
    if isinstance(network, NetworkDims):
        options["npus_count"] = ",".join(map(str, network.npus_count))
        options["part_of_dimension"] = ",".join(str(parts.index(name)) for name in names)
        links = np.zeros(0, LINK)
    else:
        options["routing"] = network.routing
        options["endpoints_forward"] = "true" if network.endpoints_forward else "false"
        options["border"] = border.text()
        links = topology.records(LINK)

    def ends() -> Ends:
        return topology.src, topology.dst

    return Prepared(
        NetworkConfig(topology.endpoints, topology.nodes, links, options, tuple(made)),
        topology.dims,
        tuple(warnings),
        dim_bandwidth=dim_bandwidth(network, topology.dims),
        ends=ends,
        names=network.names,
        links_of_dims=links_of_dims(network),
    )


def _options(
    options: Mapping[str, str], parts: Sequence[str]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Those of the whole, and by part ``PART.KEY=VALUE`` and what all parts get."""
    own: dict[str, str] = {}
    common = {key: options[key] for key in _OF_PARTS if key in options}
    given = {part: dict(common) for part in parts}
    for key, value in options.items():
        part = next((part for part in parts if key.startswith(f"{part}.")), None)
        if part is not None:
            given[part][key[len(part) + 1 :]] = value
        elif key not in _OPTIONS:
            raise InputError(
                f"unknown option {key!r}; composite has: {', '.join(_OPTIONS)}, and those of its "
                f"parts, as PART.KEY; the parts of this network: {', '.join(parts)}"
                f"{nearest(key, _OPTIONS)}",
                key="--network-option",
            )
        elif key not in ("backends", *_OF_PARTS):
            own[key] = value
    return own, given


def _of_dimensions(network: NetworkDims, named: str | None) -> list[str]:
    names = list(network.backends) if named is None else [one.strip() for one in named.split(",")]
    count = len(network.npus_count)
    if len(names) != count:
        found = f"has {len(names)} entries" if names else "missing"
        raise InputError(
            f"{found}; a composite network needs a backend for each of {count} dimensions, such as "
            f"{_EXAMPLE}",
            file=network.source,
            key="backends",
        )
    return names


def _of_links(network: NetworkLinks, named: str | None) -> NDArray[Any]:
    """The backend of each link."""
    if named is not None:
        raise InputError(
            "is for networks of dimensions; a network of links says it in its file",
            key="--network-option backends",
        )
    tiers = np.array(["gpu"] * network.endpoints + ["switch"] * (network.nodes - network.endpoints))
    tiers = tiers.astype(object)
    for named_nodes in network.names:
        tiers[named_nodes.first : named_nodes.first + named_nodes.count] = named_nodes.tier
    links = LinkColumns.of(network.links)
    src, dst = tiers[links.src], tiers[links.dst]
    names = np.full(len(links), "", object)
    # What is said of two tiers outranks what is said of all others.
    for one, other, backend_name in sorted(network.backends):
        between = ((src == one) & (dst == other)) | ((src == other) & (dst == one))
        names[between if one else slice(None)] = backend_name
    missing = np.flatnonzero(names == "")
    if missing.size:
        link = int(missing[0])
        raise InputError(
            f"no backend for the links between tiers {src[link]} and {dst[link]}; name one as "
            f"'{src[link]}-{dst[link]}: BACKEND' or 'default: BACKEND'",
            file=network.source,
            key="backends",
        )
    return names


def _prepare_part(name: str, request: NetworkRequest) -> Prepared:
    spec = backend(name)
    missing = spec.unavailable()
    if missing is not None:
        raise BackendUnavailable(f"backend {name!r}, a part, cannot run here: {missing}")
    if spec.library is None:
        raise InputError(f"{name} is Python; a part must be a shared library", key="backends")
    spec.make_ready()
    prepared = spec.prepare(request)
    options = {key: str(value) for key, value in prepared.config.options.items()}
    return replace(prepared, config=replace(prepared.config, options=options))


def _runs(parts: NDArray[np.int64]) -> str:
    """``COUNT*PART`` for links that follow one another."""
    return ",".join(f"{len(list(same))}*{part}" for part, same in groupby(parts.tolist()))


def part_library(name: str) -> Any:
    """Where the library of a part is.

    Raises
    ------
    InputError
        There is no such backend, or it has none.
    """
    library = backend(name).library
    if library is None:
        raise InputError(f"{name} is Python; a part must be a shared library", key="backends")
    return library()


def _folded(config: NetworkConfig) -> NetworkConfig:
    """Where ranks are folded, parts have to know."""
    fold = config.options.get("fold")
    if fold is None:
        return config
    parts = [
        (name, replace(one, options={**one.options, "fold": fold})) for name, one in config.parts
    ]
    return replace(config, parts=tuple(parts))


def _symmetry(config: NetworkConfig) -> Symmetry | None:
    # Imported here: small runs do not fold.
    from astra_bridge.network.composite.folding import symmetry_of

    if len(config.links):
        return None
    parts = [(name, backend(name).symmetry(one)) for name, one in _folded(config).parts]
    return symmetry_of(parts, part_of_links(config))


def _open(config: NetworkConfig) -> NativeNetwork:
    try:
        return NativeNetwork.open(
            library_path("composite"), _folded(config), lend=part_library, statistics=merged
        )
    except ContractError as error:
        raise InputError(str(error), key="network") from None


BACKENDS = (
    BackendSpec(
        "composite",
        "Several backends on one clock, each for the dimensions or links that are its own.",
        prepare,
        _open,
        unavailable=lambda: not_built("composite"),
        library=lambda: library_path("composite"),
        statistics=merged,
        symmetry=_symmetry,
    ),
)
