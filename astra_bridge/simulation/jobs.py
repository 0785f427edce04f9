# SPDX-License-Identifier: MIT
"""Several jobs on one network, and what goes wrong meanwhile."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from astra_bridge.arguments import integer, number, optional, text
from astra_bridge.errors import InputError
from astra_bridge.records import Record, put
from astra_bridge.text import nearest, show
from astra_bridge.units import parse_time_ps

__all__ = [
    "Fault",
    "Job",
    "LinkFault",
    "Slowdown",
    "beside",
    "read_faults",
    "read_jobs",
    "read_ranks",
]

_MOST_PS = 2**62


class Job(Record, frozen=True):
    """Work on some ranks of the network, from a time on.

    Parameters
    ----------
    workload
        As in `Experiment`; its ranks are those of the job.
    ranks : sequence of int, or str such as "0-3,8", optional
        The rank of the network that each rank of the job is on; None is all of them, in order.
    start_ps : int
        When its traces start [ps].
    name : str
        What reports call it.
    system, comm_groups, trace_format
        As in `Experiment`; None is the experiment's.
    dims : sequence of int, optional
        Its logical dimensions.  None: the first dimensions of the network that have as many ranks
        together, or else one.
    """

    workload: Any
    ranks: Sequence[int] | str | None = None
    start_ps: int = 0
    name: str = ""
    system: Any = None
    comm_groups: Any = None
    trace_format: str | None = None
    dims: Sequence[int] | None = None

    def __post_init__(self) -> None:
        integer(0, _MOST_PS)(self.start_ps, "start_ps")
        text(self.name, "name")
        if self.ranks is not None:
            put(self, "ranks", read_ranks(self.ranks, "ranks"))
        if self.dims is not None:
            dims = tuple(integer(1, 2**24)(one, "dims") for one in self.dims)
            put(self, "dims", dims)


class LinkFault(Record, frozen=True):
    """A link of the network that changes.

    Parameters
    ----------
    link : int, or (int, int)
        Its number, as in the table "links" of a result, or the nodes that it joins.
    at_ps : int
        From when on [ps].
    bandwidth_scale : float
        Factor on its bandwidth; 0 is down, 1 is as it was.
    """

    link: int | tuple[int, int]
    at_ps: int
    bandwidth_scale: float

    def __post_init__(self) -> None:
        ends = self.link if isinstance(self.link, tuple) else (self.link,)
        for one in ends:
            integer(0, 2**31 - 1)(one, "link")
        integer(0, _MOST_PS)(self.at_ps, "at_ps")
        number(0, 1e9)(self.bandwidth_scale, "bandwidth_scale")


class Slowdown(Record, frozen=True):
    """A rank whose compute nodes take longer.

    Parameters
    ----------
    rank : int
        Of the network.
    at_ps : int
        From when on [ps]; what runs already is not changed.
    factor : float
        On the durations; 1 is as it was.
    """

    rank: int
    at_ps: int
    factor: float

    def __post_init__(self) -> None:
        integer(0, 2**31 - 1)(self.rank, "rank")
        integer(0, _MOST_PS)(self.at_ps, "at_ps")
        number(0, 1e9)(self.factor, "factor")


Fault = LinkFault | Slowdown


def read_ranks(given: Any, name: str) -> tuple[int, ...]:
    """Ranks as a list, or as text.

    Raises
    ------
    InputError
        It is neither.

    Examples
    --------
    >>> read_ranks("0-3,8", "ranks")
    (0, 1, 2, 3, 8)
    """
    if isinstance(given, str):
        found: list[int] = []
        for part in given.split(","):
            match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
            if match is None:
                raise InputError(
                    f"{show(given)} is not allowed; allowed: ranks such as 0-3,8", key=name
                )
            first = int(match[1])
            found += range(first, int(match[2] or first) + 1)
        return tuple(found)
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise InputError(f"{show(given)} is not allowed; allowed: a list of ranks", key=name)
    return tuple(integer(0, 2**31 - 1)(one, name) for one in given)


def _time_ps(given: Any, key: str, file: Path | None) -> int:
    """ "20 us" or a number of ns, as time stands in the files of the field."""
    try:
        if isinstance(given, str):
            return parse_time_ps(given)
        if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
            return parse_time_ps(f"{given}ns")
    except InputError as error:
        raise InputError(error.reason, file=file, key=key) from None
    raise InputError(
        f"{show(given)} is not allowed; allowed: a time such as 20us, or a number of ns",
        file=file,
        key=key,
    )


def _entries(given: Any, key: str, file: Path | None) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
        raise InputError("is not allowed; allowed: a list of mappings", file=file, key=key)
    return given


def _only(entry: Mapping[str, Any], allowed: Sequence[str], key: str, file: Path | None) -> None:
    for name in entry:
        if name not in allowed:
            raise InputError(
                f"unknown key{nearest(str(name), allowed)}; allowed: {', '.join(allowed)}",
                file=file,
                key=f"{key}.{name}",
            )


def read_faults(given: Any, *, file: Path | None = None, key: str = "faults") -> tuple[Fault, ...]:
    """Faults of a file: a list of ``{link, at, bandwidth}`` and ``{rank, at, slowdown}``.

    ``bandwidth`` and ``slowdown`` are factors; a bandwidth of 0 is a link that is down.

    Raises
    ------
    InputError
        Says which entry, key, value and what is allowed.

    Examples
    --------
    >>> read_faults([{"rank": 3, "at": "20us", "slowdown": 2.5}])
    (Slowdown(rank=3, at_ps=20000000, factor=2.5),)
    """
    faults: list[Fault] = []
    for index, entry in enumerate(_entries(given, key, file)):
        where = f"{key}[{index}]"
        is_link = "link" in entry
        keys = ("link", "at", "bandwidth") if is_link else ("rank", "at", "slowdown")
        _only(entry, keys, where, file)
        for name in keys:
            if name not in entry:
                raise InputError(f"lacks {name}", file=file, key=where)
        at_ps = _time_ps(entry["at"], f"{where}.at", file)
        try:
            if is_link:
                link = entry["link"]
                ends = tuple(link) if isinstance(link, list) and len(link) == 2 else link
                faults.append(LinkFault(ends, at_ps, entry["bandwidth"]))
            else:
                faults.append(Slowdown(entry["rank"], at_ps, entry["slowdown"]))
        except InputError as error:
            raise InputError(str(error), file=file, key=where) from None
    return tuple(faults)


_JOB_KEYS = ("name", "workload", "ranks", "start", "system", "comm_groups", "trace_format", "dims")


def beside(given: Any, file: Path | None) -> Any:
    """An input that a file names by its path is relative to that file."""
    return file.parent / given if isinstance(given, str) and file is not None else given


def read_jobs(given: Any, *, file: Path | None = None, key: str = "jobs") -> tuple[Job, ...]:
    """Jobs of a file: a list of mappings with the keys of `Job`, and ``start`` with a unit.

    Raises
    ------
    InputError
        Says which entry, key, value and what is allowed.

    Examples
    --------
    >>> read_jobs([{"workload": "w", "ranks": "0-3", "start": "5us"}])[0].start_ps
    5000000
    """
    jobs = []
    for index, entry in enumerate(_entries(given, key, file)):
        where = f"{key}[{index}]"
        _only(entry, _JOB_KEYS, where, file)
        if "workload" not in entry:
            raise InputError("lacks workload", file=file, key=where)
        try:
            jobs.append(
                Job(
                    workload=beside(entry["workload"], file),
                    ranks=entry.get("ranks"),
                    start_ps=_time_ps(entry.get("start", 0), f"{where}.start", file),
                    name=text(entry.get("name", f"job{index}"), "name"),
                    system=beside(entry.get("system"), file),
                    comm_groups=beside(entry.get("comm_groups"), file),
                    trace_format=optional(text)(entry.get("trace_format"), "trace_format"),
                    dims=entry.get("dims"),
                )
            )
        except InputError as error:
            if error.file is not None:
                raise
            raise InputError(str(error), file=file, key=where) from None
    return tuple(jobs)
