# SPDX-License-Identifier: MIT
"""Run a whole simulation here, or in a supervised child process.

In a child: network simulators that exist once per process, may abort, or are not ours.  Engine and
backend run together in the child, so nothing crosses a pipe per call, and an abort becomes one
clear message.  Several such simulations can run side by side.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from astra_bridge.engine import (
    EngineName,
    Outcome,
    Progress,
    ProgressCallback,
    Session,
    Stop,
)
from astra_bridge.errors import (
    BackendError,
    ContractError,
    InputError,
    SimulationError,
)
from astra_bridge.network import native, statistics
from astra_bridge.network.api import Capability, Network, NetworkConfig
from astra_bridge.network.registry import backend as find_backend
from astra_bridge.network.spec import BackendSpec
from astra_bridge.program import DELIVERY, STAY, WAIT, Inside, Program
from astra_bridge.records import replace
from astra_bridge.supervision import (
    NO_PROGRESS_TIMEOUT_S,
    NONSENSE,
    Message,
    Parent,
    ask,
    describe,
)

__all__ = [
    "CHECKPOINT_INTERVAL_S",
    "Checkpoint",
    "Run",
    "RunRequest",
    "change_links",
    "run_here",
    "run_isolated",
    "serve",
]

_ADVICE = "; --no-progress-timeout sets how long"


CHECKPOINT_INTERVAL_S = 60.0


class Checkpoint(NamedTuple):
    """Where a run writes its state, and where it goes on from.

    Attributes
    ----------
    label : str
        What runs: a checkpoint of something else is refused.
    file : Path or None
        Written every ``interval_s`` of real time.
    resume : Path or None
        Read at the start, in place of the Program.
    interval_s : float
    """

    label: str
    file: Path | None = None
    resume: Path | None = None
    interval_s: float = CHECKPOINT_INTERVAL_S


class RunRequest(msgspec.Struct, frozen=True):
    """What is to run on a network.

    Attributes
    ----------
    config : NetworkConfig
    program : Program
    engine : str
        "auto", "native" or "python".
    record_nodes : bool
        Whether to keep start and end of every node.
    inside : Inside
        What to keep of what goes on inside collectives.
    link_faults : tuple of (link, time [ps], factor on the bandwidth)
    checkpoint : Checkpoint, optional
    fold : Fold, optional
        ``program``, of which one rank for each set of equal ones runs; the network knows.
    waves : Waves, optional
        Which phases may be wavefronts.
    """

    config: NetworkConfig
    program: Program
    engine: EngineName = "auto"
    record_nodes: bool = True
    inside: Inside = Inside.NOTHING
    link_faults: tuple[tuple[int, int, float], ...] = ()
    checkpoint: Checkpoint | None = None
    fold: Any = None
    waves: Any = None


def change_links(network: Network, faults: tuple[tuple[int, int, float], ...]) -> None:
    """Tell a fresh network what will happen to its links.

    Raises
    ------
    InputError
        It cannot change links, or has no such link.
    """
    if faults and Capability.LINK_FAULTS not in network.info.capabilities:
        raise InputError(
            f"backend {network.info.name} cannot change links: LINK_FAULTS is not declared",
            key="faults",
        )
    link = -1
    try:
        for link, at_ps, scale in faults:
            network.set_link(link, at_ps, scale)
    except ContractError as error:
        raise InputError(str(error), key=f"faults: link {link}") from None


def _run_session(
    request: RunRequest, network: Network, progress: ProgressCallback | None, by_number: bool
) -> Session:
    """Run from start to end, with checkpoints where they are asked for."""
    how: Any = {
        "engine": request.engine,
        "record_nodes": request.record_nodes,
        "inside": request.inside,
        "by_number": by_number,
    }
    keep = request.checkpoint
    if keep is None:
        change_links(network, request.link_faults)
        session = Session(
            request.program,
            network,
            progress=progress,
            fold=request.fold,
            waves=request.waves,
            **how,
        )
        session.advance()
        if progress is not None:
            progress(session.progress)
        return session
    due_s = time.monotonic() + keep.interval_s

    def report(now: Progress) -> bool:
        if progress is not None:
            progress(now)
        return keep.file is not None and time.monotonic() >= due_s

    if keep.resume is not None and by_number:
        session = Session.load(keep.resume, network, progress=report, label=keep.label)
    else:
        change_links(network, request.link_faults)
        session = Session(request.program, network, progress=report, **how)
    while session.advance() is Stop.PAUSED:
        if keep.file is not None:
            session.save(keep.file, label=keep.label)
            due_s = time.monotonic() + keep.interval_s
    if progress is not None:
        progress(session.progress)
    return session


@contextlib.contextmanager
def _ended(
    backend: BackendSpec,
    request: RunRequest,
    progress: ProgressCallback,
    opened: Callable[[Network], None],
) -> Iterator[tuple[Network, Session]]:
    """The network on which all of it has run, still open, and the session that has ended.

    Messages that miss each other by their numbers might meet where they are searched for: so it
    is where ranks run different collectives of equal sizes in different orders.  Then it runs once
    more on a new network, from the start also where it went on from a checkpoint.
    """
    for by_number in (True, False):
        with backend.open(request.config) as network:
            opened(network)
            session = _run_session(request, network, progress, by_number)
            if by_number and session.missed:
                continue
            yield network, session
            return


class Run(NamedTuple):
    """What a simulation gave.

    Attributes
    ----------
    outcome : Outcome
    engine : str
        The engine that ran.
    stats : dict
        The backend's own statistics, without its tables.
    tables : dict of str to (dict of str to ndarray)
        Its tables: columns of equal length.
    cpu_s : float
        CPU time of all threads while simulated time advanced, of engine and network [s].
    """

    outcome: Outcome
    engine: str
    stats: dict[str, Any]
    tables: dict[str, dict[str, Any]]
    cpu_s: float


def run_here(
    backend: BackendSpec,
    request: RunRequest,
    progress: ProgressCallback | None,
    no_progress_timeout_s: float = NO_PROGRESS_TIMEOUT_S,
) -> Run:
    """Run in this process: open the network, run the engine, ask for statistics.

    A backend that makes no progress is interrupted; one that does not heed that cannot be ended.

    Raises
    ------
    NetworkError
        The backend failed, broke the contract, or made no progress for so long [s]; 0 is without
        limit.
    """
    reached: Progress | None = None
    since_s = time.monotonic()

    network: Network

    def opened(new: Network) -> None:
        nonlocal network
        network = new

    # The engine's own clock interrupts a long call of the network and then reports.
    def report(now: Progress) -> None:
        nonlocal reached, since_s
        if now != reached:
            reached, since_s = now, time.monotonic()
        elif no_progress_timeout_s and time.monotonic() - since_s > no_progress_timeout_s:
            call = _calls(network)
            name = network.info.name
            raise BackendError(
                f"{name}: {call}: no progress for {no_progress_timeout_s:g} s{_ADVICE}",
                backend=name,
                call=call,
            )
        if progress is not None:
            progress(now)

    with _ended(backend, request, report, opened) as (network, session):
        stats, tables = statistics.checked(network.info.name, network.stats())
        return Run(session.outcome(last=True), session.engine, stats, tables, session.cpu_s)


def _calls(network: Network) -> str:
    """What an engine calls while it runs."""
    ordered = Capability.ORDERED in network.info.capabilities
    return "exchange" if ordered else "submit, advance or poll"


# ---- in a child ----

# How arrays of an outcome cross over: little-endian int64, in this order, then the waits, then the
# statistics as JSON.
_ARRAYS = ("finish_ps", "task_finish_ps", "node_start_ps", "node_end_ps")
_COUNTS = ("events", "transfers", "relieved", "ties")
_MOST_WAITS = 1 << 24
_MOST_INSIDE = 1 << 26
"""Chunks in phases, and as many messages, that may cross over."""


def run_isolated(
    backend: str,
    request: RunRequest,
    progress: ProgressCallback | None,
    no_progress_timeout_s: float = NO_PROGRESS_TIMEOUT_S,
) -> Run:
    """As `run_here`, in a child process.

    Raises
    ------
    BackendError
        The child died, fell silent or answered nonsense; says in which call, and its last words.
    """
    config = request.config
    program = request.program if request.fold is None else request.fold.program
    config = replace(config, options={str(key): str(v) for key, v in config.options.items()})
    request = msgspec.structs.replace(request, config=config)
    offsets = np.concatenate([[0], np.cumsum(program.task_nodes, dtype=np.int64)])
    nodes = int(offsets[-1]) if request.record_nodes else 0
    most_body = 8 * (program.ranks + len(program.tasks) + 2 * nodes) + _MOST_WAITS * WAIT.itemsize
    if request.inside:
        most_body += _MOST_INSIDE * (STAY.itemsize + DELIVERY.itemsize)

    def report(reached: tuple[int, ...]) -> None:
        if progress is not None and len(reached) == 4:
            progress(Progress(*reached))

    message = ask(
        "astra_bridge.isolation:serve",
        (backend, request),
        backend=backend,
        timeout_s=no_progress_timeout_s,
        advice=_ADVICE,
        most_body=most_body + statistics.MOST_BYTES,
        progress=report,
    )
    try:
        run, failed = _read(message, program, offsets, nodes)
    except (*NONSENSE, msgspec.MsgspecError):
        raise BackendError(
            f"{backend}: the process that runs it sent an outcome of a wrong form", backend=backend
        ) from None
    stats, tables = statistics.checked(backend, run.stats)
    if failed is not None:
        error = SimulationError(
            str(failed.get("text")), backend=backend, call=str(failed.get("call"))
        )
        error.outcome = run.outcome
        raise error
    return run._replace(stats=stats, tables=tables)


def serve(parent: Parent) -> None:
    """The child: run what was asked, and send what came of it."""
    backend, request = parent.request
    native.watch_calls(parent.call)
    parent.call("load")

    def report(progress: Progress) -> None:
        if parent.interrupted:
            raise BackendError("interrupted")
        parent.send("progress", progress=[int(value) for value in progress])

    def opened(network: Network) -> None:
        parent.on_interrupt = network.interrupt
        parent.call(_calls(network))

    failed: SimulationError | None = None
    stats = b"{}"
    name, cpu_s = "", 0.0
    try:
        with _ended(find_backend(backend), request, report, opened) as (network, session):
            outcome, name, cpu_s = session.outcome(last=True), session.engine, session.cpu_s
            parent.call("stats")
            stats = _json(network.stats())
            parent.call("destroy")
    except SimulationError as error:
        if error.outcome is None:
            raise
        failed, outcome = error, error.outcome
    _write(parent, outcome, name, cpu_s, stats, failed)


def _write(
    parent: Parent,
    outcome: Outcome,
    engine: str,
    cpu_s: float,
    stats: bytes,
    failed: SimulationError | None,
) -> None:
    waits = outcome.waits[:_MOST_WAITS]
    arrays = [np.ascontiguousarray(getattr(outcome, name), np.int64) for name in _ARRAYS]
    records = [waits, outcome.stays, outcome.deliveries]
    body = b"".join([*(a.tobytes() for a in [*arrays, *records]), stats])
    parent.send(
        "result",
        body,
        engine=engine,
        cpu_s=cpu_s,
        sizes=[len(array) for array in [*arrays, *records]],
        failed=None if failed is None else describe(failed),
        first_tie=[int(value) for value in outcome.first_tie],
        **{name: int(getattr(outcome, name)) for name in _COUNTS},
    )


def _json(stats: object) -> bytes:
    def plain(value: object) -> object:
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} has no place in JSON")

    return msgspec.json.encode(stats, enc_hook=plain)


def _read(
    message: Message, program: Program, offsets: Any, nodes: int
) -> tuple[Run, dict[str, Any] | None]:
    """The outcome in a message; ValueError and the like where it is none of this program."""
    sizes = [int(size) for size in message.head["sizes"]]
    expected = [program.ranks, len(program.tasks), nodes, nodes]
    _hold(sizes[:4] == expected and len(sizes) == 7 and min(sizes) >= 0)
    body, at, arrays = message.body, 0, []
    for size in sizes[:4]:
        arrays.append(np.frombuffer(body, np.int64, size, at).copy())
        at += 8 * size
    records: list[Any] = []
    for size, dtype in zip(sizes[4:], (WAIT, STAY, DELIVERY), strict=True):
        records.append(np.frombuffer(body, dtype, size, at).copy())
        at += records[-1].nbytes
    waits, stays, deliveries = records
    _inside(program, offsets, stays, deliveries)
    counts = {name: int(message.head[name]) for name in _COUNTS}
    for column, least, most in (
        ("rank", 0, program.ranks),
        ("node", -1, int(program.templates["node_count"].max(initial=0))),
        ("collective", -1, len(program.collectives)),
        ("what", 0, 3),
    ):
        _hold(bool(((waits[column] >= least) & (waits[column] < most)).all()))
    _hold(all(bool((array >= -1).all()) for array in arrays) and min(counts.values()) >= 0)
    stats = msgspec.json.decode(body[at:])
    tied, tied_ps = map(int, message.head["first_tie"])
    outcome = Outcome(
        finish_ps=arrays[0],
        task_finish_ps=arrays[1],
        node_start_ps=arrays[2],
        node_end_ps=arrays[3],
        task_node_start=offsets,
        events=counts["events"],
        transfers=counts["transfers"],
        relieved=counts["relieved"],
        ties=counts["ties"],
        first_tie=(tied, tied_ps),
        waits=waits,
        stays=stays,
        deliveries=deliveries,
    )
    failed = message.head["failed"]
    _hold(failed is None or isinstance(failed, dict))
    cpu_s = float(message.head["cpu_s"])
    _hold(cpu_s >= 0)
    return Run(outcome, str(message.head["engine"]), stats, {}, cpu_s), failed


def _inside(program: Program, offsets: Any, stays: Any, deliveries: Any) -> None:
    """What refers to something, does so within this program."""
    tasks = stays["task"]
    _hold(bool(((tasks >= 0) & (tasks < len(program.tasks))).all()))
    counts = np.diff(offsets)
    _hold(bool(((stays["node"] >= 0) & (stays["node"] < counts[tasks])).all()))
    _hold(bool(((stays["phase"] >= -1) & (stays["phase"] < len(program.phases))).all()))
    for name in ("sender", "receiver"):
        who = deliveries[name]
        _hold(bool(((who < len(stays)) & (who >= -2 - int(offsets[-1]))).all()))
    for name in ("src", "dst"):
        _hold(bool(((deliveries[name] >= 0) & (deliveries[name] < program.ranks)).all()))


def _hold(condition: bool) -> None:
    if not condition:
        raise ValueError
