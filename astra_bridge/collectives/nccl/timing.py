# SPDX-License-Identifier: MIT
"""How long what NCCL runs takes.

NCCL's estimates are made to choose by, and far from what is measured, so times on a node have
parameters of their own, fitted to nccl-tests (``NcclParameters``): a launch, a time for each step
of an algorithm, and shares of the links' bandwidth.  Between nodes, where nothing was fitted, the
latencies and shares of NCCL's own tuning stand in.

A :class:`Cost` is the same for the formula (:func:`nccl_us`) and for the schedules, which send
``wire_bytes`` in each round and wait in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from astra_bridge.collectives.nccl.tuning import (
    NODE,
    NcclChoice,
    Where,
    checked,
    generation,
    nccl_choice,
    steps_of,
)
from astra_bridge.errors import InputError
from astra_bridge.hardware import Hardware, NcclParameters

__all__ = ["Cost", "nccl_cost", "nccl_us"]

_FULL_BYTES = 2**29
"""Size from which on bandwidths are full; ``rate_growth`` says how they grow up to it."""
_MOST_PIECES = 16
"""Into which a pipeline along a tree is cut; more make no difference worth their events."""
_NVLS_STAGES = 2
"""Chunks that fill the pipeline of in-switch reduction: up, and down."""
_MOST_NVLS_CHUNK, _LEAST_NVLS_CHUNK = 2**17, 2**14
_P2P_CHANNELS, _P2P_LEAST_BYTES, _P2P_LL_BYTES = 32, 2**16, 2**14
_CHUNK_BYTES = {"ll": 2**15, "ll128": 2**17, "simple": 2**19}
"""Of a channel: an eighth of its buffer, less flags (``src/init.cc``, ``src/enqueue.cc``)."""


class Cost(NamedTuple):
    """Rounds that follow one another.

    Attributes
    ----------
    rounds : int
        Messages along the way: steps of a ring, peers of an all-to-all, the depth of a tree.
    start_us : float
        Before the first one.
    round_us : float
        Of each, beside its bytes: for the network's latency, and for the endpoint.
    wire_bytes : float
        What each puts on the link.
    pieces : int
        In how many parts these go, so that rounds overlap.
    both : bool
        Whether it goes up a tree and down again.
    """

    rounds: int
    start_us: float
    round_us: float
    wire_bytes: float
    pieces: int = 1
    both: bool = False

    def us(self, link_GBps: float) -> float:
        """How long it takes where nothing else is on the links."""
        piece_us = self.wire_bytes / self.pieces / (link_GBps * 1e3)
        ways = 2 if self.both else 1
        us = self.start_us + ways * self.rounds * (self.round_us + piece_us)
        # On its way up the last piece waits for the others; at the root, down, once more.
        return us + (self.pieces - 1) * piece_us + (ways - 1) * self.pieces * piece_us


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
        As :func:`~astra_bridge.collectives.nccl.nccl_choice`, or the hardware has no parameters.

    Examples
    --------
    >>> from astra_bridge.hardware import hardware
    >>> h100 = hardware("h100-sxm")
    >>> nccl_us(h100, "all_reduce", 8, 2**20) < nccl_us(h100, "all_reduce", 8, 2**29)
    True
    """
    checked(collective, ranks, size_bytes)
    if choice is None:
        choice = nccl_choice(hardware, collective, ranks, size_bytes)
    cost = nccl_cost(hardware, collective, ranks, size_bytes, choice, parameters=parameters)
    return cost.us(hardware.datasheet.link_GBps)


def nccl_cost(
    hardware: Hardware,
    collective: str,
    ranks: int,
    size_bytes: int,
    choice: NcclChoice,
    *,
    parameters: NcclParameters | None = None,
    where: Where = NODE,
) -> Cost:
    """What a collective takes.

    Raises
    ------
    InputError
        The hardware has no parameters, or NCCL has no such thing.
    """
    parameters = hardware.nccl if parameters is None else parameters
    make = _BETWEEN if where.nodes > 1 else _ON_NODE
    if choice.algorithm not in make:
        raise InputError(
            f"{choice.algorithm} of {collective} is not allowed; allowed: {', '.join(make)}",
            key="choice",
        )
    run = _Run(hardware, parameters, collective, ranks, size_bytes, choice)
    return make[choice.algorithm](run)


class _Run(NamedTuple):
    hardware: Hardware
    p: NcclParameters
    collective: str
    ranks: int
    size_bytes: int
    choice: NcclChoice

    @property
    def link(self) -> float:
        """Bytes per us."""
        return self.hardware.datasheet.link_GBps * 1e3


# ---- on a node of NVSwitches ----


def _protocol(p: NcclParameters, protocol: str, channels: int) -> tuple[float, float, float, float]:
    """Start, step [us], bytes on the wire for one of data, and us of a channel for one byte."""
    if protocol == "simple":
        return p.launch_us + p.simple_us, p.simple_step_us, 1 / p.simple, 0.0
    if protocol == "ll128":
        return p.launch_us, p.ll128_step_us, 1 / p.ll128, 0.0
    return p.launch_us, p.ll_step_us, 1 / p.ll, 1 / (channels * p.ll_channel_GBps * 1e3)


def _ring(run: _Run) -> Cost:
    if run.collective in ("broadcast", "reduce"):
        return _chain(run)
    p, choice, part = run.p, run.choice, run.size_bytes / run.ranks
    start, step, wire, channel_us = _protocol(p, choice.protocol, choice.channels)
    if choice.protocol == "simple":
        slower = _slower(run)
        # The own part is copied from one buffer to the other, or reduced, without a link.
        start, wire = start + part / (p.own * run.link) * slower, wire * slower
    else:
        start += part * (wire / run.link + channel_us)
    steps = steps_of(run.collective, run.ranks)
    return Cost(steps, start, step + part * channel_us, part * wire)


def _slower(run: _Run) -> float:
    return float(max(1.0, _FULL_BYTES / run.size_bytes) ** run.p.rate_growth)


def _chain(run: _Run) -> Cost:
    """From one GPU to the next: NCCL's tree inside a node, and what has a root."""
    choice, size = run.choice, run.size_bytes
    start, step, wire, channel_us = _protocol(run.p, choice.protocol, choice.channels)
    if choice.protocol == "simple":
        wire *= _slower(run)
    pieces, both = _pieces(run), run.collective == "all_reduce"
    step += size * channel_us / pieces
    return Cost(run.ranks - 1, start, step, size * wire, pieces, both)


def _pieces(run: _Run) -> int:
    chunk = run.choice.channels * _CHUNK_BYTES[run.choice.protocol]
    return max(1, min(_MOST_PIECES, -(-run.size_bytes // chunk)))


def _nvls(run: _Run) -> Cost:
    """Loops over chunks of all channels and heads, which fill a pipeline.

    NCCL makes chunks smaller until there are some loops (``calcCollChunking``).  A loop costs its
    step, and its bytes at what the switches reduce.
    """
    p, at_once, chunk = run.p, run.choice.channels * run.ranks, _MOST_NVLS_CHUNK
    for few, least in ((64, 2**16), (8, 2**15), (2, _LEAST_NVLS_CHUNK)):
        if run.size_bytes < few * at_once * chunk:
            chunk = min(chunk, least)
    each = min(run.size_bytes, at_once * chunk)
    loops = run.size_bytes / each + _NVLS_STAGES
    known = generation(run.hardware)
    share = p.nvls * known.nvls * known.link / known.sheet_link
    # The loops are one message, which the network's latency delays once.
    return Cost(1, loops * p.nvls_step_us - p.hop_us, p.hop_us, loops * each / share)


def _pairs(run: _Run) -> Cost:
    """Sends to all others, each over channels of its own (``addP2pToPlan``)."""
    p, part, others = run.p, run.size_bytes / run.ranks, run.ranks - 1
    most = _P2P_CHANNELS
    while most * run.ranks > _P2P_CHANNELS and most > 1:
        most //= 2
    channels = max(1, min(most, -(-int(part) // _P2P_LEAST_BYTES)))
    each = part / channels
    if each <= _P2P_LL_BYTES:
        start = p.pair_ll_us + each / (p.pair_ll_GBps * 1e3)
        return Cost(others, start, p.pair_rank_us, part / p.ll)
    slower = _slower(run)
    wire_us = others * part / (p.pair * run.link) * slower
    channel_us = each / (p.pair_GBps * 1e3)
    own_us = part / (p.own * run.link) * slower
    # Channels and links are shared, so the slower of the two counts.
    start = p.pair_us + max(0.0, channel_us - wire_us) + own_us
    return Cost(others, start, p.pair_rank_us, part / p.pair * slower)


_Makers = dict[str, Callable[[_Run], Cost]]
_ON_NODE: _Makers = {"ring": _ring, "tree": _chain, "nvls": _nvls, "pairs": _pairs}


# ---- between nodes, by NCCL's own constants ----

_HOP_US = {"ll": 2.7, "ll128": 4.0, "simple": 14.0}
_TREE_HOP_US = {"ll": 5.0, "ll128": 8.5, "simple": 14.0}
_SHARE = {"ll": 0.5, "ll128": 0.92, "simple": 1.0}
_BASE_US = {"ll": 6.6, "ll128": 14.0, "simple": 8.4}
_TREE_SHARE = 0.92
_PAT_SHARE, _PAT_BASE_US, _PAT_RANK_US, _PAT_HOP_US = 0.75, 8.0, 2.8, 14.0 / 3.5


def _far_ring(run: _Run) -> Cost:
    protocol, size = run.choice.protocol, run.size_bytes
    share, base, step = _SHARE[protocol], _BASE_US[protocol], _HOP_US[protocol]
    if run.collective in ("broadcast", "reduce"):
        return Cost(run.ranks - 1, base, step, size / share, _pieces(run))
    return Cost(steps_of(run.collective, run.ranks), base, step, size / run.ranks / share)


def _far_tree(run: _Run) -> Cost:
    """Two trees with half of the data each, in which every member sends and receives it twice.

    NCCL cuts it into a pipeline; the rounds here share the bytes, so that they take as long.
    """
    protocol, depth = run.choice.protocol, (run.ranks - 1).bit_length()
    wire = run.size_bytes / _SHARE[protocol] / _TREE_SHARE / depth
    return Cost(2 * depth, _BASE_US[protocol], _TREE_HOP_US[protocol], wire)


def _pat(run: _Run) -> Cost:
    # Rounds of doubling distance; their bytes together are those of a ring.
    rounds = (run.ranks - 1).bit_length()
    wire = run.size_bytes * (run.ranks - 1) / run.ranks / rounds / _PAT_SHARE
    return Cost(rounds, _PAT_BASE_US + _PAT_RANK_US * run.ranks, _PAT_HOP_US, wire)


def _far_pairs(run: _Run) -> Cost:
    start = _BASE_US["simple"] + _HOP_US["simple"]
    return Cost(run.ranks - 1, start, 0.0, run.size_bytes / run.ranks)


_BETWEEN: _Makers = {"ring": _far_ring, "tree": _far_tree, "pat": _pat, "pairs": _far_pairs}
