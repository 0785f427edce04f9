# SPDX-License-Identifier: MIT
"""An algorithm that is wrong is refused with what is wrong, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from astra_bridge.collectives import ALGORITHMS, Algorithm, Built, Kind, Request
from astra_bridge.collectives.check import joined, say_peers, tables
from astra_bridge.collectives.schedule import Packet, Schedule, Step
from astra_bridge.errors import InputError
from astra_bridge.program import PacketFlag, Peers, compiled
from tests.small import MIB, network, run, same_on_all, system

N = 8
RING = ALGORITHMS.find("ring", key="name")


def using(change: Callable[[Built], Any]) -> Algorithm:
    def build(request: Request) -> Any:
        return change(RING.build(request))

    return replace(RING, build=build)


def one(**changes: Any) -> Callable[[Built], Any]:
    return lambda built: replace(built, schedules=(replace(built.schedules[0], **changes),))


def edited(field: str, row: int, **changes: Any) -> Callable[[Built], Any]:
    def change(built: Built) -> Built:
        schedule = built.schedules[0]
        rows = list(getattr(schedule, field))
        rows[row] = rows[row]._replace(**changes)
        return replace(built, schedules=(replace(schedule, **{field: rows}),))

    return change


def first_packets(built: Built) -> Built:
    return one(packets=built.schedules[0].packets[:2])(built)  # type: ignore[no-any-return]


WRONG = {
    "fewer packets than messages": (first_packets, r"schedules\[0\].end: is 15, but there are 2"),
    "ends early": (one(end=12), r"schedules\[0\].end: is 12; .* a schedule ends when all are"),
    "never ends": (one(end=10**6), "there are 15 packets"),
    "far away": (edited("steps", 2, send_to=1000), r"steps\[2\].send_to: is 1000; .* at most 7"),
    "to itself": (edited("steps", 2, recv_from=0), r"steps\[2\].recv_from: is 0"),
    "other size": (edited("steps", 2, send_bytes=5), r"5 bytes from member 0 to member 1 are sent"),
    "nobody receives": (edited("steps", 1, send_to=2), "from member 0 to member"),
    "needs the future": (edited("steps", 0, need=14), r"steps\[0\].need: is 14"),
    "does not fit": (edited("steps", 0, need=2**40), r"steps\[0\].need: is 1099511627776"),
    "no number": (edited("steps", 0, need="three"), "steps: are not rows of the whole numbers"),
    "a fraction": (edited("steps", 0, send_bytes=1.5), "steps: are not rows of the whole"),
    "negative size": (edited("steps", 0, recv_bytes=-1), r"steps\[0\].recv_bytes: is -1"),
    "negative packet": (edited("packets", 0, bytes=-5), r"packets\[0\].bytes: is -5"),
    "unknown flag": (edited("packets", 0, flags=PacketFlag(8)), r"packets\[0\].flags: is 8"),
    "huge number": (edited("packets", 0, bytes=2**70), "packets: are not rows of the whole"),
    "no burst": (one(burst=0), r"schedules\[0\].burst: is 0"),
    "negative window": (one(window=-1), r"schedules\[0\].window: is -1"),
    "closed gate": (one(gate_step=3, gate_received=9), r"gate_received: is 9; .* receive 3"),
    "two schedules": (lambda b: replace(b, schedules=b.schedules * 2), "has 2; allowed: 1 for all"),
    "no schedule": (lambda b: replace(b, schedules=()), "schedules: has 0"),
    "not a schedule": (lambda b: replace(b, schedules=(7,)), r"schedules\[0\]: is 7"),
    "nothing": (lambda b: None, "what it builds: is None"),
    "no final size": (lambda b: replace(b, final_bytes=-1), "final_bytes: -1 is out of range"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("semantics", ["astra-sim", "corrected"])
def test_what_is_wrong_is_said(name: str, semantics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    change, said = WRONG[name]
    monkeypatch.setitem(ALGORITHMS.loaded, "ring", using(change))
    with pytest.raises(InputError, match=said) as caught:
        run(
            same_on_all(N, lambda trace: trace.coll(0, MIB)),
            system("ring"),
            network("Ring", N),
            semantics=semantics,
        )
    assert "algorithm 'ring', ALL_REDUCE of 8 members" in str(caught.value)


def test_the_same_schedule_untouched_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS.loaded, "ring", using(lambda built: built))
    run(same_on_all(N, lambda trace: trace.coll(0, MIB)), system("ring"), network("Ring", N))


def test_one_schedule_per_member_is_held_against_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Member 0 sends to all; member 3 expects another size."""

    def build(request: Request) -> Built:
        size = request.size
        packet = Packet(1, PacketFlag.TO_MEMORY)
        root = Schedule([Step(1, p, 10) for p in range(1, size)], [packet], 1, 1, burst=size)
        rest = [
            Schedule([Step(0, 0, 0, -p, 10 + (p == 3))], [packet], 0, 1) for p in range(1, size)
        ]
        return Built(request.bytes, (root, *rest))

    monkeypatch.setitem(ALGORITHMS.loaded, "ring", replace(RING, build=build))
    with pytest.raises(InputError, match="10 bytes from member 0 to member 3 are sent but not"):
        run(same_on_all(N, lambda trace: trace.coll(0, MIB)), system("ring"), network("Ring", N))


def exchanging(*values: int, partner: int | None = None) -> Any:
    """An algorithm that exchanges with own ^ value, value by value."""

    def build(request: Request) -> Built:
        packets = [Packet(1, PacketFlag.TO_MEMORY)] * (len(values) + 1)
        steps = [Step(k + 1, v, 10, partner or v, 10, Peers.XOR) for k, v in enumerate(values)]
        return Built(request.bytes, (Schedule(steps, packets, 1, len(values) + 1),))

    return replace(RING, build=build)


def test_an_exclusive_or_may_be_any_that_stays_in_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ALGORITHMS.loaded, "ring", exchanging(*range(1, 8)))
    run(same_on_all(8, lambda trace: trace.coll(0, MIB)), system("ring"), network("Ring", 8))


@pytest.mark.parametrize(
    ("algorithm", "size", "message"),
    [
        (exchanging(2), 6, "member 4 has the peer 6; allowed: 0 to 5"),
        (exchanging(-1), 8, "allowed: another position, at most 7 away"),
        (exchanging(1, partner=3), 8, "10 bytes from member 0 to member 1 are sent but not"),
    ],
)
def test_an_exclusive_or_that_leads_nowhere_is_refused(
    monkeypatch: pytest.MonkeyPatch, algorithm: Any, size: int, message: str
) -> None:
    monkeypatch.setitem(ALGORITHMS.loaded, "ring", algorithm)
    workload = same_on_all(size, lambda trace: trace.coll(0, MIB))
    with pytest.raises(InputError, match=message):
        run(workload, system("ring"), network("Ring", size))


@pytest.mark.parametrize("splits", [10**6, 10**8, 2**31 - 1])
@pytest.mark.parametrize("kind", [Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.ALL_TO_ALL])
@pytest.mark.parametrize("semantics", ["astra-sim", "corrected"])
def test_too_many_chunks_are_refused_at_once(splits: int, kind: Kind, semantics: Any) -> None:
    with pytest.raises(InputError, match=r"preferred-dataset-splits: is .* 131072 chunks"):
        run(
            same_on_all(N, lambda trace: trace.coll(kind, 2**40)),
            system("ring", preferred_dataset_splits=splits),
            network("Ring", N),
            semantics=semantics,
        )


@pytest.mark.skipif(compiled.unavailable() is not None, reason="compared with the rule in C++")
@pytest.mark.parametrize("name", ALGORITHMS.built_in)
def test_members_agree_in_both_languages_or_in_none(name: str) -> None:
    """One step of many is changed: both find the message that nobody sends, or receives."""
    rng, found = random.Random(name), ALGORITHMS.find(name, key="name")
    agreed = []
    for kind, n in ((kind, n) for kind in sorted(found.kinds) for n in (2, 4, 6, 8)):
        request = Request(kind, n, 96 * n, root=n - 1)
        families = joined([tables(request, found.build(request))])
        sizes = np.array([n])
        for change in range(30):
            steps = families.steps.copy()
            if change:
                field = rng.choice(steps.dtype.names)
                row = rng.randrange(len(steps))
                value = int(steps[field][row]) + rng.choice((-2, -1, 1, 2))
                steps[field][row] = value % 2 if field == "peers" else max(value, 0)
            changed = families._replace(steps=steps)
            told = said(lambda changed=changed, sizes=sizes: say_peers(sizes, changed))
            native = compiled.module().peers_agree(changed._asdict() | {"sizes": sizes})
            assert native == (told == ""), told
            agreed.append(native)
    assert any(agreed)
    assert not all(agreed)


def said(check: Callable[[], None]) -> str:
    try:
        check()
    except InputError as error:
        return str(error)
    return ""
