# SPDX-License-Identifier: MIT
"""Evaluate phases as wavefronts, where that is known to give the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from astra_bridge.engine.outcome import Doubt, Waved
from astra_bridge.errors import AstraBridgeError
from astra_bridge.isolation import Run, RunRequest
from astra_bridge.network.spec import BackendSpec, Ways
from astra_bridge.program import Inside
from astra_bridge.program.wavefront import NoWavefront, wavefronts
from astra_bridge.results.wavefront import Wavefront

__all__ = ["NoWavefront", "waved_run"]

_DOUBTS = {
    Doubt.ORDER: "the order of what happens at once may matter, first at {where}",
    Doubt.MEETING: "messages may meet on a link, first at {where}",
    Doubt.UNKNOWN: "it is not known what a message takes alone, first at {where}",
    Doubt.RANGE: "times are beyond the range of time",
}


def waved_run(
    spec: BackendSpec,
    request: RunRequest,
    threads: int,
    run: Callable[[BackendSpec, RunRequest], Run],
) -> tuple[Run, Wavefront]:
    """Run with wavefronts.

    Parameters
    ----------
    spec
        The backend.
    request
        What is to run on it.
    threads
        How many there may be.
    run
        Runs it.

    Raises
    ------
    NoWavefront
        Nothing can be one, or this run does not prove that its numbers are those of events.
    """
    if request.engine == "python":
        raise NoWavefront("the Python engine has none")
    if request.checkpoint is not None:
        raise NoWavefront("there is a checkpoint, which is between events")
    if request.link_faults:
        raise NoWavefront("some links change meanwhile")
    if request.inside is not Inside.NOTHING:
        raise NoWavefront("what goes on inside collectives is kept")
    if spec.isolate:
        raise NoWavefront(f"backend {spec.name} runs in a process of its own")
    ways = spec.ways(request.config)
    if ways is None:
        raise NoWavefront(f"backend {spec.name} cannot say what transfers take that meet nobody")
    phases = wavefronts(request.program, meets=ways.meets)
    try:
        made = run(spec, msgspec.structs.replace(request, waves=(phases, ways.hops, threads)))
    except AstraBridgeError:
        # Whatever it is, events tell it better.
        raise NoWavefront("the run with them failed") from None
    outcome = made.outcome
    waved = outcome.waved
    if waved is None:  # of "auto"
        raise NoWavefront("the Python engine has none")
    if waved.doubt:
        where = f"rank {waved.rank} at {waved.now_ps // 1000:,} ns"
        raise NoWavefront(_DOUBTS[waved.doubt].format(where=where))
    if (outcome.finish_ps < 0).any():
        raise NoWavefront("some ranks never finish")
    if len(outcome.waits):
        raise NoWavefront("some messages are sent and never received")
    return _counted(made, ways, waved), Wavefront(waved.phases, waved.by_events, threads)


def _counted(run: Run, ways: Ways, waved: Waved) -> Run:
    """With what the network would have counted."""
    its = ways.stats(*waved.flows)
    stats: dict[str, Any] = dict(run.stats)
    for name in ("transfers", "bytes"):
        stats[name] += its[name]
    quirks = _added(stats.get("quirks", {}), its.get("quirks", {}))
    # Where it has tables, transfers may meet, and there were none but those of wavefronts.
    return run._replace(
        stats=stats | ({"quirks": quirks} if quirks else {}),
        tables={**run.tables, **its.get("tables", {})},
    )


def _added(some: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    names = dict.fromkeys([*some, *more])
    return {name: some.get(name, 0) + more.get(name, 0) for name in names}
