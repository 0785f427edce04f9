# SPDX-License-Identifier: MIT
"""One point of a sweep: its run, in whatever process, and the file that keeps what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from astra_bridge.errors import AstraBridgeError, BackendUnavailable, InputError
from astra_bridge.files import write_file
from astra_bridge.simulation import Experiment
from astra_bridge.simulation.content import content_hash
from astra_bridge.text import one_line

if TYPE_CHECKING:
    from astra_bridge.results import Result

__all__ = ["Point", "Store", "failure", "run_point"]

_BYTES_PER_GB = 10**9


class Point(msgspec.Struct, frozen=True):
    """What was varied, the experiment (None where the values make none), and its key.

    The key is a hash of what the experiment says, and of its backend's name: points that say the
    same have the same one.
    """

    values: dict[str, Any]
    backend: str
    experiment: Experiment | None
    key: str
    error: Exception | None = None

    @classmethod
    def of(cls, base: Experiment, values: dict[str, Any]) -> Point:
        """The point at some values; bad ones make a point that has failed."""
        backend = str(values.get("backend", base.spec.name if not isinstance(base.backend, str)
                                 else base.backend))  # fmt: skip
        try:
            experiment = base.replace(values)
            return cls(values, backend, experiment, content_hash(experiment.token, backend))
        except (AstraBridgeError, OSError) as error:
            # Whoever mends the inputs changes the message, or the point has no error any more.
            key = content_hash("failed", backend, str(values), str(error))
            return cls(values, backend, None, key, error)


def run_point(experiment: Experiment) -> dict[str, Any]:
    """Run an experiment, on this machine or another: numbers of the result, or the error."""
    began_s, began_cpu_s = time.perf_counter(), time.thread_time()
    try:
        result = experiment.run(record_nodes=None if _tracked(experiment) else False)
        found: dict[str, Any] = {
            "finish_ns": int(result.finish_ns.max(initial=0)),
            "exposed_comm_ns": int(result.exposed_comm_ns.max(initial=0)),
            "memory_gb": _memory_gb(result),
            "events": int(result.events),
            "run_cpu_s": float(result.run_cpu_s),
            "error": "",
        }
    except Exception as error:  # a point of many: it is recorded, and the others go on
        found = failure(error)
    # What a backend takes in a process of its own counts, too.
    cpu_s = time.thread_time() - began_cpu_s
    if experiment.spec.isolate:
        cpu_s += found.get("run_cpu_s", 0.0)
    return {**found, "cpu_s": cpu_s, "wall_s": time.perf_counter() - began_s}


def failure(error: BaseException) -> dict[str, Any]:
    """What is recorded of a point that failed."""
    kind = type(error).__name__
    return {
        "error": f"{kind}: {one_line(str(error), 1000)}",
        "exit_code": getattr(error, "exit_code", 1),
        # Nothing is wrong with the point where the machine lacks something.
        "elsewhere": isinstance(error, (BackendUnavailable, MemoryError)),
    }


def _tracked(experiment: Experiment) -> bool:
    return experiment.system_config.enabled("track-local-mem", experiment.semantics)


def _memory_gb(result: Result) -> float | None:
    """The most that tensors take on a rank [10**9 bytes], where that is followed."""
    if not result.system.enabled("track-local-mem", result.semantics):
        return None
    from astra_bridge.results.local_memory import local_memory

    peaks = (
        max((used for _, used in local_memory(result, rank).usage()), default=0)
        for rank in range(result.rank_count)
    )
    return max(peaks, default=0) / _BYTES_PER_GB


class Store:
    """What came of points, each in a file of its own, from the instant that it ended.

    Parameters
    ----------
    folder
        ``points/KEY.json`` and ``runs.log`` are in it.
    again
        Whether points that have failed count as not run.
    """

    def __init__(self, folder: Path, again: bool = False) -> None:
        self._folder, self._again = folder / "points", again
        self._log = folder / "runs.log"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write: {error.strerror}", file=folder) from None
        self._known: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> dict[str, Any] | None:
        """What came of a point; None if it has not run."""
        if key not in self._known:
            kept = self._read(self._folder / f"{key}.json")
            if kept is None:
                return None
            if kept.get("elsewhere") or (kept["error"] and self._again):
                return None
            self._known[key] = kept
        return self._known[key]

    def _read(self, file: Path) -> dict[str, Any] | None:
        """The content of a file; None if there is none."""
        try:
            kept: dict[str, Any] = msgspec.json.decode(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(
                f"cannot read what is stored: {one_line(str(error))}; delete it to run again",
                file=file,
            ) from None
        return kept

    def kept(self) -> Iterator[dict[str, Any]]:
        """What is stored of all points, with their ``values`` and ``backend``."""
        for file in sorted(self._folder.glob("*.json")):
            kept = self._read(file)
            if kept is not None:
                yield kept

    def put(self, point: Point, found: dict[str, Any]) -> None:
        """Keep what came of a point."""
        kept = {"values": point.values, "backend": point.backend, **found}
        content = msgspec.json.encode(kept, enc_hook=str) + b"\n"
        write_file(self._folder / f"{point.key}.json", content)
        self._known[point.key] = found
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {point.key} {point.backend}\n")
