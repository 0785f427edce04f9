# SPDX-License-Identifier: MIT
"""Inputs on which ASTRA-sim itself aborts, segfaults or never ends.

Every one of the 98 is a valid experiment, and gets an answer here.  The table says why ASTRA-sim
has none.  Nobody knows these numbers, so the tests hold on to what can be known: both engines and
both networks agree, every node of every rank has run, and nothing is faster than physics.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from astra_bridge.validation.cases import write_golden_case
from tests.effort import EVERYTHING
from tests.golden_run import GOLDEN, answer, run, why_not

TREE = "doubleBinaryTree on a number of ranks that is not a power of two: segmentation fault"
HALVING = "halvingDoubling on a number of ranks that is not a power of two: ends without a result"
NO_DELAY = "endpoint-delay 0 (after injection-scale): an assertion about events at time 0"
PAIR = "two ranks in a congestion-aware ring: the same link is made twice, an assertion"
NODE_MEMORY = "accesses to a memory per node wait for one another: use after free"

# fmt: off
CASES = {
    (TREE,): (
        28, 116, 180, 216, 237, 292, 294, 321, 342, 353,
    ),
    (PAIR,): (
        29, 41, 50, 101, 103, 136,
    ),
    (NO_DELAY,): (
        4, 9, 13, 14, 49, 51, 53, 54, 71, 84, 98, 99, 125, 135, 160, 175, 182, 183, 189,
        197, 207, 218, 227, 235, 238, 239, 267, 269, 271, 302, 303, 308, 311, 312, 316, 336,
        348, 360, 366, 374, 381, 382, 383, 389,
    ),
    (HALVING,): (
        10, 40, 44, 45, 48, 61, 63, 64, 74, 77, 100, 127, 145, 156, 167, 169, 174, 211, 220,
        223, 225, 226, 273, 295, 325, 346, 377, 387,
    ),
    (NODE_MEMORY,): (
        30, 249,
    ),
    (TREE, NO_DELAY,): (
        65, 153, 158, 399,
    ),
    (TREE, HALVING,): (
        194,
    ),
    (PAIR, NO_DELAY,): (
        140,
    ),
    (NO_DELAY, HALVING,): (
        196, 208,
    ),
}
# fmt: on

WHY = {f"10_{number:04}": why for why, numbers in CASES.items() for number in numbers}
FILES = sorted((GOLDEN / "analytical_upstream_fails").glob("*.json"))
pytestmark = pytest.mark.skipif(not FILES, reason=f"no golden cases at {GOLDEN}")

# More than half a second with the Python engine.
LONG = {f"10_{number:04}" for number in (10, 77, 84, 100, 208, 216, 225, 269, 360, 169)}

_AT_MOST_S = 10
"""Of processor time, so that a busy machine changes nothing."""


def test_every_case_has_its_reason() -> None:
    assert [path.stem for path in FILES] == sorted(WHY)
    assert len(WHY) == 98


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_there_is_an_answer(
    path: Path, tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    if path.stem in LONG and not EVERYTHING:
        pytest.skip("long; set ASTRA_BRIDGE_ALL=1 to run it")
    data = json.loads(path.read_text())
    why = WHY[path.stem]
    delay_ns = int(
        data["system"]["endpoint-delay"] * float(data["flags"].get("injection-scale", 1))
    )
    assert (NO_DELAY in why) == (delay_ns == 0)
    aware_pair = data["model"] == "congestion_aware" and data["network"]["npus_count"] == [2]
    assert (PAIR in why) == (aware_pair and data["network"]["topology"] == ["Ring"])
    case = write_golden_case(path, tmp_path)
    answers = []
    for kind in ("python", "native"):
        if (reason := why_not(kind)) is not None:
            missing("native", reason)
        began = time.process_time()
        result = run(case, kind)
        assert time.process_time() - began < _AT_MOST_S
        assert (result.node_start_ps >= 0).all()
        assert (result.node_end_ps >= result.node_start_ps).all()
        assert result.finish_ns.max() == result.node_end_ps.max() // 1000
        if case.model == "congestion_aware":
            # The busiest link cannot carry its bytes faster than its rate allows.
            busy_ps = result.tables["links"]["busy_ps"]
            assert np.max(busy_ps, initial=0) <= result.node_end_ps.max()
        answers.append((answer(result), result.events, result.node_end_ps.tolist()))
    assert answers[0] == answers[-1]
