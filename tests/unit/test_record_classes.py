# SPDX-License-Identifier: MIT
"""Records are what dataclasses are, to those who hold one and to the functions of `dataclasses`."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from functools import cached_property
from typing import Any, ClassVar

import pytest

from astra_bridge.inputs.network import NetworkDims
from astra_bridge.inputs.system import SystemConfig
from astra_bridge.records import REQUIRED, Record, Sourced, defaults, field, put, replace, values


class Point(Record, frozen=True):
    """Of a plane."""

    x: float
    y: float = 0.0
    names: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put(self, "x", abs(self.x))


@dataclasses.dataclass(frozen=True)
class Twin:
    """The same as a dataclass."""

    x: float
    y: float = 0.0
    names: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", abs(self.x))


class Lasting(Record, frozen=True, eq=False, dict=True):
    """Equal to itself alone; keeps what it has found."""

    made: list[int]

    @cached_property
    def total(self) -> int:
        """Counted once."""
        self.made.append(0)
        return len(self.made)


class Told(Sourced, frozen=True, eq=False):
    """As files tell it."""

    beside: ClassVar[tuple[str, ...]] = ("source", "line")
    word: str
    source: str = ""
    line: int = 0


BOTH = pytest.mark.parametrize("kind", [Point, Twin])


@BOTH
def test_it_is_immutable_equal_and_says_its_fields(kind: Any) -> None:
    one = kind(-1.0, names={"a": 1})
    assert repr(one).partition("(")[2] == "x=1.0, y=0.0, names={'a': 1})"
    assert one == kind(1.0, 0.0, {"a": 1})
    assert one != kind(1.0)
    assert one != (1.0, 0.0, {"a": 1})
    with pytest.raises(AttributeError):
        one.x = 2.0
    with pytest.raises(TypeError):
        hash(one)
    assert kind(1).names is not kind(1).names


@BOTH
def test_copies_are_made_as_the_first_one_was(kind: Any) -> None:
    one = kind(-1.0)
    assert dataclasses.replace(one, x=-3.0).x == 3.0
    for again in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert again == one
        assert type(again) is kind
    assert dataclasses.asdict(one) == {"x": 1.0, "y": 0.0, "names": {}}
    with pytest.raises(TypeError, match="z"):
        dataclasses.replace(one, z=1)


def test_its_fields_are_those_of_a_dataclass() -> None:
    assert dataclasses.is_dataclass(Point)
    for one, two in zip(dataclasses.fields(Point), dataclasses.fields(Twin), strict=True):
        for what in ("name", "type", "default", "default_factory", "compare", "kw_only"):
            assert getattr(one, what) == getattr(two, what)
    assert list(inspect.signature(Point).parameters) == list(inspect.signature(Twin).parameters)


def test_replace_checks_and_values_are_by_name() -> None:
    assert replace(Point(1.0), x=-2.0) == Point(2.0)
    assert values(Point(1.0)) == {"x": 1.0, "y": 0.0, "names": {}}
    assert defaults(Point) == {"x": REQUIRED, "y": 0.0, "names": REQUIRED}


def test_what_is_cached_is_found_once() -> None:
    one = Lasting([])
    assert (one.total, one.total) == (1, 1)
    assert len({one, Lasting([])}) == 2
    assert one != Lasting([0])


def test_where_it_is_from_makes_no_difference() -> None:
    one, two = Told("a", "a.txt", 1), Told("a", "b.txt", 2)
    assert one == two
    assert (one != two) is False
    assert hash(one) == hash(two)
    assert one != Told("b", "a.txt", 1)
    assert [part.compare for part in dataclasses.fields(Told)] == [True, False, False]


def test_inputs_are_compared_without_their_files() -> None:
    assert dataclasses.replace(SystemConfig(), warnings=("careful",)) == SystemConfig()
    dims = NetworkDims(("Ring",), (3,), (50.0,), (500.0,))
    assert hash(replace(dims, source="a.yml")) == hash(dims)
    assert replace(dims, bandwidth_GiBps=(60.0,)) != dims
