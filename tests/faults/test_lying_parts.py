# SPDX-License-Identifier: MIT
"""A part of a composite network that breaks the contract is an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge.errors import BackendError, NetworkError
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.network.api import TIME_NEVER, TRANSFER, Network
from astra_bridge.network.native import not_built
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest
from tests.foreign import foreign_library

pytestmark = pytest.mark.skipif(not_built("composite") is not None, reason="not built")

TRANSFERS = np.zeros(3, TRANSFER)
TRANSFERS["id"], TRANSFERS["bytes"] = (0, 4, 8), 1000
TRANSFERS["src"], TRANSFERS["dst"] = (0, 0, 1), (1, 3, 2)  # by the first part, both, both


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_library(tmp_path_factory.mktemp("part"), "-DPEEK")


def opened(liar: Path, lie: str) -> Network:
    spec = backend("composite")
    network = NetworkDims(
        ("Ring", "Switch"), (2, 2), (50.0, 50.0), (100.0, 100.0), backends=(str(liar), "flow")
    )
    request = NetworkRequest(network, options={f"{liar}.lie": lie})
    return spec.open(spec.prepare(request).config)


def by_submit(network: Network) -> dict[int, int]:
    arrived: dict[int, int] = {}
    network.submit(TRANSFERS)
    while len(arrived) < len(TRANSFERS):
        network.advance(TIME_NEVER)
        arrived |= {int(one["id"]): int(one["time_ps"]) for one in network.poll()}
    return arrived


def by_exchange(network: Network) -> dict[int, int]:
    arrived: dict[int, int] = {}
    starts, now_ps, place = TRANSFERS, 0, 12
    while len(arrived) < len(TRANSFERS):
        answer = network.exchange(starts, now_ps, TIME_NEVER, TIME_NEVER, place)
        starts, now_ps, place = TRANSFERS[:0], answer.now_ps, answer.place
        arrived |= {int(one["id"]): int(one["time_ps"]) for one in answer.completions}
    return arrived


@pytest.mark.parametrize("drive", [by_submit, by_exchange])
@pytest.mark.parametrize("lie", ["", "still"])  # that something may come now is no lie
def test_an_honest_part_works(liar: Path, lie: str, drive: Any) -> None:
    with opened(liar, lie) as network:
        arrived = drive(network)
    assert arrived[0] == 1_000_000
    assert min(arrived[4], arrived[8]) > 1_000_000


@pytest.mark.parametrize("drive", [by_submit, by_exchange])
@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("accepted", "submit took 8 transfers"),
        ("id", "a record of transfer"),
        ("past", "a record of transfer"),
        ("kind", "kind 9"),
        ("twice", "a record of transfer|more arrives than was sent"),
        ("back", "advance went from 0 to -1"),
        ("beyond", "advance went from"),
        ("count", "poll gave 265 records"),
        ("never-dry", "poll gives records without end|more arrives"),
    ],
)
def test_a_lie_is_named(liar: Path, lie: str, said: str, drive: Any) -> None:
    with (
        opened(liar, lie) as network,
        pytest.raises(BackendError, match=f"foreign.so broke the contract: .*({said})"),
    ):
        drive(network)


@pytest.mark.parametrize("drive", [by_submit, by_exchange])
def test_a_part_that_says_that_nothing_comes_is_stuck(liar: Path, drive: Any) -> None:
    with opened(liar, "never") as network:
        try:
            arrived = drive(network)
        except NetworkError:
            return
    # Run to its end all the same, because nothing else was left.
    assert arrived[0] == 1_000_000
