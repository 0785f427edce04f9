# SPDX-License-Identifier: MIT
"""Write the inputs of this folder: ``python examples/ns3/make_inputs.py``.

``topology.txt`` has the shape of the 128-GPU topology that comes with ASTRA-sim's fork of ns-3:
8 leaves with 16 GPUs each, 8 spines, every link 200 Gbit/s.  ``train.*.et`` is one step of
data-parallel training on all of them.
"""

from pathlib import Path

from astra_bridge.workload import Transformer, transformer

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
model = Transformer(layers=2, hidden=512, sequence=512, vocabulary=8000, data=GPUS)
transformer(model).write(FOLDER / "train")
