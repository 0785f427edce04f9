# SPDX-License-Identifier: MIT
"""The service over HTTP, as ``astra_sim_sdk.api(location="http://...")`` speaks it."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from astra_bridge.errors import InputError
from astra_bridge.service.job import Refusal, Service
from astra_bridge.text import one_line

__all__ = ["HttpServer"]

_JSON, _BYTES = "application/json", "application/octet-stream"
_MOST_JSON = 1 << 26
_TIMEOUT_S = 60.0


class _Answer(NamedTuple):
    kind: str
    body: bytes


def _json(content: Mapping[str, Any]) -> _Answer:
    return _Answer(_JSON, json.dumps(content).encode())


def _said(message: str, warnings: tuple[str, ...] = ()) -> _Answer:
    return _json({"message": message, "warnings": list(warnings)})


def _object(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the request is no JSON: {one_line(str(error))}") from None


# Method and path -> what is made of the service and the body of the request.
_CALLS: dict[tuple[str, str], Callable[[Service, bytes], _Answer]] = {
    ("POST", "/upload_config"): lambda service, body: _said(service.upload(body)),
    ("POST", "/set_config"): lambda service, body: _said(*service.configure(_object(body))),
    ("POST", "/get_config"): lambda service, _: _Answer(_BYTES, service.configuration()),
    ("POST", "/get_status"): lambda service, _: _json({"status": service.status()}),
    ("POST", "/set_control_action"): lambda service, body: _said(service.control(_object(body))),
    ("POST", "/result"): lambda service, body: _Answer(_BYTES, service.result(_object(body))),
    ("GET", "/capabilities/version"): lambda service, _: _json(service.version()),
}
_LARGE = "/upload_config"


class HttpServer:
    """Listens, and passes requests on.

    Parameters
    ----------
    service : Service
    host : str
    port : int
        0: the system chooses.
    token : str
        What a client must show, as password of HTTP's basic authentication or as bearer token; ""
        lets everybody in.  Beyond this machine, one is needed.
    most_bytes : int
        How large an upload may be.

    Attributes
    ----------
    location : str
        What the SDK takes: "http://127.0.0.1:8989".

    Raises
    ------
    InputError
        There cannot be listened, or the address is open to others without a token.
    """

    def __init__(
        self,
        service: Service,
        host: str = "127.0.0.1",
        port: int = 8989,
        *,
        token: str = "",
        most_bytes: int = 1 << 31,
    ) -> None:
        try:
            family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise InputError(f"{host}: {error.strerror or error}", key="--host") from None
        local = ipaddress.ip_address(where[0]).is_loopback
        if not (local or token):
            raise InputError(
                f"{host} can be reached from other machines, which needs a token: --token",
                key="--host",
            )

        class Listening(ThreadingHTTPServer):
            address_family = family
            daemon_threads = True
            allow_reuse_address = True

        handler = _handler(service, token, most_bytes, local)
        try:
            self._server = Listening((str(where[0]), port), handler)
        except OSError as error:
            raise InputError(
                f"cannot listen at {host}, port {port}: {error.strerror or error}", key="--port"
            ) from None
        shown = f"[{where[0]}]" if family == socket.AF_INET6 else where[0]
        self.location = f"http://{shown}:{self._server.server_address[1]}"

    def run(self) -> None:
        """Serve, until an exception (such as that of a signal) ends it."""
        self._server.serve_forever(poll_interval=0.1)

    def start(self) -> threading.Thread:
        """Serve beside what this process does, until :meth:`close`."""
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Stop listening."""
        self._server.server_close()

    def stop(self) -> None:
        """End :meth:`start`."""
        self._server.shutdown()
        self.close()


def _handler(
    service: Service, token: str, most_bytes: int, local: bool
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "astra-bridge"
        timeout = _TIMEOUT_S

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            self._read = False
            try:
                code, answer = 200, self._called()
            except Refusal as refusal:
                code, answer = refusal.code, _error(refusal.code, refusal.kind, str(refusal))
            except ConnectionError:
                self.close_connection = True
                return
            except Exception as error:  # a fault here is one of this request alone
                text = f"{type(error).__name__}: {one_line(str(error))}"
                code, answer = 500, _error(500, "internal", text)
            if not self._read:
                # What was not read would be taken for the next request.
                self.close_connection = True
            self.send_response(code)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            if code == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="astra-bridge"')
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer.body)

        def _called(self) -> _Answer:
            self._check_client()
            path = self.path.partition("?")[0]
            call = _CALLS.get((self.command, path))
            if call is None:
                raise Refusal(f"there is no {self.command} {one_line(path, 100)}", 404)
            body = self._body(most_bytes if path == _LARGE else _MOST_JSON)
            return call(service, body)

        def _check_client(self) -> None:
            if token and not _shows(self.headers.get("Authorization", ""), token):
                raise Refusal("the token is missing or wrong", 401)
            # A page in a browser on this machine must not be able to give orders: it cannot send
            # these types without asking, nor the name of this host from a name of its own.
            kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if self.command == "POST" and kind not in (_JSON, _BYTES):
                raise Refusal(f"Content-Type must be {_JSON} or {_BYTES}", 415)
            if local and not token and not _is_here(self.headers.get("Host", "")):
                raise Refusal("Host must be this machine", 403)

        def _body(self, most: int) -> bytes:
            text = self.headers.get("Content-Length")
            if text is None and self.headers.get("Transfer-Encoding"):
                raise Refusal("Content-Length is needed", 411)
            text = text or "0"
            if not (text.isascii() and text.isdigit()) or len(text) > 18:
                raise Refusal("Content-Length is no number")
            size = int(text)
            if size > most:
                raise Refusal(f"the request has {size} bytes; at most {most} are allowed", 413)
            body = self.rfile.read(size)
            if len(body) < size:
                raise ConnectionError
            self._read = True
            return body

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass  # the command says what matters

    return Handler


def _error(code: int, kind: str, why: str) -> _Answer:
    return _json({"code": code, "kind": kind, "errors": [why]})


def _shows(authorization: str, token: str) -> bool:
    scheme, _, shown = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(shown, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return False
        shown = decoded.partition(":")[2]
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.encode(), token.encode())


def _is_here(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.removeprefix("[").removesuffix("]").lower()
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
