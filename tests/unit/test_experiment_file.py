# SPDX-License-Identifier: MIT
"""experiment.yaml, and what the command line makes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import astra_bridge as ab
from astra_bridge.cli import main
from astra_bridge.errors import InputError
from astra_bridge.simulation.file import SCHEMA_FILE, experiment_schema

SMALL_MODEL = str(Path(__file__).parents[1] / "small_model.json")

EXAMPLES = Path(__file__).parents[2] / "examples" / "analytical"
FLAGS = [
    f"--workload-configuration={EXAMPLES}/all_reduce/trace",
    f"--system-configuration={EXAMPLES}/system.json",
    f"--network-configuration={EXAMPLES}/ring.yml",
    f"--remote-memory-configuration={EXAMPLES}/no_memory.json",
]


def written(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "workload": str(EXAMPLES / "all_reduce" / "trace"),
        "system": str(EXAMPLES / "system.json"),
        "network": str(EXAMPLES / "ring.yml"),
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(content | changes))
    return file


def results(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a run of the command line gives, less what differs from run to run."""
    file = folder / "result.json"
    assert main(["run", *arguments, f"--json={file}"]) == 0
    result: dict[str, Any] = json.loads(file.read_text())
    del result["wall_s"]
    return result


def test_the_shipped_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == experiment_schema()


def test_the_schema_knows_every_argument() -> None:
    from dataclasses import fields

    properties = experiment_schema()["properties"]
    assert set(properties) == {field.name for field in fields(ab.Experiment)}
    assert all("description" in one for one in properties.values())


def test_a_file_says_what_flags_say(tmp_path: Path) -> None:
    file = EXAMPLES / "experiment.yaml"
    flags = results(tmp_path, *FLAGS)
    assert results(tmp_path, str(file))["finish_ns"] == flags["finish_ns"]
    assert flags["provenance"]["token"] == ab.Experiment.from_file(file).token
    assert set(flags["provenance"]["inputs"]) >= {"workload", "system", "network"}
    assert flags["provenance"]["versions"]["astra_bridge"] == ab.__version__


def test_what_is_set_counts_more(tmp_path: Path) -> None:
    file = str(EXAMPLES / "experiment.yaml")
    fast = results(tmp_path, file, "--set", "network.bandwidth[0]=200")
    content = {"topology": ["Ring"], "npus_count": [8], "bandwidth": [200], "latency": [300]}
    assert fast["finish_ns"] == ab.Experiment.from_file(written(tmp_path, network=content)).run(
    ).finish_ns.tolist()  # fmt: skip
    assert fast["provenance"]["token"] != ab.Experiment.from_file(file).token
    other = results(tmp_path, file, "--backend=analytical-unaware", "--set=injection_scale=2")
    assert other["backend"] == "analytical-unaware"
    assert (
        results(tmp_path, *FLAGS, "--set=network.bandwidth[0]=200")["finish_ns"]
        == (fast["finish_ns"])
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"netwrok": "x"}, "did you mean 'network'"),
        ({"num_queues_per_dim": "two"}, "num_queues_per_dim"),
        ({"jobs": [{"workload": "x"}]}, "one of workload and jobs"),
        ({"faults": [{"link": 0, "at": "soon", "bandwidth": 1}]}, r"faults\[0\].at"),
        ({"system": 7}, "system"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ab.Experiment.from_file(written(tmp_path, **changes))


def test_no_mapping_is_no_experiment(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="is no mapping"):
        ab.Experiment.from_file(tmp_path / "one.yaml")
    with pytest.raises(InputError, match="cannot read"):
        ab.Experiment.from_file(tmp_path / "none.yaml")


def test_jobs_and_faults_on_the_command_line(tmp_path: Path) -> None:
    whole = results(tmp_path, str(EXAMPLES / "jobs.yaml"))
    assert [job["name"] for job in whole["jobs"]] == ["training", "second"]
    content = yaml.safe_load((EXAMPLES / "jobs.yaml").read_text())
    jobs, faults = tmp_path / "jobs.yml", tmp_path / "faults.yml"
    for job in content["jobs"]:
        job["workload"] = str(EXAMPLES / job["workload"])
    jobs.write_text(yaml.safe_dump(content["jobs"]))
    faults.write_text(yaml.safe_dump(content["faults"]))
    flags = results(tmp_path, *FLAGS[1:], f"--jobs={jobs}", f"--faults={faults}")
    assert flags["finish_ps"] == whole["finish_ps"]
    without = results(tmp_path, *FLAGS[1:], f"--jobs={jobs}")
    assert max(without["finish_ps"]) < max(whole["finish_ps"])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "astra_bridge", "run", *arguments]


KILLED = """
import os, signal, sys
from astra_bridge.cli import main
from astra_bridge.engine import Session, native
from astra_bridge.engine.ticker import Ticker
native.PERIOD_S = 0.01
Ticker.__init__.__defaults__ = (0.01,)
saved, save = 0, Session.save
def save_and_end(self, *given, **more):
    global saved
    save(self, *given, **more)
    saved += 1
    if saved == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Session.save = save_and_end
sys.exit(main(sys.argv[1:]))
"""
"""A command that looks a hundred times a second whether to save, and ends after its second save."""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "python"])
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, engine: str
) -> None:
    size = 2**21 if engine == "python" else 2**28
    splits = 16 if engine == "python" else 1024
    made = [sys.executable, "-m", "astra_bridge", "workload", "collective", "--kind=all-reduce",
            f"--size={size}", "--ranks=64", str(tmp_path / "trace")]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    file = written(
        tmp_path,
        workload="trace",
        network={"topology": ["Ring"], "npus_count": [64], "bandwidth": [50], "latency": [500]},
        system={"all-reduce-implementation": ["ring"], "preferred-dataset-splits": splits},
    )
    checkpoint = tmp_path / "checkpoint"
    keep = [f"--checkpoint={checkpoint}", "--checkpoint-interval=0"]
    # With checkpoints too, as chunks of collectives are not kept then.
    whole = command(str(file), f"--engine={engine}", *keep, f"--output={tmp_path / 'whole'}")
    subprocess.run(whole, check=True, capture_output=True)
    checkpoint.unlink(missing_ok=True)
    killed = [sys.executable, "-c", KILLED, *command(str(file), f"--engine={engine}", *keep)[3:]]
    done = subprocess.run(killed, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint.exists()
    again = [f"--engine={engine}", f"--resume={checkpoint}", f"--output={tmp_path / 'again'}"]
    subprocess.run(command(str(file), *again), check=True, capture_output=True)
    for name in ("ranks.csv", "nodes.csv", "collectives.csv", "links.csv", "timeline.pftrace"):
        assert (tmp_path / "again" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes(), name


def test_a_checkpoint_of_another_experiment_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = ab.Experiment.from_file(EXAMPLES / "experiment.yaml")
    file = tmp_path / "checkpoint"
    with experiment.open() as session:
        session.advance(10_000_000)
        session.save(file, label=experiment.token)
    assert experiment.run(resume=file).finish_ps.tolist() == experiment.run().finish_ps.tolist()
    arguments = [str(EXAMPLES / "experiment.yaml"), f"--resume={file}"]
    assert main(["run", *arguments, "--set=network.latency[0]=1"]) == 2
    assert "another experiment" in capsys.readouterr().err
    file.write_bytes(file.read_bytes()[:-9])
    assert main(["run", *arguments]) == 2
    assert "damaged" in capsys.readouterr().err


# A workload that is generated


def generated_file(folder: Path, **workload: Any) -> Path:
    return written(folder, workload={"generator": "collective", **workload})


def test_a_workload_can_be_generated(tmp_path: Path) -> None:
    from astra_bridge.workload import collective

    file = generated_file(tmp_path, kind="all-gather", size="64KiB", repeat=2)
    one = ab.Experiment.from_file(file)
    same = one.replace(workload=collective("all-gather", 2**16, 8, repeat=2))
    assert one.run().finish_ps.tolist() == same.run().finish_ps.tolist()
    assert one == same
    larger = one.replace({"workload.size": 2**20})
    assert larger == one.replace(workload=collective("all-gather", 2**20, 8, repeat=2))
    assert results(tmp_path, str(file), "--set=workload.size=1MiB")["finish_ns"] == (
        larger.run().finish_ns.tolist()
    )


def test_a_generated_workload_has_its_own_groups(tmp_path: Path) -> None:
    content = {"generator": "model", "model": SMALL_MODEL, "dp": 2, "tp": 4, "micro_batches": 1}
    generated = ab.Experiment.from_file(written(tmp_path, workload=content))
    made = generated.work[0].traces
    assert {group.size for group in made.columns[0].process_groups} == {4, 2}
    prefix = tmp_path / "traces" / "gpt"
    assert main(["workload", "model", SMALL_MODEL, str(prefix), "--dp=2", "--tp=4"]) == 0
    assert generated == ab.Experiment.from_file(written(tmp_path, workload=str(prefix)))
    jobs = written(tmp_path, workload=None, jobs=[{"workload": content}])
    of_job = ab.Experiment.from_file(jobs).work[0].traces
    assert [one.process_groups for one in of_job.columns] == [
        one.process_groups for one in made.columns
    ]


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"generator": "colective"}, r"workload\.generator: .*did you mean 'collective'"),
        ({}, r"workload\.generator: .*allowed: collective, model"),
        ({"generator": "collective", "sise": 1}, r"workload\.sise: .*did you mean 'size'"),
        ({"generator": "collective", "size": "1 parsec"}, r"workload\.size: unknown size unit"),
        ({"generator": "collective", "size": [1]}, r"workload\.size"),
        ({"generator": "collective", "repeat": "x"}, r"workload\.repeat: 'x' is not allowed"),
        ({"generator": "collective", "overlap": 1}, r"workload\.overlap"),
        ({"generator": "collective", "group": ["0-9"]}, r"workload\.groups"),
    ],
)
def test_what_is_wrong_with_a_generated_workload_is_named(
    tmp_path: Path, workload: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        ab.Experiment.from_file(written(tmp_path, workload=workload)).run()
