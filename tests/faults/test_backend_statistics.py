# SPDX-License-Identifier: MIT
"""Statistics are what docs/contract.md says, or the backend broke the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astra_bridge import simulate
from astra_bridge.cli.summary import summary
from astra_bridge.errors import ContractError
from astra_bridge.network.statistics import checked
from astra_bridge.results import Result
from astra_bridge.workload import collective
from tests.foreign import foreign_library
from tests.small import network, system

LINKS = {"src": [0], "dst": [1], "bytes": [8], "busy_ps": [5]}
DEEP = "[" * 200_000 + "]" * 200_000

TEXTS = [
    "hello", "[]", "3", "null", "{", '{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}',
    '{"a": 1, "a": 2}', '{"tables": {"t": {"x": [1]}, "t": {"x": [2]}}}', '{"a": "\\ud800"}',
    '{"a": 99999999999999999999}', '{"a": ' + "9" * 5000 + "}", DEEP, '{"a": ' + DEEP + "}",
    "size 0x1000000000000000", "size -1", "size 0x400000000",
    '{"tables": "x"}', '{"tables": [1]}', '{"tables": null}', '{"tables": {"t": 3}}',
    '{"tables": {"t": {"a": 1}}}', '{"tables": {"t": {"a": {"b": 1}}}}',
    '{"tables": {"t": {"a": [1, 2], "b": [1]}}}', '{"tables": {"t": {"a": [[1], [1, 2]]}}}',
    '{"tables": {"t": {"a": [[1, 2], [3, 4]]}}}', '{"tables": {"t": {"a": [1, "x", null, {}]}}}',
    '{"tables": {"t": {"a": [9223372036854775808]}}}', '{"tables": {"t": {"a": [1.5, true]}}}',
    '{"tables": {"links": {"a": [1]}}}', '{"tables": {"links": 3}}',
    json.dumps({"tables": {"links": {**LINKS, "bytes": ["x"]}}}),
    json.dumps({"tables": {"links": {**LINKS, "bytes": [1.5]}}}),
    json.dumps({"tables": {"links": {**LINKS, "src": []}}}),
    json.dumps({"tables": {"t": {"a": ["x" * 2000]}}}),
]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_library(tmp_path_factory.mktemp("foreign"))


def run(library: Path, text: str, in_process: bool = True) -> Result:
    return simulate(
        collective("all-reduce", 4096, 4), system(), network("Ring", 4), backend=str(library),
        network_options={"stats": text}, in_process=in_process,
    )  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:40])
def test_what_breaks_the_contract(text: str, library: Path) -> None:
    # In this process, for speed; the same checks stand behind a child's answer.
    with pytest.raises(ContractError, match="stats: the backend broke the contract"):
        run(library, text)


@pytest.mark.parametrize("text", ["hello", '{"tables": {"t": {"a": [1, 2], "b": [1]}}}'])
def test_in_a_child(text: str, library: Path) -> None:
    with pytest.raises(ContractError, match="stats: the backend broke the contract"):
        run(library, text, in_process=False)


@pytest.mark.parametrize("in_process", [True, False])
def test_what_is_taken(in_process: bool, library: Path, tmp_path: Path) -> None:
    tables: dict[str, Any] = {
        "links": LINKS,
        "../../x": {"a\n": ["\u00e4", "=1+1"], "b": [1.5, 2]},
        "": {},
        "none": {"a": [], "b": []},
    }
    text = json.dumps({"lost": 0, "parts": {"a": [None, True, "x", 1.5]}, "tables": tables})
    result = run(library, text, in_process)
    assert dict(result.network) == {"lost": 0, "parts": {"a": [None, True, "x", 1.5]}}
    assert result.link_bytes.tolist() == [8]
    assert {name: {k: v.tolist() for k, v in t.items()} for name, t in result.tables.items()} == (
        tables
    )
    assert "0 -> 1" in summary(result)
    result.save(tmp_path / "out")


@pytest.mark.parametrize(
    "stats", [None, [], {1: 2}, {"a": object()}, {"a": b"x"}, {"tables": {"t": {"a": np.eye(2)}}}]
)
def test_of_a_python_backend(stats: object) -> None:
    with pytest.raises(ContractError, match="broke the contract"):
        checked("mine", stats)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_like, st.dictionaries(st.sampled_from(["links", "t"]), json_like, max_size=2))
def test_checked_or_refused(value: object, tables: object) -> None:
    try:
        plain, made = checked("mine", {"value": value, "tables": tables})
    except ContractError:
        return
    json.dumps(plain, allow_nan=False).encode()
    for table in made.values():
        assert len({len(column) for column in table.values()}) <= 1
        assert all(column.dtype.kind in "ifbU" for column in table.values())
