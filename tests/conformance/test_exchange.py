# SPDX-License-Identifier: MIT
"""exchange() against submit, advance and poll, and however it is split."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_bridge.conformance.drive import exchange_all, finish_times, simulate, transfers
from astra_bridge.conformance.subject import Subject, subject
from astra_bridge.errors import AstraBridgeError
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.network.api import TIME_NEVER
from astra_bridge.network.native import library_path

NETWORK = NetworkDims(("Ring", "Switch"), (3, 2), (50.0, 20.0), (100.0, 300.0))
NAMES = ["mock", "analytical-aware", "analytical-unaware"]
NAMES += [f"{name}-python" for name in NAMES[1:]]


@cache
def _subject(name: str) -> Subject:
    target = str(library_path("mock")) if name == "mock" else name
    options = {"contention": "true"} if name == "mock" else {}
    return subject(target, network=NETWORK, options=options)


@pytest.fixture(scope="module", params=NAMES)
def ordered(request: pytest.FixtureRequest, missing: Callable[[str, str], None]) -> Subject:
    if request.param == "mock" and not Path(library_path("mock")).exists():
        missing("native", "the mock is not built")
    try:
        return _subject(request.param)
    except AstraBridgeError as error:
        missing(request.param, str(error))
        raise


# Few distinct times and sizes, so that many events share an instant.
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 100_000, 101_000, 300_000, 500_000]),
        st.sampled_from([1, 1024, 1024, 4096]),
        st.integers(0, 5),
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    stops=st.lists(
        st.tuples(
            st.sampled_from([0, 100_000, 119_000, 120_000, 400_000, 700_000]), st.integers(0, 160)
        ),
        max_size=12,
    ),
)
def test_splitting_changes_nothing(
    ordered: Subject, rows: list[tuple[int, int, int, int]], stops: list[tuple[int, int]]
) -> None:
    """With ties everywhere: the same completions, in the same order, and the same places."""
    items = transfers(
        (4 * k, start, size, src, (src + hop) % 6)
        for k, (start, size, src, hop) in enumerate(sorted(rows))
    )
    whole, place = exchange_all(ordered, items)
    edges = [(int(time), 0) for time in whole["time_ps"]]
    for split in (stops, edges, [(time, TIME_NEVER) for time, _ in edges]):
        again, place_again = exchange_all(ordered, items, split)
        assert again.tolist() == whole.tolist()
        assert place_again == place


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 5), st.integers(1, 5)),
        min_size=1,
        max_size=16,
        unique_by=lambda row: row[0],
    )
)
def test_exchange_gives_the_times_of_advance(
    ordered: Subject, rows: list[tuple[int, int, int]]
) -> None:
    """Where the order inside an instant does not matter."""
    # On several hops it matters who reaches a link first, so transfers keep clear of each other;
    # the mock has one hop, where first come is first served whatever the order of events.
    gap_ps = 1000 if ordered.info.name == "mock" else 4_000_000
    items = transfers(
        (4 * k, gap_ps * start, 1024, src, (src + hop) % 6)
        for k, (start, src, hop) in enumerate(sorted(rows))
    )
    records, _ = exchange_all(ordered, items)
    assert finish_times(records) == finish_times(simulate(ordered, items))
