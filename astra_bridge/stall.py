# SPDX-License-Identifier: MIT
"""Say why a simulation cannot go on: which ranks and nodes wait, and for what."""

from __future__ import annotations

from typing import Any

from astra_bridge.collectives import Kind
from astra_bridge.engine import Outcome
from astra_bridge.lowering import Lowered
from astra_bridge.program import Op, Program, WaitFor
from astra_bridge.trace import MISSING

__all__ = ["describe_stall"]

_MOST_RANKS = 8
_MOST_NODES = 4


def describe_stall(lowered: Lowered, outcome: Outcome, *, network_failed: bool = False) -> str:
    """One line per stuck rank, for the first few ranks, and the cause where it can be told."""
    stuck = (outcome.finish_ps < 0).nonzero()[0].tolist()
    lines = [
        f"the simulation cannot go on: {len(stuck)} of {len(outcome.finish_ps)} ranks never finish"
    ]
    waits: dict[int, list[Any]] = {}
    # What is awaited first; then any order, as long as it is the same for both engines.
    for wait in sorted(outcome.waits.tolist(), key=lambda wait: (wait[5], wait)):
        waits.setdefault(wait[0], []).append(wait)
    lines += [_rank(lowered, outcome, rank, waits.get(rank, [])) for rank in stuck[:_MOST_RANKS]]
    if len(stuck) > _MOST_RANKS:
        lines.append(f"... and {len(stuck) - _MOST_RANKS} more ranks")
    hint = "" if network_failed else _hint(lowered, outcome, stuck)
    return "\n".join([*lines, hint] if hint else lines)


def _rank(lowered: Lowered, outcome: Outcome, rank: int, waits: list[Any]) -> str:
    running = _running(lowered, outcome, rank)
    parts = [
        f"{_name(lowered, task, node)} {_reason(lowered, task, node, waits)}".strip()
        for task, node in running[:_MOST_NODES]
    ]
    if len(running) > _MOST_NODES:
        parts.append(f"and {len(running) - _MOST_NODES} more nodes")
    if not parts:
        parts = [_sentence(wait) for wait in waits[:_MOST_NODES]]
    return f"rank {rank}: {'; '.join(parts) or 'waits, but for nothing that is recorded'}"


def _running(lowered: Lowered, outcome: Outcome, rank: int) -> list[tuple[int, int]]:
    """Nodes that have started and not ended: task, and index in its template."""
    if not len(outcome.node_start_ps):
        return []
    running: list[tuple[int, int]] = []
    for task in (lowered.program.rank_of_task == rank).nonzero()[0].tolist():
        part = slice(*outcome.task_node_start[task : task + 2].tolist())
        started, ended = outcome.node_start_ps[part] >= 0, outcome.node_end_ps[part] >= 0
        running += [(task, node) for node in (started & ~ended).nonzero()[0].tolist()]
    return running


def _template(lowered: Lowered, task: int) -> int:
    return int(lowered.program.tasks["template_index"][task])


def _name(lowered: Lowered, task: int, node: int) -> str:
    index = int(lowered.trace_of_task[task])
    trace, position = lowered.traces[index], int(lowered.order[index][node])
    name = trace.name(position)
    return f"node {trace.node_id[position]}{f' ({name})' if name else ''}"


def _reason(lowered: Lowered, task: int, node: int, waits: list[Any]) -> str:
    program = lowered.program
    first = int(program.templates["node_start"][_template(lowered, task)])
    row = program.nodes[first + node]
    if row["op"] == Op.COLLECTIVE:
        collective = program.collectives[row["arg"]]
        text = f"{Kind(int(collective['kind'])).name} of {collective['bytes']} bytes"
        own = [wait for wait in waits if wait[4] == row["arg"]]
        return f"{text} {_sentence(own[0])}" if own else text
    if row["op"] in (Op.SEND, Op.RECV):
        message = program.messages[row["arg"]]
        verb, preposition = ("SEND", "to") if row["op"] == Op.SEND else ("RECV", "from")
        relative = program.templates["relative_peers"][_template(lowered, task)]
        peer = message["peer"] + (program.tasks["job_rank"][task] if relative else 0)
        text = (
            f"{verb} of {message['bytes']} bytes {preposition} rank {peer}, tag "
            f"{_tag(lowered, task, node, int(message['tag']))}"
        )
        own = [wait for wait in waits if wait[3] == node]
        return f"{text}, {_sentence(own[0])}" if own else text
    return "is running"


def _tag(lowered: Lowered, task: int, node: int, fallback: int) -> int:
    index = int(lowered.trace_of_task[task])
    tag = int(lowered.traces[index].comm_tag[lowered.order[index][node]])
    return fallback if tag == MISSING else tag


def _sentence(wait: Any) -> str:
    _, peer, size, _, _, what = wait[:6]
    return (
        f"waits for {size} bytes from rank {peer}, which has not sent them",
        f"waits for {size} bytes that the network has not delivered to rank {peer}",
        f"sent {size} bytes that rank {peer} has not received",
    )[what]


def _hint(lowered: Lowered, outcome: Outcome, stuck: list[int]) -> str:
    """Name the usual causes where they can be told apart."""
    program = lowered.program
    # (job, group, its first member) -> the collectives that its members are in
    running: dict[tuple[int, int, int], set[int]] = {}
    for rank in stuck:
        for task, node in _running(lowered, outcome, rank):
            first = int(program.templates["node_start"][_template(lowered, task)])
            row = program.nodes[first + node]
            if row["op"] == Op.COLLECTIVE:
                group = int(program.collectives[row["arg"]]["group"])
                members = _members(program, group, int(program.tasks["job_rank"][task]))
                where = (int(program.tasks["job"][task]), group, members[0])
                running.setdefault(where, set()).add(int(row["arg"]))
    if any(len(found) > 1 for found in running.values()):
        return (
            "ranks of one group run different collectives at the same time: they must issue their "
            "collectives in the same order, with the same sizes"
        )
    for (job, group, first), (collective,) in running.items():
        absent = _absent(lowered, outcome, collective, job, _members(program, group, first))
        if absent:
            row = program.collectives[collective]
            several = len(absent) > 1
            return (
                f"rank{'s' if several else ''} {', '.join(map(str, absent[:_MOST_RANKS]))}"
                f"{' ...' if len(absent) > _MOST_RANKS else ''} do{'' if several else 'es'} not "
                f"take part in {Kind(int(row['kind'])).name} of {row['bytes']} bytes: all members "
                "of a group must issue its collectives"
            )
    what = outcome.waits["what"]
    if (what == WaitFor.RECEIVE).any() and (what == WaitFor.UNRECEIVED).any():
        return (
            "some messages are sent and never received, others awaited and never sent: a send and "
            "its receive must agree in size and tag"
        )
    return ""


def _members(program: Program, group: int, job_rank: int) -> list[int]:
    """The ranks of the job that are in a group with one of them."""
    size, stride, start, _ = program.groups[group].tolist()
    if stride == 0:
        members: list[int] = program.members[start : start + size].tolist()
        return members
    first = job_rank - job_rank // stride % size * stride
    return list(range(first, first + size * stride, stride))


def _absent(
    lowered: Lowered, outcome: Outcome, collective: int, job: int, members: list[int]
) -> list[int]:
    """Members of the group that have issued a collective less often than others."""
    program = lowered.program
    issued = dict.fromkeys(members, 0)
    for task in (program.tasks["job"] == job).nonzero()[0].tolist():
        rank = int(program.tasks["job_rank"][task])
        if rank not in issued:
            continue
        first, count = program.templates[["node_start", "node_count"]][
            _template(lowered, task)
        ].tolist()
        nodes = program.nodes[first : first + count]
        begun = outcome.node_start_ps[slice(*outcome.task_node_start[task : task + 2])] >= 0
        this = (nodes["op"] == Op.COLLECTIVE) & (nodes["arg"] == collective)
        issued[rank] += int((this & begun).sum())
    most = max(issued.values())
    return sorted(rank for rank, times in issued.items() if times < most)
