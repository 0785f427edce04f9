# SPDX-License-Identifier: MIT
"""`calibrate`: finds what is known, says how good it is, and writes what runs."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import astra_bridge as ab
from astra_bridge.cli import main
from astra_bridge.comparison.calibration import Parameter
from astra_bridge.errors import InputError
from tests.small import network, system

pytest.importorskip("scipy")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "compare" / "experiment.yaml"
SIZES = ["64KiB", "256KiB", "1MiB", "4MiB", "16MiB"]


def ring(bandwidth: float = 50, latency: float = 500, **changes: Any) -> ab.Experiment:
    workload = {"generator": "collective", "size": "1MiB"}
    return ab.Experiment(
        workload, system(**changes), network(bandwidth=bandwidth, latency=latency)
    )  # fmt: skip


def table(file: Path, experiment: ab.Experiment, paths: dict[str, Any]) -> Path:
    """Measurements, as they would be of a cluster that is another experiment."""
    lines = [",".join([*paths, "finish_ns"])]
    for values in zip(*paths.values(), strict=True):
        finish = experiment.replace(dict(zip(paths, values, strict=True))).run().finish_ns.max()
        lines.append(",".join(map(str, [*values, finish])))
    file.write_text("\n".join(lines) + "\n")
    return file


def test_what_is_known_is_found(tmp_path: Path) -> None:
    measured = table(tmp_path / "m.csv", ring(73, 1234), {"workload.size": SIZES})
    found = ab.calibrate(
        ring(), {"network.bandwidth[0]": (10, 200), "network.latency[0]": (100, 5000)}, measured
    )
    assert found.values["network.bandwidth[0]"] == pytest.approx(73, rel=0.01)
    assert found.values["network.latency[0]"] == pytest.approx(1234, rel=0.01)
    assert found.after.worst < 0.01 < found.before.mean
    assert [row["used"] for row in found.rows] == [True, False, True, False, True]
    # The errors are those of the rows.
    held = [row for row in found.rows if not row["used"]]
    ratios = [abs(math.log(row["before_ns"] / row["target_ns"])) for row in held]
    assert found.before.mean == pytest.approx(math.expm1(float(np.mean(ratios))))
    assert found.before.worst == pytest.approx(math.expm1(max(ratios)))
    for row in found.rows:
        one = found.experiment.replace({"workload.size": row["workload.size"]})
        assert row["after_ns"] == one.run().finish_ns.max()


def test_a_whole_number_is_found_as_such(tmp_path: Path) -> None:
    sizes = ["64KiB", "256KiB", "1MiB", "4MiB"]
    measured = table(tmp_path / "m.csv", ring(preferred_dataset_splits=7), {"workload.size": sizes})
    found = ab.calibrate(ring(), {"system.preferred-dataset-splits": (1, 16)}, measured)
    assert found.values == {"system.preferred-dataset-splits": 7}
    assert found.after.worst == 0


def test_a_cheap_model_comes_closer_to_a_dear_one() -> None:
    """Half of the error or less on points that were not used: the aware model to Garnet."""
    found = ab.calibrate(
        ab.Experiment.from_file(EXAMPLE), {"network.links[1].bandwidth": ("100Gbps", "2000Gbps")},
        "garnet", {"workload.size": ["128KiB", "256KiB", "512KiB", "1MiB"]},
    )  # fmt: skip
    assert found.values["network.links[1].bandwidth"].endswith("Gbps")
    assert found.after.mean < found.before.mean / 2
    assert found.fit_after.mean < found.fit_before.mean / 2


def test_the_file_says_what_it_was_fitted_to_and_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deep" / "fitted.yaml"
    measured = table(
        tmp_path / "m.csv",
        ab.Experiment.from_file(EXAMPLE).replace({"network.links[1].latency": "900ns"}),
        {"workload.size": ["64KiB", "128KiB", "1MiB"]},
    )
    assert main([
        "calibrate", str(EXAMPLE), f"--to={measured}", "-o", str(file),
        "--fit=network.links[1].latency=100ns:5000ns",
    ]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert comments[0] == f"# analytical-aware fitted to {measured}:"
    assert comments[2] == "# on 2 of 3 points of workload.size."
    assert comments[3].startswith("# Error of the finish on the other 1, which were not used: ")
    assert "network.links[1].latency = " in printed
    assert "\n128KiB" in printed
    fitted = ab.Experiment.from_file(file)
    content = yaml.safe_load(file.read_text())
    value = content["network"]["links"][1]["latency"]
    assert float(value.removesuffix("ns")) == pytest.approx(900, rel=0.01)
    expected = ab.Experiment.from_file(EXAMPLE).replace({"network.links[1].latency": value})
    assert fitted == expected
    assert main(["run", str(file)]) == 0


def test_what_is_not_touched_stays_a_file(tmp_path: Path) -> None:
    examples = ROOT / "examples" / "analytical"
    one = ab.Experiment.from_file(examples / "experiment.yaml")
    measured = table(tmp_path / "m.csv", one, {"injection_scale": [1, 2, 3]})
    found = ab.calibrate(one, {"network.latency[0]": (100, 1000)}, measured)
    found.save(tmp_path / "fitted.yaml")
    content = yaml.safe_load((tmp_path / "fitted.yaml").read_text())
    assert (tmp_path / content["system"]).resolve() == (examples / "system.json").resolve()
    assert isinstance(content["network"], dict)
    assert ab.Experiment.from_file(tmp_path / "fitted.yaml") == found.experiment


@pytest.mark.parametrize(
    ("path", "low", "high", "unit", "whole", "places"),
    [
        ("a", 10, 1000, "", False, {0: 10, 0.5: 100, 1: 1000}),
        ("a", 0, 8, "", False, {0: 0, 0.5: 4, 0.3125: 2.5}),
        ("a", -2, 2, "", True, {0: -2, 0.4: 0, 1: 2}),
        ("a", 1, 4, "us", False, {0: "1us", 0.5: "2us"}),
    ],
)
def test_places_of_a_range(
    path: str, low: float, high: float, unit: str, whole: bool, places: dict[float, Any]
) -> None:
    one = Parameter(path, low, high, unit, whole)
    assert {place: one.value(place) for place in places} == places
    assert 0 < one.step <= 0.5


@pytest.mark.parametrize(
    ("fit", "vary", "said"),
    [
        ({}, {"workload.size": SIZES}, "fit: names nothing"),
        ({"network.bandwidth[0]": (9, 1)}, {"workload.size": SIZES}, "the lower one first"),
        ({"network.bandwidth[0]": (1, "2Gbps")}, {"workload.size": SIZES}, "the same unit"),
        ({"network.bandwidth[0]": 3}, {"workload.size": SIZES}, "two numbers"),
        ({"network.bandwidth[7]": (1, 2)}, {"workload.size": SIZES}, "1 entries"),
        ({"network.bandwidth[0]": (1, 2)}, {"workload.size": ["1MiB"]}, "fewer than two points"),
        ({"network.bandwidth[0]": (1, 2)}, None, "fewer than two points"),
        ({"network.bandwidth[0]": (1, 2)}, {"workload.size": [1, 2], "nix": [1]}, "nix"),
    ],
)
def test_wrong_arguments_are_named(fit: Any, vary: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ab.calibrate(ring(), fit, "analytical-unaware", vary)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no table"),
        ("a,b\n1,2\n", "is no table"),
        ("finish_ns\n1\n", "is no table"),
        ("workload.size,finish_ns\n1MiB,1\n", "fewer than two points"),
        ("workload.size,finish_ns\n1MiB,1\n2MiB\n", "line 3: has 1 cells, not 2"),
        ("workload.size,finish_ns\n1MiB,0\n2MiB,2\n", "line 2: finish_ns: 0 is not allowed"),
        ("wrkload.size,finish_ns\n1MiB,1\n2MiB,2\n", "did you mean 'workload'"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "m.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=said):
        ab.calibrate(ring(), {"network.bandwidth[0]": (1, 2)}, file)
    with pytest.raises(InputError, match="the table has the points"):
        ab.calibrate(ring(), {"network.bandwidth[0]": (1, 2)}, file, {"workload.size": [1]})


def test_a_backend_that_fails_ends_it() -> None:
    with pytest.raises(InputError, match="'nix' is not allowed"):
        ab.calibrate(ring(), {"network.bandwidth[0]": (1, 2)}, "nix", {"workload.size": SIZES})


def test_options_of_a_backend_may_be_numbers() -> None:
    one = ring().replace({"network_options.a": 3})
    assert one.network_options == {"a": "3"}
    assert one.replace({"network_options.a": True}).network_options == {"a": "true"}


def test_the_command_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To a quick backend in place of ns-3, on fewer sizes; options of each backend by its name."""
    page = (ROOT / "docs/compare.md").read_text()
    (command,) = (
        text for text in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "calibrate" in text
    )
    words = command.replace("\\\n", " ").replace("512KiB,1MiB,2MiB,4MiB,8MiB,16MiB", "1MiB").split()
    words = [{"ns3": "analytical-unaware"}.get(word, word) for word in words]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert main([*words[1:], "--network-option=analytical-aware:store-and-forward=false"]) == 0
    assert "analytical-aware fitted to analytical-unaware:" in capsys.readouterr().out
    fitted = yaml.safe_load((tmp_path / "fitted.yaml").read_text())
    assert fitted["network_options"] == {"store-and-forward": "false"}
    assert main([*words[1:], "--network-option=flow:a=1"]) == 2
    assert "allowed: analytical-aware, analytical-unaware" in capsys.readouterr().err
