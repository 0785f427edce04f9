# SPDX-License-Identifier: MIT
"""How long compute nodes take: recorded, roofline, systolic array."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astra_bridge.compute import scalesim as scalesim_module
from astra_bridge.compute.gpu import Kernels
from astra_bridge.compute.gpu.text import kernels_of
from astra_bridge.compute.roofline import roofline_ns
from astra_bridge.compute.scalesim import scalesim_cycles
from astra_bridge.compute.systolic import gemm_of, systolic_cycles
from astra_bridge.errors import InputError, MissingDependency
from astra_bridge.hardware import hardware
from astra_bridge.inputs.system import SystolicArray
from astra_bridge.trace import NodeType
from benchmarks.transformer import Transformer, transformer
from tests.small import network, run, same_on_all, system


def comp_ns(used: dict[str, Any], semantics: Any = "astra-sim", **node: Any) -> int:
    """How long one compute node takes."""
    workload = same_on_all(2, lambda trace: trace.comp(**node))
    result = run(workload, used, network("Ring", 2), semantics=semantics)
    assert result.exposed_comm_ns.tolist() == (
        result.finish_ns.tolist() if node.get("cpu") else [0, 0]
    )
    return int(result.finish_ns[0])


# Recorded durations


def test_a_recorded_duration_is_in_us() -> None:
    assert comp_ns(system(), duration_us=7) == 7000


def test_a_node_without_duration_takes_one_ns() -> None:
    assert comp_ns(system()) == 1


def test_a_node_on_the_cpu_does_not_count_as_compute() -> None:
    assert comp_ns(system(), duration_us=7, cpu=True) == 7000


def test_a_duration_beyond_all_time_is_refused() -> None:
    with pytest.raises(InputError, match="duration_micros"):
        comp_ns(system(), duration_us=2**62)


# Roofline

ROOF = system(roofline_enabled=1, local_mem_bw=50, peak_perf=1)


@pytest.mark.parametrize(
    ("num_ops", "tensor_bytes", "ns"),
    [
        # Intensity 1000: 50e9 B/s * 1000 = 5e13 is above the peak of 1e12, so 1e9 / 1e12 s.
        (10**9, 10**6, 1_000_000),
        # Intensity 1: 5e10 operations per second, 1000 / 5e10 s.
        (1000, 1000, 20),
        # 30 / 5e10 s = 0.6 ns is cut off.
        (30, 30, 0),
        # Nothing to do, or nothing to do it on, takes no time (ASTRA-sim: 2**63 ns, or never).
        (0, 1000, 0),
        (1000, 0, 0),
    ],
)
def test_roofline(num_ops: int, tensor_bytes: int, ns: int) -> None:
    assert comp_ns(ROOF, num_ops=num_ops, tensor_size_bytes=tensor_bytes, duration_us=9) == ns
    assert roofline_ns(np.array([num_ops]), np.array([tensor_bytes]), 50e9, 1e12).tolist() == [ns]


@given(st.integers(1, 2**50), st.integers(1, 2**50), st.floats(1e6, 1e15), st.floats(1e6, 1e18))
def test_roofline_is_the_slower_of_memory_and_arithmetic(
    ops: int, data: int, memory_Bps: float, peak: float
) -> None:
    exact_ns = max(data / memory_Bps, ops / peak) * 1e9
    if exact_ns < 2**62:
        (found,) = roofline_ns(np.array([ops]), np.array([data]), memory_Bps, peak).tolist()
        assert abs(found - exact_ns) <= 1 + 1e-9 * exact_ns


def test_roofline_is_not_for_nodes_on_the_cpu() -> None:
    assert comp_ns(ROOF, num_ops=10**9, tensor_size_bytes=10, duration_us=9, cpu=True) == 9000


@pytest.mark.parametrize("key", ["local-mem-bw", "peak-perf"])
def test_roofline_needs_its_two_numbers(key: str) -> None:
    with pytest.raises(InputError) as caught:
        comp_ns(ROOF | {key: 0}, num_ops=1, tensor_size_bytes=1)
    assert caught.value.key == key


@pytest.mark.parametrize("missing", ["num_ops", "tensor_size"])
def test_roofline_needs_attributes(missing: str) -> None:
    node = {"num_ops": 5, "tensor_size_bytes": 5}
    del node["num_ops" if missing == "num_ops" else "tensor_size_bytes"]
    with pytest.raises(InputError, match="is missing") as caught:
        comp_ns(ROOF, **node)
    assert caught.value.key == f"node 0 COMP {missing}"


def test_replay_takes_every_node_as_it_was_recorded() -> None:
    def fill(trace: Any) -> None:
        first = trace.comp(duration_us=3)
        second = trace.coll(0, 2**20, deps=[first])
        trace.load(10, deps=[second])

    used = system(replay_only=1)
    result = run(same_on_all(2, fill), used, network("Ring", 2))
    # Nodes without a recorded duration take 1 ns each.
    assert result.finish_ns.tolist() == [3002, 3002]


# Systolic array


@pytest.mark.parametrize(
    ("size", "dataflow", "cycles"),
    # SCALE-sim 3.0.0 on a 32 x 32 array, in its compute report.
    [(64, "ws", 631), (64, "os", 503), (128, "ws", 3551), (128, "os", 3039)],
)
def test_systolic_cycles_are_those_of_scale_sim(size: int, dataflow: Any, cycles: int) -> None:
    assert systolic_cycles(size, size, size, rows=32, columns=32, dataflow=dataflow) == cycles


def test_one_fold_of_an_output_stationary_array_cycle_by_cycle() -> None:
    # Output (i, j) takes operands of step t in cycle i + j + t; then a column drains, R cycles.
    rows, columns, k = 3, 4, 5
    last = max(i + j + t for i, j, t in itertools.product(range(rows), range(columns), range(k)))
    assert systolic_cycles(rows, columns, k, rows=rows, columns=columns, dataflow="os") == last
    # Twice as many rows are a second fold.
    twice = systolic_cycles(2 * rows, columns, k, rows=rows, columns=columns, dataflow="os")
    assert twice == 2 * (last + 1) - 1


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_shape_of_an_operator_keeps_its_totals(mn: int, k: int) -> None:
    ops, data = 2 * mn * mn * k, 2 * (2 * mn * k + mn * mn)
    m, n, depth = gemm_of(ops, data)
    assert m == n
    # One of the two shapes with these totals; operations are kept to rounding.
    assert abs(2 * m * n * depth - ops) <= 2 * m * n
    if mn >= k:
        assert (m, depth) == (mn, k)


def test_a_node_takes_as_long_as_its_product_on_the_array() -> None:
    array = {"rows": 32, "columns": 32, "dataflow": "ws", "frequency-GHz": 0.5}
    used = system(compute_model="systolic", systolic_array=array)
    size = 128
    node = {"num_ops": 2 * size**3, "tensor_size_bytes": 2 * 3 * size**2}
    # 3551 cycles of 2 ns.
    assert comp_ns(used, **node) == 7102
    # Times are kept in ps: at 0.94 GHz, ceil(3551 * 1000 / 0.94) = 3777660 ps.
    array["frequency-GHz"] = 0.94
    workload = same_on_all(2, lambda trace: trace.comp(**node))
    assert run(workload, used, network("Ring", 2)).node_end_ps.tolist() == [3777660] * 2


def test_scale_sim_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(m: int, n: int, k: int, array: SystolicArray) -> int:
        asked.append((m, n, k, array.rows))
        return 12345

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(scalesim_module, "_run", answer)
    for _ in range(2):
        assert scalesim_cycles(4, 5, 6, SystolicArray(8, 8, "ws")) == 12345
    assert scalesim_cycles(4, 5, 6, SystolicArray(16, 8, "ws")) == 12345
    assert asked == [(4, 5, 6, 8), (4, 5, 6, 16)]
    # A damaged file is asked for again.
    for file in tmp_path.rglob("*.json"):
        file.write_text("{")
    assert scalesim_cycles(4, 5, 6, SystolicArray(8, 8, "ws")) == 12345
    assert len(asked) == 3


def test_scale_sim_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scalesim")
    if tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4):
        pytest.skip("SCALE-sim 3.0.0 fails on numpy 2.4")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cycles = scalesim_cycles(64, 64, 64, SystolicArray(32, 32, "ws"))
    assert cycles >= systolic_cycles(64, 64, 64, rows=32, columns=32, dataflow="ws")


def test_without_scale_sim_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "scalesim", None)
    monkeypatch.setitem(__import__("sys").modules, "scalesim.layout_utils", None)
    used = system(compute_model="scalesim")
    with pytest.raises(MissingDependency, match=r"pip install 'astra-bridge\[scalesim\]'"):
        comp_ns(used, num_ops=1000, tensor_size_bytes=1000)


# GPU kernels


GPU = {"compute_model": "gpu", "hardware": "h100-sxm"}


def test_gpu_by_shape_is_what_the_kernels_take() -> None:
    kernels = Kernels(hardware("h100-sxm"))
    gap_us = kernels.fitted.host.stream_us
    body_us = float(kernels.gemm(4096, 4096, 4096))
    given = {"num_ops": 2 * 4096**3, "tensor_size_bytes": 6 * 4096**2}
    one = comp_ns(system(**GPU), kernels="gemm 4096 4096 4096", **given)
    assert one == pytest.approx((body_us + gap_us) * 1e3, abs=1)
    three = comp_ns(system(**GPU), kernels="3*gemm 4096 4096 4096", **given)
    assert three == pytest.approx(3 * (body_us + gap_us) * 1e3, abs=1)
    # Totals alone stand for a product of the same operations and bytes.
    assert comp_ns(system(**GPU), **given) == pytest.approx(one, rel=0.02)


def test_gpu_streams_what_has_few_operations() -> None:
    # 3 GB at 90 % of 3.35 TB/s, and a launch.
    ns = comp_ns(system(**GPU), num_ops=10, tensor_size_bytes=3 * 10**9)
    assert ns == pytest.approx(3e9 / (0.9 * 3350), rel=0.1)


def test_gpu_beats_the_datasheet_nowhere() -> None:
    kernels = Kernels(hardware("h100-sxm"))
    m, n, k = 2.0 ** np.array(list(itertools.product(range(15), range(4, 15), range(4, 15)))).T
    least_us = np.maximum(2 * m * n * k / 989.4e6, 2 * (m * k + n * k + m * n) / 3.35e6)
    assert (kernels.gemm(m, n, k) > 0.9 * least_us).all()


def test_whole_waves_of_tiles() -> None:
    """One tile more than the processors hold is a second wave; less work is never slower."""
    kernels = Kernels(hardware("h100-sxm"))
    rows = np.arange(64, 8192, 64)
    times = kernels.gemm(rows, 4096, 4096)
    assert (np.diff(times) > -1e-9).all()
    # A wave with room takes more tiles for next to nothing [us]; a further one costs.
    assert (np.diff(times) < 0.01).any()
    assert (np.diff(times) > 10).any()


@pytest.mark.parametrize(
    ("used", "kernels", "said"),
    [
        (GPU, "gemm 1 2", "takes 3 numbers"),
        (GPU, "gem 1 2", "has no operator gem"),
        (GPU, "gemm 1 2 3 fast", "any of bf16"),
        (GPU, "gemm 1,2,3", "is not allowed"),
        ({"compute_model": "gpu"}, "gemm 1 2 3", "hardware"),
        ({"compute_model": "measured"}, "gemm 1 2 3", "measured-kernels"),
        (GPU | {"hardware": "h20"}, "gemm 1 2 3", "did you mean 'h200'"),
        (GPU | {"hardware": "tpu-v4"}, "gemm 1 2 3", "only its datasheet"),
    ],
)
def test_what_kernels_may_not_say(used: dict[str, Any], kernels: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        comp_ns(system(**used), kernels=kernels, num_ops=1, tensor_size_bytes=1)


def test_measured_kernels(tmp_path: Path) -> None:
    table = tmp_path / "kernels.csv"
    table.write_text("kernel,us\ngemm 512 512 512,10\ngemm 2048 512 512,40\ntotals 1000 1000,5\n")
    used = system(compute_model="measured", measured_kernels=str(table))
    given = {"num_ops": 1000, "tensor_size_bytes": 1000}
    assert comp_ns(used, kernels="gemm 512 512 512", **given) == 10_000
    # Time per unit of work is the same at both ends, so half way in between it is, too.
    assert comp_ns(used, kernels="2*gemm 1024 512 512", **given) == 40_000
    assert comp_ns(used, **given) == 5_000
    for text, said in (
        ("gemm 512 512 512 fp8", "no kernel like 'gemm 512 512 512 fp8'"),
        ("gemm 512 512 9000", "no kernel near"),
    ):
        with pytest.raises(InputError, match=said):
            comp_ns(used, kernels=text, **given)
    table.write_text("kernel,us\ngemm 512 512 512,-1\n")
    with pytest.raises(InputError, match="line 2: us"):
        comp_ns(used, **given)


@pytest.mark.parametrize(
    "model", [{"tensor": 2}, {"experts": 4, "top_k": 2, "expert": 2, "data": 2}]
)
def test_kernels_of_a_transformer_are_its_operations(model: dict[str, int]) -> None:
    shape = Transformer(layers=2, hidden=1024, micro_batches=1, **model)
    trace = transformer(shape).workload().columns[0]
    for at in np.flatnonzero((trace.type == int(NodeType.COMP)) & ~trace.is_cpu_op).tolist():
        if not any(word in trace.name(at) for word in ("attention", "mlp", "experts", "head")):
            continue
        text = trace.attributes(at)["kernels"]
        assert isinstance(text, str)
        ops = 0
        for one in kernels_of(text):
            if one.word == "gemm":
                ops += one.times * 2 * math.prod(one.numbers)
            elif one.word == "attention":
                batch, heads, _, q, kv, size = one.numbers
                more = 2 if "backward" in one.words else 1
                ops += more * 4 * batch * heads * q * kv * size
        assert ops == trace.num_ops[at], trace.name(at)


def test_gpu_times_a_transformer_near_its_peak() -> None:
    """A large dense layer runs at 50 to 80 % of the datasheet's peak (as Megatron-LM's do)."""
    shape = Transformer(layers=2, hidden=8192, sequence=4096, micro_batches=2)
    trace = transformer(shape).workload()
    result = run(trace, system(**GPU), network("Ring", 1))
    share = float(trace.columns[0].num_ops[trace.columns[0].num_ops > 0].sum()) / (
        int(result.finish_ns[0]) * 989.4e3
    )
    assert 0.5 < share < 0.8
