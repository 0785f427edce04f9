# SPDX-License-Identifier: MIT
"""Records every call that crosses the network contract, and plays it again.

A recording is a text file, one JSON object per call, so a report about a backend can be read,
shortened, and repeated without the engine or the inputs that led to it::

    with RecordingNetwork(spec.open(config), config, "calls.jsonl") as network:
        ...
    replay("calls.jsonl", spec.open)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError, NetworkError
from astra_bridge.inputs.common import parse_json
from astra_bridge.network.api import (
    LINK,
    TRANSFER,
    Advance,
    Exchange,
    Network,
    NetworkConfig,
    NetworkInfo,
)

__all__ = ["RecordingNetwork", "ReplayError", "replay"]


_CALLS = ("submit", "advance", "poll", "exchange", "set_link", "stats")


class ReplayError(NetworkError):
    """A replayed call was answered differently; the message has the call and both answers."""


class RecordingNetwork:
    """A ``Network`` that writes down what is asked and answered.

    Parameters
    ----------
    network
        The simulation that answers; closed with this one.
    config
        What it was made of; stands at the head of the recording.
    file
        Where to write; replaced if it exists.
    """

    def __init__(self, network: Network, config: NetworkConfig, file: str | Path) -> None:
        self._network = network
        self._out = Path(file).open("w", encoding="utf-8")  # noqa: SIM115 - closed by close()
        head = {
            "call": "create",
            "backend": network.info.name,
            "endpoints": config.endpoints,
            "nodes": config.nodes,
            "links": config.links.tolist(),
            "options": dict(config.options),
        }
        self._write(head)

    def _write(self, entry: dict[str, Any]) -> None:
        json.dump(entry, self._out, separators=(",", ":"))
        self._out.write("\n")

    def _call(self, call: str, *arguments: Any) -> Any:
        # Written before the call, and at once: the last line tells where a crash or a hang was.
        entry = {"call": call, "arguments": [_plain(argument) for argument in arguments]}
        self._write(entry)
        self._out.flush()
        try:
            answer = getattr(self._network, call)(*arguments)
        except NetworkError as error:
            self._write({"error": _error(error)})
            raise
        self._write({"answer": _plain(answer)})
        return answer

    @property
    def info(self) -> NetworkInfo:
        return self._network.info

    def submit(self, items: NDArray[Any]) -> int:
        return int(self._call("submit", items))

    def advance(self, until_ps: int, lookahead_ps: int = 0) -> Advance:
        answer: Advance = self._call("advance", until_ps, lookahead_ps)
        return answer

    def poll(self) -> NDArray[Any]:
        answer: NDArray[Any] = self._call("poll")
        return answer

    def exchange(
        self,
        starts: NDArray[Any],
        now_ps: int,
        until_ps: int,
        until_place: int,
        place: int,
    ) -> Exchange:
        answer: Exchange = self._call("exchange", starts, now_ps, until_ps, until_place, place)
        return answer

    def set_link(self, link: int, at_ps: int, bandwidth_scale: float) -> None:
        self._call("set_link", link, at_ps, bandwidth_scale)

    def peek(self) -> int:
        """Passed on; not recorded, because it changes nothing."""
        return self._network.peek()

    def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("stats")
        return answer

    def snapshot(self) -> Network:
        """A copy, whose calls are not recorded."""
        return self._network.snapshot()

    def save(self) -> bytes:
        """Passed on; not recorded, because it changes nothing."""
        return self._network.save()

    def restore(self, data: bytes) -> None:
        self._call("restore", data)

    def interrupt(self) -> None:
        """Passed on; not recorded, because it may come from another thread at any time."""
        self._network.interrupt()

    def close(self) -> None:
        self._network.close()
        self._out.close()

    def __enter__(self) -> RecordingNetwork:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, np.ndarray):
        return [list(row) for row in value.tolist()]
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _error(error: NetworkError) -> dict[str, Any]:
    return {"type": type(error).__name__, "status": error.status, "item": error.item}


def replay(file: str | Path, open_network: Callable[[NetworkConfig], Network]) -> int:
    """Repeat a recording against a backend; return the number of calls.

    Parameters
    ----------
    file
        Written by :class:`RecordingNetwork`; may end in the middle, where the process died.
    open_network
        Makes the simulation, such as ``BackendSpec.open``.

    Raises
    ------
    InputError
        The file is not a recording.
    ReplayError
        A call was answered differently.
    """
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        entries = [parse_json(line, file=path) for line in lines]
        head = entries[0]
        links = np.array([tuple(row) for row in head["links"]], LINK)
        config = NetworkConfig(head["endpoints"], head["nodes"], links, head["options"])
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except InputError as error:
        raise InputError(f"is not a recording: {error.reason}", file=path) from None
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"is not a recording: {error!r}", file=path) from error
    calls = 0
    with open_network(config) as network:
        for number, (asked, recorded) in enumerate(zip(entries[1::2], entries[2::2], strict=False)):
            try:
                call, arguments = asked["call"], asked["arguments"]
                if call not in _CALLS:
                    raise ValueError(f"no call {call!r}")
                if call in ("submit", "exchange"):
                    arguments[0] = np.array([tuple(row) for row in arguments[0]], TRANSFER)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise InputError(f"call {number + 1} is broken: {error!r}", file=path) from error
            try:
                answer = {"answer": _plain(getattr(network, call)(*arguments))}
            except NetworkError as error:
                answer = {"error": _error(error)}
            if answer != recorded:
                raise ReplayError(
                    f"{path}: call {number + 1}, {call}: recorded {_short(recorded)}, now "
                    f"{_short(answer)}",
                    backend=network.info.name,
                    call=call,
                )
            calls += 1
    return calls


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:300] + "..."
