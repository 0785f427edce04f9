# SPDX-License-Identifier: MIT
"""Write the workloads of this folder again: ``python examples/analytical/make_inputs.py``."""

from pathlib import Path

from astra_bridge.workload import collective
from astra_bridge.workload.models import (
    Attention,
    Layer,
    Mlp,
    Model,
    Parallelism,
    TrainingStep,
    training_step,
)  # fmt: skip

FOLDER = Path(__file__).parent

# All-reduce of 1 MiB on 8 ranks, once.
collective("all-reduce", 2**20, 8).write(FOLDER / "all_reduce" / "trace")

# One training step of a small transformer on 8 ranks: 2-way data, tensor and pipeline parallel.
layer = Layer(Attention(heads=8, kv_heads=8, head_dim=128), Mlp(4096, gated=False))
step = TrainingStep(
    Model("small", hidden=1024, vocabulary=8000, layers=(layer,) * 4),
    Parallelism(tensor=2, pipeline=2, data=2),
    sequence=512,
    micro_batches=4,
)
training_step(step, "h100-sxm").write(FOLDER / "training" / "trace")
