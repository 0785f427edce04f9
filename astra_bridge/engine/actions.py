# SPDX-License-Identifier: MIT
"""What happens next, somewhere in the engine, as data: a kind and two numbers.

An engine's state holds no function and no reference to the engine, so that it can be copied and
written to a file.
"""

from __future__ import annotations

__all__ = [
    "ARRIVED",
    "BUS_CROSSED",
    "BUS_REDUCED",
    "GRAPH_DONE",
    "NODE_DONE",
    "NOTHING",
    "RENDEZVOUS",
    "SERVED",
    "SHARED_BUS",
    "Action",
]

Action = tuple[int, int, int]
"""(kind, a, b)"""

# Plain numbers, asked for every event, and far faster than an enum.
NODE_DONE = 0  # a: task, b: node
ARRIVED = 1  # b: stream; a message of its collective is complete
GRAPH_DONE = 2  # a: node, b: stream
RENDEZVOUS = 3  # b: what waited for the control message
BUS_CROSSED = 4  # b: stream; a packet has crossed the bus and is processed
BUS_REDUCED = 5  # b: stream, a: index of the packet; it now pays its reduction
SERVED = 6  # a: memory server
SHARED_BUS = 7  # a: side and event, b: rank

NOTHING: Action = (-1, 0, 0)
