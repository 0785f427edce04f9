# SPDX-License-Identifier: MIT
"""The parameters of the compute model ``gpu``, each with its meaning.

Efficiencies are shares of a value of the datasheet, so that the parameters of one accelerator,
with the datasheet of another of the same design, predict that other one.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = [
    "AttentionParameters",
    "CopyParameters",
    "Fitted",
    "GemmParameters",
    "HostParameters",
    "NcclParameters",
    "OperatorParameters",
    "StreamParameters",
]

Share = Annotated[float, msgspec.Meta(gt=0, le=2)]
"""Of a value of the datasheet.  Above 1 where the clock is above the datasheet's."""

Time = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Number = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class GemmParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Matrix products of one precision.

    Attributes
    ----------
    efficiency
        Of the tensor cores' peak, in the inner loop.
    memory
        Of the memory's bandwidth.
    start_us
        Of a product that is launched alone.
    wave_us
        What a wave of tiles costs beside its inner loop: prologue and epilogue.
    k_ns
        What a step of 1 in k costs at least, however small the tile.
    overlap
        Exponent of the norm that joins the times of compute and of memory: 1 adds them, infinity
        takes the longer one.
    throttle
        How much longer a product takes that keeps the tensor cores busy: the clock falls.
    write_back
        Bytes written back per byte read, while the cache is full of what others wrote.
    """

    efficiency: Share
    memory: Share
    start_us: Time
    wave_us: Time
    k_ns: Time
    overlap: Annotated[float, msgspec.Meta(ge=1, le=100)]
    throttle: Number
    write_back: Number


class AttentionParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fused attention of many query tokens, one direction.

    Attributes
    ----------
    efficiency
        Of the tensor cores' peak.
    start_us
        Of a launch alone.
    tail
        Part of the longest tile that runs while the others have ended.
    head_half
        Head size at which half of the efficiency is reached.
    throttle
        As of products.
    floor_us
        No launch takes less: the host's work for it.
    """

    efficiency: Share
    start_us: Time
    tail: Number
    head_half: Number
    throttle: Number
    floor_us: Time = 0.0


class StreamParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Kernels that memory bounds.

    Attributes
    ----------
    memory
        Of the memory's bandwidth.
    start_us
        Of a launch alone.
    write_back
        As of products.
    floor_us
        No launch takes less: the host's work for it.
    overlap
        Exponent of the norm that joins traffic and the latency of rows.
    """

    memory: Share
    start_us: Time
    write_back: Number = 0.0
    floor_us: Time = 0.0
    overlap: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2.0


class OperatorParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An element-wise or row-wise operator.

    Attributes
    ----------
    passes
        Times that each element is read or written.
    kernels
        Launches.
    element_ps
        Arithmetic of one element, over the whole accelerator.
    growth
        Exponent of the length of rows with which ``element_ps`` grows, from 4096 on both ways: a
        wider block of threads waits longer for all of them.
    row_ns
        One element of a row, which one processor works through: the latency of few long rows.
    most_columns
        Longest row that this holds for; None is all.
    """

    passes: Positive
    kernels: int = 1
    element_ps: Number = 0.0
    growth: Number = 0.0
    row_ns: Number = 0.0
    most_columns: int | None = None


class CopyParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Copies of one direction between the host's memory and the accelerator's.

    Attributes
    ----------
    start_us
        Of a copy.
    rate_GBps
        Of long copies.
    small_GBps
        Of the first ``small_bytes``; None is the same.
    small_bytes
        Where long copies begin.
    """

    start_us: Time
    rate_GBps: Positive
    small_GBps: Positive | None = None
    small_bytes: Annotated[float, msgspec.Meta(ge=0, le=1e12)] = 4194304


class HostParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Between kernels, when many run one after the other.

    Attributes
    ----------
    graph_us
        From one kernel to the next in a replayed graph.
    stream_us
        From one kernel to the next in a stream that the host keeps full.
    launch_us
        Host's work for one kernel, in a framework that launches one by one.
    backward
        Traffic of the backward pass of an operator that memory bounds, over that of its forward
        pass.
    """

    graph_us: Time
    stream_us: Time
    launch_us: Time
    backward: Positive


class NcclParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """NCCL on one node of NVSwitches.

    Attributes
    ----------
    hop_us
        What a message takes on an idle network, to a switch and from it: part of each step below,
        which a simulated network adds by itself.  Assumed, not fitted.
    launch_us
        Of a ring or tree.
    ll_step_us, ll128_step_us, simple_step_us
        Of a step of the algorithm, by protocol.
    simple_us
        What the protocol Simple costs once.
    ll_channel_GBps
        Of a channel, by LL.
    ll, ll128, simple
        Of the links' bandwidth, by protocol.
    own
        Of the links' bandwidth: what a rank does with its own part, which crosses no link.
    rate_growth
        Exponent of the size with which large bandwidths grow, those of 512 MiB being full.
    nvls_step_us
        Of a loop of in-switch reduction.
    nvls
        Of the links' bandwidth as NCCL counts it for in-switch reduction.
    pair_us, pair_rank_us, pair
        Of an all-to-all: once, for each peer, and of the links' bandwidth.
    pair_GBps
        Of a channel of an all-to-all.
    pair_ll_us, pair_ll_GBps
        The same by LL: once, and of a channel.
    """

    launch_us: Time
    ll_step_us: Time
    ll128_step_us: Time
    simple_us: Time
    simple_step_us: Time
    ll_channel_GBps: Positive
    ll: Positive
    ll128: Positive
    simple: Positive
    own: Positive
    rate_growth: Annotated[float, msgspec.Meta(ge=0, le=1)]
    nvls_step_us: Time
    nvls: Positive
    pair_us: Time
    pair_rank_us: Time
    pair: Positive
    pair_GBps: Positive
    pair_ll_us: Time
    pair_ll_GBps: Positive
    hop_us: Time = 0.2

    def scaled(self, latency: float) -> NcclParameters:
        """With all times, but not the network's, so many times as long.

        Examples
        --------
        >>> from astra_bridge.hardware import hardware
        >>> h100 = hardware("h100-sxm").nccl
        >>> h100.scaled(2).launch_us / h100.launch_us, h100.scaled(2).ll == h100.ll
        (2.0, True)
        """
        times = [one for one in self.__struct_fields__ if one.endswith("_us") and one != "hop_us"]
        return msgspec.structs.replace(self, **{one: getattr(self, one) * latency for one in times})


class Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All fitted parameters.

    Attributes
    ----------
    to
        What they were fitted to, in words.
    gemm
        By precision.
    attention
        ``forward`` and ``backward``.
    decode
        Attention of one query token on a cache of keys and values.
    memory_bound
        Operators; ``operators`` says what differs between them: variants, those of short rows
        first.
    optimizer
        Fused optimizers.
    copies
        ``pinned``, either way; ``h2d-pageable``, ``d2h-pageable``.
    host
        Between kernels.
    """

    to: str
    gemm: dict[str, GemmParameters]
    attention: dict[str, AttentionParameters]
    decode: StreamParameters
    memory_bound: StreamParameters
    operators: dict[str, tuple[OperatorParameters, ...]]
    optimizer: StreamParameters
    copies: dict[str, CopyParameters]
    host: HostParameters
