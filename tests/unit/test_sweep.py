# SPDX-License-Identifier: MIT
"""Sweeps: every point runs once, whatever happens meanwhile, and the best are the best."""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from astra_bridge import BackendError, Experiment, InputError, sweep
from astra_bridge.cli import main
from astra_bridge.sweeping import Reached, driver, read_specification
from astra_bridge.sweeping.points import Store, run_point
from astra_bridge.sweeping.ranking import fronts
from astra_bridge.sweeping.search import search_of
from tests.small import network, system
from tests.waiting import until

ROOT = Path(__file__).parents[2]
EXPERIMENT = {
    "workload": {"generator": "collective", "kind": "all-reduce", "size": "64KiB"},
    "system": system(),
    "network": network(npus=4),
}
BANDWIDTH, LATENCY = "network.bandwidth[0]", "network.latency[0]"


def content(**changes: Any) -> dict[str, Any]:
    return {"experiment": EXPERIMENT, "vary": {BANDWIDTH: [25, 50, 100]}} | changes


class Here(Executor):
    """Runs in this process, at once."""

    def submit(self, function: Any, /, *args: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        RUNS.append(args[0])
        future.set_result(function(*args, **more))
        return future


RUNS: list[Experiment] = []


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """Points run in this process; what has run."""
    RUNS.clear()

    @contextmanager
    def workers(count: int, dask: str | None) -> Iterator[Any]:
        yield Here(), lambda: count

    monkeypatch.setattr(driver, "workers", workers)
    return RUNS


def points(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(next(search_of(read_specification(spec))))


def finish(values: dict[str, Any]) -> int:
    return int(Experiment(**EXPERIMENT).replace(values).run().finish_ns.max())


def test_a_grid_is_all_combinations_each_with_its_numbers(
    here: list[Experiment], tmp_path: Path
) -> None:
    vary = {BANDWIDTH: [25, 50, 100], LATENCY: {"low": 100, "high": 500, "step": 200}}
    reached: list[Reached] = []
    done = sweep(content(vary=vary), tmp_path, progress=reached.append)
    expected = list(itertools.product([25, 50, 100], [100, 300, 500]))
    assert [(row[BANDWIDTH], row[LATENCY]) for row in done.rows] == expected
    for row in done.rows:
        assert row["finish_ns"] == finish({path: row[path] for path in vary})
        assert (row["error"], row["feasible"], row["backend"]) == ("", True, "analytical-aware")
    assert [(row[BANDWIDTH], row[LATENCY]) for row in done.front] == [(100, 100)]
    assert [one.done for one in reached] == list(range(10))
    assert reached[-1] == (9, 9, 0, 0, 0.0)
    with (tmp_path / "sweep.csv").open() as lines:
        table = list(csv.DictReader(lines))
    assert [int(row["finish_ns"]) for row in table] == [row["finish_ns"] for row in done.rows]
    assert len(list((tmp_path / "points").iterdir())) == len(here) == 9


def test_parquet_has_types(here: list[Experiment], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    vary = {BANDWIDTH: [50, -1], "workload.size": ["1KiB"]}
    sweep(content(vary=vary), tmp_path)
    table = parquet.read_table(tmp_path / "sweep.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["finish_ns"] == kinds[BANDWIDTH] == "int64"
    assert (kinds["workload.size"], kinds["front"], kinds["cpu_s"]) == ("string", "bool", "double")
    assert table["finish_ns"].to_pylist()[1] is None
    assert "bandwidth" in table["error"].to_pylist()[1]


def test_what_is_stored_does_not_run_again(here: list[Experiment], tmp_path: Path) -> None:
    sweep(content(), tmp_path)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "points").iterdir()}
    # Values that say the same, in another spelling, and one more.
    again = sweep(content(vary={BANDWIDTH: [100.0, 25, 75, 75.0]}), tmp_path)
    assert len(here) == 4
    assert again.reached == (4, 4, 3, 0, 0.0)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert [row["finish_ns"] for row in again.rows] == [finish({BANDWIDTH: one})
                                                        for one in (100, 25, 75, 75)]  # fmt: skip


def test_another_backend_is_another_point(here: list[Experiment], tmp_path: Path) -> None:
    vary = {"backend": ["analytical-aware", "analytical-unaware"]}
    done = sweep(content(vary=vary), tmp_path)
    assert len(here) == 2
    assert [row["backend"] for row in done.rows] == vary["backend"]


def test_points_that_fail_are_rows(here: list[Experiment], tmp_path: Path) -> None:
    vary = {BANDWIDTH: [50, -5, 100], "system.all-reduce-implementation": [["ring"], ["wring"]]}
    done = sweep(content(vary=vary), tmp_path)
    errors = [row["error"] for row in done.rows]
    assert [bool(error) for error in errors] == [False, True, True, True, False, True]
    assert "'wring' is not allowed" in errors[1] or "wring" in errors[1]
    assert "bandwidth" in errors[2]
    assert (done.exit_code, done.reached.failed, len(done.front)) == (0, 4, 1)
    ran = len(here)
    assert sweep(content(vary=vary), tmp_path).reached.stored == 6
    assert len(here) == ran
    again = sweep(content(vary=vary), tmp_path, retry_failed=True)
    assert (again.reached.stored, again.reached.failed) == (2, 4)


def test_where_all_fail_so_does_the_command(tmp_path: Path, capsys: Any) -> None:
    spec = tmp_path / "sweep.yaml"
    spec.write_text(yaml.safe_dump(content(vary={BANDWIDTH: [-1, -2]})))
    assert main(["sweep", str(spec), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "2 of 2 points failed; the first: InputError: " in said.err


def test_a_missing_backend_is_asked_again(tmp_path: Path) -> None:
    """It is the machine that lacks something, and another one may not."""
    from astra_bridge.errors import BackendUnavailable
    from astra_bridge.sweeping.points import Point, failure

    point = Point.of(Experiment(**EXPERIMENT), {})
    store = Store(tmp_path)
    store.put(point, failure(BackendUnavailable("not here")))
    assert store.get(point.key) is not None
    assert Store(tmp_path).get(point.key) is None
    store.put(point, failure(BackendError("died")))
    assert Store(tmp_path).get(point.key) is not None


def test_a_start_makes_the_table_of_what_was_left(here: list[Experiment], tmp_path: Path) -> None:
    done = sweep(content(), tmp_path)
    (tmp_path / "sweep.csv").unlink()

    def killed(_: Reached) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(content(), tmp_path, progress=killed)
    with (tmp_path / "sweep.csv").open() as lines:
        found = {int(row["finish_ns"]) for row in csv.DictReader(lines)}
    assert found == {row["finish_ns"] for row in done.rows}


def test_a_damaged_file_is_named(here: list[Experiment], tmp_path: Path) -> None:
    sweep(content(), tmp_path)
    file = next((tmp_path / "points").iterdir())
    file.write_text("{")
    with pytest.raises(InputError, match=r"\.json: cannot read what is stored.*delete it"):
        sweep(content(), tmp_path)


# Searches


def test_a_list_goes_side_by_side() -> None:
    vary = {BANDWIDTH: [1, 2], LATENCY: [30, 40]}
    assert points(content(search="list", vary=vary)) == [
        {BANDWIDTH: 1, LATENCY: 30}, {BANDWIDTH: 2, LATENCY: 40},
    ]  # fmt: skip


def test_random_points_depend_on_the_seed_alone() -> None:
    vary = {
        BANDWIDTH: {"low": 10, "high": 1000, "log": True},
        LATENCY: {"low": 0.5, "high": 2.5, "step": 0.5},
        "injection_scale": {"low": 0.0, "high": 1.0},
        "system.preferred-dataset-splits": [1, 2, 4],
    }
    spec = content(search="random", points=300, vary=vary, seed=7)
    found = points(spec)
    assert found == points(spec)
    assert found != points(spec | {"seed": 8})
    assert len({repr(one) for one in found}) == 300
    assert {one[LATENCY] for one in found} == {0.5, 1.0, 1.5, 2.0, 2.5}
    assert {one["system.preferred-dataset-splits"] for one in found} == {1, 2, 4}
    assert all(isinstance(one[BANDWIDTH], int) and 10 <= one[BANDWIDTH] <= 1000 for one in found)
    # As many below the geometric mean, 100, as above.
    assert 110 < sum(one[BANDWIDTH] < 100 for one in found) < 190


def test_random_takes_no_more_than_there_are() -> None:
    found = points(content(search="random", points=50, vary={BANDWIDTH: [1, 2, 3]}))
    assert sorted(one[BANDWIDTH] for one in found) == [1, 2, 3]


def test_optuna_finds_the_best_and_goes_on(here: list[Experiment], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    spec = content(
        search="optuna", points=40, seed=3,
        vary={BANDWIDTH: {"low": 10, "high": 400}, LATENCY: [100, 500, 900]},
        objectives={"finish_ns": "min"}, constraints=[f"{BANDWIDTH} <= 300"],
    )  # fmt: skip
    done = sweep(spec, tmp_path)
    assert (len(done.rows), len(done.front)) == (40, 1)
    best = done.front[0]
    assert (best[LATENCY], 250 <= best[BANDWIDTH] <= 300) == (100, True)
    ran = len(here)
    assert ran == len({repr((row[BANDWIDTH], row[LATENCY])) for row in done.rows})
    # Again: the same are proposed, and none runs.  Half of them lost: these run.
    files = sorted((tmp_path / "points").iterdir())
    for file in files[::2]:
        file.unlink()
    again = sweep(spec, tmp_path)
    shown = [(row[BANDWIDTH], row[LATENCY], row["finish_ns"]) for row in done.rows]
    assert [(row[BANDWIDTH], row[LATENCY], row["finish_ns"]) for row in again.rows] == shown
    assert len(here) == ran + len(files[::2])


def test_the_front_of_optuna_is_that_of_all_points(here: list[Experiment], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    vary = {BANDWIDTH: [25, 50, 100, 200], "system.preferred-dataset-splits": [1, 4, 16]}
    objectives = {"finish_ns": "min", BANDWIDTH: "min"}
    spec = content(vary=vary, objectives=objectives)
    chosen = sweep(spec | {"search": "optuna", "points": 90}, tmp_path / "optuna")
    every = sweep(spec, tmp_path / "grid")

    def beaten(row: dict[str, Any]) -> bool:
        return any(
            all(other[name] <= row[name] for name in objectives)
            and any(other[name] < row[name] for name in objectives)
            for other in every.rows
        )

    front = {tuple(row[name] for name in objectives) for row in every.rows if not beaten(row)}
    assert len(front) == 4
    for done in (chosen, every):
        assert {tuple(row[name] for name in objectives) for row in done.front} == front
    assert len(here) <= 12 + 12


def test_optuna_is_told_of_failures(here: list[Experiment], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    spec = content(search="optuna", points=15, vary={BANDWIDTH: [-1, 50]},
                   objectives={"finish_ns": "max"})  # fmt: skip
    done = sweep(spec, tmp_path)
    assert len(done.rows) == 15
    assert {bool(row["error"]) for row in done.rows} == {True, False}


def test_fronts_are_those_of_brute_force() -> None:
    rng = random.Random(5)
    for _ in range(50):
        rows = [{"a": rng.randrange(6), "b": rng.randrange(6), "c": rng.randrange(3)}
                for _ in range(rng.randrange(1, 30))]  # fmt: skip
        signs = {"a": 1, "b": -1, "c": 1}

        def beats(one: dict[str, int], other: dict[str, int], signs: Any = signs) -> bool:
            pairs = [(sign * one[name], sign * other[name]) for name, sign in signs.items()]
            return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

        left, expected = list(range(len(rows))), []
        while left:
            front = [i for i in left if not any(beats(rows[j], rows[i]) for j in left)]
            expected.append(set(front))
            left = [i for i in left if i not in front]
        found = fronts(rows, {"a": "min", "b": "max", "c": "min"})
        assert [set(front) for front in found] == expected


def test_the_best_run_again_on_the_dear_backend(here: list[Experiment], tmp_path: Path) -> None:
    spec = content(
        vary={BANDWIDTH: [25, 50, 100, 200]}, objectives={"finish_ns": "min"},
        constraints=[f"{BANDWIDTH} < 200"], ladder={"backend": "analytical-unaware", "best": 2},
    )  # fmt: skip
    done = sweep(spec, tmp_path)
    dear = [row for row in done.rows if row["backend"] == "analytical-unaware"]
    assert [row[BANDWIDTH] for row in dear] == [100, 50]
    assert done.reached == (6, 6, 0, 0, 0.0)
    assert [row[BANDWIDTH] for row in done.front] == [100, 100]
    assert sweep(spec, tmp_path).reached.stored == len(here) == 6


def test_memory_is_there_where_it_is_followed() -> None:
    point = run_point(Experiment(**EXPERIMENT))
    assert (point["error"], point["memory_gb"]) == ("", None)


def test_a_number_that_results_lack_is_an_error(here: list[Experiment], tmp_path: Path) -> None:
    done = sweep(content(constraints=["memory_gb <= 80"]), tmp_path)
    assert {row["feasible"] for row in done.rows} == {False}
    assert "no memory_gb; memory_gb needs track-local-mem" in done.rows[0]["error"]


# Bad specifications


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vary": {}}, "vary: nothing is varied"),
        ({"vary": {BANDWIDTH: []}}, "has no values"),
        ({"vary": {BANDWIDTH: 5}}, "bandwidth[0]: 5 is not allowed; allowed: a list of values"),
        ({"vary": {BANDWIDTH: {"low": 1, "hihg": 2}}}, "hihg"),
        ({"vary": {BANDWIDTH: {"low": 3, "high": 2, "step": 1}}}, "low 3 is larger than high 2"),
        ({"vary": {BANDWIDTH: {"low": 1, "high": 2}}}, "search grid allows a list, or low, high"),
        ({"vary": {BANDWIDTH: {"low": 0, "high": 2, "log": True}}}, "log is for low above 0"),
        ({"vary": {BANDWIDTH: {"low": 1, "high": 2, "step": 0}}}, "step 0 is not allowed"),
        ({"vary": {BANDWIDTH: [1, 2], LATENCY: [1]}, "search": "list"}, "different lengths"),
        ({"search": "gird"}, "search: Invalid enum value 'gird'"),
        ({"sreach": "grid"}, "sreach: unknown key; did you mean 'search'?"),
        ({"points": 5}, "points: search grid says itself how many"),
        ({"points": 0, "search": "random"}, "points: Expected int >= 1, found 0"),
        ({"search": "optuna"}, "objectives: search optuna needs one; allowed: finish_ns"),
        ({"objectives": {"finsh_ns": "min"}}, "did you mean 'finish_ns'?"),
        ({"objectives": {"finish_ns": "least"}}, "'least' is not allowed; allowed: min, max"),
        ({"vary": {"workload.size": ["1KiB"]}, "objectives": {"workload.size": "min"}},
         "are no numbers"),
        ({"constraints": ["memory_gb = 80"]}, "allowed: such as finish_ns <= 1e6"),
        ({"constraints": ["memory <= 80"]}, "constraints[0]: a result has no 'memory'"),
        ({"constraints": ["memory_gb <= much"]}, "is not allowed"),
        ({"ladder": {"backend": "flow", "best": 0}}, "ladder.best"),
        ({"ladder": {"backend": "flow", "best": 1}}, "ladder: needs objectives"),
        ({"experiment": {**EXPERIMENT, "bakend": "x"}}, "bakend: unknown key"),
        ({"experiment": "nowhere.yaml"}, "nowhere.yaml: cannot read"),
    ],
)  # fmt: skip
def test_bad_specifications_are_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    spec = tmp_path / "sweep.yaml"
    spec.write_text(yaml.safe_dump(content(**changes)))
    with pytest.raises(InputError) as caught:
        read_specification(spec)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_specification_is_a_mapping(tmp_path: Path) -> None:
    for text in ("- a", "3", "experiment: x"):
        spec = tmp_path / "sweep.yaml"
        spec.write_text(text)
        with pytest.raises(InputError, match=r"sweep\.yaml"):
            read_specification(spec)


def test_the_experiment_is_beside_the_specification(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    spec = tmp_path / "sweep.yaml"
    spec.write_text(yaml.safe_dump(content(experiment="one.yaml")))
    assert read_specification(spec).experiment == Experiment(**EXPERIMENT)


# The command


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "astra_bridge", "sweep", *words]


def test_processes_and_the_plot(tmp_path: Path, capsys: Any) -> None:
    spec = tmp_path / "sweep.yaml"
    spec.write_text(yaml.safe_dump(content(objectives={"finish_ns": "min", BANDWIDTH: "min"})))
    out = tmp_path / "out"
    assert main(["sweep", str(spec), "--workers", "2", "--output", str(out)]) == 0
    said = capsys.readouterr()
    assert "sweep: 3 of 3 points, 0 stored before" in said.err
    assert "Pareto front of 3 points." in said.out
    assert all(str(finish({BANDWIDTH: one})) in said.out.replace(",", "") for one in (25, 50, 100))
    pytest.importorskip("matplotlib")
    assert "<svg" in (out / "front.svg").read_text()


def test_workers_and_dask_exclude_one_another(tmp_path: Path, capsys: Any) -> None:
    words = ["sweep", "x.yaml", "--output", str(tmp_path), "--workers", "2", "--dask", "tcp://h:1"]
    assert main(words) == 2
    assert "--workers: is for points on this machine" in capsys.readouterr().err


def test_every_command_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/sweeps.md has them, but for those of Dask, which the test below runs."""
    shutil.copytree(ROOT / "examples/sweep", tmp_path / "examples/sweep")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/sweeps.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    ours = [shlex.split(line) for line in lines if line.startswith("astra-bridge sweep")]
    plain = [words[1:] for words in ours if "--dask" not in words]
    assert len(plain) >= 2
    for words in plain:
        if "optuna" in " ".join(words):
            pytest.importorskip("optuna")
        assert main(words) == 0


def test_the_yaml_of_the_page_is_understood() -> None:
    page = (ROOT / "docs/sweeps.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        read_specification(yaml.safe_load(block) | {"experiment": EXPERIMENT})


# Dask, and a sweep that is killed


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A scheduler and two workers, as people start them."""
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    calls = [
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
         "--scheduler-file", str(file)],
        *[[*dask, "worker", "--scheduler-file", str(file), "--local-directory",
           str(folder / f"worker{one}"), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
          for one in range(2)],
    ]  # fmt: skip
    running = []
    try:
        for at, call in enumerate(calls):
            with (folder / f"dask{at}.log").open("wb") as log:
                running.append(subprocess.Popen(call, stdout=log, stderr=log, env=env))
            if at == 0:
                assert until(lambda: file.exists() and file.read_bytes().endswith(b"}"))
        yield json.loads(file.read_bytes())["address"]
    finally:
        for one in reversed(running):
            one.kill()
            one.wait()


KILLED = """
import os, signal, sys
from astra_bridge.cli import main
from astra_bridge.sweeping import points
last, moment = int(sys.argv.pop(1)), sys.argv.pop(1)
stored, write = 0, points.write_file
def write_or_end(file, content):
    global stored
    stored += 1
    if stored == last and moment == "before":
        os.killpg(0, signal.SIGKILL)
    write(file, content)
    if stored == last and moment == "after":
        os.killpg(0, signal.SIGKILL)
points.write_file = write_or_end
sys.exit(main(sys.argv[1:]))
"""
"""A command that ends itself and its children when it stores that point."""


def test_200_points_on_dask_killed_twice(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    spec, out = tmp_path / "sweep.yaml", tmp_path / "out"
    vary = {BANDWIDTH: {"low": 10, "high": 200, "step": 10}, LATENCY: list(range(100, 1100, 100))}
    spec.write_text(yaml.safe_dump(content(vary=vary, objectives={"finish_ns": "min"})))
    points = out / "points"

    def stored() -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in points.glob("*.json")}

    with cluster(tmp_path) as address:
        call = command(str(spec), "--dask", address, "--output", str(out))
        kept: dict[str, int] = {}
        for last, moment, left in ((40, "after", 40), (71, "before", 110)):
            killed = [sys.executable, "-c", KILLED, str(last), moment, *call[3:]]
            ended = subprocess.run(killed, start_new_session=True, stderr=subprocess.DEVNULL)
            assert ended.returncode == -signal.SIGKILL
            now = stored()
            assert now.items() >= kept.items()
            assert len(now) == left
            kept = now
        done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert f"200 of 200 points, {len(kept)} stored before" in done.stderr
    # Whole files, none written a second time, and a line in the log for each that was stored.
    assert stored().items() >= kept.items()
    assert len(stored()) == 200
    assert all(json.loads((points / name).read_bytes())["error"] == "" for name in stored())
    logged = [line.split()[1] for line in (out / "runs.log").read_text().splitlines()]
    assert len(set(logged)) == len(logged)
    assert len(logged) == 199  # the first kill came between a file and its line
    with (out / "sweep.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len({(row[BANDWIDTH], row[LATENCY]) for row in rows}) == len(rows) == 200
    for row in rows[::37]:
        values = {BANDWIDTH: float(row[BANDWIDTH]), LATENCY: float(row[LATENCY])}
        assert int(row["finish_ns"]) == finish(values)


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("astra_bridge.sweeping.workers._CONNECT_S", 1.0)
    with pytest.raises(InputError, match=r"--dask: no Dask scheduler answers at 'tcp://127"):
        sweep(content(), tmp_path, dask="tcp://127.0.0.1:9")


def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, more in (
        ("distributed", {}),
        ("optuna", {"search": "optuna", "objectives": {"finish_ns": "min"}}),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=rf"needs {name}: pip install .*\[sweep\]"):
            sweep(content(**more), tmp_path, dask="tcp://h:1")
