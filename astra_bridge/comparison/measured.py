# SPDX-License-Identifier: MIT
"""One run in a process of its own: what came of it, and what it took."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astra_bridge.engine import EngineName, Progress, ProgressCallback
from astra_bridge.errors import BackendError
from astra_bridge.network import native
from astra_bridge.supervision import NO_PROGRESS_TIMEOUT_S, NONSENSE, Message, Parent, ask

if TYPE_CHECKING:
    from astra_bridge.simulation import Experiment

__all__ = ["Measured", "Shape", "measure", "serve", "shape_of"]

_BYTES_PER_MB = 10**6


class Measured(NamedTuple):
    """What a run gave, and what it took.

    Attributes
    ----------
    finish_ps : ndarray of int64, shape (rows,)
        When each rank of each job ended.
    node_start_ps, node_end_ps : ndarray of int64, shape (nodes of all rows,)
        In the order of the traces; -1 where a node did not run; empty where there are too many.
    exposed_comm_ps : int
        The longest time that a rank's GPU did not compute.
    events : int
    engine : str
    cpu_s, wall_s : float
        CPU time of all threads, and real time, of the run: loading the backend, opening the
        network, `run_cpu_s`, statistics and result.
    run_cpu_s : float
        That part of ``cpu_s`` in which simulated time advances: engine and network.
    prepare_s : float
        CPU time before it: reading the inputs and making the Program.
    peak_mb : float
        The most memory that the process had at a time [10**6 bytes].
    """

    finish_ps: NDArray[np.int64]
    node_start_ps: NDArray[np.int64]
    node_end_ps: NDArray[np.int64]
    exposed_comm_ps: int
    events: int
    engine: str
    cpu_s: float
    wall_s: float
    run_cpu_s: float
    prepare_s: float
    peak_mb: float


class Shape(NamedTuple):
    """How large a result is.

    Attributes
    ----------
    rows : int
        Ranks of all jobs.
    nodes : int
        Of all rows.
    """

    rows: int
    nodes: int


def shape_of(experiment: Experiment) -> Shape:
    """The size of the experiment's result, whatever its backend; reads the traces."""
    traces = experiment.traces
    sizes = np.array([len(columns) for columns in traces.columns], np.int64)
    return Shape(len(traces.rank_to_columns), int(sizes[traces.rank_to_columns].sum()))


_NUMBERS = ("cpu_s", "wall_s", "run_cpu_s", "prepare_s", "peak_mb")


def measure(
    experiment: Experiment,
    shape: Shape,
    *,
    engine: EngineName = "auto",
    progress: ProgressCallback | None = None,
    no_progress_timeout_s: float = NO_PROGRESS_TIMEOUT_S,
) -> Measured:
    """Run an experiment in a child process, whatever its backend.

    The backend must be a name, or the path of a library.

    Raises
    ------
    AstraBridgeError
        As `Experiment.run`; a child that died, fell silent or answered nonsense is a
        `BackendError`.
    """
    # What has to be compiled first is no part of the run.
    if experiment.spec.unavailable() is None:
        experiment.spec.make_ready()
    rows, nodes = shape
    name = str(experiment.backend)

    def report(reached: tuple[int, ...]) -> None:
        if progress is not None and len(reached) == 4:
            progress(Progress(*reached))

    message = ask(
        "astra_bridge.comparison.measured:serve",
        (experiment, engine),
        backend=name,
        timeout_s=no_progress_timeout_s,
        advice="; --no-progress-timeout sets how long",
        most_body=8 * (rows + 2 * nodes),
        afresh=True,
        progress=report,
    )
    try:
        return _read(message, rows, nodes)
    except NONSENSE:
        raise BackendError(
            f"{name}: the process that runs it sent a result of a wrong form", backend=name
        ) from None


def _read(message: Message, rows: int, nodes: int) -> Measured:
    """The result in a message; ValueError and the like where it is none of this experiment."""
    values = np.frombuffer(message.body, np.int64).copy()
    if len(values) not in (rows, rows + 2 * nodes) or (values < -1).any():
        raise ValueError
    recorded = (len(values) - rows) // 2
    return Measured(
        values[:rows],
        values[rows : rows + recorded],
        values[rows + recorded :],
        int(message.head["exposed_comm_ps"]),
        int(message.head["events"]),
        str(message.head["engine"]),
        *(float(message.head[number]) for number in _NUMBERS),
    )


# ---- in the child ----


def serve(parent: Parent) -> None:
    """The child: run the experiment, and send what came of it and what it took."""
    experiment, engine = parent.request
    native.watch_calls(parent.call)
    parent.call("prepare")

    def report(progress: Progress) -> None:
        if parent.interrupted:
            raise BackendError("interrupted")
        parent.send("progress", progress=[int(value) for value in progress])

    before_s = time.process_time()
    experiment.lower()
    began_s, began_wall_s = time.process_time(), time.monotonic()
    parent.call("run")
    # This process may crash; who supervises it also ends it where it stands still.
    result = experiment.run(
        engine=engine, progress=report, in_process=True, no_progress_timeout_s=0
    )
    cpu_s, wall_s = time.process_time() - began_s, time.monotonic() - began_wall_s
    arrays: list[Any] = [result.finish_ps]
    if result.has_nodes:
        arrays += [result.node_start_ps, result.node_end_ps]
    parent.send(
        "result",
        b"".join(np.ascontiguousarray(array, np.int64).tobytes() for array in arrays),
        exposed_comm_ps=int(result.exposed_comm_ps.max(initial=0)),
        events=int(result.events),
        engine=result.engine,
        cpu_s=cpu_s,
        wall_s=wall_s,
        run_cpu_s=result.run_cpu_s,
        prepare_s=began_s - before_s,
        peak_mb=_peak_bytes() / _BYTES_PER_MB,
    )


def _peak_bytes() -> int:
    """The most memory that this process has had.

    Linux hands the peak that ``getrusage`` gives down from the process that started this one, so
    there the peak of its own memory is read.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
