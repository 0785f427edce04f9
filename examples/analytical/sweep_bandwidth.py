# SPDX-License-Identifier: MIT
"""How the all-reduce of this folder gets faster with the links: ``python sweep_bandwidth.py``.

Every argument of ``simulate`` is a path or an object; here the network is an object.
"""

from pathlib import Path

from astra_bridge import simulate
from astra_bridge.inputs.network import NetworkDims

FOLDER = Path(__file__).parent

print("GiB/s   finish [ns]")
for bandwidth_GiBps in (25.0, 50.0, 100.0, 200.0, 400.0):
    result = simulate(
        workload=FOLDER / "all_reduce" / "trace",
        system=FOLDER / "system.json",
        network=NetworkDims(("Ring",), (8,), (bandwidth_GiBps,), (300.0,)),
        remote_memory=FOLDER / "no_memory.json",
        backend="analytical-aware",
    )
    print(f"{bandwidth_GiBps:5g}   {result.finish_ns.max():11,}")
