# SPDX-License-Identifier: MIT
"""Where a server listens: ``tcp://HOST:PORT`` or ``unix:///PATH``."""

from __future__ import annotations

import os
from typing import NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.text import show

__all__ = ["TOKEN", "Address", "token_of_environment"]

TOKEN = "ASTRA_BRIDGE_TOKEN"
"""Environment variable with what a client shows to a server that is not for everybody."""


class Address(NamedTuple):
    """An address, taken apart.

    Attributes
    ----------
    path : str
        Of a socket file; "" for TCP.
    host : str
    port : int
        0 lets the system choose.

    Examples
    --------
    >>> Address.of("tcp://[::1]:4000")
    Address(path='', host='::1', port=4000)
    >>> str(Address.of("unix:///run/garnet"))
    'unix:///run/garnet'
    """

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def of(cls, text: str, key: str = "--backend") -> Address:
        """Read one.

        Raises
        ------
        InputError
            It is none.
        """
        scheme, _, rest = text.partition("://")
        if scheme == "unix" and rest.startswith("/") and "\0" not in rest:
            return cls(path=rest)
        host, colon, port = rest.rpartition(":")
        plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        odd = set(plain) & set("/@?#[] \0") or (":" in plain and plain == host)
        digits = port.isascii() and port.isdigit() and int(port[:6]) < 65536
        if scheme != "tcp" or not (colon and plain and digits) or odd:
            raise InputError(
                f"{show(text)} is no address; allowed: tcp://HOST:PORT, unix:///PATH", key=key
            )
        return cls(host=plain, port=int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return (
            f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self[1]}:{self[2]}"
        )


def token_of_environment() -> str:
    """The token of this process, "" for none."""
    return os.environ.get(TOKEN, "")
