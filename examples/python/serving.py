# SPDX-License-Identifier: MIT
"""Inference requests that arrive while the simulation runs (``python serving.py``).

Requests come from a Poisson process.  A model on four ranks (tensor parallel) serves them: a
request's prefill, then one decode step per token, for all requests at once that have been
prefilled.  What runs next is decided when something is complete, and added to the session.
"""

import numpy as np

from astra_bridge import Experiment
from astra_bridge.engine import Session, Watch
from astra_bridge.program import Program
from astra_bridge.trace import CommType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

RANKS, REQUESTS, TOKENS, LAYERS = 4, 40, 16, 4
BYTES_PER_TOKEN = 2 * 4096  # of activations
PREFILL_TOKENS = 512


def step(tokens: int) -> GeneratedWorkload:
    """All layers for so many tokens: compute, then an all-reduce of the activations."""
    trace = TraceBuilder()
    before: list[int] = []
    for _ in range(LAYERS):
        compute = trace.comp(duration_us=40 + tokens // 8, deps=before)
        before = [trace.coll(CommType.ALL_REDUCE, tokens * BYTES_PER_TOKEN, deps=[compute])]
    return GeneratedWorkload([trace] * RANKS)


BASE = Experiment(
    workload=step(1),
    system={"all-reduce-implementation": ["ring"]},
    network={
        "topology": ["Ring"],
        "npus_count": [RANKS],
        "bandwidth": [100.0],
        "latency": [700.0],
    },
)


def program(tokens: int) -> Program:
    """A step as work for a session."""
    return BASE.replace(workload=step(tokens)).lower().program


PREFILL = program(PREFILL_TOKENS)
DECODE = {batch: program(batch) for batch in range(1, REQUESTS + 1)}


def serve(requests_per_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Time to the first token, and to the last one, of each request [ms]."""
    gaps_ps = np.random.default_rng(7).exponential(1e12 / requests_per_s, REQUESTS)
    arrivals_ps = np.cumsum(gaps_ps).astype(np.int64).tolist()
    queue: list[int] = []  # arrived, not prefilled
    left: dict[int, int] = {}  # tokens that a prefilled request still wants
    first_ps, last_ps = np.zeros(REQUESTS), np.zeros(REQUESTS)
    waits = list(range(REQUESTS))  # to arrive
    running: tuple[str, list[int]] | None = None

    # The machine is idle at first: a program without tasks.
    with BASE.open(idle(BASE.lower().program), record_nodes=False) as session:
        session.watch(Watch.TASKS)
        ranks_done = 0
        while waits or queue or left:
            until_ps = arrivals_ps[waits[0]] if waits else 2**62
            session.advance(until_ps)
            ranks_done += len(session.poll())
            now_ps = session.now_ps
            while waits and arrivals_ps[waits[0]] <= now_ps:
                queue.append(waits.pop(0))
            if running is not None and ranks_done == RANKS:
                what, requests = running
                running, ranks_done = None, 0
                for request in requests:
                    if what == "prefill":
                        first_ps[request] = now_ps - arrivals_ps[request]
                        left[request] = TOKENS
                    left[request] -= 1
                    if not left[request]:
                        last_ps[request] = now_ps - arrivals_ps[request]
                        del left[request]
            if running is None and (queue or left):
                running = begin(session, queue, left)
    return first_ps / 1e9, last_ps / 1e9


def begin(session: Session, queue: list[int], left: dict[int, int]) -> tuple[str, list[int]]:
    """Prefill comes first; else every request decodes one token."""
    if queue:
        session.append(PREFILL)
        return "prefill", [queue.pop(0)]
    session.append(DECODE[len(left)])
    return "decode", list(left)


def idle(full: Program) -> Program:
    """The same machine with nothing to do."""
    from dataclasses import replace

    return replace(full, tasks=full.tasks[:0])


print("requests/s   first token [ms]: median    p95   all tokens [ms]: median    p95")
for requests_per_s in (200, 400, 600):
    first_ms, last_ms = serve(requests_per_s)
    print(
        f"{requests_per_s:10}{np.median(first_ms):27.2f}{np.percentile(first_ms, 95):7.2f}"
        f"{np.median(last_ms):27.2f}{np.percentile(last_ms, 95):7.2f}"
    )
