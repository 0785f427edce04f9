# SPDX-License-Identifier: MIT
"""A SimPy process beside the simulation, on one clock (``python simpy_host.py``).

Training reads its batches from a store that others use too: SimPy simulates the store, the session
the training step.  Whoever has the earlier event goes on; neither runs ahead of the other.
"""

import math
import random
from dataclasses import replace

import simpy

from astra_bridge import Experiment
from astra_bridge.engine import Session, Stop, Watch
from astra_bridge.program import Program
from astra_bridge.trace import CommType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

RANKS, STEPS, PS_PER_US = 8, 12, 10**6


def training_step() -> GeneratedWorkload:
    """500 us of compute, then an all-reduce of 32 MiB."""
    trace = TraceBuilder()
    compute = trace.comp(duration_us=500)
    trace.coll(CommType.ALL_REDUCE, 32 * 2**20, deps=[compute])
    return GeneratedWorkload([trace] * RANKS)


EXPERIMENT = Experiment(
    workload=training_step(),
    system={"all-reduce-implementation": ["ring"], "preferred-dataset-splits": 4},
    network={
        "topology": ["Ring"],
        "npus_count": [RANKS],
        "bandwidth": [200.0],
        "latency": [500.0],
    },
)


class Machine:
    """The session as SimPy sees it: ``yield machine.run(program)`` until the work is done."""

    def __init__(self, env: simpy.Environment, session: Session) -> None:
        self.env, self.session = env, session
        self.session.watch(Watch.TASKS)
        self.left: dict[int, list] = {}  # task -> [tasks left of its work, event]

    def run(self, program: Program) -> simpy.Event:
        """Work that begins now."""
        first = self.session.append(program, start_ps=self.env.now)
        work = [len(program.tasks), self.env.event()]
        self.left |= dict.fromkeys(range(first, first + len(program.tasks)), work)
        return work[1]

    def go(self) -> None:
        """Run both until nothing is left."""
        while True:
            peek = self.env.peek()
            stop = self.session.advance(2**62 if math.isinf(peek) else int(peek))
            for time_ps, task, _ in self.session.poll().tolist():
                work = self.left.pop(task)
                work[0] -= 1
                if not work[0]:
                    wake = self.env.timeout(time_ps - self.env.now)
                    wake.callbacks.append(lambda _, event=work[1]: event.succeed())
            if stop is Stop.DONE:
                continue  # the session is not yet where SimPy's next event is
            if math.isinf(self.env.peek()):
                return
            self.env.step()


def reader(env: simpy.Environment, store: simpy.Resource, batches: simpy.Store):
    """Read batches ahead, at most two."""
    rng = random.Random(1)
    for batch in range(STEPS):
        with store.request() as turn:
            yield turn
            yield env.timeout(round(rng.uniform(400, 800) * PS_PER_US))
        yield batches.put(batch)


def others(env: simpy.Environment, store: simpy.Resource):
    """What else the store has to do."""
    rng = random.Random(2)
    while env.now < 8000 * PS_PER_US:
        yield env.timeout(round(rng.expovariate(1 / 600) * PS_PER_US))
        with store.request() as turn:
            yield turn
            yield env.timeout(700 * PS_PER_US)


def trainer(env: simpy.Environment, machine: Machine, batches: simpy.Store, log: list):
    """Wait for a batch, then run a step."""
    step = EXPERIMENT.lower().program
    for _ in range(STEPS):
        asked_ps = env.now
        yield batches.get()
        waited_ps = env.now - asked_ps
        began_ps = env.now
        yield machine.run(step)
        log.append((waited_ps, env.now - began_ps))


env = simpy.Environment(initial_time=0)
whole = EXPERIMENT.lower().program
with EXPERIMENT.open(replace(whole, tasks=whole.tasks[:0])) as session:
    machine = Machine(env, session)
    store, batches, log = simpy.Resource(env), simpy.Store(env, capacity=2), []
    env.process(reader(env, store, batches))
    env.process(others(env, store))
    env.process(trainer(env, machine, batches, log))
    machine.go()

waited_us = [waited / PS_PER_US for waited, _ in log]
steps_us = [step / PS_PER_US for _, step in log]
print(f"{len(log)} steps of {steps_us[0]:.0f} us each; waited for batches [us]:")
print(" ".join(f"{waited:.0f}" for waited in waited_us))
print(f"{sum(waited_us) / (sum(waited_us) + sum(steps_us)):.0%} of the time is waiting")
