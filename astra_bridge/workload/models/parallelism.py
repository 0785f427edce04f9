# SPDX-License-Identifier: MIT
"""Degrees of parallelism, and who is in which group by the order of ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.arguments import Check, check_fields, flag, integer
from astra_bridge.errors import InputError
from astra_bridge.text import show

__all__ = ["DIMENSIONS", "Orbit", "Parallelism"]

DIMENSIONS = ("tp", "cp", "ep", "dp", "pp")
"""Tensor, context, expert, data, pipeline."""


class Orbit(NamedTuple):
    """Groups that share all ranks: those that agree in all but ``rank // stride % size``."""

    stride: int
    size: int


@dataclass(frozen=True)
class Parallelism:
    """How a model is split; there are ``tensor * context * data * pipeline`` ranks.

    Attributes
    ----------
    tensor, pipeline, data, context : int
        Degrees.
    expert : int
        Ranks that share the experts of a layer: parts of the data- and context-parallel ranks.
    order : str
        Which index of a rank is fastest, then the others, as in Megatron-LM (its
        ``--use-tp-pp-dp-mapping`` is ``tp-cp-ep-pp-dp``).  Where ``ep`` stands before ``dp``,
        neighbours share experts.
    sequence_parallel : bool
        Whether norms and what lies between are split along the sequence over the tensor-parallel
        ranks (Korthikanti et al., arXiv 2205.05198, section 4.2.2).
    ring : bool
        Whether context-parallel ranks pass keys and values around a ring (Liu et al., Ring
        Attention, arXiv 2310.01889), instead of gathering them (Llama 3, arXiv 2407.21783,
        section 3.3.2).
    zero : int
        What data- and context-parallel ranks share: 0 nothing, 1 the optimizer's state, 2 gradients
        too, 3 weights too (Rajbhandari et al., ZeRO, arXiv 1910.02054; FSDP, arXiv 2304.11277).
    shard : int
        Of them, how many share it, and the rest are copies (HSDP); 0 is all.
    prefetch : int
        With ``zero=3``, layers whose weights are gathered ahead.

    Examples
    --------
    >>> Parallelism(tensor=8, pipeline=16, data=128).ranks
    16384
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    context: int = 1
    expert: int = 1
    order: str = "-".join(DIMENSIONS)
    sequence_parallel: bool = True
    ring: bool = True
    zero: int = 1
    shard: int = 0
    prefetch: int = 1

    def __post_init__(self) -> None:
        checks: dict[str, Check] = {
            item.name: integer(1, 2**20) for item in fields(self) if item.type == "int"
        }
        checks |= {"zero": integer(0, 3), "shard": integer(0, 2**20), "prefetch": integer(0, 1000)}
        checks |= {"order": _order, "sequence_parallel": flag, "ring": flag}
        check_fields(self, checks)
        shared = self.data * self.context
        if shared % self.expert:
            raise InputError(
                f"{self.expert} does not divide the {shared} data- and context-parallel ranks",
                key="expert",
            )
        if not self._together and self.data % self.expert:
            raise InputError(
                f"{self.expert} does not divide data {self.data}; where cp and dp are no "
                f"neighbours in the order {self.order}, expert-parallel ranks are data-parallel",
                key="expert",
            )
        if self.shard and shared % self.shard:
            raise InputError(
                f"{self.shard} does not divide the {shared} data- and context-parallel ranks",
                key="shard",
            )
        if self.shard and not self._together:
            raise InputError(
                f"needs cp and dp as neighbours in the order {self.order}", key="shard"
            )
        if self.shard and not self.zero:
            raise InputError("needs something that is shared: zero 1, 2 or 3", key="shard")
        if self.shard and self.expert > 1:
            raise InputError("is for models without expert parallelism", key="shard")

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return self.tensor * self.context * self.data * self.pipeline

    @property
    def _sizes(self) -> dict[str, int]:
        return {
            "tp": self.tensor, "cp": self.context, "dp": self.data, "pp": self.pipeline
        }  # fmt: skip

    @property
    def _dense(self) -> list[str]:
        """The order of what has an index of its own; one of size 1 separates nobody."""
        sizes = self._sizes
        return [name for name in self.order.split("-") if name != "ep" and sizes[name] > 1]

    @property
    def _together(self) -> bool:
        """Whether data- and context-parallel ranks together are orbits of one stride."""
        order = self._dense
        if "cp" not in order or "dp" not in order:
            return True
        return abs(order.index("cp") - order.index("dp")) == 1

    def orbit(self, name: str) -> Orbit:
        """The groups of a dimension: ``tp``, ``cp``, ``dp`` or ``pp``."""
        stride = 1
        for other in self.order.split("-"):
            if other == name:
                break
            stride *= self._sizes.get(other, 1)
        return Orbit(stride, self._sizes[name])

    def index(self, name: str) -> NDArray[np.int64]:
        """The index of each rank in a dimension, or in ``ep``; shape (ranks,)."""
        stride, size = self.experts if name == "ep" else self.orbit(name)
        return np.arange(self.ranks, dtype=np.int64) // stride % size

    @property
    def replicas(self) -> tuple[Orbit, ...]:
        """Ranks with the same part of the model and other data: one orbit, or one after the other.

        A reduction over the first, then of the parts over the second, moves as many bytes as one
        over both.
        """
        cp, dp = self.orbit("cp"), self.orbit("dp")
        if self._together:
            return (Orbit(min(one.stride for one in (cp, dp) if one.size > 1), cp.size * dp.size),
                    ) if cp.size * dp.size > 1 else ()  # fmt: skip
        return tuple(sorted((cp, dp)))

    @property
    def experts(self) -> Orbit:
        """Ranks that share the experts of a layer."""
        if self.expert == 1:
            return Orbit(1, 1)
        whole = self.replicas[0] if self._together else self.orbit("dp")
        names = self.order.split("-")
        first = names.index("ep") < names.index("dp")
        return Orbit(whole.stride * (1 if first else whole.size // self.expert), self.expert)

    @property
    def expert_replicas(self) -> tuple[Orbit, ...]:
        """Ranks with the same experts and other data."""
        if self.expert == 1:
            return self.replicas
        own = self.experts
        whole = self.replicas[0] if self._together else self.orbit("dp")
        first = own.stride == whole.stride
        rest = Orbit(whole.stride * (self.expert if first else 1), whole.size // self.expert)
        found = (rest,) if self._together else (self.orbit("cp"), rest)
        return tuple(sorted(one for one in found if one.size > 1))

    def shards(self, replicas: tuple[Orbit, ...]) -> tuple[tuple[Orbit, ...], tuple[Orbit, ...]]:
        """Of replicas, those that share what `zero` shares, and those that are copies of them."""
        if not self.shard or not replicas:
            return replicas, ()
        (whole,) = replicas
        within = Orbit(whole.stride, min(self.shard, whole.size))
        copies = Orbit(within.stride * within.size, whole.size // within.size)
        return tuple(one for one in (within,) if one.size > 1), tuple(
            one for one in (copies,) if one.size > 1
        )


def count(orbits: tuple[Orbit, ...]) -> int:
    """Ranks of a group that is made of orbits."""
    return math.prod(one.size for one in orbits)


def _order(value: Any, name: str) -> str:
    text = value if isinstance(value, str) else ""
    if sorted(text.split("-")) != sorted(DIMENSIONS):
        raise InputError(
            f"{show(value)} is not allowed; allowed: {', '.join(DIMENSIONS)} in any order, such as "
            f"{'-'.join(DIMENSIONS)}",
            key=name,
        )
    return text
