# SPDX-License-Identifier: MIT
"""What a workload is, beyond its nodes: for reports, and nothing that decides a number."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

__all__ = ["About"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_One = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The model that a workload trains, or answers with.

    Attributes
    ----------
    model : str
    tokens : int
        Of all steps, or of all requests, and all ranks.
    operations : int
        Floating-point operations that the model has for these tokens, multiply and add counted as
        two; what is computed again is not counted again.  0 is not known.
    steps : int
        Training steps.
    accelerator : str
    peak : float
        Operations per second of one accelerator; 0 is not known.
    stage_stride : int
        Rank r is of stage ``r // stage_stride % len(memory)``.
    memory : tuple of dict of str to int
        What a rank of each stage keeps, by what it is [bytes].
    """

    model: str
    tokens: _Count = 0
    operations: Annotated[int, msgspec.Meta(ge=0)] = 0
    steps: _One = 1
    accelerator: str = ""
    peak: Annotated[float, msgspec.Meta(ge=0, lt=1e30)] = 0.0
    stage_stride: _One = 1
    memory: tuple[dict[str, _Count], ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
