# SPDX-License-Identifier: MIT
"""A simulation that can be stepped, given more work, copied, and written to a file."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from astra_bridge.engine import native
from astra_bridge.engine.outcome import Outcome, Progress, ProgressCallback, Stop, Watch, Waves
from astra_bridge.errors import BackendUnavailable, InputError, Unsupported
from astra_bridge.network.api import TIME_NEVER, Network
from astra_bridge.network.native import NativeNetwork
from astra_bridge.program import Inside, Program
from astra_bridge.sealed import seal, unseal

if TYPE_CHECKING:
    from astra_bridge.program.folding import Fold

__all__ = ["ENGINES", "EngineName", "Session"]

EngineName = Literal["auto", "native", "python"]
ENGINES: tuple[EngineName, ...] = ("auto", "native", "python")


_KIND = "session 1"
"""What a checkpoint says that it is."""


class _Engine(Protocol):
    """What both engines are."""

    name: str

    def advance(self, until_ps: int, progress: ProgressCallback | None) -> Stop: ...

    def append(self, fragment: Program, program: Program) -> None: ...

    def watch(self, what: Watch) -> None: ...

    def poll(self) -> Any: ...

    def progress(self) -> Progress: ...

    def missed(self) -> bool: ...

    def outcome(self, *, last: bool = False) -> Outcome: ...

    def copy(self, network: Any) -> _Engine: ...

    def save(self) -> bytes: ...

    def load(self, data: bytes) -> None: ...


def _engine(program: Program, network: Network, engine: EngineName, **how: Any) -> _Engine:
    """The one place that chooses between the engines."""
    if engine != "python":
        missing = native.unavailable()
        # Not the other engine instead: it is slow, and whoever built this one wants this one.
        old = native.stale()
        if old is not None:
            raise BackendUnavailable(old)
        if missing is None and isinstance(network, NativeNetwork):
            return native.NativeEngine(program, network, **how)
        if engine == "native":
            raise BackendUnavailable(
                missing
                or f"the native engine needs a native network, and {network.info.name} is Python; "
                "use --engine python"
            )
    # Imported here: most runs do without it.
    from astra_bridge.engine.python import PythonEngine

    return PythonEngine(program, network, **how)


class Session:
    """A simulation of a Program on a network.

    Time moves in :meth:`advance` alone.  Between two calls work may be added; the answer is that
    of one Program which had it from the beginning.

    Parameters
    ----------
    program : Program
    network : Network
        The session closes it.
    engine
        "native", "python", or "auto": native where it is built and the network is native.
    record_nodes : bool
        Whether to keep start and end of every node.
    inside : Inside
        What to keep of what goes on inside collectives; such a session cannot be saved.
    progress : callable, optional
        Called about five times a second with a `Progress`; where it returns True, `advance`
        returns as soon as it can.
    fold : Fold, optional
        ``program``, of which one rank for each set of equal ones runs: the outcome is theirs, and
        counts only where it says that there were no ties.  Such a session runs to its end.
    waves : Waves, optional
        Which phases may be wavefronts, of the native engine: the outcome counts only where it has
        no doubt.  Such a session runs to its end.
    by_number : bool
        Whether messages of collectives may meet by number, which is faster; of different
        collectives they then do not meet (`missed`).

    Attributes
    ----------
    cpu_s : float
        CPU time of all threads in :meth:`advance`, of engine and network [s].

    Raises
    ------
    InputError
        The Program breaks a rule (:mod:`astra_bridge.program.rules`).
    BackendUnavailable
        ``engine="native"`` cannot be had.
    """

    def __init__(
        self,
        program: Program,
        network: Network,
        *,
        engine: EngineName = "auto",
        record_nodes: bool = True,
        inside: Inside = Inside.NOTHING,
        progress: ProgressCallback | None = None,
        fold: Fold | None = None,
        waves: Waves | None = None,
        by_number: bool = True,
    ) -> None:
        program.validate()
        self._program, self._network, self._report = program, network, progress
        runs, folded = (program, ()) if fold is None else (fold.program, fold.digits)
        self._engine = _engine(
            runs,
            network,
            engine,
            record_nodes=record_nodes,
            inside=inside,
            folded=folded,
            waves=waves,
            by_number=by_number,
        )
        self._inside = inside
        self._record_nodes = record_nodes
        self._from_ps = 0
        self.cpu_s = 0.0

    @property
    def engine(self) -> str:
        """The engine that runs: "native" or "python"."""
        return self._engine.name

    @property
    def now_ps(self) -> int:
        """How far `advance` has come [ps]: nothing before it can happen any more."""
        return max(self._from_ps, self._engine.progress().now_ps)

    @property
    def progress(self) -> Progress:
        """How far the simulation is."""
        return self._engine.progress()

    @property
    def missed(self) -> bool:
        """Whether messages that meet by number still wait.

        At the end that is where ranks run different collectives in different orders: in ASTRA-sim,
        where each message is searched for, they meet if they have one size.
        """
        return self._engine.missed()

    @property
    def program(self) -> Program:
        """All the work so far, as one Program."""
        return self._program

    def advance(self, until_ps: int = TIME_NEVER) -> Stop:
        """Run everything that happens before a time [ps].

        Parameters
        ----------
        until_ps : int
            TIME_NEVER, the default, is until nothing more can happen.

        Returns
        -------
        Stop
            REACHED, or IDLE where nothing more can happen; sooner, DONE to the end of the instant
            in which something that is watched is complete, and PAUSED where ``progress`` asked.

        Raises
        ------
        InputError
            The time is before now.
        NetworkError
            The network failed; a `SimulationError` carries the `Outcome` so far as ``outcome``.
        """
        if until_ps < self._from_ps:
            raise InputError(
                f"is {until_ps}; allowed: {self._from_ps} (now) and above", key="until_ps"
            )
        began_s = time.process_time()
        try:
            stop = self._engine.advance(until_ps, self._report)
        finally:
            self.cpu_s += time.process_time() - began_s
        if stop is Stop.REACHED or (stop is Stop.IDLE and until_ps != TIME_NEVER):
            self._from_ps = until_ps
        return stop

    def append(self, program: Program, start_ps: int | None = None, placement: Any = None) -> int:
        """Add work: the tasks of a Program, as a further job.

        Parameters
        ----------
        program : Program
            For this network, or for fewer ranks.
        start_ps : int, optional
            Added to the start of its tasks; None is now.
        placement : array of int, optional
            The rank of the network that each rank of the Program is on.

        Returns
        -------
        int
            The index of its first task, which `poll` and `Outcome` count.

        Raises
        ------
        InputError
            It breaks a rule, starts before now, or does not fit the work so far.
        """
        # Most runs add nothing.
        from astra_bridge.program.join import extended, moved, placed

        now_ps = self.now_ps
        start_ps = now_ps if start_ps is None else start_ps
        least_ps = int(program.tasks["start_ps"].min(initial=0)) + start_ps
        if least_ps < now_ps:
            raise InputError(f"is {least_ps}; allowed: {now_ps} (now) and above", key="start_ps")
        program.validate()
        whole = self._program
        part = moved(placed(program, whole.ranks, placement, start_ps), whole)
        self._program = extended(whole, part)
        self._engine.append(part, self._program)
        return len(whole.tasks)

    def watch(self, what: Watch) -> None:
        """Let `advance` stop for tasks, or for nodes, that are complete."""
        self._engine.watch(what)

    def poll(self) -> Any:
        """What was watched and has completed since the last call, as an array of DONE."""
        return self._engine.poll()

    def outcome(self, *, last: bool = False) -> Outcome:
        """Times so far; ``last`` saves a copy where the session ends here."""
        return self._engine.outcome(last=last)

    def snapshot(self) -> Session:
        """A second session that goes on from here; the two do not know of one another.

        Raises
        ------
        Unsupported
            The backend cannot copy its simulation.
        """
        network = self._network.snapshot()
        other = object.__new__(Session)
        other.__dict__.update(self.__dict__)
        other._network, other._engine = network, self._engine.copy(network)
        return other

    def save(self, file: str | Path, *, label: str = "") -> None:
        """Write everything to a file, which `Session.load` goes on from; whole or not at all.

        ``label`` says what runs: whoever loads it may insist on it.

        Raises
        ------
        Unsupported
            The backend cannot save its simulation.
        InputError
            The file cannot be written.
        """
        if self._inside:
            raise Unsupported(
                "what is kept of the inside of collectives cannot be saved", call="save"
            )
        from astra_bridge.files import NewFiles  # few sessions are saved

        program = BytesIO()
        self._program.save(program)
        state = {
            "program": program.getvalue(),
            "label": label,
            "engine": self.engine,
            "record_nodes": self._record_nodes,
            "from_ps": self._from_ps,
            "state": self._engine.save(),
            "network": self._network.save(),
        }
        with NewFiles() as files, files.open(Path(file)) as out:
            out.write(seal(state, _KIND))

    @classmethod
    def load(
        cls,
        file: str | Path,
        network: Network,
        *,
        progress: ProgressCallback | None = None,
        label: str | None = None,
    ) -> Session:
        """Go on from a file.

        Parameters
        ----------
        file
            What `save` wrote.
        network : Network
            A fresh simulation of the same configuration; the session closes it.
        progress
            As in `Session`.
        label
            What the file must be of; None is anything.

        Raises
        ------
        InputError
            The file cannot be read, is damaged, or is of something else or another version.
        ContractError
            The network refuses its part: another configuration, or another version of it.
        """
        path = Path(file)
        try:
            state = unseal(path.read_bytes(), _KIND)
            if label is not None and state["label"] != label:
                raise InputError("is a checkpoint of another experiment", file=path)
            program = Program.load(BytesIO(state["program"]))
            network.restore(state["network"])  # first: an engine keeps where its network is
            session = cls(
                program,
                network,
                engine=state["engine"],
                record_nodes=state["record_nodes"],
                progress=progress,
            )
            session._engine.load(state["state"])
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror or error}", file=path) from error
        except (KeyError, TypeError, ValueError, IndexError, MemoryError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"is no checkpoint: {error}", file=path) from error
        session._from_ps = state["from_ps"]
        return session

    def close(self) -> None:
        """End the simulation of the network."""
        self._network.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
