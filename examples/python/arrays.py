# SPDX-License-Identifier: MIT
"""Results are arrays: what overlaps, and which links are busy (``python arrays.py``).

Two pipeline stages of four ranks each compute, all-reduce within the stage while they compute on,
and pass a message on.  Nothing is read from files: every input is an object.
"""

import numpy as np

from astra_bridge import simulate
from astra_bridge.inputs.network import NetworkDims
from astra_bridge.trace import CommType, NodeType
from astra_bridge.workload import GeneratedWorkload, TraceBuilder

STAGES: dict[int, tuple[int, ...]] = {1: (0, 1, 2, 3), 2: (4, 5, 6, 7)}


def trace_of(rank: int) -> TraceBuilder:
    """The work of one rank."""
    trace = TraceBuilder()
    stage, peer = 1 + rank // 4, (rank + 4) % 8
    forward = trace.comp("forward", duration_us=100)
    if stage == 1:
        trace.send(peer, 4 * 2**20, tag=1, deps=[forward])
    else:
        arrived = trace.recv(peer, 4 * 2**20, tag=1)
        forward = trace.comp("forward of the second stage", duration_us=100, deps=[arrived])
    backward = trace.comp("backward", duration_us=200, deps=[forward])
    trace.coll(CommType.ALL_REDUCE, 16 * 2**20, group=stage, deps=[backward])
    trace.comp("optimizer of another layer", duration_us=400, deps=[backward])
    return trace


workload = GeneratedWorkload(tuple(trace_of(rank) for rank in range(8)), STAGES)
result = simulate(
    workload=workload.workload(),
    comm_groups=workload.comm_groups,
    system={
        "all-reduce-implementation": ["ring"],
        "preferred-dataset-splits": 4,
        "active-chunks-per-dimension": 4,
        "local-mem-bw": 1600,
    },
    network=NetworkDims(("Ring",), (8,), (100.0,), (500.0,)),
    backend="analytical-aware",
)

print("finish [us]          ", (result.finish_ns / 1000).round().astype(int))
print("exposed [us]         ", (result.exposed_comm_ns / 1000).round().astype(int))
print("overlap of rank 7    ", result.statistics.overlap_ns[7], "ns")

nodes = result.nodes_of(7)
collective = np.flatnonzero(nodes.columns.type == NodeType.COMM_COLL)[0]
took_ps = nodes.end_ps[collective] - nodes.start_ps[collective]
size_bytes = nodes.columns.comm_size[collective]
# A ring all-reduce of n ranks moves 2 (n - 1) / n of the data over each link of the ring.
bus_GBps = size_bytes * 2 * 3 / 4 / (took_ps / 1e12) / 1e9
print(f"all-reduce of rank 7  {took_ps / 1e6:.1f} us, bus bandwidth {bus_GBps:.1f} GB/s")

links = result.tables["links"]
busiest = int(links["busy_ps"].argmax())
share = links["busy_ps"][busiest] / (result.finish_ns.max() * 1000)
print(
    f"busiest link          {links['src'][busiest]} -> {links['dst'][busiest]}: "
    f"{links['bytes'][busiest]:,} bytes, busy {share:.0%} of the time"
)
