# SPDX-License-Identifier: MIT
"""Nobody's word is taken: any field of any answer of a backend may lie, and both engines say so."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_bridge import simulate
from astra_bridge.engine import native
from astra_bridge.errors import AstraBridgeError, ContractError
from astra_bridge.network import boundary
from astra_bridge.trace import CommType
from tests import reply_fuzz
from tests.effort import examples
from tests.small import network, same_on_all, system

pytestmark = pytest.mark.skipif(
    bool(native.unavailable()), reason="both engines are compared with one another"
)
ENGINES = ("native", "python")
ROOT = Path(boundary.__file__).parents[2]


@pytest.fixture(scope="module")
def unordered_library(mock_library: Path) -> Path:
    """The mock as a library of contract 1.0: submit, advance and poll, no exchange."""
    return reply_fuzz.libraries()[1]


def run(library: Path, engine: Any, **options: str) -> tuple[int, ...]:
    """Five ranks whose transfers overlap; options are the fault's."""
    result = simulate(
        same_on_all(5, lambda trace: trace.coll(CommType.ALL_REDUCE, 8000)),
        system("direct"),
        network("Ring", 5),
        backend=str(library),
        engine=engine,
        in_process=True,
        network_options={key.replace("_", "."): value for key, value in options.items()},
    )
    return tuple(result.finish_ns.tolist())


def verdict(library: Path, engine: Any, **options: str) -> Any:
    """The times at which the ranks finish, or what the error says."""
    try:
        return run(library, engine, **options)
    except ContractError as error:
        lie = error
    said = reply_fuzz.BROKEN.fullmatch(str(lie))
    assert said, lie
    assert (lie.exit_code, lie.backend, lie.call) == (4, "mock", said["call"])
    return said["call"], said["field"], said["rule"]


def answer(library: Path, engine: Any, **options: str) -> Any:
    """The same, where other errors may be right, too: a loss, or no room for what starts."""
    try:
        return verdict(library, engine, **options)
    except AstraBridgeError as error:
        return type(error), str(error)


NEVER = 2**63 - 1
LIES = [
    # call, lie, the field that is named, the rule
    ("submit", "accepted+1", "accepted", "R4"),
    ("submit", "accepted=-1", "accepted", "R4"),
    ("submit", "accepted=0", "accepted", "R4"),
    ("advance", "now_ps=-1", "now_ps", "R5"),
    ("advance", f"now_ps={NEVER}", "now_ps", "R14"),
    ("advance", "stop=0", "stop", "R5"),
    ("advance", "stop=1", "stop", "R5"),
    ("advance", "stop=3", "stop", "R5"),
    ("advance", "stop=4", "stop", "R5"),
    ("advance", "stop=-1", "stop", "R5"),
    ("advance", "now_ps+1", "time_ps", "R6"),
    ("poll", "count=0", "stop", "R5"),
    ("poll", "count=-1", "count", "R2"),
    ("poll", "count=1000000000", "count", "R2"),
    ("poll", "count+900", "count", "R8"),
    *(
        (call, lie, field, rule)
        for call in ("poll", "exchange")
        for lie, field, rule in (
            ("id=-1", "id", "R8"),
            ("id=0", "id", "R8"),
            ("id+1", "id", "R8"),
            ("id+64", "id", "R8"),
            (f"id={2**62}", "id", "R8"),
            (f"id={-(2**63)}", "id", "R8"),
            ("time_ps=-1", "time_ps", "R6"),
            ("time_ps-1", "time_ps", "R6"),
            ("time_ps+1", "time_ps", "R6"),
            (f"time_ps={NEVER}", "time_ps", "R6"),
            ("kind=0", "kind", "R8"),
            ("kind=2", "kind", "CAP"),
            ("kind=3", "kind", "R8"),
            ("kind=-1", "kind", "R8"),
            ("outcome=1", "outcome", "R8"),
            ("outcome=-1", "outcome", "R8"),
            ("reserved=1", "reserved", "R2"),
            ("reserved=-1", "reserved", "R2"),
        )
    ),
    ("exchange", "completions=0", "completions", "R2"),
    ("exchange", "completions+32", "completions", "R2"),
    ("exchange", "capacity+1", "capacity", "R2"),
    ("exchange", "capacity=0", "capacity", "R2"),
    ("exchange", "completion_count=-1", "count", "R2"),
    ("exchange", "completion_count+1000000", "count", "R2"),
    ("exchange", "completion_count=0", "stop", "R5"),
    ("exchange", "now_ps=-1", "now_ps", "R5"),
    ("exchange", f"now_ps={NEVER}", "now_ps", "R14"),
    ("exchange", "stop=0", "stop", "R5"),
    ("exchange", "stop=1", "stop", "R5"),
    ("exchange", "stop=3", "stop", "R5"),
    ("exchange", "stop=77", "stop", "R5"),
    ("exchange", "place=0", "place", "R15"),
    ("exchange", "place=-1", "place", "R15"),
    ("exchange", f"place={2**62}", "place", "R15"),
    ("exchange", f"place+{2**41}", "place", "R15"),
    ("exchange", "next_ps=-1", "next_ps", "R15"),
    ("exchange", "next_ps=0", "next_ps", "R15"),
]


@pytest.mark.parametrize(("call", "lie", "field", "rule"), LIES)
def test_a_lie_is_named(
    mock_library: Path, unordered_library: Path, call: str, lie: str, field: str, rule: str
) -> None:
    library = mock_library if call == "exchange" else unordered_library
    expected_call = "poll" if call == "advance" and lie == "now_ps+1" else call
    if (call, lie) == ("poll", "count=0"):
        expected_call = "advance"
    for engine in ENGINES:
        said = verdict(library, engine, fault=f"lie:{lie}", fault_call=call, fault_nth="0")
        assert said == (expected_call, field, rule), engine


def test_who_tells_the_truth_is_believed(mock_library: Path, unordered_library: Path) -> None:
    for library, call in ((mock_library, "exchange"), (unordered_library, "poll")):
        options = {"fault": "lie:id+0", "fault_call": call, "fault_nth": "0"}
        native_ps, python_ps = (run(library, engine, **options) for engine in ENGINES)
        assert native_ps == python_ps
        assert min(native_ps) > 0


FIELDS = {
    "submit": ["accepted"],
    "advance": ["now_ps", "stop"],
    "poll": ["id", "time_ps", "kind", "outcome", "reserved", "count"],
    "exchange": [
        *("id", "time_ps", "kind", "outcome", "reserved"),
        *("completions", "completion_count", "capacity"),
        *("now_ps", "stop", "place", "next_ps", "next_place"),
    ],
}
NUMBERS = st.integers(-4, 70) | st.sampled_from(
    [2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**62, NEVER, -(2**31), -(2**63)]
)


@settings(max_examples=examples(200), deadline=None)
@given(
    place=st.sampled_from([(call, field) for call, some in FIELDS.items() for field in some]),
    how=st.sampled_from("=+-"),
    amount=NUMBERS,
    nth=st.integers(0, 12),
)
def test_any_lie_of_any_field(
    mock_library: Path,
    unordered_library: Path,
    place: tuple[str, str],
    how: str,
    amount: int,
    nth: int,
) -> None:
    call, field = place
    library = mock_library if call == "exchange" else unordered_library
    lie = f"lie:{field}{how}{amount}" if how == "=" or amount >= 0 else f"lie:{field}+{amount}"
    options = {"fault": lie, "fault_call": call, "fault_nth": str(nth)}
    native_says, python_says = (answer(library, engine, **options) for engine in ENGINES)
    # The engines number transfers differently, so an id may be another's in one of them.
    assert native_says == python_says or field == "id"


@pytest.mark.slow
def test_any_lies_in_any_order() -> None:
    said = [reply_fuzz.attack(seed) for seed in range(200)]
    assert [wrong for _, wrong in said if wrong] == []
    counts = collections.Counter(what for what, _ in said)
    assert min(counts["lied"], counts["ran"]) > 40, counts


def test_both_engines_know_the_same_lies() -> None:
    source = (ROOT / "csrc" / "engine" / "boundary.hpp").read_text()
    source += (ROOT / "csrc" / "engine" / "engine.cpp").read_text()
    called = set(re.findall(r"\blie\(\s*(?:call|\"\w+\"),\s*\"([\w-]+)\"", source))
    # A network in Python may answer with anything; in C each field has its type.
    assert called == set(boundary.LIES) - {"reply"}
