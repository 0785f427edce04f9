# SPDX-License-Identifier: MIT
"""The shipped Garnet examples run, and their times are within what physics allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_bridge.cli import main
from astra_bridge.network.garnet import BACKENDS
from astra_bridge.simulation import simulate

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "garnet"

pytestmark = pytest.mark.skipif(
    BACKENDS[0].unavailable() is not None, reason=str(BACKENDS[0].unavailable())
)


def run(network: Path | str, system: str, folder: Path = EXAMPLES, workload: str = "all_reduce_64"):
    return simulate(
        workload=str(folder / workload / "trace"),
        system=str(folder / system),
        network=str(folder / network),
        remote_memory=str(folder / "no_memory.json"),
        backend="garnet",
    )


def test_all_reduce_of_64_ranks_on_a_mesh() -> None:
    result = run("mesh_8x8.yml", "system_2d.json")
    assert len(result.finish_ns) == 64
    # Every rank sends 2 * 63/64 of 1 MiB through an interface of 64 bytes per ns: 32256 ns.
    assert min(result.finish_ns) > 32_256
    assert max(result.finish_ns) < 1.02 * 32_256
    links = result.tables["links"]
    assert len(links["bytes"]) == 224
    # What the interfaces took in came out again.
    interfaces = result.tables["interfaces"]
    assert np.sum(interfaces["injected_flits"]) == np.sum(interfaces["ejected_flits"])
    assert np.sum(interfaces["injected_flits"]) * 64 >= 64 * 2 * 63 / 64 * 2**20


@pytest.mark.parametrize("network", ["packages.yml", "astra_sim_1.txt"])
def test_hierarchical_examples(network: str) -> None:
    result = run(network, "system_3d.json")
    # The last of three dimensions is left with 1/16: 2 * 3/4 / 16 of 1 MiB over links of 16 or
    # 30 bytes per ns, behind 2 * 3/4 of it in the first and a quarter of that in the second.
    assert 12_000 < min(result.finish_ns) <= max(result.finish_ns) < 80_000


def test_the_analytical_experiment_on_garnet() -> None:
    result = run("ring.yml", "system.json", ROOT / "examples" / "analytical", "all_reduce")
    # 27424 ns on the analytical network (examples/analytical/README.md), plus router cycles.
    assert 27_424 <= min(result.finish_ns) <= max(result.finish_ns) < 1.02 * 27_424


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curve, load, again = (tmp_path / name for name in ("curve.png", "load.png", "again.png"))
    traffic = ["garnet", "traffic", "--topology", "torus", "3x3", "--rate", "0.1"]
    short = ["--cycles", "300", "--warmup", "50"]
    assert main([*traffic, *short, "--plot", str(curve), "--heat-map", str(load)]) == 0
    result = run("mesh_8x8.yml", "system_2d.json")
    result.save(tmp_path / "out")
    network = str(EXAMPLES / "mesh_8x8.yml")
    assert main(["garnet", "heat-map", network, str(tmp_path / "out"), str(again)]) == 0
    for picture in (curve, load, again):
        assert picture.read_bytes().startswith(b"\x89PNG")
    other = str(EXAMPLES / "packages.yml")
    assert main(["garnet", "heat-map", other, str(tmp_path / "out"), str(again)]) == 2
