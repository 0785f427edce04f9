# SPDX-License-Identifier: MIT
"""astra_net.hpp: the flags of the docs, private wires, and models that break promises."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_bridge.conformance import run
from astra_bridge.conformance.drive import simulate, transfers
from astra_bridge.conformance.subject import Subject, subject
from astra_bridge.errors import BackendError, ContractError, Interrupted, SimulationError
from astra_bridge.network.api import TIME_NEVER, TRANSFER, NetworkConfig, Stop
from astra_bridge.network.native import NativeNetwork, library_backend
from tests.effort import examples

ROOT = Path(__file__).parents[2]
WIRE = Path(__file__).with_name("wire.cpp")


def documented_command() -> list[str]:
    """What docs/contract.md tells a backend's author to type."""
    lines = (ROOT / "docs" / "contract.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("c++ "))
    return shlex.split(line)


def compiled(source: Path, folder: Path, missing: Callable[[str, str], None]) -> Path:
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        missing("native", f"no C++ compiler {compiler}")
    library = folder / f"lib{source.stem}.so"
    changed = {
        "c++": compiler,
        "my-net/src/my_net/backend.cpp": str(source),
        "libmine.so": str(library),
    }
    command = [changed.get(word, word) for word in documented_command()]
    assert set(changed) <= set(documented_command())
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    done = subprocess.run(
        [*command, *strict], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return library


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]) -> Path:
    return compiled(WIRE, tmp_path_factory.mktemp("wire"), missing)


@pytest.fixture(scope="module")
def unruly(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]) -> Path:
    source = Path(__file__).with_name("unruly.cpp")
    return compiled(source, tmp_path_factory.mktemp("unruly"), missing)


def test_it_conforms(wire: Path) -> None:
    verdicts = run(library_backend(wire))
    outcomes = {verdict.rule: verdict.outcome for verdict in verdicts}
    assert outcomes.pop("R15") == "skip"  # ORDERED is not declared
    # Nor SAVE, PEEK and REDUCTION.
    assert [outcomes.pop(rule) for rule in ("R16", "R17", "R19")] == ["skip"] * 3
    assert set(outcomes.values()) == {"pass"}, verdicts


@pytest.fixture(scope="module")
def both(wire: Path, mock_library: Path) -> tuple[Subject, Subject]:
    """The C++ helper and the C reference, which share no line, with the same numbers."""
    numbers = {"rate_Bps": "3e9", "latency_ps": "700"}
    return tuple(subject(library_backend(path), options=numbers) for path in (wire, mock_library))


TRANSFERS = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 20), st.integers(0, 5), st.integers(1, 5)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=examples(150), deadline=None)
@given(
    rows=TRANSFERS,
    steps=st.lists(st.integers(0, 12_000), max_size=6),
    lookahead_ps=st.sampled_from([0, 1, 50, 1000, TIME_NEVER]),
    batches=st.integers(1, 4),
)
def test_helper_and_reference_agree(
    both: tuple[Subject, Subject],
    rows: list[tuple[int, int, int, int]],
    steps: list[int],
    lookahead_ps: int,
    batches: int,
) -> None:
    items = transfers(
        (number, start, size, src, (src + hop) % 6)
        for number, (start, size, src, hop) in enumerate(rows)
    )
    one, two = (
        simulate(s, items, steps=sorted(steps), lookahead_ps=lookahead_ps, batches=batches)
        for s in both
    )
    # Inside an instant each model has its own order.
    assert np.sort(one, order=["time_ps", "id"]).tolist() == (
        np.sort(two, order=["time_ps", "id"]).tolist()
    )


def one_transfer(start_ps: int = 0, number: int = 5) -> np.ndarray:
    return transfers([(number, start_ps, 8, 0, 1)])


def attempt(unruly: Path, act: str) -> NativeNetwork:
    network = NativeNetwork.open(unruly, NetworkConfig(3, 3, options={"act": act}))
    network.submit(one_transfer())
    return network


@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        ("throw", BackendError, "advance: xxx"),
        ("throw-int", BackendError, "advance: unknown exception"),
        ("no-memory", BackendError, "advance: out of memory"),
        ("stranger", BackendError, "transfer 6 was delivered but not in flight"),
        ("descend", BackendError, "comes after one at 100 ps"),
        ("stand", BackendError, "the model stands still at 0 ps on its way"),
        (
            "forget",
            SimulationError,
            r"no event is left, but 1 transfers are in flight: 5 \(all of them at the cloakroom\)",
        ),
    ],
)
def test_no_exception_leaves_the_library(
    unruly: Path, act: str, kind: type[Exception], words: str
) -> None:
    with attempt(unruly, act) as network:
        with pytest.raises(kind, match=words) as caught:
            network.advance(TIME_NEVER)
        # A message that is cut ends with a whole character.
        assert "�" not in str(caught.value)
        with pytest.raises(ContractError, match="only destroy"):
            network.poll()


def test_one_simulation_per_process_where_the_simulator_wants_it(unruly: Path) -> None:
    with (
        attempt(unruly, "behave"),
        pytest.raises(ContractError, match="one simulation per process, and one exists"),
    ):
        attempt(unruly, "behave")
    attempt(unruly, "behave").close()


def test_starts_round_up_to_the_grid_and_back_pressure_limits(unruly: Path) -> None:
    with attempt(unruly, "behave") as network:
        assert network.submit(np.concatenate([one_transfer(7, k) for k in range(10, 16)])) == 3
        assert network.submit(one_transfer(7, 20)) == 0
        assert network.advance(TIME_NEVER) == (100, Stop.COMPLETION)
        assert network.poll()["id"].tolist() == [5]
        assert network.advance(TIME_NEVER) == (110, Stop.COMPLETION)
        assert network.poll()["id"].tolist() == [10, 11, 12]
        late = one_transfer(TIME_NEVER - 3, 21)
        with pytest.raises(ContractError, match="start_ps="):
            network.submit(late)
        second_class = one_transfer(200, 22)
        second_class["traffic_class"] = 2
        with pytest.raises(ContractError, match="traffic_class=2 but there are 2"):
            network.submit(second_class)


def test_interrupt_is_kept_for_the_next_advance(unruly: Path) -> None:
    with attempt(unruly, "behave") as network:
        network.interrupt()
        with pytest.raises(Interrupted):
            network.advance(TIME_NEVER)
        assert network.advance(TIME_NEVER) == (100, Stop.COMPLETION)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"act": "dance"}, "option 'act' is 'dance', but must be one of behave, throw"),
        ({"cat": "behave"}, "option 'cat' is unknown; allowed: act"),
    ],
)
def test_options_are_checked(unruly: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        NativeNetwork.open(unruly, NetworkConfig(3, 3, options=options))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("dst", 9, "link 0: 0 -> 9, but there are 3 nodes"),
        ("bytes_per_second", 0.0, "must be positive"),
        ("bytes_per_second", np.inf, "must be positive"),
        ("latency_ps", -1, "latency_ps=-1 is negative"),
        ("loss", np.nan, "must be from 0 to 1"),
    ],
)
def test_links_are_checked(unruly: Path, field: str, value: float, words: str) -> None:
    config = NetworkConfig(3, 3)
    links = np.zeros(1, config.links.dtype)
    links["dst"], links["bytes_per_second"] = 1, 1e9
    links[field] = value
    with pytest.raises(ContractError, match=words):
        NativeNetwork.open(unruly, NetworkConfig(3, 3, links))
    assert TRANSFER.itemsize == 48
