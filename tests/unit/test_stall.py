# SPDX-License-Identifier: MIT
"""Runs that cannot go on: exit code 3, and a message that says who waits for what."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from numpy.typing import NDArray

from astra_bridge import simulate
from astra_bridge.cli import main
from astra_bridge.engine import native
from astra_bridge.errors import ContractError, StalledError
from astra_bridge.network.analytical.unaware import UnawareNetwork
from astra_bridge.network.api import Advance, Capability, NetworkConfig, NetworkInfo, Stop
from astra_bridge.network.registry import backend
from astra_bridge.trace import CommType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder
from tests.small import network, same_on_all, system

ENGINES = ("python",) if native.unavailable() else ("python", "native")
Fill = Callable[[TraceBuilder, int], object]
AR, AG = CommType.ALL_REDUCE, CommType.ALL_GATHER


def different_sizes(trace: TraceBuilder, rank: int) -> None:
    if rank == 0:
        trace.send(1, 1000, 7)
    elif rank == 1:
        first = trace.comp()
        trace.recv(0, 2000, 7, name="activations", deps=[first])
    else:
        trace.comp()


def different_tags(trace: TraceBuilder, rank: int) -> None:
    if rank == 0:
        trace.send(3, 1000, 7)
    elif rank == 3:
        trace.recv(0, 1000, 8)
    else:
        trace.comp()


def no_send(trace: TraceBuilder, rank: int) -> None:
    if rank == 2:
        first = trace.recv(3, 1000, 7)
        trace.comp(deps=[first])
    else:
        trace.comp()


def different_order(trace: TraceBuilder, rank: int) -> None:
    for kind in (AR, AG) if rank else (AG, AR):
        trace.coll(kind, 2**20)


def different_collective_sizes(trace: TraceBuilder, rank: int) -> None:
    trace.coll(AR, 4000 if rank == 2 else 8000)


def one_stays_away(trace: TraceBuilder, rank: int) -> None:
    if rank == 2:
        trace.comp(name="forgotten")
    else:
        trace.coll(AR, 8000)


def circle(trace: TraceBuilder, rank: int) -> None:
    first = trace.comp()
    second = trace.comp(deps=[first])
    third = trace.comp(deps=[second])
    if rank == 1:
        trace.nodes[second].data_deps.append(third)


AGREE = "a send and its receive must agree in size and tag"
ORDER = "they must issue their collectives in the same order, with the same sizes"
CASES: dict[str, tuple[Fill, list[str]]] = {
    "different sizes": (
        different_sizes,
        [
            "1 of 4 ranks never finish",
            "rank 1: node 1 (activations) RECV of 2000 bytes from rank 0, tag 7",
            "waits for 2000 bytes from rank 0, which has not sent them",
            AGREE,
        ],
    ),
    "different tags": (
        different_tags,
        ["rank 3: node 0 (recv) RECV of 1000 bytes from rank 0, tag 8", AGREE],
    ),
    "no send": (
        no_send,
        [
            "1 of 4 ranks never finish",
            "rank 2: node 0 (recv) RECV of 1000 bytes from rank 3, tag 7",
        ],
    ),
    "different order": (
        different_order,
        [
            "4 of 4 ranks never finish",
            "rank 0: node 0 (ALL_GATHER) ALL_GATHER of 1048576 bytes",
            "rank 1: node 0 (ALL_REDUCE) ALL_REDUCE of 1048576 bytes waits for 65536 bytes from "
            "rank 0, which has not sent them",
            ORDER,
        ],
    ),
    "different sizes of a collective": (
        different_collective_sizes,
        ["rank 2: node 0 (ALL_REDUCE) ALL_REDUCE of 4000 bytes", "of 8000 bytes", ORDER],
    ),
    "one stays away": (
        one_stays_away,
        [
            "3 of 4 ranks never finish",
            "rank 3: node 0 (ALL_REDUCE) ALL_REDUCE of 8000 bytes waits for 500 bytes from rank 2",
            "rank 2 does not take part in ALL_REDUCE of 8000 bytes",
        ],
    ),
    "circle": (circle, ["nodes wait for one another in a circle: 1, 2"]),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[GeneratedWorkload, list[str]]:
    fill, sentences = CASES[request.param]
    traces = [TraceBuilder() for _ in range(4)]
    for rank, trace in enumerate(traces):
        fill(trace, rank)
    return GeneratedWorkload(traces), sentences


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", ["analytical-aware", "analytical-unaware"])
def test_simulate_raises(
    case: tuple[GeneratedWorkload, list[str]], engine: Any, backend: str
) -> None:
    generated, sentences = case
    with pytest.raises(StalledError) as caught:
        simulate(generated.workload(), system(), network("Ring", 4), backend=backend, engine=engine)
    assert caught.value.exit_code == 3
    for sentence in sentences:
        assert sentence in str(caught.value)


def written(generated: GeneratedWorkload, folder: Path) -> list[str]:
    """The arguments of the command for a workload that is written to files."""
    generated.write(folder / "trace")
    (folder / "system.json").write_text(json.dumps(system()))
    (folder / "network.yml").write_text(yaml.safe_dump(network("Ring", 4)))
    (folder / "memory.json").write_text('{"memory-type": "NO_MEMORY_EXPANSION"}')
    names = {
        "workload": "trace",
        "system": "system.json",
        "network": "network.yml",
        "remote-memory": "memory.json",
    }
    return ["run", *(f"--{key}-configuration={folder / name}" for key, name in names.items())]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_ends_with_3(
    case: tuple[GeneratedWorkload, list[str]],
    engine: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generated, sentences = case
    assert main([*written(generated, tmp_path), f"--engine={engine}"]) == 3
    captured = capsys.readouterr()
    assert "finished" not in captured.out
    for sentence in sentences:
        assert sentence in captured.err


@pytest.mark.parametrize("engine", ENGINES)
def test_without_recorded_nodes_ranks_and_peers_are_still_named(engine: Any) -> None:
    traces = [TraceBuilder() for _ in range(4)]
    for rank, trace in enumerate(traces):
        no_send(trace, rank)
    workload = GeneratedWorkload(traces).workload()
    with pytest.raises(StalledError) as caught:
        simulate(workload, system(), network("Ring", 4), engine=engine, record_nodes=False)
    assert "rank 2: waits for 1000 bytes from rank 3, which has not sent them" in str(caught.value)


def test_what_nobody_receives_is_a_warning() -> None:
    traces = [TraceBuilder() for _ in range(2)]
    traces[0].send(1, 1000, 7)
    traces[1].comp()
    result = simulate(GeneratedWorkload(traces).workload(), system(), network("Ring", 2))
    # floor(500 + 1000 / 53.687)
    assert result.finish_ns.tolist() == [518, 1]
    assert result.warnings[-1] == (
        "1 message(s) were sent but never received; the first has 1000 bytes from rank 0 to rank 1"
    )


def test_many_stuck_ranks_are_counted() -> None:
    traces = [TraceBuilder() for _ in range(40)]
    for rank, trace in enumerate(traces):
        trace.recv((rank + 1) % 40, 1000, 0)
    with pytest.raises(StalledError) as caught:
        simulate(GeneratedWorkload(traces).workload(), system(), network("Ring", 40))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("40 of 40 ranks never finish")
    assert "... and 32 more ranks" in lines
    assert len(lines) < 15


class Forgetful(UnawareNetwork):
    """Takes transfers and forgets them."""

    def __init__(self, config: NetworkConfig, stop: Stop) -> None:
        super().__init__(config)
        self.stop = stop

    @property
    def info(self) -> NetworkInfo:
        return replace(super().info, capabilities=Capability.MULTI_INSTANCE)

    def submit(self, items: NDArray[Any]) -> int:
        return len(items)

    def advance(self, until_ps: int, lookahead_ps: int = 0) -> Advance:
        return Advance(0, self.stop)


@pytest.mark.parametrize("stop", Stop)
def test_a_network_that_forgets_is_found_out(stop: Stop) -> None:
    spec = replace(backend("analytical-unaware-python"), open=partial(Forgetful, stop=stop))
    workload = same_on_all(4, lambda trace: trace.coll(AR, 8000))
    said = {
        Stop.REACHED: "stop=1, but REACHED says that now_ps is until_ps",
        Stop.COMPLETION: "stop=2, but there are 0 records",
        Stop.IDLE: "stop=3, but IDLE says nothing is in flight, and 4 transfers are",
    }
    with pytest.raises(ContractError) as caught:
        simulate(workload, system(), network("Ring", 4), backend=spec)
    assert caught.value.exit_code == 4
    assert said[stop] in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stuck_library_is_found_out(engine: Any, mock_library: Path) -> None:
    workload = same_on_all(4, lambda trace: trace.coll(AR, 8000))
    options = {"fault": "stuck", "fault.nth": "3"}
    with pytest.raises(ContractError, match="IDLE says nothing is in flight"):
        simulate(
            workload,
            system(),
            network("Ring", 4),
            backend=str(mock_library),
            engine=engine,
            network_options=options,
        )
