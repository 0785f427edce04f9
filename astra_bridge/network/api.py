# SPDX-License-Identifier: MIT
"""The network contract in Python: records, capabilities, and the ``Network`` Protocol.

The same calls as ``csrc/include/astra_net.h``; docs/contract.md explains the rules R1 to R19.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from astra_bridge.records import Record, field
from astra_bridge.units import TIME_NEVER

__all__ = [
    "CAPABILITY_SENTENCES",
    "COMPLETION",
    "DELIVERED",
    "LINK",
    "PLACES_PER_TRANSFER",
    "REDUCE",
    "SENT",
    "TIME_NEVER",
    "TRANSFER",
    "Advance",
    "Capability",
    "Exchange",
    "Network",
    "NetworkConfig",
    "NetworkInfo",
    "Status",
    "Stop",
]

TRANSFER = np.dtype(
    [
        ("id", "<i8"),
        ("start_ps", "<i8"),
        ("bytes", "<i8"),
        ("src", "<i4"),
        ("dst", "<i4"),
        ("traffic_class", "<u4"),
        ("flags", "<u4"),
        ("reserved", "<i8"),
    ]
)
COMPLETION = np.dtype(
    [
        ("id", "<i8"),
        ("time_ps", "<i8"),
        ("kind", "<u4"),
        ("outcome", "<i4"),
        ("reserved", "<i8"),
    ]
)
LINK = np.dtype(
    [
        ("src", "<i4"),
        ("dst", "<i4"),
        ("bytes_per_second", "<f8"),
        ("latency_ps", "<i8"),
        ("loss", "<f8"),
    ]
)
DELIVERED, SENT = 1, 2
REDUCE = 1
"""Flag of a transfer that is one of the members of a reduction; their count is flags >> 8."""
PLACES_PER_TRANSFER = 4
"""A transfer with id i owns the places i .. i+3 of the order inside one instant."""


class Status(IntEnum):
    OK = 0
    UNSUPPORTED = 1
    INVALID = 2
    BAD_STATE = 3
    INTERRUPTED = 4
    MODEL = 5
    INTERNAL = 6
    FATAL = 7


class Stop(IntEnum):
    REACHED = 1
    COMPLETION = 2
    IDLE = 3


class Capability(IntFlag):
    MULTI_INSTANCE = 1
    PARALLEL = 2
    SENT = 4
    INTERRUPT = 8
    SNAPSHOT = 16
    LINK_FAULTS = 32
    CONGESTION = 64
    ORDERED = 128
    SAVE = 256
    LEVELS = 512
    PEEK = 1024
    REDUCTION = 2048
    PIECES = 4096


CAPABILITY_SENTENCES = {
    Capability.MULTI_INSTANCE: "several simulations per process",
    Capability.PARALLEL: "different simulations on different threads",
    Capability.SENT: "reports when the sender may reuse its buffer",
    Capability.INTERRUPT: "a running advance can be interrupted",
    Capability.SNAPSHOT: "a simulation can be copied",
    Capability.LINK_FAULTS: "links can fail, recover and slow down",
    Capability.CONGESTION: "transfers slow one another",
    Capability.ORDERED: "keeps the exact order of events inside one instant (exchange)",
    Capability.SAVE: "can be written to a file, and go on from it (save, load)",
    Capability.LEVELS: "takes the dimension of a message as its traffic class",
    Capability.PEEK: "says when its next event is, so that several can run on one clock",
    Capability.REDUCTION: "reduces what the members of a collective send",
    Capability.PIECES: "takes the starts of one instant in pieces, at no cost",
}


class NetworkInfo(Record, frozen=True):
    """What a backend declares; constant while it is loaded."""

    name: str
    version: str
    capabilities: Capability
    resolution_ps: int = 1
    max_in_flight: int = 2**63 - 1
    traffic_classes: int = 1

    @property
    def levels(self) -> int:
        """How many dimensions of messages it tells apart: one, unless it declares LEVELS."""
        return self.traffic_classes if Capability.LEVELS in self.capabilities else 1


class NetworkConfig(Record, frozen=True, eq=False):
    """What creating a simulation takes: the physical topology and the backend's own options.

    Attributes
    ----------
    endpoints, nodes : int
        Nodes 0 .. endpoints-1 are endpoints, the rest (up to nodes-1) switches.
    links : ndarray of LINK, shape (links,)
        Directed links; a cable is two.  Empty where the options describe the topology.
    options : mapping of str to str
        The backend's own keys.
    parts : sequence of (backend, NetworkConfig)
        Of a backend that is made of others: their names, and what each is created with.
    """

    endpoints: int
    nodes: int
    links: NDArray[Any] = field(default_factory=lambda: np.zeros(0, LINK))
    options: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[tuple[str, NetworkConfig]] = ()


class Advance(NamedTuple):
    now_ps: int
    stop: Stop


class Exchange(NamedTuple):
    """What ``exchange`` returns; see docs/contract.md, "Order inside one instant"."""

    completions: NDArray[Any]
    now_ps: int
    stop: Stop
    place: int
    next_ps: int
    next_place: int


@runtime_checkable
class Network(Protocol):
    """One simulation of one network.  Every backend, native or pure Python, looks like this."""

    @property
    def info(self) -> NetworkInfo: ...

    def submit(self, items: NDArray[Any]) -> int:
        """Take a prefix of ``items`` (TRANSFER, shape (n,)); return how many were accepted."""
        ...

    def advance(self, until_ps: int, lookahead_ps: int = 0) -> Advance:
        """Run to min(until_ps, first completion + max(0, lookahead_ps - 1))."""
        ...

    def poll(self) -> NDArray[Any]:
        """All completions not yet drained: COMPLETION, shape (m,), ascending time."""
        ...

    def exchange(
        self,
        starts: NDArray[Any],
        now_ps: int,
        until_ps: int,
        until_place: int,
        place: int,
    ) -> Exchange:
        """Start transfers now and run the events before (until_ps, until_place).  Needs ORDERED."""
        ...

    def set_link(self, link: int, at_ps: int, bandwidth_scale: float) -> None:
        """Scale the bandwidth of a link (index into config.links) at a time; 0 is down."""
        ...

    def peek(self) -> int:
        """When the next completion can come at the earliest; TIME_NEVER if none will."""
        ...

    def stats(self) -> dict[str, Any]:
        """The backend's own statistics, as a JSON-like dict; may be empty."""
        ...

    def snapshot(self) -> Network: ...

    def save(self) -> bytes: ...

    def restore(self, data: bytes) -> None: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Network: ...

    def __exit__(self, *exc: object) -> None: ...
