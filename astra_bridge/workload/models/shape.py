# SPDX-License-Identifier: MIT
"""What a language model is: sizes, and its layers as a list of kinds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from astra_bridge.arguments import Check, check_fields, flag, instance, integer, list_of, text

__all__ = [
    "Attention",
    "Experts",
    "LatentAttention",
    "Layer",
    "Mlp",
    "Model",
    "SelectiveScan",
    "StateSpace",
]

_MOST = 2**40


class _Sizes:
    """Numbers from 1 on, from 0 on where that is the default or they are free, and switches."""

    _free: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        items: Any = fields(self)  # type: ignore[arg-type]
        checks: dict[str, Check] = {
            item.name: integer(0 if item.default == 0 or item.name in self._free else 1, _MOST)
            for item in items
            if item.type == "int"
        }
        checks |= {item.name: flag for item in items if item.type == "bool"}
        check_fields(self, checks | self._others())

    def _others(self) -> dict[str, Check]:
        """Checks of what is neither."""
        return {}


@dataclass(frozen=True)
class Attention(_Sizes):
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
    sinks : bool
        Whether each head has a learned logit that no key belongs to (gpt-oss).
    """

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    head_norms: int = 0
    window: int = 0
    sinks: bool = False


@dataclass(frozen=True)
class LatentAttention(_Sizes):
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

    _free: ClassVar[tuple[str, ...]] = ("query_rank", "rope_dim")


@dataclass(frozen=True)
class StateSpace(_Sizes):
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
class SelectiveScan(_Sizes):
    """A Mamba mixer, the first (Gu and Dao, arXiv 2312.00752, section 3.4).

    Attributes
    ----------
    width, state : int
        Channels, and elements of the state of each.
    rank : int
        Width that the step sizes are made from.
    convolution : int
        Tokens under the convolution.
    bias, convolution_bias : bool
        Whether the products and the convolution have a bias.
    inner_norms : bool
        Whether what the scan is driven by is normed (Jamba, arXiv 2403.19887, section 6.4).
    """

    width: int
    state: int
    rank: int
    convolution: int
    bias: bool = False
    convolution_bias: bool = True
    inner_norms: bool = False


@dataclass(frozen=True)
class Mlp(_Sizes):
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
class Experts(_Sizes):
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
    bias : bool
        Whether the products of routed experts have a bias.
    """

    count: int
    top_k: int
    width: int
    shared_width: int = 0
    gated: bool = True
    router_bias: bool = False
    shared_gate: bool = False
    bias: bool = False


Mixer = Attention | LatentAttention | StateSpace | SelectiveScan


@dataclass(frozen=True)
class Layer(_Sizes):
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

    _free: ClassVar[tuple[str, ...]] = ("norms",)

    def _others(self) -> dict[str, Check]:
        nothing = type(None)
        return {
            "mixer": instance(Attention, LatentAttention, StateSpace, SelectiveScan, nothing),
            "mlp": instance(Mlp, Experts, nothing),
        }


@dataclass(frozen=True)
class Model(_Sizes):
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
    predictors : int
        Modules that predict further tokens (DeepSeek-V3, arXiv 2412.19437, section 2.2): they are
        in a checkpoint, and no part of what is simulated.

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
    predictors: int = 0

    def _others(self) -> dict[str, Check]:
        return {"name": text, "layers": list_of(instance(Layer))}

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def experts(self) -> int:
        """Routed experts of a layer that has some; 0 without."""
        found = (layer.mlp.count for layer in self.layers if isinstance(layer.mlp, Experts))
        return next(found, 0)
