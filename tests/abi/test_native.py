# SPDX-License-Identifier: MIT
"""The loader: versions, stubs, statuses, and what it says about libraries that misbehave."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from astra_bridge.errors import (
    BackendError,
    ContractError,
    InputError,
    Interrupted,
    NetworkError,
    SimulationError,
    Unsupported,
)
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.network import registry
from astra_bridge.network.api import (
    COMPLETION,
    LINK,
    TIME_NEVER,
    TRANSFER,
    Advance,
    Capability,
    Network,
    NetworkConfig,
    Status,
    Stop,
)
from astra_bridge.network.native import Library, NativeNetwork, library_backend
from astra_bridge.network.spec import NetworkRequest

ROOT = Path(__file__).parents[2]


def batch(*rows: tuple[int, int, int, int, int]) -> np.ndarray:
    """Transfers of (id, start_ps, bytes, src, dst)."""
    items = np.zeros(len(rows), TRANSFER)
    for item, row in zip(items, rows, strict=True):
        item["id"], item["start_ps"], item["bytes"], item["src"], item["dst"] = row
    return items


def opened(library: Path, **options: str) -> NativeNetwork:
    links = np.zeros(2, LINK)
    links["dst"], links["src"] = [1, 0], [0, 1]
    links["bytes_per_second"], links["latency_ps"] = 1e9, 500
    return NativeNetwork.open(
        library,
        NetworkConfig(4, 4, links, {key.replace("_", "."): v for key, v in options.items()}),
    )


def test_a_transfer_takes_what_the_formula_says(mock_library: Path) -> None:
    with opened(mock_library) as network:
        assert isinstance(network, Network)
        assert network.submit(batch((7, 100, 3000, 0, 1))) == 1
        # 100 ps + 3000 B / 1 GB/s + 500 ps = 3_000_600 ps
        assert network.advance(TIME_NEVER) == (3_000_600, Stop.COMPLETION)
        done = network.poll()
        assert done.dtype == COMPLETION
        assert done.tolist() == [(7, 3_000_600, 1, 0, 0)]
        assert network.advance(TIME_NEVER) == (3_000_600, Stop.IDLE)
        assert network.advance(4_000_000) == Advance(4_000_000, Stop.REACHED)


def test_more_completions_than_one_buffer(mock_library: Path) -> None:
    with opened(mock_library) as network:
        count = 5000
        items = np.zeros(count, TRANSFER)
        items["id"], items["bytes"], items["dst"] = np.arange(count), 8, 1
        assert network.submit(items) == count
        network.advance(TIME_NEVER)
        assert network.poll()["id"].tolist() == list(range(count))


def test_handle_gives_the_addresses_for_native_callers(mock_library: Path) -> None:
    with opened(mock_library) as one, opened(mock_library) as two:
        assert one.handle[0] == two.handle[0] != 0
        assert one.handle[1] != two.handle[1] != 0


def test_stats_have_the_links_table(mock_library: Path) -> None:
    with opened(mock_library) as network:
        network.submit(batch((1, 0, 3000, 0, 1)))
        network.advance(TIME_NEVER)
        links = network.stats()["tables"]["links"]
        assert set(links) == {"link", "src", "dst", "bytes", "busy_ps"}
        assert (links["bytes"][0], links["busy_ps"][0]) == (3000, 3_000_000)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (1, Unsupported),
        (2, ContractError),
        (3, ContractError),
        (4, Interrupted),
        (5, SimulationError),
        (6, BackendError),
    ],
)
def test_status_becomes_exception(
    mock_library: Path, status: int, kind: type[NetworkError]
) -> None:
    network = opened(mock_library, fault=f"status:{status}", fault_call="poll")
    with pytest.raises(kind, match=f"mock: poll: injected status {status}") as caught:
        network.poll()
    error = caught.value
    assert type(error) is kind
    assert (error.backend, error.call, error.status, error.item) == ("mock", "poll", status, -1)


def test_an_unknown_status_and_an_unreadable_message_are_reported(mock_library: Path) -> None:
    with (
        opened(mock_library, fault="garbage") as network,
        pytest.raises(BackendError, match="status 99, which the contract does not know") as caught,
    ):
        network.advance(1)
    assert caught.value.item == 12345


def test_an_error_names_the_item_and_the_limit(mock_library: Path) -> None:
    with opened(mock_library) as network, pytest.raises(ContractError) as caught:
        network.submit(batch((1, 0, 8, 0, 1), (2, 0, 8, 0, 64)))
    assert str(caught.value) == (
        "mock: submit: item 1: src=0, dst=64 but the topology has 4 endpoints (0..3)"
    )
    assert (caught.value.item, caught.value.status) == (1, Status.INVALID)


def test_closed_is_closed(mock_library: Path) -> None:
    network = opened(mock_library)
    network.close()
    network.close()
    network.interrupt()
    with pytest.raises(ContractError, match="advance: the simulation is closed"):
        network.advance(1)


def test_wrong_arrays_are_refused_before_c_sees_them(mock_library: Path) -> None:
    with opened(mock_library) as network:
        with pytest.raises(ContractError, match="dtype TRANSFER"):
            network.submit(np.zeros(3))
        with pytest.raises(ContractError, match="outside int64"):
            network.advance(2**63)
        strided = np.zeros(8, TRANSFER)[::2]
        strided["id"], strided["bytes"], strided["dst"] = np.arange(4), 8, 1
        assert network.submit(strided) == 4


def test_log_goes_to_logging(mock_library: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), opened(mock_library, fault="log-thread") as network:
        network.advance(1)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("astra_bridge.network.mock", 20)


def test_the_options_of_create_are_checked(mock_library: Path) -> None:
    with pytest.raises(ContractError, match="option 'rate' is 'x'; allowed: rate_Bps"):
        opened(mock_library, rate="x")


def test_a_library_path_is_a_backend(mock_library: Path) -> None:
    spec = registry.backend(str(mock_library))
    assert spec.unavailable() is None
    assert spec.isolate
    ring = NetworkDims(("Ring",), (4,), (50.0,), (500.0,))
    prepared = spec.prepare(NetworkRequest(ring, options={"contention": "true"}))
    assert (prepared.config.endpoints, len(prepared.config.links), prepared.dims) == (4, 8, (4,))
    with spec.open(prepared.config) as network:
        assert Capability.ORDERED in network.info.capabilities


def test_what_is_not_there_or_not_a_library(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such library"):
        library_backend(tmp_path / "nothing.so")
    text = tmp_path / "text.so"
    text.write_text("not a library")
    with pytest.raises(BackendError, match=r"text\.so: cannot be loaded"):
        Library.load(text)


def test_a_library_that_is_no_backend() -> None:
    import _cffi_backend

    with pytest.raises(BackendError, match="exports no astra_net_backend_init"):
        Library.load(_cffi_backend.__file__)


# The mock reads ASTRA_NET_MOCK when it is loaded, so these run in a process of their own.
PROBE = """
import json, sys
from pathlib import Path
from astra_bridge.errors import AstraBridgeError
from astra_bridge.network.native import Library
try:
    library = Library.load(Path(sys.argv[1]))
    print(json.dumps([library.version, sorted(library.missing)]))
except AstraBridgeError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def load_with(mock_library: Path, fault: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(mock_library)],
        env={**os.environ, "ASTRA_NET_MOCK": fault, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    result: list[object] = json.loads(done.stdout)
    return result


def test_an_old_library_is_spoken_to_in_1_0(mock_library: Path) -> None:
    assert load_with(mock_library, "none,version,1000") == [
        1000,
        ["exchange", "load", "peek", "save"],
    ]


def test_a_library_of_another_age_is_refused(mock_library: Path) -> None:
    kind, message = load_with(mock_library, "none,version,999")
    assert kind == "BackendError"
    said = "speaks none of the versions 1.3, 1.2, 1.1, 1.0 of the contract: init: version 1003"
    assert said in str(message)


@pytest.mark.parametrize("entry", ["create", "advance", "poll"])
def test_a_missing_required_entry_is_named(mock_library: Path, entry: str) -> None:
    kind, message = load_with(mock_library, f"missing,{entry}")
    assert kind == "BackendError"
    assert f"lacks the required entry '{entry}'" in str(message)


def test_a_missing_optional_entry_becomes_a_stub(mock_library: Path) -> None:
    assert load_with(mock_library, "missing,stats") == [1001, ["load", "peek", "save", "stats"]]


def test_bad_info_is_a_load_error(mock_library: Path) -> None:
    kind, message = load_with(mock_library, "garbage,info")
    assert (kind, "info: name is ''" in str(message)) == ("BackendError", True)
