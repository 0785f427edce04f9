# SPDX-License-Identifier: MIT
"""What NCCL chooses: algorithm, protocol and channels.

NCCL takes the least of its own estimates of time.  The facts here are those of version 2.29.2
(github.com/NVIDIA/nccl): the estimates and their constants of ``src/graph/tuning.cc``, the rings
that it finds in ``src/graph/search.cc`` (speeds, and when channels are doubled) and
``src/graph/connect.cc`` (doubled once more), the number of channels in ``src/enqueue.cc``
("Ring/Tree channel tuning"), NVLS's in ``src/transport/nvls.cc``.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.hardware import Hardware
from astra_bridge.inputs.nccl import NCCL_ALGORITHMS, NCCL_PROTOCOLS, NcclSettings, allowed_by
from astra_bridge.text import nearest, show

__all__ = [
    "ALGORITHMS", "COLLECTIVES", "NODE", "PROTOCOLS", "NcclChoice", "Where", "checked", "graph",
    "nccl_choice", "steps_of",
]  # fmt: skip

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "broadcast", "reduce")
"""As nccl-tests call them."""

ALGORITHMS = ("tree", "ring", "nvls", "pat")
"""In NCCL's order, of which the first one of equal estimates is taken."""
PROTOCOLS = NCCL_PROTOCOLS
LL, LL128, SIMPLE = range(3)

_FUNCTIONS = {one: one.replace("_", "") for one in COLLECTIVES}
_THREADS = {"ll": 512, "ll128": 640, "simple": 512}
_BYTES_PER_THREAD = {"ll": 8, "ll128": 8, "simple": 64}
_MOST_RINGS = 32
"""Half of MAXCHANNELS, as each ring becomes two channels."""


class Where(NamedTuple):
    """What a communicator spans.

    Attributes
    ----------
    nodes : int
        1 is a node of NVSwitches; more are as many nodes with one member each.
    nic_GBps : float
        Of the adapter of a member, where there are several nodes.
    reduces : bool
        Whether the network can reduce, which NVLS needs.
    """

    nodes: int = 1
    nic_GBps: float = 50.0
    reduces: bool = True


NODE = Where()


class _Generation(NamedTuple):
    """Constants of NCCL's tuning [GB/s]; three are for 1, 2 and more nodes."""

    link: float  # of a link, as NCCL counts it (topo.h)
    sheet_link: float  # of a link, as the datasheet does
    speeds: tuple[float, ...]  # of a ring, those that the search tries inside a node
    ll: float  # llMaxBws, one node
    ring_ll128: tuple[float, float, float]  # perChMaxRingLL128Bws
    tree_ll128: tuple[float, float, float]  # perChMaxTreeLL128Bws
    tree: tuple[float, float, float]  # perChMaxTreeBws
    nvls: float  # nvlsEfficiency
    nvls_channels: int


_GENERATIONS = {
    8: _Generation(
        20.0, 25.0, (40, 30, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3), 87.7, (20.0, 20.0, 20.0),
        (20.0, 20.0, 20.0), (24.0, 23.6, 17.8), 0.0, 0,
    ),
    9: _Generation(
        20.6, 25.0, (60, 50, 40, 30, 24, 20, 15, 12, 11, 6, 3), 141.0, (36.7, 36.7, 36.7),
        (36.7, 36.7, 29.0), (38.7, 41.4, 36.0), 0.85, 16,
    ),
    10: _Generation(
        40.1, 50.0, (90, 80, 70, 60, 50, 45, 40, 30, 24, 20, 19, 18), 282.0, (34.5, 34.6, 34.5),
        (55.6, 31.67, 20.0), (70.0, 42.8, 24.0), 0.74, 24,
    ),
}  # fmt: skip
"""Major number of the compute capability -> constants."""

_NETWORK_LL = (39.0, 39.0, 20.4)
"""llMaxBws of an Intel host, by number of nodes: between nodes LL is the host's."""

# us: baseLat, and hwLat over NVLink and over the network, by protocol.
_BASE = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4), "pat": (8.0, 8.0, 8.0)}
_NVLINK = {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4)}
_NETWORK = {"tree": (5.0, 8.5, 14.0), "ring": (2.7, 4.0, 14.0), "pat": (0.0, 0.0, 14.0)}
_NVLS_US = 25.0
_PLATEAU = 1.4
"""Of a ring by Simple over several nodes, once each chunk is longer than a line."""

# treeCorrectionFactor, by protocol; powers of two from 64 B on.
_TREE = (
    (1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9,
     0.9, 0.9),
    (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7,
     0.7, 0.8, 0.9, 0.9),
)  # fmt: skip


class NcclChoice(NamedTuple):
    """What NCCL runs.

    Attributes
    ----------
    algorithm
        "ring", "tree", "nvls", "pat", or "pairs" of an all-to-all, which NCCL makes of sends.
    protocol
        "ll", "ll128" or "simple".
    channels
        Thread blocks that share the data.
    """

    algorithm: str
    protocol: str
    channels: int

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.algorithm} {self.protocol} {self.channels} channels"


class Graph(NamedTuple):
    """Rings that NCCL finds.

    Attributes
    ----------
    rings : int
        Each is two channels.
    ring_GBps : float
        Of each.
    """

    rings: int
    ring_GBps: float

    @property
    def GBps(self) -> float:
        """Of all of them."""
        return self.rings * self.ring_GBps

    @property
    def channels(self) -> int:
        """Of a communicator."""
        return 2 * self.rings


def generation(hardware: Hardware) -> _Generation:
    """NCCL's constants.

    Raises
    ------
    InputError
        NCCL has none for this hardware.
    """
    capability = hardware.datasheet.compute_capability
    found = None if capability is None else _GENERATIONS.get(int(capability))
    if found is None:
        raise InputError(
            f"{hardware.name} has no compute capability of {', '.join(map(str, _GENERATIONS))}.x, "
            "which is what NCCL chooses by",
            key="hardware",
        )
    return found


def _links_GBps(hardware: Hardware) -> float:
    """All links of a GPU as NCCL counts them."""
    known = generation(hardware)
    return known.link * round(hardware.datasheet.link_GBps / known.sheet_link)


@cache
def graph(hardware: Hardware, where: Where = NODE) -> Graph:
    """The rings of a communicator.

    On a node of NVSwitches the first speed counts whose rings together are fastest; fast rings are
    doubled where there are few.

    Examples
    --------
    >>> from astra_bridge.hardware import hardware
    >>> graph(hardware("h100-sxm")), graph(hardware("b200"))
    (Graph(rings=12, ring_GBps=30.0), Graph(rings=16, ring_GBps=45.0))
    """
    if where.nodes > 1:
        return Graph(2, where.nic_GBps / 2)
    total = _links_GBps(hardware)
    rings, speed = 1, 0.0
    for tried in generation(hardware).speeds:
        count = min(_MOST_RINGS, int(total / tried + 1e-9))
        if count * tried > rings * speed:
            rings, speed = count, float(tried)
    newer = int(hardware.datasheet.compute_capability or 0) > 8
    if speed >= 25 and not (newer and speed < 50 and rings > 4):
        doubled = min(2 * rings, _MOST_RINGS)
        rings, speed = doubled, speed * rings / doubled
    return Graph(rings, speed)


def steps_of(collective: str, ranks: int) -> int:
    """Of a ring."""
    if collective == "all_reduce":
        return 2 * (ranks - 1)
    return ranks - 1


def checked(collective: str, ranks: int, size_bytes: int) -> None:
    """Refuse what NCCL does not have.

    Raises
    ------
    InputError
        Names what is allowed.
    """
    if collective not in COLLECTIVES:
        raise InputError(
            f"{show(collective)} is not allowed; allowed: {', '.join(COLLECTIVES)}"
            f"{nearest(collective, COLLECTIVES)}",
            key="collective",
        )
    if ranks < 2 or size_bytes < 1:
        raise InputError(
            f"{ranks} ranks and {size_bytes} bytes are not allowed; allowed: from 2, from 1",
            key="collective",
        )


def nccl_choice(
    hardware: Hardware,
    collective: str,
    ranks: int,
    size_bytes: int,
    *,
    algorithms: Collection[str] = ALGORITHMS,
    protocols: Collection[str] = PROTOCOLS,
    settings: NcclSettings | None = None,
    where: Where = NODE,
) -> NcclChoice:
    """What NCCL chooses: the least of its own estimates.

    Parameters
    ----------
    collective
        One of :data:`COLLECTIVES`.
    size_bytes
        The larger one of a rank's buffers, as nccl-tests count it.
    algorithms, protocols
        Those that may be chosen.
    settings
        What is forced besides.
    where
        What the communicator spans; one node.

    Raises
    ------
    InputError
        The collective is unknown, the hardware's generation too, or nothing is left to choose.

    Examples
    --------
    >>> from astra_bridge.hardware import hardware
    >>> nccl_choice(hardware("h100-sxm"), "all_reduce", 8, 2**30)
    NcclChoice(algorithm='nvls', protocol='simple', channels=16)
    >>> nccl_choice(hardware("h100-sxm"), "all_reduce", 8, 4096)
    NcclChoice(algorithm='ring', protocol='ll', channels=1)
    """
    checked(collective, ranks, size_bytes)
    settings = settings or NcclSettings()
    rings = graph(hardware, where)
    if collective == "alltoall":
        return NcclChoice("pairs", "simple", _limited(rings.channels, settings))
    function = _FUNCTIONS[collective]
    algorithms = set(algorithms) & set(allowed_by(settings.algo, function, NCCL_ALGORITHMS, "algo"))
    protocols = set(protocols) & set(allowed_by(settings.proto, function, NCCL_PROTOCOLS, "proto"))
    found: dict[tuple[str, str], float] = {}
    for algorithm in ALGORITHMS:
        for at, protocol in enumerate(PROTOCOLS):
            us = None
            if algorithm in algorithms and protocol in protocols:
                us = _estimate_us(hardware, collective, ranks, size_bytes, algorithm, at, where)
            if us is not None:
                found[algorithm, protocol] = us
    if not found:
        raise InputError(
            f"NCCL has no {collective} of {ranks} ranks by "
            f"{', '.join(one for one in ALGORITHMS if one in algorithms) or 'nothing'} and "
            f"{', '.join(one for one in PROTOCOLS if one in protocols) or 'nothing'}",
            key="algorithms",
        )
    algorithm, protocol = min(found, key=lambda one: found[one])
    forced = -1
    for row in settings.tuner:
        if (
            row.function == function
            and row.min_bytes <= size_bytes <= row.max_bytes
            and row.nodes in (-1, where.nodes)
            and row.ranks in (-1, ranks)
        ):
            # As in NCCL, what it does not have stays its own choice.
            if (row.algorithm, row.protocol) in found:
                (algorithm, protocol), forced = (row.algorithm, row.protocol), row.channels
            break
    if algorithm == "nvls":
        channels = generation(hardware).nvls_channels
    else:
        channels = _channels(rings.channels, algorithm, protocol, ranks, size_bytes, settings)
    channels = _limited(channels, settings) if algorithm == "nvls" else channels
    return NcclChoice(algorithm, protocol, channels if forced < 1 else forced)


def _limited(channels: int, settings: NcclSettings) -> int:
    return max(settings.min_nchannels, min(settings.max_nchannels, channels))


def _channels(
    most: int,
    algorithm: str,
    protocol: str,
    ranks: int,
    size_bytes: int,
    settings: NcclSettings,
) -> int:
    """As many as have enough for their threads; settings change those of the communicator."""
    each = _THREADS[protocol] * _BYTES_PER_THREAD[protocol]
    if protocol == "ll" and algorithm == "ring":
        each *= ranks
    return max(1, min(_limited(most, settings), size_bytes // each))


def _estimate_us(
    hardware: Hardware,
    collective: str,
    ranks: int,
    size_bytes: int,
    algorithm: str,
    protocol: int,
    where: Where,
) -> float | None:
    """NCCL's own estimate; None where it has no such thing."""
    if algorithm == "ring":
        return _ring_us(hardware, collective, ranks, size_bytes, protocol, where)
    if algorithm == "tree":
        return _tree_us(hardware, collective, ranks, size_bytes, protocol, where)
    gathers = collective in ("all_gather", "reduce_scatter")
    if algorithm == "pat":
        # One GPU for each node only.
        if protocol != SIMPLE or where.nodes != ranks or not gathers:
            return None
        us = _BASE["pat"][protocol] + _log2(ranks) * _NETWORK["pat"][protocol] / 3.5 + ranks * 2.8
        return us + size_bytes / (graph(hardware, where).GBps * 0.75 * 1e3)
    known = generation(hardware)
    if known.nvls == 0 or ranks < 3 or protocol != SIMPLE or where.nodes > 1 or not where.reduces:
        return None
    if not gathers and collective != "all_reduce":
        return None
    total = _links_GBps(hardware) * ranks / (ranks - 1)
    # Each GPU is the head of a share.
    speed = next((one for one in known.speeds if one * ranks <= total), known.speeds[-1])
    bus = speed * known.nvls * (ranks - 1) / ranks * ranks
    if gathers:
        # What NCCL does not convert to the rate of the algorithm.
        return _NVLS_US + size_bytes / (bus * (ranks - 1) / ranks * 1e3)
    return _NVLS_US + size_bytes / (2 * bus * ranks / steps_of(collective, ranks) * 1e3)


def _log2(number: int) -> int:
    return number.bit_length() - 1


def _ring_us(
    hardware: Hardware, collective: str, ranks: int, size_bytes: int, protocol: int, where: Where
) -> float:
    known, rings, at = generation(hardware), graph(hardware, where), min(where.nodes, 3) - 1
    if protocol == LL:
        bus = min(known.ll if at == 0 else _NETWORK_LL[at], rings.GBps * 0.5)
    elif protocol == LL128:
        bus = min(rings.GBps * 0.92, rings.rings * known.ring_ll128[at])
    else:
        bus = rings.GBps
    rooted = collective in ("broadcast", "reduce")
    steps = ranks if rooted else steps_of(collective, ranks)
    step_us = (_NVLINK if where.nodes == 1 else _NETWORK)["ring"][protocol]
    if where.nodes > 1:
        step_us = max(step_us, _NETWORK["tree"][protocol])  # one member per node
    latency = (1 if rooted else steps) * step_us
    us = _BASE["ring"][protocol] + latency
    long = size_bytes // (rings.channels * ranks) >= 64
    if where.nodes > 1 and protocol == SIMPLE and collective == "all_reduce" and long:
        us *= _PLATEAU
    return us + size_bytes / (bus * ranks / steps * 1e3)


def _tree_us(
    hardware: Hardware, collective: str, ranks: int, size_bytes: int, protocol: int, where: Where
) -> float | None:
    if collective != "all_reduce":
        return None
    known, rings, at = generation(hardware), graph(hardware, where), min(where.nodes, 3) - 1
    bus = min(rings.GBps * 0.92, rings.rings * known.tree[at])
    if protocol == LL:
        bus = min(bus / 3.8, known.ll if at == 0 else _NETWORK_LL[at])
    elif protocol == LL128:
        share = 7 / 9 if where.nodes == 1 else 120 / 128
        bus = min(bus * share, rings.rings * known.tree_ll128[at])
    corrections = _TREE[protocol]
    power = max(0, _log2(max(1, size_bytes >> 6)))
    correction = corrections[power] if power < len(corrections) else 1.0
    if where.nodes == 1:
        latency = 2 * (ranks - 1) * _NVLINK["tree"][protocol]
    else:
        latency = 2 * _log2(where.nodes) * _NETWORK["tree"][protocol]
    return _BASE["tree"][protocol] + latency + size_bytes / (bus * 0.5 * correction * 1e3)
