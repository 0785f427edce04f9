# SPDX-License-Identifier: MIT
"""The page about a run: its numbers are those of the Result, and it needs nothing but itself."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from astra_bridge import Experiment
from astra_bridge.cli import main
from astra_bridge.errors import InputError
from astra_bridge.report import page, read_run
from astra_bridge.results import Result
from astra_bridge.trace import CommType
from astra_bridge.workload import TraceBuilder
from astra_bridge.workload.generators import GENERATORS
from tests.small import network, per_rank, system
from tests.small import run as run_small

pytest.importorskip("jinja2")
pytest.importorskip("plotly")

ROOT = Path(__file__).parents[2]

NASTY = '</script><img src=x onerror="alert(1)">'
"""What a node of somebody's trace may be called."""


def result(late_us: int = 7) -> Result:
    def fill(trace: TraceBuilder, rank: int) -> None:
        compute = trace.comp(NASTY, duration_us=100 + late_us * rank)
        reduced = trace.coll(CommType.ALL_REDUCE, 10**6, name="gradients", deps=[compute])
        trace.comp("optimizer", duration_us=3, deps=[reduced])

    return run_small(per_rank(4, fill), system(), network(npus=4), backend="analytical-aware")


class _Tables(HTMLParser):
    """The tables of a page by caption: rows of (text, exact number or None)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[tuple[str, str | None]]]] = {}
        self._where = self._words = ""
        self._exact: str | None = None
        self._rows: list[list[tuple[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th", "caption"):
            self._where, self._words, self._exact = tag, "", dict(attrs).get("data-exact")
        if tag == "caption":
            self._rows = []

    def handle_data(self, data: str) -> None:
        self._words += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            self.found[self._words] = self._rows
        elif tag in ("td", "th"):
            self._rows[-1].append((self._words, self._exact))


def exact(rows: list[list[tuple[str, str | None]]]) -> Iterator[tuple[str, list[float]]]:
    """The name of each row and its numbers."""
    for (name, _), *cells in rows[1:]:
        yield name, [float(number) for _, number in cells if number is not None]


def test_every_number_is_the_results(tmp_path: Path) -> None:
    ran = result()
    ran.save(tmp_path)
    tables = _Tables(page([read_run(tmp_path)])).found
    summary = dict(exact(tables["Summary"]))
    assert summary["finish of the last rank"] == [ran.finish_ps.max()]
    assert summary["exposed communication, at most"] == [ran.exposed_comm_ns.max() * 1000]
    assert summary["events"] == [ran.events]
    breakdown = ran.breakdown
    for name, numbers in exact(tables["Time per kind of rank"]):
        rank = int(name.split()[1].partition("-")[0])
        mine = breakdown["time_ps"][breakdown["rank"] == rank]
        assert sorted(numbers[1:-1])[-len(mine) :] == sorted(mine)
        assert numbers[-1] == ran.finish_ps[rank]
    took = ran.critical_path["end_ps"] - ran.critical_path["start_ps"]
    parts = dict(exact(tables["What it consists of"]))
    assert sum(one[0] for one in parts.values()) == took.sum() == ran.finish_ps.max()
    spans = ran.collective_spans
    (_, numbers), *rest = exact(tables["Collectives"])
    assert not rest
    duration = int(spans["end_ps"][0] - spans["last_start_ps"][0])
    assert numbers[:5] == [10**6, 4, 1, duration, duration]
    assert numbers[-4:-2] == pytest.approx([1e9 / duration, 1.5 * 1e9 / duration])
    for name, numbers in exact(tables["Tiers"]):
        at = ran.tiers["tier"].tolist().index(name)
        assert numbers[1] == ran.tiers["bytes"][at]
    for name, numbers in exact(tables["Hottest links"]):
        ends = f"{name}".split(" -> ")
        mine = [str(one) == ends[0] for one in ran.links["src"].tolist()]
        assert numbers[0] in ran.links["bytes"][mine].tolist()


def everything(folder: Path) -> Result:
    """A training step of a model on two dimensions, whose page has all of its parts."""
    made = GENERATORS.find("model", key="model").generate(
        model="llama-3.2-1b", gpu="h100-sxm", tp=2, pp=2, dp=4, micro_batches=2,
        sequence_length=1024,
    )  # fmt: skip
    experiment = Experiment(
        made.workload(), system(["ring", "ring"]) | {"active-chunks-per-dimension": 4},
        network("Ring Switch", [4, 4], [200, 25], [500, 700]), semantics="corrected",
        backend="analytical-aware", network_options={"sample_interval_us": "50"},
    )  # fmt: skip
    ran = experiment.run(inside="messages")
    ran.save(folder)
    return ran


def close(found: list[float], expected: list[float]) -> bool:
    return found == pytest.approx(expected, rel=1e-12)


def test_all_tables_of_a_training_step_are_the_results(tmp_path: Path) -> None:
    """No number of the page is left out: each table is computed again from the Result."""
    ran = everything(tmp_path)
    text = page([read_run(tmp_path)])
    tables = _Tables(text).found
    finish, ranks = int(ran.finish_ps.max()), ran.rank_count
    seen = set()

    def rows(caption: str) -> list[tuple[str, list[float]]]:
        seen.add(caption)
        return list(exact(tables[caption]))

    model = ran.rates
    assert model["mfu"] == pytest.approx(
        ran.workload.about.operations / (finish / 1e12) / (989.4e12 * 16)
    )
    at = int(np.argmax(ran.tiers["max_busy_share"]))
    gpu = ran.statistics.columns()["gpu_ns"]
    assert dict(rows("Summary")) == {
        "finish of the last rank": [finish],
        "finish of the first rank": [ran.finish_ps.min()],
        "ranks": [ranks],
        "model": [],
        "training step, or all requests": [finish],
        "tokens": [4 * 2 * 1024],
        "tokens per second": [8192 / (finish / 1e12)],
        "model FLOPS utilization of h100-sxm": [model["mfu"]],
        "time in which GPUs compute, mean": [pytest.approx(gpu.mean() * 1e3 / finish)],
        "exposed communication, at most": [ran.exposed_comm_ns.max() * 1000],
        "busiest tier of links": [],
        "its busiest link": [],
        "time in which that is busy": [ran.tiers["max_busy_share"][at]],
        "backend": [],
        "semantics": [],
        "simulated in": [ran.wall_s],
        "events": [ran.events],
    }
    breakdown = ran.breakdown
    header = [name for name, _ in tables["Time per kind of rank"][0]][2:-1]
    for name, numbers in rows("Time per kind of rank"):
        rank = int(re.findall(r"\d+", name)[0])
        mine = breakdown["rank"] == rank
        sums = [breakdown["time_ps"][mine & (breakdown["activity"] == one)].sum() for one in header]
        assert numbers[1:] == [*sums, ran.finish_ps[rank]]
    for name, numbers in rows("Mean over all ranks, by what it was"):
        activity, _, what = name.partition(": ")
        mine = (breakdown["activity"] == activity) & (breakdown["what"] == what)
        assert numbers == [breakdown["time_ps"][mine].sum() / ranks]
    path = ran.critical_path
    took = path["end_ps"] - path["start_ps"]
    for name, numbers in rows("What it consists of"):
        activity, _, what = name.partition(": ")
        sum_ps = took[(path["activity"] == activity) & (path["what"] == what)].sum()
        assert numbers == [sum_ps, sum_ps / finish]
    longest = np.argsort(-took, kind="stable")
    for one, (_, numbers) in zip(longest, rows("Its longest parts"), strict=False):
        assert numbers == [path["rank"][one], path["start_ps"][one], took[one]]
    known = ran.sensitivities
    for one, (name, numbers) in enumerate(rows("Each of them 1.1 times as good")):
        assert name == known["what"][one]
        assert numbers == [known["change"][one], known["finish_ps"][one]]
    for (_, numbers), kept in zip(rows("Memory of a rank"), model["memory_bytes"], strict=True):
        assert numbers[1:-1] == [value for value in kept.values() if value]
        assert numbers[-1] == sum(kept.values())
    spans = ran.collective_spans
    for row, (name, numbers) in zip(tables["Collectives"][1:], rows("Collectives"), strict=True):
        of = (
            (spans["what"] == name)
            & (spans["bytes"] == numbers[0])
            & (spans["ranks"] == numbers[1])
        )
        duration = (spans["end_ps"] - spans["last_start_ps"])[of]
        late = (spans["last_start_ps"] - spans["first_start_ps"])[of]
        assert numbers[2:6] == [of.sum(), duration.mean(), duration.max(), late.mean()], row
        if len(numbers) > 6:
            size, members = numbers[0], numbers[1]
            whole = size * (members if name.startswith("all-gather") else 1)
            factor = {"all-reduce": 2.0}.get(name.split()[0], 1.0) * (members - 1) / members
            rate = whole * 1e3 / duration.mean()
            ideal = spans["ideal_GBps"][of].mean()
            assert close(numbers[6:], [rate, rate * factor, ideal, rate * factor / ideal])
            assert 0 < rate * factor < ideal
    tiers = ran.tiers
    for one, (name, numbers) in enumerate(rows("Tiers")):
        assert name == tiers["tier"][one]
        assert numbers == [tiers[of][one] for of in ("links", "bytes", "busy_share",
                                                      "max_busy_share")]  # fmt: skip
    hottest = ran.busiest_links(20)
    for one, (name, numbers) in enumerate(rows("Hottest links")):
        assert name == f"{hottest['src'][one]} -> {hottest['dst'][one]}"
        assert close(numbers, [hottest["bytes"][one], hottest["busy_ps"][one] / finish])
    last = np.argsort(-ran.finish_ps, kind="stable")
    slowest = tables["The last to finish"][1:]
    seen.add("The last to finish")
    for one, row in zip(last, slowest, strict=False):
        assert [float(number or 0) for _, number in row] == [
            one, ran.finish_ps[one], ran.exposed_comm_ns[one] * 1000,
        ]  # fmt: skip
    seen.add("What ran")  # words
    assert not [number for row in tables["What ran"] for _, number in row if number is not None]
    assert seen == set(tables)
    # What people read is the number beside it.
    for sheet in tables.values():
        for row in sheet:
            for shown, number in row:
                if number is not None and shown.endswith("%"):
                    assert float(shown[:-1]) == pytest.approx(100 * float(number), abs=0.051)
    # What is drawn, too.
    drawings = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    figures = {one["data"][0]["name"]: one for one in map(json.loads, drawings)}
    drawn = {}
    for one in figures["compute"]["data"]:
        for kind, value in zip(one["y"], one["x"], strict=True):
            drawn[kind] = drawn.get(kind, 0) + value
    shown = [numbers[-1] / 1e9 for _, numbers in exact(tables["Time per kind of rank"])]
    assert list(drawn.values()) == pytest.approx(shown)
    assert len(figures) >= 8


def test_it_asks_nobody_and_runs_no_name(tmp_path: Path) -> None:
    result().save(tmp_path)
    text = page([read_run(tmp_path)])
    own = re.sub(r'<script type="application/octet-stream".*?</script>', "", text, flags=re.S)
    assert not re.search(r'(src|href|action)\s*=\s*"?\s*(https?:)?//', own)
    assert "@import" not in own
    assert NASTY not in text
    assert "&lt;/script&gt;&lt;img" in text
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", own, flags=re.S)
    assert all("<" not in one for one in scripts if one.startswith("{"))


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    folders = [tmp_path / "today", tmp_path / "slow <b>"]
    runs = [result(late_us=us) for us in (0, 50)]
    for folder, ran in zip(folders, runs, strict=True):
        ran.save(folder)
    text = page([read_run(folder) for folder in folders])
    rows = dict(exact(_Tables(text).found["Runs"]))
    assert list(rows) == ["today", "slow <b>"]
    finish = [int(ran.finish_ps.max()) for ran in runs]
    assert [one[0] for one in rows.values()] == finish
    assert rows["slow <b>"][1] == pytest.approx(finish[1] / finish[0] - 1)
    anchors = re.findall(r' id="([^"]+)"', text)
    assert len(anchors) == len(set(anchors))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result().save(tmp_path / "out")
    file = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "out"), "-o", str(file)]) == 0
    assert "it opens in any browser" in capsys.readouterr().out
    assert file.read_text().startswith("<!doctype html>")
    inputs = "examples/analytical"
    experiment = tmp_path / "trial.yaml"
    experiment.write_text(
        f"workload: {Path(inputs).resolve()}/all_reduce/trace\n"
        f"system: {Path(inputs).resolve()}/system.json\n"
        f"network: {Path(inputs).resolve()}/ring.yml\n"
        f"remote_memory: {Path(inputs).resolve()}/no_memory.json\n"
    )
    assert main(["report", str(experiment), "-o", str(file)]) == 0
    finish_ps = int(Experiment.from_file(experiment).run().finish_ps.max())
    assert f'data-exact="{finish_ps}"' in file.read_text()


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"has no result\.json"):
        read_run(tmp_path)
    (tmp_path / "result.json").write_text("[1")
    with pytest.raises(InputError, match="is no JSON"):
        read_run(tmp_path)
    (tmp_path / "result.json").write_text('{"backend": "x"}')
    with pytest.raises(InputError, match="is missing: engine"):
        read_run(tmp_path)
    result().save(tmp_path / "out")
    (tmp_path / "out" / "links.csv").write_text('"link","bytes"\n1\n')
    with pytest.raises(InputError, match=r"links\.csv: is no table"):
        page([read_run(tmp_path / "out")])
    assert main(["report", "-o", str(tmp_path / "page.html")]) == 2
    assert "nothing to report" in capsys.readouterr().err


def test_a_run_without_nodes_has_a_page(tmp_path: Path) -> None:
    ran = run_small(
        per_rank(2, lambda trace, rank: trace.comp("a", duration_us=1)), system(), network(npus=2),
        record_nodes=False,
    )  # fmt: skip
    ran.save(tmp_path)
    text = page([read_run(tmp_path)])
    assert "Where the time went" not in text
    assert "Finish of each rank" in text


def test_a_thousand_ranks(tmp_path: Path) -> None:
    def fill(trace: TraceBuilder, rank: int) -> None:
        last = trace.comp("embedding", duration_us=1 + rank % 7)
        for layer in range(20):
            last = trace.comp(f"layer{layer}", duration_us=10, deps=[last])
            last = trace.coll(CommType.ALL_REDUCE, 10**5, name=f"layer{layer}.tp", deps=[last])

    ran = run_small(
        per_rank(1024, fill), system(), network("Ring Switch", [8, 128], [50, 25], [500, 700])
    )
    ran.save(tmp_path)
    began = time.process_time()
    text = page([read_run(tmp_path)])
    assert time.process_time() - began < 15
    assert len(text) < 5_000_000


def test_the_page_of_the_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands run, and its Python says what stands beside it."""
    text = (ROOT / "docs" / "report.md").read_text()
    commands = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    (printed,) = re.findall(r"```\n(on the critical.*?)```", text, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for command in commands.replace("\\\n", " ").splitlines():
        assert main(shlex.split(command)[1:]) == 0
    assert (tmp_path / "report.html").exists()
    assert printed in capsys.readouterr().out
    exec(code, {})
    shown = re.findall(r"  # (\w+)", code)
    assert capsys.readouterr().out.split() == shown
