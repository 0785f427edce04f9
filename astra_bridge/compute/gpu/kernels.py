# SPDX-License-Identifier: MIT
"""How long single kernels take, by class.

Each method gives the time of a kernel's body; ``start_us`` says what a launch alone adds.  All take
numbers or arrays of them, and a kernel is one or as many.  What they have in common:

* the roofline (Williams, Waterman and Patterson, CACM 2009) with a smooth corner: compute and
  memory overlap, but not wholly, so their times are joined by a p-norm;
* a processor that stands still costs as much as one that works: whole waves of tiles (NVIDIA,
  "Matrix Multiplication Background User's Guide", sections on tile and wave quantization);
* tensor cores that work without a pause draw more power than the card may, and its clock falls
  (``throttle``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.hardware import Fitted, Hardware

__all__ = ["TILES", "Kernels"]

Numbers = NDArray[np.float64] | NDArray[np.int64] | float | int
Times = NDArray[np.float64]

_SIDES = [
    (a, b) for a in (64, 128, 192, 256, 320) for b in range(16, 257, 16) if a * b <= 256 * 192
]
TILES = np.array(sorted({*_SIDES, *((b, a) for a, b in _SIDES)}), np.float64)
"""Output tiles that libraries of matrix products have: rows and columns, either way round."""

_BUSY_US = 100.0
"""Time constant of the clock's fall; measurements pause about as long between two kernels."""

_QUERY_TILE = 128
"""Query tokens of one tile (Shah et al., FlashAttention-3, arXiv 2407.08608, section 3)."""

_BACKWARD_FLOPS = 2.5
"""Of backward over forward attention: five products for two (Dao, arXiv 2307.08691, section 3)."""

_ELEMENT_OVERLAP = 8.0
"""Exponent that joins arithmetic of elements and traffic: all but the longer one."""

_GROWTH_COLUMNS = 4096
"""Row that ``element_ps`` is said of, where it grows with the row."""

_HALF = 2
"""Bytes of bf16 and fp16."""


class Kernels:
    """Times of kernels on an accelerator [us].

    Parameters
    ----------
    hardware
        Whose.
    fitted
        Other parameters than those of the profile.

    Raises
    ------
    InputError
        The profile has no parameters.

    Examples
    --------
    >>> from astra_bridge.hardware import hardware
    >>> kernels = Kernels(hardware("h100-sxm"))
    >>> times = kernels.gemm([1024, 4096], 4096, 4096)
    >>> bool(times[0] < times[1])
    True
    """

    def __init__(self, hardware: Hardware, fitted: Fitted | None = None) -> None:
        self.hardware = hardware
        self.fitted = hardware.fitted if fitted is None else fitted
        self._sheet = hardware.datasheet
        self._memory_MBpus = self._sheet.memory_GBps * 1e-3

    # Matrix products.

    def gemm(self, m: Any, n: Any, k: Any, dtype: str = "bf16") -> Times:
        """The product of an (m, k) by a (k, n) matrix, of ``dtype`` and with a result in bf16.

        Of all tiles the best: ``ceil(m / a) ceil(n / b)`` tiles of a x b run in whole waves over
        the processors; each takes ``2 a b k`` operations at the efficient peak of one processor,
        at least ``k_ns`` per step of k, and ``wave_us`` around them.

        Raises
        ------
        InputError
            The profile has no such precision.
        """
        parameters = self._precision(dtype)
        peak = self._peak_per_us(dtype) * parameters.efficiency / self._sheet.processors
        m, n, k = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (m, n, k)))
        a, b = TILES.T
        tiles = np.ceil(m[..., None] / a) * np.ceil(n[..., None] / b)
        waves = np.ceil(tiles / self._sheet.processors)
        tile_us = k[..., None] * (2 * a * b / peak + parameters.k_ns * 1e-3) + parameters.wave_us
        compute_us = (waves * tile_us).min(axis=-1)
        element = 1 if dtype == "fp8" else _HALF
        read, written = element * (m * k + n * k), _HALF * m * n
        memory_us = self._memory_us(read, written, parameters.memory, parameters.write_back)
        joined = _norm(parameters.overlap, compute_us, memory_us)
        slower = 1 + parameters.throttle * compute_us / (compute_us + _BUSY_US)
        return np.asarray(joined * slower, np.float64)

    def _precision(self, dtype: str) -> Any:
        known = self.fitted.gemm
        if dtype not in known or dtype not in self._sheet.tensor_TFLOPS:
            both = [one for one in known if one in self._sheet.tensor_TFLOPS]
            raise InputError(
                f"{self.hardware.name} has no matrix products of {dtype}; it has {', '.join(both)}",
                key="dtype",
            )
        return known[dtype]

    def _peak_per_us(self, dtype: str) -> float:
        return self._sheet.tensor_TFLOPS[dtype] * 1e6

    def _memory_us(self, read: Any, written: Any, share: float, write_back: float) -> Times:
        """Time of traffic in bytes.

        What is read displaces lines of the cache that others wrote, which go to memory first; what
        is written itself stays in the cache at the end, and so pays for as much.
        """
        cache = (self._sheet.cache_MB or 0) * 1e6
        displaced = np.minimum(np.maximum(read - written, 0), cache)
        traffic = read + written + write_back * displaced
        return np.asarray(traffic / (self._memory_MBpus * share * 1e6), np.float64)

    # Attention.

    def attention(
        self, batch: Any, heads: Any, q_len: Any, kv_len: Any, head_dim: Any, *,
        direction: str = "forward", causal: bool = True, kv_heads: Any = None,
    ) -> Times:  # fmt: skip
        """Fused attention in bf16 (Dao et al., FlashAttention, arXiv 2205.14135).

        ``4 heads q_len kv_len head_dim`` operations, about half of them where it is causal, 2.5
        times as many backward.  At the end, processors wait for the longest tile.  Where heads
        share keys and values (``kv_heads``), their gradients are written per head, then summed.
        """
        parameters = self.fitted.attention[direction]
        batch, heads, q, kv, d = (np.asarray(x, np.float64) for x in
                                  (batch, heads, q_len, kv_len, head_dim))  # fmt: skip
        # A causal query tile of rows i .. i + 127 sees the keys up to i + 127.
        seen = kv - np.maximum(q - _QUERY_TILE, 0) / 2 if causal else kv
        times = _BACKWARD_FLOPS if direction == "backward" else 1.0
        flops = times * 4 * batch * heads * q * seen * d
        longest = times * 4 * np.minimum(q, _QUERY_TILE) * kv * d
        rate = self._peak_per_us("bf16") * parameters.efficiency * d / (d + parameters.head_half)
        processors = self._sheet.processors
        # As many tiles as processors: the longest one alone; many more: its share.
        busy_us = np.maximum(flops, longest) / rate
        tail_us = parameters.tail * longest * processors / rate
        tail_us = tail_us / (1 + tail_us / np.maximum(busy_us, 1e-9))
        compute_us = busy_us + tail_us
        slower = 1 + parameters.throttle * compute_us / (compute_us + _BUSY_US)
        shared = 0.0 if kv_heads is None or direction == "forward" else heads > kv_heads
        summed_us = self.stream(shared * 2 * _HALF * batch * heads * kv * d)
        return np.asarray(compute_us * slower + summed_us, np.float64)

    def decode(self, batch: Any, kv_heads: Any, kv_len: Any, head_dim: Any) -> Times:
        """Attention of one query token per sequence: the cache of keys and values is read once."""
        parameters = self.fitted.decode
        read = 2.0 * _HALF * np.asarray(batch, np.float64) * kv_heads * kv_len * head_dim
        return self._memory_us(read, 0.0, parameters.memory, parameters.write_back)

    # Memory.

    def operator(self, op: str, rows: Any, columns: Any, *, backward: bool = False) -> Times:
        """An operator on rows x columns elements of bf16 that memory bounds.

        Traffic is ``passes`` over the elements; a row goes through one processor, which holds up to
        16 at a time (``row_ns``); costly arithmetic takes ``element_ps``, which hides behind the
        traffic.
        """
        shared = self.fitted.memory_bound
        rows, columns = np.broadcast_arrays(np.asarray(rows, np.float64), columns)
        found = np.zeros(rows.shape, np.float64)
        todo = np.ones(rows.shape, np.bool_)
        more = self.fitted.host.backward if backward else 1.0
        for one in self._variants(op):
            here = todo if one.most_columns is None else todo & (columns <= one.most_columns)
            elements = rows * columns * more
            memory_us = self._memory_us(0.0, _HALF * one.passes * elements, shared.memory, 0.0)
            grown = (columns / _GROWTH_COLUMNS) ** one.growth
            compute_us = one.element_ps * grown * elements * 1e-6
            waves = np.ceil(rows / (16 * self._sheet.processors))
            row_us = waves * columns * one.row_ns * 1e-3
            streamed = _norm(_ELEMENT_OVERLAP, memory_us, compute_us)
            joined = _norm(shared.overlap, streamed, row_us)
            found = np.where(here, joined, found)
            todo = todo & ~here
        return found

    def _variants(self, op: str) -> Any:
        known = self.fitted.operators
        if op not in known:
            raise InputError(
                f"{self.hardware.name} has no operator {op}; it has {', '.join(known)}", key="op"
            )
        return known[op]

    def launches(self, op: str) -> int:
        """Kernels of an operator that memory bounds."""
        return int(self._variants(op)[-1].kernels)

    def stream(self, moved_bytes: Any) -> Times:
        """Any kernel that reads and writes so many bytes once, all together."""
        moved = np.asarray(moved_bytes, np.float64)
        return self._memory_us(0.0, moved, self.fitted.memory_bound.memory, 0.0)

    def optimizer(self, moved_bytes: Any) -> Times:
        """A fused optimizer that moves so many bytes."""
        moved = np.asarray(moved_bytes, np.float64)
        return self._memory_us(0.0, moved, self.fitted.optimizer.memory, 0.0)

    def copy(self, memory: str, direction: str, size_bytes: Any) -> Times:
        """A copy of ``pinned`` or ``pageable`` memory of the host, ``h2d`` or ``d2h``.

        Its start is part of it.  Pageable memory goes through a buffer of the driver, whose first
        part is slower (NVIDIA, "CUDA C++ Best Practices Guide", section on pinned memory).
        """
        size = np.asarray(size_bytes, np.float64)
        known = self.fitted.copies
        one = known.get(f"{direction}-{memory}", known.get(memory))
        if one is None:
            raise InputError(
                f"{self.hardware.name} has no copies {direction} of {memory} memory; it has "
                f"{', '.join(known)}",
                key="memory",
            )
        first = np.minimum(size, one.small_bytes)
        small_GBps = one.rate_GBps if one.small_GBps is None else one.small_GBps
        rest = (size - first) / (one.rate_GBps * 1e3)
        return np.asarray(one.start_us + first / (small_GBps * 1e3) + rest, np.float64)


def _norm(exponent: float, *times: Any) -> Times:
    """The p-norm of times; the longest one stands outside, so that nothing overflows."""
    longest = np.maximum.reduce([np.asarray(one, np.float64) for one in times])
    scale = np.where(longest > 0, longest, 1.0)
    return np.asarray(scale * sum((one / scale) ** exponent for one in times) ** (1 / exponent)
                      * (longest > 0), np.float64)  # fmt: skip
