# SPDX-License-Identifier: MIT
"""A recording repeats itself on the same backend, and shows where another one differs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from astra_bridge.errors import ContractError, InputError
from astra_bridge.network.api import LINK, TIME_NEVER, TRANSFER, Network, NetworkConfig
from astra_bridge.network.native import NativeNetwork
from astra_bridge.network.record import RecordingNetwork, ReplayError, replay


def config(**options: str) -> NetworkConfig:
    links = np.zeros(1, LINK)
    links["dst"], links["bytes_per_second"], links["latency_ps"] = 1, 1e9, 500
    return NetworkConfig(4, 4, links, options)


@pytest.fixture
def recording(mock_library: Path, tmp_path: Path) -> Path:
    file = tmp_path / "calls.jsonl"
    items = np.zeros(3, TRANSFER)
    items["id"], items["bytes"], items["src"], items["dst"] = [1, 2, 3], 2**40 + 1, 0, [1, 2, 3]
    made = config(contention="true")
    with RecordingNetwork(NativeNetwork.open(mock_library, made), made, file) as network:
        assert isinstance(network, Network)
        assert network.submit(items) == 3
        with contextlib.suppress(ContractError):
            network.submit(items)
        network.set_link(0, 10**9, 0.5)
        while network.advance(TIME_NEVER).stop != 3:
            network.poll()
        assert network.stats()["tables"]
    return file


def test_the_same_backend_answers_the_same(mock_library: Path, recording: Path) -> None:
    # submit twice, set_link, three times advance and poll, the last advance, stats
    assert replay(recording, lambda c: NativeNetwork.open(mock_library, c)) == 11


def test_another_backend_shows_where_it_differs(mock_library: Path, recording: Path) -> None:
    def other(given: NetworkConfig) -> Network:
        options = {**given.options, "fault": "early", "fault.nth": "2"}
        return NativeNetwork.open(mock_library, NetworkConfig(4, 4, given.links, options))

    with pytest.raises(ReplayError, match=r"calls\.jsonl: call 7, poll: recorded .*\[2, "):
        replay(recording, other)


def test_exchange_is_recorded_too(mock_library: Path, tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    items = np.zeros(2, TRANSFER)
    items["id"], items["bytes"], items["dst"] = [0, 4], 1000, 1
    with RecordingNetwork(NativeNetwork.open(mock_library, config()), config(), file) as network:
        assert len(network.exchange(items, 0, TIME_NEVER, TIME_NEVER, 8).completions) == 2
    assert replay(file, lambda c: NativeNetwork.open(mock_library, c)) == 1


def test_a_recording_that_ends_in_a_crash_is_replayed_up_to_it(
    mock_library: Path, recording: Path
) -> None:
    lines = recording.read_text().splitlines()
    recording.write_text("\n".join(lines[:4]))
    assert replay(recording, lambda c: NativeNetwork.open(mock_library, c)) == 1


def test_only_calls_of_the_contract_are_replayed(mock_library: Path, recording: Path) -> None:
    recording.write_text(recording.read_text().replace('"call":"poll"', '"call":"close"', 1))
    with pytest.raises(InputError, match=r"call 5 is broken: .*no call 'close'"):
        replay(recording, lambda c: NativeNetwork.open(mock_library, c))


@pytest.mark.parametrize("text", ["", "{}", "no JSON", '{"links": [[1]]}'])
def test_what_is_no_recording(tmp_path: Path, text: str) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match="is not a recording"):
        replay(file, lambda _: pytest.fail("opened"))  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="cannot be read"):
        replay(tmp_path / "none", lambda _: pytest.fail("opened"))  # type: ignore[arg-type, return-value]
