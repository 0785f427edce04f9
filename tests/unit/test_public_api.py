# SPDX-License-Identifier: MIT
"""What `astra_bridge` offers: names, signatures, docstrings whose examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import pkgutil
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import astra_bridge as ab

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def members(value: type) -> dict[str, Any]:
    """Its own and inherited ones, of this package."""
    found: dict[str, Any] = {}
    for base in reversed(value.__mro__):
        if base.__module__.startswith("astra_bridge"):
            found |= vars(base)
    return found


def described() -> str:
    """Every public name with its signature, or its members, one per line."""
    lines = []
    for name in sorted(ab.__all__):
        value = getattr(ab, name)
        if inspect.isclass(value):
            lines.append(f"class {name}")
            if is_dataclass(value):
                lines += [f"    {one.name}: {one.type}" for one in fields(value)]
            for member, what in sorted(members(value).items()):
                if member.startswith("_") or (is_dataclass(value) and not callable(what)):
                    continue
                inner = getattr(what, "__func__", what)
                if inspect.isfunction(inner):
                    lines.append(f"    {member}{inspect.signature(inner)}")
        elif inspect.ismodule(value):
            offered = ((one, getattr(value, one)) for one in value.__all__)
            lines += [f"{name}.{one}{inspect.signature(what)}" for one, what in offered]
        elif callable(value):
            lines.append(f"{name}{inspect.signature(value)}")
        else:
            lines.append(name)
    return "\n".join(lines) + "\n"


def test_the_public_names_are_those_that_were_agreed_on() -> None:
    """A change here is a change for users: a file in changes/, and a way out for what goes.

    To take a change up: python -m tests.unit.test_public_api
    """
    assert described() == SNAPSHOT.read_text()


def test_every_name_can_be_had_and_no_other() -> None:
    assert set(ab.__all__) <= set(dir(ab))
    for name in ab.__all__:
        assert getattr(ab, name) is not None
    with pytest.raises(AttributeError, match="simulte"):
        ab.simulte  # noqa: B018


@pytest.mark.parametrize("name", [name for name in ab.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(ab, name)
    assert value.__doc__
    if not inspect.isclass(value):
        return
    for member, what in members(value).items():
        inner = getattr(what, "__func__", what)
        plain = inspect.isfunction(inner) and inner.__name__ != "<lambda>"
        if plain and not member.startswith("_"):
            assert inner.__doc__, f"{name}.{member}"


def modules() -> list[str]:
    found = pkgutil.walk_packages(ab.__path__, "astra_bridge.")
    return sorted(one.name for one in found if "_native" not in one.name)


@pytest.mark.parametrize("name", modules())
def test_examples_of_docstrings_run(name: str) -> None:
    if name.endswith("__main__"):
        return
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error))
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    tests = doctest.DocTestFinder(exclude_empty=True).find(module)
    missing = ""
    for test in tests:
        said = io.StringIO()
        if doctest.DocTestRunner(optionflags=flags).run(test, out=said.write).failed:
            found = re.search(r"MissingDependency: .*", said.getvalue())
            assert found, said.getvalue()
            missing = found[0]
    if missing:
        pytest.skip(missing)


if __name__ == "__main__":
    SNAPSHOT.write_text(described())
