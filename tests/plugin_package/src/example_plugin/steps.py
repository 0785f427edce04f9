# SPDX-License-Identifier: MIT
"""A generator: compute, one step after the other, on all ranks."""

from typing import Annotated

from astra_bridge.workload import GeneratedWorkload, TraceBuilder
from astra_bridge.workload.generators import Generator, Option


def steps(
    ranks: Annotated[int, Option("Number of ranks.")],
    count: Annotated[int, Option("Steps, one after the other.", "--steps")] = 2,
    step_us: Annotated[int, Option("Compute of each, in us.")] = 10,
) -> GeneratedWorkload:
    trace = TraceBuilder()
    last: list[int] = []
    for _ in range(count):
        last = [trace.comp(duration_us=step_us, deps=last)]
    return GeneratedWorkload([trace] * ranks)


GENERATOR = Generator("steps", "Generate compute, one step after the other.", steps)
