# SPDX-License-Identifier: MIT
"""The examples in Python run, and the pages that show their output are true."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["arrays", "sweep", "serving", "simpy_host"])
def test_output_is_the_one_that_the_page_shows(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("simpy"):
        pytest.importorskip("simpy")
    runpy.run_path(str(ROOT / f"examples/python/{name}.py"), run_name="__main__")
    shown = (ROOT / "examples/python/README.md").read_text()
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) >= 3
    assert printed in shown


def test_every_number_of_the_semantics_page() -> None:
    """docs/semantics.md shows the tables as the command beside them prints them."""
    show = runpy.run_path(str(ROOT / "examples/semantics/show.py"))
    tables = "\n".join(show["lines"]()).split("\n\n")
    page = (ROOT / "docs/semantics.md").read_text()
    assert len([table for table in tables if table.strip()]) == 4
    for table in tables:
        assert table.strip() in page


def test_stalls_and_circles_as_the_semantics_page_says() -> None:
    """Nothing waits for ever: exit code 3, and who waits for what."""
    from astra_bridge import StalledError, simulate
    from astra_bridge.inputs.network import NetworkDims
    from astra_bridge.trace import CommType, NodeType
    from astra_bridge.workload import GeneratedWorkload, TraceBuilder

    def run(*traces: TraceBuilder) -> None:
        simulate(
            workload=GeneratedWorkload(traces).workload(),
            system={"all-reduce-implementation": ["ring"]},
            network=NetworkDims(("Ring",), (2,), (50.0,), (500.0,)),
        )

    sender, receiver = TraceBuilder(), TraceBuilder()
    sender.send(1, 1000, 1)
    receiver.recv(0, 2000, 1)
    with pytest.raises(StalledError, match=r"rank 1: node 0 .*2000 bytes from rank 0") as stalled:
        run(sender, receiver)
    assert stalled.value.exit_code == 3

    circle = TraceBuilder()
    circle.add(NodeType.COMP, "a", [1])
    circle.add(NodeType.COMP, "b", [0])
    with pytest.raises(StalledError, match="circle") as stalled:
        run(circle, circle)
    assert stalled.value.exit_code == 3

    orders = [TraceBuilder(), TraceBuilder()]
    for trace, sizes in zip(orders, ((1000, 4000), (4000, 1000)), strict=True):
        first = trace.coll(CommType.ALL_REDUCE, sizes[0])
        trace.coll(CommType.ALL_REDUCE, sizes[1], deps=[first])
    with pytest.raises(StalledError, match="same order"):
        run(*orders)


def test_the_algorithm_of_the_architecture_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from astra_bridge import simulate
    from astra_bridge.collectives import ALGORITHMS
    from astra_bridge.inputs.network import NetworkDims
    from astra_bridge.workload import collective

    page = (ROOT / "docs/architecture.md").read_text()
    made: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], made)
    monkeypatch.setitem(ALGORITHMS.loaded, "twoWayRing", made["ALGORITHM"])
    result = simulate(
        workload=collective("all-reduce", 2**20, 8).workload(),
        system={"all-reduce-implementation": ["twoWayRing"], "local-mem-bw": 50},
        network=NetworkDims(("Ring",), (8,), (50.0,), (500.0,)),
        backend="analytical-aware",
    )
    # 65536 B each way: 14 rounds of floor(500 + 65536 / 53.687) + 10 ns.  The two halves of a round
    # are reduced at the same time: 7 times 3 * floor(65536 / 50) ns.
    round_ns = 500 + int(65536 * 1e9 / (50 * 2**30)) + 10
    assert set(result.finish_ns.tolist()) == {10 + 14 * round_ns + 7 * 3 * (65536 // 50)}


def test_the_size_of_a_program_that_the_architecture_page_gives() -> None:
    import dataclasses

    from astra_bridge.inputs.memory import read_remote_memory
    from astra_bridge.inputs.system import read_system
    from astra_bridge.lowering import lower
    from astra_bridge.workload import collective

    program = lower(
        collective("all-reduce", 2**30, 1024).workload(),
        read_system({"all-reduce-implementation": ["ring"], "preferred-dataset-splits": 4}),
        read_remote_memory({"memory-type": "NO_MEMORY_EXPANSION"}),
        (1024,),
        {},
    ).program
    arrays = (getattr(program, field.name) for field in dataclasses.fields(program))
    size_bytes = sum(getattr(array, "nbytes", 0) for array in arrays)
    sizes = [len(program.nodes), len(program.phases), len(program.schedules)]
    assert sizes == [1, 1, 2]
    steps = int(program.schedules["step_count"][0])
    messages = steps * 1024 * int(program.collectives["chunks"][0])
    page = " ".join((ROOT / "docs/architecture.md").read_text().split())
    assert f"{messages / 1e6:.1f} million messages" in page
    assert f"of {steps} steps, {size_bytes / 1000:.0f} kB in all" in page


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
    index = (ROOT / "docs/README.md").read_text()
    for page in ROOT.glob("docs/**/*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name == "README.md" or f"({name})" in index
