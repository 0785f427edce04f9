# SPDX-License-Identifier: MIT
"""Programs made of Programs: jobs on a larger network, and several of them on one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astra_bridge.errors import InputError
from astra_bridge.program.program import Program
from astra_bridge.program.schema import JOB, RANK_TABLES, Op
from astra_bridge.records import replace

__all__ = ["extended", "joined", "moved", "placed"]

_GROWING = tuple(
    name
    for name in Program.__struct_fields__
    if name not in (*RANK_TABLES, "levels", "queues_per_level", "alternate_slots",
                          "rendezvous_bytes", "receives_at_once")
)  # fmt: skip
_NO_MACHINE = -1


def placed(program: Program, ranks: int, placement: ArrayLike | None, start_ps: int = 0) -> Program:
    """The work of a Program on some ranks of a larger network, from a time on.

    Parameters
    ----------
    program : Program
        Of one job or several.
    ranks : int
        Of the network.
    placement : array of int, shape (program.ranks,), optional
        The rank of the network that each rank of the Program is on; None is 0, 1, 2, ...
    start_ps : int
        Added to when its tasks start.

    Returns
    -------
    Program
        With ``machine_of_rank`` -1 where it has no rank, so only fit to be joined with others.

    Raises
    ------
    InputError
        The placement has another length, or a rank that the network has not, or one twice.
    """
    where = np.arange(program.ranks) if placement is None else np.asarray(placement)
    if where.shape != (program.ranks,) or where.dtype.kind not in "iu":
        raise InputError(
            f"names {where.size} ranks; allowed: one whole number for each of the job's "
            f"{program.ranks} ranks",
            key="placement",
        )
    wrong = (where < 0) | (where >= ranks)
    if wrong.any():
        raise InputError(
            f"is {where[wrong][0]}; allowed: 0 to {ranks - 1}, the ranks of the network",
            key=f"placement[{int(np.argmax(wrong))}]",
        )
    values, counts = np.unique(where, return_counts=True)
    if (counts > 1).any():
        twice = values[counts > 1][0]
        raise InputError(f"rank {twice} stands there twice", key="placement")
    tasks = program.tasks.copy()
    tasks["start_ps"] += start_ps
    slowdowns = program.slowdowns.copy()
    slowdowns["at_ps"] += start_ps
    slowdowns["rank"] = where[slowdowns["rank"]]
    jobs, placement_of = [], [np.zeros(0, np.int32)]
    start = 0
    for tag_base, own, size in program.jobs.tolist():
        inner = np.arange(size) if own < 0 else program.placement[own : own + size]
        jobs.append((tag_base, start, size))
        placement_of.append(where[inner].astype(np.int32))
        start += size
    machine_of_rank = np.full(ranks, _NO_MACHINE, np.int32)
    machine_of_rank[where] = program.machine_of_rank
    memory_server = np.full(ranks, -1, np.int32)
    served = program.memory_server >= 0
    # A server is named by the first rank of the network that it serves, so that jobs differ.
    firsts: dict[int, int] = {}
    for rank in np.flatnonzero(served).tolist():
        firsts.setdefault(int(program.memory_server[rank]), int(where[rank]))
    for rank in np.flatnonzero(served).tolist():
        memory_server[where[rank]] = firsts[int(program.memory_server[rank])]
    whole = placement is None and ranks == program.ranks
    return replace(
        program,
        tasks=tasks,
        slowdowns=slowdowns,
        jobs=program.jobs if whole else np.array(jobs, JOB),
        placement=program.placement if whole else np.concatenate(placement_of),
        machine_of_rank=machine_of_rank,
        memory_server=program.memory_server if whole else memory_server,
    )


def moved(fragment: Program, base: Program) -> Program:
    """A Program whose references count the rows of another one, behind which it comes.

    Raises
    ------
    InputError
        The two cannot run together: other ranks, dimensions or queues, or another machine on a
        rank of both.
    """
    for name, what in (
        ("ranks", "ranks"),
        ("queues_per_level", "queues per dimension"),
        ("rendezvous_bytes", "bytes of the rendezvous protocol"),
        ("receives_at_once", "for receives_at_once"),
    ):
        ours, theirs = getattr(base, name), getattr(fragment, name)
        if ours != theirs:
            raise InputError(f"has {theirs} {what}, the work before it {ours}", key="program")
    if fragment.levels > base.levels:
        raise InputError(
            f"has {fragment.levels} dimensions, the work before it {base.levels}", key="program"
        )
    _same_ranks(fragment, base)
    count = {name: len(getattr(base, name)) for name in _GROWING}
    shift: dict[str, dict[str, int]] = {
        "tasks": {"job": count["jobs"], "template_index": count["templates"]},
        "templates": {"node_start": count["nodes"]},
        "nodes": {"child_start": count["children"]},
        "collectives": {"plan_start": count["plans"], "group": count["groups"]},
        "plans": {"phase_start": count["phases"]},
        "phases": {
            "layout": count["groups"],
            "family0": count["families"],
            "family1": count["families"],
            "slot": base.alternate_slots,
        },
        "families": {
            "first": count["schedules"],
            "position_start": count["schedule_of_position"],
        },
        "groups": {"member_start": count["members"]},
        "schedules": {"step_start": count["steps"], "packet_start": count["packets"]},
        "graphs": {"node_start": count["graph_nodes"], "root_start": count["graph_roots"]},
        "graph_nodes": {"child_start": count["graph_children"]},
    }
    tables: dict[str, NDArray[Any]] = {name: getattr(fragment, name).copy() for name in _GROWING}
    for name, changes in shift.items():
        for field, offset in changes.items():
            tables[name][field] += offset
    nodes = tables["nodes"]
    nodes["arg"][nodes["op"] == Op.COLLECTIVE] += count["collectives"]
    nodes["arg"][(nodes["op"] == Op.SEND) | (nodes["op"] == Op.RECV)] += count["messages"]
    tables["collectives"]["graph"][fragment.collectives["graph"] >= 0] += count["graph_of_position"]
    tables["jobs"]["placement_start"][fragment.jobs["placement_start"] >= 0] += count["placement"]
    tables["graph_of_position"] += count["graphs"]
    tags = _tags(base)
    tables["jobs"]["tag_base"] += tags
    tables["groups"]["tag_base"] += tags
    return _with(fragment, tables)


def joined(first: Program, *more: Program) -> Program:
    """One Program with the work of several.

    Raises
    ------
    InputError
        As `moved`.

    Examples
    --------
    >>> from astra_bridge.program import TEMPLATE, one_job, tasks
    >>> one = Program(
    ...     tasks=tasks([0]),
    ...     jobs=one_job(1),
    ...     machine_of_rank=np.zeros(1, np.int32),
    ...     memory_server=np.full(1, -1, np.int32),
    ...     templates=np.zeros(1, TEMPLATE),
    ... )
    >>> joined(one, one).tasks["job"].tolist()
    [0, 1]
    """
    whole = first
    for fragment in more:
        whole = replace(whole, levels=max(whole.levels, fragment.levels))
        whole = extended(whole, moved(fragment, whole))
    return whole


def extended(whole: Program, part: Program) -> Program:
    """A Program with the rows of another one, which has been `moved`, behind its own."""
    tables = {
        name: np.concatenate([getattr(whole, name), getattr(part, name)]) for name in _GROWING
    }
    slots = whole.alternate_slots + part.alternate_slots
    return replace(_with(whole, tables | _ranks_of(whole, part)), alternate_slots=slots)


def _with(program: Program, tables: dict[str, Any]) -> Program:
    return replace(program, **tables)


def _tags(program: Program) -> int:
    """The least multiple of 2^32 above all tags of a Program."""
    highest = max(
        int(program.jobs["tag_base"].max(initial=0)), int(program.groups["tag_base"].max(initial=0))
    )
    return ((highest >> 32) + 1) << 32


def _same_ranks(fragment: Program, base: Program) -> None:
    both = (fragment.machine_of_rank >= 0) & (base.machine_of_rank >= 0)
    rank = np.flatnonzero(both)
    ours = base.machines[base.machine_of_rank[rank]]
    theirs = fragment.machines[fragment.machine_of_rank[rank]]
    unlike = ours != theirs
    if unlike.any():
        raise InputError(
            "is another machine here (system configuration) than in the work before",
            key=f"program: rank {rank[int(np.argmax(unlike))]}",
        )
    unlike = base.memory_server[rank] != fragment.memory_server[rank]
    if unlike.any():
        raise InputError(
            "has another remote memory here than in the work before",
            key=f"program: rank {rank[int(np.argmax(unlike))]}",
        )


def _ranks_of(first: Program, second: Program) -> dict[str, Any]:
    """What the ranks are, of two Programs."""
    new = (first.machine_of_rank < 0) & (second.machine_of_rank >= 0)
    if not new.any():
        return {}
    machine_of_rank = first.machine_of_rank.copy()
    machine_of_rank[new] = second.machine_of_rank[new] + len(first.machines)
    memory_server = first.memory_server.copy()
    memory_server[new] = second.memory_server[new]
    return {
        "machines": np.concatenate([first.machines, second.machines]),
        "machine_of_rank": machine_of_rank,
        "memory_server": memory_server,
    }
