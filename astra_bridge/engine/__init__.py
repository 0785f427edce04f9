# SPDX-License-Identifier: MIT
"""Engines: run a Program on a network."""

from __future__ import annotations

from astra_bridge.engine.outcome import Outcome, Progress, ProgressCallback, Stop, Watch
from astra_bridge.engine.session import ENGINES, EngineName, Session
from astra_bridge.network.api import Network
from astra_bridge.program import Inside, Program

__all__ = [
    "ENGINES",
    "EngineName",
    "Outcome",
    "Progress",
    "ProgressCallback",
    "Session",
    "Stop",
    "Watch",
    "run",
]


def run(
    program: Program,
    network: Network,
    *,
    engine: EngineName = "auto",
    record_nodes: bool = True,
    inside: Inside = Inside.NOTHING,
    progress: ProgressCallback | None = None,
) -> tuple[Outcome, str]:
    """Run a Program from start to end; a `Session` does it in steps.

    Returns
    -------
    outcome : Outcome
    name : str
        The engine that ran: "native" or "python".

    Raises
    ------
    InputError
        The Program breaks a rule (:mod:`astra_bridge.program.rules`).
    BackendUnavailable
        ``engine="native"`` cannot be had.
    NetworkError
        The network failed; a `SimulationError` carries the `Outcome` so far as ``outcome``.
    """
    session = Session(
        program, network, engine=engine, record_nodes=record_nodes, inside=inside, progress=progress
    )
    session.advance()
    if progress is not None:
        progress(session.progress)
    return session.outcome(last=True), session.engine
