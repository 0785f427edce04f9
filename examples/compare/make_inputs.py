# SPDX-License-Identifier: MIT
"""Write the workload of ``training.yaml``: ``python examples/compare/make_inputs.py``."""

from pathlib import Path

from astra_bridge.workload.models import (
    Attention,
    Layer,
    Mlp,
    Model,
    Parallelism,
    TrainingStep,
    training_step,
)  # fmt: skip

# Two training steps of a small transformer, 4-way data and tensor parallel.
layer = Layer(Attention(heads=8, kv_heads=8, head_dim=128), Mlp(4096, gated=False))
step = TrainingStep(
    Model("small", hidden=1024, vocabulary=32000, layers=(layer,) * 2),
    Parallelism(tensor=4, data=4),
    sequence=512,
    micro_batches=2,
    steps=2,
)
training_step(step, "h100-sxm").write_kinds(Path(__file__).with_name("training"))
