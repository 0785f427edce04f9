# SPDX-License-Identifier: MIT
"""Orders of pipelines as data: what each stage does, one micro-batch after the other.

Nothing here knows sizes, times or networks.  A stage holds one or several chunks of the model, and
an order is a list of actions: the forward or backward pass of a micro-batch through a chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.text import nearest, show

__all__ = ["SCHEDULES", "Action", "Pipeline", "Work", "forward_only", "pipeline"]


class Work(Enum):
    """What an action does."""

    FORWARD = "F"
    BACKWARD = "B"
    """Gradients of inputs and weights."""
    INPUT = "I"
    WEIGHT = "W"
    """The two halves of a backward pass (Qi et al., arXiv 2401.10241)."""


class Action(NamedTuple):
    """One pass of a micro-batch through a chunk.

    Attributes
    ----------
    work : Work
    micro : int
        Which micro-batch, from 0 on.
    chunk : int
        Which of the stage's chunks.
    beside : bool
        Whether it runs together with the action before it, so that one computes while the other
        communicates.
    """

    work: Work
    micro: int
    chunk: int = 0
    beside: bool = False

    def __str__(self) -> str:
        return f"{self.work.value}{self.micro}" + (f".{self.chunk}" if self.chunk else "")


@dataclass(frozen=True)
class Pipeline:
    """Stages, and what each does in which order.

    Attributes
    ----------
    stages, chunks, micro_batches : int
        Chunks are those of one stage.
    mirrored : bool
        Whether the model stands twice, the second time in the opposite order of stages; half of the
        micro-batches go each way.
    orders : tuple of tuple of Action
        By stage.
    """

    stages: int
    chunks: int
    micro_batches: int
    mirrored: bool
    orders: tuple[tuple[Action, ...], ...]

    @property
    def positions(self) -> int:
        """Parts that the model is cut into."""
        return self.stages if self.mirrored else self.stages * self.chunks

    def position(self, stage: int, chunk: int) -> int:
        """Which part of the model a chunk is."""
        if self.mirrored:
            return self.stages - 1 - stage if chunk else stage
        return chunk * self.stages + stage

    def neighbour(self, stage: int, chunk: int, step: int) -> tuple[int, int] | None:
        """Stage and chunk of the part one before (-1) or behind (1); None at an end."""
        position = self.position(stage, chunk) + step
        if not 0 <= position < self.positions:
            return None
        if self.mirrored:
            return (self.stages - 1 - position if chunk else position), chunk
        return position % self.stages, position // self.stages

    def in_flight(self, stage: int) -> list[int]:
        """By chunk, micro-batches whose activations are kept, at the time when they are most."""
        now, most = [0] * self.chunks, [0] * self.chunks
        put_off = {(one.micro, one.chunk) for one in self.orders[stage] if one.work is Work.WEIGHT}
        for one in self.orders[stage]:
            if one.work is Work.FORWARD:
                now[one.chunk] += 1
                if sum(now) > sum(most):
                    most = now.copy()
            elif one.work is not Work.INPUT or (one.micro, one.chunk) not in put_off:
                now[one.chunk] -= 1
        return most


def _f(micro: int, chunk: int = 0) -> Action:
    return Action(Work.FORWARD, micro, chunk)


def _b(micro: int, chunk: int = 0) -> Action:
    return Action(Work.BACKWARD, micro, chunk)


def _gpipe(stages: int, micro_batches: int, _: int) -> list[list[Action]]:
    """All forward, then all backward (Huang et al., GPipe, arXiv 1811.06965)."""
    micros = range(micro_batches)
    return [[*map(_f, micros), *map(_b, micros)] for _ in range(stages)]


def _one_forward_one_backward(stages: int, micros: int, _: int) -> list[list[Action]]:
    """PipeDream-Flush (Narayanan et al., arXiv 2006.09503; arXiv 2104.04473, section 2.2.1)."""
    found = []
    for stage in range(stages):
        warm = min(stages - 1 - stage, micros)
        order = [_f(micro) for micro in range(warm)]
        for micro in range(micros - warm):
            order += [_f(micro + warm), _b(micro)]
        order += [_b(micro) for micro in range(micros - warm, micros)]
        found.append(order)
    return found


def _interleaved(stages: int, micros: int, chunks: int) -> list[list[Action]]:
    """Several chunks for each stage (Narayanan et al., arXiv 2104.04473, section 2.2.2).

    Micro-batches go in groups of as many as there are stages, through one chunk after the other.
    """
    total = micros * chunks

    def turn(number: int, backward: bool) -> tuple[int, int]:
        group, within = divmod(number, stages * chunks)
        chunk, place = divmod(within, stages)
        return group * stages + place, chunks - 1 - chunk if backward else chunk

    found = []
    for stage in range(stages):
        warm = min(2 * (stages - 1 - stage) + (chunks - 1) * stages, total)
        order = [_f(*turn(number, False)) for number in range(warm)]
        for number in range(total - warm):
            order += [_f(*turn(number + warm, False)), _b(*turn(number, True))]
        order += [_b(*turn(number, True)) for number in range(total - warm, total)]
        found.append(order)
    return found


def _zero_bubble(stages: int, micros: int, chunks: int) -> list[list[Action]]:
    """ZB-H1: gradients of weights are put off (Qi et al., arXiv 2401.10241, section 2.2).

    As 1F1B, but a stage p computes those of a micro-batch after the input gradients of p later
    ones, so that it holds as many activations as the first stage of 1F1B.
    """
    found = []
    for stage, plain in enumerate(_one_forward_one_backward(stages, micros, chunks)):
        order, waiting = [], deque[int]()
        for one in plain:
            if one.work is Work.FORWARD:
                order.append(one)
                continue
            order.append(Action(Work.INPUT, one.micro))
            waiting.append(one.micro)
            if len(waiting) > stage:
                order.append(Action(Work.WEIGHT, waiting.popleft()))
        order += [Action(Work.WEIGHT, micro) for micro in waiting]
        found.append(order)
    return found


def _dual_pipe(stages: int, micros: int, _: int) -> list[list[Action]]:
    """Micro-batches from both ends (DeepSeek-V3, arXiv 2412.19437, section 3.2.1, figure 5).

    The eight phases are those of the figure; a stage of the second half does what its mirror image
    in the first half does, the other way round.
    """
    half = stages // 2
    return [
        _dual_stage(min(stage, stages - 1 - stage), half, stage >= half, micros // 2)
        for stage in range(stages)
    ]


def _dual_stage(near: int, half: int, mirror: bool, each: int) -> list[Action]:
    """The order of a stage that is `near` stages away from its end; `each` micro-batches a way."""
    order: list[Action] = []
    done = {(work, way): 0 for work in (Work.FORWARD, Work.BACKWARD) for way in (0, 1)}
    waiting = deque[Action]()

    def act(work: Work, way: int, *, beside: bool = False, halves: bool = False) -> None:
        micro, chunk = done[work, way], way ^ mirror
        done[work, way] += 1
        order.append(Action(Work.INPUT if halves else work, micro, chunk, beside))
        if halves:
            waiting.append(Action(Work.WEIGHT, micro, chunk))

    def both(forward: int) -> None:
        act(Work.FORWARD, forward)
        act(Work.BACKWARD, 1 - forward, beside=True)

    for _ in range(2 * (half - near - 1)):
        act(Work.FORWARD, 0)
    for _ in range(near + 1):
        act(Work.FORWARD, 0)
        act(Work.FORWARD, 1)
    for _ in range(half - near - 1):
        act(Work.BACKWARD, 1, halves=True)
        order.append(waiting.popleft())
        act(Work.FORWARD, 1)
    for turn in range(each - 2 * half + near + 1):
        if turn == 0 and near == half - 1:
            # The two stages in the middle wait for one another: first send, then compute.
            act(Work.FORWARD, 0)
            act(Work.BACKWARD, 1)
        else:
            both(0)
        both(1)
    for _ in range(half - near - 1):
        act(Work.BACKWARD, 1)
        both(1)
    halves = False
    for turn in range(near + 1):
        halves |= turn == (near + 1) // 2 and near % 2 == 1
        act(Work.BACKWARD, 1, halves=halves)
        halves |= turn == (near + 1) // 2 and near % 2 == 0
        act(Work.BACKWARD, 0, halves=halves)
    for _ in range(half - near - 1):
        order.append(waiting.popleft())
        act(Work.BACKWARD, 0, halves=True)
    order += waiting
    return order


class _Kind(NamedTuple):
    orders: Callable[[int, int, int], list[list[Action]]]
    mirrored: bool = False
    chunked: bool = False


SCHEDULES = {
    "gpipe": _Kind(_gpipe),
    "1f1b": _Kind(_one_forward_one_backward),
    "interleaved": _Kind(_interleaved, chunked=True),
    "zb-h1": _Kind(_zero_bubble),
    "dualpipe": _Kind(_dual_pipe, mirrored=True),
}
"""Name -> how orders are made."""


def pipeline(schedule: str, stages: int, micro_batches: int, chunks: int = 1) -> Pipeline:
    """The orders of all stages.

    Parameters
    ----------
    schedule
        A name of `SCHEDULES`.
    stages, micro_batches
        Of them.
    chunks
        Of each stage; more than 1 for ``interleaved`` only, and 2 of itself for ``dualpipe``.

    Raises
    ------
    InputError
        Nothing has this name, or the schedule needs other numbers.

    Examples
    --------
    >>> " ".join(map(str, pipeline("1f1b", 2, 3).orders[0]))
    'F0 F1 B0 F2 B1 B2'
    """
    kind = SCHEDULES.get(schedule)
    if kind is None:
        raise InputError(
            f"{show(schedule)} is not allowed; allowed: {', '.join(SCHEDULES)}"
            f"{nearest(str(schedule), SCHEDULES)}",
            key="schedule",
        )
    if kind.chunked and (stages < 2 or chunks < 2 or micro_batches % stages):
        raise InputError(
            f"{schedule} needs at least 2 stages, 2 chunks for each (vpp) and micro-batches that "
            f"are a multiple of the stages; there are {stages}, {chunks} and {micro_batches}",
            key="schedule",
        )
    if not kind.chunked and chunks > 1:
        named = ", ".join(name for name, one in SCHEDULES.items() if one.chunked)
        raise InputError(f"{chunks} chunks for each stage are for {named}", key="vpp")
    if kind.mirrored and (stages % 2 or micro_batches % 2 or micro_batches < 2 * stages):
        raise InputError(
            f"{schedule} needs an even number of stages, and at least twice as many micro-batches, "
            f"an even number too; there are {stages} and {micro_batches}",
            key="schedule",
        )
    orders = kind.orders(stages, micro_batches, chunks)
    chunks = 2 if kind.mirrored else chunks
    return Pipeline(stages, chunks, micro_batches, kind.mirrored, tuple(map(tuple, orders)))


def forward_only(stages: int, micro_batches: int) -> Pipeline:
    """Micro-batches one after the other, without a backward pass."""
    order = tuple(map(_f, range(micro_batches)))
    return Pipeline(stages, 1, micro_batches, False, (order,) * stages)
