# SPDX-License-Identifier: MIT
"""``astra-bridge serve``: the service that users of ``astra-sim-sdk`` talk to."""

from __future__ import annotations

from pathlib import Path

from astra_bridge.arguments import whole_text
from astra_bridge.cli.command import Argument, Command
from astra_bridge.network.remote.address import TOKEN, token_of_environment

__all__ = ["COMMAND"]


def _serve(
    host: str,
    port: int,
    grpc_port: int | None,
    token: str | None,
    custom_backend: str | None,
    folder: str | None,
) -> int:
    from astra_bridge.network.registry import backend
    from astra_bridge.service import Service
    from astra_bridge.service.http import HttpServer

    shown = token_of_environment() if token is None else token
    if custom_backend is not None:
        backend(custom_backend)  # refused now, not at the first simulation
    with Service(None if folder is None else Path(folder), custom=custom_backend) as service:
        server = HttpServer(service, host, port, token=shown)
        rpc = None
        try:
            if grpc_port is not None:
                from astra_bridge.service.rpc import RpcServer

                rpc = RpcServer(service, host, grpc_port)
            more = "" if rpc is None else f", and to gRPC at {rpc.location}"
            print(f"serving at {server.location}{more}", flush=True)
            server.run()
        finally:
            server.close()
            if rpc is not None:
                rpc.close()
    return 0


COMMAND = Command(
    "Answer what users of astra-sim-sdk send to ASTRA-sim's service.",
    {
        "options": (
            Argument("--host", "NAME", "Where to listen.", default="127.0.0.1"),
            Argument("--port", "NUMBER", "0 is one that is free.", whole_text(0, 65535),
                     default=8989),
            Argument("--grpc-port", "NUMBER", "Answer gRPC, too (needs grpcio and astra-sim-sdk).",
                     whole_text(0, 65535)),
            Argument("--token", "TEXT", "What clients must show; needed where other machines can "
                     "reach the host.", otherwise=f"that of the environment, {TOKEN}"),
            Argument("--custom-backend", "NAME", "What runs where a user asks for backend custom."),
            Argument("--folder", "FOLDER", "Where the files of the job are kept, in "
                     "configuration/ and results/.", otherwise="one that goes with the service"),
        ),
    },
    _serve,
    "serve --port=8989",
    "The first line says the location that astra_sim_sdk.api(location=...) takes.  Ctrl-C ends\n"
    "the service, and what it runs.",
)  # fmt: skip
