# SPDX-License-Identifier: MIT
"""The exception tree.  Every error that a user can cause is one of these.

Exit codes of the command line: 2 bad input, 3 the simulation cannot go on, 4 a backend or another
plug-in failed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_bridge.text import one_line, printable


class AstraBridgeError(Exception):
    """Base of all errors that this package raises on purpose.

    Foreign text in the message (of a backend, from a trace) is made fit for a terminal.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message, indent=""))


class InputError(AstraBridgeError, ValueError):
    """Bad input: says file, key or node (or argument), value and what is allowed.

    Parameters
    ----------
    message
        What is wrong, with the value and what is allowed.
    file
        The file it stands in, or None for an object that was passed in memory.
    key
        Path of the key inside the file ("all-reduce-implementation[1]", "node 12 comm_size").
    """

    exit_code = 2

    def __init__(
        self, message: str, *, file: str | Path | None = None, key: str | None = None
    ) -> None:
        self.file = None if file is None else str(file)
        self.key = key
        self.reason = message
        where = ": ".join(one_line(part, 200) for part in (self.file, key) if part)
        said = one_line(message, 1000)
        super().__init__(f"{where}: {said}" if where else said)


class MissingDependency(AstraBridgeError, ImportError):
    """An optional package is not installed: says which, what needs it, and how to install it."""

    exit_code = 2


class PluginError(AstraBridgeError):
    """Code that a package plugs in has raised an error, or is not what it should be."""

    exit_code = 4


class StalledError(AstraBridgeError):
    """The simulation cannot go on; the message names ranks, nodes and what each waits for."""

    exit_code = 3


class NetworkError(AstraBridgeError):
    """A call of the network contract failed.

    Attributes
    ----------
    backend, call : str
        Name of the backend, and of the entry that failed.
    status : int
        The ``ASTRA_NET_*`` status.
    native_code, item : int
        The simulator's own code (or 0), and the offending index in the batch (or -1).
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        call: str = "",
        status: int = 0,
        native_code: int = 0,
        item: int = -1,
    ) -> None:
        super().__init__(message)
        self.backend, self.call, self.status = backend, call, status
        self.native_code, self.item = native_code, item


class ContractError(NetworkError):
    """A rule of the contract is broken.

    By the caller (INVALID or BAD_STATE: the sim is unchanged), or by a backend whose answer cannot
    be true (status INTERNAL: the sim can only be closed).
    """


class Unsupported(NetworkError):
    """UNSUPPORTED: the backend has not declared this capability; the sim is unchanged."""


class Interrupted(NetworkError):
    """INTERRUPTED: the sim is consistent and can go on.

    Attributes
    ----------
    now_ps : int
        Where it stands; -1 where that is not known.
    """

    now_ps = -1


class SimulationError(NetworkError):
    """MODEL: the simulated network failed (deadlock, no route); the sim can only be closed.

    Attributes
    ----------
    outcome : Outcome or None
        How far an engine had come.
    """

    exit_code = 3
    outcome: Any = None


class BackendError(NetworkError):
    """INTERNAL or FATAL, or the backend could not be loaded or has died."""


class BackendUnavailable(BackendError):
    """The backend is known but cannot be used here; the message says why and what to do."""
