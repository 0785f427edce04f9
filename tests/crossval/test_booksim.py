# SPDX-License-Identifier: MIT
"""examples/booksim: BookSim 2 of the user as a backend, where BOOKSIM_ROOT is set."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from astra_bridge.errors import BackendUnavailable, InputError
from astra_bridge.network.spec import NetworkRequest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "booksim"
PAGE = ROOT / "docs" / "new_backend.md"
RING = "topology: [Ring]\nnpus_count: [6]\nbandwidth: [50]\nlatency: [500]\n"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, as it is imported where it is installed."""
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    import astra_booksim

    return astra_booksim


# ---- without BookSim ----


def test_without_booksim_it_says_what_to_do(
    package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in (None, str(tmp_path), str(tmp_path / "nowhere")):
        if given is None:
            monkeypatch.delenv("BOOKSIM_ROOT", raising=False)
        else:
            monkeypatch.setenv("BOOKSIM_ROOT", given)
        assert package.BACKEND.unavailable() == "set BOOKSIM_ROOT to a checkout of BookSim 2"
        with pytest.raises(BackendUnavailable, match="BOOKSIM_ROOT"):
            package.ADAPTER.library()


def test_its_files_are_read(package: Any, tmp_path: Path) -> None:
    file = tmp_path / "net"
    file.write_text("// a chip\ntopology = mesh; // XY\nk=4;\n n = 3 ;\nclasses = {1,2};\n")
    prepared = package.prepare(NetworkRequest(file, options={"k": "2"}))
    assert prepared.dims == (2, 2, 2)
    assert prepared.config.endpoints == 8
    assert prepared.config.options == {"topology": "mesh", "k": "2", "n": "3", "classes": "{1,2}"}
    for text, said in (
        ("topology mesh;", "is no file of BookSim"),
        ("", "is no file of BookSim"),
        ("= 3;", "is no file of BookSim"),
        ("topology = ring;", "topology=ring is not allowed; allowed: mesh, torus, fly"),
        ("k = many;", "net: k: 'many'"),
        ("k = 1000; n = 9;", "at most 2^20 ranks"),
    ):
        file.write_text(text)
        with pytest.raises(InputError) as caught:
            package.prepare(NetworkRequest(file))
        assert said in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        package.prepare(NetworkRequest(tmp_path / "nowhere"))


def test_other_networks_become_links(package: Any) -> None:
    network = yaml.safe_load(RING) | {"bandwidth": [64e9 / 2**30]}
    options = package.prepare(NetworkRequest(network)).config.options
    # 64 bytes at 64 GB/s are a cycle of 1 ns, and 500 ns are 500 of them.
    assert float(options["cycle_ps"]) == pytest.approx(1000)
    rows = options["anynet"].split("\n")
    assert rows[:2] == ["router 0 node 0", "router 1 node 1"]
    assert "router 0 router 1 500" in rows
    assert len(rows) == 6 + 12
    two = {"topology": ["Ring"] * 2, "npus_count": [2, 2], "bandwidth": [1, 2], "latency": [5, 5]}
    for wrong, given, said in (
        (two, {}, "links of 2 rates"),
        (network, {"flit_bytes": "x"}, "flit_bytes: 'x'"),
        (network, {"cycle_ps": "0"}, "cycle_ps: '0'"),
        (network | {"latency": [1e6]}, {}, "a link of 1000000 cycles; at most 100000"),
    ):
        with pytest.raises(InputError) as caught:
            package.prepare(NetworkRequest(wrong, options=given))
        assert said in str(caught.value)


def test_it_is_as_short_as_the_tutorial_says() -> None:
    adapter = EXAMPLE / "src/astra_booksim/adapter"
    assert sum(file.read_text().count("\n") for file in adapter.iterdir()) <= 300
    module = (EXAMPLE / "src/astra_booksim/__init__.py").read_text()
    assert module.count("\n") <= 120
    (shown,) = re.findall(r"```python\n(def find.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown in module


# ---- with BookSim ----


@pytest.fixture(scope="module")
def booksim(missing: Callable[[str, str], None]) -> str:
    """Where BookSim is."""
    root = os.environ.get("BOOKSIM_ROOT")
    if not root:
        missing("booksim", "BOOKSIM_ROOT is not set")
    return str(root)


@pytest.fixture(scope="module")
def run(booksim: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run Python where the example is installed."""
    folder = tmp_path_factory.mktemp("booksim")
    shutil.copytree(EXAMPLE, folder / "source")
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1700,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    run(
        "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
        "--target", "site", "./source",
    )  # fmt: skip
    return run


def astra_bridge(run: Callable[..., str], *words: str, code: int = 0) -> str:
    return run("-m", "astra_bridge", *words, code=code)


CONFORMANCE = re.findall(r"^astra-bridge (conformance booksim .*)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("network", [None, RING, RING.replace("Ring", "Switch")])
def test_it_conforms(network: str | None, run: Callable[..., str], tmp_path: Path) -> None:
    (command,) = CONFORMANCE
    words = command.split()
    if network:
        (tmp_path / "network.yml").write_text(network)
        words.append(f"--network-configuration={tmp_path}/network.yml")
    said = astra_bridge(run, *words)
    assert said.splitlines()[-1] == "17 passed, 0 failed, 3 skipped"
    assert "`17 passed, 0 failed, 3 skipped`" in PAGE.read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_all_reduce_and_what_is_refused(run: Callable[..., str]) -> None:
    file = str(EXAMPLE / "all_reduce.yaml")
    assert " finished, 4340 cycles" in astra_bridge(run, "run", file)
    for option, said in (
        ("num_vc=3", "option 'num_vc' is unknown; allowed: "),
        ("num_vcs=many", "option 'num_vcs' is 'many', but must be a number"),
        (
            "routing_function=none",
            "BookSim: Error in network_0/router_0_0 : Invalid routing function",
        ),
        ("packet_size=0", "option 'packet_size' is '0', but must be a whole number from 1"),
        ("vc_allocator=none", "BookSim: "),
    ):
        refused = astra_bridge(run, "run", file, "--network-option", option, code=4)
        assert said in refused
        assert refused.startswith("error: booksim: create: ")
    assert "at most 2^20 ranks" in astra_bridge(
        run, "run", file, "--network-option", "k=4096", code=2
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_numbers_of_the_tutorial(run: Callable[..., str]) -> None:
    printed = run(str(EXAMPLE / "compare.py"))
    assert len(printed.splitlines()) == 14
    assert printed in PAGE.read_text()


@pytest.fixture(scope="module")
def own(booksim: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of BookSim's sources that prints what its own random traffic does."""
    folder = tmp_path_factory.mktemp("own")
    source = Path(__file__).with_name("booksim")
    for command in (
        ["cmake", "-S", source, "-B", folder, "-G", "Ninja", f"-DBOOKSIM_ROOT={booksim}"],
        ["cmake", "--build", folder],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=1700)
    return folder / "own"


REPLAY = """
import sys
import numpy as np
from astra_bridge.network.api import TIME_NEVER, TRANSFER, NetworkConfig, Stop
from astra_bridge.network.registry import backend
rows = np.loadtxt(sys.argv[1], int, ndmin=2)
rows = rows[np.argsort(rows[:, 3], kind="stable")]
options = dict(word.split("=") for word in sys.argv[2:])
items = np.zeros(len(rows), TRANSFER)
items["id"] = np.arange(len(rows))
items["src"], items["dst"] = rows[:, 0], rows[:, 1]
items["bytes"], items["start_ps"] = 64 * rows[:, 2], 1000 * rows[:, 3]
nodes = int(options["k"]) ** int(options["n"])
with backend("booksim").open(NetworkConfig(nodes, nodes, options=options)) as network:
    assert network.submit(items) == len(items)
    while network.advance(TIME_NEVER).stop != Stop.IDLE:
        for record in network.poll():
            row = rows[record["id"]]
            # A cycle later: what arrives in one is known at its end.
            assert record["time_ps"] == 1000 * (row[4] + 1), (row, record)
    mean = network.stats()["mean_packet_latency_cycles"]
assert abs(mean - (rows[:, 4] - rows[:, 3]).mean()) < 1e-5
print(len(rows), "packets")
"""

TRAFFIC = {
    "mesh": "topology=mesh k=8 n=2 routing_function=dor num_vcs=8 packet_size=4",
    "busy": "topology=mesh k=8 n=2 routing_function=dor num_vcs=8 packet_size=4 rate=0.09",
    "adaptive": "topology=mesh k=8 n=2 routing_function=min_adapt packet_size=6",
    "torus": "topology=torus k=8 n=2 routing_function=dim_order packet_size=6 routing_delay=0",
    "speculative": "topology=torus k=8 n=2 routing_function=dim_order packet_size=5 speculative=1",
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("traffic", TRAFFIC)
def test_every_packet_arrives_as_in_booksim_itself(
    traffic: str, own: Path, run: Callable[..., str], tmp_path: Path
) -> None:
    """Its random packets as transfers: contention for links, allocators and buffers is the same."""
    settings = dict(word.split("=") for word in TRAFFIC[traffic].split())
    rate = settings.pop("rate", "0.03")
    options = [f"{key}={value}" for key, value in settings.items()]
    drawn = [f"injection_rate={rate}", "traffic=bitcomp", "cycles=3000"]
    done = subprocess.run([own, *options, *drawn], check=True, capture_output=True, text=True)
    rows = [line for line in done.stdout.splitlines() if re.fullmatch(r"(\d+ ){4}\d+", line)]
    (tmp_path / "packets").write_text("\n".join(rows))
    latency = np.diff(np.loadtxt(tmp_path / "packets", int)[:, 3:])
    assert latency.max() > 1.5 * latency.min()
    said = run("-c", REPLAY, str(tmp_path / "packets"), *options)
    assert said == f"{len(rows)} packets\n"
    assert len(rows) > 1000
