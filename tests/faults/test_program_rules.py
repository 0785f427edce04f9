# SPDX-License-Identifier: MIT
"""No Program makes an engine crash, hang or differ from the other: it is refused, or runs alike."""

from __future__ import annotations

import dataclasses
import random
from itertools import count
from typing import Any

import numpy as np
import pytest

from astra_bridge.engine import run as run_engine
from astra_bridge.errors import InputError
from astra_bridge.network.registry import backend
from astra_bridge.program import SLOWDOWN, GraphOp, Op, Program, compiled, machine, one_job, tasks
from astra_bridge.program.rules import MOST_CHUNKS, check_tables
from tests import fuzz, number_fuzz, program_fuzz
from tests.effort import examples
from tests.program_fuzz import VALUES, drawn, fault_of, mutated, places, twice


def programs() -> list[tuple[Program, Any, str]]:
    """A few random Programs that use every table together."""
    made = (drawn(seed) for seed in count(462))  # where the search happens to be short
    return [
        twice(next(one for one in made if len(one[0].graph_children) and len(one[0].messages))),
        next(one for one in made if len(one[0].members) and len(one[0].templates) > 1),
    ]


@pytest.fixture(scope="module")
def tried() -> list[tuple[Program, Any, str]]:
    return programs()


def test_the_programs_use_every_table(tried: list[tuple[Program, Any, str]]) -> None:
    used = {table for program, _, _ in tried for table, _ in places(program)}
    every = {f.name for f in dataclasses.fields(Program) if "NDArray" in str(f.type)}
    assert used == every


def test_no_value_of_any_field_gets_past_the_rules(tried: list[tuple[Program, Any, str]]) -> None:
    """Whatever validate() lets through is within every table; engines are not needed to see it."""
    refused = accepted = 0
    for program, _, _ in tried:
        program.validate()
        for table, field in places(program):
            for value in VALUES:
                changed = mutated(program, table, field, 0, value)
                if changed is None:
                    continue
                said = refusal(changed)
                accepted += said == ""
                refused += said.startswith("program: ")
    assert refused > 400
    assert accepted > 100


needs_native = pytest.mark.skipif(
    compiled.unavailable() is not None, reason="the rules are compared with those in C++"
)


def agree(program: Program) -> bool:
    """Whether a Program keeps the rules, of which both languages must think the same."""
    try:
        check_tables(program)
        allowed = True
    except InputError:
        allowed = False
    assert compiled.module().keeps_rules(compiled.arrays(program)) == allowed
    return allowed


@needs_native
def test_the_rules_are_the_same_in_both_languages(tried: list[tuple[Program, Any, str]]) -> None:
    """Every value in every field, at the first, the last and one more row of each table."""
    allowed = [
        agree(one)
        for program, _, _ in tried
        for table, field in places(program)
        for row in sorted({0, getattr(program, table).size // 2, getattr(program, table).size - 1})
        for value in (*VALUES, *range(3, 7))
        if (one := mutated(program, table, field, row, value)) is not None
    ]
    assert 1_000 < sum(allowed) < len(allowed) - 1_000


@needs_native
def test_the_rules_are_the_same_for_random_programs() -> None:
    """Small changes, several at a time, so that later rules are reached."""
    rng = random.Random(5)
    allowed = 0
    seeds = range(examples(12))
    for seed in seeds:
        program, config, model = drawn(seed)
        whole = twice((program, config, model))[0] if seed % 2 else program
        assert agree(whole)
        for _ in range(60):
            changed: Program | None = whole
            for _ in range(rng.choice((1, 1, 2))):
                table, field = rng.choice(list(places(whole)))
                row = rng.randrange(getattr(whole, table).size)
                near = np.asarray(getattr(whole, table)[field] if field else getattr(whole, table))
                value = int(near.reshape(-1)[row]) + rng.choice((-2, -1, 1, 2))
                other = mutated(changed or whole, table, field, row, value)
                changed = other or changed
            allowed += agree(changed or whole)
    assert allowed > 9 * len(seeds)


def test_mutated_programs_are_refused_or_run_alike() -> None:
    faults = [wrong for _, wrong in map(program_fuzz.attack, range(examples(40))) if wrong]
    assert faults == []


def test_number_texts_are_accepted_or_refused_with_their_place() -> None:
    faults = [wrong for _, wrong in map(number_fuzz.attack, range(examples(1500))) if wrong]
    assert faults == []


def test_the_long_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--minutes", "0.005", "numbers", "programs", "replies"]) == 0
    assert "replies: " in capsys.readouterr().out


def test_the_command_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.ATTACKS, "numbers", lambda seed: ("raised", "something"))
    assert fuzz.main(["--minutes", "0.005", "numbers"]) == 1


@pytest.mark.parametrize("engine", ["python", "auto"])
def test_engines_check_what_they_are_given(
    tried: list[tuple[Program, Any, str]], engine: Any
) -> None:
    program, config, model = tried[0]
    bad = mutated(program, "nodes", "arg", int(np.argmax(program.nodes["op"] == Op.COLLECTIVE)), 99)
    assert bad is not None
    name = f"{model}-python" if engine == "python" else model
    with backend(name).open(config) as opened, pytest.raises(InputError, match=r"nodes\[\d+\].arg"):
        run_engine(bad, opened, engine=engine)


def refusal(program: Program) -> str:
    try:
        program.validate()
    except InputError as error:
        return str(error)
    return ""


def changed(program: Program, table: str, field: str | None, row: int, value: int) -> Program:
    result = mutated(program, table, field, row, value)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("table", "field", "value", "said"),
    [
        ("collectives", "chunks", MOST_CHUNKS + 1, f"allowed: 1 to {MOST_CHUNKS}"),
        ("collectives", "chunks", 0, "allowed: 1 to"),
        ("schedules", "end", 1, "a schedule ends when all are processed"),
        ("schedules", "burst", 0, "allowed: 1 to"),
        ("schedules", "packet_start", 2**40, "more than the"),
        ("steps", "send_to", 1000, "another position, at most"),
        ("steps", "send_to", 0, "another position, at most"),
        ("steps", "need", 1000, "as many packets as are inserted before it"),
        ("nodes", "parents", 7, "but it is the child of"),
        ("nodes", "unit", 4, "allowed: 0 to 3"),
        ("messages", "peer", -1, "allowed: 0 to"),
        ("groups", "stride", 1000, "allowed: 0 to"),
        ("plans", "phase_count", 0, "allowed: 1 to"),
        ("members", "", 1000, "allowed: 0 to"),
    ],
)
def test_what_is_wrong_is_said(
    tried: list[tuple[Program, Any, str]], table: str, field: str, value: int, said: str
) -> None:
    for program, _, _ in tried:
        rows = getattr(program, table)
        if not len(rows):
            continue
        row = int(np.argmax(rows["send_bytes"] > 0)) if table == "steps" else 0
        with pytest.raises(InputError, match=said) as caught:
            changed(program, table, field or None, row, value).validate()
        assert f"is {value};" in str(caught.value)
        assert f"program: {table}[{row}]" in str(caught.value)
        return
    pytest.fail(f"no Program has {table}")


def test_a_graph_is_checked_like_a_template(tried: list[tuple[Program, Any, str]]) -> None:
    program = tried[0][0]
    nodes = program.graph_nodes
    row = int(np.argmax(nodes["op"] != GraphOp.DELAY))
    owner = int(np.flatnonzero(program.graphs["node_start"] <= row)[-1])
    position = int(np.argmax(program.graph_of_position == owner))
    collective = program.collectives[program.collectives["graph"] >= 0][0]
    group = program.groups[collective["group"]]
    at = position - int(collective["graph"])
    own = at if group["stride"] else int(program.members[group["member_start"] + at])
    for field, value, said in (
        ("peer", own, "no rank can send to itself"),
        ("id", int(nodes["id"][row + 1]), "a graph has each id once"),
        ("parents", 77, "but it is the child of"),
    ):
        with pytest.raises(InputError, match=said):
            changed(program, "graph_nodes", field, row, value).validate()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("levels", 0, "levels"),
        ("queues_per_level", 10**9, "queues of all ranks"),
        ("alternate_slots", 2**31 - 1, "alternate slots"),
        ("machines", machine(policy=9), r"machines\[0\].policy"),
        ("machines", machine(streams_per_queue=0), r"machines\[0\].streams_per_queue"),
        ("machines", machine(endpoint_delay_ps=-1), r"machines\[0\].endpoint_delay_ps"),
        ("machines", machine(loggp=(1, 2, 3, float("nan"), 1)), r"machines\[0\].G_ns_per_byte"),
        ("machines", machine(unit_capacity=(1, 0, 1, 1)), r"unit_capacity\[1\]"),
        ("machines", machine()[:0], "machine_of_rank"),
        ("memory_server", np.zeros(1, np.int32), "has 1 entries"),
        ("slowdowns", np.array([(0, float("inf"), 0)], SLOWDOWN), r"slowdowns\[0\].factor"),
        ("slowdowns", np.array([(-1, 1.0, 0)], SLOWDOWN), r"slowdowns\[0\].at_ps"),
        ("jobs", np.repeat(one_job(10**6), 2), r"jobs\[0\].ranks"),
        ("jobs", np.repeat(one_job(1), 2), "its job has 1 ranks"),
        ("nodes", np.zeros(3, np.int64), "type int64"),
        ("members", np.zeros((2, 2), np.int32), "shape"),
        ("tasks", tasks([0, 10**6]), r"tasks\[1\].template_index"),
        ("machine_of_rank", np.zeros(0, np.int32), "0 entries"),
    ],
)
def test_scalars_and_types(
    tried: list[tuple[Program, Any, str]], name: str, value: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(tried[0][0], **{name: value}).validate()


def test_children_of_two_templates_do_not_mix(tried: list[tuple[Program, Any, str]]) -> None:
    program = tried[1][0]
    assert len(program.templates) > 1
    with pytest.raises(InputError, match=r"templates\[1\].node_start: .* overlap"):
        changed(program, "templates", "node_start", 1, 0).validate()


def test_the_harness_sees_a_crash_and_a_difference(
    tried: list[tuple[Program, Any, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, config, model = tried[0]
    assert fault_of(program, config, model)[1] == ""
    bad = changed(program, "schedules", "packet_start", 0, 2**40)
    monkeypatch.setattr(Program, "validate", lambda self: None)
    assert fault_of(bad, config, model)[1] != ""
