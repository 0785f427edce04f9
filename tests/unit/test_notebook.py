# SPDX-License-Identifier: MIT
"""What notebooks show: whole HTML, true numbers, and foreign names as text."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import astra_bridge as ab
from astra_bridge.units import time_text

EXAMPLES = Path(__file__).parents[2] / "examples/analytical"


def parsed(html: str) -> Any:
    """As XML, which is stricter: every tag is closed, and nothing is left unescaped."""
    return ElementTree.fromstring(html.replace("&ensp;", " "))


def texts(html: str, tag: str = "td") -> list[str]:
    return ["".join(one.itertext()) for one in parsed(html).iter(tag)]


def ring(**changes: Any) -> ab.Experiment:
    given = {
        "workload": EXAMPLES / "all_reduce/trace",
        "system": EXAMPLES / "system.json",
        "network": EXAMPLES / "ring.yml",
        "backend": "analytical-aware",
    }
    return ab.Experiment(**{**given, **changes})


def test_an_experiment() -> None:
    html = ring(semantics="corrected")._repr_html_()
    cells = texts(html)
    assert dict(zip(cells[::2], cells[1::2], strict=True))["semantics"] == "'corrected'"
    assert cells[0:6:2] == ["workload", "system", "network"]


def test_a_result_with_its_breakdown_and_links() -> None:
    result = ring().run()
    html = result._repr_html_()
    cells = texts(html)
    assert cells[0] == "finish"
    assert cells[3] == time_text(int(result.finish_ps.max()))
    assert "busiest of 8 links" in "".join(texts(html, "th"))
    # The parts of the bar are those of the breakdown, and fill it.
    sums: dict[str, int] = {}
    for name, ps in zip(result.breakdown["activity"], result.breakdown["time_ps"], strict=True):
        sums[str(name)] = sums.get(str(name), 0) + int(ps)
    titles = texts(html, "title")
    whole = sum(sums.values())
    assert {f"{name}: {ps / whole:.1%}" for name, ps in sums.items() if ps} == set(titles)
    widths = [float(one.get("width")) for one in parsed(html).iter("rect")]
    assert sum(widths) == pytest.approx(600, abs=1)
    plain = ring().run(record_nodes=False)._repr_html_()
    assert not list(parsed(plain).iter("rect"))


def test_a_comparison() -> None:
    found = ab.compare(
        ring(), ["analytical-aware", "analytical-unaware"], reference="analytical-unaware"
    )
    cells = texts(found._repr_html_())
    assert "reference" in cells
    for row in found.rows:
        assert row["backend"] in cells
        assert time_text(row["finish_ns"] * 1000) in cells
    failed = ab.compare(ring(), ["analytical-aware", "garnet"], reference="analytical-aware",
                        options={"garnet": {"no-such-option": "1"}})  # fmt: skip
    (row,) = [row for row in failed.rows if row["failure"]]
    shown = texts(failed._repr_html_())
    assert any(len(cell) > 20 and row["failure"].startswith(cell[:20]) for cell in shown)


def test_a_sweep(tmp_path: Path) -> None:
    specification = {
        "experiment": {
            "workload": {"generator": "collective", "size": "1MiB"},
            "system": {"all-reduce-implementation": ["ring"]},
            "network": {"topology": ["Ring"], "npus_count": [4], "bandwidth": [50.0],
                        "latency": [500.0]},
            "backend": "analytical-unaware",
        },
        "vary": {"network.bandwidth[0]": [25.0, 50.0, 100.0]},
        "objectives": {"finish_ns": "min"},
    }  # fmt: skip
    found = ab.sweep(specification, tmp_path)
    html = found._repr_html_()
    assert "Sweep of 3 points over network.bandwidth[0]: 1 on the front, 0 failed" in html
    assert texts(html) == ["100.0", "analytical-unaware", str(found.front[0]["finish_ns"])]
    assert repr(found).startswith("Sweep of 3 points")


def test_foreign_names_are_text() -> None:
    trace = ab.TraceBuilder()
    trace.comp("<script>alert(1)</script>", duration_us=5)
    network = {"topology": ["Ring"], "npus_count": [1], "bandwidth": [50.0], "latency": [500.0]}
    one = ab.Experiment(ab.GeneratedWorkload([trace]), {}, network, backend="<b>x</b>")
    for html in (one._repr_html_(), one.replace(backend="analytical-aware").run()._repr_html_()):
        assert "<script" not in html
        assert "<b>x" not in html
        parsed(html)


NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_showed_is_not_committed(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    """Every cell, in a kernel of its own; what stands last shows itself as HTML."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    read = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(read, resources=resources).execute()
    outputs = [one for cell in read.cells for one in cell.get("outputs", [])]
    shown = [one["data"]["text/html"] for one in outputs if "text/html" in one.get("data", {})]
    assert len(shown) >= 2
    for html in shown:
        parsed(html)
