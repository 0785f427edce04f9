# SPDX-License-Identifier: MIT
"""Layers and training steps as the kernels that they launch.

A layer is RMSNorm, grouped-query attention and a gated or plain MLP, as PyTorch runs it without
fusing across operators: queries, keys and values are one product, gate and up another one.
"""

from __future__ import annotations

from typing import NamedTuple

from astra_bridge.compute.gpu.kernels import Kernels

__all__ = ["DecoderLayer", "decoder_layer_us", "train_step_us"]

_BACKWARD_KERNELS = 2
"""Kernels of the backward pass of an operator over those of its forward pass."""

_LOSS_PASSES = 5.0
"""fp32 passes over the logits in the cross entropy, both directions: softmax read and write, loss,
gradient read and write."""


class DecoderLayer(NamedTuple):
    """A layer, or the shard of it that one tensor-parallel rank has.

    Attributes
    ----------
    hidden, ffn
        Width of the model, and of the (shard of the) MLP.
    q_heads, kv_heads, head_dim
        Of the (shard of the) attention.
    gated
        SwiGLU; else GELU.
    """

    hidden: int
    q_heads: int
    kv_heads: int
    ffn: int
    gated: bool = True
    head_dim: int = 128

    def products(self) -> list[tuple[int, int]]:
        """Outputs and inputs of its four matrix products: qkv, out, up, down."""
        width = self.q_heads * self.head_dim
        return [
            (width + 2 * self.kv_heads * self.head_dim, self.hidden),
            (self.hidden, width),
            (self.ffn * (2 if self.gated else 1), self.hidden),
            (self.hidden, self.ffn),
        ]

    def operators(self) -> list[tuple[str, int]]:
        """Operators that memory bounds, and their widths."""
        activation = "silu_mul" if self.gated else "gelu"
        return [
            ("rms_norm", self.hidden),
            ("add", self.hidden),
            ("rms_norm", self.hidden),
            (activation, self.ffn),
            ("add", self.hidden),
        ]


def _forward(
    kernels: Kernels, layer: DecoderLayer, batch: int, q_len: int, kv_len: int
) -> tuple[float, int]:
    """Time of the bodies [us], and the number of kernels."""
    tokens = batch * q_len
    total, count = 0.0, 0
    for n, k in layer.products():
        total += float(kernels.gemm(tokens, n, k))
        count += 1
    for op, columns in layer.operators():
        total += float(kernels.operator(op, tokens, columns))
        count += kernels.launches(op)
    if q_len == 1:
        total += float(kernels.decode(batch, layer.kv_heads, kv_len, layer.head_dim))
        return total, count + 2  # the parts of a long cache, and their sum
    total += float(kernels.attention(batch, layer.q_heads, q_len, kv_len, layer.head_dim))
    return total, count + 1


def _backward(kernels: Kernels, layer: DecoderLayer, batch: int, seq: int) -> tuple[float, int]:
    tokens = batch * seq
    total, count = 0.0, 0
    for n, k in layer.products():
        # The gradients of the input and of the weight.
        total += float(kernels.gemm(tokens, k, n)) + float(kernels.gemm(n, k, tokens))
        count += 2
    for op, columns in layer.operators():
        total += float(kernels.operator(op, tokens, columns, backward=True))
        count += kernels.launches(op) * _BACKWARD_KERNELS
    attention = kernels.attention(
        batch, layer.q_heads, seq, seq, layer.head_dim, direction="backward",
        kv_heads=layer.kv_heads,
    )  # fmt: skip
    return total + float(attention), count + 3


def decoder_layer_us(
    kernels: Kernels,
    layer: DecoderLayer,
    batch: int,
    q_len: int,
    kv_len: int | None = None,
    *,
    backward: bool = False,
    graph: bool = False,
) -> float:
    """Time of one layer [us].

    Parameters
    ----------
    batch, q_len, kv_len
        Sequences, query tokens of each, tokens of its cache (None: as many as queries).
    backward
        With the backward pass.
    graph
        Replayed as a CUDA graph; else launched one by one, where the host's work may take longer.

    Examples
    --------
    >>> from astra_bridge.hardware import hardware
    >>> layer = DecoderLayer(4096, 32, 8, 14336)
    >>> kernels = Kernels(hardware("h100-sxm"))
    >>> decoder_layer_us(kernels, layer, 1, 2048) < decoder_layer_us(kernels, layer, 2, 2048)
    True
    """
    total, count = _forward(kernels, layer, batch, q_len, q_len if kv_len is None else kv_len)
    if backward:
        more, kernels_more = _backward(kernels, layer, batch, q_len)
        total, count = total + more, count + kernels_more
    host = kernels.fitted.host
    if graph:
        return total + count * host.graph_us
    return max(total + count * host.stream_us, count * host.launch_us)


def train_step_us(
    kernels: Kernels,
    layer: DecoderLayer,
    layers: int,
    vocabulary: int,
    seq: int,
    batch: int,
    parameters: int,
) -> float:
    """Time of a whole step of a language model on one accelerator [us].

    Embedding, layers, head, cross entropy in fp32, backward, fused AdamW on bf16.
    """
    host = kernels.fitted.host
    forward, count = _forward(kernels, layer, batch, seq, seq)
    backward, count_backward = _backward(kernels, layer, batch, seq)
    total, count = layers * (forward + backward), layers * (count + count_backward)
    tokens = batch * seq
    for m, n, k in (
        (tokens, vocabulary, layer.hidden),
        (tokens, layer.hidden, vocabulary),
        (vocabulary, layer.hidden, tokens),
    ):
        total += float(kernels.gemm(m, n, k))
    logits = tokens * vocabulary
    # To fp32 and back, the passes of the loss; embedding and its gradient; accumulation.
    total += float(kernels.stream(logits * (2 * 6 + _LOSS_PASSES * 4)))
    total += float(kernels.stream(tokens * layer.hidden * 2 * 4 + vocabulary * layer.hidden * 2))
    # Weight, gradient and two moments of bf16: four reads, three writes.
    total += float(kernels.optimizer(parameters * 2 * 7))
    count += 20
    return max(total + count * host.stream_us, count * host.launch_us)
