# SPDX-License-Identifier: MIT
"""What a run comes to for who trains a model: tokens per second, and the share of the peak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astra_bridge.results.times import RankTimes

__all__ = ["rates"]

_PS_PER_S = 1e12


def rates(result: RankTimes) -> dict[str, Any]:
    """What is known of the model, its speed, and the memory of each rank; {} without a model.

    Keys: ``model``, ``step_ps``, ``tokens``, ``tokens_per_s``, and, where the workload or the
    system know the accelerator, ``mfu``: the model's operations over what the accelerators of all
    ranks could do meanwhile.  ``memory_bytes`` has what each stage keeps, by what it is, and
    ``stage_stride`` says whose stage is whose.
    """
    about = result.workload.about
    finish_ps = int(result.finish_ps.max(initial=0))
    if about is None or not finish_ps:
        return {}
    seconds = finish_ps / _PS_PER_S
    known: dict[str, Any] = {
        "model": about.model,
        "step_ps": finish_ps // about.steps,
        "tokens": about.tokens,
        "tokens_per_s": about.tokens / seconds,
    }
    peak, accelerator = about.peak, about.accelerator
    if not peak and result.system.peak_perf_TFLOPS > 0:
        peak, accelerator = result.system.peak_perf_TFLOPS * 1e12, "peak-perf of the system"
    if peak and about.operations:
        known["accelerator"] = accelerator
        known["mfu"] = about.operations / seconds / (peak * result.rank_count)
    if about.memory:
        known["memory_bytes"] = [dict(one) for one in about.memory]
        known["stage_stride"] = about.stage_stride
    return known
