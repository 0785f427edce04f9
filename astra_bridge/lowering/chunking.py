# SPDX-License-Identifier: MIT
"""Into which chunks a collective is split."""

from __future__ import annotations

from astra_bridge.collectives import Kind
from astra_bridge.errors import InputError
from astra_bridge.lowering.view import Setting
from astra_bridge.program.rules import MOST_CHUNKS

__all__ = ["chunks_of"]


def chunks_of(
    kind: Kind, size_bytes: int, setting: Setting
) -> tuple[list[int], list[tuple[str, str]]]:
    """Split a collective.

    Returns
    -------
    chunks : list of int
        Bytes of each.
    changes : list of (str, str)
        Quirks that made a difference, and which one.

    Raises
    ------
    InputError
        There would be too many.
    """
    asked = setting.system.preferred_dataset_splits
    if kind == Kind.BARRIER:
        return [1], []
    splits = max(1, min(asked, size_bytes))
    ranks, semantics = setting.ranks, setting.semantics
    padded = kind != Kind.ALL_GATHER and ranks > size_bytes // asked
    if padded and "small-chunks-are-padded" in semantics:
        _check(kind, size_bytes, asked, setting)
        detail = f"{asked:,} chunk(s) of {ranks:,} B in place of {splits if size_bytes else 0:,}"
        detail = f"{kind.word} of {size_bytes:,} B: {detail} of at least {size_bytes // splits:,} B"
        return [ranks] * asked, [("small-chunks-are-padded", detail)]
    if size_bytes > splits and size_bytes % splits and "remainder-is-a-chunk" in semantics:
        chunk = size_bytes // splits
        count = -(-size_bytes // chunk)
        _check(kind, size_bytes, count, setting)
        detail = f"{count:,} chunks of {chunk:,} B in place of {splits:,} of at most"
        detail = f"{kind.word} of {size_bytes:,} B: {detail} {chunk + 1:,} B"
        return [chunk] * count, [("remainder-is-a-chunk", detail)]
    _check(kind, size_bytes, splits, setting)
    chunk, more = divmod(size_bytes, splits)
    return [chunk + (i < more) for i in range(splits)] if size_bytes else [], []


def _check(kind: Kind, size_bytes: int, count: int, setting: Setting) -> None:
    if count > MOST_CHUNKS:
        raise InputError(
            f"is {setting.system.preferred_dataset_splits}, which makes {count} chunks of "
            f"{kind.name} of {size_bytes} bytes; allowed: {MOST_CHUNKS} chunks",
            file=setting.system.source,
            key="preferred-dataset-splits",
        )
