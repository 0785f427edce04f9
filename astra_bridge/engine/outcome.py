# SPDX-License-Identifier: MIT
"""What an engine gives back, the same from both engines."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.program import DELIVERY, STAY
from astra_bridge.records import Record, field


class Stop(IntEnum):
    """Why ``advance`` returned."""

    REACHED = 1  # the time
    DONE = 2  # something that is watched is complete
    IDLE = 3  # nothing more can happen, unless work is added
    PAUSED = 4  # the progress callback asked for it


class Watch(IntEnum):
    """What ``advance`` stops for."""

    NOTHING = 0
    TASKS = 1
    NODES = 2


class Progress(NamedTuple):
    """How far a simulation is.

    Attributes
    ----------
    now_ps : int
        Simulated time.
    events : int
        Events so far.
    nodes_done, nodes_total : int
        Trace nodes of all ranks.
    """

    now_ps: int
    events: int
    nodes_done: int
    nodes_total: int


ProgressCallback = Callable[[Progress], object]
"""Where it returns True, the engine stops as soon as its state is whole."""


Waves = tuple[NDArray[np.int64], Callable[..., Any], int]
"""Which phases may be wavefronts (1 or 0 each), `Ways.hops` of the network, and threads."""


class Doubt(IntEnum):
    """Why a run with wavefronts counts for nothing."""

    NONE = 0
    ORDER = 1  # that of what happens in one instant may matter
    MEETING = 2  # messages may meet on a link
    UNKNOWN = 3  # the network cannot say what a message takes
    RANGE = 4  # a time is too late


class Waved(NamedTuple):
    """What came of wavefronts.

    Attributes
    ----------
    doubt : Doubt
    rank, now_ps : int
        Of the doubt, with which the run ended; -1 where there was none.
    phases, by_events : int
        Phases of a chunk on a rank that were wavefronts, and those that were not.
    flows : tuple of ndarray of int64
        Source, destination, bytes and number of the messages that the network did not see.
    """

    doubt: Doubt
    rank: int
    now_ps: int
    phases: int
    by_events: int
    flows: tuple[NDArray[np.int64], ...]


class Outcome(Record, frozen=True, eq=False):
    """The end of a simulation, or how far it is.

    Attributes
    ----------
    finish_ps : ndarray of int64, shape (ranks,)
        When the last node of each rank completed; -1 where it did not, 0 where it has none.
    task_finish_ps : ndarray of int64, shape (tasks,)
        The same of each task.
    node_start_ps, node_end_ps : ndarray of int64, shape (nodes of all tasks,)
        Task by task, nodes in the order of the template; -1 where it did not happen.  Empty
        where recording is off.
    task_node_start : ndarray of int64, shape (tasks + 1,)
        Where the nodes of a task begin in these arrays.
    events, transfers : int
        Events of the engine, and messages given to the network.
    relieved : int
        Chunks that were started beyond the limit of their queue because nothing else could go on.
    waits : ndarray of WAIT
        What is incomplete; empty after a complete run.
    stays : ndarray of STAY
        Chunks of collectives in their phases, in the order in which they came to them.
    deliveries : ndarray of DELIVERY
        Messages in the order in which they were sent; both are empty unless asked for (`Inside`).
    ties : int
        With folded ranks: how often their order could differ from that of all ranks.
    first_tie : (int, int)
        Rank and time [ps] of the first of them.
    waved : Waved, optional
        With wavefronts: what came of them.
    """

    finish_ps: NDArray[np.int64]
    task_finish_ps: NDArray[np.int64]
    node_start_ps: NDArray[np.int64]
    node_end_ps: NDArray[np.int64]
    task_node_start: NDArray[np.int64]
    events: int
    transfers: int
    relieved: int
    waits: NDArray[Any]
    stays: NDArray[Any] = field(default_factory=lambda: np.zeros(0, STAY))
    deliveries: NDArray[Any] = field(default_factory=lambda: np.zeros(0, DELIVERY))
    ties: int = 0
    first_tie: tuple[int, int] = (-1, -1)
    waved: Waved | None = None
