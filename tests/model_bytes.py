# SPDX-License-Identifier: MIT
"""What ranks of a model send each other, by formulas that are written out here once more.

Nothing of it is taken from the product but what a user gives it: shapes, degrees, options, and the
loads of experts, which are drawn.
"""

from __future__ import annotations

from collections import Counter

from astra_bridge.workload.models import (
    Attention,
    Experts,
    Inference,
    LatentAttention,
    Layer,
    Mlp,
    Parallelism,
    SelectiveScan,
    StateSpace,
    TrainingStep,
)

Group = tuple[int, int]
"""Distance between neighbours, and how many ranks."""
Move = tuple[str, int, Group]
"""Kind, comm_size, group; (0, 2) for a message."""
PAIR = (0, 2)


def ceil(a: int, b: int) -> int:
    return -(-a // b)


class Ranks:
    """Who is where: the indices of a rank in an order such as tp-cp-ep-dp-pp."""

    def __init__(self, par: Parallelism) -> None:
        sizes = {"tp": par.tensor, "cp": par.context, "dp": par.data, "pp": par.pipeline}
        names = par.order.split("-")
        self.par, self.sizes, self.stride, stride = par, sizes, {}, 1
        for name in names:
            self.stride[name] = stride
            stride *= sizes.get(name, 1)
        apart = [name for name in names if name != "ep" and sizes[name] > 1]
        self.cp, self.dp = sizes["cp"], sizes["dp"]
        self.together = not {"cp", "dp"} <= set(apart) or (
            abs(apart.index("cp") - apart.index("dp")) == 1
        )
        self.experts_first = names.index("ep") < names.index("dp")
        self.cp_first = names.index("cp") < names.index("dp")

    def index(self, rank: int, name: str) -> int:
        return rank // self.stride[name] % self.sizes[name]

    def expert(self, rank: int) -> int:
        """Among ranks that share experts: a part of the data- (and context-)parallel ones."""
        stride, size = self.sharers()
        return rank // stride % size

    def whole(self) -> Group:
        """The ranks that experts are shared among, and copied over."""
        if not self.together:
            return self.stride["dp"], self.dp
        pairs = (("cp", self.cp), ("dp", self.dp))
        strides = [self.stride[name] for name, size in pairs if size > 1]
        return min(strides, default=1), self.cp * self.dp

    def sharers(self) -> Group:
        """Ranks that share the experts of a layer."""
        stride, size = self.whole()
        e = self.par.expert
        return (stride if self.experts_first else stride * (size // e)), e

    def replicas(self, experts: bool) -> list[Group]:
        """The groups that a reduction goes over, one after the other."""
        e = self.par.expert if experts else 1
        stride, size = self.whole()
        rest = (stride * (e if self.experts_first else 1), size // e)
        if self.together:
            return [rest]
        context = (self.stride["cp"], self.cp)
        found = [context, rest] if self.cp_first else [rest, context]
        return [group for group in found if group[1] > 1]


def attention_weights(a: Attention, h: int, t: int) -> int:
    """Queries, keys and values, and the way out; a rank has one head of keys at least."""
    q, kv = a.heads // t * a.head_dim, max(1, a.kv_heads // t) * a.head_dim
    biases = (q + 2 * kv) * a.qkv_bias + h * a.out_bias
    return h * q + 2 * h * kv + q * h + biases + a.head_norms + a.heads // t * a.sinks


def weights(layer: Layer, h: int, t: int, e: int, norm: int) -> tuple[int, int]:
    """Parameters of a layer on a rank: of experts, and all others first."""
    dense, experts, mixer, mlp = layer.norms * norm, 0, layer.mixer, layer.mlp
    if isinstance(mixer, Attention):
        dense += attention_weights(mixer, h, t)
    elif isinstance(mixer, LatentAttention):
        n, key = mixer.heads // t, mixer.nope_dim + mixer.rope_dim
        r, c = mixer.query_rank, mixer.kv_rank
        dense += h * r + r + r * n * key if r else h * n * key
        dense += h * (c + mixer.rope_dim) + c
        dense += c * n * (mixer.nope_dim + mixer.value_dim) + n * mixer.value_dim * h
    elif isinstance(mixer, StateSpace):
        n, g = mixer.heads // t, max(1, mixer.groups // t)
        w, convolved = n * mixer.head_dim, n * mixer.head_dim + 2 * g * mixer.state
        into = w + convolved + n  # gate; x, B and C; dt
        dense += h * into + w * h + mixer.bias * (into + h)
        dense += convolved * (mixer.convolution + mixer.convolution_bias)
        dense += 3 * n + w  # A, D, bias of dt; norm
    elif isinstance(mixer, SelectiveScan):
        w, r, s = mixer.width // t, mixer.rank, mixer.state
        dense += h * 2 * w + w * (r + 2 * s) + (r * w + w) + w * h + mixer.bias * (2 * w + h)
        dense += w * (mixer.convolution + mixer.convolution_bias) + w * s + w
        dense += (r + 2 * s) * mixer.inner_norms
    if isinstance(mlp, Mlp):
        w, up = mlp.width // t, 2 if mlp.gated else 1
        dense += h * w * up + w * h + mlp.bias * (up * w + h)
    elif isinstance(mlp, Experts):
        up = 2 if mlp.gated else 1
        dense += h * mlp.count + mlp.count * mlp.router_bias + h * mlp.shared_gate
        dense += (up + 1) * h * (mlp.shared_width // t)
        w = mlp.width // t
        experts = mlp.count // e * ((up + 1) * h * w + mlp.bias * (up * w + h))
    return dense, experts


class Expected:
    """What a rank sends; `expected` and `served` fill it."""

    def __init__(self, run: TrainingStep | Inference, rank: int) -> None:
        self.run, self.par, self.model = run, run.parallelism, run.model
        self.ranks = Ranks(self.par)
        self.stage = self.ranks.index(rank, "pp")
        self.expert = self.ranks.expert(rank)
        self.found: Counter[Move] = Counter()
        self.norm = self.model.hidden * (2 if self.model.layer_norm else 1)
        self.vocabulary = ceil(self.model.vocabulary, self.par.tensor)
        self.tensor = (self.ranks.stride["tp"], self.par.tensor)
        self.context = (self.ranks.stride["cp"], self.par.context)

    def add(self, kind: str, size: int, group: Group, times: int) -> None:
        if size and times and group[1] > 1:
            self.found[kind, size, group] += times

    def cut(self, positions: int) -> list[tuple[int, int]]:
        """Layers of each part: as many, or the last one less, then the first, and so on."""
        counts = list(self.run.stage_layers)
        if not counts:
            depth = len(self.model.layers)
            counts = [ceil(depth, positions)] * positions
            order = [at for near in range(positions) for at in (positions - 1 - near, near)]
            for at in order[: sum(counts) - depth]:
                counts[at] -= 1
        return [(sum(counts[:at]), sum(counts[: at + 1])) for at in range(positions)]

    # Tensor parallelism: Korthikanti et al. 2022, figures 5 and 6; Shoeybi et al. 2019, figure 3.

    def column(self, rows: int, forward: int, backward: int, *, split: bool) -> None:
        """Into products that are split by columns."""
        t, size = self.par.tensor, rows * self.model.hidden * 2
        if split:
            # The input is gathered again for the gradients of weights.
            self.add("ALL_GATHER", size, self.tensor, forward + backward)
            self.add("REDUCE_SCATTER", size * t, self.tensor, backward)
        else:
            self.add("ALL_REDUCE", size, self.tensor, backward)

    def row(self, rows: int, forward: int, backward: int, *, split: bool) -> None:
        """Out of products that are split by rows."""
        t, size = self.par.tensor, rows * self.model.hidden * 2
        if split:
            self.add("REDUCE_SCATTER", size * t, self.tensor, forward)
            self.add("ALL_GATHER", size, self.tensor, backward)
        else:
            self.add("ALL_REDUCE", size, self.tensor, forward)

    def layer(self, at: int, tokens: int, forward: int, backward: int, *, split: bool) -> None:
        """A layer with so many tokens of a tensor-parallel group, passed so often."""
        layer, t, cp = self.model.layers[at], self.par.tensor, self.par.context
        rows = ceil(tokens, t) if split else tokens
        both = {"forward": forward, "backward": backward, "split": split}
        mixer, mlp = layer.mixer, layer.mlp
        for part in (mixer, mlp if isinstance(mlp, Mlp) else None):
            if part is not None:
                self.column(rows, **both)
                self.row(rows, **both)
        kept = 0  # bytes of keys and values
        if isinstance(mixer, Attention):
            kept = 2 * 2 * tokens * max(1, mixer.kv_heads // t) * mixer.head_dim
        elif isinstance(mixer, LatentAttention):
            head = mixer.nope_dim + mixer.rope_dim + mixer.value_dim
            kept = 2 * tokens * mixer.heads // t * head
        elif isinstance(mixer, SelectiveScan):
            driven = 2 * tokens * (mixer.rank + 2 * mixer.state)
            self.add("ALL_REDUCE", driven, self.tensor, forward + backward)
        if cp > 1 and self.par.ring:
            # Liu et al. 2023: keys c - 1 times; backward their gradients too, one step behind.
            self.add("SEND", kept, PAIR, forward * (cp - 1) + backward * 2)
            self.add("SEND", 2 * kept, PAIR, backward * (cp - 2))
        elif cp > 1:
            self.add("ALL_GATHER", kept, self.context, forward)
            self.add("REDUCE_SCATTER", kept * cp, self.context, backward)
        if isinstance(mlp, Experts):
            routed, h = rows * mlp.top_k, self.model.hidden
            if mlp.shared_width:
                self.column(rows, **both)
                self.row(rows, **both)
            loads = self.run.loads[at]
            here = round(routed * float(loads[self.expert]))
            self.column(here, **both)
            self.row(here, **both)
            most = round(routed * h * float(loads.max()))
            # There in the type of the products, back in bf16; gradients go the other way round.
            there = most * (1 if self.run.dtype == "fp8" else 2)
            for size in (there, most * 2):
                self.add("ALL_TO_ALL", size, self.ranks.sharers(), forward + backward)


def expected(run: TrainingStep, rank: int) -> Counter[Move]:
    """Of a training step."""
    it = Expected(run, rank)
    par, model, ranks, stage = it.par, it.model, it.ranks, it.stage
    t, p, m = par.tensor, par.pipeline, run.micro_batches
    mirrored = run.schedule == "dualpipe"
    passes = m // 2 if mirrored else m
    tokens = run.micro_batch * run.sequence // par.context
    split = par.sequence_parallel and t > 1
    boundary = (ceil(tokens, t) if split else tokens) * model.hidden * 2
    again = passes if run.recompute == "full" else 0
    owned = [0, 0]
    # DualPipe: the model a second time, from the last stage on; interleaved: in turns.
    positions = p * run.chunks
    mine = [stage, p - 1 - stage] if mirrored else [c * p + stage for c in range(run.chunks)]

    def shared(dense: int, experts: int) -> None:
        """Gradients and weights of a block: Rajbhandari et al. 2020, section 7."""
        for which, count in enumerate((dense, experts)):
            groups = ranks.replicas(experts=which == 1)
            owned[which] += count
            copies = (0, 1)
            if par.shard:
                ((stride, whole),) = groups
                within = min(par.shard, whole)
                groups, copies = [(stride, within)], (stride * within, whole // within)
            gradient, weight = count * run.gradient_bytes, count * 2
            if par.zero == 0:
                if len(groups) == 2:
                    first, second = groups
                    part = ceil(gradient, first[1])
                    it.add("REDUCE_SCATTER", gradient, first, 1)
                    it.add("ALL_REDUCE", part, second, 1)
                    it.add("ALL_GATHER", part, first, 1)
                else:
                    it.add("ALL_REDUCE", gradient, groups[0], 1)
                continue
            reduced = 1 if par.zero == 1 else passes
            gathered = 1 if par.zero < 3 else 2 * passes
            part, rest = weight, gradient
            for group in groups:
                it.add("REDUCE_SCATTER", rest, group, reduced)
                part, rest = ceil(part, group[1]), ceil(rest, group[1])
                it.add("ALL_GATHER", part, group, gathered)
            it.add("ALL_REDUCE", rest, copies, 1)

    parts = it.cut(positions)
    for position in mine:
        first, last = parts[position]
        if position == 0:
            it.row(ceil(tokens, t) if split else tokens, passes, passes, split=split)
            shared(it.vocabulary * model.hidden + model.positions * model.hidden, 0)
        for at in range(first, last):
            it.layer(at, tokens, passes + again, passes, split=split)
            shared(*weights(model.layers[at], model.hidden, t, par.expert, it.norm))
        if position == positions - 1:
            it.column(ceil(tokens, t) if split else tokens, passes, passes, split=split)
            # Greatest logit, sum of exponentials, logit of the target, in fp32.
            it.add("ALL_REDUCE", 3 * 4 * tokens, it.tensor, passes)
            shared(it.norm + (it.vocabulary * model.hidden if not model.tied or position else 0), 0)
        it.add("SEND", boundary, PAIR, passes * ((position > 0) + (position < positions - 1)))
    # Both that hold the same weights send their gradients to each other.
    size = 0
    divided = []
    for which in (0, 1):
        n = 1
        for _, one in ranks.replicas(experts=which == 1):
            n *= one
        divided.append((min(par.shard, n) if par.shard else n) if par.zero else 1)
    if mirrored:
        size = sum(ceil(count, n) for count, n in zip(owned, divided, strict=True))
    elif model.tied and p > 1 and stage in (0, p - 1):
        size = ceil(it.vocabulary * model.hidden, divided[0])
    it.add("SEND", size * run.gradient_bytes, PAIR, 1)
    return Counter({move: times * run.steps for move, times in it.found.items()})


def served(run: Inference, rank: int) -> Counter[Move]:
    """Of inference; where it is disaggregated, the second half of the ranks makes the tokens."""
    half = run.parallelism.ranks
    it = Expected(run, rank % half)
    par, model, t, p, m = it.par, it.model, it.par.tensor, it.par.pipeline, run.micro_batches
    first, last = it.cut(p)[it.stage]
    begins, ends = it.stage == 0, it.stage == p - 1
    if run.phase == "prefill" or (run.phase == "disaggregated" and rank < half):
        tokens = run.micro_batch * run.sequence // par.context
        split = par.sequence_parallel and t > 1 and run.sequence > 1
        rows = ceil(tokens, t) if split else tokens
        if begins:
            it.row(rows, m, 0, split=split)
        for at in range(first, last):
            it.layer(at, tokens, m, 0, split=split)
            mixer, each = model.layers[at].mixer, 0
            if isinstance(mixer, Attention):
                seen = min(run.sequence, mixer.window or run.sequence)
                each = 2 * seen * max(1, mixer.kv_heads // t) * mixer.head_dim
            elif isinstance(mixer, LatentAttention):
                each = run.sequence * (mixer.kv_rank + mixer.rope_dim)
            if run.phase == "disaggregated":
                it.add("SEND", 2 * each * run.micro_batch, PAIR, m)
        it.add("SEND", rows * model.hidden * 2, PAIR, 0 if ends else m)
    else:
        # One token of each request at a time.
        times, b = m * run.output_tokens, run.micro_batch
        if begins:
            it.row(b, times, 0, split=False)
        for at in range(first, last):
            it.layer(at, b, times, 0, split=False)
        it.add("SEND", b * model.hidden * 2, PAIR, 0 if ends else times)
        # The last stage tells the first one which token it was.
        it.add("SEND", 4 * b, PAIR, m * (run.output_tokens - 1) if ends and p > 1 else 0)
    return it.found
