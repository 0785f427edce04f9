# SPDX-License-Identifier: MIT
"""Interrupts, as many as a thread can send, change nothing but where ``advance`` comes back."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest

from astra_bridge.errors import Interrupted
from astra_bridge.network.api import TIME_NEVER, TRANSFER, Network, Stop
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from tests.waiting import HANGS_S

COLUMNS = {"topology": ["Ring"], "npus_count": [8], "bandwidth": [12.345], "latency": [936.25]}
GARNET = {
    "endpoints": 4,
    "switches": 1,
    "links": [
        {"src": host, "dst": 4, "bandwidth": "8Gbps", "latency": "20ns"} for host in range(4)
    ],
}


def opened(name: str) -> Network:
    spec = backend(name)
    if reason := spec.unavailable():
        pytest.skip(reason)
    network = GARNET if name == "garnet" else COLUMNS
    return spec.open(spec.prepare(NetworkRequest(network)).config)


def finished(network: Network, endpoints: int, storm: bool) -> tuple[list[Any], int]:
    """All records, and how many calls were interrupted."""
    rng = random.Random(3)
    rows = [
        (i, rng.randrange(10**6), rng.randrange(1, 9000), *rng.sample(range(endpoints), 2), 0, 0, 0)
        for i in range(600)
    ]
    begun, done = threading.Event(), threading.Event()

    def interrupt() -> None:
        while not done.is_set():
            network.interrupt()
            begun.set()

    thread = threading.Thread(target=interrupt, daemon=True)
    records: list[Any] = []
    interrupted = 0
    with network:
        network.submit(np.array(rows, TRANSFER))
        if storm:
            thread.start()
            assert begun.wait(HANGS_S)  # it is kept for the first call (R10)
        try:
            while len(records) < len(rows):
                try:
                    stop = network.advance(TIME_NEVER, 500).stop
                    assert stop in (Stop.COMPLETION, Stop.IDLE)
                except Interrupted:
                    interrupted += 1
                records += network.poll().tolist()
        finally:
            done.set()
            if storm:
                thread.join()
    return records, interrupted


@pytest.mark.parametrize(
    "name",
    [
        "analytical-aware",
        "analytical-unaware",
        "analytical-aware-python",
        "analytical-unaware-python",
        "garnet",
    ],
)
def test_results_are_the_same(name: str) -> None:
    endpoints = 4 if name == "garnet" else 8
    calm, none = finished(opened(name), endpoints, storm=False)
    stormy, interrupted = finished(opened(name), endpoints, storm=True)
    assert none == 0
    assert interrupted > 0
    assert sorted(stormy) == sorted(calm)
    assert [record[1] for record in stormy] == sorted(record[1] for record in calm)
