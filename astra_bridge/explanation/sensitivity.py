# SPDX-License-Identifier: MIT
"""How much sooner a run would end if something were faster, from that one run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.explanation.causes import Causes, Kind
from astra_bridge.explanation.kinds import Activity, Kinds
from astra_bridge.explanation.replay import MOST_REPLAYED, Durations, replay
from astra_bridge.text import nearest, show

if TYPE_CHECKING:
    from astra_bridge.lowering import Lowered
    from astra_bridge.network.idle import IdleNetworks

__all__ = ["Sensitivities", "link_factors", "link_names", "sensitivity_table"]

_BANDWIDTH, _LATENCY, _COMPUTE = "bandwidth of ", "latency of ", "compute: "
_ENDPOINT = "endpoints"
_FACTOR = 1.1
_ENDLESS = 1e6
"""Times as much bandwidth as there is: what is left of a message's time is latency."""

_CLOSE = 1e-3
"""Ends that differ by less of the finish are the same."""


def link_names(kinds: Sequence[str]) -> list[str]:
    """What can be better about kinds of links.

    Examples
    --------
    >>> link_names(["dim0"])
    ['bandwidth of dim0', 'latency of dim0']
    """
    return [word + kind for word in (_BANDWIDTH, _LATENCY) for kind in kinds]


def link_factors(factors: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Factors on bandwidths, and on latencies, by kind of link.

    Examples
    --------
    >>> link_factors({"bandwidth of dim0": 2.0})
    ({'dim0': 2.0}, {})
    """
    faster, sooner = (
        {name.removeprefix(word): one for name, one in factors.items() if name.startswith(word)}
        for word in (_BANDWIDTH, _LATENCY)
    )
    return faster, sooner


def sensitivity_table(
    finish_ps: int,
    factor: float,
    names: Sequence[str],
    ends: Sequence[int],
    path: Sequence[int],
    said: Sequence[str],
) -> dict[str, NDArray[Any]]:
    """Columns of what would change; the ones that change most are first.

    Parameters
    ----------
    finish_ps, factor
        When the run ended, and how many times better each thing is.
    names, ends, path, said
        Of each: its name, when the run ends [ps], when the same path ends [ps], and the word in
        the column ``other_path``.
    """
    order = sorted(range(len(names)), key=lambda at: ends[at])
    ended = np.array([ends[at] for at in order], np.int64)
    return {
        "what": np.array([names[at] for at in order], np.str_),
        "factor": np.full(len(order), float(factor)),
        "finish_ps": ended,
        "change_ps": ended - finish_ps,
        "change": (ended - finish_ps) / max(finish_ps, 1),
        "path_ps": np.array([path[at] for at in order], np.int64),
        "other_path": np.array([said[at] for at in order], np.str_),
    }


class Sensitivities:
    """The pieces of a critical path, and how long each would take if something were faster.

    Parameters
    ----------
    causes : Causes
    finish_ps : ndarray of int64, shape (rows,)
    lowered : Lowered
    kinds : sequence of Kinds
        Per trace.
    networks : IdleNetworks

    Attributes
    ----------
    pieces : list of Piece
    """

    def __init__(
        self,
        causes: Causes,
        finish_ps: NDArray[np.int64],
        lowered: Lowered,
        kinds: Sequence[Kinds],
        networks: IdleNetworks,
    ) -> None:
        self._causes, self._lowered, self._kinds = causes, lowered, kinds
        self.pieces, self._networks = causes.path(finish_ps), networks
        deliveries = causes.deliveries
        pieces = self.pieces
        self._nodes: dict[str, int] = {}  # time on the path
        self._endpoint_ps = self._other_ps = 0
        # Messages alike: from, to, bytes -> how many, and how long they waited for others.
        self._messages: dict[tuple[int, int, int], list[int]] = {}
        for piece in pieces:
            took = piece.end_ps - piece.start_ps
            if piece.kind is Kind.NODE:
                name = _class_of(piece.row, piece.node, lowered, kinds)
                self._nodes[name] = self._nodes.get(name, 0) + took
            elif piece.kind is Kind.ENDPOINT:
                self._endpoint_ps += took
            elif piece.kind is Kind.MESSAGE:
                row = deliveries[piece.message]
                key = int(row["src"]), int(row["dst"]), int(row["bytes"])
                found = self._messages.setdefault(key, [0, 0])
                found[0] += 1
                found[1] += took
            else:
                self._other_ps += took

    @cached_property
    def names(self) -> list[str]:
        """What can be faster, as `what_if` takes it."""
        tiers = self._networks.tiers if self._messages else ()
        return [
            *link_names(tiers),
            *sorted(self._nodes),
            *([_ENDPOINT] if self._endpoint_ps else []),
        ]

    @property
    def finish_ps(self) -> int:
        """When the run ended."""
        return self.pieces[-1].end_ps if self.pieces else 0

    def what_if(self, factors: Mapping[str, float]) -> int:
        """When the same path would end if some things were so many times as fast [ps].

        A latency that is twice as good is half as long.  Another path may become the longer one,
        so this is the earliest that the run would end.

        Raises
        ------
        InputError
            There is nothing of such a name on the path.
        """
        for name, factor in factors.items():
            if name not in self.names:
                raise InputError(
                    f"{show(name)} is not on the critical path; what is: "
                    f"{', '.join(self.names)}{nearest(name, self.names)}",
                    key="what-if",
                )
            if not factor > 0:
                raise InputError(f"is {factor:g}; allowed: above 0", key=name)
        total = float(self._other_ps)
        total += sum(took / factors.get(name, 1.0) for name, took in self._nodes.items())
        total += self._endpoint_ps / factors.get(_ENDPOINT, 1.0)
        return round(total + self._messages_ps(factors))

    def _messages_ps(self, factors: Mapping[str, float]) -> float:
        faster, sooner = link_factors(factors)
        total = 0.0
        for (src, dst, size), (count, took) in self._messages.items():
            idle = self._networks.time_ps(src, dst, size, {}, {})
            # What is more than that, it waited for links, which is shorter where they are faster.
            waited = float(max(took - count * idle, 0))
            new = took - count * idle - waited  # it came before the others were through
            if faster or sooner:
                new += count * self._networks.time_ps(src, dst, size, faster, sooner)
            else:
                new += count * idle
            if waited and faster:
                waited /= faster.get(self._narrowest(src, dst, size), 1.0)
            total += new + waited
        return total

    def _narrowest(self, src: int, dst: int, size: int) -> str:
        """The kind of links on the way of a message whose bandwidth matters most."""
        networks = self._networks
        times = {
            tier: networks.time_ps(src, dst, size, {tier: _FACTOR}, {}) for tier in networks.tiers
        }
        return min(times, key=lambda tier: times[tier])

    def replayed(self, each: Sequence[Mapping[str, float]]) -> list[int] | None:
        """As `what_if` in each of several cases, with all other paths; None where it is not known.

        What ran is gone through once more with other durations; for that it may not be too large.
        """
        causes, networks = self._causes, self._networks
        messages = causes.deliveries
        size = len(causes.times.start_ps) + len(causes.stays) + len(messages)
        if size > MOST_REPLAYED:
            return None
        each = [{}, *each]  # where the first is not what ran, the others are not known
        split = [link_factors(factors) for factors in each]
        took = (causes.times.end_ps - causes.times.start_ps).astype(np.float64)
        nodes = np.repeat(took[:, None], len(each), axis=1)
        for row in range(len(causes.times.offset) - 1):
            first, last = causes.times.offset[row : row + 2].tolist()
            for node in range(first, last):
                name = _class_of(row, node - first, self._lowered, self._kinds)
                nodes[node] /= [factors.get(name, 1.0) for factors in each]
        idle = np.zeros((len(messages), len(each)))
        latencies = np.zeros((len(messages), len(each)))
        waits = np.ones((len(messages), len(each)))
        known: dict[tuple[int, int, int], tuple[list[int], list[int], list[float]]] = {}
        endless = dict.fromkeys(networks.tiers, _ENDLESS)
        for at, key in enumerate(
            zip(*(messages[name].tolist() for name in ("src", "dst", "bytes")), strict=True)
        ):
            if key not in known:
                src, dst, bytes_ = key
                times = [networks.time_ps(src, dst, bytes_, *one) for one in split]
                narrowest = (
                    self._narrowest(src, dst, bytes_) if any(one[0] for one in split) else ""
                )
                ways = [networks.time_ps(src, dst, bytes_, endless, one[1]) for one in split]
                known[key] = times, ways, [1 / one[0].get(narrowest, 1.0) for one in split]
            idle[at], latencies[at], waits[at] = known[key]
        endpoints = np.array([1 / factors.get(_ENDPOINT, 1.0) for factors in each])
        ends = replay(causes, Durations(nodes, idle, latencies, waits, endpoints))
        if ends is None or abs(ends[0] - self.finish_ps) > self.finish_ps * _CLOSE:
            return None
        return [round(end) for end in ends[1:].tolist()]

    def table(self, factor: float = _FACTOR) -> dict[str, NDArray[Any]]:
        """Each of `names`, that much better; the ones that change most are first.

        Columns what, factor, finish_ps (when the run would end), change_ps, change (of the
        finish), path_ps (when the same path would end), and other_path: whether another path
        becomes the longer one, where that is known ("yes", "no", "unknown").
        """
        finish, names = self.finish_ps, self.names
        each = [{name: factor} for name in names]
        path = [self.what_if(one) for one in each]
        again = self.replayed(each)
        ends = path if again is None else again
        said = [
            "unknown" if again is None else "yes" if abs(one - other) > finish * _CLOSE else "no"
            for one, other in zip(path, ends, strict=True)
        ]
        return sensitivity_table(finish, factor, names, ends, path, said)


def _class_of(row: int, node: int, lowered: Lowered, kinds: Sequence[Kinds]) -> str:
    """What kind of operator a node is: those of one name but for numbers are alike."""
    trace = int(lowered.trace_of_task[row])
    activity = int(kinds[trace].activity[node])
    if activity == Activity.MEMORY:
        return "memory"
    name = lowered.traces[trace].name(int(lowered.order[trace][node]))
    plain = re.sub(r"\d+", "*", name).strip()
    if activity == Activity.HOST:
        return "host"
    if activity not in (-1, Activity.COMPUTE):
        return f"recorded: {kinds[trace].labels[int(kinds[trace].label[node])]}"
    return _COMPUTE + (plain or "unnamed")
