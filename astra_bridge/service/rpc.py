# SPDX-License-Identifier: MIT
"""The service over gRPC, as ``astra_sim_sdk.api(transport="grpc")`` speaks it.

The messages are those of the installed SDK.  Its generated code is read, not imported: it runs with
protobuf 5 alone, what it describes with any.
"""

from __future__ import annotations

import ast
import ipaddress
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.service.job import Refusal, Service
from astra_bridge.text import one_line

__all__ = ["RpcServer"]

_SERVICE = "astra.Openapi"
_CHUNK = 3 << 20
_INSTALL = "pip install grpcio, and pip install --no-deps astra-sim-sdk"
_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 409: "UNAVAILABLE",
          412: "FAILED_PRECONDITION", 413: "RESOURCE_EXHAUSTED"}  # fmt: skip

Call = Callable[[Service, Any], Any]


class RpcServer:
    """Listens on this machine, and passes calls on.

    gRPC of the SDK has no way to show a token, so there is none that other machines can reach.

    Parameters
    ----------
    service : Service
    host : str
    port : int
        0: the system chooses.

    Attributes
    ----------
    location : str
        What the SDK takes: "127.0.0.1:8990".

    Raises
    ------
    MissingDependency
        grpcio or the SDK is not installed.
    InputError
        There cannot be listened, or others could reach it.
    """

    def __init__(self, service: Service, host: str = "127.0.0.1", port: int = 0) -> None:
        try:
            import grpc
        except ImportError:
            raise MissingDependency(f"gRPC needs the package grpcio: {_INSTALL}") from None
        where = str(socket.getaddrinfo(host, port)[0][4][0])
        if not ipaddress.ip_address(where).is_loopback:
            raise InputError(
                f"{host} can be reached from other machines, and gRPC of the SDK shows no token; "
                "use HTTP",
                key="--grpc-port",
            )
        handler = grpc.method_handlers_generic_handler(_SERVICE, _handlers(grpc, service))
        # Uploads are as large as they are.
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[handler], options=options)
        shown = f"[{where}]" if ":" in where else where
        try:
            taken = self._server.add_insecure_port(f"{shown}:{port}")
        except RuntimeError:
            taken = 0
        if not taken:
            raise InputError(f"cannot listen at {host}, port {port}", key="--grpc-port")
        self.location = f"{shown}:{taken}"
        self._server.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.stop(None).wait()


def _handlers(grpc: Any, service: Service) -> dict[str, Any]:
    """What answers each method of the SDK's service."""
    from google.protobuf import message_factory

    described = _described()
    found = {}
    for method in described.methods:
        asked = message_factory.GetMessageClass(method.input_type)
        answered = message_factory.GetMessageClass(method.output_type)
        many_in, many_out = method.client_streaming, method.server_streaming
        name = method.name.removeprefix("stream")
        call = _CALLS.get(name[:1].upper() + name[1:])
        if call is None:
            continue
        kind = f"{'stream' if many_in else 'unary'}_{'stream' if many_out else 'unary'}"
        inner = described.file.message_types_by_name.get(f"{name}Request")
        whole = message_factory.GetMessageClass(inner) if many_in and inner is not None else None
        found[method.name] = getattr(grpc, f"{kind}_rpc_method_handler")(
            _answer(grpc, service, call, answered, whole, many_out),
            request_deserializer=asked.FromString,
            response_serializer=answered.SerializeToString,
        )
    return found


def _answer(
    grpc: Any, service: Service, call: Call, answered: Any, whole: Any, many_out: bool
) -> Callable[[Any, Any], Any]:
    def given(request: Any) -> Any:
        """The request; of one in pieces, what they are pieces of."""
        if whole is None:
            return request
        data = b"".join(piece.datum for piece in request)
        first = whole.DESCRIPTOR.fields[0]
        if first.message_type is None:
            return whole(**{first.name: data})
        message = whole()
        getattr(message, first.name).ParseFromString(data)
        return message

    def called(request: Any, context: Any) -> Any:
        try:
            return call(service, given(request))
        except Refusal as refusal:
            code, kind, why = refusal.code, refusal.kind, str(refusal)
        except Exception as error:  # a fault here is one of this call alone
            code, kind, why = 500, "internal", f"{type(error).__name__}: {one_line(str(error))}"
        status = getattr(grpc.StatusCode, _CODES.get(code, "INTERNAL"))
        details = {"code": status.value[0], "kind": kind, "errors": [why]}
        return context.abort(status, json.dumps(details))  # which raises

    def unary(request: Any, context: Any) -> Any:
        return answered(**called(request, context))

    def stream(request: Any, context: Any) -> Iterator[Any]:
        (data,) = called(request, context).values()
        for at in range(0, len(data), _CHUNK):
            yield answered(datum=data[at : at + _CHUNK])

    return stream if many_out else unary


def _said(message: str, warnings: Iterable[str] = ()) -> dict[str, Any]:
    return {"server_response": {"message": message, "warnings": list(warnings)}}


# Method -> what is made of the service and the request: the fields of the answer.
_CALLS: Mapping[str, Call] = {
    "UploadConfig": lambda service, request: _said(service.upload(request.request_bytes)),
    "SetConfig": lambda service, request: _said(*service.configure(_plain(request.config))),
    "GetConfig": lambda service, _: {"response_bytes": service.configuration()},
    "GetStatus": lambda service, _: {"control_status": {"status": service.status()}},
    "SetControlAction": lambda service, request: _said(service.control(_plain(request.control))),
    "GetResult": lambda service, request: {
        "response_bytes": service.result(_plain(request.result))
    },
    "GetVersion": lambda service, _: {"version": service.version()},
}


def _plain(message: Any) -> dict[str, Any]:
    """A message as the SDK's JSON has it: what is set, enumerations by their names."""
    return {
        field.name: [_value(field, one) for one in value]
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes))
        else _value(field, value)
        for field, value in message.ListFields()
    }


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    # The shortest text that gives the same float: what the user has written.
    return float(str(np.float32(value))) if field.type == field.TYPE_FLOAT else value


def _described() -> Any:
    """The description of the SDK's service, in a pool of its own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2

    spec = find_spec("astra_sim_sdk")
    if spec is None or spec.origin is None:
        raise MissingDependency(f"gRPC needs the messages of astra-sim-sdk: {_INSTALL}")
    source = Path(spec.origin).with_name("astra_pb2.py").read_text(encoding="utf-8")
    pool = descriptor_pool.DescriptorPool()
    for module in (descriptor_pb2, empty_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "AddSerializedFile":
            pool.AddSerializedFile(ast.literal_eval(node.args[0]))
    return pool.FindServiceByName(_SERVICE)
