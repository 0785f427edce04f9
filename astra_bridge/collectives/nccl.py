# SPDX-License-Identifier: MIT
"""NCCL on one node: what it chooses, and how long that takes.

The choice is NCCL's own: the rule and the constants of ``src/graph/tuning.cc`` and of the channels
in ``src/enqueue.cc``, version 2.29.2 (github.com/NVIDIA/nccl).  Its estimates of time are made to
choose by, and far from what is measured, so times have parameters of their own, fitted to
nccl-tests (``NcclParameters``): a launch, a time for each step of the algorithm, and bandwidths
as shares of the link's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.hardware import Hardware, NcclParameters
from astra_bridge.text import nearest, show

__all__ = ["ALGORITHMS", "COLLECTIVES", "PROTOCOLS", "NcclChoice", "nccl_choice", "nccl_us"]

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")
"""As nccl-tests call them."""

ALGORITHMS = ("ring", "tree", "nvls")
PROTOCOLS = ("ll", "ll128", "simple")

_CHANNELS = 24
"""Of a communicator on a node of NVSwitches: two for each of twelve rings (``connect.cc``)."""

_NVLS_CHANNELS = 16
_THREADS = {"ll": 512, "ll128": 640, "simple": 512}
_BYTES_PER_THREAD = {"ll": 8, "ll128": 8, "simple": 64}
_FULL_BYTES = 2**29
"""Size from which on bandwidths are full; ``rate_growth`` says how they grow up to it."""


class _Generation(NamedTuple):
    """Constants of NCCL's tuning for one node [GB/s]."""

    link: float  # of a link, as NCCL counts it (topo.h)
    sheet_link: float  # of a link, as the datasheet does
    ll: float  # llMaxBws
    ring_ll128: float  # perChMaxRingLL128Bws
    tree_ll128: float  # perChMaxTreeLL128Bws
    tree: float  # perChMaxTreeBws
    nvls: float  # nvlsEfficiency


_GENERATIONS = {
    8: _Generation(20.0, 25.0, 87.7, 20.0, 20.0, 24.0, 0.0),
    9: _Generation(20.6, 25.0, 141.0, 36.7, 36.7, 38.7, 0.85),
    10: _Generation(40.1, 50.0, 282.0, 34.5, 55.6, 70.0, 0.74),
}
"""Major number of the compute capability -> constants."""

# us: baseLat and hwLat over NVLink, by protocol.
_BASE = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4)}
_STEP = {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4)}
_NVLS_US = 25.0

# treeCorrectionFactor, by protocol; powers of two from 64 B on.
_TREE = (
    (1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9,
     0.9, 0.9),
    (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7,
     0.7, 0.8, 0.9, 0.9, 0.9),
)  # fmt: skip


class NcclChoice(NamedTuple):
    """What NCCL runs.

    Attributes
    ----------
    algorithm
        "ring", "tree", "nvls", or "pairs" of an all-to-all, which NCCL makes of sends.
    protocol
        "ll", "ll128" or "simple".
    channels
        Thread blocks that share the data.
    """

    algorithm: str
    protocol: str
    channels: int


def _steps(collective: str, ranks: int) -> int:
    return 2 * (ranks - 1) if collective == "all_reduce" else ranks - 1


def _generation(hardware: Hardware) -> _Generation:
    capability = hardware.datasheet.compute_capability
    found = None if capability is None else _GENERATIONS.get(int(capability))
    if found is None:
        raise InputError(
            f"{hardware.name} has no compute capability of {', '.join(map(str, _GENERATIONS))}.x, "
            "which is what NCCL chooses by",
            key="hardware",
        )
    return found


def _checked(collective: str, ranks: int, size_bytes: int) -> None:
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
) -> NcclChoice:
    """What NCCL chooses: the least of its own estimates.

    Parameters
    ----------
    collective
        One of :data:`COLLECTIVES`.
    size_bytes
        The larger one of a rank's buffers, as nccl-tests count it.
    algorithms, protocols
        Those that may be chosen, as ``NCCL_ALGO`` and ``NCCL_PROTO`` say.

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
    _checked(collective, ranks, size_bytes)
    if collective == "alltoall":
        return NcclChoice("pairs", "simple", _CHANNELS)
    best: tuple[float, str, str] | None = None
    for algorithm in ALGORITHMS:
        for at, protocol in enumerate(PROTOCOLS):
            if algorithm not in algorithms or protocol not in protocols:
                continue
            us = _estimate_us(hardware, collective, ranks, size_bytes, algorithm, at)
            if us is not None and (best is None or us < best[0]):
                best = us, algorithm, protocol
    if best is None:
        raise InputError(
            f"NCCL has no {collective} of {ranks} ranks by {', '.join(algorithms) or 'nothing'} "
            f"and {', '.join(protocols) or 'nothing'}",
            key="algorithms",
        )
    _, algorithm, protocol = best
    if algorithm == "nvls":
        return NcclChoice(algorithm, protocol, _NVLS_CHANNELS)
    return NcclChoice(algorithm, protocol, _channels(algorithm, protocol, ranks, size_bytes))


def _channels(algorithm: str, protocol: str, ranks: int, size_bytes: int) -> int:
    """As many as have enough for their threads (``enqueue.cc``, "Ring/Tree channel tuning")."""
    each = _THREADS[protocol] * _BYTES_PER_THREAD[protocol]
    if protocol == "ll" and algorithm == "ring":
        each *= ranks
    return max(1, min(_CHANNELS, size_bytes // each))


def _estimate_us(
    hardware: Hardware, collective: str, ranks: int, size_bytes: int, algorithm: str, protocol: int
) -> float | None:
    """NCCL's own estimate on one node; None where it has no such thing."""
    known = _generation(hardware)
    links_GBps = known.link * round(hardware.datasheet.link_GBps / known.sheet_link)
    steps = _steps(collective, ranks)
    if algorithm == "ring":
        bus = (
            min(known.ll, links_GBps * 0.5),
            min(links_GBps * 0.92, _CHANNELS * known.ring_ll128),
            links_GBps,
        )[protocol]
        rate, start = bus * ranks / steps, _BASE[algorithm][protocol]
        latency = start + steps * _STEP[algorithm][protocol]
    elif algorithm == "tree":
        if collective != "all_reduce":
            return None
        bus = min(links_GBps * 0.92, _CHANNELS * known.tree)
        if protocol == 0:
            bus = min(bus / 3.8, known.ll)
        elif protocol == 1:
            bus = min(bus * 7 / 9, _CHANNELS * known.tree_ll128)
        corrections = _TREE[protocol]
        power = max(0, (size_bytes >> 6).bit_length() - 1)
        correction = corrections[power] if power < len(corrections) else 1.0
        rate = bus * 0.5 * correction
        latency = _BASE[algorithm][protocol] + 2 * (ranks - 1) * _STEP[algorithm][protocol]
    else:
        # NVLS needs multicast, and more than two ranks.  Of all-gather and reduce-scatter, whose
        # buffers are not registered, measurements show the ring.
        if known.nvls == 0 or ranks < 3 or protocol != 2 or collective != "all_reduce":
            return None
        bus = links_GBps * known.nvls * (_NVLS_CHANNELS - 1) / _NVLS_CHANNELS * 2
        rate, latency = bus * ranks / steps, _NVLS_US
    return latency + size_bytes / (rate * 1e3)


def nccl_us(
    hardware: Hardware,
    collective: str,
    ranks: int,
    size_bytes: int,
    *,
    choice: NcclChoice | None = None,
    parameters: NcclParameters | None = None,
) -> float:
    """Time of a collective on one node of NVSwitches [us], launch included.

    Parameters
    ----------
    choice
        What runs; None is what NCCL chooses.
    parameters
        Other ones than those of the hardware.

    Raises
    ------
    InputError
        As :func:`nccl_choice`, or the hardware has no parameters.

    Examples
    --------
    >>> from astra_bridge.hardware import hardware
    >>> h100 = hardware("h100-sxm")
    >>> nccl_us(h100, "all_reduce", 8, 2**20) < nccl_us(h100, "all_reduce", 8, 2**29)
    True
    """
    _checked(collective, ranks, size_bytes)
    if choice is None:
        choice = nccl_choice(hardware, collective, ranks, size_bytes)
    p = hardware.nccl if parameters is None else parameters
    link = hardware.datasheet.link_GBps * 1e3  # bytes per us
    steps = _steps(collective, ranks)
    slower = float(max(1.0, _FULL_BYTES / size_bytes) ** p.rate_growth)
    part = size_bytes / ranks
    # The own part is copied from one buffer to the other, or reduced, without a link.
    own_us = part / (p.own * link) * slower
    if choice.algorithm == "pairs":
        low = p.pair_ll_us + part / (p.pair_ll_GBps * 1e3)
        full = p.pair_us + part * (ranks - 1) / (p.pair * link) * slower + own_us
        return min(low, full) + p.pair_rank_us * (ranks - 1)
    if choice.algorithm == "nvls":
        return p.nvls_us + p.nvls_rank_us * ranks + size_bytes / (p.nvls * link) * slower
    # On one node the tree is a chain, all data up and all down (not measured: NCCL never took it).
    sent = 2 * size_bytes if choice.algorithm == "tree" else part * steps
    if choice.protocol == "simple":
        us = p.simple_us + steps * p.simple_step_us + sent / (p.simple * link) * slower + own_us
    elif choice.protocol == "ll128":
        us = steps * p.ll128_step_us + (sent + part) / (p.ll128 * link)
    else:
        rate = choice.channels * p.ll_channel_GBps * 1e3
        us = steps * p.ll_step_us + (sent + part) * (1 / rate + 1 / (p.ll * link))
    return p.launch_us + us
