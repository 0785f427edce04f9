# SPDX-License-Identifier: MIT
"""Native backends: loads a shared library behind the C contract and makes it a ``Network``.

The header is read, not retyped (see `astra_bridge.network.header`).  A status becomes an exception
in one place, :func:`check`.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import astra_bridge
from astra_bridge import process
from astra_bridge.errors import (
    AstraBridgeError,
    BackendError,
    ContractError,
    InputError,
    Interrupted,
    NetworkError,
    SimulationError,
    Unsupported,
)
from astra_bridge.inputs.common import unique_keys
from astra_bridge.inputs.network import dim_bandwidth, read_network
from astra_bridge.network.api import (
    COMPLETION,
    DELIVERED,
    LINK,
    TIME_NEVER,
    TRANSFER,
    Advance,
    Capability,
    Exchange,
    NetworkConfig,
    NetworkInfo,
    Status,
)
from astra_bridge.network.boundary import Boundary, broken
from astra_bridge.network.header import ffi, header_path, source_root
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.network.statistics import MOST_BYTES
from astra_bridge.records import replace
from astra_bridge.supervision import Parent, ask, contained, logger
from astra_bridge.text import one_line
from astra_bridge.topology import links_of_dims, topology_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Library",
    "NativeNetwork",
    "agree",
    "check",
    "ffi",
    "header_path",
    "library_backend",
    "lends",
    "library_path",
    "not_built",
    "open_own",
    "prepare_links",
    "probe",
    "serve",
    "source_root",
    "watch_calls",
]

VERSIONS = (1003, 1002, 1001, 1000)
"""Versions of the contract that this host speaks, newest first."""

REQUIRED = ("info", "create", "destroy", "submit", "advance", "poll")
OPTIONAL = ("interrupt", "set_link", "stats", "snapshot")
OPTIONAL_1_1 = (*OPTIONAL, "exchange")
OPTIONAL_1_2 = (*OPTIONAL_1_1, "save", "load", "peek")
_OPTIONAL_OF = {1000: OPTIONAL, 1001: OPTIONAL_1_1, 1002: OPTIONAL_1_2, 1003: OPTIONAL_1_2}
_FIRST_BEYOND = {1000: "exchange", 1001: "save"}
"""Version -> the first entry of the table that it does not know."""

_POLL_CAPACITY = 1024
_MOST_SAVED = 1 << 36
_DIGEST_BYTES = 16
_Saved = tuple[int, int, int, set[int], bytes]
"""Now, in flight, the two of `Boundary.STATE`, the library's own bytes."""
_PROBE_S = 60.0


def _unwatched(_name: str) -> None:
    pass


_on_call: Callable[[str], None] = _unwatched


def watch_calls(callback: Callable[[str], None] | None) -> None:
    """Have ``callback`` called before each rare call of any library (not advance and the like)."""
    global _on_call
    _on_call = callback or _unwatched


_OWN = Path(astra_bridge.__file__).parent / "_native"


@functools.cache
def library_path(name: str) -> Path:
    """Where the build puts the library of the backend ``name`` (which may not exist)."""
    return _OWN / f"libastra_net_{name}.so"


_EXCEPTIONS: dict[int, type[NetworkError]] = {
    Status.UNSUPPORTED: Unsupported,
    Status.INVALID: ContractError,
    Status.BAD_STATE: ContractError,
    Status.INTERRUPTED: Interrupted,
    Status.MODEL: SimulationError,
    Status.INTERNAL: BackendError,
    Status.FATAL: BackendError,
}


def check(backend: str, call: str, status: int, err: Any) -> None:
    """Raise the exception that belongs to ``status``; the one way from status to exception.

    Parameters
    ----------
    backend, call : str
        Name of the backend, and of the entry that was called.
    status : int
        What it returned.
    err : cdata of astra_net_error*
        What it wrote; zeroed again for the next call.

    Raises
    ------
    NetworkError
        Of the class that ``status`` maps to; ``BackendError`` for a status that is unknown.
    """
    if status == Status.OK:
        return
    message = ffi().string(err.message).decode("utf-8", "replace")
    native_code, item = err.native_code, err.item if message else -1
    _reset(err)
    if status in _EXCEPTIONS:
        kind, said = _EXCEPTIONS[status], Status(status).name
    else:
        kind, said = BackendError, f"status {status}, which the contract does not know"
    if not message:
        message = f"{call}: {said} and no message"
    elif kind is BackendError:
        message = f"{message} ({said})"
    raise kind(
        f"{backend}: {message}",
        backend=backend,
        call=call,
        status=status,
        native_code=native_code,
        item=item,
    )


def _reset(err: Any) -> None:
    size = ffi().sizeof("astra_net_error")
    ffi().memmove(err, bytes(size), size)
    err.struct_size = size
    err.item = -1


def _new_error() -> Any:
    err = ffi().new("astra_net_error *")
    _reset(err)
    return err


@functools.cache
def _stubs() -> dict[str, Any]:
    """What stands in the table for an optional entry that a backend lacks."""
    parsed = ffi()

    def unsupported(name: str) -> Any:
        def stub(*arguments: Any) -> int:
            err = arguments[-1]
            if err:
                text = f"{name}: the backend does not have this optional entry".encode()
                err.message[0 : len(text)] = [bytes([byte]) for byte in text]
            return int(Status.UNSUPPORTED)

        pointer = parsed.typeof("astra_net_backend").fields
        kind = dict(pointer)[name].type
        return parsed.callback(kind, stub)

    made = {name: unsupported(name) for name in OPTIONAL_1_2 if name != "interrupt"}
    made["interrupt"] = parsed.callback("void(astra_net_sim *)", lambda _sim: None)
    return made


class Library(msgspec.Struct):
    """A loaded backend library.

    Attributes
    ----------
    path : Path
    version : int
        The negotiated version of the contract (1003 is 1.3).
    table : cdata of astra_net_backend*
        Complete: optional entries that the library lacks are stubs.
    init : cdata of astra_net_backend_init_fn*
    missing : frozenset of str
        Names of those entries.
    info : NetworkInfo
    fatal : str
        Not empty after FATAL: nothing in this library may be called any more.
    """

    path: Path
    version: int
    table: Any
    init: Any
    missing: frozenset[str]
    info: NetworkInfo
    fatal: str = ""
    _keep: Any = None

    @classmethod
    def load(cls, path: str | Path, *, trusted: bool = False) -> Library:
        """Load ``path`` (once per process) and agree on a version.

        A library that is not part of this package is loaded in a child process first, because
        loading alone may crash or hang; ``trusted`` leaves that out.

        Raises
        ------
        InputError
            There is no such file.
        BackendError
            It is not a library, not a backend, too new or too old, lacks a required entry, or
            crashes.
        """
        path = _existing(path)
        if not trusted and path.parent != _OWN and not contained():
            probe(path)
        # Once per process: the system's loader would return the same library again, too.
        return _load(path)

    def call(self, name: str, *arguments: Any, err: Any = None) -> None:
        """Call an entry of the table; ``err`` is appended."""
        if self.fatal:
            raise BackendError(
                f"{self.info.name}: {name}: not called, because the library reported FATAL before: "
                f"{self.fatal}",
                backend=self.info.name,
                call=name,
                status=int(Status.FATAL),
            )
        err = err or _new_error()
        status = getattr(self.table, name)(*arguments, err)
        if status:
            try:
                check(self.info.name, name, status, err)
            except NetworkError as error:
                if status == Status.FATAL:
                    self.fatal = str(error)
                raise


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.parent != _OWN:
        path = path.resolve()
    if not path.is_file():
        raise InputError("no such library", file=path)
    return path


@functools.cache
def probe(path: Path) -> None:
    """Load a library in a child process; raise what `Library.load` raises, or how it crashes."""
    ask("astra_bridge.network.native:serve", path, backend=str(path), timeout_s=_PROBE_S)


def serve(parent: Parent) -> None:
    """The child that finds out whether a library can be loaded."""
    watch_calls(parent.call)
    Library.load(parent.request)
    parent.send("result")


@functools.cache
def _load(path: Path) -> Library:
    parsed = ffi()
    _on_call("load")
    if path.parent != _OWN:
        process.share()
    try:
        library = parsed.dlopen(str(path), os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        raise _unusable(str(path), f"cannot be loaded: {error}") from error
    try:
        init = library.astra_net_backend_init
    except (AttributeError, parsed.error):  # parsed now, or kept by the build
        why = "exports no astra_net_backend_init, so it is not a backend (see docs/contract.md)"
        raise _unusable(str(path), why) from None
    return agree(str(path), init, path=path, keep=library)


def _unusable(name: str, why: str) -> BackendError:
    return BackendError(f"{name}: {why}", backend=name.rpartition("/")[2], call="load")


def agree(name: str, init: Callable[..., int], *, path: Path, keep: Any = None) -> Library:
    """Agree on a version with a library, and complete its table.

    Parameters
    ----------
    name : str
        For messages: its path or address.
    init : callable
        As ``astra_net_backend_init``.
    path : Path
        The file that the code is in.
    keep
        What must live as long as the table.

    Raises
    ------
    BackendError
        It is too new or too old, lacks a required entry, or refuses.
    """
    parsed = ffi()
    failed = functools.partial(_unusable, name)
    short = name.rpartition("/")[2]
    refusals = []
    for version in VERSIONS:
        # The size of the table as this version has it: an older library knows no more.
        beyond = _FIRST_BEYOND.get(version)
        size = (
            parsed.offsetof("astra_net_backend", beyond)
            if beyond
            else parsed.sizeof("astra_net_backend")
        )
        table = parsed.new("astra_net_backend *")
        table.struct_size = size
        err = _new_error()
        _on_call("astra_net_backend_init")
        status = init(version, table, err)
        if status == Status.OK:
            break
        message = parsed.string(err.message).decode("utf-8", "replace") or f"status {status}"
        if status != Status.UNSUPPORTED:
            check(short, "astra_net_backend_init", status, err)
        refusals.append(message)
    else:
        raise failed(
            f"speaks none of the versions {', '.join(map(_dotted, VERSIONS))} of the contract: "
            + "; ".join(refusals)
        )
    if table.abi_version != version or table.struct_size > size:
        raise failed(
            f"agreed to version {_dotted(version)} ({size} bytes), but filled its table for "
            f"{_dotted(table.abi_version)} ({table.struct_size} bytes)"
        )
    known = table.struct_size

    def lacks(call: str) -> bool:
        # No field past the peer's struct_size is read (R1).
        ends = parsed.offsetof("astra_net_backend", call) + parsed.sizeof("void *")
        return ends > known or not getattr(table, call)

    for call in REQUIRED:
        if lacks(call):
            raise failed(f"lacks the required entry {call!r} (it is NULL)")
    missing = frozenset(OPTIONAL_1_2) - frozenset(
        call for call in _OPTIONAL_OF[version] if not lacks(call)
    )
    for call in missing:
        setattr(table, call, _stubs()[call])
    info = _info(name, table)
    for capability, since, entries in (
        (Capability.ORDERED, 1001, ("exchange",)),
        (Capability.SAVE, 1002, ("save", "load")),
        (Capability.PEEK, 1002, ("peek",)),
        (Capability.REDUCTION, 1003, ()),
    ):
        absent = [call for call in entries if call in missing]
        if capability not in info.capabilities or (version >= since and not absent):
            continue
        if version >= since:
            raise failed(f"declares {capability.name}, but has no {absent[0]} (it is NULL)")
        # The library knows more than the version that was agreed on, which has no such entry.
        info = replace(info, capabilities=info.capabilities & ~capability)
    return Library(path, version, table, init, missing, info, _keep=keep)


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000}"


def _info(name: str, table: Any) -> NetworkInfo:
    parsed = ffi()
    out = parsed.new("astra_net_info *")
    out.struct_size = parsed.sizeof("astra_net_info")
    err = _new_error()
    _on_call("info")
    check(name.rpartition("/")[2], "info", table.info(out, err), err)

    def text(pointer: Any) -> str:
        return parsed.string(pointer).decode("utf-8", "replace") if pointer else ""

    known = 0
    for capability in Capability:
        known |= capability
    info = NetworkInfo(
        text(out.name),
        text(out.version),
        # Unknown bits belong to a version that this host does not speak.
        Capability(out.capabilities & known),
        out.resolution_ps,
        out.max_in_flight,
        out.traffic_classes,
    )
    for field, good in {
        "name": bool(info.name),
        "resolution_ps": info.resolution_ps > 0,
        "max_in_flight": info.max_in_flight > 0,
        "traffic_classes": info.traffic_classes > 0,
    }.items():
        if not good:
            raise BackendError(
                f"{name}: info: {field} is {getattr(info, field)!r}",
                backend=name.rpartition("/")[2],
                call="info",
            )
    return info


def _digest(data: bytes) -> bytes:
    import hashlib  # a millisecond that a run without checkpoints need not pay

    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


Statistics = Callable[[dict[str, Any], NetworkConfig], dict[str, Any]]
Lend = Callable[[str], "Path | Library"]
"""Name of a backend -> its library."""


def lends(lend: Lend | None) -> tuple[Any, list[Library]]:
    """The host's entry ``lend``, and where the libraries that it has lent are kept."""
    parsed, lent = ffi(), list[Library]()
    if lend is None:
        return parsed.NULL, lent
    kind = dict(parsed.typeof("astra_net_host").fields)["lend"].type

    def entry(_context: Any, name: Any, out: Any, err: Any) -> int:
        try:
            library = lend(parsed.string(name).decode("utf-8", "replace"))
            if not isinstance(library, Library):
                library = Library.load(library)
        except AstraBridgeError as error:
            text = str(error).encode()[: len(err.message) - 1].decode("utf-8", "ignore").encode()
            err.message[0 : len(text)] = [bytes([byte]) for byte in text]
            return int(Status.INVALID)
        lent.append(library)
        out[0] = library.table
        return int(Status.OK)

    return parsed.callback(kind, entry, error=int(Status.INTERNAL)), lent


def _c_config(config: NetworkConfig) -> tuple[Any, Any]:
    """An ``astra_net_config``, and what must live as long as it."""
    parsed = ffi()
    links = np.ascontiguousarray(config.links, LINK)
    texts = [
        (parsed.new("char[]", key.encode()), parsed.new("char[]", str(value).encode()))
        for key, value in config.options.items()
    ]
    made = parsed.new("astra_net_config *")
    made.struct_size = parsed.sizeof("astra_net_config")
    made.endpoints, made.nodes = config.endpoints, config.nodes
    c_links = parsed.from_buffer("astra_net_link[]", links)
    c_options = parsed.new("astra_net_option[]", texts)
    made.links, made.link_count = c_links, len(links)
    made.options, made.option_count = c_options, len(texts)
    keep: list[Any] = [links, texts, c_links, c_options]
    if config.parts:
        inner = [_c_config(part) for _, part in config.parts]
        names = [parsed.new("char[]", name.encode()) for name, _ in config.parts]
        rows = [(name, one) for name, (one, _) in zip(names, inner, strict=True)]
        c_parts = parsed.new("astra_net_part[]", rows)
        made.parts, made.part_count = c_parts, len(rows)
        keep += [inner, names, c_parts]
    return made, keep


def _made(
    library: Library, config: NetworkConfig, call: str, lend: Lend | None, *saved: bytes
) -> tuple[Any, tuple[Any, ...]]:
    """A simulation, new or from saved bytes, and what must live as long as it."""
    parsed = ffi()

    def log(_context: Any, level: int, message: Any) -> None:
        said = one_line(parsed.string(message).decode("utf-8", "replace"))
        logger(f"network.{library.info.name}").log(level, "%s", said)

    callback = parsed.callback("void(void *, int32_t, const char *)", log)
    host = parsed.new("astra_net_host *")
    host.struct_size = parsed.sizeof("astra_net_host")
    host.log = callback
    entry, lent = lends(lend)
    host.lend = entry
    c_config, _keep = _c_config(config)
    out = parsed.new("astra_net_sim **")
    _on_call(call)
    data = [part for one in saved for part in (parsed.from_buffer("uint8_t[]", one), len(one))]
    library.call(call, c_config, host, *data, out)
    if not out[0]:
        raise _broke(library, call, "returned OK, but no simulation")
    return out[0], (callback, host, entry, lent)


class NativeNetwork:
    """One simulation in a native backend; a ``Network``.

    Made by :meth:`open`.  Not thread-safe except :meth:`interrupt` (R10).
    """

    def __init__(
        self,
        library: Library,
        sim: Any,
        keep: Any,
        config: NetworkConfig,
        lend: Lend | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self._statistics = statistics
        self.library = library
        self.config = config
        self._lend = lend
        self._sim = sim
        self._keep = keep
        self._err = _new_error()
        self._now_ps = 0
        self._boundary = Boundary(library.info)
        self._in_flight = 0
        parsed = ffi()
        self._out_now = parsed.new("int64_t *")
        self._out_stop = parsed.new("uint32_t *")
        self._out_count = parsed.new("size_t *")
        self._records = np.zeros(_POLL_CAPACITY, COMPLETION)
        self._records_c = parsed.from_buffer("astra_net_completion[]", self._records)
        self._exchange = parsed.new("astra_net_exchange *")
        self._exchange.struct_size = parsed.sizeof("astra_net_exchange")

    @classmethod
    def open(
        cls,
        library: Path | Library,
        config: NetworkConfig,
        *,
        trusted: bool = False,
        lend: Lend | None = None,
        statistics: Statistics | None = None,
    ) -> Self:
        """Create a simulation.

        Parameters
        ----------
        library : Path or Library
            The shared library, or one that is loaded.
        config : NetworkConfig
            Topology and options; read only during the call.
        trusted : bool
            As for :meth:`Library.load`.
        lend : callable, optional
            Where the library of another backend is, for one that has ``config.parts``.
        statistics : callable, optional
            Makes of what the library writes, and the configuration, what :meth:`stats` gives.

        Raises
        ------
        InputError
            There is no such library.
        ContractError
            The backend refuses the configuration; the message says what and why.
        BackendError
            The library cannot be used.
        """
        loaded = library
        if not isinstance(loaded, Library):
            loaded = Library.load(loaded, trusted=trusted)
        return cls(loaded, *_made(loaded, config, "create", lend), config, lend, statistics)

    @property
    def info(self) -> NetworkInfo:
        return self.library.info

    @property
    def lent(self) -> list[Library]:
        """The libraries that this one has asked for, to be made of them."""
        lent: list[Library] = self._keep[-1]
        return lent

    @property
    def handle(self) -> tuple[int, int]:
        """Addresses of the ``astra_net_backend`` table and of the ``astra_net_sim``.

        For the native engine, which calls the C functions itself.  Valid until :meth:`close`.
        """
        parsed = ffi()
        self._open("handle")
        return (
            int(parsed.cast("uintptr_t", self.library.table)),
            int(parsed.cast("uintptr_t", self._sim)),
        )

    def _open(self, call: str) -> Any:
        if self._sim is None:
            raise ContractError(
                f"{self.info.name}: {call}: the simulation is closed",
                backend=self.info.name,
                call=call,
                status=int(Status.BAD_STATE),
            )
        return self._sim

    def submit(self, items: NDArray[Any]) -> int:
        """Take a prefix of ``items``; return how many were accepted (R4).

        Parameters
        ----------
        items : ndarray of TRANSFER, shape (n,)
            Read only during the call.
        """
        sim = self._open("submit")
        rows, count = self._transfers("submit", items)
        self.library.call("submit", sim, rows, count, self._out_count, err=self._err)
        accepted = int(self._out_count[0])
        if accepted > count:
            raise broken(self.info.name, "submit", "accepted", accepted, count)
        self._in_flight += accepted
        return accepted

    def advance(self, until_ps: int, lookahead_ps: int = 0) -> Advance:
        """Run to min(until_ps, first completion + max(0, lookahead_ps - 1)) (R5)."""
        sim = self._open("advance")
        before_ps = self._out_now[0] = self._now_ps
        try:
            self.library.call(
                "advance",
                sim,
                self._time("advance", "until_ps", until_ps),
                self._time("advance", "lookahead_ps", lookahead_ps),
                self._out_now,
                self._out_stop,
                err=self._err,
            )
        except Interrupted as error:
            self._now_ps = error.now_ps = self._boundary.reached(
                self._out_now[0], before_ps, until_ps
            )
            raise
        reply = Advance(self._out_now[0], self._out_stop[0])
        reply = self._boundary.advanced(reply, before_ps, until_ps)
        self._now_ps = reply.now_ps
        return reply

    def poll(self) -> NDArray[Any]:
        """All completions not yet drained, ascending in time (R7): COMPLETION, shape (m,)."""
        sim = self._open("poll")
        parts = []
        # Each transfer has two records at most; a backend that never runs dry must not fill memory.
        total, most = 0, self._boundary.most_records(self._in_flight)
        while True:
            self.library.call(
                "poll", sim, self._records_c, _POLL_CAPACITY, self._out_count, err=self._err
            )
            count = int(self._out_count[0])
            if count > _POLL_CAPACITY:
                raise broken(self.info.name, "poll", "count", count, _POLL_CAPACITY)
            parts.append(self._records[:count].copy())
            total += count
            if total > most:
                raise broken(self.info.name, "poll", "count-flight", total, most)
            if count < _POLL_CAPACITY:
                records = parts[0] if len(parts) == 1 else np.concatenate(parts)
                self._delivered(records)
                return records

    def exchange(
        self,
        starts: NDArray[Any],
        now_ps: int,
        until_ps: int,
        until_place: int,
        place: int,
    ) -> Exchange:
        """Start transfers now and run the events before (until_ps, until_place).

        docs/contract.md, "Order inside one instant", says in which order.
        """
        sim = self._open("exchange")
        x = self._exchange
        # The array must live as long as its address stands in the struct.
        rows, x.start_count = self._transfers("exchange", starts)
        x.starts = rows
        x.now_ps = self._time("exchange", "now_ps", now_ps)
        x.until_ps = self._time("exchange", "until_ps", until_ps)
        x.until_place = self._time("exchange", "until_place", until_place)
        x.place = self._time("exchange", "place", place)
        x.completions, x.capacity, x.completion_count = self._records_c, _POLL_CAPACITY, 0
        self.library.call("exchange", sim, x, err=self._err)
        x.starts = ffi().NULL
        count, name = int(x.completion_count), self.info.name
        if x.completions != self._records_c:
            raise broken(
                name, "exchange", "completions", _address(x.completions), _address(self._records_c)
            )
        if x.capacity != _POLL_CAPACITY:
            raise broken(name, "exchange", "capacity", x.capacity, _POLL_CAPACITY)
        if count > _POLL_CAPACITY:
            raise broken(name, "exchange", "count", count, _POLL_CAPACITY)
        self._in_flight += len(starts)
        records = self._records[:count].copy()
        self._delivered(records)
        return Exchange(
            records,
            x.now_ps,
            self._boundary.stop("exchange", x.stop),
            x.place,
            x.next_ps,
            x.next_place,
        )

    def _delivered(self, records: NDArray[Any]) -> None:
        self._in_flight -= int(np.count_nonzero(records["kind"] == DELIVERED))

    def set_link(self, link: int, at_ps: int, bandwidth_scale: float) -> None:
        """Scale the bandwidth of a link (index into ``config.links``) from a time on; 0 is down."""
        sim = self._open("set_link")
        self.library.call("set_link", sim, link, at_ps, bandwidth_scale, err=self._err)

    def peek(self) -> int:
        """When the next completion can come at the earliest; TIME_NEVER if none will."""
        sim = self._open("peek")
        self.library.call("peek", sim, self._out_now, err=self._err)
        next_ps = int(self._out_now[0])
        if next_ps < self._now_ps:
            raise _broke(self.library, "peek", f"answered {next_ps} ps, which is past")
        return next_ps

    def stats(self) -> dict[str, Any]:
        """The backend's own statistics; empty where it has none."""
        written = self._written()
        return self._statistics(written, self.config) if self._statistics else written

    def _written(self) -> dict[str, Any]:
        sim = self._open("stats")
        if "stats" in self.library.missing:
            return {}
        parsed = ffi()
        buffer, size = parsed.NULL, 0
        # The text may grow between asking for its size and asking for it.
        for _ in range(8):
            try:
                self.library.call("stats", sim, buffer, size, self._out_count, err=self._err)
            except Unsupported:
                return {}
            needed = int(self._out_count[0])
            if needed > MOST_BYTES:
                raise _broke(
                    self.library, "stats", f"asked for {needed} bytes; at most {MOST_BYTES}"
                )
            if needed <= size or needed == 0:
                return self._parse_stats(bytes(parsed.buffer(buffer, needed)) if needed else b"{}")
            size = needed
            buffer = parsed.new("uint8_t[]", size)
        raise _broke(self.library, "stats", "asked for more room each time")

    def _parse_stats(self, text: bytes) -> dict[str, Any]:
        try:
            msgspec.json.decode(text)  # refuses numbers that nothing can hold, and half characters
            parsed = json.loads(text, object_pairs_hook=functools.partial(unique_keys, file=None))
        except InputError as error:
            raise _broke(self.library, "stats", f"wrote {error}") from None
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            reason = one_line(str(error))
            raise _broke(self.library, "stats", f"wrote what is not valid JSON: {reason}") from None
        if not isinstance(parsed, dict):
            raise _broke(self.library, "stats", "did not write a JSON object")
        return parsed

    def snapshot(self) -> Self:
        """A copy that goes its own way from here."""
        sim = self._open("snapshot")
        out = ffi().new("astra_net_sim **")
        self.library.call("snapshot", sim, out, err=self._err)
        if not out[0]:
            raise _broke(self.library, "snapshot", "returned OK, but no simulation")
        copy = type(self)(
            self.library, out[0], self._keep, self.config, self._lend, self._statistics
        )
        copy._now_ps, copy._in_flight = self._now_ps, self._in_flight
        return copy

    def save(self) -> bytes:
        """The state as bytes, for the same library and configuration."""
        sim = self._open("save")
        parsed = ffi()
        self.library.call("save", sim, parsed.NULL, 0, self._out_count, err=self._err)
        size = int(self._out_count[0])
        if size > _MOST_SAVED:
            raise _broke(self.library, "save", f"asked for {size} bytes; at most {_MOST_SAVED}")
        buffer = parsed.new("uint8_t[]", max(size, 1))
        self.library.call("save", sim, buffer, size, self._out_count, err=self._err)
        if int(self._out_count[0]) != size:
            raise _broke(self.library, "save", "asked for more room the second time")
        boundary = [getattr(self._boundary, name) for name in Boundary.STATE]
        body = msgspec.msgpack.encode(
            (self._now_ps, self._in_flight, *boundary, bytes(parsed.buffer(buffer, size)))
        )
        return _digest(body) + body

    def restore(self, data: bytes) -> None:
        """Go on from what :meth:`save` gave, of a simulation of the same configuration.

        Raises
        ------
        ContractError
            The bytes are damaged, or belong to another configuration; nothing has changed.
        """
        self._open("load")
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        try:
            if digest != _digest(body):
                raise ValueError("their checksum is another")
            now_ps, in_flight, last_ps, sent, inner = msgspec.msgpack.decode(body, type=_Saved)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ContractError(
                f"{self.info.name}: load: the saved bytes are damaged: {error}",
                backend=self.info.name,
                call="load",
                status=int(Status.INVALID),
            ) from None
        made, keep = _made(self.library, self.config, "load", self._lend, inner)
        self.close()
        self._sim, self._keep = made, keep
        self._now_ps, self._in_flight = now_ps, in_flight
        self._boundary = Boundary(self.info)
        self._boundary._last_ps, self._boundary.sent = last_ps, sent

    def interrupt(self) -> None:
        """Make a running ``advance`` return early; may be called from any thread."""
        sim = self._sim
        if sim is not None and not self.library.fatal:
            self.library.table.interrupt(sim)

    def close(self) -> None:
        """End the simulation; harmless when repeated."""
        sim, self._sim = self._sim, None
        # After FATAL the library may not be entered again, so its memory is lost.
        if sim is not None and not self.library.fatal:
            _on_call("destroy")
            self.library.table.destroy(sim)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_sim", None) is not None:
            self.close()

    def _transfers(self, call: str, items: NDArray[Any]) -> tuple[Any, int]:
        if items.dtype != TRANSFER or items.ndim != 1:
            raise ContractError(
                f"{self.info.name}: {call}: expected records of dtype TRANSFER, shape (n,), but "
                f"got dtype {items.dtype}, shape {items.shape}",
                backend=self.info.name,
                call=call,
                status=int(Status.INVALID),
            )
        rows = np.ascontiguousarray(items)
        return ffi().from_buffer("astra_net_transfer[]", rows), len(rows)

    def _time(self, call: str, name: str, value: int) -> int:
        if not -TIME_NEVER <= value <= TIME_NEVER:
            raise ContractError(
                f"{self.info.name}: {call}: {name}={value} is outside int64",
                backend=self.info.name,
                call=call,
                status=int(Status.INVALID),
            )
        return int(value)


def _address(pointer: Any) -> int:
    return int(ffi().cast("intptr_t", pointer))


def _broke(library: Library, call: str, what: str) -> ContractError:
    return ContractError(
        f"{library.info.name}: {call}: the backend broke the contract: it {what}",
        backend=library.info.name,
        call=call,
        status=int(Status.INTERNAL),
    )


def not_built(name: str) -> str | None:
    """Why our own backend ``name``, which has no Python twin, cannot run here, or None."""
    if library_path(name).exists():
        return None
    return "not built: install again where a C++17 compiler is found"


def open_own(name: str, config: NetworkConfig) -> NativeNetwork:
    """Open a simulation of our own backend ``name``.

    Raises
    ------
    InputError
        The library refuses the configuration; names the limit that was met.
    """
    try:
        return NativeNetwork.open(library_path(name), config)
    except ContractError as error:
        # The configuration is the user's: a value that the readers could not judge alone.
        raise InputError(str(error), key="network") from None


def prepare_links(request: NetworkRequest) -> Prepared:
    """What a backend gets that has no network files of its own: the network as links."""
    network: Any = request.network
    read = read_network(network)
    topology = topology_of(read)
    return Prepared(
        NetworkConfig(
            topology.endpoints, topology.nodes, topology.records(LINK), dict(request.options)
        ),
        topology.dims,
        dim_bandwidth=dim_bandwidth(read, topology.dims),
        names=read.names,
        links_of_dims=links_of_dims(read),
    )


def library_backend(path: Path) -> BackendSpec:
    """The backend in a shared library that is not built in; it runs in a child process.

    It gets the network configuration as links, and ``--network-option`` as its options.

    Raises
    ------
    InputError
        There is no such file.
    """
    path = _existing(path)

    def open_(config: NetworkConfig) -> NativeNetwork:
        return NativeNetwork.open(path, config)

    def version() -> str:
        import hashlib  # few experiments are compared

        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()

    return BackendSpec(
        name=str(path),
        summary=f"the library {path}",
        prepare=prepare_links,
        open=open_,
        isolate=True,
        version=version,
        library=lambda: path,
    )
