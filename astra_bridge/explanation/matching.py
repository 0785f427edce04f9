# SPDX-License-Identifier: MIT
"""Which nodes of several ranks belong together: members of one collective, a send and its receive.

Both follow from the order in which each rank began them, as in the engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.program import Program
from astra_bridge.program.schema import Op

__all__ = ["Matches", "Times", "match"]

Ints = NDArray[np.int64]


class Times(NamedTuple):
    """When the nodes of all tasks ran, in the order of their templates.

    Attributes
    ----------
    offset : ndarray of int64, shape (tasks + 1,)
        The nodes of task t are entries ``offset[t]:offset[t + 1]``.
    start_ps, end_ps : ndarray of int64, shape (nodes,)
        -1 where a node did not run.
    """

    offset: Ints
    start_ps: Ints
    end_ps: Ints


class Matches(NamedTuple):
    """What nodes wait for in other ranks.

    Attributes
    ----------
    since_ps : ndarray of int64, shape (nodes,)
        When all that a node needs of others was there to begin: of a collective the start of its
        last member, of a receive the start of its send.  -1 for all other nodes.
    cause : ndarray of int64, shape (nodes,)
        The node (of all tasks) that was it; -1 where there is none.
    collective : ndarray of int64, shape (nodes,)
        Number of the collective that a node is a member of; -1 for all other nodes.
    collectives : int
        How many there are.
    """

    since_ps: Ints
    cause: Ints
    collective: Ints
    collectives: int


def match(program: Program, times: Times) -> Matches:
    """Find the members of each collective, and the send of each receive."""
    count = len(times.start_ps)
    since, cause = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    number = np.full(count, -1, np.int64)
    nodes, keys = _collectives(program, times)
    collectives = 0
    if len(nodes):
        _, which = np.unique(keys, return_inverse=True, axis=0)
        number[nodes] = which.reshape(-1)  # numpy 2.0.0 gives it a second axis
        number_of = number[nodes]
        collectives = int(number_of.max()) + 1
        # The last member to begin; of several the one of the first task.
        order = np.lexsort((-nodes, times.start_ps[nodes], number_of))
        last = np.append(np.flatnonzero(np.diff(number_of[order])), len(order) - 1)
        cause[nodes] = nodes[order[last]][number_of]
        since[nodes] = times.start_ps[cause[nodes]]
    sends, receives = _pairs(program, times)
    cause[receives] = sends
    since[receives] = times.start_ps[sends]
    return Matches(since, cause, number, collectives)


def _by_template(program: Program) -> Iterator[tuple[int, Ints]]:
    """Each template, and the tasks that run it."""
    of_task = program.tasks["template_index"]
    order = np.argsort(of_task, kind="stable")
    bounds = np.flatnonzero(np.diff(of_task[order])) + 1
    for tasks in np.split(order, bounds):
        if len(tasks):
            yield int(of_task[tasks[0]]), tasks


def _ordinals(start_ps: Ints) -> Ints:
    """Place of each column in its row's order of start; of equal ones the first is first."""
    order = np.argsort(start_ps, axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(start_ps.shape[1])[None, :], axis=1)
    return places


def _collectives(program: Program, times: Times) -> tuple[Ints, Ints]:
    """The nodes of collectives that ran, and of each: job, group, first member, which one."""
    found: list[Ints] = []
    keys: list[Ints] = []
    for template, tasks in _by_template(program):
        rows = program.nodes_of(template)
        inner = np.flatnonzero(rows["op"] == Op.COLLECTIVE)
        group_of = program.collectives["group"][rows["arg"][inner]]
        job, rank = program.tasks["job"][tasks], program.tasks["job_rank"][tasks].astype(np.int64)
        for group in np.unique(group_of).tolist():
            mine = inner[group_of == group]
            where = times.offset[tasks][:, None] + mine
            start = times.start_ps[where]
            place = _ordinals(np.where(start < 0, np.iinfo(np.int64).max, start))
            size, stride = (int(program.groups[name][group]) for name in ("size", "stride"))
            member = rank - rank // stride % size * stride if stride else np.zeros_like(rank)
            key = np.empty((*where.shape, 4), np.int64)
            key[..., 0], key[..., 1] = job[:, None], group
            key[..., 2], key[..., 3] = member[:, None], place
            ran = (start >= 0) & (times.end_ps[where] >= 0)
            found.append(where[ran])
            keys.append(key[ran])
    if not found:
        return np.zeros(0, np.int64), np.zeros((0, 4), np.int64)
    return np.concatenate(found), np.concatenate(keys)


def _pairs(program: Program, times: Times) -> tuple[Ints, Ints]:
    """Sends and receives that belong together, as two arrays of nodes."""
    columns: list[Ints] = []
    for template, tasks in _by_template(program):
        rows = program.nodes_of(template)
        inner = np.flatnonzero((rows["op"] == Op.SEND) | (rows["op"] == Op.RECV))
        if not len(inner):
            continue
        messages = program.messages[rows["arg"][inner]]
        own = program.tasks["job_rank"][tasks].astype(np.int64)[:, None]
        peer = np.broadcast_to(messages["peer"].astype(np.int64), (len(tasks), len(inner)))
        if program.templates["relative_peers"][template]:
            peer = own + peer
        own = np.broadcast_to(own, peer.shape)
        receives = np.broadcast_to(rows["op"][inner] == Op.RECV, peer.shape)
        where = times.offset[tasks][:, None] + inner
        job = np.broadcast_to(program.tasks["job"][tasks].astype(np.int64)[:, None], peer.shape)
        tag = np.broadcast_to(messages["tag"].astype(np.int64), peer.shape)
        parts = (
            job,
            np.where(receives, peer, own),
            np.where(receives, own, peer),
            tag,
            np.broadcast_to(messages["bytes"], peer.shape),
            receives.astype(np.int64),
            times.start_ps[where],
            where,
        )
        ran = (times.end_ps[where] >= 0) & (times.start_ps[where] >= 0)
        columns.append(np.stack([part[ran] for part in parts]))
    if not columns:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # Channel by channel, first all sends in their order, then all receives.
    table = np.concatenate(columns, axis=1)
    table = table[:, np.lexsort(table[::-1])]
    channel = _groups(table[:5])
    side = _groups(np.stack([channel, table[5]]))
    first_of_side = np.searchsorted(side, side, "left")
    place = np.arange(len(side)) - first_of_side
    is_receive = table[5] == 1
    # The n-th receive of a channel belongs to its n-th send.
    begins = np.searchsorted(channel, channel[is_receive], "left") + place[is_receive]
    begins = np.minimum(begins, len(channel) - 1)
    there = (channel[begins] == channel[is_receive]) & ~is_receive[begins]
    return table[7][begins[there]], table[7][is_receive][there]


def _groups(columns: Ints) -> Ints:
    """Number the runs of equal columns, shape (columns,)."""
    new = (np.diff(columns, axis=1) != 0).any(axis=0)
    return np.concatenate([[0], np.cumsum(new)])
