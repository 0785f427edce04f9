# SPDX-License-Identifier: MIT
"""A backend behind an address is what it is here: it conforms, and gives the same numbers."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from astra_bridge import Experiment, LinkFault, simulate
from astra_bridge.cli import main
from astra_bridge.conformance import run_supervised
from astra_bridge.network.api import TIME_NEVER, TRANSFER
from astra_bridge.network.native import library_path
from astra_bridge.network.registry import backend
from astra_bridge.network.remote.library import unavailable
from astra_bridge.network.spec import NetworkRequest
from astra_bridge.results import Result
from astra_bridge.validation.cases import write_golden_case
from astra_bridge.workload import collective
from tests.effort import spread
from tests.golden_run import GOLDEN
from tests.remote import counted, serving
from tests.small import network, system
from tests.waiting import HANGS_S

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

# Name, and its options.
SERVED: dict[str, dict[str, str]] = {
    "analytical-aware": {},
    "analytical-unaware": {},
    "analytical-aware-python": {},
    "flow": {},
    "garnet": {},
    "composite": {"backends": "flow"},
    str(library_path("mock")): {"contention": "true"},
}


@pytest.mark.parametrize("name", SERVED, ids=lambda name: Path(name).stem)
def test_it_conforms(name: str) -> None:
    with serving(name) as server:
        verdicts = run_supervised(server.address, options=SERVED[name], limit_s=HANGS_S)
        assert [v for v in verdicts if v.outcome == "fail"] == []
        assert sum(v.outcome == "pass" for v in verdicts) >= 16
        assert server.said() == ""


def same(one: Result, other: Result) -> None:
    assert np.array_equal(one.finish_ps, other.finish_ps)
    assert np.array_equal(one.exposed_comm_ps, other.exposed_comm_ps)
    assert one.network == other.network
    assert one.tables.keys() == other.tables.keys()


@pytest.mark.parametrize("engine", ["native", "python"])
@pytest.mark.parametrize("name", ["analytical-aware", "flow", "garnet"])
def test_a_run_gives_the_same(name: str, engine: str, missing: Callable[[str, str], None]) -> None:
    workload = collective("all-reduce", 1 << 18, 8)
    arguments = (
        workload,
        system(["ring", "direct"]),
        network("Ring Switch", [4, 2], [50, 25], [500, 700]),
    )
    if name == "garnet":
        arguments = (workload, system(), network("Ring", 8))
    with serving(name) as server:
        there = simulate(*arguments, backend=server.address, engine=engine)  # type: ignore[arg-type]
    same(simulate(*arguments, backend=name, engine=engine), there)  # type: ignore[arg-type]


def test_python_classes_are_served() -> None:
    arguments = (collective("all-reduce", 1 << 16, 8), system(), network("Ring", 8))
    with serving("analytical-aware-python") as server:
        there = simulate(*arguments, backend=server.address)  # type: ignore[arg-type]
    here = simulate(*arguments, backend="analytical-aware")  # type: ignore[arg-type]
    assert np.array_equal(here.finish_ps, there.finish_ps)


def test_golden_cases(tmp_path: Path) -> None:
    """ASTRA-sim's own answers, to the nanosecond, over a socket."""
    own = sorted((ROOT / "tests" / "golden" / "analytical").glob("*.json"))
    cases = [*own, *spread(sorted((GOLDEN / "analytical").glob("*.json"))[::10], 4)]
    tried = 0
    with serving("analytical-aware", f"--listen=unix://{tmp_path}/aware") as server:
        for number, path in enumerate(cases):  # some have copies of a name
            case = write_golden_case(path, tmp_path / str(number))
            if case.model != "congestion_aware" or case.flags or case.finish_ns is None:
                continue
            result = simulate(
                case.workload,
                case.system,
                case.network,  # type: ignore[arg-type]
                case.remote_memory,
                case.comm_groups,
                backend=server.address,
                in_process=True,
            )
            assert result.finish_ns.tolist() == case.finish_ns, path.stem
            tried += 1
    assert tried >= 5


def test_network_files_are_those_of_the_backend_that_is_served() -> None:
    """A file of Garnet's own works with the address of a Garnet."""
    inputs = {
        "workload": str(EXAMPLES / "garnet" / "all_reduce_64" / "all_reduce_64"),
        "system": {**system(["ring", "ring"]), "preferred-dataset-splits": 1},
        "network": str(EXAMPLES / "garnet" / "mesh_8x8.yml"),
    }
    from astra_bridge.network.garnet.backend import prepare

    with serving("garnet") as server:
        there = Experiment(**inputs, backend=server.address).prepared
        here = prepare(NetworkRequest(inputs["network"]))
        assert there.config.options == here.config.options
        assert there.dims == here.dims


def test_links_change_and_runs_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    inputs = {
        "workload": collective("all-reduce", 1 << 20, 8),
        "system": system(),
        "network": network("Ring", 8),
        "faults": [LinkFault(0, 20_000_000, 0.5)],
    }
    with serving("analytical-aware") as server:
        file = tmp_path / "checkpoint"
        experiment = Experiment(**inputs, backend=server.address)
        there = experiment.run()
        here = Experiment(**inputs, backend="analytical-aware").run()
        assert np.array_equal(here.finish_ps, there.finish_ps)
        with experiment.open() as session:
            session.advance(10_000_000)
            session.save(file, label=experiment.token)
        again = experiment.run(resume=file)
        assert np.array_equal(here.finish_ps, again.finish_ps)


def test_several_clients_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    arguments = (collective("all-reduce", 1 << 16, 8), system(), network("Ring", 8))
    with serving("garnet") as server, ThreadPoolExecutor(3) as pool:

        def run(_: int) -> list[int]:
            return simulate(*arguments, backend=server.address).finish_ns.tolist()  # type: ignore[arg-type]

        answers = list(pool.map(run, range(4)))
    assert answers == [answers[0]] * 4


def test_a_part_of_a_composite_network_is_elsewhere() -> None:
    arguments = (
        collective("all-reduce", 1 << 16, 8),
        system(["ring", "ring"]),
        network("Ring Ring", [4, 2], [50, 25], [500, 700]),
    )
    with serving("flow") as server:
        there = simulate(
            *arguments,  # type: ignore[arg-type]
            backend="composite",
            network_options={"backends": f"garnet,{server.address}"},
        )
    here = simulate(
        *arguments,  # type: ignore[arg-type]
        backend="composite",
        network_options={"backends": "garnet,flow"},
    )
    assert np.array_equal(here.finish_ps, there.finish_ps)


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "remote.md").read_text(encoding="utf-8")
    commands = re.findall(r"^astra-bridge (.*)$", page, re.MULTILINE)
    serve, run = (shlex.split(command) for command in commands[:2])
    assert serve[0] == "serve-backend"
    assert "--backend" in run
    assert "serving garnet at tcp://127.0.0.1:4000" in page
    monkeypatch.chdir(ROOT)
    with serving(serve[1], "--listen=tcp://127.0.0.1:0") as server:
        there = [one.replace("tcp://127.0.0.1:4000", server.address) for one in run]
        assert main([*there, f"--json={tmp_path / 'there.json'}"]) == 0
    here = [*run[:-1], serve[1]]
    assert main([*here, f"--json={tmp_path / 'here.json'}"]) == 0
    answers = [json.loads((tmp_path / f"{one}.json").read_text()) for one in ("here", "there")]
    assert answers[0]["finish_ns"] == answers[1]["finish_ns"]


def test_one_round_trip_for_each_call() -> None:
    """Neither an exchange nor an advance with completions takes two."""
    with serving("analytical-aware") as server, counted(server.address) as (address, count):
        spec = backend(address)
        config = spec.prepare(NetworkRequest(network("Ring", 8))).config
        items = np.zeros(1, TRANSFER)
        items["bytes"], items["dst"] = 4096, 1
        with spec.open(config) as opened:
            before = count()
            place = now_ps = 0
            for _ in range(20):
                items["id"], items["start_ps"] = place, now_ps
                answer = opened.exchange(items, now_ps, TIME_NEVER, TIME_NEVER, place + 4)
                place, now_ps = answer.place, answer.now_ps
            assert count() - before == 20
        with spec.open(config) as opened:
            items["id"], items["start_ps"] = 0, 0
            before = count()
            opened.submit(items)
            opened.advance(TIME_NEVER)
            assert len(opened.poll()) == 1
            assert count() - before == 2


@contextmanager
def bare() -> Iterator[Callable[[], float]]:
    """What makes round trips to a process over TCP, and says how long one took [us]."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            with suppress(BaseException), listener.accept()[0] as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := client.recv(64):
                    client.sendall(data)
            os._exit(0)
        try:
            with socket.create_connection(listener.getsockname()) as server:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

                def once() -> float:
                    began_s = time.perf_counter()
                    for _ in range(1000):
                        server.sendall(b"x" * 64)
                        server.recv(64)
                    return (time.perf_counter() - began_s) * 1000

                yield once
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_an_exchange_costs_little_more_than_a_round_trip() -> None:
    """In the calmest of many rounds, beside bare round trips.

    All on one core: to wake one that sleeps takes a virtual machine 40 us, each way.
    """
    bench = runpy.run_path(str(ROOT / "benchmarks" / "remote.py"))
    cores = os.sched_getaffinity(0)
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, {min(cores)})
        server = stack.enter_context(serving("analytical-aware"))
        rounds = []
        for name in ("analytical-aware", server.address):
            spec = backend(name)
            config = spec.prepare(NetworkRequest(bench["NETWORK"])).config
            rounds.append(bench["exchanges"](stack.enter_context(spec.open(config))))
        trip = stack.enter_context(bare())
        took_us = [(*(one()[0] for one in rounds), trip()) for _ in range(30)]
    assert min((there - here) / one for here, there, one in took_us) < 3
