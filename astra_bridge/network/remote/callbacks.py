# SPDX-License-Identifier: MIT
"""A network in Python as a table of the C contract, so that a server has one kind of backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import (
    AstraBridgeError,
    ContractError,
    InputError,
    Interrupted,
    SimulationError,
    Unsupported,
)
from astra_bridge.network.api import (
    COMPLETION,
    LINK,
    TRANSFER,
    Capability,
    Network,
    NetworkConfig,
    NetworkInfo,
    Status,
    Stop,
)
from astra_bridge.network.header import ffi

__all__ = ["PythonTable"]

_OPTIONAL = {
    "interrupt": Capability.INTERRUPT,
    "set_link": Capability.LINK_FAULTS,
    "snapshot": Capability.SNAPSHOT,
    "exchange": Capability.ORDERED,
    "save": Capability.SAVE,
    "load": Capability.SAVE,
    "peek": Capability.PEEK,
}


def _status(error: BaseException) -> Status:
    kinds = (
        (Unsupported, Status.UNSUPPORTED),
        (InputError, Status.INVALID),
        (Interrupted, Status.INTERRUPTED),
        (SimulationError, Status.MODEL),
    )
    for kind, status in kinds:
        if isinstance(error, kind):
            return status
    if isinstance(error, ContractError) and error.status == Status.BAD_STATE:
        return Status.BAD_STATE
    return Status.INVALID if isinstance(error, ContractError) else Status.INTERNAL


class _One:
    """A simulation: what is polled, but not taken, and the time that it has reached."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.unread: NDArray[Any] | None = None
        self.now_ps = 0


class PythonTable:
    """The functions of one class of networks.

    Parameters
    ----------
    make : callable
        Makes a network of a `NetworkConfig`.
    info : NetworkInfo
        What its networks declare.

    Attributes
    ----------
    table : cdata of astra_net_backend*
        Valid as long as this object.
    """

    def __init__(self, make: Callable[[NetworkConfig], Network], info: NetworkInfo) -> None:
        parsed = ffi()
        self._make, self._info = make, info
        self._sims: dict[int, _One] = {}
        self._next = 1
        self.table = parsed.new("astra_net_backend *")
        self.table.struct_size = parsed.sizeof("astra_net_backend")
        self.table.abi_version = 1003
        self._texts = [parsed.new("char[]", one.encode()) for one in (info.name, info.version)]
        self._keep = []
        for name, field in parsed.typeof("astra_net_backend").fields:
            wanted = _OPTIONAL.get(name)
            if name.endswith(("_size", "_version")) or (
                wanted is not None and wanted not in info.capabilities
            ):
                continue
            if name in ("destroy", "interrupt"):
                function = parsed.callback(field.type, getattr(self, f"_{name}"))
            else:
                function = parsed.callback(
                    field.type, self._guarded(name), error=int(Status.INTERNAL)
                )
            self._keep.append(function)
            setattr(self.table, name, function)

    def _guarded(self, name: str) -> Callable[..., int]:
        entry = self._describe if name == "info" else getattr(self, f"_{name}")

        def call(*arguments: Any) -> int:
            err = arguments[-1]
            try:
                return int(entry(*arguments[:-1]) or 0)
            except Exception as error:
                text = str(error) if isinstance(error, AstraBridgeError) else repr(error)
                if err:
                    room = len(err.message) - 1
                    said = text.encode()[:room].decode("utf-8", "ignore").encode()
                    ffi().memmove(err.message, said + b"\0", len(said) + 1)
                    err.item = getattr(error, "item", -1)
                    err.native_code = getattr(error, "native_code", 0)
                return int(_status(error))

        return call

    def _of(self, sim: Any) -> _One:
        return self._sims[int(ffi().cast("intptr_t", sim))]

    def _added(self, network: Network, out: Any) -> None:
        self._sims[self._next] = _One(network)
        out[0] = ffi().cast("astra_net_sim *", self._next)
        self._next += 1

    def _rows(self, pointer: Any, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        if count == 0:
            return np.zeros(0, dtype)
        return np.array(np.frombuffer(ffi().buffer(pointer, count * dtype.itemsize), dtype))

    def _describe(self, out: Any) -> None:
        info = self._info
        out.name, out.version = self._texts
        out.capabilities = int(info.capabilities)
        out.resolution_ps, out.max_in_flight = info.resolution_ps, info.max_in_flight
        out.traffic_classes = info.traffic_classes
        out.abi_version = 1003

    def _config(self, given: Any) -> NetworkConfig:
        parsed = ffi()
        if given.part_count:
            raise InputError("parts are for a backend that is made of others")
        options = {
            parsed.string(one.key).decode(): parsed.string(one.value).decode()
            for one in (given.options[i] for i in range(given.option_count))
        }
        links = self._rows(given.links, given.link_count, LINK)
        return NetworkConfig(given.endpoints, given.nodes, links, options)

    def _create(self, config: Any, _host: Any, out: Any) -> None:
        self._added(self._make(self._config(config)), out)

    def _load(self, config: Any, _host: Any, data: Any, size: int, out: Any) -> None:
        network = self._make(self._config(config))
        network.restore(bytes(ffi().buffer(data, size)))
        self._added(network, out)

    def _destroy(self, sim: Any) -> None:
        if sim:
            self._sims.pop(int(ffi().cast("intptr_t", sim))).network.close()

    def _submit(self, sim: Any, items: Any, count: int, accepted: Any) -> None:
        accepted[0] = self._of(sim).network.submit(self._rows(items, count, TRANSFER))

    def _advance(self, sim: Any, until_ps: int, lookahead_ps: int, now_ps: Any, stop: Any) -> int:
        one = self._of(sim)
        try:
            one.now_ps, stop[0] = one.network.advance(until_ps, lookahead_ps)
        except Interrupted as error:
            # -1: it is not known how far it came, so as far as it had come before.
            one.now_ps, stop[0] = max(one.now_ps, error.now_ps), int(Stop.REACHED)
            return int(Status.INTERRUPTED)
        finally:
            now_ps[0] = one.now_ps
        return 0

    def _poll(self, sim: Any, out: Any, capacity: int, count: Any) -> None:
        one = self._of(sim)
        records = one.network.poll() if one.unread is None else one.unread
        taken = np.ascontiguousarray(records[:capacity], COMPLETION)
        ffi().memmove(out, taken.tobytes(), taken.nbytes)
        count[0] = len(taken)
        one.unread = records[capacity:] if len(records) > capacity else None

    def _exchange(self, sim: Any, x: Any) -> None:
        starts = self._rows(x.starts, x.start_count, TRANSFER)
        answer = self._of(sim).network.exchange(
            starts, x.now_ps, x.until_ps, x.until_place, x.place
        )
        records = np.ascontiguousarray(answer.completions, COMPLETION)
        if len(records) > x.capacity:
            raise ValueError(f"exchange gave {len(records)} completions; room is for {x.capacity}")
        ffi().memmove(x.completions, records.tobytes(), records.nbytes)
        x.completion_count = len(records)
        x.now_ps, x.stop, x.place = answer.now_ps, answer.stop, answer.place
        x.next_ps, x.next_place = answer.next_ps, answer.next_place

    def _interrupt(self, sim: Any) -> None:
        if sim:
            self._of(sim).network.interrupt()

    def _set_link(self, sim: Any, link: int, at_ps: int, bandwidth_scale: float) -> None:
        self._of(sim).network.set_link(link, at_ps, bandwidth_scale)

    def _stats(self, sim: Any, out: Any, capacity: int, needed: Any) -> None:
        def plain(value: Any) -> Any:
            if isinstance(value, (np.generic, np.ndarray)):
                return value.tolist()
            raise TypeError(f"{type(value).__name__} has no place in JSON")

        self._bytes(
            json.dumps(self._of(sim).network.stats(), default=plain).encode(), out, capacity, needed
        )

    def _save(self, sim: Any, out: Any, capacity: int, needed: Any) -> None:
        self._bytes(self._of(sim).network.save(), out, capacity, needed)

    @staticmethod
    def _bytes(data: bytes, out: Any, capacity: int, needed: Any) -> None:
        needed[0] = len(data)
        if out and len(data) <= capacity:
            ffi().memmove(out, data, len(data))

    def _snapshot(self, sim: Any, out: Any) -> None:
        self._added(self._of(sim).network.snapshot(), out)

    def _peek(self, sim: Any, next_ps: Any) -> None:
        next_ps[0] = self._of(sim).network.peek()
