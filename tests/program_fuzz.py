# SPDX-License-Identifier: MIT
"""Programs with wrong fields: refused with their place, or run alike by both engines."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from astra_bridge.engine import native
from astra_bridge.engine import run as run_engine
from astra_bridge.errors import InputError, SimulationError
from astra_bridge.network.analytical.backend import prepare
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.program import SLOWDOWN, Program
from astra_bridge.program.join import joined, placed
from tests.child import DEATHS, in_child
from tests.random_programs import experiment

VALUES = (
    -(2**63),
    -(2**31),
    -7,
    -1,
    0,
    1,
    2,
    7,
    255,
    2**16,
    2**20,
    10**8,
    2**31 - 1,
    2**62,
    2**63 - 1,
)
_FEW = 30_000
"""Transfers that the Python engine is asked to repeat."""


def places(program: Program) -> Iterator[tuple[str, str | None]]:
    """Every table and its fields."""
    for field in fields(program):
        table = getattr(program, field.name)
        if isinstance(table, np.ndarray) and len(table):
            for name in table.dtype.names or (None,):
                yield field.name, name


def mutated(
    program: Program, table: str, field: str | None, row: int, value: int
) -> Program | None:
    """The Program with one field changed; None where the field cannot hold the value."""
    copy = getattr(program, table).copy()
    kind = (copy.dtype if field is None else copy.dtype[field]).base
    if kind.kind == "f":
        copy[field][row] = value
        return replace(program, **{table: copy})
    limits = np.iinfo(kind)
    if not limits.min <= value <= limits.max:
        return None
    if field is None:
        copy.reshape(-1)[row] = value
    else:
        copy[field][row] = value
    return replace(program, **{table: copy})


def _verdict(program: Program, config: Any, model: str, engine: Any) -> tuple[Any, ...]:
    try:
        with backend(model).open(config) as opened:
            outcome, _ = run_engine(program, opened, engine=engine)
    except InputError as error:
        return ("refused", str(error))
    except SimulationError as error:
        return ("failed", str(error).removeprefix(f"{model}: "))  # only one twin names itself
    said = [outcome.finish_ps.tolist(), outcome.node_end_ps.tolist(), outcome.transfers]
    return ("ran", *said, outcome.events, outcome.relieved, sorted(outcome.waits.tolist()))


def fault_of(program: Program, config: Any, model: str) -> tuple[str, str]:
    """(what happened, what is wrong with that or nothing)."""
    if native.unavailable():
        first, engine = in_child(_verdict, program, config, f"{model}-python", "python"), "python"
    else:
        first, engine = in_child(_verdict, program, config, model, "native"), "native"
    if first[0] in DEATHS:
        return first[0], f"{engine}: {first}"
    if first[0] == "ran" and first[3] > _FEW:
        return "long", ""
    second = in_child(_verdict, program, config, f"{model}-python", "python")
    if first != second:
        return first[0], f"{engine}: {str(first)[:400]}; python: {str(second)[:400]}"
    if first[0] == "refused" and not first[1].startswith("program: "):
        return first[0], f"says not where: {first[1]}"
    return first[0], ""


def drawn(seed: int) -> tuple[Program, Any, str]:
    """A random Program, its network, and the model that runs it."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        tried = experiment(rng, Path(folder))
        program = tried.lower().program
    config = prepare(NetworkRequest(network=tried.network, semantics=tried.semantics)).config
    return program, config, rng.choice(("analytical-aware", "analytical-unaware"))


def twice(one: tuple[Program, Any, str]) -> tuple[Program, Any, str]:
    """The same work a second time, elsewhere and later, and a rank that becomes slow."""
    program, config, model = one
    again = placed(program, program.ranks, np.arange(program.ranks)[::-1], 7_000)
    both = joined(program, replace(again, memory_server=program.memory_server))
    return replace(both, slowdowns=np.array([(9_000, 2.5, 1)], SLOWDOWN)), config, model


def attack(seed: int) -> tuple[str, str]:
    """One random mutation of one random Program; what happened, and what is wrong with that."""
    rng = random.Random(seed)
    one = drawn(rng.randrange(200))
    program, config, model = twice(one) if rng.random() < 0.3 else one
    said = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        table, field = rng.choice(list(places(program)))
        row = rng.randrange(getattr(program, table).size)
        value = rng.choice(VALUES) if rng.random() < 0.6 else rng.randint(-3, 40)
        changed = mutated(program, table, field, row, value)
        if changed is not None:
            program = changed
            said.append(f"{table}[{row}].{field} = {value}")
    what, wrong = fault_of(program, config, model)
    return what, f"seed {seed}, {model}, {', '.join(said)}: {wrong}" if wrong else ""
