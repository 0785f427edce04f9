# SPDX-License-Identifier: MIT
"""NCCL on one node: its choices by its own rule, and times beside nccl-tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from astra_bridge.collectives.nccl import COLLECTIVES, NcclChoice, nccl_choice, nccl_us
from astra_bridge.errors import InputError
from astra_bridge.hardware import hardware
from astra_bridge.validation import validate

PAGE = (Path(__file__).parents[2] / "docs/hardware.md").read_text(encoding="utf-8")
A100, H100, B200 = hardware("a100-80gb"), hardware("h100-sxm"), hardware("b200")
KIB, MIB = 2**10, 2**20


@pytest.mark.parametrize(
    ("machine", "collective", "ranks", "size", "expected"),
    [
        # Ring LL: 6.6 + 14 * 0.6 us; others start at 14 and more.
        (A100, "all_reduce", 8, 8 * KIB, ("ring", "ll", 1)),
        # 512 threads of 8 B for each of 8 ranks is 32 KiB a channel.
        (A100, "all_reduce", 8, 256 * KIB, ("ring", "ll", 8)),
        # LL128: 40.6 us + 16 MiB / 126.2 GB/s = 173.6; Simple: 56 + 122.3 = 178.3.
        (A100, "all_reduce", 8, 16 * MIB, ("ring", "ll128", 24)),
        # LL128: 40.6 + 265.9; Simple: 56 + 32 MiB / 137.1 GB/s = 300.7.
        (A100, "all_reduce", 8, 32 * MIB, ("ring", "simple", 24)),
        # The step in the measured times: LL up to 512 KiB, Simple from 1 MiB on.
        (A100, "all_reduce", 2, 512 * KIB, ("ring", "ll", 24)),
        (A100, "all_reduce", 2, MIB, ("ring", "simple", 24)),
        # NVLS: 25 us + 2 MiB / 675 GB/s = 28.1; ring LL: 15 + 2 MiB / 80.6 GB/s = 41.
        (H100, "all_reduce", 8, 2 * MIB, ("nvls", "simple", 16)),
        (H100, "all_reduce", 2, 512 * MIB, ("ring", "simple", 24)),
        (H100, "all_gather", 8, 512 * MIB, ("ring", "simple", 24)),
        (H100, "alltoall", 8, MIB, ("pairs", "simple", 24)),
    ],
)
def test_the_choice_is_nccls(
    machine: object, collective: str, ranks: int, size: int, expected: tuple[str, str, int]
) -> None:
    assert nccl_choice(machine, collective, ranks, size) == NcclChoice(*expected)  # type: ignore[arg-type]


def test_a_choice_can_be_forced() -> None:
    chosen = nccl_choice(H100, "all_reduce", 8, 512 * MIB, algorithms=["ring"])
    assert chosen == NcclChoice("ring", "simple", 24)
    # Tree by LL128 where only that is left.
    chosen = nccl_choice(H100, "all_reduce", 8, MIB, algorithms=["tree"], protocols=["ll128"])
    assert chosen[:2] == ("tree", "ll128")
    with pytest.raises(InputError, match="NCCL has no all_gather of 8 ranks by tree"):
        nccl_choice(H100, "all_gather", 8, MIB, algorithms=["tree"])


def test_the_ring_of_large_data_is_the_links_share() -> None:
    """370 GB/s of 450 on the H100: the busbw that NCCL's maintainers and users name."""
    size = 16 * 2**30
    us = nccl_us(H100, "all_reduce", 8, size, choice=NcclChoice("ring", "simple", 24))
    assert size * 2 * 7 / 8 / us / 1e3 == pytest.approx(367, rel=0.08)


def test_times_grow_with_size() -> None:
    for machine in (A100, H100, B200):
        for collective in COLLECTIVES:
            for ranks in (2, 4, 8):
                one = {c: nccl_us(machine, collective, ranks, 2**c) for c in range(9, 36)}
                for power in range(10, 36):
                    # A choice that NCCL makes too late may cost a few us.
                    assert one[power] > 0.85 * one[power - 1], (machine.name, collective, power)
                assert one[35] / one[34] == pytest.approx(2, rel=0.01)


GOALS = {
    "A100-SXM4-80GB, 2 and 8 GPUs": 0.08,
    "H100-SXM, 2 and 8 GPUs": 0.08,
    "A100-SXM4-80GB, 2 and 8 GPUs, 1 to 32 MiB": 0.10,
    "H100-SXM, 2 and 8 GPUs, 1 to 32 MiB": 0.10,
    "A100-SXM4-80GB, 4 GPUs": 0.12,
    "H100-SXM, 4 GPUs": 0.12,
}


def test_errors_are_within_their_goals() -> None:
    report = validate("nccl")
    found = {one.kind: one for one in report.summaries if one.set == "nccl"}
    for kind, goal in GOALS.items():
        assert found[kind].error_geomean < goal, kind
        assert found[kind].error_geomean < found[kind].baseline_geomean / 2, kind
    assert "RTX-PRO-6000-PCIe" in report.notes[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((H100, "allreduce", 8, 1), "did you mean 'all_reduce'"),
        ((H100, "all_reduce", 1, 1), "1 ranks"),
        ((hardware("mi300x"), "all_reduce", 8, 1), "compute capability"),
        ((hardware("h100-pcie"), "all_reduce", 8, 1), "no parameters of NCCL"),
    ],
)
def test_what_is_refused(given: tuple[object, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        nccl_us(*given)  # type: ignore[arg-type]


def test_the_example_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    text = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    exec(text[1], {})
    assert capsys.readouterr().out.startswith("NcclChoice(algorithm='")
