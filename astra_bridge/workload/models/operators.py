# SPDX-License-Identifier: MIT
"""What a rank computes, as operators by shape: operations, bytes moved and kernels of each.

An operator is a word and numbers of the attribute ``kernels`` (docs/formats/trace.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Cost", "Operator", "Pass", "attention", "cost", "gemm"]

_HALF = 2
"""Bytes of bf16 and fp16."""

# Reads and writes of each element, at least.
_PASSES = {
    "copy": 2, "add": 3, "gelu": 2, "silu_mul": 3, "layer_norm": 2, "rms_norm": 2, "softmax": 2,
}  # fmt: skip


class Pass(Enum):
    """What is done with an operator."""

    FORWARD = "forward"
    BACKWARD = "backward"
    """Gradients of inputs and of weights."""
    INPUT = "input gradients"
    WEIGHT = "weight gradients"


class Operator(NamedTuple):
    """An operator.

    Attributes
    ----------
    word : str
        ``gemm``, ``attention``, an operator that memory bounds, or ``stream``.
    numbers : tuple of int
        Its shape.
    times : int
        How often it runs.
    words : tuple of str
        What else is said of it: ``fp8``, ``full``.
    weighted : bool
        Of a product: whether one side are weights, whose gradient can be put off.
    sharing : int
        Of ``decode``: query heads that share a head of keys and values.
    operations : int
        Of ``stream``: those of what memory bounds all the same.
    """

    word: str
    numbers: tuple[int, ...]
    times: int = 1
    words: tuple[str, ...] = ()
    weighted: bool = False
    sharing: int = 1
    operations: int = 0


class Cost(NamedTuple):
    """What a compute node says.

    Attributes
    ----------
    operations : int
        Floating-point operations, multiply and add counted as two.
    moved_bytes : int
    kernels : str
    """

    operations: int
    moved_bytes: int
    kernels: str


def gemm(m: int, n: int, k: int, dtype: str = "bf16", times: int = 1) -> Operator:
    """The product of m tokens with weights of n outputs and k inputs."""
    words = () if dtype == "bf16" else (dtype,)
    return Operator("gemm", (max(1, m), max(1, n), max(1, k)), times, words, True)


def attention(
    batch: int, heads: int, kv_heads: int, queries: int, keys: int, dim: int, *, causal: bool = True
) -> Operator:
    """Fused attention; where it is causal, half of its pairs are left out."""
    numbers = (batch, heads, kv_heads, queries, keys, dim)
    return Operator("attention", numbers, 1, () if causal else ("full",))


def _operations(one: Operator, which: Pass) -> int:
    if one.word == "gemm":
        m, n, k = one.numbers
        each = 2 * m * n * k
        if not one.weighted:
            times = {Pass.FORWARD: 1, Pass.WEIGHT: 0}.get(which, 2)
        else:
            times = 2 if which is Pass.BACKWARD else 1
        return one.times * times * each
    if one.word == "attention":
        batch, heads, _, queries, keys, dim = one.numbers
        each = 4 * batch * heads * queries * keys * dim
        if "full" not in one.words:
            each //= 2
        # Backward, it computes the scores again: five products for two (Dao, arXiv 2307.08691).
        return one.times * {Pass.FORWARD: each, Pass.WEIGHT: 0}.get(which, each * 5 // 2)
    if one.word == "decode":
        batch, kv_heads, keys, dim = one.numbers
        return one.times * 4 * batch * kv_heads * one.sharing * keys * dim
    return one.times * one.operations * {Pass.FORWARD: 1, Pass.WEIGHT: 0}.get(which, 2)


def _moved(one: Operator, which: Pass) -> int:
    if one.word == "gemm":
        m, n, k = one.numbers
        element = 1 if "fp8" in one.words else _HALF
        forward = element * (m * k + n * k) + _HALF * m * n
        gradients = element * (m * n + n * k) + _HALF * m * k
        weight = element * (m * n + m * k) + _HALF * n * k
        if not one.weighted:
            gradients, weight = 2 * gradients, 0
        parts = {Pass.FORWARD: forward, Pass.INPUT: gradients, Pass.WEIGHT: weight}
        return one.times * parts.get(which, gradients + weight)
    if which is Pass.WEIGHT:
        return 0
    more = 1 if which is Pass.FORWARD else 2
    if one.word == "attention":
        batch, heads, kv_heads, queries, keys, dim = one.numbers
        return more * one.times * _HALF * 2 * batch * dim * (heads * queries + kv_heads * keys)
    if one.word == "decode":
        batch, kv_heads, keys, dim = one.numbers
        return one.times * _HALF * 2 * batch * kv_heads * keys * dim
    if one.word in ("stream", "optimizer"):
        return more * one.times * one.numbers[0]
    rows, columns = one.numbers
    return more * one.times * _PASSES[one.word] * _HALF * rows * columns


def _texts(one: Operator, which: Pass) -> list[str]:
    often = f"{one.times}*" if one.times > 1 else ""

    def text(word: str, numbers: Iterable[int], *words: str) -> str:
        return " ".join((f"{often}{word}", *map(str, numbers), *words))

    if which is Pass.FORWARD:
        return [text(one.word, one.numbers, *one.words)]
    if one.word == "gemm":
        m, n, k = one.numbers
        gradients, weight = text("gemm", (m, k, n), *one.words), text("gemm", (n, k, m), *one.words)
        if not one.weighted:
            return [] if which is Pass.WEIGHT else [gradients, gradients]
        return {Pass.INPUT: [gradients], Pass.WEIGHT: [weight]}.get(which, [gradients, weight])
    if which is Pass.WEIGHT:
        return []
    if one.word in ("stream", "optimizer"):
        return [text(one.word, (2 * one.numbers[0],))]
    return [text(one.word, one.numbers, "backward", *one.words)]


@lru_cache(maxsize=1 << 12)
def _cost(operators: tuple[Operator, ...], which: Pass) -> Cost:
    texts = [text for one in operators for text in _texts(one, which)]
    return Cost(
        sum(_operations(one, which) for one in operators),
        sum(_moved(one, which) for one in operators),
        "; ".join(texts),
    )


def cost(operators: Sequence[Operator], which: Pass = Pass.FORWARD) -> Cost:
    """What operators cost, one after the other.

    Examples
    --------
    >>> cost([gemm(512, 1024, 256)], Pass.BACKWARD)
    Cost(operations=536870912, moved_bytes=3670016, kernels='gemm 512 256 1024; gemm 1024 256 512')
    """
    return _cost(tuple(operators), which)
