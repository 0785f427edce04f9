# SPDX-License-Identifier: MIT
"""A package outside of this one adds one of everything, used from the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[1] / "plugin_package"
RANKS = 4
GIB = 2**30
RING = f"topology: [Ring]\nnpus_count: [{RANKS}]\nbandwidth: [50]\nlatency: [500]\n"
NO_MEMORY = {"memory-type": "NO_MEMORY_EXPANSION"}
# All messages cost 10 ns before and after; nothing is paid for reductions.
SYSTEM = {"preferred-dataset-splits": 1, "endpoint-delay": 10, "local-mem-bw": 0}


# It makes an environment of its own.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def installed(
    tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]
) -> Path:
    """A folder with nothing but the package, installed by pip."""
    here = {one.metadata["Name"] for one in distributions()}
    for needed in ("pip", "setuptools"):
        if needed not in here:
            missing("plugin", f"{needed} is not installed")
    if shutil.which("cc") is None:
        missing("plugin", "there is no C compiler")
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "*.so"))
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
            "--no-build-isolation", "--target", str(folder / "site"), str(source),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def command(installed: Path, tmp_path: Path) -> Callable[..., str]:
    """Run ``astra-bridge`` with the package on the path; return what it prints."""

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "astra_bridge", *arguments],
            env={**os.environ, "PYTHONPATH": str(installed)},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.fixture
def finish_ns(command: Callable[..., str], tmp_path: Path) -> Callable[..., list[int]]:
    """Run lines on all ranks; return when each rank has finished."""

    def run(
        lines: str,
        *flags: str,
        system: dict[str, Any] | None = None,
        memory: dict[str, Any] = NO_MEMORY,
        network: str = RING,
    ) -> list[int]:
        (tmp_path / "work.lines").write_text(lines)
        (tmp_path / "system.json").write_text(json.dumps(SYSTEM | (system or {})))
        (tmp_path / "memory.json").write_text(json.dumps(memory))
        (tmp_path / "network.yml").write_text(network)
        said = command(
            "run", "--workload-configuration=work", "--system-configuration=system.json",
            "--network-configuration=network.yml", "--remote-memory-configuration=memory.json",
            "--backend=analytical-unaware", *flags,
        )  # fmt: skip
        ends = re.findall(r"sys\[(\d+)\] finished, (\d+) cycles", said)
        assert len(ends) == RANKS
        return [int(end) for _, end in sorted(ends)]

    return run


def message_ns(size_bytes: int, bandwidth_GiBps: float = 50, latency_ns: int = 500) -> int:
    """One message between neighbours in the unaware network, in whole ns."""
    return latency_ns + int(size_bytes / (bandwidth_GiBps * GIB) * 1e9)


def exchange_ns(size_bytes: int) -> int:
    """The package's collective: the own data, a message, the received data."""
    return 10 + message_ns(size_bytes) + 10


EXCHANGE = {"all-reduce-implementation": ["exchange"]}


def test_doctor_lists_them(command: Callable[..., str]) -> None:
    rows = [line.split() for line in command("doctor").splitlines()]
    for name in (
        "exchange", "oneExchange", "linear", "BANKS", "smallest-first", "last-first", "lines",
        "steps", "steady", "private-wires", "h100-lab",
    ):  # fmt: skip
        assert [name, "yes"] in [row[:2] for row in rows]


def test_a_trace_format_and_a_compute_model(finish_ns: Callable[..., list[int]]) -> None:
    # 3 ps per operation and 5 ps per byte, twice.
    lines = "comp 1000000 2000\ncomp 500000 0\n"
    expected = (3 * 1_000_000 + 5 * 2000 + 3 * 500_000) // 1000
    for flags in ((), ("--trace-format=lines",)):
        used = {"compute-model": "linear"}
        assert finish_ns(lines, *flags, system=used) == [expected] * RANKS


def test_a_collective(finish_ns: Callable[..., list[int]]) -> None:
    assert finish_ns("all-reduce 1000000", system=EXCHANGE) == [exchange_ns(1_000_000)] * RANKS


def test_a_collective_that_spans_all_dimensions(finish_ns: Callable[..., list[int]]) -> None:
    two = "topology: [Ring, Ring]\nnpus_count: [2, 2]\nbandwidth: [50, 50]\nlatency: [500, 500]\n"
    one = finish_ns("all-reduce 1000000", network=two,
                    system={"all-reduce-implementation": ["oneExchange"]})  # fmt: skip
    both = finish_ns("all-reduce 1000000", network=two,
                     system={"all-reduce-implementation": ["exchange", "exchange"]})  # fmt: skip
    assert one == [exchange_ns(1_000_000)] * RANKS
    assert both == [2 * exchange_ns(1_000_000)] * RANKS


def test_a_memory_model(finish_ns: Callable[..., list[int]]) -> None:
    # 100 ns and 7 ps per byte; of two ranks with one bank, the second waits.
    access = (100_000 + 7 * 1000) // 1000
    used = {"memory-type": "BANKS", "remote-mem-latency": 100}
    assert finish_ns("load 1000", memory=used) == [access, 2 * access] * (RANKS // 2)


def test_a_queue_policy(finish_ns: Callable[..., list[int]]) -> None:
    # The large one runs at once; of those that wait, the smallest is next, and is computed upon.
    large, middle, small = 4_000_000, 3_000_000, 1_000_000
    lines = f"all-reduce {large}\n& all-reduce {middle}\n& all-reduce {small}\ncomp 9000000000 0\n"
    used = EXCHANGE | {"compute-model": "linear", "active-chunks-per-dimension": 1}
    found = {
        policy: finish_ns(
            lines, "--semantics=corrected", system=used | {"scheduling-policy": policy}
        )
        for policy in ("FIFO", "smallest-first")
    }
    compute = 3 * 9_000_000_000 // 1000
    first, second, third = map(exchange_ns, (large, middle, small))
    assert found["FIFO"] == [first + second + third + compute] * RANKS
    assert found["smallest-first"] == [first + third + compute] * RANKS


def test_an_order_of_dimensions(finish_ns: Callable[..., list[int]]) -> None:
    # Two dimensions of 2: what is halved first moves the most, in the slow dimension or the fast.
    slow_GiBps, fast_GiBps, size = 10, 100, 8_000_000
    network = (
        f"topology: [Ring, Ring]\nnpus_count: [2, 2]\nbandwidth: [{fast_GiBps}, {slow_GiBps}]\n"
        "latency: [500, 500]\n"
    )
    used = {"all-reduce-implementation": ["ring", "ring"]}
    found = {
        order: finish_ns(
            f"all-reduce {size}",
            network=network,
            system=used | {"inter-dimension-scheduling": order},
        )
        for order in ("themis", "last-first")
    }

    def phases(first_GiBps: float, second_GiBps: float) -> int:
        # Reduce-scatter there, all-gather back; a phase of a ring of 2 is one message of half.
        there = [message_ns(size // 2, first_GiBps), message_ns(size // 4, second_GiBps)]
        return 2 * sum(there) + 4 * 20

    assert found["themis"] == [phases(fast_GiBps, slow_GiBps)] * RANKS
    assert found["last-first"] == [phases(slow_GiBps, fast_GiBps)] * RANKS


def test_a_generator(
    command: Callable[..., str], finish_ns: Callable[..., list[int]], tmp_path: Path
) -> None:
    said = command("workload", "steps", "made", f"--ranks={RANKS}", "--steps=3", "--step-us=20")
    assert "--workload-configuration=made" in said
    assert finish_ns("", "--workload-configuration=made") == [3 * 20_000] * RANKS
    assert "steps" in command("workload", "--help")


@pytest.mark.parametrize(
    ("backend", "flags", "latency_ps", "ps_per_byte"),
    [
        ("steady", (), 7_000_000, 3000),
        ("steady", ("--network-option=latency_ps=1000000",), 1_000_000, 3000),
        ("private-wires", (), 2_000_000, 1000),
    ],
)
@pytest.mark.parametrize("engine", ["python", "auto"])
def test_a_network(
    backend: str,
    flags: tuple[str, ...],
    latency_ps: int,
    ps_per_byte: int,
    engine: str,
    finish_ns: Callable[..., list[int]],
) -> None:
    found = finish_ns("all-reduce 5000", f"--backend={backend}", f"--engine={engine}", *flags,
                      system=EXCHANGE)  # fmt: skip
    assert found == [(latency_ps + 5000 * ps_per_byte) // 1000 + 20] * RANKS


@pytest.mark.parametrize("backend", ["steady", "private-wires"])
def test_its_networks_conform(backend: str, command: Callable[..., str]) -> None:
    assert " 0 failed" in command("conformance", backend)


def test_what_is_wrong_in_its_files_is_said(
    command: Callable[..., str], finish_ns: Callable[..., list[int]], tmp_path: Path
) -> None:
    finish_ns("comp 1 1")
    (tmp_path / "work.lines").write_text("comp one 1\n")
    arguments = [
        "run", "--workload-configuration=work", "--system-configuration=system.json",
        "--network-configuration=network.yml", "--remote-memory-configuration=memory.json",
    ]  # fmt: skip
    assert "plug-in trace format 'lines': ValueError" in command(*arguments, code=4)
    (tmp_path / "work.lines").write_text("jump 1\n")
    said = command(*arguments, code=2)
    assert "work.lines: line 1: 'jump' is not allowed; allowed: comp, load, all-reduce" in said
    (tmp_path / "system.json").write_text('{"compute-model": "linaer"}')
    assert "did you mean 'linear'?" in command(*arguments, code=2)


def test_its_version_is_that_of_the_package(installed: Path) -> None:
    code = (
        "from astra_bridge.registries import REGISTRIES\n"
        "for one in REGISTRIES.values():\n"
        "    for name in set(one.names()) - set(one.built_in): print(one.get(name).version())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    versions = done.stdout.split("\n")[:-1]
    library = [version for version in versions if " " not in version]
    assert len(library) == 1  # the library's is a hash of it
    assert set(versions) - set(library) == {"astra-bridge-example-plugin 1.0"}
