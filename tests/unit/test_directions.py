# SPDX-License-Identifier: MIT
"""Which schedules end where members of a group go different ways round, and which cannot."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from astra_bridge.collectives import ALGORITHMS, Kind, Request
from astra_bridge.collectives.schedule import Schedule


def ends(schedules: tuple[Schedule, ...]) -> bool:
    """Whether all members end that run these schedules, in order of position.

    Delays do not matter: what a member may do only grows with what it has received.
    """
    n = len(schedules)
    step, received = [0] * n, [0] * n
    sent: Counter[tuple[int, int]] = Counter()
    awaited: Counter[tuple[int, int]] = Counter()
    going = True
    while going:
        going = False
        for i, schedule in enumerate(schedules):
            while step[i] < len(schedule.steps):
                one = schedule.steps[step[i]]
                gated = step[i] >= schedule.gate_step and received[i] < schedule.gate_received
                if gated or schedule.window + received[i] < one.need:
                    break
                step[i] += 1
                sent[i, (i + one.send_to) % n] += 1
                awaited[(i + one.recv_from) % n, i] += 1
                going = True
        for pair, count in awaited.items():
            met = min(count, sent[pair])
            sent[pair] -= met
            awaited[pair] -= met
            received[pair[1]] += met
            going = going or met > 0
    return all(i == len(schedule.steps) for i, schedule in zip(step, schedules, strict=True))


@pytest.mark.parametrize("kind", [Kind.ALL_REDUCE, Kind.ALL_GATHER])
@pytest.mark.parametrize(
    ("name", "window"), [("ring", -1), ("direct", -1), *(("direct", w) for w in range(1, 5))]
)
@pytest.mark.parametrize("n", range(2, 10))
def test_members_agree_where_they_must(kind: Kind, name: str, window: int, n: int) -> None:
    way = [
        ALGORITHMS.find(name, key="name").build(Request(kind, n, 960, variant, window=window))
        for variant in (0, 1)
    ]
    mixtures = [
        tuple(way[one].schedules[0] for one in ways)
        for ways in itertools.product((0, 1), repeat=n)
        if len(set(ways)) == 2
    ]
    assert way[0].same_way == way[1].same_way
    assert all(ends(one.schedules * n) for one in way)
    if not way[0].same_way:
        assert all(map(ends, mixtures))
    elif name == "ring" or window == 1:
        # Nothing of ASTRA-sim's is lost: it never ends on any of these.
        assert not any(map(ends, mixtures))
    else:
        assert not all(map(ends, mixtures))
