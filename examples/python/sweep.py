# SPDX-License-Identifier: MIT
"""Which all-reduce is best for which size (``python sweep.py``): algorithm x bytes, 64 ranks.

The traces are made in memory, and a simulation is a function call: no files, no processes.
"""

from astra_bridge import simulate
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.workload import collective

RANKS = 64
NETWORK = NetworkDims(("Switch",), (RANKS,), (50.0,), (500.0,))
ALGORITHMS = ("ring", "direct", "halvingDoubling", "doubleBinaryTree")


def finish_us(algorithm: str, size_bytes: int) -> float:
    """When the last rank ends."""
    result = simulate(
        workload=collective("all-reduce", size_bytes, RANKS).workload(),
        system={
            "all-reduce-implementation": [algorithm],
            "preferred-dataset-splits": 4,
            "active-chunks-per-dimension": 4,
            "local-mem-bw": 1600,
        },
        network=NETWORK,
        backend="analytical-aware",
    )
    return float(result.finish_ns.max()) / 1000


print(f"{'all-reduce [us]':>16} {' '.join(f'{name:>16}' for name in ALGORITHMS)}")
for exponent in (10, 15, 20, 25):
    times = {name: finish_us(name, 2**exponent) for name in ALGORITHMS}
    best = min(times, key=lambda name: times[name])
    row = " ".join(f"{time:>16,.1f}" for time in times.values())
    print(f"{2**exponent:>14,} B {row}  {best}")
