# SPDX-License-Identifier: MIT
"""Every quirk makes a difference, alone and taken from ASTRA-sim's, and says so once in a run."""

from __future__ import annotations

import runpy
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_bridge import Experiment, InputError
from astra_bridge.network.ns3.build import NS3
from astra_bridge.results.lines import rank_lines
from astra_bridge.semantics import QUIRKS, Semantics
from astra_bridge.trace import CommType, NodeType
from astra_bridge.trace.writer import TraceNode, write_trace
from tests.made_result import COLL, COMP, PAIR, make, node
from tests.small import MIB, network, per_rank, run, same_on_all, system

ROOT = Path(__file__).resolve().parents[2]
ASTRA_SIM = Semantics.of("astra-sim").quirks

Seen = tuple[Any, list[str]]
"""What a run gives, and its warnings."""


def of_page(case: Any, semantics: str) -> Seen:
    """A line of the table of docs/semantics.md."""
    try:
        result = run(
            case.workload.workload(),
            case.system,
            case.network,
            comm_groups=case.workload.comm_groups or None,
            backend=case.backend,
            semantics=semantics,
        )
    except InputError as error:
        return str(error), []
    return result.finish_ns.tolist(), result.warnings


def custom(tmp_path: Path, semantics: str) -> Seen:
    """Sends to the next position after 10 us per position, in a group listed out of order."""
    for position in range(4):
        send = {"comm_dst": (position + 1) % 4, "comm_size": 1000, "comm_tag": 0}
        recv = {"comm_src": (position - 1) % 4, "comm_size": 1000, "comm_tag": 0}
        nodes = [
            TraceNode(0, NodeType.COMP, duration_micros=1 + 10 * position),
            TraceNode(1, NodeType.COMM_SEND, data_deps=[0], attributes=send),
            TraceNode(2, NodeType.COMM_RECV, attributes=recv),
        ]
        write_trace(Path(f"{tmp_path / 'mine'}.{position}.et"), nodes)
    used = system(all_reduce_implementation_custom=[str(tmp_path / "mine")])
    workload = same_on_all(4, lambda t: t.coll(CommType.ALL_REDUCE, 8000, group=1))
    groups = {1: [2, 3, 0, 1]}
    result = run(workload, used, network(npus=4), comm_groups=groups, semantics=semantics)
    return result.finish_ns.tolist(), result.warnings


def printed(semantics: str, tmp_path: Path) -> Seen:
    """The lines of a rank whose 10 + 10 ns of compute are 5 ns more than its 15 ns."""
    nodes = [node(0, COMP), node(1, COMP)]
    result = make(tmp_path, [[(0, 10), (5, 15)]], [nodes], semantics=semantics)
    result = replace(result, exposed_comm_ps=np.array([-5000]))
    return list(rank_lines(result, result.statistics, datetime(2026, 1, 1))), []


def idle(semantics: str, tmp_path: Path) -> Seen:
    """The lines of a rank that computes, communicates beside it, and again much later."""
    nodes = [*PAIR, node(2, COLL, comm_type=0, comm_size=8)]
    times = [[(0, 10), (6, 10), (100, 110)]]
    result = make(tmp_path, times, [nodes], semantics=semantics)
    return list(rank_lines(result, result.statistics, datetime(2026, 1, 1))), []


def on_ns3(semantics: str) -> Seen:
    """What the engines are told of receives."""
    if NS3.unavailable() is not None:
        pytest.skip(str(NS3.unavailable()))
    workload = same_on_all(2, lambda t: t.coll(CommType.ALL_REDUCE, MIB))
    fork = {"compatibility": "fork"}
    one = Experiment(
        workload,
        system(),
        network(npus=2),
        backend="ns3",
        network_options=fork,
        semantics=semantics,
    )
    return one.lower().program.receives_at_once, []


SHOW = runpy.run_path(str(ROOT / "examples/semantics/show.py"))
PAGE = [(case.quirk, case) for case in SHOW["CHANGES"]]
OTHERS = [
    "custom-peers-as-listed",
    "receives-complete-at-once",
    "printed-times-wrap-around",
    "overlap-is-busy-less-wall",
]


def seen(quirk: str, case: Any, semantics: str, tmp_path: Path) -> Seen:
    if case is not None:
        return of_page(case, semantics)
    if quirk == "custom-peers-as-listed":
        return custom(tmp_path, semantics)
    if quirk == "receives-complete-at-once":
        return on_ns3(semantics)
    if quirk == "printed-times-wrap-around":
        return printed(semantics, tmp_path)
    return idle(semantics, tmp_path)


def test_none_is_forgotten() -> None:
    assert {quirk for quirk, _ in PAGE} | set(OTHERS) == set(QUIRKS)


@pytest.mark.parametrize(
    ("quirk", "case"),
    [*PAGE, *((quirk, None) for quirk in OTHERS)],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "title", ""),
)
def test_a_quirk_makes_a_difference(quirk: str, case: Any, tmp_path: Path) -> None:
    def named(warnings: list[str]) -> list[str]:
        return [warning for warning in warnings if warning.startswith(f"quirk {quirk}: ")]

    plain, without = seen(quirk, case, "corrected", tmp_path)
    alone, told = seen(quirk, case, f"corrected,+{quirk}", tmp_path)
    assert alone != plain
    assert named(without) == []
    # What is told to a backend, or printed, may not be seen in a run.
    assert len(named(told)) == (0 if quirk in OTHERS[1:] else 1), told
    sign = "-" if quirk in ASTRA_SIM else "+"
    whole, _ = seen(quirk, case, "astra-sim", tmp_path)
    changed, _ = seen(quirk, case, f"astra-sim,{sign}{quirk}", tmp_path)
    assert changed != whole


def test_all_of_them_are_astra_sims() -> None:
    added = ",".join(f"+{quirk}" for quirk in QUIRKS if quirk in ASTRA_SIM)
    assert str(Semantics.of(f"corrected,{added}")) == "astra-sim"
    taken = ",".join(f"-{quirk}" for quirk in QUIRKS)
    assert str(Semantics.of(f"astra-sim,{taken}")) == "corrected"


def test_what_an_all_to_all_in_groups_costs() -> None:
    """A ring among 32 sends 32 * 31 / 2 messages of a chunk's 32nd part, direct 31."""
    workload = per_rank(64, lambda t, rank: t.coll(CommType.ALL_TO_ALL, MIB, group=1 + rank // 32))
    result = run(
        workload,
        system(["direct", "direct"]),
        network("FullyConnected Switch", [32, 2], [50, 50], [500, 500]),
        comm_groups={1: list(range(32)), 2: list(range(32, 64))},
    )
    assert [warning for warning in result.warnings if warning.startswith("quirk")] == [
        "quirk direct-in-groups-is-ring: 2 x all-to-all of 32 ranks runs ring in place of direct: "
        "16 x as many messages, 16 x the bytes"
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("corected", "did you mean 'corrected'"),
        ("corrected,+store-and-foward", "did you mean 'store-and-forward'"),
        ("corrected,store-and-forward", "+ or - before one of"),
        ("astra-sim,", "+ or - before one of"),
    ],
)
def test_there_is_no_such_quirk(text: str, hint: str) -> None:
    with pytest.raises(InputError, match=r"semantics: .* is not allowed") as caught:
        Semantics.of(text)
    assert hint in str(caught.value)
