# SPDX-License-Identifier: MIT
"""Communicator groups: who takes part in a collective, and at which position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from astra_bridge.inputs.groups import GroupKey, group_key
from astra_bridge.lowering.builder import ProgramBuilder
from astra_bridge.lowering.view import Setting, TraceView, shorten
from astra_bridge.text import one_line
from astra_bridge.trace import ProcessGroup

__all__ = ["WORLD", "Groups", "orbit"]

WORLD = 0
"""Index of the group of all ranks."""


def orbit(ranks: Sequence[int], total: int) -> tuple[int, int, int] | None:
    """Stride, size and first rank of the orbit that these ranks are, if they are one.

    The orbits of (stride, size) are the ranks that agree in all but ``rank // stride % size``.

    Examples
    --------
    >>> orbit([4, 5, 6, 7], 16), orbit([1, 5, 9, 13], 16), orbit([1, 2], 16)
    ((1, 4, 4), (4, 4, 1), None)
    """
    size = len(ranks)
    stride = ranks[1] - ranks[0] if size > 1 else 1
    if stride < 1 or size * stride > total or ranks[0] // stride % size:
        return None
    if list(ranks) != list(range(ranks[0], ranks[0] + size * stride, stride)):
        return None
    return stride, size, ranks[0]


class Groups:
    """The groups of a Program, each once."""

    def __init__(self, setting: Setting, builder: ProgramBuilder) -> None:
        self._setting, self._builder = setting, builder
        self._ranks = setting.ranks
        self._rows: dict[Any, int] = {}
        self._tags: dict[Any, int] = {}
        # Orbit -> group id -> how many groups of these ranks came before.
        self._editions: dict[tuple[int, int, int], dict[GroupKey, int]] = {}
        self.strided(1, self._ranks, ("world",))

    def _tag(self, key: Any) -> int:
        # One range of stream numbers per communicator, so that no two share a tag.
        return (self._tags.setdefault(key, len(self._tags)) + 1) << 32

    def strided(self, stride: int, size: int, tag_key: Any) -> int:
        """Index of the group of a dimension: positions are (rank // stride) % size."""
        key = ("strided", stride, size)
        if key not in self._rows:
            self._rows[key] = self._builder.group(size, stride, self._tag(tag_key))
        return self._rows[key]

    def group(self, group_id: GroupKey, ranks: Sequence[int]) -> int:
        """Index of a communicator group: its id and its ranks, in order of position."""
        key = (group_id, tuple(ranks))
        if key not in self._rows:
            ascending = tuple(sorted(ranks))
            found = orbit(ascending, self._ranks)
            row: Any = key
            tag: tuple[Any, ...] = (group_id, ascending)
            if found is not None:
                # Groups that partition the ranks are one row, "the group of the own rank"; a second
                # group of the same ranks counts its streams apart.
                editions = self._editions.setdefault(found, {})
                tag = (*found[:2], editions.setdefault(group_id, len(editions)))
                row = ("orbit", *tag) if key[1] == ascending else key
            if row not in self._rows:
                stride, members = (0, ranks) if row is key else (tag[0], ())
                number = self._tag(("group", *tag))
                self._rows[row] = self._builder.group(len(ranks), stride, number, members)
            self._rows[key] = self._rows[row]
        return self._rows[key]

    def named(self, view: TraceView, position: int, pg_name: int) -> tuple[int, Sequence[int]]:
        """Index and ranks of the group that a node names.

        Raises
        ------
        InputError
            It is not defined, or not that of a rank that runs the trace.
        """
        key, ranks = self.members(view, position, pg_name)
        return (WORLD if key is None else self.group(key, ranks)), ranks

    def members(
        self, view: TraceView, position: int, pg_name: int
    ) -> tuple[GroupKey | None, Sequence[int]]:
        """Key and ranks of the group that a node names; no key where it is all ranks.

        Raises
        ------
        InputError
            As :meth:`named`.
        """
        trace, count = view.trace, self._ranks
        name = trace.strings[pg_name] if pg_name >= 0 else ""
        declared = next((g for g in reversed(trace.process_groups) if g.name == name), None)
        known, key = self._setting.comm_groups, group_key(name)
        # "0" is all ranks, unless the trace itself or the file of groups says that it is not.
        if name == "" or (key == 0 and 0 not in known and _is_all(declared, count)):
            return None, range(count)
        ranks: list[int] = []
        if declared is not None and declared.stride:
            # That of the first stands for all: each rank has the group that it is in.
            if count % (declared.stride * declared.size):
                view.refuse(
                    f"groups of {declared.size} ranks with a stride of {declared.stride} do not "
                    f"share {count} ranks evenly",
                    position,
                    "pg_name",
                )
            return key, declared.members(int(view.ranks[0]))
        if declared is not None:
            ranks = list(declared.ranks) or list(range(count))
            if min(ranks) < 0 or max(ranks) >= count or len(set(ranks)) != len(ranks):
                view.refuse(
                    f"process group {name} has ranks {shorten(ranks)}; allowed: 0 to {count - 1}, "
                    "each once",
                    position,
                    "pg_name",
                )
        elif key in known:
            ranks = list(known[key])
        else:
            view.refuse(
                f"communicator group {one_line(name)} is not defined; defined: "
                f"{', '.join(map(str, list(known)[:10])) or 'none'} (0 is all ranks)",
                position,
                "pg_name",
            )
        users = view.ranks
        alone = len(users) == 1 and int(users[0]) in ranks
        outside = users[:0] if alone else users[~np.isin(users, ranks)]
        if len(outside):
            view.refuse(
                f"rank {outside[0]} runs this trace, but is not a member of communicator group "
                f"{one_line(name)} (ranks {shorten(ranks)})",
                position,
                "pg_name",
            )
        return key, ranks


def _is_all(group: ProcessGroup | None, ranks: int) -> bool:
    return group is None or not group.ranks or sorted(group.ranks) == list(range(ranks))
