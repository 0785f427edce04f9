# SPDX-License-Identifier: MIT
"""What is simulated of a model: a training step or inference, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from astra_bridge.arguments import (
    Check,
    check_fields,
    choice,
    flag,
    instance,
    integer,
    list_of,
    number,
)
from astra_bridge.errors import InputError
from astra_bridge.workload.models.layers import Slice
from astra_bridge.workload.models.parallelism import Parallelism
from astra_bridge.workload.models.schedules import SCHEDULES, Pipeline, forward_only, pipeline
from astra_bridge.workload.models.shape import (
    Attention,
    LatentAttention,
    Layer,
    Model,
    SelectiveScan,
    StateSpace,
)

__all__ = ["Inference", "Part", "TrainingStep", "parts_of"]

_MOST = 2**40


@dataclass(frozen=True)
class _Run:
    """What training and inference have in common."""

    model: Model
    parallelism: Parallelism = field(default_factory=Parallelism)
    sequence: int = 4096
    micro_batch: int = 1
    micro_batches: int = 1
    dtype: str = "bf16"
    fused_attention: bool = True
    tensor_overlap: bool = False
    stage_layers: tuple[int, ...] = ()
    imbalance: float = 0.0
    seed: int = 0

    def _check(self, more: dict[str, Check]) -> None:
        checks: dict[str, Check] = {
            "model": instance(Model), "parallelism": instance(Parallelism),
            "sequence": integer(1, _MOST), "micro_batch": integer(1, _MOST),
            "micro_batches": integer(1, 2**20), "dtype": choice("bf16", "fp16", "fp8"),
            "fused_attention": flag, "tensor_overlap": flag,
            "imbalance": number(0, 100), "seed": integer(0, 2**63 - 1),
            "stage_layers": list_of(integer(0, _MOST)),
        }  # fmt: skip
        checks |= more
        check_fields(self, {k: v for k, v in checks.items() if k in {f.name for f in fields(self)}})
        self._check_degrees()

    def _check_degrees(self) -> None:
        model, par = self.model, self.parallelism
        t = par.tensor
        for layer in set(model.layers):
            mixer, mlp = layer.mixer, layer.mlp
            heads = getattr(mixer, "heads", t)
            if heads % t:
                raise InputError(f"{t} does not divide {heads} heads", key="tensor")
            if isinstance(mixer, Attention) and mixer.kv_heads % t and t % mixer.kv_heads:
                raise InputError(
                    f"{t} and {mixer.kv_heads} heads of keys and values do not divide one another",
                    key="tensor",
                )
            if isinstance(mixer, StateSpace) and mixer.groups % t and t % mixer.groups:
                raise InputError(f"{t} does not divide {mixer.groups} groups", key="tensor")
            if isinstance(mixer, (StateSpace, SelectiveScan)) and par.context > 1:
                raise InputError("Mamba layers cannot be split along the sequence", key="context")
            parts = ((mixer, "width"), (mlp, "width"), (mlp, "shared_width"))
            for width in (getattr(part, name, t) for part, name in parts):
                if width % t:
                    raise InputError(f"{t} does not divide width {width}", key="tensor")
            count = getattr(mlp, "count", par.expert)
            if count % par.expert:
                raise InputError(
                    f"{par.expert} ranks cannot share {count} experts evenly", key="expert"
                )
        if par.expert > 1 and not model.experts:
            raise InputError(f"{model.name} has no experts", key="expert")
        if self.sequence % par.context:
            raise InputError(f"{par.context} does not divide {self.sequence} tokens", key="context")
        if par.context > 1 and not self.fused_attention:
            raise InputError("needs fused attention", key="context")

    def part(self) -> Slice:
        """What a rank has of a micro-batch."""
        return Slice(
            self.parallelism, self.micro_batch, self.sequence, self.sequence,
            self.fused_attention, self.dtype, self.tensor_overlap,
        )  # fmt: skip

    @cached_property
    def loads(self) -> NDArray[np.float64]:
        """Tokens that come to a rank's experts over the mean, shape (layers, ranks of a group).

        Shares of experts are drawn from a gamma distribution with `imbalance` as the deviation over
        the mean (their shares are then Dirichlet's), for each layer from `seed` on.
        """
        par, experts = self.parallelism, self.model.experts
        if not self.imbalance or not experts:
            return np.ones((self.model.depth, par.expert))
        random = np.random.default_rng(self.seed)
        shape = 1 / self.imbalance**2
        drawn = random.gamma(shape, size=(self.model.depth, par.expert, experts // par.expert))
        shares = drawn.sum(axis=2)
        found: NDArray[np.float64] = shares / shares.mean(axis=1, keepdims=True)
        return found


@dataclass(frozen=True)
class TrainingStep(_Run):
    """A training step.

    Attributes
    ----------
    model : Model
    parallelism : Parallelism
    sequence : int
        Tokens of a sequence.
    micro_batch, micro_batches : int
        Sequences of a micro-batch, and micro-batches per step of each data-parallel rank.
    dtype : str
        Of the products of layers: ``bf16``, ``fp16`` or ``fp8``.
    fused_attention : bool
        Whether attention is one kernel that keeps no scores.
    tensor_overlap : bool
        Whether tensor-parallel communication goes on beside the products next to it
        (``--tp-comm-overlap`` of Megatron-LM).
    stage_layers : tuple of int
        Layers of each part of the pipeline, in the order of the model; empty: as even as they get.
    imbalance : float
        Deviation over the mean of the tokens of an expert; 0 is none.
    seed : int
    schedule : str
        A name of `SCHEDULES`.
    chunks : int
        Of each stage, for ``interleaved``.
    recompute : str
        ``none``, ``selective`` (attention) or ``full`` (each layer).
    gradient_bytes : int
        Of a gradient that is reduced: 4 or 2.
    offload : str
        What is kept in the host's memory: ``none``, ``optimizer`` (the host steps it: gradients go
        there, weights come back, as in ZeRO-Offload, arXiv 2101.06840), ``activations`` (of all
        layers of a chunk but the last, until their backward pass) or ``both``.
    host_optimizer_GBps : float
        At which the host reads and writes what a rank's part of the optimizer touches.
    overlap_gradients, overlap_weights, overlap_messages : bool
        Whether gradients are reduced during the last backward pass, weights gathered during the
        first forward pass (``zero`` 1 and 2), and messages between stages sent while the next pass
        computes: Megatron-LM's ``--overlap-grad-reduce``, ``--overlap-param-gather`` and
        ``--overlap-p2p-communication``.
    steps : int

    Examples
    --------
    >>> from astra_bridge.workload.models import named_model
    >>> step = TrainingStep(named_model("llama-3.1-8b"), Parallelism(data=8), micro_batches=4)
    >>> step.tokens
    131072
    """

    schedule: str = "1f1b"
    chunks: int = 1
    recompute: str = "none"
    gradient_bytes: int = 4
    overlap_gradients: bool = True
    overlap_weights: bool = True
    overlap_messages: bool = True
    steps: int = 1
    offload: str = "none"
    host_optimizer_GBps: float = 100.0

    def __post_init__(self) -> None:
        self._check(
            {
                "schedule": choice(*SCHEDULES),
                "chunks": integer(1, 10_000),
                "recompute": choice("none", "selective", "full"),
                "gradient_bytes": integer(1, 8),
                "overlap_gradients": flag,
                "overlap_weights": flag,
                "overlap_messages": flag,
                "steps": integer(1, 10_000),
                "offload": choice("none", "optimizer", "activations", "both"),
                "host_optimizer_GBps": number(1e-6, 1e9),
            }
        )
        parts_of(self.model, self.pipeline.positions, self.stage_layers)

    def part(self) -> Slice:
        """What a rank has of a micro-batch."""
        return replace(super().part(), selective=self.recompute == "selective")

    @cached_property
    def pipeline(self) -> Pipeline:
        """What each stage does."""
        stages = self.parallelism.pipeline
        return pipeline(self.schedule, stages, self.micro_batches, self.chunks)

    def offloads(self, what: str) -> bool:
        """Whether the host keeps the ``optimizer``, or ``activations``."""
        return self.offload in (what, "both")

    @property
    def tokens(self) -> int:
        """Tokens of a step, of all ranks."""
        each = self.micro_batch * self.micro_batches * self.sequence
        return each * self.parallelism.data


@dataclass(frozen=True)
class Inference(_Run):
    """Serving of requests.

    Attributes
    ----------
    sequence : int
        Tokens of a prompt.
    phase : str
        ``prefill``: prompts are read; ``decode``: tokens are made after them, one at a time;
        ``disaggregated``: the first half of the ranks reads prompts, and hands keys and values,
        layer by layer, to the second half, which makes the tokens (Zhong et al., DistServe, arXiv
        2401.09670).
    output_tokens : int
        Tokens that are made.

    The other attributes are those of `TrainingStep`; `micro_batch` is the number of requests that
    are computed together, and `parallelism` that of each half.
    """

    phase: str = "prefill"
    output_tokens: int = 16

    def __post_init__(self) -> None:
        phases = choice("prefill", "decode", "disaggregated")
        self._check({"phase": phases, "output_tokens": integer(1, 1_000_000)})
        if self.phase != "prefill" and self.parallelism.context > 1:
            raise InputError("tokens that are made one at a time have no context to share",
                             key="context")  # fmt: skip
        parts_of(self.model, self.pipeline.positions, self.stage_layers)

    @cached_property
    def pipeline(self) -> Pipeline:
        """What each stage does with prompts."""
        return forward_only(self.parallelism.pipeline, self.micro_batches)

    def decoded(self, token: int) -> Slice:
        """What a rank has of the token of that number."""
        return Slice(
            self.parallelism, self.micro_batch, 1, self.sequence + token, self.fused_attention,
            self.dtype, self.tensor_overlap,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part of the model, as the pipeline has it: layers ``first`` to ``last - 1``.

    Attributes
    ----------
    first, last : int
    embedding, head : bool
        Whether it begins with the embedding, and ends with the head.
    """

    first: int
    last: int
    embedding: bool
    head: bool

    def layers(self, model: Model) -> tuple[Layer, ...]:
        """Its layers."""
        return model.layers[self.first : self.last]


def parts_of(model: Model, positions: int, given: tuple[int, ...] = ()) -> tuple[Part, ...]:
    """Cut a model into parts.

    Without `given`, all have as many layers, or some one less: the last, the first, the last but
    one, and so on, since embedding and head take time too (Llama 3, arXiv 2407.21783, section
    3.3.2).

    Raises
    ------
    InputError
        There are fewer layers than parts, or `given` does not add up.

    Examples
    --------
    >>> from astra_bridge.workload.models import named_model
    >>> cut = parts_of(named_model("llama-3.1-405b"), 16)
    >>> [part.last - part.first for part in cut]
    [7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 7]
    """
    counts = list(given)
    if not counts:
        if model.depth < positions:
            raise InputError(
                f"{model.depth} layers cannot be cut into {positions} parts", key="pipeline"
            )
        most = -(-model.depth // positions)
        counts = [most] * positions
        for turn in range(most * positions - model.depth):
            at = turn // 2
            counts[at if turn % 2 else positions - 1 - at] -= 1
    if len(counts) != positions or sum(counts) != model.depth or min(counts) < 0:
        raise InputError(
            f"{','.join(map(str, counts))} are {len(counts)} parts of {sum(counts)} layers; there "
            f"are {positions} parts and {model.depth} layers",
            key="stage_layers",
        )
    ends = np.cumsum(counts).tolist()
    return tuple(
        Part(end - size, end, at == 0, at == positions - 1)
        for at, (end, size) in enumerate(zip(ends, counts, strict=True))
    )


def is_cached(layer: Layer) -> bool:
    """Whether a layer keeps keys and values."""
    return isinstance(layer.mixer, (Attention, LatentAttention))
