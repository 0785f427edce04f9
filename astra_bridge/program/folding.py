# SPDX-License-Identifier: MIT
"""Which ranks of a Program are alike, so that one of them may run for all.

A rank's number has digits: ``rank // stride % size``.  *Turning* a digit adds to it, round and
round.  A digit is folded where turning it maps the whole Program, and the whole network, to
themselves:

* both ends of a message that a node sends are turned alike: the distance to the peer leaves the
  digit as it is;
* a group is the ranks that differ in another digit, or in this one, or in one whose highest part
  this is; its peers are named by their distance (or, where the digit is a single bit, by an
  exclusive or), and all positions that the digit tells apart play the same schedule;
* tasks, machines and memory are the same all round;
* the network says that it does not mind (`Turn`).

Turns of several digits can be done one after the other, so all digits that fold fold together.
Whether one rank may then run for all is decided by its run: see `astra_bridge.engine.folding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.program.program import Program
from astra_bridge.program.schema import Op, Peers, QueuePick, Variant
from astra_bridge.program.tables import distinct
from astra_bridge.records import replace

__all__ = ["Fold", "NotFolded", "Turn", "fold"]

_MOST_DISTANCES = 1 << 24
"""Ranks times distances to peers that are looked at."""
_MOST_PAIRS = 1 << 16
"""Pairs of ranks whose ways are compared."""

Digit = tuple[int, int]
"""(stride, size)"""


class Turn(NamedTuple):
    """What a dimension of a network does not mind, the lowest one first.

    Attributes
    ----------
    size : int
        Ranks per dimension.
    any : bool
        Its ranks may change places in any way; else they may only be turned, all at once.
    """

    size: int
    any: bool


class NotFolded(Exception):
    """Why ranks are not folded."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A Program of which one rank for each set of equal ones runs.

    Attributes
    ----------
    program : Program
        The tasks of those ranks; ``machine_of_rank`` and ``memory_server`` are theirs alone, while
        all else counts all ranks.
    digits : tuple of (stride, size)
        The digits that are folded, the lowest first.
    ranks : int
        Of the whole Program.
    options : dict
        What the network has to be told besides.
    """

    program: Program
    digits: tuple[Digit, ...]
    ranks: int
    options: dict[str, str] = field(default_factory=dict)

    @property
    def copies(self) -> int:
        """How many ranks one that runs stands for."""
        return math.prod(size for _, size in self.digits)

    @cached_property
    def kind_of_rank(self) -> NDArray[np.int32]:
        """Which of the ranks that run stands for each rank, shape (ranks,)."""
        kinds = np.arange(self.program.ranks, dtype=np.int32)
        for stride, size in self.digits:
            kinds = np.tile(kinds.reshape(-1, 1, stride), (1, size, 1)).reshape(-1)
        return kinds


Kept = Callable[
    [Sequence[Digit], NDArray[np.int64], NDArray[np.int64]],
    tuple[tuple[Digit, ...], dict[str, str]],
]


def fold(program: Program, turns: Sequence[Turn], kept: Kept | None = None) -> Fold:
    """One rank for each set of ranks that are alike.

    Parameters
    ----------
    program : Program
        One that is valid.
    turns : sequence of Turn
        The dimensions of the network.
    kept : callable, optional
        Which digits its ways between pairs of ranks agree with, as `Symmetry.kept`.

    Raises
    ------
    NotFolded
        No two ranks are alike, or the Program has something that no fold can have.

    Examples
    --------
    >>> from astra_bridge.program import TEMPLATE, one_job, tasks
    >>> idle = Program(
    ...     tasks=tasks([0, 0, 1, 1]),
    ...     jobs=one_job(4),
    ...     machine_of_rank=np.zeros(4, np.int32),
    ...     memory_server=np.full(4, -1, np.int32),
    ...     templates=np.zeros(2, TEMPLATE),
    ... )
    >>> folded = fold(idle, [Turn(2, True), Turn(2, True)])
    >>> folded.digits, folded.kind_of_rank.tolist()
    (((1, 2),), [0, 0, 1, 1])
    """
    return _Search(program, turns, kept).found()


class _Group(NamedTuple):
    """A group that phases use, and how."""

    stride: int
    size: int
    relative: bool  # some peers are named by their distance
    xor: bool  # some by an exclusive or
    distances: frozenset[int]  # to these,
    masks: frozenset[int]  # and with these
    places: tuple[NDArray[np.int32], ...]  # schedule of each position, where they differ


class _Search:
    def __init__(self, program: Program, turns: Sequence[Turn], kept: Kept | None) -> None:
        self._program, self._turns, self._kept = program, turns, kept
        self._ranks = program.ranks
        self._refuse()
        self._groups = self._groups_of_phases()

    def _refuse(self) -> None:
        """What no fold can have."""
        program = self._program
        one = len(program.jobs) == 1 and int(program.jobs["placement_start"][0]) < 0
        if not one or len(program.tasks) != self._ranks:
            raise NotFolded("there are several jobs, or one that is not on all ranks in order")
        job_rank = program.tasks["job_rank"]
        if not (job_rank == np.arange(self._ranks, dtype=job_rank.dtype)).all():
            raise NotFolded("tasks are not in the order of their ranks")
        if (program.tasks["start_ps"] != program.tasks["start_ps"][0]).any():
            raise NotFolded("ranks start at different times")
        if len(program.slowdowns):
            raise NotFolded("some ranks become slower meanwhile")
        if math.prod(turn.size for turn in self._turns) != self._ranks:
            raise NotFolded("the network has other dimensions")
        if program.receives_at_once:
            raise NotFolded("the order of a network that completes receives at once is its own")
        if (program.collectives["graph"] >= 0).any():
            raise NotFolded("a custom collective names its peers by their ranks")
        if (program.nodes["op"] == Op.MEMORY).any() and (program.memory_server >= 0).any():
            raise NotFolded("accesses of several ranks to remote memory wait for one another")

    def _groups_of_phases(self) -> list[_Group]:
        program = self._program
        phases = program.phases
        xor = (program.steps["peers"] == Peers.XOR).astype(np.int64)
        # Steps before each one that ..., so that a schedule is a difference.
        before_xor = np.concatenate([[0], np.cumsum(xor)])
        sends = (program.steps["send_bytes"] > 0) | (program.steps["recv_bytes"] > 0)
        before_relative = np.concatenate([[0], np.cumsum(sends & (xor == 0))])
        first = program.schedules["step_start"]
        last = first + program.schedules["step_count"]
        has_xor = before_xor[last] > before_xor[first]
        has_relative = before_relative[last] > before_relative[first]

        def peers(part: slice, *, xor: bool) -> frozenset[int]:
            """Whom the steps of these schedules name."""
            if self._kept is None:
                return frozenset()
            steps = program.steps[int(first[part].min()) : int(last[part].max())]
            steps = steps[((steps["peers"] == Peers.XOR) == xor) & (steps["send_bytes"] > 0)]
            return frozenset(distinct(steps["send_to"]).tolist())

        found: dict[int, _Group] = {}
        # Which way round: either, where ranks take turns, or queues of both ways are next.
        either = phases["variant"] == Variant.ALTERNATE
        if program.queues_per_level > 1:
            either |= phases["pick"] == QueuePick.NEXT
        columns = (
            phases["layout"],
            phases["family0"],
            phases["family1"],
            either | (phases["pick"] != QueuePick.LAST),
            either | (phases["pick"] == QueuePick.LAST),
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for layout, family0, family1, takes0, takes1 in dict.fromkeys(rows):
            taken = {family for family, takes in ((family0, takes0), (family1, takes1)) if takes}
            size, stride, _, _ = program.groups[layout].tolist()
            if stride == 0:
                raise NotFolded("a group is a list of ranks without a common distance")
            none: frozenset[int] = frozenset()
            old = found.get(layout, _Group(stride, size, False, False, none, none, ()))
            for family in {family0, family1}:
                start, positions, schedule, count = program.families[family].tolist()
                part = slice(schedule, schedule + count)
                places = old.places
                if positions:
                    places += (program.schedule_of_position[start : start + positions],)
                old = old._replace(
                    relative=old.relative or bool(has_relative[part].any()),
                    xor=old.xor or bool(has_xor[part].any()),
                    distances=old.distances | (peers(part, xor=False) if family in taken else none),
                    masks=old.masks | (peers(part, xor=True) if family in taken else none),
                    places=places,
                )
            found[layout] = old
        return list(found.values())

    def found(self) -> Fold:
        # Digits of single bits, where an exclusive or wants them, or whole ones: what folds more.
        best: tuple[Digit, ...] = ()
        options: dict[str, str] = {}
        differs = False
        for bits in (False, True):
            if bits and not any(group.xor for group in self._groups):
                continue
            digits = tuple(one for one in self._digits(bits) if self._turns_round(one))
            told: dict[str, str] = {}
            if self._kept is not None and digits:
                digits, told = self._kept(digits, *self._pairs)
                differs = differs or not digits
            if _copies(digits) > _copies(best):
                best, options = digits, told
        if not best and differs:
            raise NotFolded(
                "the ways between ranks differ: how long they are, which of several that are "
                "equally good a hash picks, or which links they share"
            )
        if not best:
            raise NotFolded("no two ranks do the same, each with its own peers")
        program = self._program
        if program.ranks > _copies(best) and program.queues_per_level > 1:
            agreed = program.phases["variant"] == Variant.AGREED
            if (agreed & (program.phases["pick"] == QueuePick.NEXT)).any():
                raise NotFolded("ranks that are not alike agree on the way round of a ring")
        runs = np.ones(1, bool)
        at = 1
        for stride, size in (*best, (self._ranks, 1)):
            runs = np.tile(runs, stride // at)
            at = stride * size
            runs = np.concatenate([runs, np.zeros(at - stride, bool)])
        quotient = replace(
            program,
            tasks=program.tasks[runs],
            machine_of_rank=program.machine_of_rank[runs],
            memory_server=program.memory_server[runs],
        )
        return Fold(quotient, best, self._ranks, options)

    def _digits(self, bits: bool) -> list[Digit]:
        """Digits between all borders that matter; none where these do not divide one another."""
        borders = {1, self._ranks}
        at = 1
        for turn in self._turns:
            at *= turn.size
            borders.add(at)
        network = set(borders)
        for group in self._groups:
            borders |= {group.stride, group.stride * group.size}
            if bits and group.xor and group.size & (group.size - 1) == 0:
                borders |= {group.stride << bit for bit in range(group.size.bit_length())}
        chain = [1]
        for border in sorted(borders):
            if border == chain[-1]:
                continue
            while border % chain[-1]:
                # What does not divide is left out, but for the network's own borders.
                if border not in network:
                    break
                chain.pop()
            else:
                chain.append(border)
        return [(low, high // low) for low, high in pairwise(chain)]

    def _turns_round(self, digit: Digit) -> bool:
        """Whether turning a digit maps network and Program to themselves."""
        return (
            self._network_turns(*digit)
            and all(_group_turns(group, *digit) for group in self._groups)
            and self._same_all_round(self._program.machine_of_rank, *digit)
            and self._same_all_round(self._program.tasks["template_index"], *digit)
            and self._peers_turn(*digit)
        )

    def _network_turns(self, stride: int, size: int) -> bool:
        low = 1
        for turn in self._turns:
            high = low * turn.size
            if low <= stride and stride * size <= high:
                # To turn the highest part of a dimension is to turn all of it by a multiple.
                return turn.any or stride * size == high
            low = high
        return False

    def _same_all_round(self, values: NDArray[np.int32], stride: int, size: int) -> bool:
        if len(values) == 0 or not np.any(values != values[0]):
            return True
        table = values.reshape(-1, size, stride)
        return bool((table == table[:, :1]).all())

    def _peers_turn(self, stride: int, size: int) -> bool:
        """Whether messages leave the digit as it is."""
        for ranks, distances in self._distances:
            digit = ranks // stride % size
            for distance in distances:
                if ((ranks + distance) // stride % size != digit).any():
                    return False
        return True

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Who may send to whom: at least all that do."""
        ranks = np.arange(self._ranks)
        found = [np.zeros(0, np.int64)]
        looked_at = 0

        def add(src: NDArray[np.int64], dst: NDArray[np.int64]) -> None:
            nonlocal looked_at
            looked_at += len(src)
            if looked_at > _MOST_PAIRS:
                raise NotFolded("there are too many pairs of ranks to compare their ways")
            found.append((src * self._ranks + dst)[src != dst])

        for group in self._groups:
            own = ranks // group.stride % group.size
            for xor, values in ((False, group.distances), (True, group.masks)):
                for value in values:
                    peer = own ^ value if xor else (own + value) % group.size
                    among = peer < group.size
                    add(ranks[among], (ranks + (peer - own) * group.stride)[among])
        for some, distances in self._distances:
            for distance in distances:
                add(some, some + distance)
                add(some + distance, some)  # or it names a sender
        both = distinct(np.concatenate(found))
        src, dst = np.divmod(both, self._ranks)
        if self._program.rendezvous_bytes:  # the receiver says first that it is there
            both = distinct(np.concatenate([both, dst * self._ranks + src]))
        return both // self._ranks, both % self._ranks

    @cached_property
    def _distances(self) -> list[tuple[NDArray[np.int64], list[int]]]:
        """Per template with messages: the ranks that run it, and the distances to their peers."""
        program, result, looked_at = self._program, [], 0
        if not len(program.messages):
            return []
        of_rank = program.tasks["template_index"]
        for index in distinct(of_rank).tolist():
            start, count, _, relative = program.templates[index].tolist()
            nodes = program.nodes[start : start + count]
            args = nodes["arg"][(nodes["op"] == Op.SEND) | (nodes["op"] == Op.RECV)]
            if not len(args):
                continue
            if not relative:
                raise NotFolded("several ranks send to one rank, or receive from it")
            ranks = np.flatnonzero(of_rank == index)
            distances = distinct(program.messages["peer"][args]).tolist()
            looked_at += len(ranks) * len(distances)
            if looked_at > _MOST_DISTANCES:
                raise NotFolded("there are too many messages between nodes to compare")
            result.append((ranks, distances))
        return result


def _copies(digits: Sequence[Digit]) -> int:
    return math.prod(size for _, size in digits)


def _group_turns(group: _Group, stride: int, size: int) -> bool:
    """Whether turning a digit maps all groups of this kind to themselves, or to one another."""
    low, high = group.stride, group.stride * group.size
    if stride * size <= low or stride >= high:
        return True
    if stride < low or stride * size > high:
        return False
    if group.relative and stride * size != high:
        return False
    if group.xor and (size != 2 or (stride // low) & (stride // low - 1) or stride % low):
        return False
    for places in group.places:
        table = places.reshape(-1, size, stride // low)
        if not (table == table[:, :1]).all():
            return False
    return True
