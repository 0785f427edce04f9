# SPDX-License-Identifier: MIT
"""The records of a Program are the same in Python and in C++: the header is made of the dtypes."""

from __future__ import annotations

import re
import runpy
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest

from astra_bridge import program
from astra_bridge.errors import BackendUnavailable
from astra_bridge.program import compiled, schema
from astra_bridge.trace import CommType
from tests.small import network, run, same_on_all, system

ROOT = Path(__file__).parents[2]
RECORDS = {
    name: value
    for name, value in vars(program).items()
    if isinstance(value, np.dtype) and value.names
}

needs_native = pytest.mark.skipif(
    compiled.unavailable() is not None, reason="the native engine is not built"
)


@needs_native
@pytest.mark.parametrize("name", RECORDS)
def test_each_field_has_the_same_place_in_both_languages(name: str) -> None:
    assert compiled.module().LAYOUT[name] == compiled.layout(RECORDS[name])


@needs_native
def test_an_engine_of_other_records_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same size, too: two fields that have changed places."""
    fields = program.MESSAGE.descr
    swapped = np.dtype([fields[0], fields[2], fields[1]])
    assert swapped.itemsize == program.MESSAGE.itemsize
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MESSAGE", swapped)
        _forget()
        with pytest.raises(BackendUnavailable, match=r"another version .* build it again: python"):
            compiled.module()
    _forget()
    assert compiled.unavailable() is None


def _forget() -> None:
    for kept in (compiled.module, compiled.unavailable, compiled.fingerprint):
        kept.cache_clear()


@needs_native
def test_an_engine_that_takes_other_arguments_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run says so in one sentence, and how to build it again; the Python engine does without."""
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "SESSION", (*compiled.SESSION, "more"))
        _forget()
        work = same_on_all(2, lambda trace: trace.coll(CommType.ALL_REDUCE, 1024))
        for engine in ("auto", "native"):
            with pytest.raises(BackendUnavailable, match="build_native --parts=engine"):
                run(work, system(), network("Ring", 2), engine=engine)
        assert run(
            work,
            system(),
            network("Ring", 2),
            engine="python",
            backend="analytical-aware-python",
        ).finish_ps.all()
    _forget()


@needs_native
def test_the_arguments_of_a_session_are_those_that_the_fingerprint_has() -> None:
    told = compiled.module().Session.__init__.__doc__
    assert re.findall(r"(\w+): ", told)[1:] == list(compiled.SESSION)


def test_every_record_and_enum_is_in_the_header() -> None:
    header = runpy.run_path(str(ROOT / "csrc" / "engine" / "make_records.py"))["header"]()
    assert "Made by csrc/engine/make_records.py" in header
    for name, record in RECORDS.items():
        assert f'f("{name}", "{record.names[-1]}"' in header
    kinds = [one for one in vars(program).values() if isinstance(one, type)]
    for kind in kinds:
        if issubclass(kind, IntEnum) and kind is not IntEnum:
            assert f"enum class {kind.__name__}" in header


def test_an_enum_stands_for_fields_that_exist() -> None:
    for record, field in program.ENUMS:
        assert field in RECORDS[record].names


@needs_native
def test_arrays_may_lie_in_memory_as_they_like() -> None:
    """Neither contiguous nor aligned: the native code makes copies of them."""
    rows = np.zeros(6, program.MESSAGE)
    shifted = np.zeros(3 * rows.itemsize + 1, np.uint8)[1:].view(program.MESSAGE)
    rows["bytes"], shifted["bytes"] = 5, 5
    for messages in (rows[::2], shifted):
        given = program.Program(
            tasks=program.tasks([0]),
            jobs=program.one_job(1),
            machine_of_rank=np.zeros(1, np.int32),
            memory_server=np.full(1, -1, np.int32),
            templates=np.zeros(1, program.TEMPLATE),
            messages=messages,
        )
        given.validate()
        messages["bytes"][2] = 0
        with pytest.raises(ValueError, match=r"messages\[2\]\.bytes: is 0"):
            given.validate()
