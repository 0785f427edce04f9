# SPDX-License-Identifier: MIT
"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from astra_bridge.network.native import library_path


def _skip_unless_required(name: str, reason: str) -> None:
    """Skip, or fail where ``ASTRA_BRIDGE_REQUIRE`` (comma-separated) names what is missing."""
    if name in os.environ.get("ASTRA_BRIDGE_REQUIRE", "").split(","):
        pytest.fail(f"ASTRA_BRIDGE_REQUIRE names {name}, but: {reason}")
    pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    """In CI, warnings of other libraries are errors; on a user's machine they are not ours."""
    if os.environ.get("ASTRA_BRIDGE_STRICT") == "1":
        config.addinivalue_line("filterwarnings", "error")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked slow runs where ``ASTRA_BRIDGE_ALL=1``, as in CI."""
    if os.environ.get("ASTRA_BRIDGE_ALL") != "1":
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long; set ASTRA_BRIDGE_ALL=1 to run it"))


@pytest.fixture(scope="session")
def missing() -> Callable[[str, str], None]:
    """Call as missing(name, reason) when something that a test needs is not here."""
    return _skip_unless_required


@pytest.fixture(scope="session")
def mock_library() -> Path:
    """The C reference backend."""
    path = library_path("mock")
    if not path.exists():
        _skip_unless_required("native", "not built; run: python setup.py build_native --parts=mock")
    return path
