# SPDX-License-Identifier: MIT
"""Whatever numbers a host passes, a backend answers or refuses; it never dies and never hangs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_bridge.conformance.subject import Subject, subject
from astra_bridge.errors import AstraBridgeError, ContractError, SimulationError, Unsupported
from astra_bridge.network.api import TIME_NEVER, TRANSFER, Stop
from astra_bridge.network.native import library_path
from tests.effort import examples

NAMES = ["mock", "analytical-aware", "analytical-unaware", "garnet"]
NAMES += ["analytical-aware-python", "analytical-unaware-python"]


@cache
def _subject(name: str) -> Subject:
    if name == "mock":
        return subject(str(library_path("mock")), options={"contention": "true"})
    return subject(name)


@pytest.fixture(scope="module", params=NAMES)
def backend(request: pytest.FixtureRequest, missing: Callable[[str, str], None]) -> Subject:
    if request.param == "mock" and not Path(library_path("mock")).exists():
        missing("native", "the mock is not built")
    try:
        return _subject(request.param)
    except AstraBridgeError as error:
        missing(request.param, str(error))
        raise


EDGES = st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)])
INT64 = EDGES | st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-1, 7) | st.sampled_from([2**31 - 1, -(2**31)])
ITEM = st.tuples(
    INT64,  # id
    st.integers(0, 10**9) | INT64,  # start_ps
    st.integers(1, 10**6) | INT64,  # bytes
    INT32,  # src
    INT32,  # dst
    st.sampled_from([0, 0, 0, 1, 2**32 - 1]),  # traffic_class
    st.sampled_from([0, 0, 0, 0, 1]),  # flags
    st.sampled_from([0, 0, 0, 0, -1]),  # reserved
)
CALL = st.one_of(
    st.tuples(st.just("submit"), st.lists(ITEM, max_size=4)),
    st.tuples(st.just("advance"), INT64, INT64),
    st.tuples(st.just("poll")),
    st.tuples(st.just("stats")),
    st.tuples(st.just("set_link"), INT32, INT64, st.floats()),
    st.tuples(st.just("exchange"), st.lists(ITEM, max_size=3), INT64, INT64, INT64, INT64),
)


@settings(max_examples=examples(150), deadline=None)
@given(calls=st.lists(CALL, min_size=1, max_size=8))
def test_any_calls_in_any_order(backend: Subject, calls: list[tuple[object, ...]]) -> None:
    # A cycle-level network would really send 2**62 bytes, so it is given little time.
    patient = backend.quirks.largest_bytes == 2**40
    with backend.open() as network:
        for name, *arguments in calls:
            if name in ("submit", "exchange"):
                arguments[0] = np.array(arguments[0], TRANSFER)  # type: ignore[call-overload]
            if not patient and name in ("advance", "exchange"):
                at = 0 if name == "advance" else 2
                arguments[at] = min(int(arguments[at]), 10**6)  # type: ignore[call-overload]
            try:
                answer = getattr(network, str(name))(*arguments)
            except (ContractError, Unsupported):
                continue
            except SimulationError:
                break
            if name == "advance":
                assert answer.stop in tuple(Stop)
                assert answer.now_ps <= int(arguments[0])  # type: ignore[call-overload]
            if name == "poll":
                assert (np.diff(answer["time_ps"]) >= 0).all()
                assert (answer["time_ps"] < TIME_NEVER).all()
