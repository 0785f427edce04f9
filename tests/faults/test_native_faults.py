# SPDX-License-Identifier: MIT
"""A backend that dies, hangs or reports FATAL: each in a process of its own, with a time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from astra_bridge.errors import AstraBridgeError
from astra_bridge.network.api import TRANSFER, NetworkConfig
from astra_bridge.network.native import NativeNetwork

def opened():
    options = {"fault": sys.argv[2], "fault.call": sys.argv[3]}
    return NativeNetwork.open(Path(sys.argv[1]), NetworkConfig(4, 4, options=options))

for attempt in range(2):
    try:
        network = opened()
        items = np.zeros(1, TRANSFER)
        items["bytes"], items["dst"] = 8, 1
        network.submit(items)
        network.advance(10**9)
        network.poll()
        network.close()
        print("done")
    except AstraBridgeError as error:
        print(type(error).__name__, error)
    for call in ("close", "interrupt"):
        getattr(network, call)()
"""


def misbehave(library: Path, fault: str, call: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(library), fault, call],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_after_fatal_the_library_is_not_entered_again(mock_library: Path) -> None:
    done = misbehave(mock_library, "status:7", "advance")
    first, second = done.stdout.splitlines()
    assert first == "BackendError mock: advance: injected status 7 (FATAL)"
    assert "create: not called, because the library reported FATAL before" in second
    assert done.returncode == 0


@pytest.mark.parametrize("call", ["create", "submit", "advance", "poll"])
def test_an_internal_error_is_one_message(mock_library: Path, call: str) -> None:
    done = misbehave(mock_library, "status:6", call)
    assert done.stdout.startswith(f"BackendError mock: {call}: injected status 6 (INTERNAL)\n")


@pytest.mark.parametrize("call", ["submit", "poll", "destroy"])
def test_an_abort_ends_the_process_by_its_signal(mock_library: Path, call: str) -> None:
    """In one process nothing can be done about it: hence BackendSpec.isolate."""
    assert misbehave(mock_library, "abort", call).returncode == -signal.SIGABRT
