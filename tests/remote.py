# SPDX-License-Identifier: MIT
"""A server of a backend in a process of its own, and what stands between it and its clients."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tests.waiting import HANGS_S

__all__ = ["Running", "between", "counted", "heard", "serving"]


class Running(NamedTuple):
    """A server that listens.

    Attributes
    ----------
    address : str
    process : Popen
    """

    address: str
    process: subprocess.Popen[str]
    stderr: IO[str]

    def said(self) -> str:
        """All that it has written to stderr."""
        # Not by seek: the server writes where this descriptor stands.
        number = self.stderr.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode()


@contextlib.contextmanager
def serving(name: str | Path, *arguments: str, **environment: str) -> Iterator[Running]:
    """``astra-bridge serve-backend NAME``, until the end of the block."""
    command = [sys.executable, "-m", "astra_bridge", "serve-backend", str(name), *arguments]
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **environment},
            # Whoever runs the tests in the background ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            running = Running(line.rpartition(" ")[2].strip(), process, stderr)
            assert line.startswith("serving "), running.said()
            yield running
        finally:
            process.terminate()
            process.wait(HANGS_S)
            process.stdout.close()


def _apart(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


Change = Callable[[bytes], bytes]
"""What is made of some bytes on their way."""


def heard(address: str, each: Callable[[], None]) -> contextlib.AbstractContextManager[str]:
    """An address that passes everything on, after a call of ``each`` for what a client says."""
    return _between(address, lambda: -1, lambda data: data, each)


@contextlib.contextmanager
def counted(address: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """An address that passes everything on, and how often a client has said something to it."""
    said = 0

    def one_more() -> None:
        nonlocal said
        said += 1

    with heard(address, one_more) as there:
        yield there, lambda: said


@contextlib.contextmanager
def between(address: str, seed: int) -> Iterator[str]:
    """An address that passes everything on, but changes some of it.

    After the first change it ends what says nothing for a quarter of a second: whoever waits for
    the rest of a frame that was made longer would wait as long as a call may take.
    """
    rng = random.Random(seed)

    def changed(data: bytes) -> bytes:
        kind = rng.randrange(4)
        at = rng.randrange(len(data))
        if kind == 0:
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        if kind == 1:
            return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
        if kind == 2:
            return data[:at] + data[at + rng.randrange(1, 9) :]
        return data[:at] + rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff")) + data[at + 4 :]

    def when() -> int:
        return rng.choice((0, 0, 1, 2, 3, 5, 8, 20, 50))

    with _between(address, when, changed, lambda: None) as there:
        yield there


@contextlib.contextmanager
def _between(
    address: str, when: Callable[[], int], changed: Change, each: Callable[[], None]
) -> Iterator[str]:
    """Changes the piece of this number, -1 for none, of each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def pass_on(client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # either has closed its end
            shuttle(client)

    def shuttle(client: socket.socket) -> None:
        at, number = when(), 0
        with client, socket.create_connection(_apart(address)) as server:
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not ended.is_set():
                bent = 0 <= at < number
                ready, _, _ = select.select([client, server], [], [], 0.25 if bent else 0.1)
                if not ready and bent:
                    return
                for one in ready:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    if one is client:
                        each()
                    if number == at:
                        data = changed(data)
                    number += 1
                    (server if one is client else client).sendall(data)

    def accept() -> None:
        while not ended.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=pass_on, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
