# SPDX-License-Identifier: MIT
"""Backends of this process that make no progress are interrupted; those that do are left alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from astra_bridge import simulate
from astra_bridge.errors import BackendError, InputError, Interrupted
from astra_bridge.network.analytical import BACKENDS
from astra_bridge.network.analytical.unaware import UnawareNetwork
from astra_bridge.network.api import Advance, Capability, NetworkConfig, NetworkInfo
from astra_bridge.results import Result
from astra_bridge.workload import collective
from tests.small import network, system
from tests.waiting import HANGS_S

RANKS = 4


class Stubborn(UnawareNetwork):
    """Waits in every ``advance`` until it is interrupted, ``patience`` times; then goes on."""

    patience = 10**9

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self._asked = threading.Event()
        self._left = self.patience

    @property
    def info(self) -> NetworkInfo:
        info = super().info
        known = (info.capabilities | Capability.INTERRUPT) & ~Capability.ORDERED
        return replace(info, capabilities=known)

    def advance(self, until_ps: int, lookahead_ps: int = 0) -> Advance:
        if self._left > 0:
            self._left -= 1
            assert self._asked.wait(HANGS_S), "nobody interrupts"
            self._asked.clear()
            error = Interrupted("stubborn: advance: interrupted")
            error.now_ps = self.now_ps if hasattr(self, "now_ps") else 0
            raise error
        return super().advance(until_ps, lookahead_ps)

    def interrupt(self) -> None:
        self._asked.set()


def run(kind: type[UnawareNetwork], **arguments: Any) -> Result:
    spec = replace(BACKENDS[1], open=kind)
    workload = collective("all-reduce", 65536, RANKS)
    return simulate(workload, system(), network("Ring", RANKS), backend=spec, **arguments)


def test_no_progress_is_an_error() -> None:
    with pytest.raises(BackendError, match="no progress for 1 s") as caught:
        run(Stubborn, no_progress_timeout_s=1.0)
    assert caught.value.exit_code == 4
    assert "submit, advance or poll" in str(caught.value)


def test_progress_in_time_is_none() -> None:
    class Slow(Stubborn):
        patience = 4

    slow = run(Slow, no_progress_timeout_s=30.0)
    quick = run(UnawareNetwork)
    assert np.array_equal(slow.finish_ns, quick.finish_ns)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5", True])
def test_wrong_limits(value: Any) -> None:
    with pytest.raises(InputError, match="no_progress_timeout_s"):
        simulate(
            collective("all-reduce", 64, RANKS), system(), network("Ring", RANKS),
            no_progress_timeout_s=value,
        )  # fmt: skip


def test_no_limit() -> None:
    class Slow(Stubborn):
        patience = 3

    options: Mapping[str, Any] = {"no_progress_timeout_s": 0}
    assert (run(Slow, **options).finish_ns > 0).all()
