# SPDX-License-Identifier: MIT
"""PyTorch's recordings as a workload: Kineto's traces, with or without execution traces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from astra_bridge.errors import InputError
from astra_bridge.sources.across import Job, repeated, together
from astra_bridge.sources.execution_trace import read_execution_trace
from astra_bridge.sources.export import RecordedWorkload
from astra_bridge.sources.json_list import peek
from astra_bridge.sources.kineto import is_communication, read_kineto
from astra_bridge.sources.linking import link
from astra_bridge.sources.rank import Rank
from astra_bridge.sources.unmeasured import order_of
from astra_bridge.text import show
from astra_bridge.trace.columns import NodeType, Workload
from astra_bridge.trace.formats import Conversion, TraceFormat
from astra_bridge.trace.inferences import Inferences
from astra_bridge.trace.kinds import EXECUTION_TRACE, KINETO, kind_of_file

__all__ = ["FORMAT", "files_of", "recorded_job", "unmeasured_job"]

_RANK = "{rank}"


def files_of(pattern: str | Path, key: str) -> dict[int, Path]:
    """The files that a pattern stands for, by rank.

    Parameters
    ----------
    pattern
        A path with ``{rank}`` where the number of the rank is, or one file, which is rank 0's.
    key
        What it is called, for messages.

    Raises
    ------
    InputError
        There is none, or ranks are missing in between.
    """
    text = str(pattern)
    if _RANK not in text:
        return {0: Path(text)}
    folder, name = Path(text).parent, Path(text).name
    if _RANK in str(folder):
        raise InputError(
            f"{_RANK} must stand in the name of the file, not of its folder", file=text, key=key
        )
    matcher = re.compile(r"(\d+)".join(re.escape(part) for part in name.split(_RANK, 1)) + "$")
    found: dict[int, Path] = {}
    try:
        for path in folder.iterdir():
            if match := matcher.match(path.name.replace(_RANK, "")):
                found[int(match.group(1))] = path
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", file=folder, key=key) from None
    if not found:
        raise InputError("no file fits this pattern", file=text, key=key)
    missing = sorted(set(range(max(found) + 1)) - set(found))
    if missing and len(found) > 1:
        raise InputError(
            f"the files of ranks {missing[:8]} are missing ({len(found)} are there)",
            file=text,
            key=key,
        )
    return dict(sorted(found.items()))


def recorded_job(
    kineto: Sequence[Path] | dict[int, Path],
    execution: dict[int, Path],
    ranks: int | None,
    made: Inferences,
) -> Job:
    """Read and link the recordings of a job.

    Parameters
    ----------
    kineto : sequence or dict of Path
        Kineto's trace of each rank; in a sequence, ranks are as the files say, or as they come.
    execution : dict of int to Path
        Execution traces, by rank; may be empty.
    ranks : int or None
        Number of ranks, where one recording stands for all.
    made : Inferences
        Takes what is inferred.

    Raises
    ------
    InputError
        A file cannot be read, or what the ranks do does not fit together.
    """
    files = kineto if isinstance(kineto, dict) else dict(enumerate(kineto))
    if execution and set(execution) != set(files):
        odd = sorted(set(execution) ^ set(files))
        raise InputError(
            f"ranks {odd[:8]} have an execution trace or a Kineto trace, but not both", key="--et"
        )
    found: list[Rank] = []
    for rank, path in files.items():
        recording = read_kineto(path)
        operators = None
        if rank in execution:
            operators = read_execution_trace(execution[rank], _wanted)
        found.append(link(recording, operators, made, rank))
        if operators is not None:
            _check_pair(found[-1], execution[rank], made)
    numbers = [one.rank for one in found]
    if len(set(numbers)) < len(numbers):
        twice = next(n for n in numbers if numbers.count(n) > 1)
        same = [one.source.name for one in found if one.rank == twice]
        raise InputError(f"are all of rank {twice}: {show(same[:4])}", key="--kineto")
    found.sort(key=lambda one: one.rank)
    return joined(found, ranks, made)


def unmeasured_job(execution: dict[int, Path], ranks: int | None, made: Inferences) -> Job:
    """Read execution traces that have no recorded times beside them.

    Parameters and errors are those of :func:`recorded_job`.
    """
    found = [order_of(read_execution_trace(file), at, made) for at, file in execution.items()]
    return joined(found, ranks, made)


def joined(found: list[Rank], ranks: int | None, made: Inferences) -> Job:
    """Make a job of recorded ranks; one may stand for all."""
    if ranks is not None and ranks != len(found):
        if len(found) > 1:
            raise InputError(
                f"there are traces of {len(found)} ranks; {ranks} takes either as many, or one "
                "that stands for all",
                key="--ranks",
            )
        made.note(f"one rank's trace stands for all {ranks} ranks", found[0].source.name)
        return repeated(found[0], ranks, made)
    if [one.rank for one in found] != list(range(len(found))):
        listed = [one.rank for one in found]
        if len(found) > 1 or (found[0].world or 0) > 1:
            world = max([one.world or 0 for one in found] + [max(listed) + 1])
            raise InputError(
                f"the job has {world} ranks, and there are traces of ranks {listed[:8]}: give "
                f"those of all, or one with --ranks {world}",
                file=found[0].source,
            )
        found[0].rank = 0
    if ranks is None and len(found) == 1 and (lonely := _among_unknown(found[0])):
        raise InputError(
            f"communicates ({lonely}), and does not say how many ranks the job has: give the "
            "traces of all (a pattern with {rank}), or with --ranks COUNT one that stands for all",
            file=found[0].source,
        )
    return together(found, made)


def _among_unknown(rank: Rank) -> str:
    """A call of which nothing says among how many ranks; "" where there is none."""
    if rank.world is not None or rank.groups:
        return ""
    return next(
        (step.name for step in rank.steps if step.facts is not None and step.facts.size is None), ""
    )


def _wanted(name: str) -> bool:
    return is_communication(name)


def _check_pair(rank: Rank, execution: Path, made: Inferences) -> None:
    """Say so where the two files are not of the same step."""
    silent = [step for step in rank.steps if step.facts is not None and step.facts.in_bytes is None]
    if silent and all(step.type == NodeType.COMM_COLL for step in silent):
        known = [step for step in rank.steps if step.facts is not None]
        if len(silent) == len(known):
            made.note("an execution trace that has none of Kineto's collectives", execution.name)


def _convert(files: Sequence[Path], how: Conversion) -> RecordedWorkload:
    """Files that may be patterns; a pattern that stands alone gives all ranks."""
    execution = files_of(how.execution, "--et") if how.execution else {}
    kineto: dict[int, Path] = {}
    for file in files:
        found = files_of(file, "--kineto")
        if len(files) > 1:
            found = {len(kineto) + i: path for i, path in enumerate(found.values())}
        kineto |= found
    if not execution and kind_of_file(peek(next(iter(kineto.values())))) is EXECUTION_TRACE:
        return RecordedWorkload(unmeasured_job(kineto, how.ranks, how.made))
    return RecordedWorkload(recorded_job(kineto, execution, how.ranks, how.made))


def _pattern(path: Path) -> Path | None:
    """What a prefix stands for: a pattern, a file, or what comes before ``.{rank}.json``."""
    for pattern in (path, Path(f"{path}.{_RANK}.json"), Path(f"{path}.{_RANK}.json.gz")):
        try:
            files = files_of(pattern, "")
            kind = kind_of_file(peek(next(iter(files.values()))))
        except (InputError, OSError):
            continue
        if kind in (KINETO, EXECUTION_TRACE):
            return pattern
    return None


def _read(path: Path, ranks: int) -> Workload:
    how = Conversion(ranks=ranks)
    return how.made.said_by(_convert([_pattern(path) or path], how).workload(), path)


FORMAT = TraceFormat(
    "pytorch",
    "PyTorch's recordings: a file, a pattern with {rank}, or PREFIX.RANK.json.",
    lambda path: _pattern(path) is not None,
    _read,
    _convert,
    lambda path: len(files_of(_pattern(path) or path, "")),
)
