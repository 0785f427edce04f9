# SPDX-License-Identifier: MIT
"""Double binary tree all-reduce.

Chunks alternate between two binary trees whose inner nodes are leaves of the other (Sanders, Speck
and Traeff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan", Parallel
Computing 2009): reduce to the root, then broadcast.  The root has one child, the tree below it is
balanced and numbered in order, with the root last (first tree) or first (second).
"""

from __future__ import annotations

from astra_bridge.collectives.schedule import (
    Algorithm,
    Built,
    Kind,
    Packet,
    Request,
    Schedule,
    Step,
    at_least_one,
)
from astra_bridge.program import PacketFlag, Variant


def tree(size: int, root_first: bool) -> tuple[list[int], list[list[int]]]:
    """Parent (-1 for the root) and children (left first) of each position."""
    parent = [-1] * size
    children: list[list[int]] = [[] for _ in range(size)]

    def grow(low: int, high: int, above: int) -> None:
        if low >= high:
            return
        # A perfect tree where the size allows it, as in ASTRA-sim; else as balanced as it gets.
        middle = (low + high) // 2
        parent[middle] = above
        children[above].append(middle)
        grow(low, middle, middle)
        grow(middle + 1, high, middle)

    if root_first:
        grow(1, size, 0)
    else:
        grow(0, size - 1, size - 1)
    return parent, children


def _part(up: int | None, down: tuple[int, ...], data: int) -> Schedule:
    """The part of a position with a parent (None for the root) and children so far away."""
    paid = PacketFlag.REDUCED | PacketFlag.SEND_BACK
    if up is not None and not down:
        return Schedule(
            steps=[Step(1, up, data, up, data)],
            packets=[Packet(data, PacketFlag.TO_MEMORY), Packet(data, PacketFlag(0))],
            window=1,
            end=2,
        )
    steps = [Step(0, recv_from=child, recv_bytes=data) for child in down]
    packets = [Packet(data, PacketFlag.REDUCED) for _ in down[:-1]] + [Packet(data, paid)]
    end = len(down)
    if up is not None:
        steps.append(Step(end, up, data, up, data))
        packets.append(Packet(data, paid))
        end += 1
    steps += [Step(end, child, data) for child in down]
    return Schedule(steps=steps, packets=packets, window=0, end=end, burst=len(steps))


def build(request: Request) -> Built:
    """One schedule for each shape of a part; always an all-reduce, whatever the phase asks for."""
    parent, children = tree(request.size, root_first=bool(request.variant))
    data = at_least_one(request.bytes)
    parts: dict[tuple[int | None, tuple[int, ...]], Schedule] = {}
    schedules = []
    for position, above in enumerate(parent):
        up = above - position if above >= 0 else None
        shape = up, tuple(child - position for child in children[position])
        if shape not in parts:
            parts[shape] = _part(*shape, data)
        schedules.append(parts[shape])
    return Built(request.bytes, tuple(schedules))


ALGORITHM = Algorithm(
    "doubleBinaryTree",
    "Up a binary tree, then down; chunks take turns with two trees.",
    frozenset({Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.REDUCE_SCATTER, Kind.ALL_TO_ALL}),
    build,
    variant=Variant.ALTERNATE,
    fast_bus_in_subgroups=False,
    # A tree only reduces and broadcasts; ASTRA-sim runs that whatever is asked.
    actual=frozenset({Kind.ALL_REDUCE}),
)
