# SPDX-License-Identifier: MIT
"""Every combination of schedule and parallelism runs to its end, with the bytes of the formulas."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from astra_bridge import simulate
from astra_bridge.errors import InputError
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.results import Result
from astra_bridge.trace import CommType, NodeType
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
    StateSpace,
    TrainingStep,
    inference,
    pipeline,
    training_step,
)
from astra_bridge.workload.models.step import parts_of

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
    data=st.sampled_from([1, 2, 4]),
    context=st.sampled_from([1, 1, 2, 4]),
    expert=st.sampled_from([1, 2, 4]),
    order=st.sampled_from(
        ["tp-cp-ep-dp-pp", "tp-cp-pp-dp-ep", "tp-cp-ep-pp-dp", "dp-tp-ep-pp-cp", "pp-dp-ep-cp-tp"]
    ),
    sequence_parallel=st.booleans(),
    ring=st.booleans(),
    zero=st.integers(0, 3),
    shard=st.sampled_from([0, 0, 2]),
    prefetch=st.integers(0, 2),
)
STEPS = st.builds(
    dict,
    schedule=st.sampled_from(list(SCHEDULES)),
    micro_batch=st.integers(1, 2),
    micro_batches=st.sampled_from([1, 2, 4, 8, 12]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    gradient_bytes=st.sampled_from([2, 4]),
    overlap_gradients=st.booleans(),
    overlap_weights=st.booleans(),
    overlap_messages=st.booleans(),
    tensor_overlap=st.booleans(),
    steps=st.integers(1, 2),
    dtype=st.sampled_from(["bf16", "fp8"]),
    seed=st.integers(0, 9),
)


def step_of(model: Model, split: dict[str, Any], more: dict[str, Any]) -> TrainingStep:
    """The step, or another example where it is refused."""
    split = dict(split)
    if not model.experts:
        split["expert"] = 1
    if split["expert"] > 1 or not split["zero"]:
        split["shard"] = 0
    chunks = 2 if more["schedule"] == "interleaved" else 1
    try:
        made = TrainingStep(model, Parallelism(**split), sequence=S, chunks=chunks, **more)
    except InputError:
        assume(False)
    assume(made.parallelism.ranks <= 32)
    return made


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([DENSE, TIED, ROUTED, LATENT, HYBRID]),
    SPLITS,
    STEPS,
    st.sampled_from([0.0, 0.5]),
    st.sampled_from(["astra-sim", "corrected"]),
    st.sampled_from(["analytical-aware", "analytical-unaware"]),
)
def test_every_combination_runs_to_its_end(
    model: Model, split: dict[str, Any], more: dict[str, Any], uneven: float, semantics: str,
    backend: str,
) -> None:  # fmt: skip
    step = step_of(model, split, {**more, "imbalance": uneven if model.experts else 0.0})
    made = training_step(step)
    result = run(made, semantics=semantics, backend=backend)
    assert (result.finish_ps > 0).all()
    assert (result.node_end_ps >= 0).all()
    # Nobody received what was not meant for it, and nothing was left over.
    assert not [text for text in result.warnings if "received" in text]


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([DENSE, ROUTED]), SPLITS, STEPS)
def test_files_for_each_rank_give_the_same(
    model: Model, split: dict[str, Any], more: dict[str, Any]
) -> None:
    step = step_of(model, {**split, "data": 2}, {**more, "steps": 1})
    made = training_step(step)
    each = made.expanded()
    network = NetworkDims(("Ring",), (made.ranks,), (50.0,), (500.0,))
    alone = simulate(
        workload=each.workload(), comm_groups=each.comm_groups, system=ALGORITHMS, network=network
    )
    assert run(made).finish_ps.tolist() == alone.finish_ps.tolist()


# Bytes


def moves(trace: TraceBuilder) -> Counter[tuple[str, int]]:
    """Kind and comm_size of all collectives, and sends, of a trace."""
    found: Counter[tuple[str, int]] = Counter()
    for node in trace.nodes:
        size = node.attributes.get("comm_size")
        if node.type is NodeType.COMM_COLL:
            kind = CommType(int(node.attributes["comm_type"]))  # type: ignore[call-overload]
            found[kind.name, int(size)] += 1  # type: ignore[call-overload]
        elif node.type is NodeType.COMM_SEND:
            found["SEND", int(size)] += 1  # type: ignore[call-overload]
    return found


def expected(step: TrainingStep, stage: int) -> Counter[tuple[str, int]]:
    """The same by formulas, written out without the product's code but for who is where."""
    par, model = step.parallelism, step.model
    t, cp, e, m = par.tensor, par.context, par.expert, step.micro_batches
    found: Counter[tuple[str, int]] = Counter()

    def add(kind: str, size: int, times: int = 1) -> None:
        if size and times:
            found[kind, size] += times * step.steps

    pipe = pipeline(step.schedule, par.pipeline, m, step.chunks)
    parts = parts_of(model, pipe.positions)
    passes = m // 2 if pipe.mirrored else m
    tokens = step.micro_batch * S // cp
    split = par.sequence_parallel and t > 1
    shard = -(-tokens // t) * H * 2 if split else tokens * H * 2
    again = step.recompute == "full"
    kv = 2 * tokens * max(1, 4 // t) * 8 * 2  # keys and values of 4 heads of 8 elements in bf16
    gathers = {0: 0, 1: 1, 2: 1, 3: 0}[par.zero]
    dp = par.data * cp

    def regions(entries: int, exits: int, size: int, layer: bool, times: int) -> None:
        """Tensor-parallel regions: Korthikanti et al. 2022, figures 5 and 6."""
        if t == 1:
            return
        more = again and layer
        if split:
            add("ALL_GATHER", size, times * (entries * (2 + more) + exits))
            add("REDUCE_SCATTER", size * t, times * (entries + exits * (1 + more)))
        else:
            add("ALL_REDUCE", size, times * (entries + exits * (1 + more)))

    def weights(count: int, ranks: int, copies: int) -> None:
        """Gradients and weights over data-parallel ranks: ZeRO, section 7."""
        if par.zero == 0:
            if ranks * copies > 1:
                add("ALL_REDUCE", count * step.gradient_bytes)
            return
        reduced = 1 if par.zero == 1 else passes
        if ranks > 1:
            add("REDUCE_SCATTER", count * step.gradient_bytes, reduced)
            shards = -(-count * 2 // ranks)
            add("ALL_GATHER", shards, gathers if par.zero < 3 else 2 * passes)
        if copies > 1:
            add("ALL_REDUCE", -(-count * step.gradient_bytes // ranks))

    ranks = par.shard or dp
    for chunk in range(pipe.chunks):
        part = parts[pipe.position(stage, chunk)]
        if part.embedding:
            regions(0, 1, shard, False, passes)
            weights(V // t * H, ranks, dp // ranks)
        for layer in model.layers[part.first : part.last]:
            routed = isinstance(layer.mlp, Experts)
            regions(1 if routed else 2, 1 if routed else 2, shard, True, passes)
            norms, projections = 2 * H, H * (8 // t + 2 * max(1, 4 // t)) * 8 + 8 // t * 8 * H
            if routed:
                size = -(-tokens // t) * 2 if split else tokens * 2  # tokens and experts of each
                regions(1, 1, size * H * 2, True, passes)
                if e > 1:
                    there = size * H * (1 if step.dtype == "fp8" else 2)
                    # Forward there and back, backward the same, and forward again.
                    for kind in (there, size * H * 2):
                        add("ALL_TO_ALL", kind, passes * (2 + again))
                weights(norms + projections + H * 8, ranks, dp // ranks)
                shared = (dp // e, 1) if e > 1 else (ranks, dp // ranks)
                weights(8 // e * 3 * H * 32 // t, *shared)
            else:
                weights(norms + projections + 3 * H * 64 // t, ranks, dp // ranks)
            if cp > 1 and par.ring:
                add("SEND", kv, passes * ((cp - 1) * (1 + again) + 2))
                add("SEND", 2 * kv, passes * (cp - 2))
            elif cp > 1:
                add("ALL_GATHER", kv, passes * (1 + again))
                add("REDUCE_SCATTER", kv * cp, passes)
        if part.head:
            regions(1, 0, shard, False, passes)
            if t > 1:
                add("ALL_REDUCE", 12 * tokens, passes)
            weights(H + V // t * H, ranks, dp // ranks)
        for direction in (-1, 1):
            if pipe.neighbour(stage, chunk, direction) is not None:
                add("SEND", shard, passes)
    return found


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([DENSE, ROUTED]), SPLITS, STEPS)
def test_bytes_of_every_collective_are_those_of_the_formulas(
    model: Model, split: dict[str, Any], more: dict[str, Any]
) -> None:
    # Where data- and context-parallel ranks are no neighbours, reductions are two: tested below.
    split["order"] = "tp-cp-ep-dp-pp"
    step = step_of(model, split, more)
    assume(step.pipeline.mirrored is False)  # its pairs of stages: tested below
    made = training_step(step)
    kinds, of_rank = made.kinds()
    stage_of = step.parallelism.index("pp")
    for kind, trace in enumerate(kinds):
        stage = int(stage_of[of_rank == kind][0])
        assert moves(trace) == expected(step, stage)


def test_dualpipe_sums_the_gradients_of_both_copies() -> None:
    """A stage and its mirror image hold the same two parts: each sends the other all it has."""
    step = TrainingStep(
        DENSE, Parallelism(pipeline=4, data=2, zero=1), sequence=S, micro_batches=8,
        schedule="dualpipe",
    )  # fmt: skip
    kinds, _ = training_step(step).kinds()
    for stage, trace in enumerate(kinds):
        found, without = moves(trace), expected(step, stage)
        (((kind, size), times),) = (found - without).items()
        weights = [c for (k, c) in without if k == "REDUCE_SCATTER"]
        total = sum(size * without["REDUCE_SCATTER", size] for size in weights)
        assert (kind, times) == ("SEND", 1)
        assert size == total // 2
        assert not without - found


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


def test_tied_embeddings_are_summed_by_a_message_each_way() -> None:
    step = TrainingStep(TIED, Parallelism(pipeline=3, data=2, zero=0), sequence=S)
    kinds, _ = training_step(step).kinds()
    found = [
        [int(node.attributes["comm_size"]) for node in kind.nodes if node.name == "twin.reduce"]  # type: ignore[call-overload]
        for kind in kinds
    ]
    assert found == [[V * H * 4] * 2, [], [V * H * 4] * 2]


# Time


@pytest.mark.parametrize(
    ("schedule", "idle"),
    [
        ("gpipe", Fraction(3, 8) * 3 * 8),  # (p - 1) / m of the work
        ("1f1b", Fraction(3, 8) * 3 * 8),
        ("interleaved", Fraction(3, 2 * 8) * 3 * 8),  # (p - 1) / (v m)
        ("zb-h1", Fraction(3)),  # (p - 1) (F + I - W), all of them 1
        ("dualpipe", Fraction(2)),  # (p / 2 - 1) (F&B + B - 3 W) = 3 + 2 - 3
    ],
)
def test_bubbles_of_simulated_steps(schedule: str, idle: Fraction) -> None:
    """A stage idles as the papers say where communication is free; p = 4, m = 8, v = 2.

    Of layers that are a feed-forward part only, forward, input and weight gradients have as many
    operations each, which are their durations here.
    """
    p, m = 4, 8
    model = Model("even", H, V, (Layer(None, Mlp(64)),) * 8)
    step = TrainingStep(
        model, Parallelism(pipeline=p, zero=0), sequence=S, micro_batches=m, schedule=schedule,
        chunks=2 if schedule == "interleaved" else 1,
    )  # fmt: skip
    made = training_step(step)
    once = 0  # operations of a pass through a stage of two layers
    for trace in made.kinds()[0]:
        for node in trace.nodes:
            operations = int(node.attributes.get("num_ops", 0))  # type: ignore[call-overload]
            if node.type is NodeType.COMP:
                layer = node.name.startswith("layer")
                node.attributes["duration_ns"] = operations if layer else 0
                once = 2 * operations if node.name == "layer0.forward.m0" else once
            elif "comm_size" in node.attributes:
                node.attributes["comm_size"] = 1
    network = NetworkDims(("Switch",), (p,), (1e6,), (0.0,))
    result = simulate(
        workload=made.workload(), system={"endpoint-delay": 0}, network=network,
        semantics="corrected",
    )  # fmt: skip
    assert result.finish_ns.max() == pytest.approx(float((3 * m + idle) * once), rel=1e-4)


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


@pytest.mark.parametrize("phase", ["prefill", "decode", "disaggregated"])
@pytest.mark.parametrize("model", [DENSE, TIED, LATENT, HYBRID], ids=lambda model: model.name)
def test_inference_runs_to_its_end(model: Model, phase: str) -> None:
    for stages in (1, 2):
        split = Parallelism(tensor=2, pipeline=stages, data=2, expert=2 if model.experts else 1)
        made = inference(
            Inference(
                model, split, sequence=S, micro_batch=2, micro_batches=3, phase=phase,
                output_tokens=3, imbalance=0.5 if model.experts else 0.0,
            )
        )  # fmt: skip
        assert made.ranks == split.ranks * (2 if phase == "disaggregated" else 1)
        for semantics in ("astra-sim", "corrected"):
            result = run(made, semantics=semantics)
            assert (result.node_end_ps >= 0).all()


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
