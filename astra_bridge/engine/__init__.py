# SPDX-License-Identifier: MIT
"""Engines: run a Program on a network.  This is the one place that chooses between them."""

from __future__ import annotations

from typing import Literal

from astra_bridge.engine import native
from astra_bridge.engine.outcome import Outcome, Progress, ProgressCallback
from astra_bridge.errors import BackendUnavailable
from astra_bridge.network.api import Network
from astra_bridge.network.native import NativeNetwork
from astra_bridge.program import Program

__all__ = ["ENGINES", "EngineName", "Outcome", "Progress", "ProgressCallback", "run"]

EngineName = Literal["auto", "native", "python"]
ENGINES: tuple[EngineName, ...] = ("auto", "native", "python")


def run(
    program: Program,
    network: Network,
    *,
    engine: EngineName = "auto",
    record_nodes: bool = True,
    progress: ProgressCallback | None = None,
) -> tuple[Outcome, str]:
    """Run a Program; "auto" takes the native engine where it is built and the network is native.

    Returns
    -------
    outcome : Outcome
    name : str
        The engine that ran: "native" or "python".

    Raises
    ------
    InputError
        The Program breaks a rule (:mod:`astra_bridge.program_rules`).
    BackendUnavailable
        ``engine="native"`` cannot be had.
    NetworkError
        The network failed; a `SimulationError` carries the `Outcome` so far as ``outcome``.
    """
    program.validate()
    if engine != "python":
        missing = native.unavailable()
        if missing is None and isinstance(network, NativeNetwork):
            made = native.NativeEngine(
                program, network, record_nodes=record_nodes, progress=progress
            )
            return made.run(), "native"
        if engine == "native":
            raise BackendUnavailable(
                missing
                or f"the native engine needs a native network, and {network.info.name} is Python; "
                "use --engine python"
            )
    # Imported here: most runs do without it.
    from astra_bridge.engine.python import PythonEngine

    reference = PythonEngine(program, network, record_nodes=record_nodes, progress=progress)
    return reference.run(), "python"
