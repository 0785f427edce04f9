# SPDX-License-Identifier: MIT
"""Garnet, written down as plainly as possible: every component in every cycle.

The order within a cycle, the arbiters and the delays are those of gem5 24.0's Garnet 3.0
(docs/garnet.md).  Slow, so that the event-driven C++ can be compared with it on random networks.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from astra_bridge.network.garnet.model import GarnetNetwork


@dataclass
class Vc:
    """An input VC of a router, or a VC of a network interface that sends."""

    flits: deque = field(default_factory=deque)  # (message, is_head, is_tail, ready cycle)
    out: int | None = None
    down: int | None = None
    filled: int = 0


class Out:
    """What the source of a link knows about the VCs at its end."""

    def __init__(self, buffers: list[int]) -> None:
        self.idle = [True] * len(buffers)
        self.credits = list(buffers)
        self.pointer = 0


class Reference:
    """``deliver()`` gives the delivery cycle of each (cycle, src, dst, flits, vnet) message."""

    def __init__(self, network: GarnetNetwork) -> None:
        self.net = network
        self.per_vnet = network.vcs_per_vnet
        self.vcs = self.per_vnet * len(network.vnets)
        self.buffers = [
            network.buffers_per_data_vc if vnet.type == "data" else network.buffers_per_ctrl_vc
            for vnet in network.vnets
            for _ in range(self.per_vnet)
        ]
        routers, nodes = len(network.routers), len(network.nodes)
        # A component is ("r", router) or ("n", node); ports in Garnet's order.
        self.inputs: list[list[tuple[str, int]]] = [[] for _ in range(routers)]
        self.outputs: list[list[tuple[str, int]]] = [[] for _ in range(routers)]
        self.latency: dict[tuple[tuple[str, int], tuple[str, int]], int] = {}
        for index, node in enumerate(network.nodes):
            self.inputs[node.router].append(("n", index))
            self.outputs[node.router].append(("n", index))
            self.latency["n", index, "r", node.router] = node.link_latency  # type: ignore[index]
            self.latency["r", node.router, "n", index] = node.link_latency  # type: ignore[index]
        for link in sorted(network.links, key=lambda one: one.src):
            self.inputs[link.dst].append(("r", link.src))
        for link in sorted(network.links, key=lambda one: one.dst):
            self.outputs[link.src].append(("r", link.dst))
            self.latency["r", link.src, "r", link.dst] = link.latency  # type: ignore[index]
        self.table = [[self.best_port(r, n) for n in range(nodes)] for r in range(routers)]

    def best_port(self, router: int, node: int) -> int:
        """Least total weight, then least weight of the link, then the lowest port."""
        target = self.net.nodes[node].router
        if router == target:
            return self.outputs[router].index(("n", node))
        far = dict.fromkeys(range(len(self.net.routers)), 10**9)
        far[target] = 0
        for _ in self.net.routers:
            for link in self.net.links:
                far[link.src] = min(far[link.src], link.weight + far[link.dst])
        ways = [
            (link.weight, self.outputs[router].index(("r", link.dst)))
            for link in self.net.links
            if link.src == router and link.weight + far[link.dst] == far[router]
        ]
        return min(ways)[1]

    def run(self, messages: list[tuple[int, int, int, int, int]], limit: int = 10**6) -> list[int]:
        net, vcs, per = self.net, self.vcs, self.per_vnet
        routers, nodes = range(len(net.routers)), range(len(net.nodes))
        deliver = [-1] * len(messages)
        flits: dict[int, list] = defaultdict(list)  # cycle -> (component, from, vc, flit)
        returns: dict[int, list] = defaultdict(list)  # cycle -> (component, to, vc, free)
        queue: dict[tuple[int, int], deque] = defaultdict(deque)
        starts: dict[int, list[int]] = defaultdict(list)
        for index, message in enumerate(messages):
            starts[message[0] + 1].append(index)
        ni = [[Vc() for _ in range(vcs)] for _ in nodes]
        ni_out = [Out(self.buffers) for _ in nodes]
        ni_next = [[0] * len(net.vnets) for _ in nodes]
        ni_last = [0] * len(nodes)
        vc = [[[Vc() for _ in range(vcs)] for _ in self.inputs[r]] for r in routers]
        out = [[Out(self.buffers) for _ in self.outputs[r]] for r in routers]
        next_vc = [[0] * len(self.inputs[r]) for r in routers]
        left = len(messages)

        def post(wires: dict, cycle: int, a: tuple[str, int], b: tuple[str, int], *what) -> None:
            # A credit runs against the link from b to a, with the same latency.
            key = (*a, *b) if wires is flits else (*b, *a)
            wires[cycle + 1 + self.latency[key]].append((b, a, *what))  # type: ignore[index]

        cycle = 0
        while left:
            assert cycle < limit, "no end"
            arrived, returned = flits.pop(cycle, []), returns.pop(cycle, [])
            for index in starts.pop(cycle, []):
                queue[messages[index][1], messages[index][4]].append(index)
            for n in nodes:
                me, router = ("n", n), ("r", net.nodes[n].router)
                for vnet in range(len(net.vnets)):
                    if not queue[n, vnet]:
                        continue
                    for _ in range(per):
                        k = vnet * per + ni_next[n][vnet]
                        ni_next[n][vnet] = (ni_next[n][vnet] + 1) % per
                        if ni_out[n].idle[k]:
                            index = queue[n, vnet].popleft()
                            count = messages[index][3]
                            ni_out[n].idle[k] = False
                            ni[n][k].filled = cycle
                            ni[n][k].flits.extend(
                                (index, f == 0, f == count - 1, 0) for f in range(count)
                            )
                            break
                for step in range(1, vcs + 1):
                    k = (ni_last[n] + step) % vcs
                    if not ni[n][k].flits or ni_out[n].credits[k] == 0:
                        continue
                    base = k // per * per
                    if net.vnets[k // per].ordered and any(
                        ni[n][o].flits and ni[n][o].filled < ni[n][k].filled
                        for o in range(base, base + per)
                    ):
                        continue
                    ni_last[n] = k
                    ni_out[n].credits[k] -= 1
                    post(flits, cycle, me, router, k, ni[n][k].flits.popleft())
                    break
                for to, source, k, flit in arrived:
                    if to == me:
                        post(returns, cycle, me, source, k, flit[2])
                        if flit[2]:
                            deliver[flit[0]] = cycle
                            left -= 1
                for to, _, k, free in returned:
                    if to == me:
                        ni_out[n].credits[k] += 1
                        ni_out[n].idle[k] |= free
            for to, source, k, flit in arrived:
                if to[0] != "r":
                    continue
                r, port = to[1], self.inputs[to[1]].index(source)
                own = vc[r][port][k]
                if flit[1]:
                    own.filled = cycle
                    own.out = self.table[r][messages[flit[0]][2]]
                own.flits.append((*flit[:3], cycle + net.routers[r] - 1))
            for to, source, k, free in returned:
                if to[0] == "r":
                    side = out[to[1]][self.outputs[to[1]].index(source)]
                    side.credits[k] += 1
                    side.idle[k] |= free
            for r in routers:
                requests: dict[int, list[tuple[int, int]]] = defaultdict(list)
                for port in range(len(self.inputs[r])):
                    for step in range(vcs):
                        k = (next_vc[r][port] + step) % vcs
                        if self.may_go(vc[r][port], k, out[r], cycle):
                            requests[vc[r][port][k].out or 0].append((port, k))
                            break
                for o in sorted(requests):
                    side, inputs = out[r][o], len(self.inputs[r])
                    port, k = min(requests[o], key=lambda q: (q[0] - side.pointer) % inputs)
                    own = vc[r][port][k]
                    base = k // per * per
                    if own.down is None:
                        own.down = next(i for i in range(base, base + per) if side.idle[i])
                        side.idle[own.down] = False
                    flit = own.flits.popleft()
                    side.credits[own.down] -= 1
                    post(returns, cycle, ("r", r), self.inputs[r][port], k, flit[2])
                    post(flits, cycle, ("r", r), self.outputs[r][o], own.down, flit)
                    if flit[2]:
                        own.out = own.down = None
                    side.pointer = (port + 1) % inputs
                    next_vc[r][port] = (k + 1) % vcs
            cycle += 1
        return deliver

    def may_go(self, port: list[Vc], k: int, outs: list[Out], cycle: int) -> bool:
        """Stage I of switch allocation: may the flit at the front of VC k request its output?"""
        own, base = port[k], k // self.per_vnet * self.per_vnet
        same = range(base, base + self.per_vnet)
        if not own.flits or own.flits[0][3] > cycle or own.out is None:
            return False
        side = outs[own.out]
        if own.down is None:
            if not any(side.idle[i] for i in same):
                return False
        elif side.credits[own.down] == 0:
            return False
        return not self.net.vnets[k // self.per_vnet].ordered or not any(
            port[o].flits
            and port[o].flits[0][3] <= cycle
            and port[o].out == own.out
            and port[o].filled < own.filled
            for o in same
        )
