# SPDX-License-Identifier: MIT
"""Write the workloads of this folder again: ``python examples/analytical/make_inputs.py``."""

from pathlib import Path

from astra_bridge.workload import Transformer, collective, transformer

FOLDER = Path(__file__).parent

# All-reduce of 1 MiB on 8 ranks, once.
collective("all-reduce", 2**20, 8).write(FOLDER / "all_reduce" / "trace")

# One training step of a small transformer on 8 ranks: 2-way data, tensor and pipeline parallel.
model = Transformer(
    layers=4,
    hidden=1024,
    sequence=512,
    vocabulary=8000,
    micro_batches=4,
    data=2,
    tensor=2,
    pipeline=2,
)
transformer(model).write(FOLDER / "training" / "trace")
