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

__all__ = ["GroupKey", "group_key", "read_comm_groups"]

GroupKey = int | str
"""A number, or any other name: PyTorch names groups by hashes."""

_LONGEST_NAME = 1000


def group_key(name: str) -> GroupKey:
    """What a name of a group stands for: 1, where it is "1", "01" or "1.0", as ASTRA-sim reads it.

    Examples
    --------
    >>> group_key("1.0"), group_key("9f2c0e77aa")
    (1, '9f2c0e77aa')
    """
    number = re.fullmatch(r"\s*\+?([0-9]{1,10})(?:\.0*)?\s*", name)
    found = int(number.group(1)) if number else 2**31
    return found if found < 2**31 else name


def read_comm_groups(
    source: str | Path | Mapping[Any, Any] | None, ranks: int | None = None
) -> dict[GroupKey, tuple[int, ...]]:
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
    dict of int or str to tuple of int
        Key of a group (:func:`group_key`) -> ranks, in the order of the file (it is the order of
        the logical ring).  Group 0 is all ranks where the file does not hold it, or holds it so.

    Raises
    ------
    InputError
        The file cannot be read, an id is negative, empty or repeated, a group is empty, or
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
    groups: dict[GroupKey, tuple[int, ...]] = {}
    for key, members in raw.items():
        text = key if isinstance(key, str) else show(key)
        wrong = not text.strip() or len(text) > _LONGEST_NAME
        if wrong or re.fullmatch(r"\s*-[0-9.]+\s*", text):
            raise InputError(
                f"group id {show(key)} is not allowed; allowed: whole numbers from 0 to "
                f"2147483647, and names of up to {_LONGEST_NAME} characters",
                file=file,
                key=text,
            )
        group = group_key(text)
        if group in groups:
            raise InputError(f"group {group} is given twice", file=file, key=text)
        groups[group] = _members(members, ranks, file, text)
    if ranks is not None and sorted(groups.get(0, ())) == list(range(ranks)):
        del groups[0]
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
