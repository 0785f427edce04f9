# SPDX-License-Identifier: MIT
"""The experiment: everything that decides the numbers, from inputs to a Result."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from astra_bridge.arguments import (
    Check,
    choice,
    flag,
    function,
    instance,
    integer,
    list_of,
    mapping_of,
    number,
    optional,
    path,
    text,
)
from astra_bridge.engine import ENGINES, EngineName, Outcome, ProgressCallback, Session
from astra_bridge.errors import BackendUnavailable, InputError, SimulationError, StalledError
from astra_bridge.inputs.common import load_json, load_yaml
from astra_bridge.inputs.memory import RemoteMemoryConfig, read_remote_memory
from astra_bridge.inputs.network import NetworkDims, NetworkLinks, node_labels
from astra_bridge.inputs.system import SystemConfig, read_system
from astra_bridge.isolation import (
    CHECKPOINT_INTERVAL_S,
    Checkpoint,
    Run,
    RunRequest,
    change_links,
    run_here,
    run_isolated,
)
from astra_bridge.lowering import Lowered
from astra_bridge.network.registry import BACKENDS, backend_spec, is_network_class
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.notebook import card, table
from astra_bridge.program import Inside, Program
from astra_bridge.records import Record, defaults, field, put, replace
from astra_bridge.results import Result, Table
from astra_bridge.results.folding import Folding
from astra_bridge.results.times import NodeRecord
from astra_bridge.results.wavefront import Wavefront
from astra_bridge.semantics import Effects, Semantics
from astra_bridge.simulation.content import content_hash
from astra_bridge.simulation.effects import seen_in_run
from astra_bridge.simulation.exposed import exposed_comm_ps
from astra_bridge.simulation.jobs import Fault, Job, LinkFault, Slowdown
from astra_bridge.simulation.paths import parse_path, with_value
from astra_bridge.simulation.work import JobWork, accelerator, all_traces, together
from astra_bridge.supervision import NO_PROGRESS_TIMEOUT_S
from astra_bridge.text import nearest, one_line, show
from astra_bridge.trace import Workload

if TYPE_CHECKING:
    from astra_bridge.explanation import Explanation, Sensitivities
    from astra_bridge.simulation.folding import FoldedRun
    from astra_bridge.workload import GeneratedWorkload

__all__ = ["Experiment", "simulate"]

_MOST_RECORDED_NODES = 50_000_000
"""Above so many nodes of all ranks together, start and end of each node are not kept."""

_MOST_STAYS = 5_000_000
"""Likewise of chunks in their phases."""

_FEWEST_FOLDED = 16
"""With fewer ranks, to let one run for others gains nothing."""
_FEWEST_WAVED = 16
"""With fewer ranks, wavefronts gain nothing."""

InsideName = Literal["nothing", "chunks", "messages"]

_FIXED_LINKS = "the links of this network cannot be made faster kind by kind"

_NO_MEMORY = {"memory-type": "NO_MEMORY_EXPANSION"}


class Experiment(Record, frozen=True, eq=False, dict=True):
    """Everything that decides the numbers of a simulation.

    Two experiments are equal where their inputs say the same, whatever files or objects they come
    from; what they say is read when it is first asked for.

    Parameters
    ----------
    workload
        Prefix of the traces (``{prefix}.{rank}.et``), an already read or generated workload, or
        what to generate (``{"generator": "collective", "size": "1MiB"}``); None with ``jobs``.
    system, network, remote_memory, comm_groups
        Paths, parsed contents, or already read configurations.  No remote memory is the same as
        ``NO_MEMORY_EXPANSION``.
    trace_format
        Format of the traces behind a prefix, of those that ``astra-bridge doctor`` lists; None
        finds out.
    backend
        Name of a network simulator, path of a shared library, a `BackendSpec`, or a class that
        makes a `Network` of a `NetworkConfig`.
    semantics
        "astra-sim" reproduces ASTRA-sim's numbers, quirks included; "corrected" fixes the quirks
        that docs/semantics.md lists.  ",+NAME" adds one of these, ",-NAME" takes one away.
    num_queues_per_dim, injection_scale, rendezvous_protocol
        ASTRA-sim's flags of these names.
    comm_scale, compute_scale
        Accepted and without effect, as in ASTRA-sim.
    logical_topology, physical_topology
        Further files of packet-level backends.
    network_options
        The backend's own options.
    jobs : sequence of Job
        Several workloads on one network, in place of ``workload``.
    faults : sequence of LinkFault and Slowdown
        What changes while the simulation runs.
    fold
        "auto" lets one rank run for all that are alike, where that is known to give the same
        numbers, and `Result.folding` says so; "off" lets all run.
    wavefront
        "auto" evaluates phases of collectives without events, where that is known to give the same
        numbers, and `Result.wavefront` says so; "off" has events for all.

    Raises
    ------
    InputError
        An argument is of a wrong kind, or there is not one of ``workload`` and ``jobs``.

    Examples
    --------
    >>> import astra_bridge as ab
    >>> from astra_bridge.workload import collective
    >>> experiment = ab.Experiment(
    ...     workload=collective("all-reduce", 2**20, 8),
    ...     system={"all-reduce-implementation": ["ring"]},
    ...     network={"topology": ["Ring"], "npus_count": [8], "bandwidth": [50.0],
    ...              "latency": [500.0]},
    ... )
    >>> result = experiment.run()
    >>> faster = experiment.replace({"network.bandwidth[0]": 100.0})
    >>> bool(faster.run().finish_ns.max() < result.finish_ns.max())
    True
    """

    workload: str | Path | Mapping[str, Any] | Workload | GeneratedWorkload | None
    system: str | Path | Mapping[str, Any] | SystemConfig
    network: str | Path | Mapping[str, Any] | NetworkDims | NetworkLinks
    remote_memory: str | Path | Mapping[str, Any] | RemoteMemoryConfig | None = None
    comm_groups: str | Path | Mapping[Any, Any] | None = None
    trace_format: str | None = None
    backend: Any = "analytical-aware"
    semantics: str = "astra-sim"
    num_queues_per_dim: int = 1
    injection_scale: float = 1.0
    comm_scale: float = 1.0
    compute_scale: float = 1.0
    rendezvous_protocol: bool = False
    logical_topology: Path | None = None
    physical_topology: Path | None = None
    network_options: Mapping[str, str] = field(default_factory=dict)
    jobs: Sequence[Job] = ()
    faults: Sequence[Fault] = ()
    fold: str = "auto"
    wavefront: str = "auto"

    def __post_init__(self) -> None:
        for name, check in _FIELDS.items():
            given = getattr(self, name)
            value = check(given, name)
            if value is not given:
                put(self, name, value)
        if (self.workload is None) == (not self.jobs):
            raise InputError("one of workload and jobs is needed", key="workload")
        names = [job.name for job in self.jobs]
        if len(set(names)) < len(names):
            raise InputError(f"two have the same name: {', '.join(map(show, names))}", key="jobs")

    @classmethod
    def from_file(cls, file: str | Path) -> Experiment:
        """Read an ``experiment.yaml``; docs/cli.md has its keys, which are these arguments.

        Raises
        ------
        InputError
            The file cannot be read, or a key or value is not understood.
        """
        # Imported here: runs with flags do without it.
        from astra_bridge.simulation.file import experiment_arguments

        return cls(**experiment_arguments(file))

    # What it says

    @cached_property
    def spec(self) -> BackendSpec:
        """The backend."""
        return backend_spec(self.backend)

    @cached_property
    def prepared(self) -> Prepared:
        """The network, as its backend has understood it."""
        return self.spec.prepare(
            NetworkRequest(
                network=self.network,
                logical_topology=self.logical_topology,
                physical_topology=self.physical_topology,
                options=self.network_options,
                semantics=Semantics.of(self.semantics),
            )
        )

    @property
    def rank_count(self) -> int:
        """Number of ranks."""
        return math.prod(self.prepared.dims)

    @cached_property
    def system_config(self) -> SystemConfig:
        """The system configuration."""
        return read_system(self.system)

    @cached_property
    def memory_config(self) -> RemoteMemoryConfig:
        """The remote memory."""
        return read_remote_memory(_NO_MEMORY if self.remote_memory is None else self.remote_memory)

    @cached_property
    def work(self) -> tuple[JobWork, ...]:
        """What each job is to do; without ``jobs`` there is one, on all ranks."""
        return tuple(JobWork(self, job) for job in self.jobs or (Job(self.workload),))

    @cached_property
    def traces(self) -> Workload:
        """The traces of all ranks, one job after the other."""
        return all_traces(self.work)

    @cached_property
    def token(self) -> str:
        """A hash of everything that decides the numbers: equal where the inputs say the same."""
        return content_hash(
            self.spec.name,
            self.spec.version(),
            self.semantics,
            self.prepared.config,
            self.prepared.dims,
            replace(self.memory_config, hardware=None),
            accelerator(self.memory_config.hardware, self.memory_config.source),
            self.num_queues_per_dim,
            self.injection_scale,
            self.rendezvous_protocol,
            [work.content() for work in self.work],
            self.faults,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Experiment):
            return NotImplemented
        return self is other or self.token == other.token

    def __hash__(self) -> int:
        return hash(self.token)

    def _said(self) -> dict[str, str]:
        """What it says of itself, without reading a file: arguments that are not the default."""
        found = {}
        for name, default in defaults(Experiment).items():
            value = getattr(self, name)
            if name in ("workload", "system", "network") or value != default:
                said = repr(str(value)) if isinstance(value, Path) else one_line(repr(value), 60)
                if value or default:
                    found[name] = said
        return found

    def __repr__(self) -> str:
        parts = (f"    {name}={said}," for name, said in self._said().items())
        return "\n".join(["Experiment(", *parts, ")"])

    def _repr_html_(self) -> str:
        return card("Experiment", table((), self._said().items()))

    # Others like it

    def replace(self, paths: Mapping[str, Any] | None = None, /, **changes: Any) -> Experiment:
        """Another experiment, with other arguments, or with other values inside its inputs.

        Parameters
        ----------
        paths
            Dotted paths to values: ``{"network.bandwidth[0]": 100}``.  Keys are those of the
            files.
        **changes
            Arguments of `Experiment`.

        Raises
        ------
        InputError
            There is no such argument, or a path leads nowhere.

        Examples
        --------
        >>> Experiment("w", "s.json", "n.yml").replace(semantics="corrected").semantics
        'corrected'
        """
        _only_arguments(changes, "Experiment")
        result = replace(self, **changes)
        for dotted, value in (paths or {}).items():
            result = result._with(dotted, value)
        return result

    def _with(self, dotted: str, value: Any) -> Experiment:
        first, *steps = parse_path(text(dotted, "path"))
        known = list(defaults(Experiment))
        if first not in known:
            raise InputError(
                f"an experiment has no {show(first)}{nearest(str(first), known)}", key=dotted
            )
        if not steps:
            return replace(self, **{str(first): value})
        content = _content(getattr(self, str(first)), dotted)
        changed = replace(self, **{str(first): with_value(content, steps, value, path=dotted)})
        changed._refuse_unknown(self, dotted)
        return changed

    def _refuse_unknown(self, before: Experiment, dotted: str) -> None:
        """A key that its reader would only warn of was surely meant to do something."""
        for name in ("system_config", "memory_config"):
            if dotted.startswith(name.partition("_")[0]) or "memory" in dotted.partition(".")[0]:
                new = set(getattr(self, name).warnings) - set(getattr(before, name).warnings)
                for warning in new:
                    raise InputError(warning, key=dotted)

    # What it does

    def lower(self) -> Lowered:
        """The work as a Program, made once.

        Raises
        ------
        InputError
            Bad input; says file and key, or argument, value and what is allowed.
        """
        return self._lowered

    @cached_property
    def _lowered(self) -> Lowered:
        slowdowns = tuple(one for one in self.faults if isinstance(one, Slowdown))
        return together(self.work, slowdowns)

    def link_faults(self) -> tuple[tuple[int, int, float], ...]:
        """Faults of links as ``set_link`` takes them: number of the link, time [ps], factor.

        Raises
        ------
        InputError
            No link joins the nodes that a fault names.
        """
        return tuple(
            (link, one.at_ps, one.bandwidth_scale)
            for one in self.faults
            if isinstance(one, LinkFault)
            for link in self._links_of(one.link)
        )

    def _links_of(self, link: int | tuple[int, int]) -> list[int]:
        if isinstance(link, int):
            return [link]
        src, dst = self.prepared.link_ends()
        found: list[int] = np.flatnonzero((src == link[0]) & (dst == link[1])).tolist()
        if not found:
            raise InputError(f"no link goes from node {link[0]} to node {link[1]}", key="faults")
        return found

    def _named(self, table: str, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        """Links with the names of their ends, where the network gives its nodes names."""
        if table != "links" or not self.prepared.names:
            return columns
        return {**columns, **self._names_of_ends(columns["src"], columns["dst"])}

    def _names_of_ends(self, src: NDArray[Any], dst: NDArray[Any]) -> dict[str, NDArray[Any]]:
        nodes = 1 + max(int(end.max(initial=-1)) for end in (src, dst))
        labels = node_labels(self.prepared.names, self.prepared.config.endpoints, nodes)
        return {"src_name": labels[src], "dst_name": labels[dst]}

    def _ready(self, engine: EngineName) -> BackendSpec:
        """The backend, or why it cannot run here; bad input of the network comes first."""
        spec = self.spec
        _tell_of_a_bare_tree(engine)
        _ = self.prepared
        missing = spec.unavailable()
        if missing is not None:
            raise BackendUnavailable(f"backend {spec.name!r} cannot run here: {missing}")
        return spec

    def open(
        self,
        program: Program | None = None,
        *,
        engine: EngineName = "auto",
        record_nodes: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Session:
        """Open a simulation in this process, to be stepped; it is closed as a ``with`` block is.

        Parameters
        ----------
        program
            Another Program than that of `lower`, for this network.
        engine, record_nodes, progress
            As in `run`.

        Raises
        ------
        InputError
            Bad input.
        BackendUnavailable
            The backend cannot run here.

        Examples
        --------
        >>> from astra_bridge.workload import collective
        >>> ring = {"topology": ["Ring"], "npus_count": [4], "bandwidth": [1.0], "latency": [0.0]}
        >>> one = Experiment(
        ...     collective("all-reduce", 4096, 4), {"all-reduce-implementation": ["ring"]}, ring
        ... )
        >>> with one.open() as session:
        ...     session.advance(1_000_000).name, session.advance().name
        ('REACHED', 'IDLE')
        """
        _RUN["engine"](engine, "engine")
        spec = self._ready(engine)
        program = self.lower().program if program is None else program
        faults = self.link_faults()
        spec.make_ready()
        network = spec.open(self.prepared.config)
        change_links(network, faults)
        return Session(
            program,
            network,
            engine=engine,
            record_nodes=record_nodes,
            progress=progress,
            # Who steps cannot begin anew where messages have missed each other by their numbers.
            by_number=False,
        )

    def run_program(
        self,
        program: Program,
        *,
        engine: EngineName = "auto",
        record_nodes: bool = True,
        progress: ProgressCallback | None = None,
        in_process: bool = False,
        no_progress_timeout_s: float = NO_PROGRESS_TIMEOUT_S,
        checkpoint: Checkpoint | None = None,
    ) -> Run:
        """Run any Program on this network, in a child process where the backend needs it.

        Raises
        ------
        InputError
            The Program breaks a rule.
        NetworkError
            The network simulator failed.
        """
        request = RunRequest(
            self.prepared.config,
            program,
            engine=engine,
            record_nodes=record_nodes,
            link_faults=self.link_faults(),
            checkpoint=checkpoint,
        )
        spec = self._ready(engine)
        return self._run(spec, request, progress, in_process, no_progress_timeout_s)

    def _run(
        self,
        spec: BackendSpec,
        request: RunRequest,
        progress: ProgressCallback | None,
        in_process: bool,
        no_progress_timeout_s: float,
    ) -> Run:
        spec.make_ready()
        # A child process can only be told a name, and one that it knows.
        named = isinstance(self.backend, str) and not BACKENDS.is_added(self.backend)
        if spec.isolate and not in_process and named:
            return run_isolated(self.backend, request, progress, no_progress_timeout_s)
        return run_here(spec, request, progress, no_progress_timeout_s)

    def run(
        self,
        *,
        engine: EngineName = "auto",
        threads: int = 1,
        record_nodes: bool | None = None,
        progress: ProgressCallback | None = None,
        in_process: bool = False,
        inside: InsideName = "nothing",
        no_progress_timeout_s: float = NO_PROGRESS_TIMEOUT_S,
        checkpoint: str | Path | None = None,
        resume: str | Path | None = None,
        checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
    ) -> Result:
        """Simulate from start to end.

        Parameters
        ----------
        engine
            "native", "python", or "auto".
        threads
            How many threads there may be for wavefronts; the numbers are the same with any.
        record_nodes
            Whether to keep start and end of every node; None keeps them up to 50 million nodes.
        progress
            Called about five times a second with a ``Progress``.
        in_process
            Run the backend in this process even where it is not known to be safe (a library that
            is not part of astra_bridge, ns-3): a crash or an exit of it then ends the caller.
        inside
            What to keep of what goes on inside collectives: "chunks", when each chunk was in each
            phase (up to 5 million of these), "messages", also when each message was on its way
            (then no ranks are folded), or "nothing".
        no_progress_timeout_s
            How long a backend may go without progress before it is ended [s]; 0 is without limit.
            Progress is that simulated time, events or completed nodes change, or that another call
            begins.  In this process, a backend can only be interrupted.
        checkpoint
            Write the state into this file every ``checkpoint_interval_s`` of real time.
        resume
            Go on from such a file of this experiment.

        Raises
        ------
        InputError
            Bad input; says file and key, or argument, value and what is allowed.
        Unsupported
            The backend cannot save its simulation.
        StalledError
            The simulation cannot go on; says which ranks and nodes wait for what.
        NetworkError
            The network simulator failed.
        """
        began = time.perf_counter()
        given = locals()
        checked = {name: check(given[name], name) for name, check in _RUN.items()}
        # Bad input is reported even where the backend cannot run here.
        spec = self._ready(engine)
        lowered = self.lower()
        program = lowered.program

        def recorded(program: Program) -> bool:
            if record_nodes is not None:
                return record_nodes
            return int(program.task_nodes.sum()) <= _MOST_RECORDED_NODES

        try:
            request = RunRequest(
                self.prepared.config,
                program,
                engine=engine,
                record_nodes=recorded(program),
                inside=_inside(checked, program),
                link_faults=self.link_faults(),
                checkpoint=self._checkpoint(checked),
            )

            def run_one(spec: BackendSpec, request: RunRequest) -> Run:
                return self._run(
                    spec, request, progress, in_process, checked["no_progress_timeout_s"]
                )

            run, folded = self._folded_or_not(spec, request, recorded, run_one)
            threads = checked["threads"]
            if run is None:
                run, wavefront = self._waved_or_not(spec, request, threads, run_one)
            else:
                alone = "one rank ran for all that are alike"
                wavefront = Wavefront(threads=threads, reason=alone, asked=threads > 1)
        except SimulationError as error:
            if error.outcome is not None:
                from astra_bridge.stall import describe_stall

                stall = describe_stall(lowered, error.outcome, network_failed=True)
                raise StalledError(f"{error}\n{stall}") from error
            raise
        outcome = run.outcome
        if (outcome.finish_ps < 0).any():
            from astra_bridge.stall import describe_stall

            raise StalledError(describe_stall(lowered, outcome))
        return self._result(run, folded, wavefront, time.perf_counter() - began)

    def _folded_or_not(
        self,
        spec: BackendSpec,
        request: RunRequest,
        recorded: Callable[[Program], bool],
        run: Callable[[BackendSpec, RunRequest], Run],
    ) -> tuple[Run | None, FoldedRun | Folding]:
        """Run one rank for all that are alike, where that is known to be the same."""
        if self.fold == "off" or request.inside is Inside.MESSAGES:
            return None, Folding(reason="off", asked=False)
        if request.program.ranks < _FEWEST_FOLDED:
            return None, Folding(reason="there are few ranks", asked=False)
        # Imported here: small runs do without it.
        from astra_bridge.simulation.folding import NotFolded, folded_run

        try:
            folded = folded_run(spec, request, run, recorded)
        except NotFolded as reason:
            return None, Folding(reason=str(reason))
        return folded.run, folded

    def _waved_or_not(
        self,
        spec: BackendSpec,
        request: RunRequest,
        threads: int,
        run: Callable[[BackendSpec, RunRequest], Run],
    ) -> tuple[Run, Wavefront]:
        """Run, with wavefronts where that is known to be the same."""
        if self.wavefront == "off":
            return run(spec, request), Wavefront(reason="off", threads=threads, asked=threads > 1)
        if request.program.ranks < _FEWEST_WAVED:
            few = "there are few ranks"
            return run(spec, request), Wavefront(reason=few, threads=threads, asked=threads > 1)
        # Imported here: small runs do without it.
        from astra_bridge.simulation.wavefront import NoWavefront, waved_run

        try:
            return waved_run(spec, request, threads, run)
        except NoWavefront as reason:
            return run(spec, request), Wavefront(reason=str(reason), threads=threads)

    def _checkpoint(self, checked: Mapping[str, Any]) -> Checkpoint | None:
        if checked["checkpoint"] is None and checked["resume"] is None:
            return None
        return Checkpoint(
            self.token, checked["checkpoint"], checked["resume"], checked["checkpoint_interval_s"]
        )

    def _result(
        self, run: Run, folded: FoldedRun | Folding, wavefront: Wavefront, wall_s: float
    ) -> Result:
        lowered, outcome, stats = self.lower(), run.outcome, run.stats
        copies, kind_of_row, links = 1, None, None
        folding = folded if isinstance(folded, Folding) else folded.folding
        if not isinstance(folded, Folding):
            copies, kind_of_row = folding.copies, folded.fold.kind_of_rank
            lowered, stats = folded.kinds_of(lowered), folded.unfolded_stats()
            links = folded.links(self._names_of_ends if self.prepared.names else None)
        program = lowered.program
        start_ps, end_ps = _in_file_order(lowered, outcome)
        finish_ps, exposed_ps = outcome.task_finish_ps, exposed_comm_ps(lowered, outcome)
        semantics = Semantics.of(self.semantics)
        seen = seen_in_run(program, outcome, stats, exposed_ps, semantics, copies)
        if kind_of_row is not None:
            finish_ps, exposed_ps = finish_ps[kind_of_row], exposed_ps[kind_of_row]
        tables = {
            name: Table(name, self._named(name, columns)) for name, columns in run.tables.items()
        }
        if links is not None:
            tables["links"] = links.unfolded()
        return Result(
            backend=self.spec.name,
            engine=run.engine,
            semantics=self.semantics,
            finish_ps=finish_ps,
            exposed_comm_ps=exposed_ps,
            wall_s=wall_s,
            run_cpu_s=run.cpu_s,
            events=outcome.events * copies,
            workload=self.traces,
            system=self.system_config,
            recorded=NodeRecord(
                outcome.task_node_start,
                start_ps,
                end_ps,
                kind_of_row,
                outcome.stays,
                outcome.deliveries,
            ),
            tables=tables,
            folding=folding,
            wavefront=wavefront,
            folded_links=links,
            network=stats,
            warnings=_unique(
                *self.system_config.warnings,
                *self.memory_config.warnings,
                *(warning for work in self.work for warning in work.choices.warnings),
                *self.prepared.warnings,
                *self._unknown_bandwidth(),
                *lowered.warnings,
                *Effects(lowered.effects, seen).warnings(),
                *_ignored(self.comm_scale, self.compute_scale),
                *_relieved(outcome.relieved * copies),
                *_unreceived(outcome),
            ),
            jobs=tuple(work.rows() for work in self.work),
            experiment=self,
            versions=self.versions(),
            algorithms=tuple(one._asdict() for one in lowered.algorithms),
        )

    @property
    def kind_of_rank(self) -> NDArray[np.int32]:
        """Which rows of a result do the same: equal numbers."""
        kinds: NDArray[np.int32] = self.lower().program.tasks["template_index"]
        return kinds

    def explanation(self, result: Result) -> Explanation:
        """Why a run of it took as long as it did; `Result.breakdown` and its like show it."""
        from astra_bridge.explanation import Explanation

        return Explanation(
            self.lower(),
            result.node_offset,
            result.node_start_ps,
            result.node_end_ps,
            result.finish_ps,
            self.prepared.injection_Bps,
        )

    def unexplained(self) -> str | None:
        """Why `sensitivities` are not known; None where they are."""
        spec = self.spec
        if spec.isolate:
            return (
                f"backend {spec.name} runs in a process of its own, and cannot be asked how long a "
                "message takes by itself"
            )
        if self.faults:
            return "links or ranks change meanwhile"
        if not self.prepared.link_kinds:
            return _FIXED_LINKS
        return None

    @contextmanager
    def sensitivities(self, result: Result) -> Iterator[Sensitivities]:
        """What would have made a run of it end sooner, as a context: it asks networks.

        Raises
        ------
        InputError
            The run kept no messages (``inside="messages"``), or `unexplained` says why not.
        """
        from astra_bridge.network.idle import IdleNetworks

        reason = self.unexplained()
        if reason is not None:
            raise InputError(f"what would be faster is not known: {reason}", key="sensitivities")
        if len(self.lower().program.collectives) and not len(result.recorded.deliveries):
            raise InputError('messages were not kept: run with inside="messages"', key="inside")
        with IdleNetworks(self.prepared, self.spec.open) as networks:
            recorded = result.recorded
            yield self.explanation(result).sensitivities(
                recorded.stays, recorded.deliveries, networks
            )

    def with_better_links(self, factors: Mapping[str, float]) -> Experiment:
        """The same on a network with better links.

        Parameters
        ----------
        factors
            How many times better, by names of `sensitivities` that begin with "bandwidth of" or
            "latency of"; a latency that is twice as good is half as long.

        Raises
        ------
        InputError
            The network has no links of such a kind, or a factor is not above 0.
        """
        from astra_bridge.explanation import link_factors, link_names

        kinds = self.prepared.link_kinds
        if not kinds:
            raise InputError(_FIXED_LINKS, key="network")
        for name, factor in factors.items():
            if name not in link_names(kinds):
                raise InputError(
                    f"{show(name)} is no bandwidth and no latency of this network; it has: "
                    f"{', '.join(link_names(kinds))}{nearest(name, link_names(kinds))}",
                    key="what-if",
                )
            if not 0 < factor < math.inf:
                raise InputError(f"is {factor:g}; allowed: above 0", key=name)
        other = replace(self)
        config = self.prepared.changed(*link_factors(factors))
        # Made when first asked for: here from what this one has.
        vars(other)["prepared"] = replace(self.prepared, config=config)
        vars(other)["_lowered"] = self.lower()
        return other

    def measured_sensitivities(
        self,
        result: Result,
        factor: float = 1.1,
        run: Callable[[Experiment], Result] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """What better links change, by a run with each: for every network that has kinds of links.

        Parameters
        ----------
        result
            Of this experiment.
        factor
            How many times better each bandwidth, and each latency, is.
        run
            What runs an experiment; by default `run`.

        Returns
        -------
        dict
            Columns as of `Result.sensitivities`; ``other_path`` is "measured".

        Raises
        ------
        InputError
            The network has no links that can be changed kind by kind.
        """
        from astra_bridge.explanation import link_names, sensitivity_table

        names = link_names(self.prepared.link_kinds)
        better = [self.with_better_links({name: factor}) for name in names or [""]]
        run = run or Experiment.run
        ends = [int(run(one).finish_ps.max(initial=0)) for one in better]
        finish_ps = int(result.finish_ps.max(initial=0))
        said = ["measured"] * len(names)
        return sensitivity_table(finish_ps, factor, names, ends, ends, said)

    def versions(self) -> dict[str, str]:
        """Of what runs, and on which machine."""
        import astra_bridge

        system = os.uname()  # platform takes 3 ms
        return {
            "astra_bridge": astra_bridge.__version__,
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "backend": f"{self.spec.name} {self.spec.version()}".strip(),
            "machine": f"{system.sysname} {system.machine}",
        }

    def provenance(self) -> dict[str, Any]:
        """The token, and every input: its name, and a hash of what it says."""
        read = {
            "workload": self.traces,
            "system": self.system_config,
            "network": (self.prepared.config, self.prepared.dims),
            "remote_memory": self.memory_config,
            "comm_groups": [work.groups for work in self.work],
        }
        inputs = {
            name: {"name": _name(getattr(self, name)), "content": content_hash(content)}
            for name, content in read.items()
        }
        rest = {
            name: getattr(self, name)
            for name in defaults(Experiment)
            if name not in read and name != "backend"
        }
        return {
            "token": self.token,
            "backend": self.spec.name,
            "inputs": inputs,
            "arguments": {name: _plain(value) for name, value in rest.items()},
        }

    def _unknown_bandwidth(self) -> list[str]:
        prepared, order = self.prepared, self.work[0].choices.order
        if not order.bandwidth or len(prepared.dims) == 1 or prepared.dim_bandwidth is not None:
            return []
        return [
            f"inter-dimension-scheduling: {order.name} takes all dimensions as equal, because the "
            "network does not say the bandwidth of each of the logical dimensions "
            f"{prepared.dims}"
        ]


def simulate(
    workload: str | Path | Mapping[str, Any] | Workload | GeneratedWorkload,
    system: str | Path | Mapping[str, Any] | SystemConfig,
    network: str | Path | Mapping[str, Any] | NetworkDims | NetworkLinks,
    remote_memory: str | Path | Mapping[str, Any] | RemoteMemoryConfig | None = None,
    comm_groups: str | Path | Mapping[Any, Any] | None = None,
    *,
    engine: EngineName = "auto",
    record_nodes: bool | None = None,
    progress: ProgressCallback | None = None,
    in_process: bool = False,
    no_progress_timeout_s: float = NO_PROGRESS_TIMEOUT_S,
    **arguments: Any,
) -> Result:
    """Simulate a workload: ``Experiment(...).run(...)`` in one call.

    Parameters
    ----------
    workload, system, network, remote_memory, comm_groups, **arguments
        Those of `Experiment`.
    engine, record_nodes, progress, in_process, no_progress_timeout_s
        Those of `Experiment.run`.

    Raises
    ------
    InputError, StalledError, NetworkError
        As `Experiment.run`.
    """
    _only_arguments(arguments, "simulate")
    experiment = Experiment(workload, system, network, remote_memory, comm_groups, **arguments)
    return experiment.run(
        engine=engine,
        record_nodes=record_nodes,
        progress=progress,
        in_process=in_process,
        no_progress_timeout_s=no_progress_timeout_s,
    )


def _only_arguments(given: Iterable[str], of: str) -> None:
    known = list(defaults(Experiment))
    for name in given:
        if name not in known:
            raise InputError(f"no argument of {of}{nearest(name, known)}", key=name)


@cache
def _tell_of_a_bare_tree(engine: EngineName) -> None:
    """One line, once, where all is slow because this folder hides the built package."""
    package = Path(__file__).parents[1]
    bare = (package.parent / "setup.py").exists() and not any(package.glob("_native/_engine.*"))
    if bare and engine != "python" and sys.stderr is not None:
        sys.stderr.write(
            f"note: {package.parent} is a source tree without its native parts, so everything runs "
            f"in Python, slower; build them: {sys.executable} -m pip install -e {package.parent}\n"
        )


def _plain(value: Any) -> Any:
    """An argument, for a file."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, (Job, LinkFault, Slowdown)):
        return {name: _plain(getattr(value, name)) for name in defaults(type(value))}
    return _name(value)


def _name(given: Any) -> str | None:
    """What to call an input in a report: its file, or the kind of object that it is."""
    if given is None:
        return None
    return str(given) if isinstance(given, (str, Path)) else type(given).__name__


def _content(given: Any, dotted: str) -> Any:
    """An input as nested mappings and lists, whose values have paths."""
    if isinstance(given, Mapping):
        return dict(given)
    if given is None:
        return {}
    if isinstance(given, (str, Path)):
        # JSON is YAML, but quicker.
        return load_json(given) if str(given).endswith(".json") else load_yaml(given)
    raise InputError(
        f"{type(given).__name__} has no paths; give a file or its content as a mapping", key=dotted
    )


def _workload(value: Any, name: str) -> Any:
    """A workload, its path, or what to generate."""
    if isinstance(value, (str, PathLike)):
        return path(value, name)
    if isinstance(value, Mapping):
        return value
    # Only who generates a workload pays for the import.
    from astra_bridge.workload.builder import GeneratedWorkload as Generated

    if isinstance(value, Generated):
        return value
    return optional(instance(Workload))(value, name)


def _network(value: Any, name: str) -> Any:
    """A network, its content, or its path; which of them it may be is up to the backend."""
    if isinstance(value, (Mapping, NetworkDims, NetworkLinks)):
        return value
    if isinstance(value, Record) and type(value).__module__.startswith("astra_bridge."):
        return value
    return path(value, name)


def _backend(value: Any, name: str) -> Any:
    """A backend, or its name; a path is a name too."""
    if isinstance(value, (str, BackendSpec)) or is_network_class(value):
        return value
    return str(path(value, name))


def _given(value: Any, name: str) -> Any:  # noqa: ARG001
    """Whoever reads it checks it."""
    return value


def _semantics(value: Any, name: str) -> str:
    """One text for one set of quirks."""
    return str(Semantics.of(value if isinstance(value, Semantics) else text(value, name), name))


def _jobs(value: Any, name: str) -> tuple[Job, ...]:
    return tuple(list_of(instance(Job))(list(value), name))


def _faults(value: Any, name: str) -> tuple[Fault, ...]:
    return tuple(list_of(instance(LinkFault, Slowdown))(list(value), name))


def _options(value: Any, name: str) -> Any:
    return optional(mapping_of(text, _option))(value, name) or {}


def _option(value: Any, name: str) -> str:
    """Options are text for backends; numbers and truth values are written as files write them."""
    if isinstance(value, (bool, int, float)):
        return str(value).lower()
    return str(text(value, name))


_FIELDS: dict[str, Check] = {
    "workload": _workload,
    "system": _given,
    "network": _network,
    "remote_memory": _given,
    "comm_groups": _given,
    "trace_format": optional(text),
    "backend": _backend,
    "semantics": _semantics,
    "num_queues_per_dim": integer(1, 4096),
    "injection_scale": number(0, 1e9),
    "comm_scale": number(0, 1e12),
    "compute_scale": number(0, 1e12),
    "rendezvous_protocol": flag,
    "logical_topology": optional(path),
    "physical_topology": optional(path),
    "network_options": _options,
    "jobs": _jobs,
    "faults": _faults,
    "fold": choice("auto", "off"),
    "wavefront": choice("auto", "off"),
}
"""What an experiment takes; the readers check the rest."""

_RUN: dict[str, Check] = {
    "engine": choice(*ENGINES),
    "threads": integer(1, 1024),
    "record_nodes": optional(flag),
    "progress": optional(function),
    "in_process": flag,
    "inside": choice("nothing", "chunks", "messages"),
    "no_progress_timeout_s": number(0, 1e9),
    "checkpoint": optional(path),
    "resume": optional(path),
    "checkpoint_interval_s": number(0, 1e9),
}


def _inside(checked: Mapping[str, Any], program: Program) -> Inside:
    """What to keep of the inside of collectives."""
    inside = Inside[checked["inside"].upper()]
    if inside and (checked["checkpoint"] is not None or checked["resume"] is not None):
        raise InputError("what is kept has no place in a checkpoint", key="inside")
    if inside is Inside.CHUNKS and program.stays > _MOST_STAYS:
        return Inside.NOTHING
    return inside


def _in_file_order(
    lowered: Lowered, outcome: Outcome
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Node times from the order of the template (ascending id) to that of the trace file."""
    sorted_already = [bool((np.diff(order) == 1).all()) for order in lowered.order]
    if not len(outcome.node_start_ps) or all(sorted_already):
        return outcome.node_start_ps, outcome.node_end_ps
    start, end = outcome.node_start_ps.copy(), outcome.node_end_ps.copy()
    for task, trace in enumerate(lowered.trace_of_task.tolist()):
        if not sorted_already[trace]:
            first, last = outcome.task_node_start[task : task + 2]
            start[first + lowered.order[trace]] = outcome.node_start_ps[first:last]
            end[first + lowered.order[trace]] = outcome.node_end_ps[first:last]
    return start, end


def _unique(*sentences: str) -> tuple[str, ...]:
    return tuple(one_line(sentence) for sentence in dict.fromkeys(sentences))


def _ignored(comm_scale: float, compute_scale: float) -> list[str]:
    return [
        f"--{name}: {value:g} has no effect, as in ASTRA-sim"
        for name, value in (("comm-scale", comm_scale), ("compute-scale", compute_scale))
        if value != 1.0
    ]


def _relieved(chunks: int) -> list[str]:
    if not chunks:
        return []
    return [
        f"{chunks} chunk(s) were started beyond active-chunks-per-dimension, because "
        "chunks waited for one another in the queues of different ranks; a higher value avoids that"
    ]


def _unreceived(outcome: Outcome) -> list[str]:
    if not len(outcome.waits):
        return []
    first = outcome.waits[0]
    return [
        f"{len(outcome.waits)} message(s) were sent but never received; the first has "
        f"{first['bytes']} bytes from rank {first['rank']} to rank {first['peer']}"
    ]
