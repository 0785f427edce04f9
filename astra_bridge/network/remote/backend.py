# SPDX-License-Identifier: MIT
"""The near end: a backend at an address, which looks like one in a library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from astra_bridge.errors import BackendError, BackendUnavailable, ContractError, InputError
from astra_bridge.network.api import NetworkConfig, Status
from astra_bridge.network.header import ffi
from astra_bridge.network.native import Library, NativeNetwork, agree, prepare_links
from astra_bridge.network.remote.address import Address, token_of_environment
from astra_bridge.network.remote.library import ends_path, entry, unavailable
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared

__all__ = ["Served", "connect", "remote_backend"]

_MOST_NAME = 4096


class Served(NamedTuple):
    """What is behind an address: the table, and the name that the server has for the backend."""

    library: Library
    name: str


def connect(address: Address, token: str = "") -> Served:
    """Ask a server what it serves.

    Raises
    ------
    BackendError
        Nobody answers there, it is no server of backends, or it refuses; names the address.
    BackendUnavailable
        The native part is not built here.
    """
    missing = unavailable()
    if missing is not None:
        raise BackendUnavailable(f"{address}: {missing}")
    parsed = ffi()
    name = parsed.new("char[]", _MOST_NAME)
    open_ = entry("astra_remote_open")

    def init(version: int, table: Any, err: Any) -> int:
        status = int(
            open_(str(address).encode(), token.encode(), version, table, name, _MOST_NAME, err)
        )
        if status not in (Status.OK, Status.UNSUPPORTED, Status.INVALID):
            said = parsed.string(err.message).decode("utf-8", "replace")
            raise BackendError(
                said.removeprefix("connect: "), backend=str(address), call="connect", status=status
            )
        return status

    library = agree(str(address), init, path=ends_path())
    return Served(library, parsed.string(name).decode("utf-8", "replace"))


def remote_backend(text: str, find: Callable[[str], BackendSpec | None]) -> BackendSpec:
    """The backend at an address.

    Network files are read as the backend of the served name reads them, where there is one of that
    name here; else it gets the network as links.

    Parameters
    ----------
    text : str
        "tcp://HOST:PORT" or "unix:///PATH".
    find : callable
        Finds backends that are known here by name.

    Raises
    ------
    InputError
        It is no address.
    """
    address = Address.of(text)

    @functools.cache
    def served() -> Served:
        return connect(address, token_of_environment())

    def prepare(request: NetworkRequest) -> Prepared:
        known = find(served().name)
        return prepare_links(request) if known is None else known.prepare(request)

    def open_(config: NetworkConfig) -> NativeNetwork:
        known = find(served().name)
        statistics = None if known is None else known.statistics
        try:
            return NativeNetwork.open(served().library, config, statistics=statistics)
        except ContractError as error:
            raise InputError(str(error), key="network") from None

    def version() -> str:
        info = served().library.info
        return f"{info.name} {info.version}"

    return BackendSpec(
        name=str(address),
        summary=f"the backend at {address}",
        prepare=prepare,
        open=open_,
        unavailable=unavailable,
        version=version,
        library=lambda: served().library,
    )
