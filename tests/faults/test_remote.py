# SPDX-License-Identifier: MIT
"""Servers die, strangers knock, frames are bent: one sentence, exit code 4, and nobody hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge import simulate
from astra_bridge.cli import main
from astra_bridge.errors import AstraBridgeError, BackendError, InputError, NetworkError
from astra_bridge.network.api import LINK, TIME_NEVER, TRANSFER, NetworkConfig
from astra_bridge.network.native import NativeNetwork, library_path
from astra_bridge.network.remote.address import Address
from astra_bridge.network.remote.backend import connect
from astra_bridge.network.remote.library import unavailable
from astra_bridge.network.remote.server import Server
from astra_bridge.workload import collective
from tests.effort import examples
from tests.remote import Running, between, heard, serving
from tests.small import network, system
from tests.waiting import HANGS_S, until

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

MAGIC = b"ASTRANET"
MOCK = str(library_path("mock"))
SMALL: tuple[Any, ...] = (collective("all-reduce", 1 << 16, 4), system(), network("Ring", 4))


def frame(kind: int, body: bytes, protocol: int = 1) -> bytes:
    return struct.pack("<IHH", len(body), protocol, kind) + body


def hello(token: bytes = b"", version: int = 1002) -> bytes:
    return MAGIC + frame(1, struct.pack("<II", version, len(token)) + token)


def end(server: Running) -> None:
    server.process.kill()
    server.process.wait()


# ---- the server dies ----


def test_the_server_dies_during_a_run(tmp_path: Path) -> None:
    """The command says so, with the address, and exit code 4."""
    with serving("flow") as server:
        said = 0

        def twenty_then_end() -> None:
            nonlocal said
            said += 1
            if said == 20:
                end(server)

        with (
            heard(server.address, twenty_then_end) as address,
            pytest.raises(NetworkError) as caught,
        ):
            simulate(*SMALL, backend=address, fold="off")
    assert said >= 20
    assert caught.value.exit_code == 4
    assert f"{address}: the server has closed the connection" in str(caught.value)


def test_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:  # so that nobody else listens there; it does not
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["conformance", f"tcp://127.0.0.1:{port}"]) == 4
    said = capsys.readouterr().err
    assert said == f"error: tcp://127.0.0.1:{port}: cannot be reached: Connection refused\n"


def test_the_backend_crashes_and_the_server_lives() -> None:
    with serving(MOCK) as server:
        options = {"fault": "segv", "fault.call": "exchange", "fault.nth": "3"}
        with pytest.raises(BackendError, match="the server has closed the connection"):
            simulate(*SMALL, backend=server.address, network_options=options)
        assert (simulate(*SMALL, backend=server.address).finish_ns > 0).all()
        assert "the process that served it was ended by SIGSEGV" in until(server.said)


def children(server: Running) -> list[str]:
    listed = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return listed.read_text().split() if listed.exists() else []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
def test_a_call_that_hangs_ends_with_its_client() -> None:
    with serving(MOCK) as server:
        options = {"fault": "hang", "fault.call": "exchange", "fault.nth": "3"}
        with pytest.raises(BackendError, match="no progress for 2 s"):
            simulate(
                *SMALL, backend=server.address, network_options=options, no_progress_timeout_s=2.0
            )
        assert until(lambda: children(server) == [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_server(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen = f"--listen=unix://{path}"
    with serving("flow", listen) as server, connected(server.address) as client:
        served = children(server)
        server.process.send_signal(number)
        assert server.process.wait(HANGS_S) == 128 + number
        rest(client)  # until the end of the connection, which comes
    assert not path.exists()
    assert not [number for number in served if Path(f"/proc/{number}").exists()]


@contextlib.contextmanager
def connected(address: str, words: bytes = hello()) -> Iterator[socket.socket]:
    """A client that has said hello."""
    where = Address.of(address)
    with socket.socket(socket.AF_UNIX if where.path else socket.AF_INET) as client:
        client.settimeout(HANGS_S)
        client.connect(where.path or (where.host, where.port))
        client.sendall(words)
        if words:
            assert client.recv(8) == MAGIC
        yield client


# ---- strangers ----


def rest(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := client.recv(65536):
            data += more
    return data


STRANGERS = {
    "http": (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "speaks another protocol"),
    "nothing": (b"", "left before its hello was whole"),
    "half a hello": (hello()[:13], "left before its hello was whole"),
    "another protocol": (MAGIC + frame(1, b"\0" * 8, protocol=2), "version 2 of the protocol"),
    "another contract": (hello(version=2000), "contract 2.0"),
    "another kind": (MAGIC + frame(5, b"\0" * 8), "a hello of kind 5"),
    "endless": (MAGIC + struct.pack("<IHH", 2**32 - 1, 1, 1), "4294967295 bytes"),
    "sizes that do not fit": (MAGIC + frame(1, struct.pack("<II", 1002, 9) + b"x"), "do not fit"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving("analytical-aware") as running:
        yield running
        assert "Sanitizer" not in running.said()


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_are_refused(server: Running, name: str) -> None:
    words, why = STRANGERS[name]
    before = len(server.said())
    with connected(server.address, b"") as client:
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)
        answer = rest(client)
    assert answer == b"" or answer.startswith(MAGIC)
    assert until(lambda: why in server.said()[before:]), server.said()
    assert (simulate(*SMALL, backend=server.address).finish_ns > 0).all()


BAD_CALLS = {
    "no call": (frame(99, b"\0" * 4), b"", "is no call"),
    "no simulation": (frame(12, struct.pack("<I", 7)), b"no simulation has the number 7", ""),
    "too short": (frame(6, b"\0" * 4), b"", "holds less than its kind has"),
    "too long": (frame(12, b"\0" * 400), b"", "holds more than its kind has"),
    "half a record": (frame(2, b"\0" * 8 + struct.pack("<Q", 2**60)), b"", "holds less than"),
    "another protocol": (frame(12, b"\0" * 4, protocol=9), b"", "speaks version 9"),
    "parts without end": (
        frame(2, (struct.pack("<iiQII", 2, 2, 0, 0, 1) + struct.pack("<I", 0)) * 50),
        b"",
        "without end",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_end_the_connection_or_are_refused(server: Running, name: str) -> None:
    words, answer, said = BAD_CALLS[name]
    before = len(server.said())
    with connected(server.address) as client:
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)
        assert answer in rest(client)
    if said:
        assert until(lambda: said in server.said()[before:]), server.said()


# ---- servers that are none ----


@contextlib.contextmanager
def pretending(*answers: bytes, linger: bool = False) -> Iterator[str]:
    """A server that answers the first bytes of each client with these, one after another."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            for answer in answers:
                client, _ = listener.accept()
                with client:
                    client.recv(4096)
                    client.sendall(answer)
                    while linger and client.recv(4096):
                        pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def welcome(name: bytes = b"mock", *, version: int = 1003, grid_ps: int = 1) -> bytes:
    texts = b"".join(struct.pack("<I", len(one)) + one for one in (name, b"1", b"mock"))
    return MAGIC + frame(
        64, struct.pack("<IIQqqII", version, 0, 0, grid_ps, 2**63 - 1, 1, 0) + texts
    )


PRETENDERS = {
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks another protocol than servers of"),
    "nothing": (b"", "has closed the connection"),
    "half a magic": (b"ASTR", "has closed the connection"),
    "another protocol": (MAGIC + frame(64, b"", protocol=7), "speaks version 7 of the protocol"),
    "endless": (MAGIC + struct.pack("<IHH", 2**32 - 1, 1, 64), "4294967295 bytes; at most"),
    "another kind": (MAGIC + frame(66, b""), "did not answer with a welcome"),
    "too short": (MAGIC + frame(64, b"\0" * 9), "holds less than its kind has"),
    "a NUL": (welcome(b"mo\0ck"), "a text with a NUL inside"),
    "another contract": (welcome(version=2000), "speaks version 2000 of the contract"),
    "no name": (welcome(b""), "info: name is ''"),
    "no grid": (welcome(grid_ps=0), "info: resolution_ps is 0"),
    "a refusal": (
        MAGIC + frame(65, struct.pack("<iiqI", 6, 0, -1, 4) + b"busy"),
        "the server refuses: busy",
    ),
}


@pytest.mark.parametrize("name", PRETENDERS)
def test_what_is_no_server_is_said_to_be_none(name: str) -> None:
    answer, why = PRETENDERS[name]
    with pretending(answer, answer, answer) as address:
        with pytest.raises(BackendError) as caught:
            connect(Address.of(address))
        assert why in str(caught.value)
        assert address in str(caught.value)
        assert caught.value.exit_code == 4


def test_another_backend_at_the_same_address_is_found_out() -> None:
    with pretending(welcome(), welcome(b"other")) as address:
        library = connect(Address.of(address)).library
        with pytest.raises(BackendError, match=r"another backend is served now.*: other 1"):
            NativeNetwork.open(library, NetworkConfig(2, 2))


def test_a_server_that_answers_nothing_is_ended_by_the_watchdog() -> None:
    late = pytest.raises(BackendError, match="no progress for 2 s")
    with pretending(*[welcome()] * 9, linger=True) as address, late:
        simulate(*SMALL, backend=address, no_progress_timeout_s=2.0)


# ---- frames that are bent on the way ----


def conversation(network_: NativeNetwork) -> bytes:
    """A bit of everything; what all of it said."""
    said = b""
    items = np.zeros(6, TRANSFER)
    items["id"], items["bytes"] = 4 * np.arange(6), 4096
    items["src"], items["dst"] = np.arange(6) % 4, (np.arange(6) + 1) % 4
    network_.set_link(0, 10, 0.5)
    assert network_.submit(items) == 6
    said += str(network_.peek()).encode()
    with network_.snapshot() as copy:
        said += str(copy.advance(TIME_NEVER)).encode() + copy.poll().tobytes()
    network_.restore(network_.save())
    while True:
        step = network_.advance(TIME_NEVER)
        records = network_.poll()
        said += str(step).encode() + records.tobytes()
        if not len(records):
            return said + str(network_.stats()).encode()


def small_config() -> NetworkConfig:
    links = np.array(
        [(a, b, 50e9, 500_000, 0.0) for a in range(4) for b in range(4) if a != b], LINK
    )
    return NetworkConfig(4, 4, links, {})


def test_bent_frames_end_in_a_sentence_on_both_sides() -> None:
    """Whatever is changed on the way: the right answer, or an error; neither side dies or hangs."""
    ended = 0
    count = examples(90)
    with serving("flow") as server:
        library = connect(Address.of(server.address)).library
        with NativeNetwork.open(library, small_config()) as direct:
            right = conversation(direct)
        for seed in range(count):
            with between(server.address, seed) as address:
                try:
                    bent = connect(Address.of(address)).library
                    with NativeNetwork.open(bent, small_config()) as opened:
                        conversation(opened)
                except (AstraBridgeError, AssertionError):
                    ended += 1
        with NativeNetwork.open(library, small_config()) as direct:
            assert conversation(direct) == right
        said = server.said()
    assert "Sanitizer" not in said
    assert "SIG" not in said
    assert ended > count // 3


@pytest.mark.slow
def test_a_frame_that_never_ends_does_not_hang() -> None:
    with serving("flow") as server, connected(server.address) as client:
        client.sendall(struct.pack("<IHH", 1000, 1, 2) + b"\0" * 10)
        rest(client)
        # The process that served it still has to say so.
        assert until(lambda: "has stopped inside a frame" in server.said()), server.said()


# ---- who may come ----


def test_a_token() -> None:
    with serving("flow", ASTRA_BRIDGE_TOKEN="open sesame") as server:
        for wrong in ("", "open", "open sesame!"):
            with pytest.raises(BackendError, match=r"the token is missing or wrong.*ASTRA_BRIDGE_"):
                connect(Address.of(server.address), wrong)
        assert connect(Address.of(server.address), "open sesame").name == "flow"
        command = [sys.executable, "-m", "astra_bridge", "conformance", "--rule=R1", server.address]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 4
        assert "the token is missing or wrong" in run.stderr
        with_token = {**os.environ, "ASTRA_BRIDGE_TOKEN": "open sesame"}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=with_token)
        assert run.returncode == 0, run.stderr


def test_beyond_this_machine_only_with_a_token() -> None:
    with pytest.raises(InputError, match="can be reached from other machines, which needs a token"):
        Server("flow", "tcp://0.0.0.0:0")
    with Server("flow", "tcp://0.0.0.0:0", token="x") as server:
        assert server.address.startswith("tcp://0.0.0.0:")


def test_a_socket_file_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server("flow", f"unix://{path}") as server:
        assert path.stat().st_mode & 0o077 == 0
        with pytest.raises(InputError, match="cannot listen at"):
            Server("flow", f"unix://{path}")
        assert path.exists()
    assert not path.exists()
    # One that was killed leaves its file, which is no obstacle.
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Server("flow", server.address):
        pass


@pytest.mark.parametrize(
    "text",
    ["tcp://", "tcp://host", "tcp://:1", "tcp://h:65536", "tcp://h:x", "tcp://::1:4", "tcp://a b:1",
     "tcp://u@h:1", "tcp://h:1/x", "unix://relative", "unix://", "http://h:1", "://h:1", "TCP://h:1",
     "tcp://h:-1", "tcp://h:1\n", "tcp://[::1:1"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InputError, match="is no address; allowed: tcp://HOST:PORT, unix:///PATH"):
        Address.of(text)
