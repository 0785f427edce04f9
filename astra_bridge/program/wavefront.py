# SPDX-License-Identifier: MIT
"""Which phases of a Program are recurrences over arrays; csrc/engine/wavefront.hpp has those."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from astra_bridge.program.program import Program
from astra_bridge.program.schema import Bus, BusModel, Op, Peers

__all__ = ["NoWavefront", "chains", "wavefronts"]


class NoWavefront(Exception):
    """Why no phase of a run is a wavefront."""


def chains(program: Program) -> NDArray[np.bool_]:
    """Whether, of each schedule, step k needs packet k alone, and passes one message on.

    All messages are of one size, to the next member or to the one before, and come from the other
    side: so each member hears of its one neighbour only, and packet k + 1 is message k.

    Returns
    -------
    ndarray of bool, shape (schedules,)
    """
    schedules, steps = program.schedules, program.steps
    count = schedules["step_count"].astype(np.int64)
    of_schedule = np.repeat(np.arange(len(schedules)), count)
    begin = np.cumsum(count) - count
    number = np.arange(len(of_schedule)) - np.repeat(begin, count)
    row = schedules["step_start"][of_schedule] + number
    mine, first = (
        steps[row],
        steps[np.minimum(schedules["step_start"], len(steps) - 1)[of_schedule]],
    )
    good = (
        (mine["need"] == number + 1)
        & (mine["peers"] == Peers.RELATIVE)
        & (np.abs(mine["send_to"]) == 1)
        & (mine["recv_from"] == -mine["send_to"])
        & (mine["send_bytes"] > 0)
        & (mine["recv_bytes"] == mine["send_bytes"])
        & (mine["send_to"] == first["send_to"])
        & (mine["send_bytes"] == first["send_bytes"])
    )
    bad = np.bincount(of_schedule[~good], minlength=len(schedules))
    found: NDArray[np.bool_] = (
        (bad == 0)
        & (count > 0)
        & (schedules["window"] == 1)
        & (schedules["burst"] >= 1)
        & (schedules["end"] == count + 1)
        & (schedules["gate_step"] >= count)
    )
    return found


def wavefronts(program: Program, *, meets: bool) -> NDArray[np.int64]:
    """Which phases may be wavefronts.

    Parameters
    ----------
    program : Program
    meets : bool
        Whether transfers may meet in the network: then no message may be on its way beside those of
        wavefronts.

    Returns
    -------
    ndarray of int64, shape (phases,)
        1 where it may.

    Raises
    ------
    NoWavefront
        None may be.
    """
    families, phases = program.families, program.phases
    if program.rendezvous_bytes:
        raise NoWavefront("messages wait for control messages")
    if (program.collectives["graph"] >= 0).any():
        raise NoWavefront("there are custom collectives")
    if (program.nodes["op"] == Op.MEMORY).any() and (program.memory_server >= 0).any():
        raise NoWavefront("accesses of several ranks to remote memory wait for one another")
    if (program.machines["streams_per_queue"] > 1).any():
        raise NoWavefront("several chunks of a queue run at a time")
    if program.queues_per_level > 1:
        raise NoWavefront("a dimension has several queues")
    if not len(phases):
        raise NoWavefront("there are no collectives")
    own_bus = (phases["bus"] == Bus.FAST) | (
        (phases["bus"] == Bus.ENDPOINT) & (program.machines["bus_model"] != BusModel.LOGGP).all()
    )
    if not own_bus.all():
        raise NoWavefront("packets share a bus, or cross none")
    alike = families["positions"] == 0
    chain = alike & chains(program)[families["first"]]
    both = [phases["family0"], phases["family1"]]
    found = chain[both[0]] & chain[both[1]]
    if not found.any():
        raise NoWavefront("no phase has one neighbour to hear of (a ring)")
    if meets:
        if not found.all():
            raise NoWavefront("other phases use the same links")
        if np.isin(program.nodes["op"], (Op.SEND, Op.RECV)).any():
            raise NoWavefront("messages of nodes use the same links")
    elif not found.all():
        # Where steps wait for messages, their order inside an instant matters.
        gated = program.schedules["gate_step"] < program.schedules["step_count"]
        if gated.any():
            raise NoWavefront("steps of other phases wait for messages, whose order may matter")
    result: NDArray[np.int64] = found.astype(np.int64)
    return result
