# SPDX-License-Identifier: MIT
"""Every combination of schedule and parallelism runs to its end, with the bytes of the formulas.

The formulas stand in tests/model_bytes.py.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from astra_bridge import simulate
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.results import Result
from astra_bridge.trace import CommType, NodeType
from astra_bridge.trace.writer import encode_trace, encode_traces
from astra_bridge.workload import GeneratedWorkload, TraceBuilder
from astra_bridge.workload.models import (
    SCHEDULES,
    Attention,
    Experts,
    Inference,
    LatentAttention,
    Layer,
    Mlp,
    Model,
    Parallelism,
    SelectiveScan,
    StateSpace,
    TrainingStep,
    inference,
    training_step,
)
from astra_bridge.workload.models.emission import Rank
from tests.model_bytes import Move, expected, served
from tests.trace_twins import differences

H, V, S = 64, 128, 32
ATTENTION = Attention(8, 4, 8)
DENSE = Model("dense", H, V, (Layer(ATTENTION, Mlp(64)),) * 8)
TIED = Model("tied", H, V, (Layer(ATTENTION, Mlp(256, False, True)),) * 9, True, True, S, True)
ROUTED = Model(
    "routed", H, V,
    (Layer(ATTENTION, Mlp(64)), *(Layer(ATTENTION, Experts(8, 2, 32)),) * 7),
)  # fmt: skip
LATENT = Model(
    "latent",
    H,
    V,
    (Layer(LatentAttention(8, 24, 16, 8, 4, 8), Experts(8, 2, 32, 32, True, True)),) * 8,
)
HYBRID = Model(
    "hybrid", H, V, (Layer(StateSpace(8, 16, 16, 8, 4, 16), None, 1), Layer(ATTENTION, Mlp(64))) * 4
)
SCAN = Model(  # as Jamba
    "scan", H, V,
    (
        Layer(SelectiveScan(128, 16, 4, 4, True, True, True), Experts(8, 2, 32)),
        Layer(ATTENTION, Mlp(64)),
        Layer(SelectiveScan(64, 8, 3, 4), None, 1),
    ) * 3,
)  # fmt: skip
SINKS = Model(  # as gpt-oss: windows in every other layer; at the end no feed-forward part
    "sinks", H, V,
    (
        Layer(
            Attention(8, 2, 16, True, True, 32, window=8, sinks=True),
            Experts(8, 4, 32, router_bias=True, bias=True),
        ),
        Layer(
            Attention(8, 2, 16, True, True, sinks=True),
            Experts(8, 4, 32, 64, gated=False, router_bias=True, shared_gate=True),
        ),
    ) * 4 + (Layer(ATTENTION, None, 1),),
)  # fmt: skip
BOTH = Model("both", H, V, LATENT.layers[:2] + HYBRID.layers[:2] + SCAN.layers[:3] * 2, True)
MODELS = [DENSE, TIED, ROUTED, LATENT, HYBRID, SCAN, SINKS, BOTH]
ALGORITHMS = {
    "all-reduce-implementation": ["ring"],
    "all-gather-implementation": ["ring"],
    "reduce-scatter-implementation": ["ring"],
    "all-to-all-implementation": ["direct"],
}


def run(made: GeneratedWorkload, **more: Any) -> Result:
    network = NetworkDims(("Ring",), (made.ranks,), (50.0,), (500.0,))
    return simulate(workload=made.workload(), system=ALGORITHMS, network=network, **more)


SPLITS = st.builds(
    dict,
    tensor=st.sampled_from([1, 2, 4]),
    pipeline=st.integers(1, 4),
    data=st.sampled_from([1, 2, 4, 4]),
    context=st.sampled_from([1, 1, 2, 4]),
    expert=st.sampled_from([1, 2, 2, 4]),
    order=st.permutations(["tp", "cp", "ep", "dp", "pp"]).map("-".join),
    sequence_parallel=st.booleans(),
    ring=st.booleans(),
    zero=st.integers(0, 3),
    shard=st.sampled_from([0, 0, 2]),
    prefetch=st.integers(0, 2),
)
STEPS = st.builds(
    dict,
    micro_batch=st.integers(1, 2),
    micro_batches=st.integers(1, 6),
    recompute=st.sampled_from(["none", "selective", "full"]),
    gradient_bytes=st.sampled_from([2, 4]),
    overlap_gradients=st.booleans(),
    overlap_weights=st.booleans(),
    overlap_messages=st.booleans(),
    tensor_overlap=st.booleans(),
    steps=st.integers(1, 2),
    chunks=st.integers(2, 3),
    dtype=st.sampled_from(["bf16", "fp8"]),
    imbalance=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 9),
    uneven=st.booleans(),
)
SERVED = st.builds(
    dict,
    phase=st.sampled_from(["prefill", "decode", "disaggregated"]),
    output_tokens=st.integers(1, 3),
    micro_batch=st.integers(1, 2),
    micro_batches=st.integers(1, 3),
    tensor_overlap=st.booleans(),
    dtype=st.sampled_from(["bf16", "fp8"]),
    imbalance=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 9),
    uneven=st.booleans(),
)


def step_of(model: Model, split: dict[str, Any], more: dict[str, Any]) -> Any:
    """The step or inference, or another example where it is refused."""
    split, more = dict(split), dict(more)
    if not model.experts:
        split["expert"] = 1
        more["imbalance"] = 0.0
    if split["expert"] > 1 or not split["zero"]:
        split["shard"] = 0
    kind: Any = Inference
    positions = split["pipeline"]
    if "schedule" in more:
        kind = TrainingStep
        if more["schedule"] == "interleaved":
            split["pipeline"] = max(2, positions)
            more["micro_batches"] = split["pipeline"] * (1 + more["micro_batches"] % 2)
        else:
            more["chunks"] = 1
        if more["schedule"] == "dualpipe":
            split["pipeline"] += positions % 2
            more["micro_batches"] = 2 * (split["pipeline"] + more["micro_batches"] - 1)
        positions = split["pipeline"] * more["chunks"]
    if more.pop("uneven"):
        # The first part has one layer, or the second half none.
        rest = model.depth - 1
        each = [rest // max(1, positions - 1)] * (positions - 1)
        more["stage_layers"] = (1 + rest - sum(each), *each)
    try:
        made = kind(model, Parallelism(**split), sequence=S, **more)
    except InputError:
        assume(False)
    assume(made.parallelism.ranks <= 32)
    return made


def moves(trace: TraceBuilder, made: GeneratedWorkload) -> Counter[Move]:
    """Kind, comm_size and group of all collectives of a trace, and its sends."""
    found: Counter[Move] = Counter()
    for node in trace.nodes:
        size = int(node.attributes.get("comm_size", 0))  # type: ignore[call-overload]
        if node.type is NodeType.COMM_COLL:
            kind = CommType(int(node.attributes["comm_type"]))  # type: ignore[call-overload]
            group = (made.own_groups or {})[int(str(node.attributes["pg_name"]))]
            found[kind.name, size, group] += 1
        elif node.type is NodeType.COMM_SEND:
            found["SEND", size, (0, 2)] += 1
    return found


def check(
    run_of: TrainingStep | Inference, made: GeneratedWorkload, semantics: str, backend: str
) -> None:
    """Bytes are those of the formulas on every kind of rank, and the simulation ends."""
    kinds, of_rank = made.kinds()
    for kind, trace in enumerate(kinds):
        rank = int(np.argmax(of_rank == kind))
        if isinstance(run_of, TrainingStep):
            assert moves(trace, made) == expected(run_of, rank)
        else:
            assert moves(trace, made) == served(run_of, rank)
    result = run(made, semantics=semantics, backend=backend)
    assert (result.finish_ps > 0).all()
    assert (result.node_end_ps >= 0).all()
    # Nobody received what was not meant for it, and nothing was left over.
    assert not [text for text in result.warnings if "received" in text]


SEMANTICS = st.sampled_from(["astra-sim", "corrected"])
BACKENDS = st.sampled_from(["analytical-aware", "analytical-unaware"])


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODELS), SPLITS, STEPS, SEMANTICS, BACKENDS)
def test_steps_move_the_bytes_of_the_formulas_and_end(
    schedule: str, model: Model, split: dict[str, Any], more: dict[str, Any], semantics: str,
    backend: str,
) -> None:  # fmt: skip
    step = step_of(model, split, {**more, "schedule": schedule})
    check(step, training_step(step), semantics, backend)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), SPLITS, SERVED, SEMANTICS, BACKENDS)
def test_inference_moves_the_bytes_of_the_formulas_and_ends(
    model: Model, split: dict[str, Any], more: dict[str, Any], semantics: str, backend: str
) -> None:
    served_run = step_of(model, {**split, "shard": 0}, more)
    made = inference(served_run)
    twice = 2 if served_run.phase == "disaggregated" else 1
    assert made.ranks == served_run.parallelism.ranks * twice
    check(served_run, made, semantics, backend)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([model for model in MODELS if model.experts]),
    SPLITS,
    STEPS,
    st.sampled_from(list(SCHEDULES)),
)
def test_kinds_that_share_nodes_are_as_if_each_were_made_alone(
    model: Model, split: dict[str, Any], more: dict[str, Any], schedule: str
) -> None:
    step = step_of(model, split, {**more, "schedule": schedule, "imbalance": 1.5})
    made = training_step(step, "h100-sxm")
    with patch.object(Rank, "alike", return_value=None):
        alone = training_step(step, "h100-sxm")
    shared, apart = (one.kinds()[0] for one in (made, alone))
    assert [one.nodes for one in shared] == [one.nodes for one in apart]
    for one, other in zip(made.workload().columns, alone.workload().columns, strict=True):
        assert differences(one, other) == []
    assert list(encode_traces(one.nodes for one in shared)) == [
        encode_trace(one.nodes) for one in apart
    ]


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(MODELS), SPLITS, STEPS, st.sampled_from(list(SCHEDULES)))
def test_files_for_each_rank_give_the_same(
    model: Model, split: dict[str, Any], more: dict[str, Any], schedule: str
) -> None:
    step = step_of(model, {**split, "data": 2}, {**more, "steps": 1, "schedule": schedule})
    made = training_step(step)
    each = made.expanded()
    network = NetworkDims(("Ring",), (made.ranks,), (50.0,), (500.0,))
    alone = simulate(
        workload=each.workload(), comm_groups=each.comm_groups, system=ALGORITHMS, network=network
    )
    assert run(made).finish_ps.tolist() == alone.finish_ps.tolist()


# Bytes


def test_reductions_over_two_dimensions_move_as_many_bytes() -> None:
    """Over 2, then over 4 of the half: S (1 - 1/2) + S/2 (1 - 1/4) = S (1 - 1/8)."""
    sizes = {}
    for order in ("tp-cp-ep-dp-pp", "tp-cp-pp-dp-ep"):
        split = Parallelism(pipeline=2, data=4, context=2, zero=1, order=order, ring=False)
        made = training_step(TrainingStep(DENSE, split, sequence=S))
        total = 0.0
        for node in made.kinds()[0][0].nodes:
            if node.name.endswith(".reduce"):
                group = int(str(node.attributes["pg_name"]))
                _, members = (made.own_groups or {})[group]
                total += int(node.attributes["comm_size"]) * (1 - 1 / members)  # type: ignore[call-overload]
        sizes[order] = total
    assert len(set(sizes.values())) == 1


# Time


def idle(schedule: str, p: int, m: int, v: int) -> Fraction:
    """Idle time of a stage over its work, of passes whose three parts take as long."""
    forward = inputs = weights = Fraction(1)
    work = m * (forward + inputs + weights)
    return {
        "gpipe": Fraction(p - 1, m),  # Narayanan et al. 2021, section 2.2.1
        "1f1b": Fraction(p - 1, m),
        "interleaved": Fraction(p - 1, v * m),  # the same, section 2.2.2
        "zb-h1": (p - 1) * (forward + inputs - weights) / work,  # Qi et al. 2023, table 2
        # DeepSeek-V3, table 2: F&B, forward and backward side by side, are as long as both here.
        "dualpipe": (Fraction(p, 2) - 1)
        * ((forward + inputs + weights) + (inputs + weights) - 3 * weights)
        / work,
    }[schedule]


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=8, deadline=None)
@given(st.integers(2, 6), st.integers(0, 6), st.integers(2, 3))
def test_bubbles_of_simulated_steps(schedule: str, p: int, more: int, v: int) -> None:
    """A stage idles as the papers say where communication is free.

    Of layers that are a feed-forward part only, forward, input and weight gradients have as many
    operations each, which are their durations here.
    """
    v = v if schedule == "interleaved" else 1
    p += p % 2 if schedule == "dualpipe" else 0
    m = {"interleaved": p * (1 + more % 3), "dualpipe": 2 * (p + more)}.get(schedule, p + more)
    layers = p * v * (1 if v > 1 else 2)
    model = Model("even", H, V, (Layer(None, Mlp(64)),) * layers)
    step = TrainingStep(
        model, Parallelism(pipeline=p, zero=0), sequence=S, micro_batches=m, schedule=schedule,
        chunks=v,
    )  # fmt: skip
    made = training_step(step)
    once = 0  # operations of a layer forward
    for trace in made.kinds()[0]:
        for node in trace.nodes:
            operations = int(node.attributes.get("num_ops", 0))  # type: ignore[call-overload]
            if node.type is NodeType.COMP:
                layer = node.name.startswith("layer")
                node.attributes["duration_ns"] = operations if layer else 0
                once = operations if node.name == "layer0.forward.m0" else once
            elif "comm_size" in node.attributes:
                node.attributes["comm_size"] = 1
    work = 3 * m * once * layers // p  # of a stage
    network = NetworkDims(("Switch",), (p,), (1e6,), (0.0,))
    result = simulate(
        workload=made.workload(), system={"endpoint-delay": 0}, network=network,
        semantics="corrected",
    )  # fmt: skip
    found = float(result.finish_ns.max()) / work - 1
    assert found == pytest.approx(float(idle(schedule, p, m, v)), abs=2e-4)


def test_overlap_shortens_a_step() -> None:
    """Each switch hides what it says, under semantics that let communication overlap."""
    from astra_bridge.hardware import hardware

    model = Model("wide", 2048, 4096, (Layer(Attention(16, 4, 128), Mlp(8192)),) * 4)
    split = Parallelism(tensor=2, data=4)

    def finish(**more: Any) -> int:
        step = TrainingStep(model, split, sequence=1024, micro_batches=2, **more)
        made = training_step(step, hardware("h100-sxm"))
        network = NetworkDims(("Switch",), (8,), (50.0,), (500.0,))
        result = simulate(
            workload=made.workload(), system=ALGORITHMS, network=network, semantics="corrected"
        )
        return int(result.finish_ns.max())

    best = finish()
    assert best < finish(overlap_gradients=False)
    assert best < finish(overlap_weights=False)
    assert finish(tensor_overlap=True) < best


# Inference


def test_keys_and_values_are_handed_over() -> None:
    """2 L kv d elements of bf16 per token of the prompts, in all: 8 layers, 4 heads of 8."""
    run = Inference(
        DENSE, Parallelism(tensor=2, pipeline=2), sequence=S, micro_batch=3, micro_batches=2,
        phase="disaggregated",
    )  # fmt: skip
    kinds, _ = inference(run).kinds()
    sent = sum(
        int(node.attributes["comm_size"])  # type: ignore[call-overload]
        for kind in kinds[:2]
        for node in kind.nodes
        if node.type is NodeType.COMM_SEND and ".keys." in node.name
    )
    assert sent * 2 == 2 * 8 * 4 * 8 * 2 * S * 6
