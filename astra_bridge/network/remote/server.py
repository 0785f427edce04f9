# SPDX-License-Identifier: MIT
"""The far end: listens, greets, and gives each connection a process of its own.

A process for each, because a backend may crash, hang, or exist once per process; it ends with its
connection, and with the server.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from astra_bridge.errors import BackendUnavailable, InputError
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.network.api import NetworkInfo, Status
from astra_bridge.network.composite.backend import part_library
from astra_bridge.network.header import ffi
from astra_bridge.network.native import Library, lends
from astra_bridge.network.registry import backend_spec
from astra_bridge.network.remote.address import TOKEN, Address
from astra_bridge.network.remote.callbacks import PythonTable
from astra_bridge.network.remote.library import entry, unavailable
from astra_bridge.network.spec import BackendSpec, NetworkRequest
from astra_bridge.supervision import die_with
from astra_bridge.text import one_line

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ANYWHERE", "Server"]

ANYWHERE = "tcp://127.0.0.1:0"
"""This machine alone, at a port that the system chooses."""

_MAGIC = b"ASTRANET"
_HEAD = struct.Struct("<IHH")  # size, version of the protocol, kind
_PROTOCOL = 1
_HELLO, _WELCOME, _REPLY = 1, 64, 65
_SIZE = struct.Struct("<I")
_REFUSAL = struct.Struct("<iiq")
_DECLARED = struct.Struct("<IIQqqII")
_ENTRIES = ("interrupt", "set_link", "stats", "snapshot", "exchange", "save", "peek")
_MOST_HELLO = 1 << 16
_GREETING_S = 10.0
_PATIENCE_MS = 5000
_TICK_S = 0.5
_SMALL = NetworkDims(("FullyConnected",), (6,), (50.0,), (500.0,))


class _Refused(Exception):
    """Nobody is served here; ``answer`` is for those who speak the protocol."""

    def __init__(self, why: str, *, answer: bool = True) -> None:
        super().__init__(why)
        self.answer = answer


class _Loaded(NamedTuple):
    version: int
    table: Any
    info: NetworkInfo
    entries: int
    keep: Any


class Server:
    """Puts a backend of this machine behind an address.

    Parameters
    ----------
    backend : str or BackendSpec or class
        As everywhere: a name, a path, a specification, or a class of networks in Python.
    listen : str
        "tcp://HOST:PORT" (port 0: the system chooses) or "unix:///PATH".
    token : str
        What a client must show; "" lets everybody in.  Beyond this machine, one is needed.
    most_clients : int
        How many are served at once; more have to wait.
    say : callable
        Called with a line for each connection that ends badly.

    Attributes
    ----------
    address : str
        Where it listens.

    Raises
    ------
    InputError
        The address cannot be listened at, or is open to others without a token.
    BackendUnavailable
        The backend, or a server of any, cannot run here.

    Examples
    --------
    >>> with Server("analytical-aware-python") as server:  # then server.run()
    ...     server.address.startswith("tcp://127.0.0.1:")
    True
    """

    def __init__(
        self,
        backend: Any,
        listen: str = ANYWHERE,
        *,
        token: str = "",
        most_clients: int = 64,
        say: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
    ) -> None:
        self._spec: BackendSpec = backend_spec(backend)
        for what, missing in (
            (f"backend {self._spec.name!r}", self._spec.unavailable()),
            ("a server of backends", unavailable()),
        ):
            if missing is not None:
                raise BackendUnavailable(f"{what} cannot run here: {missing}")
        self._spec.make_ready()
        self._token, self._most, self._say = token, most_clients, say
        self._children: dict[int, str] = {}
        self._address = Address.of(listen, "--listen")
        self._socket = self._listening()

    def _listening(self) -> socket.socket:
        address = self._address
        made = None
        try:
            if address.path:
                _remove_dead(address)
                made = socket.socket(socket.AF_UNIX)
                before = os.umask(0o177)  # for this user alone
                try:
                    made.bind(address.path)
                finally:
                    os.umask(before)
            else:
                family, kind, protocol, _, where = socket.getaddrinfo(
                    address.host, address.port, type=socket.SOCK_STREAM
                )[0]
                if not self._token and not ipaddress.ip_address(where[0]).is_loopback:
                    raise InputError(
                        f"{address} can be reached from other machines, which needs a token: "
                        f"--token or {TOKEN}",
                        key="--listen",
                    )
                made = socket.socket(family, kind, protocol)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(where)
                self._address = Address(host=str(where[0]), port=int(made.getsockname()[1]))
            made.listen(64)
        except OSError as error:
            if made is not None:
                made.close()
            raise InputError(
                f"cannot listen at {address}: {error.strerror or error}", key="--listen"
            ) from None
        except InputError:
            raise
        return made

    @property
    def address(self) -> str:
        return str(self._address)

    def run(self) -> None:
        """Serve, until an exception (such as that of a signal) ends it."""
        self._socket.settimeout(_TICK_S)
        while True:
            self._reap()
            if len(self._children) >= self._most:
                time.sleep(_TICK_S / 10)
                continue
            try:
                connection, peer = self._socket.accept()
            except TimeoutError:
                continue
            except ConnectionError:  # gone before it was greeted
                continue
            with connection:
                self._fork(connection, peer)

    def _fork(self, connection: socket.socket, peer: Any) -> None:
        who = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "a client"
        server = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        number = os.fork()
        if number:
            self._children[number] = who
            return
        code = 1
        try:
            die_with(server)
            for name in ("SIGTERM", "SIGHUP", "SIGXCPU"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; the server ends us
            self._socket.close()
            os.dup2(2, 1)  # the first lines of the server's own output are its address
            code = self._session(connection, who)
        except BaseException as error:
            self._say(f"{who}: {type(error).__name__}: {one_line(str(error))}")
        finally:
            os._exit(code)  # nothing of the server's own is to be cleaned up here

    def _session(self, connection: socket.socket, who: str) -> int:
        """The child's work; returns its exit code."""
        try:
            _greeted(connection, self._token)
            loaded = self._load()
        except _Refused as refusal:
            self._say(f"{who}: refused: {refusal}")
            if refusal.answer:
                _refuse(connection, str(refusal))
            return 0
        except Exception as error:
            _refuse(connection, str(error) or repr(error))
            raise
        parsed = ffi()
        connection.sendall(_MAGIC + _welcome(loaded, self._spec.name))
        lend, lent = lends(part_library)
        host = parsed.new("astra_net_host *")
        host.struct_size, host.lend = parsed.sizeof("astra_net_host"), lend
        err = parsed.new("astra_net_error *")
        err.struct_size = parsed.sizeof("astra_net_error")
        connection.settimeout(None)
        descriptor = connection.detach()
        serve = entry("astra_remote_serve")
        status = serve(descriptor, loaded.table, host, _PATIENCE_MS, err)
        del lent
        if status:
            self._say(f"{who}: {parsed.string(err.message).decode('utf-8', 'replace')}")
        return 0

    def _load(self) -> _Loaded:
        spec = self._spec
        if spec.library is not None:
            where = spec.library()
            library = where if isinstance(where, Library) else Library.load(where, trusted=True)
            entries = sum(
                1 << bit for bit, name in enumerate(_ENTRIES) if name not in library.missing
            )
            return _Loaded(library.version, library.table, library.info, entries, library)
        # What a network in Python declares, one of them says.
        prepared = spec.prepare(NetworkRequest(_SMALL))
        with spec.open(prepared.config) as network:
            info = network.info
        made = PythonTable(spec.open, info)
        entries = sum(
            1 << bit for bit, name in enumerate(_ENTRIES) if getattr(made.table, name) != ffi().NULL
        )
        return _Loaded(1003, made.table, info, entries, made)

    def _reap(self) -> None:
        for number, who in list(self._children.items()):
            ended, status = os.waitpid(number, os.WNOHANG)
            if ended:
                del self._children[number]
                code = os.waitstatus_to_exitcode(status)
                if code < 0:
                    with contextlib.suppress(ValueError):
                        name = signal.Signals(-code).name
                        self._say(f"{who}: the process that served it was ended by {name}")

    def close(self) -> None:
        """Stop listening, and end all that is served."""
        self._socket.close()
        if self._address.path:
            Path(self._address.path).unlink(missing_ok=True)
        for number in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for number in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(number, 0)
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _remove_dead(address: Address) -> None:
    """The socket file of a server that was killed: nobody answers there."""
    path = Path(address.path)
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            path.unlink()


def _greeted(connection: socket.socket, token: str) -> None:
    """Read the hello of a client.

    Raises
    ------
    _Refused
        It is none, or shows another token.
    """
    until_s = time.monotonic() + _GREETING_S

    def read(size: int) -> bytes:
        data = b""
        while len(data) < size:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise _Refused(f"said no hello within {_GREETING_S:g} s", answer=False)
            connection.settimeout(left_s)
            try:
                more = connection.recv(size - len(data))
            except TimeoutError:
                continue
            except OSError as error:
                raise _Refused(f"left: {error.strerror}", answer=False) from None
            if not more:
                raise _Refused("left before its hello was whole", answer=False)
            data += more
        return data

    magic = read(len(_MAGIC))
    if magic != _MAGIC:
        raise _Refused(f"speaks another protocol: it began with {magic!r}", answer=False)
    size, protocol, kind = _HEAD.unpack(read(_HEAD.size))
    if protocol != _PROTOCOL:
        raise _Refused(f"version {protocol} of the protocol; this server speaks {_PROTOCOL}")
    if kind != _HELLO or not 2 * _SIZE.size <= size <= _MOST_HELLO:
        raise _Refused(f"a hello of kind {kind} and {size} bytes is none", answer=False)
    body = read(size)
    (version,), (length,) = _SIZE.unpack_from(body), _SIZE.unpack_from(body, _SIZE.size)
    if version // 1000 != 1:
        raise _Refused(f"contract {version // 1000}.{version % 1000}; this server speaks 1.2")
    shown = body[2 * _SIZE.size :]
    if length != len(shown):
        raise _Refused("a hello whose sizes do not fit", answer=False)
    if token and not hmac.compare_digest(shown, token.encode()):
        raise _Refused(f"the token is missing or wrong; it is taken from {TOKEN}")


def _frame(kind: int, body: bytes) -> bytes:
    return _HEAD.pack(len(body), _PROTOCOL, kind) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return _SIZE.pack(len(data)) + data


def _refuse(connection: socket.socket, why: str) -> None:
    body = _REFUSAL.pack(int(Status.INTERNAL), 0, -1) + _text(one_line(why))
    with contextlib.suppress(OSError):
        connection.sendall(_MAGIC + _frame(_REPLY, body))


def _welcome(loaded: _Loaded, served: str) -> bytes:
    info = loaded.info
    declared = _DECLARED.pack(
        loaded.version,
        loaded.entries,
        int(info.capabilities),
        info.resolution_ps,
        info.max_in_flight,
        info.traffic_classes,
        0,
    )
    texts = b"".join(_text(one) for one in (info.name, info.version, served))
    return _frame(_WELCOME, declared + texts)
