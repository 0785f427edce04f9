# SPDX-License-Identifier: MIT
"""What a socket costs: the same exchanges with a backend here and behind an address.

    python benchmarks/remote.py [BACKEND]

Each exchange starts one transfer and runs to its end.  The lines are the quickest of rounds that
alternate: other load of the machine only adds.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from astra_bridge.inputs.network import NetworkDims
from astra_bridge.network.api import TIME_NEVER, TRANSFER, Network
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest

NETWORK = NetworkDims(("FullyConnected",), (6,), (50.0,), (500.0,))
EXCHANGES, ROUNDS = 1000, 50


@contextlib.contextmanager
def serving(name: str, listen: str) -> Iterator[str]:
    """A server of a backend; its address."""
    command = [sys.executable, "-m", "astra_bridge", "serve-backend", name, f"--listen={listen}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def exchanges(network: Network) -> Callable[[], tuple[float, float]]:
    """A function that makes some, and says how long one took: passed, and on this CPU [us]."""
    items = np.zeros(1, TRANSFER)
    items["bytes"], items["dst"] = 4096, 1
    place = now_ps = 0

    def once() -> tuple[float, float]:
        nonlocal place, now_ps
        began_s, cpu_s = time.perf_counter(), time.process_time()
        for _ in range(EXCHANGES):
            items["id"], items["start_ps"] = place, now_ps
            answer = network.exchange(items, now_ps, TIME_NEVER, TIME_NEVER, place + 4)
            place, now_ps = answer.place, answer.now_ps
        passed_s, spent_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        return passed_s / EXCHANGES * 1e6, spent_s / EXCHANGES * 1e6

    return once


def main(name: str = "analytical-aware") -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        where = {
            "here": name,
            "tcp": stack.enter_context(serving(name, "tcp://127.0.0.1:0")),
            "unix": stack.enter_context(serving(name, f"unix://{Path(folder, 'socket')}")),
        }
        once = {}
        for label, one in where.items():
            spec = backend(one)
            config = spec.prepare(NetworkRequest(NETWORK)).config
            once[label] = exchanges(stack.enter_context(spec.open(config)))
        times = {label: [] for label in where}
        for _ in range(ROUNDS):
            for label, run in once.items():
                times[label].append(run())
    print(f"{'':<5} {'us per exchange':>15} {'more than here':>15} {'of it CPU here':>15}")
    here = [min(column) for column in zip(*times["here"], strict=True)]
    for label, measured in times.items():
        passed, spent = (min(column) for column in zip(*measured, strict=True))
        print(f"{label:<5} {passed:15.2f} {passed - here[0]:15.2f} {spent - here[1]:15.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
