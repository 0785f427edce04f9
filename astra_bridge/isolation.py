# SPDX-License-Identifier: MIT
"""Run a whole simulation in a supervised child process.

For network simulators that exist once per process or may abort: engine and backend run together
in the child, so nothing crosses a pipe per call, and an abort becomes one clear message.  Several
such simulations can run side by side.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
from typing import IO, Any

from astra_bridge.engine import EngineName, Outcome, Progress, ProgressCallback
from astra_bridge.engine import run as run_engine
from astra_bridge.errors import AstraBridgeError, BackendError
from astra_bridge.network.api import NetworkConfig
from astra_bridge.network.registry import backend as find_backend
from astra_bridge.program import Program

__all__ = ["run_here", "run_isolated"]

_LENGTH = struct.Struct("<Q")
_LAST_WORDS = 2000


def run_here(
    backend: str,
    config: NetworkConfig,
    program: Program,
    engine: EngineName,
    record_nodes: bool,
    progress: ProgressCallback | None,
) -> tuple[Outcome, str, dict[str, Any]]:
    """Run in this process: open the network, run the engine, ask for statistics.

    Returns
    -------
    outcome : Outcome
    engine : str
        The engine that ran.
    stats : dict
        The backend's own statistics.
    """
    with find_backend(backend).open(config) as network:
        outcome, name = run_engine(
            program, network, engine=engine, record_nodes=record_nodes, progress=progress
        )
        return outcome, name, network.stats()


def run_isolated(
    backend: str,
    config: NetworkConfig,
    program: Program,
    engine: EngineName,
    record_nodes: bool,
    progress: ProgressCallback | None,
) -> tuple[Outcome, str, dict[str, Any]]:
    """As `run_here`, in a child process.

    Raises
    ------
    BackendError
        The child died; says how, and its last words.
    """
    # Imported here: only backends that are process-wide need them.
    import subprocess
    import tempfile

    read_end, write_end = os.pipe()
    request = pickle.dumps((backend, config, program, engine, record_nodes))
    code = f"from astra_bridge.isolation import serve; serve({write_end})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=words,
            stderr=words,
            pass_fds=(write_end,),
            env=environment,
        )
        os.close(write_end)
        try:
            with os.fdopen(read_end, "rb") as answers:
                assert child.stdin is not None
                try:
                    child.stdin.write(request)
                    child.stdin.close()
                except BrokenPipeError:
                    pass  # it died early; the exit code says more
                while (message := _read(answers)) is not None:
                    kind, value = message
                    if kind == "progress":
                        if progress is not None:
                            progress(Progress(*value))
                    elif kind == "error":
                        raise value
                    else:
                        child.wait()
                        return value  # type: ignore[no-any-return]
            status = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        words.seek(0)
        last = words.read()[-_LAST_WORDS:].decode("utf-8", "replace").strip()
    if status < 0:
        how = f"was ended by {signal.Signals(-status).name}"
    else:
        how = f"ended with exit code {status}"
    raise BackendError(
        f"backend {backend!r} {how} in the middle of the simulation"
        + (f"; its last words: {last}" if last else " without a word"),
        backend=backend,
    )


def serve(answer_fd: int) -> None:
    """The child: read one request from standard input, write answers to a pipe."""
    with os.fdopen(answer_fd, "wb") as answers:

        def answer(kind: str, value: Any) -> None:
            text = pickle.dumps((kind, value))
            answers.write(_LENGTH.pack(len(text)) + text)
            answers.flush()

        backend, config, program, engine, record_nodes = pickle.load(sys.stdin.buffer)
        try:
            result = run_here(
                backend,
                config,
                program,
                engine,
                record_nodes,
                lambda progress: answer("progress", tuple(progress)),
            )
        except AstraBridgeError as error:
            answer("error", error)
        else:
            answer("result", result)
        # A simulator that is process-wide may not survive its own clean-up.
        answers.flush()
        os._exit(0)


def _read(stream: IO[bytes]) -> tuple[str, Any] | None:
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    text = stream.read(length)
    return pickle.loads(text) if len(text) == length else None
