# SPDX-License-Identifier: MIT
"""Parameters, operations, bytes of activations and of communication: all formulas, with sources.

Symbols as in the papers: b sequences of s tokens, hidden size h, a heads, vocabulary V, degree of
tensor parallelism t.  Sizes are of one rank; with all degrees 1 they are those of the model.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from astra_bridge.workload.models.shape import (
    Attention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
    Model,
    SelectiveScan,
    StateSpace,
)

__all__ = [
    "OPTIMIZER_BYTES",
    "SCAN_OPERATIONS",
    "Weights",
    "active_parameters",
    "activation_bytes",
    "cache_bytes",
    "checkpoint_parameters",
    "embedding_parameters",
    "flops_per_token",
    "head_parameters",
    "layer_weights",
    "optimizer_traffic_bytes",
    "parameters",
    "routed_tokens",
    "shared_keys",
]

_HALF = 2
"""Bytes of an activation or a weight in bf16."""

OPTIMIZER_BYTES = 12
"""Adam in mixed precision keeps weight, momentum and variance in fp32 (Rajbhandari et al., ZeRO,
arXiv 1910.02054, section 3.1)."""


SCAN_OPERATIONS = 9
"""Of the selective scan, for each token and element of the state: exp(dt A), dt B u, the state,
and its product with C, as the authors of Mamba count them (state-spaces/mamba, issue 110)."""


def optimizer_traffic_bytes(gradient_bytes: int) -> int:
    """Bytes that Adam reads and writes per parameter: the gradient, its state, the new weight."""
    return gradient_bytes + 2 * OPTIMIZER_BYTES + _HALF


# Parameters.


class Weights(NamedTuple):
    """Parameters of a layer on one rank.

    Attributes
    ----------
    dense, experts : int
        Of experts, and of all else: they are reduced over different ranks.
    """

    dense: int
    experts: int


def shared_keys(kv_heads: int, t: int) -> int:
    """Heads of keys and values of one of t ranks: at least one, which ranks then share."""
    return max(1, kv_heads // t)


def _attention_weights(one: Attention, h: int, t: int) -> int:
    queries, keys = one.heads // t * one.head_dim, shared_keys(one.kv_heads, t) * one.head_dim
    products = h * (queries + 2 * keys) + queries * h
    biases = one.qkv_bias * (queries + 2 * keys) + one.out_bias * h
    return products + biases + one.head_norms + one.sinks * (one.heads // t)


def _latent_weights(one: LatentAttention, h: int, t: int) -> int:
    """DeepSeek-V2, equations 9 to 19; what compresses is on every rank."""
    heads, key = one.heads // t, one.nope_dim + one.rope_dim
    if one.query_rank:
        queries = one.query_rank * (h + 1 + heads * key)
    else:
        queries = h * heads * key
    compressed = h * (one.kv_rank + one.rope_dim) + one.kv_rank
    expanded = one.kv_rank * heads * (one.nope_dim + one.value_dim)
    return queries + compressed + expanded + heads * one.value_dim * h


def _state_space_weights(one: StateSpace, h: int, t: int) -> int:
    """Dao and Gu, section 7.1: one product in, a convolution, A, D and the bias of dt, a norm."""
    heads, groups = one.heads // t, max(1, one.groups // t)
    width, states = heads * one.head_dim, 2 * groups * one.state
    into = 2 * width + states + heads
    convolved = (width + states) * (one.convolution + one.convolution_bias)
    biases = one.bias * (into + h)
    return h * into + convolved + 3 * heads + width + width * h + biases


def _scan_weights(one: SelectiveScan, h: int, t: int) -> int:
    """Gu and Dao, section 3.4: a product in, a convolution, what drives the scan, A, D, one out."""
    width, driven = one.width // t, one.rank + 2 * one.state
    convolved = width * (one.convolution + one.convolution_bias)
    steps = width * (one.rank + 1)
    products = 2 * h * width + width * driven + steps + width * h
    biases = one.bias * (2 * width + h)
    return products + convolved + width * (one.state + 1) + biases + one.inner_norms * driven


def _mlp_weights(one: Mlp, h: int, t: int) -> int:
    matrices, width = 3 if one.gated else 2, one.width // t
    return matrices * h * width + one.bias * (width * (matrices - 1) + h)


@lru_cache(maxsize=1 << 10)
def layer_weights(model: Model, layer: Layer, t: int = 1, e: int = 1) -> Weights:
    """Parameters of a layer on one of t tensor-parallel and e expert-parallel ranks.

    Examples
    --------
    >>> from astra_bridge.workload.models.config import named_model
    >>> llama = named_model("llama-3.1-8b")
    >>> layer_weights(llama, llama.layers[0]).dense
    218112000
    """
    h, dense, experts = model.hidden, 0, 0
    if isinstance(layer.mixer, Attention):
        dense += _attention_weights(layer.mixer, h, t)
    elif isinstance(layer.mixer, LatentAttention):
        dense += _latent_weights(layer.mixer, h, t)
    elif isinstance(layer.mixer, StateSpace):
        dense += _state_space_weights(layer.mixer, h, t)
    elif isinstance(layer.mixer, SelectiveScan):
        dense += _scan_weights(layer.mixer, h, t)
    if isinstance(layer.mlp, Mlp):
        dense += _mlp_weights(layer.mlp, h, t)
    elif isinstance(layer.mlp, Experts):
        one = layer.mlp
        dense += h * one.count + one.router_bias * one.count + one.shared_gate * h
        if one.shared_width:
            dense += _mlp_weights(Mlp(one.shared_width, one.gated), h, t)
        experts = one.count // e * _mlp_weights(Mlp(one.width, one.gated, one.bias), h, t)
    return Weights(dense + layer.norms * h * (2 if model.layer_norm else 1), experts)


def embedding_parameters(model: Model, t: int = 1) -> int:
    """Parameters of the embedding, whose vocabulary is split, and of learned positions."""
    return -(-model.vocabulary // t) * model.hidden + model.positions * model.hidden


def head_parameters(model: Model, t: int = 1) -> int:
    """Parameters of the last norm, and of the head where it is not the embedding."""
    norm = model.hidden * (2 if model.layer_norm else 1)
    return norm + (0 if model.tied else -(-model.vocabulary // t) * model.hidden)


def parameters(model: Model) -> int:
    """All parameters of a model.

    Examples
    --------
    >>> from astra_bridge.workload.models.config import named_model
    >>> parameters(named_model("llama-3.1-8b"))
    8030261248
    """
    layers = sum(sum(layer_weights(model, layer)) for layer in model.layers)
    return embedding_parameters(model) + layers + head_parameters(model)


def checkpoint_parameters(model: Model) -> int:
    """All parameters of a model and of the modules that predict further tokens.

    Such a module is a layer as the last one is, three norms, a product of twice the hidden size,
    and, in a checkpoint, copies of embedding and head (DeepSeek-V3, arXiv 2412.19437, section 2.2).

    Examples
    --------
    >>> from astra_bridge.workload.models.config import named_model
    >>> checkpoint_parameters(named_model("deepseek-v3"))
    684489845504
    """
    h = model.hidden
    each = sum(layer_weights(model, model.layers[-1])) + 2 * h * h + 3 * h
    each += 2 * model.vocabulary * h
    return parameters(model) + model.predictors * each


def active_parameters(model: Model, *, embedding: bool = False) -> int:
    """Parameters that a token is multiplied with: of experts, those that it goes to.

    Parameters
    ----------
    embedding
        Whether the embedding counts, of which a token takes one row; the head always does, also
        where it is the same.

    Examples
    --------
    >>> from astra_bridge.workload.models.config import named_model
    >>> model = named_model("mixtral-8x7b")
    >>> active_parameters(model), active_parameters(model, embedding=True)
    (12748853248, 12879925248)
    """
    found = head_parameters(model) + (model.vocabulary * model.hidden if model.tied else 0)
    if embedding:
        found += embedding_parameters(model) - (
            model.vocabulary * model.hidden if model.tied else 0
        )
    for layer in model.layers:
        weights = layer_weights(model, layer)
        found += weights.dense
        if isinstance(layer.mlp, Experts):
            found += weights.experts * layer.mlp.top_k // layer.mlp.count
    return found


# Operations.


def _products(model: Model, layer: Layer) -> int:
    """Weights of a layer that a token is multiplied with, without biases and norms."""
    h, mixer, mlp, found = model.hidden, layer.mixer, layer.mlp, 0
    if isinstance(mixer, Attention):
        found += h * (2 * mixer.heads + 2 * mixer.kv_heads) * mixer.head_dim
    elif isinstance(mixer, LatentAttention):
        found += _latent_weights(mixer, h, 1) - mixer.query_rank - mixer.kv_rank
    elif isinstance(mixer, StateSpace):
        width = mixer.heads * mixer.head_dim
        found += h * (3 * width + 2 * mixer.groups * mixer.state + mixer.heads)
    elif isinstance(mixer, SelectiveScan):
        found += mixer.width * (3 * h + 2 * mixer.rank + 2 * mixer.state)
    if isinstance(mlp, Mlp):
        found += (3 if mlp.gated else 2) * h * mlp.width
    elif isinstance(mlp, Experts):
        found += h * mlp.count
        found += (3 if mlp.gated else 2) * h * (mlp.top_k * mlp.width + mlp.shared_width)
    return found


def _mixing(layer: Layer, s: int) -> int:
    """Operations of a token with the others, forward: no weights take part."""
    one = layer.mixer
    if isinstance(one, Attention):
        return 4 * min(s, one.window or s) * one.heads * one.head_dim
    if isinstance(one, LatentAttention):
        return 2 * s * one.heads * (one.nope_dim + one.rope_dim + one.value_dim)
    if isinstance(one, StateSpace):
        # Dao and Gu, section 6: within a chunk of Q tokens scores (2 Q N each group) and their
        # product with the inputs (2 Q P each head); to and from the states 2 N P each.
        q = min(s, one.chunk)
        within = 2 * q * (one.groups * one.state + one.heads * one.head_dim)
        return within + 4 * one.heads * one.state * one.head_dim
    if isinstance(one, SelectiveScan):
        return SCAN_OPERATIONS * one.width * one.state
    return 0


def flops_per_token(model: Model, s: int, *, backward: bool = True) -> int:
    """Floating-point operations of a model per token in sequences of s tokens.

    2 for each weight that a token is multiplied with and 4 s h for attention over s tokens (causal
    or not), and twice that backward: Narayanan et al., arXiv 2104.04473, appendix ("FLOPs of a
    layer": 24 b s h^2 + 4 b s^2 h, head 2 b s h V); Chowdhery et al., PaLM, arXiv 2204.02311,
    appendix B (6 N + 12 L H Q T).

    Parameters
    ----------
    s
        Tokens of a sequence.
    backward
        Whether the backward pass counts too.
    """
    forward = 2 * model.vocabulary * model.hidden
    forward += sum(2 * _products(model, layer) + _mixing(layer, s) for layer in model.layers)
    return forward * (3 if backward else 1)


def routed_tokens(tokens: int, top_k: int, experts: int, own: int) -> int:
    """Tokens that each of the own experts gets, of all that `tokens` of a rank go to.

    The ranks that share the experts have as many tokens each, so what one sends it also gets.
    """
    return max(1, -(-tokens * top_k // own)) if experts else 0


# Memory.


def activation_bytes(
    model: Model, layer: Layer, b: int, s: int, t: int = 1, *,
    sequence_parallel: bool = True, fused: bool = True, selective: bool = False,
) -> int:  # fmt: skip
    """Bytes that a layer keeps of b sequences of s tokens for its backward pass, on one rank.

    Korthikanti et al., arXiv 2205.05198, section 4: attention 11 s b h + 5 a s^2 b, feed-forward
    19 s b h, norms 4 s b h, of which tensor parallelism splits all but 10 s b h, and sequence
    parallelism these too.  Here in terms of the shapes, so that they hold with fewer heads of keys
    and gates; fused attention keeps no scores (Dao et al., arXiv 2205.14135).

    Parameters
    ----------
    b, s
        Sequences, and tokens of each that the rank has.
    selective
        Attention computes its scores again (section 5).
    """
    h, tokens = model.hidden, b * s
    row = _HALF * tokens * h  # what stands once for each token
    mask = tokens * h if model.dropout else 0
    whole, split = layer.norms * row, 0
    mixer, mlp = layer.mixer, layer.mlp
    if isinstance(mixer, Attention):
        whole += row + mask
        width = (2 * mixer.heads + 2 * mixer.kv_heads) * mixer.head_dim
        split += _HALF * tokens * width
        if not fused and not selective:
            # Scores, their softmax, and a mask of one byte.
            split += 5 * mixer.heads * s * s * b
    elif isinstance(mixer, LatentAttention):
        whole += row + _HALF * tokens * (mixer.query_rank + mixer.kv_rank + mixer.rope_dim)
        key = mixer.nope_dim + mixer.rope_dim
        split += _HALF * tokens * mixer.heads * (2 * key + 2 * mixer.value_dim)
    elif isinstance(mixer, StateSpace):
        width = mixer.heads * mixer.head_dim
        whole += row
        split += _HALF * tokens * (4 * width + 4 * mixer.groups * mixer.state)
    elif isinstance(mixer, SelectiveScan):
        # States are computed again (Gu and Dao, section 3.3.2).
        whole += row + _HALF * tokens * (mixer.rank + 2 * mixer.state)
        split += _HALF * tokens * 4 * mixer.width
    if isinstance(mlp, Mlp):
        whole += row + mask
        split += _HALF * tokens * mlp.width * (3 if mlp.gated else 2)
    elif isinstance(mlp, Experts):
        whole += row + 4 * tokens * mlp.count
        widths = mlp.top_k * mlp.width + mlp.shared_width
        split += _HALF * tokens * (widths * (3 if mlp.gated else 2) + 2 * mlp.top_k * h)
    return (whole + split) // t if sequence_parallel else whole + split // t


def cache_bytes(layer: Layer, tokens: int, t: int = 1) -> int:
    """Bytes of keys and values that a layer keeps of tokens, on one rank.

    2 kv d elements per token; latent attention keeps what they are made of (DeepSeek-V2, section
    2.1.4); a state space keeps a state of a fixed size for each sequence, which counts as nothing.
    """
    if isinstance(layer.mixer, Attention):
        kept = min(tokens, layer.mixer.window or tokens)
        return 2 * _HALF * kept * shared_keys(layer.mixer.kv_heads, t) * layer.mixer.head_dim
    if isinstance(layer.mixer, LatentAttention):
        return _HALF * tokens * (layer.mixer.kv_rank + layer.mixer.rope_dim)
    return 0
