# SPDX-License-Identifier: MIT
"""Kernels as text, as the attribute ``kernels`` of a node has them: shapes in place of totals.

``gemm 2048 12288 4096; attention 1 32 8 2048 2048 128; gemm 2048 4096 4096`` are three kernels, one
after the other; ``4*gemm 512 14336 4096`` is one four times.  docs/formats/trace.md has all words.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from astra_bridge.compute.gpu.kernels import Kernels
from astra_bridge.errors import InputError
from astra_bridge.text import show

__all__ = ["Kernel", "body_us", "kernels_of"]

_ONE = re.compile(r"(?:([1-9][0-9]{0,8})\*)?([a-z][a-z0-9_]*)((?: [a-z][a-z0-9_]*| [0-9]{1,15})+)",
                  re.ASCII)  # fmt: skip


class Kernel(NamedTuple):
    """One kernel of a text.

    Attributes
    ----------
    times
        How often it runs.
    word
        Its class or operator.
    numbers
        Its shape.
    words
        What else is said of it: precision, direction, memory.
    """

    times: int
    word: str
    numbers: tuple[int, ...]
    words: tuple[str, ...]


def kernels_of(text: str) -> tuple[Kernel, ...]:
    """The kernels of a text.

    Raises
    ------
    InputError
        It is not understood.

    Examples
    --------
    >>> kernels_of("4*gemm 512 14336 4096 fp8")
    (Kernel(times=4, word='gemm', numbers=(512, 14336, 4096), words=('fp8',)),)
    """
    found = []
    for part in text.split(";"):
        match = _ONE.fullmatch(part.strip())
        if match is None:
            raise InputError(
                f"{show(part.strip())} is not allowed; allowed: a word, numbers and words, such as "
                "gemm 2048 12288 4096; several with ';'",
                key="kernels",
            )
        rest = match[3].split()
        found.append(
            Kernel(
                int(match[1] or 1),
                match[2],
                tuple(int(one) for one in rest if one.isdigit()),
                tuple(one for one in rest if not one.isdigit()),
            )
        )
    return tuple(found)


# Word -> how many numbers, and which words may follow.
_SHAPES = {
    "gemm": (3, ("bf16", "fp16", "fp8")),
    "attention": (6, ("forward", "backward", "full")),
    "decode": (4, ()),
    "stream": (1, ()),
    "optimizer": (1, ()),
    "transfer": (1, ("pinned", "pageable", "h2d", "d2h")),
}


def body_us(kernels: Kernels, one: Kernel) -> float:
    """Time of a kernel, once, without its launch.

    Raises
    ------
    InputError
        It has too many or too few numbers, or a word that it cannot have.
    """
    count, allowed = _SHAPES.get(one.word, (2, ("backward",)))
    if len(one.numbers) != count or not set(one.words) <= set(allowed):
        words = f", and any of {', '.join(allowed)}" if allowed else ""
        said = " ".join((one.word, *map(str, one.numbers), *one.words))
        raise InputError(f"{show(said)}: {one.word} takes {count} numbers{words}", key="kernels")
    return float(_body(kernels, one.word, one.numbers, one.words))


def _body(kernels: Kernels, word: str, n: tuple[int, ...], words: tuple[str, ...]) -> float:
    if word == "gemm":
        rows, columns, inner = n
        return float(kernels.gemm(rows, columns, inner, words[0] if words else "bf16"))
    if word == "attention":
        batch, heads, kv_heads, q, kv, d = n
        direction = "backward" if "backward" in words else "forward"
        return float(
            kernels.attention(
                batch, heads, q, kv, d, direction=direction, causal="full" not in words,
                kv_heads=kv_heads,
            )
        )  # fmt: skip
    if word == "decode":
        return float(kernels.decode(*n))
    if word == "stream":
        return float(kernels.stream(n[0]))
    if word == "optimizer":
        return float(kernels.optimizer(n[0]))
    if word == "transfer":
        memory = "pageable" if "pageable" in words else "pinned"
        return float(kernels.copy(memory, "d2h" if "d2h" in words else "h2d", n[0]))
    return float(kernels.operator(word, *n, backward="backward" in words))


def launches(kernels: Kernels, one: Kernel) -> int:
    """How many kernels the accelerator runs for one of the text, once."""
    return 1 if one.word in _SHAPES else kernels.launches(one.word)
