# SPDX-License-Identifier: MIT
"""Garnet against gem5 24.0: every message of every case is delivered in the same cycle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_bridge.network.garnet import BACKENDS
from astra_bridge.network.garnet.replay import read_messages, replay

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "garnet"
SHIPPED = Path(__file__).parent / "garnet"
CASES = [*sorted(SHIPPED.glob("*.json")), *sorted(GOLDEN.glob("[!z]*.json"))]
# Columns that a row of the reference and of the replay share.
COLUMNS = (
    *("inject", "pick", "head_send", "tail_send", "head_recv", "deliver"),
    *("network_latency", "queueing_latency", "flits", "hops", "src_vc", "dst_vc"),
)

pytestmark = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)


def test_there_are_cases() -> None:
    assert len(list(SHIPPED.glob("*.json"))) >= 10
    if not GOLDEN.is_dir():
        pytest.skip(f"the other cases are not at {GOLDEN}")
    assert len(CASES) >= 61 + 10


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_message_as_in_gem5(path: Path) -> None:
    case = read_messages(path)
    assert case.results is not None
    rows = replay(case).rows
    expected = np.array(case.results["rows"], np.int64)
    names = list(case.results["columns"])
    assert np.array_equal(expected[:, names.index("id")], case.messages["id"])
    for name in COLUMNS:
        different = np.flatnonzero(expected[:, names.index(name)] != rows[name])
        assert not different.size, f"{name}: messages {different[:5].tolist()} differ"


def test_lone_message_over_links_without_latency() -> None:
    # The quirk z01: gem5 wakes a router twice; a lone message still follows the formula.
    path = GOLDEN / "z01_link_latency_0_one.json"
    if not path.exists():
        pytest.skip(f"no golden data at {GOLDEN}")
    case = read_messages(path)
    assert case.results is not None
    column = list(case.results["columns"]).index("deliver")
    assert replay(case).rows["deliver"].tolist() == [row[column] for row in case.results["rows"]]
