# SPDX-License-Identifier: MIT
"""The numbers of ASTRA-sim's analytical networks, to the nanosecond, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from astra_bridge.validation.cases import write_golden_case
from tests.effort import EVERYTHING, spread
from tests.golden_run import GOLDEN, KINDS, Kind, answer, run, why_not

OWN = sorted((Path(__file__).parent / "analytical").glob("*.json"))
"""Copies of a few small cases of every kind, so that something is tested everywhere."""

CASES = sorted((GOLDEN / "analytical").glob("*.json"))
SAMPLE = spread(CASES, 3)
"""What the Python engine repeats; the native one has all cases."""

Missing = Callable[[str, str], None]

# Above 20,000 events; the Python engine handles about 100,000 a second.
LONG = {f"10_{number:04}" for number in (
    16, 38, 39, 76, 87, 89, 96, 113, 119, 131, 143, 150, 159, 163, 165, 173, 228, 232, 252, 259,
    260, 264, 265, 277, 284, 285, 287, 328, 337, 339, 347, 357, 369, 380,
)}  # fmt: skip


def check(path: Path, folder: Path, kind: Kind, missing: Missing) -> None:
    reason = why_not(kind)
    if reason is not None:
        missing("native", reason)
    case = write_golden_case(path, folder)
    assert case.finish_ns is not None
    assert answer(run(case, kind)) == (case.finish_ns, case.exposed_comm_ns)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_own_copies(path: Path, kind: Kind, tmp_path: Path, missing: Missing) -> None:
    check(path, tmp_path, kind, missing)


def test_there_are_copies_of_every_kind() -> None:
    assert len(OWN) == 16


@pytest.mark.skipif(not CASES, reason=f"no golden cases at {GOLDEN}")
def test_all_cases_are_here() -> None:
    assert len(CASES) == 302


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_native(path: Path, tmp_path: Path, missing: Missing) -> None:
    check(path, tmp_path, "native", missing)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_python(path: Path, tmp_path: Path, missing: Missing) -> None:
    if not EVERYTHING and (path.stem in LONG or path not in SAMPLE):
        pytest.skip("long; set ASTRA_BRIDGE_ALL=1 to run it")
    check(path, tmp_path, "python", missing)
