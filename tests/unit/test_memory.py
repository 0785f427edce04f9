# SPDX-License-Identifier: MIT
"""Remote memory: how long accesses take, and who waits for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astra_bridge as ab
from astra_bridge.compute.gpu import Kernels
from astra_bridge.engine import native
from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.inputs.memory import read_remote_memory
from astra_bridge.memory import MEMORY_MODELS
from astra_bridge.memory.remote import access_ns
from astra_bridge.trace import Workload
from astra_bridge.workload import TraceBuilder
from tests.small import network, per_rank, run, same_on_all, system

ENGINES = ("python",) if native.unavailable() else ("python", "native")


def memory(kind: str, latency_ns: int = 100, bandwidth: float = 10, **more: int) -> dict[str, Any]:
    keys = {"remote-mem-latency": latency_ns, "remote-mem-bw": bandwidth}
    return {"memory-type": kind} | keys | {k.replace("_", "-"): v for k, v in more.items()}


PER_NPU, PER_NODE, POOL = (
    memory("PER_NPU_MEMORY_EXPANSION"),
    memory("PER_NODE_MEMORY_EXPANSION", num_nodes=2, num_npus_per_node=2),
    memory("MEMORY_POOL"),
)
# One access of 1000 B: 100 ns + 1000 B / 10 GB/s = 200 ns.
ONE = same_on_all(4, lambda trace: trace.load(1000))


def finish_ns(workload: Workload, kind: dict[str, Any], engine: Any) -> list[int]:
    net = network("Ring", workload.ranks)
    return run(workload, system(), net, remote_memory=kind, engine=engine).finish_ns.tolist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (PER_NPU, [200, 200, 200, 200]),
        # Two ranks share a node, and take turns.
        (PER_NODE, [200, 400, 200, 400]),
        (POOL, [200, 400, 600, 800]),
    ],
    ids=["per npu", "per node", "pool"],
)
def test_who_waits_for_whom(kind: dict[str, Any], expected: list[int], engine: Any) -> None:
    assert finish_ns(ONE, kind, engine) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_first_come_first_served(engine: Any) -> None:
    # Rank 3 asks at 50 ns, rank 1 at 1 us, ranks 0 and 2 at 2 us.
    def fill(trace: TraceBuilder, rank: int) -> None:
        wait = {3: 0, 1: 1, 0: 2, 2: 2}[rank]
        trace.store(5000, deps=[trace.comp(duration_us=wait)])

    # 600 ns each: 1 + 600; 1000 + 600; 2000 + 600, and 600 behind that.
    assert finish_ns(per_rank(4, fill), POOL, engine) == [2600, 1600, 3200, 601]


@pytest.mark.parametrize("engine", ENGINES)
def test_accesses_of_one_rank_take_turns_and_block_its_collectives(engine: Any) -> None:
    # ASTRA-sim has one place for collectives, sends and memory accesses per rank.
    def fill(trace: TraceBuilder) -> None:
        trace.load(1000)
        trace.store(1000)
        trace.comp(duration_us=0)

    assert finish_ns(same_on_all(2, fill), PER_NPU, engine) == [400, 400]


def test_durations() -> None:
    found = access_ns(read_remote_memory(memory("MEMORY_POOL", 7, 3)), np.array([0, 2, 3, 10**15]))
    assert found.tolist() == [7, 7, 8, 7 + 10**15 // 3]


def servers(kind: dict[str, Any], ranks: int) -> list[int]:
    config = read_remote_memory(kind)
    return MEMORY_MODELS.find(config.kind, key="memory-type").servers(config, ranks).tolist()


def test_servers() -> None:
    assert servers(PER_NPU, 4) == [-1] * 4
    assert servers(PER_NODE, 4) == [0, 0, 1, 1]
    assert servers(POOL, 4) == [0] * 4
    assert servers({"memory-type": "NO_MEMORY_EXPANSION"}, 2) == [-1] * 2


HOST = {"memory-type": "HOST_MEMORY", "hardware": "h100-sxm"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["pinned", "pageable"])
def test_the_hosts_memory_takes_the_copies_of_a_profile(kind: str, engine: Any) -> None:
    """Loads are copies to the accelerator, stores from it, one at a time."""
    size = 256 << 20
    kernels = Kernels(hardware("h100-sxm"))
    load_us, store_us = (float(kernels.copy(kind, way, size)) for way in ("h2d", "d2h"))
    assert (load_us == store_us) == (kind == "pinned")

    def fill(trace: TraceBuilder, rank: int) -> None:
        (trace.load if rank == 0 else trace.store)(size)
        if rank == 2:
            trace.load(size)

    found = finish_ns(per_rank(3, fill), HOST | {"host-memory": kind}, engine)
    expected = [load_us, store_us, load_us + store_us]
    assert found == [pytest.approx(1000 * us, abs=2) for us in expected]
    # What was measured: 256 MiB from pinned memory at about 55 GB/s, from pageable at 10 to 30.
    assert size / load_us / 1e3 == pytest.approx(54 if kind == "pinned" else 20, rel=0.5)


def test_copies_of_one_rank_take_turns_in_any_semantics() -> None:
    workload = same_on_all(2, lambda trace: [trace.load(1 << 20) for _ in range(3)])
    (one,) = set(finish_ns(same_on_all(2, lambda trace: trace.load(1 << 20)), HOST, "python"))
    for semantics in ("astra-sim", "corrected"):
        result = run(
            workload, system(), network("Ring", 2), remote_memory=HOST, semantics=semantics
        )
        assert result.finish_ns.tolist() == [pytest.approx(3 * one, abs=3)] * 2


def test_the_profile_of_the_hosts_memory_counts(tmp_path: Path) -> None:
    def token(kind: dict[str, Any]) -> str:
        return ab.Experiment(ONE, system(), network("Ring", 4), remote_memory=kind).token

    shipped = Path(ab.__file__).parent / "hardware/profiles"
    tokens = []
    for name in ("h100-sxm", "h200"):
        (tmp_path / "card.json").write_text((shipped / f"{name}.json").read_text())
        tokens.append(token(HOST | {"hardware": str(tmp_path / "card.json")}))
    assert tokens[0] == token(HOST)
    assert len({*tokens, token(HOST | {"host-memory": "pageable"})}) == 3


@pytest.mark.parametrize(
    ("kind", "key", "said"),
    [
        ({"hardware": None}, "hardware", "missing"),
        ({"hardware": "h1000"}, "hardware", "h100"),
        ({"host-memory": "paged"}, "host-memory", "pinned"),
    ],
)
def test_what_the_hosts_memory_refuses(kind: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        finish_ns(ONE, {k: v for k, v in (HOST | kind).items() if v is not None}, "python")
    assert caught.value.key == key


def test_ranks_without_a_node_are_an_error() -> None:
    with pytest.raises(InputError) as caught:
        servers(PER_NODE, 5)
    assert caught.value.key == "num-nodes"
    assert "hold 4 ranks, but there are 5" in str(caught.value)


def test_no_memory_is_an_error_where_it_is_used() -> None:
    with pytest.raises(InputError, match="NO_MEMORY_EXPANSION") as caught:
        run(ONE, system(), network("Ring", 4))
    assert caught.value.key == "node 0 MEM_LOAD"
