# SPDX-License-Identifier: MIT
"""What a rank does with a layer, step by step: it computes, and exchanges with a group.

A forward pass goes through the steps, a backward pass through the same ones in reverse order, each
with its counterpart: an all-gather with a reduce-scatter (Korthikanti et al., arXiv 2205.05198,
figure 5), an all-reduce with nothing (Shoeybi et al., arXiv 1909.08053, figure 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from astra_bridge.trace.columns import CommType
from astra_bridge.workload.models.formulas import SCAN_OPERATIONS, routed_tokens, shared_keys
from astra_bridge.workload.models.operators import Operator, attention, gemm
from astra_bridge.workload.models.parallelism import Parallelism
from astra_bridge.workload.models.shape import (
    Attention,
    Experts,
    LatentAttention,
    Layer,
    Mixer,
    Mlp,
    Model,
    SelectiveScan,
    StateSpace,
)

__all__ = ["Compute", "Exchange", "Move", "Passing", "Slice", "Step", "Together", "layer_steps"]

_HALF = 2


class Move(NamedTuple):
    """A collective: its kind and Chakra's ``comm_size``."""

    kind: CommType
    size_bytes: int


class Compute(NamedTuple):
    """Operators, one after the other.

    Attributes
    ----------
    again : tuple of Operator
        What is computed again before the backward pass, with selective recomputation.
    """

    operators: tuple[Operator, ...]
    again: tuple[Operator, ...] = ()


class Exchange(NamedTuple):
    """A collective whose result the next step needs.

    Attributes
    ----------
    name : str
    group : str
        A dimension: ``tp``, ``cp`` or ``ep``.
    forward, backward : Move or None
    again : Move or None
        What the gradients of weights need: the input, gathered again.
    """

    name: str
    group: str
    forward: Move | None
    backward: Move | None
    again: Move | None = None

    @property
    def entry(self) -> bool:
        """Whether it begins a tensor-parallel region."""
        return self.forward is None or self.again is not None


class Passing(NamedTuple):
    """Attention over keys and values that go around the ring of context-parallel ranks.

    Attributes
    ----------
    own, others : tuple of Operator
        Attention to the own keys, and to those of another rank.
    size_bytes : int
        Keys and values of a rank.
    """

    own: tuple[Operator, ...]
    others: tuple[Operator, ...]
    size_bytes: int


class Together(NamedTuple):
    """Steps that begin at one time; the next one waits for all."""

    steps: tuple[Compute | Exchange, ...]


Step = Compute | Exchange | Passing | Together


@dataclass(frozen=True)
class Slice:
    """What part of the work a rank has.

    Attributes
    ----------
    parallelism : Parallelism
    batch, queries, keys : int
        Sequences, tokens of each that are computed, and tokens that they may look at: of the whole
        context-parallel group.
    fused : bool
        Whether attention is one kernel.
    dtype : str
        Of the products: ``bf16``, ``fp16`` or ``fp8``.
    overlap : bool
        Whether tensor-parallel communication goes on beside the products next to it.
    selective : bool
        Whether attention is computed again for the backward pass.
    load : float
        Tokens that come to the experts of this rank, over the mean.
    heaviest : float
        The greatest such load: it bounds the exchange.
    """

    parallelism: Parallelism
    batch: int
    queries: int
    keys: int
    fused: bool = True
    dtype: str = "bf16"
    overlap: bool = False
    selective: bool = False
    load: float = 1.0
    heaviest: float = 1.0

    @property
    def tensor(self) -> int:
        """Degree of tensor parallelism."""
        return self.parallelism.tensor

    @property
    def own(self) -> int:
        """Tokens of each sequence that a context-parallel rank has."""
        return -(-self.queries // self.parallelism.context)

    @property
    def tokens(self) -> int:
        """Tokens that a tensor-parallel group has."""
        return self.batch * self.own

    @property
    def split(self) -> bool:
        """Whether the sequence is split between the tensor-parallel regions."""
        return self.parallelism.sequence_parallel and self.tensor > 1 and self.queries > 1

    @property
    def rows(self) -> int:
        """Tokens that a rank has between the tensor-parallel regions."""
        return -(-self.tokens // self.tensor) if self.split else self.tokens

    def boundary_bytes(self, model: Model) -> int:
        """What goes from stage to stage: s b h elements, or a rank's part of them."""
        return self.rows * model.hidden * _HALF


class _Builder:
    """Collects the steps of a layer."""

    def __init__(self, model: Model, part: Slice) -> None:
        self.model, self.part = model, part
        self.steps: list[Step] = []
        self.norm = "layer_norm" if model.layer_norm else "rms_norm"

    def product(self, m: int, n: int, k: int, times: int = 1) -> list[Operator]:
        """A product with weights; inputs in fp8 are converted first."""
        dtype = self.part.dtype
        found = [gemm(m, n, k, dtype, times)]
        if dtype == "fp8":
            found.insert(0, Operator("stream", (3 * m * k,), times))
        return found

    def compute(self, operators: list[Operator], again: tuple[Operator, ...] = ()) -> None:
        last = self.steps[-1] if self.steps else None
        if isinstance(last, Compute):
            self.steps[-1] = Compute((*last.operators, *operators), (*last.again, *again))
        elif operators:
            self.steps.append(Compute(tuple(operators), again))

    def norms(self, count: int) -> None:
        h, rows = self.model.hidden, self.part.rows
        self.compute([Operator(self.norm, (rows, h))] * count)

    def residual(self) -> None:
        rows, h = self.part.rows, self.model.hidden
        self.compute([Operator("add", (rows, h))])
        if self.model.dropout:
            self.compute([Operator("stream", (rows * h,))])  # the mask, within the addition

    # Tensor-parallel regions: weights are split by columns, then by rows.

    def entry(self, operators: list[Operator], name: str, tokens: int | None = None) -> None:
        """Operators whose weights are split by columns, on tokens that every rank needs."""
        part = self.part
        if part.tensor == 1:
            self.compute(operators)
            return
        rows = part.rows if tokens is None else tokens
        size = rows * self.model.hidden * _HALF
        if part.split:
            gather = Move(CommType.ALL_GATHER, size)
            whole = Move(CommType.REDUCE_SCATTER, size * part.tensor)
            exchange = Exchange(f"{name}.gather", "tp", gather, whole, gather)
        else:
            reduce = Move(CommType.ALL_REDUCE, size)
            exchange = Exchange(f"{name}.in", "tp", None, reduce)
        self._beside(exchange, operators, first=True)

    def exit(self, operators: list[Operator], name: str, tokens: int | None = None) -> None:
        """Operators whose weights are split by rows: their results are summed."""
        part = self.part
        if part.tensor == 1:
            self.compute(operators)
            return
        rows = part.rows if tokens is None else tokens
        size = rows * self.model.hidden * _HALF
        if part.split:
            scatter = Move(CommType.REDUCE_SCATTER, size * part.tensor)
            exchange = Exchange(f"{name}.scatter", "tp", scatter, Move(CommType.ALL_GATHER, size))
        else:
            exchange = Exchange(f"{name}.out", "tp", Move(CommType.ALL_REDUCE, size), None)
        self._beside(exchange, operators, first=False)

    def _beside(self, exchange: Exchange, operators: list[Operator], *, first: bool) -> None:
        if self.part.overlap and operators:
            both = (exchange, Compute(tuple(operators)))
            self.steps.append(Together(both if first else both[::-1]))
        elif first:
            self.steps.append(exchange)
            self.compute(operators)
        else:
            self.compute(operators)
            self.steps.append(exchange)

    # Mixers.

    def attend(self, one: Attention) -> None:
        h, part, t = self.model.hidden, self.part, self.part.tensor
        heads, kv, dim = one.heads // t, shared_keys(one.kv_heads, t), one.head_dim
        queries = part.tokens
        into = self.product(queries, (heads + 2 * kv) * dim, h)
        width = (heads + kv) * dim
        if one.head_norms:
            into.append(Operator(self.norm, (queries * (heads + kv), dim)))
        if not self.model.positions:
            into.append(Operator("stream", (2 * _HALF * queries * width,)))  # rotated positions
        self.entry(into, "attention")
        self.core(heads, kv, dim, one.window, 2 * queries * kv * dim * _HALF)
        self.exit(self.product(queries, h, heads * dim), "attention")

    def attend_latent(self, one: LatentAttention) -> None:
        h, part, t = self.model.hidden, self.part, self.part.tensor
        heads, key, rows = one.heads // t, one.nope_dim + one.rope_dim, part.rows
        compressed = one.query_rank + one.kv_rank + one.rope_dim
        self.compute([*self.product(rows, compressed, h), Operator(self.norm, (rows, compressed))])
        tokens = part.tokens
        into = self.product(tokens, heads * key, one.query_rank or h)
        if part.queries > 1:
            into += self.product(tokens, heads * (one.nope_dim + one.value_dim), one.kv_rank)
        self.entry(into, "attention")
        if part.queries == 1:
            # Queries and values are taken into the compressed space instead (DeepSeek-V2, section
            # 2.1.2), and all heads share what the cache holds.
            dim = (one.kv_rank + one.rope_dim) // 2
            self.compute(
                [
                    *self.product(tokens, one.kv_rank, one.nope_dim, heads),
                    Operator("decode", (part.batch, 1, part.keys, dim), 1, (), False, heads),
                    *self.product(tokens, one.value_dim, one.kv_rank, heads),
                ]
            )
        else:
            dim = (key + one.value_dim) // 2
            self.core(heads, heads, dim, 0, tokens * heads * (key + one.value_dim) * _HALF)
        self.exit(self.product(tokens, h, heads * one.value_dim), "attention")

    def core(self, heads: int, kv: int, dim: int, window: int, kept_bytes: int) -> None:
        """Attention itself; `kept_bytes` are the keys and values of a rank."""
        part, cp = self.part, self.part.parallelism.context
        b, own, keys = part.batch, part.own, part.keys
        if part.queries == 1:
            seen = min(keys, window or keys)
            self.compute([Operator("decode", (b, kv, seen, dim), 1, (), False, heads // kv)])
            return
        if cp == 1:
            found = self._scores(b, heads, kv, own, keys, dim, window)
            self.compute(found, tuple(found) if part.selective else ())
            return
        if not part.parallelism.ring:
            gather = Move(CommType.ALL_GATHER, kept_bytes)
            scatter = Move(CommType.REDUCE_SCATTER, kept_bytes * cp)
            self.steps.append(Exchange("keys", "cp", gather, scatter))
            # Each rank has a part of the start and of the end: on average half of the keys.
            self.compute([attention(b, heads, kv, own, max(1, keys // 2), dim, causal=False)])
            return
        mine = attention(b, heads, kv, own, own, dim)
        # Of each other rank's keys, half of the queries see all or all of them see half.
        theirs = attention(b, heads, kv, own, max(1, own // 2), dim, causal=False)
        self.steps.append(Passing((mine,), (theirs,), kept_bytes))

    def _scores(
        self, b: int, heads: int, kv: int, queries: int, keys: int, dim: int, window: int
    ) -> list[Operator]:
        if not self.part.fused:
            rows = b * heads * queries
            found = [Operator("gemm", (rows, keys, dim)), Operator("softmax", (rows, keys))]
            if self.model.dropout:
                # Scores are read and written, and a mask of one byte.
                found.append(Operator("stream", ((2 * _HALF + 1) * rows * keys,)))
            return [*found, Operator("gemm", (rows, dim, keys))]
        if window and window < keys:
            # A band: blocks of queries that see as many keys each.
            blocks = -(-queries // window)
            return [attention(b * blocks, heads, kv, window, window, dim, causal=False)]
        return [attention(b, heads, kv, queries, keys, dim)]

    def scan(self, one: StateSpace) -> None:
        """Mamba-2 (Dao and Gu, arXiv 2405.21060, section 6)."""
        h, part, t = self.model.hidden, self.part, self.part.tensor
        heads, groups, tokens = one.heads // t, max(1, one.groups // t), part.tokens
        width, states = heads * one.head_dim, groups * one.state
        self.entry(self.product(tokens, 2 * width + 2 * states + heads, h), "mixer")
        convolved = Operator("stream", (2 * _HALF * tokens * (width + 2 * states),))
        gate = Operator("silu_mul", (tokens, width))
        if part.queries == 1:
            kept = 2 * _HALF * part.batch * heads * one.head_dim * one.state
            self.compute([convolved, Operator("stream", (kept,)), gate])
        else:
            q = min(part.queries, one.chunk)
            chunks = max(1, tokens // q)
            self.compute(
                [
                    convolved,
                    Operator("gemm", (q, q, one.state), chunks * groups),
                    Operator("gemm", (q, one.head_dim, q), chunks * heads),
                    Operator("gemm", (one.head_dim, one.state, q), 2 * chunks * heads),
                    gate,
                ]
            )
        self.exit(self.product(tokens, h, width), "mixer")

    def selective_scan(self, one: SelectiveScan) -> None:
        """Mamba (Gu and Dao, arXiv 2312.00752, section 3.4).

        Channels are split over tensor-parallel ranks; what drives the scan is made of all of them,
        so the ranks' parts of it are summed, and backward those of its gradient.
        """
        h, part, t = self.model.hidden, self.part, self.part.tensor
        tokens, width, driven = part.tokens, one.width // t, one.rank + 2 * one.state
        self.entry(self.product(tokens, 2 * width, h), "mixer")
        self.compute([Operator("stream", (2 * _HALF * tokens * width,))])  # the convolution
        self.compute(self.product(tokens, driven, width))
        if t > 1:
            summed = Move(CommType.ALL_REDUCE, tokens * driven * _HALF)
            self.steps.append(Exchange("mixer.driven", "tp", summed, summed))
        if one.inner_norms:
            self.compute([Operator(self.norm, (tokens, driven))])
        moved = tokens * (3 * width + 2 * one.state)
        if part.queries == 1:
            moved += 2 * part.batch * width * one.state
        operations = SCAN_OPERATIONS * tokens * width * one.state
        scan = Operator("stream", (_HALF * moved,), operations=operations)
        gate = Operator("silu_mul", (tokens, width))
        self.compute([*self.product(tokens, width, one.rank), scan, gate])
        self.exit(self.product(tokens, h, width), "mixer")

    # Feed-forward parts.

    def _mlp(self, tokens: int, width: int, gated: bool, times: int = 1) -> tuple[list, list]:  # type: ignore[type-arg]
        h = self.model.hidden
        up = self.product(tokens, width * (2 if gated else 1), h, times)
        up.append(Operator("silu_mul" if gated else "gelu", (tokens, width), times))
        return up, self.product(tokens, h, width, times)

    def feed(self, one: Mlp) -> None:
        up, down = self._mlp(self.part.tokens, one.width // self.part.tensor, one.gated)
        self.entry(up, "mlp")
        self.exit(down, "mlp")

    def route(self, one: Experts) -> None:
        """Each token goes to few experts and back (Lepikhin et al., GShard, arXiv 2006.16668)."""
        h, part, par = self.model.hidden, self.part, self.part.parallelism
        t, rows = part.tensor, part.rows
        routed = rows * one.top_k
        self.compute([gemm(rows, one.count, h), Operator("softmax", (rows, one.count))])
        shared: list[Operator] = []
        if one.shared_width:
            up, down = self._mlp(part.tokens, one.shared_width // t, one.gated)
            if t > 1:
                self.entry(up, "shared")
                self.exit(down, "shared")
            else:
                shared = up + down
        self.compute([Operator("copy", (routed, h))])
        # DeepSeek-V3, section 3.3.2: tokens go in fp8 and come back in bf16.
        element = 1 if part.dtype == "fp8" else _HALF
        size = round(routed * h * part.heaviest)
        there = Move(CommType.ALL_TO_ALL, size * element)
        back = Move(CommType.ALL_TO_ALL, size * _HALF)
        if par.expert > 1:
            dispatch = Exchange("dispatch", "ep", there, back)
            if shared:
                self.steps.append(Together((dispatch, Compute(tuple(shared)))))
            else:
                self.steps.append(dispatch)
        else:
            self.compute(shared)
        own = one.count // par.expert
        here = round(routed * part.load)
        each = routed_tokens(here * (t if part.split else 1), 1, one.count, own)
        up, down = self._mlp(each, one.width // t, one.gated, own)
        self.entry(up, "experts", here)
        self.exit(down, "experts", here)
        if par.expert > 1:
            self.steps.append(Exchange("combine", "ep", back, there))
        self.compute([Operator("copy", (routed, h))])


def _mix(builder: _Builder, mixer: Mixer) -> None:
    if isinstance(mixer, Attention):
        builder.attend(mixer)
    elif isinstance(mixer, LatentAttention):
        builder.attend_latent(mixer)
    elif isinstance(mixer, StateSpace):
        builder.scan(mixer)
    else:
        builder.selective_scan(mixer)


def layer_steps(model: Model, layer: Layer, part: Slice) -> tuple[Step, ...]:
    """The steps of a layer.

    Raises
    ------
    InputError
        The layer cannot be split so.

    Examples
    --------
    >>> from astra_bridge.workload.models.config import named_model
    >>> model = named_model("llama-3.1-8b")
    >>> steps = layer_steps(model, model.layers[0], Slice(Parallelism(tensor=2), 1, 4096, 4096))
    >>> [step.name for step in steps if isinstance(step, Exchange)]
    ['attention.gather', 'attention.scatter', 'mlp.gather', 'mlp.scatter']
    """
    builder = _Builder(model, part)
    halves = (layer.mixer is not None) + (layer.mlp is not None)
    if layer.mixer is not None:
        builder.norms(layer.norms // halves)
        _mix(builder, layer.mixer)
        builder.residual()
    if layer.mlp is not None:
        builder.norms(layer.norms // halves)
        if isinstance(layer.mlp, Mlp):
            builder.feed(layer.mlp)
        else:
            builder.route(layer.mlp)
        builder.residual()
    return tuple(builder.steps)


def embedding_steps(model: Model, part: Slice) -> tuple[Step, ...]:
    """The look-up of tokens, of which each tensor-parallel rank has some (Shoeybi et al.)."""
    builder = _Builder(model, part)
    looked_up = [Operator("stream", (2 * _HALF * part.tokens * model.hidden,))]
    builder.exit(looked_up, "embedding")
    return tuple(builder.steps)


def head_steps(model: Model, part: Slice, *, loss: bool) -> tuple[Step, ...]:
    """The last norm, the product with the vocabulary, and the loss.

    Tensor-parallel ranks have parts of the vocabulary; three numbers in fp32 for each token are
    reduced between them: greatest logit, sum of exponentials, logit of the target (Shoeybi et al.,
    section 3).  Without a loss, only the last token of each sequence is of interest.
    """
    builder = _Builder(model, part)
    builder.norms(1)
    tokens = part.tokens if loss else part.batch
    vocabulary = -(-model.vocabulary // part.tensor)
    product = [gemm(tokens, vocabulary, model.hidden)]  # in bf16 also where layers are in fp8
    if not loss:
        builder.compute(product)
        return tuple(builder.steps)
    # The cross entropy goes over logits in fp32: maximum, sum, loss.
    product.append(Operator("stream", (3 * 4 * tokens * vocabulary,)))
    builder.entry(product, "head")
    if part.tensor > 1:
        size = 3 * 4 * tokens
        builder.steps.append(Exchange("loss", "tp", Move(CommType.ALL_REDUCE, size), None))
    return tuple(builder.steps)
