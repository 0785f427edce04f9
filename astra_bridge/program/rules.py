# SPDX-License-Identifier: MIT
"""What must hold in a Program, so that an engine may walk it without looking twice.

One rule for every field of every table.  A Program that keeps them cannot lead an engine outside
its tables, cannot end a stream whose packets are still on their way, and needs no more memory than
its own size and the limits below allow.  A Program may still get stuck (a send that nobody
receives): that is for the run to find.

Where the native engine is built, its module answers for all tables at once, in a hundredth of the
time (csrc/engine/rules.cpp); what it refuses is checked again here, to say what is wrong and where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.program import compiled
from astra_bridge.program.schema import (
    TASK,
    Bus,
    BusModel,
    GraphOp,
    Op,
    Peers,
    Policy,
    QueuePick,
    Unit,
    Variant,
)
from astra_bridge.program.tables import Tables, distinct
from astra_bridge.records import values
from astra_bridge.units import checked_int64

__all__ = ["MOST_CHUNKS", "check_program", "check_schedules"]

MOST_CHUNKS = 2**17
"""Chunks of one collective."""

_MOST_STREAMS = 2**27  # chunks of one collective on all its members: 30 GB in the native engine
_MOST_QUEUES = 2**26
_MOST_COUNTERS = 2**28
_MOST_TRANSFERS = 2**44  # ten days of the native engine
_MOST_PAIRS = 2**28
_MOST = 2**62  # bytes or ps: two of them can be added
_MOST_INT32 = 2**31 - 1
_MOST_TAG = 2**61  # leaves the bit that marks control messages
_MOST_BUCKETS = 206_062_531  # where hash_order stops growing
_MOST_FLAGS = 7
_MOST_KIND = 9

_MODELS = {
    name: value
    for name, value in values(Tables(np.zeros(0, TASK))).items()
    if isinstance(value, np.ndarray)
}
"""An empty table of each kind."""

Ints = NDArray[np.int64]
Rule = str | Callable[[int], str]


def check_program(program: Tables) -> None:
    """Check every reference, range and sum of every table.

    Raises
    ------
    InputError
        Names table, row, field, value and rule.
    """
    _check_types(program)
    _check_scalars(program)
    compiled.check("keeps_rules", compiled.arrays(program), lambda: check_tables(program))


def check_tables(program: Tables) -> None:
    """The rules of the tables, as Python says them."""
    _check_machines(program)
    _check_tasks(program)
    template_of_node = _check_templates(program)
    _check_groups(program)
    _check_collectives(program)
    _say_schedules(program.schedules, program.steps, program.packets, _sizes(program))
    _check_xor(program)
    _check_graphs(program)
    _Users(program, template_of_node).check()


def _refuse(table: str, row: int, field: str, value: Any, rule: Rule) -> NoReturn:
    said = rule if isinstance(rule, str) else rule(row)
    at = f"program: {table}[{row}]{f'.{field}' if field else ''}"
    raise InputError(f"is {value}; {said}", key=at)


def _require(ok: Any, table: str, field: str, values: Any, rule: Rule) -> None:
    if not ok.all():
        row = int(np.argmin(ok))
        _refuse(table, row, field, int(values[row]), rule)


def _within(rows: Any, table: str, field: str, low: int, high: int, what: str = "") -> None:
    """Every value lies in [low, high]."""
    values = rows[field] if field and rows.dtype.names else rows
    if len(values) and (int(values.min()) < low or int(values.max()) > high):
        allowed = f"allowed: {low} to {high}" if high >= low else "nothing is allowed"
        rule = f"{allowed}{f' ({what})' if what else ''}"
        _require((values >= low) & (values <= high), table, field, values, rule)


def _span(rows: Any, table: str, start: str, count: Any, total: int, what: str) -> None:
    """``count`` (a field or an array) entries of another table, from ``start``, are all there."""
    counts = rows[count] if isinstance(count, str) else count
    counts = counts.astype(np.int64)
    named = count if isinstance(count, str) else ""
    if named:
        _within(rows, table, named, 0, total, f"there are {total} {what}")
    _within(rows, table, start, 0, total, f"there are {total} {what}")
    first = rows[start].astype(np.int64)
    _require(
        first <= total - counts,
        table,
        start,
        first,
        lambda row: f"{counts[row]} {what} from there are more than the {total} there are",
    )


def _expand(start: Any, count: Any) -> Ints:
    """Indices of the entries of many spans, one span after the other."""
    count = np.asarray(count, np.int64)
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    if total > _MOST_PAIRS:
        raise InputError(
            f"its tables refer to {total} rows of one another; allowed: {_MOST_PAIRS}",
            key="program",
        )
    at: Ints = np.arange(total, dtype=np.int64) - np.repeat(ends - count - start, count)
    return at


def _distinct_pairs(first: Ints, second: Ints) -> list[tuple[int, int]]:
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    new = np.ones(len(first), bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return list(zip(first[new].tolist(), second[new].tolist(), strict=True))


def _among(values: Ints, known: Ints) -> NDArray[np.bool_]:
    """Whether each value is one of ``known``, which ascends."""
    if not len(known):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    found: NDArray[np.bool_] = known[at] == values
    return found


def _owners(rows: Any, table: str, total: int, what: str) -> Ints:
    """For each entry of the other table the row that it belongs to, or -1."""
    _span(rows, table, "node_start", "node_count", total, what)
    start, count = rows["node_start"], rows["node_count"]
    order = np.argsort(start, kind="stable")
    order = order[count[order] > 0]
    ends = (start + count)[order]
    clear = start[order][1:] >= ends[:-1]
    if not clear.all():
        row = int(order[int(np.argmin(clear)) + 1])
        _refuse(table, row, "node_start", int(start[row]), f"{what} of two {table} overlap there")
    owner = np.full(total, -1, np.int64)
    owner[_expand(start, count)] = np.repeat(np.arange(len(rows)), count)
    return owner


# The tables themselves


def _check_types(program: Tables) -> None:
    for name, model in _MODELS.items():
        value = getattr(program, name)
        if not isinstance(value, np.ndarray) or value.dtype != model.dtype:
            found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise InputError(
                f"is of type {found}; allowed: an array of {model.dtype}", key=f"program: {name}"
            )
        if value.ndim != model.ndim or value.shape[1:] != model.shape[1:]:
            raise InputError(
                f"has the shape {value.shape}; allowed: {('rows', *model.shape[1:])}",
                key=f"program: {name}",
            )


def _check_scalars(program: Tables) -> None:
    def number(name: str, low: int, high: int) -> int:
        return checked_int64(getattr(program, name), name, low=low, high=high, key="program")

    ranks = program.ranks
    if not 1 <= ranks <= _MOST_INT32:
        raise InputError(
            f"has {ranks} entries; allowed: 1 to {_MOST_INT32}", key="program: machine_of_rank"
        )
    if len(program.memory_server) != ranks:
        raise InputError(
            f"has {len(program.memory_server)} entries; allowed: one for each of {ranks} ranks",
            key="program: memory_server",
        )
    levels = number("levels", 1, _MOST_INT32)
    per_level = number("queues_per_level", 1, _MOST_INT32)
    slots = number("alternate_slots", 0, _MOST_INT32)
    number("rendezvous_bytes", 0, _MOST)
    if not isinstance(program.receives_at_once, (bool, np.bool_)):
        raise InputError("is neither true nor false", key="program: receives_at_once")
    for what, total, most in (
        ("queues of all ranks", ranks * levels * per_level, _MOST_QUEUES),
        ("alternate slots of all ranks", ranks * slots, _MOST_COUNTERS),
    ):
        if total > most:
            raise InputError(f"{total} {what}; allowed: {most}", key="program")


def _check_machines(program: Tables) -> None:
    machines = program.machines
    _within(program.memory_server, "memory_server", "", -1, program.ranks - 1)
    _within(program.machine_of_rank, "machine_of_rank", "", 0, len(machines) - 1, "machines")
    for name, low, high in (
        ("endpoint_delay_ps", 0, _MOST),
        ("fast_delay_ps", 0, _MOST),
        ("L_ns", 0, _MOST),
        ("o_ns", 0, _MOST),
        ("g_ns", 0, _MOST),
        ("reduction_ns", 0, _MOST),
        ("streams_per_queue", 1, _MOST_INT32),
        ("policy", 0, len(Policy) - 1),
        ("bus_model", 0, len(BusModel) - 1),
    ):
        _within(machines, "machines", name, low, high)
    _require_finite(machines, "machines", "G_ns_per_byte", "0 and above")
    for unit in Unit:
        _within(
            machines["unit_capacity"][:, unit], "machines", f"unit_capacity[{unit}]", 1, _MOST_INT32
        )


def _require_finite(rows: Any, table: str, field: str, allowed: str) -> None:
    values = rows[field]
    ok = (values >= 0) & (values < np.inf)
    if not ok.all():
        row = int(np.argmin(ok))
        _refuse(table, row, field, float(values[row]), f"allowed: {allowed}")


def _check_tasks(program: Tables) -> None:
    tasks, jobs, slowdowns, ranks = program.tasks, program.jobs, program.slowdowns, program.ranks
    if len(tasks) > _MOST_INT32:
        raise InputError(f"{len(tasks)} tasks; allowed: {_MOST_INT32}", key="program")
    _within(tasks, "tasks", "start_ps", 0, _MOST)
    _within(tasks, "tasks", "template_index", 0, len(program.templates) - 1)
    _within(tasks, "tasks", "job", 0, len(jobs) - 1, "jobs")
    _within(jobs, "jobs", "tag_base", 0, _MOST_TAG)
    _within(jobs, "jobs", "ranks", 1, ranks, "ranks")
    here = jobs["placement_start"] >= 0
    _within(jobs[here], "jobs", "ranks", 1, len(program.placement))
    placed = len(program.placement) - jobs["ranks"].astype(np.int64)
    _require(
        ~here | (jobs["placement_start"] <= placed),
        "jobs",
        "placement_start",
        jobs["placement_start"],
        lambda row: f"{jobs['ranks'][row]} ranks from there are more than placement has",
    )
    _within(jobs, "jobs", "placement_start", -1, max(-1, len(program.placement) - 1))
    _within(program.placement, "placement", "", 0, ranks - 1, "ranks")
    twice = _expand(jobs["placement_start"][here], jobs["ranks"][here])
    owner = np.repeat(np.arange(int(here.sum())), jobs["ranks"][here])
    pairs = owner * ranks + program.placement[twice]
    if len(distinct(pairs)) < len(pairs):
        raise InputError("two ranks of a job are on one rank", key="program: placement")
    most = jobs["ranks"][tasks["job"]]
    _require(
        (tasks["job_rank"] >= 0) & (tasks["job_rank"] < most),
        "tasks",
        "job_rank",
        tasks["job_rank"],
        lambda row: f"its job has {most[row]} ranks",
    )
    _within(slowdowns, "slowdowns", "at_ps", 0, _MOST)
    _within(slowdowns, "slowdowns", "rank", 0, ranks - 1, "ranks")
    _require_finite(slowdowns, "slowdowns", "factor", "0 and above")


def _check_edges(
    table: str, nodes: Any, children_name: str, children: Any, owner: Ints, owner_count: Ints
) -> None:
    """Children are nodes of the same template or graph, and each knows how many parents it has."""
    _span(nodes, table, "child_start", "child_count", len(children), children_name)
    used = owner >= 0
    count = np.where(used, nodes["child_count"], 0).astype(np.int64)
    total = int(count.sum())
    if total > len(children):
        row = int(np.argmax(count))
        _refuse(
            table,
            row,
            "child_count",
            int(count[row]),
            f"all nodes together name {total} {children_name}, but there are {len(children)}",
        )
    at = _expand(nodes["child_start"].astype(np.int64), count)
    parent_owner = np.repeat(owner, count)
    child = children[at].astype(np.int64)
    limit = owner_count[parent_owner]
    ok = (child >= 0) & (child < limit)
    if not ok.all():
        where = int(np.argmin(ok))
        _refuse(
            children_name,
            int(at[where]),
            "",
            int(child[where]),
            f"allowed: 0 to {limit[where] - 1} (nodes of its parent's template or graph)",
        )
    first = np.zeros(len(owner_count), np.int64)
    named = np.flatnonzero(used)
    first[owner[named][::-1]] = named[::-1]  # the first node of each owner
    parents = np.bincount(first[parent_owner] + child, minlength=len(nodes))
    _require(
        ~used | (nodes["parents"] == parents),
        table,
        "parents",
        nodes["parents"],
        lambda row: f"but it is the child of {parents[row]}",
    )


def _check_templates(program: Tables) -> Ints:
    """Returns the template of each node, -1 where none has it."""
    nodes = program.nodes
    _within(program.templates, "templates", "compute_ps", 0, 2**63 - 1)
    owner = _owners(program.templates, "templates", len(nodes), "nodes")
    _check_edges(
        "nodes", nodes, "children", program.children, owner, program.templates["node_count"]
    )
    _within(nodes, "nodes", "duration_ps", 0, _MOST)
    _within(nodes, "nodes", "op", 0, len(Op) - 1)
    _within(nodes, "nodes", "unit", 0, len(Unit) - 1)
    op, arg = nodes["op"], nodes["arg"]
    sends = (op == Op.SEND) | (op == Op.RECV)
    for which, total, what in (
        (op == Op.COLLECTIVE, len(program.collectives), "collectives"),
        (sends, len(program.messages), "messages"),
    ):
        _require(
            ~which | ((arg >= 0) & (arg < total)),
            "nodes",
            "arg",
            arg,
            f"there are {total} {what}",
        )
    messages = program.messages
    _within(messages, "messages", "bytes", 1, _MOST)
    _within(program.templates, "templates", "relative_peers", 0, 1)
    _within(messages, "messages", "tag", 0, _MOST_INT32)
    _check_message_peers(program, owner, np.flatnonzero(sends & (owner >= 0)))
    return owner


def _check_message_peers(program: Tables, owner: Ints, named: Ints) -> None:
    """The peers of messages of the nodes ``named`` are other ranks of the job."""
    messages, tasks, templates = program.messages, program.tasks, program.templates
    rows, template = program.nodes["arg"][named], owner[named]
    peers = messages["peer"][rows].astype(np.int64)
    relative = templates["relative_peers"][template] == 1
    low, high = np.zeros(len(templates), np.int64), _least_ranks(program) - 1
    rank, used = tasks["job_rank"].astype(np.int64), tasks["template_index"]
    moving = templates["relative_peers"][used] == 1
    high[templates["relative_peers"] == 1] = _MOST_INT32
    low[templates["relative_peers"] == 1] = -_MOST_INT32
    np.maximum.at(low, used[moving], -rank[moving])
    np.minimum.at(high, used[moving], (program.jobs["ranks"][tasks["job"]] - 1 - rank)[moving])
    some = max(1, len(templates))
    runs = distinct(rank[~moving] * some + used[~moving])
    own = np.where(relative, peers == 0, _among(peers * some + template, runs))
    low, high = low[template], high[template]
    for wrong, rule in (
        ((peers < low) | (peers > high), "allowed: {0} to {1}, the ranks of the job"),
        (own, "a rank that runs this node itself: no rank can send to itself"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            said = rule.format(low[at], high[at])
            if relative[at] and not own[at]:
                said += ", as distances from those that run this node"
            _refuse("messages", int(rows[at]), "peer", int(peers[at]), said)


def _least_ranks(program: Tables) -> Ints:
    """For each template, the ranks of the smallest job that runs it."""
    least = np.full(len(program.templates), program.ranks, np.int64)
    tasks = program.tasks
    np.minimum.at(least, tasks["template_index"], program.jobs["ranks"][tasks["job"]])
    return least


def _check_groups(program: Tables) -> None:
    groups, ranks = program.groups, program.ranks
    _within(groups, "groups", "size", 1, ranks, f"there are {ranks} ranks")
    _within(groups, "groups", "stride", 0, ranks, "0 is a list of members")
    _within(groups, "groups", "tag_base", 0, _MOST_TAG)
    size, stride = groups["size"].astype(np.int64), groups["stride"].astype(np.int64)
    _require(
        size * stride <= ranks,
        "groups",
        "stride",
        stride,
        lambda row: f"{size[row]} members so far apart are more than there are ranks",
    )
    listed = np.where(stride == 0, size, 0)
    members = program.members
    _span(groups, "groups", "member_start", listed, len(members), "members")
    if int(listed.sum()) > len(members):
        row = int(np.argmax(listed))
        rule = f"all lists together name {listed.sum()} members, but there are {len(members)}"
        _refuse("groups", row, "size", int(size[row]), rule)
    _within(members, "members", "", 0, ranks - 1, "ranks")
    at = _expand(groups["member_start"], listed)
    key = np.repeat(np.arange(len(groups)), listed) * ranks + members[at]
    order = np.argsort(key, kind="stable")
    twice = key[order][1:] == key[order][:-1]
    if twice.any():
        row = int(at[order[int(np.argmax(twice)) + 1]])
        _refuse("members", row, "", int(members[row]), "a group has each member once")


def _check_collectives(program: Tables) -> None:
    collectives, groups = program.collectives, program.groups
    what = "collectives"
    _within(collectives, what, "chunks", 1, MOST_CHUNKS)
    _within(collectives, what, "group", 0, len(groups) - 1, "groups")
    _within(collectives, what, "kind", 0, _MOST_KIND)
    _within(collectives, what, "bytes", 0, _MOST)
    size = groups["size"].astype(np.int64)[collectives["group"]]
    _require(
        collectives["chunks"] * size <= _MOST_STREAMS,
        what,
        "chunks",
        collectives["chunks"],
        lambda row: f"allowed: {_MOST_STREAMS // size[row]} with {size[row]} members",
    )
    graph = collectives["graph"].astype(np.int64)
    last = len(program.graph_of_position) - size
    _require(
        (graph == -1) | ((graph >= 0) & (graph <= last)),
        what,
        "graph",
        graph,
        lambda row: f"allowed: -1, or 0 to {last[row]} (one graph for each member)",
    )
    planned = collectives[graph < 0]
    _span(planned, what, "plan_start", "plan_count", len(program.plans), "plans")
    _require(
        (graph >= 0) | (collectives["plan_count"] >= 1),
        what,
        "plan_count",
        collectives["plan_count"],
        "allowed: 1 and above",
    )
    _span(program.plans, "plans", "phase_start", "phase_count", len(program.phases), "phases")
    _within(program.plans, "plans", "phase_count", 1, _MOST_INT32)
    phases = program.phases
    for name, high in (
        ("level", program.levels - 1),
        ("layout", len(groups) - 1),
        ("family0", len(program.families) - 1),
        ("family1", len(program.families) - 1),
        ("pick", len(QueuePick) - 1),
        ("variant", len(Variant) - 1),
        ("bus", len(Bus) - 1),
    ):
        _within(phases, "phases", name, 0, high)
    slot = phases["slot"]
    _require(
        (phases["variant"] != Variant.ALTERNATE) | ((slot >= 0) & (slot < program.alternate_slots)),
        "phases",
        "slot",
        slot,
        f"there are {program.alternate_slots} slots",
    )
    _check_families(program)


def _check_families(program: Tables) -> None:
    total = len(program.schedules)
    families = program.families
    _span(families, "families", "first", "count", total, "schedules")
    _within(families, "families", "count", 1, total, "schedules")
    first, count = families["first"], families["count"].astype(np.int64)
    if count.sum() > total:
        row = int(np.argmax(count))
        rule = f"all families together name {count.sum()} schedules, but there are {total}"
        _refuse("families", row, "count", int(count[row]), rule)
    positions = families["positions"].astype(np.int64)
    _check_positions(program, positions, count)
    phases = program.phases
    size = program.groups["size"][phases["layout"]]
    receives = _cumulated(program.steps["recv_bytes"] > 0)
    for name in ("family0", "family1"):
        family = phases[name]
        _require(
            (positions[family] == 0) | (positions[family] == size),
            "phases",
            name,
            family,
            lambda row, family=family: (  # type: ignore[misc]
                f"it is for {positions[family[row]]} positions, the group has {size[row]} members"
            ),
        )
        # Without a bus to cross, packets of the own data could end a stream while it starts.
        bare = np.flatnonzero(phases["bus"] == Bus.NONE)
        for row in bare.tolist():
            mine = program.schedules[first[family[row]] :][: count[family[row]]]
            _span(mine, "schedules", "step_start", "step_count", len(program.steps), "steps")
            ends = mine["step_start"] + mine["step_count"]
            if (receives[ends] == receives[mine["step_start"]]).any():
                _refuse("phases", row, "bus", Bus.NONE, "a phase without receives needs a bus")


def _check_positions(program: Tables, positions: Ints, count: Ints) -> None:
    families, table = program.families, program.schedule_of_position
    what = "schedule_of_position"
    _span(families, "families", "position_start", "positions", len(table), f"entries of {what}")
    if positions.sum() > len(table):
        row = int(np.argmax(positions))
        rule = f"all families together name {positions.sum()} entries of {what}, not {len(table)}"
        _refuse("families", row, "positions", int(positions[row]), rule)
    _require(
        (positions > 0) | (count == 1),
        "families",
        "count",
        count,
        "a family that is for all positions has one schedule",
    )
    at = _expand(families["position_start"], positions)
    most = np.repeat(count, positions)
    ok = (table[at] >= 0) & (table[at] < most)
    if not ok.all():
        which = int(np.argmin(ok))
        rule = f"allowed: 0 to {most[which] - 1}, the schedules of its family"
        _refuse(what, int(at[which]), "", int(table[at[which]]), rule)


def _family_sizes(program: Tables) -> tuple[Ints, Ints]:
    """Each family with each size of a group that runs it."""
    phases = program.phases
    size = program.groups["size"].astype(np.int64)[phases["layout"]]
    some = _MOST_INT32 + 1  # more than any group has
    keys = [phases[name].astype(np.int64) * some + size for name in ("family0", "family1")]
    family, members = np.divmod(distinct(np.concatenate(keys)), some)
    return family, members


def _sizes(program: Tables) -> Ints:
    """For each schedule the smallest group that runs it; very large where none does."""
    result = np.full(len(program.schedules), _MOST_INT32, np.int64)
    family, members = _family_sizes(program)
    first, count = program.families["first"][family], program.families["count"][family]
    np.minimum.at(result, _expand(first, count), np.repeat(members, count))
    return result


def _check_xor(program: Tables) -> None:
    """An exclusive or stays within the group, at every position that plays it."""
    schedules, steps = program.schedules, program.steps
    if not (steps["peers"] == Peers.XOR).any():
        return
    family, size = _family_sizes(program)
    rows = program.families[family]
    positions = rows["positions"].astype(np.int64)
    of_position = program.schedule_of_position[_expand(rows["position_start"], positions)]
    own = np.concatenate([np.full((positions == 0).sum(), -1), _expand(0 * positions, positions)])
    first = rows["first"].astype(np.int64)
    schedule = np.concatenate([first[positions == 0], np.repeat(first, positions) + of_position])
    size = np.concatenate([size[positions == 0], np.repeat(size, positions)])
    count = schedules["step_count"][schedule]
    at = _expand(schedules["step_start"][schedule], count)
    own, size = np.repeat(own, count), np.repeat(size, count)
    mine = steps[at]
    for peer, data in (("send_to", "send_bytes"), ("recv_from", "recv_bytes")):
        value = mine[peer].astype(np.int64)
        # For all positions: the group must consist of whole blocks, of the next power of two.
        block = np.left_shift(1, np.frexp(value)[1].astype(np.int64))
        inside = np.where(own < 0, size % block == 0, (own ^ value) < size)
        ok = inside | (mine["peers"] != Peers.XOR) | (mine[data] == 0)
        if not ok.all():
            which = int(np.argmin(ok))
            rule = f"an exclusive or with it leads out of a group of {size[which]} members"
            _refuse("steps", int(at[which]), peer, int(value[which]), rule)


def _cumulated(values: Any) -> Ints:
    result = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=result[1:])
    return result


def check_schedules(schedules: Any, steps: Any, packets: Any, sizes: Ints) -> None:
    """Check that schedules can run to their end, and leave nothing behind when they do.

    As :func:`check_program` does it for all tables.

    Parameters
    ----------
    schedules, steps, packets : ndarray of SCHEDULE, STEP, PACKET
    sizes : ndarray of int64, shape (schedules,)
        Members of the group that runs each.

    Raises
    ------
    InputError
        Names table, row, field, value and rule.
    """
    compiled.check(
        "schedules_keep_rules",
        {"schedules": schedules, "steps": steps, "packets": packets, "sizes": sizes},
        lambda: _say_schedules(schedules, steps, packets, sizes),
    )


def _say_schedules(schedules: Any, steps: Any, packets: Any, sizes: Ints) -> None:
    """The rules of schedules, as Python says them."""
    what = "schedules"
    _span(schedules, what, "step_start", "step_count", len(steps), "steps")
    for name, low in (("window", 0), ("burst", 1), ("gate_step", 0), ("gate_received", 0)):
        _within(schedules, what, name, low, _MOST_INT32)
    start, count = schedules["step_start"], schedules["step_count"].astype(np.int64)
    if count.sum() > len(steps):
        row = int(np.argmax(count))
        rule = f"all schedules together name {count.sum()} steps, but there are {len(steps)}"
        _refuse(what, row, "step_count", int(count[row]), rule)
    for name in ("send_bytes", "recv_bytes"):
        _within(steps, "steps", name, 0, _MOST)
    _within(steps, "steps", "peers", 0, len(Peers) - 1)
    received = _cumulated(steps["recv_bytes"] > 0)
    receives = received[start + count] - received[start]
    window, end = schedules["window"].astype(np.int64), schedules["end"].astype(np.int64)
    _require(
        (end == window + receives) & (end >= 1),
        what,
        "end",
        end,
        lambda row: (
            f"its window of {window[row]} and {receives[row]} receives insert "
            f"{window[row] + receives[row]} packets: a schedule ends when all are processed"
            if window[row] + receives[row]
            else "a schedule has at least one packet"
        ),
    )
    _require(
        (schedules["packet_start"] >= 0) & (schedules["packet_start"] <= len(packets) - end),
        what,
        "packet_start",
        schedules["packet_start"],
        lambda row: f"it inserts {end[row]} packets, more than the {len(packets)} packets hold",
    )
    gate = schedules["gate_step"].astype(np.int64)
    before_gate = received[start + np.minimum(gate, count)] - received[start]
    _require(
        (gate >= count) | (schedules["gate_received"] <= before_gate),
        what,
        "gate_received",
        schedules["gate_received"],
        lambda row: f"steps before the gate receive {before_gate[row]} messages",
    )
    _within(packets, "packets", "bytes", 0, _MOST)
    _within(packets, "packets", "reduce_ps", 0, _MOST)
    _within(packets, "packets", "flags", 0, _MOST_FLAGS)
    _check_steps(schedules, steps, sizes, received, end)


def _check_steps(schedules: Any, steps: Any, sizes: Ints, received: Ints, end: Ints) -> None:
    start, count = schedules["step_start"], schedules["step_count"].astype(np.int64)
    at = _expand(start, count)
    owner = np.repeat(np.arange(len(schedules)), count)
    mine = steps[at]
    size = sizes[owner]

    def require(ok: Any, field: str, rule: Callable[[int], str]) -> None:
        if not ok.all():
            which = int(np.argmin(ok))
            _refuse("steps", int(at[which]), field, int(mine[field][which]), rule(which))

    for peer, data in (("send_to", "send_bytes"), ("recv_from", "recv_bytes")):
        value = mine[peer].astype(np.int64)
        distance = np.where(mine["peers"] == Peers.XOR, value, np.abs(value))
        require(
            (mine[data] == 0) | ((distance >= 1) & (distance < size)),
            peer,
            lambda which: (
                f"allowed: another position, at most {size[which] - 1} away"
                + (", in either direction" if mine["peers"][which] == Peers.RELATIVE else "")
            ),
        )
    need = mine["need"].astype(np.int64)
    before = schedules["window"][owner] + received[at] - received[start[owner]]
    require(
        (need >= 0) & (need <= before),
        "need",
        lambda which: f"allowed: 0 to {before[which]}, as many packets as are inserted before it",
    )
    # Each packet lets `burst` steps run: those that follow must fit into the packets that follow.
    later = owner.astype(np.int64)
    later = (start + count)[owner] - 1 - at
    last = need + later // schedules["burst"][owner]
    require(
        (need == 0) | (last <= end[owner]),
        "need",
        lambda which: (
            f"{later[which]} steps follow, up to {schedules['burst'][owner[which]]} for each "
            f"packet, but there are {end[owner[which]]} packets in all"
        ),
    )


def _check_graphs(program: Tables) -> None:
    graphs, nodes = program.graphs, program.graph_nodes
    owner = _owners(graphs, "graphs", len(nodes), "graph_nodes")
    _check_edges(
        "graph_nodes", nodes, "graph_children", program.graph_children, owner, graphs["node_count"]
    )
    _within(program.graph_of_position, "graph_of_position", "", 0, len(graphs) - 1, "graphs")
    _within(graphs, "graphs", "buckets", 0, _MOST_BUCKETS)
    _within(nodes, "graph_nodes", "duration_ps", 0, _MOST)
    _within(nodes, "graph_nodes", "op", 0, len(GraphOp) - 1)
    moved = nodes["op"] != GraphOp.DELAY
    for name, low, high in (
        ("bytes", 1, _MOST),
        ("peer", 0, program.ranks - 1),
        ("tag", 0, _MOST_INT32),
    ):
        values = nodes[name]
        ok = ~moved | ((values >= low) & (values <= high))
        _require(ok, "graph_nodes", name, values, f"allowed: {low} to {high}")
    used = np.flatnonzero(owner >= 0)
    order = used[np.lexsort((nodes["id"][used], owner[used]))]
    same = (owner[order][1:] == owner[order][:-1]) & (
        nodes["id"][order][1:] == nodes["id"][order][:-1]
    )
    if same.any():
        row = int(order[int(np.argmax(same)) + 1])
        _refuse("graph_nodes", row, "id", int(nodes["id"][row]), "a graph has each id once")
    _check_roots(program, owner)


def _check_roots(program: Tables, owner: Ints) -> None:
    """The roots of a graph are its nodes without parents, each once."""
    graphs, roots = program.graphs, program.graph_roots
    _span(graphs, "graphs", "root_start", "root_count", len(roots), "graph_roots")
    free = np.bincount(
        owner[(owner >= 0) & (program.graph_nodes["parents"] == 0)], minlength=len(graphs)
    )
    _require(
        graphs["root_count"] == free,
        "graphs",
        "root_count",
        graphs["root_count"],
        lambda row: f"it has {free[row]} nodes without parents",
    )
    at = _expand(graphs["root_start"], graphs["root_count"])
    mine = np.repeat(np.arange(len(graphs)), graphs["root_count"])
    local = roots[at].astype(np.int64)
    ok = (local >= 0) & (local < graphs["node_count"][mine])
    named = graphs["node_start"][mine] + np.where(ok, local, 0)
    if ok.any():
        ok[ok] = program.graph_nodes["parents"][named[ok]] == 0
    _, first = np.unique(named, return_index=True)
    once = np.zeros(len(named), bool)
    once[first] = True
    if not (ok & once).all():
        which = int(np.argmin(ok & once))
        rule = "allowed: the nodes of its graph without parents, each once"
        _refuse("graph_roots", int(at[which]), "", int(local[which]), rule)


class _Users:
    """Who runs which collective: the ranks must be members, and the messages countable."""

    def __init__(self, program: Tables, template_of_node: Ints) -> None:
        self.program = program
        template_of_task = program.tasks["template_index"]
        order = np.argsort(template_of_task, kind="stable")
        self.ranks = program.tasks["job_rank"][order].astype(np.int64)
        self.job_ranks = program.jobs["ranks"][program.tasks["job"][order]].astype(np.int64)
        self.users = np.bincount(template_of_task, minlength=len(program.templates))
        self.first_user = np.cumsum(self.users) - self.users
        nodes, owner = program.nodes, template_of_node
        run = np.flatnonzero((nodes["op"] == Op.COLLECTIVE) & (owner >= 0))
        total = max(1, len(program.collectives))
        keys, self.times = np.unique(owner[run] * total + nodes["arg"][run], return_counts=True)
        self.template, self.collective = np.divmod(keys, total)
        groups = program.groups
        listed = np.where(groups["stride"] == 0, groups["size"], 0).astype(np.int64)
        at = _expand(groups["member_start"], listed)
        member = np.repeat(np.arange(len(groups)), listed) * program.ranks + program.members[at]
        ends = np.cumsum(listed)
        position = np.arange(len(at)) - np.repeat(ends - listed, listed)
        self.greatest = np.full(len(groups), -1, np.int64)  # the greatest rank that a list names
        np.maximum.at(self.greatest, np.repeat(np.arange(len(groups)), listed), program.members[at])
        self._order = np.argsort(member, kind="stable")
        self._member, self._position = member[self._order], position[self._order]

    def check(self) -> None:
        self._check_members()
        self._check_graph_peers()
        self._check_transfers()

    def _ranks_of(self, template: Ints) -> tuple[Ints, Ints, Ints]:
        """The job ranks of templates, how many their jobs have, and the index of the template."""
        users = self.users[template]
        which = np.repeat(np.arange(len(template)), users)
        at = _expand(self.first_user[template], users)
        return self.ranks[at], self.job_ranks[at], which

    def _positions(self, group: Ints, rank: Ints) -> Ints:
        """Positions of ranks in groups, -1 where they are not members."""
        rows = self.program.groups[group]
        stride = np.maximum(rows["stride"], 1).astype(np.int64)
        result: Ints = rank // stride % rows["size"]
        listed = rows["stride"] == 0
        if listed.any():
            key = (group * self.program.ranks + rank)[listed]
            at = np.minimum(np.searchsorted(self._member, key), len(self._member) - 1)
            result[listed] = np.where(self._member[at] == key, self._position[at], -1)
        return result

    def _check_members(self) -> None:
        program = self.program
        plans, phases, collectives = program.plans, program.phases, program.collectives
        spans, of_plan = np.unique(
            np.stack([plans["phase_start"], plans["phase_count"]], axis=1).astype(np.int64),
            axis=0,
            return_inverse=True,
        )
        of_plan = of_plan.reshape(-1)
        span = np.repeat(np.arange(len(spans)), spans[:, 1])
        layout = phases["layout"][_expand(spans[:, 0], spans[:, 1])].astype(np.int64)
        some = max(1, len(program.groups))
        listed = program.groups["stride"][layout] == 0
        pairs = distinct(span[listed] * some + layout[listed])
        per_span = np.bincount(pairs // some, minlength=len(spans))
        first = np.cumsum(per_span) - per_span
        # (collective, list that one of its phases is laid out in)
        planned = np.where(collectives["graph"] < 0, collectives["plan_count"], 0).astype(np.int64)
        used = of_plan[_expand(collectives["plan_start"].astype(np.int64), planned)]
        owner = np.repeat(np.repeat(np.arange(len(collectives)), planned), per_span[used])
        group = pairs[_expand(first[used], per_span[used])] % some
        keys = np.concatenate(
            [owner * some + group, np.arange(len(collectives)) * some + collectives["group"]]
        )
        keys = distinct(keys)
        per = np.bincount(keys // some, minlength=len(collectives))
        first = np.cumsum(per) - per
        mine = per[self.collective]
        template = np.repeat(self.template, mine)
        group = keys[_expand(first[self.collective], mine)] % some
        both = distinct(template * some + group)
        rank, job_ranks, which = self._ranks_of(both // some)
        group = (both % some)[which]
        position = self._positions(group, rank)
        rows = program.groups[group]
        size, stride = rows["size"].astype(np.int64), rows["stride"].astype(np.int64)
        last = rank + (size - 1 - position) * stride
        if len(self.greatest) and (self.greatest[group] >= job_ranks).any():
            at = int(np.argmax(self.greatest[group] >= job_ranks))
            raise InputError(
                f"lists rank {self.greatest[group[at]]}, but a job that uses it has "
                f"{job_ranks[at]} ranks",
                key=f"program: groups[{group[at]}]",
            )
        if (last >= job_ranks).any():
            at = int(np.argmax(last >= job_ranks))
            _refuse(
                "groups",
                int(group[at]),
                "stride",
                int(stride[at]),
                f"with {size[at]} members, the group of rank {rank[at]} does not fit into its job "
                f"of {job_ranks[at]} ranks",
            )
        outside = position < 0
        if outside.any():
            at = int(np.argmax(outside))
            raise InputError(
                f"runs a collective of groups[{group[at]}], but is not a member",
                key=f"program: rank {rank[at]}",
            )

    def _check_graph_peers(self) -> None:
        program = self.program
        collectives = program.collectives
        custom = collectives["graph"][self.collective] >= 0
        rank, job_ranks, which = self._ranks_of(self.template[custom])
        collective = self.collective[custom][which]
        group = collectives["group"][collective].astype(np.int64)
        position = self._positions(group, rank)
        graph = program.graph_of_position[collectives["graph"][collective] + position]
        for graph_index, most in _distinct_pairs(graph.astype(np.int64), job_ranks):
            start, count = program.graphs[["node_start", "node_count"]][graph_index].tolist()
            inner = program.graph_nodes[start : start + count]
            wild = (inner["op"] != GraphOp.DELAY) & (inner["peer"] >= most)
            if wild.any():
                row = start + int(np.argmax(wild))
                peer = int(program.graph_nodes["peer"][row])
                _refuse("graph_nodes", row, "peer", peer, f"its job has {most} ranks")
        pairs = distinct(graph.astype(np.int64) * program.ranks + rank)
        graph, rank = np.divmod(pairs, program.ranks)
        rows = program.graphs[graph]
        at = _expand(rows["node_start"], rows["node_count"])
        nodes = program.graph_nodes[at]
        own = (nodes["op"] != GraphOp.DELAY) & (
            nodes["peer"] == np.repeat(rank, rows["node_count"])
        )
        if own.any():
            row = int(at[int(np.argmax(own))])
            peer = int(program.graph_nodes["peer"][row])
            rule = "the rank that runs this graph: no rank can send to itself"
            _refuse("graph_nodes", row, "peer", peer, rule)

    def _check_transfers(self) -> None:
        """Refuse what an engine could not finish, or number, before it starts."""
        program = self.program
        schedules, families = program.schedules, program.families
        positions = families["positions"].astype(np.int64)
        sent = _cumulated(program.steps["send_bytes"] > 0)
        start = schedules["step_start"]
        sends = sent[start + schedules["step_count"]] - sent[start]
        at = _expand(families["position_start"], positions)
        own = np.repeat(families["first"], positions) + program.schedule_of_position[at]
        total, ends = _cumulated(sends[own]), np.cumsum(positions)
        mean = np.where(
            positions == 0,
            sends[families["first"]],
            (total[ends] - total[ends - positions]) / np.maximum(positions, 1),
        )
        phases = program.phases
        per_phase = np.maximum(mean[phases["family0"]], mean[phases["family1"]])
        total = np.concatenate([[0.0], np.cumsum(per_phase)])
        plans = program.plans
        ends = plans["phase_start"] + plans["phase_count"]
        per_plan = np.concatenate([[0.0], np.cumsum(total[ends] - total[plans["phase_start"]])])
        collectives = program.collectives
        planned = np.where(collectives["graph"] < 0, collectives["plan_count"], 0)
        last = np.where(planned > 0, collectives["plan_start"] + planned, 0)
        per_chunk = (per_plan[last] - per_plan[last - planned]) / np.maximum(planned, 1)
        per_run = per_chunk * collectives["chunks"]
        runs = (self.users[self.template] * self.times).astype(np.float64)
        each = runs * per_run[self.collective]
        if each.sum() > _MOST_TRANSFERS:
            worst = int(self.collective[int(np.argmax(each))])
            raise InputError(
                f"the run needs {each.sum():.3g} messages, most of them for collectives[{worst}] "
                f"of {collectives['chunks'][worst]} chunks; allowed: {_MOST_TRANSFERS:.3g}",
                key="program",
            )
