# SPDX-License-Identifier: MIT
"""Fixtures for all tests, and how they run."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from astra_bridge import process, supervision
from astra_bridge.network.native import library_path
from tests.effort import EVERYTHING, FACTOR

_MOST_WORKERS = 4

# A suite that passes passes again, on whatever machine: the same examples each time, however long
# each takes.  What is tried for longer is drawn anew.
hypothesis.settings.register_profile("same", deadline=None, derandomize=FACTOR == 1)
hypothesis.settings.load_profile("same")


def _skip_unless_required(name: str, reason: str) -> None:
    """Skip, or fail where ``ASTRA_BRIDGE_REQUIRE`` (comma-separated) names what is missing."""
    if name in os.environ.get("ASTRA_BRIDGE_REQUIRE", "").split(","):
        pytest.fail(f"ASTRA_BRIDGE_REQUIRE names {name}, but: {reason}")
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """A whole suite runs on several cores, one file of tests on one; ``-n`` says otherwise."""
    option = config.option
    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    whole = config.args_source != pytest.Config.ArgsSource.ARGS
    if (
        whole and workers > 1 and getattr(option, "numprocesses", 0) is None
        and not option.usepdb and not hasattr(config, "workerinput")
    ):  # fmt: skip
        option.numprocesses = workers
        # Modules compile what their tests share.  In this order the small ones come last, so that
        # the workers end together.
        option.dist = "loadfile"
        option.loadscopereorder = False


def pytest_configure(config: pytest.Config) -> None:
    """In CI, warnings of other libraries are errors; on a user's machine they are not ours."""
    if os.environ.get("ASTRA_BRIDGE_STRICT") == "1":
        config.addinivalue_line("filterwarnings", "error")
    # What a loss of power leaves is not tested, and a disk takes milliseconds for each file.
    os.fsync = lambda _: None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked slow runs where ``ASTRA_BRIDGE_ALL=1``, as in CI."""
    if not EVERYTHING:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long; set ASTRA_BRIDGE_ALL=1 to run it"))


@pytest.fixture(scope="session")
def missing() -> Callable[[str, str], None]:
    """Call as missing(name, reason) when something that a test needs is not here."""
    return _skip_unless_required


@pytest.fixture
def native_engine(missing: Callable[[str, str], None]) -> None:
    """The native engine and the analytical networks in C++, or no test."""
    from astra_bridge.engine import native
    from astra_bridge.network.registry import backend

    reason = native.unavailable() or backend("analytical-aware").unavailable()
    if reason is not None:
        missing("native", reason)


@pytest.fixture(scope="session")
def mock_library() -> Path:
    """The C reference backend."""
    path = library_path("mock")
    if not path.exists():
        _skip_unless_required("native", "not built; run: python setup.py build_native --parts=mock")
    return path


@pytest.fixture(params=["python", "copy"])
def every_kind_of_child(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are new Pythons, then copies of this process as of a command, threads or not."""
    if request.param == "python":
        return
    if sys.platform != "linux":
        pytest.skip("only copied on Linux")

    def copied(run: Callable[[], None]) -> int | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on
            number = copy(run)
        assert number or not on_main_thread()
        return number

    def on_main_thread() -> bool:
        return threading.current_thread() is threading.main_thread()

    copy = process.copy
    monkeypatch.setattr(process, "_ours", True)
    monkeypatch.setattr(process, "_has_one_thread", on_main_thread)
    monkeypatch.setattr(process, "copy", copied)
    monkeypatch.setattr(supervision, "_is_safe", lambda: True)
