# SPDX-License-Identifier: MIT
"""Delays, times and sums that no int64 holds: an error that names them, alike in both twins."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from astra_bridge.errors import AstraBridgeError
from astra_bridge.network.analytical.aware import AwareNetwork
from astra_bridge.network.analytical.unaware import UnawareNetwork
from astra_bridge.network.api import LINK, TIME_NEVER, TRANSFER, Network, NetworkConfig
from astra_bridge.network.native import NativeNetwork, library_path
from astra_bridge.trace import CommType
from tests.small import collective_ns, network, system

ROOT = Path(__file__).parents[2]
MODELS = ("aware", "unaware")
PYTHON = {"aware": AwareNetwork, "unaware": UnawareNetwork}
NATIVE = pytest.mark.skipif(
    not library_path("analytical_aware").exists(), reason="the native networks are not built"
)


def extreme_config(rng: random.Random) -> NetworkConfig:
    """Three endpoints at a switch, and numbers from everywhere in their ranges."""
    rate = rng.choice([5e-324, 1e-300, 1e-9, 1.0, 1e9, 1e300, 1.7e308])
    latency_ns = rng.choice([0, 1, 10**6, 9 * 10**15, 4 * 10**15, 9_223_372_036_854_775])
    rows = [
        (*pair, rate, min(latency_ns * 1000 + rng.randrange(1000), 2**63 - 1), 0)
        for pair in ((0, 3), (3, 0), (1, 3), (3, 1), (2, 3), (3, 2))
    ]
    options = {"semantics": rng.choice(["astra-sim", "corrected"])}
    return NetworkConfig(3, 4, np.array(rows, LINK), options)


def say(error: AstraBridgeError) -> str:
    """Without the name of the backend, which only the native one gives, and when it got stuck:
    of a change of a link that let nothing go on only one twin tells the time."""
    text = re.sub(r"at \d+ ps no event", "no event", str(error))
    return text.split(": ", 1)[1] if text.startswith("analytical-") else text


def drive(network: Network, aware: bool, seed: int) -> list[object]:
    """What a host sees that asks for extreme things, up to the first error."""
    rng = random.Random(seed)
    log: list[object] = []
    sizes = [1, 1000, 2**31, 2**53 + 1, 2**62, 2**63 - 1]
    times = [0, 1, 1500, 10**9, 2**62, TIME_NEVER - 1500, TIME_NEVER - 1000, TIME_NEVER - 1]
    try:
        if aware:
            for _ in range(rng.randrange(3)):
                scale = rng.choice([0.0, 5e-324, 1e-300, 0.5, 1e308])
                network.set_link(rng.randrange(6), rng.choice(times), scale)
        if rng.random() < 0.5:
            now, place = rng.choice(times), 100
            for step in range(3):
                rows = [
                    (place + 4 * i, now, rng.choice(sizes), *rng.sample(range(3), 2), 0, 0, 0)
                    for i in range(rng.randrange(3))
                ]
                free = place + 4 * len(rows)
                out = network.exchange(np.array(rows, TRANSFER), now, TIME_NEVER, 2**62, free)
                log.append((step, out.completions.tolist(), *out[1:]))
                now, place = out.now_ps, out.place
        else:
            rows = [
                (i, rng.choice(times), rng.choice(sizes), *rng.sample(range(3), 2), 0, 0, 0)
                for i in range(rng.randrange(1, 4))
            ]
            network.submit(np.array(rows, TRANSFER))
            for _ in range(4):
                log.append(tuple(network.advance(TIME_NEVER, 0)))
                log.append(network.poll().tolist())
        log.append(network.stats())
    except AstraBridgeError as error:
        log += [type(error).__name__, say(error)]
    return log


def libraries() -> dict[str, Path]:
    """Those of this package, or instrumented ones."""
    folder = os.environ.get("ANALYTICAL_LIBRARIES")
    return {
        model: Path(folder) / f"{model}.so" if folder else library_path(f"analytical_{model}")
        for model in MODELS
    }


def compare(seeds: range) -> set[str]:
    """Drive both twins alike; return what their errors said, without numbers."""
    said = set()
    paths = libraries()
    for seed in seeds:
        for model in MODELS:
            config = extreme_config(random.Random(seed))
            logs = []
            for one in (NativeNetwork.open(paths[model], config), PYTHON[model](config)):
                with one:
                    logs.append(drive(one, model == "aware", seed))
            assert logs[0] == logs[1], (seed, model)
            if isinstance(logs[0][-1], str):
                said.add("".join(c for c in logs[0][-1] if not c.isdigit()))
    return said


@NATIVE
def test_twins_say_the_same() -> None:
    said = " ".join(compare(range(1500)))
    for quantity in (
        "latency + bytes / bandwidth, ",
        "bytes / bandwidth, ",
        "latency, ",
        "the time  ps +  ns",
        "the bytes of all transfers",
    ):
        assert quantity in said


@pytest.mark.slow
def test_nothing_is_undefined(tmp_path: Path, missing: Callable[[str, str], None]) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        missing("compiler", "no C++ compiler")
    for model in MODELS:
        command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off"]
        command += ["-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
        command += [f"-I{ROOT / 'csrc' / 'include'}", "-o", str(tmp_path / f"{model}.so")]
        source = ROOT / "backends" / "analytical" / f"{model}.cpp"
        built = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
        if "ubsan" in built.stderr:
            pytest.skip("the compiler has no sanitizers")
        assert built.returncode == 0, built.stderr
    ran = subprocess.run(
        [sys.executable, "-m", "tests.faults.test_time_overflow"],
        env=os.environ | {"ANALYTICAL_LIBRARIES": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("engine", ["native", "python"])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_says_what_is_beyond_time(model: str, engine: str) -> None:
    if engine == "native" and not library_path("analytical_aware").exists():
        pytest.skip("the native networks are not built")
    backend = f"analytical-{model}" + ("-python" if engine == "python" else "")
    for bandwidth, latency, quantity in (
        (1e-300, 500.0, r"bytes / bandwidth, 6\.10352e\+304 ns, is beyond the range of time"),
        (50.0, 4e15, "the time [0-9]+ ps [+] 4[0-9]+ ns is beyond the range of time"),
    ):
        with pytest.raises(AstraBridgeError, match=quantity) as caught:
            collective_ns(
                CommType.ALL_REDUCE,
                2**20,
                system(),
                network("Ring", 4, bandwidth, latency),
                backend=backend,
                engine=engine,
            )
        assert caught.value.exit_code == 3


if __name__ == "__main__":
    compare(range(300))
