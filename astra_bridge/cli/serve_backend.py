# SPDX-License-Identifier: MIT
"""``astra-bridge serve-backend``: put a backend of this machine behind an address."""

from __future__ import annotations

from astra_bridge.arguments import whole_text
from astra_bridge.cli.command import Argument, Command
from astra_bridge.network.remote.address import TOKEN, token_of_environment

__all__ = ["COMMAND"]


def _serve_backend(name: str, listen: str, token: str | None, most_clients: int) -> int:
    from astra_bridge.network.remote.server import Server

    shown = token_of_environment() if token is None else token
    with Server(name, listen, token=shown, most_clients=most_clients) as server:
        print(f"serving {name} at {server.address}", flush=True)
        server.run()
    return 0


COMMAND = Command(
    "Put a backend behind an address, for runs elsewhere.",
    {
        "arguments": (
            Argument("NAME", "", "Name of a backend, or path of a shared library."),
        ),
        "options": (
            Argument("--listen", "ADDRESS", "tcp://HOST:PORT, with port 0 for one that is free, or "
                     "unix:///PATH.", default="tcp://127.0.0.1:0"),
            Argument("--token", "TEXT", "What clients must show; needed where other machines can "
                     "reach the address.", otherwise=f"that of the environment, {TOKEN}"),
            Argument("--most-clients", "COUNT", "How many are served at once; more wait.",
                     whole_text(1, 10_000), default=64),
        ),
    },
    _serve_backend,
    "serve-backend garnet --listen=tcp://127.0.0.1:4000",
    "The first line says the address; `--backend ADDRESS` takes it.  Ctrl-C ends the server.\n"
    "Nothing is encrypted: reach another machine through ssh -L (docs/remote.md).",
)  # fmt: skip
