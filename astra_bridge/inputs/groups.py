# SPDX-License-Identifier: MIT
"""Communicator groups (JSON): ``{"1": [0, 1, 2], ...}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astra_bridge.arguments import integer, source_file
from astra_bridge.errors import InputError
from astra_bridge.inputs.common import load_json, show
from astra_bridge.inputs.reading import in_file

__all__ = ["read_comm_groups"]


def read_comm_groups(
    source: str | Path | Mapping[Any, Any] | None, ranks: int | None = None
) -> dict[int, tuple[int, ...]]:
    """Read communicator groups.

    Parameters
    ----------
    source
        Path of the JSON file or its content.  None, the word "empty" (the default of ASTRA-sim's
        flag), or a path that contains it and names no file, is no groups at all.
    ranks
        Number of ranks; members are checked against it where it is given.

    Returns
    -------
    dict of int to tuple of int
        Group id -> ranks, in the order of the file (it is the order of the logical ring).
        Group 0, in a trace, always means all ranks; the file may hold it only as such.

    Raises
    ------
    InputError
        The file cannot be read, an id is no positive number or repeated, a group is empty, or
        a rank is repeated or out of range.
    """
    if source is None:
        return {}
    file = source_file(source, "comm_groups")
    # ASTRA-sim leaves a file out because of its name, be it there or not, without a word.
    if file is not None and "empty" in str(file) and not (str(file) != "empty" and file.exists()):
        return {}
    raw = load_json(file) if file is not None else source
    if not isinstance(raw, Mapping):
        raise InputError(
            f'expected {{"<group id>": [rank, ...], ...}}, found {show(raw)}', file=file
        )
    groups: dict[int, tuple[int, ...]] = {}
    for key, members in raw.items():
        text = key if isinstance(key, str) else show(key)
        group = int(text) if re.fullmatch(r"\s*\+?[0-9]{1,10}\s*", text) else -1
        if not 0 <= group < 2**31:
            raise InputError(
                f"group id {show(key)} is not allowed; allowed: whole numbers from 1 to 2147483647",
                file=file,
                key=text,
            )
        if group in groups:
            raise InputError(f"group {group} is given twice", file=file, key=text)
        groups[group] = _members(members, ranks, file, text)
    if 0 in groups:
        zero = groups.pop(0)
        if ranks is not None and sorted(zero) != list(range(ranks)):
            raise InputError(
                'a node whose pg_name is "0" runs on all ranks, so group 0 cannot be a part of '
                f"them ({len(zero)} of {ranks}); give it another id from 1 on",
                file=file,
                key="0",
            )
    return groups


def _members(members: object, ranks: int | None, file: Path | None, key: str) -> tuple[int, ...]:
    if not isinstance(members, (list, tuple)) or not members:
        raise InputError(
            f"expected a list of at least one rank, found {show(members)}", file=file, key=key
        )
    seen = set()
    for index, rank in enumerate(members):
        limit = 2**31 if ranks is None else ranks
        in_file(integer(0, limit - 1), rank, file=file, key=f"{key}[{index}]")
        if rank in seen:
            raise InputError(f"rank {rank} is given twice", file=file, key=f"{key}[{index}]")
        seen.add(rank)
    return tuple(members)
