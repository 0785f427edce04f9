# SPDX-License-Identifier: MIT
"""The examples in Python run, and the pages that show their output are true."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["arrays", "sweep"])
def test_output_is_the_one_that_the_page_shows(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(ROOT / f"examples/python/{name}.py"), run_name="__main__")
    shown = (ROOT / "examples/python/README.md").read_text()
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) >= 5
    assert printed in shown


def test_every_number_of_the_semantics_page() -> None:
    """docs/semantics.md shows the tables as the command beside them prints them."""
    show = runpy.run_path(str(ROOT / "examples/semantics/show.py"))
    tables = "\n".join(show["lines"]()).split("\n\n")
    page = (ROOT / "docs/semantics.md").read_text()
    assert len([table for table in tables if table.strip()]) == 3
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
