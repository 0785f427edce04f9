# SPDX-License-Identifier: MIT
"""Into which chunks a collective is split."""

from __future__ import annotations

from astra_bridge.collectives import Kind
from astra_bridge.errors import InputError
from astra_bridge.lowering.view import Setting
from astra_bridge.program.rules import MOST_CHUNKS

__all__ = ["chunks_of"]


def chunks_of(kind: Kind, size_bytes: int, setting: Setting) -> list[int]:
    """Bytes of each chunk.

    Raises
    ------
    InputError
        There would be too many.
    """
    splits = setting.system.preferred_dataset_splits
    if kind == Kind.BARRIER:
        return [1]
    if setting.corrected:
        splits = max(1, min(splits, size_bytes))
        chunk, more = divmod(size_bytes, splits)
        _check(kind, size_bytes, splits, setting)
        return [chunk + (i < more) for i in range(splits)] if size_bytes else []
    chunk = size_bytes // splits
    if kind != Kind.ALL_GATHER and setting.ranks > chunk:
        chunk = setting.ranks
        size_bytes = splits * chunk
    # ASTRA-sim never ends where an all-gather has fewer bytes than chunks.
    chunk = max(1, chunk)
    # A remainder costs a whole further chunk.
    count = -(-size_bytes // chunk)
    _check(kind, size_bytes, count, setting)
    return [chunk] * count


def _check(kind: Kind, size_bytes: int, count: int, setting: Setting) -> None:
    if count > MOST_CHUNKS:
        raise InputError(
            f"is {setting.system.preferred_dataset_splits}, which makes {count} chunks of "
            f"{kind.name} of {size_bytes} bytes; allowed: {MOST_CHUNKS} chunks",
            file=setting.system.source,
            key="preferred-dataset-splits",
        )
