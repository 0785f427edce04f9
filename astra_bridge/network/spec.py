# SPDX-License-Identifier: MIT
"""The types that a backend is described with; see :class:`BackendSpec`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from astra_bridge.inputs.network import NodeRange
from astra_bridge.network.api import Network, NetworkConfig
from astra_bridge.records import Record, field, put, replace
from astra_bridge.registry import Spec
from astra_bridge.semantics import ASTRA_SIM, Semantics
from astra_bridge.topology import (
    Ends,
    LinkTiers,
    injection_of_dims,
    injection_of_links,
    ways_of_dims,
)

if TYPE_CHECKING:
    from astra_bridge.program.folding import Turn

__all__ = ["BackendSpec", "Hops", "NetworkRequest", "Prepared", "Symmetry", "Ways"]


class NetworkRequest(Record, frozen=True, eq=False):
    """What the user said about the network; each backend reads what it understands.

    Attributes
    ----------
    network
        Path of the network configuration, or an already parsed object of ``astra_bridge.inputs``.
    logical_topology, physical_topology
        Optional further files (used by packet-level backends).
    options
        ``--network-option KEY=VALUE``: the backend's own options, after everything in files.
    semantics
        Which of ASTRA-sim's quirks to keep, for backends that have some; its text is read.
    """

    network: object
    logical_topology: Path | None = None
    physical_topology: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    semantics: Semantics | str = ASTRA_SIM

    def __post_init__(self) -> None:
        put(self, "semantics", Semantics.of(self.semantics))


class Prepared(Record, frozen=True, eq=False):
    """A request that a backend has understood.

    Attributes
    ----------
    config
        What ``create`` takes.
    dims
        Logical dimensions (ranks per dimension, dimension 0 fastest) for hierarchical
        collectives; their product is the number of ranks.
    warnings
        Sentences for the user (keys that are accepted and ignored, ...).
    receives_at_once
        Whether a collective's receive whose data is there is complete inside its post
        (``Program.receives_at_once``): ASTRA-sim's programs differ in it.
    dim_bandwidth
        Bandwidth of a link per logical dimension, in any unit: only how they compare matters, to
        themis.  None where that is not known.
    ends
        What `link_ends` gives, where the links do not stand in ``config``.
    names
        Names and tiers of nodes, for tables; those of a links file.
    reduces
        Per logical dimension, whether the network reduces what the members of a collective send
        (``Capability.REDUCTION``); empty where it does in none.
    links_of_dims
        How many links each dimension of the network has, in the numbering of ``set_link``: tiers of
        a network without nodes of several tiers.
    """

    config: NetworkConfig
    dims: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    receives_at_once: bool = False
    dim_bandwidth: tuple[float, ...] | None = None
    ends: Callable[[], Ends] | None = None
    names: tuple[NodeRange, ...] = ()
    links_of_dims: tuple[int, ...] = ()
    reduces: tuple[bool, ...] = ()

    def link_ends(self) -> Ends:
        """The nodes that each link joins, in the numbering of ``set_link``.

        Returns
        -------
        src, dst : ndarray of int32, shape (links,)
        """
        if self.ends is not None:
            return self.ends()
        return self.config.links["src"], self.config.links["dst"]

    def link_tiers(self) -> LinkTiers:
        """The tier of each link, in the numbering of ``set_link``."""
        if self.links_of_dims:
            return LinkTiers.of_dims(self.links_of_dims)
        config = self.config
        return LinkTiers.of_nodes(self.names, config.endpoints, config.nodes, self.link_ends())

    @property
    def link_kinds(self) -> tuple[str, ...]:
        """Kinds of links that `changed` can change: tiers, both ways together; () is none."""
        if not len(self.config.links) and not self._per_dim:
            return ()
        return tuple(dict.fromkeys(map(_kind, self.link_tiers().names)))

    def injection_Bps(self, ranks: NDArray[Any]) -> float:
        """What all links out of a rank that lead to these others could carry [B/s]; 0: not known.

        In a network of dimensions those of the dimensions in which the ranks differ; else those of
        the kind that joins all of them, without a rank between, and has most.
        """
        if self._per_dim:
            options = self.config.options
            return injection_of_dims(
                str(options["topology"]).split(","),
                [int(one) for one in str(options["npus_count"]).split(",")],
                [float(one) * 2**30 for one in str(options["bandwidth"]).split(",")],
                ranks,
            )
        if not len(self.config.links):
            return 0.0
        links = self.config.links
        tier = self.link_tiers().index_of(np.arange(len(links)))
        return injection_of_links(links, tier, self.config.endpoints, ranks)

    def ways(self, src: NDArray[Any], dst: NDArray[Any]) -> NDArray[Any]:
        """Which messages, from and to these ranks, may share a link: those of one number."""
        if not self.links_of_dims or math.prod(self.dims) != self.config.endpoints:
            return np.zeros(len(src), np.int64)
        return ways_of_dims(self.dims, src, dst)

    @property
    def _per_dim(self) -> bool:
        options = self.config.options
        count = len(self.links_of_dims)
        names = ("topology", "npus_count", "bandwidth", "latency")
        return count > 0 and all(
            name in options and len(str(options[name]).split(",")) == count for name in names
        )

    def changed(self, faster: Mapping[str, float], sooner: Mapping[str, float]) -> NetworkConfig:
        """The same network with bandwidths times, and latencies divided by, a factor per kind."""
        config = self.config
        if not len(config.links):
            options = dict(config.options)
            for name, factors in (("bandwidth", faster), ("latency", sooner)):
                values = [float(one) for one in str(options[name]).split(",")]
                for dim, value in enumerate(values):
                    factor = factors.get(f"dim{dim}", 1.0)
                    values[dim] = value * factor if name == "bandwidth" else value / factor
                options[name] = ",".join(map(repr, values))
            return replace(config, options=options)
        links, tiers = config.links.copy(), self.link_tiers()
        kinds = [_kind(name) for name in tiers.names]
        of_link = tiers.index_of(np.arange(len(links)))
        # What is of no kind joins a rank to a switch of its own, which must hold nothing up.
        rest = max([1.0, *faster.values()])
        better = np.array([*(faster.get(kind, 1.0) for kind in kinds), rest])[of_link]
        links["bytes_per_second"] *= better
        closer = np.array([*(sooner.get(kind, 1.0) for kind in kinds), 1.0])[of_link]
        links["latency_ps"] = np.rint(links["latency_ps"] / closer)
        return replace(config, links=links)


def _kind(tier: str) -> str:
    """Links of both ways are of one kind."""
    return tier.removesuffix(" up").removesuffix(" down")


class Symmetry(Record, frozen=True, eq=False):
    """In which ways the ranks of a network are alike, so that one may stand for many.

    Such a network takes the option ``fold`` and does what docs/contract.md says under "Folded
    ranks".

    Attributes
    ----------
    turns
        What its dimensions do not mind.
    turned
        With the option ``fold``: from numbers of links (a row of the table "links" each), and
        distances of ranks: the numbers of the links that these become where all ranks are moved by
        so much, and both their ends; all of shape (links, distances).
    kept
        Of digits (stride, size), the lowest first, those that turn all ways between pairs of ranks
        (source, destination) onto ways of the same kind; with what the network has to be told of
        them as options.  None where any ways are turned as the dimensions say.
    """

    turns: tuple[Turn, ...]
    turned: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]
    kept: (
        Callable[
            [Sequence[tuple[int, int]], NDArray[Any], NDArray[Any]],
            tuple[tuple[tuple[int, int], ...], dict[str, str]],
        ]
        | None
    ) = None


class Hops(NamedTuple):
    """The links that transfers cross, one after the other; all of shape (hops, transfers).

    Attributes
    ----------
    link : ndarray of int
        Its number; -1 where nobody can be met: a link that all may use at once, or none, behind the
        last one.
    hold_ps : ndarray of int
        How long it serves the transfer; the next one that has come then gets it.
    takes_ps : ndarray of int
        From when the transfer gets it until that is, whole, at the next link, or delivered.
    """

    link: NDArray[Any]
    hold_ps: NDArray[Any]
    takes_ps: NDArray[Any]


class Ways(Protocol):
    """What a network knows of transfers that meet nobody, so that it need not run them.

    It must be all that there is to know: links serve who comes first, and a transfer off the grid
    of the network's times starts at its next point.
    """

    meets: bool
    """Whether any transfers can meet."""

    def hops(self, src: NDArray[Any], dst: NDArray[Any], size_bytes: int) -> Hops | None:
        """Of transfers between endpoints; None where that is not known."""

    def stats(
        self,
        src: NDArray[Any],
        dst: NDArray[Any],
        size_bytes: NDArray[Any],
        count: NDArray[Any],
    ) -> dict[str, Any]:
        """What the network would say of so many of each, with its tables as ``tables``."""


class BackendSpec(Spec, frozen=True, eq=False):
    """One network simulator.

    Attributes
    ----------
    prepare
        Reads the request; raises ``InputError``.
    open
        Makes a simulation.  A native one is a ``astra_bridge.network.native.NativeNetwork``, which
        the native engine drives without Python in between.
    isolate
        The whole simulation runs in a supervised child process, where a crash or a hang becomes an
        error.  False only for simulators that are known to do neither.
    library
        Where its shared library is, or the library itself if it is loaded: what others that are
        made of several backends load.  None where it is Python.
    statistics
        Makes of the statistics that its library writes those that users get, where these differ:
        one that is made of others tells their tables as one.
    symmetry
        In which ways the ranks of a network are alike; None where the backend, or this network,
        does not know of any, or `NotFolded` where it can say why.
    ways
        What transfers take that meet nobody; None where the backend, or this network, cannot say.
    make_ready
        What must happen once on this machine before ``open``, such as compiling; says so where
        it takes long.
    """

    # A fault of this or of what it makes is one of the network, and names the call.
    unguarded: ClassVar[tuple[str, ...]] = ("open",)

    prepare: Callable[[NetworkRequest], Prepared]
    open: Callable[[NetworkConfig], Network]
    isolate: bool = True
    make_ready: Callable[[], object] = lambda: None
    library: Callable[[], Any] | None = None
    statistics: Callable[[dict[str, Any], NetworkConfig], dict[str, Any]] | None = None
    symmetry: Callable[[NetworkConfig], Symmetry | None] = lambda _: None
    ways: Callable[[NetworkConfig], Ways | None] = lambda _: None
