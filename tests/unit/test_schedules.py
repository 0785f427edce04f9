# SPDX-License-Identifier: MIT
"""Orders of pipelines, run with times of their own: no simulator and no sizes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from astra_bridge.errors import InputError
from astra_bridge.workload.models.schedules import Pipeline, Work, forward_only, pipeline


def makespan(made: Pipeline, forward: int, inputs: int, weights: int) -> int:
    """When the last stage has ended; messages take no time.  Fails if stages wait for ever."""
    took = {
        Work.FORWARD: forward,
        Work.INPUT: inputs,
        Work.WEIGHT: weights,
        Work.BACKWARD: inputs + weights,
    }
    ended: dict[tuple[int, int, int, bool], int] = {}  # micro, chunk, stage, forward
    at = [0] * made.stages
    clock = [0] * made.stages
    while any(at[s] < len(made.orders[s]) for s in range(made.stages)):
        moved = False
        for stage, order in enumerate(made.orders):
            while at[stage] < len(order):
                # Actions that run together begin together.
                together = [order[at[stage]]]
                if at[stage] + 1 < len(order) and order[at[stage] + 1].beside:
                    together.append(order[at[stage] + 1])
                ready = [clock[stage]]
                for one in together:
                    if one.work is Work.WEIGHT:
                        assert (one.micro, one.chunk, stage, False) in ended
                        continue
                    ahead = one.work is Work.FORWARD
                    before = made.neighbour(stage, one.chunk, -1 if ahead else 1)
                    if before is not None:
                        ready.append(ended.get((one.micro, before[1], before[0], ahead), -1))
                    elif not ahead:
                        ready.append(ended.get((one.micro, one.chunk, stage, True), -1))
                if min(ready) < 0:
                    break
                clock[stage] = max(ready) + sum(took[one.work] for one in together)
                for one in together:
                    if one.work is not Work.WEIGHT:
                        key = (one.micro, one.chunk, stage, one.work is Work.FORWARD)
                        assert key not in ended
                        ended[key] = clock[stage]
                at[stage] += len(together)
                moved = True
        assert moved, "stages wait for one another"
    return max(clock)


def bubble(made: Pipeline, forward: int, inputs: int, weights: int) -> int:
    """Idle time of a stage: what the makespan is longer than its work."""
    passes = made.micro_batches if made.mirrored else made.micro_batches * made.chunks
    work = passes * (forward + inputs + weights)
    return makespan(made, forward, inputs, weights) - work


@pytest.mark.parametrize("stages", [1, 2, 4, 7])
@pytest.mark.parametrize("micros", [8, 13])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_bubble_of_gpipe_and_1f1b(schedule: str, stages: int, micros: int) -> None:
    """Narayanan et al. 2021, section 2.2.1: (p - 1) / m of the ideal time."""
    idle = bubble(pipeline(schedule, stages, micros), 3, 3, 3)
    assert Fraction(idle, micros * 9) == Fraction(stages - 1, micros)


@pytest.mark.parametrize(
    ("stages", "micros", "chunks"), [(2, 4, 2), (4, 8, 2), (4, 16, 3), (8, 16, 4), (3, 3, 2)]
)
def test_bubble_of_interleaved(stages: int, micros: int, chunks: int) -> None:
    """The same, section 2.2.2: (p - 1) / (v m)."""
    idle = bubble(pipeline("interleaved", stages, micros, chunks), 1, 1, 1)
    assert Fraction(idle, 3 * micros * chunks) == Fraction(stages - 1, chunks * micros)


@pytest.mark.parametrize(("stages", "micros"), [(2, 4), (4, 8), (4, 13), (8, 16), (8, 40)])
@pytest.mark.parametrize(("forward", "inputs", "weights"), [(1, 1, 1), (4, 5, 3), (10, 11, 9)])
def test_bubble_of_zb_h1(stages: int, micros: int, forward: int, inputs: int, weights: int) -> None:
    """Qi et al. 2023, table 2: (p - 1) (T_F + T_B - T_W), T_B of the input gradients alone."""
    made = pipeline("zb-h1", stages, micros)
    assert bubble(made, forward, inputs, weights) == (stages - 1) * (forward + inputs - weights)
    # Section 2.2.1: no more activations than 1F1B's first stage has.
    most = pipeline("1f1b", stages, micros).in_flight(0)
    assert all(made.in_flight(stage) <= most for stage in range(stages))


@pytest.mark.parametrize(
    ("stages", "micros"), [(2, 4), (4, 8), (4, 20), (8, 16), (8, 20), (16, 64)]
)
@pytest.mark.parametrize(("forward", "weights"), [(1, 1), (3, 2), (5, 1)])
def test_bubble_of_dualpipe(stages: int, micros: int, forward: int, weights: int) -> None:
    """DeepSeek-V3, table 2: (PP / 2 - 1) (F&B + B - 3 W), for figure 5's F = B's input gradients.

    F&B takes F + B here: what is hidden in it is communication, of which there is none.
    """
    backward = forward + weights
    both = forward + backward
    expected = (stages // 2 - 1) * (both + backward - 3 * weights)
    made = pipeline("dualpipe", stages, micros)
    assert bubble(made, forward, forward, weights) == expected


@pytest.mark.parametrize(
    "made",
    [
        pipeline("gpipe", 3, 5),
        pipeline("1f1b", 4, 6),
        pipeline("interleaved", 4, 8, 3),
        pipeline("zb-h1", 4, 6),
        pipeline("dualpipe", 6, 14),
    ],
    ids=["gpipe", "1f1b", "interleaved", "zb-h1", "dualpipe"],
)
def test_every_chunk_sees_every_micro_batch_once(made: Pipeline) -> None:
    each = made.micro_batches // (2 if made.mirrored else 1)
    for order in made.orders:
        for chunk in range(made.chunks):
            here = [one for one in order if one.chunk == chunk]
            forward = [one.micro for one in here if one.work is Work.FORWARD]
            inputs = [one.micro for one in here if one.work in (Work.BACKWARD, Work.INPUT)]
            weights = [one.micro for one in here if one.work in (Work.BACKWARD, Work.WEIGHT)]
            assert sorted(forward) == sorted(inputs) == sorted(weights) == list(range(each))


def test_1f1b_is_as_in_the_paper() -> None:
    orders = [" ".join(map(str, order)) for order in pipeline("1f1b", 4, 6).orders]
    assert orders == [
        "F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5",
        "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5",
        "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 B5",
        "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5",
    ]


def test_activations_in_flight() -> None:
    """GPipe keeps all m; 1F1B p - stage; interleaving a little more (section 2.2)."""
    assert pipeline("gpipe", 4, 9).in_flight(0) == [9]
    assert [pipeline("1f1b", 4, 9).in_flight(stage) for stage in range(4)] == [[4], [3], [2], [1]]
    made = pipeline("interleaved", 4, 8, 2)
    assert made.in_flight(0) == [7, 4]  # 2 (p - 1) + (v - 1) p warm, and one more


def test_the_model_is_cut_into_parts() -> None:
    made = pipeline("interleaved", 2, 2, 2)
    assert [made.position(s, c) for c in range(2) for s in range(2)] == [0, 1, 2, 3]
    assert made.neighbour(1, 0, 1) == (0, 1)
    assert made.neighbour(1, 1, 1) is None
    made = pipeline("dualpipe", 2, 4)
    assert [made.position(s, 1) for s in range(2)] == [1, 0]
    assert made.neighbour(1, 1, 1) == (0, 1)
    assert made.neighbour(0, 1, 1) is None
    assert [str(one) for one in forward_only(2, 3).orders[1]] == ["F0", "F1", "F2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1f2b", 2, 2), "schedule: '1f2b' is not allowed; allowed: gpipe, 1f1b.*did you mean"),
        (("interleaved", 2, 3, 2), "schedule: interleaved needs .*; there are 2, 2 and 3"),
        (("interleaved", 2, 2), "schedule: interleaved needs .*; there are 2, 1 and 2"),
        (("1f1b", 2, 2, 2), "vpp: 2 chunks for each stage are for interleaved"),
        (("dualpipe", 3, 6), "schedule: dualpipe needs an even number.* 3 and 6"),
        (("dualpipe", 4, 6), "schedule: dualpipe needs .* 4 and 6"),
    ],
)
def test_impossible_schedules_are_refused(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipeline(*arguments)
