# SPDX-License-Identifier: MIT
"""Write the inputs of this folder: ``python examples/ns3/make_inputs.py``.

``topology.txt`` has the shape of the 128-GPU topology that comes with ASTRA-sim's fork of ns-3:
8 leaves with 16 GPUs each, 8 spines, every link 200 Gbit/s.  ``train.*.et`` is one step of
data-parallel training on all of them.
"""

from pathlib import Path

from astra_bridge.trace import CommType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

FOLDER = Path(__file__).parent
GPUS, LEAVES, SPINES = 128, 8, 8

links = [f"{gpu} {GPUS + gpu // 16} 200Gbps 0.005ms 0" for gpu in range(GPUS)]
links += [
    f"{GPUS + leaf} {GPUS + LEAVES + spine} 200Gbps 0.0125ms 0"
    for leaf in range(LEAVES)
    for spine in range(SPINES)
]
switches = range(GPUS, GPUS + LEAVES + SPINES)
(FOLDER / "topology.txt").write_text(
    f"{GPUS + len(switches)} {len(switches)} {len(links)}\n"
    + " ".join(map(str, switches))
    + "\n"
    + "\n".join(links)
    + "\n"
)

# A step of a transformer of two layers: each rank has all weights and 4 sequences of 512 tokens,
# one after the other, at 200 TFLOP/s.  Gradients of 2 bytes are all-reduced during the last
# backward pass.
HIDDEN, TOKENS, VOCABULARY, BATCHES = 512, 512, 8000, 4
table = VOCABULARY * HIDDEN
attention = 8 * TOKENS * HIDDEN**2 + 4 * TOKENS**2 * HIDDEN
parts = [("embedding", TOKENS * HIDDEN, table)]  # name, operations, weights
for layer in range(2):
    parts.append((f"layer{layer}.attention", attention, 4 * HIDDEN**2))
    parts.append((f"layer{layer}.mlp", 16 * TOKENS * HIDDEN**2, 8 * HIDDEN**2))
parts.append(("head", 2 * TOKENS * table, table))

trace = TraceBuilder()
computed: list[int] = []
reduced: list[int] = []


def compute(name: str, operations: int) -> None:
    microseconds = max(1, round(operations / 200e6))
    computed[:] = [trace.comp(name, duration_us=microseconds, num_ops=operations, deps=computed)]


for batch in range(BATCHES):
    for name, operations, _ in parts:
        compute(f"{name}.fwd.mb{batch}", operations)
    for name, operations, weights in reversed(parts):
        compute(f"{name}.bwd.mb{batch}", 2 * operations)
        if batch == BATCHES - 1:
            deps = sorted({*computed, *reduced})
            reduced = [trace.coll(CommType.ALL_REDUCE, 2 * weights, name=f"{name}.grad", deps=deps)]
computed = sorted({*computed, *reduced})
compute("optimizer.step0", 10 * sum(weights for _, _, weights in parts))
GeneratedWorkload([trace] * GPUS).write(FOLDER / "train")
