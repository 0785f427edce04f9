# SPDX-License-Identifier: MIT
"""A backend whose replies lie at random: both engines name a lie, or what ran is the same."""

from __future__ import annotations

import functools
import random
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from astra_bridge.engine import native
from astra_bridge.engine import run as run_engine
from astra_bridge.errors import AstraBridgeError, ContractError
from astra_bridge.network.api import NetworkConfig
from astra_bridge.network.native import Library, NativeNetwork, library_path
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.program import Program
from tests.child import DEATHS, in_child
from tests.random_programs import experiment

BROKEN = re.compile(
    r"mock: (?P<call>\w+): the backend broke the contract: (?P<field>\w+)=\S+( of record \d+)?, "
    r"but (.*) \((?P<rule>R\d+|CAP)\)"
)
"""What a lie of the mock is answered with."""


_FOLDER = tempfile.TemporaryDirectory()  # as long as this process: a library stays loaded


@functools.cache
def libraries() -> tuple[Path, Path]:
    """The mock as it is, and as a library of contract 1.0: submit, advance, poll, no exchange."""
    old = Path(_FOLDER.name) / "libold.so"
    shutil.copy(library_path("mock"), old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASTRA_NET_MOCK", "none,version,1000")
        assert Library.load(old, trusted=True).version == 1000
    return library_path("mock"), old


@functools.cache
def _drawn(seed: int) -> tuple[Program, NetworkConfig]:
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(random.Random(seed), Path(folder))
        program = tried.lower().program
    request = NetworkRequest(network=tried.network, semantics=tried.semantics)
    return program, backend(str(library_path("mock"))).prepare(request).config


def _verdict(
    library: Path, program: Program, config: NetworkConfig, engine: Any
) -> tuple[Any, ...]:
    """("ran", ...), ("lied", call, field, rule) or ("failed", what)."""
    try:
        with NativeNetwork.open(library, config, trusted=True) as opened:
            outcome, _ = run_engine(program, opened, engine=engine)
    except ContractError as error:
        if said := BROKEN.fullmatch(str(error)):
            return ("lied", *said.group("call", "field", "rule"))
        # Who takes a transfer and says otherwise gets it again, and refuses it.
        if re.fullmatch(r"mock: submit: item \d+: id=\d+ is already in flight", str(error)):
            return ("lied", "submit", "accepted", "refused")
        return ("failed", f"unclear: {error}")
    except AstraBridgeError as error:
        return ("failed", type(error).__name__, str(error))
    return "ran", outcome.finish_ps.tolist(), outcome.node_end_ps.tolist(), outcome.transfers


def attack(seed: int) -> tuple[str, str]:
    """One random Program on a backend that lies at random; what happened, what is wrong with it."""
    rng = random.Random(seed)
    number, chaos, library = rng.randrange(100), rng.randrange(2**31), rng.choice(libraries())
    program, config = _drawn(number)
    config = replace(config, options={**config.options, "fault": f"chaos:{chaos}"})
    engines = ("python",) if native.unavailable() else ("native", "python")
    said = [in_child(_verdict, library, program, config, engine) for engine in engines]
    case = f"seed {seed}, program {number}, chaos:{chaos}, {library.name}"
    for engine, verdict in zip(engines, said, strict=True):
        if verdict[0] in (*DEATHS, "failed"):
            return verdict[0], f"{case}, {engine}: {str(verdict)[:400]}"
    # An odd seed also lies about what each engine counts in its own way: ids and places.
    if said[0] != said[-1] and chaos % 2 == 0:
        return said[0][0], f"{case}, native: {str(said[0])[:400]}; python: {str(said[-1])[:400]}"
    return said[0][0], ""
