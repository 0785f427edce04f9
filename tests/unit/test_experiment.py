# SPDX-License-Identifier: MIT
"""An experiment is a value: equal where its inputs say the same, with a path to each of them."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import astra_bridge as ab
from astra_bridge.compute import COMPUTE_MODELS
from astra_bridge.engine import Stop
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import read_network
from astra_bridge.inputs.system import read_system
from astra_bridge.network.analytical.unaware import UnawareNetwork
from astra_bridge.network.registry import BACKENDS
from astra_bridge.trace import read_workload
from astra_bridge.workload import collective

EXAMPLES = Path(__file__).parents[2] / "examples" / "analytical"
FINISH_NS = 27_424  # as examples/analytical/README.md has it


def example(**changes: Any) -> ab.Experiment:
    inputs: dict[str, Any] = {
        "workload": EXAMPLES / "all_reduce" / "trace",
        "system": EXAMPLES / "system.json",
        "network": EXAMPLES / "ring.yml",
        "remote_memory": EXAMPLES / "no_memory.json",
    }
    return ab.Experiment(**inputs | changes)


def test_a_run_knows_its_experiment() -> None:
    experiment = example()
    result = experiment.run()
    assert set(result.finish_ns.tolist()) == {FINISH_NS}


def test_equal_is_what_says_the_same() -> None:
    experiment = example()
    objects = example(
        workload=read_workload(EXAMPLES / "all_reduce" / "trace", 8),
        system=read_system(EXAMPLES / "system.json"),
        network=read_network(EXAMPLES / "ring.yml"),
        remote_memory=None,
    )
    assert experiment == objects
    assert hash(experiment) == hash(objects)
    assert experiment.token == objects.token == experiment.replace().token
    assert experiment != "experiment"
    assert len({experiment, objects, experiment.replace(backend="analytical-unaware")}) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": "analytical-unaware"},
        {"semantics": "corrected"},
        {"num_queues_per_dim": 2},
        {"injection_scale": 2.0},
        {"rendezvous_protocol": True},
        {"remote_memory": {"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 1,
                           "remote-mem-bw": 1}},
        {"workload": collective("all-reduce", 2**19, 8)},
        {"comm_groups": {"1": [0, 1]}},
    ],
)  # fmt: skip
def test_each_input_counts(changes: dict[str, Any]) -> None:
    assert example(**changes) != example()


def test_a_copied_file_is_the_same_and_a_changed_one_is_not(tmp_path: Path) -> None:
    content = json.loads((EXAMPLES / "system.json").read_text())
    file = tmp_path / "other.json"
    file.write_text(json.dumps(content, indent=4))
    assert example(system=file) == example()
    file.write_text(json.dumps(content | {"endpoint-delay": 11}))
    assert example(system=file) != example()


def test_paths_change_one_value() -> None:
    base = example().replace(
        {"system.preferred-dataset-splits": 1, "system.endpoint-delay": 0, "system.local-mem-bw": 0}
    )
    faster = base.replace({"network.bandwidth[0]": 200.0, "network.latency[0]": 100})
    # 2 * (8 - 1) steps of an eighth of 1 MiB at 100 GiB/s after 300 ns, or at 200 after 100
    for experiment, rate_GiBps, latency_ns in ((base, 100, 300), (faster, 200, 100)):
        step_ns = 2**20 / 8 / (rate_GiBps * 2**30) * 1e9 + latency_ns
        assert experiment.run().finish_ns.max() == pytest.approx(14 * step_ns, abs=14)
    assert base.replace({"injection_scale": 3.0}).injection_scale == 3.0
    assert faster.replace({"network.bandwidth[0]": 100, "network.latency[0]": 300.0}) == base


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("netwrok.bandwidth[0]", "did you mean 'network'"),
        ("network.bandwith[0]", "did you mean 'bandwidth'"),
        ("network.bandwidth[1]", "it has 1 entries"),
        ("network.bandwidth.first", "has no 'first'"),
        ("network[0]", "is no list"),
        ("network..bandwidth", "is no path"),
        ("", "is no path"),
        ("system.endpoint-dealy", "endpoint-d"),
    ],
)
def test_a_path_that_leads_nowhere(path: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        example().replace({path: 1}).system_config  # noqa: B018


def test_unknown_arguments_name_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'backend'"):
        example().replace(bakcend="ns3")
    with pytest.raises(InputError, match="did you mean 'backend'"):
        ab.simulate("w", "s", "n", bakcend="ns3")


def test_a_backend_may_be_a_class() -> None:
    ours = example(backend=UnawareNetwork)
    assert (
        ours.run().finish_ns.tolist()
        == example(backend="analytical-unaware").run().finish_ns.tolist()
    )
    with pytest.raises(InputError, match="backend"):
        example(backend=7)


def test_it_pickles_and_prints() -> None:
    experiment = example()
    experiment.lower()
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    assert len(repr(experiment)) < 1000
    assert "ring.yml" in repr(experiment)


def test_it_opens_a_session() -> None:
    with example().open() as session:
        assert session.advance(13_000_000) is Stop.REACHED
        with session.snapshot() as copy:
            assert copy.advance() is Stop.IDLE
            assert set(copy.outcome().finish_ps // 1000) == {FINISH_NS}
        assert session.now_ps == 13_000_000
        assert set(session.outcome().finish_ps.tolist()) == {-1}


def test_another_version_of_a_model_is_another_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = example().token
    found = COMPUTE_MODELS.find("trace", key="name")
    other = dataclasses.replace(found, version=lambda: "other")
    monkeypatch.setitem(COMPUTE_MODELS.loaded, "trace", other)
    assert example().token != before


def test_a_backend_that_a_program_adds() -> None:
    """It runs here, though it says `isolate`: no other process knows its name."""
    spec = dataclasses.replace(
        BACKENDS.find("analytical-unaware-python", key="name"), name="of-this-test", isolate=True
    )
    BACKENDS.add(spec)
    try:
        assert BACKENDS.is_added("of-this-test")
        assert not BACKENDS.is_added("analytical-unaware-python")
        result = example(backend="of-this-test").run()
    finally:
        del BACKENDS.loaded["of-this-test"]
    assert result.backend == "of-this-test"
    expected = example(backend="analytical-unaware").run()
    assert result.finish_ns.tolist() == expected.finish_ns.tolist()


def test_a_generated_workload_brings_its_groups() -> None:
    made = collective("all-reduce", 1 << 20, 4, groups=[[0, 1], [2, 3]])
    network = {"topology": ["Ring"], "npus_count": [4], "bandwidth": [50.0], "latency": [500.0]}
    system = {"all-reduce-implementation": ["ring"]}
    brought = ab.Experiment(made, system, network)
    named = ab.Experiment(made, system, network, comm_groups=made.comm_groups)
    assert brought.run().finish_ps.tolist() == named.run().finish_ps.tolist()
    assert brought.token == named.token


def on_a_gpu(folder: Path, kernels: str, profile: str) -> ab.Experiment:
    """One node, which is timed by its kernels and by a profile that is a file."""
    trace = ab.TraceBuilder()
    trace.comp(num_ops=1, tensor_size_bytes=1, kernels=kernels)
    folder.mkdir(exist_ok=True)
    (folder / "trace.0.et").write_bytes(trace.encode())
    shipped = Path(ab.__file__).parent / "hardware/profiles" / f"{profile}.json"
    (folder / "card.json").write_text(shipped.read_text())
    system = {"compute-model": "gpu", "hardware": str(folder / "card.json")}
    network = {"topology": ["Ring"], "npus_count": [1], "bandwidth": [50.0], "latency": [500.0]}
    return ab.Experiment(folder / "trace", system, network)


def test_free_attributes_and_profiles_count(tmp_path: Path) -> None:
    """Else a sweep would take the result of one for that of the other."""
    first = on_a_gpu(tmp_path / "a", "gemm 1024 1024 1024", "h100-sxm")
    shape = on_a_gpu(tmp_path / "b", "gemm 4096 4096 4096", "h100-sxm")
    card = on_a_gpu(tmp_path / "c", "gemm 1024 1024 1024", "h200")
    same = on_a_gpu(tmp_path / "d", "gemm 1024 1024 1024", "h100-sxm")
    ends = [int(one.run().finish_ps[0]) for one in (first, shape, card)]
    assert len(set(ends)) == 3
    assert len({one.token for one in (first, shape, card)}) == 3
    assert first.token == same.token
    assert first.replace({"system.hardware": "h100-sxm"}).token == first.token


def test_a_table_of_kernels_counts(tmp_path: Path) -> None:
    tokens = []
    for us in (10, 20):
        (tmp_path / "kernels.csv").write_text(f"kernel,us\ngemm 1024 1024 1024,{us}\n")
        one = on_a_gpu(tmp_path / "a", "gemm 1024 1024 1024", "h100-sxm")
        changes = {"compute-model": "measured", "measured-kernels": str(tmp_path / "kernels.csv")}
        tokens.append(one.replace({f"system.{key}": v for key, v in changes.items()}).token)
    assert len(set(tokens)) == 2
