# SPDX-License-Identifier: MIT
"""What only several ranks together know: groups, sizes, peers; and whether both ends fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from astra_bridge.errors import InputError
from astra_bridge.sources.communication import Facts
from astra_bridge.sources.rank import Rank
from astra_bridge.trace.columns import CommType, NodeType
from astra_bridge.trace.inferences import Inferences

__all__ = ["Group", "Job", "repeated", "together"]

_WORLD = "all"
"""Key of the group of all ranks, where no file names it."""

Group = tuple[str, tuple[int, ...]]
"""Name and ranks: PyTorch may give one name to different groups on different ranks."""


class Job:
    """All ranks of a job, once everything about their communication is known.

    Attributes
    ----------
    ranks : list of Rank
        In order, one per rank; ranks that do the same may be one object.
    group_of : list of dict
        Per rank, the group of each key that its steps use.
    peer_of : list of dict of int to int
        Per rank, the other end of each message, by position of its step.
    numbers : dict of Group to int
        Numbers of the groups that are not all ranks, from 1 on.
    """

    def __init__(self, ranks: list[Rank]) -> None:
        self.ranks = ranks
        self.group_of: list[dict[str, Group]] = [{} for _ in ranks]
        self.peer_of: list[dict[int, int]] = [{} for _ in ranks]
        self.numbers: dict[Group, int] = {}

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.ranks)

    def number(self, rank: int, key: str) -> int | None:
        """Number of a group; None where it is all ranks."""
        return self.numbers.get(self.group_of[rank][key])

    def members(self, rank: int, key: str) -> tuple[int, ...]:
        """Ranks of a group."""
        return self.group_of[rank][key][1]

    def _give_numbers(self) -> None:
        everyone = tuple(range(self.size))
        used = {group for groups in self.group_of for group in groups.values()}
        partial = sorted(
            (group for group in used if tuple(sorted(group[1])) != everyone),
            key=lambda group: (group[1], group[0]),
        )
        self.numbers = {group: number for number, group in enumerate(partial, 1)}


def _communicating(rank: Rank) -> list[int]:
    return [i for i, step in enumerate(rank.steps) if step.facts is not None]


def together(ranks: Sequence[Rank], made: Inferences) -> Job:
    """Put the recorded ranks of a job together.

    Parameters
    ----------
    ranks : sequence of Rank
        One per rank, 0 to n - 1, in order.
    made : Inferences

    Raises
    ------
    InputError
        Ranks are missing, or what they do does not fit together.
    """
    job = Job(list(ranks))
    world = max((rank.world or 0 for rank in ranks), default=0)
    if world > len(ranks):
        raise InputError(
            f"the job has {world} ranks, and there are traces of {len(ranks)}: give those of all "
            f"(a pattern with {{rank}}), or with --ranks {world} one that stands for all",
            file=ranks[0].source,
        )
    users = _users(ranks)
    for index, rank in enumerate(ranks):
        keys = {rank.steps[i].group for i in _communicating(rank)}
        for key in sorted(keys):
            job.group_of[index][key] = _group(rank, key, job.size, users, made)
        _name_unnamed(rank, job.group_of[index], tuple(range(job.size)), made)
    for index, rank in enumerate(ranks):
        for key, (name, members) in job.group_of[index].items():
            if index not in members:
                raise InputError(
                    f"communicates in process group {name or key!r} (ranks "
                    f"{list(members)[:8]}), of which it is no member: is it the trace of "
                    "another rank?",
                    file=rank.source,
                    key=f"rank {index}",
                )
    _sizes(job, made)
    _peers(job, made)
    _check_order(job, made)
    job._give_numbers()
    return job


def _users(ranks: Sequence[Rank]) -> dict[str, set[int]]:
    """Which ranks use a name."""
    users: dict[str, set[int]] = defaultdict(set)
    for index, rank in enumerate(ranks):
        for i in _communicating(rank):
            users[rank.steps[i].group].add(index)
    return users


def _group(rank: Rank, key: str, size: int, users: dict[str, set[int]], made: Inferences) -> Group:
    """The group that a key names on a rank."""
    everyone = tuple(range(size))
    if key == "":
        return "", everyone  # see _name_unnamed
    members = rank.groups.get(key)
    if members is not None:
        return key, members or everyone
    said = {
        step.facts.size for step in rank.steps if step.facts is not None and step.group == key
    } - {None}
    wanted = said.pop() if len(said) == 1 else None
    if wanted == size or (wanted is None and len(users[key]) in (1, size)):
        made.note("a process group without ranks is all ranks", f"{rank.source.name}: {key}")
        return ("" if key.startswith("0x") else key), everyone
    if wanted is None or len(users[key]) == wanted:
        made.note(
            "a process group without ranks is those that use its name", f"{rank.source.name}: {key}"
        )
        return key, tuple(sorted(users[key]))
    raise InputError(
        f"process group {key!r} has {wanted} ranks, but no trace says which; record the execution "
        "trace as well (--et), which lists them",
        file=rank.source,
    )


def _name_unnamed(
    rank: Rank, groups: dict[str, Group], everyone: tuple[int, ...], made: Inferences
) -> None:
    """Groups of calls that name none: by their sizes, else the group of all."""
    if groups.pop("", None) is None:
        return
    known = {key: ranks or everyone for key, ranks in rank.groups.items()}
    named = {rank.steps[i].group for i in _communicating(rank)}
    for i in _communicating(rank):
        step = rank.steps[i]
        if step.group:
            continue
        assert step.facts is not None
        ratio = step.facts.size or _ratio(step.facts)
        fitting = [key for key, ranks in known.items() if ratio in (None, len(ranks))]
        whole = [key for key in fitting if len(known[key]) == len(everyone)]
        # Who makes a group uses it: one that no other call names is rather meant than all ranks.
        unused = [key for key in fitting if key not in named and key not in whole]
        if len(unused) == 1:
            whole = unused
        if not fitting and ratio not in (None, len(everyone)):
            raise InputError(
                f"{step.name} runs in a group of {ratio} ranks, and the trace lists none of that "
                "size; record with PyTorch 2.4 or newer, which names the group",
                file=rank.source,
            )
        step.group = (whole or fitting or [_WORLD])[0]
        if len(known) > 1:
            made.note(
                "a collective that names no process group: by its sizes, and what others name",
                step.name,
            )
        groups[step.group] = step.group, known.get(step.group, everyone)


def _ratio(facts: Facts) -> int | None:
    """Size of the group, from what goes in and comes out."""
    given, got = facts.in_bytes, facts.out_bytes
    if not given or not got or facts.kind not in (CommType.ALL_GATHER, CommType.REDUCE_SCATTER):
        return None
    large, small = max(given, got), min(given, got)
    return large // small if large % small == 0 else None


def _sequences(job: Job) -> dict[Group, dict[int, list[int]]]:
    """Per group and rank, the collectives in order."""
    found: dict[Group, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, rank in enumerate(job.ranks):
        for i in _communicating(rank):
            if rank.steps[i].type == NodeType.COMM_COLL:
                found[job.group_of[index][rank.steps[i].group]][index].append(i)
    return found


def _sizes(job: Job, made: Inferences) -> None:
    """Bytes of each communication; what one rank does not know, another may."""
    unknown: list[tuple[int, int]] = []
    for index, rank in enumerate(job.ranks):
        for i in _communicating(rank):
            step = rank.steps[i]
            assert step.facts is not None
            size = step.facts.size_bytes(len(job.members(index, step.group)))
            if size is None:
                unknown.append((index, i))
            else:
                step.bytes = max(size, 1)
    if not unknown:
        return
    sequences = _sequences(job)
    for index, i in unknown:
        step = job.ranks[index].steps[i]
        per_rank = sequences.get(job.group_of[index][step.group], {})
        at = per_rank[index].index(i) if i in per_rank.get(index, []) else -1
        others = [
            job.ranks[other].steps[line[at]].bytes
            for other, line in per_rank.items()
            if other != index and 0 <= at < len(line)
        ]
        sizes = [size for size in others if size > 0]
        if not sizes:
            raise InputError(
                f"does not say how many bytes {step.name} moves (at {step.start_ns / 1e3:.0f} us): "
                "give the execution trace of the same step as well (--et), or record with "
                "record_shapes=True",
                file=job.ranks[index].source,
            )
        step.bytes = max(sizes)
        made.note("the size of a collective, from another rank", step.name)


def _peers(job: Job, made: Inferences) -> None:
    """The other end of each message."""
    sent: dict[tuple[int, int], list[int]] = defaultdict(list)
    received: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, rank in enumerate(job.ranks):
        for i in _communicating(rank):
            step = rank.steps[i]
            if step.type == NodeType.COMM_COLL:
                continue
            assert step.facts is not None
            members = job.members(index, step.group)
            peer = _peer(step.facts, members, index)
            if peer is None and len(members) == 2:
                peer = members[0] if members[1] == index else members[1]
                made.note("the peer of a message: the other member of its group", step.name)
            if peer is None or not 0 <= peer < job.size or peer == index:
                raise InputError(
                    f"does not say where {step.name} at {step.start_ns / 1e3:.0f} us goes to "
                    "or comes from; record with PyTorch 2.4 or newer, or give the execution "
                    "trace (--et)",
                    file=rank.source,
                )
            job.peer_of[index][i] = peer
            if step.type == NodeType.COMM_SEND:
                sent[index, peer].append(i)
            else:
                received[peer, index].append(i)
    for pair in sorted({*sent, *received}):
        sizes_out = [job.ranks[pair[0]].steps[i].bytes for i in sent[pair]]
        sizes_in = [job.ranks[pair[1]].steps[i].bytes for i in received[pair]]
        if sizes_out != sizes_in:
            at = next(
                (k for k, (a, b) in enumerate(zip(sizes_out, sizes_in, strict=False)) if a != b),
                min(len(sizes_out), len(sizes_in)),
            )
            raise InputError(
                f"rank {pair[0]} sends {len(sizes_out)} messages to rank {pair[1]}, which receives "
                f"{len(sizes_in)}; they differ from message {at} on: "
                f"{_size(sizes_out, at)} sent, {_size(sizes_in, at)} received",
                file=job.ranks[pair[0]].source,
            )


def _size(sizes: list[int], at: int) -> str:
    return f"{sizes[at]:,} B" if at < len(sizes) else "nothing"


def _peer(facts: Facts, members: tuple[int, ...], own: int) -> int | None:
    if facts.peer is not None and facts.peer >= 0 and facts.peer != own:
        return facts.peer
    position = facts.peer_position
    if position is not None and 0 <= position < len(members) and members[position] != own:
        return members[position]
    return None


def _check_order(job: Job, made: Inferences) -> None:
    """All members of a group must run the same collectives in the same order."""
    for (name, members), per_rank in _sequences(job).items():
        lines = {
            index: [
                (job.ranks[index].steps[i].facts.kind, job.ranks[index].steps[i].bytes)  # type: ignore[union-attr]
                for i in per_rank.get(index, [])
            ]
            for index in members
            if index < job.size
        }
        first = members[0]
        for index, line in lines.items():
            if line == lines[first]:
                continue
            at = next(
                (k for k, (a, b) in enumerate(zip(line, lines[first], strict=False)) if a != b),
                min(len(line), len(lines[first])),
            )
            ours, theirs = _said(line, at), _said(lines[first], at)
            if at < min(len(line), len(lines[first])) and line[at][0] == lines[first][at][0]:
                _same_sizes(job, name, per_rank, lines, made)
                break
            raise InputError(
                f"process group {name or 'of all'!r}: collective {at} is {ours} on rank "
                f"{index}, and {theirs} on rank {first} ({len(line)} and "
                f"{len(lines[first])} in all): are "
                "these traces of the same step?",
                file=job.ranks[index].source,
            )


def _same_sizes(
    job: Job,
    name: str,
    per_rank: dict[int, list[int]],
    lines: dict[int, list[tuple[object, int]]],
    made: Inferences,
) -> None:
    """Members that give different sizes (uneven all-to-all): the mean counts for all."""
    kinds = {tuple(kind for kind, _ in line) for line in lines.values()}
    if len(kinds) > 1:
        raise InputError(
            f"process group {name or 'of all'!r}: its ranks run different collectives", file=None
        )
    for at in range(len(next(iter(lines.values())))):
        sizes = [line[at][1] for line in lines.values()]
        if len(set(sizes)) == 1:
            continue
        mean = round(sum(sizes) / len(sizes))
        for index in lines:
            job.ranks[index].steps[per_rank[index][at]].bytes = mean
        made.note(
            "an uneven collective is taken as even, of the mean size", f"group {name or 'of all'}"
        )


def _said(line: list[tuple[object, int]], at: int) -> str:
    if at >= len(line):
        return "missing"
    kind, size = line[at]
    what = kind.name.lower().replace("_", "-") if isinstance(kind, CommType) else str(kind)
    return f"{what} of {size:,} B"


def repeated(rank: Rank, count: int, made: Inferences) -> Job:
    """Let one recorded rank stand for all ranks of a symmetric job.

    A group must be one of a grid of ranks (a stride and a size); every other rank is then in the
    group of the same shape.  A message goes as far on every rank as on the recorded one.

    Parameters
    ----------
    rank : Rank
    count : int
        Number of ranks.
    made : Inferences

    Raises
    ------
    InputError
        The rank is none of a symmetric job: a group is no part of a grid, or messages have no
        other end.
    """
    job = Job([rank] * count)
    single = Job([rank])
    everyone = tuple(range(count))
    world = rank.world or count
    keys = sorted({rank.steps[i].group for i in _communicating(rank)})
    shapes: dict[str, tuple[str, int, int]] = {}
    users = {key: set(range(count)) for key in keys}
    for key in keys:
        name, members = _group(rank, key, world, users, made) if key else ("", tuple(range(world)))
        single.group_of[0][key] = name, members
    _name_unnamed(rank, single.group_of[0], tuple(range(world)), made)
    for key, (name, members) in single.group_of[0].items():
        if len(members) == world:
            shapes[key] = name, 1, count
            if world != count:
                made.note(
                    f"a group of all {world} recorded ranks is one of all {count}", name or "world"
                )
            continue
        shapes[key] = name, *_grid(members, count, name or key, rank)
    for index in range(count):
        for key, (name, stride, size) in shapes.items():
            if size == count:
                job.group_of[index][key] = name, everyone
                continue
            first = index - index // stride % size * stride
            job.group_of[index][key] = name, tuple(range(first, first + size * stride, stride))
    for i in _communicating(rank):
        step = rank.steps[i]
        assert step.facts is not None
        total = step.facts.size_bytes(len(single.group_of[0][step.group][1]))
        if total is None:
            raise InputError(
                f"does not say how many bytes {step.name} moves (at {step.start_ns / 1e3:.0f} us): "
                "give the execution trace of the same step as well (--et), or record with "
                "record_shapes=True",
                file=rank.source,
            )
        step.bytes = max(total, 1)
    _repeat_messages(job, single, rank, made)
    job._give_numbers()
    return job


def _grid(members: tuple[int, ...], count: int, name: str, rank: Rank) -> tuple[int, int]:
    """Stride and size of a group that is one of a grid."""
    ranks = sorted(members)
    size = len(ranks)
    stride = ranks[1] - ranks[0] if size > 1 else 1
    grid = list(range(ranks[0], ranks[0] + size * stride, stride))
    if ranks != grid or ranks[0] // stride % size or count % (size * stride):
        raise InputError(
            f"process group {name!r} (ranks {ranks[:8]}) is none of a grid of {count} ranks, so "
            "one trace cannot stand for all: give the traces of all ranks",
            file=rank.source,
            key="--ranks",
        )
    return stride, size


def _repeat_messages(job: Job, single: Job, rank: Rank, made: Inferences) -> None:
    """Messages go round in their group, as far on every rank as on the recorded one."""
    out: dict[tuple[str, int], list[int]] = defaultdict(list)
    back: dict[tuple[str, int], list[int]] = defaultdict(list)
    distance_of: dict[int, int] = {}
    for i in _communicating(rank):
        step = rank.steps[i]
        if step.type == NodeType.COMM_COLL:
            continue
        assert step.facts is not None
        members = single.group_of[0][step.group][1]
        peer = _peer(step.facts, members, rank.rank)
        if peer is None and len(members) == 2:
            peer = members[0] if members[1] == rank.rank else members[1]
        if peer is None or peer not in members or rank.rank not in members:
            raise InputError(
                f"does not say where {step.name} at {step.start_ns / 1e3:.0f} us goes to or comes "
                "from",
                file=rank.source,
            )
        size = len(members)
        away = (members.index(peer) - members.index(rank.rank)) % size
        distance_of[i] = away
        if step.type == NodeType.COMM_SEND:
            out[step.group, away].append(step.bytes)
        else:
            back[step.group, (size - away) % size].append(step.bytes)
    if out != back:
        raise InputError(
            "sends what no rank that does the same would receive (a stage of a pipeline?): one "
            "trace cannot stand for all; give the traces of all ranks",
            file=rank.source,
            key="--ranks",
        )
    for index in range(job.size):
        for i, away in distance_of.items():
            members = job.group_of[index][rank.steps[i].group][1]
            job.peer_of[index][i] = members[(members.index(index) + away) % len(members)]
    if distance_of:
        made.note("messages go as far on every rank as on the recorded one", rank.source.name)
