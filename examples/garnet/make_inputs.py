# SPDX-License-Identifier: MIT
"""Write the workload of this folder again: ``python examples/garnet/make_inputs.py``."""

from pathlib import Path

from astra_bridge.workload import collective

# All-reduce of 1 MiB on 64 ranks, once.
collective("all-reduce", 2**20, 64).write(Path(__file__).parent / "all_reduce_64" / "trace")
