# SPDX-License-Identifier: MIT
"""Whatever a caller passes from Python: a result, or an InputError that names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astra_bridge
from astra_bridge.errors import AstraBridgeError, InputError, MissingDependency
from astra_bridge.inputs.custom import read_per_node_custom
from astra_bridge.inputs.groups import read_comm_groups
from astra_bridge.inputs.memory import RemoteMemoryConfig, read_remote_memory
from astra_bridge.inputs.network import NetworkDims, NetworkLink, NetworkLinks, read_network
from astra_bridge.inputs.system import SystemConfig, SystolicArray, read_system
from astra_bridge.network.garnet.reader import read_garnet
from astra_bridge.network.garnet.replay import read_messages
from astra_bridge.network.ns3.config import read_ns3_config
from astra_bridge.network.ns3.topologies import read_logical_topology, read_physical_topology
from astra_bridge.records import values
from astra_bridge.trace import read_workload
from astra_bridge.trace.reader import parse_trace, read_bytes, read_trace
from astra_bridge.trace.writer import TraceNode, write_trace
from astra_bridge.units import parse_rate_Bps, parse_size_bytes, parse_time_ps, time_ps
from astra_bridge.workload import micro
from astra_bridge.workload.astra1 import import_text
from astra_bridge.workload.models import (
    Attention,
    Layer,
    Mlp,
    Model,
    Parallelism,
    TrainingStep,
)

INPUTS = Path(__file__).parents[2] / "examples" / "analytical"
GOOD: dict[str, Any] = {
    "workload": INPUTS / "all_reduce" / "trace",
    "system": INPUTS / "system.json",
    "network": INPUTS / "ring.yml",
    "remote_memory": INPUTS / "no_memory.json",
    "comm_groups": None,
}


class Hostile:
    """An object whose every look fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


WRONG: list[Any] = [
    None, True, 0, -1, 1.5, math.nan, math.inf, 2**63, 2**64, 10**400, 16**6000, "", "x", "a\0b",
    "\ud800", "9" * 5000, "a" * 100_000, b"x", [], [[]], [None], {}, {"a": 1}, {1: 2}, [{}], (),
    object(), Hostile(), Hostile, len, 1j, Fraction(1, 3), np.float64(2.5), np.int64(-7),
    np.arange(3), np.array([["x"]]), np.datetime64("2020-01-01"), {"topology": object()},
    {"links": np.arange(3)}, {None: None}, {"x": Hostile()}, iter([1]), range(3), {1, 2},
]  # fmt: skip
ARGUMENTS = [
    *GOOD, "backend", "engine", "semantics", "num_queues_per_dim", "injection_scale", "comm_scale",
    "compute_scale", "rendezvous_protocol", "logical_topology", "physical_topology",
    "network_options", "record_nodes", "progress",
]  # fmt: skip


def answers(call: Callable[[], object], name: str = "") -> None:
    """An answer, or an error of ours that is short; InputErrors name what is wrong."""
    try:
        call()
    except AstraBridgeError as error:
        caught = error
    else:
        return
    assert len(str(caught)) < 1500, str(caught)[:200]
    if isinstance(caught, InputError):
        assert isinstance(caught, ValueError)
        assert name in str(caught) or caught.file is not None, str(caught)


MODEL = Model("small", 64, 100, (Layer(Attention(8, 4, 8), Mlp(64)),) * 4)
STEP = TrainingStep(MODEL)


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("backend", ["analytical-aware-python", "garnet"])
def test_simulate(argument: str, backend: str) -> None:
    for value in WRONG:
        if argument == "progress" and callable(value):
            continue  # its own errors are the caller's
        given = {**GOOD, "backend": backend, "engine": "python", argument: value}
        # What is wrong inside a mapping is named by its key.
        name = "" if isinstance(value, dict) or argument in ("backend", "comm_groups") else argument
        answers(lambda given=given: astra_bridge.simulate(**given), name)


@pytest.mark.parametrize(
    "reader",
    [
        read_system, read_remote_memory, read_network, read_garnet, read_comm_groups,
        read_per_node_custom, read_trace, read_bytes, parse_trace, parse_time_ps, parse_size_bytes,
        parse_rate_Bps,
        read_ns3_config, read_physical_topology, read_messages,
        lambda value: read_logical_topology(value, 8),
        lambda value: read_workload(value, 2),
        lambda value: read_workload(GOOD["workload"], value),
        lambda value: import_text(value, 2),
        lambda value: time_ps(value, "ns"),
        lambda value: time_ps(1, value),
    ],
)  # fmt: skip
def test_readers(reader: Callable[[Any], object]) -> None:
    for value in WRONG:
        if isinstance(value, int) and not isinstance(value, bool) and value < 2**63:
            continue  # a rank count, a time or a size
        answers(lambda value=value: reader(value))


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (SystemConfig, values(SystemConfig())),
        (SystolicArray, values(SystolicArray())),
        (RemoteMemoryConfig, values(RemoteMemoryConfig())),
        (Attention, vars(Attention(8, 4, 8))),
        (Layer, {"mixer": Attention(8, 4, 8), "mlp": Mlp(8), "norms": 2}),
        (Model, vars(MODEL)),
        (Parallelism, vars(Parallelism())),
        (TrainingStep, {one.name: getattr(STEP, one.name) for one in fields(STEP)}),
        (NetworkDims, values(NetworkDims(("Ring",), (3,), (50.0,), (500.0,)))),
        (NetworkLink, values(NetworkLink(0, 1, 50.0, 500.0))),
        (NetworkLinks, values(NetworkLinks(2, 2, (NetworkLink(0, 1, 50.0, 5.0),), (2,)))),
        (micro.collective, {"kind": "all-reduce", "size_bytes": 8, "ranks": 4, "groups": None,
                            "root": None, "repeat": 1, "compute_us": 0, "overlap": False}),
    ],
)  # fmt: skip
def test_constructors(kind: Callable[..., object], good: dict[str, Any]) -> None:
    for field in good:
        for value in WRONG:
            answers(lambda field=field, value=value: kind(**{**good, field: value}), field)


def test_nodes_to_be_written(tmp_path: Path) -> None:
    good = {"id": 0, "type": 4, "name": "n", "attributes": {"is_cpu_op": True}}
    for field in (*good, "duration_micros", "data_deps", "ctrl_deps", "inputs_values"):
        for value in WRONG:
            node = TraceNode(**{**good, field: value})
            answers(lambda node=node: write_trace(tmp_path / "a.et", [node]))


def test_numpy_numbers_are_numbers() -> None:
    system = SystemConfig(preferred_dataset_splits=np.int64(4), L_ns=np.float32(1.5))
    assert type(system.preferred_dataset_splits) is int
    assert type(system.L_ns) is float
    given = {**GOOD, "num_queues_per_dim": np.int32(2), "injection_scale": np.float32(1)}
    assert len(astra_bridge.simulate(**given).finish_ns) == 8


def test_a_generated_workload_is_a_workload() -> None:
    result = astra_bridge.simulate(**{**GOOD, "workload": micro.collective("all-reduce", 8, 8)})
    assert (result.finish_ns > 0).all()


def test_a_missing_package_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from astra_bridge.plotting import new_figure

    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'astra-bridge\[plot\]'") as caught:
        new_figure(1, 1)
    assert isinstance(caught.value, MissingDependency)
    assert caught.value.exit_code == 2
