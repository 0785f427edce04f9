# SPDX-License-Identifier: MIT
"""The work of one job: what its inputs say, and the Program that they become."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.inputs.common import read_text
from astra_bridge.inputs.groups import GroupKey, read_comm_groups
from astra_bridge.inputs.memory import RemoteMemoryConfig
from astra_bridge.inputs.system import SystemConfig, read_system
from astra_bridge.lowering import Choices, Lowered, choices, lower
from astra_bridge.network.spec import Prepared
from astra_bridge.program import SLOWDOWN, Program
from astra_bridge.records import replace
from astra_bridge.results import JobRows
from astra_bridge.semantics import Effects, Semantics
from astra_bridge.simulation.jobs import Job, Slowdown
from astra_bridge.trace import TraceColumns, Workload, read_workload

__all__ = ["JobWork", "accelerator", "together"]


def accelerator(given: str | None, file: Path | None) -> list[Any] | None:
    """What a profile says, and the one that stands in where it has no parameters, for a hash."""
    if given is None:
        return None
    one = hardware(given, key="hardware", file=file)
    return [one.datasheet, one.own, one.own_nccl,
            None if one.own is not None or one.fitted_as is None else one.fitted,
            None if one.own_nccl is not None or one.nccl_as is None else one.nccl]  # fmt: skip


class _Experiment(Protocol):
    """What jobs have in common."""

    @property
    def semantics(self) -> str: ...
    @property
    def num_queues_per_dim(self) -> int: ...
    @property
    def injection_scale(self) -> float: ...
    @property
    def rendezvous_protocol(self) -> bool: ...
    @property
    def prepared(self) -> Prepared: ...
    @property
    def rank_count(self) -> int: ...
    @property
    def system_config(self) -> SystemConfig: ...
    @property
    def memory_config(self) -> RemoteMemoryConfig: ...


class JobWork:
    """One job of an experiment; what it says is read when it is first asked for."""

    def __init__(self, experiment: _Experiment, job: Job) -> None:
        self.experiment, self.job = experiment, job

    def _given(self, name: str) -> Any:
        own = getattr(self.job, name)
        return getattr(self.experiment, name) if own is None else own

    @cached_property
    def system(self) -> SystemConfig:
        """The system configuration."""
        if self.job.system is None:
            return self.experiment.system_config
        return read_system(self.job.system)

    @cached_property
    def choices(self) -> Choices:
        """The models that the system and the memory name."""
        return choices(self.system, self.experiment.memory_config, self.experiment.semantics)

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """Its logical dimensions."""
        network = self.experiment.prepared.dims
        if self.job.dims is not None:
            dims = tuple(self.job.dims)
            if self.job.ranks is not None and math.prod(dims) != len(self.job.ranks):
                raise InputError(
                    f"dims {dims} are {math.prod(dims)} ranks, but it is on {len(self.job.ranks)}",
                    key=self.job.name or "job",
                )
            return dims
        if self.job.ranks is None:
            return network
        size = len(self.job.ranks)
        for count in range(1, len(network) + 1):
            if math.prod(network[:count]) == size:
                return network[:count]
        return (size,)

    @property
    def ranks(self) -> int:
        """Number of its ranks."""
        return math.prod(self.dims)

    @cached_property
    def traces(self) -> Workload:
        """The traces of all its ranks."""
        given: Any = self._workload
        if isinstance(given, (str, Path)):
            return read_workload(given, self.ranks, trace_format=self._given("trace_format"))
        return given if isinstance(given, Workload) else given.workload()

    @cached_property
    def _workload(self) -> Any:
        """What the job says, or what it has a generator make."""
        given = self.job.workload
        if not isinstance(given, Mapping):
            return given
        # Only who generates a workload pays for the import.
        from astra_bridge.workload.generators import generated

        return generated(given, self.ranks)

    @cached_property
    def groups(self) -> dict[GroupKey, tuple[int, ...]]:
        """Its communicator groups."""
        given = self._given("comm_groups")
        if given is None:  # a generated workload knows the groups of its traces
            given = getattr(self._workload, "comm_groups", None)
        return read_comm_groups(given, self.ranks)

    @cached_property
    def lowered(self) -> Lowered:
        """Its Program, by itself."""
        one = self.experiment
        semantics = Semantics.of(one.semantics)
        prepared, chosen = one.prepared, self.choices  # before traces are read, which takes long
        bandwidth = prepared.dim_bandwidth if chosen.order.bandwidth else None
        fits = self.dims == prepared.dims[: len(self.dims)]
        return lower(
            self.traces,
            self.system,
            one.memory_config,
            self.dims,
            self.groups,
            semantics=semantics,
            dim_bandwidth=bandwidth[: len(self.dims)] if bandwidth and fits else None,
            queues_per_dim=one.num_queues_per_dim,
            injection_scale=one.injection_scale,
            rendezvous=one.rendezvous_protocol,
            receives_at_once=prepared.receives_at_once and "receives-complete-at-once" in semantics,
            # The unit of all networks that say it: see `dim_bandwidth` of inputs.network.
            link_Bps=tuple(one * 2.0**30 for one in prepared.dim_bandwidth[: len(self.dims)])
            if prepared.dim_bandwidth and fits
            else (),
            reduces=prepared.reduces[: len(self.dims)] if fits else (),
            chosen=chosen,
        )

    def content(self) -> list[Any]:
        """What decides its numbers, for a hash."""
        custom: list[Mapping[Any, str]] = [self.system.custom, self.system.per_node_custom]
        return [
            self.traces,
            # What files say counts, not where they are.
            replace(
                self.system, custom={}, per_node_custom={}, hardware=None, measured_kernels=None
            ),
            *({str(key): _files(prefix) for key, prefix in one.items()} for one in custom),
            accelerator(self.system.hardware, self.system.source),
            None
            if self.system.measured_kernels is None
            else read_text(Path(self.system.measured_kernels)),
            [one.version() for one in self.choices.used()],
            self.groups,
            self.dims,
            self.job.start_ps,
            self.job.ranks,
        ]

    def rows(self) -> JobRows:
        """Where it was, for a result."""
        given = self.job.ranks
        where = np.arange(self.ranks) if given is None else np.array(given, np.int64)
        return JobRows(self.job.name, self.job.start_ps, where, self.traces, self.system)


def together(works: tuple[JobWork, ...], slowdowns: tuple[Slowdown, ...]) -> Lowered:
    """The work of all jobs as one Program.

    Raises
    ------
    InputError
        A job does not fit on the network, or two that share a rank disagree about it.
    """
    first = works[0]
    ranks = first.experiment.rank_count
    alone = len(works) == 1 and first.job.ranks is None and not first.job.start_ps
    if alone and not slowdowns:
        return first.lowered
    from astra_bridge.program.join import joined, placed

    parts = []
    for work in works:
        lowered = work.lowered
        try:
            parts.append(
                placed(lowered.program, ranks, work.job.ranks, work.job.start_ps)
                if not alone
                else lowered.program
            )
        except InputError as error:
            raise InputError(error.reason, key=f"{work.job.name}: {error.key}") from None
    program = joined(*parts)
    firsts = np.cumsum([0, *(len(work.lowered.traces) for work in works)]).tolist()
    nobody = program.machine_of_rank < 0
    program = replace(
        program, machine_of_rank=np.where(nobody, 0, program.machine_of_rank).astype(np.int32)
    )
    if slowdowns:
        program = replace(program, slowdowns=_slowdowns(program, slowdowns, ranks))
    return Lowered(
        program,
        tuple(order for work in works for order in work.lowered.order),
        tuple(trace for work in works for trace in work.lowered.traces),
        np.concatenate(
            [work.lowered.trace_of_task + at for work, at in zip(works, firsts, strict=False)]
        ),
        tuple(warning for work in works for warning in work.lowered.warnings),
        Effects(*(work.lowered.effects for work in works)),
        tuple(dict.fromkeys(one for work in works for one in work.lowered.algorithms)),
    )


def _slowdowns(program: Program, slowdowns: tuple[Slowdown, ...], ranks: int) -> Any:
    for index, one in enumerate(slowdowns):
        if one.rank >= ranks:
            raise InputError(
                f"is {one.rank}; allowed: 0 to {ranks - 1}, the ranks of the network",
                key=f"slowdown {index}: rank",
            )
    more = np.array([(one.at_ps, one.factor, one.rank) for one in slowdowns], SLOWDOWN)
    return np.concatenate([program.slowdowns, more])


def all_traces(works: tuple[JobWork, ...]) -> Workload:
    """The traces of all jobs, one job after the other."""
    if len(works) == 1:
        return works[0].traces
    columns: list[TraceColumns] = []
    rows, index = [], 0
    for work in works:
        rows.append(work.traces.rank_to_columns + index)
        columns += work.traces.columns
        index += len(work.traces.columns)
    return Workload(tuple(columns), np.concatenate(rows).astype(np.int32))


def _files(prefix: str) -> list[Path]:
    """The files of a custom collective, in the order of their positions."""
    folder, name = Path(prefix).parent, Path(prefix).name
    found = [file for file in folder.glob("*.et") if file.name.startswith(f"{name}.")]
    return sorted(found, key=lambda file: (len(file.name), file.name))
