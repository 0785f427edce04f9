# SPDX-License-Identifier: MIT
"""What a language model is: sizes, and its layers as a list of kinds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Attention", "Experts", "LatentAttention", "Layer", "Mlp", "Model", "StateSpace"]


@dataclass(frozen=True)
class Attention:
    """Attention whose heads share keys and values in groups (Ainslie et al., arXiv 2305.13245).

    Attributes
    ----------
    heads, kv_heads, head_dim : int
        Query heads, heads of keys and values, elements of a head.
    qkv_bias, out_bias : bool
        Whether the products have a bias.
    head_norms : int
        Elements that the norms of queries and keys have, of both together; 0 without.
    window : int
        Keys that a query sees at most; 0 for all before it.
    """

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    head_norms: int = 0
    window: int = 0


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

    Attributes
    ----------
    heads : int
    query_rank : int
        Width that queries are compressed to; 0 without.
    kv_rank : int
        Width that keys and values are compressed to: what the cache holds.
    nope_dim, rope_dim, value_dim : int
        Elements of a head: of a key without and with its position, of a value.
    """

    heads: int
    query_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int


@dataclass(frozen=True)
class StateSpace:
    """A Mamba-2 mixer (Dao and Gu, arXiv 2405.21060).

    Attributes
    ----------
    heads, head_dim, state, groups : int
        Heads, elements of a head, elements of a state, groups that share its projections.
    convolution : int
        Tokens under the convolution.
    chunk : int
        Tokens of a block, within which it works as attention does.
    bias, convolution_bias : bool
        Whether the products and the convolution have a bias.
    """

    heads: int
    head_dim: int
    state: int
    groups: int
    convolution: int
    chunk: int = 256
    bias: bool = False
    convolution_bias: bool = True


@dataclass(frozen=True)
class Mlp:
    """A feed-forward part.

    Attributes
    ----------
    width : int
    gated : bool
        Whether it has a gate (Shazeer, arXiv 2002.05202): three matrices instead of two.
    bias : bool
    """

    width: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Experts:
    """A feed-forward part of which each token goes to few experts (DeepSeekMoE, arXiv 2401.06066).

    Attributes
    ----------
    count, top_k : int
        Routed experts, and how many of them a token goes to.
    width : int
        Of one routed expert.
    shared_width : int
        Of the expert that every token goes to; 0 without.
    gated : bool
    router_bias, shared_gate : bool
        Whether the router has a bias for each expert, and the shared expert a gate of its own.
    """

    count: int
    top_k: int
    width: int
    shared_width: int = 0
    gated: bool = True
    router_bias: bool = False
    shared_gate: bool = False


Mixer = Attention | LatentAttention | StateSpace


@dataclass(frozen=True)
class Layer:
    """A layer: tokens are mixed, then each goes through the feed-forward part; one may be absent.

    Attributes
    ----------
    mixer, mlp
    norms : int
        Norms over the hidden size.
    """

    mixer: Mixer | None
    mlp: Mlp | Experts | None
    norms: int = 2


@dataclass(frozen=True)
class Model:
    """A decoder-only language model.

    Attributes
    ----------
    name : str
    hidden, vocabulary : int
    layers : tuple of Layer
    tied : bool
        Whether the embedding is the head too.
    layer_norm : bool
        Norms with a mean and a bias, instead of RMSNorm.
    positions : int
        Learned positions; 0 without.
    dropout : bool
        Whether it keeps masks of dropout, as GPT-3 does.

    Examples
    --------
    >>> layer = Layer(Attention(8, 2, 64), Mlp(2048))
    >>> Model("small", 512, 1000, (layer,) * 4).depth
    4
    """

    name: str
    hidden: int
    vocabulary: int
    layers: tuple[Layer, ...]
    tied: bool = False
    layer_norm: bool = False
    positions: int = 0
    dropout: bool = False

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def experts(self) -> int:
        """Routed experts of a layer that has some; 0 without."""
        found = (layer.mlp.count for layer in self.layers if isinstance(layer.mlp, Experts))
        return next(found, 0)
